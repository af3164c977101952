"""What each rule of a contract asks of rows: a mask of those that break it, chunk by chunk, or what a tally's counts say; no value is kept."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent import Ask, Columns, Kind, Tally
from agent.errors import ConfigError
from checks._keys import Repeats, combined, hashed, held, nulls, signed, spelled, text_of
from checks._rules import Broken, Pair, Rule, share

IDS = 20  # hashed ids told for one rule


class Chunk:
    """Some rows, their columns side by side; what several rules ask of a column is worked out once."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self.columns = columns
        self.rows = len(next(iter(columns.values())))
        self._numbers: dict[str, Any] = {}
        self._nulls: dict[str, Any] = {}

    def numbers(self, name: str) -> Any:
        import numpy as np

        cells = self.columns[name]
        if cells.dtype == "float64":
            return cells
        if name not in self._numbers:
            self._numbers[name] = np.array([math.nan if cell is None else float(cell) for cell in cells.tolist()], dtype=np.float64)
        return self._numbers[name]

    def nulls(self, name: str) -> Any:
        if name not in self._nulls:
            self._nulls[name] = nulls(self.columns[name])
        return self._nulls[name]


@dataclass(frozen=True, slots=True)
class Counts:
    """A rule in counts of one column: what a tally of it is asked, and how many rows do not keep the rule by the answer."""

    ask: Ask
    broken: Callable[[Tally], int]


@dataclass
class Promise:
    """One rule about each row: `breaks` says which rows of a chunk do not keep it, `counts` how many without a row; None where that takes rows."""

    name: str
    words: str
    breaks: Callable[[Chunk], Any]
    limit: float = 0.0
    note: Callable[[], str] = lambda: ""
    unjudged: Callable[[], str] = lambda: ""
    counts: Counts | None = None
    hits: int = 0
    ids: list[str] = field(default_factory=list)

    def look(self, chunk: Chunk, named: str | None) -> None:
        import numpy as np

        found = self.breaks(chunk)
        hits = int(np.count_nonzero(found))
        self.hits += hits
        if hits and named and len(self.ids) < IDS:
            self.ids += signed(chunk.columns[named][np.flatnonzero(found)[: IDS - len(self.ids)]].tolist())

    def broken(self, n: int) -> Iterator[Broken]:
        yield from share(self.name, self.hits, n, self.limit, self.words, self.note(), self.ids)


def fits(kind: Kind, wanted: Kind | None) -> bool:
    return wanted is None or kind == wanted or (wanted == "number" and kind in ("integer", "time"))


# One column


def promises(name: str, rule: Rule, kind: Kind, parents: Columns | None, room: int) -> Iterator[Promise]:
    """What can be asked of this column; of one that holds another kind than promised only its nulls."""
    if rule.nulls is not None:
        yield empty(name, f"{name}.nulls", rule.nulls)
    if rule.length is not None:
        yield _length(name, rule.length)
    if not fits(kind, rule.wants):
        return
    if rule.low is not None or rule.high is not None:
        spread = _Range(name, rule)
        yield Promise(f"{name}.range", f"{name} is outside {spread.spelled} in", spread, rule.outside, spread.note, counts=spread.counts)
    if rule.categories is not None and rule.length is None:
        words = f"{name} is none of its {len(rule.categories)} categories in"
        unseen = _Unseen(name, rule.categories)
        yield Promise(f"{name}.unseen", words, unseen, rule.unseen, counts=_others(name, unseen.keys(kind)))
    yield from _spelling(name, rule)
    if rule.unique:
        yield once([name], room)
    if rule.parent is not None:
        yield _in_parents(name, rule.parent, parents)


def empty(name: str, rule: str, limit: float = 0.0) -> Promise:
    """No more than that share of the rows is null."""
    counts = Counts(Ask(name), lambda tally: tally.nulls)
    return Promise(rule, f"{name} is null in", lambda chunk: chunk.nulls(name), limit, counts=counts)


def _length(name: str, length: int) -> Promise:
    """Every list has this length; where there is none, it has not."""
    rule, words = name if name.endswith(".length") else f"{name}.length", f"{name.removesuffix('.length')} is no list of {length} in"
    key = str(length)
    counts = Counts(Ask(name, keys=(key,)), lambda tally: tally.rows - tally.by_key[key])
    return Promise(rule, words, lambda chunk: chunk.numbers(name) != length, counts=counts)


def _others(name: str, keys: tuple[str, ...]) -> Counts:
    """How many known values equal none of these."""
    return Counts(Ask(name, keys=keys), lambda tally: tally.rows - tally.nulls - sum(tally.by_key.get(key, 0) for key in keys))


class _Range:
    """Rows whose number lies outside; remembers the extremes."""

    def __init__(self, name: str, rule: Rule) -> None:
        self.name, self.rule = name, rule
        self.lowest, self.highest = math.inf, -math.inf
        self.low, self.high = (-math.inf if rule.low is None else rule.low), (math.inf if rule.high is None else rule.high)
        self.spelled = f"[{self.low:g}, {self.high:g}]"

    def __call__(self, chunk: Chunk) -> Any:
        import numpy as np

        values = chunk.numbers(self.name)
        known = values[~chunk.nulls(self.name)]
        if len(known):
            self.lowest, self.highest = min(self.lowest, float(known.min())), max(self.highest, float(known.max()))
        with np.errstate(invalid="ignore"):
            return (values < self.low) | (values > self.high)

    @property
    def counts(self) -> Counts:
        """Cut at the last number below the range, since a cell ends with its cut, and at its highest."""
        below = [math.nextafter(self.low, -math.inf)] if self.low > -math.inf else []
        above = [self.high] if self.high < math.inf else []

        def broken(tally: Tally) -> int:
            self.lowest, self.highest = (end if end is not None else place for end, place in ((tally.low, math.inf), (tally.high, -math.inf)))
            return (tally.counts[0] if below else 0) + (tally.counts[-1] if above else 0)

        return Counts(Ask(self.name, cuts=(*below, *above)), broken)

    def note(self) -> str:
        return f" (lowest {self.lowest:g}, highest {self.highest:g})"


class _Unseen:
    """Rows whose value is none of the categories; as tallies spell them, so that 7 is "7" and true is "true"."""

    def __init__(self, name: str, categories: Sequence[str | int | bool]) -> None:
        self.name = name
        self.known = {str(one).lower() if isinstance(one, bool) else str(one) for one in categories}
        self.numbers = [number for one in self.known if (number := _number(one)) is not None]

    def __call__(self, chunk: Chunk) -> Any:
        import numpy as np

        cells, nulls = chunk.columns[self.name], chunk.nulls(self.name)
        if cells.dtype == "float64":
            return ~nulls & ~np.isin(cells, self.numbers)
        different = {cell: str(cell).lower() if isinstance(cell, bool) else str(cell) for cell in set(cells.tolist()) if cell is not None}
        wrong = {cell for cell, text in different.items() if text not in self.known}
        if not wrong:
            return np.zeros(len(cells), dtype=bool)
        return np.fromiter((cell in wrong for cell in cells.tolist()), bool, len(cells))

    def keys(self, kind: Kind) -> tuple[str, ...]:
        """The categories as a tally of such a column spells its values."""
        if kind not in ("number", "integer", "time"):
            return tuple(sorted(self.known))
        return tuple(sorted({text for number in self.numbers if (text := text_of(number))}))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _spelling(name: str, rule: Rule) -> Iterator[Promise]:
    if rule.shortest is not None or rule.longest is not None:
        least, most = rule.shortest or 0, rule.longest
        span = f"{least} to {'any number of' if most is None else most} characters"
        yield Promise(f"{name}.characters", f"{name} has not {span} in", lambda chunk: _characters(chunk, name, least, most), rule.outside)
    if rule.pattern is not None:
        yield Promise(f"{name}.pattern", f"{name} does not match its pattern in", _Pattern(name, rule.pattern), rule.unlike)


def _characters(chunk: Chunk, name: str, least: int, most: int | None) -> Any:
    import numpy as np

    lengths = np.fromiter((-1 if cell is None else len(cell) for cell in chunk.columns[name].tolist()), np.int64, chunk.rows)
    return (lengths >= 0) & ((lengths < least) | (lengths > (np.iinfo(np.int64).max if most is None else most)))


class _Pattern:
    """Rows whose text does not match from its first to its last character: in time linear in the text, whatever the text and the pattern."""

    def __init__(self, name: str, pattern: str) -> None:
        self.name, self.whole = name, rf"\A(?:{pattern})\z"

    def __call__(self, chunk: Chunk) -> Any:
        import pyarrow as pa
        import pyarrow.compute as pc

        texts = pa.array(chunk.columns[self.name].tolist(), pa.string())
        try:
            alike = pc.match_substring_regex(texts, pattern=self.whole)
        except pa.ArrowInvalid as problem:
            raise ConfigError(f"columns.{self.name}.pattern is none that RE2 can read: {str(problem)[:200]}") from problem
        return ~alike.fill_null(True).to_numpy(zero_copy_only=False)


def once(names: Sequence[str], room: int) -> Promise:
    """No two rows have the same value in all these columns; a row with a null among them is not asked."""
    before = Repeats(room)

    def again(chunk: Chunk) -> Any:
        import numpy as np

        known = ~np.logical_or.reduce([chunk.nulls(name) for name in names])
        found = np.zeros(chunk.rows, dtype=bool)
        found[known] = before.came(combined([hashed(chunk.columns[name]) for name in names])[known])
        return found

    def unjudged() -> str:
        return (
            f"{before.kept:,} rows are more than the {room:,} in which repeated {', '.join(names)} can be told; look at shorter windows"
            if before.full
            else ""
        )

    what = names[0] if len(names) == 1 else f"({', '.join(names)})"
    return Promise(f"{'+'.join(names)}.unique", f"{what} repeats an earlier row in", again, unjudged=unjudged)


def _in_parents(name: str, column: str, parents: Columns | None) -> Promise:
    """Every value stands in a column of another table, which is read once."""
    import numpy as np

    if parents is None:
        raise ConfigError(
            f"columns.{name}.parent looks into another table, and none is bound; name it as the target `parents`, or under the watch's bind"
        )
    if column not in (known := parents.kinds()):
        raise ConfigError(f"columns.{name}.parent: the table of parents has no column '{column}'; there is {', '.join(list(known)[:12])}")
    chunks = [hashed(spelled(chunk[column])) for chunk in parents.chunks([column], {column} if known[column] == "integer" else ())]
    there = np.unique(np.concatenate([np.empty(0, dtype=np.uint64), *chunks]))

    def orphan(chunk: Chunk) -> Any:
        return ~chunk.nulls(name) & ~held(there, hashed(spelled(chunk.columns[name])))

    return Promise(f"{name}.parent", f"{name} is not in {column} of its parents in", orphan)


# Two columns


def measure(kind: Kind) -> str:
    return "number" if kind in ("number", "integer") else kind if kind in ("time", "text", "boolean") else ""


def both_known(one: Pair) -> Callable[[Chunk], Any]:
    """Rows in which two columns that cannot be compared should have been: none where one is all null, and so of no kind."""
    return lambda chunk: ~(chunk.nulls(one.column) | chunk.nulls(one.other))


def against(one: Pair, measure: str) -> Callable[[Chunk], Any]:
    keeps: Callable[[Any, Any], Any] = {
        "at_least": operator.ge,
        "at_most": operator.le,
        "above": operator.gt,
        "below": operator.lt,
        "equals": operator.eq,
    }[one.how]

    def breaks(chunk: Chunk) -> Any:
        import numpy as np

        known = ~(chunk.nulls(one.column) | chunk.nulls(one.other))
        read = chunk.numbers if measure in ("number", "time") else chunk.columns.__getitem__
        found = np.zeros(chunk.rows, dtype=bool)
        found[known] = ~np.asarray(keeps(read(one.column)[known], read(one.other)[known]), dtype=bool)
        return found

    return breaks
