"""Speaks Trino's client protocol (POST a statement, follow nextUri) in front of a DuckDB that is taught Trino's words, so that counts are real."""

from __future__ import annotations

import re
from typing import Any

import duckdb

from tests.servers._loopback import Loopback

SPEAKS = ("table:trino",)
WORDS = (
    "CREATE MACRO is_nan(x) AS isnan(x)",
    "CREATE MACRO to_unixtime(x) AS epoch(x)",
    "CREATE MACRO item_at(x, place) AS list_extract(x, place)",
    "CREATE MACRO items(x) AS len(x)",
    "SET TimeZone = 'UTC'",
)
KINDS = {"TIMESTAMP WITH TIME ZONE": "timestamp(6) with time zone", "TIMESTAMP": "timestamp(6)", "DOUBLE[]": "array(double)"}


class Speaker(Loopback):
    """Table hive.ml.predictions holds `rows`; each answer comes in pages of two, after one that says nothing yet. `again` 503s go before each."""

    def read(self, content: bytes) -> str:
        """A statement is posted as it is."""
        return content.decode()

    def __init__(self, rows: Any, again: int = 0) -> None:
        self.statements: list[str] = []
        self.cancelled: list[str] = []
        self._again, self._pages = again, {}
        self._con = duckdb.connect()
        for word in WORDS:
            self._con.execute(word)
        self._con.register("given", rows)
        self._con.execute("CREATE SCHEMA ml; CREATE TABLE ml.predictions AS SELECT * FROM given")
        self._busy: dict[str, int] = {}
        super().__init__(self._answer)
        self.url = f"trino+{self.address}/hive/ml/predictions"

    def _answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if method == "DELETE":
            self.cancelled.append(path)
            return 204, None
        self._busy[path] = self._busy.get(path, 0) + 1
        if self._busy[path] <= self._again:
            return 503, {}
        if method == "POST":
            statement = str(body)
            self.statements.append(statement)
            return 200, self._begun(statement)
        return 200, self._pages[path]

    def _begun(self, statement: str) -> Any:
        here = f"/v1/statement/executing/{len(self._pages)}"
        try:
            cells = self._told(statement)
        except duckdb.Error as problem:
            return {"id": "q", "error": {"message": str(problem), "errorName": "SYNTAX_ERROR", "errorType": "USER_ERROR"}}
        pages = [[], *(cells[first : first + 2] for first in range(0, len(cells), 2))]
        for number, page in enumerate(pages):
            more = {"nextUri": f"http://elsewhere.invalid{here}/{number + 1}"} if number + 1 < len(pages) else {}
            self._pages[f"{here}/{number}"] = {"id": "q", "stats": {}} | ({"data": page} if page else {}) | more
        return {"id": "q", "nextUri": f"{self.address}{here}/0"}

    def _told(self, statement: str) -> list[list[Any]]:
        spoken = statement.replace('"hive".', "").replace("element_at(", "item_at(").replace("cardinality(", "items(")
        spoken = re.sub(r"TIMESTAMP '([^']*) UTC'", r"TIMESTAMPTZ '\1+00'", spoken)
        if spoken.startswith("DESCRIBE"):
            return [[name, KINDS.get(kind, kind.lower()), "", ""] for name, kind, *_ in self._con.execute(spoken).fetchall()]
        return [[_json(cell) for cell in row] for row in self._con.execute(spoken).fetchall()]


def _json(cell: Any) -> Any:
    """As Trino writes doubles that JSON has no word for."""
    if isinstance(cell, float) and (cell != cell or abs(cell) == float("inf")):
        return "NaN" if cell != cell else "Infinity" if cell > 0 else "-Infinity"
    return cell
