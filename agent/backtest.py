"""What the present configuration would have done in the past: which incidents, who would have been told, and how near each limit was."""

from __future__ import annotations

import resource
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from agent.config import Config
from agent.errors import ConfigError, WatchkeeperError
from agent.limits import JUDGED, Nearness
from agent.look import grows
from agent.model import BEGINNING, Ask, Finding, Incident, Json, Locator, Run, Status, spell, to_json
from agent.perform import fresh
from agent.replay import FOLDER, Seen, over, replay, scratch, slots, unreplayable
from agent.store import Ledger
from agent.workers import Pool
from agent.world import Known, Watched, World

Tell = Callable[[float, str], None]
Extent = tuple[datetime, datetime]  # of the first row and of the last
LAST = datetime(9000, 1, 1, tzinfo=UTC)
MOST = 500_000  # windows of one backtest
EVIDENCE = 3  # failing findings that are shown for each watch of an incident
TRUE_OF_ALL = (
    "rows count as having come on time: a log does not tell when they did",
    "no server was asked and no run begun: versions, and what a runbook would have changed, are not in it",
)


@dataclass(slots=True)
class Tallied:
    """What became of one watch."""

    w: Watched
    since: datetime
    until: datetime
    slots: int
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    late: int = 0
    near: Nearness = field(default_factory=Nearness)
    failing: deque[Finding] = field(default_factory=lambda: deque(maxlen=EVIDENCE))

    def add(self, seen: Seen, finding: Finding) -> None:
        """Count one look."""
        self.counts[finding.status.value] += 1
        self.seconds += finding.seconds
        self.late += seen.late
        self.near.add(finding)
        if finding.status in (Status.FAIL, Status.ERROR):
            self.failing.append(finding)


@dataclass(slots=True)
class Past:
    """What is known before anything is replayed: the watches that can be, why the others cannot, and what is odd about the rows."""

    watches: dict[str, Tallied] = field(default_factory=dict)
    left_out: list[dict[str, Json]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def spans(self) -> list[tuple[str, datetime, datetime]]:
        return [(key, one.since, one.until) for key, one in self.watches.items()]


def backtest(
    config: Config,
    keys: Sequence[str],
    since: datetime,
    until: datetime,
    tell: Tell | None = None,
    keep: Path | None = None,
    pool: Pool | None = None,
) -> Json:
    """Replay these watches from `since` to `until` and sum up, as JSON. Interrupted, it sums up what was done until then.

    Nothing is written but a temporary folder (and `keep`), nothing sent, no server asked. ConfigError when it would never end.
    """
    began, tell = _cpu(), tell or (lambda done, what: None)
    with tempfile.TemporaryDirectory(prefix=FOLDER) as folder, scratch(_quick(config, keys, Path(folder), tell), keep, pool) as world:
        past = plan(world, keys, since, until)
        evidence: dict[tuple[int, str], list[Finding]] = {}
        stopped = _run(world, past, until, tell, evidence)
        with world.store.read() as ledger:
            told = {"since": since, "until": until, "stopped_at": stopped, **_summed(world, ledger, past, evidence)}
    made: Json = to_json({**told, "cpu_seconds": round(_cpu() - began, 3)})
    return made


def _quick(config: Config, keys: Sequence[str], folder: Path, tell: Tell) -> Config:
    """The configuration over tables in which a window costs what it holds."""
    return over(config, list(_pressed(config, keys, folder, tell)))


def _pressed(config: Config, keys: Sequence[str], folder: Path, tell: Tell) -> Iterator[tuple[Locator, Locator]]:
    """Tables that would be read whole for each of thousands of windows, and the copies that stand in for them; what cannot be copied stays."""
    known = Known.now()
    looked = [w for one, watch in config.watches() if watch.key in keys for w in (Watched.of(one, watch, known),)]
    done: list[Locator] = []
    for at in (at for w in looked if not unreplayable(w) for at in w.locators.values()):
        if at in done:
            continue
        done.append(at)
        with suppress(WatchkeeperError), fresh(at) as table:
            tell(0.0, f"reading {at.service}.{at.role}")
            if hasattr(table, "pressed") and (url := table.pressed(folder, f"{at.role}-{len(done)}")):
                yield at, replace(at, url=url, folder=str(folder))


def _run(world: World, past: Past, until: datetime, tell: Tell, evidence: dict[tuple[int, str], list[Finding]]) -> datetime | None:
    """Replay, counting as it goes; the simulated time at which it was interrupted, None when it came to its end."""
    total, done, at = sum(one.slots for one in past.watches.values()), 0, None
    try:
        for seen in replay(world, past.spans, [until]):
            at, done = seen.at, done + 1
            tell(done / (total + 1), f"{at:%Y-%m-%d %H:%M}")
            if seen.w is not None and seen.finding is not None:
                one = past.watches[seen.w.key]
                one.add(seen, seen.finding)
                evidence |= {(number, seen.w.key): list(one.failing) for number in seen.joined}
    except KeyboardInterrupt:
        return at or min((one.since for one in past.watches.values()), default=until)
    return None


def _cpu() -> float:
    """CPU seconds of this process and of the children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


# What can be replayed, and from when


def plan(world: World, keys: Sequence[str], since: datetime, until: datetime) -> Past:
    """Which of the watches can be replayed and from when: no window begins before the rows do."""
    past, extents = Past(notes=list(TRUE_OF_ALL)), dict[tuple[str, str], Extent | str]()
    for key in keys:
        w = world.find(key)
        found = unreplayable(w) or _begins(w, since, until, extents, past.notes)
        if isinstance(found, str):
            past.left_out.append({"watch": key, "check": w.watch.check, "why": found})
        else:
            past.watches[key] = Tallied(w, found, until, slots(w, found, until)[2])
    _bounded(past)
    return past


def _bounded(past: Past) -> None:
    total = sum(one.slots for one in past.watches.values())
    if total > MOST:
        worst = max(past.watches.values(), key=lambda one: one.slots)
        raise ConfigError(
            f"that is {total:,} windows, {worst.slots:,} of them of {worst.w.key} (every {spell(worst.w.watch.every)}); "
            f"at most {MOST:,} are replayed at once: shorten --since, or name watches with --watch"
        )


def _begins(w: Watched, since: datetime, until: datetime, extents: dict[tuple[str, str], Extent | str], notes: list[str]) -> datetime | str:
    """From when on the watch can be judged; or why not at all."""
    role, at = next(((role, at) for role, at in sorted(w.locators.items(), key=lambda pair: pair[0] != "live") if grows(at)), ("", None))
    if at is None:
        return f"{', '.join(sorted(w.locators))} declares no time, so there are no windows; add time: {{column: ...}}"
    name = f"{at.service}.{role}"
    if (at.url, repr(at.options)) not in extents:
        extents[at.url, repr(at.options)] = found = _extent(at, name)
        if not isinstance(found, str):
            notes += _short(name, found, since, until)
    extent = extents[at.url, repr(at.options)]
    if isinstance(extent, str):
        return extent
    begins = max(since, extent[0] + w.watch.window + w.settle)
    if begins > until:
        length = spell(w.watch.window)
        return f"{name} begins {extent[0]:%Y-%m-%d %H:%M:%S}Z, and no window of {length} lies between that and {until:%Y-%m-%d %H:%M:%S}Z"
    return begins


def _extent(at: Locator, name: str) -> Extent | str:
    """When the rows of a table begin and end; or why that cannot be told."""
    column = at.options["time"]["column"]
    try:
        with fresh(at) as table:
            tally = table.tally([Ask(column)])[column]
    except WatchkeeperError as problem:
        return f"{name} cannot be read: {problem}"
    if tally.low is None or tally.high is None:
        return f"{name} has no row with a time"
    return _moment(tally.low), _moment(tally.high)


def _moment(seconds: float) -> datetime:
    """A POSIX time; what is near the ends of the calendar, or beyond them, is so far off that it matters to no window."""
    try:
        at = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        at = LAST if seconds > 0 else BEGINNING
    return min(max(at, BEGINNING), LAST)


def _short(name: str, extent: Extent, since: datetime, until: datetime) -> Iterator[str]:
    if extent[0] > since:
        yield f"{name} begins {extent[0]:%Y-%m-%d %H:%M:%S}Z: it is judged from there"
    if extent[1] < until - timedelta(hours=1):
        yield f"{name} ends {extent[1]:%Y-%m-%d %H:%M:%S}Z: what is judged after that has no rows; say --until to leave it out"


# Summing up


def _summed(world: World, ledger: Ledger, past: Past, evidence: Mapping[tuple[int, str], list[Finding]]) -> dict[str, Any]:
    incidents = sorted(ledger.incidents(limit=1_000_000), key=lambda one: one.id)
    letters = [letter for letter in ledger.letters(limit=10_000_000) if letter["state"] == "waiting"]
    runs = ledger.runs(limit=1_000_000)
    told = [_incident(one, letters, runs, evidence) for one in incidents]
    watches = [_watch(one) for one in past.watches.values()]
    return {
        "would_have": {
            "opened": len(incidents),
            "paged": sum(one["severity"] == "page" and bool(one["told"]) for one in told),
            "told": len(letters),
            "proposed": dict(sorted(Counter(run.runbook for run in runs).items())),
        },
        "windows": sum(one["windows"] for one in watches),
        "judged": sum(one["counts"][status.value] for one in watches for status in JUDGED),
        "incidents": told,
        "watches": watches,
        "left_out": past.left_out,
        "notes": [*past.notes, *([] if world.channels else ["nobody would have been told anything: there is no channel under notify"])],
    }


def _incident(one: Incident, letters: Sequence[Mapping[str, Any]], runs: Sequence[Run], evidence: Mapping[tuple[int, str], list[Finding]]) -> Json:
    mine = sorted((letter for letter in letters if letter["key"].startswith(f"incident-{one.id}/")), key=lambda letter: letter["id"])
    return {
        **{name: getattr(one, name) for name in ("id", "service", "severity", "state", "title", "opened_at", "resolved_at")},
        "lasted": (one.resolved_at - one.opened_at) if one.resolved_at else None,
        "members": [{**to_json(m), "evidence": _shown(evidence.get((one.id, m.watch), ()))} for m in one.members],
        "told": [{"channel": letter["channel"], "what": letter["key"].split("/", 1)[1], "at": letter["made_at"]} for letter in mine],
        "proposed": [{"runbook": run.runbook, "at": run.wanted_at} for run in reversed(runs) if run.incident == one.id],
    }


def _shown(evidence: Sequence[Finding]) -> list[Json]:
    return [{"at": f.looked_at, "status": f.status, "reason": f.reason, "reading": f.reading} for f in evidence]


def _watch(one: Tallied) -> dict[str, Any]:
    windows = sum(one.counts.values())
    return {
        "watch": one.w.key,
        "check": one.w.watch.check,
        "since": one.since,
        "windows": windows,
        "of": one.slots,
        "counts": {status.value: one.counts[status.value] for status in Status},
        "too_slow": one.late,
        "seconds": round(one.seconds / windows, 6) if windows else None,
        "limits": list(one.near.told()),
    }
