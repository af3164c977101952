"""Whole rows as values a person or a request can be given: the newest of a chunk, as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from agent import Json

Found = tuple[int, Mapping[str, Any]]  # event time in microseconds, and the row


def newest(chunk: Mapping[str, Any], times: Any, names: Sequence[str], limit: int) -> list[Found]:
    """The rows of a chunk with the latest times, newest first."""
    import numpy as np

    order = np.argsort(-(times // 2), kind="stable")[:limit]  # halved: the smallest int64 has no negative
    return [(int(times[place]), {name: chunk[name][place] for name in names}) for place in order]


def first(chunk: Mapping[str, Any], names: Sequence[str], limit: int) -> list[Found]:
    """The first rows of a chunk, as they come."""
    count = min(limit, len(chunk[names[0]]))
    return [(0, {name: chunk[name][place] for name in names}) for place in range(count)]


def as_json(value: Any) -> Json:
    """A stored value as JSON has it: what is not finite is None, a time its ISO text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value
