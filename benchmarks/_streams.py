"""The streams that sequential drift is measured on: twenty columns of which three move, and how many windows we take to say so."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from agent import Window
from benchmarks._arrays import HOUR, START, Arrays, window
from checks._evidence import Settings, State, Sums, counted, fold, layout
from checks._profile import Profile, profile
from checks._sequential import named

A, FEATURES, MOVED, ROWS, REFERENCE, QUIET = 2160.0, 20, 3, 1_000, 20_000, 5
SHARES, LETTERS = np.array([0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05]), np.array(list("abcdefg"), dtype=object)
Draw = Callable[[Any, int, bool], Any]  # random, rows, whether it has moved -> a column


def shifted(by: float) -> Draw:
    return lambda random, rows, moved: random.normal(by if moved else 0.0, size=rows)


def widened(random: Any, rows: int, moved: bool) -> Any:
    return random.normal(size=rows) * (1.3 if moved else 1.0)


def category(random: Any, rows: int, moved: bool) -> Any:
    more = np.array([-0.05, 0, 0.05, 0, 0, 0, 0]) if moved else 0.0
    return LETTERS[random.choice(len(LETTERS), rows, p=SHARES + more)]


def holed(random: Any, rows: int, moved: bool) -> Any:
    values = random.normal(size=rows)
    return np.where(random.random(rows) < 0.02, np.nan, values) if moved else values


CHANGES: dict[str, tuple[Draw, tuple[int, int] | None, tuple[int, int] | None]] = {  # median and 90 % promised at tolerance 0, and by default
    "+0.3 sd": (shifted(0.3), (0, 0), (0, 0)),
    "+0.2 sd": (shifted(0.2), (1, 2), (2, 3)),
    "+0.1 sd": (shifted(0.1), (6, 9), None),
    "variance x1.69": (widened, (0, 1), (2, 3)),
    "category 10 to 15 %": (category, (2, 3), (6, 8)),
    "nulls 0 to 2 %": (holed, (0, 1), (1, 2)),
}


def say(figure: str, value: float | None, **more: Any) -> None:
    print(json.dumps({"figure": figure, "value": value, **more}), flush=True)


def columns(random: Any, draw: Draw, rows: int, moved: bool) -> dict[str, Any]:
    """The first three move; where they are categories the others are numbers."""
    quiet = shifted(0.0)
    return {f"f{n}": draw(random, rows, moved) if n < MOVED else quiet(random, rows, False) for n in range(FEATURES)}


def stream(seed: int, draw: Draw, settings: Settings, most: int = 60) -> tuple[float, float]:
    """Windows until the alarm and until all three are named, 0 being the first that moved."""
    random = np.random.default_rng(seed)
    reference = Arrays(columns(random, draw, REFERENCE, False))
    made = profile(reference, dict(reference.kinds()), (), None, None)  # type: ignore[arg-type]
    memory, alarm = Sums(made, "", START), math.inf
    for number in range(QUIET + most):
        rows = Arrays(columns(random, draw, ROWS, number >= QUIET), window(number, ROWS))
        state = step(made, memory, rows, number, settings)
        memory = state.memory
        if number >= QUIET and state.total >= math.log(settings.run_length):
            alarm = min(alarm, number - QUIET)
            if set(named(state.by_name, settings.run_length)) >= set(range(MOVED)):
                return alarm, number - QUIET
    return alarm, math.inf


def step(made: Profile, memory: Sums, rows: Any, number: int, settings: Settings) -> State:
    plan = layout(made, settings)
    at = Window(START + number * HOUR, START + (number + 1) * HOUR)
    return fold(plan, memory, at, counted(rows, at, made.columns, None), settings)


def at(values: list[float], share: float) -> float:
    return float(np.quantile(values, share, method="inverted_cdf"))
