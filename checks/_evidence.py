"""One window added to the evidence against "live still follows the reference", and what it then says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from agent import Kind, Table, Window
from checks._past import Past, further
from checks._profile import Column, Profile
from checks._sequential import Bets, bets, increments, mean_log, packed, pooled, restarted, unpacked
from checks._windows import TRAFFIC, Stretch, Tallied, stretch, tallied

PATH = 120  # windows whose evidence is kept for the picture


@dataclass(frozen=True, slots=True)
class Sums:
    """What a sequential drift check remembers: the profile it counts in, the log sums, what was judged, and counts since an alarm."""

    profile: Profile
    sums: str
    until_at: datetime
    windows: int = 0
    path: tuple[float, ...] = ()  # log10 of the evidence after each of the last windows
    alarmed_at: datetime | None = None
    after: str = ""  # hits and rows of each stream since the window that raised the alarm
    recent: Stretch | None = None
    late: int = 0
    traffic: Past | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator sets: how far a share may move, how far a rare one, in how many windows a false alarm is due, whether traffic is watched."""

    tolerance: float
    rare: float
    run_length: float
    traffic: bool = False
    season: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """The streams of all columns in one row, and the bets on them."""

    names: tuple[str, ...]  # of what evidence is kept about: the columns, then the traffic statistics
    columns: tuple[Column, ...]
    of: Any  # which column each stream belongs to
    low: Any
    high: Any
    shares: Any
    rows: Any  # reference rows behind each share
    design: Any
    tolerance: Any
    made: Bets

    @property
    def ceiling(self) -> Any:
        """log of (columns x components of the column), a little beyond which no sum need climb; one entry a component."""
        import numpy as np

        count = np.bincount(self.made.column, minlength=len(self.columns))
        return (np.log(len(self.names)) + np.log(np.maximum(count, 1)))[self.made.column] + 3.0


def layout(profile: Profile, settings: Settings) -> Layout:
    """Streams and bets, in the order the log sums are kept in."""
    import numpy as np

    columns = profile.columns
    of = np.concatenate([np.full(len(one.shares), place) for place, one in enumerate(columns)]) if columns else np.empty(0, int)
    rare = np.array([stream in ("null", "unseen") for one in columns for stream in one.streams], dtype=bool)
    tolerance = np.where(rare, settings.rare, settings.tolerance)
    flat = {name: np.array([value for one in columns for value in getattr(one, name)]) for name in ("low", "high", "shares")}
    design = np.array([value for one in columns for value in _each(one, *one.designs)])
    rows = np.array([value for one in columns for value in _each(one, one.known, one.rows)])
    names = (*(one.name for one in columns), *(TRAFFIC if settings.traffic else ()))
    made = bets(flat["low"], flat["high"], tolerance, design, of)
    return Layout(names, columns, of, flat["low"], flat["high"], flat["shares"], rows, design, tolerance, made)


def _each(one: Column, values: Any, nulls: Any) -> list[Any]:
    return [*[values] * (len(one.shares) - 1), nulls]


# Counting a window


@dataclass(frozen=True, slots=True)
class Counted:
    """One window: hits and rows of each stream, its tallies, and what could not be read as before."""

    hits: Any
    rows: Any
    tallied: Tallied
    changed: Mapping[str, str]


def counted(live: Table, window: Window, columns: Sequence[Column], recent: Stretch | None) -> Counted:
    """The window's counts. A column that is gone, or changed its type, counts as null in every row."""
    import numpy as np

    kinds = live.kinds()
    fitting = [one for one in columns if one.fits(kinds.get(one.name))]
    seen = tallied(live, window, [one.ask for one in fitting], recent)
    hits, known = [], []
    for one in columns:
        found, values = one.counted(seen.tallies[one.name]) if one in fitting else ([*[0] * (len(one.shares) - 1), seen.n], 0)
        hits += found
        known += _each(one, values, seen.n)
    changed = {one.name: _change(one, kinds.get(one.name)) for one in columns if one not in fitting}
    return Counted(np.array(hits, float), np.array(known, float), seen, changed)


def _change(one: Column, kind: Kind | None) -> str:
    return "is gone" if kind is None else f"holds {kind} now, and held {'numbers' if one.kind == 'number' else 'categories'}"


# Adding it up


@dataclass(frozen=True, slots=True)
class State:
    """The evidence after one more window: log M of each name, of all together, and the memory to keep."""

    by_name: tuple[float, ...]
    total: float
    memory: Sums
    sums: Any


def fold(plan: Layout, memory: Sums, window: Window, seen: Counted, settings: Settings) -> State:
    """One more window of evidence."""
    import numpy as np

    top = math.log(settings.run_length)
    before = unpacked(memory.sums) if memory.sums else np.full(len(plan.made), -np.inf)
    sums = restarted(before, increments(plan.made, seen.hits, seen.rows), plan.ceiling + top)
    traffic = _traffic(memory.traffic, window, seen, settings, len(plan.names))
    by_name = [*pooled(sums, plan.made.column, len(plan.columns)), *(() if traffic is None else [mean_log(row) for row in traffic.log_sums])]
    total = float(mean_log(by_name))
    alarmed = memory.alarmed_at or window.end if total >= top else None
    kept = replace(
        memory,
        sums=packed(sums),
        until_at=window.end,
        windows=memory.windows + 1,
        path=(*memory.path, round(max(total, 0.0) / math.log(10), 3))[-PATH:],
        alarmed_at=alarmed,
        after=_after(memory, seen) if alarmed and memory.alarmed_at else "",
        recent=stretch(memory.recent, window, seen.tallied),
        late=memory.late + seen.tallied.late,
        traffic=traffic,
    )
    return State(tuple(float(value) for value in by_name), total, kept, sums)


def _after(memory: Sums, seen: Counted) -> str:
    import numpy as np

    fresh = np.stack([seen.hits, seen.rows])
    return packed(fresh if not memory.after else fresh + unpacked(memory.after).reshape(2, -1))


def _traffic(past: Past | None, window: Window, seen: Counted, settings: Settings, names: int) -> Past | None:
    if not settings.traffic:
        return None
    return further(past or Past(TRAFFIC), seen.tallied.traffic, window, settings.season, settings.run_length * names)
