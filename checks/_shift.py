"""What an alarm names, in words: which column, which way, how far and how surely; and what the numbers promise."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from agent import Reading, Verdict, Window, fail, ok, spell, to_json
from agent.stats import difference
from checks._drawing import evidence, moved
from checks._evidence import Counted, Layout, Settings, State, Sums
from checks._sequential import mean_log, named, smallest_shift, unpacked

SHOWN = 3  # columns a sentence names
HORIZONS = (2, 24)  # windows in which the smallest shift is told
REFERENCE = "With at least 99 % over the draw of the reference, and while every window stays within tolerance of it"
PAST = "While windows are exchangeable, each no more like its neighbours than like any other"


@dataclass(frozen=True, slots=True)
class Shift:
    """How one column stands: its evidence (M, in windows), and the stream with most of it: the share now and in the reference."""

    name: str
    evidence: float
    stream: str
    now: float
    reference: float
    interval: tuple[float, float]  # of now - reference, over all streams of the column at once, 95 %
    limit: float
    n: int
    rows: int

    @property
    def effect(self) -> float:
        return self.now - self.reference

    @property
    def words(self) -> str:
        """Such as "amount moved up: 38 % are at most 1.2, 50 % were"."""
        share, was = f"{self.now:.1%}", f"{self.reference:.1%}"
        if self.stream == "null":
            return f"{self.name} is null in {share}, was in {was}"
        if self.stream in ("unseen", "other"):
            what = "values the reference never had" if self.stream == "unseen" else "other than its usual values"
            return f"{self.name} has {share} {what}, had {was}"
        if self.stream.startswith("<="):
            return f"{self.name} moved {'down' if self.effect > 0 else 'up'}: {share} are at most {float(self.stream[3:]):.4g}, {was} were"
        return f"{self.name} is {_cut(self.stream[2:])} in {share}, was in {was}"

    @property
    def reading(self) -> Reading:
        low, high = self.interval
        return Reading(abs(self.effect), self.limit, (low, high) if self.effect >= 0 else (-high, -low), self.n)


def _cut(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:39]}…")


def shifts(plan: Layout, state: State, seen: Counted) -> list[Shift]:
    """Every column, most evidence first. Counted over the windows since the alarm was raised; before that, over this window alone."""
    import numpy as np

    hits, rows = counts(state.memory, seen)
    best = np.full(len(plan.shares), -np.inf)
    np.maximum.at(best, plan.made.stream, state.sums)
    found = []
    for place, column in enumerate(plan.columns):
        streams = np.flatnonzero(plan.of == place)
        worst = int(streams[np.argmax(best[streams])])
        found.append(_shift(column.name, column.streams[worst - int(streams[0])], state.by_name[place], plan, worst, hits, rows, len(streams)))
    return sorted(found, key=lambda one: (-one.evidence, one.name))


def counts(memory: Sums, seen: Counted) -> tuple[Any, Any]:
    """Hits and rows of each stream since the alarm was raised; before that, of this window."""
    return tuple(unpacked(memory.after).reshape(2, -1)) if memory.after else (seen.hits, seen.rows)


def _shift(name: str, stream: str, log_evidence: float, plan: Layout, at: int, hits: Any, rows: Any, of: int) -> Shift:
    """Intervals are Newcombe's, each count divided by the design effect, at a level that holds for all streams of the column."""
    by, n, m = float(plan.design[at]), float(rows[at]), float(plan.rows[at])
    was, now = float(plan.shares[at]), float(hits[at] / n) if n else math.nan
    less, more = max(1, round(n / by)), max(1, round(m / by))
    interval = difference(round(now * less), less, round(was * more), more, 1 - 0.05 / of) if n else (-1.0, 1.0)
    limit = float(plan.tolerance[at] + max(plan.high[at] - was, was - plan.low[at]))
    return Shift(name, math.exp(min(log_evidence, 700.0)), stream, now if n else was, was, interval, limit, int(n), int(m))


# The verdict


def alarm(
    names: Sequence[str],
    by_name: Any,
    words: Sequence[str],
    run_length: float,
    parts: Mapping[str, Reading],
    memory: Any,
    n: int,
    notes: str,
    every: timedelta,
    windows: int,
    sight: str = "",
    since: datetime | None = None,
    null: str = REFERENCE,
    data: Mapping[str, bytes] | None = None,
) -> Verdict:
    """Fails while the mean of the evidence is at least the run length; the words of what e-d-BH names then stand first, else what was calm."""
    total, chosen = math.exp(min(float(mean_log(by_name)), 700.0)), named(list(by_name), run_length)
    reading = Reading(total, run_length, n=n, unit="windows")
    end = f"{notes}\n{sight}{promise(run_length, windows, every, null)}"
    more: dict[str, Any] = {"parts": parts, "memory": memory, "data": data or {}}
    if total < run_length:
        return ok(f"{len(names)} follow as before ({_evidence(total)} of {run_length:,.0f} windows of evidence in {_rows(n)}){end}", reading, **more)
    told = [words[place] for place in chosen or (max(range(len(names)), key=lambda place: float(by_name[place])),)]
    rest = f"; and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    lasting = f", since {since:%Y-%m-%d %H:%M}Z" if since else ""
    evidence = f"evidence {_evidence(total)}, {run_length:,.0f} is an alarm{lasting}"
    return fail(f"{len(told)} of {len(names)} drifted: {'; '.join(told[:SHOWN])}{rest}; {evidence}{end}", reading, **more)


def verdict(plan: Layout, state: State, seen: Counted, settings: Settings, window: Window) -> Verdict:
    """What a window says about the columns of a profile: the alarm, how each column stands, and what could have been seen."""
    found, memory = shifts(plan, state, seen), state.memory
    by_column = {one.name: one.words for one in found}
    words = [by_column.get(name, f"{name} is unlike before") for name in plan.names]
    since = memory.alarmed_at if memory.alarmed_at and memory.alarmed_at < window.end else None
    parts = {one.name: one.reading for one in found[:20]}
    data = _files(plan, state, seen, settings, window, found) if memory.alarmed_at else {}
    notes, sight = _notes(memory, seen), f"{_sight(plan, settings, seen)} "
    told = plan.names, state.by_name, words, settings.run_length, parts, memory, seen.tallied.n, notes, window.length, memory.windows
    return alarm(*told, sight=sight, since=since, data=data)


def _evidence(total: float) -> str:
    return f"{total:,.0f}" if 10 <= total < 1e6 else f"{total:.2g}"


def _rows(n: int) -> str:
    return f"{n:,} row{'' if n == 1 else 's'}"


def _notes(memory: Sums, seen: Counted) -> str:
    words = [f"{name} {change}, so every row counts as null" for name, change in seen.changed.items()]
    words += [f"{_rows(seen.tallied.late)} of earlier windows came late and are not added ({memory.late:,} so far)"] if seen.tallied.late else []
    left = memory.profile.left_out
    words += [f"not watched: {'; '.join(f'{name} ({why})' for name, why in list(left.items())[:3])}{' ...' if len(left) > 3 else ''}"] if left else []
    return "".join(f"; {text}" for text in words)


def _sight(plan: Layout, settings: Settings, seen: Counted) -> str:
    """What could be seen: the reference's size, its margin, the design effect, and the smallest shift found soon and late."""
    near = [needed_shift(plan, settings, seen.tallied.n, windows) for windows in HORIZONS]
    rows = f"{min((one.rows for one in plan.columns), default=0):,}"
    margin = own_margin(plan)
    design = max((one.designs[0] for one in plan.columns), default=1.0)
    told = ", ".join(f"{_far(shift)} in {windows} windows" for shift, windows in zip(near, HORIZONS, strict=True))
    return (
        f"Reference: {rows} rows counted, margin {margin + settings.tolerance:.3f} ({margin:.3f} its own error, {settings.tolerance:g} tolerance), "
        f"design effect {design:.2g}. The smallest move of a share near 50 % that is found: {told}."
    )


def _far(shift: float) -> str:
    return "none" if math.isinf(shift) else f"{shift:.3f} (about {shift / 0.399:.2f} sd)"


def own_margin(plan: Layout) -> float:
    """The widest half of a confidence interval that the reference's own error leaves for a share in the middle."""
    middle = [float(high - low) / 2 for low, high, share in zip(plan.low, plan.high, plan.shares, strict=True) if 0.2 <= share <= 0.8]
    return max(middle or [float(high - low) / 2 for low, high in zip(plan.low, plan.high, strict=True)], default=math.nan)


def needed_shift(plan: Layout, settings: Settings, rows: int, windows: int) -> float:
    """How far a share of about a half must move to be found within that many windows of as many rows as this one has."""
    if not plan.columns or not rows:
        return math.inf
    half = own_margin(plan)
    components = max(1, round(len(plan.made) / len(plan.columns)))
    needed = math.log(settings.run_length * len(plan.names) * components)
    design = max(one.designs[0] for one in plan.columns)
    return smallest_shift(0.5 - half, 0.5 + half, settings.tolerance, design, rows, windows, needed)


def promise(run_length: float, windows: int, every: timedelta, null: str = REFERENCE) -> str:
    """What is promised, and what is not, in one sentence."""
    chance = min(1.0, windows / run_length)
    apart = f"false alarms are at least {spell(run_length * every)} apart on average"
    return f"{null}, {apart}, and the chance of one in {_windows(windows)} judged so far is at most {chance:.2%}."


def _windows(count: int) -> str:
    return f"the {count:,} windows" if count > 1 else "the one window"


def _files(plan: Layout, state: State, seen: Counted, settings: Settings, window: Window, found: list[Shift]) -> dict[str, bytes]:
    """Every column in numbers; the evidence's way here and what moved in pictures."""
    chosen = [plan.names[place] for place in named(state.by_name, settings.run_length)] or [one.name for one in found[:1]]
    hits, rows = counts(state.memory, seen)
    drawn = moved(plan, hits, rows, chosen, {one.name: one.words.removeprefix(f"{one.name} ") for one in found})
    more = {"drift.svg": drawn} if drawn else {}
    numbers = _file(plan, found, chosen, state, settings, window.length)
    return {"drift.json": numbers, "evidence.svg": evidence(state.memory, settings.run_length), **more}


def _file(plan: Layout, found: list[Shift], chosen: Sequence[str], state: State, settings: Settings, every: timedelta) -> bytes:
    lines = [{**to_json(one), "named": one.name in chosen} for one in found]
    more = {"run_length": settings.run_length, "tolerance": settings.tolerance, "tolerance_rare": settings.rare, "windows": state.memory.windows}
    traffic = dict(zip(plan.names[len(plan.columns) :], (math.exp(min(v, 700)) for v in state.by_name[len(plan.columns) :]), strict=True))
    promised = {"promise": promise(settings.run_length, state.memory.windows, every), "late_rows": state.memory.late, "traffic_evidence": traffic}
    return json.dumps({"columns": lines, **more, **promised}, indent=1).encode()
