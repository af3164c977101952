"""What a tally asks, as SQL over one expression a column, and what an engine answered, as a Tally."""

# ruff: noqa: S608 - SQL is what this file writes: names and values come out of the Dialect, which quotes them

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

from agent import Ask, Tally
from agent.targets import _tally
from agent.targets._dialect import Dialect

AT_ONCE = 1_000  # results of one SELECT: engines have their limits


@dataclass(frozen=True, slots=True)
class Value:
    """A column in SQL: a double, text or boolean, null where that counts as null; of what is only `present` nothing but nulls is counted."""

    sql: str
    form: Literal["number", "text", "boolean", "present"]


Asked = Sequence[tuple[Ask, Value]]


def statements(asked: Asked, say: Dialect, rows: str, many: int) -> list[str]:
    """One SELECT of all that is a single number, in several only where it would be too wide; then one that counts by value, where that is asked.

    `rows` is what stands after FROM: table and condition.
    """
    seen = [_seen([pair], place, rows) for place, pair in enumerate(asked)]
    wide = [_wide(asked[first:last], first, say, rows) for first, last in _portions(asked, say)]
    tall = [part for place, (ask, value) in enumerate(asked) for part in _tall(ask, value, place, say, seen[place], many)]
    return [*wide, *([" UNION ALL ".join(tall)] if tall else [])]


def _seen(asked: Asked, first: int, rows: str) -> str:
    columns = ", ".join(f"{value.sql} AS v{place}" for place, (_, value) in enumerate(asked, first))
    return f"(SELECT {columns} FROM {rows}) AS seen"


def _portions(asked: Asked, say: Dialect) -> Iterator[tuple[int, int]]:
    first, width = 0, 0
    for place, (ask, value) in enumerate(asked):
        more = len(_singles(ask, value, place, say))
        if width and width + more > AT_ONCE:
            yield first, place
            first, width = place, 0
        width += more
    yield first, len(asked)


def _wide(asked: Asked, first: int, say: Dialect, rows: str) -> str:
    cells = ["count(*)", *(cell for place, (ask, value) in enumerate(asked, first) for cell in _singles(ask, value, place, say))]
    return f"SELECT {', '.join(cells)} FROM {_seen(asked, first, rows) if asked else rows}"


def _singles(ask: Ask, value: Value, place: int, say: Dialect) -> list[str]:
    """What is known, and of numbers the lowest, the highest, the sum, and how many are at most each cut."""
    v = f"v{place}"
    if value.form != "number":
        return [f"count({v})"]
    cells = [f"count(CASE WHEN {v} <= {say.number(cut)} THEN 1 END)" for cut in ask.cuts]
    return [f"count({v})", f"min({v})", f"max({v})", f"sum({v})", *cells]


def _tall(ask: Ask, value: Value, place: int, say: Dialect, seen: str, many: int) -> Iterator[str]:
    """A SELECT of (place, text, number, count) where keys or the most frequent are asked for."""
    v = f"v{place}"
    if not (ask.keys or ask.top) or value.form == "present":
        return
    cells = _key_cells(value, v, say)
    by_value = f"SELECT {v}, count(*) AS n FROM {seen} WHERE {v} IS NOT NULL"
    if not ask.top:
        keys = [key for key in (_as_held(key, value) for key in ask.keys) if key is not None]
        yield f"SELECT {place}, {cells}, n FROM ({by_value} AND {say.is_in(v, keys)} GROUP BY {v}) AS kept"
    elif value.form == "text":
        yield f"(SELECT {place}, {cells}, n FROM ({by_value} GROUP BY {v}) AS found ORDER BY n DESC, {v}{say.binary} LIMIT {ask.top})"
    else:
        ranked = f"SELECT {v}, n, rank() OVER (ORDER BY n DESC) AS place FROM ({by_value} GROUP BY {v}) AS found"
        yield f"(SELECT {place}, {cells}, n FROM ({ranked}) AS ranked WHERE place <= {ask.top} LIMIT {many + 1})"


def _key_cells(value: Value, v: str, say: Dialect) -> str:
    """A value as text, or as a number that is spelled when it is here."""
    if value.form == "number":
        return f"{say.as_text('NULL')}, {v}"
    text = v if value.form == "text" else f"CASE WHEN {v} THEN 'true' ELSE 'false' END"
    return f"{text}, {say.as_double('NULL')}"


def _as_held(key: str, value: Value) -> Any:
    """A key as the column would hold it; None where nothing in it is spelled like that."""
    if value.form == "text":
        return key
    if value.form == "boolean":
        return {"true": True, "false": False}.get(key)
    try:
        number = float(key)
    except ValueError:
        return None
    return number if _tally.spelled(number) == key and number == number else None


# What came back


def read(asked: Asked, answers: Sequence[Sequence[Sequence[Any]]], say: Dialect, many: int) -> dict[str, Tally]:
    """Column name -> Tally; without those of which more than `many` values came."""
    wide = len(list(_portions(asked, say)))
    singles = iter([cell for ((_, *cells),) in answers[:wide] for cell in cells])
    rows = int(answers[0][0][0])
    tall: dict[int, list[Sequence[Any]]] = {}
    for place, *cell in (row for answer in answers[wide:] for row in answer):
        tall.setdefault(int(place), []).append(cell)
    found = {}
    for place, (ask, value) in enumerate(asked):
        tally = _single(ask, value, rows, [next(singles) for _ in _singles(ask, value, place, say)])
        if len(tall.get(place, ())) <= many:
            found[ask.column] = _keyed(ask, tally, tall.get(place, ()))
    return found


def _single(ask: Ask, value: Value, rows: int, cells: Sequence[Any]) -> Tally:
    known = int(cells[0])
    if value.form != "number":
        return Tally(rows, rows - known)
    low, high, total = (None if not known else float(cell) for cell in cells[1:4])
    upto = [0, *map(int, cells[4:]), known]
    counts = tuple(b - a for a, b in pairwise(upto)) if ask.cuts else ()
    return Tally(rows, rows - known, low, high, total, counts)


def _keyed(ask: Ask, tally: Tally, tall: Sequence[Sequence[Any]]) -> Tally:
    """Keys are spelled here, once for every engine; what was not named is counted under None."""
    if not (ask.keys or ask.top):
        return tally
    found: Counter[str | None] = Counter()
    for text, number, n in tall:
        found[str(text) if number is None else _tally.spelled(float(number))] += int(n)
    kept: dict[str | None, int] = {key: found[key] for key in ask.keys}
    if ask.top:
        kept = dict(_tally.finished(ask, replace(tally, by_key=found)).by_key)
    named = sum(n for key, n in kept.items() if key is not None)
    return replace(tally, by_key={**kept, None: tally.rows - tally.nulls - named})
