"""Whether the generator itself spoils the verdict: asked before any is given, and never answered by what the server does."""

from __future__ import annotations

from typing import Any

from loadtests._spec import Trace

LAG_SHARE, LAG_LEAST = 0.1, 0.010  # of the limit, and in seconds: below it a shared machine's own scheduling is all there is
BUSY = 0.8  # of a core: beyond it a request waits for the ones before it
RATE_OFF = 0.01
SHORTEST = 1.0  # seconds: in less, what it takes to begin would look like work


def unfit(trace: Trace, limit: float) -> tuple[str, ...]:
    """Why the generator was the bottleneck, a sentence each; empty when it was fit to judge a latency limit in seconds.

    It is unfit when the 99th percentile of its own lag (dispatched - intended) is more than a tenth of the limit and than 10 ms; its CPU more than
    80 % of a core for each worker; the rate at which it took requests up more than 1 % off what was meant; a request was never taken up, or a
    worker lost. What a request waits for after it was taken up, a free connection too, is the server's doing and counts nowhere here. A closed
    loop has no schedule to be late for. A run of no request has nothing to be judged.
    """
    return tuple(filter(None, (_lost(trace), _late(trace, limit), _busy(trace), _slow(trace, limit))))


def _lost(trace: Trace) -> str:
    import numpy as np

    never = int(np.isnan(trace.dispatched).sum())
    if trace.lost:
        return f"{trace.lost} of its {trace.workers} workers were lost, and the load was smaller than meant"
    return f"it never took up {never:,} of {len(trace.intended):,} requests" if never else ""


def _late(trace: Trace, limit: float) -> str:
    import numpy as np

    lag = _taken(trace, "dispatched") - _taken(trace, "intended")
    if not len(lag):
        return ""
    p99, most = float(np.quantile(lag, 0.99, method="inverted_cdf")), max(LAG_SHARE * limit, LAG_LEAST)
    return f"it took requests up late: p99 of its lag is {p99 * 1000:.3g} ms, and {most * 1000:.3g} ms is the most allowed" if p99 > most else ""


def _busy(trace: Trace) -> str:
    share = trace.cpu / (max(trace.wall, SHORTEST) * max(1, trace.workers - trace.lost))
    more = "" if trace.workers > 1 else "; add workers, or lower the rate"
    return f"it used {share:.0%} of a core for each worker, and {BUSY:.0%} is the most allowed{more}" if share > BUSY else ""


def _slow(trace: Trace, limit: float) -> str:
    """The rate, from how long taking all of them up took: over short runs the lag that is allowed anyway is no slowness."""
    meant, took = (float(each[-1] - each[0]) if len(each) > 1 else 0.0 for each in (_taken(trace, "intended"), _ordered(trace)))
    if meant <= 0 or abs(took - meant) <= max(RATE_OFF * meant, LAG_SHARE * limit, LAG_LEAST):
        return ""
    off = (len(_ordered(trace)) - 1) / took if took > 0 else float("inf")
    return f"it took up {off:,.1f} requests a second where {(len(_ordered(trace)) - 1) / meant:,.1f} were meant"


def _taken(trace: Trace, name: str) -> Any:
    """One clock of the requests that were taken up."""
    import numpy as np

    return getattr(trace, name)[~np.isnan(trace.dispatched)]


def _ordered(trace: Trace) -> Any:
    import numpy as np

    return np.sort(_taken(trace, "dispatched"))
