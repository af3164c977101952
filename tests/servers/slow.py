"""Speaks plain HTTP and JSON, and is as slow as it is told to be: which requests wait, and how long, is decided by their number and by no clock."""

from __future__ import annotations

import itertools
import time
from typing import Any

from tests.servers._loopback import Loopback

REQUEST = {"x": [1.0, 2.0]}


class Speaker(Loopback):
    """Of each `every` requests the first waits for `delay` seconds; of each `break_every` the first is answered with 503. Both may be changed
    meanwhile; `after` further requests everything is `late` slow. It says that it is ready at /readyz."""

    def __init__(self, every: int = 0, delay: float = 0.0, break_every: int = 0) -> None:
        self.every, self.delay, self.break_every, self.up = every, delay, break_every, True
        self._count = itertools.count()
        super().__init__(self._answer)
        self.url, self.options = f"{self.address}/predict", {"ready": "/readyz"}

    def _answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if path == "/readyz":
            return (200, {"ok": True}) if self.up else (503, {"ok": False})
        number = next(self._count)
        if self.every and number % self.every == 0:
            time.sleep(self.delay)
        if self.break_every and number % self.break_every == 0:
            return 503, {"error": "overloaded"}
        return 200, {"y": [2 * x for x in body["x"]]}
