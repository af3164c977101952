"""Whether a model should learn from newer rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from agent import Columns, Past, Reading, Verdict, check, error, fail, nodata, ok, skip, warn
from agent.errors import DataError
from checks._due import Limits, Signs, calls, drifted, holds, learned_until, mine, rests

UNDER_WAY = ("running", "compensating")
REMEMBERED = 20  # looks of each watch


@check(pillar="learning", asks="Is it time to learn from newer rows, and may that be done now?", cause="stale", exact=True, severity="ticket")
def due(
    past: Past,
    now: datetime,
    labels: Columns | None = None,
    train: Columns | None = None,
    *,
    least: int,
    cooldown: timedelta,
    every: timedelta | None = None,
    drift: Sequence[str] = (),
    evidence: Sequence[str] = (),
    floor: Sequence[str] = (),
    volume: int | None = None,
    bad: int = 3,
    of: int = 5,
    a_day: int = 1,
    sound: Sequence[str] | None = None,
    runbook: str = "retrain",
) -> Verdict:
    """Fails when a model should be trained again and may be: which wants the runbook that cures `stale`, in its mode, with its gate and its canary.

    It calls for it that `drift` and `evidence` fail in `bad` of their last `of` looks, each the name of a watch of this service; that `floor` does;
    that `every` has passed since the last run; or that `volume` rows are new. Drift alone is told and never acted on: what moved may be broken, and
    would be learned. Against it speak fewer than `least` new rows (of `train`, else `labels`, since the last run that succeeded began), a watch of
    `sound` (by default all whose cause is data) that fails, cannot see or is in an open incident, `cooldown` since the last run ended, and `a_day`
    runs in 24 hours. While a run is under way there is nothing to ask.
    """
    known = [name for name, one in past.watches.items() if one.cause == "data"] if sound is None else sound
    named = [*drift, *evidence, *floor, *known]
    if unknown := next((name for name in named if name not in past.watches), None):
        return error(f"this service has no watch '{unknown}'; there is {', '.join(past.watches) or 'none'}")
    if not 1 <= bad <= of <= REMEMBERED:
        return error(f"bad is {bad} and of {of}; write 1 <= bad <= of <= {REMEMBERED}, for no more looks of a watch are remembered")
    signs, limits = Signs(drift, evidence, floor, every, volume, bad, of), Limits(least, cooldown, a_day, known)
    if under_way := next((run for run in mine(past, runbook) if run.state in UNDER_WAY), None):
        return skip(f"run {under_way.id} of {runbook} is {under_way.state} since {under_way.wanted_at:%Y-%m-%d %H:%M}")
    try:
        new = _new(train if train is not None else labels, learned_until(past, runbook), now)
    except DataError as problem:
        return nodata(f"how many rows are new cannot be told: {problem}; say by `time` when each came")
    if new is None:
        return nodata("no labelled rows are bound, so that nothing could be learned; bind `train` or `labels`")
    return _told(signs, limits, past, runbook, new, now)


def _told(signs: Signs, limits: Limits, past: Past, runbook: str, new: int, now: datetime) -> Verdict:
    reading = Reading(new, limits.least, n=new, unit="rows")
    wanted = calls(signs, past, runbook, new, now)
    if not wanted:
        moved = drifted(signs, past)
        if not moved:
            return ok(f"nothing calls for it; {new:,} rows are new", reading)
        unproved = (
            f"{' and '.join(signs.evidence)} does not show that it matters"
            if signs.evidence
            else "nothing is watched that would show that it matters"
        )
        return warn(f"{' and '.join(moved)} drifted in {signs.bad} of {signs.of} looks, but {unproved}: proposed, not done", reading)
    why = "; ".join(wanted)
    if too_soon := rests(limits, past, runbook, now):
        return ok(f"{why}; but {too_soon}", reading)
    if against := holds(limits, past, new):
        return warn(f"{why}; held back, for {' and '.join(against)}", reading)
    return fail(f"{why}; {new:,} rows are new, and nothing speaks against it", reading)


def _new(table: Columns | None, since: datetime, now: datetime) -> int | None:
    return None if table is None else table.between(since, now).rows()
