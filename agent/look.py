"""One look: a check called with a deadline, and what it means when the look itself fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from agent import incidents
from agent.alone import taken
from agent.errors import (
    AnswerError,
    BusyError,
    CancelledError,
    CannotError,
    DataError,
    DeadlineError,
    DeniedError,
    NameLookupError,
    ServerError,
    TargetError,
    TrustError,
    UnreachableError,
    WatchkeeperError,
)
from agent.judge import ALL
from agent.model import Locator, Past, Ran, Status, Verdict, Watching, Window, error, fail, nodata, skip, to_json, warn
from agent.objectives import budgets
from agent.perform import perform
from agent.rebuild import baseline_to_json
from agent.store import Ledger
from agent.wire import Wire, deadline
from agent.workers import locator_to_json, verdict_from_json
from agent.world import Watched, World

Tell = Callable[[float, str], None]
RELOOK = 0.25  # seconds between the looks that confirm
CONFIRMED_WITHIN = 5.0
RUNS = 2000  # of its service, the newest, that a check is told of
EACH = 1.0  # seconds between two questions whether a load test should go on


def look(
    world: World,
    w: Watched,
    window: Window,
    *,
    version: str | None = None,
    within: timedelta | None = None,
    tell: Tell | None = None,
    now: datetime | None = None,
) -> Verdict:
    """One look: the check's Verdict, or what its failure to look means. `version` asks one loaded version instead of what is served, `now` is what
    the check is told the time is.

    A load test is not begun while its service has an incident, and asked to end early when one opens.
    """
    if w.load is not None:
        return _under_load(world, w, window, version, within or w.watch.within, tell)
    return _look(world, w, window, version, within or w.watch.within, tell, now)


def _look(
    world: World, w: Watched, window: Window, version: str | None, within: timedelta, tell: Tell | None, now: datetime | None = None
) -> Verdict:
    try:
        return _perform(world, w, {**_job(world, w, window, version), **({"now": now} if now else {})}, within, tell)
    except WatchkeeperError as problem:
        return _blind(world, w, problem, version)


def _job(world: World, w: Watched, window: Window, version: str | None) -> dict[str, Any]:
    job: dict[str, Any] = {
        "check": w.watch.check,
        "locators": w.locators,
        "parameters": w.watch.parameters,
        "window": window,
        "now": world.clock(),
        "service": w.service.name,
    }
    if version is not None:
        job["at"] = {"server": version}
    if world.replays:
        job["until"] = {role: job["now"] for role, at in w.locators.items() if grows(at)}
    if w.watch.run_length is not None:
        job["run_length"] = w.watch.run_length
    if w.load is not None:
        job["load"] = w.load
    if "good" in w.words:
        with world.store.read() as ledger:
            job["good"] = [name for name, _, _ in ledger.goods(w.service.name) if name != world.alone(w.service.name)]
    if "budgets" in w.words:
        with world.store.read() as ledger:
            job["budgets"] = to_json(budgets(ledger, w.service, world.clock()))
    if "past" in w.words:
        with world.store.read() as ledger:
            job["past"] = to_json(past(world, ledger, w))
    if "party" in w.words:
        job["party"] = world.config.party(w.service.name)
    if w.words & {"memory", "history"} or w.baseline:
        with world.store.read() as ledger:
            job["baseline"] = baseline_to_json(ledger.baseline(w.key)) if w.baseline else None
            kept = ledger.memory(w.key)
            job["memory"] = kept[2] if kept and kept[1] == w.rule else None
            job["history"] = [to_json(f) for f in ledger.findings(service=w.service.name, check=w.watch.check, limit=200)]
    return job


def past(world: World, ledger: Ledger, w: Watched) -> Past:
    """What is recorded of its service besides: the other watches and how they stand, and the newest runs, however old."""
    service = w.service.name
    bad = {m.watch for incident in ledger.open_incidents(service) for m in incident.members if m.cleared_at is None}
    others = {one.key: one for one in world.of_service(service) if one.key != w.key}
    seen = {signal.watch: signal.statuses[::-1] for signal in ledger.all_signals() if signal.watch in others}
    watches = {
        key.removeprefix(f"{service}/"): Watching(one.cause, key in bad, [incidents.STATUSES[letter] for letter in seen.get(key, "")])
        for key, one in others.items()
    }
    runs = [Ran(run.id, run.runbook, run.state, run.wanted_at, run.ended_at) for run in ledger.runs(service=service, limit=RUNS) if not run.drill]
    return Past(watches, runs)


def grows(at: Locator) -> bool:
    """Whether rows are added to a table as time goes by: it says when each came, and is not the yardstick the configuration chose."""
    return "time" in at.options and at.role != "reference"


def _perform(world: World, w: Watched, job: dict[str, Any], within: timedelta, tell: Tell | None) -> Verdict:
    if not w.heavy:
        with deadline(within):
            return perform(job, tell, world.connections)
    sent = {name: to_json(value) for name, value in job.items() if name != "locators"}
    sent["window"] = [job["window"].start.isoformat(), job["window"].end.isoformat()]
    sent["locators"] = {role: locator_to_json(at) for role, at in w.locators.items()}
    if w.load is None:
        return verdict_from_json(world.pool.call(sent, within, tell)["verdict"])
    if other := taken(w.lock):  # else it would wait for the worker that runs it, and then run
        raise BusyError(f"{other}; wait for its end")
    return verdict_from_json(world.loads.call(sent, within, tell)["verdict"])


def _under_load(world: World, w: Watched, window: Window, version: str | None, within: timedelta, tell: Tell | None) -> Verdict:
    if version is not None:
        return skip("load is made on what is served, not on one version apart")
    if why := _trouble(world, w):
        return skip(f"no load test while {why}")
    watchful = Watchful(tell, lambda: "the agent is stopping" if world.stopping() else _trouble(world, w))
    verdict = _look(world, w, window, None, within, watchful)
    return watchful.told(verdict)


def _trouble(world: World, w: Watched) -> str:
    """The incident that this service is in, in words; empty when there is none but what load tests found."""
    with world.store.read() as ledger:
        opened = [*ledger.open_incidents(w.service.name), *ledger.open_incidents(ALL)]
    return incidents.trouble(opened, w.service.name, [other.key for other in world.of_service(w.service.name) if other.load is not None])


class Watchful:
    """A `tell` that raises CancelledError, once, when what it asks now and then has an answer: why the check should end with what it has."""

    def __init__(self, tell: Tell | None, trouble: Callable[[], str]) -> None:
        self._tell, self._trouble, self._why, self._next = tell, trouble, "", time.monotonic() + EACH

    def __call__(self, done: float, what: str) -> None:
        if self._tell is not None:
            self._tell(done, what)
        if not self._why and time.monotonic() >= self._next:
            self._next, self._why = time.monotonic() + EACH, self._trouble()
            if self._why:
                raise CancelledError(self._why)

    def told(self, verdict: Verdict) -> Verdict:
        """The verdict, which says so where it was asked to end early."""
        return replace(verdict, reason=f"{verdict.reason}\nit was asked to end early: {self._why}") if self._why else verdict


def _blind(world: World, w: Watched, problem: WatchkeeperError, version: str | None) -> Verdict:
    """What a look that failed says: something about the world only where a control look shows that we could have seen."""
    said = f"{_word(problem)}: {problem}"
    if isinstance(problem, TrustError):
        return fail(said)
    if isinstance(problem, CannotError):
        return nodata(said)
    if isinstance(problem, CancelledError):
        return skip(said)
    down = isinstance(problem, (UnreachableError, DeadlineError, ServerError)) and not isinstance(problem, NameLookupError)
    ours = w.heavy and isinstance(problem, DeadlineError)  # a worker that was killed says nothing about the server
    if not down or ours or "server" not in w.words:
        return error(said)
    seen = "another version was asked for" if version is not None else control(world, w)
    return fail(f"{said}; meanwhile {seen}") if seen else error(f"{said}; no control look succeeded, so this may be our own sight")


WORDS: dict[type[WatchkeeperError], str] = {  # the more particular kinds first
    NameLookupError: "dns",
    DeadlineError: "timeout",
    UnreachableError: "connect",
    TrustError: "tls",
    DeniedError: "credential",
    ServerError: "5xx",
    AnswerError: "answer",
    DataError: "data",
    BusyError: "busy",
    TargetError: "target",
}


def _word(problem: WatchkeeperError) -> str:
    return next((word for kind, word in WORDS.items() if isinstance(problem, kind)), type(problem).__name__)


def control(world: World, w: Watched) -> str:
    """A sentence saying which control look succeeded just now; empty when none did.

    In turn: the configured control URL, the router, the metrics store that scrapes the service and others, the last known good version's own
    endpoint, a good look at another service within the interval.
    """
    with deadline(min(timedelta(seconds=2), w.watch.within)):
        for where, succeeds in _controls(world, w):
            try:
                if said := succeeds():
                    return said if isinstance(said, str) else f"{where} answered"
            except WatchkeeperError:
                continue
    recent = world.clock() - w.watch.every
    for signal in world.store.signals.values():
        elsewhere = signal.service != w.service.name and signal.check.startswith("serving.")
        if elsewhere and signal.status is Status.OK and signal.looked_at >= recent:
            return f"{signal.watch} looked good"
    return ""


def _controls(world: World, w: Watched) -> Iterator[tuple[str, Callable[[], bool | str]]]:
    service = w.service
    if service.control is not None:
        yield f"the control URL {service.control}", lambda: _answers(Locator(service.name, "control", str(service.control)))
    if "router" in service.targets:
        yield "the router", lambda: _routes(world, service.targets["router"])
    if "metrics" in service.targets:
        yield "the metrics store", lambda: _sighted(world, service.targets["metrics"])
    if "server" in service.targets:
        yield "the last known good version", lambda: _good_answers(world, service.name, service.targets["server"])


def _answers(at: Locator) -> bool:
    wire = Wire(at)
    try:
        return wire.request("GET", anyway=True).status < 500
    finally:
        wire.close()


def _routes(world: World, at: Locator) -> bool:
    with world.connections(at) as router:
        return bool(router.served())


def _sighted(world: World, at: Locator) -> str:
    with world.connections(at) as metrics:
        return str(metrics.sighted()) if "control" in metrics.can else ""


def _good_answers(world: World, service: str, at: Locator) -> bool:
    with world.store.read() as ledger:
        good = [version for version, _, _ in ledger.goods(service) if version != world.alone(service)]
    if not good:
        return False
    with world.connections(at) as server:
        return "at" in server.can and bool(server.at(good[0]).ready())


def confirmed(world: World, w: Watched, window: Window, verdict: Verdict, version: str | None = None) -> Verdict:
    """An exact check's fail is looked at again at once, within 5 s, of the same `version`; it stands only when every look failed."""
    if not w.rules.exact:
        return verdict
    until, looks = time.monotonic() + CONFIRMED_WITHIN, max(w.watch.confirm.looks, 1)
    for number in range(2, looks + 1):
        time.sleep(RELOOK)  # a pause between two looks at a real server, not a wait for anything
        left = timedelta(seconds=max(0.05, until - time.monotonic()))
        second = look(world, w, window, version=version, within=min(w.watch.within, left))
        if second.status is not Status.FAIL:
            return warn(f"flickered: look 1 said '{verdict.reason}', look {number} said {second.status}: {second.reason}", second.reading)
        verdict = second
    return replace(verdict, reason=f"{verdict.reason} (confirmed by {looks} looks)") if looks > 1 else verdict
