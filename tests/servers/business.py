"""A database of orders, as `metrics` reads it: SQLite or DuckDB, with the same rows and the same four queries."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta
from pathlib import Path

from agent import UTC, Window

SPEAKS = ("metrics:sqlite", "metrics:duckdb")
START = datetime(2026, 1, 1, tzinfo=UTC)
WINDOW = Window(START + timedelta(seconds=10), START + timedelta(seconds=20))
ONE = "SELECT avg(amount) FROM orders WHERE made_at >= :start AND made_at < :end"
SOME = "SELECT CAST(1 AS INTEGER) AS version, 0.25 AS share UNION ALL SELECT 2, NULL ORDER BY 1"
NONE = "SELECT amount FROM orders WHERE made_at > '2027-01-01'"
BAD = "SELECT sum( FROM orders"


class Speaker:
    """Sixty orders, one a second; in WINDOW they are worth 1.5 on average."""

    def __init__(self, folder: Path, scheme: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.options = folder / f"business.{scheme}", {}
        self.url = f"{scheme}:{self.path}"
        rows = [((START + timedelta(seconds=n)).strftime("%Y-%m-%dT%H:%M:%SZ"), 1.0 if n % 2 else 2.0) for n in range(60)]
        con = sqlite3.connect(self.path) if scheme == "sqlite" else _duck(self.path)
        con.execute(f"CREATE TABLE orders (made_at {'TEXT' if scheme == 'sqlite' else 'TIMESTAMP'}, amount REAL)")
        con.executemany("INSERT INTO orders VALUES (?, ?)", rows)
        con.commit()
        con.close()

    def stop(self) -> None: ...


def _duck(path: Path):
    import duckdb

    return duckdb.connect(str(path)).begin()
