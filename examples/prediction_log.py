"""An ASGI middleware that logs predictions to SQLite, for teams without a log. One file, standard library only: copy it.

    app = PredictionLog(app, "predictions.db")                        # Starlette, FastAPI: app.add_middleware(PredictionLog, path=...)

It never slows or breaks a request: rows go through a bounded queue to one thread, and when the disk fails they are counted in `dropped`.
Write a `describe(request, response)` for bodies other than the Open Inference Protocol's: it gives one dict for each thing predicted.
"""

from __future__ import annotations

import json
import logging
import queue
import sqlite3
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Describe = Callable[[Any, Any], Iterator[Mapping[str, Any]]]
MOST = 1 << 18  # bytes kept of a body; what is longer is logged cut off
COLUMNS = ("request_id", "at", "model", "version", "status", "seconds", "inputs", "prediction", "score", "error", "probe")
TABLE = """CREATE TABLE IF NOT EXISTS predictions (request_id TEXT, at TEXT, model TEXT, version TEXT, status INTEGER, seconds REAL,
inputs TEXT, prediction TEXT, score REAL, error TEXT, probe INTEGER)"""
INDEX = "CREATE INDEX IF NOT EXISTS predictions_at ON predictions (at)"  # who looks at the last minute must not read last month


def describe(request: Any, response: Any) -> Iterator[Mapping[str, Any]]:
    """Open Inference Protocol: a row for each example of the first input, with the first output as prediction, the second's highest as score."""
    inputs, outputs = request["inputs"][0], response.get("outputs", [])
    rows = _examples(inputs["data"], inputs.get("shape"))
    shares = [_shared(output["data"], rows) for output in outputs]
    for place, values in enumerate(_shared(inputs["data"], rows)):
        yield {
            "request_id": request["id"] if rows == 1 else f"{request['id']}:{place}",
            "model": response.get("model_name"),
            "version": response.get("model_version"),
            "inputs": values,
            "prediction": shares[0][place][0] if shares else None,
            "score": max(shares[1][place]) if len(shares) > 1 else None,
        }


def _examples(data: Any, shape: Any) -> int:
    """How many the batch holds; 1, and so left whole, when its data does not divide into what its shape says."""
    stated = shape[0] if isinstance(shape, list) and len(shape) > 1 and isinstance(shape[0], int) else 1
    return stated if isinstance(data, list) and stated > 0 and data and len(data) % stated == 0 else 1


def _shared(data: Any, rows: int) -> list[Any]:
    """Flat or nested data as one list for each example."""
    if not isinstance(data, list):
        return [data]
    if len(data) == rows and isinstance(data[0], list):
        return data
    size = len(data) // rows
    return [data[place * size : (place + 1) * size] for place in range(rows)]


class PredictionLog:
    """Wraps an ASGI application and logs each POST to a path that ends in `suffix`, refused ones too."""

    def __init__(self, app: Any, path: str | Path, describe: Describe = describe, suffix: str = "/infer", room: int = 10_000) -> None:
        self.app, self.path, self.describe, self.suffix = app, path, describe, suffix
        self.written = self.dropped = 0
        self._database: sqlite3.Connection | None = None
        self._queue: queue.Queue[Any] = queue.Queue(room)
        self._thread = threading.Thread(target=self._write, name="prediction log", daemon=True)
        self._thread.start()

    async def __call__(self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            self.close()
            return
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].endswith(self.suffix):
            await self.app(scope, receive, send)
            return
        seen: dict[str, Any] = {"asked": bytearray(), "said": bytearray(), "status": 500, "at": time.time()}
        seen["probe"] = any(name.lower() == b"x-watchkeeper-probe" for name, _ in scope["headers"])
        began = time.perf_counter()

        async def heard() -> Any:
            message = await receive()
            seen["asked"] += message.get("body", b"")[: MOST - len(seen["asked"])]
            return message

        async def told(message: Any) -> None:
            seen["status"] = message.get("status", seen["status"])
            seen["said"] += message.get("body", b"")[: MOST - len(seen["said"])]
            await send(message)

        try:
            await self.app(scope, heard, told)
        finally:
            self.keep({**seen, "seconds": time.perf_counter() - began})

    def close(self, within: float = 5.0) -> None:
        """Writes what waits and stops; called by itself when the server shuts down."""
        with suppress(queue.Full):
            self._queue.put(None, timeout=within)
        self._thread.join(within)

    def keep(self, seen: Mapping[str, Any]) -> None:
        """Logs one exchange: at, seconds, status, probe, and the bodies asked and said as bytes. For servers that take no middleware."""
        try:
            self._queue.put_nowait(seen)
        except queue.Full:
            self.dropped += 1

    def _write(self) -> None:
        batch: list[Any] = []
        self._store([])  # so that the table is there before the first request
        while None not in batch:  # None is what close() sends
            batch = [self._queue.get()]
            while len(batch) < 500 and not self._queue.empty():
                batch.append(self._queue.get())
            self._store([row for seen in batch if seen for row in self._rows(seen)])
        if self._database:
            self._database.close()

    def _store(self, rows: list[tuple[Any, ...]]) -> None:
        try:
            self._database = self._database or _opened(self.path)
            with self._database:
                self._database.executemany(f"INSERT INTO predictions VALUES ({', '.join('?' * len(COLUMNS))})", rows)  # noqa: S608 - only marks
            self.written += len(rows)
        except Exception as problem:  # noqa: BLE001 - the thread must outlive whatever the disk and SQLite come up with
            self.dropped += len(rows)
            self._database = None  # opened anew next time: the disk may have come back
            logging.getLogger(__name__).warning("%d predictions were not logged to %s: %s", len(rows), self.path, problem)

    def _rows(self, seen: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """What is certain of every row, and what `describe` makes of the bodies; a body it cannot read is logged as the text it was."""
        known = {"at": datetime.fromtimestamp(seen["at"], UTC).isoformat(timespec="microseconds"), "probe": int(seen["probe"])}
        known |= {"status": seen["status"], "seconds": seen["seconds"], "request_id": uuid.uuid4().hex}
        response = _read(seen["said"])
        error = str(response["error"])[:500] if isinstance(response, dict) and "error" in response else None
        request = _read(seen["asked"])
        try:
            named = {"id": known["request_id"], **request}
            described = [{**known, "error": error, **row} for row in self.describe(named, response if isinstance(response, dict) else {})]
        except Exception:  # noqa: BLE001 - anything may be sent, and a row less would hide it
            described = [{**known, "error": error, "inputs": bytes(seen["asked"]).decode("utf-8", "replace")[:1000]}]
        return [tuple(_text(row.get(column)) if column == "inputs" else _cell(row.get(column)) for column in COLUMNS) for row in described]


def _opened(path: str | Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=2)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute(TABLE)
    database.execute(INDEX)
    return database


def _read(body: bytes) -> Any:
    try:
        return json.loads(body, parse_constant=lambda word: None)
    except (ValueError, RecursionError):
        return None


def _text(values: Any) -> str:
    """JSON that every reader takes: NaN and what does not fit a double become null."""
    return json.dumps(json.loads(json.dumps(values), parse_constant=lambda word: None))


def _cell(value: Any) -> Any:
    """As SQLite can hold it: integers of 64 bits, text that is UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 63):
        return value
    return json.dumps(value)
