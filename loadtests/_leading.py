"""The leader of several generators: one schedule, one beginning, one set of clocks at the end, over locust's own RPC."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gevent.queue import Empty, Queue

from agent.errors import WorkerError
from loadtests._clocks import Clocks
from loadtests._drive import problem, spoken
from loadtests._exposed import Exposed, place
from loadtests._payload import payload
from loadtests._schedule import times
from loadtests._spec import Traffic
from loadtests._traffic import say
from loadtests._watching import EVERY, Line, still, together

JOINING = 120.0  # seconds in which all workers must have joined
OPENING = 60.0  # seconds in which all workers must have told their time, and be ready to send
PINGS = 10  # of each clock: the fastest there and back says most
AHEAD = 1.0  # seconds between the word to begin and the first intended time
TYPES = {"kind": "B", "status": "H", "tokens": "I", "usage": "I"}


class Stopped(Exception):
    """Asked to end before the first request."""


@dataclass
class Member:
    """One worker, as the leader knows it."""

    place: int
    pid: int  # of a worker here; of others it says nothing
    pings: list[tuple[float, float]] = field(default_factory=list)  # there and back in seconds, and its clock minus ours
    ready: bool = False
    lost: bool = False
    line: Line = field(default_factory=dict)
    arrays: dict[str, bytes] = field(default_factory=dict)
    end: dict[str, Any] = field(default_factory=dict)

    @property
    def ahead(self) -> float:
        """Seconds that its clock is ahead of ours."""
        return min(self.pings)[1]


class Leader:
    """Brings workers together and through one run."""

    def __init__(self, traffic: Traffic, listen: Callable[[str, int], Any]) -> None:
        self.traffic, self.requests = traffic, payload(traffic)
        self.intended = array("d", b"" if traffic.closed else times(traffic.arrivals).tobytes())
        self.exposed = Exposed(traffic.metrics)
        self.word = "" if traffic.join else secrets.token_hex(16)
        self.members: dict[str, Member] = {}
        self.stopped, self.began = "", 0.0
        self._inbox: Any = Queue()
        self._recent: list[float] = []
        self._children: list[subprocess.Popen[bytes]] = []
        self.runner = listen(*(place(traffic.join, "join") if traffic.join else ("127.0.0.1", 0)))
        for kind in ("hello", "clock", "ready", "problem", "line", "array", "end"):
            self.runner.register_message(kind, self._hear)

    def _hear(self, environment: object, msg: Any, **more: object) -> None:
        self._inbox.put((msg.node_id, msg.type, msg.data, time.time()))

    def lead(self) -> None:
        """The whole run, from the first worker to the last array."""
        if not self.traffic.join:
            self._children = [_child(f"127.0.0.1:{self.runner.server.port}", self.word) for _ in range(self.traffic.workers)]
        count = self.traffic.workers
        self._until(lambda: len(self.members) == count, JOINING, "joined")
        self._tell_all("clock", time.time())
        self._until(lambda: all(len(each.pings) >= PINGS for each in self.members.values()), OPENING, "told the time")
        for name, member in self.members.items():
            self._send(name, "plan", self._plan(member.place))
        self._until(lambda: all(each.ready for each in self.members.values()), OPENING, "opened connections")
        self.began = time.time() + AHEAD
        for name, member in self.members.items():
            self._send(name, "start", self.began + member.ahead)
        self._last = time.monotonic()
        while not all(each.end or each.lost for each in self.members.values()):
            self._take(EVERY)
            self._look()

    def stop(self, why: str) -> None:
        """No further request is begun, by anybody."""
        if not self.stopped:
            self.stopped = why
            self._tell_all("halt", why)  # "stop" is a word of locust's own

    def _tell_all(self, kind: str, data: Any) -> None:
        for name in self.members:
            self._send(name, kind, data)

    def _send(self, name: str, kind: str, data: Any) -> None:
        self.runner.send_message(kind, data, name)

    def _plan(self, number: int) -> dict[str, Any]:
        traffic, many = self.traffic, self.traffic.workers
        closed = len(range(number, traffic.closed, many))
        connections, first = -(-traffic.connections // many), -(-traffic.open_first // many)
        own = replace(traffic, workers=1, join="", metrics="", closed=closed, connections=connections, open_first=first)
        return {"traffic": spoken(own), "requests": self.requests, "intended": self.intended[number::many].tobytes(), "place": number, "of": many}

    # What comes in

    def _until(self, holds: Callable[[], bool], within: float, what: str) -> None:
        """Takes what comes until it holds. Before the run a lost worker, and a worker's own problem, are the end of it."""
        until, spoken_at = time.monotonic() + within, 0.0
        while not holds():
            self._take(0.05)
            if time.monotonic() - spoken_at > EVERY:
                spoken_at = time.monotonic()
                say(still(f"{len(self.members)} of {self.traffic.workers} workers have joined"))
            if self.stopped:
                raise Stopped
            if self._missing():
                raise WorkerError("a worker was lost before the run; its own words stand above")
            if time.monotonic() > until:
                raise WorkerError(f"not all {self.traffic.workers} workers {what} in {within:.0f} s")

    def _take(self, within: float) -> None:
        """Everything that came, waiting for the first so long."""
        try:
            self._heard(*self._inbox.get(timeout=within))
            while True:
                self._heard(*self._inbox.get_nowait())
        except Empty:
            return

    def _heard(self, name: str, kind: str, data: Any, at: float) -> None:
        member = self.members.get(name)
        if member is None:
            if kind == "hello" and len(self.members) < self.traffic.workers:
                with suppress(TypeError):  # not what one of ours says
                    self._welcome(name, *data)
        elif kind == "clock":
            member.pings.append((at - data[0], data[1] - (at + data[0]) / 2))
            if len(member.pings) < PINGS:
                self._send(name, "clock", time.time())
        elif kind == "ready":
            member.ready = True
        elif kind == "problem":
            raise problem(data)
        elif kind == "line":
            member.line = data["line"]
            self._recent += array("d", data["recent"])
        elif kind == "array":
            member.arrays[data[0]] = data[1]
        elif kind == "end":
            member.end = data
            if data["aborted"]:
                self.stop(data["aborted"])

    def _welcome(self, name: str, word: str, release: str, pid: int) -> None:
        """A worker joins; one with another word is none of ours, and one of another release may read a plan otherwise than it is meant."""
        if secrets.compare_digest(word, self.word):
            if release != version("watchkeeper"):
                raise WorkerError(f"a worker of Watchkeeper {release} joined a load test of {version('watchkeeper')}; install the same on both")
            self.members[name] = Member(len(self.members), pid)

    def _look(self) -> None:
        """Tells how it goes, and ends a run that has lost a worker: its verdict could only be invalid."""
        for name in self._missing():
            self.members[name].lost = True
            self.stop("a worker was lost")
        lines = [each.line for each in self.members.values() if each.line]
        if lines and time.monotonic() - self._last >= EVERY:
            self._last = time.monotonic()
            recent, self._recent = self._recent, []
            line = together(lines, recent)
            self.exposed.take(line, recent)
            say(line)

    def _missing(self) -> list[str]:
        """Workers that ended, or whose heartbeats locust misses, before they handed their clocks over."""
        known, dead = self.runner.clients, {child.pid for child in self._children if child.poll() is not None}
        waited = [name for name, each in self.members.items() if not each.end and not each.lost]
        gone = [name for name in waited if name not in known or known[name].state == "missing" or self.members[name].pid in dead]
        return gone or ["one that never joined"] * (not self.began and bool(dead))

    # What is left

    def save(self) -> dict[str, Any]:
        """Puts the arrays of all together, in the order of the global schedule, and says what came of the run."""
        there = [each for each in self.members.values() if each.end]
        if not there:
            Clocks([]).save(Path(self.traffic.out), 0)
        else:
            _merge(there, self.traffic, Path(self.traffic.out))
        said = sum((Counter(each.end["said"]) for each in there), Counter[str]())
        last = max((each.end["last"] for each in there), default=0.0)
        first = min((each.end["first"] for each in there), default=0.0)
        cpu = sum(each.end["cpu"] for each in there)
        told = {"began": self.began, "wall": max(0.0, last - first), "cpu": cpu, "aborted": self.stopped, "said": dict(said)}
        return told | {"workers": self.traffic.workers, "lost": self.traffic.workers - len(there) if self.began else 0, "notes": self._clocks()}

    def _clocks(self) -> list[str]:
        if not self.began:
            return []
        apart, known = max(abs(each.ahead) for each in self.members.values()), max(min(each.pings)[0] / 2 for each in self.members.values())
        return [f"the clocks of the {len(self.members)} workers were at most {apart * 1000:.3g} ms from the leader's, known to {known * 1000:.3g} ms"]


def _child(address: str, word: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "loadtests._crew", address]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)  # noqa: S603 - ours
    assert child.stdin
    child.stdin.write(word.encode() + b"\n")
    child.stdin.flush()
    return child


def _merge(members: Sequence[Member], traffic: Traffic, out: Path) -> None:
    """Worker i of k had the requests i, i + k ... of the schedule; in a closed loop the order is that of the intended times."""
    import numpy as np

    columns = {name: [np.frombuffer(each.arrays[name], TYPES.get(name, "d")) for each in members] for name in members[0].arrays}
    if traffic.closed:
        order = np.argsort(np.concatenate(columns["intended"]), kind="stable")
    else:
        places = [each.place + traffic.workers * np.arange(len(part)) for each, part in zip(members, columns["kind"], strict=True)]
        order = np.argsort(np.concatenate(places))
    for name, parts in columns.items():
        if name != "gaps":
            np.save(out / f"{name}.npy", np.concatenate(parts)[order])
    if "gaps" in columns:
        counts = np.maximum(np.concatenate(columns["tokens"]).astype(np.int64) - 1, 0)
        pieces = np.split(np.concatenate(columns["gaps"]), np.cumsum(counts)[:-1])
        np.save(out / "gaps.npy", np.concatenate([pieces[place] for place in order]))
