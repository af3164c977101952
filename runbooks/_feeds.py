"""Pinned rows as what a graph takes: columns side by side for one input, a column each for several, rows of one length together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from agent import Json
from agent.errors import DataError

SIZE = 256  # rows of one run, where the graph takes any number
TYPES = {"float": "float32", "double": "float64", "string": "object"}  # the rest are called alike by ONNX and numpy


@dataclass(frozen=True, slots=True)
class Rows:
    """Columns by name, arrays of one length; a column of lists holds an array a row. `names` are those a graph takes side by side, in their order."""

    columns: Mapping[str, Any]
    names: tuple[str, ...]
    truth: Any | None
    n: int
    where: str


@dataclass(frozen=True, slots=True)
class Feed:
    """What one run is given, and which rows that is."""

    values: Mapping[str, Any]
    places: tuple[int, ...]


def read(pin: Mapping[str, Json], features: Sequence[str] = (), label: str | None = None) -> Rows:
    """The rows of a pinned parquet file. DataError where it is not what was pinned, has no rows, or lacks a column that is named."""
    import pyarrow.parquet

    path = Path(pin["path"])
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        table = pyarrow.parquet.read_table(path) if digest == pin["sha256"] else None
    except (OSError, pyarrow.ArrowException) as problem:
        raise DataError(f"{path} cannot be read as parquet ({str(problem)[:200]})") from problem
    if table is None:
        raise DataError(f"{path} is not what was pinned: its sha256 is {digest[:12]}…, not {pin['sha256'][:12]}…; pin the rows again")
    if not table.num_rows:
        raise DataError(f"{path} has no rows: there is nothing to calibrate with, and nothing to compare answers on")
    if missing := [name for name in (*features, *([label] if label else ())) if name not in table.column_names]:
        raise DataError(f"{path} has no column '{missing[0]}'; there is {', '.join(table.column_names)}")
    columns = {name: _column(path, name, table[name]) for name in table.column_names}
    truth = columns.pop(label) if label else None
    return Rows(columns, tuple(features) or tuple(columns), truth, table.num_rows, str(path))


def _column(path: Path, name: str, column: Any) -> Any:
    import numpy as np
    import pyarrow

    if not pyarrow.types.is_nested(column.type):
        return column.to_numpy()
    if column.null_count:
        raise DataError(f"{path}: '{name}' is missing in {column.null_count} rows, and a graph needs a list in each")
    try:
        rows = [np.asarray(value) for value in column.to_pylist()]
    except ValueError as problem:
        raise DataError(f"{path}: a row of '{name}' holds lists of several lengths, which no graph takes") from problem
    held = np.empty(len(rows), dtype=object)
    held[:] = rows
    return held


def feeds(inputs: Sequence[Any], rows: Rows, places: Sequence[int], most: int = SIZE, exactly: int | None = None) -> Iterator[Feed]:
    """These rows in runs of one shape and of at most so many, or of exactly so many where the graph takes no other number; the rest is left out.

    DataError: they do not fit.
    """
    step = exactly or most
    for alike in _alike(inputs, rows, places):
        for at in range(0, len(alike), step):
            if exactly is None or at + step <= len(alike):
                yield feed(inputs, rows, alike[at : at + step])


def batch(inputs: Sequence[Any], rows: Rows, places: Sequence[int], size: int) -> Feed:
    """So many rows of the middle shape, the same ones again where there are too few."""
    groups = sorted(_alike(inputs, rows, places), key=lambda alike: _shapes(inputs, rows, alike[0]))
    spread = [alike for alike in groups for _ in alike]
    middle = spread[len(spread) // 2]
    return feed(inputs, rows, [middle[n % len(middle)] for n in range(size)])


def _alike(inputs: Sequence[Any], rows: Rows, places: Sequence[int]) -> Sequence[list[int]]:
    found: dict[Any, list[int]] = {}
    for place in places:
        found.setdefault(_shapes(inputs, rows, place), []).append(place)
    return list(found.values())


def _shapes(inputs: Sequence[Any], rows: Rows, place: int) -> tuple[tuple[int, ...], ...]:
    return tuple(getattr(rows.columns[one.name][place], "shape", ()) for one in inputs if one.name in rows.columns)


def feed(inputs: Sequence[Any], rows: Rows, places: Sequence[int]) -> Feed:
    """What a run on these rows is given."""
    import numpy as np

    chosen = np.asarray(places, dtype=np.int64)
    if len(inputs) == 1 and inputs[0].name not in rows.columns:
        wanted = inputs[0]
        sides = [_cast(rows, wanted, name, rows.columns[name][chosen]) for name in rows.names]
        return Feed({wanted.name: _shaped(rows, wanted, np.stack(sides, axis=1))}, tuple(places))
    if lacking := [one.name for one in inputs if one.name not in rows.columns]:
        raise DataError(f"{rows.where}: the graph takes '{lacking[0]}', and the rows have no such column; there is {', '.join(rows.columns)}")
    return Feed({one.name: _shaped(rows, one, _cast(rows, one, one.name, rows.columns[one.name][chosen])) for one in inputs}, tuple(places))


def _cast(rows: Rows, wanted: Any, name: str, values: Any) -> Any:
    import numpy as np

    word = wanted.type.removeprefix("tensor(").removesuffix(")")
    kind = np.dtype(TYPES.get(word, word))
    if values.dtype.kind == "O" and len(values) and isinstance(values[0], np.ndarray):
        values = np.stack(list(values))
    if (values.dtype.kind in "OUSM") != (kind.kind == "O"):
        held = "text or times" if values.dtype.kind in "OUSM" else "numbers"
        raise DataError(f"{rows.where}: '{wanted.name}' takes {word}, and '{name}' holds {held}; name the columns it takes with `features`")
    if kind.kind in "iu" and values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataError(f"{rows.where}: '{wanted.name}' takes whole numbers, and '{name}' has rows without one")
    return values.astype(kind)


def _shaped(rows: Rows, wanted: Any, values: Any) -> Any:
    """The values under the axes that the graph declares; one of any length is what is left."""
    length, shape = len(values), wanted.shape
    sizes = [size if isinstance(size, int) and size > 0 else None for size in shape[1:]]
    if values.ndim == len(shape) and all(size in (None, real) for size, real in zip(sizes, values.shape[1:], strict=True)):
        return values
    width = values.size // max(length, 1)
    if sizes.count(None) == 1:
        sizes[sizes.index(None)] = width // max(1, prod(size for size in sizes if size))
    if None in sizes or prod(size or 0 for size in sizes) != width:
        raise DataError(f"{rows.where}: the graph takes {shape} for '{wanted.name}', and a row has {width} values; name its columns with `features`")
    return values.reshape(length, *(size or 0 for size in sizes))
