"""From rows to a verdict, for every check that adds evidence over windows: the profile made once, each window counted once, the sums moved on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import cast

from agent import Ask, Baseline, Columns, Kind, Reading, Table, Verdict, Window, nodata, warn
from agent.errors import DataError
from checks import _means as means
from checks._evidence import Settings, Sums, counted, fold, layout
from checks._means import Means
from checks._past import Own, Past, further, statistics
from checks._profile import Profile, profile
from checks._sequential import mean_log
from checks._shift import PAST, alarm, verdict
from checks._windows import stretch, tallied, unjudged

ROWS = 100  # fewer reference rows than this say nothing that is worth a watch


def follow(
    live: Table,
    kinds: Mapping[str, Kind | None],
    window: Window,
    reference: Columns | None,
    baseline: Baseline | None,
    memory: Sums | None,
    settings: Settings,
    nominal: Sequence[str] = (),
    cluster: float | None = None,
) -> Verdict:
    """The Verdict on the columns of `kinds`: those live has, or should have, with the kind it stores them as."""
    if baseline and window.end <= baseline.end_at:
        return nodata(f"these rows lie before the end of what was pinned ({baseline.end_at:%Y-%m-%d %H:%M}Z), and are not tested")
    if memory is None:
        made = _yardstick(live, kinds, window, reference, baseline, nominal, cluster)
        if isinstance(made, Verdict):
            return made
        memory = Sums(made, "", baseline.end_at if baseline else window.start)
    plan = layout(memory.profile, settings)
    window = unjudged(window, memory.until_at)
    seen = counted(live, window, memory.profile.columns, memory.recent)
    if not seen.tallied.n:
        return _empty(window)
    return verdict(plan, fold(plan, memory, window, seen, settings), seen, settings, window)


def _yardstick(
    live: Table,
    kinds: Mapping[str, Kind | None],
    window: Window,
    reference: Columns | None,
    baseline: Baseline | None,
    nominal: Sequence[str],
    cluster: float | None,
) -> Profile | Verdict:
    """The profile of what was pinned, else of the reference; a nodata Verdict when neither can be a yardstick."""
    table = cast(Columns, live.between(baseline.start_at, baseline.end_at)) if baseline else reference
    what = f"the stretch pinned by {baseline.by}" if baseline else "the reference"
    if table is None:
        return nodata("nothing to compare with: add a `reference` target, or pin a good stretch of live rows with `watchkeeper baseline pin`")
    if not hasattr(table, "column"):
        raise DataError("live cannot stream columns, so no stretch of it can be the yardstick; bind a `reference` that can")
    made = profile(table, kinds, nominal, cluster, window.length.total_seconds())
    if made.rows < ROWS:
        return nodata(f"{what} has {made.rows} rows; {ROWS} are needed to say what is usual", Reading(made.rows, ROWS))
    if not made.columns:
        left = "; ".join(f"{name}: {why}" for name, why in list(made.left_out.items())[:3])
        return nodata(f"no column of {what} can be watched ({left or 'none is declared'})")
    return made


def _empty(window: Window) -> Verdict:
    return nodata(f"no rows between {window.start:%Y-%m-%d %H:%M:%S} and {window.end:%H:%M:%S}Z", Reading(0))


def follow_means(
    live: Columns, reference: Columns, names: Sequence[str], window: Window, memory: Means | None, tolerance: float, cluster: float, run_length: float
) -> Verdict:
    """The Verdict on the means of those numbers."""
    if memory is None:
        scales = {name: means.scale(name, reference.column(name), len(names), cluster) for name in names}
        memory = Means(tuple(one for one in scales.values() if one), tuple(name for name, one in scales.items() if one is None), "", window.start)
    if not memory.scales:
        return nodata("no number in the reference has a range of values to watch the mean in")
    window = unjudged(window, memory.until_at)
    rows = live.between(window.start, window.end)
    kinds = rows.kinds()
    for one in memory.scales:
        if kinds.get(one.name) not in ("number", "integer"):
            return warn(f"{one.name} {f'holds {kinds[one.name]} now' if one.name in kinds else 'is gone'}: its mean cannot be watched")
    sums, seen = means.further(memory, rows, tolerance, cluster, run_length)
    if not any(n for _, n in seen):
        return _empty(window)
    return means.verdict(means.kept(memory, sums, window), sums, seen, tolerance, run_length, window.length)


def follow_past(live: Table, kinds: Mapping[str, Kind], window: Window, memory: Own | None, run_length: float, season: timedelta | None) -> Verdict:
    """The Verdict on this window among those before it."""
    memory = memory or Own(Past(()), window.start)
    window = unjudged(window, memory.until_at)
    seen = tallied(live, window, [Ask(name) for name in kinds], memory.recent)
    if not seen.n:
        return _empty(window)
    values = statistics(seen, kinds)
    known = memory.past if memory.past.names == tuple(values) else Past(tuple(values))  # other columns: a past of their own begins
    after = further(known, [*values.values()], window, season, run_length)
    now = Own(after, window.end, memory.windows + 1, stretch(memory.recent, window, seen))
    words = [f"{name} is {value:.4g}, unlike before" for name, value in values.items()]
    parts = {name: Reading(value) for name, value in values.items()}
    return alarm(list(values), mean_log(after.log_sums), words, run_length, parts, now, seen.n, "", window.length, now.windows, null=PAST)
