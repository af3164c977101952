"""Is the quantile under its limit? PASS, FAIL, or INCONCLUSIVE where the run cannot tell; never a PASS for want of evidence."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from loadtests import _bursts

Outcome = Literal["pass", "fail", "inconclusive"]
MOST = 1e6  # times as long a run is not asked for


@dataclass(frozen=True, slots=True)
class Judged:
    """What a run says of one quantile against its limit. Bounds are one-sided, each wrong with at most 1 - confidence.

    `observed` and `interval` are seconds (infinite: not answered, or no bound); `share` is that of the requests over the limit. `missing` is how
    many more seconds like these would give a PASS: 0 for one, None where none would.
    """

    outcome: Outcome
    observed: float
    interval: tuple[float, float]
    n: int
    over: int
    share: float
    share_interval: tuple[float, float]
    design: float  # how many requests count as one
    burst: float  # seconds: the verdict is valid for bursts up to this long
    seconds: float
    missing: float | None
    why: str


def judge(intended: Any, latency: Any, *, limit: float, quantile: float = 0.99, burst: float = 1.0, confidence: float = 0.95) -> Judged:
    """Judge requests by when they were due and how long they took, both in seconds, in any order.

    A latency at the limit is within it; one that is no finite number is over it, since no answer came. ValueError for what is no run or no limit.
    """
    import numpy as np

    intended, latency = (np.asarray(values, dtype=float) for values in (intended, latency))
    _sound(intended, latency, limit, quantile, burst, confidence)
    if not len(latency):
        return _nothing(burst)
    allowed, risk = 1 - quantile, 1 - confidence
    run = _bursts.taken(intended, np.where(np.isfinite(latency), latency, np.inf), burst)
    seen, took = run.over(limit), np.sort(run.latency)
    word, one = outcome(seen, allowed, risk)
    judged = Judged(
        word,
        float(took[math.ceil(quantile * len(took) - 1e-9) - 1]),
        _interval(run, took, limit, word, allowed, risk),
        len(took),
        len(seen.late),
        seen.share,
        _bursts.bounds(seen, one, risk),
        one,
        burst,
        run.seconds,
        0.0 if word == "pass" else _missing(seen, one, allowed, risk, run.seconds),
        "",
    )
    return replace(judged, why=_why(judged, limit, quantile, confidence))


def outcome(run: _bursts.Run, allowed: float, risk: float) -> tuple[Outcome, float]:
    """Whether the share over the limit is at most what is allowed, each answer wrong with at most `risk`; and the design effect."""
    one = _bursts.design(run)
    if _bursts.exact(len(run.late) / one, run.n / one, risk)[0] > allowed:
        return "fail", one
    return ("pass" if _bursts.passes(run, one, allowed, risk) else "inconclusive"), one


def needed_seconds(quantile: float, burst: float, confidence: float = 0.95) -> float:
    """The shortest run that can PASS: what a run without one request over the limit needs, a burst counted as one request."""
    return burst * math.ceil(math.log(1 - confidence) / math.log(quantile))


def supports(seconds: float, rate: float, quantile: float, burst: float = 1.0, confidence: float = 0.95) -> bool:
    """Whether a run of so many seconds at so many requests a second could PASS at all."""
    least = needed_seconds(quantile, burst, confidence)
    return seconds >= least * (1 - 1e-9) and seconds * rate >= least / burst * (1 - 1e-9)


def _nothing(burst: float) -> Judged:
    why = f"no request was sent, so nothing is known; {_valid(burst)}"
    return Judged("inconclusive", math.nan, (0.0, math.inf), 0, 0, 0.0, (0.0, 1.0), 1.0, burst, 0.0, None, why)


def _sound(intended: Any, latency: Any, limit: float, quantile: float, burst: float, confidence: float) -> None:
    import numpy as np

    if intended.ndim != 1 or intended.shape != latency.shape:
        raise ValueError(f"one intended time and one latency a request are needed, not {intended.shape} and {latency.shape}")
    if not np.isfinite(intended).all():
        raise ValueError("a request without an intended time is no part of the schedule; leave it out")
    if not limit > 0 or not (0 < quantile < 1) or not (0 < burst < math.inf) or not (0.5 <= confidence < 1):
        raise ValueError(f"no verdict on the {quantile} quantile against {limit} s with bursts of {burst} s at {confidence}")


def _interval(run: _bursts.Taken, took: Any, limit: float, word: Outcome, allowed: float, risk: float) -> tuple[float, float]:
    """Two of the latencies that bracket the quantile: the largest that is still too low for a limit, and the least that would PASS as one.

    A higher limit is passed by more, but for rare runs whose few remaining late requests all came together. What was asked is the limit, so each
    end is looked for on the side of it that agrees with the answer: else the one that flatters could be picked.
    """
    import numpy as np

    values = np.unique(took[took < np.inf])
    within, above = values[values <= limit], values[values > limit]

    def least(among: Any, holds: Callable[[Outcome], bool], otherwise: float) -> float:
        place = bisect_left(among, True, key=lambda one: holds(outcome(run.over(one), allowed, risk)[0]))
        return float(among[place]) if place < len(among) else otherwise

    low = least(above if word == "fail" else within, lambda said: said != "fail", math.inf if word == "fail" else 0.0)
    return low, least(within if word == "pass" else above, lambda said: said == "pass", math.inf)


def _missing(run: _bursts.Run, one: float, allowed: float, risk: float, seconds: float) -> float | None:
    """Seconds until it would PASS if share, rate and design effect stay as they are; None for never."""
    if run.share >= allowed or not seconds:
        return None
    far = 1.0
    while not _bursts.passes(run, one, allowed, risk, far):
        far *= 2
        if far > MOST:
            return None
    far = far if far == 1.0 else _bursts.bisected(lambda times: _bursts.passes(run, one, allowed, risk, times), far / 2, far)
    return seconds * (far - 1)


def _why(judged: Judged, limit: float, quantile: float, confidence: float) -> str:
    """One line: what was seen, how far it can be trusted, and for which bursts."""
    seen = f"{_percent(judged.share)} of {judged.n:,} requests took over {limit:g} s and {_percent(1 - quantile)} may"
    low, high = judged.share_interval
    sure = {
        "pass": f"at most {_percent(high)}",
        "fail": f"at least {_percent(low)}",
        "inconclusive": f"between {_percent(low)} and {_percent(high)}",
    }[judged.outcome]
    more = f"; {_more(judged, quantile, needed_seconds(quantile, judged.burst, confidence))}" if judged.outcome == "inconclusive" else ""
    return f"{seen}; {sure} with {_percent(confidence)} confidence{more}; {_valid(judged.burst)}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _valid(burst: float) -> str:
    return f"valid for bursts up to {burst:g} s"


def _more(judged: Judged, quantile: float, least: float) -> str:
    if judged.seconds < least:
        return f"{percentile(quantile)} is not supported by a run of {judged.seconds:,.0f} s: it takes {least:,.0f} s even when all are in time"
    if judged.missing is None:
        return "more of the same would not PASS"
    return f"{math.ceil(judged.missing):,} s more of the same would PASS"


def percentile(quantile: float) -> str:
    """0.999 as p99.9."""
    return f"p{100 * quantile:.6g}"
