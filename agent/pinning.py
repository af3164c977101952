"""Rows that a model is trained on, written down once: a Parquet file a pin, named by its own sha256, and beside it what it was made from."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from agent.errors import DataError
from agent.model import Columns, Json, Kind, Window, to_json

MOST = 5_000_000  # rows of one pin
EXACT = 2**53  # whole numbers that a float still tells apart
PINNABLE: Mapping[Kind, str] = {
    "number": "float64",
    "integer": "int64",
    "text": "string",
    "boolean": "bool_",
    "time": "timestamp",
    "bytes": "binary",
    "list": "list_",
}


def pin(
    table: Columns, to: Path, key: str, *, labels: Columns | None = None, window: Window | None = None, most: int = MOST, held: float = 0.0
) -> Mapping[str, Json]:
    """Write the rows of a window (all of them without one) into the folder `to`, and say what was written: it is also kept there under `key`.

    {train, held: {path, sha256, rows}, from, to, origin, left}. `held` is the share of the rows that is kept apart, to judge by: which rows depends
    on what is in them alone, so that equal rows lie on one side. With `labels` each row gets its label, and a row without one is left out.
    DataError where there is no row or more than `most`, and for what cannot be written as it is.
    """
    try:
        to.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _pinned(table, to, key, labels, window, most, held)
    except OSError as problem:
        raise DataError(f"{to}: the rows could not be written down ({problem.strerror or problem}); is there room?") from problem


def _pinned(table: Columns, to: Path, key: str, labels: Columns | None, window: Window | None, most: int, held: float) -> Mapping[str, Json]:
    origin = _origin(table)
    rows = table if window is None else table.between(window.start, window.end)
    names, left = _names(rows)
    chunks, kinds = _chunks(rows, names), {name: rows.kinds()[name] for name in names}
    if labels is not None:
        label = str(labels.declared["label"])
        kinds[label] = labels.kinds()[label]
        chunks = _joined(chunks, str(rows.declared["id"]), label, _known(labels, most))
    parts = _written(chunks, kinds, to, most, held)
    same = _origin(table) == origin
    span = {"from": window.start if window else None, "to": window.end if window else None}
    told = to_json({**parts, **span, "origin": origin if same else None, "left": left})
    _keep(to / f"{key}.json", json.dumps(told, indent=1).encode())
    return dict(told)


def pinned(to: Path, key: str) -> Mapping[str, Json] | None:
    """What was pinned under a key; None where nothing was, or a file of it is gone."""
    try:
        told = json.loads((to / f"{key}.json").read_bytes())
        parts = [told[name] for name in ("train", "held") if told[name] is not None]
        return dict(told) if all(Path(part["path"]).is_file() for part in parts) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _origin(table: Columns) -> Json:
    """What the table itself calls the state that is read: a version, the digests of its files; None where it has no such thing."""
    told = getattr(table, "origin", None)
    return None if told is None else told()


def _names(rows: Columns) -> tuple[list[str], list[str]]:
    """The columns that are written, and those that are left out; features that lie in one JSON column are written one by one, instead of it."""
    features = rows.declared.get("features")
    packed = str(features["json"]) if isinstance(features, Mapping) and "json" in features else None
    kinds = rows.kinds()
    left = [name for name, kind in kinds.items() if kind not in PINNABLE or (packed is not None and name in (packed, f"{packed}.length"))]
    return [name for name in kinds if name not in left], left


def _chunks(rows: Columns, names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    spelled = [rows.declared[word] for word in ("id", "entity") if rows.declared.get(word) in names]
    return iter(rows.chunks(names, spelled=spelled))


# Labels


def _known(labels: Columns, most: int) -> Mapping[str, Any]:
    """The label by its key; of two for one key the later one."""
    key, label, time = (labels.declared.get(word) for word in ("key", "label", "time"))
    if key is None or label is None:
        raise DataError("the labels declare no key or no label; add `key:` and `label:` to the target")
    at = str(time["column"]) if isinstance(time, Mapping) else None
    known: dict[str, tuple[float, Any]] = {}
    for chunk in labels.chunks([str(key), str(label), *([at] if at else [])], spelled=(str(key),)):
        moments = chunk[at] if at else [0.0] * len(chunk[str(key)])
        for one, value, moment in zip(chunk[str(key)], chunk[str(label)], moments, strict=True):
            if value is not None and value == value and (one not in known or known[one][0] <= moment):
                known[one] = (moment, value)
        if len(known) > most:
            raise DataError(f"there are more than {most:,} labels; pin a shorter window, or raise `rows`")
    return {one: value for one, (_, value) in known.items()}


def _joined(chunks: Iterator[Mapping[str, Any]], key: str, label: str, known: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    import numpy as np

    for chunk in chunks:
        truth = np.array([known.get(one) for one in chunk[key]], dtype=object)
        there = np.array([value is not None for value in truth], dtype=bool)
        yield {**{name: values[there] for name, values in chunk.items()}, label: truth[there]}


# Writing


def _written(chunks: Iterator[Mapping[str, Any]], kinds: Mapping[str, Kind], to: Path, most: int, held: float) -> Mapping[str, Json]:
    import numpy as np

    with ExitStack() as until:
        files = {name: until.enter_context(_File(to, kinds)) for name in ("train", "held")}
        for chunk in chunks:
            apart = _marks(chunk) < np.uint64(int(held * 2**64)) if held else np.zeros(len(next(iter(chunk.values()))), dtype=bool)
            for name, some in (("train", ~apart), ("held", apart)):
                files[name].add({column: values[some] for column, values in chunk.items()})
            if sum(file.rows for file in files.values()) > most:
                raise DataError(f"there are more than {most:,} rows; pin a shorter window, or raise `rows`")
        if not files["train"].rows:
            raise DataError("there is no row to pin; is the window right, and do rows have their labels yet?")
        return {"train": files["train"].done(), "held": files["held"].done() if files["held"].rows else None}


class _File:
    """A Parquet file in the making; it has its name once it is whole and on the disk."""

    def __init__(self, to: Path, kinds: Mapping[str, Kind]) -> None:
        import pyarrow as pa
        import pyarrow.parquet

        times, lists = pa.timestamp("us", tz="UTC"), pa.list_(pa.float64())
        made = {"time": times, "list": lists}
        self._types = {name: made[kind] if kind in made else getattr(pa, PINNABLE[kind])() for name, kind in kinds.items()}
        self._to, self._draft, self.rows = to, to / f".{secrets.token_hex(8)}", 0
        self._writer = pyarrow.parquet.ParquetWriter(self._draft, pa.schema(self._types.items()))

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()
        self._draft.unlink(missing_ok=True)

    def add(self, chunk: Mapping[str, Any]) -> None:
        import pyarrow as pa

        length = len(next(iter(chunk.values())))
        if length:
            self._writer.write_table(pa.table({name: _array(name, values, self._types[name]) for name, values in chunk.items()}))
            self.rows += length

    def done(self) -> Json:
        """Give it the name of what is in it."""
        self._writer.close()
        self._draft.chmod(0o600)
        _synced(self._draft)
        with self._draft.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        path = self._to.resolve() / f"{digest}.parquet"
        self._draft.replace(path)
        _synced(self._to)
        return {"path": str(path), "sha256": digest, "rows": self.rows}


def _array(name: str, values: Any, kind: Any) -> Any:
    import numpy as np
    import pyarrow as pa

    try:
        if values.dtype.kind == "f":
            none = ~np.isfinite(values) if not pa.types.is_floating(kind) else np.isnan(values)
            if pa.types.is_timestamp(kind):
                return pa.array(np.where(none, 0, np.round(values * 1e6)).astype(np.int64), mask=none).cast(kind)
            if pa.types.is_integer(kind):
                if (np.abs(values[~none]) >= EXACT).any():
                    raise ValueError("whole numbers beyond 2^53 would not stay what they are; store them as text")
                return pa.array(np.where(none, 0, values).astype(np.int64), mask=none)
            return pa.array(values, kind, mask=none)
        return pa.array([str(one) if one is not None and pa.types.is_string(kind) else one for one in values], kind)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as problem:
        raise DataError(f"column '{name}' cannot be pinned: {str(problem)[:300]}") from problem


def _marks(chunk: Mapping[str, Any]) -> Any:
    """A 64-bit mark of what is in each row."""
    import numpy as np

    marks = np.zeros(len(next(iter(chunk.values()))), dtype=np.uint64)
    for name in sorted(chunk):
        values = chunk[name]
        bits = (values + 0.0).view(np.uint64) if values.dtype.kind == "f" else np.array([_mark(one) for one in values], dtype=np.uint64)
        marks = (marks ^ bits) * np.uint64(0x9E3779B97F4A7C15)
        marks ^= marks >> np.uint64(29)
    return marks


def _mark(value: Any) -> int:
    return int.from_bytes(hashlib.blake2b(repr(value).encode(), digest_size=8).digest(), "little")


def _keep(path: Path, body: bytes) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        draft.write_bytes(body)
        _synced(draft)
        draft.replace(path)
        _synced(path.parent)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def _synced(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
