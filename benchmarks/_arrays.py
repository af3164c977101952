"""Numpy arrays as a table, counted by the same code as every engine's: benchmarks of statistics need no files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from agent import Ask, Kind, Tally
from agent.targets import _tally

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Arrays:
    """Columns of one length; `at` holds POSIX seconds where the table has a time."""

    can = frozenset({"columns"})

    def __init__(self, columns: Mapping[str, Any], at: Any = None) -> None:
        self.columns, self.at = dict(columns), at
        self.declared = {"time": {"column": "at"}} if at is not None else {}

    def kinds(self) -> dict[str, Kind]:
        return {name: "number" if values.dtype.kind == "f" else "text" for name, values in self.columns.items()}

    def rows(self) -> int:
        return len(next(iter(self.columns.values())))

    def between(self, start: datetime, end: datetime) -> Arrays:
        inside = (self.at >= start.timestamp()) & (self.at < end.timestamp())
        return Arrays({name: values[inside] for name, values in self.columns.items()}, self.at[inside])

    def column(self, name: str) -> Iterator[Any]:
        return iter([self.at if name == "at" else self.columns[name]])

    def tally(self, asks: Sequence[Ask]) -> dict[str, Tally]:
        values = {ask.column: self.at if ask.column == "at" else self.columns[ask.column] for ask in asks}
        return {ask.column: _tally.finished(ask, _tally.count(ask, values[ask.column])) for ask in asks}


def window(number: int, rows: int) -> Any:
    """The times of the rows of the window of that number."""
    return START.timestamp() + 3600.0 * number + np.arange(rows) * (3600.0 / rows)
