"""What a canary's evidence comes to, in words: roll back, promote, or hold and what for."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from agent import Reading, Verdict, Window, fail, nodata, ok, to_json
from checks import _arms
from checks._canary import Standing, proved, standing
from checks._picture import path
from checks._trial import Asked, Kept, Trial

SILENT = 12  # stretches without a request after which a version is silent
UNKNOWN = 0.01  # the share of rows that may lack a column before nothing is promoted by it
USUALLY = 0.5  # the share of the baseline's errors, or slow answers, beyond which its limit tells nothing apart
SHARED = 0.05  # the share of clients that may be in both arms where clients are counted


@dataclass(frozen=True, slots=True)
class Rules:
    """What a verdict is made by: the chance of a wrong one, the fewest requests of each version, and which metrics may roll back."""

    alpha: float
    rows_at_least: int
    critical: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as it stands."""

    name: str
    kept: Kept
    standing: Standing
    worse: bool
    margin: float

    @property
    def reading(self) -> Reading:
        low, high = sorted((self.standing.low, self.standing.high))
        return Reading(self.difference, self.margin, (low, high), self.standing.rows[1])

    @property
    def difference(self) -> float | None:
        return None if math.isnan(self.standing.harm) else self.standing.harm

    def words(self, asked: Asked) -> str:
        """Such as "errors 1.2 % of 1,020 of version 2, 0.1 % of 9,300 of version 1 (0.25 to 4 points more)"."""
        place, both = self.standing.stream, len(self.kept.streams)
        ours, theirs = self.standing.shares[::-1] if place < both else self.standing.shares
        what = self.name if both == 1 else f"{self.name} {_quoted(self.kept.streams[place % both])}"
        (theirs_n, ours_n), way = self.standing.rows, "more" if place < both else "fewer"
        of = f"{_share(ours)} of {ours_n:,} of {asked.arms.candidate}, {_share(theirs)} of {theirs_n:,} of {asked.arms.baseline}"
        return f"{what} {of}, {self.bounds(way)}"

    def bounds(self, way: str) -> str:
        low, high = self.standing.low, self.standing.high
        if low > high:
            return f"now surely more than {low * 100:.3g} points {way}, now surely less than {high * 100:.3g}"
        more = f"surely {way}" if low == 0 else f"surely more than {low * 100:.3g} points {way}" if low > 0 else ""
        less = f"surely less than {high * 100:.3g} points {way}" if high < 1 else ""
        return ", and ".join(filter(None, (more, less))) or "which says nothing yet"


def _quoted(name: str) -> str:
    return name if name[:1] in "<>" else repr(_short(name))


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:39]}…"


def _share(share: float) -> str:
    return "none" if math.isnan(share) else f"{share:.2%}"


def told(trial: Trial, window: Window, asked: Asked, rules: Rules) -> Verdict:
    """The Verdict. A wrong roll back in any metric has chance alpha at most (Holm); a promotion needs all of them, and every row's say."""
    metrics = list(_metrics(trial, asked, rules))
    parts = {one.name: one.reading for one in metrics}
    new = _short(asked.arms.candidate)
    bad = [one for one in metrics if one.worse and one.name in rules.critical]
    notes = "".join(f"\n{one.words(asked)}" for one in metrics if one not in bad) + _more(trial, asked, rules)
    if bad:
        reason = f"roll back {new}: {'; '.join(one.words(asked) for one in bad)}"
        return fail(reason + notes, bad[0].reading, parts=parts, memory=trial, data=_files(trial, metrics, rules))
    holds = list(_holds(trial, metrics, window, asked, rules))
    if holds:
        reading = min(metrics, key=lambda one: one.standing.safe).reading if metrics else None
        return nodata(f"hold: {'; '.join(holds)}{notes}", reading, parts=parts, memory=trial)
    within = ", ".join(f"{one.name} ({one.margin * 100:g} points)" for one in metrics)
    reason = f"promote {new}: by {within} it is surely not worse than {_short(asked.arms.baseline)} in {metrics[0].standing.rows[1]:,} requests"
    return ok(reason + notes, metrics[0].reading, parts=parts, memory=trial, data=_files(trial, metrics, rules))


def _metrics(trial: Trial, asked: Asked, rules: Rules) -> Iterator[Metric]:
    kept = {name: trial.metrics[name] for name in asked.metrics if name in trial.metrics}
    found = {name: standing(one.evidence, asked.margins[name], rules.alpha, len(asked.metrics)) for name, one in kept.items()}
    absent = len(asked.metrics) - len(found)  # they may be tested yet, and count in Holm's procedure all the same
    for (name, one), worse in zip(found.items(), proved(list(found.values()), rules.alpha, absent), strict=True):
        yield Metric(name, kept[name], one, worse, asked.margins[name])


# What is still needed


def _holds(trial: Trial, metrics: list[Metric], window: Window, asked: Asked, rules: Rules) -> Iterator[str]:
    silent = list(_silent(trial, window, asked))
    yield from silent
    if trial.shared[0] > SHARED * trial.shared[1]:
        yield f"{trial.shared[0] / trial.shared[1]:.0%} of the clients are in both versions, so requests are what is routed; leave out client"
    missing = [name for name in asked.metrics if name not in {one.name for one in metrics}]
    if "quality" in missing:
        yield "no label of either version was due yet"
    if not silent and set(missing) - {"quality"}:
        yield f"the first {_arms.EACH} requests of either version are not there yet, or their cell is not over"
    for one in metrics:
        yield from _unsure(one, asked)
    if not silent and (needed := _needed(metrics, rules)):
        count, names = needed
        yield f"about {count:,} more {'clients' if asked.arms.client else 'requests'} of version {_short(asked.arms.candidate)} ({', '.join(names)})"


def _silent(trial: Trial, window: Window, asked: Asked) -> Iterator[str]:
    for version, seen in zip((asked.arms.baseline, asked.arms.candidate), trial.seen, strict=True):
        if seen is None:
            yield f"no request of version {_short(version)} yet"
        elif window.end - seen > SILENT * asked.stretch:
            yield f"no request of version {_short(version)} since {_clock(seen)}"


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}Z"


def _unsure(one: Metric, asked: Asked) -> Iterator[str]:
    """Why this metric promotes nothing, however much more may come."""
    if one.worse and not one.standing.safe:
        yield f"{one.words(asked)}: whether that is worse is for a person to say"
    usual = one.standing.shares[0]
    if one.name in ("errors", "latency") and usual > USUALLY:
        yield f"{usual:.0%} of version {_short(asked.arms.baseline)} count in {one.name}, which tells nothing apart; see its column and limit"
    for version, (all_, known) in zip((asked.arms.baseline, asked.arms.candidate), (one.kept.rows[:2], one.kept.rows[2:]), strict=True):
        if all_ - known > UNKNOWN * all_:
            yield f"{1 - known / all_:.0%} of the requests of version {_short(version)} say nothing of {one.name}"
    if len(_arms.remembered(one.kept.left)) >= _arms.CLIENTS:
        yield f"{_arms.CLIENTS:,} clients have been counted in {one.name}, and no more can be told apart"


def _needed(metrics: list[Metric], rules: Rules) -> tuple[int, list[str]] | None:
    """The requests of the candidate that are still needed if it is as good as the baseline, and by which metrics."""
    open_ = {one.name: _lacks(one, rules) for one in metrics if one.standing.safe or not one.worse}
    lacking = {name: count for name, count in open_.items() if count > 0}
    return (_round(max(lacking.values())), list(lacking)) if lacking else None


def _lacks(one: Metric, rules: Rules) -> float:
    few = max(0.0, rules.rows_at_least - min(one.standing.rows))
    return few if one.standing.safe else max(few, 1.0, 0.0 if math.isnan(one.standing.needed) else one.standing.needed)


def _round(count: float) -> int:
    """Up, to two digits: it is an estimate."""
    unit = int("1".ljust(len(str(math.ceil(count))) - 1, "0"))
    return math.ceil(count / unit) * unit


# What it rests on


def _more(trial: Trial, asked: Asked, rules: Rules) -> str:
    others = f"\n{trial.others:,} requests of other versions in this look are not compared" if trial.others else ""
    units = (
        "clients" if asked.arms.client else "requests, each routed by itself (where a client stays with its version, say which column is the client)"
    )
    chance = f"wrong with a chance of at most {rules.alpha:.2%}, however often it is looked at"
    return f"{others}\njudged until {_clock(trial.until_at)}, by {units}; roll back and promote are each {chance}"


def _files(trial: Trial, metrics: list[Metric], rules: Rules) -> Mapping[str, bytes]:
    """The numbers of a decision, and how the evidence of harm grew in each metric."""
    told = [{"metric": one.name, "streams": list(one.kept.streams), "worse": one.worse, **to_json(one.standing)} for one in metrics]
    files = {"canary.json": json.dumps({"alpha": rules.alpha, "looks": trial.looks, "metrics": told}, indent=1).encode()}
    for one in metrics:
        way = [10**value for value in one.kept.evidence.path]
        said = f"roll back at {len(metrics) / rules.alpha:,.0f}"
        labels = f"{len(way)} looks with whole cells", _clock(trial.until_at)
        files[f"{one.name}.svg"] = path(way, len(metrics) / rules.alpha, f"Evidence of harm: {one.name}", said, log=True, labels=labels).encode()
    return files
