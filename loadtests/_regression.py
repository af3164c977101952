"""Whether a run is slower, or fails more, than the one that was pinned: window against window, since windows and not requests are exchangeable.

Latencies are compared by the Wilcoxon rank-sum statistic in its exact permutation distribution, ties and all (the shift algorithm of Streitberg and
Röhmel, "Exact distributions for permutation and rank tests", 1986); the shift is Hodges and Lehmann's ("Estimates of location based on rank tests",
Ann. Math. Statist. 34, 1963), its interval Moses': the ordered differences that the same test does not reject (Hollander and Wolfe, "Nonparametric
Statistical Methods", section 4.3). Errors come in few windows, where a median of differences is 0 whatever happens: their shares are compared by
their difference, permuted, with Newcombe's interval on counts divided by the design effect of the windows. Windows whose neighbours are alike count
as fewer than they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from agent.stats import difference, holm
from loadtests._windows import Windows, alike

Outcome = Literal["pass", "fail", "inconclusive"]
MOST = 200  # windows of both sides together for which the exact distribution is worked out
DRAWS = 10_000  # permutations drawn of the shares of errors


@dataclass(frozen=True, slots=True)
class Floors:
    """How much more is too little to matter: both of the first two for latencies, the third for the share of requests without a good answer."""

    relative: float = 0.1
    seconds: float = 0.005
    errors: float = 0.005


@dataclass(frozen=True, slots=True)
class Shift:
    """One number now against then: how much more it is, with its interval, the chance of so much by itself, and what would be too much."""

    name: str
    then: float
    now: float
    shift: float
    interval: tuple[float, float]
    p: float  # adjusted for all that are compared
    floor: float
    outcome: Outcome


def compared(then: Windows, now: Windows, floors: Floors, cap: float, alpha: float = 0.01, seed: int = 0) -> tuple[Shift, ...]:
    """p50, p95, p99 and errors, the worst first. A latency of a window that is infinite counts as `cap` seconds.

    Either end of an interval is wrong with at most `alpha`. `fail`: surely more (p, adjusted by Holm, at most `alpha`, and the whole interval above
    0), and by more than the floor. `pass`: even the upper end of the interval is within the floor. Anything between is inconclusive: what was not
    found may still be there.
    """
    import numpy as np

    found = []
    for name in ("p50", "p95", "p99"):
        one, two = (np.minimum(side[~np.isnan(side)], cap) for side in (getattr(then, name), getattr(now, name)))
        middle, many = float(np.median(one)), alike(one, two)
        shift, interval = hodges_lehmann(two, one, 1 - 2 * alpha)
        wide = widened(interval, shift, many)
        found.append((name, middle, float(np.median(two)), shift, wide, rank_sum(two, one), max(floors.relative * middle, floors.seconds)))
    found.append(_errors(then, now, floors.errors, 1 - 2 * alpha, seed))
    adjusted = holm([one[5] for one in found])
    told = [Shift(*one[:5], p, one[6], _outcome(one[3], one[4], p, one[6], alpha)) for one, p in zip(found, adjusted, strict=True)]
    return tuple(sorted(told, key=lambda one: (("fail", "inconclusive", "pass").index(one.outcome), one.floor - one.interval[1])))


def widened(interval: tuple[float, float], middle: float, many: float) -> tuple[float, float]:
    """The interval when `many` windows count as one."""
    low, high = (middle + (end - middle) * math.sqrt(many) for end in interval)
    return low, high


def _outcome(shift: float, interval: tuple[float, float], p: float, floor: float, alpha: float) -> Outcome:
    if p <= alpha and interval[0] > 0 and shift > floor:
        return "fail"
    return "pass" if interval[1] <= floor else "inconclusive"


def rank_sum(one: Any, other: Any) -> float:
    """P(the ranks of `one` sum up to so much or more), were the values dealt to the two sides by chance: exact, with ties at their mid-ranks."""
    import numpy as np
    from scipy.stats import rankdata

    ranks = np.rint(2 * rankdata(np.concatenate([one, other]))).astype(int)  # mid-ranks are halves
    ways = _ways(ranks, len(one))
    return float(ways[ranks[: len(one)].sum() :].sum() / ways.sum())


def _ways(ranks: Any, many: int) -> Any:
    """How many choices of `many` of the ranks come to each sum, as a share of the largest count: the shift algorithm, one rank after another."""
    import numpy as np

    top = int(np.sort(ranks)[-many:].sum())
    ways = np.zeros((many + 1, top + 1))
    ways[0, 0] = 1.0
    for place, rank in enumerate(np.sort(ranks).tolist()):
        for chosen in range(min(place + 1, many), 0, -1):
            ways[chosen, rank:] += ways[chosen - 1, : top + 1 - rank]
    return ways[many]


def hodges_lehmann(one: Any, other: Any, level: float = 0.95) -> tuple[float, tuple[float, float]]:
    """How much higher the values of `one` are: the median of all differences, and the differences between which the rank-sum test rejects none.

    The interval covers with at least `level`; it is that of R's wilcox.test(conf.int = TRUE).
    """
    import numpy as np

    differences = np.sort(np.subtract.outer(one, other).ravel())
    rank = _rank(len(one), len(other), (1 - level) / 2)
    return float(np.median(differences)), (float(differences[rank - 1]), float(differences[-rank]))


@cache
def _rank(one: int, other: int, tail: float) -> int:
    """How many of the differences lie beyond either end of the interval, and one more: U reaches so few with at most that chance, without ties."""
    import numpy as np

    ways = _ways(np.arange(1, one + other + 1), one)
    below = np.cumsum(ways[one * (one + 1) // 2 :]) / ways.sum()  # P(U <= u), u = 0, 1, ...
    return max(1, int(np.searchsorted(below, tail * (1 - 1e-12))))


def _errors(then: Windows, now: Windows, floor: float, level: float, seed: int) -> tuple[str, float, float, float, tuple[float, float], float, float]:
    import numpy as np

    many = alike(*(side.errors / np.maximum(side.n, 1) for side in (then, now)))
    (hits, n), (other_hits, other_n) = (
        (side.errors.sum() / effect, side.n.sum() / effect) for side in (now, then) for effect in (many * design(side),)
    )
    share, other = hits / n, other_hits / other_n
    interval = difference(hits, n, other_hits, other_n, level)
    ends = (float(interval[0]), float(interval[1]))
    return "errors", float(other), float(share), float(share - other), ends, _dealt(now, then, seed), floor


def design(side: Windows) -> float:
    """How many requests weigh as much as one independent request: the variance of the windows' shares of errors over the binomial one; at least 1."""
    import numpy as np

    had = side.n > 0
    n, share = side.n[had], side.errors[had] / side.n[had]
    whole = float(side.errors.sum() / side.n.sum())
    if not 0 < whole < 1 or len(n) < 2:
        return 1.0
    return max(1.0, float(np.sum(n * (share - whole) ** 2) / (len(n) - 1) / (whole * (1 - whole))))


def _dealt(now: Windows, then: Windows, seed: int) -> float:
    """P(the mean share of errors is so much higher, or more), windows dealt to the two sides by chance: `DRAWS` seeded draws, this one counted."""
    import numpy as np

    one, other = (side.errors[side.n > 0] / side.n[side.n > 0] for side in (now, then))
    both = np.concatenate([one, other])
    if both.max() == both.min():
        return 1.0
    dealt = np.random.default_rng(seed).permuted(np.tile(both, (DRAWS, 1)), axis=1)[:, : len(one)].sum(axis=1)
    return float((1 + np.sum(dealt >= one.sum() - 1e-12)) / (1 + DRAWS))


def unlike(then: Windows, now: Windows, at_least: int) -> str:
    """Why the two cannot be compared; empty when they can."""
    few = min(int((side.n > 0).sum()) for side in (then, now))
    if few < at_least:
        return f"{len(then)} windows then and {len(now)} now, {few} of a side with requests in them; {at_least} a side are needed"
    if max(len(then), len(now)) > MOST // 2:
        return f"{len(then)} windows then and {len(now)} now; the most that are compared is {MOST // 2} a side: make them longer"
    widths = (float(then.seconds[0]), float(now.seconds[0]))
    if widths[0] != widths[1]:
        return f"its windows are {widths[0]:g} s long and these {widths[1]:g} s"
    if not 0.9 <= now.rate / then.rate <= 1 / 0.9:
        return f"it was sent {then.rate:.4g} requests a second and this one {now.rate:.4g}"
    return ""
