"""Whether live columns still follow the reference: every column tested, all judged together, and only what is large enough to matter told."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from agent import Baseline, Columns, Reading, Table, Verdict, Window, check, nodata, to_json
from checks import _concept, _joint, _sides
from checks._bettor import Bets
from checks._columns import Note, answers, declared, is_class, wanted
from checks._comparison import How, Part, Result, Side, compared, judged, lines, verdict
from checks._evidence import Settings, Sums
from checks._follow import follow, follow_means, follow_past
from checks._gaps import reach
from checks._means import Means
from checks._page import caption, page
from checks._past import Own
from checks._picture import column, sheet
from checks._sample import Asked
from checks._windows import unjudged

DRAWN = 12  # drifted columns in the picture that is kept with a finding


@check(pillar="monitoring", asks="Do live columns still follow the distribution of the reference?", cause="drift", answers=("MON-03",))
def compare(
    live: Table,
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
    because its type changed or it is missing is a warning; nothing to compare is nodata. Where only counts leave the engine of live, numbers are
    compared over cells that the reference chooses: the distance is then at most 1/32 below the exact one, and nothing is called that the exact
    one would not call.

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
    names, found = wanted(live, now.kinds, then.kinds, columns), list[Part | Note]()
    for place, name in enumerate(names):
        if tell:
            tell(place / len(names), name)
        found += compared(name, now, then, how)
    result = judged(found, false_discovery, floor_number + reach(now.rows, then.rows))
    told = verdict(result, f"{now.rows} rows against {then.rows}")
    return replace(told, data=_files(told, result, draw_all))


# What is kept with a finding


def _files(told: Verdict, result: Result, draw_all: bool) -> dict[str, bytes]:
    written = lines(result)
    kept = {"comparisons": written, "not_compared": to_json(result.notes), "smallest_distance": result.smallest}
    captions = {line["name"]: caption(line) for line in written}
    drawn = [column(part.name, captions[part.name], part.shape) for part in result.drifted[:DRAWN]]
    many = len(result.drifted)
    shapes = {part.name: part.shape for place, part in enumerate(result.parts) if part.distances or place < many}  # nulls only where they drifted
    files = {"compare.json": json.dumps(kept, indent=1).encode()}
    files |= {"compare.svg": sheet(drawn).encode()} if drawn else {}
    return files | ({"compare.html": page(told.status.value, told.reason, kept, shapes).encode()} if draw_all else {})


# Evidence that adds up over windows


@check(pillar="monitoring", asks="Does each live feature still follow its training distribution?", cause="drift", answers=("MON-03",))
def features(
    live: Table,
    window: Window,
    run_length: float,
    reference: Columns | None = None,
    baseline: Baseline | None = None,
    memory: Sums | None = None,
    *,
    columns: list[str] | None = None,
    nominal: list[str] | None = None,
    tolerance: float = 0.02,
    tolerance_rare: float = 0.005,
    cluster: float | None = None,
    traffic: bool = False,
    season: timedelta | None = None,
) -> Verdict:
    """Fails when the evidence that a feature left the reference, added up over windows, reaches what chance reaches once in `run_length` windows.

    Watched are shares: of values at most each decile of the reference, of each usual value or category, of values never seen before, of nulls.
    A share may move by `tolerance` (nulls and unseen values by `tolerance_rare`) beyond the reference's own error. The yardstick is what was
    pinned, else the reference; it is read once and remembered. Every window is judged once. `cluster` is how many rows move together
    (None: measured from a reference with times, else 1). `traffic` adds the row count, late rows and the age of the newest row, ranked among
    the watch's own past, or with `season` (such as 7d) their difference from the same slot one season earlier.

    With probability at least 99 % over the draw of the reference, and while every window stays within tolerance of it, false alarms are at
    least `run_length` windows apart on average, and the chance of one in the first t windows is at most t / run_length. Rows of a window must
    be independent, up to `cluster`; nothing is said about windows that depend on each other. Source: checks/_sequential.py.
    """
    kinds = live.kinds()
    names = [name for name in wanted(live, kinds, reference.kinds() if reference else kinds, columns) if columns or name not in answers(live)]
    settings = Settings(tolerance, tolerance_rare, run_length, traffic, season)
    return follow(live, {name: kinds.get(name) for name in names}, window, reference, baseline, memory, settings, nominal or (), cluster)


@check(pillar="monitoring", asks="Do predictions still fall as they did on the reference?", cause="drift", answers=("MON-04",))
def predictions(
    live: Table,
    window: Window,
    run_length: float,
    reference: Columns | None = None,
    baseline: Baseline | None = None,
    memory: Sums | None = None,
    *,
    tolerance: float = 0.02,
    tolerance_rare: float = 0.005,
    cluster: float | None = None,
) -> Verdict:
    """Like `drift.features`, over the declared prediction and score. A whole-number or text prediction is a class; a fraction is a number."""
    kinds, names = live.kinds(), answers(live)
    if not names:
        return nodata("live declares neither prediction nor score; add `prediction:` or `score:` to the target")
    labels = [name for name in names if is_class(name, live, {kinds.get(name)})]
    settings = Settings(tolerance, tolerance_rare, run_length)
    return follow(live, {name: kinds.get(name) for name in names}, window, reference, baseline, memory, settings, labels, cluster)


@check(pillar="monitoring", asks="Do true labels still fall as they did on the reference?", cause="drift")
def labels(
    labels: Table,
    window: Window,
    run_length: float,
    reference: Columns | None = None,
    baseline: Baseline | None = None,
    memory: Sums | None = None,
    *,
    tolerance: float = 0.02,
    tolerance_rare: float = 0.005,
    cluster: float | None = None,
) -> Verdict:
    """Like `drift.features`, over the declared label, in windows of the labels' own time. The reference has a column of the same name.

    A whole-number or text label is a class; a fraction is a number. A window holds the labels that had come when it was judged.
    """
    name = labels.declared.get("label")
    if not name or not labels.declared.get("time"):
        return nodata("the labels target must declare `label:` and `time:`")
    kinds = labels.kinds()
    nominal = [name] if kinds.get(name) in ("integer", "text", "boolean") else []
    settings = Settings(tolerance, tolerance_rare, run_length)
    return follow(labels, {name: kinds.get(name)}, window, reference, baseline, memory, settings, nominal, cluster)


@check(pillar="monitoring", asks="Does each number's mean stay where the reference had it?", cause="drift")
def means(
    live: Columns,
    reference: Columns,
    window: Window,
    run_length: float,
    memory: Means | None = None,
    *,
    columns: list[str] | None = None,
    tolerance: float = 0.02,
    cluster: float = 1.0,
) -> Verdict:
    """The mean bet: sharper than `drift.features` for a small move of a whole distribution, and blind to everything else.

    Values are clipped to the reference's 0.1 % and 99.9 % points; `tolerance` is a share of the range between them. `cluster` is how many rows
    move together. The promise is that of `drift.features`, about the clipped means. Source: checks/_means.py.
    """
    kinds = reference.kinds()
    names = [name for name in wanted(live, live.kinds(), kinds, columns) if kinds.get(name) in ("number", "integer")]
    return follow_means(live, reference, names, window, memory, tolerance, cluster, run_length)


@check(pillar="monitoring", asks="Is this window like those before it?", cause="drift")
def past(
    live: Table,
    window: Window,
    run_length: float,
    memory: Own | None = None,
    *,
    columns: list[str] | None = None,
    season: timedelta | None = None,
) -> Verdict:
    """Fails when windows stop being like their own past: means of numbers, shares of nulls, the row count, late rows, the age of the newest row.

    No reference is needed. Each statistic is ranked among those of the windows before it (the last 2,000), or with `season` its difference from
    the window one season earlier is. False alarms are at least `run_length` windows apart on average while windows are exchangeable: a trend or
    a daily rhythm breaks that, so give the rhythm as `season`. What moves slowly stays invisible. Source: checks/_past.py.
    """
    kinds = live.kinds()
    return follow_past(live, {name: kinds[name] for name in wanted(live, kinds, kinds, columns) if name in kinds}, window, memory, run_length, season)


# All columns as one


@check(
    pillar="monitoring",
    asks="Do live rows, all columns together, still follow the distribution of the reference?",
    cause="drift",
    answers=("MON-03",),
)
def multivariate(
    live: Columns,
    reference: Columns,
    window: Window | None = None,
    *,
    columns: list[str] | None = None,
    nominal: list[str] | None = None,
    level: float = 0.01,
    floor: float = 0.1,
    permutations: int = 1_000,
    rows_at_least: int = 200,
) -> Verdict:
    """Fails when live and reference differ, p at most `level`, and more than `floor` of the rows would surely have to change to undo it.

    p is twice the smaller of two: of the maximum mean discrepancy between all live rows and half of the reference, under `permutations` of them,
    and of a classifier made of half of either side and tried on the other. The share is what that classifier tells apart: a lower bound of the total
    variation distance; the lower end of its 95 % interval must pass `floor`. Columns as in `compare`, and lists of numbers. The window seeds
    what is drawn: the same window has the same answer. Fewer rows than `rows_at_least` (never below 8) on a side is nodata.
    """
    rows = live.between(window.start, window.end) if window else live
    sizes, needed = (rows.rows(), reference.rows()), max(8, rows_at_least)
    if min(sizes) < needed:
        return nodata(f"{sizes[0]} live and {sizes[1]} reference rows; {needed} of each are needed", Reading(min(sizes), needed))
    drawn = _sides.seed(window)
    both = _sides.sides(rows, reference, sizes, *_as_one(rows, reference, columns, nominal or ()), drawn, _joint.ONCE)
    return _joint.compared(both, sizes, level, floor, max(0, permutations), drawn) if both.labels else _joint.nothing(both.left)


@check(pillar="monitoring", asks="Can a classifier that learns from window to window tell live rows from the reference?", cause="drift")
def embedding(
    live: Columns,
    reference: Columns,
    window: Window,
    run_length: float,
    memory: Bets | None = None,
    *,
    columns: list[str] | None = None,
    nominal: list[str] | None = None,
    tolerance: float = 0.02,
    cluster: int = 1,
    rows_at_least: int = 20,
) -> Verdict:
    """Fails when the evidence that live rows differ from the reference by more than `tolerance` reaches `run_length`.

    For wide rows and lists of numbers. A classifier made of half the reference and of past windows bets on each new one against its rate on the other
    half. While every window stays within `tolerance` (total variation: the share of rows that would have to change) of what the reference was drawn
    from, the mean time between false alarms is at least `run_length` windows, with probability 99 % over the reference. Up to `cluster` rows
    may move together. The first window, and fewer than `rows_at_least` live or 200 reference rows, are nodata.
    """
    window = unjudged(window, memory.end_at if memory else None)
    rows = live.between(window.start, window.end)
    sizes = rows.rows(), reference.rows()
    if sizes[0] < max(1, rows_at_least) or sizes[1] < _joint.REFERENCE:
        return nodata(
            f"{sizes[0]} live and {sizes[1]} reference rows; {rows_at_least} and {_joint.REFERENCE} are needed", Reading(sizes[0], rows_at_least)
        )
    drawn = _sides.seed(window)
    both = _sides.sides(rows, reference, sizes, *_as_one(rows, reference, columns, nominal or ()), drawn, _joint.OFTEN, cluster)
    return _joint.bet(both, window, run_length, memory, tolerance, max(1, cluster)) if both.labels else _joint.nothing(both.left)


def _as_one(live: Columns, reference: Columns, columns: Sequence[str] | None, nominal: Sequence[str]) -> tuple[list[str], frozenset[str]]:
    """The columns that are looked at together, lists among them, and which of them are names whatever they hold."""
    kinds, then = live.kinds(), reference.kinds()
    names = wanted(live, kinds, then, columns)
    if columns is None and not declared(live):
        names += [name for name in then if then[name] == "list" and name not in names]
    labels = {name for name in names if is_class(name, live, {kinds.get(name), then.get(name)})}
    return names, frozenset(labels | {name for name in names if any(fnmatchcase(name, pattern) for pattern in nominal)})


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
