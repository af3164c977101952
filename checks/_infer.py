"""What a table looks like, read once and written as a contract that it keeps: YAML for a person to edit, the same text for the same rows."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import Any

from agent import Columns, Kind, Reading, spell
from agent.stats import wilson
from checks._keys import ROWS, Repeats, hashed, nulls

OFTEN = 5  # rows a value, on average: fewer, and what few rows hold is no list of categories
ENOUGH = 20  # rows that must differ before a column is called unique
LONGEST = 64  # characters of a category
KEY = 400  # characters of a column's name that YAML may still take as a key
EXACT = 2**53


@dataclass
class Seen:
    """What one column showed."""

    name: str
    kind: Kind
    most: int  # categories
    rows: int = 0
    nulls: int = 0
    low: float = math.inf
    high: float = -math.inf
    infinite: set[float] = field(default_factory=set)
    values: set[Any] | None = field(default_factory=set)  # None: too many, or none that could be a category
    before: Repeats | None = None  # None: a value came twice

    @property
    def known(self) -> int:
        return self.rows - self.nulls

    @property
    def unique(self) -> bool:
        return self.before is not None and not self.before.full and self.known >= ENOUGH

    @property
    def categories(self) -> list[Any]:
        """All values there are, in order, where they are few and each came often enough to be one of a list."""
        found = self.values or ()
        return sorted(found) if found and self.known >= OFTEN * len(found) else []

    def look(self, cells: Any) -> None:
        import numpy as np

        known = cells[~nulls(cells)]
        self.rows, self.nulls = self.rows + len(cells), self.nulls + len(cells) - len(known)
        if not len(known):
            return
        if self.before is not None and bool(self.before.came(hashed(known)).any()):
            self.before = None
        self._measure(known)
        if self.values is not None:
            self.values |= set((np.unique(known) if known.dtype == "float64" else known).tolist())
            self.values = self.values if self._few() else None

    def _measure(self, known: Any) -> None:
        import numpy as np

        if known.dtype != "float64":
            if self.kind != "text":
                return
            known = np.fromiter(map(len, known.tolist()), np.float64, len(known))
        finite = known[np.isfinite(known)]
        self.infinite |= set(np.unique(known[~np.isfinite(known)]).tolist())
        if len(finite):
            self.low, self.high = min(self.low, float(finite.min())), max(self.high, float(finite.max()))

    def _few(self) -> bool:
        assert self.values is not None
        return len(self.values) <= self.most and not any(_odd(value) for value in self.values)


def _odd(value: Any) -> bool:
    return len(value) > LONGEST if isinstance(value, str) else isinstance(value, float) and not abs(value) < EXACT


def seen(rows: Columns, most: int) -> tuple[list[Seen], list[float]]:
    """Every column but the declared time, and the declared times in order; in one pass."""
    import numpy as np

    time = (rows.declared.get("time") or {}).get("column")
    kinds = {name: kind for name, kind in rows.kinds().items() if name != time}
    keys = [name for name, kind in kinds.items() if kind in ("text", "integer")]
    found = [Seen(name, kind, most) for name, kind in kinds.items()]
    for one in found:
        one.values = set() if one.kind in ("text", "integer", "boolean") else None
        one.before = Repeats(ROWS // max(1, len(keys))) if one.name in keys else None
    times, kept = [np.empty(0)], 0
    for chunk in rows.chunks([*kinds, *([time] if time else [])]):
        for one in found:
            one.look(chunk[one.name])
        if time and kept <= ROWS:
            times.append(chunk[time][~np.isnan(chunk[time])])
            kept += len(times[-1])
    return found, np.sort(np.concatenate(times)).tolist() if time and kept <= ROWS else []


# As YAML


def contract(found: Sequence[Seen], times: Sequence[float], margin: float) -> str:
    """The file; its keys are the parameters of data.contract."""
    n = found[0].rows if found else len(times)
    lines = [
        f"# A contract that {n} rows keep, made from what was seen in them. Read it, and change what should not be as it happened to be.",
        "# Its keys are the parameters of data.contract: check a table with `watchkeeper contract check TABLE --contract FILE`, or paste it",
        "# under `with:` of a watch. A range is what was seen and, on each side, "
        + f"{margin:g} of its width; below 0 and beyond 1 only where values were.",
        *_when(times, n, margin),
        "columns:" if found else "columns: {}",
    ]
    for one in found:
        key = word(one.name)
        if not one.name or len(key) > KEY:
            lines.append(f"  # a column whose name has {len(one.name)} characters was left out: it cannot be a key")
            continue
        rules = list(_rules(one, margin))
        lines += [f"  {key}:{'' if rules else ' {}'}  # {_told(one)}", *(f"    {rule}" for rule in rules)]
    return "\n".join(lines) + "\n"


def _when(times: Sequence[float], n: int, margin: float) -> Iterator[str]:
    if not times:
        return
    gap = max((after - before for before, after in pairwise(times)), default=0.0)
    limit = math.ceil(gap * (1 + margin))
    if 0 < limit < timedelta(days=36_000).total_seconds():
        yield f"freshness: {spell(timedelta(seconds=limit))}  # the longest time without an event was {spell(timedelta(seconds=gap))}"
    hours = (times[-1] - times[0]) / 3600
    rate = f", {n / hours:,.0f} an hour" if hours > 0 else ""
    yield f"volume: {max(1, n // 2)}  # half of the {n} rows that came{rate}; under `with:` of a watch: what one window should have"
    yield f"volume_at_most: {2 * n}  # twice as many"


def _told(one: Seen) -> str:
    """What was seen, in numbers: no text of any row."""
    if not one.known:
        return f"only nulls in {one.rows} rows: nothing is known of its values"
    parts = [f"{one.kind}; {one.nulls} of {one.rows} rows null ({one.nulls / one.rows:.3g})"]
    if one.low <= one.high:
        parts.append(f"{one.low:g} to {one.high:g}{' characters' if one.kind == 'text' else ''}")
    parts += [f"also {'' if value < 0 else '+'}infinite" for value in sorted(one.infinite)]
    if one.values:
        parts.append(f"{len(one.values)} different")
    return "; ".join([*parts, *(["no value twice"] if one.unique else [])])


def _rules(one: Seen, margin: float) -> Iterator[str]:
    if not one.known:
        return
    yield f"type: {one.kind}"
    yield f"nulls: {_share(one.nulls, one.rows, margin)}"
    if one.categories:
        yield f"categories: [{', '.join(map(_category, one.categories))}]"
    elif one.kind in ("number", "integer"):
        yield from _range(one, margin)
    elif one.kind == "text":
        yield f"shortest: {min(1, int(one.low))}"
        yield f"longest: {math.ceil(one.high * (1 + margin))}"
    if one.unique:
        yield "unique: true"


def _range(one: Seen, margin: float) -> Iterator[str]:
    low, high = bounds(one.low, one.high, margin, one.kind == "integer") if one.low <= one.high else (-math.inf, math.inf)
    if math.isfinite(low) and -math.inf not in one.infinite:
        yield f"low: {number(low)}"
    if math.isfinite(high) and math.inf not in one.infinite:
        yield f"high: {number(high)}"


def bounds(low: float, high: float, margin: float, whole: bool) -> tuple[float, float]:
    """What was seen and, on each side, a margin, rounded outwards; what was never negative stays so, and what was a share stays one."""
    reach = margin * ((high - low) or abs(low))
    least, most = (math.floor(low - reach), math.ceil(high + reach)) if whole and reach < EXACT else (_rounded(low, -reach), _rounded(high, reach))
    least = max(0.0, least) if low >= 0 else least
    return least, (min(1.0, most) if low >= 0 and high <= 1 else most)


def _rounded(edge: float, reach: float) -> float:
    """The edge moved by `reach`, away from what was seen, to two digits of that move."""
    if not reach or not math.isfinite(edge + reach):
        return edge + reach
    step = Decimal(1).scaleb(math.floor(math.log10(abs(reach))) - 1)
    try:
        moved = float(Decimal(edge + reach).quantize(step, "ROUND_CEILING" if reach > 0 else "ROUND_FLOOR"))
    except InvalidOperation:  # more digits than anybody wants to read
        moved = edge + reach
    return max(edge, moved) if reach > 0 else min(edge, moved)


def _share(nulls: int, rows: int, margin: float) -> str:
    """The upper end of the 99 % interval of the share and a margin, in three digits; none seen: none allowed."""
    if not nulls:
        return "0"
    wide = wilson(nulls, rows, 0.99)[1] * (1 + margin)
    return number(min(1.0, max(nulls / rows, math.ceil(wide * 1000) / 1000)))


def number(value: float) -> str:
    """A number that YAML reads as just that number."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def _category(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return text(value) if isinstance(value, str) else str(int(value))


_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_TAKEN = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null"))
_ESCAPES: Mapping[str, str] = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def word(name: str) -> str:
    """A key: as it is where no reader of YAML could take it for anything else."""
    return name if _PLAIN.fullmatch(name) and name.lower() not in _TAKEN else _quoted(name)


def text(value: str) -> str:
    """A text that our reader gives back as it is: `$` is doubled, so that it names no variable."""
    return _quoted(value.replace("$", "$$"))


def _quoted(value: str) -> str:
    return '"' + "".join(_ESCAPES.get(sign) or (sign if sign.isprintable() else _escaped(ord(sign))) for sign in value) + '"'


def _escaped(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def parts(found: Sequence[Seen]) -> dict[str, Reading]:
    """The share of nulls of each column."""
    return {one.name: Reading(one.nulls / one.rows, n=one.rows, unit="null") for one in found if one.rows}
