"""A program that takes its time to start: it listens on the port it is given, answers 503 to so many requests first, and then well.

`python tests/servers/starting.py PORT BAD`; with BAD below 0 it ends at once, with words and status 3.
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    left = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        ready, Handler.left = Handler.left <= 0, Handler.left - 1
        body = b'{"y": [2.0]}' if ready else b'{"error": "loading"}'
        self.send_response(200 if ready else 503)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = not ready

    def log_message(self, *_: object) -> None: ...


if __name__ == "__main__":
    port, Handler.left = map(int, sys.argv[1:])
    if Handler.left < 0:
        sys.stderr.write("not today\n")
        sys.exit(3)
    HTTPServer(("127.0.0.1", port), Handler).serve_forever()
