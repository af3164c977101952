"""Whether it is time to learn again: what calls for it, and what speaks against it at present. Nothing here looks at anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from agent import BEGINNING, Past, Ran, Status, Watching, spell

ENDED = frozenset(("succeeded", "stopped", "compensated", "stuck"))  # runs that were begun and are over: what they learned, or could not, is known
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Signs:
    """What calls for it: watches by name whose fails are drift, show that it matters, or that the model is too bad; rows; time since the last run."""

    drift: Sequence[str] = ()
    evidence: Sequence[str] = ()
    floor: Sequence[str] = ()
    every: timedelta | None = None
    volume: int | None = None
    bad: int = 3
    of: int = 5


@dataclass(frozen=True, slots=True)
class Limits:
    """What must hold before anything is learned: new rows, rest since the last run, runs a day, watches of the data that see nothing wrong."""

    least: int
    cooldown: timedelta
    a_day: int
    sound: Sequence[str]


def mine(past: Past, runbook: str) -> list[Ran]:
    """The runs that were begun, or may yet be, newest first."""
    return [run for run in past.runs if run.runbook == runbook and (run.active or run.state in ENDED)]


def learned_until(past: Past, runbook: str) -> datetime:
    """Rows that came later were learned by no run yet."""
    return next((run.wanted_at for run in mine(past, runbook) if run.state == "succeeded"), BEGINNING)


def persists(watch: Watching, bad: int, of: int) -> bool:
    """Whether at least `bad` of its last `of` looks failed, the newest of all that saw anything among them."""
    seen = [status for status in watch.statuses if status in (Status.OK, Status.WARN, Status.FAIL)][:of]
    return seen[:1] == [Status.FAIL] and seen.count(Status.FAIL) >= bad


def calls(signs: Signs, past: Past, runbook: str, new: int, now: datetime) -> list[str]:
    """What calls for learning again, in words; drift alone does not."""
    return [*_drifted(signs, past), *_below(signs, past), *_late(signs, past, runbook, now), *_piled(signs, new)]


def drifted(signs: Signs, past: Past) -> list[str]:
    """Which watches of drift fail persistently, whether or not that matters."""
    return _failing(signs, past, signs.drift)


def _drifted(signs: Signs, past: Past) -> Iterator[str]:
    moved, matters = drifted(signs, past), _failing(signs, past, signs.evidence)
    if moved and matters:
        yield f"{' and '.join(moved)} drifted, and {' and '.join(matters)} shows that it matters ({signs.bad} of {signs.of} looks)"


def _below(signs: Signs, past: Past) -> Iterator[str]:
    if low := _failing(signs, past, signs.floor):
        yield f"{' and '.join(low)} is below its floor in {signs.bad} of {signs.of} looks"


def _late(signs: Signs, past: Past, runbook: str, now: datetime) -> Iterator[str]:
    if signs.every is None:
        return
    last = next((run.ended_at for run in mine(past, runbook) if run.ended_at is not None), None)
    if last is None:
        yield f"it is to be done every {spell(signs.every)}, and was never done here"
    elif now - last >= signs.every:
        yield f"it is to be done every {spell(signs.every)}, and was last done {_ago(now - last)} ago"


def _piled(signs: Signs, new: int) -> Iterator[str]:
    if signs.volume is not None and new >= signs.volume:
        yield f"{new:,} rows are new, of {signs.volume:,} that call for it"


def _failing(signs: Signs, past: Past, names: Sequence[str]) -> list[str]:
    return [name for name in names if persists(past.watches[name], signs.bad, signs.of)]


def rests(limits: Limits, past: Past, runbook: str, now: datetime) -> str:
    """Why a run would come too soon after another, in words; empty where it would not."""
    ran = [run for run in mine(past, runbook) if run.ended_at is not None]
    if ran and now - (ended := ran[0].ended_at or now) < limits.cooldown:
        until = ended + limits.cooldown
        return f"the last run ended {_ago(now - ended)} ago, and {spell(limits.cooldown)} are to pass, until {until:%Y-%m-%d %H:%M}"
    today = [run for run in ran if now - run.wanted_at < DAY]
    if len(today) >= limits.a_day:
        return f"{len(today)} run{'s' if len(today) > 1 else ''} in 24 hours, as many as may be"
    return ""


def holds(limits: Limits, past: Past, new: int) -> list[str]:
    """Why nothing may be learned at present, in words."""
    return [*_broken(limits, past.watches), *([f"{new:,} rows are new, and {limits.least:,} are needed"] if new < limits.least else [])]


def _broken(limits: Limits, watches: Mapping[str, Watching]) -> Iterator[str]:
    for name in limits.sound:
        if watches[name].troubled:
            yield f"{name} is in an open incident"
        elif not watches[name].statuses:
            yield f"{name} has not looked yet"
        elif watches[name].statuses[0] not in (Status.OK, Status.WARN, Status.SKIP):
            yield f"{name} says {watches[name].statuses[0].value}"


def _ago(length: timedelta) -> str:
    return spell(timedelta(seconds=round(length.total_seconds())))
