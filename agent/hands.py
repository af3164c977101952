"""Does what a person asks: through the daemon that holds the store, else in this process, which takes its lock meanwhile."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from agent import reach, verbs
from agent.changes import see_changes
from agent.config import Config, Said
from agent.errors import (
    AnswerError,
    ConfigError,
    LeaseLostError,
    PlanError,
    PluginError,
    StoreBusyError,
    UnreachableError,
    WatchkeeperError,
)
from agent.lead import taken
from agent.model import Json, Plan, Run, StepRow, spell, to_json
from agent.plugins import suggest
from agent.preview import plan_json
from agent.reach import Running
from agent.respond import advance
from agent.runs import run_json
from agent.store import Store, locked
from agent.workers import Pool
from agent.world import World

PATIENCE = 5.0  # seconds that a command waits for another command to let go of the store
ANSWER = 10.0  # seconds that the daemon may take to answer; a look may take longer
SOON = 2.0  # seconds that a halt waits for the daemon before it takes the other way
PAUSE = 0.1
WAITS = (False, -1)
LAST = 30.0  # seconds added to a watch's own `within` when the daemon looks for us
MEANT = {404: PlanError, 409: PlanError, 422: ConfigError}  # what the daemon's answers were raised as
Tell = Callable[[float, str], None]
Follow = Callable[[StepRow | str], None]  # a step as it happens, or what the run waits for


@contextmanager
def doing(config: Config) -> Iterator[Here | There]:
    """Who does it: the daemon when it holds the store, else this process, which holds it meanwhile.

    StoreBusyError when another process that is no daemon keeps the store for longer than a few seconds.
    """
    with ExitStack() as until_done:
        them = _held(config, until_done)
        yield Here(until_done.enter_context(_world(config, them))) if isinstance(them, str) else There(them, config)


def _held(config: Config, until_done: ExitStack) -> Running | str:
    """The name under which the lock is ours now, or the daemon that has it."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return until_done.enter_context(locked(Path(config.store)))
        except StoreBusyError:
            daemon = reach.running(config)
            if daemon is not None or time.monotonic() >= until:
                if daemon is None:
                    raise
                return daemon
        time.sleep(PAUSE)  # another command has it, or a daemon is just starting


@contextmanager
def _world(config: Config, name: str) -> Iterator[World]:
    store, pool = Store.open(config.store), Pool(config.workers)
    store.start(taken(store, name))
    world = World(config, store, pool)
    try:
        yield world
    finally:
        world.close()
        store.close()


class Here:
    """The verbs, in this process; what they give back as JSON."""

    def __init__(self, world: World) -> None:
        self.world = world

    def check(self, key: str, tell: Tell | None = None) -> Json:
        service = self.world.find(key).service
        if service.name not in self.world.served:
            see_changes(self.world, service)  # as the daemon does: what a fail may be blamed on must stand in the record before it
        return to_json(verbs.check(self.world, key, tell))

    def ack(self, incident: int, by: str) -> Json:
        return to_json(verbs.ack(self.world, incident, by))

    def review(self, incident: int, by: str) -> Json:
        return to_json(verbs.review(self.world, incident, by))

    def silence(self, match: str, length: timedelta, by: str, why: str) -> Json:
        return to_json(verbs.silence(self.world, match, length, by, why))

    def expire(self, number: int, by: str) -> None:
        verbs.expire(self.world, number, by)

    def pin(self, key: str, start: datetime, end: datetime, by: str, why: str) -> Json:
        return to_json(verbs.pin(self.world, key, start, end, by, why))

    def unpin(self, key: str, by: str) -> None:
        verbs.unpin(self.world, key, by)

    def halt(self, by: str, why: str) -> None:
        verbs.halt(self.world, by, why)

    def resume(self, by: str) -> None:
        verbs.resume(self.world, by)

    def good(self, service: str, version: str, by: str) -> None:
        verbs.good(self.world, service, version, by)

    def attest(self, service: str, said: Said) -> Json:
        return to_json(verbs.attest(self.world, service, said))

    def keep_audit(self, services: Sequence[str], length: timedelta) -> None:
        verbs.keep_audit(self.world, services, length)

    def withdraw(self, service: str, item: str, by: str) -> int:
        return verbs.withdraw(self.world, service, item, by)

    def plan(self, runbook: str, service: str, parameters: Mapping[str, Json], by: str, drill: bool = False) -> Json:
        made = verbs.start(self.world, runbook, service, parameters, by, drill, dry_run=True)
        assert isinstance(made, Plan)
        return plan_json(made)

    def start(
        self, runbook: str, service: str, parameters: Mapping[str, Json], by: str, drill: bool = False, live: bool = False, fix: str = ""
    ) -> int:
        made = verbs.start(self.world, runbook, service, parameters, by, drill, live=live, fix=fix)
        assert isinstance(made, Run)
        return made.id

    def planned(self, number: int, digest: str) -> Json:
        """The plan that would be approved, made now if nobody has."""
        with self.world.store.read() as ledger:
            run = reach.run_numbered(ledger, number)
        if run.plan is None:
            advance(self.world, number)
            with self.world.store.read() as ledger:
                run = reach.run_numbered(ledger, number)
        return _plan_of(run, digest)

    def approve(self, run: int, by: str) -> Json:
        return run_json(verbs.approve(self.world, run, by))

    def cancel(self, run: int, by: str) -> Json:
        return run_json(verbs.cancel(self.world, run, by))

    def follow(self, number: int, step: Follow) -> Json:
        """Drive the run, and only that one, until it has ended; what it does is told while it does it."""
        seen: dict[tuple[bool, int], str] = {}
        with ThreadPoolExecutor(1, thread_name_prefix="follow") as driver:
            while (run := self._told(number, seen, step)).active:
                move = driver.submit(advance, self.world, number)
                while not wait([move], PAUSE / 2).done:
                    self._told(number, seen, step)
                try:
                    if not move.result():
                        time.sleep(PAUSE / 2)
                except LeaseLostError as problem:
                    raise LeaseLostError(f"{problem}; 'watchkeeper runbook show {number}' tells how far it came") from problem
            return run_json(run)

    def _told(self, number: int, seen: dict[tuple[bool, int], str], step: Follow) -> Run:
        with self.world.store.read() as ledger:
            run = ledger.run(number)
        assert run is not None
        _tell_steps(run, seen, step)
        return run


class There:
    """The verbs, asked of the daemon that holds the store."""

    def __init__(self, daemon: Running, config: Config) -> None:
        self.daemon, self.config = daemon, config

    def check(self, key: str, tell: Tell | None = None) -> Json:
        within = next((w.within for _, w in self.config.watches() if w.key == key), timedelta()).total_seconds() + LAST
        if tell:
            tell(0.0, f"{key}: the daemon looks")
        return self._ask("POST", _of_watch(key, "check"), within=within)

    def ack(self, incident: int, by: str) -> Json:
        return self._ask("POST", f"incidents/{incident}/ack", {"by": by})

    def review(self, incident: int, by: str) -> Json:
        return self._ask("POST", f"incidents/{incident}/review", {"by": by})

    def silence(self, match: str, length: timedelta, by: str, why: str) -> Json:
        return self._ask("POST", "silences", {"match": match, "for": spell(length), "by": by, "why": why})

    def expire(self, number: int, by: str) -> None:
        self._ask("DELETE", f"silences/{number}?by={quote(by, safe='')}")

    def pin(self, key: str, start: datetime, end: datetime, by: str, why: str) -> Json:
        body = {"start_at": start.isoformat(), "end_at": end.isoformat(), "by": by, "why": why}
        return self._ask("PUT", _of_watch(key, "baseline"), body)

    def unpin(self, key: str, by: str) -> None:
        self._ask("DELETE", f"{_of_watch(key, 'baseline')}?by={quote(by, safe='')}")

    def halt(self, by: str, why: str) -> None:
        self._ask("POST", "halt", {"by": by, "why": why}, within=SOON)

    def resume(self, by: str) -> None:
        self._ask("POST", "resume", {"by": by})

    def good(self, service: str, version: str, by: str) -> None:
        self._ask("POST", f"services/{quote(service)}/good", {"version": version, "by": by})

    def attest(self, service: str, said: Said) -> Json:
        return self._ask("POST", f"services/{quote(service)}/attestations", to_json(said))

    def keep_audit(self, services: Sequence[str], length: timedelta) -> None:
        self._ask("POST", "audits", {"services": list(services), "seconds": length.total_seconds()}, within=60.0)

    def withdraw(self, service: str, item: str, by: str) -> int:
        return int(self._ask("DELETE", f"services/{quote(service)}/attestations/{quote(item)}?by={quote(by, safe='')}")["withdrawn"])

    def plan(self, runbook: str, service: str, parameters: Mapping[str, Json], by: str, drill: bool = False) -> Json:
        return self._start(runbook, service, parameters, by, drill, dry_run=True)

    def start(
        self, runbook: str, service: str, parameters: Mapping[str, Json], by: str, drill: bool = False, live: bool = False, fix: str = ""
    ) -> int:
        return int(self._start(runbook, service, parameters, by, drill, dry_run=False, live=live, fix=fix or None)["id"])

    def _start(self, runbook: str, service: str, parameters: Mapping[str, Json], by: str, drill: bool, dry_run: bool, **more: Json) -> Json:
        body = {"by": by, "parameters": to_json(parameters), "drill": drill, "dry_run": dry_run, **more}
        return self._ask("POST", f"services/{quote(service)}/runbooks/{quote(runbook)}", body, within=30.0)

    def planned(self, number: int, digest: str) -> Json:
        with reach.reading(self.config) as ledger:
            return _plan_of(reach.run_numbered(ledger, number), digest)

    def approve(self, run: int, by: str) -> Json:
        return self._ask("POST", f"runs/{run}/approve", {"by": by})

    def cancel(self, run: int, by: str) -> Json:
        return self._ask("POST", f"runs/{run}/cancel", {"by": by})

    def follow(self, number: int, step: Follow) -> Json:
        """Read along in the store while a daemon drives the run, until it has ended; another one may take over from this one meanwhile."""
        seen: dict[tuple[bool, int], str] = {}
        store, led = reach.opened(self.config), time.monotonic()
        try:
            while True:
                with store.read() as ledger:
                    run = ledger.run(number)
                assert run is not None
                _tell_steps(run, seen, step)
                if not run.active:
                    return run_json(run)
                led = time.monotonic() if reach.running(self.config) else led
                if time.monotonic() - led > PATIENCE:
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


def _of_watch(key: str, what: str) -> str:
    service, watch = key.split("/", 1)
    return f"services/{quote(service)}/watches/{quote(watch, safe='')}/{what}"


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


def _plan_of(run: Run, digest: str) -> Json:
    if run.plan is None:
        raise PlanError(f"run {run.id} has no plan: {run.said or 'try again in a moment'}")
    if not run.plan.digest.startswith(digest):
        raise PlanError(f"the plan of run {run.id} is {run.plan.digest[:12]}, not {digest}; read it: watchkeeper runbook show {run.id}")
    return plan_json(run.plan)


def _tell_steps(run: Run, seen: dict[tuple[bool, int], str], step: Follow) -> None:
    for row in run.steps:
        if row.state != seen.get((row.undo, row.n)):
            seen[row.undo, row.n] = row.state
            step(row)
    waits = run.said if run.state in ("proposed", "awaiting") else ""
    if waits and seen.get(WAITS) != waits:
        seen[WAITS] = waits
        step(waits)


def halt(config: Config, by: str, why: str) -> str:
    """Halt by whatever way there is; how it was done. The file is the last resort, and needs neither a daemon nor the store."""
    try:
        with doing(config) as found:
            found.halt(by, why)
            return "told the daemon" if isinstance(found, There) else "written in the store"
    except WatchkeeperError as problem:
        file = reach.halt_file(config)
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
