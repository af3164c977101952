"""Tables: one class over every engine that presents a prediction log as its configuration declares it.

The engine only selects columns under a condition; times, JSON features, tallies and newest rows are read here, once, so that the same
rows written as Parquet, CSV, SQLite or DuckDB give the same answers.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn, Protocol

from agent import BEGINNING, Ask, Json, Kind, Tally
from agent.errors import CannotError, DataError
from agent.targets import _newest, _tally, _times, _unfold
from agent.targets._newest import Found
from agent.targets._push import BeyondError, Counts, Push
from agent.targets._sql import Stored as Stored
from agent.targets._sql import Where, exactly_utc, excluded, is_iso_text, nearest, quoted, roughly, strays
from agent.targets._times import NEVER

AT = ""  # beside the columns of a chunk: each row's event time in microseconds


class Source(Protocol):
    """What an engine must do. Chunks hold float64 (number, integer), int64 microseconds (time) or objects (all else)."""

    place: str
    seeks: bool  # whether an index may serve a condition, so that a tight one is worth a question of its own

    def stored(self, where: Where | None) -> Mapping[str, Stored]:
        """The columns of the rows under a condition, or of all."""
        ...

    def scan(self, columns: Mapping[str, Kind], where: Where, exact: bool = False) -> Iterator[Mapping[str, Any]]:
        """Those columns, read as those kinds, chunk by chunk, always in one order; `exact` gives every value as stored, as objects."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


class Rows:
    """The rows of one table, or of one window of it: the Columns protocol of `agent.model`."""

    can = frozenset({"columns"})

    def __init__(self, source: Source, options: Mapping[str, Json], span: tuple[datetime, datetime] | None = None) -> None:
        self._source = source
        self._options = options
        self._span = span
        self._features = _unfold.Features(options.get("features"))
        self._all: Mapping[str, Stored] | None = None  # the columns of the table
        self._columns: Mapping[str, Stored] | None = None  # and of these rows of it
        self._rough: Where | None = None
        self._kept: _unfold.Kept | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._source.place}>"

    @property
    def declared(self) -> Mapping[str, Json]:
        """The prediction log contract as configured."""
        return self._options

    def close(self) -> None:
        """Let go of files and connections."""
        self._source.close()

    def between(self, start: datetime, end: datetime) -> Rows:
        """The rows whose event time is in [start, end); of a window, those in both. DataError where no time is declared."""
        if "time" not in self._options:
            raise DataError(f"{self._source.place} declares no time, so it has no windows; add time: {{column: ..., unit: ...}}")
        _times.micros(start), _times.micros(end)  # refuses naive times
        if self._span:
            start, end = max(start, self._span[0]), min(end, self._span[1])
        window = object.__new__(type(self))
        Rows.__init__(window, self._source, self._options, (start.astimezone(UTC), end.astimezone(UTC)))
        return window

    def kinds(self) -> Mapping[str, Kind]:
        """Column name -> kind. The declared time is a `time` whatever holds it; JSON features follow as numbers, and `<json>.length`."""
        kinds: dict[str, Kind] = {name: column.kind for name, column in self._stored().items()}
        if "time" in self._options:
            kinds[self._time["column"]] = "time"
        return kinds | self._features.kinds()

    def rows(self) -> int:
        """How many rows; in a window, how many whose event time is in it."""
        if (push := self._push()) and not push.inexact:
            return push.rows()
        if self._span:
            return sum(len(chunk[self._time["column"]]) for chunk in self._chunks([self._time["column"]]))
        any_column = next(iter(self._stored()))
        return sum(len(chunk[any_column]) for chunk in self._chunks([any_column]))

    def tally(self, asks: Sequence[Ask]) -> Mapping[str, Tally]:
        """One pass over the rows: column name -> Tally; times in POSIX seconds."""
        names = [ask.column for ask in asks]
        if len(set(names)) < len(names):
            raise ValueError("a tally asks each column once; its answer is by column")
        self._known(names)
        pushed = self._pushed(asks)
        streamed = self._streamed([ask for ask in asks if ask.column not in pushed])
        return {name: pushed[name] if name in pushed else streamed[name] for name in names}

    def _streamed(self, asks: Sequence[Ask]) -> Mapping[str, Tally]:
        """Counted here, from the columns."""
        found = {ask.column: _tally.count(ask, self._empty(ask.column)) for ask in asks}
        if len(asks) == 1 and (tally := self._grouped(asks[0])):
            return {asks[0].column: tally}
        for chunk in self._presented(list(found)) if asks else ():
            for ask in asks:
                found[ask.column] = _tally.merge(found[ask.column], _tally.count(ask, chunk[ask.column]))
        return {ask.column: _tally.finished(ask, found[ask.column]) for ask in asks}

    def _grouped(self, ask: Ask) -> Tally | None:
        """The most frequent values as the engine itself counts them: where the rows are exactly those of a condition, and their text is the key."""
        counted = getattr(self._source, "counted", None)
        if not ask.top or self._span or counted is None or self.kinds()[ask.column] not in ("text", "boolean"):
            return None
        return _tally.grouped(ask, counted(ask.column, self._stored()[ask.column].kind, self._where(), ask.top))

    def chunks(self, names: Sequence[str], spelled: Container[str] = ()) -> Iterator[Mapping[str, Any]]:
        """Several columns side by side, chunk by chunk, each as `column` gives it: the same place in each is the same row.

        Stored columns in `spelled` come as text instead, so that whole numbers beyond 2^53 stay apart.
        """
        return self._presented(names, spelled)

    def _pushed(self, asks: Sequence[Ask]) -> Mapping[str, Tally]:
        """Counted by the engine, where it counts and SQL can say it exactly; what is not here is streamed."""
        push = self._push()
        there = [ask for ask in asks if not push.reason(ask)] if push else []
        try:
            return push.tally(there) if push and there else {}
        except BeyondError:
            return {}

    def digest(self) -> str:
        """CannotError: an engine says nothing of its files."""
        raise CannotError(f"{self._source.place} is no file whose sha256 could be told; bind the file itself, or pin the data with DVC")

    def column(self, name: str) -> Iterator[Any]:
        """One column, chunk by chunk: float64 with NaN for null (number, integer, time in POSIX seconds), else objects with None."""
        if name in self._features.places:
            return self._unfolded().column(self._features.places[name])
        return (chunk[name] for chunk in self._presented([name]))

    def head(self, names: Sequence[str], limit: int, newest: bool = True) -> Sequence[Mapping[str, Json]]:
        """At most `limit` rows as dicts of values as stored; the newest by event time first, or as the table has them. Not finite is None."""
        self._known(names)
        if newest and "time" not in self._options:
            raise DataError(f"{self._source.place} declares no time, so no row is the newest; ask with newest=False")
        best: list[Found] = []
        behind = self._behind(names)
        for chunk in self._chunks(behind, exact=True):
            best += _newest.newest(chunk, chunk[AT], behind, limit) if newest else _newest.first(chunk, behind, limit - len(best))
            if newest:
                best = sorted(best, key=lambda found: -found[0])[:limit]
            elif len(best) >= limit:
                break
        return [self._shown(row, names) for _, row in best]

    # One chunk at a time: the condition, the exact cut, the virtual columns

    @property
    def _time(self) -> Mapping[str, Json]:
        time: Mapping[str, Json] = self._options["time"]
        return time

    def _stored(self) -> Mapping[str, Stored]:
        if self._columns is None:
            self._all = self._source.stored(None)
            for what, name in self._leaned_on():
                if name not in self._all:
                    self._missing(name, self._all, what)
            typed = isinstance(self._source, Counts)  # such an engine types columns, not the values of a window
            self._columns = self._source.stored(self._where()) if self._narrow and not typed else self._all
        return self._columns

    @property
    def _narrow(self) -> bool:
        """Whether this is a window; all rows up to some time are the table as it stood then, and have its columns."""
        return self._span is not None and self._span[0] > BEGINNING

    def _leaned_on(self) -> Iterator[tuple[str, str]]:
        """Declared columns without which every answer would be wrong; a missing feature is for data.contract to tell."""
        if "time" in self._options:
            yield "time", self._time["column"]
        if self._features:
            yield "features.json", self._features.json
        for rule in self._options.get("exclude") or ():
            yield "exclude", rule["column"]

    def _missing(self, name: str, known: Mapping[str, Any], what: str = "") -> NoReturn:
        asked = f" ({what} declares it)" if what else ""
        raise DataError(f"{self._source.place} has no column '{name}'{asked}{nearest(name, known)}")

    def _known(self, names: Sequence[str]) -> None:
        kinds = self.kinds()
        for name in names:
            if name not in kinds:
                self._missing(name, kinds)

    def _push(self) -> Push | None:
        """This table's questions in SQL, for an engine that answers such."""
        self._stored()
        return Push(self._source, self._all or {}, self._options, self._span) if isinstance(self._source, Counts) else None

    def _where(self) -> Where:
        if isinstance(self._source, Counts):
            return Push(self._source, self._all or {}, self._options, self._span).where, []
        columns = self._all or {}
        parts: list[Where] = []
        if self._span:
            parts.append(self._around(*self._span))  # first: an index on the time decides before anything else of a row is read
        parts += [excluded(rule, columns[rule["column"]].kind, self._source.place) for rule in self._options.get("exclude") or ()]
        return " AND ".join(f"({sql})" for sql, _ in parts) or "1 = 1", [value for _, values in parts for value in values]

    def _around(self, start: datetime, end: datetime) -> Where:
        """What the engine may leave out; asked once whether all text around the window is UTC, which makes it a plain range."""
        if self._rough is None:
            name = self._time["column"]
            kind = (self._all or {})[name].kind
            self._rough = roughly(quoted(name), kind, self._time, start, end)
            if self._source.seeks and is_iso_text(kind, self._time):
                odd = self._source.scan({name: kind}, strays(quoted(name), start, end))
                self._rough = exactly_utc(quoted(name), start, end) if next(iter(odd), None) is None else self._rough
        return self._rough

    def _chunks(self, names: Sequence[str], exact: bool = False, spelled: Container[str] = ()) -> Iterator[dict[str, Any]]:
        """Stored columns under the condition, cut exactly to the window; AT holds each row's event time where it is needed."""
        columns = self._stored()
        time = self._time["column"] if "time" in self._options and (self._span or exact) else None
        wanted = list(dict.fromkeys([*names, *([time] if time else [])]))
        kinds: dict[str, Kind] = {name: "text" if name in spelled and name != time else columns[name].kind for name in wanted}
        for chunk in self._source.scan(kinds, self._where(), exact):
            yield self._cut(dict(chunk), time, columns)

    def _cut(self, chunk: dict[str, Any], time: str | None, columns: Mapping[str, Stored]) -> dict[str, Any]:
        if time is None:
            return chunk
        chunk[AT] = _times.read(_times.plain(chunk[time]), columns[time].naive, self._time, self._source.place)
        if not self._span:
            return chunk
        start, end = map(_times.micros, self._span)
        inside = (chunk[AT] >= start) & (chunk[AT] < end) & (chunk[AT] != NEVER)
        return chunk if inside.all() else {name: values[inside] for name, values in chunk.items()}

    def _presented(self, names: Sequence[str], spelled: Container[str] = ()) -> Iterator[dict[str, Any]]:
        """Chunks of stored and virtual columns alike, as `column` promises them."""
        self._known(names)
        for chunk in self._chunks(self._behind(names), spelled=spelled):
            shown = {name: self._as_column(name, chunk) for name in names if self._is_stored(name)}
            yield shown | self._features.parsed(chunk.get(self._features.json), [name for name in names if name not in shown])

    def _as_column(self, name: str, chunk: Mapping[str, Any]) -> Any:
        if "time" in self._options and name == self._time["column"]:
            times = chunk[AT] if AT in chunk else _times.read(_times.plain(chunk[name]), self._stored()[name].naive, self._time, self._source.place)
            return _times.seconds(times)
        return _times.seconds(chunk[name]) if chunk[name].dtype == "int64" else chunk[name]

    def _unfolded(self) -> _unfold.Kept:
        if self._kept is None:
            name, wanted = self._features.json, list(self._features.places)
            self._kept = _unfold.Kept(_unfold.matrix(chunk[name], wanted)[0] for chunk in self._chunks([name]))
        return self._kept

    def _is_stored(self, name: str) -> bool:
        return name not in self._features.kinds() and name in self._stored()

    def _behind(self, names: Sequence[str]) -> list[str]:
        """The stored columns that answer for these names."""
        return list(dict.fromkeys(name if self._is_stored(name) else self._features.json for name in names))

    def _empty(self, name: str) -> Any:
        import numpy as np

        self._known([name])
        return np.empty(0, dtype=np.float64 if self.kinds()[name] in ("number", "integer", "time") else object)

    def _shown(self, row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Json]:
        shown = {name: _newest.as_json(row[name]) for name in names if self._is_stored(name)}
        parsed = self._features.parsed([row.get(self._features.json)], [name for name in names if name not in shown])
        shown |= {name: _newest.as_json(values[0].item()) for name, values in parsed.items()}
        return {name: shown[name] for name in names}
