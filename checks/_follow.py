"""From rows to a verdict, for every check that adds evidence over windows: the profile made once, each window counted once, the sums moved on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from agent import Baseline, Columns, Kind, Reading, Table, Verdict, Window, nodata
from agent.errors import DataError
from checks._evidence import Settings, Sums, counted, fold, layout, unjudged
from checks._profile import Profile, profile
from checks._shift import verdict

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
    if memory is None:
        made = _yardstick(live, kinds, window, reference, baseline, nominal, cluster)
        if isinstance(made, Verdict):
            return made
        memory = Sums(made, "", baseline.end_at if baseline else window.start)
    plan = layout(memory.profile, settings)
    window = unjudged(window, memory.until_at)
    seen = counted(live, window, memory.profile.columns, memory.recent)
    if not seen.n:
        return nodata(f"no rows between {window.start:%Y-%m-%d %H:%M:%S} and {window.end:%H:%M:%S}Z", Reading(0))
    return verdict(plan, fold(plan, memory, window, seen, settings), seen, settings, window, window.length)


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
