"""A window judged by the watch's own past: no reference, any statistic, exact while windows are exchangeable.

Each statistic of the window is ranked among those of the windows before it since the watch began (a conformal p-value); a bet on small p-values,
kappa p^(kappa - 1), has expectation 1, and goes into the same restarted sum as every other (checks/_sequential.py). After Vovk, Nouretdinov and
Gammerman, "Testing exchangeability on-line", ICML 2003. Slow drift moves the past along and stays invisible; windows that depend on each other
(a daily rhythm, a trend) break the promise, which is what `season` is for: each statistic less the same one a season earlier.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from agent import Kind, Window
from checks._sequential import packed, restarted, unpacked
from checks._windows import TRAFFIC, Stretch, Tallied

KAPPAS = (0.05, 0.1, 0.2, 0.4, 0.7)
KEPT = 2_000  # windows of the past that are remembered; beyond it the oldest go


@dataclass(frozen=True, slots=True)
class Past:
    """What has been seen: a row a window (its end in POSIX seconds, then each statistic), the log sums, and the names they belong to."""

    names: tuple[str, ...]
    rows: str = ""
    sums: str = ""

    @property
    def seen(self) -> Any:
        """The rows as a matrix of windows x (1 + statistics)."""
        return unpacked(self.rows).reshape(-1, 1 + len(self.names))

    @property
    def log_sums(self) -> Any:
        """log M of each component, statistics x 2 x kappas."""
        import numpy as np

        flat = unpacked(self.sums) if self.sums else np.full(len(self.names) * 2 * len(KAPPAS), -np.inf)
        return flat.reshape(len(self.names), 2 * len(KAPPAS))


def further(past: Past, statistics: Sequence[float], window: Window, season: timedelta | None, run_length: float) -> Past:
    """The past with one more window: its statistics ranked, the sums moved on. NaN is a statistic this window has not; it moves nothing."""
    import numpy as np

    values = np.array(statistics, dtype=float)
    ceiling = math.log(run_length * len(values) * 2 * len(KAPPAS)) + 3.0  # a little beyond what an alarm by one component alone takes
    seen, end = past.seen, window.end.timestamp()
    row = np.concatenate([[end], values])
    seconds = season.total_seconds() if season else None
    before = seen[:, 1:] if seconds is None else _differences(seen, seconds)
    now = values if seconds is None else values - _at(seen, end - seconds)
    p = np.array([_rank(before[:, place], now[place], np.random.default_rng([int(end * 1000), place])) for place in range(len(values))])
    both = np.stack([p, 1 - p], axis=1)[:, :, None]
    kappa = np.array(KAPPAS)
    log_e = (np.log(kappa) + (kappa - 1) * np.log(np.clip(both, 1e-12, 1.0))).reshape(len(values), -1)
    sums = restarted(past.log_sums, log_e, ceiling)
    return Past(past.names, packed(np.concatenate([seen, row[None, :]])[-KEPT:]), packed(sums))


def _rank(before: Any, now: float, random: Any) -> float:
    """The conformal p-value of `now` among what came before, ties broken at random; NaN when there is nothing to say."""
    known = before[before == before]
    if now != now or not len(known):
        return float("nan")
    above, ties = int((known > now).sum()), int((known == now).sum())
    return float((above + random.random() * (1 + ties)) / (len(known) + 1))


def _at(seen: Any, end: float) -> Any:
    """The statistics of the window that ended then; NaN where there was none."""
    import numpy as np

    found = np.flatnonzero(np.abs(seen[:, 0] - end) < 0.5)
    return seen[found[-1], 1:] if len(found) else np.full(seen.shape[1] - 1, np.nan)


def _differences(seen: Any, season: float) -> Any:
    """Each window's statistics less those of the window one season earlier; NaN where there was none."""
    import numpy as np

    ends = seen[:, 0]
    place = np.searchsorted(ends, ends - season - 0.5)
    inside = (
        (place < len(ends)) & (np.abs(ends[np.minimum(place, max(len(ends) - 1, 0))] - (ends - season)) < 0.5) if len(ends) else np.empty(0, bool)
    )
    out = np.full((len(ends), seen.shape[1] - 1), np.nan)
    out[inside] = seen[inside, 1:] - seen[place[inside], 1:]
    return out


@dataclass(frozen=True, slots=True)
class Own:
    """What drift.past remembers."""

    past: Past
    until_at: datetime
    windows: int = 0
    recent: Stretch | None = None


def statistics(seen: Tallied, kinds: Mapping[str, Kind]) -> dict[str, float]:
    """By name: of each number its mean, of each column the share of nulls, and how the window's traffic was; NaN where there is none."""
    values: dict[str, float] = {}
    for name, kind in kinds.items():
        tally = seen.tallies[name]
        known = tally.rows - tally.nulls
        if kind in ("number", "integer"):
            values[f"the mean of {name}"] = tally.total / known if known and tally.total is not None else math.nan
        values[f"the share of nulls in {name}"] = tally.nulls / tally.rows if tally.rows else math.nan
    return values | dict(zip(TRAFFIC, seen.traffic, strict=True))
