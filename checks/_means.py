"""Evidence that the mean of a number left that of the reference: sharper than shares for a small move of a whole distribution.

Values are clipped and scaled to [0, 1] by the reference's 0.1 % and 99.9 % points, so that a bet on the mean is bounded: with x = y - m for the
edge m of what is allowed, exp(lambda sum(x) - (-log(1 - lambda) - lambda) sum(x^2)) has expectation at most 1 while E[y] <= m (Fan, Grama and
Liu, "Exponential inequalities for martingales", EJP 2015), for each lambda in [0, 1); likewise downwards. The edge is the reference's mean with
an empirical Bernstein bound (Maurer and Pontil, COLT 2009) and the tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from agent import Columns, Reading, Verdict, Window
from checks._profile import CHOOSE
from checks._sequential import REFERENCE_RISK, mean_log, packed, restarted, unpacked
from checks._shift import alarm

LAMBDAS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7)


@dataclass(frozen=True, slots=True)
class Scale:
    """One column of the reference: the clip range, the mean of the scaled values in part B with its bounds, and how many there were."""

    name: str
    low: float
    high: float
    mean: float
    least: float
    most: float
    rows: int

    def scaled(self, values: Any) -> Any:
        """Values that are not null, clipped to the range and scaled to [0, 1]."""
        import numpy as np

        known = values[~np.isnan(values)]
        return (np.clip(known, self.low, self.high) - self.low) / (self.high - self.low)

    def back(self, mean: float) -> float:
        """A scaled mean in the column's own unit."""
        return self.low + mean * (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Means:
    """What the check remembers: the scales, the log sums (columns x up and down x lambdas), what was judged."""

    scales: tuple[Scale, ...]
    left_out: tuple[str, ...]
    sums: str
    until_at: datetime
    windows: int = 0


def scale(name: str, chunks: Iterable[Any], columns: int, cluster: float) -> Scale | None:
    """The scale of one column; None when part A has no range to clip to."""
    import numpy as np

    values = np.concatenate([np.empty(0), *chunks])
    known = values[~np.isnan(values)]
    chosen = np.random.default_rng(20260101).random(len(known)) < CHOOSE
    first, second = np.sort(known[chosen]), known[~chosen]
    if len(first) < 2 or len(second) < 2:
        return None
    low, high = (float(first[min(len(first) - 1, math.floor(share * len(first)))]) for share in (0.001, 0.999))
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        return None
    made = Scale(name, low, high, 0.0, 0.0, 0.0, len(second))
    y = made.scaled(second)
    n, half = len(y) / cluster, math.log(2 * 2 * columns / REFERENCE_RISK)
    reach = math.sqrt(2 * float(y.var(ddof=1)) * half / n) + 7 * half / (3 * max(n - 1, 1))
    mean = float(y.mean())
    return replace(made, mean=mean, least=mean - reach, most=mean + reach)


def further(memory: Means, rows: Columns, tolerance: float, cluster: float, run_length: float) -> tuple[Any, list[tuple[float, int]]]:
    """The log sums with one more window, and each column's scaled mean in it with its rows. A column without values moves nothing."""
    import numpy as np

    log_e, seen = [], []
    for one in memory.scales:
        y = one.scaled(np.concatenate([np.empty(0), *rows.column(one.name)]))
        seen.append((float(y.mean()) if len(y) else math.nan, len(y)))
        log_e.append(_log_bets(y, one.most + tolerance, 1) + _log_bets(y, one.least - tolerance, -1))
    log = np.array(log_e) / cluster
    ceiling = math.log(run_length * len(memory.scales) * 2 * len(LAMBDAS)) + 3.0
    before = unpacked(memory.sums).reshape(log.shape) if memory.sums else np.full(log.shape, -np.inf)
    return restarted(before, log, ceiling), seen


def _log_bets(y: Any, edge: float, way: int) -> list[float]:
    if not len(y) or not 0 < edge < 1:
        return [math.nan] * len(LAMBDAS)
    x = way * (y - edge)
    up, squares = float(x.sum()), float((x * x).sum())
    return [lam * up - (-math.log1p(-lam) - lam) * squares for lam in LAMBDAS]


def kept(memory: Means, sums: Any, window: Window) -> Means:
    """What to remember after a window."""
    return replace(memory, sums=packed(sums), until_at=window.end, windows=memory.windows + 1)


def verdict(memory: Means, sums: Any, seen: list[tuple[float, int]], tolerance: float, run_length: float, every: timedelta) -> Verdict:
    """Fails while the evidence is at least the run length, naming the columns by e-d-BH."""
    by_name = mean_log(sums.reshape(len(memory.scales), -1))
    parts = {one.name: _reading(one, mean, n, tolerance) for one, (mean, n) in zip(memory.scales, seen, strict=True)}
    words = [_words(one, mean) for one, (mean, _) in zip(memory.scales, seen, strict=True)]
    left = f"; not watched: {', '.join(memory.left_out[:3])}" if memory.left_out else ""
    return alarm(list(parts), by_name, words, run_length, parts, memory, max(n for _, n in seen), left, every, memory.windows)


def _words(one: Scale, mean: float) -> str:
    return f"the mean of {one.name} moved {'up' if mean > one.mean else 'down'}: {one.back(mean):.4g}, was {one.back(one.mean):.4g} (clipped)"


def _reading(one: Scale, mean: float, n: int, tolerance: float) -> Reading:
    """In the column's own unit: how far the window's mean is from the reference's, beside the reference's own error and the tolerance."""
    span = one.high - one.low
    return Reading(abs(mean - one.mean) * span, (one.most - one.mean + tolerance) * span, n=n)
