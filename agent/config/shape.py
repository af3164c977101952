"""The shape of a configuration file: which keys may be written where."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from agent.config.values import AUDIT
from agent.config.words import (
    CauseName,
    ChannelName,
    ChannelUrl,
    CheckName,
    Clock,
    Flag,
    HeaderName,
    ItemName,
    Length,
    ModeKey,
    Moment,
    Real,
    RunbookName,
    ServiceName,
    Shorthand,
    SomeLength,
    Until,
    Url,
    WatchName,
    WebUrl,
    Whole,
    Zone,
    text_as,
)
from agent.model import Json, Mode


class Shape(BaseModel):
    """A mapping with a fixed set of keys."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=False)


# Targets and channels


class Basic(Shape):
    user: str
    password: str


class Header(Shape):
    name: HeaderName
    value: str


class OAuth2(Shape):
    """Client credentials."""

    token_url: WebUrl
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
    auth: Auth | None = None
    verify: Flag = True
    ca: str | None = None
    within: SomeLength = timedelta(seconds=10)


BASE_KEYS = frozenset(TargetFile.model_fields)


class Time(Shape):
    """The column with the time of each row. Text and stored timestamps need the zone they are in; epoch numbers have one."""

    column: str
    unit: Literal["iso", "s", "ms", "us", "ns"] = "iso"
    tz: Zone | None = Field(None, validate_default=True)
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
    features: Annotated[Annotated[list[str], Tag("<list>")] | Annotated[JsonFeatures, Tag("<json>")], Discriminator(_features_kind)] | None = None
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


_Target = Annotated[TargetFile, text_as("url")]
_Table = Annotated[TableFile, text_as("url")]


class Targets(Shape):
    """Roles; other names are allowed, for checks that ask for them."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, _Target]

    server: _Target | None = None
    router: _Target | None = None
    registry: _Target | None = None
    live: _Table | None = None
    reference: _Table | None = None
    offline: _Table | None = None
    online: _Target | None = None
    parents: _Table | None = None
    inputs: _Table | None = None
    old: _Table | None = None
    new: _Table | None = None
    guard: _Table | None = None
    labels: Annotated[LabelsFile, text_as("url")] | None = None


class ChannelFile(Shape):
    """Where a notification goes: an https URL takes a plain webhook, slack+https Slack's form."""

    url: ChannelUrl
    auth: Auth | None = None
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
    bind: Targets | None = None
    needs: list[str] = []
    confirm: ConfirmFile | None = None
    clear: Annotated[Whole, Field(ge=1, le=1000)] = 2
    severity: Literal["page", "ticket"] | None = None
    splay: Flag = True

    @field_validator("name")
    @classmethod
    def _free(cls, value: str | None) -> str | None:
        if value == AUDIT:
            raise ValueError(f"'{AUDIT}' is what the daily audit is called in incidents; choose another name")
        return value

    @field_validator("every")
    @classmethod
    def _not_too_often(cls, value: timedelta) -> timedelta:
        if value < timedelta(seconds=1):
            raise ValueError("must be at least 1s")
        return value

    @field_validator("within")
    @classmethod
    def _in_time(cls, value: timedelta | None, info: ValidationInfo) -> timedelta | None:
        if value is not None and value > info.data.get("every", value):
            raise ValueError("must be at most `every`, or one look would run into the next; shorten it or look less often")
        return value


class LoadFile(Shape):
    """What a load test may do to the service; without it there is none."""

    rate: Annotated[Real, Field(gt=0, le=1_000_000)]
    longest: SomeLength
    errors: Annotated[Real, Field(gt=0, le=1)] = 0.5
    latency: SomeLength | None = None


class RunbookFile(Shape):
    """How a runbook is used on this service: its parameters, and whose yes it takes where somebody is asked."""

    parameters: dict[str, Json] = Field({}, alias="with")
    two_person: Flag = False
    approve_within: SomeLength = timedelta(hours=1)


class DrillsFile(Shape):
    """What a drill may do on a service: nothing live without a word, unless `live` gives it for good."""

    live: Flag = False
    most: Annotated[Real, Field(gt=0, le=1)] = 1.0
    hold: Length = timedelta(0)
    abort_on: list[str] = []


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
            raise ValueError("must be later than `from`")
        return value


Waived = Literal["accepted-risk", "remediated-elsewhere", "not-detected"]
Apart = Literal["no-such-thing", "not-supported"]


class AttestFile(Shape):
    """What a person says of one question of the audit: that it is met, or, with a reason, that its gap is accepted or that it does not apply."""

    item: ItemName
    by: Annotated[str, Field(min_length=1, max_length=100)]
    until: Until
    note: Annotated[str, Field(min_length=1, max_length=1000)]
    version: str | None = None
    waive: Waived | None = None
    not_applicable: Apart | None = None

    @model_validator(mode="after")
    def _one(self) -> AttestFile:
        if self.waive and self.not_applicable:
            raise ValueError("is either waived or not applicable, not both")
        return self


class ObjectiveFile(Shape):
    """What a watch looks at is to be good for `target` of the last `over`."""

    target: Annotated[Real, Field(gt=0, le=0.999999)]
    watch: str
    over: SomeLength = timedelta(days=28)

    @field_validator("over")
    @classmethod
    def _long_enough(cls, value: timedelta) -> timedelta:
        if value < timedelta(days=1):
            raise ValueError("must be at least 1d, or a burn could not be told from a spent budget")
        return value


class Objectives(Shape):
    """What is promised about a service."""

    availability: ObjectiveFile | None = None
    latency: ObjectiveFile | None = None
    freshness: ObjectiveFile | None = None
    quality: ObjectiveFile | None = None


class AuditFile(Shape):
    """How often a service is audited and the result kept: every `every`, counted from `at`, a time of day in UTC."""

    every: SomeLength = timedelta(days=1)
    at: Clock = "00:00"
    incident_on: Literal["regression", "blocker", "never"] = "never"

    @field_validator("every")
    @classmethod
    def _not_too_often(cls, value: timedelta) -> timedelta:
        if value < timedelta(hours=1):
            raise ValueError("must be at least 1h: an audit reads the whole record")
        return value


class ServiceFile(Shape):
    """One model service."""

    owner: ChannelName | None = None
    team: str | None = None
    escalation: list[ChannelName] = []
    mode: Annotated[dict[ModeKey, Mode], text_as("default")] = {"default": "observe"}
    soak: Length = timedelta(hours=1)
    false_alarm_every: SomeLength = timedelta(days=90)
    control: WebUrl | None = None
    load: LoadFile | None = None
    budget: Budget | None = None
    freeze: list[Freeze] = []
    causes: dict[CauseName, RunbookName | None] = {}
    runbooks: dict[RunbookName, RunbookFile | None] = {}
    drills: DrillsFile = DrillsFile()
    targets: Targets | None = None
    objectives: Objectives = Objectives()
    attest: list[AttestFile] = []
    audit: AuditFile | None = None
    watches: list[WatchFile] = []


class HeartbeatFile(Shape):
    """A dead man's switch: the URL is called while the loop runs."""

    url: WebUrl
    every: SomeLength = timedelta(minutes=1)


class NotifyFile(Shape):
    channels: dict[ServiceName, Annotated[ChannelFile, text_as("url")]] = {}
    ack_within: SomeLength = timedelta(minutes=15)
    repeat_every: SomeLength = timedelta(hours=4)


class Retention(Shape):
    """How long bodies are kept; their digests stay."""

    findings: SomeLength = timedelta(days=90)
    rollups: SomeLength = timedelta(days=400)
