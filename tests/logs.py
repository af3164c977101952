"""Prediction logs for tests: the same rows written in every format a table adapter reads."""

import json
import sqlite3
from datetime import UTC, datetime, timedelta
from zlib import crc32

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from agent import Locator
from agent.errors import CannotError
from agent.targets._counted import Counted
from agent.targets._sql import quoted
from agent.targets.delta import Delta
from agent.targets.duckdb import DuckDb
from agent.targets.files import Files
from agent.targets.postgres import Postgres
from agent.targets.sqlite import Sqlite
from tests.cluster import RUNNING

START = datetime(2026, 3, 29, tzinfo=UTC)
FILES = ("parquet", "csv", "jsonl", "sqlite", "duckdb")
FORMATS = (*FILES, "delta", "postgresql")
ADAPTERS = {"parquet": Files, "csv": Files, "jsonl": Files, "sqlite": Sqlite, "duckdb": DuckDb, "postgresql": Postgres, "delta": Delta}
LOG = {
    "time": {"column": "at", "tz": "UTC"},
    "id": "request_id",
    "version": "version",
    "features": {"json": "inputs", "size": 3},
    "prediction": "prediction",
    "score": "score",
    "exclude": [{"column": "probe", "equals": 1}, {"column": "request_id", "prefix": "wk-probe-"}],
}


def log_rows(count=40):
    return [
        {
            "at": (START + timedelta(seconds=place)).isoformat(),
            "request_id": f"wk-probe-{place}" if place == 7 else f"id{place}",
            "version": "1",
            "inputs": json.dumps([place, place / 2, 1.5]),
            "prediction": place % 3,
            "score": None if place % 10 == 0 else place / count,
            "probe": int(place == 5),
        }
        for place in range(count)
    ]


def write(folder, form, rows, types=None):
    """The rows as a file of that format; the URL that names it."""
    names = list(rows[0])
    if form == "postgresql":
        return in_postgres(folder, rows, types or {})
    if form != "delta":
        (folder / f"log.{form}").unlink(missing_ok=True)
    table = pa.table({name: pa.array([row[name] for row in rows], (types or {}).get(name)) for name in names})
    if form == "delta":
        import deltalake

        deltalake.write_deltalake(folder / "log.delta", table, mode="overwrite", schema_mode="overwrite")
    elif form == "parquet":
        pyarrow.parquet.write_table(table, folder / "log.parquet")
    elif form == "csv":
        pyarrow.csv.write_csv(table, folder / "log.csv")
    elif form == "jsonl":
        (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif form == "sqlite":
        words = {"int64": "INTEGER", "double": "REAL", "string": "TEXT", "bool": "BOOLEAN"}
        with sqlite3.connect(folder / "log.sqlite") as con:
            con.execute(f"CREATE TABLE log ({', '.join(f'{quoted(name)} {words[str(table[name].type)]}' for name in names)})")
            con.executemany(f"INSERT INTO log VALUES ({', '.join('?' * len(names))})", [tuple(row.values()) for row in rows])
        con.close()
    else:
        with duckdb.connect(str(folder / "log.duckdb")) as con:
            con.register("rows", table)
            con.execute("CREATE TABLE log AS SELECT * FROM rows")
    return f"{form}:log.{form}"


def in_postgres(folder, rows, types):
    """As COPY takes them; a column is what its values are."""
    table = pa.table({name: pa.array([row[name] for row in rows], types.get(name)) for name in rows[0]})
    words = {"int64": "bigint", "double": "double precision", "string": "text", "bool": "boolean"}
    kinds = {name: words.get(str(table[name].type)) or f"timestamp{'tz' if 'tz=' in str(table[name].type) else ''}" for name in table.column_names}
    return RUNNING[0].load(f"log_{crc32(str(folder).encode())}", kinds, [tuple(row.values()) for row in rows])


def opened(folder, url, options=None):
    return ADAPTERS[url.partition(":")[0]](Locator("digits", "live", url, options if options is not None else LOG, folder=str(folder)))


class OnlyCounts:
    """A real table of which nothing but counts is passed on, as by Spark."""

    can = Counted.can

    def __init__(self, table):
        self.table, self.declared = table, table.declared
        self.kinds, self.rows, self.tally = table.kinds, table.rows, table.tally

    def column(self, name):
        raise CannotError(f"it gives counts only, no column '{name}'")

    def between(self, start, end):
        return OnlyCounts(self.table.between(start, end))


def column(table, name):
    return np.concatenate(list(table.column(name)) or [np.empty(0)])
