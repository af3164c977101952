"""A run as a Verdict: each claim judged, all of them together, and the sentence that is told."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from agent import Reading, Status, Verdict, spell
from loadtests import _report, _verdict
from loadtests._run import Ran
from loadtests._spec import Claim
from loadtests._summary import Limit, summary
from loadtests._verdict import Judged
from loadtests._warm import warmed

STATUS = {"pass": Status.OK, "fail": Status.FAIL, "inconclusive": Status.NODATA, "invalid": Status.ERROR}
ENOUGH = 1000  # requests to see a warm-up by: of fewer the first are slower as often as not
WORST = ("fail", "inconclusive", "pass")
CLOSED = "a closed loop waits for slow answers before it sends again, and so never sees what its users would: it can fail, and cannot PASS"


def reading(of: Limit) -> Reading:
    """The quantile in seconds beside its limit; what has no end is left out."""
    judged = of.judged
    return Reading(finite(judged.observed), of.seconds, ends(judged.interval), judged.n, "s")


def share(of: Limit) -> Reading:
    """The share of requests over the limit, beside the share that may be."""
    judged = of.judged
    return Reading(judged.share, 1 - of.quantile, judged.share_interval, judged.n, "share")


def answered(ran: Ran) -> tuple[Limit, ...]:
    """Every claim judged, the worst first.

    All must hold to PASS, and each is tested at the confidence that was asked for: together they are wrong no more often (Berger, "Multiparameter
    hypothesis testing and acceptance sampling", Technometrics 24, 1982). One fails all, so each may fail wrongly only with its part of what is
    allowed (Bonferroni).
    """
    asked, intended, latency = ran.asked, ran.trace.intended, ran.trace.latency

    def judge(claim: Claim, sure: float) -> Judged:
        return _verdict.judge(intended, latency, limit=claim.limit, quantile=claim.quantile, burst=asked.burst.total_seconds(), confidence=sure)

    found = []
    for claim in asked.claims:
        judged = judge(claim, asked.confidence)
        if judged.outcome == "fail" and len(asked.claims) > 1:
            judged = judge(claim, 1 - (1 - asked.confidence) / len(asked.claims))
        if claim.name == ran.trace.failed and judged.outcome != "fail":  # another test than the one that ended the run, of the same requests
            judged = replace(judged, outcome="fail", why=f"{judged.why}; what ended the run was a test that may be looked at at any time")
        found.append(Limit(claim.name, claim.quantile, claim.limit, judged))
    return tuple(sorted(found, key=lambda one: (WORST.index(one.judged.outcome), -one.judged.share_interval[1] / (1 - one.quantile))))


def outcome(ran: Ran, found: Sequence[Limit]) -> str:
    """pass, fail, inconclusive or invalid. A run that ended early is judged by what it saw where that is a fail, and else by nothing."""
    if ran.trace.failed and not ran.unfit:
        return "fail"
    if ran.unfit or (ran.trace.aborted and found[0].judged.outcome != "fail"):
        return "invalid"
    if ran.asked.users and found[0].judged.outcome == "pass":
        return "inconclusive"
    return found[0].judged.outcome


def verdict(ran: Ran, found: Sequence[Limit], report: bool = False) -> Verdict:
    """The Verdict of one run: its first line is what is told, a line for each claim and what was sent follow; its report lies beside."""
    came, first = outcome(ran, found), found[0]
    parts = {one.name: reading(one) for one in found} | {f"{one.name} over": share(one) for one in found} | {"errors": errors(ran)}
    status = Status.SKIP if ran.cancelled else STATUS[came]
    reason = "\n".join([headline(ran, first, came, f"{in_words(first)} {rate(ran)}"), *(f"{one.name}: {one.judged.why}" for one in found), sent(ran)])
    return kept(Verdict(status, reason, reading(first), parts=parts), ran, found, report=report)


def kept(verdict: Verdict, ran: Ran, found: Sequence[Limit] = (), more: Mapping[str, bytes] | None = None, report: bool = False) -> Verdict:
    """The same with what is kept beside it: the run in numbers and its pictures, with `report` every file there is of it, and whatever `more`."""
    told = summary(ran.traffic, ran.whole, found, verdict, warm=ran.warmed, unfit=ran.unfit, confidence=ran.asked.confidence)
    return replace(verdict, data={**_report.files(told, ran.whole, report), **(more or {})})


def headline(ran: Ran, first: Limit, came: str, said: str) -> str:
    """What is told of a run of which so much is said."""
    if ran.unfit:
        return f"INVALID: the generator was the bottleneck: {ran.unfit[0]}; {said} is not the server's word"
    if ran.cancelled:
        return f"called off after {spent(ran)}: {said} so far"
    if came == "invalid":
        return f"aborted after {spent(ran)}: {ran.trace.aborted}; {said} so far"
    word = "ended" if ran.trace.failed else "aborted"
    early = f" ({word} after {spent(ran)}: {ran.trace.aborted})" if ran.trace.aborted else ""
    more = f"; {missing(first)}" if came == "inconclusive" else ""
    return f"{came.upper()}: {said}{early}{more}; {valid(first)}"


def in_words(one: Limit) -> str:
    """p99 is 12ms (interval 11ms to 14ms), limit 100ms."""
    low, high = one.judged.interval
    if low == math.inf:
        return f"{one.name} is no answer, limit {length(one.seconds)}"
    between = f"interval {length(low)} to {length(high)}" if math.isfinite(high) else f"interval from {length(low)}, with no upper end"
    return f"{one.name} is {length(one.judged.observed)} ({between}), limit {length(one.seconds)}"


def unusable(ran: Ran) -> Verdict | None:
    """What a run comes to that says nothing by itself: called off, given up, or sent by a generator that was too slow; None when it is whole."""
    if ran.cancelled:
        return Verdict(Status.SKIP, f"called off after {spent(ran)}\n{sent(ran)}")
    if ran.unfit:
        return Verdict(Status.ERROR, f"INVALID: the generator was the bottleneck: {ran.unfit[0]}\n{sent(ran)}")
    if ran.trace.aborted:
        return Verdict(Status.ERROR, f"aborted after {spent(ran)}: {ran.trace.aborted}\n{sent(ran)}")
    return None


def rate(ran: Ran) -> str:
    """At how many requests a second."""
    asked = ran.asked
    told = {"ramp": f"on a ramp from {asked.begin:g} to {asked.rate:g}", "spike": f"at {asked.rate:g}, with a spike to {asked.peak:g}"}
    if asked.arrivals == "replayed":
        return "with the arrivals replayed"
    return f"{told.get(asked.arrivals, f'at {asked.rate:g}')} requests a second" if not asked.users else f"with {asked.users} users in a closed loop"


def missing(one: Limit) -> str:
    """How much more would tell."""
    needed = one.judged.missing
    if needed is None:
        return "a longer run like this one would not PASS"
    return f"{spell(timedelta(seconds=math.ceil(needed)))} more would tell" if needed > 0 else CLOSED


def valid(one: Limit) -> str:
    """For which stalls the verdict holds."""
    return f"valid for bursts up to {spell(timedelta(seconds=one.judged.burst))}"


def sent(ran: Ran) -> str:
    """What was sent, how it ended, and how late the generator was: what a reader checks the numbers against."""
    import numpy as np

    trace, asked = ran.trace, ran.asked
    arrivals = f"{asked.users} users in a closed loop" if asked.users else f"{asked.arrivals} arrivals, seed {asked.seed}"
    late = trace.dispatched - trace.intended
    lag = f"; 99 % taken up within {length(float(np.nanquantile(late, 0.99)))}" if (~np.isnan(late)).any() else ""
    ended = ", ".join(f"{count:,} {kind}" for kind, count in ran.kinds.items())
    warm = f", after {spell(asked.warm)} of warm-up" if asked.warm else ""
    return f"{len(trace.intended):,} requests ({ran.source}), {arrivals}{warm}: {ended}{lag}{_warming(ran)}{_commonest(ran)}"


def _warming(ran: Ran) -> str:
    took = warmed(ran.whole.intended, ran.whole.latency)
    if took is None or took <= ran.asked.warm.total_seconds() or len(ran.whole.intended) < ENOUGH:
        return ""
    return f"\nthe first {length(took)} were slower than the rest, and {spell(ran.asked.warm)} of them were set apart: `warm` says how long"


def _commonest(ran: Ran) -> str:
    words = sorted(ran.whole.said, key=lambda one: -ran.whole.said[one])[:3]
    return "".join(f"\n{ran.whole.said[one]:,} times: {one}" for one in words)


def errors(ran: Ran) -> Reading:
    """The share of requests without a good answer."""
    n = len(ran.trace.kind)
    return Reading(float((~ran.trace.good).mean()) if n else None, n=n, unit="share")


def spent(ran: Ran) -> str:
    """How long it ran."""
    return spell(timedelta(seconds=ran.whole.wall))


def length(seconds: float) -> str:
    """12.3ms, 1.05s, 'no answer' for what is infinite."""
    if not math.isfinite(seconds):
        return "no answer"
    return f"{seconds * 1000:.3g}ms" if seconds < 1 else spell(timedelta(seconds=seconds))


def finite(value: float) -> float | None:
    """The number, or None for what is none."""
    return value if math.isfinite(value) else None


def ends(interval: tuple[float, float]) -> tuple[float, float] | None:
    """The interval where it has two ends."""
    return interval if all(map(math.isfinite, interval)) else None
