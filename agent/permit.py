"""Whether a run may have its first effect: error budget, mode, halt, freeze, fresh evidence, budget of actions, and a drill that succeeded."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from agent.alone import lock_of, taken
from agent.config import Asking, ServiceConfig
from agent.drills import HOLDS
from agent.model import Plan, Run, RunState, Status, spell
from agent.objectives import budgets
from agent.store import Ledger
from agent.world import World


@dataclass(frozen=True, slots=True)
class Permission:
    """yes: begin. ask: a person must approve. wait: not now. no: the run ends in `state`."""

    answer: Literal["yes", "ask", "wait", "no"]
    why: str
    state: RunState | None = None


def halted(world: World) -> str:
    """Why nothing acts by itself at the moment; empty when it may. The file beside the store works without a daemon that listens."""
    file = Path(f"{world.store.path}.halt")
    if file.exists():
        return f"halted by {file}"
    with world.store.read() as ledger:
        found = ledger.setting("halt") or {}
    return str(found.get("why") or "halted") if found.get("on") else ""


def frozen(world: World, service: ServiceConfig, now: datetime) -> str:
    """The freeze in force, in words; empty when there is none."""
    for freeze in (*world.config.freeze, *service.freeze):
        if freeze.start <= now < freeze.end:
            return f"frozen until {freeze.end:%Y-%m-%d %H:%M}Z: {freeze.why}"
    return ""


def may(world: World, service: ServiceConfig, run: Run, plan: Plan) -> Permission:
    """May this run, planned and looked over, begin to change things?"""
    now = world.clock()
    if now >= plan.good_until:
        return Permission("no", f"nobody approved it within {spell(plan.good_until - plan.made_at)}", "expired")
    if run.by == "watchkeeper" and _over(world, run):
        return Permission("no", "its incident is resolved", "expired")
    if why := _spent(world, service, run, now):
        return Permission("no", why, "refused")
    freeze = "" if run.runbook == "rollback" and not run.drill else frozen(world, service, now)
    if freeze:
        return Permission("wait", freeze)
    asking = service.asking.get(run.runbook, Asking())
    if len(run.approved_by) >= asking.people:
        return Permission("yes", f"approved by {' and '.join(run.approved_by)}")
    if run.approved_by:
        return Permission("ask", f"approved by {run.approved_by[0]}; it takes two, so another person must: {_how(run)}")
    effect = next((step.why or step.name for step in plan.steps if step.action in plan.seen), "act")
    if run.mode == "observe":
        return Permission("no", f"mode observe: it would have gone on to {effect}", "refused")
    if run.mode == "suggest":
        return Permission("wait", f"suggested: {effect}; start it with: {_how(run)}")
    if run.mode == "approve" or asking.two_person:
        two = " (two people must)" if asking.two_person else ""
        return Permission("ask", f"wants to {effect}; approve it{two} with: {_how(run)}")
    return _alone(world, service, run, now)


def _spent(world: World, service: ServiceConfig, run: Run, now: datetime) -> str:
    """Why what is new has to wait for better days: the error budgets that are used up. Never said of what takes back, nor of a fix."""
    book = world.config.runbooks().get(run.runbook)
    if book is None or not book.promises.get("promotes") or not service.objectives:
        return ""
    with world.store.read() as ledger:
        gone = [one for one in budgets(ledger, service, now) if one.spent]
        if not gone or _fixes(ledger, run):
            return ""
    told = "; ".join(f"{one.objective}: {one.said}" for one in gone)
    return f"the error budget is used up ({told}), so nothing new is brought in; a fix may be: {_fix(run)}"


def _fixes(ledger: Ledger, run: Run) -> bool:
    """Whether a person tagged it, or the run that wanted it, as a fix."""
    if ledger.events("run.fix", run=run.id, limit=1):
        return True
    parent = ledger.run(parent_of(run)) if run.parent else None
    return parent is not None and _fixes(ledger, parent)


def _fix(run: Run) -> str:
    return f"watchkeeper runbook run {run.runbook} {run.service} --fix WHY --by NAME"


def parent_of(run: Run) -> int:
    """The number of the run whose step wanted this one."""
    assert run.parent is not None
    return int(run.parent.removeprefix("run-").partition("/")[0])


def _how(run: Run) -> str:
    return f"watchkeeper runbook approve {run.id} --by NAME"


def _alone(world: World, service: ServiceConfig, run: Run, now: datetime) -> Permission:
    """Mode auto: every condition under which nobody is asked."""
    halt = halted(world)
    if halt:
        return Permission("wait", f"automatic action is halted: {halt}")
    if "server" in service.targets and (load := taken(lock_of(service.targets["server"].url))):
        return Permission("wait", f"{load}, and what is seen meanwhile may be its doing")
    with world.store.read() as ledger:
        drill = ledger.last_drill(service.name, run.runbook)
        budget = service.budget
        acted = [r for r in ledger.runs(service=service.name, since=now - budget.per) if r.by == "watchkeeper" and r.wrote and r.id != run.id]
    if drill is None or drill.ended_at is None or now - drill.ended_at > HOLDS:
        return Permission(
            "ask",
            f"auto needs a drill of {run.runbook} on {service.name} that succeeded within 90 days "
            f"(watchkeeper drill {run.runbook} {service.name} --by NAME); until then: {_how(run)}",
        )
    if len(acted) >= budget.actions:
        return Permission("ask", f"the budget of {budget.actions} automatic actions in {spell(budget.per)} is used up")
    stale = _stale(world, run, now)
    return Permission("no", stale, "expired") if stale else Permission("yes", "mode auto: drilled, within budget, on fresh evidence")


def _over(world: World, run: Run) -> bool:
    with world.store.read() as ledger:
        incident = ledger.incident(run.incident) if run.incident else None
    return incident is not None and incident.over


def _stale(world: World, run: Run, now: datetime) -> str:
    """Why the evidence no longer holds: the trigger is not failing any more, or was last looked at more than two intervals ago."""
    if run.trigger is None or run.trigger not in world.watched:
        return "" if run.trigger is None else f"the watch {run.trigger} is not configured any more"
    signal, w = world.store.signal(run.trigger), world.watched[run.trigger]
    if signal is None or signal.status is not Status.FAIL:
        return f"{run.trigger} does not fail any more"
    old = now - signal.looked_at
    return f"{run.trigger} was last looked at {spell(old)} ago" if old > 2 * w.watch.every + w.watch.within else ""
