"""Sequential drift: windows until a change is found and named, how the promise holds where rows are not independent, and what a window costs."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

from agent import Window, to_json
from agent.rebuild import rebuild
from benchmarks._arrays import HOUR, START, Arrays, window
from benchmarks._parts import parts
from benchmarks._streams import CHANGES, FEATURES, MOVED, REFERENCE, ROWS, A, at, category, columns, say, step, stream
from checks._evidence import Settings, Sums, counted, fold, layout
from checks._past import Past, further
from checks._profile import profile
from checks._sequential import mean_log
from checks._shift import verdict

# Delay


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


if __name__ == "__main__":
    parts(PARTS, sys.argv[1:])
