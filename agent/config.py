"""The configuration, read, judged as a whole and made ready to use: services, targets, watches, who is told and what may be done."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import SecretStr, ValidationError

from agent import _config_file as file
from agent import _parameters
from agent import _problems as told
from agent._config_file import schema
from agent._config_links import Links, mapping, options_of, split
from agent._source import Source
from agent._source import read as read_source
from agent.errors import ConfigError, PluginError
from agent.model import Auth, Json, Locator, Mode, Party, spell, to_json
from agent.plugins import listing

__all__ = ["Config", "ServiceConfig", "WatchConfig", "load", "schema"]


@dataclass(frozen=True, slots=True)
class Budget:
    """At most `actions` automatic actions on one service in each `per`."""

    actions: int
    per: timedelta


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
    parameters: Mapping[str, Json]
    bind: Mapping[str, Locator]
    needs: tuple[str, ...]
    confirm: Confirm
    clear: int
    severity: Literal["page", "ticket"]
    splay: bool

    @property
    def key(self) -> str:
        """service/watch: its name everywhere."""
        return f"{self.service}/{self.name}"

    @property
    def needed(self) -> tuple[str, ...]:
        """The keys of the watches it needs."""
        return tuple("/".join(split(self.service, need)) for need in self.needs)


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
    control: str | None
    budget: Budget
    freeze: tuple[Freeze, ...]
    causes: Mapping[str, str | None]
    runbooks: Mapping[str, Mapping[str, Json]]  # runbook -> its parameters
    targets: Mapping[str, Locator]
    objectives: tuple[Json, ...]
    watches: tuple[WatchConfig, ...]


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration. `digest` is of its text, before anything was filled in."""

    path: Path
    digest: str
    team: str | None
    store: str
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
        """The configuration as canonical JSON values, defaults filled in, without secrets."""
        made: dict[str, Json] = _described(self, self.written)
        return made


def load(path: Path) -> Config:
    """The configuration at `path`, a file or a folder whose files are merged. ConfigError holds every problem, in the order of the text."""
    source = read_source(Path(path))
    try:
        known = _known(source)
    except PluginError as problem:
        raise ConfigError(f"{path}: {problem}") from problem
    made = _shaped(source, known)
    Links(source, known).check()
    _guarded(source)
    source.raise_problems()
    assert made is not None
    return _Builder(source, known).config(made)


def _known(source: Source) -> file.Known:
    channels = mapping(mapping(source.value, "notify"), "channels")
    return file.Known(listing("check"), listing("runbook"), listing("adapter"), frozenset(channels))


def _shaped(source: Source, known: file.Known) -> file.File | None:
    try:
        return file.File.model_validate(source.value, context=known)
    except ValidationError as problem:
        for error in problem.errors(include_url=False)[:2000]:
            _complain(source, error)
        return None


def _complain(source: Source, error: Mapping[str, Any]) -> None:
    path = tuple(step for step in error["loc"] if not (isinstance(step, str) and step.startswith("<")))
    if error["type"] == "extra_forbidden":
        word = str(path[-1])
        source.complain(path, f"unknown key{told.near(word, file.keys_at(path[:-1]))}", at_key=True)
    elif error["type"] == "missing":
        source.complain(path, f"needs `{path[-1]}`")
    elif path[-1:] == ("[key]",):
        source.complain(path[:-1], told.phrase(error, error["input"]), at_key=True)
    else:
        source.complain(path, told.phrase(error, error["input"]))


def _guarded(source: Source) -> None:
    """Who can reach the port can do harm: beyond this machine a token is needed."""
    listen = source.value.get("listen")
    if not isinstance(listen, str) or source.value.get("token"):
        return
    host = listen.rpartition(":")[0].strip("[]")
    try:
        here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost"
    if not here:
        source.complain(
            ("listen",), "can be reached from other machines, which takes a token; add `token: ${WATCHKEEPER_TOKEN}` or listen on 127.0.0.1"
        )


class _Builder:
    """Makes the runtime values of a file that has no problem left."""

    def __init__(self, source: Source, known: file.Known) -> None:
        self.source = source
        self.known = known
        self.folder = str(source.folder)
        self.targets: dict[str, dict[str, Locator]] = {}

    def config(self, made: file.File) -> Config:
        self.targets = {name: self.locators(name, one.targets, ("services", name, "targets")) for name, one in made.services.items()}
        budget = Budget(made.budget.actions, made.budget.per)
        return Config(
            path=self.source.path,
            digest=self.source.digest,
            team=made.team,
            store=self.store(made.store),
            listen=made.listen,
            token=SecretStr(made.token) if made.token else None,
            heartbeat=Heartbeat(made.heartbeat.url, made.heartbeat.every) if made.heartbeat else None,
            notify=Notify({n: self.channel(n, c) for n, c in made.notify.channels.items()}, made.notify.ack_within, made.notify.repeat_every),
            workers=made.workers,
            retention=Retention(made.retention.findings, made.retention.rollups),
            budget=budget,
            freeze=_freezes(made.freeze),
            services={name: self.service(name, one, made.team, budget) for name, one in made.services.items()},
            written=self.source.hidden,
        )

    def service(self, name: str, made: file.ServiceFile, team: str | None, budget: Budget) -> ServiceConfig:
        modes = dict(made.mode)
        return ServiceConfig(
            name=name,
            owner=made.owner,
            team=made.team or team,
            escalation=tuple(made.escalation),
            mode=modes.pop("default", "observe"),
            modes=modes,
            soak=made.soak,
            control=made.control,
            budget=Budget(made.budget.actions, made.budget.per) if made.budget else budget,
            freeze=_freezes(made.freeze),
            causes=dict(made.causes),
            runbooks={book: self.parameters(book, given) for book, given in made.runbooks.items()},
            targets=self.targets[name],
            objectives=(),
            watches=tuple(self.watch(name, place, one) for place, one in enumerate(made.watches)),
        )

    def watch(self, service: str, place: int, made: file.WatchFile) -> WatchConfig:
        check = self.known.checks[made.check]
        raw = self.source.value["services"][service]["watches"][place]
        return WatchConfig(
            name=made.name or made.check,
            service=service,
            check=made.check,
            every=made.every,
            within=made.within or min(made.every, timedelta(seconds=10)),
            window=made.window or made.every,
            parameters=_parameters.plainly(check, raw.get("with", {})) if made.parameters else {},
            bind=self.locators(service, made.bind, ("services", service, "watches", place, "bind")) if "bind" in raw else {},
            needs=tuple(made.needs),
            confirm=_confirm(made.confirm, bool(check.promises.get("exact"))),
            clear=made.clear,
            severity=made.severity,
            splay=made.splay,
        )

    def parameters(self, runbook: str, made: file.RunbookFile | None) -> Mapping[str, Json]:
        return _parameters.plainly(self.known.runbooks[runbook], made.parameters) if made else {}

    def locators(self, service: str, made: file.Targets, path: told.Path) -> dict[str, Locator]:
        found: dict[str, file.TargetFile] = {**{role: getattr(made, role) for role in made.model_fields_set}}
        raw: Any = self.source.value
        for step in path:
            raw = raw.get(step, {}) if isinstance(raw, dict) else raw[int(step)]
        return {role: self.locator(service, role, one, raw[role]) for role, one in found.items() if one is not None}

    def locator(self, service: str, role: str, made: file.TargetFile, raw: Json) -> Locator:
        if made.url.startswith("@"):
            other, there = split(service, made.url)
            return self.targets[other][there]
        options = options_of(raw) if isinstance(raw, dict) else {}
        return self.reach(service, role, made, _in_seconds(options))

    def reach(self, service: str, role: str, made: file.TargetFile | file.ChannelFile, options: Mapping[str, Json]) -> Locator:
        look, act = self.auth(made.auth.look), self.auth(made.auth.act)
        return Locator(service, role, made.url, options, look, act, made.verify, self.near(made.ca), made.within, self.folder)

    def channel(self, name: str, made: file.ChannelFile) -> Channel:
        return Channel(name, self.reach("", "channel", made, {}))

    def near(self, name: str | None) -> str | None:
        """A path that starts where the configuration lies."""
        return str(self.source.folder / name) if name else None

    def store(self, name: str) -> str:
        return name if "://" in name else str(self.source.folder / name)

    def auth(self, made: file.Credential | None) -> Auth | None:
        if made is None:
            return None
        (kind,) = made.model_fields_set
        held = getattr(made, kind)
        if isinstance(held, str):
            return Auth(kind, {"token": held})
        values = {name: value for name, value in held.model_dump().items() if value is not None}
        return Auth(kind, {name: str(self.source.folder / value) for name, value in values.items()} if kind == "mtls" else values)


def _freezes(made: list[file.Freeze]) -> tuple[Freeze, ...]:
    return tuple(Freeze(one.start, one.end, one.why) for one in made)


def _confirm(made: file.ConfirmFile | None, exact: bool) -> Confirm:
    if made is not None:
        return Confirm(made.looks or 1, made.bad, made.of)
    return Confirm(2, None, None) if exact else Confirm(1, 2, 3)


def _in_seconds(options: Mapping[str, Json]) -> dict[str, Json]:
    """Durations in a table's options as seconds, which is how they travel."""
    made = dict(options)
    if isinstance(made.get("delay"), str):
        made["delay"] = file.read_length(made["delay"]).total_seconds()
    if isinstance(made.get("time"), dict) and isinstance(made["time"].get("settle"), str):
        made["time"] = {**made["time"], "settle": file.read_length(made["time"]["settle"]).total_seconds()}
    return made


def _described(value: Any, written: Mapping[str, str]) -> Json:
    if isinstance(value, Auth):
        return {"kind": value.kind}
    if isinstance(value, (Channel, Heartbeat)):
        at = urlsplit(value.url)
        return {
            "url": written.get(value.url, f"{at.scheme}://{at.hostname}/..."),
            **({"every": spell(value.every)} if isinstance(value, Heartbeat) else {}),
        }
    if isinstance(value, SecretStr):
        return "set"
    if isinstance(value, timedelta):
        return spell(value)
    if isinstance(value, str):
        return written.get(value, value)
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "__dataclass_fields__"):
        return {name: _described(getattr(value, name), written) for name in value.__dataclass_fields__ if name != "written"}
    if isinstance(value, Mapping):
        return {str(key): _described(item, written) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_described(item, written) for item in value]
    return to_json(value)
