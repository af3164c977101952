"""Drills: whether one may be held, what is put around its plan, what it leaves as evidence, and when the next one is due."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from agent import plugins
from agent.config import Config, ServiceConfig
from agent.errors import PlanError
from agent.model import Json, Run, Step, spell, to_json
from agent.store import Ledger
from agent.world import bound

HOLDS = timedelta(days=90)  # how long a drill is evidence that a runbook works
ROOM = timedelta(seconds=30)  # that a look at the watches may take beyond the time the drill is held


def permitted(ledger: Ledger, service: ServiceConfig, live: bool) -> None:
    """PlanError where a drill may not be held: nobody said that users may be part of it, or they are in trouble already."""
    if not (live or service.drills.live):
        why = f"a drill on {service.name} is live: its users are part of it"
        raise PlanError(f"{why}. Say so with --live, or for good: drills: {{live: true}} in services.{service.name}")
    if page := next((incident for incident in ledger.open_incidents(service.name) if incident.severity == "page"), None):
        raise PlanError(f"incident {page.id} of {service.name} is open ({page.title}): drill when it is over")


def around(service: ServiceConfig, runbook: plugins.Plugin, steps: Sequence[Step]) -> tuple[Step, ...]:
    """The plan of a drill: its watches must be ok before anything is changed, and stay so as long as it is held; else it is taken back at once.

    So it is whatever happens to its steps: none leaves it where it is, as one of the runbook itself may.
    PlanError when the plan would move more of the traffic than the service lets a drill move.
    """
    terms = service.drills
    if not any(need.name == "most" for need in runbook.needs) and any(_moved(step) > terms.most for step in steps):
        raise PlanError(f"{runbook.name} moves more than the {terms.most:.0%} of the traffic that a drill of {service.name} may move (drills.most)")
    steps = [replace(step, otherwise="undo" if step.otherwise == "stop" else step.otherwise, unseen=None) for step in steps]
    watches = [f"{service.name}/{name}" for name in terms.abort_on]
    if not watches:
        still = Step("held", "clock.wait", {"length": terms.hold.total_seconds()}, terms.hold + ROOM, "undo", f"for {spell(terms.hold)}")
        return (*steps, still) if terms.hold else tuple(steps)
    before = Step("well before", "check.steady", {"watches": watches, "length": 0}, ROOM, "stop", f"{', '.join(terms.abort_on)} must be ok to begin")
    why = f"for {spell(terms.hold)}, and taken back at once when {' or '.join(terms.abort_on)} is not ok"
    held = Step("held", "check.steady", {"watches": watches, "length": terms.hold.total_seconds()}, terms.hold + ROOM, "undo", why)
    return (before, *steps, held)


def _moved(step: Step) -> float:
    """The share of the traffic that a step takes from the version with most of it, at most."""
    if step.action != "router.point":
        return 0.0
    to = step.args.get("to")
    return 1 - max(map(float, to.values()), default=0.0) if isinstance(to, Mapping) else 1.0


def times(run: Run) -> Mapping[str, Json]:
    """What a run leaves in the record of each step: how it ended, and the seconds it took."""
    steps = [
        {"name": row.name, "state": row.state, "seconds": None if row.intended_at is None else (row.ended_at - row.intended_at).total_seconds()}
        for row in run.steps
        if row.ended_at is not None
    ]
    return {"drill": run.drill, "by": run.by, "digest": run.plan.digest if run.plan else None, "steps": steps}


def told(config: Config, ledger: Ledger, services: Sequence[str], now: datetime) -> list[dict[str, Json]]:
    """For each service and runbook that could be drilled there: the last drill that succeeded, until when it counts, and how the last one ended."""
    books = config.runbooks().items()
    able = [(config.services[name], book) for name in services for book, known in books if bound(known, config.services[name])]
    return [_told(ledger, service, book, now) for service, book in able]


def _told(ledger: Ledger, service: ServiceConfig, book: str, now: datetime) -> dict[str, Json]:
    good, last = ledger.last_drill(service.name, book), ledger.last_drill(service.name, book, any_end=True)
    due = good.ended_at + HOLDS if good and good.ended_at else None
    return {
        "service": service.name,
        "runbook": book,
        "mode": service.modes.get(book, service.mode),
        "drilled_at": to_json(good.ended_at) if good else None,
        "by": good.by if good else None,
        "run": good.id if good else None,
        "steps": times(good)["steps"] if good else [],
        "due_at": to_json(due),
        "state": "never" if due is None else "overdue" if due <= now else "drilled",
        "last": None if last is None else {"run": last.id, "state": last.state, "said": last.said},
    }
