"""Users with keep-alive connections, as a program of its own: python -m benchmarks._users URL RATE CONNECTIONS BODY OUT

An open loop: requests leave on their timetable, each on a connection that is free, whether or not earlier ones are answered. No request is ever
repeated: one whose connection ends without an answer has failed. OUT gets a line for each (`ROW`), in the order in which they ended.
"""

import asyncio
import re
import struct
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

ROW = struct.Struct("<dddHH")  # when it should have left, when it left, when it ended (seconds since 1970), status (0: no answer), version
VERSION = re.compile(rb'"model_version":\s*"(\d+)"')
LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
PATIENCE = 10.0  # seconds that an answer may take


@dataclass(frozen=True)
class Answer:
    """One request, as its user saw it."""

    due: float
    began: float
    ended: float
    status: int
    version: int

    @property
    def failed(self) -> bool:
        return self.status != 200


def answers(path: Path) -> Iterator[Answer]:
    """What users have written down so far."""
    body = path.read_bytes() if path.exists() else b""
    return (Answer(*row) for row in ROW.iter_unpack(body[: len(body) // ROW.size * ROW.size]))


def count(path: Path) -> int:
    return path.stat().st_size // ROW.size if path.exists() else 0


class Line(asyncio.Protocol):
    """One connection; it is lent for one request at a time, and opened anew when it was closed."""

    def __init__(self, users: "Users") -> None:
        self.users, self.due, self.began, self.heard = users, 0.0, 0.0, b""
        self.transport: asyncio.Transport | None = None

    def ask(self, due: float) -> None:
        assert self.transport is not None
        self.due, self.began, self.heard = due, time.time(), b""
        self.transport.write(self.users.request)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.heard += data
        head, found, body = self.heard.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if found and length and len(body) >= int(length[1]):
            version = VERSION.search(body)
            self._over(int(head[9:12]), int(version[1]) if version else 0)

    def connection_lost(self, problem: Exception | None) -> None:
        self.transport = None
        if self.began:
            self._over(0, 0)
        elif self in self.users.idle:  # it was kept, and the other side did not want to keep it any longer
            self.users.idle.remove(self)
            self.users.free(self)

    def _over(self, status: int, version: int) -> None:
        self.users.out.write(ROW.pack(self.due, self.began, time.time(), status, version))
        self.began = 0.0
        self.users.free(self)


class Users:
    """All of them, and the connections that they share."""

    def __init__(self, url: str, rate: float, connections: int, body: bytes, out: Path) -> None:
        split = urlsplit(url)
        self.host, self.port = split.hostname, split.port
        head = f"POST {split.path} HTTP/1.1\r\nhost: {split.netloc}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self.request, self.rate, self.out = head.encode() + body, rate, out.open("ab", buffering=0)
        self.lines, self.idle, self.waiting = [Line(self) for _ in range(connections)], deque[Line](), deque[float]()
        self.opening: set[asyncio.Future[None]] = set()

    async def run(self) -> None:
        for line in self.lines:
            await self._open(line)
            self.idle.append(line)
        asyncio.get_running_loop().call_later(1, self._late)
        began, slot = time.time(), 0
        while True:
            slot += 1
            due = began + slot / self.rate
            if (pause := due - time.time()) > 0:
                await asyncio.sleep(pause)
            if self.idle:
                self.idle.popleft().ask(due)
            else:
                self.waiting.append(due)

    async def _open(self, line: Line) -> None:
        await asyncio.get_running_loop().create_connection(lambda: line, self.host, self.port)

    def free(self, line: Line) -> None:
        if line.transport is None or line.transport.is_closing():
            task = asyncio.ensure_future(self._again(line))
            self.opening.add(task)
            task.add_done_callback(self.opening.discard)
        elif self.waiting:
            line.ask(self.waiting.popleft())
        else:
            self.idle.append(line)

    async def _again(self, line: Line) -> None:
        while True:
            try:
                await self._open(line)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                return self.free(line)

    def _late(self) -> None:
        """Break off what has taken too long: its user gave up."""
        for line in self.lines:
            if line.transport and line.began and time.time() - line.began > PATIENCE:
                line.transport.abort()
        asyncio.get_running_loop().call_later(1, self._late)


def main() -> None:
    url, rate, connections, body, out = sys.argv[1:]
    asyncio.run(Users(url, float(rate), int(connections), Path(body).read_bytes(), Path(out)).run())


if __name__ == "__main__":
    main()
