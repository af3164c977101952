"""What counts as a hit in a canary's metrics: an error, a slow answer, an answer of one kind; by limits that were fixed before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from checks._labels import class_name

CLASSES = 8  # that are counted one by one
CELLS = 5  # of a number
EXACT = 10  # different numbers up to which they are classes


@dataclass(frozen=True, slots=True)
class Hits:
    """What one metric sees in rows: whether a row says anything (`known`), and for each stream whether it is a hit.

    `once`: a client is counted by its first row, not until its first hit.
    """

    streams: tuple[str, ...]
    known: Any
    hit: Any  # (streams, rows)
    once: bool = False


def failed(status: Any, error_from: float) -> Hits:
    """Errors: a status from `error_from` on, or true. What is null, or no number, is not known."""
    import numpy as np

    said = numbers(status)
    return Hits(("errors",), ~np.isnan(said), np.where(_flags(status), said > 0, said >= error_from)[None])


def _flags(values: Any) -> Any:
    import numpy as np

    if values.dtype != object:
        return np.zeros(len(values), bool)
    return np.fromiter((isinstance(one, bool) for one in values.tolist()), bool, len(values))


def slow(latency: Any, above: float, errors: Hits | None) -> Hits:
    """Slow answers: longer than `above`; an error is longer than any limit."""
    import numpy as np

    took = numbers(latency, finite=False)
    broken = np.zeros(len(took), bool) if errors is None else errors.known & errors.hit[0]
    return Hits(("slow",), ~np.isnan(took) | broken, (broken | (took > above))[None])


def numbers(values: Any, finite: bool = True) -> Any:
    """Values as numbers; NaN where they are none, or (where asked) not finite."""
    import numpy as np

    if values.dtype == object:
        values = np.fromiter(map(_number, values.tolist()), float, len(values))
    return np.where(np.isfinite(values), values, np.nan) if finite else values


def _number(value: Any) -> float:
    try:
        return float(value) if value is not None and "_" not in str(value) else float("nan")
    except (TypeError, ValueError):
        return float("nan")


@dataclass(frozen=True, slots=True)
class Scale:
    """How predictions are told apart: by class, or by the cells between cuts."""

    classes: tuple[str, ...] = ()
    cuts: tuple[float, ...] = ()

    def told(self, values: Any) -> Hits:
        """A stream for each class (or cell), one for other classes, and one for no answer."""
        import numpy as np

        if self.cuts:
            said = numbers(values, finite=False)
            place = np.where(np.isnan(said), len(self.cuts) + 1, np.searchsorted(self.cuts, said, side="left"))
            names = (*(f"<= {cut:.4g}" for cut in self.cuts), f"> {self.cuts[-1]:.4g}", "null")
        else:
            known = {name: number for number, name in enumerate(self.classes)}
            place = np.fromiter((len(known) + 1 if name is None else known.get(name, len(known)) for name in _classes(values)), np.int64, len(values))
            names = (*self.classes, "other", "null")
        return Hits(names, np.ones(len(values), bool), place[None] == np.arange(len(names))[:, None], once=True)


def _classes(values: Any) -> Iterator[str | None]:
    for value in values.tolist():
        yield None if value is None or value != value else class_name(value)


def scale(values: Any) -> Scale | None:
    """The Scale of earlier predictions; None where there is no value."""
    import numpy as np

    said = numbers(values)
    told = said[~np.isnan(said)]
    if len(told) and len(told) == sum(one is not None for one in _classes(values)) and len(np.unique(told)) > EXACT:
        cuts = np.quantile(told, np.arange(1, CELLS) / CELLS, method="inverted_cdf")
        return Scale(cuts=tuple(np.unique(cuts).tolist()))
    names, counts = np.unique([one for one in _classes(values) if one is not None], return_counts=True)
    if not len(names):
        return None
    return Scale(tuple(sorted(names[np.argsort(-counts, kind="stable")][:CLASSES].tolist())))
