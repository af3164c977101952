"""Delta Lake tables in a folder: the newest version, or one of the past: `delta:lake/predictions`, `delta:lake/predictions?version=7`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from agent import Json, Locator, Swap, adapter
from agent.errors import AnswerError, ConfigError, DataError, PluginError
from agent.targets import _shapes
from agent.targets._duck import OFFLINE, CountingDuck
from agent.targets._sql import path_of
from agent.targets._tables import Rows

NAME = "delta"


@adapter(role="table", schemes=("delta",))
class Delta(Rows):
    """The rows of one version. A window asked for later sees versions committed since, unless the URL names one."""

    def __init__(self, at: Locator) -> None:
        path, _, query = path_of(at).partition("?")
        place = f"delta:{path}" + (f"?{query}" if query else "")
        self._delta = DeltaSource(place, Path(at.folder) / path, _version(at, query))
        super().__init__(self._delta, at.options)

    def origin(self) -> Json:
        """The version that is read."""
        return {"delta": self._delta.version()}


def _version(at: Locator, query: str) -> int | None:
    asked = {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}
    version = asked.pop("version", None)
    if asked:
        raise ConfigError(f"{at.service}.{at.role}: the URL has no option {', '.join(sorted(asked))}; there is version")
    if version is not None and not (version.isascii() and version.isdigit()):
        raise ConfigError(f"{at.service}.{at.role}: version={version} is no version of a Delta table; they are 0, 1, 2 ...")
    return None if version is None else int(version)


class DeltaSource(CountingDuck):
    """The files that the table's log names for a version, as DuckDB reads them; columns that came later are null in older files."""

    def __init__(self, place: str, path: Path, version: int | None) -> None:
        super().__init__(place, _memory, self._looked)
        self._path, self._version = path, version
        self._rows: Any = None

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        try:
            with super()._reading() as cursor:
                if self._rows is not None:
                    cursor.register(NAME, self._rows)
                yield cursor
        except OSError as problem:
            raise DataError(f"{self.place} cannot be read: {problem}; were files of this version vacuumed?") from problem

    def _looked(self, cursor: Any) -> str:
        self._rows = self._dataset()
        cursor.register(NAME, self._rows)
        return NAME

    def version(self) -> int:
        """The version of the URL, or the newest."""
        with _table(self.place, self._path, self._version) as table:
            return int(table.version())

    def _dataset(self) -> Any:
        with _table(self.place, self._path, self._version) as table:
            return table.to_pyarrow_dataset()


@contextmanager
def _table(place: str, path: Path, version: int | None = None) -> Iterator[Any]:
    """The table at a version, or the newest; what goes wrong with it meanwhile is a DataError."""
    try:
        deltalake = import_module("deltalake")
    except ImportError as problem:
        raise PluginError(f"{place} needs deltalake, which is not installed: pip install 'watchkeeper[delta]'") from problem
    if not (path / "_delta_log").is_dir():
        raise DataError(f"{place}: there is no Delta table in {path} (no folder _delta_log in it); check the url")
    try:
        yield deltalake.DeltaTable(str(path), version=version)
    except (deltalake.exceptions.DeltaError, ValueError, OSError, KeyError) as problem:
        raise DataError(f"{place} cannot be read: {str(problem)[:300]}") from problem


@adapter(role="data", schemes=("delta",))
class DeltaVersions:
    """The versions of a Delta table as something that can be pointed at: RESTORE makes the newest version hold what an earlier one did.

    A restored version counts as the one it was restored to. Rows that were written after that one leave the table, and stay in its history. The table
    is read again right before, which narrows the gap for somebody else's commit and does not close it.
    """

    can: frozenset[str] = frozenset()

    def __init__(self, at: Locator) -> None:
        _shapes.options(at, ())
        path, _, query = path_of(at).partition("?")
        if query:
            raise ConfigError(f"{at.service}.{at.role}: the newest version is what is moved; leave ?{query} out")
        self.place, self._path = f"delta:{path}", Path(at.folder) / path

    def versions(self) -> Sequence[str]:
        """Every version that its log still tells of and that is not another one restored, oldest first."""
        return [str(version) for version, of in sorted(self._history().items()) if version == of]

    @property
    def point(self) -> Swap:
        """Restores `{"to": version}`, if the table still holds what the plan saw."""
        return Swap(self._version, self._restore)

    def seen(self, table: Locator, version: str) -> Locator | None:
        """The same table at that version; None for another one, and for one that names its version already."""
        path, _, query = path_of(table).partition("?")
        same = (Path(table.folder) / path).resolve() == self._path.resolve()
        return replace(table, url=f"delta:{path}?version={version}") if table.scheme == "delta" and same and not query else None

    def _history(self) -> dict[int, int]:
        """Version -> the version whose rows it holds."""
        with _table(self.place, self._path) as table:
            commits = sorted(table.history(), key=lambda commit: int(commit["version"]))
        holds: dict[int, int] = {}
        for commit in commits:
            number, restored = int(commit["version"]), (commit.get("operationParameters") or {}).get("version")
            holds[number] = holds.get(int(restored), int(restored)) if commit.get("operation") == "RESTORE" and restored is not None else number
        return holds

    def _version(self) -> str:
        holds = self._history()
        if not holds:
            raise AnswerError(f"{self.place}: the log tells of no version")
        return str(holds[max(holds)])

    def _restore(self, to: Json, expected: Json) -> None:
        if (now := self._version()) != expected:
            raise _shapes.moved(self.place, expected, f"it holds version {now}")
        with _table(self.place, self._path) as table:
            table.restore(int(to))


def _memory() -> Any:
    import duckdb

    return duckdb.connect(config=OFFLINE)
