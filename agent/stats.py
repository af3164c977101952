"""Arithmetic every check may lean on: intervals for shares and quantiles, p-values judged together, and times taken in turn."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

Interval = tuple[float, float]
CELLS = 24  # stretches of rounds whose ratios are taken for independent; a busy second spoils one or two of them
FEWEST = CELLS  # rounds without which nothing is said
WARM = 3  # runs of each before the first round


def wilson(hits: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval for a share: close to its level on average, never outside [0, 1]; (0, 1) when nothing was seen."""
    _counts(hits, n)
    if n == 0:
        return 0.0, 1.0
    z, share = _normal(level), hits / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return (0.0 if hits == 0 else max(0.0, middle - reach)), (1.0 if hits == n else min(1.0, middle + reach))


def clopper_pearson(hits: int, n: int, level: float = 0.95) -> Interval:
    """The exact interval for a share: covers with at least its level whatever the share; (0, 1) when nothing was seen."""
    from scipy.special import betaincinv

    _counts(hits, n)
    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else float(betaincinv(hits, n - hits + 1, tail))
    high = 1.0 if hits == n else float(betaincinv(hits + 1, n - hits, 1 - tail))
    return low, high


def difference(hits: int, n: int, other_hits: int, other_n: int, level: float = 0.95) -> Interval:
    """Newcombe's interval for share minus other share, built from two Wilson intervals; (-1, 1) when either saw nothing."""
    if n == 0 or other_n == 0:
        return -1.0, 1.0
    one, other = hits / n, other_hits / other_n
    (low, high), (other_low, other_high) = wilson(hits, n, level), wilson(other_hits, other_n, level)
    down = math.hypot(one - low, other_high - other)
    up = math.hypot(high - one, other - other_low)
    return max(-1.0, one - other - down), min(1.0, one - other + up)


def quantile(rising: Sequence[float], share: float) -> float:
    """The smallest of the sorted values that at least `share` of them do not exceed: an order statistic, never interpolated."""
    if not rising:
        raise ValueError("no value has no quantile")
    return rising[max(0, math.ceil(share * len(rising) - 1e-9) - 1)]


def quantile_interval(rising: Sequence[float], share: float, level: float = 0.95) -> Interval:
    """Two of the sorted values that bracket the true quantile with at least `level`, whatever the distribution.

    Where there are too few values to bound a side, that side is infinite.
    """
    low, high = quantile_ranks(len(rising), share, level)
    return (rising[low - 1] if low else -math.inf), (rising[high - 1] if high <= len(rising) else math.inf)


def quantile_ranks(n: int, share: float, level: float = 0.95) -> tuple[int, int]:
    """Ranks (1 to n) of the two order statistics; 0 and n + 1 stand for "no bound". Each tail gets half of what may be missed."""
    if not 0 < share < 1:
        raise ValueError(f"a quantile's share lies between 0 and 1, not {share}")
    tail = (1 - level) / 2
    return _rank(n, share, tail), n + 1 - _rank(n, 1 - share, tail)


def _rank(n: int, share: float, tail: float) -> int:
    """The largest r with P(fewer than r of n lie below) <= tail."""
    below, rank = 0.0, 0
    while rank < n:
        below += _chance(n, rank, share)
        if below > tail:
            return rank
        rank += 1
    return rank


def _chance(n: int, hits: int, share: float) -> float:
    """P(exactly `hits` of `n`), through logarithms: large n neither overflows nor underflows to a wrong sum."""
    ways = math.lgamma(n + 1) - math.lgamma(hits + 1) - math.lgamma(n - hits + 1)
    return math.exp(ways + hits * math.log(share) + (n - hits) * math.log1p(-share))


def benjamini_hochberg(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p-values: calling those at most q keeps the expected share of false calls at most q (independent or positively dependent)."""
    n, best = len(p_values), 1.0
    adjusted = [0.0] * n
    for rank, place in zip(range(n, 0, -1), reversed(_ascending(p_values)), strict=True):
        best = min(best, p_values[place] * n / rank)
        adjusted[place] = best
    return tuple(adjusted)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p-values: calling those at most a keeps the chance of any false call at most a, whatever the dependence."""
    n, worst = len(p_values), 0.0
    adjusted = [0.0] * n
    for rank, place in enumerate(_ascending(p_values)):
        worst = max(worst, min(1.0, p_values[place] * (n - rank)))
        adjusted[place] = worst
    return tuple(adjusted)


def _ascending(p_values: Sequence[float]) -> list[int]:
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError("a p-value lies between 0 and 1; leave out what could not be tested")
    return sorted(range(len(p_values)), key=lambda place: p_values[place])


def _counts(hits: int, n: int) -> None:
    if not 0 <= hits <= n:
        raise ValueError(f"{hits} of {n} is no share")


def _normal(level: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf((1 + level) / 2)


# Times taken in turn


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as fast: the middle of the cells' ratios, and an interval that holds the true one as surely as was asked, whatever the noise."""

    middle: float
    low: float
    high: float


def interleaved(
    runs: Mapping[str, Callable[[], object]], rounds: int, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """The seconds that each took in each round: `rounds` of them, or fewer (not below FEWEST) once they took `seconds` in all.

    Each round has an order of its own, drawn by chance from a fixed seed: whatever one leaves behind, threads that still spin say, meets all.
    """
    import random

    names, chance = list(runs), random.Random(0)  # noqa: S311 - no secret
    for name in names * WARM:
        runs[name]()
    took: dict[str, list[float]] = {name: [] for name in names}
    begun = clock()
    for turn in range(max(rounds, FEWEST)):
        for name in chance.sample(names, len(names)):
            start = clock()
            runs[name]()
            took[name].append(clock() - start)
        if turn + 1 >= FEWEST and clock() - begun > seconds:
            break
    return took


def paired(before: Sequence[float], after: Sequence[float], level: float = 0.95) -> Ratio:
    """How many times as fast `after` is, both measured in the same rounds.

    Rounds that follow each other share what the machine does meanwhile, so they are taken in CELLS stretches; in each, the ratio of medians. The
    middle of those is bracketed by two of them (order statistics), which asks nothing of their distribution.
    """
    from statistics import median

    if len(before) != len(after) or len(before) < FEWEST:
        raise ValueError(f"{len(before)} and {len(after)} rounds cannot be paired; at least {FEWEST} of each are needed")
    edges = [len(before) * cell // CELLS for cell in range(CELLS + 1)]
    rising = sorted(median(before[a:b]) / max(median(after[a:b]), 1e-12) for a, b in pairwise(edges))
    low, high = quantile_interval(rising, 0.5, level)
    return Ratio(median(rising), low, high)
