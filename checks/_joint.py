"""All columns as one: the one-shot comparison and the sequential one, from matrices to a Verdict in words."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from agent import Reading, Verdict, Window, fail, nodata, ok, to_json, warn
from agent.errors import DataError
from checks import _bettor, _discriminant, _mmd
from checks._columns import Note, left_out
from checks._discriminant import Apart
from checks._sides import Sides

ONCE = 20_000  # rows read of a table that is looked at once
OFTEN = 40_000  # and of those of a sequential test, whose margin they make
REFERENCE = 200  # rows of the reference, below which the sequential test has nothing to say
LEFT = "left out"
Moved = dict[str, tuple[float, tuple[float, float]]]


def nothing(left: Sequence[Note]) -> Verdict:
    return nodata(f"no column could be compared{left_out(left, LEFT)}")


def compared(both: Sides, sizes: tuple[int, int], level: float, floor: float, permutations: int, drawn: int) -> Verdict:
    """The verdict of `drift.multivariate` on two tables of these sizes."""
    test = _mmd.test(both.live, both.b, permutations, drawn)
    where, a = _discriminant.prepared(both.a, drawn)
    then = _discriminant.moments(where, a)
    taught = _discriminant.moments(where, both.live[::2])
    apart = _discriminant.apart(list(_discriminant.rules(where, a, then, taught.mean, taught.n)), both.live[1::2], both.b)
    moved = _discriminant.standing_out(both.labels, where, then, _discriminant.moments(where, both.live))
    p = min(1.0, 2 * min(test.p, apart.p))
    reading = Reading(apart.share, floor, apart.interval, apart.n)
    found = {"p": p, "kernel": to_json(test), "classifier": to_json(apart), "columns": both.labels, "left_out": to_json(both.left), "moved": moved}
    more: dict[str, Any] = {"parts": _parts(moved, len(both.live)), "data": {"multivariate.json": json.dumps(found, indent=1).encode()}}
    tests = f"p = {p:.2g}: kernel {test.p:.2g} by {test.how}, classifier {apart.p:.2g}"
    about = f"{sizes[0]} rows against {sizes[1]}, {both.columns} column{'' if both.columns == 1 else 's'}; {tests}"
    if p <= level and apart.interval[0] > floor:
        return fail(
            f"{_share(apart)} of the rows would have to change (limit {floor:.0%}; {about}){_mostly(moved)}{left_out(both.left, LEFT)}",
            reading,
            **more,
        )
    if p <= level:
        calm = f"different, but not surely by more than {floor:.0%} of the rows: {_share(apart)} ({about}){_mostly(moved)}"
    else:
        calm = f"no difference found ({about}; {_smallest(apart, floor):.0%} of the rows must differ to be called at these sizes)"
    return (warn if any(one.changed for one in both.left) else ok)(f"{calm}{left_out(both.left, LEFT)}", reading, **more)


def _share(apart: Apart) -> str:
    return f"{max(0.0, apart.share):.0%} ({apart.interval[0]:.0%} to {apart.interval[1]:.0%})"


def _smallest(apart: Apart, floor: float) -> float:
    """The share whose interval would just begin at the floor, were the classifier to see all of it."""
    from agent.stats import difference

    n, m = apart.n, apart.n_reference
    level = 1 - (1 - _discriminant.LEVEL) / (2 * len(_discriminant.SHARES))
    for share in range(math.ceil(floor * 100), 101):
        hits, then = (round((0.5 + sign * share / 200) * size) for sign, size in ((1, n), (-1, m)))
        if difference(hits, n, then, m, level)[0] > floor:
            return share / 100
    return 1.0


def _parts(moved: Moved, n: int) -> dict[str, Reading]:
    return {name: Reading(far, None, interval, n, "sd") for name, (far, interval) in moved.items()}


def _mostly(moved: Moved) -> str:
    words = [f"{name} by {far:+.2g} sd" for name, (far, _) in list(moved.items())[:3]]
    return f"; mostly {', '.join(words)}" + (f" and {len(moved) - 3} more" if len(moved) > 3 else "") if words else ""


# The sequential one


def bet(both: Sides, window: Window, run_length: float, memory: _bettor.Bets | None, tolerance: float, cluster: int) -> Verdict:
    """The verdict of `drift.embedding` on one more window, with what to remember."""
    if not 0 <= tolerance < 1:
        raise DataError(f"tolerance: {tolerance:g} is no share of rows; write one from 0 to below 1")
    seal = both.seal
    afresh = memory is not None and memory.seal != seal
    kept = memory if memory is not None and not afresh else _bettor.Bets(seal)
    reference = _bettor.known(both.a, both.b)
    after, streams = _bettor.play(kept, reference, both.live, tolerance, run_length, cluster)
    note = "; started afresh: the reference or its columns changed" if afresh else ""
    return _told(both, reference, replace(after, end_at=window.end), streams, run_length, tolerance, f"{left_out(both.left, LEFT)}{note}")


def _told(
    both: Sides, reference: _bettor.Known, after: _bettor.Bets, streams: list[_bettor.Stream], run_length: float, tolerance: float, notes: str
) -> Verdict:
    n = len(both.live)
    if not streams:
        return nodata(f"{n} rows of the first window are learnt from, {len(both.b)} of the reference kept to test on{notes}", memory=after)
    evidence = math.exp(_bettor.log_mean(after.log_sums))
    moved = _discriminant.standing_out(both.labels, reference.where, reference.then, _discriminant.moments(reference.where, both.live))
    best = max(streams, key=lambda one: one.hits / one.n - one.bound)
    rates = f"{best.hits / best.n:.0%} of {n} rows are called live, of the reference at most {best.bound:.0%}, {tolerance:.0%} tolerated"
    reading = Reading(evidence, run_length, n=n)
    found = {"evidence": evidence, "run_length": run_length, "bets": after.bets, "streams": to_json(streams), "left_out": to_json(both.left)}
    more: dict[str, Any] = {
        "parts": _parts(moved, n),
        "data": {"embedding.json": json.dumps({**found, "moved": moved}, indent=1).encode()},
        "memory": after,
    }
    if after.alarmed:
        return fail(f"evidence {evidence:.3g} of {run_length:.3g}: {rates}{_mostly(moved)}{notes}", reading, **more)
    said = f"evidence {evidence:.2g} of {run_length:.3g} after {after.bets} windows: {rates}{notes}"
    return (warn if any(one.changed for one in both.left) else ok)(said, reading, **more)
