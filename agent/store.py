"""The store: one SQLite file in WAL mode, one thread that writes it, and any number of readers."""

from __future__ import annotations

import contextlib
import logging
import queue
import random
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, inspect
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import StaticPool

from agent import _proof
from agent import _rows as rows
from agent._ledger import Ledger, say
from agent.errors import LeadLostError, StoreBusyError, StoreCorruptError, StoreError, StoreFullError
from agent.lock import locked
from agent.model import UTC, Lead, Signal

log = logging.getLogger(__name__)
T = TypeVar("T")
Work = Callable[[Ledger], T]
NETWORK_FILE_SYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "fuse.s3fs", "glusterfs", "ceph", "lustre", "afs")
GATHER = 0.05  # seconds that work which is not urgent waits for company
BATCH = 500
BEAT = 1.0  # seconds between two renewals of the lead
ROOM = 50_000  # pieces of work that may wait before the oldest looks are let go


@dataclass(slots=True)
class _Job:
    work: Work[Any]
    urgent: bool
    durable: bool
    reads: bool = False  # nothing to do again on disk
    future: Future[Any] = field(default_factory=Future)


_Done = list[tuple[_Job, Any, BaseException | None]]  # what each piece of work gave back, or why it was undone


class Store:
    """Rows kept, words out. `write` hands work to the writer thread; `read` is a snapshot.

    `mark` is called with "before" and "after" around every durable commit: crash tests end the process there.
    """

    def __init__(self, path: Path, *, patience: float = 5.0, mark: Callable[[str], None] = lambda _: None) -> None:
        self.path = path
        self.aside: Path | None = None  # where a corrupt file was put
        self.errors = 0  # commits that failed
        self.lead: Lead | None = None  # under which it is written; None: by whoever holds its lock
        self.took = ""  # how the lead was taken over from another process
        self.lost = ""  # how it was lost: then nothing is read or written any more
        self.written_at = time.monotonic()
        self._patience, self._mark = patience, mark
        self._engine = _engine(path)
        self._signals: dict[str, Signal] = {}
        self._link: str | None = None
        self._numbers: Mapping[str, int] = {}
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._afloat: _Afloat | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._beat_at = 0.0

    # Opening and closing

    @classmethod
    def open(cls, path: str | Path, *, now: datetime | None = None, set_aside: bool = False, **more: Any) -> Store:
        """The store at that path, made if it is not there, checked if it is.

        StoreCorruptError when the file fails its integrity check, unless `set_aside` renames it and starts afresh; StoreSchemaError
        when a newer Watchkeeper made it; StoreError on a network file system, where WAL does not work.
        """
        path = Path(path)
        refuse_network_file_system(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        store = cls(path, **more)
        try:
            store._check()
        except StoreCorruptError:
            if not set_aside:
                raise
            store._engine.dispose()
            aside = _put_aside(path, now or datetime.now(UTC))
            store = cls(path, **more)
            store.aside = aside
            store._check()
        return store

    def _check(self) -> None:
        from agent import migrations

        try:
            with self._engine.connect() as conn:
                if inspect(conn).get_table_names():
                    said = conn.exec_driver_sql("PRAGMA quick_check(1)").scalar()
                    if said != "ok":
                        raise StoreCorruptError(f"{self.path} fails its integrity check ({said}); restore a backup, or start with a new file")
                migrations.bring_up(conn, self.path)
        except DatabaseError as problem:
            raise _translated(problem, self.path) from problem

    def once(self, work: Work[T]) -> T:
        """Do the work on disk in a transaction of its own, before there is a writer. StoreBusyError or StoreFullError when that cannot be."""
        job, began = _Job(work, True, False), time.monotonic()
        while True:
            try:
                _settle(self._transact(self._engine, [job], False, self._signals))
                done: T = job.future.result()
                return done
            except DatabaseError as problem:
                if not _locked(problem) or time.monotonic() - began > self._patience:
                    raise _translated(problem, self.path) from problem

    def start(self, lead: Lead | None = None) -> Store:
        """Start the writer. Whoever writes must hold the lock of the store (`locked`).

        With `lead`, it is renewed every second, and every transaction begins by looking whether it is the newest still: LeadLostError, and `lost`
        says why, when it is not.
        """
        if self._thread is None:
            self.lead = lead
            with self.read() as ledger:
                self._signals = {signal.watch: signal for signal in ledger.all_signals()}
            self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
            self._thread.start()
        return self

    def close(self, grace: float = 10.0) -> None:
        """Write what waits and stop."""
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(grace)
        self._engine.dispose()

    # Writing and reading

    def write(self, work: Work[T], *, durable: bool = False, within: float = 30.0) -> T:
        """Do the work in a transaction now and give back what it returns. `durable`: on the disk before this returns.

        StoreBusyError when the store cannot be written `within` seconds; StoreFullError when durable work finds no room.
        """
        future = self.submit(work, urgent=True, durable=durable)
        try:
            return future.result(timeout=within)
        except TimeoutError:
            raise StoreBusyError(f"{self.path} could not be written within {within:g} s; is another program holding it?") from None

    def submit(self, work: Work[T], *, urgent: bool = False, durable: bool = False) -> Future[T]:
        """Hand work to the writer; what is not urgent may wait 50 ms for company."""
        job = _Job(work, urgent, durable)
        if self._closed:
            job.future.set_exception(StoreError(f"{self.path} is closed; nothing more is written to it"))
        elif self._jobs.qsize() > ROOM and not urgent:
            job.future.set_exception(StoreFullError(f"{ROOM} pieces of work already wait for {self.path}; this look is let go"))
        else:
            self._jobs.put(job)
        return job.future

    @contextlib.contextmanager
    def read(self) -> Iterator[Ledger]:
        """A snapshot to read from."""
        try:
            with self._engine.connect() as conn:
                say(conn, "BEGIN")
                try:
                    ledger = Ledger(conn)
                    self._must_lead(ledger)
                    yield ledger
                finally:
                    with contextlib.suppress(DatabaseError):
                        say(conn, "ROLLBACK")
        except DatabaseError as problem:
            raise _translated(problem, self.path) from problem

    def see(self, work: Work[T], *, within: float = 30.0) -> T:
        """What `work` reads: from a snapshot, or from memory while the store is kept there. It must not write."""
        if not self._afloat:
            with self.read() as ledger:
                return work(ledger)
        job = _Job(work, True, False, reads=True)
        self._jobs.put(job)
        try:
            found: T = job.future.result(timeout=within)
        except TimeoutError:
            raise StoreBusyError(f"{self.path} could not be read within {within:g} s") from None
        return found

    def signal(self, watch: str) -> Signal | None:
        """The watch's signal as the writer knows it; no query."""
        return self._signals.get(watch)

    @property
    def signals(self) -> dict[str, Signal]:
        """All signals as the writer knows them (a copy)."""
        return dict(self._signals)

    @property
    def afloat(self) -> str:
        """Why the store is kept in memory at the moment; empty when it is on disk."""
        return self._afloat.why if self._afloat else ""

    @property
    def backlog(self) -> int:
        """Pieces of work not yet on disk."""
        return self._jobs.qsize() + (len(self._afloat.jobs) if self._afloat else 0)

    # The writer

    def _run(self) -> None:
        going = True
        while going:
            batch, going = self._gather()
            if self.lead and not self.afloat and time.monotonic() >= self._beat_at:
                batch.append(_Job(Ledger.beat, urgent=False, durable=False, reads=True))
                self._beat_at = time.monotonic() + BEAT
            if batch:
                self._commit(batch)
            elif self._afloat:
                self._land()
        if self._afloat:
            self._land()

    def _gather(self) -> tuple[list[_Job], bool]:
        batch: list[_Job] = []
        until = time.monotonic() + (BEAT if self._afloat or self.lead else 3600.0)
        while len(batch) < BATCH:
            try:
                job = self._jobs.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return batch, True
            if job is None:
                return batch, False
            batch.append(job)
            until = min(until, time.monotonic() + (0.0 if job.urgent else GATHER))
        return batch, True

    def _commit(self, batch: list[_Job]) -> None:
        if self._afloat and not self._land():
            self._afloat.take(batch, self._signals)
            return
        began = time.monotonic()
        while True:
            try:
                done = self._transact(self._engine, batch, any(job.durable for job in batch), self._signals)
                break
            except Exception as problem:  # noqa: BLE001 - whatever work does, the writer goes on
                if not _of_the_disk(problem):
                    return _one_by_one(self._commit, batch, problem)
                self.errors += 1
                if _locked(problem) and time.monotonic() - began < self._patience:
                    time.sleep(random.uniform(0.005, 0.05))  # noqa: S311 - jitter, not a secret
                    continue
                self._afloat = _Afloat(self._engine, self._signals, f"{_translated(problem, self.path)}")
                self._afloat.take(batch, self._signals)
                return
        _settle(done)

    def _transact(self, engine: Engine, batch: list[_Job], durable: bool, signals: dict[str, Signal]) -> _Done:
        with engine.connect() as conn:
            _synchronous(conn, "FULL" if durable else "NORMAL")
            say(conn, "BEGIN IMMEDIATE")
            ledger = Ledger(conn, signals, self._link, self._numbers)
            try:
                self._must_lead(ledger)
                alone = len(batch) == 1 and not self._afloat  # then its failure undoes all there is
                done: _Done = [(job, job.work(ledger), None) for job in batch] if alone else _done(ledger, batch)
                ledger.flush()
                if durable:
                    self._mark("before")
                conn.exec_driver_sql("COMMIT")
            except BaseException:
                with contextlib.suppress(DatabaseError):
                    say(conn, "ROLLBACK")
                raise
        if durable:
            self._mark("after")
        _update(signals, ledger)
        self._link, self._numbers = ledger.link, ledger.numbers
        self.written_at = time.monotonic()
        return done

    def _must_lead(self, ledger: Ledger) -> None:
        if self.lead is None or ledger.leads(self.lead):
            return
        now = ledger.lead()
        whose = f"{now.by} leads it under number {now.number}" if now else "nobody leads it"
        self.lost = f"{self.path}: {whose}; this process, number {self.lead.number}, does nothing more"
        raise LeadLostError(self.lost)

    def _land(self) -> bool:
        """Write on disk what was done in memory meanwhile; False while that is not possible."""
        assert self._afloat is not None
        if time.monotonic() < self._afloat.try_at:
            return False
        signals = dict(self._afloat.signals_before)  # what is seen meanwhile stays what memory has
        try:
            self._transact(self._engine, list(self._afloat.jobs), True, signals)
        except LeadLostError:
            log.error("%s; %d pieces of work that were done in memory are not written", self.lost, len(self._afloat.jobs))
            self._afloat = None
            return True
        except Exception:
            log.exception("%s cannot take yet what was done in memory", self.path)
            self.errors += 1
            self._afloat.try_at = time.monotonic() + 1.0
            return False
        self._signals = signals
        self._afloat.engine.dispose()
        self._afloat = None
        return True

    # Looking after the file

    def backup(self, to: Path) -> None:
        """A consistent copy, made while the store is in use."""
        if to.exists():
            raise StoreError(f"{to} exists already; name a file that does not")
        with contextlib.closing(sqlite3.connect(self.path)) as source, contextlib.closing(sqlite3.connect(to)) as copy:
            source.backup(copy)

    def verify(self) -> list[str]:
        """Everything wrong with the file or with its chain of evidence; an empty list when nothing is."""
        with self.read() as ledger:
            found = [str(row[0]) for row in ledger.conn.exec_driver_sql("PRAGMA integrity_check(20)") if row[0] != "ok"]
            return found or list(_proof.broken(ledger))


class _Afloat:
    """The store in memory while the disk cannot be written: looking and telling go on, and all work is done again on disk later."""

    def __init__(self, disk: Engine, signals: dict[str, Signal], why: str) -> None:
        self.why, self.jobs, self.try_at = why, deque[_Job](maxlen=ROOM), time.monotonic() + 1.0
        self.signals_before = dict(signals)
        self.engine = create_engine(
            "sqlite://", json_serializer=rows.stored, poolclass=StaticPool, connect_args={"check_same_thread": False, "isolation_level": None}
        )
        rows.METADATA.create_all(self.engine)
        with contextlib.suppress(DatabaseError), disk.connect() as source, self.engine.connect() as target:
            _seed(source, target)

    def take(self, batch: list[_Job], signals: dict[str, Signal]) -> None:
        """Do the work in memory, and keep what succeeded to be done again on disk."""
        try:
            done, seen = self._transact(batch, signals)
        except Exception as problem:  # noqa: BLE001 - as on disk
            return _one_by_one(lambda one: self.take(one, signals), batch, problem)
        _update(signals, seen)
        self.jobs.extend(job for job, _, problem in done if problem is None and not job.reads)
        self.forget(ROOM)
        _settle(done)

    def forget(self, keep: int) -> None:
        """Let all but the newest rows of what grows go: memory is no disk."""
        with self.engine.connect() as conn:
            for table, key in (("finding", "id"), ("event", "id"), ("evidence", "seq")):
                conn.exec_driver_sql(f"DELETE FROM {table} WHERE {key} <= (SELECT max({key}) FROM {table}) - {keep:d}")  # noqa: S608

    def _transact(self, batch: list[_Job], signals: dict[str, Signal]) -> tuple[_Done, Ledger]:
        refused = StoreFullError(f"nothing that changes the world is begun: {self.why}")
        with self.engine.connect() as conn:
            conn.exec_driver_sql("BEGIN")
            ledger = Ledger(conn, signals)
            try:
                done: _Done = [(job, None, refused) for job in batch if job.durable]
                done += _done(ledger, [job for job in batch if not job.durable])
                ledger.flush()
                conn.exec_driver_sql("COMMIT")
            except BaseException:
                conn.exec_driver_sql("ROLLBACK")
                raise
        return done, ledger


def _seed(source: Connection, target: Connection) -> None:
    """Copy what judging needs: the small tables whole, incidents and runs from the newest back."""
    for table in rows.METADATA.sorted_tables:
        if table.name in ("finding", "event", "evidence", "file", "rollup", "checkpoint"):
            continue
        query = table.select()
        if table.name in ("incident", "run", "letter", "served"):
            query = query.order_by(table.c.id.desc()).limit(1000)
        copied = [dict(row) for row in source.execute(query).mappings()]
        if copied:
            target.execute(table.insert(), copied)


def _synchronous(conn: Connection, how: str) -> None:
    """FULL: the next commit is on the disk before it returns; NORMAL: a power loss may take the last ones. A connection keeps to what it was told."""
    if conn.info.get("synchronous") != how:
        say(conn, f"PRAGMA synchronous={how}")
        conn.info["synchronous"] = how


def _one_by_one(commit: Callable[[list[_Job]], None], batch: list[_Job], problem: Exception) -> None:
    """Something in the batch cannot be written: alone, each piece of work fails or succeeds for itself."""
    for job in batch if len(batch) > 1 else ():
        commit([job])
    if len(batch) == 1 and not batch[0].future.done():
        batch[0].future.set_exception(problem)


def _done(ledger: Ledger, batch: list[_Job]) -> _Done:
    """All of it together, which costs least; when that fails, each piece of work alone: its failure undoes itself and nobody else's."""
    if len(batch) > 1:
        with contextlib.suppress(_Undone), _undoing(ledger):
            return [(job, job.work(ledger), None) for job in batch]
    return [(job, *_attempt(ledger, job)) for job in batch]


def _attempt(ledger: Ledger, job: _Job) -> tuple[Any, BaseException | None]:
    try:
        with _undoing(ledger):
            return job.work(ledger), None
    except _Undone as undone:
        return None, undone.__cause__


class _Undone(Exception):
    """Work raised what is its own fault, and was undone."""


@contextlib.contextmanager
def _undoing(ledger: Ledger) -> Iterator[None]:
    try:
        with ledger.apart():
            yield
    except Exception as problem:
        if _of_the_disk(problem):
            raise
        raise _Undone from problem


def _update(signals: dict[str, Signal], ledger: Ledger) -> None:
    """What a transaction that is kept leaves in memory."""
    signals.update(ledger.signals)
    for watch in ledger.forgotten:
        signals.pop(watch, None)


def _settle(done: _Done) -> None:
    for job, result, problem in done:
        if job.future.done():
            continue
        if problem is not None:
            job.future.set_exception(problem)
        else:
            job.future.set_result(result)


def _engine(path: Path) -> Engine:
    # Transactions are begun by hand: pysqlite's own would begin them too late, and never IMMEDIATE.
    link = {"timeout": 0.5, "isolation_level": None, "check_same_thread": False}
    engine = create_engine(f"sqlite:///{path}", json_serializer=rows.stored, connect_args=link)

    @event.listens_for(engine, "connect")
    def _(conn: sqlite3.Connection, _record: object) -> None:
        with contextlib.suppress(sqlite3.OperationalError):  # a read-only or full disk is told by the first write
            conn.execute("PRAGMA journal_mode=WAL")

    return engine


def _locked(problem: DatabaseError) -> bool:
    return "locked" in str(problem.orig) or "busy" in str(problem.orig)


def _of_the_disk(problem: Exception) -> TypeGuard[DatabaseError]:
    """Whether the file, and not the work, is at fault: locked, full, read-only, damaged."""
    return isinstance(problem, DatabaseError) and type(_translated(problem, Path())) is not StoreError


def _translated(problem: DatabaseError, path: Path) -> StoreError:
    said = str(problem.orig)
    if _locked(problem):
        return StoreBusyError(f"{path} is locked by another program ({said})")
    if "full" in said or "readonly" in said or "read-only" in said or "disk I/O" in said or "unable to open" in said:
        return StoreFullError(f"{path} cannot be written ({said}); make room or make it writable")
    if "malformed" in said or "not a database" in said or "corrupt" in said:
        return StoreCorruptError(f"{path} is damaged ({said}); restore a backup, or start with a new file")
    return StoreError(f"{path}: {said}")


def _put_aside(path: Path, now: datetime) -> Path:
    aside = path.with_name(f"{path.name}.corrupt-{now:%Y%m%dT%H%M%SZ}")
    for ending in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{ending}").rename(f"{aside}{ending}")
    return aside


def refuse_network_file_system(path: Path, mounts: str | None = None) -> None:
    """StoreError when the path lies on a file system that is shared over a network: WAL needs shared memory."""
    if mounts is None:
        table = Path("/proc/mounts")
        mounts = table.read_text() if table.exists() else ""
    where, best, kind = str(path.absolute().parent), "", ""
    for line in mounts.splitlines():
        point, system = [*line.split(" "), "", "", ""][1:3]
        inside = where == point or where.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, system
    if kind in NETWORK_FILE_SYSTEMS:
        raise StoreError(f"{path} lies on {kind} ({best}), where SQLite's WAL loses data; put the store on a local disk (store: /var/lib/...)")


__all__ = ["Ledger", "Store", "locked", "refuse_network_file_system"]
