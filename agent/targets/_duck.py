"""The DuckDB engine behind local files and DuckDB databases."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from agent import Kind
from agent.errors import DataError
from agent.targets._dialect import DUCKDB
from agent.targets._push import BeyondError
from agent.targets._sql import Where, quoted
from agent.targets._tables import Stored
from agent.targets._times import NEVER

THREADS = 2  # a worker is one of several on the machine
OFFLINE: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "threads": THREADS,
}
_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"), "integer"),
    **dict.fromkeys(("FLOAT", "DOUBLE", "DECIMAL"), "number"),
    **dict.fromkeys(("VARCHAR", "ENUM", "UUID", "JSON"), "text"),
    **dict.fromkeys(("DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE"), "time"),
    "BOOLEAN": "boolean",
    "BLOB": "bytes",
}


class DuckSource:
    """A DuckDB relation: `opened` gives the connection when first needed, `relation` the text that stands after FROM, at every new look."""

    seeks = False

    def __init__(self, place: str, opened: Callable[[], Any], relation: Callable[[Any], str]) -> None:
        self.place = place
        self._opened = opened
        self._made = relation
        self._con: Any = None
        self._from = ""

    def close(self) -> None:
        if self._con is not None:
            self._con.close()
        self._con = None

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        """A cursor of its own, so that a column may be read while another is; what DuckDB cannot read is a DataError."""
        import duckdb

        try:
            if self._con is None:
                self._con = self._opened()
            with self._con.cursor() as cursor:
                cursor.execute("SET TimeZone = 'UTC'")
                yield cursor
        except duckdb.Error as problem:
            raise DataError(f"{self.place} cannot be read: {_said(problem)}") from problem

    def stored(self, where: Where | None) -> Mapping[str, Stored]:
        with self._reading() as cursor:
            if where is None:  # a new look: files may have come since the last
                self._from = self._made(cursor)
            described = cursor.execute(f"DESCRIBE SELECT * FROM {self._from}").fetchall()  # noqa: S608
        return {name: _stored(kind) for name, kind, *_ in described}

    def types(self) -> list[str]:
        """What DuckDB calls the type of each column."""
        with self._reading() as cursor:
            self._from = self._made(cursor)
            return [str(kind) for _, kind, *_ in cursor.execute(f"DESCRIBE SELECT * FROM {self._from}").fetchall()]  # noqa: S608

    def copy(self, to: str) -> None:
        """Write all rows, in their order, to what DuckDB's COPY takes."""
        with self._reading() as cursor:
            cursor.execute(f"COPY (SELECT * FROM {self._from}) TO {to}")  # noqa: S608

    def scan(self, columns: Mapping[str, Kind], where: Where, exact: bool = False) -> Iterator[Mapping[str, Any]]:
        sql, values = where
        wanted = ", ".join(f"{_selected(name, kind, exact)} AS {quoted(name)}" for name, kind in columns.items())
        with self._reading() as cursor:
            for batch in _batches(cursor, f"SELECT {wanted} FROM {self._from} WHERE {sql}", values):  # noqa: S608
                yield {name: _array(batch.column(place), kind, exact) for place, (name, kind) in enumerate(columns.items())}

    def counted(self, name: str, kind: Kind, where: Where, top: int) -> Iterator[tuple[str | None, int, int]]:
        """Null first, then the `top` most frequent values as text, each with how many rows have it and how many rows there are."""
        sql, values = where
        groups = f"SELECT {_selected(name, kind, False)}::VARCHAR AS key, count(*) AS n FROM {self._from} WHERE {sql} GROUP BY 1"  # noqa: S608
        asked = f"SELECT key, n, sum(n) OVER ()::BIGINT FROM ({groups}) ORDER BY key IS NULL DESC, n DESC, key LIMIT {top + 1}"  # noqa: S608
        with self._reading() as cursor:
            yield from cursor.execute(asked, values).fetchall()


class CountingDuck(DuckSource):
    """A relation that DuckDB reads by column, so that it counts values sooner than they could be handed over. Not for text files: each count would
    parse them anew."""

    dialect = DUCKDB

    def relation(self) -> str:
        return self._from

    def ask(self, statements: Sequence[str]) -> list[list[tuple[Any, ...]]]:
        import duckdb

        with self._reading() as cursor:
            try:
                return [cursor.execute(statement).fetchall() for statement in statements]
            except duckdb.OutOfRangeException as problem:
                raise BeyondError(f"{self.place}: {_said(problem)}") from problem


def _said(problem: Exception) -> str:
    """The first lines of DuckDB's words, without the row it quotes: rows are no business of a log."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(problem))
    lines = [line.strip() for line in plain.splitlines() if line.strip() and not line.startswith(("Original Line", "LINE "))]
    return "; ".join(lines[:2])[:400]


def _stored(declared: str) -> Stored:
    if declared.endswith("]"):
        return Stored("list")
    naive = declared == "DATE" or (declared.startswith("TIMESTAMP") and "ZONE" not in declared)
    return Stored(_KINDS.get(declared.partition("(")[0], "other"), naive)


def _selected(name: str, kind: Kind, exact: bool) -> str:
    column = quoted(name)
    if kind == "list":
        return f"CAST(to_json({column}) AS VARCHAR)"
    if kind == "other" or (kind == "text" and not exact):
        return f"CAST({column} AS VARCHAR)"
    if kind == "time" and not exact:
        return f"CASE WHEN isfinite({column}) THEN epoch_us({column}) END"
    return f"CAST({column} AS DOUBLE)" if kind in ("number", "integer") and not exact else column


def _batches(cursor: Any, sql: str, values: list[Any]) -> Iterator[Any]:
    import pyarrow as pa

    relation = cursor.sql(sql, params=values) if values else cursor.sql(sql)
    return iter(pa.RecordBatchReader.from_stream(relation))


def _array(cells: Any, kind: Kind, exact: bool) -> Any:
    import numpy as np
    import pyarrow as pa

    if exact or kind == "boolean" or pa.types.is_null(cells.type):
        out = np.empty(len(cells), dtype=object)
        out[:] = cells.to_pylist()
        return out
    if kind == "time":
        return cells.fill_null(NEVER).to_numpy(zero_copy_only=False)
    return cells.to_numpy(zero_copy_only=False)
