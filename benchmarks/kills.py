"""The agent killed with SIGKILL while it acts: at every durable commit, at every exchange with its target, and at random moments; 500 runs.

    python -m benchmarks.kills [--runs 500] [--lanes 4]

Then every commit finds a full disk once, and every exchange breaks once. After each run tests/history.py looks its whole record over for what
invariants I1 to I8 forbid, beside what the target itself says was done to it; any figure above 0 is a defect.
"""

import argparse
import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path

from benchmarks._running import load, scratch
from tests.campaign import CASES, FAULTS, KILLS, Outcome, Stage, at_random, each_chance, staged

RANDOM = "at random"
LEAST = 10  # runs of each case that are killed at random, however many were at a commit or an exchange


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=500, help="runs that are killed; those at every commit and exchange come first")
    parser.add_argument("--lanes", type=int, default=4, help="how many at a time; most of each is waiting")
    given = parser.parse_args()
    with ProcessPoolExecutor(given.lanes, multiprocessing.get_context("spawn")) as pool:
        began = time.monotonic()
        killed = everywhere(pool, KILLS)
        left = max(0, given.runs - sum(one.hit for one in killed))
        killed += everywhere(pool, [RANDOM], max(LEAST, -(-left // len(CASES))))
        tell("killed", killed, time.monotonic() - began, at_least=given.runs)
        began = time.monotonic()
        tell("n-th fault", everywhere(pool, FAULTS), time.monotonic() - began)


def everywhere(pool: ProcessPoolExecutor, kinds: Iterable[str], runs: int = 0) -> list[Outcome]:
    """Every case in each of these ways; those that wait longest come first."""
    jobs = [
        pool.submit(played, place, kind, runs) for place in sorted(range(len(CASES)), key=lambda n: CASES[n].name != "compensation") for kind in kinds
    ]
    return [outcome for job in jobs for outcome in job.result()]


def played(place: int, kind: str, runs: int) -> list[Outcome]:
    """All runs of one case in one way; what is wrong with one is told as it ends."""
    with scratch() as folder, staged(CASES[place], Path(folder)) as stage:
        found = []
        for outcome in until_hit(stage, runs) if kind == RANDOM else each_chance(stage, kind):
            found.append(outcome)
            for said in outcome.wrong:
                print(f"{outcome.case}, {outcome.way}: {said}", file=sys.stderr, flush=True)
        print(f"... {CASES[place].name}, {kind}: {len(found)} runs", file=sys.stderr, flush=True)
        return found


def until_hit(stage: Stage, runs: int) -> Iterator[Outcome]:
    """Runs killed at random until so many were; one that ends before its moment was not."""
    return islice((outcome for outcome in at_random(stage, 20 * runs, seed=1) if outcome.hit), runs)


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
