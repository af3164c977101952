"""What changed in the world: which version is served, since when, which were good, what was registered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from agent.config import ServiceConfig
from agent.errors import WatchkeeperError
from agent.incidents import RELEASE
from agent.model import Event, Json, digest, to_json
from agent.store import Ledger
from agent.wire import deadline
from agent.world import Watched, World

PATIENCE = timedelta(seconds=2)  # for one question about what is served


def sources(service: ServiceConfig) -> list[str]:
    """Where changes of this service are watched for."""
    return [*sorted(role for role in service.targets if role in ("router", "server", "registry", "data")), "config"]


def changes_before(ledger: Ledger, service: str, now: datetime, within: timedelta = timedelta(hours=24)) -> list[Event]:
    """Change events of this service and of the configuration in the last day, newest first."""
    found = ledger.events("change", since=now - within, until=now, limit=100)
    return [event for event in found if event.service in (service, None)][:10]


def see_served(world: World, service: ServiceConfig) -> str | None:
    """Ask which version has the traffic and write down a change; None when nobody can say.

    Of several it is the one that had it before, as long as it has any: what gets a part of the traffic has not replaced anything yet.
    """
    weights = served_by(world, service)
    if not weights:
        return None
    was = world.served.get(service.name)
    version = was if was is not None and was in weights else max(weights, key=lambda name: weights[name])
    world.split[service.name] = len(weights) > 1
    if version == was:
        return version
    now = world.clock()

    def note(ledger: Ledger) -> None:
        was = ledger.served_now(service.name)
        if was is None or was.version != version:
            ledger.serve(service.name, version, now)
            said = f"version {version} serves" + (f" instead of {was.version}" if was else "")
            kind = "change.version" if was else "change.first"
            ledger.record(now, kind, said, service=service.name, body={"from": was.version if was else None, "to": version})

    world.store.write(note)
    world.served[service.name] = version
    return version


def see_data(world: World, service: ServiceConfig) -> None:
    """Ask which version of its data the service reads, and write down a change."""
    if "data" in service.targets:
        _see(world, service, {"data": _asked(world, service, "data", lambda a: a.point.read())})


def served_by(world: World, service: ServiceConfig) -> Mapping[str, float] | None:
    """Share of the traffic by version as the router tells it, or the server where there is no router; None when it cannot be told.

    A router that does not answer is not stood in for: what a server names first may be another version than the one with the traffic.
    """
    if "router" in service.targets:
        found = _asked(world, service, "router", lambda a: a.served())
    else:
        found = _asked(world, service, "server", lambda a: {v: 1.0} if (v := a.version()) else None)
    return {name: share for name, share in found.items() if share > 0} if found else None


def see_changes(world: World, service: ServiceConfig) -> None:
    """Look at everything of the service that can change, write down what did, and let a soaked version become good."""
    see_served(world, service)
    looked = {
        "weights": served_by(world, service),
        "schema": _asked(world, service, "server", lambda a: to_json(a.signature())),
        "registry": _asked(world, service, "registry", lambda a: {v.version: v.digest for v in a.versions()}),
    }
    _see(world, service, looked)
    see_data(world, service)
    _soak(world, service, world.clock())


def _see(world: World, service: ServiceConfig, looked: Mapping[str, Json]) -> None:
    """Write down what has changed of what could be told."""
    now = world.clock()
    with world.store.read() as ledger:
        seen = ledger.setting(f"seen/{service.name}") or {}
    changed = {what: value for what, value in looked.items() if value is not None and digest(value) != digest(seen.get(what))}
    if changed:
        world.store.write(lambda ledger: _note(ledger, service.name, seen, changed, now))


def _note(ledger: Ledger, service: str, seen: Mapping[str, Json], changed: Mapping[str, Json], now: datetime) -> None:
    for what, value in changed.items():
        if what in seen and not (what == "weights" and len(value) < 2 and len(seen[what] or {}) < 2):
            ledger.record(now, f"change.{what}", _told(what, seen[what], value), service=service, body={"from": seen[what], "to": value})
        if what == "registry":
            for name in sorted(name for name in value if name in (seen.get(what) or {}) and value[name] != seen[what][name]):
                ledger.spoil(service, name, "its files in the registry changed", now)
    ledger.set(f"seen/{service}", {**seen, **changed}, now, "watchkeeper")


def _told(what: str, old: Json, new: Json) -> str:
    if what == "weights":
        return "traffic is split " + ", ".join(f"{name} {share:.0%}" for name, share in sorted(new.items()))
    if what == "registry":
        added, gone = sorted(set(new) - set(old or {})), sorted(set(old or {}) - set(new))
        altered = sorted(name for name in new if name in (old or {}) and new[name] != old[name])
        parts = ((added, "registered"), (gone, "removed"), (altered, "changed"))
        return "; ".join(f"version {', '.join(names)} {verb}" for names, verb in parts if names)
    if what == "data":
        return f"version {new} of the data is read instead of {old}"
    return "the served model's inputs or outputs changed"


def _soak(world: World, service: ServiceConfig, now: datetime) -> None:
    """A version is good when it has served for `soak` with every watch that could blame a release ok; or when its registry names who says so."""
    version = world.served.get(service.name)
    with world.store.read() as ledger:
        served, goods = ledger.served_now(service.name), {name for name, _, _ in ledger.goods(service.name)}
        spoiled = ledger.spoiled(service.name)
    for name, by in _declared(world, service).items():
        if name not in goods and name not in spoiled:
            _find_good(world, service, name, by, now)
    if version is None or version in goods or served is None or served.version != version or now - served.since_at < service.soak:
        return
    judges = [w for w in world.of_service(service.name) if w.cause in RELEASE and w.load is None]
    if judges and all(_steady(world, w, served.since_at, now - service.soak) for w in judges):
        _find_good(world, service, version, "soak", now)


def _steady(world: World, w: Watched, served_at: datetime, since: datetime) -> bool:
    """Whether every look since then was ok, with no two looks in a row missing, and one of them at what is served now."""
    signal, now = world.store.signal(w.key), world.clock()
    if signal is None or signal.state != "ok" or signal.since_at > since or signal.looked_at <= served_at:
        return False
    with world.store.read() as ledger:
        minutes = ledger.rollups(w.key, since)
    looked = [since, *(row["minute_at"] for row in minutes), now]
    longest = max(later - earlier for earlier, later in pairwise(looked))
    return all(row["good"] == row["looks"] for row in minutes) and longest <= 2 * w.watch.every + timedelta(minutes=1)


def _declared(world: World, service: ServiceConfig) -> Mapping[str, str]:
    found = _asked(world, service, "registry", lambda a: {v.version: v.declared_good_by for v in a.versions() if v.declared_good_by})
    return found or {}


def registered(world: World, service: ServiceConfig) -> list[str] | None:
    """The versions its registry knows; None when there is no registry or it does not answer."""
    found: list[str] | None = _asked(world, service, "registry", lambda a: [v.version for v in a.versions()])
    return found


def _find_good(world: World, service: ServiceConfig, version: str, by: str, now: datetime) -> None:
    def note(ledger: Ledger) -> None:
        ledger.declare_good(service.name, version, by, now)
        ledger.record(now, "good", f"version {version} is good ({by})", service=service.name, body={"version": version, "by": by})

    world.store.write(note)


def _asked(world: World, service: ServiceConfig, role: str, ask: Callable[..., Any]) -> Any:
    """What one target answers; None when it is not bound or does not answer: not knowing is no change."""
    if role not in service.targets:
        return None
    try:
        with deadline(PATIENCE), world.connections(service.targets[role]) as adapter:
            return ask(adapter)
    except WatchkeeperError:
        return None
