"""Tallies made where the data lies: one SQL text for every engine, written from its Dialect, so that only counts travel.

What SQL cannot say exactly as the streamed tally does (ISO text cut to the microsecond, lists in text) is told as a reason, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from agent import Ask, Json, Tally
from agent.errors import DataError
from agent.targets import _counts, _edges
from agent.targets._counts import Value
from agent.targets._dialect import Dialect
from agent.targets._sql import Stored, exactly_utc, excluded_values, is_iso_text, reach
from agent.targets._times import FAR, UNITS, zone_of
from agent.targets._unfold import Features

MANY = 100_000  # equally frequent numbers that may travel to be put in order


class BeyondError(DataError):
    """A value or a sum that the engine's doubles cannot hold, where ours would call it infinite."""


@runtime_checkable
class Counts(Protocol):
    """A Source that answers SQL where the data lies."""

    place: str
    dialect: Dialect

    def relation(self) -> str:
        """What stands after FROM."""
        ...

    def ask(self, statements: Sequence[str]) -> Sequence[Sequence[Sequence[Any]]]:
        """The rows that each statement answers, all about one state of the table. BeyondError where a sum is too large."""
        ...


class Push:
    """The asks of one table, or of one window of it, in an engine's SQL."""

    def __init__(self, source: Counts, columns: Mapping[str, Stored], options: Mapping[str, Json], span: _edges.Span | None) -> None:
        self._source, self._columns, self._options, self._span = source, columns, options, span
        self._say = source.dialect
        self._features = Features(options.get("features"))
        self._time: Mapping[str, Json] = options.get("time") or {}

    def rows(self) -> int:
        """How many rows; asked only where nothing is `inexact`."""
        ((answer,),) = self._source.ask([f"SELECT count(*) FROM {self._source.relation()} WHERE {self.where}"])  # noqa: S608 - the Dialect quotes
        return int(answer[0])

    def tally(self, asks: Sequence[Ask]) -> Mapping[str, Tally]:
        """Column name -> Tally of asks that have no `reason` against them; without those of which too many values are equally frequent."""
        asked = [(ask, value) for ask in asks if isinstance(value := self._value(ask.column), Value)]
        statements = _counts.statements(asked, self._say, f"{self._source.relation()} WHERE {self.where}", MANY)
        return _counts.read(asked, self._source.ask(statements), self._say, MANY)

    def reason(self, ask: Ask) -> str:
        """Why SQL cannot count what is asked, or should not; empty where it can."""
        if self.inexact:
            return self.inexact
        if self._say.local and ask.cuts:
            return f"the values of column '{ask.column}' are sooner put between its cuts here"
        value = self._value(ask.column)
        if isinstance(value, str):
            return value
        return f"column '{ask.column}' holds values that have no spelling of their own" if value.form == "present" and (ask.keys or ask.top) else ""

    # Which rows

    @cached_property
    def where(self) -> str:
        """The condition: exact unless `inexact`, and then never too tight."""
        parts = [*([self._within[0]] if self._span else []), *map(self._excluded, self._options.get("exclude") or ())]
        return " AND ".join(f"({part})" for part in parts) or "1 = 1"

    @property
    def inexact(self) -> str:
        """Why the window cannot be cut exactly by SQL; empty where it can."""
        return self._within[1] if self._span else ""

    @cached_property
    def _within(self) -> tuple[str, str]:
        assert self._span
        column, unit = self._time["column"], self._time.get("unit", "iso")
        stored, name = self._columns[column], self._say.name(column)
        if stored.kind in ("number", "integer") and unit in UNITS:
            return self._among_epochs(name, stored, unit), ""
        if stored.kind == "time":
            return self._among_times(name, stored), ""
        if is_iso_text(stored.kind, self._time):
            return self._around_text(f"{name}{self._say.binary}"), f"time column '{column}' holds text"
        return "1 = 1", f"time column '{column}' holds {stored.kind}, and its unit is {unit}"

    def _around_text(self, name: str) -> str:
        """As far around as zones reach, by the order of text; and to the second where the text says that it is UTC."""
        assert self._span
        wide, tight = (map(self._say.string, edges) for edges in (reach(*self._span), exactly_utc(name, *self._span)[1]))
        (early, late), (first, last) = wide, tight
        utc = " OR ".join(f"{name} LIKE '____-__-__T__:__:%{zone}'" for zone in ("Z", "+00:00"))
        return f"{name} >= {early} AND {name} <= {late} AND ({name} >= {first} AND {name} <= {last} OR NOT ({utc}))"

    def _among_epochs(self, name: str, stored: Stored, unit: str) -> str:
        assert self._span
        first, last = _edges.epochs(self._span, unit)
        low, high = _edges.least_integer(first), _edges.least_integer(last)
        if stored.kind == "integer" and low is not None and high is not None:  # as it is stored, so that an index serves
            return f"{name} >= {low} AND {name} < {high}"
        value = self._say.as_double(name)
        return f"{value} >= {self._say.number(first)} AND {value} < {self._say.number(last)}"

    def _among_times(self, name: str, stored: Stored) -> str:
        assert self._span
        stretches = [(self._span[0].astimezone(UTC), self._span[1].astimezone(UTC))]
        if stored.naive:
            stretches = _edges.walls(self._span, zone_of(self._time, self._source.place))
        pieces = (f"{name} >= {self._say.at(at, stored)} AND {name} < {self._say.at(until, stored)}" for at, until in stretches)
        return " OR ".join(f"({piece})" for piece in pieces) or "1 = 0"

    def _excluded(self, rule: Mapping[str, Json]) -> str:
        name, kind = self._say.name(rule["column"]), self._columns[rule["column"]].kind
        if "prefix" in rule:
            text = str(rule["prefix"])
            hit = self._say.is_in(f"substring({self._say.as_text(name)}, 1, {len(text)})", [text])
        elif kind in ("number", "integer"):
            hit = self._say.is_in(self._say.as_double(name), [float(value) for value in excluded_values(rule, kind, self._source.place)])
        else:
            hit = self._say.is_in(name if kind == "boolean" else self._say.as_text(name), excluded_values(rule, kind, self._source.place))
        return f"NOT COALESCE({hit}, 1 = 0)"

    # Which values

    def _value(self, column: str) -> Value | str:
        """The column in SQL as the streamed tally sees it, or why SQL cannot."""
        if column in self._features.kinds():
            return self._entry(column)
        stored, name = self._columns[column], self._say.name(column)
        if column == self._time.get("column"):
            return self._event_time(column, name, stored)
        if stored.kind == "time":
            return self._seconds(name)
        if stored.kind in ("number", "integer"):
            return self._number(name, stored.kind)
        if stored.kind == "text":
            return Value(self._say.as_text(name), "text")
        return Value(name, "boolean") if stored.kind == "boolean" else Value(f"CASE WHEN {name} IS NOT NULL THEN TRUE END", "present")

    def _number(self, sql: str, kind: str) -> Value:
        """A double, null where it is NaN."""
        value = self._say.as_double(sql)
        return Value(value if kind == "integer" else self._say.known.format(value), "number")

    def _seconds(self, name: str) -> Value:
        return Value(f"{self._say.as_double(self._say.micros.format(name))} / {self._say.number(1e6)}", "number")

    def _entry(self, column: str) -> Value | str:
        """A feature out of a list column, or the lists' length."""
        json = self._features.json
        stored, name = self._columns[json], self._say.name(json)
        if stored.kind != "list":
            return f"column '{json}' holds lists as {stored.kind}"
        if column == self._features.length:
            return self._number(self._say.length.format(name), "integer")
        if stored.of not in ("number", "integer"):
            return f"column '{json}' holds lists of {stored.of}"
        return self._number(self._say.element.format(name, self._features.places[column]), stored.of)

    def _event_time(self, column: str, name: str, stored: Stored) -> Value | str:
        """In seconds, as `_times.read` has them."""
        unit = self._time.get("unit", "iso")
        if stored.kind == "time":
            local = stored.naive and (zone := zone_of(self._time, self._source.place)) != "UTC"
            return f"time column '{column}' holds times of {zone} without an offset" if local else self._seconds(name)
        if stored.kind not in ("number", "integer") or unit not in UNITS:
            return f"time column '{column}' holds {stored.kind}, and its unit is {unit}"
        value = self._number(name, stored.kind).sql
        inside, beyond = (self._say.number(_edges.least(lambda epoch: _edges.scaled(epoch, unit), edge)) for edge in (-FAR, FAR))
        seconds = f"{self._say.rint.format(f'{value} * {self._say.number(UNITS[unit])}')} / {self._say.number(1e6)}"
        return Value(f"CASE WHEN {value} >= {beyond} THEN {self._say.number(FAR / 1e6)} WHEN {value} >= {inside} THEN {seconds} END", "number")
