"""One load test at a time: a file that is locked while one runs against a server, and that says when the last one ran.

The kernel opens the lock when the process that holds it ends, however it ends: none is ever stale. It holds among the processes of one user on one
machine; whoever sends load from elsewhere, or as somebody else, is not seen.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from agent.errors import BusyError
from agent.model import Locator

PORTS = {"http": 80, "https": 443}
LOOPBACK = ("localhost", "::1")
SIZE = 200  # bytes of a lock's text: always written whole, so that nobody reads half of it
TRIES, PAUSE = 20, 0.01  # whoever only asks holds the lock for an instant


@dataclass(frozen=True, slots=True)
class Ran:
    """The load test that runs (`until_at` is None) or ran last. Of one that was killed only its beginning is known."""

    pid: int
    since_at: datetime
    until_at: datetime | None

    def within(self, start: datetime, end: datetime) -> bool:
        """Whether it ran at some time from `start` to `end`."""
        return self.since_at <= end and (self.until_at is None or self.until_at >= start)


def lock_of(url: str) -> str:
    """The lock of the server at a URL (of an adapter, or plain): one for all that is behind its host and port. Names are not resolved."""
    address = Locator("", "server", url).address
    try:
        at = urlsplit(address)
        host, port = at.hostname or "", at.port or PORTS.get(at.scheme, 0)
    except ValueError:
        host, port = "", 0
    place = f"{'127.0.0.1' if host in LOOPBACK else host}:{port}" if host else address
    name = re.sub(r"[^A-Za-z0-9.-]", "_", place)[:80]
    digest = hashlib.sha256(place.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{_folder()}/{name}-{digest[:8]}.load"


def _folder() -> str:
    try:
        held = tempfile.gettempdir()
    except FileNotFoundError:  # where nothing can be written there is no load test, and all else goes on
        held = os.sep
    return f"{held}/watchkeeper-{os.getuid()}"


@contextmanager
def alone(lock: str) -> Iterator[None]:
    """Hold the lock meanwhile. BusyError: another load test has it, and since when; or its folder is not this user's alone."""
    handle = _opened(Path(lock))
    try:
        _take(handle, lock)
        began = {"pid": os.getpid(), "since_at": datetime.now(UTC).isoformat()}
        _write(handle, lock, began)
        try:
            yield
        finally:
            with suppress(BusyError):
                _write(handle, lock, {**began, "until_at": datetime.now(UTC).isoformat()})
    finally:
        os.close(handle)


def _opened(lock: Path) -> int:
    try:
        lock.parent.mkdir(mode=0o700, exist_ok=True)
        found = lock.parent.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise BusyError(f"{lock.parent} is not a folder of this user alone, so no load test can be locked there; remove it, or set TMPDIR")
        return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as problem:
        raise BusyError(f"{lock} cannot be locked ({problem.strerror}), and no load test runs without; remove it, or set TMPDIR") from problem


def _take(handle: int, lock: str) -> None:
    for _ in range(TRIES):
        if not _held(handle, fcntl.LOCK_EX):
            return
        time.sleep(PAUSE)
    raise BusyError(f"{taken(lock) or 'another load test is beginning against this server'}; wait for its end")


def _held(handle: int, kind: int) -> bool:
    """Whether somebody else has the lock; else it is ours now."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _write(handle: int, lock: str, told: dict[str, object]) -> None:
    try:
        os.pwrite(handle, json.dumps(told).encode().ljust(SIZE), 0)
    except OSError as problem:
        raise BusyError(f"{lock} cannot be written ({problem.strerror}), and without it nobody would know of the load test") from problem


def taken(lock: str) -> str:
    """Which load test has this lock now, in words; empty when none has."""
    ran = last(lock)
    if ran is None or ran.until_at is not None:
        return ""
    return f"a load test is running against this server, by process {ran.pid} since {ran.since_at:%H:%M:%S}Z"


def last(lock: str) -> Ran | None:
    """The load test that has this lock or had it last; None when there is none to be known of."""
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if os.fstat(handle).st_uid != os.getuid():
            return None
        told = json.loads(os.read(handle, SIZE))
        since = datetime.fromisoformat(told["since_at"])
        if told.get("until_at") is not None:
            return Ran(int(told["pid"]), since, datetime.fromisoformat(told["until_at"]))
        return Ran(int(told["pid"]), since, None if _held(handle, fcntl.LOCK_SH) else since)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # it was made by somebody else, or is being made
        return None
    finally:
        os.close(handle)
