"""Percentiles as order statistics, each between two others that bracket it, and how far up a run of this length supports them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loadtests._bursts import exact

STEPS = 16  # points of a curve from one power of ten to the next


def finite(value: Any) -> float | None:
    """The number, or None where it is none."""
    return None if value is None or not math.isfinite(value) else float(value)


def rank(rising: Any, q: float) -> float | None:
    """The ceil(q n)-th of n ascending values; None of none."""
    last = len(rising) - 1
    return finite(rising[min(max(math.ceil(q * len(rising) - 1e-9) - 1, 0), last)]) if last >= 0 else None


@dataclass(frozen=True, slots=True)
class Sure:
    """What intervals are made with: how many requests count as one, how often a bound may be wrong, and the highest quantile the run supports."""

    alike: float
    risk: float
    highest: float


def curve(latency: Any, sure: Sure) -> list[dict[str, Any]]:
    """Points evenly on a log axis of 1 / (1 - q), up to the largest latency."""
    if len(latency) < 2:
        return []
    last = math.log10(len(latency))
    places = [*(k / STEPS for k in range(1, math.ceil(last * STEPS - 1e-9))), last]
    return points(latency, [1 - 10**-place for place in places], sure)


def points(latency: Any, quantiles: Sequence[float], sure: Sure) -> list[dict[str, Any]]:
    """Percentiles, each between two order statistics: where Clopper and Pearson's bounds of the share above them meet what may be above.

    Without a lower one it begins at 0. `supported` is whether a run so long could PASS if no request were slow: beyond, it holds no evidence of how
    slow the slowest are.
    """
    import numpy as np

    rising, n = ascending(latency), len(latency)
    counts = np.unique(np.concatenate([np.arange(min(n, 4096)), np.linspace(0, n, 4097)]).astype(np.int64))
    low, high = exact(counts / sure.alike, n / sure.alike, sure.risk)
    found = []
    for q in quantiles:
        most, least = counts[high <= 1 - q], counts[low > 1 - q]
        ends = [rank(rising, 1 - least[0] / n) if len(least) else 0.0, rank(rising, 1 - most[-1] / n) if len(most) else None]
        found.append({"q": q, "seconds": rank(rising, q), "interval": ends, "supported": bool(len(most)) and q <= sure.highest})
    return found


def ascending(latency: Any) -> Any:
    import numpy as np

    return np.sort(np.asarray(latency, dtype=float))
