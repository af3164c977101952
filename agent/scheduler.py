"""Decides when each watch looks: a fixed grid of slots in wall time, two lanes of threads, and a watchdog for the clock.

One APScheduler job ticks; the tick takes what is due from a heap. A job of APScheduler for each watch was measured (benchmarks/scheduler.py): it
costs three to four times the CPU, and seven times as much to plan anew when the clock is set.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from queue import SimpleQueue

from apscheduler.executors.debug import DebugExecutor
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers import SchedulerNotRunningError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from agent.slots import EPOCH, MICROSECOND, Counts, Job, Slots, moment

__all__ = ["Job", "Scheduler"]
log = logging.getLogger(__name__)
SLOW_AFTER = 1.0  # seconds: a watch whose last run took longer goes to the slow lane
SHORTEST, LONGEST = 0.02, 0.5  # seconds between ticks: looks due within the shortest share a tick; the longest bounds what a lost wake-up costs
JUMP = 1.0  # seconds by which wall and monotonic clocks may part between two looks at them


@dataclass(slots=True)
class _Watch:
    key: str
    job: Job
    slots: Slots
    next: int = 0
    slow: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    watch: _Watch
    due: int  # microseconds since 1970
    at: float  # the same instant on the monotonic clock
    extra: bool
    lane: Lane
    cap_key: str  # as planned when it became due: a new plan may change it before the run ends


class Lane:
    """Some threads and a bounded queue before them; a look parked for its target's cap counts as queued but holds no thread."""

    def __init__(self, name: str, size: int, room: int, work: Callable[[_Look], None]) -> None:
        self.room, self.waiting, self.spare = room, 0, size
        self.queue: SimpleQueue[_Look | None] = SimpleQueue()
        self._name, self._size, self._work = name, size, work
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        for _ in range(self._size):
            self.add()

    def add(self) -> None:
        thread = threading.Thread(target=self._loop, name=f"{self._name}-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def replace(self) -> None:
        """Another thread in place of one that never came back; at most as many as the lane began with, or hung looks would eat the machine."""
        if self.spare > 0:
            self.spare -= 1
            self.add()

    def end(self) -> None:
        for _ in self._threads:
            self.queue.put(None)

    def _loop(self) -> None:
        while (look := self.queue.get()) is not None:
            self._work(look)


class Scheduler:
    """Calls `fire(key, due_at)` in a lane's thread at every slot of every planned watch.

    A slot whose earlier run is still queued or running is no slot. When a lane's queue is full, `no_room(key, due_at)` is called instead, in the
    thread that ticks: it must not block. At most `cap` runs with one cap key go at once. `clock_jumped(seconds)` is called after all watches were
    planned anew because the wall clock was set or the machine slept; `lost(key, due_at)` when a run is given up. What callbacks raise is logged and
    counted, and stops nothing.
    """

    def __init__(
        self,
        fire: Callable[[str, datetime], None],
        no_room: Callable[[str, datetime], None],
        *,
        clock_jumped: Callable[[float], None] = lambda seconds: None,
        lost: Callable[[str, datetime], None] = lambda key, due_at: None,
        quick: int = 16,
        slow: int = 4,
        quick_room: int = 20_000,
        slow_room: int = 200,
        cap: int = 4,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts = Counts()
        self._fire, self._no_room, self._clock_jumped, self._lost = fire, no_room, clock_jumped, lost
        self._cap, self._clock, self._monotonic = cap, clock, monotonic
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._watches: dict[str, _Watch] = {}
        self._flying: set[str] = set()
        self._heap: list[tuple[float, int, int, bool, _Watch]] = []
        self._order = count()
        self._going: Counter[str] = Counter()
        self._parked: defaultdict[str, deque[_Look]] = defaultdict(deque)
        self._running: dict[_Look, float] = {}
        self._quick = Lane("quick", quick, quick_room, self._run)
        self._slow = Lane("slow", slow, slow_room, self._run)
        self._offset = clock() - monotonic()
        self._expected = monotonic()
        self._stopping = threading.Event()
        self._timer = BackgroundScheduler(
            timezone=UTC,
            executors={"tick": DebugExecutor(), "default": ThreadPoolExecutor(4)},
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )

    # Planning

    def plan(self, jobs: Mapping[str, Job]) -> None:
        """Make these the planned watches: what is new begins at its next slot, what is gone fires no more, what is unchanged is left alone."""
        with self._lock:
            for key in self._watches.keys() - jobs.keys():
                del self._watches[key]
            for key, job in jobs.items():
                if key not in self._watches or self._watches[key].job != job:
                    self._enter(key, job)
        self._wake()

    def _enter(self, key: str, job: Job) -> None:
        old = self._watches.get(key)
        watch = _Watch(key, job, Slots.of(key, job), slow=job.slow) if old is None else old
        watch.job, watch.slots = job, Slots.of(key, job)
        self._watches[key] = watch
        self._push(watch, self._wall())

    def again(self, key: str, at: datetime) -> None:
        """One extra look at `at`, or at once when that is past; KeyError when no such watch is planned."""
        with self._lock:
            due = (at - EPOCH) // MICROSECOND
            self._put(self._watches[key], due, max(0.0, (due - self._wall()) / 1e6), extra=True)
        self._wake()

    def now(self, key: str) -> None:
        """One extra look at once."""
        self.again(key, moment(self._wall()))

    def also(self, name: str, every: timedelta, call: Callable[[], object]) -> None:
        """Housekeeping: `call()` at a fixed interval, in threads apart from the lanes; never twice at once."""
        self._timer.add_job(call, Slots.of(name, Job(every)), id=name, replace_existing=True)

    def _wall(self) -> int:
        return int(self._clock() * 1e6)

    def _push(self, watch: _Watch, after: int) -> None:
        watch.next = watch.slots.after(after)
        self._put(watch, watch.next, (watch.next - self._wall()) / 1e6, extra=False)

    def _put(self, watch: _Watch, due: int, wait: float, extra: bool) -> None:
        heapq.heappush(self._heap, (self._monotonic() + wait, next(self._order), due, extra, watch))

    # Ticking

    def start(self) -> None:
        """Begin; returns at once."""
        self._quick.start()
        self._slow.start()
        self._timer.add_job(self._tick, _Next(self._wait), id="tick", executor="tick")
        self._timer.start()
        threading.Thread(target=self._watchdog, name="clock-watchdog", daemon=True).start()

    def _wake(self) -> None:
        with suppress(JobLookupError):  # not started yet, or stopped
            self._timer.reschedule_job("tick", trigger=_Next(self._wait))

    def _wait(self) -> float:
        with self._lock:
            now = self._monotonic()
            wait = min(max(self._heap[0][0] - now, SHORTEST), LONGEST) if self._heap else LONGEST
            self._expected = now + wait
            return wait

    def _tick(self) -> None:
        while not self._stopping.is_set() and (refused := self._send_one()) is not False:
            if isinstance(refused, _Look):
                self._guard(self._no_room, refused.watch.key, moment(refused.due))

    def _send_one(self) -> _Look | bool:
        """Take one due look off the heap and hand it to its lane: False when none is due, the look itself when its lane is full."""
        with self._lock:
            if not self._heap or self._heap[0][0] > self._monotonic():
                return False
            at, _, due, extra, watch = heapq.heappop(self._heap)
            if self._watches.get(watch.key) is not watch or (not extra and due != watch.next):
                return True
            if not extra:
                self.counts.due += 1
                self._push(watch, max(due, self._wall()))
            return self._hand_over(_Look(watch, due, at, extra, self._slow if watch.slow else self._quick, watch.job.cap_key))

    def _hand_over(self, look: _Look) -> _Look | bool:
        if look.watch.key in self._flying and look.extra:
            self._put(look.watch, look.due, SHORTEST * 5, extra=True)
        elif look.watch.key in self._flying:
            self.counts.in_flight += 1
        elif look.lane.waiting >= look.lane.room:
            self.counts.no_room += 1
            return look
        else:
            self._flying.add(look.watch.key)
            look.lane.waiting += 1
            look.lane.queue.put(look)
        return True

    # Running, in a lane's thread

    def _run(self, look: _Look) -> None:
        if not self._begin(look):
            return
        try:
            self._guard(self._fire, look.watch.key, moment(look.due))
        finally:
            self._end(look)

    def _begin(self, look: _Look) -> bool:
        with self._lock:
            if look.cap_key and self._going[look.cap_key] >= (look.watch.job.cap or self._cap):
                self._parked[look.cap_key].append(look)
                return False
            look.lane.waiting -= 1
            if self._stopping.is_set() or self._watches.get(look.watch.key) is not look.watch:
                self._flying.discard(look.watch.key)
                self._unpark(look.cap_key)
                return False
            self._going[look.cap_key] += 1
            self._running[look] = self._monotonic()
            self._count(look)
            return True

    def _count(self, look: _Look) -> None:
        if look.extra:
            self.counts.looks += 1
        else:
            self.counts.run += 1
            self.counts.late.add(max(0.0, self._monotonic() - look.at))

    def _end(self, look: _Look) -> None:
        with self._lock:
            self._flying.discard(look.watch.key)
            if look in self._running:  # else it was given up
                look.watch.slow = self._monotonic() - self._running[look] > SLOW_AFTER
                self._release(look)

    def _release(self, look: _Look) -> None:
        del self._running[look]
        self._going -= Counter([look.cap_key])  # which also forgets a key that fell to nothing
        self._unpark(look.cap_key)
        self._idle.notify_all()

    def _unpark(self, cap_key: str) -> None:
        if parked := self._parked.get(cap_key):
            released = parked.popleft()
            released.lane.queue.put(released)
        else:
            self._parked.pop(cap_key, None)

    def in_flight(self) -> Mapping[str, float]:
        """The watches whose run is going now, and for how many seconds."""
        with self._lock:
            now = self._monotonic()
            return {look.watch.key: now - began for look, began in self._running.items()}

    def _give_up(self) -> None:
        with self._lock:
            now = self._monotonic()
            lost = [look for look, began in self._running.items() if now - began > look.watch.job.lost_after.total_seconds()]
            for look in lost:
                self.counts.lost += 1
                look.watch.slow = True
                self._release(look)
                look.lane.replace()
        for look in lost:
            self._guard(self._lost, look.watch.key, moment(look.due))

    def _guard(self, call: Callable[..., None], *args: object) -> None:
        try:
            call(*args)
        except Exception:
            with self._lock:
                self.counts.raised += 1
            log.exception("%s%r raised; the schedule goes on", getattr(call, "__name__", call), args)

    # Watching the clock

    def lag(self) -> float:
        """Seconds by which the tick is late: 0 when it is not."""
        return max(0.0, self._monotonic() - self._expected)

    def _watchdog(self) -> None:
        while not self._stopping.wait(LONGEST):
            self._give_up()
            parted = self._parted()
            if abs(parted) > JUMP:
                self._guard(self._clock_jumped, parted)
            if abs(parted) > JUMP or self.lag() > JUMP:
                for job in self._timer.get_jobs():  # APScheduler keeps wall time only: set back an hour, it would sleep an hour
                    with suppress(JobLookupError):
                        self._timer.reschedule_job(job.id, trigger=job.trigger)

    def _parted(self) -> float:
        """Seconds the wall clock moved against the monotonic one since the last look; past the limit, every watch is planned anew."""
        with self._lock:
            was, self._offset = self._offset, self._clock() - self._monotonic()
            if abs(self._offset - was) > JUMP:
                self.counts.jumps += 1
                self._heap = [entry for entry in self._heap if entry[3]]
                for watch in self._watches.values():
                    self._push(watch, self._wall())
            return self._offset - was

    # Ending

    def stop(self, grace: timedelta = timedelta(seconds=30)) -> bool:
        """Begin no more runs and wait, at most `grace`, for those in flight and for housekeeping; whether all ended. What still waited is dropped."""
        until = time.monotonic() + grace.total_seconds()
        self._stopping.set()
        ending = threading.Thread(target=self._end_timer, daemon=True)
        ending.start()
        with self._lock:
            drained = self._idle.wait_for(lambda: not self._running, grace.total_seconds())
        ending.join(max(0.0, until - time.monotonic()))
        self._quick.end()
        self._slow.end()
        return drained and not ending.is_alive()

    def _end_timer(self) -> None:
        with suppress(SchedulerNotRunningError):
            self._timer.shutdown(wait=True)


class _Next(BaseTrigger):  # type: ignore[misc]
    """Fires again after as long as it is told; never at or before `now`, or APScheduler would count the hours of a clock set back one by one."""

    __slots__ = ("_wait",)

    def __init__(self, wait: Callable[[], float]) -> None:
        self._wait = wait

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        return max(now, datetime.now(UTC)) + timedelta(seconds=self._wait())
