"""Numbers asked of a database in SQL, read-only: `sqlite:business.db` and `duckdb:warehouse.duckdb` in the role `metrics`."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from math import nan
from pathlib import Path
from threading import Event, Timer
from typing import Any

from agent import UTC, Json, Locator, Sample, Samples, Window, adapter
from agent.errors import ConfigError, DataError, DeadlineError
from agent.targets import _shapes
from agent.targets._duck import OFFLINE
from agent.targets._sql import locate
from agent.wire import remaining

SERIES = 10_000  # rows a query may answer: more is a table, not a measurement
NAMED = re.compile(r"(?<![:\w]):(start|end)(_s)?\b")
READS = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)


class Queries:
    """What both have in common: the window bound to :start and :end, one number a row, the labels before it, and an end to what takes too long."""

    can: frozenset[str] = frozenset()
    smallest = "SELECT 1"

    def __init__(self, at: Locator) -> None:
        _shapes.options(at, ())
        self._at, (self._path, table) = at, locate(at)
        if table:
            raise ConfigError(f"{at.service}.{at.role}: {at.url} names a table; leave that to the query: {at.url.partition('?')[0]}")
        self.place = f"{at.scheme}:{self._path.name}"

    def query(self, text: str, window: Window) -> Samples:
        """The rows of one SELECT: its last column is the number, the columns before it are labels.

        `:start` and `:end` are the window as ISO text in UTC, `:start_s` and `:end_s` as seconds since 1970. DataError in the database's own words.
        """
        with self._until_late(con := self._open()):
            names, rows = self._tried("does not take the query", lambda: self._rows(con, text, _bound(text, window)))
        if len(rows) > SERIES:
            raise DataError(f"{self.place}: the query answers more than {SERIES:,} rows; aggregate in the query, one row a series")
        return Samples(tuple(self._sample(names, row) for row in rows))

    def sighted(self) -> str:
        """A local file sees no world."""
        return ""

    def close(self) -> None:
        """Nothing is kept open between queries: the file may be replaced."""

    def _open(self) -> Any:
        if not self._path.is_file():
            raise DataError(f"{self.place}: there is no file {self._path}; check the url")
        return self._tried("cannot be read", lambda: self._connected(self._path))

    def _tried(self, what: str, trial: Callable[[], Any]) -> Any:
        try:
            return trial()
        except self._mistakes() as problem:
            raise DataError(f"{self.place} {what}: {' '.join(str(problem).split())[:300]}") from problem

    @contextmanager
    def _until_late(self, con: Any) -> Iterator[None]:
        left, late = remaining(), Event()
        within = self._at.within.total_seconds() if left is None else min(left, self._at.within.total_seconds())

        def stop() -> None:
            late.set()
            con.interrupt()

        timer = Timer(within, stop)
        timer.start()
        try:
            yield
        except DataError as problem:
            if late.is_set():
                raise DeadlineError(f"{self.place}: the query was stopped after {within:.3g} s; give it an index, or a shorter window") from problem
            raise
        finally:
            timer.cancel()
            timer.join()  # it may be interrupting what is closed next
            con.close()

    def _sample(self, names: Sequence[str], row: Sequence[Any]) -> Sample:
        labels = {name: "" if cell is None else str(cell) for name, cell in zip(names[:-1], row[:-1], strict=True)}
        return Sample(labels, self._number(names[-1], row[-1]))

    def _number(self, name: str, cell: Any) -> float:
        try:
            if isinstance(cell, (str, bytes, datetime)):
                raise TypeError
            return nan if cell is None else float(cell)
        except (TypeError, ValueError, OverflowError) as problem:
            raise DataError(f"{self.place}: the last column of the query, {name}, should be a number, and is {cell!r:.80}") from problem

    def _mistakes(self) -> tuple[type[Exception], ...]:
        """The errors in which this database speaks."""
        raise NotImplementedError

    def _connected(self, path: Path) -> Any:
        raise NotImplementedError

    def _rows(self, con: Any, text: str, values: Mapping[str, Json]) -> tuple[list[str], list[Any]]:
        raise NotImplementedError


@adapter(role="metrics", schemes=("sqlite",), heavy=True)
class SqliteQueries(Queries):
    """`sqlite:business.db`, opened read-only; a query may read it and do nothing else."""

    def _mistakes(self) -> tuple[type[Exception], ...]:
        return sqlite3.Error, sqlite3.Warning

    def _connected(self, path: Path) -> sqlite3.Connection:
        con = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5, check_same_thread=False)
        con.text_factory = lambda raw: raw.decode("utf-8", "replace")
        con.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in READS else sqlite3.SQLITE_DENY)
        return con

    def _rows(self, con: sqlite3.Connection, text: str, values: Mapping[str, Json]) -> tuple[list[str], list[Any]]:
        found = con.execute(text, values)
        if found.description is None:
            raise sqlite3.ProgrammingError("it answers no rows; write one SELECT")
        return [column[0] for column in found.description], found.fetchmany(SERIES + 1)


@adapter(role="metrics", schemes=("duckdb",), heavy=True)
class DuckQueries(Queries):
    """`duckdb:warehouse.duckdb`, opened read-only, with no way to other files or the network."""

    def _mistakes(self) -> tuple[type[Exception], ...]:
        import duckdb

        return (duckdb.Error,)

    def _connected(self, path: Path) -> Any:
        import duckdb

        con = duckdb.connect(str(path), read_only=True, config={**OFFLINE, "enable_external_access": False})
        con.execute("SET TimeZone = 'UTC'")
        return con

    def _rows(self, con: Any, text: str, values: Mapping[str, Json]) -> tuple[list[str], list[Any]]:
        found = con.execute(NAMED.sub(r"$\1\2", text).strip() or "-", dict(values))  # nothing at all is no error to DuckDB
        return [column[0] for column in found.description], found.fetchmany(SERIES + 1)


def _bound(text: str, window: Window) -> dict[str, Json]:
    """The values of those names that the query mentions: a database may refuse a value that nothing asks for."""
    values: dict[str, Json] = {}
    for name, at in (("start", window.start), ("end", window.end)):
        values |= {name: at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"), f"{name}_s": at.timestamp()}
    asked = {"".join(part for part in found.groups("")) for found in NAMED.finditer(text)}
    return {name: value for name, value in values.items() if name in asked}
