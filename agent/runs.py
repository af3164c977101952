"""What became of a run: decided when, effective when, on which evidence, approved by whom; the same for people, pages and programs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

from agent.model import Event, Finding, Json, Run, StepRow, to_json
from agent.preview import plan_json
from agent.store import Ledger

MOST = 1000  # runs among which those in a state are looked for, where no time is given
FAR = 10_000  # looks of a watch in a day


def run_json(run: Run) -> Json:
    """A run as JSON, its plan with the digest an approval binds."""
    approved = " and ".join(run.approved_by) or None
    return {**to_json(run), "approved_by": approved, "plan": None if run.plan is None else plan_json(run.plan)}


def history(ledger: Ledger, service: str | None, since: datetime | None, states: Sequence[str] = (), limit: int = 50) -> list[Json]:
    """Runs, newest first, each with how long it took and how long from the decision to its first effect (seconds; None: there was none)."""
    looked = ledger.runs(service=service, since=since, limit=MOST if states else limit)
    found = [run for run in looked if not states or run.state in states]
    return [{**run_json(run), "plan": None, **_times(run, _approvals(ledger, run))} for run in found[:limit]]


def account(ledger: Ledger, run: Run) -> Json:
    """A run with everything that is recorded about it: its times, approvals, the findings it rests on, and what its trigger saw afterwards."""
    approvals = _approvals(ledger, run)
    return {
        **run_json(run),
        **_times(run, approvals),
        "approvals": [{"at": to_json(one.at), "what": one.what, **one.body} for one in approvals],
        "evidence": [_finding(number, ledger.finding(number)) for number in _numbers(run)],
        "afterwards": _afterwards(ledger, run),
        "events": to_json(ledger.events(run=run.id, limit=1000)[::-1]),
    }


def decided_at(run: Run, approvals: Sequence[Event]) -> datetime:
    """When it was decided that it may act: when a person approved it, else when a person or a failing watch asked for it."""
    return approvals[0].at if approvals else run.wanted_at


def first_effect(run: Run) -> StepRow | None:
    """The first step that changed something and was seen to be done."""
    changing = run.plan.seen if run.plan else {}
    done = (row for row in run.steps if not row.undo and row.action in changing and row.tries > 0 and row.state == "done")
    return next(done, None)


def _times(run: Run, approvals: Sequence[Event]) -> dict[str, Json]:
    decided, effect = decided_at(run, approvals), first_effect(run)
    effect_at = effect.ended_at if effect else None
    return {
        "took": (run.ended_at - run.wanted_at).total_seconds() if run.ended_at else None,
        "decided_at": to_json(decided),
        "effect_at": to_json(effect_at),
        "decision_to_effect": max((effect_at - decided).total_seconds(), 0.0) if effect_at else None,
    }


def _approvals(ledger: Ledger, run: Run) -> list[Event]:
    return ledger.events("run.approved", run=run.id)[::-1]


def _numbers(run: Run) -> list[int]:
    said = run.plan.evidence if run.plan else ()
    return [int(found[1]) for one in said if (found := re.fullmatch(r"finding (\d+)", one))]


def _finding(number: int, found: Finding | None) -> Json:
    """A finding in short; retention may have dropped it."""
    if found is None:
        return {"id": number, "watch": None, "status": None, "reason": "not kept any more", "looked_at": None, "version": None}
    told = {name: to_json(getattr(found, name)) for name in ("id", "watch", "looked_at", "version")}
    return {**told, "status": found.status.value, "reason": found.headline}


def _afterwards(ledger: Ledger, run: Run) -> Json:
    """The first look of the trigger in the day after the run's end; None when there is no trigger, or nobody has looked."""
    if run.trigger is None or run.ended_at is None:
        return None
    later = ledger.findings(watch=run.trigger, since=run.ended_at, until=run.ended_at + timedelta(days=1), limit=FAR)
    return _finding(later[-1].id, later[-1]) if later else None
