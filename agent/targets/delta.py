"""Delta Lake tables in a folder: the newest version, or one of the past: `delta:lake/predictions`, `delta:lake/predictions?version=7`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from agent import Locator, adapter
from agent.errors import ConfigError, DataError, PluginError
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
        super().__init__(DeltaSource(place, Path(at.folder) / path, _version(at, query)), at.options)


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

    def _dataset(self) -> Any:
        try:
            deltalake = import_module("deltalake")
        except ImportError as problem:
            raise PluginError(f"{self.place} needs deltalake, which is not installed: pip install 'watchkeeper[delta]'") from problem
        if not (self._path / "_delta_log").is_dir():
            raise DataError(f"{self.place}: there is no Delta table in {self._path} (no folder _delta_log in it); check the url")
        try:
            return deltalake.DeltaTable(str(self._path), version=self._version).to_pyarrow_dataset()
        except (deltalake.exceptions.DeltaError, ValueError, OSError, KeyError) as problem:
            raise DataError(f"{self.place} cannot be read: {str(problem)[:300]}") from problem


def _memory() -> Any:
    import duckdb

    return duckdb.connect(config=OFFLINE)
