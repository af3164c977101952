"""How often a verdict is wrong: runs whose true share over the limit is known, independent or in stalls, judged as `watchkeeper load` judges them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._stalls import RATE, Part, drawn
from loadtests import _bursts
from loadtests._early import Early
from loadtests._verdict import outcome

RUNS, ALLOWED, RISK = 3_000, 0.01, 0.05
BURST = 1.0  # seconds; what the verdicts are valid up to


def say(name: str, value: float, unit: str = "%", **promise: Any) -> None:
    print(json.dumps({"figure": name, "value": round(value, 2), "unit": unit, **promise}), flush=True)


def causes(share: float) -> dict[str, tuple[Part, ...]]:
    """Up to a burst long: what the verdict is valid for."""
    stalls = {f"{how} stalls of {lasts:.2g} s": (Part(how, lasts, share),) for how in ("poisson", "periodic") for lasts in (BURST / 3, 0.6, BURST)}
    half = 1 - (1 - share) ** 0.5
    return {
        "independent requests": (Part("single", 0.0, share),),
        **stalls,
        "half independent, half poisson stalls of 1 s": (Part("single", 0.0, half), Part("poisson", BURST, half)),
    }


def said(parts: tuple[Part, ...], seconds: float, runs: int = RUNS) -> Counter[str]:
    """The words of so many runs."""
    random = np.random.default_rng(1)
    return Counter(outcome(run, ALLOWED, RISK)[0] for _ in range(runs // 500) for run in drawn(random, 500, seconds, parts))


def false_pass() -> None:
    for seconds in (300, 900):
        for word, parts in causes(ALLOWED).items():
            say(
                f"false PASS at exactly the limit, {seconds} s, {word}",
                100 * said(parts, seconds)["pass"] / RUNS,
                at_most=6,
                note=f"{RUNS:,} runs; 5 promised",
            )
        for how in ("poisson", "periodic"):
            for lasts in (2 * BURST, 5 * BURST):
                wrong = said((Part(how, lasts, ALLOWED),), seconds)["pass"]
                say(
                    f"false PASS at the limit, {seconds} s, {how} stalls of {lasts:g} s",
                    100 * wrong / RUNS,
                    note="longer than the verdict is valid for",
                )


def short() -> None:
    clean = (Part("single", 0.0, 1e-9),)
    say("PASS of a run of 60 s that is all in time", 100 * said(clean, 60, 500)["pass"] / 500, at_most=0, note="too short for p99")
    say("PASS of a run of 300 s that is all in time", 100 * said(clean, 300, 500)["pass"] / 500, at_least=100)


def false_fail() -> None:
    for seconds in (60, 300, 900):
        for word, parts in causes(0.008).items():
            words = said(parts, seconds)
            note = f"{100 * words['pass'] / RUNS:.1f} % PASS"
            say(f"false FAIL at a share of 0.8 %, {seconds} s, {word}", 100 * words["fail"] / RUNS, at_most=5, note=note)


def power() -> None:
    parts = (Part("poisson", 0.6, 0.0025),)
    say("PASS at a share of 0.25 %, 900 s, poisson stalls of 0.6 s", 100 * said(parts, 900)["pass"] / RUNS, at_least=90)
    for share, seconds in ((0.002, 450), (0.005, 900)):
        say(
            f"PASS at a share of {100 * share:g} %, {seconds} s, independent requests",
            100 * said((Part("single", 0.0, share),), seconds)["pass"] / RUNS,
        )
    for share in (0.015, 0.02, 0.05):
        words = said((Part("poisson", 0.6, share),), 300)
        say(f"FAIL at a share of {100 * share:g} %, 300 s, poisson stalls of 0.6 s", 100 * words["fail"] / RUNS)


def without() -> None:
    """What the rules that leave something out would do with the same runs."""
    random, stalls = np.random.default_rng(1), (Part("poisson", 0.6, ALLOWED),)
    plain = sum(_bursts.exact(len(run.late), run.n, RISK)[1] <= ALLOWED for run in drawn(random, 1000, 300, stalls)) / 1000
    say("false PASS of the plain binomial rule, 300 s, poisson stalls of 0.6 s", 100 * plain, at_least=30, note="what breaks it")
    mixed = list(drawn(random, 1000, 300, causes(ALLOWED)["half independent, half poisson stalls of 1 s"]))
    only = sum(_bursts.exact(len(run.late) / (one := _bursts.design(run)), run.n / one, RISK)[1] <= ALLOWED for run in mixed) / 1000
    say("false PASS of the design effect alone, 300 s, half independent, half stalls of 1 s", 100 * only, note="why unmet bursts are bounded too")


def warm() -> None:
    """The start left out until three windows of ten seconds agree within a tenth in what is late, at most a fifth of the run."""
    seconds = 900
    for how, lasts in (("poisson", BURST), ("poisson", BURST / 3)):
        whole = chosen = 0
        for run in drawn(np.random.default_rng(4), 2000, seconds, (Part(how, lasts, ALLOWED),)):
            whole += outcome(run, ALLOWED, RISK)[0] == "pass"
            chosen += outcome(agreed(run, seconds), ALLOWED, RISK)[0] == "pass"
        note = f"{100 * whole / 2000:.1f} with all of it; why a warm-up is told and not taken away"
        say(f"false PASS with the start left out until it agrees, {seconds} s, poisson stalls of {lasts:.2g} s", 100 * chosen / 2000, note=note)


def agreed(run: _bursts.Run, seconds: int) -> _bursts.Run:
    windows = seconds // 10
    late = np.bincount(run.late * windows // run.n, minlength=windows) + 1.0
    first = next((one for one in range(windows // 5) if late[one : one + 3].max() <= 1.1 * late[one : one + 3].min()), windows // 5)
    left = run.n * first // windows
    return _bursts.Run(run.n - left, run.late[run.late >= left] - left, run.burst)


def early(runs: int = 200, seconds: int = 1200) -> None:
    """Looked at after every second, and at the end as ever."""
    for word, parts in causes(ALLOWED).items():
        drawn_runs = list(drawn(np.random.default_rng(2), runs, seconds, parts))
        words = [stopped(run, seconds)[0] for run in drawn_runs]
        ended = [one or outcome(run, ALLOWED, RISK)[0] for one, run in zip(words, drawn_runs, strict=True)]
        note = f"{runs} runs of {seconds} s; {100 * ended.count('pass') / runs:.1f} with those at the end"
        say(f"early FAIL at exactly the limit, {word}", 100 * words.count("fail") / runs, at_most=5)
        say(f"early PASS at exactly the limit, {word}", 100 * words.count("pass") / runs, at_most=5, note=note)
    for share, promised in ((1e-9, "pass"), (0.0025, "pass"), (0.02, "fail"), (0.1, "fail")):
        ends = [
            end
            for word, end in (stopped(run, seconds) for run in drawn(np.random.default_rng(3), 50, seconds, (Part("single", 0.0, share),)))
            if word
        ]
        say(
            f"seconds to an early {promised.upper()} at a share of {100 * share:.3g} %, median",
            float(np.median(ends)),
            "s",
            note=f"{len(ends)} of 50 stopped",
        )


def stopped(run: _bursts.Run, seconds: int) -> tuple[str | None, int]:
    """What was said first, and after how many windows."""
    evidence = Early(round(RATE * BURST), 1 - ALLOWED, 1 - RISK)
    for number, over in enumerate(np.bincount((run.late // (RATE * BURST)).astype(int), minlength=seconds).tolist(), 1):
        if word := evidence.fold(round(RATE * BURST), over):
            return word, number
    return None, seconds


PARTS: dict[str, Callable[[], None]] = {
    "pass": false_pass,
    "short": short,
    "fail": false_fail,
    "power": power,
    "without": without,
    "warm": warm,
    "early": early,
}


def main(chosen: list[str]) -> None:
    for name, part in PARTS.items():
        if not chosen or name in chosen:
            part()


if __name__ == "__main__":
    main(sys.argv[1:])
