"""What other tools leave as files: `json:reports/drift-*.json`, and whylogs' profiles, `whylogs:profiles/*.bin`; the newest counts."""

from __future__ import annotations

import glob
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from agent import UTC, Document, Json, Locator, adapter
from agent.errors import ConfigError, DataError
from agent.targets import _shapes, _whylogs
from agent.targets._sql import path_of

MOST = 8 * 2**20  # bytes of one report: what is larger holds the data itself
MOST_SKETCHED = 64 * 2**20  # of one profile, which holds up to 30 kB a column whatever the rows


@adapter(role="report", schemes=("json",))
class JsonReports:
    """`json:reports/drift-*.json`, relative to the configuration: the newest file by the time it was last written."""

    def __init__(self, at: Locator) -> None:
        _shapes.options(at, ())
        self._files = _Files(at)

    def newest(self) -> Document | None:
        """The newest file as JSON, NaN and the infinities included; None when no file is there. DataError for one that cannot be read whole."""
        found = self._files.newest()
        return self._files.read(found, json.loads, "JSON", MOST) if found else None

    def close(self) -> None:
        """Nothing is kept open."""


@adapter(role="report", schemes=("whylogs",), heavy=True)
class Profiles:
    """`whylogs:profiles/*.bin` with `reference: profiles/training.bin`: the newest profile and the one it is held against, read without whylogs."""

    def __init__(self, at: Locator) -> None:
        reference = _shapes.options(at, ("reference",)).get("reference")
        if not isinstance(reference, str) or not reference:
            raise ConfigError(f"{at.service}.{at.role}.reference: names the profile to compare with, such as profiles/training.bin")
        self._files, self._reference = _Files(at), Path(at.folder) / reference

    def newest(self) -> Document | None:
        """{profile, reference, name} of the newest file but the reference itself; None when there is none. DataError where either is not whole."""
        found = self._files.newest(but=self._reference)
        if found is None:
            return None
        if not self._reference.is_file():
            raise DataError(f"{self._files.place}: there is no reference profile {self._reference.name}; write one, or mend `reference:`")
        now, then = (self._files.read(path, _whylogs.profile, "whylogs profile", MOST_SKETCHED) for path in (found, self._reference))
        return Document(now.name, {"profile": now.body, "reference": then.body, "name": then.name}, now.written_at)

    def close(self) -> None:
        """Nothing is kept open."""


class _Files:
    """The files of a pattern, of which one is read whole."""

    def __init__(self, at: Locator) -> None:
        self._pattern = str(Path(at.folder) / path_of(at))
        self.place = f"{at.scheme}:{path_of(at)}"

    def newest(self, but: Path | None = None) -> Path | None:
        try:
            found = [(path.stat().st_mtime, path) for path in map(Path, glob.glob(self._pattern, recursive=True)) if path.is_file()]  # noqa: PTH207
        except OSError as problem:
            raise self._unreadable(problem) from problem
        return max((one for one in found if not but or not but.exists() or not one[1].samefile(but)), default=(0, None))[1]

    def read(self, path: Path, parse: Callable[[bytes], Json], what: str, most: int) -> Document:
        try:
            with path.open("rb") as file:
                written, body = path.stat().st_mtime, file.read(most + 1)
        except OSError as problem:
            raise self._unreadable(problem) from problem
        if len(body) > most:
            raise DataError(f"{self.place}: {path.name} is larger than {most:,} bytes; export the results without the raw data")
        try:
            return Document(path.name, parse(body), datetime.fromtimestamp(written, UTC))
        except (ValueError, RecursionError, DataError) as problem:
            said = f"{path.name} is no {what}, or only a part of it: {str(problem)[:200]}"
            raise DataError(f"{self.place}: {said}; write to another name and rename when it is whole") from problem

    def _unreadable(self, problem: OSError) -> DataError:
        return DataError(f"{self.place} cannot be read: {problem.strerror or problem} ({problem.filename})")
