"""What is seen of a run while it goes on: a line twice a second, and an end before its time where the target suffers more than was allowed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loadtests._clocks import GOOD
from loadtests._sending import Sending
from loadtests._spec import KINDS
from loadtests._surely import Surely

EVERY = 0.5  # seconds
FEW = 10  # requests that must have ended before a second of them is judged
DRAIN = 2.0  # seconds that requests in flight have left when a run is ended early
SUMMED, LARGEST = ("sent", "done", "errors", "rate", "flying"), ("t", "of", "lag")  # of the lines of several workers

Line = dict[str, Any]
Say = Callable[[Line, Sequence[float]], None]  # a line, and the latencies since the one before: infinite where there was no good answer


class Watching:
    """Looks at a Sending from time to time."""

    def __init__(self, sending: Sending, say: Say) -> None:
        self.sending, self._say = sending, say
        self._ended, self._at = 0, 0.0  # when last told
        self._second: list[float] = []  # latencies of the second being judged
        self._since = 0.0
        self.surely = Surely(sending.traffic, sending.clocks)

    def run(self) -> None:
        """Until the run is over."""
        while not self.sending.over.wait(EVERY):
            recent, self.sending.clocks.recent = self.sending.clocks.recent, []
            self._say(self.line(recent), recent)
            self._second += recent
            if self.sending.now - self._since >= 1 and len(self._second) + self.sending.flying >= FEW:
                if why := self._unbearable() or self.surely.words(self.sending.now):
                    self.sending.stop(why, DRAIN)
                self._second, self._since = [], self.sending.now

    def line(self, recent: Sequence[float] = ()) -> Line:
        """How it goes; t is below 0 before the first request is due."""
        sending, counts, now = self.sending, self.sending.clocks.counts, max(-1.0, self.sending.now)
        rate = (sending.finished - self._ended) / max(now - self._at, 1e-9) if now > 0 else 0.0
        self._ended, self._at = sending.finished, max(now, 0.0)
        errors = sum(counts) - counts[GOOD]
        told = {"t": now, "of": self._length(), "sent": sending.next, "done": sending.finished, "errors": errors, "rate": rate}
        return told | {
            **quantiles(recent),
            "lag": max(0.0, self._lag(now)),
            "flying": sending.flying,
            "stopped": sending.stopped,
            "kinds": list(counts),
        }

    def _length(self) -> float:
        clocks, traffic = self.sending.clocks, self.sending.traffic
        return max(traffic.arrivals.seconds if traffic.closed or not len(clocks) else clocks.intended[-1], 1e-9)

    def _lag(self, now: float) -> float:
        """How late the last request was taken up, or how late the next one is by now."""
        clocks, place = self.sending.clocks, self.sending.next
        last = clocks.dispatched[place - 1] - clocks.intended[place - 1] if place else 0.0
        return max(last, now - clocks.intended[place]) if place < len(clocks) else last

    def _unbearable(self) -> str:
        """Why the run must end now; empty where it need not."""
        traffic, second = self.sending.traffic, self._second
        bad = sum(map(math.isinf, second))
        if traffic.abort_errors is not None and len(second) >= FEW and bad > traffic.abort_errors * len(second):
            return f"{bad} of {len(second)} requests in a second were not answered well, and {traffic.abort_errors:.3g} of them is the most allowed"
        if traffic.abort_latency is None:
            return ""
        late = self.sending.older(traffic.abort_latency)
        slow, seen = late + sum(one > traffic.abort_latency for one in second), late + len(second)
        if slow * 2 <= seen or seen < FEW:
            return ""
        return f"{slow} of {seen} requests in a second took longer than {traffic.abort_latency:g} s, and half of them is the most allowed"


def still(words: str) -> Line:
    """The line before there is a run to look at."""
    nothing = dict.fromkeys((*SUMMED, "lag"), 0)
    return {"t": -1.0, "of": 1.0, "words": words, **nothing, **quantiles(()), "stopped": "", "kinds": [0] * len(KINDS)}


def quantiles(latencies: Sequence[float]) -> Line:
    """The median and the 99th percentile by order, in seconds; None where they are infinite or there is nothing."""
    ranked = sorted(latencies)
    found = {f"p{part}": ranked[max(0, -(-len(ranked) * part // 100) - 1)] if ranked else math.inf for part in (50, 99)}
    return {name: None if math.isinf(one) else one for name, one in found.items()}


def together(lines: Sequence[Mapping[str, Any]], recent: Sequence[float]) -> Line:
    """The lines of several workers as one."""
    summed = {name: sum(line[name] for line in lines) for name in SUMMED}
    kinds = [sum(each) for each in zip(*(line["kinds"] for line in lines), strict=True)]
    return (
        {name: max(line[name] for line in lines) for name in LARGEST} | summed | quantiles(recent) | {"stopped": lines[0]["stopped"], "kinds": kinds}
    )
