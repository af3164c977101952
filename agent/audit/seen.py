"""Answers from what was looked at: data, model, deployment, monitoring. Each says what it saw and over how much time, and no more."""

from __future__ import annotations

from datetime import datetime, timedelta

from agent.audit.known import MOST, Known, among, brief, rule
from agent.audit.scoring import Answer, Said
from agent.model import Finding, Run, Signal, Status

QUARTER = 90  # days
FAST, SLOW = 300.0, 900.0  # seconds a rollback may take


def _once(known: Known, at: datetime, watch: str) -> bool:
    """Whether a watch has looked once and no more."""
    return bool(sum(row["looks"] for row in known.ledger.rollups(watch, at - timedelta(days=QUARTER))) <= 1)


def _told(known: Known, item: str) -> list[tuple[Signal, Finding, bool]]:
    """What the watches of a question last came to, the worst first: with its newest finding, and whether it looks again and again."""
    order = (Status.FAIL, Status.WARN, Status.OK)
    found = [(signal, kept, not _once(known, known.now, watch.key)) for watch, signal, kept in known.last(item)]
    return sorted(found, key=lambda one: order.index(one[0].status))


def _worst(known: Known, item: str) -> Answer | None:
    """fail where a watch of the question fails, else as good as the rule allows; None where no watch has seen anything."""
    found = _told(known, item)
    if not found:
        return None
    signal, kept, again = found[0]
    said: Said = "fail" if signal.status is Status.FAIL else "partial" if signal.status is Status.WARN else "pass"
    told = "; ".join(f"{one.watch.partition('/')[2]}: {one.reason.partition(chr(10))[0]}" for one, _, _ in found)
    return Answer(said, min(one.looked_at for one, _, _ in found), again, kept.version, told)


# Data


@rule(
    "DATA-01",
    earn="watch the rows with data.contract (watchkeeper contract infer writes one)",
    lacks="which inputs of the model it covers, and who approved it",
)
def contract(known: Known) -> Answer | None:
    """The last look of each watch that holds live rows to a contract."""
    return _worst(known, "DATA-01")


@rule(
    "DATA-03",
    earn="give data.contract `freshness` and `volume`, and keep it running for 28 days",
    lacks="sources upstream of the tables that are bound",
)
def arriving(known: Known) -> Answer | None:
    """The looks of 28 days of the watches that hold rows to a contract: how many found rows late or too few, and whether both have limits."""
    shares, told, since = [], [], known.now - timedelta(days=28)
    for watch, _, _ in known.last("DATA-03"):
        name = watch.name
        if watch.parameters.get("freshness") is None or watch.parameters.get("volume") is None:
            shares.append(0.0)
            told.append(f"{name} has no limit of freshness or none of volume")
            continue
        kept, looks = known.ledger.findings(watch=watch.key, since=since, limit=MOST), known.looks(watch, 28)
        if len(kept) == MOST:
            return None
        bad = sum(one.status is Status.FAIL and bool({"freshness", "volume"} & set(one.parts)) for one in kept)
        seen = looks.looks - sum(one.status not in (Status.OK, Status.WARN, Status.FAIL) for one in kept)
        shares.append(1 - bad / seen if seen > 0 else 0.0)
        told.append(f"{name}: {seen - bad} of {seen} looks inside, {looks.history}")
    if not shares:
        return None
    return Answer(among(min(shares), 0.99, 0.95), known.seen_at, observed="; ".join(told))


@rule("DATA-06", earn="watch skew.features or skew.logged with a sample of 200 or more")
def skew(known: Known) -> Answer | None:
    """The last look of each watch of skew: the share of wrong values of every feature. Their sum bounds the share of wrong rows from above."""
    found = _told(known, "DATA-06")
    if not found:
        return None
    shares = [[one for name, one in kept.parts.items() if not name.endswith(".late")] for _, kept, _ in found]
    worst = max((one.observed or 0.0 for part in shares for one in part), default=1.0)
    rows = max((sum(one.observed or 0.0 for one in part) for part in shares), default=1.0)
    least = min((one.n or 0 for part in shares for one in part), default=0)
    signal, kept, again = found[0]
    whole = rows <= 0.001 and worst <= 0.01 and least >= 200 and signal.status is Status.OK
    half = rows <= 0.01 and worst <= 0.05
    told = f"worst feature wrong in {worst:.2%}, rows wrong in at most {min(rows, 1.0):.2%}, {least} compared; {signal.status.value}"
    if signal.status is not Status.FAIL and half and least < 30:
        return None
    said: Said = "pass" if whole else "partial" if half and signal.status is not Status.FAIL else "fail"
    return Answer(said, min(one.looked_at for one, _, _ in found), again, kept.version, told)


@rule("DATA-07", earn="pin a finding of the version that serves: watchkeeper baseline pin --finding NUMBER", lacks="the digest of what is served")
def yardstick(known: Known) -> Answer | None:
    """The yardsticks pinned for the watches of drift: which version served when each was judged, and how many rows it holds."""
    keys = {watch.key for item in ("MON-03", "MON-04") for watch in known.watching(item)}
    pinned = [one for key in known.ledger.baselines() if key in keys and (one := known.ledger.baseline(key)) is not None]
    if not pinned or known.served is None:
        return None
    findings = [one.finding for one in pinned if one.finding is not None]
    other = sorted({one.version for one in findings if one.version not in (None, known.served)}, key=str)
    rows = min(((one.reading.n if one.reading else None) or 0 for one in findings), default=0)
    if other:
        told = f"a yardstick is of version {', '.join(map(str, other))}, and {known.served} is served"
        return Answer("fail", known.seen_at, version=known.served, observed=told)
    if len(findings) < len(pinned) or any(one.version is None for one in findings) or rows < 200:
        return None
    return Answer("pass", known.seen_at, version=known.served, observed=f"{len(pinned)} yardsticks of version {known.served}, {rows} rows or more")


# Model


@rule(
    "MODEL-01",
    earn="register what is served before it serves: the registry must know its version",
    lacks="the digest of what is served, and every replica",
)
def registered(known: Known) -> Answer | None:
    """The version that is served and the versions that the registry was last seen to hold."""
    held = (known.ledger.setting(f"seen/{known.service.name}") or {}).get("registry")
    looked = [one.looked_at for watch in known.service.watches if (one := known.ledger.signal(watch.key)) is not None]
    if held is None or known.served is None or not looked:
        return None
    said: Said = "pass" if known.served in held else "fail"
    told = f"version {known.served} is served, and the registry {'knows it' if said == 'pass' else 'does not know it'}"
    return Answer(said, min(max(looked), known.now), version=known.served, observed=told)


@rule("MODEL-07", earn="set `slices` and a limit on quality.accuracy", lacks="slices of too few rows, which are left out")
def slices(known: Known) -> Answer | None:
    """The last look of the watches of quality that judge slices: a slice surely below its limit fails."""
    if not any(watch.parameters.get("slices") for watch in known.watching("MODEL-07")):
        return Answer("fail", known.seen_at, observed="no watch of quality declares slices")
    found = [(s, kept) for watch, s, kept in known.last("MODEL-07") if watch.parameters.get("slices")]
    judged = [name for _, kept in found for name in kept.parts if name.startswith("slice.")]
    if not judged:
        return None
    bad = any(signal.status is Status.FAIL for signal, _ in found)
    told = f"{len(judged)} slices judged; {found[0][1].headline}"
    return Answer("fail" if bad else "pass", min(signal.looked_at for signal, _ in found), version=found[0][1].version, observed=told)


@rule("MODEL-10", earn="watch forgetting.eval with `old` and `guard` rows", lacks="whether what was judged is what is served")
def kept(known: Known) -> Answer | None:
    """The last verdict on what was learned before, slice by slice."""
    return _worst(known, "MODEL-10")


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
    return _worst(known, "DEPL-06")


# Monitoring


@rule("MON-03", earn="watch drift.features for 7 days", lacks="a test of its own errors, and whether every input is among what is tested")
def drifting(known: Known) -> Answer | None:
    """Of the looks that were due in 7 days, how many each watch of drift made; it counts from its first look."""
    parts = [known.looks(watch, 7) for watch, _, _ in known.last("MON-03")]
    if not parts:
        return None
    least = min(one.kept for one in parts)
    told = f"{least:.0%} of the looks that were due were made, {min(parts, key=lambda one: one.length).history}"
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
    return _worst(known, "MON-05")
