"""Tables of BigQuery, counted there and never fetched: `bigquery:project/dataset/table`, or by another endpoint `bigquery+https://host/project/...`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from agent import Json, Kind, Locator, adapter
from agent.errors import AnswerError, ConfigError, DataError, DeadlineError, DeniedError, ServerError, WatchkeeperError
from agent.targets._counted import Counted, CountedSource
from agent.targets._dialect import BIGQUERY
from agent.targets._sql import Stored, Where, nearest, path_of
from agent.wire import Reply, Wire, deadline, remaining

SERVICE = "https://bigquery.googleapis.com"
OPTIONS = {"location": "location", "max_bytes": "maximumBytesBilled"}  # of the URL, and what the API calls them
PAGE = 10_000  # rows of one answer
LONGEST = 10.0  # seconds that one exchange lets the service wait for the rows
PAUSE = 0.1
FAREWELL = timedelta(seconds=1)  # for saying that nobody waits any more, when there is no time left
BUSY = ("rateLimitExceeded", "quotaExceeded", "jobRateLimitExceeded", "backendError", "internalError", "jobBackendError", "jobInternalError")
KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("INTEGER", "INT64"), "integer"),
    **dict.fromkeys(("FLOAT", "FLOAT64", "NUMERIC", "BIGNUMERIC"), "number"),
    **dict.fromkeys(("BOOLEAN", "BOOL"), "boolean"),
    **dict.fromkeys(("TIMESTAMP", "DATETIME", "DATE"), "time"),
    "STRING": "text",
    "BYTES": "bytes",
}
READ: Mapping[str, Callable[[str], Any]] = {  # every value comes as text
    **dict.fromkeys(("INTEGER", "INT64"), int),
    **dict.fromkeys(("FLOAT", "FLOAT64", "NUMERIC", "BIGNUMERIC", "TIMESTAMP"), float),  # a timestamp in seconds
    **dict.fromkeys(("BOOLEAN", "BOOL"), {"true": True, "false": False}.__getitem__),
    "DATETIME": datetime.fromisoformat,
    "STRING": str,
}


@adapter(role="table", schemes=("bigquery",))
class BigQuery(Counted):
    """A table or view, by BigQuery's REST API. `?location=`, `?billing=` (the project that asks and pays), `?max_bytes=` (of one statement)."""

    def __init__(self, at: Locator) -> None:
        super().__init__(BigQuerySource(at), at.options)


class BigQuerySource(CountedSource):
    """Statements asked one by one: each sees the table as it is then."""

    dialect = BIGQUERY

    def __init__(self, at: Locator) -> None:
        if "+" not in at.url.partition(":")[0]:
            at = replace(at, url=f"bigquery+{SERVICE}/{path_of(at)}")
        url = urlsplit(at.address)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        self.place = f"bigquery:{'/'.join(parts)}"
        if len(parts) != 3 or not all(part.strip(".") for part in parts):
            raise ConfigError(f"{at.service}.{at.role}: the URL names no table; write bigquery:project/dataset/table")
        asked = _options(url.query, f"{at.service}.{at.role}: {self.place}")
        self._relation = ".".join(map(BIGQUERY.name, parts))
        project, dataset, table = (quote(part, safe="") for part in parts)
        self._table = f"/bigquery/v2/projects/{project}/datasets/{dataset}/tables/{table}"
        self._asking = f"/bigquery/v2/projects/{quote(asked.pop('billing', parts[0]), safe='')}"
        self._limits = {OPTIONS[name]: value for name, value in asked.items()}
        self._at, self._wire = at, Wire(at)

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()

    def relation(self) -> str:
        """Project, dataset and table."""
        return self._relation

    def stored(self, where: Where | None) -> Mapping[str, Stored]:
        """The columns of the table."""
        with deadline(self._at.within):
            answer = self._exchanged("GET", self._table)
        try:
            return {str(field["name"]): _stored(field) for field in _fields(answer)}
        except (TypeError, KeyError) as problem:
            raise AnswerError(f"{self.place}: the answer describes no table with columns: {str(answer)[:200]}") from problem

    def ask(self, statements: Sequence[str]) -> list[list[Sequence[Any]]]:
        """The rows that each statement answers."""
        with deadline(self._at.within):
            return [self._rows(statement) for statement in statements]

    def _rows(self, statement: str) -> list[Sequence[Any]]:
        said = {
            "query": statement,
            "useLegacySql": False,
            "useQueryCache": True,
            "timeoutMs": _patience(),
            "maxResults": PAGE,
            "connectionProperties": [{"key": "time_zone", "value": "UTC"}],  # a project may have another of its own
            "labels": {"asked_by": "watchkeeper"},
        }
        answer = self._exchanged("POST", f"{self._asking}/queries", json=said | self._limits)
        job = answer.get("jobReference")
        return self._paged(self._finished(answer, job), job)

    def _finished(self, answer: Mapping[str, Json], job: Json) -> Mapping[str, Json]:
        """The answer that has rows; a job that is not waited for to its end is cancelled."""
        try:
            while not _complete(answer, self.place):
                answer = self._more(job, timeoutMs=str(_patience()))
                if not _complete(answer, self.place):
                    time.sleep(PAUSE)
        except WatchkeeperError:
            Context().run(self._cancelled, job)  # out of the deadline, which may be over
            raise
        return answer

    def _paged(self, answer: Mapping[str, Json], job: Json) -> list[Sequence[Any]]:
        try:
            reads, total = [_reader(field) for field in _fields(answer)], int(answer["totalRows"])
            rows: list[Sequence[Any]] = [_cells(row, reads) for row in answer.get("rows") or ()]
            while answer.get("pageToken") and len(rows) < total:
                answer = self._more(job, pageToken=str(answer["pageToken"]))
                rows += [_cells(row, reads) for row in answer.get("rows") or ()]
        except (TypeError, KeyError, ValueError) as problem:
            raise AnswerError(f"{self.place}: the answer holds no counts ({problem!r}): {str(answer)[:200]}") from problem
        if len(rows) != total:
            raise AnswerError(f"{self.place}: of {total:,} rows of the answer {len(rows):,} came")
        return rows

    def _more(self, job: Json, **params: str) -> Mapping[str, Json]:
        path, place = self._job(job, "queries")
        return self._exchanged("GET", path, place | params | {"maxResults": str(PAGE)})

    def _job(self, job: Json, under: str) -> tuple[str, dict[str, str]]:
        """Where a job is asked about, on this server and in this project whatever an answer says; and its location, which must be said."""
        name, place = (job.get("jobId"), job.get("location") or self._limits.get("location")) if isinstance(job, dict) else (None, None)
        if not name or not str(name).strip("."):
            raise AnswerError(f"{self.place}: the answer is not complete, and names no job to wait for")
        return f"{self._asking}/{under}/{quote(str(name), safe='')}", {"location": str(place)} if place else {}

    def _cancelled(self, job: Json) -> None:
        """Tell the service that nobody waits any more; what was looked through by then may be billed."""
        try:
            path, place = self._job(job, "jobs")
            with deadline(FAREWELL):
                self._wire.request("POST", f"{path}/cancel", params=place, anyway=True)
        except WatchkeeperError:
            return

    def _exchanged(self, method: str, path: str, params: Mapping[str, str] | None = None, json: Json = None) -> Mapping[str, Json]:
        reply = self._wire.request(method, path, params={"prettyPrint": "false", **(params or {})}, json=json, anyway=True)
        if reply.status != 200:
            raise self._told(reply)
        answer = reply.json()
        if not isinstance(answer, dict):
            raise AnswerError(f"{self.place}: the answer is none of BigQuery's: {reply.excerpt()!r}")
        return answer

    def _told(self, reply: Reply) -> WatchkeeperError:
        reason, message = _reason(reply)
        words = f"{self.place}: {reply.status} {reason}: {message}"
        if reply.status >= 500 or reply.status == 429 or reason in BUSY:
            return ServerError(words, reply.status)
        if reply.status == 401:
            return DeniedError(f"{words}; an access token lasts an hour: renew it, and have the agent read its configuration again (SIGHUP)")
        if reply.status == 403:
            return DeniedError(f"{words}; it takes bigquery.jobs.create in the project that asks, bigquery.tables.get and getData on the table")
        if reason in ("stopped", "timeout"):
            return DeadlineError(words)
        return DataError(words) if reply.status in (400, 404) else AnswerError(words, reply.status)


def _options(query: str, whose: str) -> dict[str, str]:
    asked = {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}
    known = (*OPTIONS, "billing")
    if unknown := [name for name in asked if name not in known]:
        raise ConfigError(f"{whose} has no option {unknown[0]}{nearest(unknown[0], known)}")
    if empty := [name for name, value in asked.items() if not value.strip(".")]:
        raise ConfigError(f"{whose}: ?{empty[0]}= says nothing")
    if not asked.get("max_bytes", "1").isdecimal():
        raise ConfigError(f"{whose}: ?max_bytes= is a whole number of bytes, not {asked['max_bytes']!r}")
    return asked


def _patience() -> int:
    """How long the service may wait before it answers, in milliseconds: an answer without rows must still come in time."""
    left = remaining()
    return int(1000 * min(LONGEST, LONGEST if left is None else left / 2))


def _complete(answer: Mapping[str, Json], place: str) -> bool:
    done = answer.get("jobComplete")
    if not isinstance(done, bool):
        raise AnswerError(f"{place}: the answer does not say whether it is complete: {str(answer)[:200]}")
    return done


def _reason(reply: Reply) -> tuple[str, str]:
    """BigQuery's own word for an error, and its message; of an answer in another form what it says."""
    try:
        error = reply.json()["error"]
        return str(error["errors"][0]["reason"]), str(error["message"])[:300]
    except (AnswerError, TypeError, KeyError, IndexError):
        return "", repr(reply.excerpt())


def _fields(answer: Mapping[str, Json]) -> Sequence[Mapping[str, Json]]:
    fields: Sequence[Mapping[str, Json]] = answer["schema"]["fields"]
    return fields


def _stored(field: Mapping[str, Json]) -> Stored:
    kind = KINDS.get(field["type"], "other")
    return Stored("list", of=kind) if field.get("mode") == "REPEATED" else Stored(kind, naive=field["type"] in ("DATETIME", "DATE"))


def _reader(field: Mapping[str, Json]) -> Callable[[str], Any]:
    read = READ[field["type"]]
    if field.get("mode") == "REPEATED":
        raise ValueError(f"{field['type']} repeated")
    return read


def _cells(row: Json, reads: Sequence[Callable[[str], Any]]) -> list[Any]:
    """{"f": [{"v": "1"}, {"v": null}]} as values."""
    return [None if cell["v"] is None else read(_text(cell["v"])) for cell, read in zip(row["f"], reads, strict=True)]


def _text(value: Json) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a value that is no text: {value!r}"[:80])
    return value
