"""Each window counted once: what is left of it to judge, one pass over its rows, and how many rows of earlier ones came late."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from agent import Ask, Table, Tally, Window
from agent.errors import DataError

RECENT = 24  # windows in the stretch that is counted again, for rows that came late
TRAFFIC = ("rows", "late rows", "age of the newest row")
Stretch = tuple[datetime, datetime, int]  # a stretch that was judged, and the rows it had when last counted


def unjudged(window: Window, until_at: datetime | None) -> Window:
    """The part of a window that no earlier one has judged; DataError when nothing is left, since no row may count twice."""
    start = window.start if until_at is None else max(window.start, until_at)
    if start >= window.end:
        raise DataError(f"the window to {window.end:%Y-%m-%d %H:%M:%S}Z was judged before; no row may count twice, so there is nothing to add")
    return Window(start, window.end)


@dataclass(frozen=True, slots=True)
class Tallied:
    """One window: a Tally a column, its rows, how many rows of earlier windows came since, and the age of the newest row in seconds."""

    tallies: Mapping[str, Tally]
    n: int
    late: int
    age: float

    @property
    def traffic(self) -> tuple[float, float, float]:
        return float(self.n), float(self.late), self.age


def tallied(live: Table, window: Window, asks: Sequence[Ask], recent: Stretch | None) -> Tallied:
    """One pass over the window's rows, and one count of the stretch before it."""
    time = live.declared["time"]["column"]
    wanted = [*asks, *(() if any(one.column == time for one in asks) else (Ask(time),))]
    tallies = live.between(window.start, window.end).tally(wanted)
    late = live.between(recent[0], recent[1]).rows() - recent[2] if recent else 0
    newest = tallies[time].high
    return Tallied(tallies, tallies[time].rows, max(0, late), math.nan if newest is None else window.end.timestamp() - newest)


def stretch(before: Stretch | None, window: Window, seen: Tallied) -> Stretch:
    """What is to be counted again next time: it grows window by window, each late row counted once, and begins anew when it is long."""
    if before is None or window.end - before[0] > RECENT * window.length:
        return window.start, window.end, seen.n
    return before[0], window.end, before[2] + seen.late + seen.n
