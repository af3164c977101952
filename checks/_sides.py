"""Live rows and a reference as matrices of the same columns: which columns can be, what is left out and why, and how the reference is split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent import Columns, Kind, Window
from checks import _encode
from checks._columns import Note

SPLIT = 20_260_329  # the seed of the split: the same at every look, or part B would not stay unseen


@dataclass(frozen=True, slots=True)
class Sides:
    """Matrices with `labels` as columns: live rows, and two parts of the reference, split at random. `a` made the encoding, `b` had no say in it."""

    live: Any
    a: Any
    b: Any
    labels: tuple[str, ...]
    columns: int  # of the tables
    left: tuple[Note, ...]

    @property
    def seal(self) -> str:
        """What names the reference and its columns, as they are compared."""
        sums = hashlib.sha256("\0".join(self.labels).encode("utf-8", "surrogatepass"))
        sums.update(self.a.tobytes())
        sums.update(self.b.tobytes())
        return sums.hexdigest()[:16]


def seed(window: Window | None) -> int:
    """Of a window: the same window gives the same answer again."""
    text = f"{window.start.isoformat()}/{window.end.isoformat()}" if window else ""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def sides(
    live: Columns, reference: Columns, sizes: tuple[int, int], names: Sequence[str], nominal: frozenset[str], drawn: int, most: int, cluster: int = 1
) -> Sides:
    """Both tables, of `sizes` rows, as matrices of (at most) `most` rows each; live ones are drawn by the seed `drawn`, the reference's always alike.

    How a column is encoded depends on part A of the reference alone. No row is left out for a null in it. Where `cluster` rows may move together,
    stretches of rows go to one part whole.
    """
    kinds = live.kinds(), reference.kinds()
    left = [one for name in names if (one := _unlike(name, *kinds, nominal))]
    names = [name for name in names if name not in {one.name for one in left}]
    lists = {name: size for name in names if kinds[1][name] in ("list", "text") and name not in nominal and (size := _size(reference, name))}
    left += [Note(name, "holds no lists of one length") for name in names if kinds[1][name] == "list" and not lists.get(name)]
    names = [name for name in names if name not in {one.name for one in left}]
    most = _encode.most(sum(lists.get(name, 1) for name in names), most)
    now = _encode.read(live, names, lists, sizes[0], _drawn(sizes[0], most, drawn))
    then = _encode.read(reference, names, lists, sizes[1], _drawn(sizes[1], most, SPLIT))
    a, b = ({name: values[some] for name, values in then.items()} for some in _halves(min(sizes[1], most), cluster))
    encode = _encode.fit(a, nominal)
    left += _said_nothing(encode, names, then)
    if not encode.labels:
        return Sides(None, None, None, (), 0, tuple(left))
    return Sides(encode(now), encode(a), encode(b), encode.labels, len(names), tuple(left))


def _halves(rows: int, cluster: int) -> tuple[Any, Any]:
    """The places of either part, at random; of rows that move together long stretches at once, so that few fall apart."""
    import numpy as np

    stretch = max(1, min(50 * cluster, rows // 40)) if cluster > 1 else 1
    order = np.random.default_rng(SPLIT).permutation(-(-rows // stretch))
    first = np.isin(np.arange(rows) // stretch, order[: len(order) // 2])
    return np.flatnonzero(first), np.flatnonzero(~first)


def _drawn(rows: int, most: int, by: int) -> Any:
    """Rising places of the rows that are read; None for all."""
    import numpy as np

    return None if rows <= most else np.sort(np.random.default_rng(by).choice(rows, most, replace=False))


def _unlike(name: str, now: Mapping[str, Kind], then: Mapping[str, Kind], nominal: frozenset[str]) -> Note | None:
    if name not in now or name not in then:
        return Note(name, f"missing in {'live' if name not in now else 'the reference'}", changed=True)
    kinds = {now[name], then[name]}
    if odd := sorted(kinds & {"time", "bytes", "other"}):
        return Note(name, f"{odd[0]} columns have no place in it")
    if len(kinds) > 1 and not (kinds <= {"number", "integer"} or kinds <= {"list", "text"} or name in nominal):
        return Note(name, f"{now[name]} now, {then[name]} in the reference", changed=True)
    return None


def _size(table: Columns, name: str) -> int:
    """How many entries the lists of a column have, by its first thousand values."""
    for chunk in table.column(name):
        if len(chunk) and (known := [value for value in chunk[:1000].tolist() if value is not None]):
            return _encode.length(known)
    return 0


def _said_nothing(encode: _encode.Encoder, names: Sequence[str], then: Mapping[str, Any]) -> Iterator[Note]:
    """Columns of which the encoding keeps no more than their nulls."""
    numbers, categories = set(encode.numbers), dict(encode.categories)
    for name in names:
        if name in categories and not categories[name]:
            yield Note(name, "no value is common in the reference: a name or prose")
        elif name in then and name not in categories and name not in numbers:
            yield Note(name, "null in the whole reference")
