"""Statements of a team's own, on the database a table lies in: one of them in one transaction, its values bound and never pasted in."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import date, datetime
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from agent import Json, Locator
from agent.errors import DataError
from agent.targets import _pglink
from agent.wire import remaining

MAY = ("INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "WITH", "SELECT", "CALL", "CREATE", "ALTER", "DROP", "TRUNCATE", "REFRESH")
PATIENCE = 10.0  # seconds, where no deadline is set
_NAMES = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/|\$(\w*)\$.*?\$\1\$|::|:(?P<name>[A-Za-z_]\w*)""", re.DOTALL
)  # what is quoted or a comment is passed over, and so is a cast


def names(statement: str) -> list[str]:
    """The values that a statement asks for, written :name, each once."""
    return list(dict.fromkeys(match["name"] for match in _NAMES.finditer(statement) if match["name"]))


def respelled(statement: str) -> str:
    """The same statement as psycopg takes it: :name is %(name)s, and a % of its own is doubled."""
    out, at = [], 0
    for match in _NAMES.finditer(statement):
        out += [statement[at : match.start()].replace("%", "%%"), f"%({match['name']})s" if match["name"] else match[0].replace("%", "%%")]
        at = match.end()
    return "".join([*out, statement[at:].replace("%", "%%")])


class Carried(NamedTuple):
    """What a statement came to: the rows it changed and the first row that came back; or `refused`, when nothing was changed."""

    rows: int = 0
    first: Mapping[str, Json] = {}
    refused: str = ""


def _left() -> float:
    left = remaining()
    return PATIENCE if left is None else max(left, 0.001)


def _first(cursor: Any) -> Mapping[str, Json]:
    """The first row by its columns; the others are fetched, and let go."""
    if cursor.description is None:
        return {}
    row = cursor.fetchone()
    for _ in cursor:
        pass
    columns = [column[0] for column in cursor.description]
    return {} if row is None else dict(zip(columns, map(_plain, row), strict=True))


def _plain(value: Any) -> Json:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return value.isoformat() if isinstance(value, (date, datetime)) else value.hex() if isinstance(value, (bytes, memoryview)) else str(value)


def _unlike(rows: int, wanted: int | None) -> str:
    return "" if wanted in (None, rows) else f"it would change {rows} rows, not {wanted}, and was rolled back"


# SQLite


@contextmanager
def _opened(path: Path, place: str, mode: str) -> Iterator[sqlite3.Connection]:
    end = monotonic() + _left()
    if not path.is_file():
        raise DataError(f"{place}: there is no file {path}; check the url")
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=_left(), isolation_level=None)) as con:
        con.set_progress_handler(lambda: monotonic() > end, 10_000)
        yield con


def in_sqlite(path: Path, place: str, statement: str, values: Mapping[str, Json], rows: int | None) -> Carried:
    """Carries it out, or rolls it back; DataError where the commit itself broke, and nobody knows."""
    try:
        with _opened(path, place, "rw") as con:
            con.execute("BEGIN IMMEDIATE")
            cursor = con.execute(statement, values)
            first = _first(cursor)
            found = max(cursor.rowcount, 0)
            if unlike := _unlike(found, rows):
                return Carried(refused=unlike)
            _commit(con, place)
    except (sqlite3.Error, sqlite3.Warning, OverflowError) as problem:
        return Carried(refused=f"{place} refused it, and nothing was changed: {problem}")
    return Carried(found, first)


def _commit(con: sqlite3.Connection, place: str) -> None:
    try:
        con.execute("COMMIT")
    except sqlite3.Error as problem:
        raise DataError(f"{place}: the commit failed: {problem}") from problem


def from_sqlite(path: Path, place: str, query: str, values: Mapping[str, Json]) -> Mapping[str, Json]:
    """The first row of a query; nothing can be changed by it."""
    try:
        with _opened(path, place, "ro") as con:
            return _first(con.execute(query, values))
    except (sqlite3.Error, sqlite3.Warning, OverflowError) as problem:
        raise DataError(f"{place} cannot be asked: {problem}") from problem


# PostgreSQL


@contextmanager
def _linked(at: Locator, writing: bool) -> Iterator[Any]:
    with closing(_pglink.driver(_pglink.place(at)).connect(**_pglink.parameters(at, writing), connect_timeout=max(2, int(_left())))) as con:
        con.read_only = not writing
        con.execute(f"SET LOCAL statement_timeout = {max(1, round(_left() * 1000))}")
        yield con


def in_postgres(at: Locator, statement: str, values: Mapping[str, Json], rows: int | None) -> Carried:
    """As in SQLite. A server that goes away before the commit rolls it back by itself."""
    place = _pglink.place(at)
    psycopg = _pglink.driver(place)
    try:
        with _linked(at, writing=True) as con:
            cursor = con.execute(respelled(statement), values, prepare=True)  # prepared: several statements in one are refused
            first = _first(cursor)
            found = max(cursor.rowcount, 0)
            if unlike := _unlike(found, rows):
                con.rollback()
                return Carried(refused=unlike)
            try:
                con.commit()
            except psycopg.Error as problem:
                raise _pglink.told(problem, place) from problem
    except psycopg.Error as problem:
        return Carried(refused=f"nothing was changed: {_pglink.told(problem, place)}")
    return Carried(found, first)


def from_postgres(at: Locator, query: str, values: Mapping[str, Json]) -> Mapping[str, Json]:
    """The first row of a query, in a read-only transaction."""
    place = _pglink.place(at)
    psycopg = _pglink.driver(place)
    try:
        with _linked(at, writing=False) as con:
            return _first(con.execute(respelled(query), values, prepare=True))
    except psycopg.Error as problem:
        raise _pglink.told(problem, place) from problem
