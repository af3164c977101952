"""Learning one task after the other beside Avalanche: accuracy and CPU on permuted and split digits, the same rows, net and seeds for both.

`--seeds 2` for a first look; `--tune` tries the grids on validation rows and says what it would choose. What is chosen stands in CHOSEN.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from benchmarks import _digits as digits
from benchmarks import _peers
from benchmarks._streams import say
from runbooks._continual_rows import Rows
from runbooks._learning import How, Learner, Lesson
from runbooks._strategies import parts

HOUSE = Path(__file__).resolve().parent.parent
METHODS = ("naive", "replay", "der++", "ewc", "packnet")
SEEDS, TUNED_ON = 5, 2
MOST = 0.6  # of Avalanche's CPU
BALANCES = [{"alpha": alpha, "beta": beta} for alpha, beta in ((0.2, 0.5), (0.5, 0.5), (0.5, 1.0), (1.0, 0.5))]
PRUNES = [{"prune": share} for share in (0.5, 0.6, 0.7, 0.8)]
GRIDS: Mapping[str, Mapping[str, list[dict[str, float]]]] = {  # as many points for both; the strengths of EWC are on different scales
    "ours": {"ewc": [{"strength": float(s)} for s in (20, 50, 100, 200, 400)], "der++": BALANCES, "packnet": PRUNES},
    "avalanche": {"ewc": [{"strength": float(s)} for s in (25, 50, 100, 200, 400)], "der++": BALANCES, "packnet": PRUNES},
}
CHOSEN: Mapping[str, Mapping[str, dict[str, float]]] = {  # the best of each grid on validation rows, by --tune
    "ours permuted": {"ewc": {"strength": 200.0}, "der++": {"alpha": 1.0, "beta": 0.5}, "packnet": {"prune": 0.8}},
    "ours split": {"ewc": {"strength": 20.0}, "der++": {"alpha": 0.5, "beta": 1.0}, "packnet": {"prune": 0.7}},
    "avalanche permuted": {"ewc": {"strength": 400.0}, "der++": {"alpha": 0.5, "beta": 1.0}, "packnet": {"prune": 0.8}},
    "avalanche split": {"ewc": {"strength": 25.0}, "der++": {"alpha": 0.5, "beta": 1.0}, "packnet": {"prune": 0.7}},
}
Found = dict[str, float]


def ours(protocol: str, method: str, given: Mapping[str, float], seed: int, tuning: bool) -> Found:
    """One run: accuracy, forgetting, and the CPU seconds of learning alone."""
    kept = {"buffer": digits.BUFFER} if method in ("replay", "der++") else {}
    tasks, told, cpu = digits.tasks(protocol, seed, tuning), method == "packnet", 0.0
    how = How(digits.EPOCHS, digits.BATCH, digits.RATE, seed=seed)
    learner, matrix = Learner(digits.net(seed), parts(method, {**kept, **given}), how), []
    lessons = [Lesson(place if told else 0, Rows(x, y)) for place, (x, y, _, _) in enumerate(tasks)]
    for known in range(1, len(tasks) + 1):
        began = time.process_time()
        learner.learn(lessons[:known])
        cpu += time.process_time() - began
        matrix.append([_share(learner, x, y, place if told else 0, known) for place, (_, _, x, y) in enumerate(tasks)])
    return {**digits.summary(matrix), "seconds": cpu}


def _share(learner: Learner, x: Any, y: Any, task: int, known: int) -> float:
    return 0.0 if task >= known else digits.share(learner.answer(x, task), y)


@contextmanager
def avalanche() -> Iterator[Any]:
    """Asks Avalanche for one run after the other; None where it cannot be installed."""
    if (python := _peers.python("avalanche")) is None:
        yield None
        return
    with subprocess.Popen([python, "-m", "benchmarks._avalanche"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=HOUSE, text=True) as process:

        def run(**asked: Any) -> Found:
            assert process.stdin and process.stdout
            print(json.dumps(asked), file=process.stdin, flush=True)
            return dict(json.loads(process.stdout.readline()))

        yield run
        assert process.stdin
        process.stdin.close()


def compare(sides: Mapping[str, Any], seeds: int) -> bool:
    """Every method on every protocol, seed by seed in turn; whether every figure holds. The first run of each imports much, and is not counted."""
    held = []
    for run in sides.values():
        run(protocol="split", method="naive", given={}, seed=0, tuning=True)
    for protocol in digits.PROTOCOLS:
        for method in METHODS:
            found: dict[str, list[Found]] = {side: [] for side in sides}
            for seed in range(seeds):
                for side, run in sides.items():
                    given = CHOSEN[f"{side} {protocol}"].get(method, {})
                    found[side].append(run(protocol=protocol, method=method, given=given, seed=seed, tuning=False))
            held.append(tell(f"{method}, {protocol}", found))
    return all(held)


def tell(what: str, found: Mapping[str, list[Found]]) -> bool:
    """The two figures of one method; whether both hold."""
    note = "; ".join(f"{side} {spelled(runs)}" for side, runs in found.items())
    mine, theirs = found["ours"], found.get("avalanche")
    if theirs is None:
        say(f"{what}: accuracy", fmean(each(mine, "accuracy")), note=f"{note}; {_peers.MISSING}")
        return False
    spread = max(stdev(each(theirs, "accuracy")), 1e-9)
    above = (fmean(each(mine, "accuracy")) - fmean(each(theirs, "accuracy"))) / spread
    cpu = fmean(each(mine, "seconds")) / fmean(each(theirs, "seconds"))
    say(f"{what}: accuracy above Avalanche's, in its sd over seeds", above, at_least=-1, note=note)
    say(f"{what}: CPU beside Avalanche's", cpu, unit="x", at_most=MOST)
    return above >= -1 and cpu <= MOST


def spelled(runs: list[Found]) -> str:
    accuracy, lost, seconds = (each(runs, word) for word in ("accuracy", "forgetting", "seconds"))
    return f"{100 * fmean(accuracy):.1f}±{100 * stdev(accuracy):.1f} %, forgets {100 * fmean(lost):.1f}, {fmean(seconds):.2f} CPU s"


def each(runs: list[Found], word: str) -> list[float]:
    return [run[word] for run in runs]


def tune(sides: Mapping[str, Any], chosen: list[str]) -> None:
    """What each point of the grids comes to on validation rows, for both sides alike."""
    for side, run in sides.items():
        for protocol in digits.PROTOCOLS:
            for method, grid in GRIDS[side].items():
                for given in grid if not chosen or method in chosen else ():
                    found = [run(protocol=protocol, method=method, given=given, seed=seed, tuning=True) for seed in range(TUNED_ON)]
                    print(f"{side} {protocol} {method} {json.dumps(given)}: {spelled(found)}", file=sys.stderr, flush=True)


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--seeds", type=int, default=SEEDS)
    words.add_argument("--tune", nargs="*", metavar="METHOD")
    words.add_argument("--alone", action="store_true", help="without Avalanche")
    told = words.parse_args()
    torch.set_num_threads(1)
    with avalanche() if not told.alone else _nobody() as theirs:
        sides = {"ours": ours, **({"avalanche": theirs} if theirs else {})}
        if told.tune is not None:
            tune(sides, told.tune)
            return 0
        return 0 if compare(sides, told.seeds) else 1


@contextmanager
def _nobody() -> Iterator[None]:
    yield None


if __name__ == "__main__":
    sys.exit(main())
