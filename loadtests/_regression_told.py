"""A comparison with the pinned run, as a Verdict."""

from __future__ import annotations

from collections.abc import Sequence

from agent import Baseline, Reading, Verdict, nodata
from loadtests import _regression, _windows
from loadtests._regression import Floors, Shift
from loadtests._run import Ran
from loadtests._told import STATUS, kept, length, sent, unusable
from loadtests._windows import Windows

FILE = "yardstick.csv"
PIN = "pin a run that is as it should be: `watchkeeper baseline pin SERVICE WATCH --finding NUMBER --why '...'`"


def verdict(ran: Ran, baseline: Baseline | None, width: float, floors: Floors, at_least: int) -> Verdict:
    """The run against what was pinned. A whole run leaves its own windows, whatever comes of it, for a later pin."""
    if spoilt := unusable(ran):
        return kept(spoilt, ran)
    now = _windows.windows(ran.trace, width)
    return kept(_judged(ran, now, baseline, floors, at_least), ran, more={FILE: _windows.to_csv(now)})


def _judged(ran: Ran, now: Windows, baseline: Baseline | None, floors: Floors, at_least: int) -> Verdict:
    if baseline is None:
        return nodata(f"nothing is pinned to compare with; {PIN}\n{sent(ran)}")
    if FILE not in baseline.data:
        return nodata(f"what was pinned {_when(baseline)} is no finding of this check (it holds no {FILE}); {PIN}\n{sent(ran)}")
    then = _windows.from_csv(baseline.data[FILE])
    if why := _regression.unlike(then, now, at_least):
        return nodata(f"this run is not to be compared with the one pinned {_when(baseline)}: {why}; {PIN}\n{sent(ran)}")
    return _told(_regression.compared(then, now, floors, ran.traffic.timeout), ran, baseline, then, now)


def _told(found: Sequence[Shift], ran: Ran, baseline: Baseline, then: Windows, now: Windows) -> Verdict:
    first = found[0]
    said = {
        "fail": f"{words(first)} than pinned {_when(baseline)}, and surely so",
        "inconclusive": f"{words(first)} than pinned {_when(baseline)}; more windows would tell whether it matters",
        "pass": f"nothing got worse by what matters since {_when(baseline)}; nearest: {words(first)}",
    }[first.outcome]
    windows = f"{len(then)} windows of {then.seconds[0]:g} s against {len(now)}; valid for bursts much shorter than a window, one run against one run"
    lines = [f"{first.outcome.upper()}: {said}", *(f"{words(one)}, p = {one.p:.2g}: {one.outcome}" for one in found), windows, sent(ran)]
    return Verdict(STATUS[first.outcome], "\n".join(lines), reading(first), parts={one.name: reading(one) for one in found})


def words(one: Shift) -> str:
    """p99 is 134ms, 34ms more (20ms to 40ms; up to 10ms is too little to matter)."""
    low, high = (_amount(one, end) for end in one.interval)
    sign = "more" if one.shift >= 0 else "less"
    floor = f"up to {_amount(one, one.floor)} is too little to matter"
    verb = "are" if one.name == "errors" else "is"
    return f"{one.name} {verb} {_amount(one, one.now)}, {_amount(one, abs(one.shift))} {sign} ({low} to {high}; {floor})"


def reading(one: Shift) -> Reading:
    """How much more, beside what would be too much."""
    return Reading(one.shift, one.floor, one.interval, unit="share" if one.name == "errors" else "s")


def _amount(one: Shift, value: float) -> str:
    return f"{100 * value:.3g} %" if one.name == "errors" else ("-" if value < 0 else "") + length(abs(value))


def _when(baseline: Baseline) -> str:
    return f"{baseline.end_at:%Y-%m-%d %H:%M}Z"
