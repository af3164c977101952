"""A version pointer for MLServer, which has none: GET and POST /version, for Watchkeeper's `hook+http://` router.

    python -m examples.mlserver.switch --mlserver http://127.0.0.1:8080 --repository repository --port 8090

POST {"to": "1", "expected": "2"} answers 200 {"version": "1"}, or 409 with the version that is really served. Standard library only.
"""

from __future__ import annotations

import argparse
import http.client
import json
import signal
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from examples.mlserver.repository import MODEL, show, versions

Reply = tuple[int, Mapping[str, Any]]


class Switch:
    """Reads what MLServer serves from MLServer alone, and moves it by showing and hiding versions and having it load again."""

    def __init__(self, mlserver: str, repository: Path) -> None:
        self.mlserver, self.repository = urlsplit(mlserver).netloc, repository
        self._lock = threading.Lock()

    def served(self) -> str | None:
        """The highest version that is ready; the repository's index would not do, it calls what is on disk ready."""
        ready = [version for version in versions(self.repository) if self._ask("GET", f"/v2/models/{MODEL}/versions/{version}/ready") == 200]
        return ready[-1] if ready else None

    def move(self, to: str, expected: str) -> Reply:
        """Compare and set, one at a time. A version that does not load is hidden again."""
        with self._lock:
            actual = self.served()
            if actual != expected:
                return 409, {"version": actual, "error": f"version {actual} is served, not {expected!r:.60}"}
            if to not in versions(self.repository):
                return 404, {"version": actual, "error": f"there is no version {to!r:.60}"}
            show(self.repository, to)
            status = self._load()
            if status == 200 and self.served() == to:
                return 200, {"version": to}
            show(self.repository, expected)
            self._load()
            return 502, {"version": self.served(), "error": f"MLServer did not load version {to}: HTTP {status}"}

    def _load(self) -> int:
        return self._ask("POST", f"/v2/repository/models/{MODEL}/load")

    def _ask(self, method: str, path: str) -> int:
        connection = http.client.HTTPConnection(self.mlserver, timeout=10)
        try:
            connection.request(method, path)
            return connection.getresponse().status
        finally:
            connection.close()


def handler(switch: Switch) -> type[BaseHTTPRequestHandler]:
    """The two requests, as http.server wants them."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._reply(lambda: (200, {"version": switch.served()}))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            self._reply(lambda: self._moved(body))

        def _moved(self, body: bytes) -> Reply:
            try:
                asked = json.loads(body)
                to, expected = asked["to"], asked["expected"]
            except (ValueError, TypeError, KeyError):
                return 400, {"error": 'the body must be JSON: {"to": version, "expected": version}'}
            return switch.move(to, expected)

        def _reply(self, answer: Any) -> None:
            try:
                status, said = answer() if self.path == "/version" else (404, {"error": "there is only /version"})
            except (OSError, http.client.HTTPException) as problem:
                status, said = 502, {"error": f"MLServer does not answer: {problem}"}
            body = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser(description="A version pointer for MLServer.")
    parser.add_argument("--mlserver", required=True, help="where MLServer is: http://host:port")
    parser.add_argument("--repository", type=Path, required=True, help="its model repository, as laid by examples.mlserver.repository")
    parser.add_argument("--port", type=int, default=8090, help="0 takes a free one")
    given = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", given.port), handler(Switch(given.mlserver, given.repository)))
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"switch at http://127.0.0.1:{server.server_port} of MLServer at {given.mlserver}", flush=True)
    server.serve_forever(0.1)
    server.server_close()


if __name__ == "__main__":
    main()
