"""Speaks BigQuery's REST API in front of a DuckDB that is taught GoogleSQL's words, so that counts are real."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import duckdb

from tests.servers._loopback import Loopback

SPEAKS = ("table:bigquery",)
WORDS = (
    "CREATE MACRO IS_NAN(x) AS isnan(x)",
    "CREATE MACRO UNIX_MICROS(x) AS epoch_us(x)",
    "CREATE MACRO ARRAY_LENGTH(x) AS len(x)",
    "CREATE MACRO SAFE_OFFSET(place) AS place + 1",
    "CREATE MACRO HALF_EVEN(x, places, way) AS round_even(x, places)",
    "SET TimeZone = 'UTC'",
)
SPELLED = {"FLOAT64": "DOUBLE", "BIGNUMERIC": "DOUBLE", "ROUND(": "HALF_EVEN(", "TIMESTAMP '": "TIMESTAMPTZ '", "DATETIME '": "TIMESTAMP '"}
TYPES = {
    "BLOB": "BYTES",
    "BIGINT": "INTEGER",
    "DOUBLE": "FLOAT",
    "VARCHAR": "STRING",
    "TIMESTAMP": "DATETIME",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP",
}
QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`")


class Speaker(Loopback):
    """Table ml-7.logs.predictions holds `rows`; an answer comes after `pending` that are not complete, in pages of two rows."""

    def __init__(self, rows: Any, pending: int = 0) -> None:
        self.statements: list[dict[str, Any]] = []
        self.cancelled: list[str] = []
        self._pending, self._jobs, self._asked = pending, [], {}
        self._con = duckdb.connect()
        for word in WORDS:
            self._con.execute(word)
        self._con.register("given", rows)
        self._con.execute('ATTACH \':memory:\' AS "ml-7"; CREATE SCHEMA "ml-7".logs; CREATE TABLE "ml-7".logs.predictions AS FROM given')
        super().__init__(self._answer)
        self.url = f"bigquery+{self.address}/ml-7/logs/predictions"

    def _answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        url = urlsplit(path)
        _, _, _, _, project, *names = map(unquote, url.path.split("/"))
        if names[0] == "datasets":
            return self._told(f'FROM "{project}"."{names[1]}"."{names[3]}" LIMIT 0', lambda relation: {"schema": _schema(relation)})
        if names[-1] == "cancel":
            self.cancelled.append(names[1])
            return 200, {"kind": "bigquery#jobCancelResponse"}
        if method == "POST":
            self.statements.append(body)
            return self._told(_spoken(body["query"]), lambda relation: self._page(self._begun(relation), 0))
        asked = {name: value for name, (value,) in parse_qs(url.query).items()}
        return 200, self._page(int(names[1].rpartition(" ")[2]), int(asked.get("pageToken", 0)))

    def _told(self, statement: str, answered: Any) -> tuple[int, Any]:
        try:
            return 200, answered(self._con.sql(statement))
        except duckdb.CatalogException as problem:
            return 404, refusal(404, "notFound", str(problem))
        except duckdb.Error as problem:
            return 400, refusal(400, "invalidQuery", str(problem))

    def _begun(self, relation: Any) -> int:
        columns = [column.to_pylist() for column in relation.to_arrow_table().columns]
        self._jobs.append((_schema(relation), [{"f": [{"v": _value(cell)} for cell in row]} for row in zip(*columns, strict=True)]))
        return len(self._jobs) - 1

    def _page(self, job: int, first: int) -> Any:
        schema, rows = self._jobs[job]
        named = {"jobReference": {"projectId": "elsewhere", "jobId": f"../job {job}", "location": "EU"}}
        self._asked[job] = self._asked.get(job, 0) + 1
        if self._asked[job] <= self._pending:
            return named | {"jobComplete": False}
        more = {"pageToken": str(first + 2)} if first + 2 < len(rows) else {}
        return named | more | {"jobComplete": True, "schema": schema, "totalRows": str(len(rows)), "rows": rows[first : first + 2]}


def refusal(code: int, reason: str, message: str) -> Any:
    """An error as the service words it."""
    return {"error": {"code": code, "message": message, "errors": [{"reason": reason, "message": message, "domain": "global"}]}}


def _spoken(statement: str) -> str:
    """The same in DuckDB's words: literals and names by their meaning, and what stands between them by SPELLED."""
    texts: list[str] = []

    def kept(found: re.Match[str]) -> str:
        quote, inside = found[0][0], re.sub(r"\\u([0-9a-f]{4})", lambda code: chr(int(code[1], 16)), found[0][1:-1])
        texts.append("'" + inside.replace("'", "''") + "'" if quote == "'" else '"' + inside.replace('"', '""') + '"')
        return f"{'' if quote == '`' else quote}\0{len(texts) - 1}\0"

    bare = QUOTED.sub(kept, statement)
    for word, other in SPELLED.items():
        bare = bare.replace(word, other)
    return re.sub(r"'?\0(\d+)\0", lambda found: texts[int(found[1])], bare)


def _schema(relation: Any) -> Any:
    return {"fields": [_field(name, str(kind)) for name, kind in zip(relation.columns, relation.types, strict=True)]}


def _field(name: str, kind: str) -> Any:
    word = kind.removesuffix("[]")
    word = "RECORD" if word.startswith("STRUCT") else "NUMERIC" if word.startswith("DECIMAL") else TYPES.get(word, word)
    return {"name": name, "type": word, "mode": "REPEATED" if kind.endswith("[]") else "NULLABLE"}


def _value(cell: Any) -> Any:
    """Every value is text, of doubles those too that JSON has no word for; lists are lists of such."""
    if isinstance(cell, list):
        return [{"v": _value(one)} for one in cell]
    if isinstance(cell, datetime):
        return repr(cell.timestamp()) if cell.tzinfo else cell.isoformat()
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, float) and (cell != cell or abs(cell) == float("inf")):
        return "NaN" if cell != cell else "Infinity" if cell > 0 else "-Infinity"
    return None if cell is None else str(cell)
