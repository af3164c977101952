"""How long until the first good answer when nothing was there before: a process that is started, or a connection that is new after a silence.

Each start is one trial, in time or not; the share of starts in time is judged by the exact interval of Clopper and Pearson, as every other share is.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from agent import Json, Server, stats
from agent.errors import AnswerError, CancelledError, ConfigError, DeadlineError, DeniedError, TargetError, TrustError, UnreachableError

POLL = 0.01  # seconds between asking a server that is not there yet
STOP = 10.0  # seconds a process has to end before it is killed
AFTER = 20  # requests one after another, once it has answered: what is usual


@dataclass(frozen=True, slots=True)
class Start:
    """One start, in seconds: until the first good answer (None: none came), how long that request itself took, and how long those after it."""

    until: float | None
    first: float = 0.0
    after: float = 0.0
    said: str = ""  # why none came

    def in_time(self, limit: float) -> bool:
        """Whether the first good answer was there at the limit."""
        return self.until is not None and self.until <= limit


def begun(server: Server, request: Json, command: Sequence[str], give_up: float) -> Start:
    """Start `command`, ask until it answers well, ask some more, and stop it again. ConfigError where something answers before it was started, or the
    command cannot be run."""
    _nothing_there(server, request)
    with _running(command) as (process, words):
        start = time.perf_counter()
        while (passed := time.perf_counter() - start) < give_up:
            if process.poll() is not None:
                return Start(None, said=f"{command[0]} ended with status {process.returncode} before it answered{_last(words)}")
            began = time.perf_counter()
            try:
                server.infer(request)
            except (TrustError, DeniedError):
                raise
            except TargetError as problem:
                said = str(problem)
                time.sleep(POLL)
                continue
            now = time.perf_counter()
            return Start(now - start, now - began, _after(server, request))
        return Start(None, said=f"no good answer within {passed:.3g} s: {said}")


def reconnected(server: Server, request: Json, idle: float) -> Start:
    """Ask once, so that nothing of our own is new; let every connection go, be silent for `idle` seconds, and ask over a new one."""
    try:
        server.infer(request)
        _forget(server)
        time.sleep(idle)
        began = time.perf_counter()
        server.infer(request)
        first = time.perf_counter() - began
        return Start(first, first, _after(server, request))
    except (AnswerError, DeadlineError) as problem:
        return Start(None, said=str(problem))


def _after(server: Server, request: Json) -> float:
    return statistics.median(server.infer(request).seconds for _ in range(AFTER))


def _forget(server: Server) -> None:
    getattr(server, "close", lambda: None)()


def _nothing_there(server: Server, request: Json) -> None:
    _forget(server)
    try:
        server.infer(request)
    except UnreachableError:
        return
    except TargetError:
        pass
    raise ConfigError("something answers at the server's address before `command` was run, so nothing would be cold; bind `server` to a free port")


@contextmanager
def _running(command: Sequence[str]) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """The process and what it writes, ended afterwards. It stays in our process group, so that whoever ends us ends it."""
    with tempfile.TemporaryFile() as words:
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=words, stderr=words)  # noqa: S603 - the configuration's own
        except OSError as problem:
            raise ConfigError(f"command: {command[0]} cannot be run ({problem.strerror}); write a program and its arguments as a list") from problem
        try:
            yield process, words
        finally:
            process.terminate()
            try:
                process.wait(STOP)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _last(words: IO[bytes]) -> str:
    """The last line that a process wrote."""
    words.seek(max(0, words.seek(0, 2) - 4096))
    lines = words.read().decode("utf-8", "replace").strip().splitlines()
    return f": {lines[-1][:300]}" if lines else ""


def starts(once: Callable[[], Start], many: int, tell: Callable[[float, str], None]) -> tuple[tuple[Start, ...], bool]:
    """So many starts, and whether it was called off before the last."""
    found: list[Start] = []
    for number in range(many):
        try:
            tell(number / many, f"start {number + 1} of {many}")
        except CancelledError:
            return tuple(found), True
        found.append(once())
    return tuple(found), False


def judged(found: Sequence[Start], limit: float, share: float, confidence: float) -> tuple[Any, tuple[float, float]]:
    """pass, fail or inconclusive, and the interval of the share of starts that are in time, each end wrong with at most 1 - confidence."""
    good = sum(one.in_time(limit) for one in found)
    low, high = stats.clopper_pearson(good, len(found), 2 * confidence - 1)
    return ("pass" if low >= share else "fail" if high < share else "inconclusive"), (low, high)
