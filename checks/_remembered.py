"""What a forgetting eval keeps from look to look: how right each served version was, and which rows the best one had right."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from checks._gate import Matrix
from checks._slices import Rows

VERSIONS = 100  # served versions in the record; the oldest are let go
ROWS = 4_000_000  # of all slices together, whose rows are remembered one by one: half a megabyte


@dataclass(frozen=True, slots=True)
class Best:
    """The version that was best on a slice: which of its rows it had right, as bits, and the digest of those rows."""

    version: str
    digest: str
    accuracy: float
    bits: str

    def right(self, n: int) -> Any:
        import numpy as np

        return np.unpackbits(np.frombuffer(base64.b64decode(self.bits), dtype=np.uint8), count=n).astype(bool)


@dataclass(frozen=True, slots=True)
class Known:
    """The record: served versions in their order, the accuracy of each by slice, the best of each slice, and how often each slice was used."""

    versions: tuple[str, ...] = ()
    accuracy: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    best: Mapping[str, Best] = field(default_factory=dict)
    used: Mapping[str, int] = field(default_factory=dict)

    def matrix(self) -> Matrix:
        values = {(version, name): value for version, row in self.accuracy.items() for name, value in row.items()}
        return Matrix(self.versions, tuple(dict.fromkeys(name for _, name in values)), values)


def after(known: Known, version: str, word: str, slices: Sequence[Rows]) -> Known:
    """The record after one more look at a version that is served, whose answers are those of `word`."""
    import numpy as np

    row = {rows.name: float(np.mean(rows.right(word))) for rows in slices if rows.n}
    versions = (*(name for name in known.versions if name != version), version)[-VERSIONS:]
    accuracy = {name: known.accuracy[name] for name in versions if name in known.accuracy and name != version}
    best = dict(known.best)
    small = sum(rows.n for rows in slices) <= ROWS
    for rows in slices if small else ():
        if rows.n and _better(best.get(rows.name), rows, row[rows.name]):
            bits = base64.b64encode(np.packbits(rows.right(word)).tobytes()).decode()
            best[rows.name] = Best(version, rows.digest, row[rows.name], bits)
    return Known(versions, {**accuracy, version: row}, best, used(known, slices))


def used(known: Known, slices: Sequence[Rows]) -> Mapping[str, int]:
    return {**known.used, **{rows.name: known.used.get(rows.name, 0) + 1 for rows in slices}}


def _better(best: Best | None, rows: Rows, accuracy: float) -> bool:
    """Whether this one is the best now: other rows than before are another slice, whose best begins anew."""
    return best is None or best.digest != rows.digest or accuracy > best.accuracy
