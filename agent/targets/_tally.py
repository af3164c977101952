"""Counts over column chunks, the same for every engine: what an Ask asks, as a Tally that adds up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from agent import Ask, Tally

FEW = 64  # cuts up to which each is compared with every value


def count(ask: Ask, values: Any) -> Tally:
    """The Tally of one chunk: float64 (NaN is null) or objects (None is null)."""
    if values.dtype == "float64":
        return _count_numbers(ask, values)
    found = Counter(values.tolist())
    nulls = found.pop(None, 0)
    return Tally(len(values), nulls, by_key=_keys(ask, _spelled(found)))


def _count_numbers(ask: Ask, values: Any) -> Tally:
    import numpy as np

    missing = np.isnan(values)
    known = values[~missing] if missing.any() else values
    cells = _cells(known, ask.cuts) if ask.cuts else ()
    keys = (
        _keys(ask, _spelled(dict(zip(*(found.tolist() for found in np.unique(known, return_counts=True)), strict=True))))
        if ask.keys or ask.top
        else {}
    )
    nulls = len(values) - len(known)
    if not len(known):
        return Tally(len(values), nulls, counts=tuple(map(int, cells)), by_key=keys)
    with np.errstate(invalid="ignore", over="ignore"):
        total = float(known.sum())
    return Tally(len(values), nulls, float(known.min()), float(known.max()), total, tuple(map(int, cells)), keys)


def _cells(known: Any, cuts: tuple[float, ...]) -> Any:
    """How many lie between each two cuts. A comparison is so much cheaper than a search that dozens of them cost less."""
    import numpy as np

    if len(cuts) > FEW:
        return np.bincount(np.searchsorted(cuts, known, side="left"), minlength=len(cuts) + 1)
    below = [np.count_nonzero(known <= cut) for cut in cuts]
    return np.diff([0, *below, len(known)])


def grouped(ask: Ask, found: Iterable[tuple[str | None, int, int]]) -> Tally:
    """The Tally of the most frequent values as an engine counted them: key, rows with it, rows in all; null first where there is one."""
    groups = list(found)
    rows = groups[0][2] if groups else 0
    nulls = groups[0][1] if groups and groups[0][0] is None else 0
    keys: dict[str | None, int] = {key: count for key, count, _ in [group for group in groups if group[0] is not None][: ask.top]}
    return Tally(rows, nulls, by_key={**keys, None: rows - nulls - sum(keys.values())})


def _keys(ask: Ask, found: Counter[str | None]) -> dict[str | None, int]:
    if ask.top:
        return dict(found)
    if not ask.keys:
        return {}
    out: dict[str | None, int] = {key: found.pop(key, 0) for key in ask.keys}
    out[None] = sum(found.values())
    return out


def _spelled(found: Mapping[Any, int]) -> Counter[str | None]:
    """Counted first and spelled after: there are fewer values than rows."""
    keys: Counter[str | None] = Counter()
    for value, count in found.items():
        keys[spelled(value)] += count
    return keys


def spelled(value: Any) -> str:
    """A value as a key: true, false, 7 (also for 7.0), 7.5, text as it is."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value)


def merge(one: Tally, two: Tally) -> Tally:
    """Two tallies of one Ask as one."""
    keys = Counter(one.by_key)
    keys.update(two.by_key)
    return Tally(
        one.rows + two.rows,
        one.nulls + two.nulls,
        _both(min, one.low, two.low),
        _both(max, one.high, two.high),
        _both(lambda a, b: a + b, one.total, two.total),
        tuple(a + b for a, b in zip(one.counts, two.counts, strict=True)) if one.counts and two.counts else one.counts or two.counts,
        dict(keys),
    )


def _both(how: Any, one: float | None, two: float | None) -> float | None:
    if one is None or two is None:
        return two if one is None else one
    return float(how(one, two))


def finished(ask: Ask, tally: Tally) -> Tally:
    """Keep the `top` most frequent keys, the others under None; ties fall by name, so that every engine says the same."""
    if not ask.top:
        return tally
    ranked = sorted(((n, key) for key, n in tally.by_key.items() if key is not None), key=lambda pair: (-pair[0], pair[1]))
    kept: dict[str | None, int] = {key: n for n, key in ranked[: ask.top]}
    kept[None] = sum(n for n, _ in ranked[ask.top :])
    return replace(tally, by_key=kept)
