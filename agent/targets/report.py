"""Reports that other tools leave as JSON files: `json:reports/drift-*.json`, of which the newest counts."""

from __future__ import annotations

import glob
import json
from datetime import datetime
from pathlib import Path

from agent import UTC, Document, Locator, adapter
from agent.errors import DataError
from agent.targets import _shapes
from agent.targets._sql import path_of

MOST = 8 * 2**20  # bytes of one report: what is larger holds the data itself


@adapter(role="report", schemes=("json",))
class JsonReports:
    """`json:reports/drift-*.json`, relative to the configuration: the newest file by the time it was last written."""

    def __init__(self, at: Locator) -> None:
        _shapes.options(at, ())
        self._pattern = str(Path(at.folder) / path_of(at))
        self.place = f"json:{path_of(at)}"

    def newest(self) -> Document | None:
        """The newest file as JSON, NaN and the infinities included; None when no file is there. DataError for one that cannot be read whole."""
        try:
            found = [(path.stat().st_mtime, path) for path in map(Path, glob.glob(self._pattern, recursive=True)) if path.is_file()]  # noqa: PTH207
            return self._read(*max(found)) if found else None
        except OSError as problem:
            raise DataError(f"{self.place} cannot be read: {problem.strerror or problem} ({problem.filename})") from problem

    def _read(self, written: float, path: Path) -> Document:
        with path.open("rb") as file:
            body = file.read(MOST + 1)
        if len(body) > MOST:
            raise DataError(f"{self.place}: {path.name} is larger than {MOST:,} bytes; export the results without the raw data")
        try:
            return Document(path.name, json.loads(body), datetime.fromtimestamp(written, UTC))
        except (ValueError, RecursionError) as problem:
            said = f"{path.name} is no JSON, or only a part of it: {str(problem)[:120]}"
            raise DataError(f"{self.place}: {said}; write to another name and rename when it is whole") from problem

    def close(self) -> None:
        """Nothing is kept open."""
