"""What only the whole can tell: needs, bound roles, parameters and adapters. Works on unproven values, so that no mistake hides another."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from agent.config import parameters
from agent.config.problems import Given, Path, near, shown
from agent.config.shape import BASE_KEYS
from agent.config.source import Source, plain
from agent.config.words import Known, is_url, read_length, split
from agent.errors import ConfigError, PluginError, WatchkeeperError
from agent.model import Json, Locator, spell
from agent.plugins import PLATFORM, Plugin
from agent.targets import KINDS, schemes, speaker

Names = tuple[str, str]  # service, watch
ROOM = timedelta(minutes=1)  # that a load test takes to begin, to wait for the last answers and to judge, beyond its duration


def mapping(value: Json, key: str) -> dict[str, Any]:
    """The mapping under a key; empty when there is none, or something else."""
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def items(value: Json, key: str) -> list[Any]:
    """The list under a key; empty when there is none, or something else."""
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, list) else []


def name_of(watch: Json) -> str | None:
    """A watch is called by its name, else by its check."""
    found = watch.get("name", watch.get("check")) if isinstance(watch, dict) else None
    return found if isinstance(found, str) else None


@dataclass
class Links:
    """One walk over the services of a source."""

    source: Source
    known: Known
    graph: dict[Names, list[tuple[Names, Path]]] = field(default_factory=dict)

    def check(self) -> None:
        """Note every problem in the source."""
        services = mapping(self.source.value, "services")
        for name, service in services.items():
            self.targets(name, mapping(service, "targets"), ("services", name, "targets"))
            self.runbooks(service, ("services", name))
            self.drills(service, ("services", name, "drills"))
            self.objectives(service, ("services", name))
            self.watches(services, name, service)
        self.needs()
        self.cycles()

    # Targets

    def targets(self, service: str, targets: Mapping[str, Json], path: Path) -> None:
        for role, target in targets.items():
            url = target.get("url") if isinstance(target, dict) else target
            if target is None:
                self.source.complain((*path, role), "needs a URL; write one, or remove the role")
            if isinstance(url, str) and url.startswith("@"):
                self.source.complain((*path, role, "url"), "`@service.role` is understood under a watch's `bind`; write the URL here")
            elif isinstance(url, str) and url:
                self.adapter(service, role, url, target if isinstance(target, dict) else {}, (*path, role))

    def adapter(self, service: str, role: str, url: str, target: Mapping[str, Json], path: Path) -> None:
        if not is_url(url):
            return
        kind = KINDS.get(role, role)
        scheme = Locator(service, role, url).scheme
        known = schemes(kind, self.known.adapters)
        if not known:
            roles = sorted({name.partition(":")[0] for name in self.known.adapters} - set(KINDS.values()) | set(KINDS))
            self.source.complain(path, f"no adapter speaks to a {shown(role)[1:-1]}{near(role, roles)}", at_key=True)
        elif scheme not in known:
            said = url if isinstance(url, Given) else scheme
            self.source.complain((*path, "url"), f"no adapter speaks {shown(said)} to a {kind}{near(scheme, known)}")
        elif kind == "table":  # what it declares is judged by its shape; its adapter judges the URL
            self.options(kind, Locator(service, role, str(url), folder=str(self.source.folder)), path)
        else:
            self.mistyped(target, path)
            self.options(kind, Locator(service, role, str(url), options_of(target), folder=str(self.source.folder)), path)

    def mistyped(self, target: Mapping[str, Json], path: Path) -> None:
        """A key that is no option of any adapter but nearly one that every target has."""
        for key in target.keys() - BASE_KEYS:
            if meant := nearly(key):
                self.source.complain((*path, key), f"unknown key; did you mean '{meant}'?", at_key=True)

    def options(self, role: str, at: Locator, path: Path) -> None:
        """An adapter judges its own options when it is built; nothing is asked of the target."""
        try:
            speaks = speaker(role, at.scheme, self.known.adapters)
            made = None if speaks is None else speaks(at)
        except ConfigError as problem:
            for text in problem.problems:
                self.source.complain(path, text.removeprefix(f"{at.service}.{at.role}: ").removeprefix(f"{at.service}.{at.role}."))
        except WatchkeeperError as problem:
            self.source.complain(path, str(problem))
        except Exception as problem:  # noqa: BLE001 - an adapter's fault must not stop the others from being judged
            self.source.complain(path, f"its adapter cannot take it ({type(problem).__name__}: {problem})")
        else:
            getattr(made, "close", lambda: None)()

    # Watches

    def runbooks(self, service: Json, path: Path) -> None:
        for name, runbook in mapping(service, "runbooks").items():
            if name in self.known.runbooks:
                self.parameters(self.known.runbooks[name], mapping(runbook, "with"), (*path, "runbooks", name))

    def drills(self, service: Json, path: Path) -> None:
        watches = [name for watch in items(service, "watches") if (name := name_of(watch)) is not None]
        for place, name in enumerate(items(mapping(service, "drills"), "abort_on")):
            if isinstance(name, str) and name not in watches:
                self.source.complain((*path, "abort_on", place), f"no watch {shown(name)}{near(name, watches)}")

    def objectives(self, service: Json, path: Path) -> None:
        """What an objective is judged by is a watch of its own service, and how long it counts is how long that is remembered."""
        names = [name for watch in items(service, "watches") if (name := name_of(watch)) is not None]
        kept = _length(mapping(self.source.value, "retention").get("rollups", "400d"))
        for name, one in mapping(service, "objectives").items():
            watch, over = (one.get("watch"), _length(one.get("over", "28d"))) if isinstance(one, dict) else (None, None)
            if isinstance(watch, str) and watch not in names:
                self.source.complain((*path, "objectives", name, "watch"), f"no watch {shown(watch)}{near(watch, names)}")
            if over and kept and over > kept:
                said = f"must be at most retention.rollups ({spell(kept)}): what is older is not remembered"
                self.source.complain((*path, "objectives", name, "over"), said)
        for place, one in enumerate(items(service, "watches")):
            check = self.known.checks.get(one["check"]) if isinstance(one, dict) and isinstance(one.get("check"), str) else None
            if check is not None and any(need.name == "budgets" for need in check.needs) and not mapping(service, "objectives"):
                said = f"{check.name} looks at error budgets, of which there are none; add `objectives:` to {path[-1]}"
                self.source.complain((*path, "watches", place, "check"), said)

    def watches(self, services: Mapping[str, Json], name: str, service: Json) -> None:
        first: dict[str, Path] = {}
        for place, watch in enumerate(items(service, "watches")):
            path: Path = ("services", name, "watches", place)
            called = name_of(watch)
            if called is None:
                continue
            if called in first:
                where = self.source.place(first[called])
                self.source.complain((*path, "name"), f"a watch {shown(called)} is already defined at {where}; give one of them a `name`")
            first.setdefault(called, path)
            needs = [(split(name, need), (*path, "needs", n)) for n, need in enumerate(items(watch, "needs")) if isinstance(need, str)]
            self.graph.setdefault((name, called), []).extend(needs)
            check = self.known.checks.get(watch["check"]) if isinstance(watch.get("check"), str) else None
            self.binds(services, name, mapping(watch, "bind"), check, path)
            if check is not None:
                self.roles(check, name, service, watch, path)
                self.streams(check, services, name, watch, path)
                self.disjoint(check, watch, path)
                self.parameters(check, mapping(watch, "with"), path)
                if check.loads:
                    self.load(check, name, service, watch, path)

    def binds(self, services: Mapping[str, Json], name: str, bind: Mapping[str, Json], check: Plugin | None, path: Path) -> None:
        asked = {need.name for need in check.needs} if check else set(bind)
        plain: dict[str, Json] = {}
        for role, target in bind.items():
            if isinstance(target, str) and target.startswith("@"):
                self.link(services, target, (*path, "bind", role))
            elif role in asked:
                plain[role] = target
        self.targets(name, plain, (*path, "bind"))

    def link(self, services: Mapping[str, Json], text: str, path: Path) -> None:
        other, role = split("", text)
        if other not in services:
            self.source.complain(path, f"no service {shown(other)}{near(other, services)}")
        elif role not in mapping(services[other], "targets"):
            self.source.complain(path, f"service '{other}' has no target {shown(role)}{near(role, mapping(services[other], 'targets'))}")

    def roles(self, check: Plugin, name: str, service: Json, watch: Json, path: Path) -> None:
        asked = {need.name: need.optional for need in check.needs if need.name not in PLATFORM}
        bind = mapping(watch, "bind")
        for role in bind.keys() - asked.keys():
            self.source.complain((*path, "bind", role), f"{check.name} does not ask for {shown(role)}{near(role, asked)}", at_key=True)
        for role, optional in asked.items():
            if not optional and role not in bind and role not in mapping(service, "targets"):
                add = f"add services.{name}.targets.{role} or bind it"
                self.source.complain((*path, "check"), f"{check.name} needs '{role}'; {add}")

    def streams(self, check: Plugin, services: Mapping[str, Json], name: str, watch: Json, path: Path) -> None:
        """Who reads columns cannot look at a table whose engine only counts."""
        for need in check.needs:
            if need.annotation.split(" ")[0] == "Columns":
                owner, role, target = self.bound(services, name, mapping(watch, "bind").get(need.name), need.name)
                scheme = Locator(owner, role, str(target.get("url") if isinstance(target, dict) else target)).scheme
                if not self.can(scheme, "columns"):
                    said = f"{owner}.{role} ({scheme}) cannot stream columns, which {check.name} needs; export what it reads to Parquet"
                    self.source.complain((*path, "check"), said)

    def bound(self, services: Mapping[str, Json], name: str, bound: Json, role: str) -> tuple[str, str, Json]:
        """Whose target a watch looks at in a role: service, role there, and the target as written."""
        if isinstance(bound, str) and bound.startswith("@"):
            name, role = split("", bound)
            bound = None
        return name, role, bound if bound is not None else mapping(services.get(name), "targets").get(role)

    def can(self, scheme: str, what: str) -> bool:
        """What the adapter of a table says it can; what cannot be loaded, or says nothing, is told elsewhere."""
        plugin = self.known.adapters.get(f"table:{scheme}")
        try:
            return plugin is None or what in getattr(plugin.load(), "can", {what})
        except PluginError:
            return True

    def disjoint(self, check: Plugin, watch: Json, path: Path) -> None:
        """What adds up evidence may count no row twice."""
        every, window = (_length(watch.get(key, default)) for key, default in (("every", "1m"), ("window", None)))
        if check.sequential and every and window and window > every:
            said = f"must be at most `every` ({spell(every)}): {check.name} adds windows up, and may count no row twice"
            self.source.complain((*path, "window"), said)

    def load(self, check: Plugin, name: str, service: Json, watch: Json, path: Path) -> None:
        """A load test needs its own service's leave, keeps to its ceilings, and has the time to end."""
        allowed, server = mapping(service, "load"), mapping(watch, "bind").get("server")
        rate, duration = (_number(self.asked(check, watch, "rate")), _length(self.asked(check, watch, "duration")))
        if service.get("load") is None:
            line = f"load: {{rate: {rate or 200:g}, longest: {spell(duration or timedelta(minutes=10))}}}"
            said = f"{check.name} makes load, which {name} does not allow; add `{line}` under services.{name}, with what it can bear"
            self.source.complain((*path, "check"), said)
        if isinstance(server, str) and server.startswith("@") and split("", server)[0] != name:
            said = f"load goes to a watch's own service; write this watch under services.{split('', server)[0]}"
            self.source.complain((*path, "bind", "server"), said)
        most, longest = _number(allowed.get("rate")), _length(allowed.get("longest"))
        if rate and most and rate > most:
            self.source.complain((*path, "with", "rate"), f"{rate:g} a second is more than services.{name}.load.rate allows ({most:g}); ask for less")
        if duration and longest and duration > longest:
            said = f"{spell(duration)} is longer than services.{name}.load.longest allows ({spell(longest)}); ask for less"
            self.source.complain((*path, "with", "duration"), said)
        key = "within" if watch.get("within") is not None else "every"
        given = _length(watch.get(key, "1m"))
        if duration and given and duration + ROOM > given:
            said = f"must be at least {spell(duration + ROOM)}: {check.name} runs for {spell(duration)}, and needs a while to begin and to end"
            self.source.complain((*path, key), said)

    def asked(self, check: Plugin, watch: Json, name: str) -> Json:
        """What a watch gives for a parameter, else its default."""
        try:
            return mapping(watch, "with").get(name, parameters.default(check, name))
        except PluginError:  # told elsewhere
            return None

    def parameters(self, plugin: Plugin, given: Mapping[str, Json], path: Path) -> None:
        try:
            for where, text in parameters.problems(plugin, given):
                self.source.complain((*path, "with", *where), text, at_key="has no parameter" in text)
        except PluginError as problem:
            self.source.complain((*path, "check"), str(problem))

    # Needs

    def needs(self) -> None:
        for needs in self.graph.values():
            for (service, watch), path in needs:
                if (service, watch) not in self.graph:
                    self.source.complain(path, self.unknown(service, watch))

    def unknown(self, service: str, watch: str) -> str:
        services = {name for name, _ in self.graph}
        if service not in services:
            return f"no service {shown(service)} with watches{near(service, services)}"
        return f"service '{service}' has no watch {shown(watch)}{near(watch, [name for owner, name in self.graph if owner == service])}"

    def cycles(self) -> None:
        """Each watch that lies on a cycle is named once, at the need that closes it."""
        done: set[Names] = set()
        for start in self.graph:
            trail: dict[Names, Iterator[tuple[Names, Path]]] = {} if start in done else {start: iter(self.graph[start])}
            while trail:
                here = next(reversed(trail))
                need, path = next(trail[here], (None, ()))
                if need is None:
                    done.add(here)
                    del trail[here]
                elif need in trail:
                    names = [*trail][[*trail].index(need) :]
                    circle = " -> ".join(".".join(name) for name in [*names, need])
                    self.source.complain(path, f"needs go in a circle: {circle}; remove one of them")
                elif need not in done and need in self.graph:
                    trail[need] = iter(self.graph[need])


def options_of(target: Mapping[str, Json]) -> dict[str, Json]:
    """What a target says beyond the keys every target has: options of its adapter."""
    return {key: simple(item) for key, item in target.items() if key not in BASE_KEYS and not nearly(key)}


def _number(value: Json) -> float | None:
    value = plain(value) if isinstance(value, Given) else value
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _length(value: Json) -> timedelta | None:
    try:
        return value if isinstance(value, timedelta) else read_length(value)
    except ValueError:  # told elsewhere
        return None


def nearly(key: str) -> str | None:
    """The key of every target that this one was probably meant to be."""
    return next(iter(difflib.get_close_matches(key[:40], BASE_KEYS - {key}, 1, 0.85)), None)


def simple(value: Json) -> Json:
    """The same value without what marks text as given by the environment."""
    if isinstance(value, dict):
        return {key: simple(item) for key, item in value.items()}
    if isinstance(value, list):
        return [simple(item) for item in value]
    return str(value) if isinstance(value, Given) else value
