"""Whether a run that goes on surely fails: its windows, each as long as a burst, are bet on as they become complete."""

from __future__ import annotations

import math

from loadtests._clocks import GOOD, Clocks
from loadtests._early import Early
from loadtests._spec import Traffic

STEADY = ("constant", "poisson")  # of a ramp or a spike the worst part says nothing of the whole


class Surely:
    """Looks at the requests of one generator. `failed` is the name of the first claim that surely fails, whenever it is looked at."""

    def __init__(self, traffic: Traffic, clocks: Clocks) -> None:
        self.failed = ""
        self._clocks, self._traffic, self._windows, self._place = clocks, traffic, 0, 0
        alone = traffic.arrivals.pattern in STEADY and not traffic.closed and traffic.workers == 1
        claims = traffic.claims if alone and len(clocks) else ()
        most = self._most() if claims else 0
        risk = (1 - traffic.confidence) / max(1, len(claims))
        self._bets = [(claim, Early(most, claim.quantile, 1 - risk)) for claim in claims if most]
        self._longest = max((claim.limit for claim in claims), default=0.0)

    def words(self, now: float) -> str:
        """Why the run may end now; empty while it is open. A window is complete when its last request is over its limit or answered."""
        while self._bets and not self.failed and now >= self._edge(self._windows + 1) + self._longest:
            self._windows += 1
            self._fold(self._edge(self._windows - 1), self._edge(self._windows))
        return f"{self.failed} surely fails, at whatever time it is looked at" if self.failed else ""

    def _edge(self, window: int) -> float:
        return self._traffic.warm + window * self._traffic.burst

    def _fold(self, begin: float, end: float) -> None:
        intended, done, kind, first = self._clocks.intended, self._clocks.done, self._clocks.kind, self._place
        while self._place < len(intended) and intended[self._place] < end:
            self._place += 1
        part = [place for place in range(first, self._place) if intended[place] >= begin]
        for claim, bet in self._bets:
            over = sum(kind[place] != GOOD or done[place] - intended[place] > claim.limit for place in part)
            if bet.fold(len(part), over) == "fail" and not self.failed:
                self.failed = claim.name

    def _most(self) -> int:
        """How many requests the fullest window of the schedule holds."""
        import numpy as np

        intended = np.frombuffer(self._clocks.intended)
        windows = max(0, math.ceil((intended[-1] - self._traffic.warm) / self._traffic.burst)) + 1
        edges = np.array([self._edge(window) for window in range(windows + 1)])
        return int(np.diff(np.searchsorted(intended, edges)).max(initial=0))
