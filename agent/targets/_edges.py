"""Where a window ends in what a column really holds: edges an engine can compare with, so that it cuts exactly as `_times` reads."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from agent.targets._times import EPOCH, FAR, NEVER, UNITS, localise, micros

Span = tuple[datetime, datetime]
QUARTER = 900_000_000  # microseconds: no zone changes its offset within one
_REACH = 64  # quarters of an hour on both sides of an edge: further than any zone stands from UTC


def epochs(span: Span, unit: str) -> tuple[float, float]:
    """The floats a column of epochs is compared with: from the first (inclusive) to the second (exclusive) lies the window."""
    first, last = (least(lambda value: scaled(value, unit), micros(at)) for at in span)
    return first, last


def scaled(value: float, unit: str) -> int:
    """One epoch as microseconds, as `_times.read` has it."""
    long = value * UNITS[unit]
    if abs(long) >= float(FAR):
        return FAR if long > 0 else NEVER
    return round(long)


def least(rising: Callable[[float], int], target: int) -> float:
    """The smallest float where a function that never falls is at least the target; inf where none is."""
    low, high = _ordered(-math.inf), _ordered(math.inf)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if rising(_float(middle)) >= target else (middle + 1, high)
    return _float(low)


def least_integer(edge: float) -> int | None:
    """The smallest whole number that is at least the edge once it is read as a float; None beyond 64 bits."""
    if not abs(edge) < 2.0**63:
        return None
    first = math.ceil(edge)
    while float(first - 1) >= edge:  # beyond 2^53 several whole numbers are read as one float
        first -= 1
    return first


def _ordered(value: float) -> int:
    """Floats as whole numbers in the same order."""
    (bits,) = struct.unpack("<q", struct.pack("<d", value))
    return int(bits) if bits >= 0 else -(int(bits) & 0x7FFF_FFFF_FFFF_FFFF)


def _float(ordered: int) -> float:
    value: float = struct.unpack("<d", struct.pack("<q", abs(ordered)))[0]
    return value if ordered >= 0 else -value


def walls(span: Span, tz: str) -> list[tuple[datetime, datetime]]:
    """The stretches of a zone's wall clock that make up [start, end): one, or more where a clock change lies near an edge; naive."""
    if tz == "UTC":
        return [(span[0].replace(tzinfo=None), span[1].replace(tzinfo=None))]
    start, end = map(micros, span)
    stretches: list[tuple[int, int]] = []
    for first, last, offset in _steps(start, end, tz):
        low, high = max(first, start + offset), min(last, end + offset)
        if low < high:
            together = bool(stretches) and stretches[-1][1] == low
            stretches[-1:] = [(stretches[-1][0], high)] if together else [*stretches[-1:], (low, high)]
    return [(_wall(low), _wall(high)) for low, high in stretches]


def _steps(start: int, end: int, tz: str) -> list[tuple[int, int, int]]:
    """Stretches of wall clock with their offset from UTC: a quarter of an hour each near both edges; what lies far between them is inside anyway."""
    import numpy as np

    near = {edge // QUARTER + step for edge in (start, end) for step in range(-_REACH, _REACH)}
    quarters = np.array(sorted(near), dtype=np.int64) * QUARTER
    offsets: Any = quarters - localise(quarters, tz)
    steps: list[tuple[int, int, int]] = []
    for quarter, offset in zip(quarters.tolist(), offsets.tolist(), strict=True):
        if steps and steps[-1][1] < quarter:
            steps.append((steps[-1][1], quarter, offset))
        steps.append((quarter, quarter + QUARTER, offset))
    return steps


def _wall(at: int) -> datetime:
    try:
        return EPOCH.replace(tzinfo=None) + timedelta(microseconds=at)
    except OverflowError:
        return datetime.max if at > 0 else datetime.min  # noqa: DTZ901 - a wall clock has no zone
