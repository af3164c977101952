"""One JSON column of feature lists, presented as one virtual column a feature."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from tempfile import TemporaryFile
from typing import Any

from agent import Kind
from agent.errors import DataError

ROOM = 16_000_000  # values kept in memory, 128 MB; what is beyond lies in a temporary file


class Kept:
    """Parsed rows, so that the text is parsed once however many columns are asked for, in bounded memory."""

    def __init__(self, parsed: Iterable[Any], room: int = ROOM) -> None:
        self._file = TemporaryFile(prefix="watchkeeper-")  # noqa: SIM115 - lives as long as this does; it has no name to leave behind
        self._chunks: list[Any] = []  # arrays, or (where, rows) of those in the file
        for values in parsed:
            room -= values.size
            self._chunks.append(values if room >= 0 else self._put_away(values))

    def _put_away(self, values: Any) -> tuple[int, int]:
        where = self._file.tell()
        self._file.write(values.tobytes(order="F"))
        return where, len(values)

    def column(self, place: int) -> Iterator[Any]:
        """One feature, chunk by chunk."""
        for chunk in self._chunks:
            yield self._fetched(place, *chunk) if isinstance(chunk, tuple) else chunk[:, place]

    def _fetched(self, place: int, where: int, rows: int) -> Any:
        import numpy as np

        self._file.seek(where + place * rows * 8)
        return np.frombuffer(self._file.read(rows * 8), dtype=np.float64)


class Features:
    """A `features` declaration of one JSON column: `names`, or `size` of them as p0, p1, ... (another `prefix` may be said). False for any other."""

    def __init__(self, declared: Any) -> None:
        given = declared if isinstance(declared, Mapping) else {}
        self.json: str = given.get("json", "")
        self.length = f"{self.json}.length"
        self.places = {name: place for place, name in enumerate(_names(given))}

    def __bool__(self) -> bool:
        return bool(self.json)

    def kinds(self) -> dict[str, Kind]:
        """The virtual columns: the length of each list, and each feature."""
        return {self.length: "integer", **dict.fromkeys(self.places, "number")} if self else {}

    def parsed(self, texts: Any, wanted: Sequence[str]) -> dict[str, Any]:
        """Those virtual columns of a chunk of text."""
        if not wanted:
            return {}
        values, lengths = matrix(texts, list(self.places))
        return {name: lengths if name == self.length else values[:, self.places[name]] for name in wanted}


def _names(features: Mapping[str, Any]) -> Sequence[str]:
    if "names" in features:
        return tuple(features["names"])
    if features and "size" not in features:
        raise DataError(f"features: the JSON column '{features.get('json')}' needs either names or size")
    return tuple(f"{features.get('prefix', 'p')}{place}" for place in range(int(features.get("size", 0))))


def matrix(texts: Any, wanted: Sequence[str]) -> tuple[Any, Any]:
    """Parsed rows: (n x features float64, NaN where an entry is missing or no number; lengths as float64, NaN where there is no list)."""
    import numpy as np

    out = np.full((len(texts), len(wanted)), np.nan)
    lengths = np.full(len(texts), np.nan)
    for place, text in enumerate(texts):
        row = _parsed(text)
        if row is None:
            continue
        lengths[place] = len(row)
        entries = [row.get(name) for name in wanted] if isinstance(row, dict) else row[: len(wanted)]
        out[place, : len(entries)] = _numbers(entries)
    return out, lengths


def _parsed(text: Any) -> list[Any] | dict[str, Any] | None:
    if not isinstance(text, (str, bytes)):
        return None
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, (list, dict)) else None


def _numbers(entries: list[Any]) -> list[float]:
    if set(map(type, entries)) <= {float}:
        return entries
    return [_number(entry) for entry in entries]


def _number(entry: Any) -> float:
    if isinstance(entry, bool) or not isinstance(entry, (int, float)):
        return float("nan")
    try:
        return float(entry)
    except OverflowError:
        return float("inf") if entry > 0 else float("-inf")
