"""Sketches of Apache DataSketches as they lie in a file: what a KLL sketch kept of many values, and what was counted by name.

The layouts are those that the library's own sources draw (kll_sketch.hpp, frequent_items_sketch.hpp; little-endian). A sketch whose parts do not add
up to what it says it counted is a DataError, and nothing is allocated that the bytes at hand do not hold.
"""

from __future__ import annotations

import struct
from collections import Counter
from itertools import pairwise
from typing import Any

from agent import Json
from agent.errors import DataError

KLL, FREQUENT = 15, 10  # the family of a sketch, in its third byte
EMPTY, SINGLE = 1, 4  # flags of a KLL sketch
EMPTY_COUNTS = 5  # either of two bits says so
LEAST_K = 8


def kll(sketch: bytes) -> Json:
    """The values that are left: {n, items, levels, error}; items of level 0 come first, and one of level l stands for 2^l values.

    `items` is an array, `levels` how many lie in each. `error` is by how much the cumulative share below any value may be off: the library's own 99 %
    bound for all values at once, and 0 while every value is kept (Karnin, Lang and Liberty, Optimal quantile approximation in streams, 2016; the
    constants were fitted by the library's authors).
    """
    words, _, family, flags, k, _, _ = _take("<BBBBHBB", sketch, 0)
    if family != KLL or k < LEAST_K:
        raise DataError(f"a distribution is no KLL sketch (family {family}, k {k})")
    if flags & EMPTY:
        return {"n": 0, "items": _doubles(b""), "levels": [0], "error": 0.0}
    if flags & SINGLE:
        return {"n": 1, "items": _doubles(sketch[8:16]), "levels": [1], "error": 0.0}
    n, least_k, levels, _ = _take("<QHBB", sketch, 8)
    starts, items = _take(f"<{levels}I", sketch, 4 * words), _doubles(sketch[4 * (words + levels) + 16 :])  # behind lowest and highest
    sizes = [end - start for start, end in pairwise((*starts, sum(starts[:1]) + len(items)))]
    if min(sizes, default=-1) < 0 or sum(size << level for level, size in enumerate(sizes)) != n or not LEAST_K <= least_k <= k:
        raise DataError(f"the levels of a KLL sketch do not add up to the {n:,} values it says it counted")
    return {"n": n, "items": items, "levels": sizes, "error": 2.296 / least_k**0.9723 if levels > 1 else 0.0}


def frequent(sketch: bytes) -> dict[str, int] | None:
    """How often each value came; None where there were more different ones than the sketch could keep, and counts are only bounds."""
    _, _, family, _, _, flags, _ = _take("<BBBBBBH", sketch, 0)
    if family != FREQUENT:
        raise DataError(f"counts by value are no sketch of frequent items (family {family})")
    if flags & EMPTY_COUNTS:
        return {}
    kept, _, total, missed = _take("<IIQQ", sketch, 8)
    counts, at, found = _take(f"<{kept}Q", sketch, 32), 32 + 8 * kept, Counter[str]()
    for count in counts:
        (size,) = _take("<I", sketch, at)
        (value,) = _take(f"{size}s", sketch, at + 4)
        found[value.decode(errors="backslashreplace")] += count
        at += 4 + size
    if at != len(sketch) or (not missed and sum(counts) != total):
        raise DataError(f"the counts of a sketch do not add up to the {total:,} values it says it counted")
    return None if missed else dict(found)


def _doubles(body: bytes) -> Any:
    import numpy as np

    if len(body) % 8 or np.isnan(values := np.frombuffer(body, "<f8")).any():
        raise DataError("a KLL sketch of something other than numbers")
    return values


def _take(layout: str, data: bytes, at: int) -> tuple[Any, ...]:
    """What lies there; DataError where the data ends before it."""
    if at + struct.calcsize(layout) > len(data):
        raise DataError(f"a sketch of {len(data):,} bytes is cut short")
    return struct.unpack_from(layout, data, at)
