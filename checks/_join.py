"""Rows of a table found again by key and time: columns are streamed, and only what belongs to the keys asked for is kept."""

from __future__ import annotations

import math
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any

from agent import Columns, Json
from agent.errors import DataError

Key = tuple[str, ...]  # one spelling for each part, so that 7, 7.0 and "7" are one key in every table
EXACT = 2.0**53  # whole numbers beyond it cannot be told apart once they are read as floats
FAR = 6e10  # seconds from 1970 that a datetime can hold, both ways
SHARED = 200_000  # ids of one side kept while two tables are joined


@dataclass(frozen=True, slots=True)
class Past:
    """The rows of each key in the order of their times: when each was, and its place in the table."""

    times: Mapping[int, Sequence[float]]
    places: Mapping[int, Sequence[int]]
    rows: int  # in the table when it was read

    def before(self, who: int, at: float) -> int | None:
        """The place of the newest row at or before a time; of several with that time, the last in the table."""
        count = bisect_right(self.times.get(who, ()), at)
        return self.places[who][count - 1] if count else None

    def when(self, who: int, place: int) -> float:
        """The time of one of its rows."""
        return self.times[who][self.places[who].index(place)]


def spelled(value: Json) -> str | None:
    """A key's value as text; None for null and for what is not finite, which are no keys."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return str(int(value)) if value.is_integer() else repr(value)
    return None if value is None else str(value)


def newest(table: Columns, names: Sequence[str], limit: int) -> Sequence[Mapping[str, Json]]:
    """The newest rows, found by their times first: reading whole rows costs a hundred times what reading their times does."""
    import numpy as np

    time = table.declared.get("time")
    times = np.concatenate([np.empty(0), *(table.column(time["column"]) if time else ())])
    times = times[~np.isnan(times)]
    if len(times) > limit > 0:
        oldest = float(np.partition(times, len(times) - limit)[len(times) - limit])
        start = datetime.fromtimestamp(min(max(oldest - 0.001, -FAR), FAR), UTC)
        table = table.between(start, datetime.max.replace(tzinfo=UTC))
    return table.head(names, limit)


def past(table: Columns, keys: Sequence[str], wanted: Sequence[Key], time: str | None) -> Past:
    """Where the rows of the wanted keys are; without a time column, in the order of the table."""
    import numpy as np

    places, who, rows = _located(table, keys, wanted)
    at = picked(table, time, places, rows) if time else [float(place) for place in places]
    when = np.array([math.nan if one is None else one for one in at], dtype=np.float64)
    order = np.lexsort((places, when, who))
    order = order[~np.isnan(when[order])]
    ends = np.searchsorted(who[order], np.arange(len(wanted) + 1))
    spans = [(one, order[ends[one] : ends[one + 1]]) for one in range(len(wanted))]
    return Past({one: when[span].tolist() for one, span in spans}, {one: places[span].tolist() for one, span in spans}, rows)


def picked(table: Columns, name: str, places: Any, rows: int) -> list[Json]:
    """The values of a column at rising places, null as None. DataError when the table has changed since the places were found."""
    out: list[Json] = []
    start = first = 0
    whole = table.kinds().get(name) == "integer"
    for chunk in table.column(name):
        last = int(places.searchsorted(start + len(chunk)))
        out += [_plain(value, whole) for value in chunk[places[first:last] - start].tolist()]
        start, first = start + len(chunk), last
    if start != rows:
        raise DataError(f"the table had {rows:,} rows and then {start:,} while it was read; look again once its writer is done")
    return out


def valued(table: Columns, name: str, places: Iterable[int], rows: int) -> Mapping[int, Json]:
    """The values of a column by place: one pass, whatever order they are asked in."""
    import numpy as np

    rising = sorted(set(places))
    return dict(zip(rising, picked(table, name, np.array(rising, dtype=np.int64), rows), strict=True))


def _plain(value: Json, whole: bool) -> Json:
    if isinstance(value, float) and math.isnan(value):
        return None
    if whole and isinstance(value, float) and value.is_integer():
        return int(value)
    return value.tolist() if hasattr(value, "tolist") else value


def _located(table: Columns, keys: Sequence[str], wanted: Sequence[Key]) -> tuple[Any, Any, int]:
    """Rising places of the rows that have a wanted key, which key that is, and how many rows there are."""
    import numpy as np

    code, index = None, dict.fromkeys(wanted, 0)
    for part, name in enumerate(keys):
        known = {value: place for place, value in enumerate(dict.fromkeys(key[part] for key in wanted))}
        codes = _codes(table, name, known)
        both = codes if code is None else code * len(known) + codes
        code = both if code is None else np.where((code < 0) | (codes < 0), -1, both)
        index = {key: at * len(known) + known[key[part]] for key, at in index.items()}
    assert code is not None
    places = np.flatnonzero(code >= 0)
    return *_named(places, code[places], [index[key] for key in wanted]), len(code)


def _named(places: Any, codes: Any, wanted: Sequence[int]) -> tuple[Any, Any]:
    """Only the rows whose parts together are a wanted key."""
    import numpy as np

    order = np.argsort(np.array(wanted, dtype=np.int64), kind="stable")
    rising = np.array(wanted, dtype=np.int64)[order]
    at = np.minimum(rising.searchsorted(codes), len(rising) - 1)
    hit = rising[at] == codes
    return places[hit], order[at[hit]]


def _codes(table: Columns, name: str, known: Mapping[str, int]) -> Any:
    """For each row the place of its value among the known ones, or -1."""
    import numpy as np

    numbers = {float(text): place for text, place in known.items() if _is_number(text)}
    found = [np.empty(0, dtype=np.int64)]
    for chunk in table.column(name):
        if chunk.dtype == np.float64:
            found.append(_among(chunk, numbers, name))
        else:
            found.append(np.fromiter((known.get(spelled(value) or "", -1) for value in chunk), np.int64, len(chunk)))
    return np.concatenate(found)


def _is_number(text: str) -> bool:
    try:
        return spelled(float(text)) == text
    except (ValueError, OverflowError):
        return False


def _among(chunk: Any, numbers: Mapping[float, int], name: str) -> Any:
    import numpy as np

    exact(chunk, name)
    rising = np.array(sorted(numbers), dtype=np.float64)
    if not len(rising):
        return np.full(len(chunk), -1, dtype=np.int64)
    at = np.minimum(rising.searchsorted(chunk), len(rising) - 1)
    return np.where(rising[at] == chunk, np.array([numbers[value] for value in rising.tolist()], dtype=np.int64)[at], -1)


def exact(chunk: Any, name: str) -> None:
    """DataError for keys so large that several of them are one float."""
    import numpy as np

    if chunk.dtype == np.float64 and (np.isfinite(chunk) & (np.abs(chunk) >= EXACT)).any():
        raise DataError(
            f"key '{name}' holds numbers of 2^53 and more, which cannot be told apart; present it as text, such as CAST({name} AS VARCHAR)"
        )


def shared(table: Columns, key: str, other: Columns, other_key: str, seed: int) -> tuple[list[str], int, int]:
    """Ids that are in both tables, in order, and how many rows each has. Of a large table only ids with a low hash are kept, the same in both."""
    rows = other.rows()
    share = min(1.0, SHARED / max(rows, 1))
    there = set(_kept(other, other_key, share, seed))
    mine = table.rows()
    return sorted({one for one in _kept(table, key, share, seed) if one in there}), mine, rows


def _kept(table: Columns, name: str, share: float, seed: int) -> Iterator[str]:
    bound = share * 2**32
    for chunk in table.column(name):
        exact(chunk, name)
        texts = (text for value in chunk.tolist() if (text := spelled(value)) is not None)
        yield from texts if share >= 1 else (text for text in texts if _low(text, seed) < bound)


def _low(text: str, seed: int) -> int:
    """A cheap hash whose high bits are well mixed: CRC-32, times the golden ratio."""
    return zlib.crc32(text.encode("utf-8", "replace"), seed & 0xFFFFFFFF) * 2654435761 & 0xFFFFFFFF


def drawn(found: Sequence[Any], count: int, seed: int) -> list[Any]:
    """At most `count` of them, the same for one seed, in their order; none for a count below 1."""
    if len(found) <= count:
        return list(found)
    places = Random(seed).sample(range(len(found)), max(count, 0))  # noqa: S311 - a sample, not a secret
    return [found[place] for place in sorted(places)]
