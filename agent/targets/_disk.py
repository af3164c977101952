"""Files that others read at any moment: written whole or not at all, and by one of us at a time."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.errors import AnswerError, DataError, UnreachableError


def read(path: Path, where: str) -> bytes | None:
    """What a file holds; None when there is none. UnreachableError says why it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise UnreachableError(f"{where}: {path} cannot be read ({problem.strerror}); give the agent's user the right to read it") from problem


def written(path: Path, content: str | bytes | None, where: str, so: str = "") -> None:
    """Whole or not at all, and there after a loss of power; None takes it away. DataError says why it could not be, and `so` what follows."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        if content is None:
            path.unlink(missing_ok=True)
        else:
            beside.write_bytes(content.encode() if isinstance(content, str) else content)
            synced(beside)
            beside.replace(path)
        synced(path.parent)
    except OSError as problem:
        beside.unlink(missing_ok=True)
        raise DataError(f"{where}: {path} could not be written ({problem.strerror}){so}") from problem


def synced(path: Path) -> None:
    """A file's content, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def alone(folder: Path, where: str) -> Iterator[None]:
    """Nobody else of us between comparing and setting. AnswerError when another is at it now, UnreachableError when there is no such folder."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as problem:
        raise UnreachableError(f"{where}: {folder}: {problem.strerror}") from problem
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as problem:
        raise AnswerError(f"{where}: another agent is moving it at this moment") from problem
    finally:
        os.close(handle)
