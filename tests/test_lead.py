"""The lead of a store: a lock that goes with its holder, and a number that stops one who was only paused."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError

from agent import config, verbs
from agent import lead as leads
from agent.errors import CancelledError, LeadLostError, StoreBusyError, StoreError, StoreFullError, StoreSchemaError
from agent.lead import LEAST, leading, taken
from agent.lock import Spare, holder, locked, signed
from agent.model import Lead
from agent.respond import Responder
from agent.store import Store
from agent.workers import Pool
from agent.world import World
from tests.fraud import Desk, drilled, fraud
from tests.processes import until

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "w.db"


def now_led(path: Path) -> Lead | None:
    store = Store(path)
    with store.read() as ledger:
        return ledger.lead()


@contextmanager
def stalled(path: Path) -> Iterator[Store]:
    """A holder that took the lead and then renews nothing, as one that was paused."""
    with locked(path) as name:
        store = Store.open(path, patience=0.3)
        store.lead = taken(store, name)
        yield store
        store.close()


def displace(path: Path) -> Store:
    """What another process does to whoever leads now, without the waiting."""
    seen = now_led(path)
    assert seen is not None
    held = contextlib.ExitStack()
    return leads._displaced(path, seen, held, "it was paused")


# The lock


def test_the_lock_is_opened_by_the_kernel_and_names_its_holder_to_the_next(path):
    assert holder(path) is None
    with locked(path) as name:
        assert holder(path) == signed(path) and signed(path).name == name and signed(path).process == f"process {os.getpid()}"
        with pytest.raises(StoreBusyError, match=f"is held by process {os.getpid()}; stop it, or let it do the work"), locked(path):
            pass
    assert holder(path) is None
    with locked(path) as other:
        assert other != name


@pytest.mark.parametrize("text", [b"", b"process 12", b"\xff\xfe\n\x00" * 90, b"process 12\nabc\n"])
def test_whatever_stands_in_the_lock_file_it_is_the_kernel_that_says_who_has_it(path, text):
    Path(f"{path}.lock").write_bytes(text)
    assert holder(path) is None
    with locked(path) as name:
        assert Path(f"{path}.lock").read_text() == f"process {os.getpid()}\n{name}\n"


def test_who_locks_a_file_that_was_displaced_meanwhile_locks_the_one_in_its_place(path, monkeypatch):
    """Between opening the file and locking it another is put there: without a second look, two would have the lock."""
    spare, real, first = [], fcntl.flock, []

    def flock(handle: int, how: int) -> None:
        if not first:
            first.append(handle)
            Path(f"{path}.lock.other").touch()
            Path(f"{path}.lock.other").replace(f"{path}.lock")
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(path), pytest.raises(StoreBusyError), locked(path):
        spare.append(path)
    assert spare == []


def test_a_lock_that_is_put_in_anothers_place_takes_it_and_may_be_put_back(path):
    with locked(path) as name:
        spare = Spare(path)
        spare.put()
        assert holder(path) == signed(path) and signed(path).name == spare.name
        spare.back()
        assert signed(path).name == name
        spare.close()
        assert holder(path) is not None and sorted(file.name for file in path.parent.iterdir()) == ["w.db.lock"]


def test_what_one_left_who_was_killed_while_it_displaced_another_is_swept_away(path):
    with locked(path):
        killed = Spare(path)
        killed.put()
        os.close(killed._handle)  # as the kernel does
        Path(f"{path}.lock.abc.new").touch()
        Spare(path).close()
        assert sorted(one.name for one in path.parent.glob("*.lock*")) == ["w.db.lock", f"w.db.lock.{killed.name}.old"], "one is locked still"
    Spare(path).close()
    assert [one.name for one in path.parent.glob("*.lock*")] == ["w.db.lock"]


# The number


def test_who_was_displaced_reads_and_writes_nothing_more_and_says_who_leads(path):
    with stalled(path) as old:
        old.start(old.lead)
        old.write(lambda ledger: ledger.record(NOW, "note", "before"))
        new = displace(path)
        with pytest.raises(LeadLostError, match=rf"process {os.getpid()} leads it under number 2; this process, number 1, does nothing more"):
            old.write(lambda ledger: ledger.record(NOW, "note", "after"))
        with pytest.raises(LeadLostError), old.read():
            pass
        with pytest.raises(LeadLostError):
            old.submit(lambda ledger: None).result(10)
        assert old.lost and not new.lost
        new.write(lambda ledger: ledger.record(NOW, "note", "new"))
        with new.read() as ledger:
            assert [one.what for one in ledger.events("note")] == ["new", "before"]
        new.close()
        assert Store.open(path).verify() == []


def test_a_leader_that_does_nothing_finds_out_by_itself(path):
    with stalled(path) as old:
        old.start(old.lead)
        displace(path).close()
        until(lambda: old.lost, "its next beat is refused")


def test_the_lead_is_renewed_by_the_thread_that_writes(path):
    with leading(path) as store:
        assert store.lead is not None and store.lead.number == 1
        until(lambda: (found := now_led(path)) is not None and found.beat >= 2, "it is renewed")
    with leading(path) as store:
        assert store.lead is not None and store.lead.number == 2


def test_a_store_without_a_lead_is_anybodys_who_has_its_lock(path):
    store = Store.open(path).start()
    store.write(lambda ledger: ledger.take_lead("x", "process 1", NOW))
    assert store.write(lambda ledger: ledger.record(NOW, "note", "x")) == 1 and store.lost == ""
    store.close()


def test_what_was_done_in_memory_by_a_leader_that_lost_the_lead_meanwhile_is_let_go(path):
    """It could not write, so it could not renew either. What it told people it may tell again: letters go out at least once."""
    with stalled(path) as old:
        old.start(old.lead)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            assert old.submit(lambda ledger: ledger.record(NOW, "note", "in memory"), urgent=True).result(20)
            assert old.afloat
            other.execute("ROLLBACK")
            other.execute("UPDATE setting SET value = json_set(value, '$.name', 'another') WHERE key = 'lead'")
        until(lambda: old.lost, "it finds out when it would write")
        with pytest.raises(LeadLostError):
            old.write(lambda ledger: None)
        assert not old.afloat
    with Store(path).read() as ledger:
        assert ledger.events("note") == []


def test_a_disk_without_room_keeps_nobody_from_starting_and_then_nobody_displaces_it(path):
    Store.open(path).close()
    with locked(path) as name, contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        store = Store.open(path, patience=0.3)
        other.execute("BEGIN IMMEDIATE")
        assert taken(store, name) is None
        other.execute("ROLLBACK")
        store.start(None)
        assert store.write(lambda ledger: ledger.record(NOW, "note", "x")) and leads._seen(path) is None
        store.close()


# Standing by


def test_of_several_who_stand_by_one_leads(path):
    """The paused holder keeps its lock; the others each hold a spare one, and number and lock go to one of them together."""
    said: list[str] = []
    over = threading.Event()

    def stand_by(_: int) -> int:
        with contextlib.suppress(CancelledError), leading(path, LEAST, said.append, over.is_set) as store:
            try:
                until(lambda: sum("standing by" in line for line in said) == 3, "the others stood by too")
                assert store.lead is not None and signed(path).name == store.lead.name and "has not renewed its lead for 3s" in store.took
            finally:
                over.set()
            return store.lead.number
        return 0

    with stalled(path), ThreadPoolExecutor(3) as pool:
        assert sorted(pool.map(stand_by, range(3))) == [0, 0, 2]
    assert [line for line in said if "standing by" not in line and "is led again" not in line] == []
    assert [one.name for one in path.parent.glob("*.lock*")] == ["w.db.lock"]


def test_who_renews_the_lead_is_not_displaced_however_long_one_stands_by(path):
    with leading(path) as store:
        looks = [leads._seen(path)]
        for _ in range(2):
            until(lambda: (found := leads._seen(path)) is not None and found != looks[-1], "it is renewed")
            looks.append(leads._seen(path))
        seen = looks[0]
        assert seen is not None
        with contextlib.ExitStack() as held, pytest.raises(StoreBusyError, match="is led again"):
            leads._displaced(path, seen, held, "")
        assert store.write(lambda ledger: 7) == 7 and signed(path).name == store.lead.name


@pytest.mark.parametrize("why", ["another holds the file", "the commit fails"])
def test_where_the_lead_cannot_be_taken_over_the_lock_stays_where_it_was(path, why):
    with stalled(path) as old, contextlib.ExitStack() as fault:
        if why == "another holds the file":
            other = fault.enter_context(contextlib.closing(sqlite3.connect(path, isolation_level=None)))
            other.execute("BEGIN IMMEDIATE")
        else:
            fault.enter_context(commits_fail())
        with pytest.raises(StoreError):
            displace(path)
        fault.close()
        assert old.lead is not None and signed(path).name == old.lead.name
        old.start(old.lead)
        assert old.write(lambda ledger: 7) == 7 and [one.name for one in path.parent.glob("*.lock*")] == ["w.db.lock"]


@contextmanager
def commits_fail() -> Iterator[None]:
    """As on a disk that is full when the log would grow."""

    def fail(conn: Connection, cursor: object, statement: str, *_: object) -> None:
        if statement == "COMMIT":
            raise OperationalError(statement, None, sqlite3.OperationalError("database or disk is full"))

    event.listen(Engine, "before_cursor_execute", fail)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", fail)


def test_who_holds_the_lock_and_leads_by_no_number_is_never_displaced(path):
    """It is starting, or takes the store to a new schema: the number that stands there is that of one before it."""
    with stalled(path):
        pass
    with locked(path):
        assert now_led(path) is not None and leads._seen(path) is None
    path.unlink()
    assert leads._seen(path) is None and not path.exists(), "looking makes no store"


def test_who_was_displaced_before_it_took_its_number_does_not_take_it(path):
    with locked(path) as name:
        store = Store.open(path)
        spare = Spare(path)
        spare.put()
        with pytest.raises(LeadLostError, match="was paused for too long"):
            taken(store, name)
        spare.close()
        store.close()


def test_a_program_that_does_not_know_the_schema_does_not_take_the_lead_from_one_that_does(path):
    with stalled(path) as old:
        with contextlib.closing(sqlite3.connect(path)) as other, other:
            other.execute("UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(StoreSchemaError, match="made by a newer Watchkeeper"):
            displace(path)
        assert old.lead is not None and signed(path).name == old.lead.name


def test_a_full_disk_is_said_before_a_lock_is_taken_that_nobody_could_read(path, monkeypatch):
    monkeypatch.setattr(os, "pwrite", lambda handle, text, at: 1)
    with pytest.raises(StoreFullError, match="nobody could tell who holds it; make room"), locked(path):
        pass
    monkeypatch.undo()
    assert holder(path) is None


# A rollback whose agent loses the lead after any of its commits


def test_a_lead_lost_after_any_durable_commit_of_a_rollback_has_exactly_one_effect(tmp_path):
    """The n-th commit, for n = 1, 2, ... until one run gets through: then another process leads, and goes on with what the first one left."""
    with fraud(tmp_path) as desk:
        drilled(desk)
        for n in range(1, 40):
            desk.server.served, desk.server.flips[:] = "2", []
            with agent(desk) as first:
                first.see()
                with contextlib.suppress(LeadLostError):
                    lost_after(first, n)
                    verbs.start(first.world, "rollback", "fraud", {"to": "1"}, "ada")
                    first.respond()
                lost = first.world.store.lost
            with agent(desk) as other:
                run = other.respond()
            assert (run.state, desk.server.flips) == ("succeeded", ["1"]), f"lost after commit {n}"
            if not lost:
                break
        assert n >= 7, "a rollback makes more durable commits than this"
        assert desk.world.store.verify() == []


def lost_after(desk: Desk, n: int) -> None:
    left = [n]

    def mark(point: str) -> None:
        left[0] -= point == "after"
        if (point, left[0]) == ("after", 0):
            Store(desk.world.store.path).once(lambda ledger: ledger.take_lead("another", "process 2", NOW))

    desk.world.store._mark = mark


@contextmanager
def agent(desk: Desk) -> Iterator[Desk]:
    """An agent that begins to lead that store, and takes up what was under way."""
    store, pool = Store.open(desk.world.store.path), Pool(1)
    store.start(store.once(lambda ledger: ledger.take_lead(uuid4().hex, "process 1", NOW)))
    world = World(config.load(desk.folder / "watchkeeper.yaml"), store, pool)
    responder = Responder(world)
    responder.recover()
    try:
        yield Desk(desk.server, desk.folder, world, responder)
    finally:
        responder.stop()
        pool.close()
        world.connections.close()
        store.close()
