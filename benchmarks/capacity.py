"""How often a search for the capacity of a simulated service prints a bracket that holds the truth, how wide it is, and how long it takes."""

from __future__ import annotations

import json
import math
import sys
import time
from typing import Any

import numpy as np

from benchmarks._queue import SERVICE, arrivals, capacity, latency
from loadtests._bursts import taken
from loadtests._capacity import Attempt, Bracket, search
from loadtests._verdict import outcome

SEARCHES, BURST = 100, 1.0
SERVICES = ((1, 5, 0.56), (4, 2, 0.60), (4, 5, 0.86), (8, 5, 0.93))  # servers, the limit in service times, and the truth as noted before


def say(name: str, value: float, unit: str = "", **promise: Any) -> None:
    print(json.dumps({"figure": name, "value": round(value, 4), "unit": unit, **promise}), flush=True)


def searched(seed: int, servers: int, limit: float, step: float = 300.0 * BURST) -> Bracket:
    """One search, begun anywhere between a twentieth and half of what the service could do."""
    random = np.random.default_rng(seed)

    def attempt(rate: float, seconds: float) -> Attempt:
        due = arrivals(random, rate, seconds)
        return Attempt(rate, seconds, outcome(taken(due, latency(due, servers), BURST).over(limit * (1 + 1e-9)), 0.01, 0.05)[0])

    most = servers / SERVICE
    return search(attempt, start=most * random.uniform(0.05, 0.5), ceiling=20 * most, seconds=step, longest=4 * step)


def main(searches: int = SEARCHES) -> None:
    for servers, times, noted in SERVICES:
        began, word = time.process_time(), f"M/D/{servers}, p99 within {times} service times"
        truth = capacity(servers, times * SERVICE)
        say(f"{word}: the truth, of what {servers} could do at most", truth, note=f"simulated; {noted} noted before")
        found = [searched(seed, servers, times * SERVICE) for seed in range(searches)]
        held = sum(one.low <= truth * servers / SERVICE <= one.high for one in found)
        runs = np.mean([len(one.attempts) for one in found])
        traffic = np.mean([sum(run.seconds for run in one.attempts) for one in found]) / 60
        note = f"{searches} searches, {runs:.1f} runs and {traffic:.0f} min of traffic each"
        say(f"{word}: brackets that hold it", 100 * held / searches, "%", at_least=95, note=note)
        widest = max(one.high / one.low - 1 if one.low else math.inf for one in found)
        cost = f"{sum(one.confirmed is not None for one in found)} confirmed; {time.process_time() - began:.0f} s of CPU"
        say(f"{word}: the widest bracket", 100 * widest, "%", at_most=10, note=cost)


if __name__ == "__main__":
    main(*(int(one) for one in sys.argv[1:]))
