"""What a load test sends: requests from one example, golden rows, a table or a file, laid in the file that the traffic program goes round."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit

from agent import Columns, Json, Registry, Sent, Server, fill, golden_rows, logged
from agent.errors import CannotError, ConfigError, DataError

LINE = 8 * 2**20  # bytes of one request
MOST = 100_000  # rows of a table: their newest are sought in memory
WHOLE = 256 * 2**20  # bytes of all of them: every generator process holds them
NOTHING = (
    "no request to send: set `with: {request: ...}`, or `requests:` to a file of one JSON request a line, or record golden rows where the model is "
    "trained: `from agent.targets.folder import record`"
)


@dataclass(frozen=True)
class Laid:
    """A file of requests: how many, where they are from, and the first as it is sent. Its method, url and headers are those of all.

    `sent` holds a credential, and the file holds none.
    """

    n: int
    source: str
    sent: Sent


def written(
    path: Path,
    server: Server,
    registry: Registry | None = None,
    live: Columns | None = None,
    *,
    request: Json = None,
    requests: str = "",
    rows: int = 1000,
) -> Laid | None:
    """Lays requests in `path`, a line {"body": text} each, with "path" where it is not the first one's; None (NOTHING says why) when there are none.

    They are, in this order: the lines of the file `requests`; the newest `rows` inputs of the live table, put into `request` or else into a golden
    request; `request` itself; the golden rows of the version served. DataError: a file that cannot be read or is too large, naming file and line; a
    request without a place for the inputs. ConfigError: more than 100,000 rows. CannotError: this server's requests cannot be sent many times over.
    """
    if not 0 <= rows <= MOST:
        raise ConfigError(f"rows: {rows:,} should be between 0 and {MOST:,}; give more as a file of `requests`")
    if "load" not in server.can:
        raise CannotError("this server's adapter does not say what a request is on the wire (`load` in `can`), so none can be sent many times over")
    for source, found in _sources(server, registry, live, request, requests, rows):
        first = next(found, None)
        if first is not None:
            return _laid(path, server, source, chain((first,), found))
    return None


def _sources(
    server: Server, registry: Registry | None, live: Columns | None, request: Json, requests: str, rows: int
) -> Iterator[tuple[str, Iterator[Json]]]:
    if requests:
        yield Path(requests).name, _lines(Path(requests))
        return
    golden = [] if request is not None else [row.request for row in golden_rows(server, registry)]
    template = golden[0] if golden else request
    if live is not None and rows and template is not None:
        yield "the newest rows of the live table", _filled(template, live, rows)
    if golden:
        yield "golden rows", iter(golden)
    elif request is not None and "{inputs}" not in json.dumps(request):
        yield "one request", iter((request,))


def _filled(template: Json, live: Columns, rows: int) -> Iterator[Json]:
    for inputs in logged(live, rows):
        if inputs is None:
            continue
        filled = fill(template, inputs)
        if filled is None:
            raise DataError(f"the request has no place for what the table logged ({inputs!r:.80}): write {{inputs}} in `with: {{request: ...}}`")
        yield filled


def _lines(file: Path) -> Iterator[Json]:
    """One JSON value a line; blank lines, a byte order mark and either line end are nothing to complain of."""
    n = 0
    try:
        with file.open("rb") as opened:
            for number, line in enumerate(iter(lambda: opened.readline(LINE + 1), b""), 1):
                if text := line.removeprefix(b"\xef\xbb\xbf" if number == 1 else b"").strip():
                    n += 1
                    yield _parsed(text, f"{file}, line {number}")
    except OSError as problem:
        raise DataError(f"{file}: cannot be read ({problem.strerror}); name a file of one JSON request a line") from problem
    if not n:
        raise DataError(f"{file}: holds no request; write one JSON request a line")


def _parsed(text: bytes, where: str) -> Json:
    if len(text) > LINE:
        raise DataError(f"{where}: longer than {LINE // 2**20} MiB; write one JSON request a line")
    try:
        found = json.loads(text.decode())
    except UnicodeDecodeError as problem:
        raise DataError(f"{where}: no UTF-8 at byte {problem.start + 1}; write the file as UTF-8") from problem
    except (ValueError, RecursionError) as problem:
        said = "it is nested too deeply" if isinstance(problem, RecursionError) else problem
        raise DataError(f"{where}: no JSON ({said}); each line is one whole request") from problem
    if found is None:
        raise DataError(f"{where}: null is no request; leave the line out")
    return found


def _laid(path: Path, server: Server, source: str, requests: Iterator[Json]) -> Laid:
    """One request in memory at a time."""
    n, size, first = 0, 0, None
    with path.open("wb") as out:
        for n, request in enumerate(requests, 1):
            sent = _sent(server, request, f"{source}, request {n}")
            first = first or sent
            size += out.write(_line(sent, first))
            if size > WHOLE:
                raise DataError(f"{source}: {n:,} requests are more than {WHOLE // 2**20} MiB; give fewer, they are sent again and again")
    assert first, "there is a first request"
    return Laid(n, source, first)


def _sent(server: Server, request: Json, where: str) -> Sent:
    try:
        return server.request(request)
    except CannotError as problem:
        raise CannotError(f"{where}: {problem}") from problem


def _line(sent: Sent, first: Sent) -> bytes:
    at = urlsplit(sent.url)
    place = {} if sent.url == first.url else {"path": f"{at.path}?{at.query}" if at.query else at.path}
    return json.dumps({"body": sent.body.decode(), **place}, separators=(",", ":")).encode() + b"\n"
