"""A quantile of few measurements with an interval that assumes nothing about their distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence


def order(rising: Sequence[float], quantile: float) -> float:
    """The smallest measurement that at least that share of the measurements does not exceed (an order statistic, never interpolated)."""
    return rising[max(0, math.ceil(quantile * len(rising) - 1e-9) - 1)]


def interval(rising: Sequence[float], quantile: float, miss: float = 0.05) -> tuple[float, float]:
    """Two order statistics that bracket the true quantile with probability 1 - miss or more, by the binomial law of how many lie below it.

    Too few measurements to bound a side give 0.0 below, infinity above.
    """
    size, below, tail = len(rising), 0, 0.0
    while below < size and (tail := tail + _chance(size, below, quantile)) <= miss / 2:
        below += 1
    above, tail = size, 0.0
    while above >= 0 and (tail := tail + _chance(size, above, quantile)) <= miss / 2:
        above -= 1
    return (rising[below - 1] if below else 0.0), (rising[above] if above < size else math.inf)


def _chance(size: int, hits: int, share: float) -> float:
    """P(exactly `hits` of `size`), through logarithms so that large sizes do not overflow."""
    if share <= 0 or share >= 1:
        return float(hits == (size if share >= 1 else 0))
    ways = math.lgamma(size + 1) - math.lgamma(hits + 1) - math.lgamma(size - hits + 1)
    return math.exp(ways + hits * math.log(share) + (size - hits) * math.log1p(-share))
