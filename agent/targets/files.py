"""Tables in local files, one or many: `parquet:logs/*.parquet`, `csv:predictions.csv`, `jsonl:events/*.jsonl`."""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent import Json, Locator, adapter
from agent.errors import DataError
from agent.targets._duck import OFFLINE, CountingDuck, DuckSource
from agent.targets._sql import path_of
from agent.targets._tables import Rows

KEPT = ("BIGINT", "DOUBLE", "BOOLEAN", "VARCHAR")  # types that Parquet gives back as they were, alone or in lists
MOST = 2**32  # bytes of files that are read once more to say which they were
READERS = {"parquet": "read_parquet", "csv": "read_csv", "jsonl": "read_json"}


@adapter(role="table", schemes=("parquet", "csv", "jsonl"))
class Files(Rows):
    """All rows of the files a pattern matches now, in the order of their names; columns are matched by name."""

    def __init__(self, at: Locator) -> None:
        pattern = path_of(at)
        place = f"{at.scheme}:{pattern}"

        def relation(con: Any) -> str:
            return _reader(at.scheme, found(Path(at.folder) / pattern, place, at.scheme), at.options)

        self._files, self._form = Path(at.folder) / pattern, at.scheme
        self._text = at.scheme != "parquet"
        self._duck = (DuckSource if self._text else CountingDuck)(place, _memory, relation)
        super().__init__(self._duck, at.options)

    def pressed(self, folder: Path, name: str) -> str | None:
        """Write the same rows to Parquet in a folder, where a window costs what it holds, and give its URL: text is parsed whole for every look.

        None where they are Parquet already, or hold what Parquet would give back as something else.
        """
        kinds = self._duck.types() if self._text else ["?"]
        if any(kind.removesuffix("[]") not in KEPT for kind in kinds):
            return None
        self._duck.copy(f"{_text(str(folder / name))} (FORMAT parquet, ROW_GROUP_SIZE 20000)")
        return f"parquet:{name}"

    def origin(self) -> Json:
        """The sha256 of each file, and the revision that DVC has for it where it keeps one; None where they are too many bytes to read again."""
        names = found(self._files, self._duck.place, self._form)
        if sum(Path(name).stat().st_size for name in names) > MOST:
            return None
        return {"files": {name: {"sha256": _digest(name), **_revision(Path(f"{name}.dvc"))} for name in names}}


def _digest(name: str) -> str:
    with Path(name).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _revision(beside: Path) -> Mapping[str, str]:
    """What DVC calls this state of the file, from the small file that it keeps beside it."""
    said = re.search(r"^\s*-?\s*md5:\s*([0-9a-f]{32}(?:\.dir)?)\s*$", beside.read_text("utf-8", "replace"), re.M) if beside.is_file() else None
    return {"dvc": said[1]} if said else {}


def _memory() -> Any:
    import duckdb

    return duckdb.connect(":memory:files", config=OFFLINE)  # one engine a process, however many tables: another costs 17 MB


def found(pattern: Path, place: str, scheme: str) -> list[str]:
    """The files of a pattern, in order; DataError where there is none or one of them is empty."""
    if pattern.is_dir():
        pattern = pattern / f"*.{scheme}"
    files = sorted(glob.glob(str(pattern), recursive=True)) or ([str(pattern)] if pattern.is_file() else [])  # noqa: PTH207
    if not files:
        raise DataError(f"{place} matches no file (looked for {pattern}); check the path, which starts at the configuration's folder")
    for name in files:
        if not Path(name).stat().st_size:
            raise DataError(f"{place}: {name} is empty (0 bytes); its writer has not finished, or died")
    return files


def _reader(scheme: str, files: list[str], options: Mapping[str, Json]) -> str:
    names = "[" + ", ".join(_text(name) for name in files) + "]"
    if scheme == "parquet":
        return f"read_parquet({names}, union_by_name = true)"
    if scheme == "jsonl":
        return f"read_json({names}, format = 'newline_delimited', union_by_name = true, sample_size = -1, date_format = '-', timestamp_format = '-')"
    return (
        f"read_csv({names}, union_by_name = true, sample_size = -1, types = {{{_types(files, options)}}}, "
        "auto_type_candidates = ['BIGINT', 'DOUBLE', 'BOOLEAN', 'VARCHAR'])"
    )


def _types(files: list[str], options: Mapping[str, Json]) -> str:
    """Names are text even when they look like numbers: version 1 stays 1, id 007 stays 007. Times are read by us, not guessed."""
    declared = [options.get(what) for what in ("id", "entity", "version", "key")]
    if options.get("time", {}).get("unit", "iso") == "iso":
        declared.append(options.get("time", {}).get("column"))
    with Path(files[0]).open(encoding="utf-8", errors="replace") as first:
        header = first.readline()
    return ", ".join(f"{_text(name)}: 'VARCHAR'" for name in declared if isinstance(name, str) and name in header)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
