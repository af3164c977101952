"""One generator at work: takes every request up when the schedule says, gives it a connection, and keeps its clocks."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import gevent
import gevent.event
from gevent.monkey import get_original

from loadtests._clocks import CONNECT, GOOD, INVALID, PROTOCOL, STATUS, TIMEOUT, UNFINISHED, Clocks
from loadtests._expect import Bodies, status_good
from loadtests._lines import Line, clock, worded
from loadtests._payload import READS
from loadtests._schedule import MOST
from loadtests._spec import Traffic

FINE = 0.001  # seconds: libev's timers round up to whole milliseconds, so the last of them is waited out on its epoll itself
AT_ONCE = 32  # requests taken up before answers are let in again
SWEEP = 0.02  # seconds between looks for requests whose time is over

_select: Callable[..., Any] = get_original("select", "select")  # gevent's own is not for the loop's callbacks, and rounds up as well


class Sending:
    """The requests of one process, from the first intended time to the last answer.

    Nothing is skipped or dropped: a request that finds no free connection waits, with its clock running, and the schedule goes on meanwhile. One
    whose timeout passes before it is answered well is over then, wherever it is. `stop` ends it early.
    """

    def __init__(self, traffic: Traffic, requests: Sequence[bytes], clocks: Clocks, pool: Any, first: int = 0, step: int = 1) -> None:
        self.traffic, self.requests, self.clocks, self._pool = traffic, requests, clocks, pool
        self.first, self.step = first, step  # request i of these sends line first + i * step of the payload
        self.loop = gevent.get_hub().loop
        self.began = math.inf  # by perf_counter
        self.next = 0  # the first request not taken up
        self.finished = 0
        self.lines: set[Line] = set()
        self.stopped = ""
        self.last = 0.0  # when the last request ended
        self.over = gevent.event.Event()
        self._idle: deque[Line] = deque()  # the longest idle goes first: one that the server closes is then seen closed before it is used
        self._waiting: deque[int] = deque()
        self._opening = 0
        self._swept = 0
        self._flying: dict[int, Line] = {}
        self._bodies = Bodies(traffic.expect, traffic.stream)
        self._timer: Any = None
        self._fine = FINE if self.loop.fileno() >= 0 else 0.0

    @property
    def flying(self) -> int:
        """Requests taken up and not ended, those that wait for a connection included."""
        return self.next - self.finished

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return clock() - self.began

    def open(self, count: int, within: float) -> None:
        """Opens connections before the run, as many as come about in time; too few are no error, because later ones are opened when needed."""
        self._opening += count
        lines, until = [gevent.spawn(self._open_one) for _ in range(count)], clock() + within
        while len(gevent.joinall(lines, timeout=0.1)) < count and clock() < until and not self.stopped:
            pass

    def run(self, began: float) -> None:
        """Sends all of it, beginning at a perf_counter time; returns when every request has ended, or was left unfinished by `stop`."""
        self.began = began
        sweep = self.loop.timer(SWEEP, SWEEP)
        sweep.start(self._sweep)
        if self.traffic.closed:
            self._again(max(0.0, -self.now), self._users)
        else:
            self._again(0.0, self._due)
        self.over.wait()
        sweep.stop()
        for line in list(self.lines):
            self._drop(line)

    def stop(self, why: str, drain: float) -> None:
        """No further request is begun; those in flight have `drain` seconds left."""
        if not self.stopped:
            self.stopped = why
            gevent.spawn_later(drain, self._end)
            self._settled()

    def _end(self) -> None:
        """Whatever has not ended stays unfinished."""
        for place in range(self._swept, self.next):
            if self.clocks.kind[place] == UNFINISHED:
                self.clocks.counts[UNFINISHED] += 1
        self.finished = self.next
        self.last = max(self.last, self.now)
        self.over.set()

    def older(self, age: float) -> int:
        """How many requests in flight are older than that: a target that stands still answers nothing that could be counted."""
        intended, limit = self.clocks.intended, self.now - age
        return sum(intended[place] < limit for part in (self._flying, self._waiting) for place in part)

    # The schedule

    def _again(self, after: float, what: Callable[[], None]) -> None:
        self._timer = self.loop.timer(after, priority=self.loop.MINPRI)
        self._timer.start(what, update=True)

    def _due(self) -> None:
        """Takes up what is due, and sees to it that it is called for the next."""
        intended, count = self.clocks.intended, len(self.clocks)
        room = AT_ONCE
        while not self.stopped:
            if self.next >= count:
                self._settled()
                return
            left = intended[self.next] - self.now
            if left <= 0 and room:
                room -= 1
                self._take_up(self.next)
            elif left <= 0:
                self._again(0.0, self._due)
                return
            elif left > self._fine:
                self._again(left - self._fine, self._due)
                return
            elif _select([self.loop.fileno()], [], [], left)[0]:
                self._again(0.0, self._due)
                return

    def _users(self) -> None:
        """The closed loop: each user's first request."""
        for _ in range(self.traffic.closed):
            self._another()

    def _another(self) -> None:
        now = self.now
        if len(self.clocks) >= MOST:
            self.stop(f"{MOST:,} requests are the most whose clocks fit into memory", 0.0)
        elif now < self.traffic.arrivals.seconds and not self.stopped:
            self._take_up(self.clocks.add(now))

    def _take_up(self, place: int) -> None:
        self.next = place + 1
        now = self.clocks.dispatched[place] = self.now
        if self._idle:
            self._send(self._idle.popleft(), place, now)
        else:
            self._waiting.append(place)
            self._open_more()

    def _send(self, line: Line, place: int, now: float) -> None:
        self._flying[place] = line
        self.clocks.sent[place] = now
        line.send(place, self.requests[(self.first + place * self.step) % len(self.requests)])

    # How requests end

    def answered(self, line: Line, now: float, status: int) -> None:
        place, clocks = line.request, self.clocks
        done = now - self.began
        line.request = -1
        del self._flying[place]
        clocks.status[place] = status
        if done - clocks.intended[place] > self.traffic.timeout:
            self._finish(place, TIMEOUT, done, "answered too late")
        elif not status_good(self.traffic.expect, status):
            self._finish(place, STATUS, done, f"HTTP {status}")
        elif self._bodies.wanted and (why := self._bodies.wrong(place)):
            self._finish(place, INVALID, done, why)
        else:
            self._finish(place, GOOD, done)
        if not line.keeps:
            self._drop(line)
            self._open_more()
        elif (waits := self._waits()) is not None:
            self._send(line, waits, self.now)
        else:
            self._idle.append(line)

    def broken(self, line: Line, why: str, malformed: bool) -> None:
        place = line.request
        again = line.served and not line.got and not malformed and self.traffic.method.upper() in READS
        self._drop(line)
        if place >= 0:
            del self._flying[place]
            if again:  # a kept connection that the server had closed: what only reads may be asked again
                self._waiting.appendleft(place)
            else:
                self._finish(place, PROTOCOL if malformed else CONNECT, why=why)
        self._open_more()

    def body(self, line: Line, data: bytes) -> None:
        self._bodies.take(line.request, data, line.now - self.began)

    def _finish(self, place: int, kind: int, done: float = math.nan, why: str = "") -> None:
        self.clocks.finish(place, kind, done, why)
        if self._bodies.wanted and (tokens := self._bodies.drop(place)):
            self.clocks.stream(place, tokens.times, tokens.usage)
        self.finished += 1
        self.last = self.now
        if self.traffic.closed:
            self.loop.run_callback(self._another)  # in the loop's next round: a server that refuses at once must not hold it here
        self._settled()

    def _settled(self) -> None:
        whole = self.now >= self.traffic.arrivals.seconds if self.traffic.closed else self.next >= len(self.clocks)
        if self.finished >= self.next and (whole or self.stopped):
            self.over.set()

    def _sweep(self) -> None:
        """Ends what is over its timeout: the intended times rise, so the first that is not over ends the look."""
        clocks, over = self.clocks, self.now - self.traffic.timeout
        while self._swept < self.next and clocks.intended[self._swept] <= over:
            if clocks.kind[self._swept] == UNFINISHED:
                self._expire(self._swept)
            self._swept += 1
        self._settled()

    def _expire(self, place: int) -> None:
        line = self._flying.pop(place, None)
        if line is not None:
            self._drop(line)  # its answer may still come, and would be taken for the next one's
        self._finish(place, TIMEOUT, why=f"no answer within {self.traffic.timeout:g} s" if line else "no connection was free in time")
        self._open_more()

    # Connections

    def _line(self, sock: Any) -> Line:
        line = Line(sock, self.loop, self, self.traffic.method.upper() == "HEAD", self._bodies.wanted)
        self.lines.add(line)
        return line

    def _drop(self, line: Line) -> None:
        self.lines.discard(line)
        if line.request < 0 and line in self._idle:
            self._idle.remove(line)
        line.close()
        self._pool.release_socket(line.sock)

    def _waits(self) -> int | None:
        """The next request that waits for a connection; those whose time is over have ended already."""
        while self._waiting:
            place = self._waiting.popleft()
            if self.clocks.kind[place] == UNFINISHED:
                return place
        return None

    def _open_more(self) -> None:
        if self._opening < len(self._waiting) and len(self.lines) + self._opening < self.traffic.connections and not self.over.is_set():
            gevent.spawn(self._open_one)
            self._opening += 1

    def _open_one(self) -> None:
        problem: BaseException | None = None
        try:
            line = self._line(self._pool.get_socket())
        except (OSError, RuntimeError) as trouble:
            problem = trouble
        self._opening -= 1
        waits = self._waits()
        if problem is None and waits is None:
            self._idle.append(line)
        elif problem is None and waits is not None:
            self._send(line, waits, self.now)
        elif problem is not None and waits is not None:
            self._finish(waits, CONNECT, why=worded(problem))
            self._open_more()
