"""The truth joined to the predictions it is about: by id, in bounded memory, each prediction in the window of its own time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from agent import UTC, Ask, Baseline, Columns, Reading, Window, spell
from agent.errors import DataError
from agent.stats import wilson

MOST = 5_000_000  # predictions in a window, and labels of them: some 100 bytes each
EXACT = 2**53  # whole numbers from here on are rounded in a column of numbers
EARLIER = timedelta(days=1)  # labels may carry a date, or another zone's clock: read from a day before the window


@dataclass(frozen=True, slots=True)
class Coded:
    """A column as numbers: what it holds, or the place of each value in `names`. NaN where there is none."""

    values: Any
    names: tuple[str, ...] | None = None

    def numbers(self) -> Any:
        """The values as numbers; text that is none, and what is not finite, is NaN."""
        import numpy as np

        if self.names is None:
            return np.where(np.isfinite(self.values), self.values, np.nan)
        read = np.array([*map(_number, self.names), np.nan])
        return read[np.where(np.isnan(self.values), -1, self.values).astype(np.int64)]

    def classes(self) -> tuple[Any, tuple[str, ...]]:
        """The place of each value's class (-1 where there is none) and the classes' names: 1, 1.0 and "1" are one class, True and "true" too."""
        import numpy as np

        known = ~np.isnan(self.values)
        found, place = np.unique(self.values[known], return_inverse=True)
        told = [class_name(value if self.names is None else self.names[int(value)]) for value in found.tolist()]
        names = tuple(sorted(set(told), key=by_number))
        out = np.full(len(self.values), -1, dtype=np.int64)
        if told:
            out[known] = np.array([names.index(name) for name in told])[place.ravel()]
        return out, names


@dataclass(frozen=True, slots=True)
class Joined:
    """The labelled rows of a window: where they stand in the log, their truth, and how complete it all is."""

    rows: Columns
    places: Any  # of the labelled rows, among all
    truth: Coded
    predictions: int
    repeated: int = 0  # predictions whose id an earlier one of the window has too
    again: int = 0  # labels beyond the first of their key
    conflicts: int = 0  # keys with a second, different label
    early: int = 0  # labels dated before their prediction
    read: int = 0  # label rows that were looked through
    latest: bool = False
    _kept: dict[str, Coded] = field(default_factory=dict)

    @property
    def labelled(self) -> int:
        return len(self.places)

    @property
    def coverage(self) -> Reading:
        share = self.labelled / self.predictions if self.predictions else None
        return Reading(share, None, wilson(self.labelled, self.predictions), self.predictions)

    def column(self, name: str) -> Coded:
        """A column of the labelled rows."""
        if name not in self._kept:
            whole = coded(self.rows, name)
            if len(whole.values) != self.predictions:
                raise DataError(f"rows came into the window while it was read ({self.predictions}, then {len(whole.values)}); set time.settle")
            self._kept[name] = Coded(whole.values[self.places], whole.names)
        return self._kept[name]

    def notes(self) -> list[str]:
        """What is odd about these labels, in words."""
        told = (
            (self.repeated, "predictions repeat an id of the window"),
            (self.again, "labels repeat a key"),
            (0 if self.latest else self.conflicts, "keys have a second, different label, the earliest was used; set labels.latest or mend them"),
            (self.early, "labels are dated before their prediction"),
        )
        return [f"{count} {words}" for count, words in told if count]


def judged(window: Window, labels: Columns) -> Window:
    """The window whose labels are due now: `window` moved back by labels.delay, so that windows that follow each other judge each row once."""
    delay = delay_of(labels)
    try:
        return Window(window.start - delay, window.end - delay)
    except OverflowError:
        raise DataError(f"labels.delay of {delay} leads before the year 1; write a shorter one") from None


def pinned(baseline: Baseline, labels: Columns) -> Window:
    """The event times of a pinned baseline: those its finding judged, where it was pinned from one."""
    return judged(baseline.window, labels) if baseline.finding else baseline.window


def not_due(span: Window, labels: Columns, now: datetime | None) -> str:
    """Why a window cannot be judged yet, and when it can; nothing where it is due."""
    due = span.end + delay_of(labels)
    late = now is not None and due > now
    return f"the labels of {spelled_span(span)} are due at {due:%Y-%m-%d %H:%M:%S}, {spell(due - span.end)} after its end" if late else ""


def spelled_span(span: Window) -> str:
    return f"{span.start:%Y-%m-%d %H:%M:%S} to {span.end:%Y-%m-%d %H:%M:%S}"


def delay_of(labels: Columns) -> timedelta:
    """How late the truth usually is, as declared; none by default."""
    declared = labels.declared.get("delay") or 0
    return declared if isinstance(declared, timedelta) else timedelta(seconds=float(declared))


def join(live: Columns, labels: Columns, window: Window | None = None) -> Joined:
    """The labelled predictions of a window (of all rows without one). DataError where a declaration is missing or columns cannot be joined.

    Ids and keys are compared as text by a 64-bit keyed hash: n predictions and m labels meet by mistake with a chance of n * m / 2^64.
    """
    import numpy as np

    rows = live.between(window.start, window.end) if window else live
    name = _declared(live, "id", "live", "id: request_id")
    ids = np.concatenate([np.empty(0, np.int64), *keys(rows, name)])
    if len(ids) > MOST:
        raise DataError(f"{len(ids):,} predictions in one window, {MOST:,} can be joined; shorten the window")
    distinct, slot = np.unique(ids, return_inverse=True)
    slots, values, times, names, read = _matches(labels, distinct, window)
    first, chosen, again, conflicts = _one_each(slots, values, times, bool(labels.declared.get("latest")))
    truth = np.full(len(distinct) + 1, np.nan)
    truth[first] = values[chosen]
    truth[: len(distinct)][distinct == NONE] = np.nan
    per_row = truth[slot.ravel()] if len(ids) else np.empty(0)
    places = np.flatnonzero(~np.isnan(per_row))
    known = int((ids != NONE).sum())
    return Joined(
        rows,
        places,
        Coded(per_row[places], names),
        len(ids),
        known - int((distinct != NONE).sum()),
        again,
        conflicts,
        _early(rows, live, distinct, slot.ravel(), slots[chosen], times[chosen]),
        read,
        bool(labels.declared.get("latest")),
    )


def _matches(labels: Columns, distinct: Any, window: Window | None) -> tuple[Any, Any, Any, tuple[str, ...] | None, int]:
    """Every label of these keys: the key's slot, the label, its time (0 without one), the labels' names, and how many rows were read."""
    import numpy as np

    key = _declared(labels, "key", "labels", "key: request_id")
    label = _declared(labels, "label", "labels", "label: outcome")
    time = (labels.declared.get("time") or {}).get("column")
    dated = labels.between(_earlier(window), datetime.max.replace(tzinfo=UTC)) if time and window else labels
    _readable(dated, label)
    vocabulary: dict[str, int] = {}
    found, read, count = [], 0, 0
    for hashes, told, at in aligned(keys(dated, key), dated.column(label), dated.column(time) if time else None):
        place = np.searchsorted(distinct, hashes)
        place[place == len(distinct)] = 0
        hit = (distinct[place] == hashes) & (hashes != NONE) if len(distinct) else np.zeros(len(hashes), bool)
        coded = _coded(told[hit], vocabulary)
        known = ~np.isnan(coded)
        found.append((place[hit][known], coded[known], (np.zeros(len(hashes)) if at is None else at)[hit][known]))
        read, count = read + len(hashes), count + int(known.sum())
        if count > MOST:
            raise DataError(f"more than {MOST:,} labels for one window; shorten the window")
    slots, values, times = (np.concatenate([one[part] for one in found]) if found else np.empty(0) for part in range(3))
    numeric = dated.kinds()[label] in ("number", "integer")
    return slots.astype(np.int64), values, times, None if numeric else tuple(vocabulary), read


def _one_each(slots: Any, values: Any, times: Any, latest: bool) -> tuple[Any, Any, int, int]:
    """For each slot with a label, which of them counts: the newest, or else the oldest; of one time the later or the earlier row."""
    import numpy as np

    order = np.lexsort((np.arange(len(slots)), np.nan_to_num(times, nan=-np.inf), slots))
    starts = np.flatnonzero(np.diff(slots[order], prepend=-1))
    ends = np.append(starts[1:], len(slots)) - 1 if len(starts) else starts
    differs = values[order] != np.repeat(values[order][starts], ends - starts + 1)
    conflicts = int((np.add.reduceat(differs, starts, dtype=np.int64) > 0).sum()) if len(starts) else 0
    return slots[order][starts], order[ends if latest else starts], len(slots) - len(starts), conflicts


def _early(rows: Columns, live: Columns, distinct: Any, slot: Any, slots: Any, times: Any) -> int:
    """How many labels are dated before the first prediction they are about."""
    import numpy as np

    time = (live.declared.get("time") or {}).get("column")
    if not time or not len(times) or not times.any():
        return 0
    asked = np.concatenate([np.empty(0), *rows.column(time)])
    first = np.full(len(distinct), np.inf)
    np.minimum.at(first, slot, asked)
    return int((times < first[slots]).sum())


def _earlier(window: Window) -> datetime:
    return max(window.start, datetime.min.replace(tzinfo=UTC) + EARLIER) - EARLIER


def _declared(table: Columns, what: str, role: str, example: str) -> str:
    name = table.declared.get(what)
    if not isinstance(name, str):
        raise DataError(f"{role} declares no {what}, so labels cannot be joined; add `{example}` to targets.{role}")
    return name


def _readable(labels: Columns, label: str) -> None:
    kind = labels.kinds().get(label)
    if kind in ("bytes", "list", "other", "time"):
        raise DataError(f"labels.label '{label}' holds {kind}, which is no truth to compare with; name a column of numbers, text or booleans")


# Columns as numbers

NONE = -(2**63)  # stands for a missing id; no hash of a text is it


def keys(rows: Columns, name: str) -> Iterator[Any]:
    """The 64-bit hashes of a column's values as text, chunk by chunk; NONE where there is none."""
    import numpy as np

    if rows.kinds().get(name) == "integer":
        tally = rows.tally([Ask(name)])[name]
        if max(abs(tally.low or 0), abs(tally.high or 0)) >= EXACT:
            if tally.rows > MOST:
                raise DataError(f"'{name}' holds whole numbers beyond 2^53 in {tally.rows:,} rows, {MOST:,} can be read exactly; store them as text")
            yield np.array([_hash(row[name]) for row in rows.head([name], tally.rows, newest=False)], dtype=np.int64)
            return
    for chunk in rows.column(name):
        yield np.fromiter(map(_hash, chunk.tolist()), np.int64, len(chunk))


def _hash(value: Any) -> int:
    return NONE if value is None or value != value else hash(value if isinstance(value, str) else spelled(value))


def spelled(value: Any) -> str:
    """A value as text: true, 7 (also for 7.0), 7.5."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def class_name(value: Any) -> str:
    """The one spelling of a class, whatever it was stored as: 1 for 1, 1.0, "1" and "1.0"; true for True and "True"."""
    text = spelled(value).strip()
    if text.lower() in ("true", "false"):
        return text.lower()
    whole, point, rest = text.partition(".")
    return whole if point and whole.lstrip("-").isdigit() and rest and not rest.strip("0") else text


def by_number(name: str) -> tuple[float, str]:
    """Classes in the order people expect: 2 before 10, words after numbers."""
    number = _number(name)
    return (number if number == number else float("inf"), name)


def _number(text: str) -> float:
    """The number a text says; NaN where it says none that is finite. Underscores and words such as "nan" are no digits."""
    try:
        value = float(text) if "_" not in text else float("nan")
    except ValueError:
        return {"true": 1.0, "false": 0.0}.get(text.strip().lower(), float("nan"))
    return value if abs(value) < float("inf") else float("nan")


def coded(rows: Columns, name: str) -> Coded:
    """A whole column as numbers, text and booleans by their place among its different values."""
    import numpy as np

    vocabulary: dict[str, int] = {}
    chunks = [_coded(chunk, vocabulary) for chunk in rows.column(name)]
    numeric = rows.kinds()[name] in ("number", "integer", "time")
    return Coded(np.concatenate([np.empty(0), *chunks]), None if numeric else tuple(vocabulary))


def _coded(values: Any, vocabulary: dict[str, int]) -> Any:
    import numpy as np

    if values.dtype == "float64":
        return values
    told = (np.nan if value is None else vocabulary.setdefault(spelled(value), len(vocabulary)) for value in values.tolist())
    return np.fromiter(told, np.float64, len(values))


def aligned(*columns: Iterator[Any] | None) -> Iterator[list[Any]]:
    """Columns read side by side in pieces of one length, however each is cut; DataError when one has more rows than another."""
    held: list[Any] = [None if one is None else [] for one in columns]
    while True:
        for place, one in enumerate(columns):
            while one is not None and not len(held[place]):
                held[place] = next(one, None)
                if held[place] is None:
                    break
        ended = [held[place] is None for place, one in enumerate(columns) if one is not None]
        if all(ended):
            return
        if any(ended):
            raise DataError("the labels changed while they were read; look again, or let their writer replace files whole")
        size = min(len(piece) for piece in held if piece is not None)
        yield [None if piece is None else piece[:size] for piece in held]
        held = [None if piece is None else piece[size:] for piece in held]


def truth_of(table: Columns, labels: Columns | None, label: str | None) -> Joined:
    """The labelled rows of a reference: its own column of that name (labels.label by default), else the labels joined by id."""
    import numpy as np

    declared = labels.declared.get("label") if labels is not None else None
    name = label or declared
    if name and name in table.kinds():
        whole = coded(table, name)
        places = np.flatnonzero(~np.isnan(whole.values))
        return Joined(table, places, Coded(whole.values[places], whole.names), len(whole.values))
    if labels is None or label:
        known = ", ".join(list(table.kinds())[:12])
        raise DataError(f"the reference has no column '{name or 'label'}' with the truth; name one with `label`, or bind labels (there is {known})")
    return join(table, labels)


def names_of(table: Columns, live: Columns) -> Mapping[str, Any]:
    """What the columns of a reference are called: as it declares, else as live does, where it has them."""
    there = table.kinds()
    inherited = {what: name for what, name in live.declared.items() if what not in ("score", "weight") or name in there}
    return {**inherited, **{key: value for key, value in table.declared.items() if value is not None}}
