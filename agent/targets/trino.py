"""Tables that Trino reads, counted there and never fetched: `trino+https://trino.example.org/hive/ml/predictions` (catalog, schema, table)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from contextvars import Context
from datetime import timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

from agent import Json, Kind, Locator, adapter
from agent.errors import AnswerError, ConfigError, DataError, DeadlineError, DeniedError, ServerError, WatchkeeperError
from agent.targets._counted import Counted, CountedSource
from agent.targets._dialect import TRINO
from agent.targets._sql import Stored, Where
from agent.wire import Wire, deadline

AGAIN = (502, 503, 504)  # "ask again", says the protocol
PAUSE = 0.1
FAREWELL = timedelta(seconds=1)  # for saying that nobody waits any more, when there is no time left
NAMES: Mapping[str, Kind] = {
    **dict.fromkeys(("tinyint", "smallint", "integer", "bigint"), "integer"),
    **dict.fromkeys(("real", "double", "decimal"), "number"),
    **dict.fromkeys(("varchar", "char", "uuid"), "text"),
    **dict.fromkeys(("timestamp", "date"), "time"),
    "boolean": "boolean",
    "varbinary": "bytes",
}


@adapter(role="table", schemes=("trino",))
class Trino(Counted):
    """A table or view, by Trino's client protocol over HTTP. A credential of kind basic also says who asks; without one it is `watchkeeper`."""

    def __init__(self, at: Locator) -> None:
        super().__init__(TrinoSource(at), at.options)


class TrinoSource(CountedSource):
    """Statements asked one by one: each sees the table as it is then."""

    dialect = TRINO

    def __init__(self, at: Locator) -> None:
        self._at, self._wire = at, Wire(at)
        parts = [unquote(part) for part in urlsplit(at.address).path.strip("/").split("/")]
        self.place = f"trino:{'/'.join(parts)}"
        if len(parts) != 3 or not all(parts):
            raise ConfigError(f"{at.service}.{at.role}: the URL names no table; write trino+https://host/catalog/schema/table")
        self._relation = ".".join(map(TRINO.name, parts))
        user = at.look.values["user"].strip() if at.look and at.look.kind == "basic" else "watchkeeper"
        self._said = {"X-Trino-User": user, "X-Trino-Source": "watchkeeper", "X-Trino-Time-Zone": "UTC"}

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()

    def relation(self) -> str:
        """Catalog, schema and table."""
        return self._relation

    def stored(self, where: Where | None) -> Mapping[str, Stored]:
        """The columns of the table."""
        ((*rows,),) = self.ask([f"DESCRIBE {self._relation}"])
        return {str(name): _stored(str(kind)) for name, kind, *_ in rows}

    def ask(self, statements: Sequence[str]) -> list[list[Sequence[Any]]]:
        """The rows that each statement answers."""
        with deadline(self._at.within):
            return [self._rows(statement) for statement in statements]

    def _rows(self, statement: str) -> list[Sequence[Any]]:
        rows: list[Sequence[Any]] = []
        answer = self._exchanged("POST", "/v1/statement", statement.encode())
        while True:
            rows += answer.get("data") or []
            if answer.get("error"):
                raise self._told(answer["error"])
            if not answer.get("nextUri"):
                return rows
            page = urlsplit(str(answer["nextUri"]))  # only where it points to on this server: no answer sends us elsewhere
            answer = self._followed(page.path + (f"?{page.query}" if page.query else ""))

    def _followed(self, path: str) -> Mapping[str, Json]:
        try:
            return self._exchanged("GET", path)
        except DeadlineError:
            Context().run(self._cancelled, path)  # out of the deadline, which is over
            raise

    def _cancelled(self, path: str) -> None:
        """Tell the server that nobody waits any more; whether it hears that is not waited for long."""
        with suppress(WatchkeeperError), deadline(FAREWELL):
            Wire(self._at).request("DELETE", path, headers=self._said, anyway=True)

    def _exchanged(self, method: str, path: str, content: bytes | None = None) -> Mapping[str, Json]:
        reply = self._wire.request(method, path, content=content, headers=self._said, anyway=True)
        while reply.status in AGAIN:
            time.sleep(PAUSE)
            reply = self._wire.request(method, path, content=content, headers=self._said, anyway=True)
        if reply.status in (401, 403):
            raise DeniedError(f"{self.place}: {reply.status}, this credential may not ask: {reply.excerpt()!r}")
        if reply.status != 200:
            raise (ServerError if reply.status >= 500 else AnswerError)(f"{self.place}: {reply.status}: {reply.excerpt()!r}", reply.status)
        answer = reply.json()
        if not isinstance(answer, dict):
            raise AnswerError(f"{self.place}: the answer is no Trino statement: {reply.excerpt()!r}")
        return answer

    def _told(self, error: Json) -> WatchkeeperError:
        told = error if isinstance(error, dict) else {}
        name, words = str(told.get("errorName")), f"{self.place}: {str(told.get('message'))[:300]}"
        if name == "PERMISSION_DENIED":
            return DeniedError(f"{words}; grant SELECT on it to the user that looks")
        if name in ("EXCEEDED_TIME_LIMIT", "USER_CANCELED"):
            return DeadlineError(words)
        return DataError(words) if told.get("errorType") == "USER_ERROR" else ServerError(words)


def _stored(kind: str) -> Stored:
    if kind.startswith("array("):
        return Stored("list", of=_kind(kind[6:-1]))
    return Stored(_kind(kind), naive="time zone" not in kind)


def _kind(name: str) -> Kind:
    return NAMES.get(name.partition("(")[0].partition(" ")[0], "other")
