"""What is asked of a server that was just started, and what came of it as a Verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta

from agent import Columns, GoldenRow, Json, Reading, Registry, Server, Status, Verdict, fill, golden_rows, logged, spell, stats
from loadtests import _coldstart
from loadtests._coldstart import Start
from loadtests._told import STATUS, ends, finite, length

FRESH = "from the start of the process to its first good answer, on this machine and one at a time; under load it takes longer"
RECONNECTED = "over a new connection to a server that was there already: what loading the model takes is not in it (give `command` for that)"


def request(server: Server, registry: Registry | None, live: Columns | None, given: Json, absent: bool) -> Json:
    """The request to ask: what was given, with the newest logged inputs where it has a place for them, or a golden one; None when there is none.
    A server that is `absent` yet cannot tell which golden rows are its own: the newest version's are taken."""
    if given is None:
        golden = _newest(registry) if absent else golden_rows(server, registry)
        return golden[0].request if golden else None
    inputs = next(iter(logged(live, 1)), None) if live is not None else None
    filled = fill(given, inputs) if inputs is not None else None
    return given if filled is None else filled


def _newest(registry: Registry | None) -> Sequence[GoldenRow]:
    for version in reversed(registry.versions() if registry else ()):
        golden = registry.golden(version.version) if registry else None
        if golden and golden.rows:
            return golden.rows
    return ()


def verdict(found: Sequence[Start], cancelled: bool, limit: timedelta, share: float, confidence: float, fresh: bool) -> Verdict:
    """How many of the starts were in time, and how long they took."""
    seconds = limit.total_seconds()
    came, (low, high) = _coldstart.judged(found, seconds, share, confidence)
    good = sum(one.in_time(seconds) for one in found)
    middle = Reading(*_median([math.inf if one.until is None else one.until for one in found], seconds), n=len(found), unit="s")
    sure = f"between {100 * low:.3g} % and {100 * high:.3g} % of starts are, and {100 * share:.3g} % must be"
    said = f"{good} of {len(found)} starts gave a good answer within {spell(limit)} ({sure})"
    head = f"called off: {said} so far" if cancelled else f"{came.upper()}: {said}"
    status = Status.SKIP if cancelled else STATUS[came]
    lines = [head, *_lines(found), FRESH if fresh else RECONNECTED]
    parts = {"start": middle, "in time": Reading(good / max(1, len(found)), share, (low, high), len(found), "share")}
    return Verdict(status, "\n".join(lines), middle, parts=parts)


def _median(seconds: Sequence[float], limit: float) -> tuple[float | None, float, tuple[float, float] | None]:
    rising = sorted(seconds)
    if not rising:
        return None, limit, None
    return finite(stats.quantile(rising, 0.5)), limit, ends(stats.quantile_interval(rising, 0.5))


def _lines(found: Sequence[Start]) -> list[str]:
    return [
        f"start {number}: {one.said}"
        if one.until is None
        else f"start {number}: {length(one.until)}; the first answer itself took {length(one.first)}, those after it {length(one.after)}"
        for number, one in enumerate(found, 1)
    ]
