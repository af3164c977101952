"""The lock of a store: a file that the kernel opens again when its holder ends, however it ends, and that says who that is."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.errors import StoreBusyError, StoreFullError


@dataclass(frozen=True, slots=True)
class Holder:
    """Who wrote itself into a lock file: its process, and the name of this one holding, which no other ever has."""

    process: str  # as people read it: "process 123"
    name: str


@contextlib.contextmanager
def locked(path: Path) -> Iterator[str]:
    """Hold the store as its one writer, under the name that is given; StoreBusyError names the process that has it."""
    handle, name = _grasped(path), secrets.token_hex(8)
    try:
        _sign(handle, _file(path), name)
        yield name
    finally:
        os.close(handle)


def signed(path: Path) -> Holder:
    """Who is written in the lock file, whether or not that one holds it still."""
    try:
        with _file(path).open("rb") as file:
            process, _, name = file.read(64).decode("ascii", "replace").partition("\n")
    except OSError:
        process, name = "", ""
    return Holder(process.strip() or "another process", name.strip())


def holder(path: Path) -> Holder | None:
    """Who holds the store; None when nobody does."""
    try:
        os.close(_grasped(path))
    except StoreBusyError:
        return signed(path)
    return None


class Spare:
    """A lock that is held already, beside the one that somebody else has, until it is put in that one's place.

    Whoever has the other still holds a file then, but no longer the one that the store is locked by.
    """

    def __init__(self, path: Path) -> None:
        self._file, self.name = _file(path), secrets.token_hex(8)
        for left in self._file.parent.glob(f"{glob.escape(self._file.name)}.*"):
            _swept(left)
        self._draft, self._old = (Path(f"{self._file}.{self.name}.{word}") for word in ("new", "old"))
        self._handle = _opened(self._draft, fcntl.LOCK_EX)
        try:
            _sign(self._handle, self._file, self.name)
        except BaseException:
            self.close()
            raise

    def put(self) -> None:
        """Put it in the other's place."""
        os.link(self._file, self._old)
        self._draft.replace(self._file)

    def back(self) -> None:
        """Put the other back where it was, if this one was put there."""
        with contextlib.suppress(FileNotFoundError):
            self._old.replace(self._file)
            self._old.unlink()  # a rename of one of two names of one file does nothing

    def keep(self) -> None:
        """It stays there."""
        self._old.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of it."""
        self._draft.unlink(missing_ok=True)
        os.close(self._handle)


def _file(path: Path) -> Path:
    return Path(f"{path}.lock")


def _grasped(path: Path) -> int:
    file = _file(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _opened(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StoreBusyError(f"{path} is held by {signed(path).process}; stop it, or let it do the work") from None


def _opened(file: Path, how: int) -> int:
    """The file, open and locked, and still the one of that name: another may be put in its place between opening and locking it."""
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, how)
            if _stands(handle, file):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _stands(handle: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), file.stat())
    except FileNotFoundError:
        return False


def _sign(handle: int, file: Path, name: str) -> None:
    """Written over what stands there before it is cut to size: that needs no room on a full disk."""
    text = f"{this_process()}\n{name}\n".encode()
    try:
        if os.pwrite(handle, text, 0) != len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.ftruncate(handle, len(text))
    except OSError as problem:
        raise StoreFullError(f"{file} cannot be written ({problem.strerror}), so nobody could tell who holds it; make room") from problem


def _swept(left: Path) -> None:
    """Remove what a process that was killed meanwhile left: nobody has it locked."""
    with contextlib.suppress(OSError):
        handle = os.open(left, os.O_RDWR)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()
        finally:
            os.close(handle)


def this_process() -> str:
    """This process, as people read it."""
    return f"process {os.getpid()}"
