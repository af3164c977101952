"""How far two samples of one column are apart, in the measures people know by name. They describe and decide nothing, at any sample size."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

EMPTY = 0.5  # rows that an empty cell counts as, where a logarithm would be infinite
CELLS = 10
SMALL = 1e-16  # a term of the Cramer-von Mises series below which the rest does not show


@dataclass(frozen=True, slots=True)
class Distances:
    """Over cells: PSI, KL of live from the reference and Jensen-Shannon (the divergence in bits, the distance its root), Hellinger, total variation.

    Over all values, where they were asked for: Wasserstein in the column's units and in standard deviations of the reference, energy, the
    Cramer-von Mises statistic with its asymptotic p, and the standardised k-sample Anderson-Darling statistic. None: not asked for, or not finite.
    """

    cells: int
    psi: float
    kl: float
    js_divergence: float
    js_distance: float
    hellinger: float
    total_variation: float
    wasserstein: float | None = None
    wasserstein_sd: float | None = None
    energy: float | None = None
    cramer_von_mises: float | None = None
    cramer_von_mises_p: float | None = None
    anderson_darling: float | None = None


def of_numbers(live: Any, reference: Any, all_values: bool) -> Distances:
    """Two sorted arrays without NaN: over the reference's deciles, and over all values where that is wanted."""
    counts = [_cells(rising, cuts(reference)) for rising in (live, reference)]
    near = over_cells(*counts)
    return _over_values(near, live, reference) if all_values else near


def of_categories(live: Mapping[str, int], reference: Mapping[str, int]) -> Distances:
    """Two counts by category, each category a cell."""
    keys = sorted({*live, *reference})
    return over_cells([live.get(key, 0) for key in keys], [reference.get(key, 0) for key in keys])


def cuts(reference: Any) -> list[tuple[float, str]]:
    """The reference's nine deciles; one that holds a decile of rows or more is cut off on both sides, so that what lies below it shows."""
    n = len(reference)
    deciles = [float(reference[max(0, math.ceil(n * k / CELLS) - 1)]) for k in range(1, CELLS)]
    atoms = {value for value in deciles if deciles.count(value) > 1}
    return [cut for value in dict.fromkeys(deciles) for cut in ([(value, "left"), (value, "right")] if value in atoms else [(value, "right")])]


def _cells(rising: Any, places: list[tuple[float, str]]) -> Any:
    import numpy as np

    below = [0, *(np.searchsorted(rising, value, side=side) for value, side in places), len(rising)]  # type: ignore[call-overload]  # a side is left or right
    return np.diff(below)


# Over cells


def over_cells(live: Any, reference: Any) -> Distances:
    """Two rows of counts over the same cells; cells that are empty on both sides are none."""
    import numpy as np

    now, then = (np.asarray(side, dtype=np.float64) for side in (live, reference))
    there = (now + then) > 0
    p, q = now[there] / now.sum(), then[there] / then.sum()
    full_p, full_q = _filled(now[there]), _filled(then[there])
    ratio = np.log(full_p / full_q)
    bits = max(0.0, (_relative(p, (p + q) / 2) + _relative(q, (p + q) / 2)) / 2 / math.log(2))
    return Distances(
        len(p),
        float(((full_p - full_q) * ratio).sum()),
        max(0.0, float((full_p * ratio).sum())),
        bits,
        math.sqrt(bits),
        float(np.sqrt(((np.sqrt(p) - np.sqrt(q)) ** 2).sum() / 2)),
        float(np.abs(p - q).sum() / 2),
    )


def _filled(counts: Any) -> Any:
    import numpy as np

    filled = np.where(counts > 0, counts, EMPTY)
    return filled / filled.sum()


def _relative(p: Any, q: Any) -> float:
    """The sum of p log(p / q), where an empty cell of p adds nothing."""
    import numpy as np

    some = p > 0
    return float((p[some] * np.log(p[some] / q[some])).sum())


# Over all values


def _over_values(near: Distances, live: Any, reference: Any) -> Distances:
    import numpy as np

    n, m = len(live), len(reference)
    values, a, b = _runs(live, reference)
    below_a, below_b = a.cumsum() - a, b.cumsum() - b
    with np.errstate(over="ignore", invalid="ignore"):
        steps, gaps = np.diff(values), ((below_a + a) / n - (below_b + b) / m)[:-1]
        far, squared = float((np.abs(gaps) * steps).sum()), float((gaps**2 * steps).sum())
        spread = float(np.std(reference))
    statistic = _cramer_von_mises(n, m, a, b, below_a, below_b)
    return replace(
        near,
        wasserstein=_finite(far),
        wasserstein_sd=_finite(far / spread) if spread > 0 else None,
        energy=_finite(math.sqrt(2 * squared)),
        cramer_von_mises=statistic,
        cramer_von_mises_p=_cramer_von_mises_p(statistic, n, m),
        anderson_darling=_anderson_darling(n, m, a, b, below_a, below_b),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _runs(live: Any, reference: Any) -> tuple[Any, Any, Any]:
    """The distinct values of both in rising order, and how often each is in live and in the reference; a stable sort only merges the two."""
    import numpy as np

    n = len(live)
    both = np.concatenate([live, reference])
    order = np.argsort(both, kind="stable")
    both = both[order]
    last = np.flatnonzero(np.append(both[1:] != both[:-1], True))
    ours, seen = (order < n).cumsum()[last], last + 1
    a = np.diff(ours, prepend=0)
    return both[last], a, np.diff(seen, prepend=0) - a


def _cramer_von_mises(n: int, m: int, a: Any, b: Any, below_a: Any, below_b: Any) -> float:
    """Anderson's two-sample statistic (1962) on midranks. Its two parts all but cancel, so they are added up as whole numbers."""
    import numpy as np

    def squares(own: Any, other: Any, below: Any) -> int:
        terms = own * (3.0 * (2 * below + other) ** 2 + own**2 - 1)  # twelve times the squared distance of midrank and rank, over a run
        return int(terms.sum(dtype=np.longdouble))

    twelvefold = n * squares(a, b, below_b) + m * squares(b, a, below_a)
    return float((twelvefold - 2 * n * m * (4 * n * m - 1)) / (12 * n * m * (n + m)))


def _cramer_von_mises_p(statistic: float, n: int, m: int) -> float:
    """From the statistic, moved and scaled to the mean and variance of its limit (Anderson 1962)."""
    both, product = n + m, n * m
    mean = (1 + 1 / both) / 6
    variance = (both + 1) * (4 * product * both - 3 * (n * n + m * m) - 2 * product) / (45 * both**2 * 4 * product)
    if variance <= 0:  # one value on each side
        return 1.0
    at = 1 / 6 + (statistic - mean) / math.sqrt(45 * variance)
    return min(1.0, max(0.0, 1 - _limit(at))) if at > 0.003 else 1.0


def _limit(at: float) -> float:
    """The limiting distribution of the Cramer-von Mises statistic: the series (1.3) of Csorgo and Faraway (1996)."""
    from scipy.special import gammaln, kve

    total, k = 0.0, 0
    while True:
        y = 4 * k + 1
        q = y * y / (16 * at)
        term = math.exp(gammaln(k + 0.5) - gammaln(k + 1) - 2 * q) * math.sqrt(y / at) / math.pi**1.5 * float(kve(0.25, q))
        total, k = total + float(term), k + 1
        if term < SMALL:
            return total


def _anderson_darling(n: int, m: int, a: Any, b: Any, below_a: Any, below_b: Any) -> float | None:
    """The k-sample statistic on midranks (Scholz and Stephens 1987, equation 7), less its mean 1, over its standard deviation."""
    both = n + m
    if len(a) < 2 or both < 4:
        return None
    times, middle = (a + b).astype(float), below_a + below_b + (a + b) / 2
    height = m * (below_a + a / 2) - n * (below_b + b / 2)
    inner = times / both * height**2 / (middle * (both - middle) - both * times / 4)
    return (float(inner.sum()) * (1 / n + 1 / m) * (both - 1) / both - 1) / math.sqrt(_variance(n, m))


@functools.lru_cache(maxsize=64)
def _variance(n: int, m: int) -> float:
    """Of the two-sample statistic (Scholz and Stephens 1987, equation 4)."""
    import numpy as np

    both, inverse = n + m, 1.0 / n + 1.0 / m
    tails = (1.0 / np.arange(both - 1, 1, -1)).cumsum()
    h, g = float(tails[-1]) + 1, float((tails / np.arange(2, both)).sum())
    cubic = (4 * g - 6) + (10 - 6 * g) * inverse
    square = (2 * g - 4) * 4 + 16 * h + (2 * g - 14 * h - 4) * inverse - 8 * h + 4 * g - 6
    linear = (6 * h + 2 * g - 2) * 4 + (4 * h - 4 * g + 6) * 2 + (2 * h - 6) * inverse + 4 * h
    last = (2 * h + 6) * 4 - 8 * h
    return (cubic * both**3 + square * both**2 + linear * both + last) / ((both - 1.0) * (both - 2) * (both - 3))
