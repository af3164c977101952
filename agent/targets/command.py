"""A router that a team's own commands read and move: `kubectl`, a cloud's command line, a script."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent import Json, Locator, Swap, adapter
from agent.errors import AnswerError, CannotError, ConfigError, ServerError
from agent.targets import _programs, _shapes, _shares
from agent.wire import remaining

OPTIONS = ("read", "write", "env", "inherit")


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
        self._read, self._write = (_programs.words(given.get(option), f"{self._where}.{option}") for option in ("read", "write"))
        if not any("{to}" in word for word in self._write):
            raise ConfigError(f"{self._where}.write: no word says {{to}}, so nothing would tell the command where to")
        self._compares = any("{expected}" in word for word in self._write)
        self._env = _programs.environment(given.get("inherit", []), given.get("env", {}), self._where)

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
        ran = _programs.run(words, self._folder, self._env, self._at.within.total_seconds() if left is None else left, self._where)
        if ran.code == _programs.MOVED and words is not self._read:
            raise _shapes.moved(words[0], expected, ran.err or ran.out)
        if ran.code:
            raise ServerError(f"{self._where}: {words[0]} ended with exit status {ran.code}: {ran.told}", 500)
        return ran.out


def _said(aim: Json) -> str:
    if str(aim).startswith("-"):
        raise CannotError(f"version {aim!r:.80} would be taken for an option of the command")
    return json.dumps(aim) if isinstance(aim, Mapping) else str(aim)


def _filled(word: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(name, value)
    return word
