"""A real HTTP server on a loopback port, in threads, that answers what it is told to or misbehaves in one named way."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answers = Callable[[str, str, Any], tuple[int, Any]]
CUT = "cut"  # among events: the connection ends here
GONE = 0, None  # in place of an answer: the connection ends without one

FAULTS = {  # what goes over the wire instead of an answer
    "broken": (500, "application/json", b'{"error": "out of memory"}'),
    "nan": (200, "application/json", b'{"outputs": [NaN], "version": NaN}'),
    "html": (200, "text/html", b"<h1>sign in</h1>"),
    "redirect": (302, "text/html", b""),
    "cut": (200, "application/json", b'{"outputs": ['),
    "list": (200, "application/json", b"[1, 2]"),
}


class Loopback:
    """`answers(method, path, body)` gives (status, JSON), or an iterator of server-sent events in place of the JSON.

    `fault` names one of FAULTS, or "hang"; every request is kept in `requests`.
    """

    def __init__(self, answers: Answers) -> None:
        self.fault, self.requests, self.released, self.kept = "", [], threading.Event(), []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else head and body, sent apart, wait 40 ms for each other

            def setup(self) -> None:
                super().setup()
                server.kept.append(self.connection)

            def do_GET(self) -> None:
                content = self.rfile.read(int(self.headers.get("content-length", 0)))
                server.requests.append((self.command, self.path, dict(self.headers.items()), content))
                if server.fault == "hang":
                    server.released.wait(30)
                status, kind, body = FAULTS.get(server.fault) or _json(*_answered(answers, self.command, self.path, content, server.read))
                if status == GONE[0]:
                    self.close_connection = True
                    return
                if not isinstance(body, bytes):
                    self._streamed(body)
                    return
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                if status == 302:
                    self.send_header("location", "http://elsewhere.example/")
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = status == 500  # without having said so: as uvicorn does when an application raises

            def _streamed(self, events: Iterable[str]) -> None:
                """Server-sent events, each in a chunk of its own; CUT among them ends the connection there."""
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                for event in events:
                    if event == CUT:
                        self.close_connection = True
                        return
                    data = f"data: {event}\n\n".encode()
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.write(b"0\r\n\r\n")

            do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

            def log_message(self, *_: object) -> None: ...

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._http.handle_error = lambda *_: None  # a client that gave up is what some tests are about
        self.address = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def read(self, content: bytes) -> Any:
        """A request's body, as `answers` is given it."""
        return json.loads(content or b"null")

    def stop(self) -> None:
        """As when the process ends: nobody listens, and connections that were kept are closed."""
        self.released.set()
        self._http.shutdown()
        self._http.server_close()
        for connection in self.kept:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _answered(answers: Answers, method: str, path: str, content: bytes, read: Callable[[bytes], Any]) -> tuple[int, Any]:
    """What breaks while answering is a 500, as it is with a web framework."""
    try:
        return answers(method, path, read(content))
    except Exception as problem:
        return 500, {"error": repr(problem)}


def _json(status: int, body: Any) -> tuple[int, str, Any]:
    if isinstance(body, Iterator):
        return status, "text/event-stream", body
    return status, "application/json", b"" if status == 204 else json.dumps(body).encode()
