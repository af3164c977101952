"""Runs a team's own programs: lists of words and no shell, a small environment, a time to be done in, and nothing of them left behind."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import IO, NamedTuple

from agent import Json
from agent.errors import ConfigError, DeadlineError, UnreachableError

ALWAYS = ("PATH", "HOME", "LANG", "TZ")  # of our environment; everything else may hold a secret that is none of the program's business
MOVED = 75  # the exit status that says: the world is not as you took it to be, and nothing was done
MOST = 64 * 2**10  # bytes of what a program says


class Ran(NamedTuple):
    """How a program ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> str:
        """What it said of its end: the last of what it printed on stderr, else on stdout."""
        return (self.err.strip() or self.out.strip())[-500:]


def words(given: Json, where: str) -> list[str]:
    """A command as a list of words; ConfigError for anything else."""
    if not isinstance(given, list) or not given or not all(isinstance(word, (str, int)) for word in given):
        raise ConfigError(f"{where}: write the command as a list of words, such as [./route.sh, read]; no shell is asked")
    return [str(word) for word in given]


def environment(inherit: Json, extra: Json, where: str) -> dict[str, str]:
    """What a program sees: `ALWAYS` and the names in `inherit` of our own environment, and `extra`; ConfigError for what is neither."""
    if not isinstance(inherit, list) or not isinstance(extra, Mapping):
        raise ConfigError(f"{where}: write `inherit: [NAME]` and `env: {{NAME: value}}`")
    inherited = {name: os.environ[name] for name in (*ALWAYS, *map(str, inherit)) if name in os.environ}
    return {**inherited, **{str(name): str(value) for name, value in extra.items()}}


def run(words: Sequence[str], folder: Path, env: Mapping[str, str], within: float, where: str, most: int = MOST) -> Ran:
    """Runs it to its end; of what it prints `most` bytes are kept. UnreachableError when it cannot be started; DeadlineError after `within` seconds,
    when it and all it started are killed.
    """
    end = monotonic() + within
    try:
        process = subprocess.Popen(  # noqa: S603 - what the configuration names
            words,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except (OSError, ValueError) as problem:
        raise UnreachableError(f"{where}: {words[0]} cannot be run in {folder} ({getattr(problem, 'strerror', None) or problem})") from problem
    try:
        out, err = _heard(process, end, most)
        code = process.wait(max(end - monotonic(), 0.01))
    except (TimeoutError, subprocess.TimeoutExpired) as problem:
        raise DeadlineError(f"{where}: {words[0]} was not done in time, and was killed with all it had started") from problem
    finally:
        _end(process)
    return Ran(code, out, err)


def _heard(process: subprocess.Popen[bytes], end: float, most: int) -> tuple[str, str]:
    """What it printed on stdout and stderr until it closed both, at most so much of each."""
    said: dict[IO[bytes], bytearray] = {pipe: bytearray() for pipe in (process.stdout, process.stderr) if pipe is not None}
    with selectors.DefaultSelector() as pipes:
        for pipe in said:
            pipes.register(pipe, selectors.EVENT_READ)
        while pipes.get_map():
            ready = pipes.select(max(end - monotonic(), 0))
            if not ready and monotonic() >= end:
                raise TimeoutError
            for key, _ in ready:
                part = os.read(key.fd, 2**14)
                said[key.fileobj] += part[: most - len(said[key.fileobj])]  # type: ignore[index]  # what was registered: one of our pipes
                if not part:
                    pipes.unregister(key.fileobj)
    out, err = (bytes(text).decode("utf-8", "replace") for text in said.values())
    return out, err


def _end(process: subprocess.Popen[bytes]) -> None:
    """Nothing that it started outlives the call."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
