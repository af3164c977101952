"""Real processes for tests: started in a group of their own, waited for until they answer, and ended with all they started."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

HOUSE = Path(__file__).resolve().parent.parent


@dataclass
class Running:
    """A process that was started; `url` is the first http address that it printed."""

    process: subprocess.Popen[bytes]
    output: IO[bytes]
    grace: float = 10.0

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def text(self) -> str:
        """All it has written to stdout and stderr so far."""
        return os.pread(self.output.fileno(), 1 << 20, 0).decode("utf-8", "replace")

    @property
    def url(self) -> str:
        until(lambda: re.search(r"https?://[\w.:\[\]-]+", self._alive()), "it prints its address", seconds=30)
        found = re.search(r"https?://[\w.:\[\]-]+", self.text)
        assert found
        return found[0]

    def terminate(self) -> int:
        """SIGTERM, as an init system sends it; its exit status. Fails if it is still there after the grace."""
        self.process.terminate()
        return self.process.wait(self.grace)

    def kill(self) -> None:
        """SIGKILL to the whole group: nothing may stay."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()

    def _alive(self) -> str:
        assert self.process.poll() is None, f"{self.process.args!r} ended with {self.process.returncode}:\n{self.text}"
        return self.text


@contextmanager
def start(
    command: Sequence[str | Path],
    ready: Callable[[Running], object] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path = HOUSE,
    seconds: float = 30,
) -> Iterator[Running]:
    """Runs a command while the block runs; the block begins when `ready` holds, within so many seconds. `env` is added to the environment."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd=cwd,
            env={**os.environ, **(env or {})},
        )
        running = Running(process, output)
        try:
            if ready:
                until(lambda: running._alive() is not None and ready(running), f"{command[0]} is ready", seconds, lambda: running.text)
            yield running
        finally:
            running.kill()


def python(module: str, *arguments: str | Path) -> list[str | Path]:
    """`python -m module arguments`, by the Python that runs the tests."""
    return [sys.executable, "-m", module, *arguments]


def answers(path: str = "") -> Callable[[Running], bool]:
    """A `ready` that holds when the printed address answers a GET of `path` with 200."""

    def asked(running: Running) -> bool:
        try:
            with urllib.request.urlopen(running.url + path, timeout=2) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    return asked


def until(holds: Callable[[], object], what: str, seconds: float = 20.0, telling: Callable[[], str] = str) -> None:
    """Waits, at most so long, for a condition; fails with what was waited for."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain until {what}\n{telling()}"
        time.sleep(0.02)


def alive(group: int) -> bool:
    """Whether any process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
