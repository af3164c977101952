"""Values as keys of 64 bits: whether one came before, whether it stands in another table; bounded, and exact but for colliding hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

ROWS = 10_000_000  # keys kept for one rule, 80 MB; at this many, two different texts share a hash in 3 of a million tables


def nulls(cells: Any) -> Any:
    """A mask of the nulls of a column: NaN among numbers, None among all else."""
    import numpy as np

    return np.isnan(cells) if cells.dtype == "float64" else np.equal(cells, np.array(None, dtype=object)).astype(bool)


def hashed(cells: Any) -> Any:
    """A column as uint64: numbers without collisions, texts by Python's keyed hash; what is null stands at any place, and is masked out."""
    import numpy as np

    if cells.dtype == "float64":
        return _mixed((cells + 0.0).view(np.uint64))  # -0.0 is 0.0
    return np.fromiter(map(hash, cells.tolist()), np.int64, len(cells)).view(np.uint64)


def combined(columns: Sequence[Any]) -> Any:
    """Several columns' hashes as one for each row."""
    first, *others = columns
    for other in others:
        first = _mixed(first + 0x9E3779B97F4A7C15) ^ other
    return first


def _mixed(values: Any) -> Any:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014): one to one, and every bit of the input moves half of those of the output."""
    import numpy as np

    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class Repeats:
    """Which keys came before, in one pass: sorted runs, merged whenever the last has grown half as long as the one before it."""

    def __init__(self, limit: int = ROWS) -> None:
        self.limit = limit
        self.kept = 0
        self.runs: list[Any] = []

    @property
    def full(self) -> bool:
        """Whether more keys came than are kept: nothing is known of the rest."""
        return self.kept > self.limit

    def came(self, keys: Any) -> Any:
        """A mask of the keys that came before, in an earlier chunk or earlier in this one."""
        import numpy as np

        again = np.zeros(len(keys), dtype=bool)
        self.kept += len(keys)
        if self.full:
            self.runs.clear()
            return again
        order = np.argsort(keys, kind="stable")
        rising = keys[order]
        again[order[1:]] = rising[1:] == rising[:-1]
        for run in self.runs:
            again |= held(run, keys)
        self._keep(rising)
        return again

    def _keep(self, rising: Any) -> None:
        import numpy as np

        self.runs.append(rising)
        while len(self.runs) > 1 and 2 * len(self.runs[-1]) >= len(self.runs[-2]):
            merged = np.concatenate([self.runs[-2], self.runs[-1]])
            merged.sort(kind="stable")
            self.runs[-2:] = [merged]


def held(rising: Any, keys: Any) -> Any:
    """A mask of the keys that are in a sorted run."""
    import numpy as np

    if not len(rising):
        return np.zeros(len(keys), dtype=bool)
    at = np.searchsorted(rising, keys)
    return rising[np.minimum(at, len(rising) - 1)] == keys


def spelled(cells: Any) -> Any:
    """A column as texts, so that 7, 7.0 and "7" are one value in two tables that store it differently; None where it is null."""
    import numpy as np

    out = np.empty(len(cells), dtype=object)
    out[:] = [text_of(cell) for cell in cells.tolist()]
    return out


def text_of(cell: Any) -> str | None:
    """One value as text; None for null."""
    if cell is None or cell != cell:
        return None
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 2**53:
        return str(int(cell))
    return str(cell)


def signed(ids: Iterable[Any]) -> list[str]:
    """Ids as they may be told: the first 12 hex digits of the sha256 of each."""
    texts = (text_of(one) for one in ids)
    return [hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12] for text in texts if text is not None]
