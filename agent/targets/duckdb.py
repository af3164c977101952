"""Tables in a DuckDB database file, opened read-only: `duckdb:warehouse.duckdb?table=predictions`."""

from __future__ import annotations

from typing import Any

from agent import Locator, adapter
from agent.errors import DataError
from agent.targets._duck import OFFLINE, CountingDuck
from agent.targets._sql import locate, nearest, quoted
from agent.targets._tables import Rows


@adapter(role="table", schemes=("duckdb",))
class DuckDb(Rows):
    """A table or view of a DuckDB file. DuckDB lets a second process read only while no process writes: a held file is a DataError."""

    def __init__(self, at: Locator) -> None:
        path, table = locate(at)
        place = f"duckdb:{path.name}" + (f"?table={table}" if table else "")

        def opened() -> Any:
            import duckdb

            if not path.is_file():
                raise DataError(f"{place}: there is no file {path}; check the url")
            return duckdb.connect(str(path), read_only=True, config=OFFLINE)

        def relation(con: Any) -> str:
            known = [name for (name,) in con.execute("SELECT table_name FROM information_schema.tables ORDER BY 1").fetchall()]
            name = known[0] if table is None and len(known) == 1 else table
            if name is None or name not in known:
                wrong = f"no table '{table}'" if table else "more than one table, or none; add ?table="
                raise DataError(f"{place}: {wrong}{nearest(table or '', known)}")
            return quoted(name)

        super().__init__(CountingDuck(place, opened, relation), at.options)
