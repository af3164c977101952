"""A router that a team's own commands read and move: `kubectl`, a cloud's command line, a script."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import IO

from agent import Json, Locator, Swap, adapter
from agent.errors import AnswerError, CannotError, ConfigError, DeadlineError, ServerError, UnreachableError
from agent.targets import _shapes, _shares
from agent.wire import remaining

OPTIONS = ("read", "write", "env", "inherit")
ALWAYS = ("PATH", "HOME", "LANG", "TZ")  # of our environment; everything else may hold a secret that is none of the command's business
MOVED = 75  # the exit status that says: it is no longer at {expected}
MOST = 64 * 2**10  # bytes of what a command says


@adapter(role="router", schemes=("command",))
class Command:
    """`command:FOLDER`, where the commands are run: `.` is the folder of the configuration.

    `read`: a command that prints the version with the traffic, or {version: share} as JSON. `write`: one with {to} in it, and {expected}: it
    must exit with 75 when the traffic is no longer there. Both are lists of words; no shell is asked. `env`: {NAME: value} for them; `inherit`:
    names of our own environment that they see beside PATH, HOME, LANG and TZ. Without {expected} it is read again right before the write.
    """

    can: frozenset[str] = frozenset({"switch"})

    def __init__(self, at: Locator) -> None:
        self._at, self._where, given = at, f"{at.service}.{at.role}", _shapes.options(at, OPTIONS)
        if at.look is not None or at.act is not None:
            raise ConfigError(f"{self._where}: a command takes no credential; give it what it needs by `env:` or `inherit:`")
        self._folder = Path(at.folder, at.address or ".")
        self._read, self._write = self._words(given, "read"), self._words(given, "write")
        if not any("{to}" in word for word in self._write):
            raise ConfigError(f"{self._where}.write: no word says {{to}}, so nothing would tell the command where to")
        self._compares = any("{expected}" in word for word in self._write)
        self._env = self._environment(given)

    def served(self) -> Mapping[str, float]:
        """The shares that `read` prints, or all for the version that it prints."""
        shares = _shares.asked(self._aim())
        total = sum(shares.values())
        return {version: share / total for version, share in shares.items() if share}

    @property
    def point(self) -> Swap:
        """Runs `write` for `{"to": version}`, and is done when `read` says so; the command's own success is not believed."""
        return Swap(self._aim, self._move, same=_shares.same)

    def close(self) -> None:
        """Nothing is kept open."""

    def _aim(self) -> Json:
        said = self._run(self._read).strip()
        try:
            body = json.loads(said) if said.startswith("{") else said
            if isinstance(body, str):
                return self._version(body)
            weights = {str(version): float(share) for version, share in body.items()}
            if not sum(weights.values()) > 0 or min(weights.values()) < 0:
                raise ValueError("shares must be 0 or more, and one above 0")
            return _shares.aim(weights)
        except (ValueError, TypeError) as problem:
            raise AnswerError(
                f"{self._where}.read: {self._read[0]} printed {said[:200]!r}, which is neither a version nor shares ({problem})"
            ) from problem

    def _version(self, said: str) -> str:
        if not said or len(said.split()) != 1:
            raise ValueError("a version is one word")
        return said

    def _move(self, to: Json, expected: Json) -> None:
        if not self._compares and not _shares.same(found := self._aim(), expected):
            raise _shapes.moved(self._read[0], expected, f"it points at {found}")
        values = {"{to}": _said(to), "{expected}": _said(expected)}
        self._run([_filled(word, values) for word in self._write], expected)

    def _run(self, words: Sequence[str], expected: Json = None) -> str:
        left = remaining()
        end = monotonic() + (self._at.within.total_seconds() if left is None else left)
        try:
            process = subprocess.Popen(  # noqa: S603 - what the configuration names
                words,
                cwd=self._folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as problem:
            raise UnreachableError(f"{self._where}: {words[0]} cannot be run in {self._folder} ({problem.strerror})") from problem
        try:
            out, err = _heard(process, end)
            code = process.wait(max(end - monotonic(), 0.01))
        except (TimeoutError, subprocess.TimeoutExpired) as problem:
            raise DeadlineError(f"{self._where}: {words[0]} was not done in time, and was killed with all it had started") from problem
        finally:
            _end(process)
        if code == MOVED and words is not self._read:
            raise _shapes.moved(words[0], expected, err or out)
        if code:
            raise ServerError(f"{self._where}: {words[0]} ended with exit status {code}: {(err or out).strip()[-500:]}", 500)
        return out

    def _words(self, given: Mapping[str, Json], option: str) -> list[str]:
        words = given.get(option)
        if not isinstance(words, list) or not words or not all(isinstance(word, (str, int)) for word in words):
            raise ConfigError(f"{self._where}.{option}: write the command as a list of words, such as [./route.sh, read]; no shell is asked")
        return [str(word) for word in words]

    def _environment(self, given: Mapping[str, Json]) -> dict[str, str]:
        names, extra = given.get("inherit", []), given.get("env", {})
        if not isinstance(names, list) or not isinstance(extra, Mapping):
            raise ConfigError(f"{self._where}: write `inherit: [NAME]` and `env: {{NAME: value}}`")
        inherited = {name: os.environ[name] for name in (*ALWAYS, *map(str, names)) if name in os.environ}
        return {**inherited, **{str(name): str(value) for name, value in extra.items()}}


def _said(aim: Json) -> str:
    if str(aim).startswith("-"):
        raise CannotError(f"version {aim!r:.80} would be taken for an option of the command")
    return json.dumps(aim) if isinstance(aim, Mapping) else str(aim)


def _filled(word: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(name, value)
    return word


def _heard(process: subprocess.Popen[bytes], end: float) -> tuple[str, str]:
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
                said[key.fileobj] += part[: MOST - len(said[key.fileobj])]  # type: ignore[index]  # what was registered: one of our pipes
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
