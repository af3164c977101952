"""A worker among several generators: it sends the slice of the schedule that its leader gives it, and hands its clocks over."""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import gevent
from gevent.queue import Empty, Queue

from agent.errors import UnreachableError, WatchkeeperError, WorkerError
from loadtests._clocks import NAMES, STREAMED, Clocks
from loadtests._drive import heard
from loadtests._spec import Traffic
from loadtests._traffic import opened, ready, say, sent
from loadtests._watching import DRAIN, EVERY, Line, Watching, still

ORPHANED = 10.0  # seconds without the leader's heartbeat after which a worker stops


class Worker:
    """Does what its leader says."""

    def __init__(self, environment: Any, host: str, port: int, word: str) -> None:
        self._inbox: Any = Queue()
        self.alive = time.monotonic()  # when the leader was last heard
        self._talk = gevent.spawn(_wait_aloud, f"waiting for the load test at {host}:{port}")
        environment.events.heartbeat_received.add_listener(self._beat)
        try:
            self.runner: Any = environment.create_worker_runner(host, port)
        except (ConnectionError, OSError) as trouble:
            raise UnreachableError(f"nobody at {host}:{port} took us in as a worker; is the load test waiting there?") from trouble
        self.runner.register_message("clock", self._clock)
        for kind in ("plan", "start", "halt"):
            self.runner.register_message(kind, self._hear)
        self.runner.send_message("hello", (word, version("watchkeeper"), os.getpid()))

    def _beat(self, **more: object) -> None:
        self.alive = time.monotonic()

    def _clock(self, environment: object, msg: Any, **more: object) -> None:
        self.runner.send_message("clock", (msg.data, time.time()))

    def _hear(self, environment: object, msg: Any, **more: object) -> None:
        self._inbox.put((msg.type, msg.data))

    def _next(self) -> tuple[str, Any]:
        """The leader's next word; WorkerError where there is no leader any more."""
        while time.monotonic() - self.alive < ORPHANED:
            try:
                kind, data = self._inbox.get(timeout=1.0)
            except Empty:
                continue
            return kind, data
        raise WorkerError(f"the leader was not heard for {ORPHANED:.0f} s")

    def _expected(self, kind: str) -> Any:
        """What comes with that word; WorkerError where the leader has another, which before the run can only be that there is none."""
        said, data = self._next()
        if said != kind:
            raise WorkerError(f"the load test was {data} before it began")
        return data

    def work(self) -> None:
        """One run."""
        try:
            plan = self._expected("plan")
            self._run(heard(plan["traffic"]), plan)
        except WatchkeeperError as trouble:
            self.runner.send_message("problem", {"kind": type(trouble).__name__, "message": str(trouble)})
            gevent.sleep(1.0)
            raise

    def _run(self, traffic: Traffic, plan: dict[str, Any]) -> None:
        clocks = Clocks(array("d", plan["intended"]), bool(traffic.stream))
        sending = ready(traffic, plan["requests"], clocks, plan["place"], plan["of"])
        opened(sending)
        self.runner.send_message("ready", None)
        start = self._expected("start")
        self._talk.kill()
        gevent.spawn(self._listen, sending)
        end = sent(sending, Watching(sending, self._line), start - time.time())
        self._hand_over(clocks, sending.next)
        self.runner.send_message("end", end)
        gevent.sleep(1.0)  # until it is on its way
        say({"end": {}}, must=True)

    def _line(self, line: Line, recent: Sequence[float]) -> None:
        self.runner.send_message("line", {"line": line, "recent": array("d", recent).tobytes()})
        say(line)

    def _listen(self, sending: Any) -> None:
        """What makes a run end early: the leader's word, or its silence."""
        try:
            _, why = self._next()
        except WorkerError as trouble:
            why = str(trouble)
        sending.stop(why, DRAIN)

    def _hand_over(self, clocks: Clocks, count: int) -> None:
        for name in NAMES + (STREAMED[:-1] if clocks.streams else ()):
            self.runner.send_message("array", (name, getattr(clocks, name)[:count].tobytes()))
        if clocks.streams:
            self.runner.send_message("array", ("gaps", clocks.all_gaps(count)))


def _wait_aloud(words: str) -> None:
    while True:
        say(still(words))
        gevent.sleep(EVERY)
