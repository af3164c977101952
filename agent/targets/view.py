"""Data that a service reads through a view of a SQLite file, made again over another table: `view:features.db?view=features`."""

from __future__ import annotations

import fnmatch
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs

from agent import Json, Locator, Swap, adapter
from agent.errors import AnswerError, ConfigError, DataError
from agent.targets import _shapes
from agent.targets._names import natural
from agent.targets._sql import path_of, quoted

PLAIN = re.compile(r"CREATE\s+VIEW\s+.+?\s+AS\s+SELECT\s+\*\s+FROM\s+(?:\"((?:[^\"]|\"\")+)\"|\[([^\]]+)\]|`([^`]+)`|(\w+))\s*;?\s*$", re.I | re.S)


@adapter(role="data", schemes=("view",))
class View:
    """`view:FILE?view=NAME`, a view that is `SELECT * FROM` one table; `among` (a pattern such as "features_*") are the tables that it could be of.

    The view is dropped and made again in one transaction, in which it is compared before: no reader sees it missing.
    """

    can: frozenset[str] = frozenset()

    def __init__(self, at: Locator) -> None:
        path, _, query = path_of(at).partition("?")
        name, among = parse_qs(query).get("view", [""])[0], _shapes.options(at, ("among",)).get("among")
        if not name or not isinstance(among, str):
            raise ConfigError(
                f"{at.service}.{at.role}: write view:FILE?view=NAME, and `among`: a pattern of the tables it could be of, such as features_*"
            )
        self._path, self._name, self._among, self.place = Path(at.folder, path), name, among, f"view:{path}?view={name}"

    def versions(self) -> Sequence[str]:
        """The tables that it could be of, oldest first: in the order of their names, numbers in them by value."""
        with self._open() as con:
            return self._tables(con)

    @property
    def point(self) -> Swap:
        """Makes it a view of `{"to": table}`, if it still is of the one that the plan saw."""
        return Swap(self._version, self._move)

    def seen(self, table: Locator, version: str) -> Locator | None:
        """The table of that version in the place of the view; None when another file, or another table of it, is looked at."""
        path, _, query = path_of(table).partition("?")
        same = Path(table.folder, path).resolve() == self._path.resolve()
        if table.scheme != "sqlite" or not same or parse_qs(query).get("table", [""])[0] != self._name:
            return None
        return replace(table, url=f"sqlite:{path}?table={version}")

    def _tables(self, con: sqlite3.Connection) -> list[str]:
        names = (name for (name,) in con.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"))
        return sorted((name for name in names if fnmatch.fnmatchcase(name, self._among)), key=natural)

    def _version(self) -> str:
        with self._open() as con:
            return self._of(con)

    def _of(self, con: sqlite3.Connection) -> str:
        row = con.execute("SELECT sql FROM sqlite_master WHERE type = 'view' AND name = ?", [self._name]).fetchone()
        if row is None:
            raise DataError(f"{self.place}: there is no view {self._name}; let the service read its data through one")
        found = PLAIN.match(str(row[0]))
        if found is None:
            raise AnswerError(f"{self.place}: the view is more than one whole table ({row[0]!r:.120}), and is not made again")
        return next(name for name in found.groups() if name is not None).replace('""', '"')

    def _move(self, to: Json, expected: Json) -> None:
        with self._open(writing=True) as con:
            if (now := self._of(con)) != expected:
                raise _shapes.moved(self.place, expected, f"it is of {now}")
            if str(to) not in self._tables(con):
                raise DataError(f"{self.place}: there is no table {to} among {self._among}; it was left as it is, of {now}")
            con.execute(f"DROP VIEW {quoted(self._name)}")
            con.execute(f"CREATE VIEW {quoted(self._name)} AS SELECT * FROM {quoted(str(to))}")  # noqa: S608 - names, quoted

    @contextmanager
    def _open(self, writing: bool = False) -> Iterator[sqlite3.Connection]:
        if not self._path.is_file():
            raise DataError(f"{self.place}: there is no file {self._path}; check the url")
        try:
            with closing(self._connection("rw" if writing else "ro")) as con:
                con.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
                yield con
                con.execute("COMMIT")
        except sqlite3.Error as problem:
            raise DataError(f"{self.place} cannot be {'changed' if writing else 'read'}: {problem} ({self._path})") from problem

    def _connection(self, mode: str) -> sqlite3.Connection:
        return sqlite3.connect(f"{self._path.resolve().as_uri()}?mode={mode}", uri=True, timeout=5, isolation_level=None, check_same_thread=False)
