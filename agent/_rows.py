"""The tables of the store, declared; their rows never leave it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, Column, DateTime, Index, LargeBinary, UniqueConstraint, text
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel

from agent.model import UTC, Json, canonical


class Moment(TypeDecorator[datetime]):
    """Aware UTC in and out; a naive time is refused, never guessed at."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive time {value!r}: times in the store are aware UTC")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


def stored(value: Json) -> str:
    """JSON as it is stored: canonical, so that what seals a row can hash it as it stands; half a character, which no database takes, as an escape."""
    text = canonical(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, sort_keys=True)
    return text


def _moment(index: bool = False, nullable: bool = False, primary_key: bool = False) -> Any:
    return Field(default=None, sa_column=Column(Moment(), index=index, nullable=nullable, primary_key=primary_key))


def _json(nullable: bool = False) -> Any:
    return Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=nullable))


class FindingRow(SQLModel, table=True):
    __tablename__: ClassVar[Any] = "finding"
    __table_args__ = (
        UniqueConstraint("watch", "end_at"),
        Index("finding_by_time", "service", "looked_at"),
        Index("finding_statuses", "watch", "looked_at", "status"),
        {"sqlite_autoincrement": True},
    )
    id: int | None = Field(default=None, primary_key=True)
    watch: str = Field(index=True)
    service: str
    check: str
    start_at: datetime = _moment()
    end_at: datetime = _moment()
    looked_at: datetime = _moment(index=True)
    status: str
    reason: str
    reading: Any = _json(nullable=True)
    parts: Any = _json()
    data: Any = _json()
    version: str | None = None
    rule: str
    seq: int
    seconds: float


class MemoryRow(SQLModel, table=True):
    __tablename__: ClassVar[Any] = "memory"
    watch: str = Field(primary_key=True)
    seq: int
    rule: str
    body: Any = _json()


class FileRow(SQLModel, table=True):
    __tablename__: ClassVar[Any] = "file"
    digest: str = Field(primary_key=True)
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class SignalRow(SQLModel, table=True):
    __tablename__: ClassVar[Any] = "signal"
    watch: str = Field(primary_key=True)
    service: str = Field(index=True)
    check: str
    status: str
    statuses: str
    state: str
    since_at: datetime = _moment()
    looked_at: datetime = _moment()
    end_at: datetime = _moment()
    kept_at: datetime = _moment()
    reason: str
    rule: str
    seq: int


class RollupRow(SQLModel, table=True):
    __tablename__: ClassVar[Any] = "rollup"
    __table_args__ = (Index("bad_minutes", "watch", "minute_at", sqlite_where=text("bad > 0")),)
    watch: str = Field(primary_key=True)
    minute_at: datetime = _moment(primary_key=True)
    looks: int
    good: int
    bad: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    blind: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    readings: int
    low: float | None = None
    total: float = 0.0
    high: float | None = None


class IncidentRow(SQLModel, table=True):
    __tablename__: ClassVar[Any] = "incident"
    __table_args__ = (Index("one_open_incident", "service", "severity", unique=True, sqlite_where=text("state NOT IN ('resolved', 'reviewed')")),)
    id: int | None = Field(default=None, primary_key=True)
    service: str = Field(index=True)
    state: str
    severity: str
    title: str
    opened_at: datetime = _moment(index=True)
    changed_at: datetime = _moment()
    acknowledged_by: str | None = None
    acknowledged_at: datetime | None = _moment(nullable=True)
    resolved_at: datetime | None = _moment(nullable=True)
    told: int = 0


class MemberRow(SQLModel, table=True):
    __tablename__: ClassVar[Any] = "member"
    incident: int = Field(primary_key=True)
    watch: str = Field(primary_key=True)
    check: str
    since_at: datetime = _moment()
    reason: str
    cause: str
    cleared_at: datetime | None = _moment(nullable=True)


class EventRow(SQLModel, table=True):
    __tablename__: ClassVar[Any] = "event"
    __table_args__ = ({"sqlite_autoincrement": True},)
    id: int | None = Field(default=None, primary_key=True)
    at: datetime = _moment(index=True)
    kind: str = Field(index=True)
    what: str
    service: str | None = Field(default=None, index=True)
    incident: int | None = Field(default=None, index=True)
    run: int | None = Field(default=None, index=True)
    body: Any = _json()


class EvidenceRow(SQLModel, table=True):
    """The chain: `link` = sha256(link before + digest of the body), so that no line can be changed, moved or dropped unseen."""

    __tablename__: ClassVar[Any] = "evidence"
    __table_args__ = ({"sqlite_autoincrement": True},)
    seq: int | None = Field(default=None, primary_key=True)
    at: datetime = _moment()
    kind: str
    ref: int
    digest: str
    link: str


class CheckpointRow(SQLModel, table=True):
    """Where the chain starts after retention dropped what came before; `link` is the last link dropped."""

    __tablename__: ClassVar[Any] = "checkpoint"
    seq: int = Field(primary_key=True)
    at: datetime = _moment()
    link: str


class RunRow(SQLModel, table=True):
    __tablename__: ClassVar[Any] = "run"
    __table_args__ = (
        Index(
            "one_active_run",
            "service",
            "runbook",
            unique=True,
            sqlite_where=text("state IN ('proposed', 'awaiting', 'running', 'compensating')"),
        ),
        Index("one_child_a_step", "parent", unique=True),
    )
    id: int | None = Field(default=None, primary_key=True)
    runbook: str
    service: str = Field(index=True)
    state: str = Field(index=True)
    mode: str
    by: str
    reason: str
    wanted_at: datetime = _moment(index=True)
    drill: bool = False
    incident: int | None = Field(default=None, index=True)
    trigger: str | None = None
    parameters: Any = _json()
    plan: Any = _json(nullable=True)
    approvals: Any = _json()
    parent: str | None = None
    recoveries: int = 0
    wake_at: datetime | None = _moment(nullable=True)
    ended_at: datetime | None = _moment(nullable=True)
    said: str = ""


class StepTable(SQLModel, table=True):
    __tablename__: ClassVar[Any] = "step"
    run: int = Field(primary_key=True)
    n: int = Field(primary_key=True)
    undo: bool = Field(primary_key=True)
    name: str
    action: str
    state: str
    args: Any = _json()
    before: Any = _json(nullable=True)
    output: Any = _json()
    said: str = ""
    tries: int = 0
    intended_at: datetime | None = _moment(nullable=True)
    ended_at: datetime | None = _moment(nullable=True)


class LeaseRow(SQLModel, table=True):
    __tablename__: ClassVar[Any] = "lease"
    thing: str = Field(primary_key=True)  # "service/role"
    run: int | None = None
    token: int = 0


class ServedRow(SQLModel, table=True):
    __tablename__: ClassVar[Any] = "served"
    id: int | None = Field(default=None, primary_key=True)
    service: str = Field(index=True)
    version: str
    since_at: datetime = _moment()
    until_at: datetime | None = _moment(nullable=True)


class GoodRow(SQLModel, table=True):
    __tablename__: ClassVar[Any] = "good"
    service: str = Field(primary_key=True)
    version: str = Field(primary_key=True)
    at: datetime = _moment()
    by: str


class LetterRow(SQLModel, table=True):
    __tablename__: ClassVar[Any] = "letter"
    __table_args__ = (UniqueConstraint("key", "channel"),)
    id: int | None = Field(default=None, primary_key=True)
    key: str
    channel: str
    subject: str
    body: Any = _json()
    made_at: datetime = _moment()
    next_at: datetime = _moment(index=True)
    tries: int = 0
    error: str = ""
    state: str = "waiting"  # waiting, sent, dropped


class SilenceRow(SQLModel, table=True):
    __tablename__: ClassVar[Any] = "silence"
    id: int | None = Field(default=None, primary_key=True)
    match: str
    start_at: datetime = _moment()
    until_at: datetime = _moment()
    by: str
    why: str


class BaselineRow(SQLModel, table=True):
    """What was pinned as a watch's yardstick; the newest that nobody took back counts."""

    __tablename__: ClassVar[Any] = "baseline"
    id: int | None = Field(default=None, primary_key=True)
    watch: str = Field(index=True)
    start_at: datetime = _moment()
    end_at: datetime = _moment()
    finding: int | None = None
    at: datetime = _moment()
    by: str
    why: str
    unpinned_at: datetime | None = _moment(nullable=True)


class SettingRow(SQLModel, table=True):
    """Few small facts that must survive a restart: halted or not, the configuration last used, the last start."""

    __tablename__: ClassVar[Any] = "setting"
    key: str = Field(primary_key=True)
    value: Any = _json()
    at: datetime = _moment()
    by: str


METADATA = SQLModel.metadata
