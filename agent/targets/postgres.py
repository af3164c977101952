"""Tables and views in PostgreSQL: counted there, read-only; only what SQL cannot say exactly travels: `postgresql://db.example.org/ml?table=logs.predictions`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from agent import Json, Kind, Locator, adapter
from agent.errors import DataError, DeadlineError
from agent.targets import _pglink, _statements
from agent.targets._dialect import POSTGRES
from agent.targets._sql import Stored, Where, nearest
from agent.targets._tables import Rows
from agent.targets._times import NEVER
from agent.wire import remaining

CHUNK = 16_384
NAMES: Mapping[str, Kind] = {
    **dict.fromkeys(("int2", "int4", "int8", "oid"), "integer"),
    **dict.fromkeys(("float4", "float8", "numeric"), "number"),
    **dict.fromkeys(("text", "varchar", "bpchar", "name", "citext", "uuid", "json", "jsonb"), "text"),
    **dict.fromkeys(("timestamptz", "timestamp", "date"), "time"),
    "bool": "boolean",
    "bytea": "bytes",
}
RELATIONS = """
SELECT n.nspname, c.relname, c.oid, pg_table_is_visible(c.oid) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'v', 'm', 'p', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND NOT c.relispartition
ORDER BY 1, 2
"""
COLUMNS = """
SELECT a.attname, b.typname, b.typtype::text, e.typname, e.typtype::text FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
LEFT JOIN pg_type e ON e.oid = b.typelem AND b.typcategory = 'A'
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
# A scan comes in the order in which the rows lie, whatever columns it asks for, so that columns line up.
STEADY = "SET LOCAL enable_indexscan = off; SET LOCAL enable_indexonlyscan = off; SET LOCAL synchronize_seqscans = off"


@adapter(role="table", schemes=("postgresql", "postgres"))
class Postgres(Rows):
    """A table or view; `table` may say its schema. Names are taken as they are, capitals and all."""

    def __init__(self, at: Locator) -> None:
        super().__init__(PostgresSource(at), at.options)
        self._at = at

    def carried(self, statement: str, values: Mapping[str, Json], rows: int | None) -> _statements.Carried:
        """One statement in a transaction of its own; what changes another number of rows than `rows` is rolled back."""
        return _statements.in_postgres(self._at, statement, values, rows)

    def asked(self, query: str, values: Mapping[str, Json]) -> Mapping[str, Json]:
        """The first row of a query."""
        return _statements.from_postgres(self._at, query, values)


class PostgresSource:
    """One connection, made when first needed; everything read while something is being read is of one snapshot."""

    seeks = False
    dialect = POSTGRES

    def __init__(self, at: Locator) -> None:
        self._at, self._table = at, _pglink.table(at)
        self._connect = _pglink.parameters(at)  # ConfigError before anything is asked
        self.place = _pglink.place(at)
        self._con: Any = None
        self._readers = 0
        self._found: tuple[str, str, int] | None = None
        self._columns: Mapping[str, Stored] = {}

    def close(self) -> None:
        if self._con is not None:
            self._con.close()
        self._con, self._readers = None, 0

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        """The connection inside a read-only transaction, which ends with its last reader; the deadline around the caller is the statement's."""
        psycopg = _pglink.driver(self.place)
        try:
            con = self._begun()
            con.execute(f"SET LOCAL statement_timeout = {self._left()}")
            self._readers += 1
            try:
                yield con
            finally:
                self._done(con)
        except UnicodeError as problem:
            raise DataError(f"{self.place} holds text that is not UTF-8; mend it, or the encoding of the database") from problem
        except psycopg.Error as problem:
            self.close()
            raise _pglink.told(problem, self.place) from problem

    def _done(self, con: Any) -> None:
        """One reader less; the last one ends the transaction, unless it broke."""
        if con is not self._con:
            return
        self._readers -= 1
        if not self._readers and not con.broken:
            con.rollback()

    def _begun(self) -> Any:
        """A connection that was kept may have been cut since: it is made anew once."""
        psycopg = _pglink.driver(self.place)
        if self._con is not None and not self._readers:
            try:
                self._con.execute("SELECT 1")
            except psycopg.OperationalError:
                self.close()
        if self._con is None:
            self._con = psycopg.connect(**self._connect, connect_timeout=max(2, self._left() // 1000))
            self._con.read_only, self._con.isolation_level = True, psycopg.IsolationLevel.REPEATABLE_READ
        return self._con

    def _left(self) -> int:
        """Milliseconds that a statement may take."""
        left = remaining()
        if left is not None and left <= 0:
            raise DeadlineError(f"{self.place} was not read in time; look at less, index the time column, or give the watch longer")
        return max(1, round(1000 * (self._at.within.total_seconds() if left is None else left)))

    # What there is

    def relation(self) -> str:
        schema, name, _ = self._relation()
        return f"{POSTGRES.name(schema)}.{POSTGRES.name(name)}"

    def _relation(self) -> tuple[str, str, int]:
        if self._found is None:
            with self._reading() as con:
                there = con.execute(RELATIONS).fetchall()
            self._found = self._named(there)
        return self._found

    def _named(self, there: Sequence[tuple[str, str, int, bool]]) -> tuple[str, str, int]:
        wanted = self._table
        hits = [(schema, name, oid) for schema, name, oid, seen in there if (wanted == name and seen) or wanted == f"{schema}.{name}"]
        if wanted is None:
            hits = [(schema, name, oid) for schema, name, oid, seen in there if seen]
        if len(hits) != 1:
            known = [name if seen else f"{schema}.{name}" for schema, name, _, seen in there]
            wrong = f"no table '{wanted}'" if wanted else "more than one table, or none; add ?table="
            raise DataError(f"{self.place}: {wrong}{nearest(wanted or '', known)}")
        return hits[0]

    def stored(self, where: Where | None) -> Mapping[str, Stored]:
        if where is None:
            self._found = None  # a new look: a table may have been made anew since
        _, _, oid = self._relation()
        with self._reading() as con:
            self._columns = {name: _stored(*kinds) for name, *kinds in con.execute(COLUMNS, [oid]).fetchall()}
        return self._columns

    # What it holds

    def ask(self, statements: Sequence[str]) -> list[list[tuple[Any, ...]]]:
        with self._reading() as con:
            cursor = con.cursor(binary=True)
            return [cursor.execute(statement).fetchall() for statement in statements]

    def scan(self, columns: Mapping[str, Kind], where: Where, exact: bool = False) -> Iterator[Mapping[str, Any]]:
        wanted = ", ".join(_selected(POSTGRES.name(name), kind, self._columns[name].of, exact) for name, kind in columns.items())
        statement = f"SELECT {wanted} FROM {self.relation()} WHERE {where[0]}"  # noqa: S608 - the Dialect quotes
        with self._reading() as con:
            con.execute(STEADY)
            with con.cursor(name=f"watchkeeper_{self._readers}", binary=True) as cursor:
                cursor.execute(statement)
                while some := cursor.fetchmany(CHUNK):
                    self._left()
                    cells = zip(*some, strict=True)
                    yield {name: _array(kind, exact, cell) for (name, kind), cell in zip(columns.items(), cells, strict=True)}


def _stored(kind: str, category: str, entry: str | None, entry_category: str | None) -> Stored:
    if entry is not None:
        return Stored("list", of=_kind(entry, entry_category))
    return Stored(_kind(kind, category), naive=kind in ("timestamp", "date"))


def _kind(name: str, category: str | None) -> Kind:
    return "text" if category == "e" else NAMES.get(name, "other")


def _selected(column: str, kind: Kind, of: Kind, exact: bool) -> str:
    """A column as this kind; what could come in a form of the driver's own comes as text."""
    if kind == "list":
        bare = "'\"'" if of in ("number", "integer") else "''"  # JSON knows no NaN, so to_json puts it between quotes
        return f"replace(CAST(to_json({column}) AS text), {bare}, '')"
    if kind == "number" or (kind == "integer" and not exact):
        return POSTGRES.as_double(column)
    if kind == "time":
        readable = f"{column} >= '0001-01-02' AND {column} < '9999-12-31'"  # what a Python datetime can be
        return f"CASE WHEN {readable} THEN {column} END" if exact else POSTGRES.micros.format(column)
    return POSTGRES.as_text(column) if kind in ("text", "other") else column


def _array(kind: Kind, exact: bool, cells: tuple[Any, ...]) -> Any:
    import numpy as np

    if not exact and kind in ("number", "integer"):
        return np.array(cells, dtype=np.float64)
    if not exact and kind == "time":
        return np.array([NEVER if cell is None else cell for cell in cells], dtype=np.int64)
    out = np.empty(len(cells), dtype=object)
    out[:] = cells
    return out
