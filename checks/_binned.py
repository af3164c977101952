"""Numbers of which only counts are known, beside a sorted reference: compared over cells that the reference chooses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from agent import Tally
from checks import _distances, _gaps
from checks._distances import Distances
from checks._gaps import Gap
from checks._picture import Shape, edges

CELLS = 64


def cuts(reference: Any) -> tuple[float, ...]:
    """Where to cut: at the reference's quantiles, on both sides of a value that many rows share, at its deciles and where its picture is divided."""
    import numpy as np

    n = len(reference)
    values = np.unique(reference[[max(0, math.ceil(n * k / CELLS) - 1) for k in range(1, CELLS + 1)]])
    shared = values[np.searchsorted(reference, values, side="right") - np.searchsorted(reference, values) > n / CELLS]
    below = [math.nextafter(value, -math.inf) for value in shared.tolist()]
    drawn = (edges(reference, reference) or [])[1:-1]
    return tuple(sorted({*values.tolist(), *below, *drawn, *_deciles(reference)}))


def _deciles(reference: Any) -> list[float]:
    return [value if side == "right" else math.nextafter(value, -math.inf) for value, side in _distances.cuts(reference)]


def compared(live: Tally, reference: Any, places: Sequence[float]) -> tuple[Gap, Distances, Shape | None]:
    """The gap, the distances over deciles and the picture of a column counted between these cuts.

    The distance is the largest at a cut: the exact one is no smaller, and larger by no more than the reference has in one cell, 1/32 at most. So p
    is no smaller than the exact one, the lower end of the interval holds, and the upper end allows for all that may hide between two cuts.
    """
    import numpy as np

    n, m = live.rows - live.nulls, len(reference)
    ours, theirs = np.append(0, np.cumsum(live.counts)), np.append(np.append(0, np.searchsorted(reference, places, side="right")), m)
    one, other = ours / n, theirs / m
    distance, width = float(np.abs(one - other).max()), _gaps.reach(n, m)
    most = float(max((one[1:] - other[:-1]).max(), (other[1:] - one[:-1]).max()))
    p = _gaps.chance(n, m, distance) if max(n, m) > _gaps.EXACT else _gaps.numbers(*map(_ranks, (ours, theirs))).p
    gap = Gap(distance, (max(0.0, distance - width), min(1.0, most + width)), p, n, m, f"Kolmogorov-Smirnov over {len(ours) - 1} cells")
    return (
        gap,
        _distances.over_cells(*(_between(side, places, _deciles(reference)) for side in (ours, theirs))),
        _drawn(ours, theirs, places, reference),
    )


def _ranks(below: Any) -> Any:
    """Each value as the number of its cell."""
    import numpy as np

    return np.repeat(np.arange(len(below) - 1, dtype=np.float64), np.diff(below))


def _between(below: Any, places: Sequence[float], wanted: Sequence[float]) -> list[int]:
    """How many lie between each two of the cuts that are wanted."""
    at = [int(below[places.index(cut) + 1]) for cut in wanted]
    return [last - first for first, last in pairwise([0, *at, int(below[-1])])]


def _drawn(ours: Any, theirs: Any, places: Sequence[float], reference: Any) -> Shape | None:
    """Over the range of the reference: what lies beyond is in the cells at the ends."""
    divided = edges(reference, reference)
    if divided is None:
        return None
    live, then = (tuple(_between(side, places, divided[1:-1])) for side in (ours, theirs))
    return Shape(live, then, tuple(divided))
