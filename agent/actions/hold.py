"""Holding a step while evidence comes in: a temporary watch whose verdict ends it."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

from agent.actions.clock import length_of
from agent.actions.looks import Looking
from agent.changes import see_served
from agent.config import Confirm, ServiceConfig, WatchConfig
from agent.config.parameters import problems
from agent.errors import PlanError
from agent.look import look
from agent.model import Done, Failed, Finding, Json, Look, Pending, Status, Try, Verdict, Window, to_json
from agent.observe import found, keep_apart
from agent.plugins import ROLES, find
from agent.store import Ledger
from agent.world import Known, Watched

EVERY = timedelta(seconds=10)
PATIENCE = timedelta(seconds=10)  # one look may take as long as that, however often there is one


@dataclass(frozen=True, slots=True)
class Hold(Looking):
    """`check.hold {check, with, every}`: a check looked at again and again, on what has come in since, until it says ok or fail.

    ok: the step is done. fail: it has failed. Everything else (nodata, error, warn) holds until the step's time is over. `check` sees the targets of
    this service and its own memory; each look is a finding of the watch "service/step@run-N", and opens no incident. `every` is how often, 10s
    if it is left out.
    """

    takes: ClassVar[frozenset[str]] = frozenset({"check", "with", "every"})
    gives: ClassVar[frozenset[str]] = frozenset({"finding", "reason"})

    def fits(self, args: Mapping[str, Json]) -> None:
        """PlanError when there is no such check, it is given what it does not take, or it needs what this service has not."""
        fitting(self.service, args)
        _every(args)

    def look(self, args: Mapping[str, Json], t: Try) -> Look:
        w, every = self._watched(args, t), _every(args)
        with self.world.store.read() as ledger:
            last = next(iter(ledger.findings(watch=w.key, limit=1)), None)
        if last is not None and last.status in (Status.OK, Status.FAIL):
            return _meant(last, every)
        start = last.end_at if last else t.began_at
        window = Window(start, w.window(self.world.clock()).end)
        if window.length < (every if last else timedelta(microseconds=1)):
            return Pending(max(every - window.length, timedelta(milliseconds=50)), last.reason if last else "nothing has come in yet")
        return _meant(self._fold(w, window), every)

    def _watched(self, args: Mapping[str, Json], t: Try) -> Watched:
        every = _every(args)
        return Watched.of(self.service, temporary(self.service.name, f"{t.step}@run-{t.run}", args, every, max(every, PATIENCE)), Known.now())

    def _fold(self, w: Watched, window: Window) -> Finding:
        verdict: Verdict = look(self.world, w, window)
        see_served(self.world, self.service)
        made = found(w, window, self.world.clock(), verdict, self.world.alone(self.service.name), 0.0)

        def keep(ledger: Ledger) -> Finding:
            return keep_apart(ledger, made, verdict)

        return self.world.store.write(keep, durable=verdict.status in (Status.OK, Status.FAIL))


def fitting(service: ServiceConfig, args: Mapping[str, Json], besides: Container[str] = ()) -> None:
    """PlanError when there is no such check, it is given what it does not take, or it needs what this service has not, and what is not `besides`."""
    check = find("check", str(args.get("check")))
    wrong = [f"with.{'.'.join(map(str, where))}: {what}" if where else what for where, what in problems(check, to_json(args.get("with") or {}))]
    if wrong:
        raise PlanError("; ".join(wrong))
    for need in check.needs:
        if need.name in ROLES and not need.optional and need.name not in service.targets and need.name not in besides:
            raise PlanError(f"{check.name} needs a {need.name}, and {service.name} has none; add services.{service.name}.targets.{need.name}")


def temporary(service: str, name: str, args: Mapping[str, Json], every: timedelta, within: timedelta) -> WatchConfig:
    """The watch that a step is, as long as it lasts."""
    return WatchConfig(
        name=name,
        service=service,
        check=str(args["check"]),
        every=every,
        within=within,
        window=every,
        parameters=args.get("with") or {},
        bind={},
        needs=(),
        confirm=Confirm(1, None, None),
        clear=1,
        severity="ticket",
        splay=False,
        run_length=None,
    )


def _every(args: Mapping[str, Json]) -> timedelta:
    return length_of(args.get("every", EVERY))


def _meant(finding: Finding, every: timedelta) -> Look:
    if finding.status is Status.FAIL:
        return Failed(finding.reason)
    if finding.status is Status.OK:
        return Done({"finding": finding.id, "reason": finding.headline}, finding.reason)
    return Pending(every, f"{finding.status}: {finding.headline}")
