"""A number beside what it may be: fixed limits, or how much worse than a yardstick, whose own uncertainty counts too."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent import Reading
from agent.errors import DataError
from agent.stats import holm
from checks._labels import Joined
from checks._metrics import LOWER_IS_BETTER, Estimate

SURE = 0.025  # one side of a 95 % interval
VALUES = 20  # of a column that slices


@dataclass(frozen=True, slots=True)
class Limit:
    """A number that must not be passed, from above (`below`: it is a floor) or from beneath; with a yardstick, whose value it was made from."""

    value: float
    below: bool
    yard: Estimate | None = None

    def seen(self, found: Estimate) -> Estimate:
        """What was found, with the yardstick's uncertainty in its interval."""
        if self.yard is None:
            return found
        down = math.hypot(found.value - found.low, self.yard.high - self.yard.value)
        up = math.hypot(found.high - found.value, self.yard.value - self.yard.low)
        return Estimate(found.value, found.value - down, found.value + up, found.n, found.how)


@dataclass(frozen=True, slots=True)
class Judged:
    """One number against its limits: the reading shown, whether the number is beyond, and whether we are sure."""

    name: str
    found: Estimate
    reading: Reading
    beyond: bool = False
    p: float = 1.0
    limited: bool = False

    @property
    def sure(self) -> bool:
        """The far end of the interval is beyond the limit as well."""
        low, high = self.reading.interval or (0.0, 0.0)
        limit = self.reading.limit
        return self.beyond and limit is not None and (high < limit or low > limit)


def limits(metric: str, at_least: float | None, at_most: float | None, worse_by: float | None, yard: Estimate | None) -> list[Limit]:
    """Every limit there is; DataError where `worse_by` has no meaning or nothing to compare with."""
    found = [Limit(value, below) for value, below in ((at_least, True), (at_most, False)) if value is not None]
    if worse_by is not None:
        if metric == "bias":
            raise DataError("bias has no better side, so it cannot be worse_by; give at_least and at_most")
        if yard is None:
            raise DataError("worse_by needs a yardstick of at least rows_at_least labelled rows: bind a reference with the truth, or pin a baseline")
        below = metric not in LOWER_IS_BETTER
        found.append(Limit(yard.value - worse_by if below else yard.value + worse_by, below, yard))
    return found


def judge(name: str, found: Estimate, all_limits: Sequence[Limit]) -> Judged:
    """The number against the limit it is worst by."""
    if not all_limits:
        return Judged(name, found, Reading(found.value, None, (found.low, found.high), found.n))
    return max((_against(name, found, limit) for limit in all_limits), key=lambda one: (one.sure, one.beyond, -one.p))


def _against(name: str, found: Estimate, limit: Limit) -> Judged:
    seen = limit.seen(found)
    beyond = found.value < limit.value if limit.below else found.value > limit.value
    reading = Reading(found.value, limit.value, (seen.low, seen.high), found.n)
    return Judged(name, found, reading, beyond, seen.p(limit.value, limit.below), True)


def surely(slices: Sequence[Judged]) -> list[Judged]:
    """The slices that are beyond their limits, by Holm: the chance of naming any that is not is at most 2.5 %."""
    limited = [one for one in slices if one.limited]
    adjusted = holm([one.p for one in limited])
    return [one for one, p in zip(limited, adjusted, strict=True) if one.sure and p <= SURE]


# Slices


def slices(joined: Joined, wanted: Sequence[str | Mapping[str, Sequence[float]]], like: Joined | None = None) -> Iterator[tuple[str, Any]]:
    """Name and rows of each slice of the labelled rows, by columns of live: a value each, or the cells between cuts.

    `like` says whose commonest values have a slice of their own, where these rows are a yardstick: the others are then the same values on both sides.
    """
    for one in wanted:
        for name, cuts in [(one, None)] if isinstance(one, str) else one.items():
            yield from _by_cut(joined, name, cuts) if cuts is not None else _by_value(joined, name, like or joined)


def _by_value(joined: Joined, name: str, like: Joined) -> Iterator[tuple[str, Any]]:
    import numpy as np

    codes, names = joined.column(name).classes()
    common = _commonest(like, name)
    for value in common:
        yield f"{name}={value[:80]}", codes == (names.index(value) if value in names else -2)
    rest = (codes >= 0) & ~np.isin(codes, [place for place, value in enumerate(names) if value in common])
    if rest.any():
        yield f"{name}=(others)", rest
    if (codes < 0).any():
        yield f"{name}=(none)", codes < 0


def _commonest(joined: Joined, name: str) -> list[str]:
    import numpy as np

    codes, names = joined.column(name).classes()
    kind = joined.rows.kinds()[name]
    if kind in ("number", "time") or (kind == "integer" and len(names) > VALUES):
        raise DataError(f"slices: '{name}' is a {kind} with {len(names)} different values; say where to cut it: {{{name}: [10, 20]}}")
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    return [names[place] for place in sorted(sorted(range(len(names)), key=lambda place: (-counts[place], names[place]))[:VALUES])]


def _by_cut(joined: Joined, name: str, cuts: Sequence[float]) -> Iterator[tuple[str, Any]]:
    import numpy as np

    column = joined.column(name)
    if column.names is not None:
        raise DataError(f"slices: '{name}' is no number, so it cannot be cut; write it without cuts")
    if list(cuts) != sorted(set(cuts)) or not cuts or any(math.isnan(cut) for cut in cuts):
        raise DataError(f"slices: the cuts of '{name}' must rise, and are {list(cuts)}")
    place = np.searchsorted(np.asarray(cuts, float), column.values, side="left")
    missing = np.isnan(column.values)
    for cell in range(len(cuts) + 1):
        low, high = (f"{cuts[cell - 1]:g}<" if cell else ""), (f"<={cuts[cell]:g}" if cell < len(cuts) else "")
        yield f"{low}{name}{high}", (place == cell) & ~missing
    if missing.any():
        yield f"{name}=(none)", missing
