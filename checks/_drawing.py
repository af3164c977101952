"""Pictures of an alarm: how the evidence grew, and where the columns that moved are now; from counts alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from checks._evidence import Layout, Sums
from checks._picture import Shape, column, path, sheet
from checks._profile import Column

DRAWN = 12  # columns


def evidence(memory: Sums, run_length: float) -> bytes:
    """The evidence of the last windows against the run length, on a log scale."""
    values = [10**value for value in memory.path]
    labels = f"{len(values)} windows", f"{memory.until_at:%Y-%m-%d %H:%M}Z"
    return path(values, run_length, "Evidence, in windows", f"an alarm at {run_length:,.0f}", log=True, labels=labels).encode()


def moved(plan: Layout, hits: Any, rows: Any, names: Sequence[str], said: dict[str, str]) -> bytes:
    """The cells of each of these columns, the reference's shares under those of live."""
    found = {one.name: (one, [int(stream) for stream in (plan.of == place).nonzero()[0]]) for place, one in enumerate(plan.columns)}
    drawn = [column(name, said.get(name, ""), _cells(*found[name], plan, hits, rows)) for name in names[:DRAWN] if name in found]
    return sheet(drawn).encode() if drawn else b""


def _cells(one: Column, streams: list[int], plan: Layout, hits: Any, rows: Any) -> Shape:
    """Between cuts where there are cuts, else by key; and nulls."""
    ours = [float(hits[stream]) for stream in streams]
    theirs = [float(plan.shares[stream] * plan.rows[stream]) for stream in streams]
    names, live, reference = ["null"], [ours[-1]], [theirs[-1]]
    if one.cuts:
        last = len(one.cuts)
        names = [f"≤ {one.cuts[0]:.4g}", *(f"≤ {cut:.4g}" for cut in one.cuts[1:]), f"> {one.cuts[-1]:.4g}", *names]
        live = [*_steps(ours[:last], float(rows[streams[0]])), *live]
        reference = [*_steps(theirs[:last], float(plan.rows[streams[0]])), *reference]
    else:
        rest = [f"({name})" for name in one.rest[:1]]  # whatever is no key; a number that is never finite has keys and no more
        kept = len(one.keys) + len(rest)
        names, live, reference = [*one.keys, *rest, *names], [*ours[:kept], *live], [*theirs[:kept], *reference]
    return Shape(tuple(map(round, live)), tuple(map(round, reference)), names=tuple(names))


def _steps(below: Sequence[float], known: float) -> list[float]:
    return [after - before for before, after in zip([0.0, *below], [*below, known], strict=True)]
