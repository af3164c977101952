"""Whether live columns still follow the reference: every column tested, all judged together, and only what is large enough to matter told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from agent import Ask, Baseline, Columns, Kind, Reading, Verdict, Window, check, fail, nodata, ok, to_json, warn
from agent.errors import DataError
from agent.stats import benjamini_hochberg
from checks import _concept
from checks._sample import Asked
from checks._samples import Gap, categories, numbers, reach, shares

DISTINCT = 1_000  # categories beyond which a text column is a name or prose, and its distribution says nothing


@dataclass(frozen=True, slots=True)
class Part:
    """One comparison of one column: its gap and the floor the gap must pass to matter."""

    name: str
    gap: Gap
    floor: float

    @property
    def reading(self) -> Reading:
        return Reading(self.gap.effect, self.floor, self.gap.interval, self.gap.n)


@dataclass(frozen=True, slots=True)
class Note:
    """A column that was not compared, and why; `changed` where that is itself a change."""

    name: str
    why: str
    changed: bool = False


@dataclass(frozen=True, slots=True)
class Floors:
    """The effect each kind of comparison must pass, and the fewest values it needs on a side."""

    number: float
    category: float
    nulls: float
    rows: int


@check(pillar="monitoring", asks="Do live columns still follow the distribution of the reference?", cause="drift")
def compare(
    live: Columns,
    reference: Columns,
    window: Window | None = None,
    *,
    columns: list[str] | None = None,
    nominal: list[str] | None = None,
    false_discovery: float = 0.05,
    floor_number: float = 0.1,
    floor_category: float = 0.1,
    floor_nulls: float = 0.02,
    rows_at_least: int = 100,
) -> Verdict:
    """Fails when a column drifted: its p-value, adjusted over all comparisons, is at most `false_discovery`, and the lower end of the 95 %
    interval of its effect is above the floor.

    Numbers: Kolmogorov-Smirnov distance. Categories (text, booleans, a whole-number prediction, and what `nominal` names): total variation
    distance with a chi-square test. Nulls of a column are a comparison of their own, "<column>.nulls". `columns` (names or patterns)
    defaults to the declared features, prediction and score, or to every column that has a distribution. Without a window all of live is
    compared; the reference always is. Columns with fewer than `rows_at_least` values on a side are not tested. What could not be compared
    because its type changed or it is missing is a warning; nothing to compare is nodata.
    """
    rows = live.between(window.start, window.end) if window else live
    n, m = rows.rows(), reference.rows()
    if min(n, m) < rows_at_least:
        return nodata(f"{n} live and {m} reference rows; {rows_at_least} of each are needed", Reading(min(n, m), rows_at_least))
    floors = Floors(floor_number, floor_category, floor_nulls, rows_at_least)
    kinds = rows.kinds(), reference.kinds()
    found = [one for name in _wanted(live, *kinds, columns) for one in _column(name, rows, reference, kinds, nominal or (), floors)]
    parts = [one for one in found if isinstance(one, Part)]
    notes = [one for one in found if isinstance(one, Note)]
    adjusted = benjamini_hochberg([part.gap.p for part in parts])
    drifted = [part for part, p in zip(parts, adjusted, strict=True) if p <= false_discovery and part.gap.interval[0] > part.floor]
    return _verdict(parts, adjusted, drifted, notes, f"{n} rows against {m}", floors.number + reach(n, m))


# Which columns, and how each is compared


def _wanted(live: Columns, kinds: Mapping[str, Kind], reference: Mapping[str, Kind], columns: Sequence[str] | None) -> list[str]:
    known = list(dict.fromkeys([*kinds, *reference]))
    if columns is None:
        return _declared(live) or [name for name in known if _has_distribution(name, live, kinds.get(name, reference.get(name)))]
    for pattern in columns:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise DataError(f"columns: '{pattern}' is in neither live nor reference; there is {', '.join(known[:12])}")
    return [name for name in known if any(fnmatchcase(name, pattern) for pattern in columns)]


def _declared(live: Columns) -> list[str]:
    features = live.declared.get("features") or ()
    if isinstance(features, Mapping):
        features = features.get("names") or [f"{features.get('prefix', 'p')}{place}" for place in range(int(features["size"]))]
    return [*features, *(live.declared[what] for what in ("prediction", "score") if live.declared.get(what))]


def _has_distribution(name: str, live: Columns, kind: Kind | None) -> bool:
    names = [live.declared.get(what) for what in ("id", "entity", "version", "weight")]
    names += [rule["column"] for rule in live.declared.get("exclude") or ()]
    return name not in names and kind in ("number", "integer", "text", "boolean")


def _column(
    name: str, live: Columns, reference: Columns, kinds: tuple[Mapping[str, Kind], Mapping[str, Kind]], nominal: Sequence[str], floors: Floors
) -> Iterator[Part | Note]:
    now, then = kinds[0].get(name), kinds[1].get(name)
    if now is None or then is None:
        yield Note(name, f"missing in {'live' if now is None else 'the reference'}", changed=True)
    elif _by_category(name, live, {now, then}, nominal):
        yield from _categories(name, live, reference, floors)
    elif now != then and not {now, then} <= {"number", "integer"}:
        yield Note(name, f"{now} now, {then} in the reference", changed=True)
    elif now in ("number", "integer"):
        yield from _numbers(name, live, reference, floors)
    else:
        yield Note(name, f"{now} columns have no distribution to compare")


def _by_category(name: str, live: Columns, kinds: set[Kind], nominal: Sequence[str]) -> bool:
    if name == live.declared.get("prediction") and kinds <= {"integer", "text", "boolean"}:
        return True  # class labels, whichever way each side spells them
    return kinds in ({"text"}, {"boolean"}) or any(fnmatchcase(name, pattern) for pattern in nominal)


def _numbers(name: str, live: Columns, reference: Columns, floors: Floors) -> Iterator[Part | Note]:
    (now, nulls, n), (then, then_nulls, m) = (_sorted(table.column(name)) for table in (live, reference))
    yield from _nulls(name, nulls, n, then_nulls, m, floors)
    if min(len(now), len(then)) < floors.rows:
        yield _few(name, len(now), len(then))
    else:
        yield Part(name, numbers(now, then), floors.number)


def _sorted(chunks: Iterator[Any]) -> tuple[Any, int, int]:
    """The values in rising order, how many were null, and how many rows there were."""
    import numpy as np

    values = np.concatenate([np.empty(0), *chunks])
    known = values[~np.isnan(values)]
    known.sort()
    return known, len(values) - len(known), len(values)


def _categories(name: str, live: Columns, reference: Columns, floors: Floors) -> Iterator[Part | Note]:
    now, then = (table.tally([Ask(name, top=DISTINCT)])[name] for table in (live, reference))
    yield from _nulls(name, now.nulls, now.rows, then.nulls, then.rows, floors)
    if min(now.rows - now.nulls, then.rows - then.nulls) < floors.rows:
        yield _few(name, now.rows - now.nulls, then.rows - then.nulls)
    elif now.by_key.get(None) or then.by_key.get(None):
        yield Note(name, f"more than {DISTINCT} different values: a name or prose, not a category")
    else:
        keys = [{key: count for key, count in tally.by_key.items() if key is not None} for tally in (now, then)]
        gap = categories(*keys)
        alone = "one value only on both sides" if len({*keys[0], *keys[1]}) == 1 else "every value is too rare to test"
        yield Part(name, gap, floors.category) if gap else Note(name, alone)


def _nulls(name: str, nulls: int, n: int, then_nulls: int, m: int, floors: Floors) -> Iterator[Part]:
    if nulls or then_nulls:
        yield Part(f"{name}.nulls", shares(nulls, n, then_nulls, m), floors.nulls)


def _few(name: str, now: int, then: int) -> Note:
    return Note(name, f"{now} live and {then} reference values are too few")


# In words


def _verdict(parts: list[Part], adjusted: Sequence[float], drifted: list[Part], notes: list[Note], sizes: str, smallest: float) -> Verdict:
    """Fail, warn, nodata or ok, with every number in compare.json."""
    worst = sorted(parts, key=lambda part: (part not in drifted, part.floor - part.gap.interval[0], part.floor - part.gap.effect))
    more: dict[str, Any] = {
        "parts": {part.name: part.reading for part in worst},
        "data": {"compare.json": _file(parts, adjusted, drifted, notes, smallest)},
    }
    reading = worst[0].reading if worst else None
    left = _left_out(notes)
    if drifted:
        return fail(f"{len(drifted)} of {len(parts)} comparisons drifted ({sizes}): {_told(worst[: len(drifted)])}{left}", reading, **more)
    if not parts:
        return nodata(f"no column could be compared ({sizes}){left}", **more)
    calm = f"{len(parts)} comparisons within their limits ({sizes}; a distance below {smallest:.2g} cannot be called at these sizes)"
    return (warn if any(note.changed for note in notes) else ok)(f"{calm}{left}", reading, **more)


def _told(drifted: list[Part]) -> str:
    words = [
        f"{part.name} by {part.gap.effect:.2f} ({part.gap.interval[0]:.2f} to {part.gap.interval[1]:.2f}, limit {part.floor:g})" for part in drifted
    ]
    return ", ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")


def _spelled(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.2f} to {interval[1]:.2f}"


def _left_out(notes: list[Note]) -> str:
    if not notes:
        return ""
    told = sorted(notes, key=lambda note: not note.changed)
    words = "; ".join(f"{note.name}: {note.why}" for note in told[:3]) + (f"; and {len(notes) - 3} more" if len(notes) > 3 else "")
    return f"; not compared: {words}"


def _file(parts: list[Part], adjusted: Sequence[float], drifted: list[Part], notes: list[Note], smallest: float) -> bytes:
    lines = [
        {"name": part.name, "limit": part.floor, "p_adjusted": p, "drifted": part in drifted, **to_json(part.gap)}
        for part, p in zip(parts, adjusted, strict=True)
    ]
    return json.dumps({"comparisons": lines, "not_compared": to_json(notes), "smallest_distance": smallest}, indent=1).encode()


# Against the truth, when it has come


@check(pillar="monitoring", asks="Do the labels still follow the answers as they did, or has what they mean moved?", cause="drift")
def concept(
    live: Columns,
    labels: Columns,
    window: Window,
    run_length: float,
    reference: Columns | None = None,
    baseline: Baseline | None = None,
    memory: _concept.Sums | None = None,
    now: datetime | None = None,
    *,
    loss: _concept.Loss | None = None,
    tolerance: float = 0.01,
    label: str | None = None,
    learn: int = 2_000,
    coverage_at_least: float = 0.5,
    positive: str | None = None,
) -> Verdict:
    """Fails when the mean loss is surely above the baseline's upper bound plus `tolerance`: once in `run_length` windows at most where it is not."""
    told = _concept.Settings(loss, tolerance, Asked(positive=positive), label, learn, coverage_at_least)
    return _concept.look(live, labels, window, run_length, reference, baseline, memory, now, told)
