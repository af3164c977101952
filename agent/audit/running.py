"""Answers about deployment and monitoring, from what was looked at and what was run. Each says what was seen and over how much time, and no more."""

from __future__ import annotations

from datetime import timedelta

from agent.audit.known import Known, among, brief, rule, worst
from agent.audit.scoring import Answer, Said
from agent.model import Run

QUARTER = 90  # days
FAST, SLOW = 300.0, 900.0  # seconds a rollback may take


# Deployment


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
    return Answer("pass", min(signal.looked_at for _, signal, _ in found), looks > 1, observed=told)


@rule(
    "DEPL-04",
    earn="let a new version have a small share of the traffic first, where the router can split it",
    lacks="whether the rows were enough to tell",
)
def canaried(known: Known) -> Answer | None:
    """The versions that took over in 90 days, and whether each was seen with a small share of the traffic before. Rollbacks are not counted."""
    since = known.now - timedelta(days=QUARTER)
    moved = [(run.wanted_at, run.ended_at or known.now) for run in known.runs if run.wanted_at >= since and run.wrote]
    released = [one for one in known.events("change.version", QUARTER) if not any(began <= one.at <= ended for began, ended in moved)]
    if not released or "router" not in known.service.targets:
        return None
    splits = [(one.at, one.body.get("to") or {}) for one in known.events("change.weights", QUARTER)]
    tried = [one for one in released if any(at < one.at and 0 < shares.get(one.body["to"], 0.0) < 0.5 for at, shares in splits)]
    told = f"{len(tried)} of {len(released)} versions that took over had a small share first; record of {known.history(QUARTER)}"
    return Answer("pass" if tried else "fail", known.seen_at, observed=told)


@rule("DEPL-05", earn="prove it: watchkeeper drill rollback SERVICE", lacks="the digest of what answered")
def rolled_back(known: Known) -> Answer | None:
    """The newest run of rollback that moved traffic, drill or not: from its first step to the look at what is served, and whether it succeeded."""
    tried = next((run for run in known.runs if run.runbook == "rollback" and not run.active and run.wrote), None)
    if tried is None:
        return Answer("fail", known.seen_at, observed=f"never run, as far as the record goes: {known.history(QUARTER)}")
    at, what = tried.ended_at or tried.wanted_at, "drill" if tried.drill else "run"
    took = _seconds(tried)
    if tried.state != "succeeded" or took is None:
        return Answer("fail", at, observed=f"{what} {tried.id} ended as {tried.state}")
    said: Said = "pass" if took <= FAST else "partial" if took <= SLOW else "fail"
    return Answer(said, at, observed=f"{what} {tried.id} took {took:.1f} s, {brief(known.now - at)} ago")


def _seconds(run: Run) -> float | None:
    """From the first step's beginning to the last one's end, without what takes a drill back."""
    spans = [(step.intended_at, step.ended_at) for step in run.steps if not step.undo and step.intended_at and step.ended_at]
    ends = [ended for _, ended in spans]
    return (max(ends) - min(began for began, _ in spans)).total_seconds() if spans else None


@rule("DEPL-06", earn="watch sla.latency at the rate of the peak", lacks="what the peak is, and how it fares at twice that")
def load(known: Known) -> Answer | None:
    """The last load test at the rate that is configured."""
    return worst(known, "DEPL-06")


# Monitoring


@rule("MON-03", earn="watch drift.features for 7 days", lacks="a test of its own errors, and whether every input is among what is tested")
def drifting(known: Known) -> Answer | None:
    """Of the looks that were due in 7 days, how many each watch of drift made and saw something in; it counts from its first look."""
    parts = [known.looks(watch, 7) for watch, _, _ in known.last("MON-03")]
    if not parts:
        return None
    least = min(one.saw for one in parts)
    told = f"{least:.0%} of the looks that were due were made and saw something, {min(parts, key=lambda one: one.length).history}"
    return Answer(among(least, 0.95, 0.8), known.seen_at, observed=told)


@rule(
    "MON-04",
    earn="watch drift.predictions, quality.calibration and serving.answers",
    lacks="whether predictions, calibration and values are all watched",
)
def outputs(known: Known) -> Answer | None:
    """Which watches look at what the model answers, and what they last saw. None configured is a fail; an alarm is none while it is watched."""
    watches = known.watching("MON-04")
    if not watches:
        return Answer("fail", known.seen_at, observed="no watch looks at what the model answers")
    found = known.last("MON-04")
    if not found:
        return None
    told = "; ".join(f"{watch.name} {signal.status.value}" for watch, signal, _ in found)
    return Answer("pass", min(signal.looked_at for _, signal, _ in found), observed=f"{told}, of {len(watches)} watches")


@rule(
    "MON-05",
    earn="watch quality.accuracy with a limit; until labels come, quality.estimated",
    lacks="whether as many labels came as should, and the gap to what was measured offline",
)
def quality(known: Known) -> Answer | None:
    """The last look of the watches of quality on what was served. None configured is a fail: nobody knows."""
    if not known.watching("MON-05"):
        return Answer("fail", known.seen_at, observed="no watch measures or estimates quality on what is served")
    return worst(known, "MON-05")
