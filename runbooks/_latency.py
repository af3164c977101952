"""What is told of times that were taken in turn: whether a tail is surely longer, and where the middle and the end lie."""

from __future__ import annotations

from collections.abc import Sequence

from agent.stats import quantile, quantile_interval


def surely_later(before: Sequence[float], after: Sequence[float], share: float = 0.99) -> bool:
    """Whether the tail of `after` is surely longer: the intervals of both percentiles do not touch. Too few rounds are never sure."""
    return quantile_interval(sorted(before), share)[1] < quantile_interval(sorted(after), share)[0]


def spread(seconds: Sequence[float]) -> tuple[float, float]:
    """Median and 99th percentile."""
    rising = sorted(seconds)
    return quantile(rising, 0.5), quantile(rising, 0.99)
