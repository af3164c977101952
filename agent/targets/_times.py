"""Event times in whatever form a log keeps them, read as microseconds since 1970 UTC."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from agent.errors import DataError

NEVER = -(2**63)  # no time, or one that cannot be read: such a row is in no window
FAR = 2**63 - 2  # beyond what fits: still a time, and still in the future
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNITS = {"s": 1_000_000.0, "ms": 1_000.0, "us": 1.0, "ns": 0.001}


def micros(at: datetime) -> int:
    """An aware datetime as exact microseconds."""
    if at.tzinfo is None:
        raise DataError(f"{at} has no time zone; windows are aware UTC")
    return (at - EPOCH) // timedelta(microseconds=1)


def read(values: Any, naive: bool, time: Mapping[str, Any], place: str) -> Any:
    """A chunk of the declared time column as int64 microseconds; null and unreadable times are NEVER."""
    if values.dtype == "int64":  # a native time, read as microseconds of its own clock
        return localise(values, zone_of(time, place)) if naive else values
    if values.dtype == "float64":
        return _from_epoch(values, time, place)
    return _from_text(values, time, place)


def zone_of(time: Mapping[str, Any], place: str) -> str:
    """The zone that times without one are in; DataError where it is not said."""
    if not time.get("tz"):
        raise DataError(f"{place}: time column '{time['column']}' holds times without a zone; say which zone it is in with time.tz")
    return str(time["tz"])


def _from_epoch(values: Any, time: Mapping[str, Any], place: str) -> Any:
    import numpy as np

    unit = time.get("unit", "iso")
    if unit not in UNITS:
        if np.isnan(values).all():
            return np.full(len(values), NEVER, dtype=np.int64)
        raise DataError(f"{place}: time column '{time['column']}' holds numbers, but its unit is {unit}; set time.unit to s, ms, us or ns")
    out = np.full(len(values), NEVER, dtype=np.int64)
    scaled = values * UNITS[unit]
    known = ~np.isnan(scaled)
    inside = known & (np.abs(scaled) < float(FAR))
    out[inside] = np.rint(scaled[inside]).astype(np.int64)
    out[known & ~inside] = np.where(scaled[known & ~inside] > 0, FAR, NEVER)
    return out


def _from_text(values: Any, time: Mapping[str, Any], place: str) -> Any:
    import numpy as np

    if time.get("unit", "iso") != "iso":
        values = _numbers(values)
        return _from_epoch(values, time, place)
    zone, column = _zone(time.get("tz")), time["column"]
    out = np.fromiter((_instant(text, zone, place, column) for text in values), np.int64, len(values))
    filled = [text for text in values if text is not None]
    if filled and (out == NEVER).all():
        raise DataError(f"{place}: time column '{column}' holds {str(filled[0])[:40]!r}, which is not ISO-8601 (2026-03-29T14:05:00Z); set time.unit")
    return out


def _numbers(values: Any) -> Any:
    import numpy as np

    def number(text: Any) -> float:
        try:
            return float(text)
        except (TypeError, ValueError):
            return float("nan")

    return np.fromiter((number(text) for text in values), np.float64, len(values))


def _instant(text: Any, zone: Any, place: str, column: str) -> int:
    if not isinstance(text, str) or text[4:5] != "-" or text[7:8] != "-":
        return NEVER
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return NEVER
    if at.tzinfo is None:
        if zone is None:
            raise DataError(f"{place}: time column '{column}' holds {text!r}, which has no offset; say which zone it is in with time.tz")
        at = at.replace(tzinfo=zone)
    offset = at.utcoffset() or timedelta(0)
    return (at.replace(tzinfo=UTC) - EPOCH - offset) // timedelta(microseconds=1)  # subtracting last: 9999-12-31 must not overflow


def _zone(name: str | None) -> Any:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError) as problem:
        raise DataError(f"time.tz: no time zone '{name}'; use a name such as UTC or Europe/Berlin") from problem


def localise(values: Any, tz: str | None) -> Any:
    """Microseconds of a wall clock in `tz` as microseconds UTC; one look-up an hour, not a row."""
    import numpy as np

    zone = _zone(tz)
    if zone is None or tz == "UTC":
        return values
    hours, back = np.unique(np.where(values == NEVER, 0, values) // 900_000_000, return_inverse=True)
    offsets = np.array([_offset(int(hour), zone) for hour in hours], dtype=np.int64)
    return np.where(values == NEVER, NEVER, values - offsets[back])


def _offset(quarter: int, zone: Any) -> int:
    try:
        wall = (EPOCH + timedelta(minutes=15 * quarter)).replace(tzinfo=zone)
    except OverflowError:
        return 0
    return (wall.utcoffset() or timedelta(0)) // timedelta(microseconds=1)


def plain(values: Any) -> Any:
    """Times read `exact` come as objects; numbers among them are numbers again."""
    import numpy as np

    if values.dtype != object or any(isinstance(value, str) for value in values):
        return values
    if any(isinstance(value, datetime) for value in values):
        return np.array([NEVER if value is None else _wall(value) for value in values], dtype=np.int64)
    try:
        return values.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        return values


def _wall(value: datetime) -> int:
    return micros(value if value.tzinfo else value.replace(tzinfo=UTC))


def seconds(times: Any) -> Any:
    """Microseconds as POSIX seconds, NaN for NEVER."""
    import numpy as np

    return np.where(times == NEVER, np.nan, times / 1e6)
