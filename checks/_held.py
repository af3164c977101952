"""Columns of numbers held in memory, as a table that a check can look at."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent import Ask, Json, Kind, Tally
from agent.errors import CannotError


@dataclass(slots=True)
class Held:
    """Columns by name, float64 and of one length, with NaN for null."""

    cells: Mapping[str, Any]
    can: frozenset[str] = frozenset({"columns"})

    @property
    def declared(self) -> Mapping[str, Json]:
        return {}

    def kinds(self) -> Mapping[str, Kind]:
        return dict.fromkeys(self.cells, "number")

    def rows(self) -> int:
        return len(next(iter(self.cells.values())))

    def between(self, start: datetime, end: datetime) -> Held:
        raise CannotError("rows that are held in memory have no times")

    def tally(self, asks: Sequence[Ask]) -> Mapping[str, Tally]:
        """Rows and nulls, which is all that numbers that are held are counted by."""
        import numpy as np

        return {ask.column: Tally(self.rows(), int(np.isnan(self.cells[ask.column]).sum())) for ask in asks}

    def column(self, name: str) -> Iterator[Any]:
        yield self.cells[name]

    def chunks(self, names: Sequence[str], spelled: Container[str] = ()) -> Iterator[Mapping[str, Any]]:
        yield {name: self.cells[name] for name in names}

    def head(self, names: Sequence[str], limit: int, newest: bool = True) -> Sequence[Mapping[str, Json]]:
        raise CannotError("rows that are held in memory have no order")

    def digest(self) -> str:
        raise CannotError("rows that are held in memory have no file")

    # Drawn from it

    def split(self, rows: int, seed: int) -> tuple[Held, Held]:
        """So many rows drawn without replacement, and the others."""
        import numpy as np

        order = np.random.default_rng(seed).permutation(self.rows())
        return self._at(order[:rows]), self._at(order[rows:])

    def moved(self, name: str, deviations: float) -> Held:
        """The same with one column moved by so many of its standard deviations."""
        import numpy as np

        values = self.cells[name]
        return Held({**self.cells, name: values + deviations * float(np.nanstd(values))})

    def _at(self, places: Any) -> Held:
        return Held({name: values[places] for name, values in self.cells.items()})
