"""The agent killed with SIGKILL while it acts: at every durable commit, at every exchange with its target, and at random moments; 500 runs.

    python -m benchmarks.kills [--runs 500] [--lanes 3]

Then every commit finds a full disk once, and every exchange breaks once. After each run tests/history.py looks its whole record over for what
invariants I1 to I8 forbid, beside what the target itself says was done to it; any figure above 0 is a defect.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

from benchmarks._running import load, scratch
from tests.campaign import CASES, FAULTS, KILLS, Case, Outcome, Stage, at_random, each_chance, staged

Way = Callable[[Stage], Iterator[Outcome]]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=500, help="runs that are killed; those at every commit and exchange come first")
    parser.add_argument("--lanes", type=int, default=3, help="how many at a time; most of each is waiting")
    given, began = parser.parse_args(), time.monotonic()
    with ThreadPoolExecutor(given.lanes) as pool:
        killed = everywhere(pool, [(case, partial(each_chance, kind=kind)) for kind in KILLS for case in CASES])
        left = max(0, given.runs - sum(one.hit for one in killed))
        killed += everywhere(pool, [(case, partial(until_hit, runs=-(-left // len(CASES)))) for case in CASES])
        tell("killed", killed, time.monotonic() - began, at_least=given.runs)
        began = time.monotonic()
        faulty = everywhere(pool, [(case, partial(each_chance, kind=kind)) for kind in FAULTS for case in CASES])
        tell("n-th fault", faulty, time.monotonic() - began)


def everywhere(pool: ThreadPoolExecutor, jobs: list[tuple[Case, Way]]) -> list[Outcome]:
    return [outcome for found in pool.map(lambda job: played(*job), jobs) for outcome in found]


def played(case: Case, way: Way) -> list[Outcome]:
    """All runs of one case in one way, each told as it ends when something is wrong with it."""
    with scratch() as folder, staged(case, Path(folder)) as stage:
        found = []
        for outcome in way(stage):
            found.append(outcome)
            for said in outcome.wrong:
                print(f"{outcome.case}, {outcome.way}: {said}", file=sys.stderr, flush=True)
        print(f"... {case.name}: {len(found)} runs, the last {found[-1].way}" if found else f"... {case.name}", file=sys.stderr, flush=True)
        return found


def until_hit(stage: Stage, runs: int) -> Iterator[Outcome]:
    """Runs killed at random until so many were; one that ends before its moment was not."""
    return islice((outcome for outcome in at_random(stage, 4 * runs, seed=1) if outcome.hit), runs)


def tell(what: str, outcomes: list[Outcome], seconds: float, **promised: float) -> None:
    hit = [one for one in outcomes if one.hit]
    cases = ", ".join(f"{name} {count}" for name, count in Counter(one.case for one in hit).items())
    ways = ", ".join(f"{kind} {count}" for kind, count in Counter(one.way.kind for one in hit).items())
    ends = ", ".join(f"{state} {count}" for state, count in Counter(one.state for one in hit).most_common())
    figure(f"runs {what}", len(hit), f"{cases}; {ways}; {seconds:.0f} s; {load()}", **promised)
    figure(f"runs {what}: invariants violated", sum(len(one.wrong) for one in outcomes), f"ends: {ends}", at_most=0)
    repeated = sum("steps tried to" in said for one in outcomes for said in one.wrong)
    figure(f"runs {what}: effects repeated", repeated, "as the target counts them", at_most=0)
    figure(f"runs {what}: without an end", sum("no end" in said for one in outcomes for said in one.wrong), "", at_most=0)


def figure(name: str, value: float, note: str, **promise: float) -> None:
    print(json.dumps({"figure": name, "value": value, "note": note, **promise}), flush=True)


if __name__ == "__main__":
    main()
