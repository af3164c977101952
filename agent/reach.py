"""Reaches a store for a command: reads it as it is; changes it through the daemon that holds it, else by taking its lock."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from agent import verbs
from agent.config import Config
from agent.errors import (
    AnswerError,
    ConfigError,
    LeaseLostError,
    PlanError,
    PluginError,
    StoreBusyError,
    StoreError,
    UnreachableError,
    WatchkeeperError,
)
from agent.model import Finding, Json, Plan, Run, StepRow, spell, to_json
from agent.plugins import suggest
from agent.respond import advance
from agent.store import Ledger, Store, locked
from agent.workers import Pool
from agent.world import World

PATIENCE = 5.0  # seconds that a command waits for another command to let go of the store
STARTING = 2.0  # seconds that a daemon may take between taking the store and listening
ANSWER = 10.0  # seconds that the daemon may take to answer; a look may take longer
PAUSE = 0.1
MEANT = {404: PlanError, 409: PlanError, 422: ConfigError}  # what the daemon's answers were raised as
LAST = 30.0  # seconds added to a watch's own `within` when the daemon looks for us
Tell = Callable[[float, str], None]
Follow = Callable[[StepRow], None]


# Reading


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
    """The daemon that holds this store, if one does. What a daemon that was killed left behind does not count: nobody holds its lock."""
    try:
        told = json.loads(Path(f"{config.store}.daemon").read_text())
        found = Running(told["url"], told["token"], int(told["pid"]))
        os.kill(found.pid, 0)
    except PermissionError:
        return found
    except (OSError, ValueError, KeyError):
        return None
    return found if _held(config) else None


def _held(config: Config) -> bool:
    try:
        with locked(Path(config.store)):
            return False
    except StoreBusyError:
        return True


# Changing


@contextmanager
def hands(config: Config) -> Iterator[Here | There]:
    """Who does it: the daemon when it holds the store, else this process, which holds it meanwhile.

    StoreBusyError when another process that is no daemon keeps the store for longer than a few seconds.
    """
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with locked(Path(config.store)), _world(config) as world:
                yield Here(world)
            return
        except StoreBusyError:
            daemon = running(config)
            if daemon is None and time.monotonic() >= until:
                raise
        if daemon is not None:
            yield There(daemon, config)
            return
        time.sleep(PAUSE)  # another command has it, or a daemon is just starting


@contextmanager
def _world(config: Config) -> Iterator[World]:
    store, pool = Store.open(config.store).start(), Pool(config.workers)
    world = World(config, store, pool)
    try:
        yield world
    finally:
        pool.close()
        world.connections.close()
        store.close()


class Here:
    """The verbs, in this process; what they give back as JSON."""

    def __init__(self, world: World) -> None:
        self.world = world

    def check(self, key: str, tell: Tell | None = None) -> Json:
        return finding_json(verbs.check(self.world, key, tell))

    def ack(self, incident: int, by: str) -> Json:
        return to_json(verbs.ack(self.world, incident, by))

    def silence(self, match: str, length: timedelta, by: str, why: str) -> Json:
        return to_json(verbs.silence(self.world, match, length, by, why))

    def expire(self, number: int, by: str) -> None:
        verbs.expire(self.world, number, by)

    def halt(self, by: str, why: str) -> None:
        verbs.halt(self.world, by, why)

    def resume(self, by: str) -> None:
        verbs.resume(self.world, by)

    def good(self, service: str, version: str, by: str) -> None:
        verbs.good(self.world, service, version, by)

    def plan(self, runbook: str, service: str, parameters: Mapping[str, Json], by: str, drill: bool = False) -> Json:
        made = verbs.start(self.world, runbook, service, parameters, by, drill, dry_run=True)
        assert isinstance(made, Plan)
        return plan_json(made)

    def start(self, runbook: str, service: str, parameters: Mapping[str, Json], by: str, drill: bool = False) -> int:
        made = verbs.start(self.world, runbook, service, parameters, by, drill)
        assert isinstance(made, Run)
        return made.id

    def approve(self, run: int, by: str) -> Json:
        return run_json(verbs.approve(self.world, run, by))

    def cancel(self, run: int, by: str) -> Json:
        return run_json(verbs.cancel(self.world, run, by))

    def follow(self, number: int, step: Follow) -> Json:
        """Drive the run, and only that one, until it has ended."""
        seen: dict[tuple[bool, int], str] = {}
        while True:
            with self.world.store.read() as ledger:
                run = ledger.run(number)
            assert run is not None
            _tell_steps(run, seen, step)
            if not run.active:
                return run_json(run)
            try:
                if not advance(self.world, number):
                    time.sleep(PAUSE / 2)
            except LeaseLostError as problem:
                raise LeaseLostError(f"{problem}; 'watchkeeper runbook show {number}' tells how far it came") from problem


class There:
    """The verbs, asked of the daemon that holds the store."""

    def __init__(self, daemon: Running, config: Config) -> None:
        self.daemon, self.config = daemon, config

    def check(self, key: str, tell: Tell | None = None) -> Json:
        service, watch = key.split("/", 1)
        within = next((w.within for _, w in self.config.watches() if w.key == key), timedelta()).total_seconds() + LAST
        if tell:
            tell(0.0, f"{key}: the daemon looks")
        return self._ask("POST", f"services/{quote(service)}/watches/{quote(watch, safe='')}/check", within=within)

    def ack(self, incident: int, by: str) -> Json:
        return self._ask("POST", f"incidents/{incident}/ack", {"by": by})

    def silence(self, match: str, length: timedelta, by: str, why: str) -> Json:
        return self._ask("POST", "silences", {"match": match, "for": spell(length), "by": by, "why": why})

    def expire(self, number: int, by: str) -> None:
        self._ask("DELETE", f"silences/{number}?by={quote(by, safe='')}")

    def halt(self, by: str, why: str) -> None:
        self._ask("POST", "halt", {"by": by, "why": why})

    def resume(self, by: str) -> None:
        self._ask("POST", "resume", {"by": by})

    def good(self, service: str, version: str, by: str) -> None:
        self._ask("POST", f"services/{quote(service)}/good", {"version": version, "by": by})

    def plan(self, runbook: str, service: str, parameters: Mapping[str, Json], by: str, drill: bool = False) -> Json:
        return self._start(runbook, service, parameters, by, drill, dry_run=True)

    def start(self, runbook: str, service: str, parameters: Mapping[str, Json], by: str, drill: bool = False) -> int:
        return int(self._start(runbook, service, parameters, by, drill, dry_run=False)["id"])

    def _start(self, runbook: str, service: str, parameters: Mapping[str, Json], by: str, drill: bool, dry_run: bool) -> Json:
        body = {"by": by, "parameters": to_json(parameters), "drill": drill, "dry_run": dry_run}
        return self._ask("POST", f"services/{quote(service)}/runbooks/{quote(runbook)}", body, within=30.0)

    def approve(self, run: int, by: str) -> Json:
        return self._ask("POST", f"runs/{run}/approve", {"by": by})

    def cancel(self, run: int, by: str) -> Json:
        return self._ask("POST", f"runs/{run}/cancel", {"by": by})

    def follow(self, number: int, step: Follow) -> Json:
        """Read along in the store while the daemon drives the run, until it has ended."""
        seen: dict[tuple[bool, int], str] = {}
        store = opened(self.config)
        try:
            while True:
                with store.read() as ledger:
                    run = ledger.run(number)
                assert run is not None
                _tell_steps(run, seen, step)
                if not run.active:
                    return run_json(run)
                if running(self.config) is None:
                    raise UnreachableError(f"the daemon ended while run {number} was {run.state}; it goes on when 'watchkeeper run' is started again")
                time.sleep(PAUSE)
        finally:
            store.close()

    def _ask(self, method: str, path: str, body: Json = None, within: float = ANSWER) -> Json:
        import httpx

        headers = {"Authorization": f"Bearer {self.daemon.token}"}
        try:
            with httpx.Client(base_url=f"{self.daemon.url}/api/", headers=headers, timeout=within, trust_env=False) as client:
                reply = client.request(method, path, json=body)
        except httpx.HTTPError as problem:
            raise UnreachableError(
                f"the daemon (process {self.daemon.pid}) holds the store and does not answer at {self.daemon.url}: {problem!r}; look at its log"
            ) from problem
        return _understood(reply.status_code, reply.content, f"{method} {self.daemon.url}/api/{path}")


def _understood(status: int, content: bytes, asked: str) -> Json:
    try:
        body = json.loads(content) if content else None
    except ValueError:
        body = None
    if status < 300:
        return body
    said = str(body["error"]) if isinstance(body, dict) and "error" in body else None
    if said is None:
        raise AnswerError(f"the daemon answered {status} to {asked}: {content[:200].decode('utf-8', 'replace')}", status)
    unknown_name = status == 404 and not said.startswith("there is no ")
    raise PluginError(said) if unknown_name else MEANT.get(status, WatchkeeperError)(said)


def _tell_steps(run: Run, seen: dict[tuple[bool, int], str], step: Follow) -> None:
    for row in run.steps:
        if row.state not in ("planned", seen.get((row.undo, row.n))):
            seen[row.undo, row.n] = row.state
            step(row)


# What is given back


def run_json(run: Run) -> Json:
    """A run as JSON, its plan with the digest an approval binds."""
    return {**to_json(run), "plan": None if run.plan is None else plan_json(run.plan)}


def plan_json(plan: Plan) -> Json:
    return {**to_json(plan), "digest": plan.digest}


def finding_json(finding: Finding | None) -> Json:
    return None if finding is None else to_json(finding)


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
    return {"incident": to_json(found), "timeline": to_json(timeline), "runs": [run_json(run) for run in reversed(runs)]}


def run_numbered(ledger: Ledger, number: int) -> Json:
    """A run as JSON; PlanError when there is none of that number."""
    found = ledger.run(number)
    if found is None:
        raise PlanError(f"no run {number}; 'watchkeeper status' and 'watchkeeper incidents NUMBER' name the runs there are")
    return run_json(found)


# Commands that are more than a verb


def halt(config: Config, by: str, why: str) -> str:
    """Halt by whatever way there is; how it was done. The file is the last resort, and needs neither a daemon nor the store."""
    try:
        with hands(config) as found:
            found.halt(by, why)
            return "told the daemon" if isinstance(found, There) else "written in the store"
    except (StoreError, UnreachableError, AnswerError, PlanError) as problem:
        file = halt_file(config)
        file.write_text(f"{why} ({by})\n")
        return f"wrote {file}, remove it to resume; {problem}"


def tried_channels(config: Config, only: str | None) -> list[dict[str, Json]]:
    """What each channel answers to a test letter. Nothing is kept, so neither daemon nor lock is needed."""
    from agent.notify import Postman

    if not config.notify.channels:
        raise ConfigError(f"{config.path}: there is no channel to try; add one under notify.channels")
    if only is not None and only not in config.notify.channels:
        raise ConfigError(f"{config.path}: no channel '{only}'{suggest(only, config.notify.channels)}")
    locators = {name: channel.at for name, channel in config.notify.channels.items()}
    postman = Postman(Store(Path(config.store)), locators, lambda: datetime.now(UTC))
    return [_tried(postman, name) for name in ([only] if only else locators)]


def _tried(postman: Any, name: str) -> dict[str, Json]:
    try:
        return {"channel": name, "taken": True, "said": postman.test(name)}
    except WatchkeeperError as problem:
        return {"channel": name, "taken": False, "said": str(problem)}


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
