"""Tables in a SQLite file, opened read-only so that a live log is never locked: `sqlite:predictions.db?table=predictions`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent import Json, Kind, Locator, adapter
from agent.errors import DataError
from agent.targets import _statements
from agent.targets._sql import Where, locate, nearest, quoted
from agent.targets._tables import Rows, Stored

CHUNK = 16_384
LOOKED_AT = 1_000  # newest rows whose storage classes stand for a whole table; a window is always looked at entirely


@adapter(role="table", schemes=("sqlite",))
class Sqlite(Rows):
    """A table or view of a SQLite file."""

    def __init__(self, at: Locator) -> None:
        path, table = locate(at)
        super().__init__(SqliteSource(path, table), at.options)
        self._file, self._place = path, f"sqlite:{path.name}"

    def carried(self, statement: str, values: Mapping[str, Json], rows: int | None) -> _statements.Carried:
        """One statement in a transaction of its own; what changes another number of rows than `rows` is rolled back."""
        return _statements.in_sqlite(self._file, self._place, statement, values, rows)

    def asked(self, query: str, values: Mapping[str, Json]) -> Mapping[str, Json]:
        """The first row of a query."""
        return _statements.from_sqlite(self._file, self._place, query, values)


class SqliteSource:
    """One SQLite connection, made when first needed, in read-only mode."""

    seeks = True

    def __init__(self, path: Path, table: str | None) -> None:
        self.place = f"sqlite:{path.name}" + (f"?table={table}" if table else "")
        self._path = path
        self._table = table
        self._open: sqlite3.Connection | None = None
        self._rowid = True

    def close(self) -> None:
        if self._open:
            self._open.close()
        self._open = None

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._connection()
        except sqlite3.DatabaseError as problem:
            raise DataError(f"{self.place} cannot be read: {problem} ({self._path})") from problem

    def _connection(self) -> sqlite3.Connection:
        if self._open is None:
            if not self._path.is_file():
                raise DataError(f"{self.place}: there is no file {self._path}; check the url")
            if not self._path.stat().st_size:
                raise DataError(f"{self.place}: {self._path} is empty (0 bytes); nothing was written yet, or the wrong file is named")
            self._open = sqlite3.connect(f"{self._path.resolve().as_uri()}?mode=ro", uri=True, timeout=5, check_same_thread=False)
            self._open.text_factory = lambda raw: raw.decode("utf-8", "replace")
            self._table = self._found(self._open)
        return self._open

    def _found(self, con: sqlite3.Connection) -> str:
        known = {row[1]: row for row in con.execute("PRAGMA table_list") if row[0] == "main" and not row[1].startswith("sqlite_")}
        name = next(iter(known)) if self._table is None and len(known) == 1 else self._table
        if name is None or name not in known:
            wrong = f"no table '{name}'" if name else "more than one table, or none; add ?table="
            raise DataError(f"{self.place}: {wrong}{nearest(name or '', known)}")
        _, _, kind, _, without_rowid, _ = known[name]
        self._rowid = kind == "table" and not without_rowid
        return str(name)

    def stored(self, where: Where | None) -> Mapping[str, Stored]:
        with self._reading() as con:
            declared = {row[1]: str(row[2]).upper() for row in con.execute(f"PRAGMA table_info({self._quoted()})")}
            classes = self._classes(con, list(declared), where)
        return {name: Stored(_kind(declared[name], classes[name])) for name in declared}

    def _classes(self, con: sqlite3.Connection, names: Sequence[str], where: Where | None) -> dict[str, set[str]]:
        """SQLite types values, not columns: which storage classes are really there."""
        asked = [f"max(typeof({quoted(name)}) = '{kind}')" for name in names for kind in ("integer", "real", "text", "blob")]
        sql, values = where or ("1 = 1", [])
        last = "" if where else f" ORDER BY rowid DESC LIMIT {LOOKED_AT}" if self._rowid else f" LIMIT {LOOKED_AT}"
        found: dict[str, set[str]] = {}
        for first in range(0, len(names), 400):  # SQLite answers at most 2,000 columns at once
            some = asked[first * 4 : (first + 400) * 4]
            row = con.execute(f"SELECT {', '.join(some)} FROM (SELECT * FROM {self._quoted()} WHERE {sql}{last})", values).fetchone()  # noqa: S608
            for place, name in enumerate(names[first : first + 400]):
                flags = row[place * 4 : place * 4 + 4]
                found[name] = {kind for kind, flag in zip(("integer", "real", "text", "blob"), flags, strict=True) if flag}
        return found

    def scan(self, columns: Mapping[str, Kind], where: Where, exact: bool = False) -> Iterator[Mapping[str, Any]]:
        sql, values = where
        with self._reading() as con:
            table, wanted = self._quoted(), ", ".join(map(quoted, columns))
            rows = con.execute(f"SELECT {wanted} FROM {table} WHERE {sql}{self._order(bool(values))}", values)  # noqa: S608
            while some := rows.fetchmany(CHUNK):
                cells = zip(*some, strict=True)
                yield {name: self._array(name, "other" if exact else kind, cell) for (name, kind), cell in zip(columns.items(), cells, strict=True)}

    def _order(self, narrowed: bool) -> str:
        """Always one order. The plus: sort the few rows an index found, never walk the whole table to save the sort."""
        return (" ORDER BY +rowid" if narrowed else " ORDER BY rowid") if self._rowid else ""

    def _quoted(self) -> str:
        self._connection()
        return quoted(str(self._table))

    def _array(self, name: str, kind: Kind, cells: tuple[Any, ...]) -> Any:
        import numpy as np

        if kind in ("number", "integer"):
            try:
                return np.array(cells, dtype=np.float64)
            except (TypeError, ValueError) as problem:
                odd = next(cell for cell in cells if isinstance(cell, (str, bytes)))
                raise DataError(f"{self.place}: column '{name}' holds numbers and also {odd[:40]!r}; it cannot be read as one kind") from problem
        out = np.empty(len(cells), dtype=object)
        out[:] = [None if cell is None else bool(cell) for cell in cells] if kind == "boolean" else cells
        if kind == "text":
            out[:] = [cell if cell is None or isinstance(cell, str) else str(cell) for cell in cells]
        return out


def _kind(declared: str, classes: set[str]) -> Kind:
    """Text anywhere makes a column text: a number that turned into words must show."""
    if "text" in classes:
        return "text"
    if "blob" in classes:
        return "bytes"
    if "BOOL" in declared and classes <= {"integer"}:
        return "boolean"
    if classes:
        return "number" if "real" in classes else "integer"
    if "INT" in declared:
        return "integer"
    return "number" if any(word in declared for word in ("REAL", "FLOA", "DOUB", "NUM", "DEC")) else "bytes" if declared == "BLOB" else "text"
