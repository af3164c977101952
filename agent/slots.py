"""When a watch is due: slots on a grid of wall time that never drift, and the count of what became of them."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import accumulate

from apscheduler.triggers.base import BaseTrigger

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Job:
    """How often a watch looks, what it shares a cap with ("" = no cap), whether its slots are splayed, and whether it starts in the slow lane.

    A run still going after `lost_after` is given up: its thread cannot be stopped, but its lane gets another one. `cap` is how many runs with its cap
    key may go at once; None: the scheduler's.
    """

    every: timedelta
    cap_key: str = ""
    splay: bool = True
    slow: bool = False
    lost_after: timedelta = timedelta(minutes=10)
    cap: int | None = None

    def __post_init__(self) -> None:
        if self.every < timedelta(milliseconds=1):
            raise ValueError(f"a watch cannot look every {self.every}; the shortest interval is 1ms")


class Slots(BaseTrigger):  # type: ignore[misc]
    """Slots on a grid of wall time: `phase`, `phase + every`, ... counted from 1970 UTC. They never drift, and a missed one is never made up."""

    __slots__ = ("every", "phase")

    def __init__(self, every: timedelta, phase: timedelta = timedelta(0)) -> None:
        self.every = every // MICROSECOND
        self.phase = phase // MICROSECOND % self.every

    @classmethod
    def of(cls, key: str, job: Job) -> Slots:
        """The slots of a job: its phase is a hash of its key, the same after every restart, so that equal intervals spread out."""
        spread = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) if job.splay else 0
        return cls(job.every, timedelta(microseconds=spread))

    def after(self, instant: int) -> int:
        """The first slot later than an instant; both in microseconds since 1970."""
        return instant + self.every - (instant - self.phase) % self.every

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        return moment(self.after((max(now, previous_fire_time or now) - EPOCH) // MICROSECOND))


def moment(instant: int) -> datetime:
    """Microseconds since 1970 as an aware UTC time."""
    return EPOCH + timedelta(microseconds=instant)


class Lateness:
    """Seconds from a slot to the start of its run, as a histogram of fixed size: 2 % wide cells up to ten minutes."""

    def __init__(self) -> None:
        self.cells: Counter[int] = Counter()
        self.total, self.most, self.n = 0.0, 0.0, 0

    _limits = tuple(accumulate(range(680), lambda limit, _: limit * 1.02, initial=0.001))

    def add(self, seconds: float) -> None:
        self.cells[bisect_left(self._limits, seconds)] += 1
        self.total, self.most, self.n = self.total + seconds, max(self.most, seconds), self.n + 1

    def within(self, seconds: float) -> int:
        """How many runs began at most that late (2 % more of them at worst are counted as later)."""
        return sum(n for cell, n in list(self.cells.items()) if cell < len(self._limits) and self._limits[cell] <= seconds)

    def quantile(self, share: float) -> float:
        """The lateness that this share of the runs did not exceed (at most 2 % above the true one); 0 when nothing has run."""
        seen, cells = 0, dict(self.cells)  # a copy: lanes go on counting
        for cell in sorted(cells):
            seen += cells[cell]
            if seen >= share * self.n:
                return min(self._limits[min(cell, len(self._limits) - 1)], self.most)
        return 0.0


@dataclass
class Counts:
    """What became of every slot: `due` = `run` + `in_flight` + `no_room` + those still waiting in a lane. Looks out of turn are apart."""

    due: int = 0
    run: int = 0
    in_flight: int = 0  # an earlier run of the watch was still going, so it was no slot
    no_room: int = 0
    lost: int = 0
    looks: int = 0
    raised: int = 0
    jumps: int = 0
    late: Lateness = field(default_factory=Lateness)
