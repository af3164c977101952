"""Whether a batch scoring run happened, in time, on every input row, once each, with one model version."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from agent import UTC, Columns, Reading, Verdict, Window, check, error, fail, ok
from agent.errors import ConfigError
from checks._keys import Repeats, hashed, nulls, signed, text_of

CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
VERSIONS = 5  # different ones told; more, and the column holds something else


@dataclass(frozen=True, slots=True)
class Part:
    """One thing asked of a run: its number beside its limit, and a sentence where that is not as it should be."""

    name: str
    reading: Reading
    wrong: str = ""


@dataclass
class Run:
    """The rows of one run, read once."""

    rows: int = 0
    unversioned: int = 0
    versions: set[str] = field(default_factory=set)
    doubled: int = 0
    ids: list[str] = field(default_factory=list)  # hashed, of the first rows whose id came before
    before: Repeats = field(default_factory=Repeats)


@check(pillar="deployment", asks="Did the batch run happen, in time, on every input row, once each, with one version?", cause="data", exact=True)
def completed(
    live: Columns,
    window: Window,
    inputs: Columns | None = None,
    *,
    by: str | None = None,
    tz: str = "UTC",
    before_end: timedelta = timedelta(0),
    rows_at_least: int = 1,
    tolerance: int = 0,
    version: str | None = None,
) -> Verdict:
    """Fails when the run that was due last is missing, late, incomplete, of two versions, or has an id twice; each of these is a part.

    The time that `live` declares is when a row was scored. The deadline is the last `by`, a time of day in `tz`, that has passed when the
    window ends; without one it lies `before_end` before that. The run is the rows scored in the length of a window before the deadline: at
    least `rows_at_least` of them and, where `inputs` is bound, as many as its rows (those of the same stretch, where it declares a time),
    `tolerance` more or fewer. Where `live` declares a version, every row has one and all the same, `version` if that is given; where it
    declares an id, no two rows share one.
    """
    deadline = _deadline(window.end, by, tz) if by else window.end - before_end
    stretch = Window(deadline - window.length, deadline)
    run = _read(live.between(stretch.start, stretch.end))
    wanted = _wanted(inputs, stretch)
    short = run.rows < rows_at_least or (wanted is not None and run.rows < wanted - tolerance)
    late = live.between(deadline, window.end).rows() if short and deadline < window.end else 0
    parts = [*_happened(run.rows, rows_at_least, late, stretch), *_complete(run.rows, wanted, tolerance, late)]
    if run.rows:
        parts += [*_versioned(run, live.declared.get("version"), version), *_once(run, live.declared.get("id"))]
    return _verdict(parts, run, deadline)


def _verdict(parts: list[Part], run: Run, deadline: datetime) -> Verdict:
    wrong, readings = [part for part in parts if part.wrong], {part.name: part.reading for part in parts}
    if wrong:
        return fail("; ".join(part.wrong for part in wrong), wrong[0].reading, parts=readings)
    if run.before.full:
        return error(f"{run.rows:,} rows are more than the {run.before.limit:,} in which a repeated id can be told", parts[0].reading, parts=readings)
    return ok(f"{run.rows} rows by {deadline:%Y-%m-%d %H:%M} UTC, as they should be", parts[0].reading, parts=readings)


def _deadline(end: datetime, by: str, tz: str) -> datetime:
    """The last time that the clock in `tz` showed `by`, at `end` or before."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    clock = CLOCK.fullmatch(by)
    if clock is None:
        raise ConfigError(f"by is a time of day such as 06:00, not {by!r:.40}")
    try:
        zone = ZoneInfo(tz)
    except (ZoneInfoNotFoundError, ValueError) as problem:
        raise ConfigError(f"tz: no time zone {tz!r:.60}; use a name such as UTC or Europe/Berlin") from problem
    today = end.astimezone(zone).replace(hour=int(clock[1]), minute=int(clock[2]), second=0, microsecond=0, fold=0)
    days = (today, today - timedelta(days=1))
    return next(at for day in days if (at := day.astimezone(UTC)) <= end)


def _read(rows: Columns) -> Run:
    """Counts, versions and repeated ids in one pass."""
    kinds, run = rows.kinds(), Run()
    version, named = (name if isinstance(name := rows.declared.get(what), str) else None for what in ("version", "id"))
    wanted = [name for name in (version, named) if name] or [rows.declared["time"]["column"]]
    for chunk in rows.chunks(wanted, {name for name in wanted if kinds.get(name) == "integer"}):
        run.rows += len(chunk[wanted[0]])
        if version:
            _note_versions(run, chunk[version])
        if named:
            _note_ids(run, chunk[named])
    return run


def _note_versions(run: Run, cells: Any) -> None:
    empty = nulls(cells)
    run.unversioned += int(empty.sum())
    run.versions |= {str(text_of(cell)) for cell in set(cells[~empty].tolist())} if len(run.versions) <= VERSIONS else set()


def _note_ids(run: Run, cells: Any) -> None:
    known = cells[~nulls(cells)]
    again = run.before.came(hashed(known))
    run.doubled += int(again.sum())
    run.ids += signed(known[again][: 3 - len(run.ids)].tolist()) if len(run.ids) < 3 else []


def _wanted(inputs: Columns | None, stretch: Window) -> int | None:
    if inputs is None:
        return None
    return (inputs.between(stretch.start, stretch.end) if "time" in inputs.declared else inputs).rows()


# What is asked of it


def _happened(n: int, least: int, late: int, stretch: Window) -> Iterator[Part]:
    after = f"; {late} came later" if late else ""
    words = f"{n} rows" if n else "no row"
    wrong = f"{words} scored from {stretch.start:%Y-%m-%d %H:%M} to {stretch.end:%Y-%m-%d %H:%M} UTC, at least {least} should have been{after}"
    yield Part("rows", Reading(n, least, n=n, unit="rows"), wrong if n < least else "")


def _complete(n: int, wanted: int | None, tolerance: int, late: int) -> Iterator[Part]:
    if wanted is not None:
        after = f"; {late} came after the deadline" if late else ""
        wrong = f"{n} rows out of {wanted} rows in (tolerance {tolerance}){after}"
        yield Part("inputs", Reading(abs(n - wanted), tolerance, n=wanted, unit="rows"), wrong if abs(n - wanted) > tolerance else "")


def _versioned(run: Run, column: object, expected: str | None) -> Iterator[Part]:
    if not column:
        if expected is not None:
            raise ConfigError("version: the table declares no version column to compare it with; write `version: COLUMN` under `live`")
        return
    if run.unversioned:
        wrong = f"{run.unversioned} of {run.rows} rows bear no version"
        yield Part("version.missing", Reading(run.unversioned, 0, n=run.rows, unit="rows"), wrong)
    several = (
        f"scored by more than one version: {', '.join(sorted(run.versions)) if len(run.versions) <= VERSIONS else f'at least {len(run.versions)}'}"
    )
    other = f"scored by version {', '.join(run.versions)}, not {expected}"
    unexpected = expected is not None and bool(run.versions) and run.versions != {expected}
    yield Part(
        "version", Reading(len(run.versions), 1, n=run.rows, unit="versions"), several if len(run.versions) > 1 else other if unexpected else ""
    )


def _once(run: Run, column: object) -> Iterator[Part]:
    if column:
        ids = f" (sha256 of the id begins {', '.join(run.ids)})" if run.ids else ""
        wrong = f"{run.doubled} of {run.rows} rows repeat an id{ids}"
        yield Part("id.repeated", Reading(run.doubled, 0, n=run.rows, unit="rows"), wrong if run.doubled else "")
