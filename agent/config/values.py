"""The configuration as the agent uses it: frozen values with every default filled in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import SecretStr

from agent.config.words import split
from agent.errors import PluginError
from agent.model import Auth, Json, Load, Locator, Mode, Party, spell, to_json
from agent.plugins import Plugin, among, listing, two_called


@dataclass(frozen=True, slots=True)
class Budget:
    """At most `actions` automatic actions on one service in each `per`."""

    actions: int
    per: timedelta


@dataclass(frozen=True, slots=True)
class Asking:
    """Whose yes a runbook takes where somebody is asked: one person's or two different ones', and how long a plan waits for it."""

    two_person: bool = False
    within: timedelta = timedelta(hours=1)

    @property
    def people(self) -> int:
        return 2 if self.two_person else 1


@dataclass(frozen=True, slots=True)
class Drills:
    """What a drill may do on a service. `live`: its users may be part of one, whoever asks; `most`: the largest share of the traffic it may move;
    `hold`: how long it stays moved; `abort_on`: the watches that must be ok before and meanwhile."""

    live: bool = False
    most: float = 1.0
    hold: timedelta = timedelta()
    abort_on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Freeze:
    """From `start` to `end` nothing but rollback is done automatically."""

    start: datetime
    end: datetime
    why: str


@dataclass(frozen=True, slots=True)
class Confirm:
    """`looks` immediate looks must agree (1: the first is believed), or `bad` of the last `of` findings must be bad (None: not counted)."""

    looks: int
    bad: int | None
    of: int | None


@dataclass(frozen=True, slots=True)
class Retention:
    """How long the bodies of findings and the roll-ups are kept."""

    findings: timedelta
    rollups: timedelta


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A dead man's switch. The URL is itself a secret."""

    url: str = field(repr=False)
    every: timedelta


@dataclass(frozen=True, slots=True)
class Channel:
    """Where a notification goes: a locator whose role is "channel". Its URL is itself a secret."""

    name: str
    at: Locator = field(repr=False)

    @property
    def url(self) -> str:
        return self.at.url


@dataclass(frozen=True, slots=True)
class Notify:
    """Who can be told, how long an owner has to answer, and how often an open incident is told again."""

    channels: Mapping[str, Channel]
    ack_within: timedelta
    repeat_every: timedelta


@dataclass(frozen=True, slots=True)
class WatchConfig:
    """One check looked at again and again. `parameters` are JSON as configured, durations as text; `bind` is what this watch alone looks at."""

    name: str
    service: str
    check: str
    every: timedelta
    within: timedelta
    window: timedelta
    parameters: Mapping[str, Json] = field(repr=False)
    bind: Mapping[str, Locator] = field(repr=False)
    needs: tuple[str, ...]
    confirm: Confirm
    clear: int
    severity: Literal["page", "ticket"]
    splay: bool
    run_length: float | None  # its share of the service's `false_alarm_every`, in windows; None where its check keeps no such promise

    @property
    def key(self) -> str:
        """service/watch: its name everywhere."""
        return f"{self.service}/{self.name}"

    @property
    def needed(self) -> tuple[str, ...]:
        """The keys of the watches it needs."""
        return tuple("/".join(split(self.service, need)) for need in self.needs)


@dataclass(frozen=True, slots=True)
class Objective:
    """What the watch `watch`, looked at every `every`, looks at is to be good for `target` of the last `over`."""

    name: str  # availability, latency, freshness or quality
    target: float
    over: timedelta
    watch: str  # its key
    every: timedelta


@dataclass(frozen=True, slots=True)
class Said:
    """What a person says of one question of the audit: that it is met (attested), that its gap is accepted (waived), or that it does not apply."""

    kind: Literal["attested", "waived", "not applicable"]
    item: str
    by: str
    until_at: datetime
    note: str
    reason: str = ""
    version: str | None = None


AUDIT = "audit"  # the name that a service's daily audit goes by where watches have theirs


@dataclass(frozen=True, slots=True)
class Audits:
    """A service is audited every `every`, counted from `at` after midnight of 1970 UTC; what opens an incident."""

    every: timedelta
    at: timedelta
    incident_on: Literal["regression", "blocker", "never"]


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """One model service; `mode` holds for every runbook but those in `modes`."""

    name: str
    owner: str | None
    team: str | None
    escalation: tuple[str, ...]
    mode: Mode
    modes: Mapping[str, Mode]
    soak: timedelta
    false_alarm_every: timedelta
    control: str | None = field(repr=False)
    budget: Budget
    freeze: tuple[Freeze, ...]
    causes: Mapping[str, str | None]
    runbooks: Mapping[str, Mapping[str, Json]]  # runbook -> its parameters
    asking: Mapping[str, Asking]  # runbook -> whose yes it takes, where that is not one person's
    targets: Mapping[str, Locator] = field(repr=False)
    objectives: tuple[Objective, ...]
    watches: tuple[WatchConfig, ...]
    load: Load | None = None  # its lock is that of the server a watch looks at
    drills: Drills = Drills()
    attest: tuple[Said, ...] = ()
    audit: Audits | None = None  # None: it is audited only when somebody asks


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration. `digest` is of its text, before anything was filled in."""

    path: Path
    digest: str
    team: str | None
    store: str = field(repr=False)
    listen: str
    token: SecretStr | None
    heartbeat: Heartbeat | None
    notify: Notify
    workers: int
    retention: Retention
    budget: Budget
    freeze: tuple[Freeze, ...]
    services: Mapping[str, ServiceConfig]
    written: Mapping[str, str] = field(repr=False)  # text that was filled in -> as it is written, for `describe`
    plans: Mapping[str, Plugin] = field(default_factory=dict)  # the runbooks that are written out in it

    @property
    def folder(self) -> Path:
        """Where it lies: what relative paths start from."""
        return (self.path if self.path.is_dir() else self.path.parent).resolve()

    def runbooks(self) -> Mapping[str, Plugin]:
        """Every runbook by name: those written out here first, then those of packages. One name for two: PluginError."""
        found = listing("runbook")
        for name, own in self.plans.items():
            if name in found:
                raise PluginError(f"{two_called(name, own, found[name])}; rename one of them")
        return {**self.plans, **found}

    def runbook(self, name: str) -> Plugin:
        """The runbook of that name; PluginError suggests the nearest one."""
        return among(self.runbooks(), "runbook", name)

    def watches(self) -> Iterator[tuple[ServiceConfig, WatchConfig]]:
        """Every watch with its service."""
        for service in self.services.values():
            for watch in service.watches:
                yield service, watch

    def party(self, service: str) -> Party:
        """Who answers for a service."""
        one = self.services[service]
        line = [name for name in (one.owner, *one.escalation) if name]
        channels = tuple(name for name in line if name in self.notify.channels)
        return Party(service, one.team, one.owner, one.escalation, channels, tuple(name for name in line if name not in channels))

    def describe(self) -> dict[str, Json]:
        """The configuration as canonical JSON values, defaults filled in, without secrets: what was filled in is shown as it is written."""
        made: dict[str, Json] = _described(self, self.written)
        return made


_MAY_HIDE = ("url", "store", "control", "options", "parameters", "runbooks")  # where text from the environment may be a secret


def _described(value: Any, written: Mapping[str, str]) -> Json:
    if isinstance(value, (Channel, Heartbeat)):
        return _aside(value, written)
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, Auth):
        held = {name: getattr(value, name) for name in value.__dataclass_fields__ if name not in ("written", "made")}
        return {name: _described(_as_written(item, written) if name in _MAY_HIDE else item, written) for name, item in held.items()}
    if isinstance(value, Mapping):
        return {str(key): _described(item, written) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_described(item, written) for item in value]
    return _plain(value)


def _plain(value: Any) -> Json:
    match value:
        case Auth():
            return {"kind": value.kind}
        case SecretStr():
            return "set"
        case timedelta():
            return spell(value)
        case Path():
            return str(value)
    return to_json(value)


def _aside(value: Channel | Heartbeat, written: Mapping[str, str]) -> Json:
    """The path of a webhook is its secret."""
    at = urlsplit(value.url)
    url = written.get(value.url, f"{at.scheme}://{at.hostname}/...")
    return {"url": url, "every": spell(value.every)} if isinstance(value, Heartbeat) else {"url": url}


def _as_written(value: Any, written: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _as_written(item, written) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_written(item, written) for item in value]
    return written.get(value, value) if isinstance(value, str) else value
