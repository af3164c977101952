"""How two columns are compared, and all comparisons judged together: the working half of drift.compare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, cast

from agent import Ask, Columns, Kind, Reading, Table, Tally, Verdict, fail, nodata, ok, to_json, warn
from agent.stats import benjamini_hochberg
from checks import _binned, _distances, _gaps
from checks._columns import Note, by_row, is_class, left_out
from checks._distances import Distances
from checks._gaps import Gap
from checks._picture import Shape, bars, steps

DISTINCT = 1_000  # categories beyond which a text column is a name or prose, and its distribution says nothing


@dataclass(frozen=True, slots=True)
class Part:
    """One comparison of one column: its gap, the floor the gap must pass to matter, and what describes it: distances, and counts to draw."""

    name: str
    gap: Gap
    floor: float
    column: str
    distances: Distances | None = None
    shape: Shape | None = None

    @property
    def reading(self) -> Reading:
        return Reading(self.gap.effect, self.floor, self.gap.interval, self.gap.n)


@dataclass(frozen=True, slots=True)
class How:
    """The effect each kind of comparison must pass, the fewest values it needs on a side, what is nominal, and whether all distances are wanted."""

    number: float
    category: float
    nulls: float
    rows: int
    nominal: Sequence[str]
    describe: bool


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two tables, looked at once: what it holds and how many rows."""

    table: Table
    kinds: Mapping[str, Kind]
    rows: int


@dataclass(frozen=True, slots=True)
class Result:
    """All comparisons, the most surely drifted first, each with its adjusted p-value; and what was not compared."""

    parts: Sequence[Part]
    adjusted: Sequence[float]
    drifted: Sequence[Part]
    notes: Sequence[Note]
    smallest: float


def compared(name: str, live: Side, reference: Side, how: How) -> Iterator[Part | Note]:
    """What one column's comparison gives: its nulls where there are any, and its values or why they were not compared."""
    now, then = live.kinds.get(name), reference.kinds.get(name)
    if now is None or then is None:
        yield Note(name, f"missing in {'live' if now is None else 'the reference'}", changed=True)
    elif _by_category(name, live.table, {now, then}, how.nominal):
        yield from _categories(name, live, reference, how)
    elif now != then and not {now, then} <= {"number", "integer"}:
        yield Note(name, f"{now} now, {then} in the reference", changed=True)
    elif now in ("number", "integer"):
        yield from _numbers(name, live, reference, how)
    else:
        yield Note(name, f"{now} columns have no distribution to compare")


def _by_category(name: str, live: Table, kinds: set[Kind], nominal: Sequence[str]) -> bool:
    return is_class(name, live, {*kinds}) or kinds in ({"text"}, {"boolean"}) or any(fnmatchcase(name, pattern) for pattern in nominal)


def _numbers(name: str, live: Side, reference: Side, how: How) -> Iterator[Part | Note]:
    then, then_nulls = _values(name, reference)
    if not by_row(live.table):
        yield from _counted(name, live.table, then, then_nulls, how)
        return
    now, nulls = _values(name, live)
    yield from of_nulls(name, nulls, nulls + len(now), then_nulls, then_nulls + len(then), how)
    if min(len(now), len(then)) < how.rows:
        yield too_few(name, len(now), len(then))
    else:
        gap, near = _gaps.numbers(now, then), _distances.of_numbers(now, then, how.describe)
        yield Part(name, gap, how.number, name, near, steps(now, then))


def _counted(name: str, live: Table, then: Any, then_nulls: int, how: How) -> Iterator[Part | Note]:
    """Where live values stay in their engine."""
    places = _binned.cuts(then) if len(then) else ()
    now = live.tally([Ask(name, places)])[name]
    yield from of_nulls(name, now.nulls, now.rows, then_nulls, then_nulls + len(then), how)
    if min(now.rows - now.nulls, len(then)) < how.rows:
        yield too_few(name, now.rows - now.nulls, len(then))
    else:
        gap, near, shape = _binned.compared(now, then, places)
        yield Part(name, gap, how.number, name, near, shape)


def _values(name: str, side: Side) -> tuple[Any, int]:
    """What `_sorted` makes of a column; CannotError where its engine only counts."""
    return _sorted(cast("Columns", side.table).column(name), side.rows)


def _sorted(chunks: Iterator[Any], rows: int) -> tuple[Any, int]:
    """The values in rising order, and how many more were null. One array takes all chunks where there are no more rows than expected."""
    import numpy as np

    values, at = np.empty(rows), 0
    for chunk in chunks:
        if at + len(chunk) > len(values):  # rows came since they were counted
            values = np.concatenate([values[:at], np.empty(len(values) + len(chunk))])
        values[at : at + len(chunk)] = chunk
        at += len(chunk)
    values = values[:at]
    values.sort()  # NaN goes last
    known = int(np.searchsorted(values, np.nan))
    return values[:known], at - known


def _categories(name: str, live: Side, reference: Side, how: How) -> Iterator[Part | Note]:
    now, then = (side.table.tally([Ask(name, top=DISTINCT)])[name] for side in (live, reference))
    yield from of_nulls(name, now.nulls, now.rows, then.nulls, then.rows, how)
    if min(now.rows - now.nulls, then.rows - then.nulls) < how.rows:
        yield too_few(name, now.rows - now.nulls, then.rows - then.nulls)
    elif now.by_key.get(None) or then.by_key.get(None):
        yield Note(name, f"more than {DISTINCT} different values: a name or prose, not a category")
    else:
        yield of_shares(name, _named(now), _named(then), how)


def _named(tally: Tally) -> dict[str, int]:
    return {key: count for key, count in tally.by_key.items() if key is not None}


def of_shares(name: str, now: Mapping[str, int], then: Mapping[str, int], how: How) -> Part | Note:
    """The counts by category, or why they say nothing."""
    gap = _gaps.categories(now, then)
    if gap is None:
        return Note(name, "one value only on both sides" if len({*now, *then}) == 1 else "every value is too rare to test")
    return Part(name, gap, how.category, name, _distances.of_categories(now, then), bars(now, then))


def of_nulls(name: str, nulls: int, n: int, then_nulls: int, m: int, how: How) -> Iterator[Part]:
    """The shares of nulls, where either side has one."""
    if nulls or then_nulls:
        drawn = bars({"null": nulls, "not null": n - nulls}, {"null": then_nulls, "not null": m - then_nulls})
        yield Part(f"{name}.nulls", _gaps.shares(nulls, n, then_nulls, m), how.nulls, name, shape=drawn)


def too_few(name: str, now: int, then: int) -> Note:
    """Why a column with that many values on the two sides is not tested."""
    return Note(name, f"{now} live and {then} reference values are too few")


# All of them together


def judged(found: Sequence[Part | Note], false_discovery: float, smallest: float) -> Result:
    """Drifted is what differs, adjusted over all comparisons, and surely by more than its floor."""
    parts = [one for one in found if isinstance(one, Part)]
    by_part = dict(zip(map(id, parts), benjamini_hochberg([part.gap.p for part in parts]), strict=True))
    drifted = {id(part) for part in parts if by_part[id(part)] <= false_discovery and part.gap.interval[0] > part.floor}
    worst = sorted(parts, key=lambda part: (id(part) not in drifted, part.floor - part.gap.interval[0], part.floor - part.gap.effect))
    notes = [one for one in found if isinstance(one, Note)]
    return Result(worst, [by_part[id(part)] for part in worst], worst[: len(drifted)], notes, smallest)


def verdict(result: Result, sizes: str) -> Verdict:
    """Fail, warn, nodata or ok, with a part for each comparison."""
    parts, drifted, left = result.parts, result.drifted, left_out(result.notes, "not compared")
    if drifted:
        status, reason = fail, f"{len(drifted)} of {len(parts)} comparisons drifted ({sizes}): {_told(drifted)}{left}"
    elif not parts:
        status, reason = nodata, f"no column could be compared ({sizes}){left}"
    else:
        calm = f"{len(parts)} comparisons within their limits ({sizes}; a distance below {result.smallest:.2g} cannot be called at these sizes)"
        status, reason = warn if any(note.changed for note in result.notes) else ok, f"{calm}{left}"
    return status(reason, parts[0].reading if parts else None, parts={part.name: part.reading for part in parts})


def _told(drifted: Sequence[Part]) -> str:
    words = [
        f"{part.name} by {part.gap.effect:.2f} ({part.gap.interval[0]:.2f} to {part.gap.interval[1]:.2f}, limit {part.floor:g})" for part in drifted
    ]
    return ", ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")


def lines(result: Result) -> list[dict[str, Any]]:
    """Every number of every comparison, as JSON."""
    many = len(result.drifted)  # they come first
    return [_line(part, p, place < many) for place, (part, p) in enumerate(zip(result.parts, result.adjusted, strict=True))]


def _line(part: Part, adjusted: float, drifted: bool) -> dict[str, Any]:
    line = {"name": part.name, "column": part.column, "limit": part.floor, "p_adjusted": adjusted, "drifted": drifted, **to_json(part.gap)}
    return {**line, "distances": to_json(part.distances)} if part.distances else line
