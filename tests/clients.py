"""Clients that keep their connections and ask without a pause while something is done to what they ask."""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.processes import until


@dataclass
class Seen:
    """What the clients were given so far: `told` of each good answer, how often, and every failure in words."""

    answers: Counter[Any] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)

    def more(self, answer: Any, times: int = 20) -> None:
        """Waits until an answer was given so many times more."""
        before = self.answers[answer]
        until(lambda: self.answers[answer] >= before + times, f"{answer!r} is answered", telling=lambda: f"{self.answers} {self.lost[-3:]}")


@contextmanager
def asking(url: str, body: Any, told: Callable[[Any], Any], clients: int = 4) -> Iterator[Seen]:
    """Clients that post `body` to `url` while the block runs; `told` picks from an answer's JSON what is counted."""
    seen, ended, at = Seen(), threading.Event(), urlsplit(url)

    def ask(connection: http.client.HTTPConnection) -> None:
        try:
            connection.request("POST", at.path, json.dumps(body), {"content-type": "application/json"})
            reply = connection.getresponse()
            said = reply.read()
            if reply.status == 200:
                seen.answers[told(json.loads(said))] += 1
            else:
                seen.lost.append(f"{reply.status} {said[:120]!r}")
        except (OSError, http.client.HTTPException) as problem:
            seen.lost.append(repr(problem))
            connection.close()

    def client() -> None:
        with closing(http.client.HTTPConnection(at.netloc, timeout=30)) as connection:
            while not ended.is_set():
                ask(connection)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        ended.set()
        for thread in threads:
            thread.join(60)
