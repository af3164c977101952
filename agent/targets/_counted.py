"""Tables whose engine only counts: the Table protocol of `agent.model` and no more, so that no row ever leaves it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from agent import Ask, Json, Kind, Tally
from agent.errors import CannotError, DataError
from agent.targets._push import Push
from agent.targets._sql import Where
from agent.targets._tables import Rows


class Counted(Rows):
    """The rows of one table that stay where they are. What SQL cannot count exactly is a DataError that says what to store otherwise."""

    can = frozenset()

    def rows(self) -> int:
        """How many rows; in a window, how many whose event time is in it."""
        push = self._pushing()
        if push.inexact:
            self._refused(push.inexact)
        return push.rows()

    def column(self, name: str) -> Iterator[Any]:
        """CannotError: only counts leave this engine."""
        raise self._cannot(f"column '{name}'")

    def head(self, names: Sequence[str], limit: int, newest: bool = True) -> Sequence[Mapping[str, Json]]:
        """CannotError: only counts leave this engine."""
        raise self._cannot("rows")

    def _streamed(self, asks: Sequence[Ask]) -> Mapping[str, Tally]:
        for ask in asks:
            self._refused(self._pushing().reason(ask) or f"too many values of column '{ask.column}' are equally frequent to be put in order")
        return {}

    def _pushing(self) -> Push:
        push = self._push()
        assert push, "the source of a Counted table answers SQL"
        return push

    def _refused(self, reason: str) -> NoReturn:
        raise DataError(
            f"{self._source.place}: {reason}, which SQL cannot count exactly; store it as times, numbers or arrays, or name a view that does"
        )

    def _cannot(self, what: str) -> CannotError:
        return CannotError(f"{self._source.place} gives counts only, no {what}; export what is needed to Parquet")


class CountedSource:
    """What sources of such tables have in common."""

    place: str
    seeks = False

    def scan(self, columns: Mapping[str, Kind], where: Where, exact: bool = False) -> Iterator[Mapping[str, Any]]:
        """CannotError: only counts leave this engine."""
        raise CannotError(f"{self.place} gives counts only")
