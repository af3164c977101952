"""How far the model makes the data that it will learn from: by rows that it did not decide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from agent import Columns, Json, Reading, Verdict, Window, check, fail, nodata, ok, warn
from agent.errors import DataError
from checks._labels import class_name


@check(pillar="learning", asks="Is the model's influence on its own future training data measured?", severity="ticket", answers=("DATA-10",))
def holdout(
    live: Columns,
    window: Window | None = None,
    *,
    column: str,
    held: str = "1",
    outcome: str | None = None,
    share: float = 0.01,
    rows_at_least: int = 100,
) -> Verdict:
    """Counts the rows that were decided at random (where `column` is `held`), and compares the mean `outcome` of theirs with that of the others: the
    difference, with its 95 % interval, is what the model's decisions do to its labels (Jiang et al. 2019, feedback loops).

    At least `share` of the rows held out, and the gap measured on 30 of each: ok. Held out with no outcome to compare, or fewer: warns. None fails.
    """
    rows = live if window is None else live.between(window.start, window.end)
    known = rows.kinds()
    for name in (column, *([outcome] if outcome else [])):
        if name not in known:
            raise DataError(f"there is no column '{name}'; there is {', '.join(list(known)[:12])}")
    out, others, n, held_out = _sides(rows, column, held, outcome)
    if n < rows_at_least:
        return nodata(f"{n} rows; {rows_at_least} are needed", Reading(n, rows_at_least, unit="rows"))
    part = held_out / n
    reading = Reading(part, share, n=n)
    told = f"{held_out} of {n} rows ({part:.2%}) were decided at random"
    if not held_out:
        return fail(f"{told}: what the model does to its own labels cannot be told", reading)
    if min(len(out), len(others)) < 30:
        return warn(
            f"{told}; {'no outcome is named to compare' if outcome is None else f'{len(out)} of them have an outcome, and 30 are needed'}", reading
        )
    gap, reach = _mean(out) - _mean(others), 1.96 * math.sqrt(_spread(out) / len(out) + _spread(others) / len(others))
    parts = {"gap": Reading(gap, None, (gap - reach, gap + reach), len(out))}
    words = f"{told}; their {outcome} is {gap:+.4g} from that of the others (95 % interval {gap - reach:.4g} to {gap + reach:.4g})"
    return (ok if part >= share else warn)(words, reading, parts=parts)


def _sides(rows: Columns, column: str, held: str, outcome: str | None) -> tuple[list[float], list[float], int, int]:
    """Outcomes of the rows held out and of the others, how many rows there are, and how many are held out."""
    out: list[float] = []
    others: list[float] = []
    n = kept = 0
    for chunk in rows.chunks([column, *([outcome] if outcome else [])]):
        marks = [_spelled(cell) == held.lower() for cell in chunk[column].tolist()]
        n, kept = n + len(marks), kept + sum(marks)
        for mark, value in zip(marks, chunk[outcome].tolist(), strict=True) if outcome else ():
            if isinstance(value, int | float) and math.isfinite(value):
                (out if mark else others).append(float(value))
    return out, others, n, kept


def _spelled(cell: Any) -> Json:
    return "" if cell is None or cell != cell else class_name(cell).lower()


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _spread(values: Sequence[float]) -> float:
    middle = _mean(values)
    return math.fsum((value - middle) ** 2 for value in values) / (len(values) - 1)
