"""What was seen of a long run, window by window, and whether any of it creeps, as a Verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from agent import Metrics, Reading, Verdict, Window, spell
from agent.errors import DataError, TargetError
from loadtests import _soak, _windows
from loadtests._run import Ran
from loadtests._soak import Creep, Resident
from loadtests._told import STATUS, kept, length, sent, unusable
from loadtests._windows import Windows

MANY = 100  # windows of a soak
NEW_LINE = "\n"
UNSEEN = "the server's memory was not seen: give `memory` (a query of the metrics target) or `pid` (a process of this machine)"


@dataclass(frozen=True, slots=True)
class Ends:
    """What is too much at any time: seconds of p99, share of errors, bytes of memory (None: twice what it began with); and how soon is soon."""

    latency: float
    errors: float
    memory: float | None
    horizon: timedelta


def verdict(ran: Ran, ends: Ends, memory: Any, unseen: str = UNSEEN) -> Verdict:
    """`memory` are bytes for each window, NaN where they were not seen; None where none were, which `unseen` says why."""
    spoilt = unusable(ran)
    if spoilt and (ran.unfit or not len(ran.trace.intended)):
        return kept(spoilt, ran)
    table = cut(ran)
    found = creeps(ran, table, ends, memory)
    first = found[0]
    if spoilt and first.outcome != "fail":
        status, head = spoilt.status, f"{spoilt.reason.partition(NEW_LINE)[0]}: {words(first, ends)} so far"
    else:
        status, head = STATUS[first.outcome], _headline(ran, first, found, ends)
    lines = [head, *(words(one, ends) for one in found), *([] if memory is not None else [unseen]), sent(ran)]
    told = Verdict(status, NEW_LINE.join(lines), reading(first), parts={one.name: reading(one) for one in found})
    return kept(told, ran, more={"soak.csv": _windows.to_csv(table, **({} if memory is None else {"memory": memory}))})


def cut(ran: Ran) -> Windows:
    """The run in a hundred windows."""
    return _windows.windows(ran.trace, max(float(ran.trace.intended.max()) / MANY, 1e-3))


def creeps(ran: Ran, table: Windows, ends: Ends, memory: Any) -> tuple[Creep, ...]:
    """p99, p50, errors, and memory where it was seen; the worst first. A window whose quantile had no answer counts as the timeout."""
    import numpy as np

    hours, middle = ends.horizon.total_seconds() / _soak.HOUR, table.start + table.seconds / 2
    share = np.where(table.n > 0, table.errors / np.maximum(table.n, 1), np.nan)
    seen = [(name, "s", np.minimum(getattr(table, name), ran.traffic.timeout), ends.latency) for name in ("p99", "p50")]
    seen.append(("errors", "share", share, ends.errors))
    if memory is not None:
        began = memory[~np.isnan(memory)][: max(1, MANY // _soak.LATELY)]
        seen.append(("memory", "B", memory, ends.memory or (2 * float(np.median(began)) if len(began) else math.inf)))
    found = [_soak.creep(name, unit, middle, values, limit, hours) for name, unit, values, limit in seen]
    return tuple(sorted(found, key=lambda one: ("fail", "inconclusive", "pass").index(one.outcome)))


def _headline(ran: Ran, first: Creep, found: Sequence[Creep], ends: Ends) -> str:
    seen, passed = ", ".join(one.name for one in found), spell(timedelta(seconds=ran.whole.wall))
    valid = f"valid for bursts shorter than a window of {spell(ran.asked.duration / MANY)}"
    early = f" (aborted after {passed}: {ran.trace.aborted})" if ran.trace.aborted else ""
    if first.outcome == "pass":
        return f"PASS: none of {seen} would reach its limit within {spell(ends.horizon)}, as {passed} of it show; {valid}"
    return f"{first.outcome.upper()}: {words(first, ends)}{early}; {valid}"


def words(one: Creep, ends: Ends) -> str:
    """memory is 2.1 GB and rises by 100 MB an hour (98 to 102): it would reach 2.4 GB in 3h."""
    if not math.isfinite(one.level):
        return f"{one.name} was seen in {one.n} windows; {_soak.LEAST} are needed for a slope"
    low, high = (amount(one, end) for end in one.interval)
    now = f"{one.name} {'are' if one.name == 'errors' else 'is'} {amount(one, one.level)}, limit {amount(one, one.limit)}"
    slope = f"{amount(one, one.slope)} an hour (interval {low} to {high})"
    if one.why == "above its limit at the end":
        return f"{now}, above it at the end of the run; slope {slope}"
    if one.reaches < math.inf and timedelta(hours=min(one.reaches, 1e6)) <= ends.horizon:
        sure = "" if one.outcome == "fail" else ", if it rises at all"
        return f"{now}; slope {slope}: it would reach its limit in {spell(timedelta(hours=one.reaches))}{sure}"
    return f"{now}; slope {slope}"


def amount(one: Creep, value: float) -> str:
    """A value in the unit of what creeps."""
    sign = "-" if value < 0 else ""
    if one.unit == "s":
        return sign + length(abs(value))
    if one.unit == "share":
        return f"{100 * value:.3g} %"
    size = next((size for size in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if abs(value) >= size[0]), (1.0, "B"))
    return f"{value / size[0]:.3g} {size[1]}"


def reading(one: Creep) -> Reading:
    """The slope an hour; n are windows."""
    interval = one.interval if all(map(math.isfinite, one.interval)) else None
    return Reading(one.slope, interval=interval, n=one.n, unit=f"{one.unit}/h")


# The server's memory


def memory(ran: Ran, resident: Resident | None, metrics: Metrics | None, query: str) -> tuple[Any, str]:
    """Bytes for each window; or None and why nothing was seen."""
    if resident is not None and len(ran.trace.intended):
        return read(resident, ran), ""
    return queried(metrics, query, ran) if metrics is not None and query and len(ran.trace.intended) else (None, UNSEEN)


def queried(metrics: Metrics, query: str, ran: Ran) -> tuple[Any, str]:
    """The query's value at the end of each window, its series added up, NaN where it gave none; or None and why the store could not be asked. An
    hour's run is not thrown away for that."""
    import numpy as np

    table, found = cut(ran), []
    for start, seconds in zip(table.start.tolist(), table.seconds.tolist(), strict=True):
        begins = ran.trace.began_at + timedelta(seconds=start)
        try:
            series = metrics.query(query, Window(begins, begins + timedelta(seconds=seconds))).series
        except (TargetError, DataError) as problem:
            return None, f"the server's memory was not seen: {problem}"
        found.append(sum(one.value for one in series) if series else math.nan)
    return np.array(found), ""


def read(resident: Resident, ran: Ran) -> Any:
    """What was read of the process in each window."""
    import numpy as np

    table = cut(ran)
    edges = [*table.start.tolist(), float(table.start[-1] + table.seconds[-1])]
    return resident.over([edge + ran.warmed for edge in edges]) if resident.at else np.full(len(table), np.nan)
