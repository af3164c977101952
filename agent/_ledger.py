"""What can be written to and read from the store, in one transaction: every statement of SQL there is."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Table, Text, and_, bindparam, delete, func, insert, or_, select, text, type_coerce, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import DatabaseError

from agent import _rows as rows
from agent.errors import LeaseLostError
from agent.model import (
    ACTIVE,
    Approval,
    Baseline,
    Event,
    Finding,
    Incident,
    Json,
    Lead,
    Letter,
    Member,
    Plan,
    Run,
    Served,
    Signal,
    Silence,
    Status,
    StepRow,
    Window,
    digest,
    plan_from_json,
    reading_from_json,
    speakable,
    to_json,
)

T = TypeVar("T")


def _table(row: Any) -> Table:
    return cast(Table, row.__table__)


FINDING, MEMORY, FILE, SIGNAL = _table(rows.FindingRow), _table(rows.MemoryRow), _table(rows.FileRow), _table(rows.SignalRow)
ROLLUP, INCIDENT, MEMBER, EVENT = _table(rows.RollupRow), _table(rows.IncidentRow), _table(rows.MemberRow), _table(rows.EventRow)
EVIDENCE, CHECKPOINT, RUN, STEP = _table(rows.EvidenceRow), _table(rows.CheckpointRow), _table(rows.RunRow), _table(rows.StepTable)
LEASE, SERVED, GOOD, LETTER = _table(rows.LeaseRow), _table(rows.ServedRow), _table(rows.GoodRow), _table(rows.LetterRow)
SILENCE, SETTING, BASELINE = _table(rows.SilenceRow), _table(rows.SettingRow), _table(rows.BaselineRow)
CHAINED = {"finding": FINDING, "event": EVENT}
APPEND = {name: insert(table) for name, table in (*CHAINED.items(), ("evidence", EVIDENCE))}
LAST_NUMBER = text("SELECT seq FROM sqlite_sequence WHERE name = :kind")
GENESIS = "0" * 64
OVER = ("resolved", "reviewed")
LEADER = "SELECT json_extract(value, '$.name') FROM setting WHERE key = 'lead'"
BEAT = "UPDATE setting SET value = json_set(value, '$.beat', json_extract(value, '$.beat') + 1) WHERE key = 'lead'"

_SIGNAL_COLUMNS = [column.name for column in SIGNAL.columns]


def _put_signals() -> Any:
    statement = upsert(SIGNAL)
    return statement.on_conflict_do_update(
        index_elements=["watch"], set_={name: statement.excluded[name] for name in _SIGNAL_COLUMNS if name != "watch"}
    )


def _put_rollups() -> Any:
    new = upsert(ROLLUP)
    put = new.excluded
    return new.on_conflict_do_update(
        index_elements=["watch", "minute_at"],
        set_={
            "looks": ROLLUP.c.looks + put.looks,
            "good": ROLLUP.c.good + put.good,
            "bad": ROLLUP.c.bad + put.bad,
            "blind": ROLLUP.c.blind + put.blind,
            "readings": ROLLUP.c.readings + put.readings,
            "low": func.min(func.coalesce(ROLLUP.c.low, put.low), func.coalesce(put.low, ROLLUP.c.low)),
            "high": func.max(func.coalesce(ROLLUP.c.high, put.high), func.coalesce(put.high, ROLLUP.c.high)),
            "total": ROLLUP.c.total + put.total,
        },
    )


def _put_step() -> Any:
    statement, keys = upsert(STEP), ("run", "n", "undo")
    return statement.on_conflict_do_update(
        index_elements=keys, set_={column.name: statement.excluded[column.name] for column in STEP.columns if column.name not in keys}
    )


def _save_run() -> Any:
    return (
        update(RUN)
        .where(RUN.c.id == bindparam("number"))
        .values({column.name: bindparam(column.name) for column in RUN.columns if column.name != "id"})
    )


WHOLE_RUN = [column if column.name != "plan" else type_coerce(RUN.c.plan, Text).label("plan") for column in RUN.columns]  # its plan as it is written

# Made once: a run saves a step a dozen times, and to build the statement anew would cost as much as to execute it.
PUT_SIGNALS, PUT_ROLLUPS, PUT_STEP, SAVE_RUN = _put_signals(), _put_rollups(), _put_step(), _save_run()
ONE_RUN = select(*WHOLE_RUN).where(RUN.c.id == bindparam("number"))
STEPS = select(STEP).where(STEP.c.run == bindparam("number")).order_by(STEP.c.undo, STEP.c.n)
LEASES = select(LEASE).where(LEASE.c.run == bindparam("number"))


def _make(kind: type[T], row: Mapping[Any, Any], **more: Any) -> T:
    """A dataclass from a row: columns of the same name, what differs given by hand."""
    names = kind.__dataclass_fields__  # type: ignore[attr-defined]  # it is a dataclass
    return kind(**{**{name: row[name] for name in row if name in names}, **more})


class Ledger:
    """One transaction (or one snapshot, for reading). Signals are read from memory first: the writer is the only one who changes them."""

    def __init__(
        self, conn: Connection, signals: dict[str, Signal] | None = None, link: str | None = None, numbers: Mapping[str, int] | None = None
    ) -> None:
        self.conn = conn
        self._known = signals
        self.signals: dict[str, Signal] = {}  # put in this transaction, not yet written
        self.forgotten: set[str] = set()
        self._rollups: dict[tuple[str, datetime], tuple[Any, ...]] = {}
        self.link = link  # the last link of the evidence chain, once read
        self._rows: dict[str, list[dict[str, Any]]] = {}  # of the chain and what it seals: appended in this transaction, not yet written
        self.numbers = dict(numbers or {})  # the last id of each kind, once read

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """What is done inside is undone when it raises, and nothing else is."""
        self.append()
        before = dict(self.signals), set(self.forgotten), dict(self._rollups), self.link, dict(self.numbers)
        say(self.conn, "SAVEPOINT apart")
        try:
            yield
            self.append()
        except Exception:
            with contextlib.suppress(DatabaseError):  # a disk that failed may have undone all of it
                say(self.conn, "ROLLBACK TO apart")
            self.signals, self.forgotten, self._rollups, self.link, self.numbers = before
            self._rows = {}
            raise
        say(self.conn, "RELEASE apart")

    # Signals, roll-ups, memory

    def signal(self, watch: str) -> Signal | None:
        if watch in self.signals:
            return self.signals[watch]
        if self._known is not None:
            return None if watch in self.forgotten else self._known.get(watch)
        row = self.one(select(SIGNAL).where(SIGNAL.c.watch == watch))
        return None if row is None else _make(Signal, row, status=Status(row["status"]))

    def all_signals(self) -> list[Signal]:
        """Every watch's signal, as last written."""
        return [_make(Signal, row, status=Status(row["status"])) for row in self._all(select(SIGNAL).order_by(SIGNAL.c.watch))]

    def put_signal(self, signal: Signal) -> None:
        self.signals[signal.watch] = signal
        self.forgotten.discard(signal.watch)

    def forget_signal(self, watch: str) -> None:
        """Drop a watch that the configuration no longer names."""
        self.conn.execute(delete(SIGNAL).where(SIGNAL.c.watch == watch))
        self.signals.pop(watch, None)
        self.forgotten.add(watch)

    def roll_up(self, watch: str, at: datetime, good: bool, value: float | None, *, bad: bool = False, blind: bool = False) -> None:
        """Count one look into its minute: it was good, `bad` (a fail), `blind` (it saw nothing of the world), or none of these (a warning)."""
        key = (watch, at.replace(second=0, microsecond=0))
        looks, fine, ill, unseen, readings, low, total, high = self._rollups.get(key, (0, 0, 0, 0, 0, None, 0.0, None))
        if value is not None and math.isfinite(value):
            low, high = value if low is None else min(low, value), value if high is None else max(high, value)
            readings, total = readings + 1, total + value
        self._rollups[key] = (looks + 1, fine + good, ill + bad, unseen + blind, readings, low, total, high)

    def rollups(self, watch: str, since: datetime) -> list[Mapping[str, Any]]:
        """Minute rows of a watch: looks, good, bad, blind, readings, low, total, high."""
        return self._all(select(ROLLUP).where(ROLLUP.c.watch == watch, ROLLUP.c.minute_at >= since).order_by(ROLLUP.c.minute_at))

    def looks(self, watch: str, since: datetime) -> tuple[int, int, datetime | None]:
        """How often a watch looked, how often that was good, and the first minute of it."""
        counted = func.sum(ROLLUP.c.looks).label("looks"), func.sum(ROLLUP.c.good).label("good"), func.min(ROLLUP.c.minute_at).label("first")
        row = self.one(select(*counted).where(ROLLUP.c.watch == watch, ROLLUP.c.minute_at >= since))
        return (0, 0, None) if row is None or row["first"] is None else (row["looks"], row["good"], row["first"])

    def first_look(self, watch: str, since: datetime) -> datetime | None:
        """The first minute since then in which a watch looked."""
        row = self.one(select(func.min(ROLLUP.c.minute_at).label("first")).where(ROLLUP.c.watch == watch, ROLLUP.c.minute_at >= since))
        return None if row is None else row["first"]

    def saw(self, watch: str, since: datetime, until: datetime) -> bool:
        """Whether a watch saw something of the world, good or not, in the minutes between two times."""
        within = (ROLLUP.c.watch == watch, ROLLUP.c.minute_at >= since, ROLLUP.c.minute_at <= until)
        return self.one(select(ROLLUP.c.looks).where(*within, ROLLUP.c.looks > ROLLUP.c.blind).limit(1)) is not None

    def bad_minutes(self, watch: str, since: datetime) -> list[Mapping[str, Any]]:
        """The minutes in which a watch found something bad, oldest first: looks, bad, blind, and `next_at`, when it looked next."""
        later = ROLLUP.alias("later")
        after = select(func.min(later.c.minute_at)).where(later.c.watch == watch, later.c.minute_at > ROLLUP.c.minute_at)
        columns = (ROLLUP.c.minute_at, ROLLUP.c.looks, ROLLUP.c.bad, ROLLUP.c.blind, after.scalar_subquery().label("next_at"))
        where = (ROLLUP.c.watch == watch, ROLLUP.c.minute_at >= since, text("rollup.bad > 0"))  # as the index has it
        return self._all(select(*columns).where(*where).order_by(ROLLUP.c.minute_at))

    def append(self) -> None:
        """Write the rows of the chain, each kind in one statement: one by one they would cost twenty times as much."""
        rows, self._rows = self._rows, {}
        for kind, batch in rows.items():
            self.conn.execute(APPEND[kind], batch)

    def flush(self) -> None:
        """Write what of this transaction is not yet written: the chain, signals and roll-ups, each kind in one statement."""
        self.append()
        if self.signals:
            self.conn.execute(PUT_SIGNALS, [_signal_row(signal) for signal in self.signals.values()])
        if self._rollups:
            names = ("looks", "good", "bad", "blind", "readings", "low", "total", "high")
            batch = [{"watch": watch, "minute_at": minute, **dict(zip(names, row, strict=True))} for (watch, minute), row in self._rollups.items()]
            self.conn.execute(PUT_ROLLUPS, batch)
            self._rollups = {}

    def memory(self, watch: str) -> tuple[int, str, Json] | None:
        """(seq, rule, body) of what the watch's check returned last."""
        row = self.one(select(MEMORY).where(MEMORY.c.watch == watch))
        return None if row is None else (row["seq"], row["rule"], row["body"])

    def put_memory(self, watch: str, seq: int, rule: str, body: Json) -> None:
        statement = upsert(MEMORY).values(watch=watch, seq=seq, rule=rule, body=body)
        self.conn.execute(statement.on_conflict_do_update(index_elements=["watch"], set_={"seq": seq, "rule": rule, "body": body}))

    # Findings and the chain of evidence

    def finding_at(self, watch: str, end: datetime) -> Finding | None:
        """The finding of that window, if it was kept."""
        row = self.one(select(FINDING).where(FINDING.c.watch == watch, FINDING.c.end_at == end))
        return None if row is None else _finding(row)

    def finding(self, number: int) -> Finding | None:
        """One finding, if it was kept and still is."""
        row = self.one(select(FINDING).where(FINDING.c.id == number))
        return None if row is None else _finding(row)

    def files(self, number: int) -> dict[str, bytes]:
        """The files a finding left as evidence, by name; none when there is no such finding."""
        named = self.one(select(FINDING.c.data).where(FINDING.c.id == number))
        return {name: body for name, digest in (named["data"] if named else {}).items() if (body := self.file(digest)) is not None}

    def keep(self, data: Mapping[str, bytes], **values: Any) -> int:
        """Keep a finding and chain it; its small files are stored once by content."""
        names = {name: hashlib.sha256(body).hexdigest() for name, body in data.items()}
        for name, body in data.items():
            self.conn.execute(upsert(FILE).values(digest=names[name], body=body).on_conflict_do_nothing())
        return self._chained("finding", values["looked_at"], {**values, "data": names})

    def findings(
        self,
        service: str | None = None,
        watch: str | None = None,
        check: str | None = None,
        since: datetime | None = None,
        limit: int = 100,
        until: datetime | None = None,
    ) -> list[Finding]:
        """Kept findings, newest first."""
        query = select(FINDING).order_by(FINDING.c.id.desc()).limit(limit)
        for column, value in ((FINDING.c.service, service), (FINDING.c.watch, watch), (FINDING.c.check, check)):
            if value is not None:
                query = query.where(column == value)
        if since is not None:
            query = query.where(FINDING.c.looked_at >= since)
        if until is not None:
            query = query.where(FINDING.c.looked_at <= until)
        return [_finding(row) for row in self._all(query)]

    def statuses(self, watch: str, since: datetime) -> dict[Status, int]:
        """How many kept findings of a watch came to which status; all that were not ok are kept."""
        query = select(FINDING.c.status, func.count().label("n")).where(FINDING.c.watch == watch, FINDING.c.looked_at >= since)
        return {Status(row["status"]): row["n"] for row in self._all(query.group_by(FINDING.c.status))}

    def file(self, name: str) -> bytes | None:
        row = self.one(select(FILE).where(FILE.c.digest == name))
        return None if row is None else row["body"]

    def record(
        self,
        at: datetime,
        kind: str,
        what: str,
        *,
        service: str | None = None,
        incident: int | None = None,
        run: int | None = None,
        body: Mapping[str, Json] | None = None,
    ) -> int:
        """Append one event to the record and chain it."""
        values = {"at": at, "kind": kind, "what": speakable(what), "service": service, "incident": incident, "run": run, "body": to_json(body or {})}
        return self._chained("event", at, values)

    def events(
        self,
        kind: str | None = None,
        service: str | None = None,
        incident: int | None = None,
        run: int | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 200,
    ) -> list[Event]:
        """Events, newest first; `kind` matches the word itself and what starts with it and a dot."""
        query = select(EVENT).order_by(EVENT.c.id.desc()).limit(limit)
        if kind is not None:
            query = query.where(or_(EVENT.c.kind == kind, EVENT.c.kind.startswith(f"{kind}.", autoescape=True)))
        for column, value in ((EVENT.c.service, service), (EVENT.c.incident, incident), (EVENT.c.run, run)):
            if value is not None:
                query = query.where(column == value)
        if since is not None:
            query = query.where(EVENT.c.at >= since)
        if until is not None:
            query = query.where(EVENT.c.at <= until)
        return [_make(Event, row) for row in self._all(query)]

    def newest(self, kind: str) -> dict[str, Event]:
        """The newest event of exactly that kind of each service that has one."""
        last = select(func.max(EVENT.c.id)).where(EVENT.c.kind == kind, EVENT.c.service.is_not(None)).group_by(EVENT.c.service)
        return {row["service"]: _make(Event, row) for row in self._all(select(EVENT).where(EVENT.c.id.in_(last)))}

    def _chained(self, kind: str, at: datetime, values: Mapping[str, Any]) -> int:
        own, ref = digest(values), self._number(kind)
        self.link = link(self.last_link(), own)
        self._rows.setdefault(kind, []).append({"id": ref, **values})
        self._rows.setdefault("evidence", []).append({"at": at, "kind": kind, "ref": ref, "digest": own, "link": self.link})
        return ref

    def _number(self, kind: str) -> int:
        if kind not in self.numbers:
            self.numbers[kind] = self.conn.execute(LAST_NUMBER, {"kind": kind}).scalar() or 0
        self.numbers[kind] += 1
        return self.numbers[kind]

    def last_link(self) -> str:
        if self.link is None:
            row = self.one(select(EVIDENCE.c.link).order_by(EVIDENCE.c.seq.desc()).limit(1)) or self.one(
                select(CHECKPOINT.c.link).order_by(CHECKPOINT.c.seq.desc()).limit(1)
            )
            self.link = GENESIS if row is None else row["link"]
        return self.link

    def head(self) -> tuple[int, str]:
        """How many links the chain has had, those that retention dropped included, and the last of them: what an anchor outside writes down."""
        row = self.one(select(func.max(EVIDENCE.c.seq).label("n"))) or {}
        before = self.one(select(func.max(CHECKPOINT.c.seq).label("n"))) or {}
        return row.get("n") or before.get("n") or 0, self.last_link()

    def chain(self) -> Iterator[Mapping[str, Any]]:
        """Every link that is held, oldest first: seq, at, kind, ref, digest, link."""
        yield from self.stream(select(EVIDENCE).order_by(EVIDENCE.c.seq))

    def chain_start(self) -> tuple[int, str]:
        """What stands before the first link that is held: (0, zeros) until retention has dropped some."""
        row = self.one(select(CHECKPOINT).order_by(CHECKPOINT.c.seq.desc()).limit(1))
        return (0, GENESIS) if row is None else (row["seq"], row["link"])

    def sealed(self, kind: str, ref: int) -> Json:
        """What a link seals, as it stands now: its `digest` is that of the link unless it was changed. None: it is no longer held."""
        table = CHAINED[kind]
        row = self.one(select(table).where(table.c.id == ref))
        return None if row is None else {name: value for name, value in row.items() if name != "id"}

    def misdated(self) -> list[str]:
        """Links whose own time is not that of what they seal."""
        told = []
        for kind, table in CHAINED.items():
            own = table.c.at if kind == "event" else table.c.looked_at
            query = select(EVIDENCE.c.seq).join(table, EVIDENCE.c.ref == table.c.id).where(EVIDENCE.c.kind == kind, EVIDENCE.c.at != own)
            told += [f"link {row['seq']} does not bear the time of the {kind} it seals" for row in self.stream(query)]
        return told

    def seals(self, wanted: Mapping[str, Collection[int]]) -> dict[tuple[str, int], tuple[int, str]]:
        """(kind, number) -> (place in the chain, digest) of findings, events, runs and incidents; of the last two, of the last event about them."""
        about = {(kind, ref): event for kind in ("run", "incident") for ref, event in self._last_events(kind, wanted.get(kind, ())).items()}
        sealed = {"finding": set(wanted.get("finding", ())), "event": {*wanted.get("event", ()), *about.values()}}
        asked = or_(*(and_(EVIDENCE.c.kind == kind, EVIDENCE.c.ref.in_(refs)) for kind, refs in sealed.items()))
        rows = self._all(select(EVIDENCE.c.kind, EVIDENCE.c.ref, EVIDENCE.c.seq, EVIDENCE.c.digest).where(asked)) if any(sealed.values()) else []
        found = {(row["kind"], row["ref"]): (row["seq"], row["digest"]) for row in rows}
        return found | {key: found["event", event] for key, event in about.items() if ("event", event) in found}

    def _last_events(self, column: str, refs: Collection[int]) -> dict[int, int]:
        """Run or incident -> the number of the last event about it."""
        if not refs:
            return {}
        query = select(EVENT.c[column], func.max(EVENT.c.id).label("last")).where(EVENT.c[column].in_(refs)).group_by(EVENT.c[column])
        return {row[column]: row["last"] for row in self._all(query)}

    def span(self) -> tuple[datetime, datetime] | None:
        """When the record as it is held begins and ends; None when nothing is in it."""
        row = self.one(select(func.min(EVIDENCE.c.at).label("first"), func.max(EVIDENCE.c.at).label("last")))
        return None if row is None or row["first"] is None else (row["first"], row["last"])

    def prune(self, findings_before: datetime, rollups_before: datetime, evidence_before: datetime, now: datetime) -> int:
        """Drop bodies of old findings, old roll-ups and, behind a checkpoint, old links. Returns how many findings were dropped.

        The findings of what is in an open incident stay until it is over, and those that are pinned as long as they are.
        """
        pinned = select(BASELINE.c.finding).where(BASELINE.c.finding.is_not(None), BASELINE.c.unpinned_at.is_(None))
        concerned = select(MEMBER.c.watch).join(INCIDENT, INCIDENT.c.id == MEMBER.c.incident).where(INCIDENT.c.state.not_in(OVER))
        old = (FINDING.c.looked_at < findings_before, FINDING.c.watch.not_in(concerned), FINDING.c.id.not_in(pinned))
        dropped = self.conn.execute(delete(FINDING).where(*old)).rowcount
        if dropped:
            self.conn.execute(text("DELETE FROM file WHERE digest NOT IN (SELECT named.value FROM finding, json_each(finding.data) AS named)"))
            self.record(
                now, "retention", f"{dropped} findings from before {findings_before:%Y-%m-%d} dropped", body={"findings_before": findings_before}
            )
        self.conn.execute(delete(ROLLUP).where(ROLLUP.c.minute_at < rollups_before))
        last = self.one(select(EVIDENCE).where(EVIDENCE.c.at < evidence_before).order_by(EVIDENCE.c.seq.desc()).limit(1))
        if last is not None:
            sealed = select(EVIDENCE.c.ref).where(EVIDENCE.c.kind == "event", EVIDENCE.c.seq <= last["seq"])
            self.conn.execute(delete(EVENT).where(EVENT.c.id.in_(sealed)))
            self._insert(CHECKPOINT, {"seq": last["seq"], "at": now, "link": last["link"]})
            self.conn.execute(delete(EVIDENCE).where(EVIDENCE.c.seq <= last["seq"]))
        return dropped

    # Incidents

    def incident(self, number: int) -> Incident | None:
        row = self.one(select(INCIDENT).where(INCIDENT.c.id == number))
        return None if row is None else self._incident(row)

    def open_incidents(self, service: str) -> list[Incident]:
        """The incidents of this service that are not over, at most one of each severity; a page before a ticket."""
        return sorted(self.incidents(open_only=True, service=service), key=lambda incident: incident.severity)

    def incidents(self, open_only: bool = False, service: str | None = None, limit: int = 100) -> list[Incident]:
        """Incidents, newest first; of those that are open, all."""
        query = select(INCIDENT).order_by(INCIDENT.c.id.desc()).limit(None if open_only else limit)
        if open_only:
            query = query.where(INCIDENT.c.state.not_in(OVER))
        if service is not None:
            query = query.where(INCIDENT.c.service == service)
        return [self._incident(row) for row in self._all(query)]

    def add_incident(self, service: str, severity: str, title: str, at: datetime) -> Incident:
        values = {"service": service, "state": "open", "severity": severity, "title": title, "opened_at": at, "changed_at": at, "told": 0}
        return _make(Incident, {**values, "id": self._insert(INCIDENT, values)})

    def save_incident(self, incident: Incident) -> None:
        """Write the incident's own fields back."""
        values = {f.name: getattr(incident, f.name) for f in fields(incident) if f.name not in ("id", "members")}
        self.conn.execute(update(INCIDENT).where(INCIDENT.c.id == incident.id).values(**values))

    def put_member(self, incident: int, member: Member) -> None:
        values = {f.name: getattr(member, f.name) for f in fields(member)}
        statement = upsert(MEMBER).values(incident=incident, **values)
        self.conn.execute(statement.on_conflict_do_update(index_elements=["incident", "watch"], set_=values))

    def _incident(self, row: Mapping[str, Any]) -> Incident:
        members = self._all(select(MEMBER).where(MEMBER.c.incident == row["id"]).order_by(MEMBER.c.since_at))
        return _make(Incident, row, members=tuple(_make(Member, member) for member in members))

    # Runs

    def want(self, **values: Any) -> tuple[Run, bool]:
        """A new run, or the active one of that runbook on that service: (run, whether it is new)."""
        row = self.one(select(*WHOLE_RUN).where(RUN.c.service == values["service"], RUN.c.runbook == values["runbook"], RUN.c.state.in_(ACTIVE)))
        if row is not None:
            return self._run(row), False
        full = {"state": "proposed", "drill": False, "parameters": {}, "approvals": (), "recoveries": 0, "said": "", **values}
        return _make(Run, {**full, "id": self._insert(RUN, {**full, "approvals": to_json(full["approvals"])})}), True

    def run(self, number: int) -> Run | None:
        row = self.one(ONE_RUN, number=number)
        return None if row is None else self._run(row)

    def child(self, step: str) -> Run | None:
        """The run that a step wanted, by the step's key."""
        row = self.one(select(*WHOLE_RUN).where(RUN.c.parent == step))
        return None if row is None else self._run(row)

    def children(self, run: int) -> list[Run]:
        """The runs that the steps of a run wanted and that are not over."""
        rows = self._all(select(*WHOLE_RUN).where(RUN.c.parent.startswith(f"run-{run}/"), RUN.c.state.in_(ACTIVE)))
        return [self._run(row) for row in rows]

    def runs(
        self, active_only: bool = False, service: str | None = None, since: datetime | None = None, limit: int = 100, incident: int | None = None
    ) -> list[Run]:
        """Runs with their steps, newest first; of those that are active, since a time, or of one incident, all."""
        query = select(*WHOLE_RUN).order_by(RUN.c.id.desc()).limit(None if active_only or since or incident else limit)
        if incident is not None:
            query = query.where(RUN.c.incident == incident)
        if active_only:
            query = query.where(RUN.c.state.in_(ACTIVE))
        if service is not None:
            query = query.where(RUN.c.service == service)
        if since is not None:
            query = query.where(RUN.c.wanted_at >= since)
        return [self._run(row) for row in self._all(query)]

    def run_counts(self) -> dict[tuple[str, str, str], int]:
        """(service, runbook, state) -> how many runs."""
        query = select(RUN.c.service, RUN.c.runbook, RUN.c.state, func.count().label("n")).group_by(RUN.c.service, RUN.c.runbook, RUN.c.state)
        return {(row["service"], row["runbook"], row["state"]): row["n"] for row in self._all(query)}

    def letter_counts(self) -> dict[str, int]:
        """waiting, sent, dropped -> how many letters."""
        return {row["state"]: row["n"] for row in self._all(select(LETTER.c.state, func.count().label("n")).group_by(LETTER.c.state))}

    def save_run(self, run: Run) -> None:
        """Write the run's own fields back; its steps are saved one by one. A plan that could not be read stays as it was written."""
        values = {f.name: getattr(run, f.name) for f in fields(run) if f.name not in ("id", "steps", "plan", "unread")}
        values["approvals"] = to_json(run.approvals)
        if run.unread:
            self.conn.execute(update(RUN).where(RUN.c.id == run.id).values(**values))
        else:
            self.conn.execute(SAVE_RUN, {**values, "plan": None if run.plan is None else to_json(run.plan), "number": run.id})

    def save_step(self, run: int, step: StepRow) -> None:
        values = {f.name: to_json(getattr(step, f.name)) if f.name in ("args", "before", "output") else getattr(step, f.name) for f in fields(step)}
        self.conn.execute(PUT_STEP, {"run": run, **values})

    def _run(self, row: Mapping[str, Any]) -> Run:
        steps = self._all(STEPS, number=row["id"])
        plan, unread = (None, "") if row["plan"] is None else _plan(row["plan"], row["state"] in ACTIVE)
        approvals = tuple(_make(Approval, one, at=datetime.fromisoformat(one["at"])) for one in row["approvals"])
        return _make(Run, row, plan=plan, unread=unread, steps=tuple(_make(StepRow, step) for step in steps), approvals=approvals)

    def last_drill(self, service: str, runbook: str, any_end: bool = False) -> Run | None:
        """The newest drill of that runbook on that service that succeeded, or the newest whatever came of it."""
        query = select(*WHOLE_RUN).where(RUN.c.service == service, RUN.c.runbook == runbook, RUN.c.drill).order_by(RUN.c.id.desc()).limit(1)
        row = self.one(query if any_end else query.where(RUN.c.state == "succeeded"))
        return None if row is None else self._run(row)

    def hold(self, things: Sequence[str], run: int) -> int | str:
        """Take the leases of a run, all or none: the fencing token, or a sentence saying which run holds one of them."""
        held = {row["thing"]: row for row in self._all(select(LEASE).where(LEASE.c.thing.in_(things)))}
        active = set(self.conn.execute(select(RUN.c.id).where(RUN.c.state.in_(ACTIVE))).scalars()) - {run}
        for thing in sorted(things):
            if thing in held and held[thing]["run"] in active:
                return f"{thing} is held by run {held[thing]['run']}"
        token = 1 + max((row["token"] for row in held.values()), default=0)
        for thing in sorted(things):
            statement = upsert(LEASE).values(thing=thing, run=run, token=token)
            self.conn.execute(statement.on_conflict_do_update(index_elements=["thing"], set_={"run": run, "token": token}))
        return token

    def holders(self, things: Sequence[str]) -> set[int]:
        """The runs that hold any of these."""
        held = self.conn.execute(select(LEASE.c.run).where(LEASE.c.thing.in_(things), LEASE.c.run.is_not(None))).scalars()
        return {int(run) for run in held if run is not None}

    def still_holds(self, run: int, things: Sequence[str]) -> int:
        """The run's fencing token; LeaseLostError when any of its leases is another's now."""
        held = {row["thing"]: row["token"] for row in self._all(LEASES, number=run)}
        if lost := sorted(set(things) - held.keys()):
            raise LeaseLostError(f"run {run} no longer holds {', '.join(lost)}")
        return max((held[thing] for thing in things), default=0)

    def release(self, run: int) -> None:
        self.conn.execute(update(LEASE).where(LEASE.c.run == run).values(run=None))

    # What is served, and what was good

    def served_now(self, service: str) -> Served | None:
        row = self.one(select(SERVED).where(SERVED.c.service == service, SERVED.c.until_at.is_(None)).order_by(SERVED.c.id.desc()).limit(1))
        return None if row is None else _make(Served, row)

    def served_at(self, service: str, at: datetime) -> Served | None:
        """What had the traffic at that time, as far as it was seen."""
        row = self.one(select(SERVED).where(SERVED.c.service == service, SERVED.c.since_at <= at).order_by(SERVED.c.id.desc()).limit(1))
        return None if row is None else _make(Served, row)

    def serve(self, service: str, version: str, at: datetime) -> None:
        """Write down that `version` has the traffic from `at` on."""
        self.conn.execute(update(SERVED).where(SERVED.c.service == service, SERVED.c.until_at.is_(None)).values(until_at=at))
        self._insert(SERVED, {"service": service, "version": version, "since_at": at, "until_at": None})

    def declare_good(self, service: str, version: str, by: str, at: datetime) -> None:
        statement = upsert(GOOD).values(service=service, version=version, by=by, at=at)
        self.conn.execute(statement.on_conflict_do_update(index_elements=["service", "version"], set_={"by": by, "at": at}))
        if version in (spoiled := self.spoiled(service)):
            self.set(f"spoiled/{service}", {name: why for name, why in spoiled.items() if name != version}, at, by)

    def spoiled(self, service: str) -> Mapping[str, str]:
        """Versions that were good once and are not any more, with the reason; a person's word or another soak clears them."""
        return self.setting(f"spoiled/{service}") or {}

    def spoil(self, service: str, version: str, why: str, at: datetime) -> None:
        """A version is not good any more, if it was."""
        if self.conn.execute(delete(GOOD).where(GOOD.c.service == service, GOOD.c.version == version)).rowcount:
            self.set(f"spoiled/{service}", {**self.spoiled(service), version: why}, at, "watchkeeper")
            self.record(at, "good.spoiled", f"version {version} is not good any more: {why}", service=service, body={"version": version})

    def goods(self, service: str) -> list[tuple[str, str, datetime]]:
        """(version, who or what found it good, when) of every good version: what serves now, then the one served or declared last."""
        now = self.served_now(service)
        last = select(SERVED.c.version, func.max(SERVED.c.since_at).label("last")).where(SERVED.c.service == service).group_by(SERVED.c.version)
        part = last.subquery()
        query = (
            select(GOOD.c.version, GOOD.c.by, GOOD.c.at, part.c.last)
            .join(part, part.c.version == GOOD.c.version, isouter=True)
            .where(GOOD.c.service == service)
        )
        serves = now.version if now else None
        found = sorted(self._all(query), key=lambda row: (row["version"] == serves, row["last"] or row["at"]), reverse=True)
        return [(row["version"], row["by"], row["at"]) for row in found]

    # Letters, silences, settings

    def post(self, key: str, channel: str, subject: str, body: Mapping[str, Json], now: datetime, after: timedelta = timedelta()) -> None:
        """Put a letter into the outbox; one key goes to one channel once."""
        values = {"key": key, "channel": channel, "subject": subject, "body": to_json(body), "made_at": now, "next_at": now + after}
        self.conn.execute(upsert(LETTER).values(tries=0, error="", state="waiting", **values).on_conflict_do_nothing())

    def posted(self, key: str, channel: str) -> bool:
        """Whether there is a letter of that key to that channel, sent or not."""
        return self.one(select(LETTER.c.id).where(LETTER.c.key == key, LETTER.c.channel == channel)) is not None

    def letters_due(self, now: datetime, limit: int = 50) -> list[Letter]:
        query = select(LETTER).where(LETTER.c.state == "waiting", LETTER.c.next_at <= now).order_by(LETTER.c.id).limit(limit)
        return [_make(Letter, row) for row in self._all(query)]

    def letters(self, limit: int = 100) -> list[Mapping[str, Any]]:
        """Letters with their state, newest first."""
        return self._all(select(LETTER).order_by(LETTER.c.id.desc()).limit(limit))

    def letters_about(self, incident: int) -> list[Mapping[str, Any]]:
        """The letters of one incident with their state, oldest first."""
        return self._all(select(LETTER).where(LETTER.c.key.startswith(f"incident-{incident}/")).order_by(LETTER.c.id))

    def letter_sent(self, key: str, channel: str) -> None:
        self._letter(key, channel, state="sent", error="")

    def letter_deferred(self, key: str, channel: str, tries: int, next_at: datetime, why: str) -> None:
        self._letter(key, channel, tries=tries, next_at=next_at, error=why)

    def letter_dropped(self, key: str, channel: str, why: str) -> None:
        self._letter(key, channel, state="dropped", error=why)

    def hurry(self, now: datetime) -> None:
        """Let everything that waits be due: the clock was set back, and a minute's pause would last longer."""
        self.conn.execute(update(LETTER).where(LETTER.c.state == "waiting", LETTER.c.next_at > now).values(next_at=now))

    def withdraw(self, incident: int, why: str) -> bool:
        """Drop the letters of an incident that have not gone out yet; whether there were any."""
        waiting = update(LETTER).where(LETTER.c.state == "waiting", LETTER.c.key.startswith(f"incident-{incident}/"))
        return self.conn.execute(waiting.values(state="dropped", error=why)).rowcount > 0

    def _letter(self, key: str, channel: str, **values: Any) -> None:
        self.conn.execute(update(LETTER).where(LETTER.c.key == key, LETTER.c.channel == channel).values(**values))

    def add_silence(self, match: str, start: datetime, until: datetime, by: str, why: str) -> int:
        return self._insert(SILENCE, {"match": match, "start_at": start, "until_at": until, "by": by, "why": why})

    def silences(self, now: datetime | None = None) -> list[Silence]:
        """All silences, or those in force at `now`."""
        query = select(SILENCE).order_by(SILENCE.c.id)
        if now is not None:
            query = query.where(SILENCE.c.start_at <= now, SILENCE.c.until_at > now)
        return [_make(Silence, row) for row in self._all(query)]

    def expire_silence(self, number: int, at: datetime) -> bool:
        """End a silence now; False if there is none of that number in force."""
        return bool(self.conn.execute(update(SILENCE).where(SILENCE.c.id == number, SILENCE.c.until_at > at).values(until_at=at)).rowcount)

    # Baselines

    def pin(self, watch: str, window: Window, by: str, why: str, at: datetime) -> int:
        """Make that stretch the watch's yardstick; the finding that judged just that goes with it."""
        finding = self.finding_at(watch, window.end)
        exact = finding.id if finding and finding.start_at == window.start else None
        self.unpin(watch, at)
        values = {"watch": watch, "start_at": window.start, "end_at": window.end, "finding": exact, "at": at, "by": by, "why": why}
        return self._insert(BASELINE, values)

    def unpin(self, watch: str, at: datetime) -> bool:
        """Whether there was a yardstick to take away."""
        held = BASELINE.c.watch == watch, BASELINE.c.unpinned_at.is_(None)
        return bool(self.conn.execute(update(BASELINE).where(*held).values(unpinned_at=at)).rowcount)

    def baselines(self) -> dict[str, tuple[int, Baseline]]:
        """Watch -> the number of its yardstick, and the yardstick without the files of its finding."""
        held = self._all(select(BASELINE).where(BASELINE.c.unpinned_at.is_(None)).order_by(BASELINE.c.watch))
        return {row["watch"]: (row["id"], _make(Baseline, row, finding=None)) for row in held}

    def baseline(self, watch: str) -> Baseline | None:
        """A watch's yardstick with its finding and that finding's files."""
        row = self.one(select(BASELINE).where(BASELINE.c.watch == watch, BASELINE.c.unpinned_at.is_(None)))
        found = None if row is None or row["finding"] is None else self.one(select(FINDING).where(FINDING.c.id == row["finding"]))
        if row is None or found is None:
            return None if row is None else _make(Baseline, row, finding=None)
        return _make(Baseline, row, finding=_finding(found), data=self.files(found["id"]))

    # Settings

    def setting(self, key: str) -> Json:
        row = self.one(select(SETTING).where(SETTING.c.key == key))
        return None if row is None else row["value"]

    def set(self, key: str, value: Json, at: datetime, by: str) -> None:
        values = {"value": value, "at": at, "by": by}
        self.conn.execute(upsert(SETTING).values(key=key, **values).on_conflict_do_update(index_elements=["key"], set_=values))

    # The lead

    def lead(self) -> Lead | None:
        """Who leads the store, as last written."""
        found = self.setting("lead")
        return None if found is None else _make(Lead, found)

    def take_lead(self, name: str, by: str, at: datetime) -> Lead:
        """Lead from now on, under the next number: whoever led before does not any more."""
        before = self.lead()
        taken = Lead(1 + (before.number if before else 0), name, by)
        self.set("lead", to_json(taken), at, by)
        return taken

    def leads(self, lead: Lead) -> bool:
        """Whether that is the lead still."""
        found = say(self.conn, LEADER).fetchone()
        return found is not None and found[0] == lead.name

    def beat(self) -> None:
        """Renew the lead."""
        say(self.conn, BEAT)

    # Small print

    def _insert(self, table: Table, values: Mapping[str, Any]) -> int:
        key = self.conn.execute(insert(table), values).inserted_primary_key
        return int(key[0]) if key else 0

    def one(self, query: Any, **values: Any) -> Mapping[str, Any] | None:
        """The first row of a query; None when it has none."""
        self.append()
        return cast("Mapping[str, Any] | None", self.conn.execute(query, values).mappings().first())

    def _all(self, query: Any, **values: Any) -> list[Mapping[str, Any]]:
        self.append()
        return [dict(row) for row in self.conn.execute(query, values).mappings()]

    def stream(self, query: Any) -> Iterator[Mapping[str, Any]]:
        """The rows of a query, a thousand in memory at a time."""
        self.append()
        yield from cast("Iterator[Mapping[str, Any]]", self.conn.execution_options(yield_per=1000).execute(query).mappings())


def say(conn: Connection, words: str) -> sqlite3.Cursor:
    """What every transaction says, past SQLAlchemy: 5 us instead of 30."""
    driver = cast("sqlite3.Connection", conn.connection.driver_connection)
    try:
        return driver.execute(words)
    except sqlite3.DatabaseError as problem:
        raise DatabaseError(words, None, problem) from problem


def link(before: str, own: str) -> str:
    return hashlib.sha256(f"{before}{own}".encode()).hexdigest()


def _signal_row(signal: Signal) -> dict[str, Any]:
    return {**{name: getattr(signal, name) for name in _SIGNAL_COLUMNS}, "status": signal.status.value}


@lru_cache(256)  # a run is read before each of its moves, and its plan is the largest part of it, which never changes
def _plan(text: str, strict: bool) -> tuple[Plan | None, str]:
    """The plan as it was written down, and why it cannot be followed; `strict`: it must say neither less nor more than this version would write."""
    try:
        body = json.loads(text)
        plan = plan_from_json(body)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as problem:
        return None, f"{type(problem).__name__}: {problem}"
    return plan, "it has other fields" if strict and to_json(plan) != body else ""


def _finding(row: Mapping[str, Any]) -> Finding:
    parts = {name: reading for name, body in row["parts"].items() if (reading := reading_from_json(body)) is not None}
    files = tuple(sorted(row["data"]))
    return _make(Finding, row, status=Status(row["status"]), reading=reading_from_json(row["reading"]), parts=parts, files=files)
