"""A search for the capacity, run by run, and its Verdict: the last rate that passed, the first that failed, and what bounded the search."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from agent import Load, Reading, Status, Verdict, spell
from agent.errors import WatchkeeperError
from loadtests import _run, _told
from loadtests._asked import Asked
from loadtests._capacity import Attempt, Bracket, Plan, bracket, following
from loadtests._requests import Laid
from loadtests._run import Tell
from loadtests._told import STATUS

PER_SECOND = "requests/s"


@dataclass(frozen=True, slots=True)
class Search:
    """What a search is made of: the first run as it was asked for, what is claimed of each, and how long all may take together."""

    asked: Asked
    plan: Plan
    drain: float  # seconds between two runs, for the service to empty its queues
    duration: timedelta


def searched(of: Search, load: Load, laid: Laid, scratch: Path, tell: Tell, at_least: float | None) -> Verdict:
    """Run after run until the bracket is narrow enough and confirmed, time is up, it is called off, or a run comes to nothing."""
    done: list[Attempt] = []
    parts: dict[str, Reading] = {}
    spent, stopped, cancelled = 0.0, "", False
    while not stopped and (step := following(done, of.plan)):
        rate, seconds = step
        if spent + seconds > of.duration.total_seconds():
            stopped = f"the {spell(of.duration)} of the search were used up before it ended"
            break
        time.sleep(of.drain if done else 0.0)
        asked = replace(of.asked, rate=rate, duration=timedelta(seconds=seconds), seed=of.asked.seed + len(done))
        try:
            ran = _run.run(
                asked, load, laid, scratch, _of_it(tell, rate, seconds, spent, of), min(one.limit for one in of.asked.claims), f"run-{len(done)}"
            )
        except WatchkeeperError as problem:
            if not done:
                raise
            stopped = f"the run at {rate:.4g} a second came to nothing: {problem}"
            break
        spent += ran.whole.wall
        if cancelled := ran.cancelled:
            stopped = "called off"
            break
        made, reading = _attempt(of, ran, rate, seconds)
        done.append(made)
        parts[f"{reading[0]} at {rate:.4g}/s"] = reading[1]
    return _verdict(bracket(done, of.plan) if done else None, at_least, parts, stopped, cancelled, of.asked.burst)


def _of_it(tell: Tell, rate: float, seconds: float, spent: float, of: Search) -> Tell:
    """Progress of one run as that of the whole: the share of the time that is used up."""
    return lambda done, what: tell(min(1.0, (spent + done * seconds) / of.duration.total_seconds()), f"{rate:.4g} a second: {what}")


def _attempt(of: Search, ran: _run.Ran, rate: float, seconds: float) -> tuple[Attempt, tuple[str, Reading]]:
    """What one run says. One that had to be given up, by what `load:` sets as too much, was too much."""
    found = _told.answered(ran)
    came, first = _told.outcome(ran, found), found[0]
    why = f"aborted: {ran.trace.aborted}; {_told.in_words(first)}" if ran.trace.aborted else _told.in_words(first)
    if ran.unfit:
        made = Attempt(rate, seconds, "unfit", ran.unfit[0])
    elif came in ("fail", "invalid"):
        made = Attempt(rate, seconds, "fail", why)
    else:
        made = Attempt(rate, seconds, "pass" if came == "pass" else "inconclusive", why)
    return made, (first.name, _told.reading(first))


def _verdict(found: Bracket | None, at_least: float | None, parts: Mapping[str, Reading], stopped: str, cancelled: bool, burst: timedelta) -> Verdict:
    if found is None:
        return Verdict(Status.SKIP if cancelled else Status.NODATA, f"no run was finished: {stopped or 'there was nothing to try'}")
    came = outcome(found, at_least)
    needed = f", and {at_least:g} a second are needed" if at_least else ""
    between = f"[{found.low:.4g}, {found.high:.4g}]" if math.isfinite(found.high) else f"[{found.low:.4g}, no FAIL up to {_highest(found):.4g}]"
    head = f"{came.upper()}: {found.why}: last PASS, first FAIL {between}{needed}; valid for bursts up to {spell(burst)}"
    confirmed = f"confirmed by a longer run at {found.confirmed:.4g} a second" if found.confirmed else "not confirmed by a longer run"
    lines = [head, *([stopped] if stopped else []), confirmed, *(_line(one) for one in found.attempts)]
    status = Status.SKIP if cancelled else STATUS[came]
    interval = (found.low, found.high) if math.isfinite(found.high) else None
    reading = Reading(found.low, at_least, interval, len(found.attempts), PER_SECOND)
    return Verdict(status, "\n".join(lines), reading, parts=parts, data={"capacity.csv": _csv(found)})


def outcome(found: Bracket, at_least: float | None) -> str:
    """Whether the capacity is enough, where it is said how much is needed; else whether one was found.

    A rate that passed under every lower one that was tried is enough; a rate that failed is not; generator-bound below what is needed is invalid.
    """
    if at_least is not None:
        if found.low >= at_least:
            return "pass"
        if found.high <= at_least:
            return "fail"
        return "invalid" if found.end == "generator" else "inconclusive"
    if found.end == "nothing":
        return "fail" if math.isfinite(found.high) else "inconclusive"
    return "inconclusive" if found.end == "unsettled" else "pass"


def _highest(found: Bracket) -> float:
    return max(one.rate for one in found.attempts)


def _line(one: Attempt) -> str:
    return f"{one.rate:.4g} a second for {one.seconds:.4g} s: {one.outcome.upper()}, {one.why}"


def _csv(found: Bracket) -> bytes:
    told = io.StringIO()
    write = csv.writer(told, lineterminator="\n")
    write.writerow(("rate", "seconds", "outcome", "why"))
    write.writerows((one.rate, one.seconds, one.outcome, one.why) for one in found.attempts)
    return told.getvalue().encode()
