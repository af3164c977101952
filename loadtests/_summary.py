"""A load test in numbers: one JSON value made from what the traffic program brought back and what was judged. Everything people see is drawn from it.

Times and lengths are seconds. None stands for a latency that is not a number: no good answer came at that rank, or nothing was sent at all. A
percentile is an order statistic, the ceil(q n)-th smallest latency, never an interpolation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from agent import Status, Verdict
from loadtests import _streamed
from loadtests._percentiles import Sure, ascending, curve, finite, points, rank
from loadtests._spec import KINDS, Trace, Traffic
from loadtests._verdict import Judged, judge, percentile
from loadtests._windows import since, windows

FORMAT = 1  # of the JSON; a new meaning of a name is a new number
WINDOWS = 150  # at most so many
LENGTHS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)  # seconds of a window
SHOWN = (0.5, 0.9, 0.95, 0.99, 0.999)
OUTCOMES = {
    Status.OK: "pass",
    Status.FAIL: "fail",
    Status.WARN: "fail",
    Status.NODATA: "inconclusive",
    Status.SKIP: "inconclusive",
    Status.ERROR: "invalid",
}
PARTS = ("lag", "queue", "server")  # of a latency: until it was taken up, until a connection was free, until the answer was whole


@dataclass(frozen=True)
class Limit:
    """One limit of a latency, and what came of it."""

    name: str  # p99
    quantile: float
    seconds: float
    judged: Judged


def summary(
    traffic: Traffic,
    trace: Trace,
    limits: Sequence[Limit],
    verdict: Verdict,
    *,
    warm: float = 0.0,
    unfit: Sequence[str] = (),
    confidence: float = 0.95,
) -> dict[str, Any]:
    """The whole run as JSON values. What is judged, and so all but the windows, leaves out the first `warm` seconds."""
    judged = since(trace, warm) if warm else trace
    sure = _sure(judged, limits, confidence)
    return {
        "format": FORMAT,
        "outcome": "aborted" if trace.aborted and verdict.status is not Status.FAIL else OUTCOMES[verdict.status],
        "status": verdict.status.value,
        "reason": verdict.reason,
        "url": _open(traffic.url),
        "method": traffic.method,
        "began_at": trace.began_at.isoformat(),
        "wall": trace.wall,
        "warm": warm,
        "aborted": trace.aborted,
        "schedule": {**asdict(traffic.arrivals), "closed": trace.closed, "timeout": traffic.timeout, "connections": traffic.connections},
        "requests": len(judged.intended),
        "answers": _answers(judged),
        "said": dict(trace.said),
        "limits": [_limit(limit, trace.closed) for limit in limits],
        "percentiles": _percentiles(judged.latency, sure, limits),
        "curve": curve(judged.latency, sure),
        "clocks": _clocks(judged),
        "over": _over(judged, limits),
        "generator": _generator(trace, traffic, unfit),
        "tokens": _tokens(judged),
        "windows": _windows(trace, limits),
    }


def _limit(limit: Limit, closed: int) -> dict[str, Any]:
    """What was judged; a closed loop does not see what users would, and so passes nothing."""
    judged = replace(limit.judged, outcome="inconclusive") if closed and limit.judged.outcome == "pass" else limit.judged
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


def _open(url: str) -> str:
    """What of a URL is no secret: neither a user nor a query."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _sure(judged: Trace, limits: Sequence[Limit], confidence: float) -> Sure:
    """As at the limits, or without any as among the slowest hundredth."""
    of = [limit.judged for limit in limits]
    if not of:
        slowest = max(rank(ascending(judged.latency[judged.good]), 0.99) or 0.0, 1e-9)
        of = [judge(judged.intended, judged.latency, limit=slowest)]
    burst, seconds = max(one.burst for one in of), max(of[0].seconds, 1e-9)
    return Sure(max(float(one.design) for one in of), 1 - confidence, (1 - confidence) ** (burst / seconds))


def _percentiles(latency: Any, sure: Sure, limits: Sequence[Limit]) -> list[dict[str, Any]]:
    """Those that are shown and those that have a limit, which have the interval that was judged."""
    known = {limit.quantile: [finite(end) for end in limit.judged.interval] for limit in limits if limit.judged.interval is not None}
    quantiles = sorted({*SHOWN, *known})
    found = points(latency, quantiles, sure)
    return [{"name": percentile(q), **point, "interval": known.get(q, point["interval"])} for q, point in zip(quantiles, found, strict=True)]


# Where the time went


def _clocks(trace: Trace) -> dict[str, Any]:
    """Each part of the latency of the requests that came so far, and the whole."""
    told = {name: _spread(part[part == part]) for name, part in _parts(trace).items()}
    return {**told, "latency": _spread(trace.latency)}


def _parts(trace: Trace) -> dict[str, Any]:
    return {"lag": trace.dispatched - trace.intended, "queue": trace.sent - trace.dispatched, "server": trace.done - trace.sent}


def _spread(values: Any) -> dict[str, float | None]:
    rising = ascending(values)
    return {"n": len(rising), **{percentile(q): rank(rising, q) for q in (0.5, 0.9, 0.99)}, "max": rank(rising, 1.0)}


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
    lag = _parts(trace)["lag"]
    span = min(trace.wall, traffic.arrivals.seconds) or 1.0
    return {
        "fit": not unfit,
        "unfit": list(unfit),
        "lag": rank(ascending(lag[lag == lag]), 0.99),
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

    measured, first = _streamed.measured(trace), np.asarray(trace.first, dtype=float)
    each = measured.tpot[measured.several & trace.good]
    return {"first": _spread(first[first == first]), "gap": _spread(trace.gaps), "each": _spread(each), "tokens": int(measured.n.sum())}


# Windows


def window_length(seconds: float) -> float:
    """The shortest round length of which at most WINDOWS make up the run."""
    return float(next((length for length in LENGTHS if seconds / length <= WINDOWS), math.ceil(seconds / WINDOWS)))


def _windows(trace: Trace, limits: Sequence[Limit]) -> list[dict[str, Any]]:
    """A row each, the warm-up's among them; `max` is the slowest good answer, `lag` the p99 of the generator's, `in_flight` counts at its end."""
    import numpy as np

    if not len(trace.intended):
        return []
    width = window_length(float(trace.intended.max()))
    cut = windows(trace, width, min((limit.seconds for limit in limits), default=math.inf))
    names = ("start", "seconds", "n", "sent", "errors", "over", "p50", "p95", "p99")
    rows = [dict(zip(names, row, strict=True)) for row in zip(*(getattr(cut, name).tolist() for name in names), strict=True)]
    order = np.argsort(trace.intended, kind="stable")
    edges = np.searchsorted(trace.intended[order], cut.start[1:])
    lag, answered = _parts(trace)["lag"][order], np.where(trace.good, trace.done - trace.intended, -np.inf)[order]
    flying = _in_flight(trace, cut.start + cut.seconds)
    for row, late, took, under_way in zip(rows, np.split(lag, edges), np.split(answered, edges), flying, strict=True):
        row |= {"max": finite(took.max(initial=-np.inf)), "lag": rank(ascending(late[late == late]), 0.99), "in_flight": under_way}
        row |= {name: finite(row[name]) for name in ("p50", "p95", "p99")}
    return rows


def _in_flight(trace: Trace, at: Any) -> list[int]:
    """How many requests were under way at these times: taken up, and not ended."""
    import numpy as np

    begun, ended = (np.sort(clock[clock == clock]) for clock in (trace.dispatched, trace.done))
    under_way = np.searchsorted(begun, at, side="right") - np.searchsorted(ended, at, side="right")
    return [max(int(count), 0) for count in under_way]


# In words


def length_in_words(seconds: float | None) -> str:
    """Three digits and a unit: 940 µs, 12.3 ms, 1.05 s; a dash for none."""
    if seconds is None or seconds != seconds:
        return "-"
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
