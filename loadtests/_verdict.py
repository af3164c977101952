"""Is the quantile under its limit? PASS, FAIL, or INCONCLUSIVE where the run cannot tell; never a PASS for want of evidence."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from loadtests import _bursts

Outcome = Literal["pass", "fail", "inconclusive"]


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

    A latency at the limit is within it; one that is infinite or NaN is over it, since no answer came. ValueError for what is no run or no limit.
    """
    import numpy as np

    intended, latency = (np.asarray(values, dtype=float) for values in (intended, latency))
    _sound(intended, latency, limit, quantile, burst, confidence)
    took = np.sort(np.where(np.isnan(latency), np.inf, latency))
    seen = _bursts.counted(intended, ~((latency <= limit) & (latency < np.inf)), burst)
    n, over, allowed, risk = len(took), int(seen.over.sum()), 1 - quantile, 1 - confidence
    one = float(_bursts.design(seen, burst))
    low, high = (float(side) for side in _bursts.bounds(over / one, n / one, risk)) if n else (0.0, 1.0)
    least = needed_seconds(quantile, burst, confidence)
    outcome: Outcome = "fail" if low > allowed else "pass" if high <= allowed and seen.seconds >= least else "inconclusive"
    missing = 0.0 if outcome == "pass" else _missing(over / one, n / one, allowed, risk, seen.seconds, least) if n else None
    observed = float(took[math.ceil(quantile * n - 1e-9) - 1]) if n else math.nan
    interval = _interval(took, one, allowed, risk) if n else (0.0, math.inf)
    judged = Judged(outcome, observed, interval, n, over, over / n if n else 0.0, (low, high), one, burst, seen.seconds, missing, "")
    return replace(judged, why=_why(judged, limit, quantile, confidence, least))


def needed_seconds(quantile: float, burst: float, confidence: float = 0.95) -> float:
    """The shortest run that can PASS: what a run without one request over the limit needs, a burst counted as one request."""
    return burst * math.ceil(math.log(1 - confidence) / math.log(quantile))


def _sound(intended: Any, latency: Any, limit: float, quantile: float, burst: float, confidence: float) -> None:
    import numpy as np

    if intended.ndim != 1 or intended.shape != latency.shape:
        raise ValueError(f"one intended time and one latency a request are needed, not {intended.shape} and {latency.shape}")
    if not np.isfinite(intended).all():
        raise ValueError("a request without an intended time is no part of the schedule; leave it out")
    if not limit > 0 or not (0 < quantile < 1) or not (0 < burst < math.inf) or not (0.5 <= confidence < 1):
        raise ValueError(f"no verdict on the {quantile} quantile against {limit} s with bursts of {burst} s at {confidence}")


def _interval(took: Any, one: float, allowed: float, risk: float) -> tuple[float, float]:
    """Two order statistics that bracket the quantile: where the bound of the share over them meets what is allowed."""
    import numpy as np

    n = len(took)
    counts = np.unique(np.concatenate([np.arange(min(n, 4096)), np.linspace(0, n, 4097)]).astype(np.int64))
    low, high = _bursts.bounds(counts / one, n / one, risk)
    most, least = counts[high <= allowed], counts[low > allowed]
    return (float(took[n - least[0]]) if len(least) else 0.0), (float(took[n - most[-1] - 1]) if len(most) else math.inf)


def _missing(over: float, n: float, allowed: float, risk: float, seconds: float, least: float) -> float | None:
    """Seconds until the bound falls to what is allowed if the share, the rate and the design effect stay as they are."""
    if over / n >= allowed:
        return None
    near, far = 1.0, 2.0
    while _bursts.bounds(over * far, n * far, risk)[1] > allowed:
        near, far = far, far * 2
        if far > 1e6:
            return None
    for _ in range(30):
        middle = (near + far) / 2
        near, far = (near, middle) if _bursts.bounds(over * middle, n * middle, risk)[1] <= allowed else (middle, far)
    return max(seconds * far, least) - seconds


def _why(judged: Judged, limit: float, quantile: float, confidence: float, least: float) -> str:
    """One line: what was seen, how far it can be trusted, and for which bursts."""
    if not judged.n:
        return f"no request was sent, so nothing is known; {_valid(judged.burst)}"
    seen = f"{_percent(judged.share)} of {judged.n:,} requests took over {limit:g} s and {_percent(1 - quantile)} may"
    low, high = judged.share_interval
    sure = {
        "pass": f"at most {_percent(high)}",
        "fail": f"at least {_percent(low)}",
        "inconclusive": f"between {_percent(low)} and {_percent(high)}",
    }[judged.outcome]
    more = f"; {_more(judged, quantile, least)}" if judged.outcome == "inconclusive" else ""
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
    return f"{judged.missing:,.0f} s more of the same would PASS"


def percentile(quantile: float) -> str:
    """0.999 as p99.9."""
    return f"p{100 * quantile:.6g}"
