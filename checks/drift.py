"""Whether live columns still follow the reference: every column tested, all judged together, and only what is large enough to matter told."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent import Columns, Reading, Verdict, Window, check, fail, nodata, ok, to_json, warn
from agent.stats import benjamini_hochberg
from checks._comparison import How, Note, Part, Side, compared, wanted
from checks._page import caption, page
from checks._picture import column, sheet
from checks._samples import reach

DRAWN = 12  # drifted columns in the picture that is kept with a finding


@dataclass(frozen=True, slots=True)
class Result:
    """All comparisons, the most surely drifted first, each with its adjusted p-value; and what was not compared."""

    parts: Sequence[Part]
    adjusted: Sequence[float]
    drifted: Sequence[Part]
    notes: Sequence[Note]
    smallest: float


@check(pillar="monitoring", asks="Do live columns still follow the distribution of the reference?", cause="drift")
def compare(
    live: Columns,
    reference: Columns,
    window: Window | None = None,
    tell: Callable[[float, str], None] | None = None,
    *,
    columns: list[str] | None = None,
    nominal: list[str] | None = None,
    false_discovery: float = 0.05,
    floor_number: float = 0.1,
    floor_category: float = 0.1,
    floor_nulls: float = 0.02,
    rows_at_least: int = 100,
    describe: bool = False,
    draw_all: bool = False,
) -> Verdict:
    """Fails when a column drifted: its p-value, adjusted over all comparisons, is at most `false_discovery`, and the lower end of the 95 %
    interval of its effect is above the floor.

    Numbers: Kolmogorov-Smirnov distance. Categories (text, booleans, a whole-number prediction, and what `nominal` names): total variation
    distance with a chi-square test. Nulls of a column are a comparison of their own, "<column>.nulls". `columns` (names or patterns)
    defaults to the declared features, prediction and score, or to every column that has a distribution. Without a window all of live is
    compared; the reference always is. Columns with fewer than `rows_at_least` values on a side are not tested. What could not be compared
    because its type changed or it is missing is a warning; nothing to compare is nodata.

    PSI, Jensen-Shannon and others over the reference's deciles stand beside each verdict and decide nothing; `describe` adds those that walk
    over all values (Wasserstein, energy, Cramer-von Mises, Anderson-Darling). Drifted columns are drawn in compare.svg; `draw_all` makes
    compare.html, a page with every column.
    """
    rows = live.between(window.start, window.end) if window else live
    now, then = Side(rows, rows.kinds(), rows.rows()), Side(reference, reference.kinds(), reference.rows())
    rows_at_least = max(1, rows_at_least)
    if min(now.rows, then.rows) < rows_at_least:
        few = f"{now.rows} live and {then.rows} reference rows; {rows_at_least} of each are needed"
        return nodata(few, Reading(min(now.rows, then.rows), rows_at_least))
    how = How(floor_number, floor_category, floor_nulls, rows_at_least, nominal or (), describe)
    names, found = wanted(now, then, columns), list[Part | Note]()
    for place, name in enumerate(names):
        if tell:
            tell(place / len(names), name)
        found += compared(name, now, then, how)
    return _verdict(_judged(found, false_discovery, floor_number + reach(now.rows, then.rows)), f"{now.rows} rows against {then.rows}", draw_all)


def _judged(found: Sequence[Part | Note], false_discovery: float, smallest: float) -> Result:
    parts = [one for one in found if isinstance(one, Part)]
    by_part = dict(zip(map(id, parts), benjamini_hochberg([part.gap.p for part in parts]), strict=True))
    drifted = {id(part) for part in parts if by_part[id(part)] <= false_discovery and part.gap.interval[0] > part.floor}
    worst = sorted(parts, key=lambda part: (id(part) not in drifted, part.floor - part.gap.interval[0], part.floor - part.gap.effect))
    notes = [one for one in found if isinstance(one, Note)]
    return Result(worst, [by_part[id(part)] for part in worst], worst[: len(drifted)], notes, smallest)


# In words


def _verdict(result: Result, sizes: str, draw_all: bool) -> Verdict:
    """Fail, warn, nodata or ok, with every number in compare.json."""
    parts, drifted, left = result.parts, result.drifted, _left_out(result.notes)
    if drifted:
        status, reason = fail, f"{len(drifted)} of {len(parts)} comparisons drifted ({sizes}): {_told(drifted)}{left}"
    elif not parts:
        status, reason = nodata, f"no column could be compared ({sizes}){left}"
    else:
        calm = f"{len(parts)} comparisons within their limits ({sizes}; a distance below {result.smallest:.2g} cannot be called at these sizes)"
        status, reason = warn if any(note.changed for note in result.notes) else ok, f"{calm}{left}"
    verdict = status(reason, parts[0].reading if parts else None, parts={part.name: part.reading for part in parts})
    return replace(verdict, data=_files(verdict, result, draw_all))


def _told(drifted: Sequence[Part]) -> str:
    words = [
        f"{part.name} by {part.gap.effect:.2f} ({part.gap.interval[0]:.2f} to {part.gap.interval[1]:.2f}, limit {part.floor:g})" for part in drifted
    ]
    return ", ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")


def _left_out(notes: Sequence[Note]) -> str:
    if not notes:
        return ""
    told = sorted(notes, key=lambda note: not note.changed)
    words = "; ".join(f"{note.name}: {note.why}" for note in told[:3]) + (f"; and {len(notes) - 3} more" if len(notes) > 3 else "")
    return f"; not compared: {words}"


# What is kept with a finding


def _files(verdict: Verdict, result: Result, draw_all: bool) -> dict[str, bytes]:
    many = len(result.drifted)  # they come first
    lines = [_line(part, p, place < many) for place, (part, p) in enumerate(zip(result.parts, result.adjusted, strict=True))]
    told = {"comparisons": lines, "not_compared": to_json(result.notes), "smallest_distance": result.smallest}
    captions = {line["name"]: caption(line) for line in lines}
    drawn = [column(part.name, captions[part.name], part.shape) for part in result.drifted[:DRAWN]]
    shapes = {part.name: part.shape for place, part in enumerate(result.parts) if part.distances or place < many}  # nulls only where they drifted
    files = {"compare.json": json.dumps(told, indent=1).encode()}
    files |= {"compare.svg": sheet(drawn).encode()} if drawn else {}
    return files | ({"compare.html": page(verdict.status.value, verdict.reason, told, shapes).encode()} if draw_all else {})


def _line(part: Part, adjusted: float, drifted: bool) -> dict[str, Any]:
    line = {"name": part.name, "column": part.column, "limit": part.floor, "p_adjusted": adjusted, "drifted": drifted, **to_json(part.gap)}
    return {**line, "distances": to_json(part.distances)} if part.distances else line
