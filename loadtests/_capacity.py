"""How much a service bears: doubling to bracket the limit, bisecting on the logarithm of the rate, and one long run to confirm. Logic only.

What to do next follows from what was done, so a search is a list of attempts. A rate counts as borne when it passed and every lower one tried did;
only a FAIL ends the bracket above. What stays INCONCLUSIVE when extended steers the search down like a FAIL, and is then closed in from both sides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

End = Literal["found", "ceiling", "generator", "nothing", "unsettled"]
BENEATH = 0.95  # the highest rate that passed is confirmed by a long run at this share of it
STEPS = 60  # runs at most, whatever they say


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one run at one rate said. `unfit`: the generator could not keep up, so it says nothing of the service."""

    rate: float
    seconds: float
    outcome: Literal["pass", "fail", "inconclusive", "unfit"]
    why: str = ""


@dataclass(frozen=True, slots=True)
class Bracket:
    """The capacity in requests a second: at least `low`, the last PASS (0: none), and under `high`, the first FAIL (infinite: none)."""

    low: float
    high: float
    end: End
    confirmed: float | None  # the rate of the long run that passed at the end
    attempts: tuple[Attempt, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """How to search: rates in requests a second, lengths of runs in seconds."""

    start: float
    ceiling: float
    floor: float
    seconds: float
    longest: float
    width: float


def search(
    attempt: Callable[[float, float], Attempt],
    *,
    start: float,
    ceiling: float,
    seconds: float,
    longest: float | None = None,
    floor: float | None = None,
    width: float = 1.1,
    drain: Callable[[], None] = lambda: None,
) -> Bracket:
    """Runs `attempt(rate, seconds)` from `start` on until the bracket's ends are at most `width` apart, as a ratio, and its lower one is confirmed.

    No rate is above `ceiling` or under `floor` (default: a thousandth of `start`). A run lasts `seconds`, or `longest` (default: four times that) to
    confirm and where it was INCONCLUSIVE, and twice `longest` where nothing else would narrow the bracket. `drain()` is called between two runs:
    there the caller lets the service empty its queues.
    """
    plan = Plan(start, ceiling, floor or start / 1000, seconds, longest or 4 * seconds, width)
    if not 0 < plan.floor <= start <= ceiling < math.inf or not 0 < seconds <= plan.longest < math.inf or not 1 < width < math.inf:
        raise ValueError(f"this is no search: {plan}")
    done: list[Attempt] = []
    while step := following(done, plan):
        if done:
            drain()
        done.append(replace(attempt(*step), rate=step[0], seconds=step[1]))  # as asked: a run that is a little shorter is not asked for again
    return bracket(done, plan)


def following(done: Sequence[Attempt], plan: Plan) -> tuple[float, float] | None:
    """The rate and the seconds of the next run; None when the search is over."""
    if len(done) >= STEPS:
        return None
    if not done:
        return plan.start, plan.seconds
    last = done[-1]
    if last.outcome == "inconclusive" and last.seconds < plan.longest:
        return last.rate, plan.longest
    if last.outcome == "unfit" and [(one.rate, one.outcome) for one in done[-2:]] != [(last.rate, "unfit")] * 2:
        return last.rate, last.seconds
    seen = _seen(done, plan)
    if (rate := _further(seen, plan)) is not None:
        return rate, seen.long if seen.unclear or seen.long > plan.longest else plan.seconds
    return None if not seen.low or _confirmed(done, seen) else (BENEATH * seen.low, seen.long)


@dataclass(frozen=True, slots=True)
class _Seen:
    low: float  # the highest rate that passed and under which all did
    high: float  # the lowest that failed
    barrier: float  # the lowest for which the generator was unfit
    unclear: tuple[float, ...]  # rising, under both: runs of `long` seconds could not tell
    lowest: float
    long: float

    @property
    def top(self) -> float:
        return min(self.high, self.barrier)


def _seen(done: Sequence[Attempt], plan: Plan) -> _Seen:
    """The last word on each rate, put in order. Where long runs leave the bracket too wide, only ones twice as long count as unclear."""
    seen = _ordered(done, plan.longest)
    if not seen.low or not seen.unclear or seen.top <= plan.width * seen.low or _further(seen, plan) is not None:
        return seen
    return _ordered(done, 2 * plan.longest)


def _ordered(done: Sequence[Attempt], long: float) -> _Seen:
    last = {one.rate: one.outcome for one in sorted(_last(done), key=lambda one: one.rate) if one.outcome != "inconclusive" or one.seconds >= long}
    low = 0.0
    for rate, outcome in last.items():
        if outcome != "pass":
            break
        low = rate
    high, barrier = (min((rate for rate, outcome in last.items() if outcome == word), default=math.inf) for word in ("fail", "unfit"))
    unclear = tuple(rate for rate, outcome in last.items() if outcome == "inconclusive" and rate < min(high, barrier))
    return _Seen(low, high, barrier, unclear, min(one.rate for one in done), long)


def _last(done: Sequence[Attempt]) -> list[Attempt]:
    return list({one.rate: one for one in done}.values())


def _further(seen: _Seen, plan: Plan) -> float | None:
    """The next rate that would narrow the bracket."""
    if not seen.low:
        return seen.lowest / 2 if seen.lowest / 2 >= plan.floor else None
    highest = seen.unclear[-1] if seen.unclear else seen.low
    if seen.top == math.inf and highest < plan.ceiling:
        return min(2 * highest, plan.ceiling)
    if seen.top <= plan.width * seen.low or (not seen.unclear and seen.top == math.inf):
        return None
    edges = (seen.low, *(seen.unclear[:1]), *(seen.unclear[-1:]), *((seen.top,) if seen.top < math.inf else ()))
    below, above = edges[:2], edges[-2:]
    near, far = max(below, above, key=lambda gap: gap[1] / gap[0])
    return math.sqrt(near * far) if far / near > plan.width ** (1 / 16) else None


def _confirmed(done: Sequence[Attempt], seen: _Seen) -> float | None:
    """The rate of a long run that passed a little beneath the lower end."""
    near = (one.rate for one in done if one.outcome == "pass" and one.seconds >= seen.long and BENEATH * seen.low * (1 - 1e-9) <= one.rate < seen.low)
    return max(near, default=None)


def bracket(done: Sequence[Attempt], plan: Plan) -> Bracket:
    """What the attempts came to."""
    seen = _seen(done, plan)
    confirmed = _confirmed(done, seen)
    end = _end(seen, confirmed, plan)
    return Bracket(seen.low, seen.high, end, confirmed, tuple(done), _why(end, seen, plan))


def _end(seen: _Seen, confirmed: float | None, plan: Plan) -> End:
    if not seen.low:
        return "nothing"
    if confirmed is None:
        return "unsettled"
    if seen.low >= plan.ceiling:
        return "ceiling"
    if seen.barrier < seen.high:
        return "generator"
    return "found" if seen.high <= plan.width * seen.low else "unsettled"


def _why(end: End, seen: _Seen, plan: Plan) -> str:
    low, high = f"{seen.low:,.4g}", f"{seen.high:,.4g}"
    if end == "nothing":
        return f"no rate passed, down to {seen.lowest:,.4g} a second"
    if end == "ceiling":
        return f"capacity >= {low} a second, the ceiling"
    if end == "generator":
        return f"capacity >= {low} a second, generator-bound: it could not keep up at {seen.barrier:,.4g}"
    if end == "found":
        return f"capacity between {low} (last PASS) and {high} (first FAIL) a second"
    return f"capacity >= {low} a second, and {high} fails; runs of {seen.long:,.0f} s could not tell more"
