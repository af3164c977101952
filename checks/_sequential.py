"""Evidence added up over windows: restarted sums of e-values, whose mean time to a false alarm is at least what the operator set.

The method is an e-detector (Shin, Ramdas and Rinaldo, NEJSDS 2024, arXiv 2203.03532) in its Shiryaev-Roberts form. A component is one bet on
one stream of yes-or-no observations (is the value at most a cut, is it this category, is it null). Its bet on a window of n rows with c hits is
the likelihood ratio L of two binomials: the edge of what is allowed, p0, against a share beyond it, p1. L is convex and monotone in the true
share, so its expectation given the past is at most 1 for every share up to the edge. So M <- (M + 1) L keeps "M minus the number of windows" a
supermartingale, and so do averages over components and columns, however they depend on each other. Stopping when the average reaches A
therefore takes A windows or more on average, and happens within t windows with probability at most t/A, while every window stays in the null.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

STEPS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)  # how far beyond the edge a bet lies, in log odds
REFERENCE_RISK = 0.01  # the chance that any edge of the reference is drawn too narrow


@dataclass(frozen=True, slots=True)
class Bets:
    """All components of all columns, flat; arrays of one entry a component.

    `stream` is the stream it bets on, `column` the column (rising), `hit` and `miss` the logarithms of p1/p0 and (1-p1)/(1-p0),
    both already divided by the design effect.
    """

    stream: Any
    column: Any
    hit: Any
    miss: Any
    columns: int

    def __len__(self) -> int:
        return len(self.stream)


def edges(hits: Any, rows: Any, design: Any, risk: float = REFERENCE_RISK) -> tuple[Any, Any]:
    """Lower and upper confidence bounds of the reference's shares (Clopper-Pearson), all of them true at once with chance 1 - risk.

    `hits` of `rows` reference rows a stream; `design` says how many rows count as one. Dividing both by it makes the bound as wide as the
    variance of dependent rows asks for.
    """
    import numpy as np
    from scipy.special import betaincinv

    tail = risk / max(len(hits), 1) / 2
    r, m = hits / design, rows / design
    with np.errstate(invalid="ignore"):
        low = np.where(r <= 0, 0.0, betaincinv(np.maximum(r, 1e-12), m - r + 1, tail))
        high = np.where(r >= m, 1.0, betaincinv(r + 1, np.maximum(m - r, 1e-12), 1 - tail))
    return low, high


def bets(low: Any, high: Any, tolerance: Any, design: Any, column: Any) -> Bets:
    """Six steps up from `high + tolerance` and six down from `low - tolerance`, for every stream on which that leaves room for a bet."""
    import numpy as np

    edge = np.stack([high + tolerance, low - tolerance], axis=1)  # (streams, up and down)
    room = (edge > 0) & (edge < 1)
    p0 = np.where(room, edge, 0.5)[:, :, None]
    odds = np.log(p0 / (1 - p0)) + np.array([[1.0], [-1.0]]) * np.array(STEPS)
    p1 = 1 / (1 + np.exp(-odds))
    shape = (len(low), 2, len(STEPS))
    keep = np.broadcast_to(room[:, :, None], shape)
    by = np.asarray(design, dtype=float)[:, None, None]

    def flat(values: Any) -> Any:
        return np.broadcast_to(values, shape)[keep]

    stream = flat(np.arange(len(low))[:, None, None])
    return Bets(
        stream, np.asarray(column)[stream], flat(np.log(p1 / p0) / by), flat(np.log((1 - p1) / (1 - p0)) / by), len(set(np.asarray(column).tolist()))
    )


def increments(made: Bets, hits: Any, rows: Any) -> Any:
    """log L of each component for one window with `hits` of `rows` a stream (last axis); NaN where a stream had no row, which is no update."""
    import numpy as np

    c, n = hits[..., made.stream], rows[..., made.stream]
    return np.where(n > 0, c * made.hit + (n - c) * made.miss, np.nan)


def restarted(sums: Any, log_e: Any, ceiling: Any = math.inf) -> Any:
    """log M after one more window: M <- (M + 1) L. Where log_e is NaN, M stays as it is.

    A `ceiling` keeps a long drift from building up evidence that would take as long to go again; a smaller M only makes alarms rarer.
    """
    import numpy as np

    return np.where(np.isnan(log_e), sums, np.minimum(np.logaddexp(sums, 0.0) + np.nan_to_num(log_e), ceiling))


def pooled(sums: Any, column: Any, columns: int) -> Any:
    """log M of each column (last axis): the mean of its components, which lie next to each other. A column without any has no evidence."""
    import numpy as np

    out = np.full((*sums.shape[:-1], columns), -np.inf)
    present, first, count = np.unique(column, return_index=True, return_counts=True)
    if len(present):
        top = np.maximum.reduceat(sums, first, axis=-1)
        base = np.where(np.isfinite(top), top, 0.0)
        total = np.add.reduceat(np.exp(sums - np.repeat(base, count, axis=-1)), first, axis=-1)
        with np.errstate(divide="ignore"):
            out[..., present] = base + np.log(total / count)
    return out


def mean_log(values: Any) -> Any:
    """log of the mean of exp(values) along the last axis; -inf for none."""
    import numpy as np

    values = np.asarray(values, dtype=float)
    return np.logaddexp.reduce(values, axis=-1) - math.log(max(values.shape[-1], 1))


def named(log_sums: Sequence[float], run_length: float) -> tuple[int, ...]:
    """The columns that an alarm names, most evidence first: e-d-BH (Dandapanthula and Ramdas, arXiv 2501.04130).

    The largest k whose k-th largest M is at least F A / k. It bounds the error over patience under any dependence between columns; it is no
    false discovery rate.
    """
    order = sorted(range(len(log_sums)), key=lambda place: -log_sums[place])
    wanted = math.log(len(log_sums) * run_length) if log_sums else 0.0
    last = max((k for k, place in enumerate(order, 1) if log_sums[place] >= wanted - math.log(k)), default=0)
    return tuple(order[:last])


def smallest_shift(low: float, high: float, tolerance: float, design: float, rows: int, windows: int, needed: float) -> float:
    """How far a share must move to be found in that many windows of `rows` rows: the expected growth of the best bet reaches `needed`.

    `needed` is log of (A x columns x components of a column): one component then carries the whole average to A. Infinite when no move is enough.
    """
    import numpy as np

    p0 = high + tolerance
    if not 0 < p0 < 1:
        return math.inf
    odds = math.log(p0 / (1 - p0)) + np.array(STEPS)
    p1 = 1 / (1 + np.exp(-odds))
    hit, miss = np.log(p1 / p0) / design, np.log((1 - p1) / (1 - p0)) / design

    def grows(share: float) -> float:
        return float((rows * windows * (share * hit + (1 - share) * miss)).max())

    if grows(1.0) < needed:
        return math.inf
    near, far = p0, 1.0
    for _ in range(40):
        middle = (near + far) / 2
        near, far = (near, middle) if grows(middle) >= needed else (middle, far)
    return far - (low + high) / 2


# Sums as text, since memory is JSON


def packed(sums: Any) -> str:
    """float64 as base64: exact, and a third of what digits would take."""
    import numpy as np

    return base64.b64encode(np.ascontiguousarray(sums, dtype="<f8").tobytes()).decode()


def unpacked(text: str) -> Any:
    """The array again."""
    import numpy as np

    return np.frombuffer(base64.b64decode(text), dtype="<f8").copy()
