"""Rows of mixed columns as one matrix of comparable numbers, the same for every table: made from reference rows, then applied to any."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent import Columns
from agent.errors import DataError

CLIP = 5.0  # scales away from the middle, beyond which a value is only "far": one wild row decides nothing
TOP = 16  # categories that get a column of their own; the others are alike
COMMON = 0.005  # the share of reference rows a category needs for that
WIDEST = 2_048  # columns of the matrix
CELLS = 16_000_000  # values read from one table, 128 MB

Raw = Mapping[str, Any]  # column -> float64 with NaN for null, or objects with None; a list's entries are columns of their own


def most(columns: int, rows: int = 40_000) -> int:
    """How many rows of that width are read."""
    return max(1, min(rows, CELLS // max(1, columns)))


def read(table: Columns, names: Sequence[str], lists: Mapping[str, int], rows: int, keep: Any = None) -> Raw:
    """Those columns of the kept rows (rising places among all `rows`; None is all). `lists` says how many entries a column of lists has."""
    import numpy as np

    out: dict[str, Any] = {}
    for name in names:
        found = _kept(table.column(name), keep)
        if len(found) != (rows if keep is None else len(keep)):
            raise DataError(f"column '{name}' had {len(found)} rows where {rows} were counted: the table changed while it was read; look again")
        values = entries(found, lists[name]) if name in lists else np.empty((0, 0))
        out |= {f"{name}[{place}]": values[:, place] for place in range(lists[name])} if name in lists else {name: found}
    return out


def _kept(chunks: Any, keep: Any) -> Any:
    """Whole chunks, or the kept places of each, so that no more of a column than a chunk is held besides what is kept."""
    import numpy as np

    found, start = [np.empty(0)], 0
    for chunk in chunks:
        places = slice(None) if keep is None else keep[np.searchsorted(keep, start) : np.searchsorted(keep, start + len(chunk))] - start
        found.append(chunk[places])
        start += len(chunk)
    return np.concatenate(found[1:] or found)


def entries(texts: Any, size: int) -> Any:
    """JSON lists as rows x size float64; a row that is no list of that length, and an entry that is no number, is null."""
    import numpy as np

    out = np.full((len(texts), size), np.nan)
    for place, text in enumerate(texts):
        row = _listed(text)
        if row is not None and len(row) == size:
            out[place] = row if set(map(type, row)) == {float} else [_number(entry) for entry in row]
    return out


def _number(entry: Any) -> float:
    """A whole number beyond float is infinite; what is no number is null."""
    if type(entry) not in (int, float):
        return float("nan")
    try:
        return float(entry)
    except OverflowError:
        return math.copysign(math.inf, entry > 0 or -1)


def _listed(text: Any) -> list[Any] | None:
    try:
        row = json.loads(text) if isinstance(text, str) and text.lstrip().startswith("[") else None
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, list) else None


def length(texts: Any) -> int:
    """How many entries the lists of a column have, most often; 0 when it holds none, or ever what is no list."""
    found = Counter(len(row) if (row := _listed(text)) is not None else -1 for text in texts if text is not None)
    return found.most_common(1)[0][0] if found and not found[-1] else 0


@dataclass(frozen=True, slots=True)
class Encoder:
    """What turns columns into a matrix, and how its columns are called.

    A number is its distance from the reference's median in robust standard deviations, at most CLIP; of a constant only whether it is above
    or below. A category is one column of 0 and 1 for each value the reference often has. A null number counts as the median; a column with nulls
    has a column "<name>.nulls" besides, and "nulls" says whether any other column is null in the row.
    """

    numbers: tuple[str, ...]
    middles: tuple[float, ...]
    scales: tuple[float, ...]  # 0: constant
    categories: tuple[tuple[str, tuple[str, ...]], ...]
    nulls: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        values = [f"{name}={value}" for name, kept in self.categories for value in kept]
        return (*self.numbers, *values, *(f"{name}.nulls" for name in self.nulls), *(["nulls"] if self.others else []))

    def __call__(self, raw: Raw) -> Any:
        """rows x labels, float32."""
        import numpy as np

        n = len(next(iter(raw.values()))) if raw else 0
        columns = [_standard(raw[name], *how) for name, *how in zip(self.numbers, self.middles, self.scales, strict=True)]
        for name, kept in self.categories:
            spelled = _spelled(raw[name])
            columns += [(spelled == value) for value in kept]
        columns += [null(raw[name]) for name in self.nulls]
        if self.others:
            columns.append(np.logical_or.reduce([null(raw[name]) for name in self.others]))
        out = np.empty((n, len(columns)), dtype=np.float32)
        for place, values in enumerate(columns):
            out[:, place] = values
        return out


def null(values: Any) -> Any:
    """Which values are null."""
    import numpy as np

    return np.isnan(values) if values.dtype == np.float64 else np.array([value is None for value in values], dtype=bool)


def fit(raw: Raw, nominal: frozenset[str] = frozenset(), also_null: frozenset[str] = frozenset()) -> Encoder:
    """The Encoder of reference rows; numbers in `nominal` are categories; those in `also_null` get a column of nulls in any case."""
    import numpy as np

    numbers, categories, nulls = [], [], []
    for name, values in raw.items():
        if name in also_null or null(values).any():
            nulls.append(name)
        if values.dtype != np.float64 or name in nominal:
            categories.append((name, _common(values)))
        elif not np.isnan(values).all():
            numbers.append((name, *_middle(values[~np.isnan(values)])))
    width = len(numbers) + sum(len(kept) for _, kept in categories) + len(nulls)
    if width > WIDEST:
        raise DataError(f"{width} columns are too many to be tested as one (at most {WIDEST}); name fewer in columns")
    names, middles, scales = zip(*numbers, strict=True) if numbers else ((), (), ())
    return Encoder(names, middles, scales, tuple(categories), tuple(nulls), tuple(name for name in raw if name not in nulls))


def _middle(values: Any) -> tuple[float, float]:
    """Median, and the interquartile range of a normal's width; where half of the values are one, their standard deviation; 0 for a constant."""
    import numpy as np

    finite = values[np.isfinite(values)]
    if not len(finite):
        return float(values[0]), 0.0
    low, middle, high = np.quantile(finite, (0.25, 0.5, 0.75))
    with np.errstate(over="ignore", invalid="ignore"):
        scale = (high - low) / 1.349 or float(np.clip(finite, *np.quantile(finite, (0.01, 0.99))).std()) or float(finite.std())
    return float(middle), float(scale) if np.isfinite(scale) else float(np.finfo(np.float64).max)


def _standard(values: Any, middle: float, scale: float) -> Any:
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore"):
        away = np.sign(values - middle) if scale == 0 else (values - middle) / scale
    return np.clip(np.nan_to_num(away, nan=0.0, posinf=CLIP, neginf=-CLIP), -CLIP, CLIP)


def _common(values: Any) -> tuple[str, ...]:
    counts = Counter(key for key in _spelled(values).tolist() if key is not None)
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return tuple(key for key, count in ranked[:TOP] if count >= max(2, COMMON * len(values)))


def _spelled(values: Any) -> Any:
    """Categories as text, so that 7, 7.0 and "7" are one, and true is true whichever engine held it; None stays None."""
    import numpy as np

    out = np.empty(len(values), dtype=object)
    out[:] = [_key(value) for value in values.tolist()]
    return out


def _key(value: Any) -> str | None:
    if value is None or value != value:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else str(value)
