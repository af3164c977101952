"""Heavy looks, elsewhere: a pool of warm child processes that take one job a line and answer with one verdict a line."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Any

from agent import errors
from agent.errors import AnswerError, CancelledError, DeadlineError, WatchkeeperError, WorkerError
from agent.model import Locator, spell, to_json
from agent.perform import Connections, perform
from agent.rebuild import locator_from_json, locator_to_json, plain, verdict_from_json, verdict_to_json

__all__ = ["Connections", "Pool", "locator_from_json", "locator_to_json", "perform", "verdict_from_json", "verdict_to_json"]

Tell = Callable[[float, str], None]
REPLY_LIMIT = 8 * 2**20  # bytes of one line from a worker
TAIL_LIMIT = 4096  # bytes of a worker's stderr that are kept
AHEAD = ("numpy", "scipy.stats", "pyarrow", "duckdb")  # seconds of imports on a busy machine, which would otherwise be the first look's
STOPPING = timedelta(seconds=20)  # that a check has to end with what it has so far, once it was asked to stop
OWN_SHARE = 0.95  # of the time left is given to the child's own wire: its DeadlineError names the target, a kill cannot


class Pool:
    """At most `size` warm children, started when first needed (or by `warm`), each replaced after `jobs` calls or above `resident` bytes.

    Those started before anyone waits for them, by `warm` or in place of another, import the modules named in `ahead`. Each gives way to others on a
    busy machine, as far as `nice` says.

    Safe to call from many threads. Close it, or use it in `with`: children end when their stdin closes, however the parent ended.
    """

    def __init__(self, size: int, *, jobs: int = 1000, resident: int = 2**30, ahead: Sequence[str] = AHEAD, nice: int = 5) -> None:
        self._jobs, self._resident, self._ahead, self._nice = jobs, resident, ahead, nice
        self._free: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._places = size
        self._some = threading.Condition()
        self._closed = False

    def warm(self) -> None:
        """Start every child now, so that no first look pays for it."""
        with self._some:
            while len(self._all) < self._places and not self._closed:
                self._free.append(self._start(self._ahead))

    def call(self, job: Mapping[str, Any], within: timedelta, tell: Tell | None = None) -> Mapping[str, Any]:
        """The child's reply, within a total time that includes the wait for a free child: {"verdict": {...}}, or {"pinned": {...}} of rows pinned.

        `tell` is called in this thread with the check's progress. A CancelledError that it raises is raised in the check, where it tells next: it may
        answer with what it has by then, and is killed when it does not within STOPPING. Anything else that `tell` raises ends the child.
        DeadlineError: the child and all it started were killed. WorkerError: no child was free in time, or it died or spoke nonsense. Errors of the
        check come back as their own kinds.
        """
        until = time.monotonic() + within.total_seconds()
        worker = self._take(until, within)
        try:
            reply = worker.exchange(job, until, within, tell)
        except BaseException as problem:
            self._drop(worker)
            if self._closed and isinstance(problem, WorkerError):
                raise WorkerError("the workers were closed before this look was done") from problem
            raise
        worn = worker.calls >= self._jobs or reply.get("resident", 0) > self._resident
        (self._drop if worn else self._give)(worker)
        if "error" in reply:
            raise _error(reply["error"])
        return reply

    def close(self, grace: timedelta = timedelta()) -> None:
        """Begin no more calls and end all children; a call that is under way after the grace gets a WorkerError."""
        with self._some:
            self._closed = True
            self._some.wait_for(lambda: len(self._free) == len(self._all), grace.total_seconds())
            for worker in self._free:
                worker.end()
            for worker in self._all.difference(self._free):
                worker.kill()  # whoever waits for it sees it die, and ends it
            self._all, self._free = set(), []
            self._some.notify_all()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _take(self, until: float, within: timedelta) -> _Worker:
        with self._some:
            ready = self._some.wait_for(self._room, max(0.0, until - time.monotonic()))
            if self._closed:
                raise WorkerError("no room: the workers are being closed")
            if not ready:
                raise WorkerError(f"no room: all {self._places} workers were busy for {spell(within)}; add workers, or look less often")
            return self._free.pop() if self._free else self._start()

    def _room(self) -> bool:
        return self._closed or bool(self._free) or len(self._all) < self._places

    def _start(self, ahead: Sequence[str] = ()) -> _Worker:
        worker = _Worker(ahead, self._nice)
        self._all.add(worker)
        return worker

    def _give(self, worker: _Worker) -> None:
        with self._some:
            self._free.append(worker)
            self._some.notify()

    def _drop(self, worker: _Worker) -> None:
        worker.end()
        with self._some:
            self._all.discard(worker)
            if not self._closed and len(self._all) < self._places:  # its successor warms up while nobody waits for it
                with suppress(WorkerError):
                    self._free.append(self._start(self._ahead))
            self._some.notify()


class _Worker:
    """One child. All three pipes are served by whoever calls it, under one deadline, so that neither side can block the other for ever."""

    def __init__(self, ahead: Sequence[str], nice: int) -> None:
        env = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
        program = [sys.executable, "-P", "-m", "agent._worker", str(nice), *ahead]
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(program, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, env=env, start_new_session=True)  # noqa: S603 - ours
        except OSError as problem:
            raise WorkerError(f"no worker could be started: {problem}; is the machine out of memory or processes?") from problem
        self.calls = 0
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._in, self._out, self._err = (end.fileno() for end in (self._process.stdin, self._process.stdout, self._process.stderr))
        self._until, self._stopped = 0.0, ""
        self._heard = b""
        self._tail = b""
        self._pipes = selectors.DefaultSelector()
        for pipe in (self._in, self._out, self._err):
            os.set_blocking(pipe, False)
        self._pipes.register(self._out, selectors.EVENT_READ)
        self._pipes.register(self._err, selectors.EVENT_READ)

    def exchange(self, job: Mapping[str, Any], until: float, within: timedelta, tell: Tell | None) -> Mapping[str, Any]:
        """Send one job and wait for its reply, passing progress to `tell`."""
        self.calls += 1
        self._until, self._stopped = until, ""
        left = max(0.0, until - time.monotonic())
        unsent = self._send(memoryview(json.dumps({**job, "within": left * OWN_SHARE}, default=_portable).encode() + b"\n"))
        if unsent:
            self._pipes.register(self._in, selectors.EVENT_WRITE)
        while True:
            over = time.monotonic() >= self._until
            for key, _ in self._pipes.select(max(0.0, self._until - time.monotonic())):
                if key.fd == self._in:
                    unsent = self._send(unsent)
                    if not unsent:
                        self._pipes.unregister(self._in)
                elif key.fd == self._err:
                    self._overhear()
                elif (reply := self._hear(job, tell)) is not None:
                    return reply
            if over:
                raise self._overdue(job, within)

    def _send(self, unsent: memoryview) -> memoryview:
        try:
            return unsent[os.write(self._in, unsent) :]
        except BlockingIOError:
            return unsent
        except BrokenPipeError:  # it died: what it said last is still in the other pipes
            return unsent[:0]

    def _hear(self, job: Mapping[str, Any], tell: Tell | None) -> Mapping[str, Any] | None:
        said = os.read(self._out, 2**20)
        if not said:
            raise WorkerError(f"the worker of check '{job.get('check')}' died ({self._ending()}){self._last_words()}")
        *lines, self._heard = (self._heard + said).split(b"\n")
        if len(self._heard) > REPLY_LIMIT:
            raise WorkerError(f"the worker of check '{job.get('check')}' said more than {REPLY_LIMIT // 2**20} MiB in one line")
        for line in lines:
            reply = _parse(line)
            if "tell" not in reply:
                return reply
            if tell is not None and not self._stopped:
                self._tell(tell, float(reply["tell"][0]), str(reply["tell"][1]))
        return None

    def _tell(self, tell: Tell, done: float, what: str) -> None:
        try:
            tell(done, what)
        except CancelledError as problem:
            self._stopped = str(problem) or "it was asked to stop"
            self._until = min(self._until, time.monotonic() + STOPPING.total_seconds())
            self._send(memoryview(json.dumps({"stop": self._stopped}).encode() + b"\n"))  # it has read its job, so there is room

    def _overdue(self, job: Mapping[str, Any], within: timedelta) -> WatchkeeperError:
        if self._stopped:
            return CancelledError(f"{self._stopped}; check '{job.get('check')}' did not end within {spell(STOPPING)}, and its worker was killed")
        return DeadlineError(f"check '{job.get('check')}' was not done after {spell(within)}; its worker was killed{self._last_words()}")

    def _overhear(self) -> None:
        said = os.read(self._err, 2**16)
        self._tail = (self._tail + said)[-TAIL_LIMIT:]
        if not said:
            self._pipes.unregister(self._err)

    def _last_words(self) -> str:
        with suppress(BlockingIOError, KeyError):
            while self._err in self._pipes.get_map():
                self._overhear()
        words = self._tail.decode("utf-8", "replace").strip()
        return f"; it last said: {words}" if words else ""

    def _ending(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(1)
            self._kill_all()  # while its number is still that of the group
            return f"exit code {code}" if code >= 0 else _signal(-code)
        return "its stdout is closed"

    def kill(self) -> None:
        """Kill the child and everything it started."""
        if self._process.returncode is None:
            self._kill_all()

    def _kill_all(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill the child, wait until it is gone and close its pipes; again is harmless."""
        self.kill()
        self._process.wait()
        self._pipes.close()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def _signal(number: int) -> str:
    hint = ": killed from outside, by the kernel when memory ran out" if number == signal.SIGKILL else ""
    return f"{signal.Signals(number).name}{hint}"


def _portable(value: Any) -> Any:
    if isinstance(value, Locator):
        return locator_to_json(value)
    made = to_json(value)
    return plain(value) if made is value else made


def _parse(line: bytes) -> Mapping[str, Any]:
    try:
        reply = json.loads(line)
        if not reply.keys() & {"tell", "verdict", "pinned", "error"}:
            raise ValueError("neither progress, verdict, pin nor error")
        return reply  # type: ignore[no-any-return]
    except (ValueError, AttributeError) as problem:
        raise WorkerError(f"a worker spoke nonsense: {line[:200]!r} ({problem})") from problem


def _error(told: Mapping[str, Any]) -> WatchkeeperError:
    kind = getattr(errors, str(told.get("kind")), WorkerError)
    if not (isinstance(kind, type) and issubclass(kind, WatchkeeperError)):
        kind = WorkerError
    return kind(told["message"], told.get("status")) if issubclass(kind, AnswerError) else kind(told["message"])
