"""Rows with a fault put into them on their way: the table is only read, and nothing is copied to where anybody could take it for data."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent import Ask, Columns, Json, Kind, Tally
from agent.errors import CannotError

Fault = Callable[[Any], Any]  # a column's cells as the fault leaves them


@dataclass(slots=True)
class Altered:
    """A Columns whose `column` comes as a fault leaves it: gone, of another kind, or with other cells. `twice` gives every row once more."""

    source: Columns
    spoiled: str | None = None
    fault: Fault | None = None
    kind: Kind | None = None
    gone: bool = False
    twice: bool = False
    can: frozenset[str] = frozenset({"columns"})

    @property
    def declared(self) -> Mapping[str, Json]:
        return self.source.declared

    def kinds(self) -> Mapping[str, Kind]:
        known = dict(self.source.kinds())
        if self.gone and self.spoiled:
            known.pop(self.spoiled, None)
        if self.kind and self.spoiled:
            known[self.spoiled] = self.kind
        return known

    def rows(self) -> int:
        return self.source.rows() * (2 if self.twice else 1)

    def between(self, start: datetime, end: datetime) -> Altered:
        return Altered(self.source.between(start, end), self.spoiled, self.fault, self.kind, self.gone, self.twice)

    def tally(self, asks: Sequence[Ask]) -> Mapping[str, Tally]:
        """Only of what the fault leaves alone, such as the time: what is altered is judged row by row."""
        if any(ask.column == self.spoiled for ask in asks):
            raise CannotError(f"'{self.spoiled}' is altered on its way, and is not counted where it lies")
        return self.source.tally(asks)

    def column(self, name: str) -> Iterator[Any]:
        yield from (chunk[name] for chunk in self.chunks([name]))

    def chunks(self, names: Sequence[str], spelled: Container[str] = ()) -> Iterator[Mapping[str, Any]]:
        for chunk in self.source.chunks(names, spelled):
            made = {name: self._altered(name, cells) for name, cells in chunk.items()}
            yield made
            if self.twice:
                yield made

    def head(self, names: Sequence[str], limit: int, newest: bool = True) -> Sequence[Mapping[str, Json]]:
        raise CannotError("rows that are altered on their way are not shown")

    def digest(self) -> str:
        raise CannotError("rows that are altered on their way have no digest")

    def _altered(self, name: str, cells: Any) -> Any:
        return self.fault(cells) if name == self.spoiled and self.fault else cells


# Faults: half of the rows are spoiled, every second one


def nulls(cells: Any) -> Any:
    """A null spike."""
    return _spoilt(cells, float("nan") if cells.dtype == "float64" else None)


def as_text(kind: Kind) -> tuple[Fault, Kind]:
    """Every cell as text, or as a number where text was: what a changed export does; and the kind that the column then has."""
    import numpy as np

    if kind == "text":
        return (lambda cells: np.zeros(len(cells))), "number"
    return (lambda cells: np.array([None if cell is None or cell != cell else str(cell) for cell in cells.tolist()], dtype=object)), "text"


def beyond(low: float | None, high: float | None) -> Fault:
    """Numbers outside of a range: as far above it as it is wide, or below."""
    reach = abs((high if high is not None else 0.0) - (low if low is not None else 0.0)) + 1.0
    wrong = high + reach if high is not None else (low or 0.0) - reach
    return lambda cells: _spoilt(cells, wrong)


def unseen(cells: Any) -> Any:
    """A category that nobody has declared."""
    import numpy as np

    if cells.dtype == "float64":
        known = cells[np.isfinite(cells)]
        return _spoilt(cells, float(np.abs(known).max(initial=0.0)) * 2 + 1e6 + 0.5)
    return _spoilt(cells, "never seen before")


def _spoilt(cells: Any, wrong: Any) -> Any:
    made = cells.copy()
    made[::2] = wrong
    return made
