"""Whether a long run creeps: the slope of what the server shows from window to window, and when it would reach its limit.

The slope is Theil and Sen's, the median of the slopes between all pairs of windows, with its interval from Kendall's S (Sen, "Estimates of the
regression coefficient based on Kendall's tau", J. Amer. Statist. Assoc. 63, 1968), as scipy works it out: a few wild windows move neither. The
interval is wider where neighbouring windows are alike around the line, as Hamed and Rao do for the test ("A modified Mann-Kendall trend test for
autocorrelated data", J. Hydrology 204, 1998).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from loadtests._windows import alike

LEAST = 20  # windows for a slope
LATELY = 10  # the last of so many parts of the run is where it stands now
HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Creep:
    """One thing over the run. `slope` is in its unit an hour; `reaches` is in how many hours it would be at its limit, infinite when never."""

    name: str
    unit: str
    level: float  # where it stands at the end: the median of the last tenth
    limit: float
    slope: float
    interval: tuple[float, float]
    n: int
    reaches: float
    outcome: Literal["pass", "fail", "inconclusive"]
    why: str


def creep(name: str, unit: str, seconds: Any, values: Any, limit: float, horizon: float) -> Creep:
    """The slope with its 95 % interval, judged: `fail` when it is surely upwards and would reach the limit within `horizon` hours, or when the
    thing stands above its limit already; `pass` when even the upper end of the interval would not; between them inconclusive.

    Windows without a value (NaN) are left out. Fewer than 20 with one are inconclusive.
    """
    import numpy as np
    from scipy.stats import theilslopes

    seen = ~np.isnan(values)
    at, values = np.asarray(seconds)[seen] / HOUR, np.asarray(values, float)[seen]
    if len(values) < LEAST:
        return Creep(name, unit, math.nan, limit, 0.0, (-math.inf, math.inf), len(values), math.inf, "inconclusive", f"{len(values)} windows")
    slope, _, low, high = map(float, theilslopes(values, at, 0.95))
    wider = math.sqrt(alike(values - slope * at))
    low, high = slope + (low - slope) * wider, slope + (high - slope) * wider
    level = float(np.median(values[-max(1, len(values) // LATELY) :]))
    soonest, reaches = (_hours(limit - level, rise) for rise in (high, slope))
    if level > limit:
        outcome, why = "fail", "above its limit at the end"
    elif low > 0 and reaches <= horizon:
        outcome, why = "fail", "rising"
    else:
        outcome, why = ("pass", "") if soonest > horizon else ("inconclusive", "too uncertain")
    return Creep(name, unit, level, limit, slope, (low, high), len(values), reaches, outcome, why)  # type: ignore[arg-type]  # one of the three words


def _hours(way: float, slope: float) -> float:
    return way / slope if slope > 0 else math.inf


# The server's memory, seen from here


class Resident:
    """The resident memory of a process of this machine and of all it started, as (seconds since `begin`, bytes), read whenever `look` is called."""

    def __init__(self, pid: int, clock: Callable[[], float]) -> None:
        self.pid, self._clock, self._began = pid, clock, clock()
        self.at: list[float] = []
        self.bytes: list[float] = []

    def told(self, tell: Callable[[float, str], None]) -> Callable[[float, str], None]:
        """The same, looking whenever something is told: the run begins with the first."""

        def telling(done: float, what: str) -> None:
            if done <= 0:
                self._began, self.at, self.bytes = self._clock(), [], []
            self.look()
            tell(done, what)

        return telling

    def look(self) -> None:
        """Read it now; a process that is gone is not read."""
        if size := resident(self.pid):
            self.at.append(self._clock() - self._began)
            self.bytes.append(size)

    def over(self, edges: Sequence[float]) -> Any:
        """The median of what was read between each edge and the next; NaN where nothing was."""
        import numpy as np

        place, read = np.searchsorted(edges, self.at, "right") - 1, np.array(self.bytes)
        return np.array([np.median(read[place == n]) if (place == n).any() else np.nan for n in range(len(edges) - 1)])


def resident(pid: int) -> int:
    """Bytes of memory that a process and its descendants hold; 0 when it is gone, or this is no Linux."""
    import os

    with suppress(OSError, ValueError, IndexError):
        own = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return own + sum(resident(child) for child in _children(pid))
    return 0


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, task.read_text().split())
    return found
