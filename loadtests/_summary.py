"""A load test in numbers: one JSON value made from what the traffic program brought back and what was judged. Everything people see is drawn from it.

Times and lengths are seconds. None stands for a latency that is not a number: no good answer came at that rank, or nothing was sent at all. A
percentile is an order statistic, the ceil(q n)-th smallest latency, never an interpolation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loadtests._spec import KINDS, Trace, Traffic

FORMAT = 1  # of the JSON; a new meaning of a name is a new number
WINDOWS = 150  # at most so many
LENGTHS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)  # seconds of a window
SHOWN = (0.5, 0.9, 0.95, 0.99, 0.999)
STEPS = 16  # points of the percentile plot from one power of ten to the next
PARTS = ("lag", "queue", "server")  # of a latency: until it was taken up, until a connection was free, until the answer was whole


@dataclass(frozen=True)
class Limit:
    """One limit of a latency, and what was judged: a `Judged` of the verdict's module, told apart by nothing but its fields."""

    name: str  # p99
    quantile: float
    seconds: float
    judged: Any


def summary(
    traffic: Traffic, trace: Trace, limits: Sequence[Limit], *, status: str, reason: str, outcome: str, unfit: Sequence[str] = (), confidence: float = 0.95
) -> dict[str, Any]:
    """The whole run as JSON values. `status` and `reason` are the verdict's; `outcome` is pass, fail, inconclusive or invalid."""
    design = max((float(limit.judged.design) for limit in limits), default=1.0)
    length, windows = _windows(trace, traffic.arrivals.seconds, limits)
    return {
        "format": FORMAT,
        "status": status,
        "outcome": outcome,
        "reason": reason,
        "url": traffic.url,
        "method": traffic.method,
        "began_at": trace.began_at.isoformat(),
        "wall": trace.wall,
        "aborted": trace.aborted,
        "schedule": {**asdict(traffic.arrivals), "closed": trace.closed, "timeout": traffic.timeout, "connections": traffic.connections},
        "requests": len(trace.intended),
        "answers": _answers(trace),
        "said": dict(trace.said),
        "limits": [_limit(limit) for limit in limits],
        "percentiles": _percentiles(trace.latency, design, confidence, [limit.quantile for limit in limits]),
        "curve": _curve(trace.latency, design, confidence),
        "clocks": _clocks(trace),
        "over": _over(trace, limits),
        "generator": _generator(trace, traffic, unfit),
        "tokens": _tokens(trace),
        "window": length,
        "windows": windows,
    }


def _limit(limit: Limit) -> dict[str, Any]:
    judged = limit.judged
    names = ("outcome", "n", "over", "share", "design", "burst", "why")
    told = {"name": limit.name, "quantile": limit.quantile, "seconds": limit.seconds, **{name: getattr(judged, name) for name in names}}
    interval, share = ([finite(end) for end in ends] if ends is not None else None for ends in (judged.interval, judged.share_interval))
    missing = None if judged.missing is None else finite(judged.missing)
    return {**told, "observed": finite(judged.observed), "interval": interval, "share_interval": share, "missing": missing}


def _answers(trace: Trace) -> dict[str, int]:
    """How the requests ended, by kind; kinds that did not happen are left out, but for `good`."""
    import numpy as np

    counts = np.bincount(np.asarray(trace.kind, dtype=np.int64), minlength=len(KINDS)).tolist()
    return {name: count for name, count in zip(KINDS, counts, strict=False) if count or name == "good"}


# Percentiles


def finite(value: Any) -> float | None:
    """The number, or None where it is none."""
    return None if value is None or not math.isfinite(value) else float(value)


def rank(rising: Any, q: float) -> float | None:
    """The ceil(q n)-th of n ascending values; None of none."""
    last = len(rising) - 1
    return finite(rising[min(max(math.ceil(q * len(rising) - 1e-9) - 1, 0), last)]) if last >= 0 else None


def percentile_name(q: float) -> str:
    """p99.9 of 0.999."""
    return f"p{100 * q:.6g}"


def _percentiles(latency: Any, design: float, confidence: float, more: Sequence[float]) -> list[dict[str, Any]]:
    rising = _sorted(latency)
    return [{"name": percentile_name(q), **_point(rising, q, design, confidence)} for q in sorted({*SHOWN, *more})]


def _curve(latency: Any, design: float, confidence: float) -> list[dict[str, Any]]:
    """Points evenly on a log axis of 1 / (1 - q), up to the largest latency."""
    rising = _sorted(latency)
    last = math.log10(max(len(rising), 1))
    places = [*(k / STEPS for k in range(1, math.ceil(last * STEPS - 1e-9))), last]
    return [_point(rising, 1 - 10**-place, design, confidence) for place in places] if len(rising) > 1 else []


def _sorted(latency: Any) -> Any:
    import numpy as np

    return np.sort(np.asarray(latency, dtype=float))


def _point(rising: Any, q: float, design: float, confidence: float) -> dict[str, Any]:
    """A percentile with its interval by order statistics, at the sample size that is left of n when neighbours repeat each other.

    `supported` is whether the interval has an upper end: beyond, the run holds no evidence of how slow the slowest are.
    """
    from scipy.stats import binom

    n = len(rising) / max(design, 1.0)
    half, size = (1 - confidence) / 2, max(int(n), 1)
    low, high = (float(binom.ppf(side, size, q)) / size for side in (half, 1 - half))
    supported = n >= 1 and float(binom.cdf(size - 1, size, q)) >= 1 - half
    ends = [rank(rising, low), rank(rising, min(high + 1 / size, 1.0)) if supported else None]
    return {"q": q, "seconds": rank(rising, q), "interval": ends, "supported": supported}


# Where the time went


def _clocks(trace: Trace) -> dict[str, Any]:
    """Each part of the latency of the requests that came so far, and the whole."""
    told = {name: _spread(part[part == part]) for name, part in _parts(trace).items()}
    return {**told, "latency": _spread(trace.latency)}


def _parts(trace: Trace) -> dict[str, Any]:
    return {"lag": trace.dispatched - trace.intended, "queue": trace.sent - trace.dispatched, "server": trace.done - trace.sent}


def _spread(values: Any) -> dict[str, float | None]:
    rising = _sorted(values)
    return {"n": len(rising), **{percentile_name(q): rank(rising, q) for q in (0.5, 0.9, 0.99)}, "max": rank(rising, 1.0)}


def _over(trace: Trace, limits: Sequence[Limit]) -> dict[str, Any] | None:
    """Of the requests over the tightest limit: how many had no good answer, and in which part the others spent most of their time."""
    import numpy as np

    if not limits:
        return None
    tightest = min(limit.seconds for limit in limits)
    latency, good = trace.latency, np.asarray(trace.good)
    late = good & (latency > tightest)
    most = np.argmax(np.nan_to_num(np.array([part[late] for part in _parts(trace).values()])), axis=0)
    counts = np.bincount(most, minlength=len(PARTS)).tolist()
    return {"limit": tightest, "n": int(late.sum()) + int((~good).sum()), "unanswered": int((~good).sum()), **dict(zip(PARTS, counts, strict=True))}


def _generator(trace: Trace, traffic: Traffic, unfit: Sequence[str]) -> dict[str, Any]:
    lag = _spread((lag := _parts(trace)["lag"])[lag == lag])
    span = min(trace.wall, traffic.arrivals.seconds) or 1.0
    return {
        "fit": not unfit,
        "unfit": list(unfit),
        "lag": lag["p99"],
        "cpu": trace.cpu / (max(trace.wall, 1e-9) * max(trace.workers, 1)),
        "rate": int((trace.sent == trace.sent).sum()) / span,
        "meant": len(trace.intended) / span,
        "workers": trace.workers,
        "lost": trace.lost,
    }


def _tokens(trace: Trace) -> dict[str, Any] | None:
    if trace.first is None:
        return None
    import numpy as np

    first, tokens = np.asarray(trace.first, dtype=float), np.asarray(trace.tokens, dtype=float)
    several = np.asarray(trace.good) & (tokens > 1) & (first == first)
    each = (trace.latency[several] - first[several]) / (tokens[several] - 1)
    known = first[first == first]
    return {"first": _spread(known), "gap": _spread(trace.gaps), "each": _spread(each), "tokens": int(np.nansum(tokens))}


# Windows


def window_length(seconds: float) -> float:
    """The shortest round length of which at most WINDOWS make up the run."""
    return float(next((length for length in LENGTHS if seconds / length <= WINDOWS), math.ceil(seconds / WINDOWS)))


def _windows(trace: Trace, meant: float, limits: Sequence[Limit]) -> tuple[float, list[dict[str, Any]]]:
    import numpy as np

    if not len(trace.intended):
        return window_length(meant), []
    order = np.argsort(trace.intended, kind="stable")
    intended, latency, good = trace.intended[order], trace.latency[order], np.asarray(trace.good)[order]
    length = window_length(max(float(intended[-1]), 1e-9))
    cuts = np.arange(math.floor(float(intended[-1]) / length) + 2) * length
    begins = np.searchsorted(intended, cuts)
    end = float(intended[-1]) if trace.aborted else max(float(intended[-1]), meant)
    lag = _parts(trace)["lag"][order]
    flying = _in_flight(trace, cuts[1:])
    tightest = min((limit.seconds for limit in limits), default=math.inf)
    return length, [
        {"at": float(cuts[k]), **_window(latency[a:b], good[a:b], lag[a:b], min(length, end - float(cuts[k])), tightest), "in_flight": flying[k]}
        for k, (a, b) in enumerate(zip(begins, begins[1:], strict=False))
    ]


def _window(latency: Any, good: Any, lag: Any, length: float, tightest: float) -> dict[str, Any]:
    rising, late = _sorted(latency), _sorted(lag[lag == lag])
    return {
        "sent": len(rising),
        "rate": len(rising) / length if length > 0 else None,
        "errors": int((~good).sum()),
        "over": int((rising > tightest).sum()) if math.isfinite(tightest) else None,
        **{percentile_name(q): rank(rising, q) for q in (0.5, 0.95, 0.99)},
        "max": rank(rising[rising < math.inf], 1.0),
        "lag": rank(late, 0.99),
    }


def _in_flight(trace: Trace, at: Any) -> list[int]:
    """How many requests were under way at these times: begun, and not ended."""
    import numpy as np

    begun, ended = (np.sort(clock[clock == clock]) for clock in (trace.dispatched, trace.done))
    return (np.searchsorted(begun, at, side="right") - np.searchsorted(ended, at, side="right")).clip(0).tolist()  # type: ignore[no-any-return]  # numpy's


# In words


def length_in_words(seconds: float | None) -> str:
    """Three digits and a unit: 940 µs, 12.3 ms, 1.05 s; a dash for none."""
    if seconds is None or seconds != seconds:
        return "–"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(seconds) >= size * 0.9995 or unit == "µs":
            return f"{_digits(seconds / size)} {unit}"
    raise AssertionError("one of the units fits")


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:.3g}"


def sent_in_words(told: Mapping[str, Any]) -> str:
    """What was sent, as one line: '60,000 requests, Poisson arrivals at 200 a second for 300 s, seed 7'."""
    plan = told["schedule"]
    if plan["closed"]:
        return f"{told['requests']:,} requests by {plan['closed']} users in a closed loop for {plan['seconds']:g} s"
    rate = {
        "ramp": f"a ramp from {plan['begin']:g} to {plan['rate']:g} a second",
        "spike": f"{plan['rate']:g} a second, with a spike to {plan['peak']:g} from {plan['peak_at']:g} s on for {plan['peak_for']:g} s",
        "replayed": "arrivals as they were recorded",
    }.get(plan["pattern"], f"{'Poisson' if plan['pattern'] == 'poisson' else plan['pattern']} arrivals at {plan['rate']:g} a second")
    seed = f", seed {plan['seed']}" if plan["pattern"] == "poisson" else ""
    return f"{told['requests']:,} requests, {rate}, for {plan['seconds']:g} s{seed}"
