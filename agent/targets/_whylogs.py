"""The binary profiles of whylogs 1, read without whylogs: a magic word, two headers, and a chunk of protobuf for each column.

The fields are those of whylogs' whylogs_messages.proto, by number. Read are row counts, nulls, types, mean and deviation, the KLL sketch of numbers
and the counts by value; cardinality and metrics of one's own are passed over. Only the messages named here are descended into, so nothing nests; no
message may hold more than 100,000 fields, and columns that claim the same bytes twice are refused, so that a small file costs little.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from math import isfinite, sqrt
from typing import TypeVar

from agent import Json
from agent.errors import DataError
from agent.targets._sketches import frequent, kll

MAGIC = b"WHY1"
MOST_FIELDS = 100_000  # of one message: more columns than any table has
MOST_ROWS = 2**53  # up to which a float counts exactly
VARINT, EIGHT, SIZED, FOUR = 0, 1, 2, 5  # how a field of protobuf is written
COLUMN = 2  # the kind of a chunk
TYPES = ("integral", "fractional", "boolean", "string", "object", "tensor")
Field = int | bytes
Fields = dict[int, list[Field]]
T = TypeVar("T", int, bytes)


def profile(data: bytes) -> Json:
    """Each column's {rows, nulls, types, mean, deviation, values, counts} by name; DataError for a file that is not whole or no such profile.

    `values` is what `kll` says, None without a distribution; `counts` says how often each value came, and is None unless that is known of all.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise DataError(f"it begins with {data[:4]!r} and not with {MAGIC.decode()}, as a profile of whylogs 1 does")
    segments, at = _delimited(data, len(MAGIC))
    if len(segments.get(5, ())) > 1:
        raise DataError(f"it holds {len(segments[5])} segments; write each to a file of its own, as whylogs' local writer does")
    header, start = _delimited(data, at)
    paths = {_last(one, 1, int): _text(one) for one in _each(header, 5)}
    found, seen, left = {}, set[int](), len(data)
    for entry in _each(header, 2):
        parts = []
        for offset in _numbers(_message(_last(entry, 2, bytes)), 1):
            parts.append(_chunk(data, start + offset))
            left -= len(parts[-1])
            if left < 0 or offset in seen or len(seen) > MOST_FIELDS:
                raise DataError("its columns lie over each other")
            seen.add(offset)
        found[_text(entry, 1)] = _column(_text(entry, 1), parts, paths)
    return found


def _chunk(data: bytes, at: int) -> bytes:
    header, start = _delimited(data, at)
    end = start + _last(header, 3, int)
    if _last(header, 1, int) != COLUMN or end > len(data):
        raise DataError(f"no whole column lies at byte {at:,} of {len(data):,}: the file was cut short")
    return data[start:end]


def _column(name: str, parts: list[bytes], paths: Mapping[int, str]) -> Json:
    try:
        return _told({paths.get(_last(one, 1, int), ""): _message(_last(one, 2, bytes)) for part in parts for one in _each(_message(part), 1)})
    except DataError as problem:
        raise DataError(f"column '{name}': {problem}") from problem


def _told(found: Mapping[str, Fields]) -> Json:
    rows, nulls = _count(found, "counts/n"), _count(found, "counts/null")
    types = {kind: count for kind in TYPES if (count := _count(found, f"types/{kind}"))}
    if nulls > rows:
        raise DataError(f"{nulls} nulls in {rows} rows")
    values = kll(_sketch(found, "distribution/kll", 6)) if "distribution/kll" in found else None
    counts = frequent(_sketch(found, "frequent_items/frequent_strings", 4)) if "frequent_items/frequent_strings" in found else None
    if counts is not None and sum(counts.values()) != sum(types.values()):  # a sketch that had to forget every value calls itself empty
        counts = None
    mean, squares = (_double(found, f"distribution/{what}") for what in ("mean", "m2"))
    n = values["n"] if values else 0
    deviation = sqrt(squares / (n - 1)) if n > 1 and squares is not None and squares >= 0 else None
    return {"rows": rows, "nulls": nulls, "types": types, "mean": mean if n else None, "deviation": deviation, "values": values, "counts": counts}


def _count(found: Mapping[str, Fields], path: str) -> int:
    """A component that counts; 0 where the profile has none. A negative one is huge as protobuf writes it."""
    count = _last(found.get(path, {}), 2, int)
    if count > MOST_ROWS:
        raise DataError(f"{path} is {count}, which no table has")
    return count


def _double(found: Mapping[str, Fields], path: str) -> float | None:
    value = _last(found.get(path, {}), 3, bytes)
    number = struct.unpack("<d", value)[0] if len(value) == 8 else float("nan")
    return number if isfinite(number) else None


def _sketch(found: Mapping[str, Fields], path: str, number: int) -> bytes:
    return _last(_message(_last(found[path], number, bytes)), 1, bytes)


# Protobuf


def _message(data: bytes) -> Fields:
    """The fields of a message by their numbers; nothing is descended into."""
    found: Fields = {}
    at = fields = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind, number = key & 7, key >> 3
        if kind == VARINT:
            value, at = _varint(data, at)
            found.setdefault(number, []).append(value)
        else:
            size, at = _varint(data, at) if kind == SIZED else ({EIGHT: 8, FOUR: 4}.get(kind, len(data)), at)
            if at + size > len(data):
                raise DataError(f"a field of it is cut short, or is none (field {number}, written as {kind}, {size:,} bytes)")
            found.setdefault(number, []).append(data[at : at + size])
            at += size
        fields += 1
        if fields > MOST_FIELDS:
            raise DataError(f"a message of it holds more than {MOST_FIELDS:,} fields")
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        if at + place >= len(data):
            raise DataError(f"it is cut short at byte {len(data):,}")
        byte = data[at + place]
        value |= (byte & 127) << (7 * place)
        if byte < 128:
            return value, at + place + 1
    raise DataError("a number of it has no end")


def _delimited(data: bytes, at: int) -> tuple[Fields, int]:
    """A message that says its length first, and where it ends."""
    size, at = _varint(data, at)
    if at + size > len(data):
        raise DataError(f"it is cut short at byte {len(data):,}")
    return _message(data[at : at + size]), at + size


def _numbers(found: Fields, number: int) -> Iterator[int]:
    """The whole numbers of a repeated field, one by one or packed."""
    for one in found.get(number, []):
        at = 0
        if isinstance(one, int):
            yield one
        while isinstance(one, bytes) and at < len(one):
            value, at = _varint(one, at)
            yield value


def _each(found: Fields, number: int) -> Iterator[Fields]:
    """The messages in a field: the entries of a map, key in field 1 and value in field 2."""
    return (_message(one) for one in found.get(number, []) if isinstance(one, bytes))


def _last(found: Fields, number: int, kind: type[T]) -> T:
    """The last value of a field, as protobuf has it; what is missing is 0 or empty. DataError where it was written as something else."""
    value = found[number][-1] if number in found else kind()
    if not isinstance(value, kind):
        raise DataError(f"field {number} of it is written as something else")
    return value


def _text(found: Fields, number: int = 2) -> str:
    return _last(found, number, bytes).decode(errors="backslashreplace")
