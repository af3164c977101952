"""Starts the traffic program, passes its progress on, stops it gracefully, and makes a Trace of what it leaves."""

from __future__ import annotations

import json
import os
import re
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from agent import UTC, errors
from agent.errors import CancelledError, ConfigError, WatchkeeperError, WorkerError
from loadtests._clocks import load
from loadtests._schedule import LONGEST
from loadtests._spec import Arrivals, Expect, Trace, Traffic

Hear = Callable[[Mapping[str, Any]], None]
SILENCE = 60.0  # seconds without a line after which the program is taken for hung: it speaks twice a second, and imports for a few
LINE_LIMIT = 2**20  # bytes of one line
TAIL_LIMIT = 4096  # bytes of its stderr that are kept
LONGEST_WAIT = 86_400.0  # seconds for one answer
MOST_LINES, MOST_WORKERS = 60_000, 256  # beyond that many connections one address has no ports left
EXTRA = "install watchkeeper[load]"


def quiet(done: float, what: str) -> None:
    """For whoever does not want to hear how it goes."""


def drive(traffic: Traffic, tell: Callable[[float, str], None] = quiet, hear: Hear | None = None) -> Trace:
    """Runs it to its end. `tell` gets the share that is done and a sentence, about twice a second; `hear` the same as numbers: t and of (seconds,
    t below 0 before the first request is due), sent, done, errors, flying (so far, and now), rate, p50, p99 (since the last line, in seconds, None
    where there is none), lag, kinds (so far, in the order of KINDS), stopped (why it is ending early).

    When either raises CancelledError, or Ctrl-C is pressed, no request is begun any more, those in flight get a moment, and what there is comes
    back with `aborted` set; a second Ctrl-C kills. ConfigError: it cannot be run as told. UnreachableError, NameLookupError, TrustError: no
    connection came about before the run, and nothing was sent. WorkerError: the program died, or said nothing for a minute.
    The program is in our process group, and ends when we do.
    """
    _checked(traffic)
    begun_at = datetime.now(UTC)
    module = "loadtests._crew" if traffic.workers > 1 or traffic.join else "loadtests._traffic"
    with _Program([module], spoken(traffic)) as program:
        stopped = ""
        while True:
            try:
                said = program.hear()
                if "end" in said:
                    return _trace(traffic, said["end"], stopped)
                if "problem" in said:
                    raise problem(said["problem"])
                if hear is not None:
                    hear(said)
                tell(min(1.0, max(0.0, said["t"] / said["of"])), _sentence(said))
            except (CancelledError, KeyboardInterrupt) as wish:
                if stopped and isinstance(wish, KeyboardInterrupt):
                    raise
                stopped = stopped or ("interrupted" if isinstance(wish, KeyboardInterrupt) else "cancelled")
                if not program.stop():
                    return _nothing(traffic, begun_at, stopped)


def _checked(traffic: Traffic) -> None:
    """ConfigError for numbers that cannot be meant; the schedule's own, and what is in files, the program finds."""
    arrivals, share = traffic.arrivals, traffic.abort_errors
    wrong = [
        (not 0 < traffic.timeout <= LONGEST_WAIT, f"timeout is {traffic.timeout:g} s; it is more than 0 and at most {LONGEST_WAIT:,.0f}"),
        (not 0 < traffic.connections <= MOST_LINES, f"connections are {traffic.connections}; there are 1 to {MOST_LINES:,}"),
        (traffic.open_first < 0, f"open_first is {traffic.open_first}; it is 0 or more"),
        (not 0 < traffic.workers <= MOST_WORKERS, f"workers are {traffic.workers}; there are 1 to {MOST_WORKERS}"),
        (not 0 <= traffic.closed <= MOST_LINES, f"closed is {traffic.closed} users; there are 0 to {MOST_LINES:,}"),
        (0 < traffic.closed < traffic.workers, f"closed is {traffic.closed} users, and each of {traffic.workers} workers has at least one"),
        (
            traffic.closed > 0 and not 0 < arrivals.seconds <= LONGEST,
            f"seconds are {arrivals.seconds:g}; they are more than 0 and at most 31 days",
        ),
        (share is not None and not 0 <= share <= 1, f"abort_errors is {share}; it is a share, 0 to 1"),
        (traffic.abort_latency is not None and not traffic.abort_latency > 0, f"abort_latency is {traffic.abort_latency} s; it is more than 0"),
    ]
    if any(found for found, _ in wrong):
        raise ConfigError([f"the load test's {words}" for found, words in wrong if found])


def join(address: str, tell: Callable[[float, str], None] = quiet) -> None:
    """Works for the load test that waits at host:port, on this machine or another, for one run. Ctrl-C ends it, and makes that run invalid.

    Whoever reaches that port gets the run's requests and headers, and nothing in between is encrypted: it belongs on a private network. A file
    of certificates is read here. UnreachableError: nobody there took us in.
    """
    with _Program(["loadtests._crew", address], "\n") as program:
        while "end" not in (said := program.hear()):
            if "problem" in said:
                raise problem(said["problem"])
            tell(min(1.0, max(0.0, said["t"] / said["of"])), _sentence(said))


def _sentence(said: Mapping[str, Any]) -> str:
    if said["t"] < 0:
        return str(said.get("words", "opening connections"))
    ending = f"; ending: {said['stopped']}" if said.get("stopped") else ""
    speed = f"{said['rate']:,.1f} a second" + ("" if said["p50"] is None else f", p50 {_short(said['p50'])}, p99 {_short(said['p99'])}")
    return f"{said['t']:.0f} s of {said['of']:.0f}: {speed}, {said['errors']:,} errors, {said['flying']:,} in flight" + ending


def _short(seconds: float | None) -> str:
    if seconds is None:
        return "unanswered"
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _trace(traffic: Traffic, end: Mapping[str, Any], stopped: str) -> Trace:
    known = {name: end[name] for name in ("wall", "cpu", "workers", "lost", "said")} | {"notes": tuple(end["notes"])}
    began_at, aborted = datetime.fromtimestamp(end["began"], UTC), end["aborted"] and (stopped or end["aborted"])
    return Trace(**load(Path(traffic.out)), **known, began_at=began_at, aborted=aborted, closed=traffic.closed)


def _nothing(traffic: Traffic, begun_at: datetime, stopped: str) -> Trace:
    """Stopped before the first request: an empty Trace."""
    import numpy as np

    none = np.empty(0)
    kind, status = none.astype(np.uint8), none.astype(np.uint16)
    return Trace(none, none, none, none, kind, status, begun_at, 0.0, 0.0, aborted=stopped, closed=traffic.closed)


def problem(said: Mapping[str, str]) -> WatchkeeperError:
    """The error that a program said in its last line."""
    kind = getattr(errors, said["kind"], WorkerError)
    found = kind(said["message"])
    return found if isinstance(found, WatchkeeperError) else WorkerError(said["message"])


def spoken(traffic: Traffic) -> str:
    """A Traffic as one line for the program's stdin: headers hold secrets, and arguments are seen by everyone on the machine."""
    return json.dumps({**asdict(traffic), "headers": dict(traffic.headers)}) + "\n"


def heard(line: str) -> Traffic:
    """The Traffic that `spoken` wrote."""
    said = json.loads(line)
    expect = {**said.pop("expect")}
    expect |= {name: tuple(expect[name]) for name in ("status", "fields")}
    return Traffic(**{**said, "arrivals": Arrivals(**said["arrivals"]), "expect": Expect(**expect)})


class _Program:
    """A running program. Both of its pipes are read here, under one time limit, so that neither can fill up and hang it."""

    def __init__(self, module: Sequence[str], told: str) -> None:
        command, pipe = [sys.executable, "-P", "-m", *module], subprocess.PIPE
        try:
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)  # noqa: S603 - ours
        except OSError as problem:
            raise WorkerError(f"the traffic program could not be started: {problem}; is the machine out of memory or processes?") from problem
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._out, self._err = self._process.stdout.fileno(), self._process.stderr.fileno()
        self._lines: list[bytes] = []
        self._rest = self._tail = b""
        self._running = False  # it has spoken, so it knows what SIGTERM means
        self._pipes = selectors.DefaultSelector()
        for end in (self._out, self._err):
            self._pipes.register(end, selectors.EVENT_READ)
        self._told = told.encode()

    def __enter__(self) -> _Program:
        assert self._process.stdin
        with suppress(BrokenPipeError):  # it died at once; `hear` says why
            self._process.stdin.write(self._told)
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        """It has said its last word, or none is wanted any more; what it started ends when its own pipes do."""
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._process.kill()
        self._process.wait()
        self._pipes.close()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            pipe.close()

    def stop(self) -> bool:
        """Asks it to end; False where it has sent nothing yet, and so is just ended."""
        if self._running:
            self._process.terminate()
        else:
            self._process.kill()
        return self._running

    def hear(self) -> Mapping[str, Any]:
        """Its next line; WorkerError when there will be none."""
        until = time.monotonic() + SILENCE
        while not self._lines:
            self._read(until)
        said = self._lines.pop(0)
        self._running = True
        try:
            return dict(json.loads(said))
        except ValueError as problem:
            raise WorkerError(f"the traffic program spoke nonsense: {said[:80]!r}") from problem

    def _read(self, until: float) -> None:
        ready = self._pipes.select(max(0.0, until - time.monotonic()))
        if not ready:
            raise WorkerError(f"the traffic program said nothing for {SILENCE:.0f} s and was killed{self._words()}")
        for key, _ in ready:
            data = os.read(key.fd, 1 << 16)
            if key.fd == self._err:
                self._tail = (self._tail + data)[-TAIL_LIMIT:]
            else:
                *lines, self._rest = (self._rest + data).split(b"\n")
                self._lines += lines
            if not data:
                self._pipes.unregister(key.fd)
        if len(self._rest) > LINE_LIMIT:
            raise WorkerError(f"the traffic program spoke a line of more than {LINE_LIMIT:,} bytes")
        if not self._lines and not self._pipes.get_map():
            raise self._died()

    def _died(self) -> WatchkeeperError:
        if re.search(rb"No module named '(locust|gevent|geventhttpclient)", self._tail):
            return ConfigError(f"load tests need locust, which is not installed: {EXTRA}")
        return WorkerError(f"the traffic program died with status {self._process.wait()}{self._words()}")

    def _words(self) -> str:
        words = self._tail.decode("utf-8", "replace").strip().rsplit("\n", 1)[-1][-300:]
        return f"; its last words: {words}" if words else ""
