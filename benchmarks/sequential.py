"""Sequential drift: windows until a change is found and named, how the promise holds where rows are not independent, and what a window costs."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy import stats

from agent import Window, to_json
from agent.rebuild import rebuild
from benchmarks._arrays import HOUR, START, Arrays, window
from checks._evidence import Settings, State, Sums, counted, fold, layout
from checks._past import Past, further
from checks._profile import Profile, profile
from checks._sequential import mean_log, named
from checks._shift import verdict

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


def say(figure: str, value: float, **more: Any) -> None:
    print(json.dumps({"figure": figure, "value": value, **more}), flush=True)


# Delay


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


def delays(streams: int = 60) -> None:
    for word, settings, which in (("tolerance 0", Settings(0.0, 0.0, A), 1), ("default tolerance", Settings(0.02, 0.005, A), 2)):
        for change, promised in CHANGES.items():
            limits = promised[which]
            if limits is None:
                continue
            found = [stream(seed, promised[0], settings) for seed in range(streams)]
            alarms, names = [one for one, _ in found], [one for _, one in found]
            note = f"{streams} streams of 20 features, 3 move"
            say(f"{change}, {word}: windows, median", at(alarms, 0.5), at_most=limits[0], note=note)
            say(f"{change}, {word}: windows, 90 %", at(alarms, 0.9), at_most=limits[1])
            if change in ("+0.3 sd", "+0.2 sd"):
                say(f"{change}, {word}: windows until all are named, 95 %", at(names, 0.95), at_most=6)


def own_past(quiet: int = 200, streams: int = 40) -> None:
    found = []
    for seed in range(streams):
        random, past = np.random.default_rng(seed), Past(tuple(f"mean of f{n}" for n in range(FEATURES)))
        for number in range(quiet + 40):
            means = random.normal(size=FEATURES) / math.sqrt(ROWS)
            means[:MOVED] += 0.1 if number >= quiet else 0.0
            past = further(past, means, Window(START + number * HOUR, START + (number + 1) * HOUR), None, A)
            if number >= quiet and float(mean_log(mean_log(past.log_sums))) >= math.log(A):
                found.append(float(number - quiet))
                break
        else:
            found.append(math.inf)
    say(f"own past, +0.1 sd after {quiet} quiet windows: median", at(found, 0.5), at_most=3, note=f"{streams} streams")


# The promise, where rows are not independent


def clustered(random: Any, rows: int, number: int) -> Any:
    return np.repeat(random.normal(size=rows // 3 + 1), 3)[:rows]


def by_the_hour(random: Any, rows: int, number: int) -> Any:
    return random.normal(size=rows) + 0.1 * np.random.default_rng(number).normal()


def many_categories(random: Any, rows: int, number: int) -> Any:
    return np.array([f"v{value}" for value in np.minimum(random.zipf(1.5, rows), 900)], dtype=object)


def quiet(
    draw: Callable[[Any, int, int], Any], length: float | None, run_length: float = 100.0, streams: int = 40, windows: int = 60
) -> tuple[int, int]:
    """Alarms and windows looked at, over streams without drift, each begun anew after an alarm; the reference spans 100 hours."""
    alarms = looked = 0
    settings = Settings(0.02, 0.005, run_length)
    for seed in range(streams):
        random = np.random.default_rng(seed)
        parts = [draw(random, ROWS // 5, 10_000 + seed * 1000 + hour) for hour in range(100)]
        reference = Arrays({"x": np.concatenate(parts)}, np.concatenate([window(hour, ROWS // 5) for hour in range(100)]))
        made = profile(reference, dict(reference.kinds()), (), None, length)  # type: ignore[arg-type]
        memory = Sums(made, "", START)
        for number in range(windows):
            rows = Arrays({"x": draw(random, ROWS, seed * 1000 + number)}, window(number, ROWS))
            state = step(made, memory, rows, number, settings)
            looked, memory = looked + 1, state.memory
            if state.total >= math.log(run_length):
                alarms, memory = alarms + 1, Sums(made, "", START)
    return alarms, looked


def promise() -> None:
    for word, draw in (("rows in threes", clustered), ("an hour effect of 0.1 sd", by_the_hour), ("900 categories", many_categories)):
        alarms, looked = quiet(draw, 3600.0)
        bound = looked / (stats.chi2.ppf(0.95, 2 * (alarms + 1)) / 2)
        note = f"{alarms} alarms in {looked:,} windows; design effect measured; lower 95 % bound"
        say(f"{word}: mean time between false alarms / promised", bound / 100.0, unit="x", at_least=1, note=note)
    alarms, looked = quiet(clustered, None, streams=20)
    say("rows in threes, the design effect ignored: alarms a window", alarms / looked, note="what breaks it")


# Cost


def cost(looks: int = 200) -> None:
    random, settings = np.random.default_rng(1), Settings(0.02, 0.005, A)
    reference = Arrays(columns(random, category, REFERENCE, False))
    made = profile(reference, dict(reference.kinds()), (), None, None)  # type: ignore[arg-type]
    memory = json.dumps(to_json(Sums(made, "", START)))
    rows = Arrays(columns(random, category, ROWS, False), window(0, ROWS))
    spent = 0.0
    for number in range(looks):
        at = Window(START + number * HOUR, START + (number + 1) * HOUR)
        seen = counted(rows, Window(START, START + HOUR), made.columns, None)
        began = time.process_time()
        held = rebuild(Sums, json.loads(memory))
        plan = layout(held.profile, settings)
        told = verdict(plan, fold(plan, held, at, seen, settings), seen, settings, at)
        memory = json.dumps(to_json(told.memory))
        spent += time.process_time() - began
    say(
        "one window of 1,000 x 20 after its query: CPU",
        spent / looks * 1000,
        unit="ms",
        at_most=15,
        note=f"memory {len(memory):,} bytes as JSON, read and written",
    )


PARTS: dict[str, Callable[[], None]] = {"cost": cost, "own past": own_past, "promise": promise, "delays": delays}


def main(chosen: list[str]) -> Iterator[None]:
    for name, part in PARTS.items():
        if not chosen or name in chosen:
            part()
            yield


if __name__ == "__main__":
    for _ in main(sys.argv[1:]):
        pass
