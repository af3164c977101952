"""The clocks of every request while the run goes on: arrays made before it, filled in place, and left as files for whoever started it."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from operator import sub
from pathlib import Path
from typing import Any

from loadtests._spec import KINDS

GOOD, STATUS, TIMEOUT, CONNECT, PROTOCOL, INVALID, UNFINISHED = range(len(KINDS))
NAMES = ("intended", "dispatched", "sent", "done", "kind", "status")
STREAMED = ("first", "tokens", "usage", "gaps")
WORDS = 100  # different words of errors that are kept; what a hostile server says could be endless


class Clocks:
    """One element a request. `finish` is what counts, and is called once for each that ended."""

    def __init__(self, intended: Any, streams: bool = False) -> None:
        count = len(intended)
        self.intended = array("d", intended.tobytes()) if count else array("d")
        self.dispatched, self.sent, self.done = (array("d", [math.nan]) * count for _ in range(3))
        self.kind = array("B", [UNFINISHED]) * count
        self.status = array("H", [0]) * count
        self.streams = streams
        self.first = array("d", [math.nan]) * count if streams else array("d")
        self.tokens, self.usage = (array("I", [0]) * count if streams else array("I") for _ in range(2))
        self.gaps: dict[int, array[float]] = {}
        self.counts = [0] * len(KINDS)
        self.said: Counter[str] = Counter()
        self.recent: list[float] = []  # latencies since somebody last looked

    def __len__(self) -> int:
        return len(self.intended)

    def add(self, now: float) -> int:
        """One more request, meant for now: a closed loop knows its requests only when it sends them."""
        self.intended.append(now)
        for clock in (self.dispatched, self.sent, self.done):
            clock.append(math.nan)
        self.kind.append(UNFINISHED)
        self.status.append(0)
        if self.streams:
            self.first.append(math.nan)
            self.tokens.append(0)
            self.usage.append(0)
        return len(self.intended) - 1

    def finish(self, place: int, kind: int, done: float = math.nan, why: str = "") -> None:
        """How a request ended, and when its whole answer was there, if it was."""
        self.kind[place] = kind
        self.done[place] = done
        self.counts[kind] += 1
        self.recent.append(done - self.intended[place] if kind == GOOD else math.inf)
        if why and (why in self.said or len(self.said) < WORDS):
            self.said[why] += 1

    def stream(self, place: int, times: list[float], usage: int) -> None:
        """When the tokens of a streamed answer came, in seconds since the start, and how many the server counted."""
        self.usage[place] = usage
        if times:
            self.first[place] = times[0] - self.intended[place]
            self.tokens[place] = len(times)
            self.gaps[place] = array("d", map(sub, times[1:], times))

    def save(self, out: Path, count: int) -> None:
        """Leaves the first `count` requests in a folder, an array a file."""
        import numpy as np

        for name in NAMES + (STREAMED[:-1] if self.streams else ()):
            np.save(out / f"{name}.npy", np.frombuffer(getattr(self, name), getattr(self, name).typecode)[:count])
        if self.streams:
            np.save(out / "gaps.npy", np.frombuffer(self.all_gaps(count)))

    def all_gaps(self, count: int) -> bytes:
        """The gaps between the tokens of the first `count` requests, request after request."""
        return b"".join(self.gaps[place].tobytes() for place in sorted(self.gaps) if place < count)


def load(out: Path) -> dict[str, Any]:
    """The arrays that `save` left, by name."""
    import numpy as np

    return {name: np.load(out / f"{name}.npy") for name in NAMES + STREAMED if (out / f"{name}.npy").exists()}
