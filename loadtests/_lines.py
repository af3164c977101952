"""Connections of the traffic program: one request at a time on each, written and read by callbacks of gevent's loop.

A greenlet for each request costs more than the request: here the loop calls the connection when bytes are there, and the watcher that it waits
with stays in place, so that an exchange is one send, one recv and a share of one epoll_wait. The parser is geventhttpclient's (llhttp).
"""

from __future__ import annotations

import socket
import ssl
import time
from typing import Any, Protocol

from geventhttpclient._parser import HTTPParseError, HTTPResponseParser

READ, WRITE = 1, 2  # gevent's events of a watcher
CHUNK = 1 << 16  # bytes read at once
MOST_BYTES = 64 * 2**20  # of one answer: beyond it nothing more is learnt from an endless one
AGAIN = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
clock = time.perf_counter
_nothing: Any = staticmethod({}.get)  # the cheapest callable there is that takes one argument and gives None


class Answers(HTTPResponseParser):
    """What is kept of an answer: whether it is whole, and its body where somebody wants it."""

    _on_status = _on_header_field = _on_header_value = _nothing

    def __init__(self, bodiless: bool, taker: Any) -> None:
        super().__init__()
        self.bodiless, self.taker = bodiless, taker
        self.whole, self.extra, self.code = False, False, 0

    def _on_message_begin(self) -> None:
        self.extra = self.whole

    def _on_headers_complete(self) -> bool:
        return self.bodiless

    def _on_body(self, data: Any) -> None:
        if self.taker and not self.extra:
            self.taker(bytes(data))

    def _on_message_complete(self) -> None:
        if not self.whole:
            self.code = self.get_code()
            self.whole = self.code >= 200  # an interim answer is not one


class Owner(Protocol):
    """What a line tells about itself."""

    def answered(self, line: Line, now: float, status: int) -> None:
        """The whole answer was there at `now` (perf_counter)."""

    def broken(self, line: Line, why: str, malformed: bool) -> None:
        """The connection is of no more use; `line.request` is the request in flight, or -1."""

    def body(self, line: Line, data: bytes) -> None:
        """A piece of the body of the request in flight."""


class Line:
    """One open connection; the socket does not block. `request` is the place of the request in flight, -1 when it is idle."""

    __slots__ = ("got", "keeps", "loop", "now", "owner", "parser", "reading", "request", "served", "sock", "tls", "unsent", "writing")

    def __init__(self, sock: Any, loop: Any, owner: Owner, bodiless: bool, wanted: bool) -> None:
        sock.settimeout(0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a long request's last segment would wait for the answer to those before
        self.sock, self.loop, self.owner = sock, loop, owner
        self.request, self.served, self.got, self.now = -1, 0, 0, 0.0
        self.keeps, self.tls = True, hasattr(sock, "pending")
        self.unsent = memoryview(b"")
        self.writing: Any = None
        self.parser = Answers(bodiless, self._body if wanted else None)
        self.reading = loop.io(sock.fileno(), READ)
        self.reading.start(self._readable)

    def send(self, request: int, data: bytes) -> None:
        """Begins an exchange."""
        self.request, self.got = request, 0
        self.parser.whole = False
        try:
            sent = self.sock.send(data)
        except AGAIN:
            sent = 0
        except OSError as problem:
            self.owner.broken(self, worded(problem), False)
            return
        if sent < len(data):
            self.unsent = memoryview(data)[sent:]
            self.writing = self.loop.io(self.sock.fileno(), WRITE)
            self.writing.start(self._writable)

    def close(self) -> None:
        """No callback comes after it; the socket is left to whoever gave it."""
        self.reading.stop()
        self.reading.close()
        if self.writing is not None:
            self._written()
        self.request = -1

    def _writable(self) -> None:
        try:
            self.unsent = self.unsent[self.sock.send(self.unsent) :]
        except AGAIN:
            return
        except OSError as problem:
            self.owner.broken(self, worded(problem), False)
            return
        if not self.unsent:
            self._written()

    def _written(self) -> None:
        self.writing.stop()
        self.writing.close()
        self.writing = None

    def _readable(self) -> None:
        more = True
        while more:
            try:
                data = self.sock.recv(CHUNK)
                self.now = clock()
            except AGAIN:
                return
            except OSError as problem:
                self.owner.broken(self, worded(problem), False)
                return
            self._take(data)
            more = self.tls and self.reading.active and self.sock.pending()  # bytes that the kernel will not announce again

    def _take(self, data: bytes) -> None:
        parser = self.parser
        if self.request < 0:
            self.owner.broken(self, "closed while idle" if not data else "the server spoke unasked", bool(data))
            return
        self.got += len(data)
        try:
            parser.feed(data)
        except HTTPParseError as problem:
            self._unparsed(data, problem)
            return
        if parser.whole:
            self.served += 1
            self.keeps = parser.should_keep_alive() and not parser.extra and not self.unsent
            self.owner.answered(self, self.now, parser.code)
        elif not data:
            self.owner.broken(self, "the connection was closed before the whole answer was there", False)
        elif self.got > MOST_BYTES:
            self.owner.broken(self, f"the answer is longer than {MOST_BYTES >> 20} MiB", True)

    def _unparsed(self, data: bytes, problem: Exception) -> None:
        if data:
            self.owner.broken(self, f"not HTTP: {problem.args[0]}" if problem.args else "not HTTP", True)
        else:
            self.owner.broken(self, "the connection was closed before the whole answer was there", False)

    def _body(self, data: bytes) -> None:
        self.owner.body(self, data)


def worded(problem: BaseException) -> str:
    """An error in words that are the same for the same cause, so that they can be counted."""
    if isinstance(problem, ssl.SSLCertVerificationError):
        return f"TLS: {problem.verify_message}"
    if isinstance(problem, ssl.SSLError):
        return f"TLS: {(problem.reason or 'handshake failed').lower().replace('_', ' ')}"
    return str(getattr(problem, "strerror", None) or problem or type(problem).__name__)[:200]
