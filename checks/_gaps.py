"""Two samples of one column compared: a test for whether they differ, and how far with an interval that holds for the largest gap."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.stats import difference

LEVEL = 0.95
EXPECTED = 5.0  # the least expected count of a chi-square cell, below which the test's p-values are not to be trusted
BLOCK = 64  # live values between two places where the gap is always known
HUGE = 10**7  # rows beyond which Fisher's test takes seconds, and the binomial it tends to is as good, if anything too calm
EXACT = 500  # up to this many values a side the exact distribution is cheap
MANY = 4_000  # rows beyond which scipy's sum over all of them takes long
FAR, UNSEEN = 2.2, 370.0  # rows times the squared distance: from where scipy takes that sum, and from where the chance is no number above 0
TERMS = 1_024


@dataclass(frozen=True, slots=True)
class Gap:
    """How two samples differ: the effect in [0, 1] with its interval, the p-value of no difference at all, and the sizes."""

    effect: float
    interval: tuple[float, float]
    p: float
    n: int
    n_reference: int
    how: str
    shares: tuple[float, float] | None = None  # where two shares are what is compared: live, reference


def numbers(live: Any, reference: Any) -> Gap:
    """Two sorted arrays without NaN: the two-sample Kolmogorov-Smirnov distance, the largest gap between their cumulative shares."""
    n, m = len(live), len(reference)
    distance = _distance(live, reference)
    width = reach(n, m)
    return Gap(distance, _within(distance - width, distance + width), _ks_p(live, reference, distance), n, m, "Kolmogorov-Smirnov")


def _distance(live: Any, reference: Any) -> float:
    """The largest gap between the two cumulative shares, in whole numbers and exact.

    Known at every 64th live value, it is bounded in between; only where the bound passes the largest gap known is every value looked at.
    """
    import numpy as np

    n, m = len(live), len(reference)
    edges = live[::BLOCK]
    ours, theirs = np.append(_below(live), n), np.append(np.searchsorted(reference, edges), m)  # how many lie below each edge
    known = np.abs(m * ours - n * theirs).max()
    bound = np.maximum(m * ours[1:] - n * theirs[:-1], n * theirs[1:] - m * ours[:-1])
    (near,) = np.nonzero(bound > known)
    sizes = ours[near + 1] - ours[near]
    places = np.repeat(ours[near] - sizes.cumsum() + sizes, sizes) + np.arange(sizes.sum())
    return float(max(known, _walked(live, reference, places))) / (n * m)


def _below(live: Any) -> Any:
    """How many live values lie below every 64th: those before it, but where equal ones reach back."""
    import numpy as np

    places = np.arange(0, len(live), BLOCK)
    (tied,) = np.nonzero(live[places[1:] - 1] == live[places[1:]])
    places[tied + 1] = np.searchsorted(live, live[places[tied + 1]])
    return places


def _walked(live: Any, reference: Any, places: Any) -> Any:
    """The largest gap at, or just below, the live values at these places, which hold all or none of equal ones."""
    import numpy as np

    if not len(places):
        return 0
    n, m, values = len(live), len(reference), live[places]
    new = values[1:] != values[:-1]
    first, last = np.append(True, new), np.append(new, True)
    below = n * np.searchsorted(reference, values[first], side="left") - m * places[first]
    at = m * (places[last] + 1) - n * np.searchsorted(reference, values[last], side="right")
    return max(below.max(), at.max())


def reach(n: int, m: int) -> float:
    """Half the interval of a Kolmogorov-Smirnov distance: how far both cumulative shares together may be off everywhere at once.

    The quantile is that of no difference, and holds for any: the limiting process under a difference plus an independent Gaussian one is the
    Brownian bridge of the pooled sample, so by Anderson's inequality its largest excursion is no larger.
    """
    from scipy.special import kolmogi

    return float(kolmogi(1 - LEVEL)) * math.sqrt(1 / n + 1 / m)


def _ks_p(live: Any, reference: Any, distance: float) -> float:
    from scipy import stats

    n, m = len(live), len(reference)
    if max(n, m) <= EXACT:
        return float(stats.ks_2samp(live, reference, method="exact").pvalue)
    return chance(n, m, distance)


def chance(n: int, m: int, distance: float) -> float:
    """How likely a distance of that size or more is between two large samples of one distribution."""
    from scipy import stats

    rows = round(n * m / (n + m))
    if rows > MANY and distance < 0.5 and FAR <= rows * distance**2 < UNSEEN:
        return _far(rows, distance)
    return float(min(1.0, max(0.0, stats.kstwo.sf(distance, rows))))


def _far(n: int, distance: float) -> float:
    """What scipy's kstwo.sf is where two one-sided chances make it up: twice the sum of Birnbaum and Tingey (1951), in 0.3 ms for any n.

    scipy adds up its n terms, 0.7 s at half a million. A term is the chance of j of n at the rate j/n + distance, by Loader's formula (2000), so that
    no large numbers cancel; the terms rise and fall smoothly from nothing to nothing, and so a thousand of them, evenly spaced, say the sum.
    """
    import numpy as np

    step = max(1, n // TERMS)
    j = np.arange(16, math.floor(n - n * distance), step, dtype=np.float64)
    rest = n - j
    deviance = j * _above_log(n * distance / j) + rest * _above_log(-n * distance / rest)
    chance = np.sqrt(n / (2 * math.pi * j * rest)) * np.exp(_stirling(n) - _stirling(j) - _stirling(rest) - deviance)
    return min(1.0, 2 * distance * step * float((chance / (distance + j / n)).sum()))


def _above_log(a: Any) -> Any:
    """a - log(1 + a), by a series where the two are all but equal."""
    import numpy as np

    r = a / (2 + a)
    near = sum(r ** (2 * k) / (2 * k + 1) for k in range(1, 11))
    return np.where(np.abs(a) < 0.25, r * (a - 2 * near), a - np.log1p(a))


def _stirling(k: Any) -> Any:
    """How far Stirling's formula is below log k!, from 16 on to the last bit that shows here."""
    return (1 / 12 - (1 / 360 - 1 / (1260 * k * k)) / (k * k)) / k


def categories(live: Mapping[str, int], reference: Mapping[str, int]) -> Gap | None:
    """Two counts by category: the total variation distance (the share of rows that would have to move) and a chi-square test.

    Rare categories are pooled until every expected count is at least 5; None when fewer than two cells are left and nothing can differ.
    """
    import numpy as np
    from scipy.special import chdtrc

    cells = _pooled(live, reference)
    if len(cells) < 2:
        return None
    seen = np.array(cells, dtype=np.float64)
    n, m = seen.sum(axis=0)
    expected = seen.sum(axis=1, keepdims=True) * (seen.sum(axis=0) / seen.sum())
    statistic = float(((seen - expected) ** 2 / expected).sum())
    one, other = seen[:, 0] / n, seen[:, 1] / m
    distance = min(1.0, float(np.abs(one - other).sum() / 2))  # a sum of shares may pass 1 by a rounding
    noise = float(np.sqrt(one * (1 - one) / n + other * (1 - other) / m).sum() / 2)  # at least what chance alone adds on average
    width = math.sqrt(math.log(2 / (1 - LEVEL)) / 2 * (1 / n + 1 / m))  # McDiarmid: one row moves the distance by 1/n or 1/m at most
    interval = _within(distance - noise - width, distance + width)
    return Gap(distance, interval, float(chdtrc(len(cells) - 1, statistic)), int(n), int(m), f"chi-square, {len(cells)} cells")


def _pooled(live: Mapping[str, int], reference: Mapping[str, int]) -> list[tuple[int, int]]:
    """Counts (live, reference) a cell, the rarest categories put together until each cell expects enough on both sides."""
    n, m = sum(live.values()), sum(reference.values())
    if not n or not m:
        return []
    needed = EXPECTED * (n + m) / min(n, m)
    cells, pool = [], (0, 0)
    for key in sorted({*live, *reference}, key=lambda key: (live.get(key, 0) + reference.get(key, 0), key)):
        cell = live.get(key, 0), reference.get(key, 0)
        if sum(cell) >= needed and (not sum(pool) or sum(pool) >= needed):
            cells.append(cell)
        else:
            pool = pool[0] + cell[0], pool[1] + cell[1]
    return [*cells, pool] if sum(pool) else cells


def shares(hits: int, n: int, reference_hits: int, n_reference: int) -> Gap:
    """Two shares, such as of nulls: the absolute difference with Newcombe's interval, and Fisher's exact test (chi-square where counts are large,
    binomial where rows are)."""
    from scipy import stats

    table = [[hits, n - hits], [reference_hits, n_reference - reference_hits]]
    total = hits + reference_hits
    least = min(total, n + n_reference - total) * min(n, n_reference) / (n + n_reference)
    if least >= EXPECTED:
        p, how = float(stats.chi2_contingency(table, correction=False).pvalue), "chi-square"
    elif n + n_reference <= HUGE:
        p, how = float(stats.fisher_exact(table).pvalue), "Fisher's exact test"
    else:
        one, other = (hits, reference_hits) if 2 * total <= n + n_reference else (n - hits, n_reference - reference_hits)
        p, how = float(stats.binomtest(one, one + other, n / (n + n_reference)).pvalue) if one + other else 1.0, "binomial test"
    effect = hits / n - reference_hits / n_reference
    low, high = difference(hits, n, reference_hits, n_reference, LEVEL)
    interval = (low, high) if effect >= 0 else (-high, -low)
    return Gap(abs(effect), _within(*interval), min(1.0, p), n, n_reference, how, (hits / n, reference_hits / n_reference))


def _within(low: float, high: float) -> tuple[float, float]:
    return max(0.0, low), min(1.0, high)
