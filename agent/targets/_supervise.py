"""Stands beside a piece of work and outlives whoever began it: `python -I -S _supervise.py JOB FOLDER SECONDS ARGV...`.

Run by its path, so it needs nothing but the standard library. What it knows lies in the folder of the job, each file whole or not there: `began.json`
before the work begins, `told.json` the last progress, `log` and `log.1` what was printed, `ended.json` how it ended. It holds a lock on `lock` as
long as it lives, which the kernel opens however it ends; a file `stop` ends the work.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

LOCK, BEGAN, TOLD, ENDED, STOP, LOG = "lock", "began.json", "told.json", "ended.json", "stop", "log"
MOST = 2**20  # bytes of the log before it is turned over; one turned over is kept
LINE = 2**16  # bytes of a line that may tell progress
GRACE = 10.0  # seconds that the work has to end by itself, once it is told to
TICK = 0.25  # seconds between looks at whether it should end
DIES_WITH = 1  # PR_SET_PDEATHSIG


def main() -> int:
    """Begin the work once, whoever asks however often, and return at once; what stays behind sees it to its end."""
    home, folder, longest, argv = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), sys.argv[4:]
    lock = _taken(home / LOCK)
    if lock is None or (home / BEGAN).exists():
        return 0
    written(home / BEGAN, {"host": host(), "at": time.time()})
    if os.fork():
        return 0
    os.setsid()
    try:
        ended = _work(home, folder, argv, longest)
    except OSError as problem:
        ended = {"code": None, "said": f"{argv[0]} cannot be run in {folder} ({problem.strerror or problem})"}
    with suppress(OSError):
        written(home / ENDED, ended)
    os._exit(0)


def host() -> str:
    """This machine since it was started."""
    with suppress(OSError):
        return f"{os.uname().nodename} {Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"
    return os.uname().nodename


def held(path: Path) -> bool:
    """Whether a supervisor lives that holds this lock."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def written(path: Path, told: Any) -> None:
    """JSON, whole or not at all, and there after a loss of power."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("w", encoding="utf-8") as stream:
        json.dump(told, stream)
        stream.flush()
        os.fsync(stream.fileno())
    beside.replace(path)
    handle = os.open(path.parent, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def _taken(path: Path) -> int | None:
    """The lock, for good; None when another supervisor has it. Whoever only looks at it has it for a moment."""
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    for _ in range(40):
        with suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        time.sleep(0.025)
    os.close(handle)
    return None


def _work(home: Path, folder: str, argv: list[str], longest: float) -> dict[str, Any]:
    pipe = subprocess.PIPE
    with subprocess.Popen(  # noqa: S603 - what the configuration names
        argv,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=pipe,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_dies_with_us,
    ) as work:
        why = _watched(home, work, time.monotonic() + longest, longest)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(work.pid, signal.SIGKILL)  # nothing that it started in its group outlives it
    code = work.returncode
    return {"code": code, "said": why or (f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"it ended with exit status {code}")}


def _dies_with_us() -> None:
    """Killed when its supervisor is, where the kernel can do that: else nobody would see how it ends."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(DIES_WITH, signal.SIGKILL, 0, 0, 0)


def _watched(home: Path, work: subprocess.Popen[bytes], end: float, longest: float) -> str:
    """Until it has ended; gives why it was made to, if it was."""
    assert work.stdout is not None
    os.set_blocking(work.stdout.fileno(), False)
    heard, why, killed_at = Heard(home), "", 0.0
    with selectors.DefaultSelector() as pipes:
        pipes.register(work.stdout, selectors.EVENT_READ)
        while True:
            over = work.poll() is not None
            open_still = heard.hear(work.stdout.fileno(), pipes)
            if over:
                return why
            now = time.monotonic()
            if not why and (why := _should_end(home, now >= end, longest)):
                os.killpg(work.pid, signal.SIGTERM)
                killed_at = now + GRACE
            if why and now >= killed_at:
                os.killpg(work.pid, signal.SIGKILL)
            if not open_still:
                time.sleep(TICK / 5)


def _should_end(home: Path, late: bool, longest: float) -> str:
    if (home / STOP).exists():
        return "it was cancelled"
    return f"it was not done within {longest:g} s, and was ended" if late else ""


class Heard:
    """What the work prints: bounded, and its last progress told."""

    def __init__(self, home: Path) -> None:
        self._home, self._line, self._told = home, b"", b""
        self._log = (home / LOG).open("ab", buffering=0)

    def hear(self, pipe: int, pipes: selectors.BaseSelector) -> bool:
        """All that there is now, waiting for a moment for more; whether there may be more later."""
        if not pipes.get_map():
            return False
        if pipes.select(TICK):
            try:
                part = os.read(pipe, 2**16)
            except BlockingIOError:
                return True
            if not part:
                pipes.unregister(pipe)
            self._keep(part)
        return True

    def _keep(self, part: bytes) -> None:
        if self._log.tell() + len(part) > MOST:
            self._log.close()
            (self._home / LOG).replace(self._home / f"{LOG}.1")
            self._log = (self._home / LOG).open("ab", buffering=0)
        with suppress(OSError):  # no room: the work goes on
            self._log.write(part)
        *lines, rest = (self._line + part).split(b"\n")
        self._line = rest[-LINE:]
        if told := next((line for line in reversed(lines) if _progress(line)), b""):
            self._tell(told)

    def _tell(self, told: bytes) -> None:
        if told != self._told:
            self._told, beside = told, self._home / f".{TOLD}"
            with suppress(OSError):
                beside.write_bytes(told)
                beside.replace(self._home / TOLD)


def _progress(line: bytes) -> bool:
    if not line.startswith(b"{") or len(line) > LINE:
        return False
    try:
        said = json.loads(line)
    except ValueError:
        return False
    return isinstance(said, dict) and isinstance(said.get("done"), int | float) and isinstance(said.get("what", ""), str)


if __name__ == "__main__":
    sys.exit(main())
