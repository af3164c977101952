"""Strategies on the same rows, one after the other (`python -m runbooks._head_to_head`): what is asked as JSON on stdin, progress and the result out.

It ends when its stdin closes, whatever it is doing: whoever started it is gone then.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from agent import Json
from agent.errors import ConfigError, WatchkeeperError
from runbooks._continual import line

TRAIN = "train"
LEVEL = 0.95
Tell = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class Run:
    """One strategy with one seed: accuracy on the held-out rows of each table after all were learned, of each old one before `train`, CPU seconds."""

    seed: int
    after: Mapping[str, float]
    before: Mapping[str, float]
    seconds: float

    @property
    def score(self) -> float:
        """What is weighed: accuracy, each table counting alike."""
        return fmean(self.after.values())

    @property
    def forgotten(self) -> float:
        """Accuracy on old rows that went while the new ones were learned, on average; below 0 where it came."""
        return fmean(self.before[name] - self.after[name] for name in self.before)


def main() -> int:
    try:
        asked = json.loads(sys.stdin.readline())
        threading.Thread(target=_end_with_parent, daemon=True).start()
        try:
            from runbooks._continual_work import unhurt
        except ImportError as problem:
            raise ConfigError(f"training needs {problem.name}, which is not installed: install watchkeeper[torch]") from problem
        with unhurt(asked["parameters"]["factory"]):
            line({"result": weighed(runs(asked, lambda done, what: line({"done": done, "what": what})), asked["margin"])})
    except WatchkeeperError as problem:
        line({"problem": {"kind": type(problem).__name__, "message": str(problem)}})
        return problem.exit_code
    return 0


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def runs(asked: Mapping[str, Json], tell: Tell) -> dict[str, list[Run]]:
    """Each strategy with each seed; a seed gives all of them the same split and the same first weights."""
    every = [(name, seed) for seed in range(asked["seeds"]) for name in asked["strategies"]]
    found: dict[str, list[Run]] = {name: [] for name in asked["strategies"]}
    for place, (name, seed) in enumerate(every):

        def part(done: float, what: str, place: int = place, name: str = name, seed: int = seed) -> None:
            tell((place + done) / len(every), f"{name}, seed {seed}: {what}")

        found[name].append(_run(asked, name, seed, part))
    return found


def _run(asked: Mapping[str, Json], name: str, seed: int, tell: Tell) -> Run:
    from runbooks._continual_settings import settings
    from runbooks._continual_work import planned, prepared, read, same_each_time, scores

    wanted = settings({**asked["parameters"], "strategy": name, "with": (asked.get("with") or {}).get(name) or {}})
    same_each_time(wanted)
    given = read({"data": asked["data"]}, wanted, seed)
    learner, lessons = prepared(given, wanted, seed), planned(given)
    first = sum(lesson.name != TRAIN for lesson in lessons)
    began = time.process_time()
    learner.learn(lessons[:first], tell=lambda done, what: tell(done * first / len(lessons), what))
    cpu = time.process_time() - began
    before = accuracies(scores(learner, given))
    began = time.process_time()
    learner.learn(lessons, tell=tell)
    cpu += time.process_time() - began
    return Run(seed, accuracies(scores(learner, given)), {table: value for table, value in before.items() if table != TRAIN}, cpu)


def accuracies(found: Mapping[str, float]) -> dict[str, float]:
    """By table."""
    return {name.removeprefix("accuracy."): value for name, value in found.items() if name.startswith("accuracy.")}


# What they come to


def weighed(found: Mapping[str, Sequence[Run]], margin: float) -> dict[str, Any]:
    """Every strategy with its means and intervals, and the one that is recommended with why."""
    name, why = recommended(found, margin)
    return {"strategies": [_summary(one, runs) for one, runs in found.items()], "recommended": name, "why": why}


def _summary(name: str, runs: Sequence[Run]) -> dict[str, Any]:
    numbers = {
        "score": [run.score for run in runs],
        "new": [run.after[TRAIN] for run in runs],
        "old": [fmean(value for table, value in run.after.items() if table != TRAIN) for run in runs],
        "forgotten": [run.forgotten for run in runs],
        "seconds": [run.seconds for run in runs],
    }
    return {"strategy": name, **{word: interval(values) for word, values in numbers.items()}, "runs": [asdict(run) for run in runs]}


def interval(values: Sequence[float]) -> dict[str, float | None]:
    """The mean over seeds and its 95 % interval, after Student; one seed has none."""
    reach = _reach(values)
    mean = fmean(values)
    return {"mean": mean, "low": None if reach is None else mean - reach, "high": None if reach is None else mean + reach}


def _reach(values: Sequence[float], level: float = LEVEL) -> float | None:
    if len(values) < 2:
        return None
    from scipy.stats import t

    return float(t.ppf((1 + level) / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))


def recommended(found: Mapping[str, Sequence[Run]], margin: float) -> tuple[str, str]:
    """The best on average, or the cheapest of those that are shown to lose less than the margin beside it, seed by seed."""
    best = max(found, key=lambda name: fmean(run.score for run in found[name]))
    equal = [name for name, runs in found.items() if name == best or _within(runs, found[best], margin)]
    chosen = min(equal, key=lambda name: fmean(run.seconds for run in found[name]))
    said = f"{chosen}: {_percent(found[chosen])} on average over the tables"
    if chosen != best:
        return chosen, f"{said}, shown to lose less than {100 * margin:g} points beside {best} ({_percent(found[best])}), and cheaper"
    others = [name for name in found if name != best]
    near = max(others, key=lambda name: fmean(run.score for run in found[name])) if others else None
    return chosen, said + (f"; next is {near} with {_percent(found[near])}" if near else "")


def _within(runs: Sequence[Run], best: Sequence[Run], margin: float) -> bool:
    lost = [other.score - run.score for run, other in zip(runs, best, strict=True)]
    reach = _reach(lost, 2 * LEVEL - 1)  # one-sided
    return reach is not None and fmean(lost) + reach < margin


def _percent(runs: Sequence[Run]) -> str:
    return f"{fmean(run.score for run in runs):.1%}"


if __name__ == "__main__":
    sys.exit(main())
