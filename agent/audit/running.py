"""Answers about deployment, from what was looked at and what was run. Each says what was seen and over how much time, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from agent.audit.known import GRADES, Known, among, brief, rule, worst
from agent.audit.scoring import Answer, Said
from agent.model import Event, Run, StepRow

QUARTER, CADENCE = 90, 30  # days
FAST, SLOW = 300.0, 900.0  # seconds a rollback may take


@rule(
    "DEPL-01",
    earn="watch serving.ready",
    lacks="what it says while a model is loading or broken",
)
def ready(known: Known) -> Answer | None:
    """The looks of 7 days at whether the server says that it is ready. It never fails: that it lies, these looks cannot show."""
    found = known.last("DEPL-01")
    if not found:
        return None
    parts = [known.looks(watch, 7) for watch, _, _ in found]
    good, looks = sum(one.good for one in parts), sum(one.looks for one in parts)
    told = f"ready in {good} of {looks} looks, {min(parts, key=lambda one: one.length).history}"
    rested = known.rests(*(kept for _, _, kept in found))
    return Answer("pass", min(signal.looked_at for _, signal, _ in found), looks > 1, observed=told, evidence=rested)


def released(known: Known) -> list[Event]:
    """The versions that took over in 90 days, newest first. Rollbacks and drills are not counted."""
    back = [(run.wanted_at, run.ended_at or known.now) for run in known.runs if run.wrote and (run.drill or not _forward(run))]
    return [one for one in known.events("change.version", QUARTER) if not any(began <= one.at <= ended for began, ended in back)]


def _forward(run: Run) -> bool:
    """Whether a run takes its service on to another version: it was not asked for by a bad finding."""
    return run.runbook != "rollback" and run.trigger is None


@rule("DEPL-03", earn="release by a runbook that looks before it moves traffic (canary, bluegreen), and drill it with a version that is bad")
def gated(known: Known) -> Answer | None:
    """The versions that took over in 90 days: whether each did so in a run that had looked, and passed, before it moved traffic; and whether a gate
    has been seen to say no."""
    since = known.now - timedelta(days=QUARTER)
    tries = [run for run in known.runs if run.wanted_at >= since]
    changed = released(known)
    if not changed:
        return None
    gates = {one.id: next((run for run in tries if _spans(run, one.at, known.now) and _looked_first(run)), None) for one in changed}
    held = [run for run in gates.values() if run is not None]
    refused = [run for run in tries if run.state in ("stopped", "compensated") and any(_gate(step) and step.state == "failed" for step in run.steps)]
    share = len(held) / len(changed)
    said = among(share, 1.0, 0.9)
    if not refused:
        said = min(said, "partial", key=GRADES.index)
    told = f"{len(held)} of {len(changed)} versions that took over had passed a gate; a gate said no in {len(refused)} runs"
    rested = known.rests(*changed, *held, *refused)
    return Answer(said, known.seen_at, observed=f"{told}; record of {known.history(QUARTER)}", evidence=rested)


def _spans(run: Run, at: datetime, now: datetime) -> bool:
    return run.wanted_at <= at <= (run.ended_at or now)


def _gate(step: StepRow) -> bool:
    """Whether a step looks, and can end its run: a check, or a hold for evidence."""
    return step.action.partition(".")[0] == "check" and not step.undo


def _looked_first(run: Run) -> bool:
    """Whether it looked and passed before the first step that moved traffic."""
    moved = min((step.n for step in run.steps if step.action.startswith("router.") and step.tries and not step.undo), default=None)
    return moved is not None and any(_gate(step) and step.state == "done" and step.n < moved for step in run.steps)


@rule(
    "DEPL-04",
    earn="let a new version have a small share of the traffic first, where the router can split it",
    lacks="whether the rows were enough to tell",
)
def canaried(known: Known) -> Answer | None:
    """The versions that took over in 90 days, and whether each was seen with a small share of the traffic before. Rollbacks are not counted."""
    changed = released(known)
    if not changed or "router" not in known.service.targets:
        return None
    splits = [(one, one.body.get("to") or {}) for one in known.events("change.weights", QUARTER)]
    tried = [one for one in changed if any(split.at < one.at and 0 < shares.get(one.body["to"], 0.0) < 0.5 for split, shares in splits)]
    told = f"{len(tried)} of {len(changed)} versions that took over had a small share first; record of {known.history(QUARTER)}"
    rested = known.rests(*changed, *(split for split, _ in splits))
    return Answer("pass" if tried else "fail", known.seen_at, observed=told, evidence=rested)


@rule("DEPL-05", earn="prove it: watchkeeper drill rollback SERVICE")
def rolled_back(known: Known) -> Answer | None:
    """The newest run of rollback that moved traffic, drill or not: from its first step to the look at what is served, whether it succeeded, and
    whether it looked at what was served then: golden rows are sealed by their digest, so that an answer as recorded names the artefact."""
    tried = next((run for run in known.runs if run.runbook == "rollback" and not run.active and run.wrote), None)
    if tried is None:
        return Answer("fail", known.seen_at, observed=f"never run, as far as the record goes: {known.history(QUARTER)}")
    at, what, rested = tried.ended_at or tried.wanted_at, "drill" if tried.drill else "run", known.rests(tried)
    took = _seconds(tried)
    if tried.state != "succeeded" or took is None:
        return Answer("fail", at, observed=f"{what} {tried.id} ended as {tried.state}", evidence=rested)
    said: Said = "pass" if took <= FAST else "partial" if took <= SLOW else "fail"
    told = f"{what} {tried.id} took {took:.1f} s, {brief(known.now - at)} ago"
    looked = any(step.action in ("check.serves", "check.passes") and step.state == "done" and not step.undo for step in _after_the_move(tried))
    if said == "pass" and not looked:
        return Answer("partial", at, observed=f"{told}; not seen: what answered then", evidence=rested)
    return Answer(said, at, observed=told, evidence=rested)


def _after_the_move(run: Run) -> Sequence[StepRow]:
    moved = min((step.n for step in run.steps if step.action.startswith("router.") and not step.undo), default=0)
    return [step for step in run.steps if step.n > moved]


def _seconds(run: Run) -> float | None:
    """From the first step's beginning to the last one's end, without what takes a drill back."""
    spans = [(step.intended_at, step.ended_at) for step in run.steps if not step.undo and step.intended_at and step.ended_at]
    ends = [ended for _, ended in spans]
    return (max(ends) - min(began for began, _ in spans)).total_seconds() if spans else None


@rule("DEPL-06", earn="watch sla.latency at the rate of the peak", lacks="what the peak is, and how it fares at twice that")
def load(known: Known) -> Answer | None:
    """The last load test at the rate that is configured."""
    return worst(known, "DEPL-06")


@rule("DEPL-07", earn="let a watch or a schedule start retraining, and no step of it wait for a person but the approval")
def retrained(known: Known) -> Answer | None:
    """The newest run that trained and succeeded: how long ago, who or what began it, and how many of its steps waited for a person."""
    trained = [run for run in known.runs if any(step.action == "trainer.train" and step.state == "done" for step in run.steps)]
    made = next((run for run in trained if run.state == "succeeded"), None)
    if made is None:
        return Answer("fail", known.seen_at, observed="no run that trained has succeeded", evidence=known.rests(*trained)) if trained else None
    at = made.ended_at or made.wanted_at
    asked = [step.name for step in made.steps if step.action.startswith("person.") and not step.undo]
    hands = max(len(asked) - 1, 0) + (made.trigger is None and made.parent is None and made.by != "watchkeeper")
    late = known.now - at > timedelta(days=CADENCE)
    said: Said = "fail" if late or hands > 2 else "partial" if hands else "pass"
    told = f"run {made.id} of {made.runbook} trained {brief(known.now - at)} ago, begun by {made.by}; {hands} steps by hand before its approval"
    return Answer(said, known.seen_at if late else at, observed=told, evidence=known.rests(made))
