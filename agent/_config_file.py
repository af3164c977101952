"""The shape of a configuration file: what may be written, which words are known, and the JSON schema of it all."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import CoreSchema, core_schema

from agent._problems import Given, kind, near, shown
from agent._source import plain
from agent.model import Json, Mode, duration
from agent.plugins import Plugin

CAUSES = ("answers", "errors", "latency", "data", "drift", "owner")
CHANNELS = ("http", "https", "slack+http", "slack+https")


@dataclass(frozen=True, slots=True)
class Known:
    """The words a configuration may refer to."""

    checks: Mapping[str, Plugin]
    runbooks: Mapping[str, Plugin]
    adapters: Mapping[str, Plugin]
    channels: frozenset[str]


# Values


class Shorthand:
    """A mapping that may also be written in a shorter way; the schema shows both."""

    def __init__(self, expand: Callable[[Json], Json], short: Mapping[str, Json]) -> None:
        self.expand = expand
        self.short = short

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.expand, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Any) -> Mapping[str, Json]:
        return {"anyOf": [dict(self.short), handler(schema)]}


def _text_as(key: str) -> Shorthand:
    return Shorthand(lambda value: {key: value} if isinstance(value, str) else value, {"type": "string"})


def read_length(value: Json) -> timedelta:
    """A duration; the bound on the text keeps hostile digits cheap."""
    if isinstance(value, str) and len(value) <= 40:
        try:
            length = duration(value)
        except OverflowError:
            raise ValueError(f"{shown(value)} is longer than time can be told") from None
        if length > timedelta(days=36525):
            raise ValueError(f"{shown(value)} is more than a hundred years")
        return length
    raise ValueError(f"must be a duration such as 250ms, 10s, 5m, 1h30m or 90d, not {kind(value)}")


def _some_length(value: timedelta) -> timedelta:
    if not value:
        raise ValueError("must be more than 0s")
    return value


def _plainly(value: Json) -> Json:
    """${WORKERS} is text, and may stand for a number or true."""
    return plain(value) if isinstance(value, Given) else value


def _named(pattern: str, says: str) -> AfterValidator:
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if len(value) > 100 or not compiled.fullmatch(value):
            raise ValueError(f"{shown(value)} cannot be a name; use {says}")
        return value

    return AfterValidator(check)


def _of(words: Callable[[Known], Any], what: str, hint: str = "") -> AfterValidator:
    """A word that must be among the known ones."""

    def check(value: str, info: ValidationInfo) -> str:
        known = words(info.context) if isinstance(info.context, Known) else (value,)
        if value not in known:
            raise ValueError(f"no {what} {shown(value)}{near(value, known) or (hint and f'; {hint}')}")
        return value

    return AfterValidator(check)


def _zone(value: str) -> str:
    try:
        if len(value) <= 64:
            ZoneInfo(value)
            return value
    except (ValueError, OSError):
        pass
    from zoneinfo import available_timezones

    raise ValueError(f"no time zone {shown(value)}{near(value, available_timezones()) or '; write UTC or a name such as Europe/Berlin'}")


def _moment(value: Json) -> datetime:
    try:
        if not isinstance(value, str):
            raise ValueError
        at = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"must be a time such as 2026-12-24T18:00:00+00:00, not {kind(value)}") from None
    if at.utcoffset() is None:
        raise ValueError(
            f"{shown(value)} has no time zone; write {shown(value + 'Z')} for UTC" if len(value) > 10 else f"{shown(value)} needs a time and a zone"
        )
    return at


def _address(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not colon or not host or not re.fullmatch(r"\d{1,5}", port, re.ASCII) or int(port) > 65535:
        raise ValueError(f"must be host:port, such as 127.0.0.1:8420, not {shown(value)}")
    return value


def _no_password(value: str) -> str:
    """A password in a URL would be shown wherever the URL is."""
    try:
        if urlsplit(value).password:
            raise ValueError("a password does not belong in a URL, which is shown and logged; write it under `auth`")
    except ValueError as problem:
        if "password" in str(problem):
            raise
        raise ValueError(f"{shown(value)} is not a URL ({problem})") from None
    if not re.match(r"[A-Za-z@]", value):
        raise ValueError(f"{shown(value)} is not a URL; begin with a scheme, such as https://host/path")
    return value


def _web(*schemes: str) -> AfterValidator:
    def check(value: str) -> str:
        scheme = value.partition(":")[0].lower()
        try:
            host = urlsplit(value.partition("+")[2] if "+" in scheme else value).hostname
        except ValueError:
            host = None
        if scheme not in schemes or not host:
            raise ValueError(f"must be a URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}, not {shown(value)}")
        return value

    return AfterValidator(check)


_DURATION = {"type": "string", "pattern": r"^(\d+(\.\d+)?(ms|s|m|h|d|w) ?)+$", "examples": ["10s", "5m", "1h30m", "90d"]}
Whole = Annotated[int, BeforeValidator(_plainly)]
Flag = Annotated[bool, BeforeValidator(_plainly)]
Length = Annotated[timedelta, BeforeValidator(read_length, json_schema_input_type=str), Field(json_schema_extra=_DURATION, strict=False)]
SomeLength = Annotated[Length, AfterValidator(_some_length)]
Moment = Annotated[datetime, BeforeValidator(_moment, json_schema_input_type=str), Field(strict=False)]
Url = Annotated[str, AfterValidator(_no_password)]
ServiceName = Annotated[str, _named(r"[A-Za-z0-9][A-Za-z0-9_-]*", "letters, digits, - and _")]
WatchName = Annotated[str, _named(r"[A-Za-z0-9][A-Za-z0-9_.-]*", "letters, digits, ., - and _")]
RoleName = Annotated[str, _named(r"[a-z][a-z0-9_]*", "small letters, digits and _")]
CheckName = Annotated[str, _of(lambda known: known.checks, "check", "`watchkeeper plugins` lists them")]
RunbookName = Annotated[str, _of(lambda known: known.runbooks, "runbook", "`watchkeeper plugins` lists them")]
ChannelName = Annotated[str, _of(lambda known: known.channels, "channel", "add it to notify.channels")]
CauseName = Annotated[str, _of(lambda _: CAUSES, "cause")]


class Shape(BaseModel):
    """A mapping with a fixed set of keys."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=False)


# Targets and channels


class Basic(Shape):
    user: str
    password: str


class Header(Shape):
    name: Annotated[str, _named(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", "letters, digits and -")]
    value: str


class OAuth2(Shape):
    """Client credentials."""

    token_url: Annotated[str, _web("http", "https")]
    client_id: str
    client_secret: str
    scope: str | None = None


class Mtls(Shape):
    cert: str
    key: str


class Credential(Shape):
    """Exactly one of them."""

    bearer: str | None = None
    basic: Basic | None = None
    header: Header | None = None
    oauth2: OAuth2 | None = None
    mtls: Mtls | None = None

    @model_validator(mode="after")
    def _one(self) -> Credential:
        if len(self.model_fields_set) != 1:
            raise ValueError("needs exactly one of bearer, basic, header, oauth2 and mtls")
        return self


class Credentials(Shape):
    """`look` may only read; `act` may change."""

    look: Credential | None = None
    act: Credential | None = None


def _as_look(value: Json) -> Json:
    return {"look": value} if isinstance(value, dict) and value and not value.keys() & {"look", "act"} else value


_ONE: Mapping[str, Json] = {"type": "object", "properties": dict.fromkeys(Credential.model_fields, True), "additionalProperties": False}
Auth = Annotated[Credentials, Shorthand(_as_look, {**_ONE, "title": "Credential to look with"})]


class TargetFile(Shape):
    """Where a thing is and how to be let in; further keys are options of the adapter."""

    model_config = ConfigDict(extra="allow")

    url: Url
    auth: Auth = Credentials()
    verify: Flag = True
    ca: str | None = None
    within: SomeLength = timedelta(seconds=10)


BASE_KEYS = frozenset(TargetFile.model_fields)


class Time(Shape):
    """The column with the time of each row. Text and stored timestamps need the zone they are in; epoch numbers have one."""

    column: str
    unit: Literal["iso", "s", "ms", "us", "ns"] = "iso"
    tz: Annotated[str, AfterValidator(_zone)] | None = Field(None, validate_default=True)
    settle: Length = timedelta(0)

    @field_validator("tz")
    @classmethod
    def _needs_tz(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("unit", "s") == "iso":
            raise ValueError("time needs tz; write `tz: UTC`, or the zone the times were written in, or the unit of epoch numbers (s, ms, us, ns)")
        return value


class JsonFeatures(Shape):
    """Features that lie as one JSON list in one column."""

    json_column: str = Field(alias="json")
    names: list[str] | None = None
    size: Annotated[Whole, Field(ge=1, le=1_000_000)] | None = None
    prefix: str | None = None

    @model_validator(mode="after")
    def _one(self) -> JsonFeatures:
        if (self.names is None) == (self.size is None):
            raise ValueError("features need either `names` or `size`")
        return self


def _features_kind(value: Any) -> str:
    return "<json>" if isinstance(value, (dict, JsonFeatures)) else "<list>"


class Excluded(Shape):
    """Rows that are left out: those whose column equals a value, begins with a text, or is one of several."""

    column: str
    equals: Json = None
    prefix: str | None = None
    among: list[Json] | None = Field(None, alias="in")

    @model_validator(mode="after")
    def _one(self) -> Excluded:
        if len(self.model_fields_set - {"column"}) != 1:
            raise ValueError("needs exactly one of equals, prefix and in")
        return self


class TableFile(TargetFile):
    """A prediction log, or rows of the same columns."""

    model_config = ConfigDict(extra="forbid")

    time: Time | None = None
    id: str | None = None
    entity: str | None = None
    version: str | None = None
    features: Annotated[list[str] | JsonFeatures, Field(union_mode="left_to_right")] | None = None
    prediction: str | None = None
    score: str | None = None
    weight: str | None = None
    exclude: list[Excluded] = []


class LabelsFile(TargetFile):
    """The truth that arrives later, joined to predictions by `key`."""

    model_config = ConfigDict(extra="forbid")

    key: str | None = None
    label: str | None = None
    time: Time | None = None
    delay: Length | None = None
    latest: Flag | None = None
    exclude: list[Excluded] = []


_Target = Annotated[TargetFile, _text_as("url")]
_Table = Annotated[TableFile, _text_as("url")]


class Targets(Shape):
    """Roles; other names are allowed, for checks that ask for them."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, _Target]

    server: _Target | None = None
    router: _Target | None = None
    registry: _Target | None = None
    live: _Table | None = None
    reference: _Table | None = None
    labels: Annotated[LabelsFile, _text_as("url")] | None = None


class ChannelFile(Shape):
    """Where a notification goes: an https URL takes a plain webhook, slack+https Slack's form."""

    url: Annotated[str, AfterValidator(_no_password), _web(*CHANNELS)]
    auth: Auth = Credentials()
    verify: Flag = True
    ca: str | None = None
    within: SomeLength = timedelta(seconds=10)


# Watches and services


class ConfirmFile(Shape):
    """`looks` immediate looks must agree, or `bad` of the last `of` findings must be bad."""

    looks: Annotated[Whole, Field(ge=1, le=20)] | None = None
    bad: Annotated[Whole, Field(ge=1, le=1000)] | None = None
    of: Annotated[Whole, Field(ge=1, le=1000)] | None = None

    @model_validator(mode="after")
    def _one(self) -> ConfirmFile:
        if (self.looks is None) == (self.bad is None) or (self.bad is None) != (self.of is None):
            raise ValueError("needs either `looks`, or `bad` and `of`")
        if self.bad and self.of and self.bad > self.of:
            raise ValueError(f"{self.bad} bad of {self.of} can never be; `bad` is at most `of`")
        return self


class WatchFile(Shape):
    """One check, looked at again and again."""

    check: CheckName
    name: WatchName | None = None
    every: SomeLength = timedelta(minutes=1)
    within: SomeLength | None = None
    window: SomeLength | None = None
    parameters: dict[str, Json] = Field({}, alias="with")
    bind: Targets = Field(default_factory=Targets.model_construct)
    needs: list[str] = []
    confirm: ConfirmFile | None = None
    clear: Annotated[Whole, Field(ge=1, le=1000)] = 2
    severity: Literal["page", "ticket"] = "page"
    splay: Flag = True

    @field_validator("every")
    @classmethod
    def _not_too_often(cls, value: timedelta) -> timedelta:
        if value < timedelta(seconds=1):
            raise ValueError("every must be at least 1s")
        return value

    @field_validator("within")
    @classmethod
    def _in_time(cls, value: timedelta | None, info: ValidationInfo) -> timedelta | None:
        if value is not None and value > info.data.get("every", value):
            raise ValueError("within must be at most every, or one run would meet the next; shorten it or look less often")
        return value


class RunbookFile(Shape):
    parameters: dict[str, Json] = Field({}, alias="with")


class Budget(Shape):
    """At most `actions` automatic actions on one service in each `per`."""

    actions: Annotated[Whole, Field(ge=0)] = 2
    per: SomeLength = timedelta(hours=1)


class Freeze(Shape):
    """From `start` to `end` nothing but rollback is done automatically."""

    start: Moment = Field(alias="from")
    end: Moment = Field(alias="to")
    why: str = ""

    @field_validator("end")
    @classmethod
    def _later(cls, value: datetime, info: ValidationInfo) -> datetime:
        if "start" in info.data and value <= info.data["start"]:
            raise ValueError("to must be later than from")
        return value


def _no_objectives(value: Json) -> Json:
    if value not in (None, []):
        raise ValueError("objectives come in a later version; remove them, or leave the list empty")
    return []


class ServiceFile(Shape):
    """One model service."""

    owner: ChannelName | None = None
    team: str | None = None
    escalation: list[ChannelName] = []
    mode: Annotated[dict[str, Mode], _text_as("default")] = {"default": "observe"}
    soak: Length = timedelta(hours=1)
    control: Annotated[str, AfterValidator(_no_password), _web("http", "https")] | None = None
    budget: Budget | None = None
    freeze: list[Freeze] = []
    causes: dict[CauseName, RunbookName | None] = {}
    runbooks: dict[RunbookName, RunbookFile | None] = {}
    targets: Targets = Field(default_factory=Targets.model_construct)
    objectives: Annotated[list[Json], BeforeValidator(_no_objectives)] = []
    watches: list[WatchFile] = []


class HeartbeatFile(Shape):
    """A dead man's switch: the URL is called while the loop runs."""

    url: Annotated[str, _web("http", "https")]
    every: SomeLength = timedelta(minutes=1)


class NotifyFile(Shape):
    channels: dict[ServiceName, Annotated[ChannelFile, _text_as("url")]] = {}
    ack_within: SomeLength = timedelta(minutes=15)
    repeat_every: SomeLength = timedelta(hours=4)


class Retention(Shape):
    """How long bodies are kept; their digests stay."""

    findings: SomeLength = timedelta(days=90)
    rollups: SomeLength = timedelta(days=400)


class File(Shape):
    """watchkeeper.yaml"""

    team: str | None = None
    store: str = "watchkeeper.db"
    listen: Annotated[str, AfterValidator(_address)] = "127.0.0.1:8420"
    token: Annotated[str, Field(min_length=8)] | None = None
    heartbeat: Annotated[HeartbeatFile, _text_as("url")] | None = None
    notify: NotifyFile = NotifyFile()
    workers: Annotated[Whole, Field(ge=1, le=256)] = 2
    retention: Retention = Retention()
    budget: Budget = Budget()
    freeze: list[Freeze] = []
    services: dict[ServiceName, ServiceFile]


@functools.cache
def schema() -> dict[str, Any]:
    """The JSON schema of watchkeeper.yaml, for editors."""
    made = File.model_json_schema(by_alias=True, mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": "watchkeeper.yaml"}


def keys_at(path: tuple[str | int, ...]) -> set[str]:
    """The keys the schema knows at a path."""
    known = [schema()]
    for step in path:
        known = [below for held in known for below in _below(held, step)] or known
    return {key for held in known for key in _flat(held).get("properties", {})}


def _below(held: Mapping[str, Any], step: str | int) -> list[dict[str, Any]]:
    flat = _flat(held)
    if isinstance(step, int):
        return _choices(flat.get("items", {}))
    more = flat.get("additionalProperties")
    found = flat.get("properties", {}).get(step) or (more if isinstance(more, dict) else {})
    return _choices(found)


def _choices(held: Mapping[str, Any]) -> list[dict[str, Any]]:
    if not held:
        return []
    options = held.get("anyOf")
    return [choice for option in options for choice in _choices(option)] if options else [dict(held)]


def _flat(held: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = held.get("$ref")
    return schema()["$defs"][reference.rsplit("/", 1)[1]] if reference else held
