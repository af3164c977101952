"""Reaches a store for reading, with or without a daemon, and finds the daemon that holds it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.config import Config
from agent.errors import ConfigError, PlanError, StoreError
from agent.lock import holder
from agent.model import Finding, Json, Member, Plan, Run, Status, to_json
from agent.plugins import suggest
from agent.store import Ledger, Store, locked


@contextmanager
def reading(config: Config) -> Iterator[Ledger]:
    """A snapshot of the store, with or without a daemon. StoreError when there is no store yet: reading makes none."""
    store = opened(config)
    try:
        with store.read() as ledger:
            yield ledger
    finally:
        store.close()


def opened(config: Config) -> Store:
    """The store for reading."""
    path = Path(config.store)
    if not path.exists():
        raise StoreError(f"there is no store at {path} yet, so nothing has been seen; 'watchkeeper run' or 'watchkeeper check --all' makes it")
    return Store.open(path)


def halted(config: Config, ledger: Ledger | None) -> str:
    """Why nothing acts by itself at the moment; empty when it may."""
    file = halt_file(config)
    if file.exists():
        return f"halted by {file}" + (f" ({text})" if (text := file.read_text(errors="replace")[:200].strip()) else "")
    found = (ledger.setting("halt") if ledger else None) or {}
    return str(found.get("why") or "halted") if found.get("on") else ""


def halt_file(config: Config) -> Path:
    """While this file is there nothing acts by itself, whoever can or cannot be reached."""
    return Path(f"{config.store}.halt")


# The daemon


@dataclass(frozen=True, slots=True)
class Running:
    """Where the daemon that holds a store listens, and the token its owner may use."""

    url: str
    token: str = field(repr=False)
    pid: int


def running(config: Config) -> Running | None:
    """The daemon that leads this store, if one does. What a daemon left behind that was killed or displaced does not count: its lock is nobody's, or
    another's."""
    try:
        told = json.loads(Path(f"{config.store}.daemon").read_text())
        found = Running(told["url"], told["token"], int(told["pid"]))
        os.kill(found.pid, 0)
    except PermissionError:
        return found
    except (OSError, ValueError, KeyError):
        return None
    held = holder(Path(config.store))
    return found if held is not None and held.process == f"process {found.pid}" else None


# Names, judged before anybody is asked


def service_named(config: Config, name: str) -> str:
    """The name, if the configuration has such a service; ConfigError suggests the nearest."""
    if name not in config.services:
        raise ConfigError(f"{config.path}: no service '{name}'{suggest(name, config.services)}")
    return name


def watches_named(config: Config, service: str, name: str | None) -> list[str]:
    """The keys of a service's watches: all, or those whose own name or check is `name`."""
    service_named(config, service)
    known = config.services[service].watches
    if not known:
        raise ConfigError(f"{config.path}: services.{service} has no watches, so there is nothing to look at; add some under watches:")
    found = [w.key for w in known if name is None or name in (w.name, w.check)]
    if not found:
        names = sorted({w.name for w in known} | {w.check for w in known})
        raise ConfigError(f"{config.path}: {service} has no watch '{name}'{suggest(name or '', names)}")
    return found


# Single things, for reading


def incident(ledger: Ledger, number: int) -> Json:
    """An incident with its timeline: the changes before it, what was recorded about it and its runs, oldest first."""
    found = ledger.incident(number)
    if found is None:
        raise PlanError(f"no incident {number}; 'watchkeeper incidents' lists them")
    events = ledger.events(incident=number, limit=1000)
    runs = [run for run in ledger.runs(service=found.service, since=found.opened_at - timedelta(days=1)) if run.incident == number]
    for run in runs:
        events += [event for event in ledger.events(run=run.id, limit=200) if event.incident is None]
    named = {n for event in events if event.kind == "incident.context" for n in event.body.get("changes", ())}
    changes = [c for c in ledger.events("change", since=found.opened_at - timedelta(days=1), until=found.opened_at) if c.id in named]
    timeline = sorted({event.id: event for event in (*changes, *events)}.values(), key=lambda event: (event.at, event.id))
    evidence = {member.watch: to_json(shown) for member in found.members if (shown := _shown(ledger, member)) is not None}
    return {"incident": to_json(found), "timeline": to_json(timeline), "runs": [run_json(run) for run in reversed(runs)], "evidence": evidence}


def _shown(ledger: Ledger, member: Member) -> Finding | None:
    """The newest finding of a watch in an incident that says something is wrong: what can be looked at."""
    found = ledger.findings(watch=member.watch, since=member.since_at - timedelta(seconds=1), limit=50)
    return next((one for one in found if one.status in (Status.FAIL, Status.WARN, Status.ERROR)), None)


def run_numbered(ledger: Ledger, number: int) -> Json:
    """A run as JSON; PlanError when there is none of that number."""
    found = ledger.run(number)
    if found is None:
        raise PlanError(f"no run {number}; 'watchkeeper status' and 'watchkeeper incidents NUMBER' name the runs there are")
    return run_json(found)


def run_json(run: Run) -> Json:
    """A run as JSON, its plan with the digest an approval binds."""
    return {**to_json(run), "plan": None if run.plan is None else plan_json(run.plan)}


def plan_json(plan: Plan) -> Json:
    return {**to_json(plan), "digest": plan.digest}


# Looking after the store


def backup(config: Config, to: Path) -> None:
    """A consistent copy of the store."""
    store = opened(config)
    try:
        store.backup(to)
    finally:
        store.close()


def verified(config: Config) -> list[str]:
    """Everything wrong with the store."""
    store = opened(config)
    try:
        return store.verify()
    finally:
        store.close()


def upgrade(config: Config) -> Json:
    """Take the store of an older version up to this one's schema, behind a backup beside it."""
    from sqlalchemy import create_engine

    from agent import migrations

    path = Path(config.store)
    if not path.exists():
        raise StoreError(f"there is no store at {path} to upgrade")
    with locked(path):
        backup = path.with_name(f"{path.name}.before-upgrade-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
        Store(path).backup(backup)
        engine = create_engine(f"sqlite:///{path}")
        try:
            with engine.begin() as conn:
                at = migrations.bring_up(conn, path, upgrade=True)
        finally:
            engine.dispose()
    return {"store": str(path), "schema": at, "backup": str(backup)}
