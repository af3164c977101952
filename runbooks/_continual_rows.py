"""The rows that a trainer learns: read from pinned Parquet files, as tensors, with a part held out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from agent.errors import TrainingError
from runbooks._continual_settings import Settings


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows side by side: features as float32, the place of each label among the classes, and where they are known its task and its time (µs)."""

    x: Any
    y: Any
    task: Any = None
    at: Any = None

    def __len__(self) -> int:
        return len(self.y)

    def at_places(self, places: Any) -> Rows:
        return self._each(lambda column: column[places])

    def to(self, device: Any) -> Rows:
        return self._each(lambda column: column.to(device))

    def _each(self, change: Any) -> Rows:
        return Rows(*(None if (column := getattr(self, one.name)) is None else change(column) for one in fields(self)))


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of several tables, one after the other."""
    columns = [[getattr(part, one.name) for part in parts] for one in fields(Rows)]
    return Rows(*(None if any(column is None for column in each) else torch.cat(each) for each in columns))


def chance(seed: int, *place: object) -> torch.Generator:
    """Random numbers of a place's own, such as (task, round, epoch): whoever comes back to the place draws the same ones."""
    word = hashlib.sha256(repr((seed, *place)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(word[:8], "little") >> 1)


def split(rows: Rows, share: float, random: torch.Generator) -> tuple[Rows, Rows]:
    """What is learned and what is held out; of two rows and more at least one stays on each side that is wanted."""
    order = torch.randperm(len(rows), generator=random)
    held = min(max(round(share * len(rows)), 1), len(rows) - 1) if share and len(rows) > 1 else 0
    return rows.at_places(order[held:].sort().values), rows.at_places(order[:held].sort().values)


def by_task(rows: Rows) -> dict[int, Rows]:
    """The rows of each task, in the order in which the tasks first come; all of them as task 0 where none is told."""
    if rows.task is None:
        return {0: rows}
    return {task: rows.at_places(rows.task == task) for task in dict.fromkeys(rows.task.tolist())}


# From a file


def table(name: str, path: Path, sha256: str | None) -> Any:
    """The Arrow table of a file. TrainingError where it is not what was pinned, or no Parquet; what was hashed is what is read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as stream:
            if sha256 is not None and (digest := hashlib.file_digest(stream, "sha256").hexdigest()) != sha256:
                raise TrainingError(f"{name}: {path} is not the data that was pinned: its sha256 is {digest[:12]}…, not {sha256[:12]}…")
            stream.seek(0)
            return pq.read_table(stream)
    except (OSError, pa.ArrowException) as problem:
        raise TrainingError(f"{name}: {path} cannot be read as Parquet ({str(problem)[:200]}); pin it again") from problem


def features(tables: Mapping[str, Any], asked: Settings) -> tuple[str, ...]:
    """The columns the net takes, in their order: those that are named, else all of `train` that have no other part."""
    others = (asked.label, asked.task, asked.time)
    return asked.features or tuple(name for name in tables["train"].column_names if name not in others)


def classes(tables: Mapping[str, Any], asked: Settings, known: Sequence[str]) -> tuple[str, ...]:
    """What the net's outputs are of: those that are named, else those the champion knows and then new ones in order, numbers before words."""
    import pyarrow.compute as pc

    if asked.classes:
        return asked.classes
    seen = {word for name, rows in tables.items() for word in pc.unique(_labels(name, rows, asked.label)).to_pylist() if word is not None}
    found = (*known, *sorted(seen - set(known), key=lambda word: (not _number(word), float(word) if _number(word) else 0.0, word)))
    if len(found) < 2:
        raise TrainingError(f"every row is labelled {found[0]!r}: with one class there is nothing to tell apart" if found else "no row has a label")
    return found


def rows(name: str, found: Any, asked: Settings, takes: Sequence[str], known: Sequence[str]) -> Rows:
    """A table as tensors; rows without a label are left out. TrainingError names what is missing, no number, or no class."""
    import numpy as np

    labels = _labels(name, found, asked.label)
    there = labels.is_valid()
    found, labels = found.filter(there), labels.filter(there)
    if not len(labels):
        raise TrainingError(f"{name} has no {'labelled ' if len(there) else ''}row; nothing can be learned from it")
    places = {word: place for place, word in enumerate(known)}
    spelled = labels.to_pylist()
    if strange := sorted(set(spelled) - set(places)):
        raise TrainingError(f"{name}: label {strange[0]!r} is none of the classes {', '.join(known)}")
    x = np.stack([_numbers(name, column, _column(name, found, column)) for column in takes], axis=1)
    y = np.array([places[word] for word in spelled], dtype=np.int64)
    return Rows(torch.from_numpy(x), torch.from_numpy(y), _whole(name, found, asked.task), _times(name, found, asked.time))


def _column(name: str, found: Any, column: str) -> Any:
    if column not in found.column_names:
        raise TrainingError(f"{name}: there is no column '{column}'; there is {', '.join(found.column_names[:12])}")
    return found[column].combine_chunks()


def _labels(name: str, found: Any, label: str) -> Any:
    """The labels as text; 3, 3.0 and "3" are one class."""
    import pyarrow as pa

    column = _column(name, found, label)
    try:
        return column.cast(pa.string())
    except pa.ArrowException as problem:
        raise TrainingError(f"{name}: '{label}' is {column.type}, which is no label") from problem


def _numbers(name: str, column: str, values: Any) -> Any:
    import numpy as np
    import pyarrow as pa

    try:
        found = values.cast(pa.float64()).to_numpy(zero_copy_only=False) if not pa.types.is_string(values.type) else None
    except pa.ArrowException:
        found = None
    if found is None:
        raise TrainingError(f"{name}: '{column}' is {values.type}, and the net takes numbers; encode it in the table, or name the `features`")
    if odd := int((~np.isfinite(found)).sum()):
        raise TrainingError(f"{name}: '{column}' is no number in {odd:,} of {len(found):,} rows; fill them in, or leave them out, before learning")
    return found.astype(np.float32)


def _whole(name: str, found: Any, column: str | None) -> Any:
    import numpy as np

    if column is None:
        return None
    values = _numbers(name, column, _column(name, found, column))
    if (values != np.round(values)).any():
        raise TrainingError(f"{name}: '{column}' tells tasks apart, and must hold whole numbers")
    return torch.from_numpy(values.astype(np.int64))


def _times(name: str, found: Any, column: str | None) -> Any:
    import numpy as np
    import pyarrow as pa

    if column is None:
        return None
    values = _column(name, found, column)
    if not pa.types.is_timestamp(values.type) or values.null_count:
        raise TrainingError(f"{name}: '{column}' says when a row came about, and must be a timestamp in every row; it is {values.type}")
    moments = values.cast(pa.timestamp("us", values.type.tz), safe=False).cast(pa.int64())
    return torch.from_numpy(np.array(moments.to_numpy(zero_copy_only=False)))


def _number(word: str) -> bool:
    return word.removeprefix("-").replace(".", "", 1).isdigit()
