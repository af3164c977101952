"""Data that a service reads through a symbolic link, moved in one step: `link:features/current`."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agent import Json, Locator, Swap, adapter
from agent.errors import ConfigError, DataError
from agent.targets import _shapes
from agent.targets._names import natural
from agent.targets._sql import path_of


@adapter(role="data", schemes=("link",))
class Link:
    """`link:PATH`, a symbolic link to a folder or a file. What it could point at lies beside what it points at: folders for a folder, files of the
    same suffix for a file, or what `among` (a pattern such as "features-*") matches. Oldest first is the order of names, numbers in them by value.

    A link has no compare-and-set: it is read again right before it is moved, which narrows the gap for somebody else's change and does not close it.
    """

    can: frozenset[str] = frozenset()

    def __init__(self, at: Locator) -> None:
        given = _shapes.options(at, ("among",))
        self._among = given.get("among")
        if self._among is not None and (not isinstance(self._among, str) or "/" in self._among):
            raise ConfigError(f"{at.service}.{at.role}.among: write a pattern of names, such as features-*, not {self._among!r:.80}")
        self._path, self.place = Path(os.path.normpath(Path(at.folder, path_of(at)))), f"link:{path_of(at)}"

    def versions(self) -> Sequence[str]:
        """The names of what it could point at, oldest first."""
        home = self._target().parent
        try:
            return sorted((path.name for path in home.iterdir() if self._fits(path)), key=natural)
        except OSError as problem:
            raise DataError(f"{self.place} points into {home}, which cannot be listed: {problem.strerror}") from problem

    @property
    def point(self) -> Swap:
        """Points at `{"to": name}`, if it still points where the plan saw it."""
        return Swap(self._version, self._move)

    def seen(self, table: Locator, version: str) -> Locator | None:
        """The same table, were the link to point at that version; None when it does not lie behind the link."""
        path, mark, query = path_of(table).partition("?")
        whole = Path(os.path.normpath(Path(table.folder, path)))
        if not whole.is_relative_to(self._path):
            return None
        there = self._target().with_name(version) / whole.relative_to(self._path)
        return replace(table, url=f"{table.scheme}:{there}{mark}{query}")

    def _fits(self, path: Path) -> bool:
        now = self._target()
        if path.name.startswith(".") or path == self._path or path.is_symlink():
            return False
        if self._among is not None:
            return fnmatch.fnmatchcase(path.name, self._among)
        return path.is_dir() if now.is_dir() else path.is_file() and path.suffix == now.suffix

    def _target(self) -> Path:
        """What it points at, as an absolute path that is not followed further."""
        try:
            return Path(os.path.normpath(self._path.parent / self._path.readlink()))
        except OSError as problem:
            raise DataError(
                f"{self.place}: {self._path} is no symbolic link ({problem.strerror}); let the service read its data through one"
            ) from problem

    def _version(self) -> str:
        return self._target().name

    def _move(self, to: Json, expected: Json) -> None:
        if (found := self._version()) != expected:
            raise _shapes.moved(self.place, expected, f"it points at {found}")
        there = self._path.readlink().with_name(str(to))
        if str(to) not in self.versions():
            raise DataError(f"{self.place}: there is no {to} to point at; it was left at {found}")
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            beside.unlink(missing_ok=True)
            beside.symlink_to(there)
            beside.replace(self._path)
        except OSError as problem:
            beside.unlink(missing_ok=True)
            raise DataError(
                f"{self.place} cannot be moved: {problem.strerror}; give the agent's user the right to write {self._path.parent}"
            ) from problem
