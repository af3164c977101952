"""Loopback servers that misbehave: each is a plain socket listening in a thread, and a script of what it does to a connection."""

from __future__ import annotations

import contextlib
import gzip
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator

Script = Callable[[socket.socket], None]

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@contextlib.contextmanager
def serving(script: Script, context: ssl.SSLContext | None = None) -> Iterator[Server]:
    """A server whose every connection lives through `script` in a thread of its own; all of them are closed at the end."""
    server = Server(script, context)
    try:
        yield server
    finally:
        server.close()


class Server:
    """`port`; `connections` counts those accepted."""

    def __init__(self, script: Script, context: ssl.SSLContext | None = None) -> None:
        self.script, self.context = script, context
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self.listener.getsockname()[1]
        self.connections, self.open = 0, set[socket.socket]()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"{'https' if self.context else 'http'}://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                one, _ = self.listener.accept()
                self.connections += 1
                self.open.add(one)
                threading.Thread(target=self._live, args=(one,), daemon=True).start()

    def _live(self, one: socket.socket) -> None:
        raw = one
        try:
            with contextlib.suppress(OSError, EOFError):
                if self.context:
                    one = self.context.wrap_socket(one, server_side=True)
                    self.open.add(one)
                self.script(one)
        finally:
            self.open -= {raw, one}
            one.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for one in list(self.open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def heard(one: socket.socket) -> bytes:
    """One whole request; EOFError when the client has gone."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(one)
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    while len(body) < sum(lengths):
        body += _more(one)
    return head + b"\r\n\r\n" + body


def _more(one: socket.socket) -> bytes:
    if data := one.recv(65536):
        return data
    raise EOFError


def answer(body: bytes = b"{}", status: str = "200 OK", headers: str = "Content-Type: application/json\r\n") -> bytes:
    """One well-formed answer."""
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


def says(*answers: bytes) -> Script:
    """Answers each request with the next of `answers`, the last one for ever."""
    left = list(answers)

    def script(one: socket.socket) -> None:
        while True:
            heard(one)
            one.sendall(left.pop(0) if len(left) > 1 else left[0])

    return script


def noting() -> tuple[Script, list[bytes]]:
    """A script that answers well, and the requests it will have heard."""
    requests: list[bytes] = []

    def script(one: socket.socket) -> None:
        while True:
            requests.append(heard(one))
            one.sendall(answer())

    return script, requests


def once(reply: bytes) -> Script:
    """Answers one request, then closes."""

    def script(one: socket.socket) -> None:
        heard(one)
        one.sendall(reply)

    return script


def mute(one: socket.socket) -> None:
    """Reads and never answers."""
    while one.recv(65536):
        pass


def deaf(one: socket.socket) -> None:
    """Accepts and neither reads nor answers, until the client goes."""
    with contextlib.suppress(ConnectionError):
        while one.recv(1, socket.MSG_PEEK):
            time.sleep(0.05)


def drips(data: bytes, pause: float = 0.05) -> Script:
    """One byte at a time."""
    return scheduled([(bytes([byte]), pause) for byte in data])


def scheduled(parts: Iterable[tuple[bytes, float]]) -> Script:
    """Hears one request, then says each part after its pause in seconds; keeps the connection open at the end."""
    parts = list(parts)

    def script(one: socket.socket) -> None:
        heard(one)
        for part, pause in parts:
            time.sleep(pause)
            one.sendall(part)
        mute(one)

    return script


def endless(head: bytes, again: bytes) -> Script:
    """Says `head` and then `again` without end."""

    def script(one: socket.socket) -> None:
        heard(one)
        one.sendall(head)
        while True:
            one.sendall(again)

    return script


def bomb(size: int) -> bytes:
    """An answer of gzip that unpacks to `size` zeros."""
    return answer(gzip.compress(bytes(size)), headers="Content-Type: application/json\r\nContent-Encoding: gzip\r\n")


def refused() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def forwarding(one: socket.socket) -> None:
    """A proxy that knows CONNECT alone and passes on what comes, both ways."""
    host, _, port = heard(one).split()[1].decode().rpartition(":")
    with socket.create_connection((host, int(port))) as other:
        one.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        threading.Thread(target=_pass, args=(other, one), daemon=True).start()
        _pass(one, other)


def _pass(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def black_hole() -> Iterator[tuple[str, int]]:
    """An address that neither takes nor refuses a connection: a listener whose queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        yield listener.getsockname()
