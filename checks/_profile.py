"""What the reference looks like, as the streams that windows are counted in: cuts, atoms, categories, what is unseen, what is null.

A random part A of the reference chooses cuts, atoms and vocabulary; the rest, B, is counted. One part doing both would choose cells that fit
itself, and a value that A never saw would look as if it never came.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from agent import Ask, Columns, Kind, Tally
from checks._sequential import edges

CHOOSE = 0.1  # the share of rows that is part A
MORE = 0.5  # what it grows to where a category is too rare for that to have met all there are
RARE = 5  # a value that A holds less often
ATOM = 0.05  # a number that is more than this share of A is a stream of its own
TOP = 12  # categories that are
KNOWN = 1_000  # values a vocabulary may hold; beyond it nothing can be called unseen
LONGEST = 200  # characters of a value in it
BLOCKS = 20  # stretches of the reference from which the design effect is measured


@dataclass(frozen=True, slots=True)
class Column:
    """One column's streams: at most each cut, each key, (other, unseen), and null last; with the reference's share and bounds of each.

    `other` is whatever is none of the keys, `unseen` what is in neither keys nor `vocabulary`; a number has neither. Shares are of values that are
    not null, but for the last, which is of rows. `designs` are the design effects of values and of nulls: how many rows count as one.
    """

    name: str
    kind: Literal["number", "category"]
    cuts: tuple[float, ...]
    keys: tuple[str, ...]
    vocabulary: tuple[str, ...]
    open: bool  # the vocabulary was too large to keep: no unseen stream
    shares: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    rows: int
    known: int
    designs: tuple[float, float]

    @property
    def streams(self) -> tuple[str, ...]:
        """What each stream counts, in words."""
        return (*(f"<= {cut:.6g}" for cut in self.cuts), *(f"= {key}" for key in self.keys), *self.rest, "null")

    @property
    def rest(self) -> tuple[str, ...]:
        """The streams of what is no key; where every known value is a key, "other" and "unseen" would be the same."""
        if self.kind == "number":
            return ()
        return ("other",) if self.open else ("other", "unseen") if self.vocabulary else ("unseen",)

    @property
    def ask(self) -> Ask:
        """What a window has to be asked for this column."""
        return Ask(self.name, self.cuts, (*self.keys, *self.vocabulary))

    def fits(self, kind: Kind | None) -> bool:
        """Whether a column stored as that can be counted in these streams; any value can be spelled as a category."""
        return kind in ("number", "integer") if self.kind == "number" else kind in ("text", "boolean", "integer", "number")

    def counted(self, tally: Tally) -> tuple[list[int], int]:
        """Hits of each stream, and how many values are not null."""
        known, by_key = tally.rows - tally.nulls, tally.by_key
        below = [sum(tally.counts[: place + 1]) for place in range(len(self.cuts))] if tally.counts else [0] * len(self.cuts)
        hits = [by_key.get(key, 0) for key in self.keys]
        rest = {"other": known - sum(hits), "unseen": by_key.get(None, 0)}
        return [*below, *hits, *(rest[name] for name in self.rest), tally.nulls], known


@dataclass(frozen=True, slots=True)
class Profile:
    """The columns that can be watched, and those that cannot with the reason."""

    columns: tuple[Column, ...]
    left_out: Mapping[str, str]
    rows: int


def profile(reference: Columns, kinds: Mapping[str, Kind | None], nominal: Sequence[str], cluster: float | None, length: float | None) -> Profile:
    """The profile of these columns; `kinds` as live stores them. `cluster` rows count as one; None measures it over stretches of `length` seconds."""
    rows = reference.rows()
    blocks = _blocks(reference, rows, length)
    columns, left_out = [], {}
    for name in kinds:
        made = _column(name, reference, kinds[name], name in nominal, cluster, blocks)
        if isinstance(made, str):
            left_out[name] = made
        else:
            columns.append(made)
    return Profile(_bounded(columns), left_out, rows)


def _bounded(columns: list[Column]) -> tuple[Column, ...]:
    """Confidence bounds of every share: they hold for all streams of all columns at once, so they are drawn together."""
    import numpy as np

    if not columns:
        return ()
    hits = np.concatenate([_scaled(one) for one in columns])
    rows = np.concatenate([[*[one.known] * (len(one.shares) - 1), one.rows] for one in columns])
    design = np.concatenate([[*[one.designs[0]] * (len(one.shares) - 1), one.designs[1]] for one in columns])
    low, high = (iter(side.tolist()) for side in edges(hits, rows.astype(float), design))
    return tuple(replace(one, low=tuple(next(low) for _ in one.shares), high=tuple(next(high) for _ in one.shares)) for one in columns)


def _scaled(one: Column) -> Any:
    import numpy as np

    return np.rint(np.array(one.shares) * np.array([*[one.known] * (len(one.shares) - 1), one.rows]))


# The split


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Which stretch of time each row lies in, when the reference has a time and enough of them; then a stretch is split off whole."""

    of: Any
    count: int

    def chosen(self, share: float, rows: int) -> Any:
        """True for the rows of part A."""
        import numpy as np

        random = np.random.default_rng(20260101)
        if self.of is None:
            return random.random(rows) < share
        wanted = max(1, round(share * self.count))
        return np.isin(self.of, random.permutation(self.count)[:wanted])


def _blocks(reference: Columns, rows: int, length: float | None) -> _Blocks:
    import numpy as np

    time = reference.declared.get("time")
    if not time or not length or not rows:
        return _Blocks(None, 0)
    at = np.concatenate([np.empty(0), *reference.column(time["column"])])
    if np.isnan(at).all():
        return _Blocks(None, 0)
    stretch = np.floor((np.nan_to_num(at, nan=float(np.nanmin(at))) - np.nanmin(at)) / length)
    found, of = np.unique(stretch, return_inverse=True)
    return _Blocks(of, len(found)) if len(found) >= BLOCKS else _Blocks(None, 0)


# One column


def _column(name: str, reference: Columns, live: Kind | None, nominal: bool, cluster: float | None, blocks: _Blocks) -> Column | str:
    stored = reference.kinds().get(name)
    if stored is None:
        return "missing in the reference"
    if stored not in ("number", "integer", "text", "boolean"):
        return f"{stored} columns have no distribution to watch"
    number = stored in ("number", "integer") and not nominal
    if number and live in ("text", "boolean"):
        return f"{live} now, {stored} in the reference"
    parts = list(reference.column(name))
    values, known = _numbers(parts) if number else _spelled(parts)
    if not known.any():
        return "all null in the reference"
    chosen = blocks.chosen(CHOOSE, len(known))
    if not number and min(Counter(values[chosen & known].tolist()).values(), default=0) < RARE:
        chosen = blocks.chosen(MORE, len(known))  # the smaller part lies within the larger: what is counted has had no say in it
    first = values[chosen & known]
    if not len(first):
        return f"{int(known.sum())} values in the reference are too few to choose cells from"
    made = _number_cells(name, first) if number else _category_cells(name, first)
    return _counted(made, values, known, ~chosen, cluster, blocks)


def _numbers(chunks: Sequence[Any]) -> tuple[Any, Any]:
    import numpy as np

    values = np.concatenate([np.empty(0), *chunks])
    return values, ~np.isnan(values)


def _spelled(chunks: Sequence[Any]) -> tuple[Any, Any]:
    """Values as the keys a Tally uses, null as None."""
    import numpy as np

    texts = [spelled(value) for chunk in chunks for value in chunk.tolist()]
    values = np.array(texts, dtype=object)
    return values, np.array([text is not None for text in texts], dtype=bool)


def spelled(value: Any) -> str | None:
    """A value as a Tally's key: true, false, 7 (also for 7.0), 7.5, text as it is; None for null and NaN."""
    if value is None or value != value:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value)


def _number_cells(name: str, first: Any) -> Column:
    import numpy as np

    rising = np.sort(first)
    n = len(rising)
    cuts = np.unique(rising[[max(0, math.ceil(n * tenth / 10) - 1) for tenth in range(1, 10)]])
    values, counts = np.unique(rising, return_counts=True)
    atoms = values[counts > max(ATOM * n, 4)]
    finite = [float(cut) for cut in cuts if math.isfinite(cut)]
    keys = tuple(text for value in atoms.tolist() if (text := spelled(value)))
    return Column(name, "number", tuple(finite), keys, (), False, (), (), (), 0, 0, (1.0, 1.0))


def _category_cells(name: str, first: Any) -> Column:
    ranked = sorted(Counter(first.tolist()).items(), key=lambda item: (-item[1], item[0]))
    keys = tuple(value for value, count in ranked[:TOP] if count >= RARE and len(value) <= LONGEST)
    rest = [value for value, _ in ranked if value not in keys]
    closed = len(ranked) <= KNOWN and all(len(value) <= LONGEST for value in rest)
    return Column(name, "category", (), keys, tuple(rest) if closed else (), not closed, (), (), (), 0, 0, (1.0, 1.0))


def _counted(made: Column, values: Any, known: Any, second: Any, cluster: float | None, blocks: _Blocks) -> Column:
    """The streams' shares in part B, and how many of its rows count as one."""
    import numpy as np

    there = second & known
    n, m = int(there.sum()), int(second.sum())
    hits = [_hits(made, stream, values[there]) for stream in range(len(made.streams) - 1)]
    nulls = ~known[second]
    shares = [float(hit.mean()) if n else 0.0 for hit in hits]
    if cluster is not None or blocks.of is None:
        designs = (cluster or 1.0, cluster or 1.0)
    else:
        of = blocks.of
        designs = (float(np.median([_design(hit, of[there]) for hit in hits])) if hits else 1.0, _design(nulls, of[second]))
    return replace(made, shares=(*shares, float(nulls.mean()) if m else 0.0), rows=m, known=n, designs=designs)


def _hits(made: Column, stream: int, values: Any) -> Any:
    """Which of the values are a hit of one stream."""
    import numpy as np

    if stream < len(made.cuts):
        return values <= made.cuts[stream]
    place = stream - len(made.cuts)
    if place < len(made.keys):
        return values == (float(made.keys[place]) if made.kind == "number" else made.keys[place])
    known = {*made.keys, *(made.vocabulary if made.rest[place - len(made.keys)] == "unseen" else ())}
    return np.fromiter((value not in known for value in values.tolist()), bool, len(values))


def _design(hit: Any, block: Any) -> float:
    """How much more the share varies from stretch to stretch than independent rows would let it: Pearson's statistic over its degrees of freedom."""
    import numpy as np

    share = float(hit.mean()) if len(hit) else 0.0
    rows = np.bincount(block)
    rows, sums = rows[rows > 0], np.bincount(block, weights=hit)[rows > 0]
    if not 0 < share < 1 or len(rows) < 2:
        return 1.0
    statistic = float(((sums - rows * share) ** 2 / (rows * share * (1 - share))).sum())
    return max(1.0, statistic / (len(rows) - 1))
