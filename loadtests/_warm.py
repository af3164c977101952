"""How long a run took to warm up. It is told and never taken away: what is left out by how it looked makes the rest look better than the service is.

Left out until three windows agree, runs exactly at the limit that meet a stall early lose it, and pass by mistake a fifth to a third more often
(`make bench ARGS=verdicts`). A warm-up chosen before the run is safe: its requests are sent and not judged.
"""

from __future__ import annotations

from typing import Any

WINDOWS = 50  # of a run
MOST = 0.2  # of a run is looked at
NEAR = 1.1  # times the median of the rest
STEADY = 3  # windows in a row that are near it


def warmed(intended: Any, latency: Any) -> float | None:
    """Seconds from the first intended time until three windows in a row have a median near that of the last four fifths of the run.

    0 for a run that is steady from its start; None for one that does not come to that within its first fifth, or is too short to say.
    """
    import numpy as np

    intended, latency = (np.asarray(values, dtype=float) for values in (intended, latency))
    since = intended - intended.min() if len(intended) else intended
    length = float(since.max()) / WINDOWS if len(since) else 0.0
    rest = latency[since >= MOST * WINDOWS * length]
    if not length or np.isnan(usual := np.median(rest)):
        return None
    here = [latency[(since >= number * length) & (since < (number + 1) * length)] for number in range(int(MOST * WINDOWS) + STEADY)]
    near = [not len(one) or bool(np.median(one) <= NEAR * usual) for one in here]
    starts = (number for number in range(int(MOST * WINDOWS) + 1) if all(near[number : number + STEADY]))
    first = next(starts, None)
    return None if first is None else first * length
