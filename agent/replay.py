"""Plays the present configuration over rows of the past: the loop body as it runs, a clock that is set, and a store that is thrown away."""

from __future__ import annotations

import heapq
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from agent import plugins
from agent.config import Config, ServiceConfig
from agent.errors import StoreError
from agent.judge import ALL, escalate
from agent.look import look
from agent.model import Baseline, Finding, Locator, Status, Verdict
from agent.observe import fold, found
from agent.slots import EPOCH, MICROSECOND, Job, Slots, moment
from agent.store import Ledger, Store
from agent.workers import Pool
from agent.world import Watched, World

FOLDER = "watchkeeper-replay-"  # of the temporary folder; all that a kill leaves behind
PATIENCE = timedelta(minutes=5)  # for one look: what would have been too slow is counted, not repeated
AHEAD = 4  # looks that may be begun early, for each worker
NO_RUN = "a replay begins no run"
NEVER_SENT = "a replay tells nobody"

_now: ContextVar[datetime] = ContextVar("now")


@dataclass(frozen=True, slots=True)
class Seen:
    """One look of the past as it was folded, or only that the clock has come to `at`."""

    at: datetime
    w: Watched | None = None
    finding: Finding | None = None
    joined: tuple[int, ...] = ()  # the incidents it opened or joined
    late: bool = False  # it took longer than the watch allows, and would have been an error


@dataclass(slots=True)
class _Next:
    due: datetime
    w: Watched | None
    line: str  # looks of one line wait for each other; "" waits for none
    future: Future[tuple[Verdict, float]] | None = None


@contextmanager
def scratch(config: Config, keep: Path | None = None, pool: Pool | None = None) -> Iterator[World]:
    """A world whose store lies in a temporary folder and whose clock is set by `replay`. `keep` is where the store is copied to in the end.

    A `pool` that is given is used and left open.
    """
    if keep is not None and keep.exists():
        raise StoreError(f"{keep} exists already; name a file that does not")
    with tempfile.TemporaryDirectory(prefix=FOLDER) as folder:
        store, own = Store.open(Path(folder) / "scratch.db").start(), pool or Pool(config.workers)
        store.write(lambda ledger: [ledger.pin(watch, one.window, one.by, one.why, one.at) for watch, one in _pinned(config)])
        world = World(config, store, own, clock=_now.get, replays=True)
        try:
            yield world
            if keep is not None:
                store.write(_harmless)
                store.backup(keep)
        finally:
            if pool is None:
                own.close()
            world.connections.close()
            store.close()


def _pinned(config: Config) -> list[tuple[str, Baseline]]:
    """The yardsticks that people pinned in the real store, which is only read."""
    path = Path(config.store)
    if not path.exists():
        return []
    with closing(Store.open(path)) as real, real.read() as ledger:
        return [(watch, one) for watch, (_, one) in ledger.baselines().items()]


def _harmless(ledger: Ledger) -> None:
    """Nobody who points an agent at a kept store may be sent the letters of a past that was made up."""
    for letter in ledger.letters(limit=10_000_000):
        if letter["state"] == "waiting":
            ledger.letter_dropped(letter["key"], letter["channel"], NEVER_SENT)


def unreplayable(w: Watched) -> str:
    """Why a watch cannot be replayed; empty when it can: all it looks at must be tables, and it must ask for a window of them."""
    needs = plugins.find("check", w.watch.check).needs
    tables = {need.name for need in needs if need.annotation.split(" ")[0] in ("Table", "Columns")}
    present = sorted(set(w.locators) - tables)
    if present:
        return f"it looks at the present: it asks the {' and the '.join(present)}"
    if "window" not in w.words or not w.locators:
        return "it looks at the present: it reads no window of rows"
    return ""


def over(config: Config, instead: Sequence[tuple[Locator, Locator]], splay: bool = True) -> Config:
    """The configuration looking at other tables in place of these; without `splay`, `every: 1h` looks on the hour."""

    def there(at: Locator) -> Locator:
        return next((new for old, new in instead if old == at), at)

    def service(one: ServiceConfig) -> ServiceConfig:
        watches = tuple(replace(w, splay=w.splay and splay, bind={role: there(at) for role, at in w.bind.items()}) for w in one.watches)
        return replace(one, targets={role: there(at) for role, at in one.targets.items()}, watches=watches)

    return replace(config, services={name: service(one) for name, one in config.services.items()})


# When


def slots(w: Watched, since: datetime, until: datetime) -> tuple[Slots, int, int]:
    """The slots the scheduler gives this watch, the first of them in [since, until], and how many there are."""
    grid = Slots.of(w.key, Job(w.watch.every, splay=w.watch.splay))
    first, last = grid.after(_micros(since) - 1), _micros(until)
    return grid, first, max(0, (last - first) // grid.every + 1)


def _micros(at: datetime) -> int:
    return (at - EPOCH) // MICROSECOND


def _due(w: Watched, since: datetime, until: datetime) -> Iterator[tuple[datetime, int, str]]:
    grid, first, count = slots(w, since, until)
    return ((moment(first + n * grid.every), 0, w.key) for n in range(count))


def _timeline(world: World, spans: Sequence[tuple[str, datetime, datetime]], stops: Sequence[datetime]) -> Iterator[_Next]:
    """Every slot of every watch and every stop, in the order of time; a stop comes after the slots of its instant."""
    looks = [_due(world.find(key), since, until) for key, since, until in spans]
    for due, stop, key in heapq.merge(*looks, ((at, 1, "") for at in sorted(stops))):
        w = None if stop else world.find(key)
        yield _Next(due, w, _line(w))


def _line(w: Watched | None) -> str:
    """What a check remembers must have been folded before it looks again; what reads earlier findings waits for all of its check."""
    if w is None or not w.words & {"memory", "history"}:
        return ""
    return f"{w.service.name} {w.watch.check}" if "history" in w.words else w.key


# The replay


def replay(world: World, spans: Sequence[tuple[str, datetime, datetime]], stops: Sequence[datetime]) -> Iterator[Seen]:
    """Look as of every slot of each (watch, since, until), fold in the order of time, and say what was seen; the clock halts at each of `stops`.

    Looks run ahead in the workers as far as no check needs what is not folded yet. Escalations and reminders fall due by the clock that is set.
    """
    threads = ThreadPoolExecutor(world.config.workers, thread_name_prefix="replay")
    timeline = _timeline(world, spans, stops)
    ahead: deque[_Next] = deque()
    told_at = min((since for _, since, _ in spans), default=EPOCH)
    try:
        while True:
            _begin(world, threads, timeline, ahead)
            if not ahead:
                return
            one = ahead.popleft()
            yield _end(world, one, told_at)
            told_at = one.due
    finally:
        threads.shutdown(wait=False, cancel_futures=True)  # what is under way ends with the workers


def _begin(world: World, threads: ThreadPoolExecutor, timeline: Iterator[_Next], ahead: deque[_Next]) -> None:
    while len(ahead) < AHEAD * world.config.workers and (one := next(timeline, None)) is not None:
        ahead.append(one)
    waiting: set[str] = set()
    for one in ahead:
        alone = one is ahead[0] or one.w is None or not one.w.words & {"budgets", "past"}  # reckoned from the looks of every watch before it
        if one.w is not None and one.future is None and one.line not in waiting and alone:
            one.future = threads.submit(_look, world, one.w, one.due)
        if one.line:
            waiting.add(one.line)


def _look(world: World, w: Watched, due: datetime) -> tuple[Verdict, float]:
    """What the watch would have seen. Rows of the past do not change, so a fail is not looked at again to be confirmed."""
    _now.set(due)
    began = time.perf_counter()
    verdict = look(world, w, w.window(due), within=max(PATIENCE, w.watch.within))
    return verdict, time.perf_counter() - began


def _end(world: World, one: _Next, told_at: datetime) -> Seen:
    _now.set(one.due)
    w, future, at = one.w, one.future, one.due
    if w is None or future is None:
        world.store.write(lambda ledger: _tell(world, ledger, told_at, at))
        return Seen(at)
    verdict, seconds = future.result()
    finding = found(w, w.window(at), at, verdict, None, seconds)

    def keep(ledger: Ledger) -> tuple[Finding | None, tuple[int, ...]]:
        _tell(world, ledger, told_at, at)
        kept = fold(world, ledger, w, finding, verdict)
        joined = _consequences(world, ledger, kept, at) if kept is not None else ()
        return kept, joined

    kept, joined = world.store.write(keep)
    return Seen(at, w, kept, joined, seconds > w.watch.within.total_seconds())


def _consequences(world: World, ledger: Ledger, finding: Finding, at: datetime) -> tuple[int, ...]:
    """What the agent does around a look: tell who is due now, and end the runs that were wanted, for none is begun here."""
    if _quiet(world, ledger):
        return ()
    escalate(world, ledger, at)
    if finding.status not in (Status.FAIL, Status.ERROR):
        return ()
    for run in ledger.runs(active_only=True):
        ledger.save_run(replace(run, state="cancelled", ended_at=at, said=NO_RUN))
    near = [*ledger.open_incidents(finding.service), *ledger.open_incidents(ALL)]
    return tuple(i.id for i in near if any(m.watch == finding.watch and m.since_at == finding.looked_at for m in i.members))


def _tell(world: World, ledger: Ledger, after: datetime, to: datetime) -> None:
    """Escalations and reminders that fell due after one instant and up to another, each at its own time."""
    if _quiet(world, ledger):
        return
    while (at := _next_telling(world, ledger, after)) is not None and at <= to:
        escalate(world, ledger, at)
        after = at


def _quiet(world: World, ledger: Ledger) -> bool:
    """Whether no incident can be open: nothing is bad, as far as signals tell, which costs no query."""
    known = {**world.store.signals, **ledger.signals}
    return all(signal.state in ("ok", "new") for signal in known.values())


def _next_telling(world: World, ledger: Ledger, after: datetime) -> datetime | None:
    times = []
    for incident in ledger.incidents(open_only=True):
        line = len(world.line(world.config.services.get(incident.service)))
        steps = [world.config.notify.repeat_every, *([world.ack_within] if incident.told < line else [])]
        times += [incident.opened_at + (max(0, (after - incident.opened_at) // step) + 1) * step for step in steps]
    return min(times, default=None)
