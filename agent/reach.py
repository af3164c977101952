"""Reaches a store for reading, with or without a daemon, and finds the daemon that holds it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from agent.config import Config
from agent.errors import ConfigError, PlanError, StoreError
from agent.lock import holder
from agent.model import Json, Run
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


def run_numbered(ledger: Ledger, number: int) -> Run:
    """A run; PlanError when there is none of that number."""
    found = ledger.run(number)
    if found is None:
        raise PlanError(f"no run {number}; 'watchkeeper runbook history' lists them")
    return found


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
