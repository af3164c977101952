"""Makes the values the agent uses from a file that has no problem left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Literal

from pydantic import SecretStr

from agent.config import parameters, shape
from agent.config.file import File
from agent.config.links import mapping, options_of
from agent.config.source import Source
from agent.config.values import (
    Asking,
    Audits,
    Budget,
    Channel,
    Config,
    Confirm,
    Drills,
    Freeze,
    Heartbeat,
    Notify,
    Objective,
    Retention,
    Said,
    ServiceConfig,
    WatchConfig,
)
from agent.config.words import Known, read_length, split
from agent.model import UTC, Auth, Json, Load, Locator
from agent.targets import KINDS


class Maker:
    """Makes the runtime values of a file that has no problem left."""

    def __init__(self, source: Source, known: Known) -> None:
        self.source = source
        self.known = known
        self.folder = str(source.folder)
        self.targets: dict[str, dict[str, Locator]] = {}

    def config(self, made: File) -> Config:
        self.targets = {
            name: self.locators(name, one.targets, mapping(self.source.value["services"][name], "targets")) for name, one in made.services.items()
        }
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
            services={name: self.service(name, one, made.team, budget, made.audit) for name, one in made.services.items()},
            plans=self.known.plans,
            written={filled: written for written, filled in self.source.filled.items()},
        )

    def service(self, name: str, made: shape.ServiceFile, team: str | None, budget: Budget, audit: shape.AuditFile | None) -> ServiceConfig:
        modes = dict(made.mode)
        sequential = sum(self.known.checks[one.check].sequential for one in made.watches)
        watches = tuple(self.watch(name, place, one, sequential * made.false_alarm_every) for place, one in enumerate(made.watches))
        return ServiceConfig(
            name=name,
            owner=made.owner,
            team=made.team or team,
            escalation=tuple(made.escalation),
            mode=modes.pop("default", "observe"),
            modes=modes,
            soak=made.soak,
            false_alarm_every=made.false_alarm_every,
            control=made.control,
            budget=Budget(made.budget.actions, made.budget.per) if made.budget else budget,
            freeze=_freezes(made.freeze),
            causes=dict(made.causes),
            runbooks={book: self.parameters(book, given) for book, given in made.runbooks.items()},
            asking={book: Asking(given.two_person, given.approve_within) for book, given in made.runbooks.items() if given},
            targets=self.targets[name],
            objectives=tuple(_objectives(made.objectives, watches)),
            watches=watches,
            load=Load(made.load.rate, made.load.longest, made.load.errors, made.load.latency) if made.load else None,
            drills=Drills(made.drills.live, made.drills.most, made.drills.hold, tuple(made.drills.abort_on)),
            attest=tuple(map(_said, made.attest)),
            audit=_audits(made.audit or audit),
        )

    def watch(self, service: str, place: int, made: shape.WatchFile, quiet: timedelta) -> WatchConfig:
        """`quiet` is how long this watch may go on average between false alarms, so that those of the service together keep its promise."""
        check = self.known.checks[made.check]
        raw = self.source.value["services"][service]["watches"][place]
        return WatchConfig(
            name=made.name or made.check,
            service=service,
            check=made.check,
            every=made.every,
            within=made.within or (made.every if check.loads else min(made.every, timedelta(seconds=10))),
            window=made.window or made.every,
            parameters=parameters.plainly(check, raw.get("with", {})) if made.parameters else {},
            bind=self.locators(service, made.bind, mapping(raw, "bind")),
            needs=tuple(made.needs),
            confirm=_confirm(made.confirm, bool(check.promises.get("exact")) and not check.loads, check.sequential),
            clear=made.clear,
            severity=made.severity or check.promises.get("severity", "page"),
            splay=made.splay,
            run_length=quiet / made.every if check.sequential else None,
        )

    def parameters(self, runbook: str, made: shape.RunbookFile | None) -> Mapping[str, Json]:
        return parameters.plainly(self.known.runbooks[runbook], made.parameters) if made else {}

    def locators(self, service: str, made: shape.Targets | None, raw: Mapping[str, Json]) -> dict[str, Locator]:
        return {role: self.locator(service, role, getattr(made, role), raw[role]) for role in made.model_fields_set} if made else {}

    def locator(self, service: str, role: str, made: shape.TargetFile, raw: Json) -> Locator:
        if made.url.startswith("@"):
            other, there = split(service, made.url)
            found = self.targets[other][there]
            return found if KINDS.get(role, role) == KINDS.get(there, there) else replace(found, role=role)  # a server asked as a model
        options = options_of(raw) if isinstance(raw, dict) else {}
        return self.reach(service, role, made, _in_seconds(options))

    def reach(self, service: str, role: str, made: shape.TargetFile | shape.ChannelFile, options: Mapping[str, Json]) -> Locator:
        look, act = (self.auth(made.auth.look), self.auth(made.auth.act)) if made.auth else (None, None)
        return Locator(service, role, made.url, options, look, act, made.verify, self.near(made.ca), made.within, self.folder)

    def channel(self, name: str, made: shape.ChannelFile) -> Channel:
        return Channel(name, self.reach("", "channel", made, {}))

    def near(self, name: str | None) -> str | None:
        """A path that starts where the configuration lies."""
        return str(self.source.folder / name) if name else None

    def store(self, name: str) -> str:
        return name if "://" in name else str(self.source.folder / name)

    def auth(self, made: shape.Credential | None) -> Auth | None:
        if made is None:
            return None
        (kind,) = made.model_fields_set
        held = getattr(made, kind)
        if isinstance(held, str):
            return Auth(kind, {"token": held})
        values = {name: value for name, value in held.model_dump().items() if value is not None}
        return Auth(kind, {name: str(self.source.folder / value) for name, value in values.items()} if kind == "mtls" else values)


def _freezes(made: list[shape.Freeze]) -> tuple[Freeze, ...]:
    return tuple(Freeze(one.start, one.end, one.why) for one in made)


def _audits(made: shape.AuditFile | None) -> Audits | None:
    if made is None:
        return None
    hours, minutes = map(int, made.at.split(":"))
    return Audits(made.every, timedelta(hours=hours, minutes=minutes), made.incident_on)


def _said(made: shape.AttestFile) -> Said:
    kind: Literal["attested", "waived", "not applicable"] = "waived" if made.waive else "not applicable" if made.not_applicable else "attested"
    return Said(kind, made.item, made.by, made.until.astimezone(UTC), made.note, made.waive or made.not_applicable or "", made.version)


def _objectives(made: shape.Objectives, watches: Iterable[WatchConfig]) -> Iterator[Objective]:
    named = {watch.name: watch for watch in watches}
    for name, one in made:
        if one is not None:
            yield Objective(name, one.target, one.over, named[one.watch].key, named[one.watch].every)


def _confirm(made: shape.ConfirmFile | None, exact: bool, sequential: bool) -> Confirm:
    """A sequential test has waited for its evidence already; asking it to say so twice would only add a window to every delay."""
    if made is not None:
        return Confirm(made.looks or 1, made.bad, made.of)
    return Confirm(1, None, None) if sequential else Confirm(2, None, None) if exact else Confirm(1, 2, 3)


def _in_seconds(options: Mapping[str, Json]) -> dict[str, Json]:
    """Durations in a table's options as seconds, which is how they travel."""
    made = dict(options)
    if isinstance(made.get("delay"), str):
        made["delay"] = read_length(made["delay"]).total_seconds()
    if isinstance(made.get("time"), dict) and isinstance(made["time"].get("settle"), str):
        made["time"] = {**made["time"], "settle": read_length(made["time"]["settle"]).total_seconds()}
    return made
