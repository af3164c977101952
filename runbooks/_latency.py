"""How long several ways to compute the same take, beside each other: in turn, round after round, so that whatever else the machine does meets all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from agent.stats import Interval, quantile, quantile_interval

CELLS = 24  # stretches of rounds whose ratios are taken for independent; a busy second spoils one or two of them
FEWEST = CELLS  # rounds without which nothing is said
WARM = 3  # runs of each before the first round


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as fast: the middle of the cells' ratios, and an interval that holds the true one with 95 %, whatever the noise looks like."""

    middle: float
    low: float
    high: float


def interleaved(
    runs: Mapping[str, Callable[[], object]], rounds: int, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """The seconds that each took in each round: `rounds` of them, or fewer (not below FEWEST) once they took `seconds` in all.

    Each round begins with another one, so that none always comes after the same.
    """
    names = list(runs)
    for name in names * WARM:
        runs[name]()
    took: dict[str, list[float]] = {name: [] for name in names}
    begun = clock()
    for turn in range(max(rounds, FEWEST)):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = clock()
            runs[name]()
            took[name].append(clock() - start)
        if turn + 1 >= FEWEST and clock() - begun > seconds:
            break
    return took


def paired(before: Sequence[float], after: Sequence[float]) -> Ratio:
    """How many times as fast `after` is, both measured in the same rounds.

    Rounds that follow each other share what the machine does meanwhile, so they are taken in CELLS stretches; in each, the ratio of medians. The
    middle of those is bracketed by two of them (order statistics), which asks nothing of their distribution.
    """
    if len(before) != len(after) or len(before) < FEWEST:
        raise ValueError(f"{len(before)} and {len(after)} rounds cannot be paired; at least {FEWEST} of each are needed")
    edges = [len(before) * cell // CELLS for cell in range(CELLS + 1)]
    rising = sorted(median(before[a:b]) / max(median(after[a:b]), 1e-12) for a, b in pairwise(edges))
    low, high = quantile_interval(rising, 0.5)
    return Ratio(median(rising), low, high)


def surely_later(before: Sequence[float], after: Sequence[float], share: float = 0.99) -> bool:
    """Whether the tail of `after` is surely longer: the intervals of both percentiles do not touch. Too few rounds are never sure."""
    return quantile_interval(sorted(before), share)[1] < quantile_interval(sorted(after), share)[0]


def spread(seconds: Sequence[float]) -> tuple[float, float]:
    """Median and 99th percentile."""
    rising = sorted(seconds)
    return quantile(rising, 0.5), quantile(rising, 0.99)


def several(level: Interval) -> str:
    """An interval of ratios in words."""
    return f"{level[0]:.2f}x to {level[1]:.2f}x"
