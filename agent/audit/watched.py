"""Answers about monitoring, from what is watched and how that was looked at. Each says what was seen and over how much time, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from fnmatch import fnmatchcase
from itertools import combinations
from statistics import median

from agent.audit.known import GRADES, MOST, Known, among, brief, features_of, rule, worst
from agent.audit.scoring import Answer, Said
from agent.config import WatchConfig
from agent.model import Finding, Incident, Reading, Signal, Status

TESTED = {"power", "false alarms"}  # the parts of a finding about a test's own errors
INJECTED = "injected."  # with what the parts of a finding about faults that were put in begin
AGES = 14  # looks at quality, on at least as many days, below which a decay is not measured
Last = tuple[WatchConfig, Signal, Finding]


@rule("MON-03", earn="watch drift.features on every input for 7 days, and selftest.drift beside it")
def drifting(known: Known) -> Answer | None:
    """Of the looks that were due in 7 days, how many each watch of drift made and saw something in, from its first look on; whether every declared
    feature is tested by one; and the last test of the tests: their power at a declared shift, and their false alarms where nothing moved."""
    found = known.last("MON-03")
    tests, watches = [one for one in found if set(one[2].parts) >= TESTED], [one for one in found if not TESTED & set(one[2].parts)]
    if not watches:
        return None
    parts = [known.looks(watch, 7) for watch, _, _ in watches]
    least, shortest = min(one.saw for one in parts), min(parts, key=lambda one: one.length)
    said, told = among(least, 0.95, 0.8), f"{least:.0%} of the looks that were due were made and saw something, {shortest.history}"
    lacking = [*_untested(known, watches), *_errors(tests)]
    if lacking:
        said = min(said, "partial", key=GRADES.index)
        told = f"{told}; {'; '.join(lacking)}"
    return Answer(said, known.seen_at, observed=told, evidence=known.rests(*(kept for _, _, kept in found)))


def _untested(known: Known, watches: Sequence[Last]) -> list[str]:
    """What of the inputs no watch tests, in words; nothing where every one is tested."""
    names = {name for watch, _, _ in watches for name in features_of(known, watch)}
    if not names:
        return ["not seen: which inputs there are, for the rows declare no features"]
    patterns = [tuple(watch.parameters.get("columns") or ("*",)) for watch, _, _ in watches]
    left = sorted(name for name in names if not any(fnmatchcase(name, pattern) for some in patterns for pattern in some))
    return [f"{len(left)} of {len(names)} inputs are not tested, such as {left[0]}"] if left else []


def _errors(tests: Sequence[Last]) -> list[str]:
    if not tests:
        return ["not seen: a test of its own errors"]
    return [f"by their own test they miss or cry wolf: {kept.headline}" for _, signal, kept in tests if signal.status is not Status.OK]


@rule(
    "MON-04",
    earn="watch drift.predictions, quality.calibration and serving.answers",
    lacks="whether predictions, calibration and values are all watched",
)
def outputs(known: Known) -> Answer | None:
    """Which watches look at what the model answers, and what they last saw. None configured is a fail; an alarm is none while it is watched."""
    watches = known.watching("MON-04")
    if not watches:
        return Answer("fail", known.seen_at, observed="no watch looks at what the model answers", evidence=known.configured("watches"))
    found = known.last("MON-04")
    if not found:
        return None
    told = "; ".join(f"{watch.name} {signal.status.value}" for watch, signal, _ in found)
    rested = known.rests(*(kept for _, _, kept in found))
    return Answer("pass", min(signal.looked_at for _, signal, _ in found), observed=f"{told}, of {len(watches)} watches", evidence=rested)


@rule(
    "MON-05",
    earn="watch quality.accuracy with a limit; until labels come, quality.estimated",
    lacks="whether as many labels came as should, and the gap to what was measured offline",
)
def quality(known: Known) -> Answer | None:
    """The last look of the watches of quality on what was served. None configured is a fail: nobody knows."""
    if not known.watching("MON-05"):
        told = "no watch measures or estimates quality on what is served"
        return Answer("fail", known.seen_at, observed=told, evidence=known.configured("watches"))
    return worst(known, "MON-05")


@rule("MON-06", earn="watch quality.accuracy with `at_least`, and let a version serve for 14 looks on 14 days: then its decay is measured")
def aged(known: Known) -> Answer | None:
    """How long the served version has had the traffic, and how its quality went meanwhile: the line of Theil and Sen (1968) through quality by age,
    and the age at which that meets the limit. Too few looks measure nothing; what is already below its limit fails."""
    served = known.ledger.served_now(known.service.name)
    curves = [(readings, limit, kept) for watch, _, kept in known.last("MON-06") if (readings := _by_age(known, watch)) and (limit := _limit(kept))]
    if served is None or not curves:
        return None
    readings, limit, _ = min(curves, key=lambda one: one[0][-1][1] - one[1])
    age, rested = known.now - served.since_at, known.rests(*(kept for _, _, kept in curves))
    if len(readings) < AGES or readings[-1][0] - readings[0][0] < AGES - 1:
        told = (
            f"in use for {brief(age)}; its decay is not measured: {len(readings)} looks at quality over {readings[-1][0] - readings[0][0]:.0f} days"
        )
        return Answer("partial", known.seen_at, version=served.version, observed=told, evidence=rested)
    slope, level = _line(readings)
    until = float("inf") if slope >= 0 else (level - limit) / -slope
    word = "does not wear out" if slope >= 0 else f"meets its limit of {limit:g} at {until:.0f} days"
    told = f"in use for {brief(age)}; by {len(readings)} looks it {word}"
    said: Said = "pass" if age <= timedelta(days=min(until, 36500)) else "fail"
    return Answer(said, known.seen_at, version=served.version, observed=told, evidence=rested)


def _limit(kept: Finding) -> float | None:
    return kept.reading.limit if kept.reading else None


def _by_age(known: Known, watch: WatchConfig) -> list[tuple[float, float]]:
    """(days since the served version took over, quality), oldest first; one look a day, so that a fast watch weighs no more than a slow one."""
    served = known.ledger.served_now(known.service.name)
    if served is None:
        return []
    kept = known.ledger.findings(watch=watch.key, since=served.since_at, limit=MOST)
    of_it = [one for one in kept if one.status in (Status.OK, Status.WARN, Status.FAIL) and _observed(one.reading) is not None]
    days = {int((one.looked_at - served.since_at) / timedelta(days=1)): one for one in reversed(of_it)}  # the newest of each day
    return sorted(((one.looked_at - served.since_at) / timedelta(days=1), _observed(one.reading) or 0.0) for one in days.values())


def _observed(reading: Reading | None) -> float | None:
    return reading.observed if reading else None


def _line(readings: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Theil's slope, the median over all pairs, and the median of what is left at age 0."""
    slope = median((v - u) / (b - a) for (a, u), (b, v) in combinations(readings, 2) if b > a)
    return slope, median(value - slope * age for age, value in readings)


@rule("MON-09", earn="watch injection.faults beside data.contract, and let a broken contract open an incident with an owner within one interval")
def noticed(known: Known) -> Answer | None:
    """The last look at whether faults that were put into a copy of the rows are found; and how long it took, in the newest incident that a broken
    contract opened, from the first bad look to the incident, and whether anybody owned it."""
    found = [one for one in known.last("MON-09") if any(name.startswith(INJECTED) for name in one[2].parts)]
    if not found:
        return None
    at, rested = min(signal.looked_at for _, signal, _ in found), [kept for _, _, kept in found]
    if any(signal.status is Status.FAIL for _, signal, _ in found):
        return Answer("fail", at, observed=found[0][2].headline, evidence=known.rests(*rested))
    routed = _routed(known)
    if routed is None:
        return Answer("partial", at, observed=f"{found[0][2].headline}; no incident in 90 d shows that it is routed", evidence=known.rests(*rested))
    incident, took, every = routed
    prompt = took <= every and known.service.owner is not None
    told = f"incident {incident.id} opened {brief(took)} after the first bad look, which comes every {brief(every)}"
    return Answer("pass" if prompt else "partial", at, observed=f"{found[0][2].headline}; {told}", evidence=known.rests(*rested, incident))


def _routed(known: Known) -> tuple[Incident, timedelta, timedelta] | None:
    """The newest incident of 90 days that a contract of rows opened, how long it took from the first bad look, and that watch's interval."""
    contracts = {watch.key: watch.every for watch in known.watching("DATA-01")}
    for one in known.incidents:
        if one.opened_at >= known.now - timedelta(days=90):
            for member in one.members:
                if member.watch in contracts:
                    return one, one.opened_at - member.since_at, contracts[member.watch]
    return None
