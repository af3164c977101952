"""Sequential drift beside the detectors people run, on the very same streams: windows until a change is called, and how often nothing is called one.

River, Evidently and NannyML come from environments of their own.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from agent import Window
from benchmarks import _peers
from benchmarks._arrays import HOUR, START, Arrays, window
from benchmarks._streams import CHANGES, LETTERS, MOVED, QUIET, REFERENCE, ROWS, A, Draw, at, columns, say, shifted, stream
from checks._evidence import Settings, Sums, counted, fold, layout
from checks._profile import profile

STREAMS, MOST = 40, 60  # of each change; windows after it that are waited for
STILL, LENGTH = 12, 300  # streams without drift and their windows
OURS = {"tolerance 0": Settings(0.0, 0.0, A), "default tolerance": Settings(0.02, 0.005, A)}
STRICT = 1e-4  # a twentieth of ADWIN's default delta, where it is wrong about as seldom as ours
SILENT = {"DO_NOT_TRACK": "1", "NML_DISABLE_USAGE_LOGGING": "1"}  # both would report their use to their makers

EVIDENTLY = """
import sys, numpy as np, pandas as pd
from evidently import Report
from evidently.metrics import ValueDrift
names = [f"f{n}" for n in range(np.load(sys.argv[1])["references"].shape[2])]
alarms, held = 0, np.load(sys.argv[1])
for reference, windows in zip(held["references"], held["windows"]):
    for window in windows:
        report = Report([ValueDrift(column=name) for name in names], include_tests=True)
        told = report.run(pd.DataFrame(window, columns=names), pd.DataFrame(reference, columns=names)).dict()
        alarms += any(test["status"].value == "FAIL" for test in told["tests"])
print(alarms)
"""
NANNYML = """
import sys, numpy as np, pandas as pd, nannyml
held = np.load(sys.argv[1])
names = [f"f{n}" for n in range(held["references"].shape[2])]
alarms = 0
for reference, windows in zip(held["references"], held["windows"]):
    made = nannyml.UnivariateDriftCalculator(column_names=names, chunk_size=windows.shape[1]).fit(pd.DataFrame(reference, columns=names))
    told = made.calculate(pd.DataFrame(np.concatenate(windows), columns=names)).filter(period="analysis").to_df()
    alarms += int(told[[column for column in told.columns if column[-1] == "alert"]].any(axis=1).sum())
print(alarms)
"""


# How soon


def delays() -> None:
    kinds = adwins()
    for change, (draw, *promised) in CHANGES.items():
        for (word, settings), limits in zip(OURS.items(), promised, strict=True):
            tell(f"{change}: ours, {word}", [stream(seed, draw, settings, MOST) for seed in range(STREAMS)], limits)
        for word, adwin in kinds.items():
            tell(f"{change}: {word}", adwin and [river(adwin, seed, draw) for seed in range(STREAMS)])


def tell(figure: str, found: list[tuple[float, float]] | None, limits: tuple[int, int] | None = None) -> None:
    """Median and 90 % of the windows until the first of the three is called, 0 being the first window that moved; until all are, in the note."""
    if found is None:
        return say(f"{figure}: windows", None, note=_peers.MISSING)
    first, every = ([one[which] for one in found] for which in (0, 1))
    note = f"{STREAMS} streams; all three named after {at(every, 0.5):g} / {at(every, 0.9):g}"
    for word, share, limit in (("median", 0.5, 0), ("90 %", 0.9, 1)):
        say(f"{figure}: windows, {word}", at(first, share), at_most=limits and limits[limit], note=note if share == 0.5 else "")


def river(adwin: Any, seed: int, draw: Draw) -> tuple[float, float]:
    """The stream that ours reads, its reference first: ADWIN's yardstick is its past. Only columns that move are fed, so each call is a find."""
    random = np.random.default_rng(seed)
    detectors: dict[str, Any] = {}
    feed(adwin, detectors, columns(random, draw, REFERENCE, False), MOVED)
    called: dict[str, int] = {}
    for number in range(QUIET + MOST):
        found = feed(adwin, detectors, columns(random, draw, ROWS, number >= QUIET), MOVED)
        if number >= QUIET:
            called = dict.fromkeys(found, number - QUIET) | called
        if len(called) == MOVED:
            break
    return min(called.values(), default=math.inf), max(called.values()) if len(called) == MOVED else math.inf


def feed(adwin: Any, detectors: dict[str, Any], rows: dict[str, Any], most: int | None = None) -> set[str]:
    """Columns in which a detector called a change. A call drops what ADWIN holds, so its width tells of one without a question after every value."""
    called = set()
    for name, values in list(rows.items())[:most]:
        for part, numbers in streamed(values, nulls=most is not None).items():
            held = detectors.setdefault(f"{name} {part}", adwin())
            before = held.width
            deque(map(held.update, numbers), maxlen=0)
            if held.width < before + len(numbers):
                called.add(name)
    return called


def streamed(values: Any, nulls: bool) -> dict[str, list[float]]:
    """A column as what ADWIN can read: the numbers that are none of them null and whether each is, or each category as zeros and ones."""
    if values.dtype.kind != "f":
        return {letter: (values == letter).astype(float).tolist() for letter in LETTERS}
    null = np.isnan(values)
    return {"": values[~null].tolist()} | ({"null": null.astype(float).tolist()} if nulls else {})


# How often for nothing


def still(number: int, windows: int) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """A reference, and windows that differ from it by chance alone."""
    random, draw = np.random.default_rng(5_000 + number), shifted(0.0)
    return columns(random, draw, REFERENCE, False), (columns(random, draw, ROWS, False) for _ in range(windows))


def quiet_ours() -> None:
    alarms = dict.fromkeys(OURS, 0)
    for number in range(STILL):
        reference, windows = still(number, LENGTH)
        held = Arrays(reference)
        made = profile(held, dict(held.kinds()), (), None, None)  # type: ignore[arg-type]  # the benchmark's table has what is called, no more
        plans = {word: layout(made, settings) for word, settings in OURS.items()}
        memories = dict.fromkeys(OURS, Sums(made, "", START))
        for hour, rows in enumerate(windows):
            when = Window(START + hour * HOUR, START + (hour + 1) * HOUR)
            seen = counted(Arrays(rows, window(hour, ROWS)), when, made.columns, None)
            for word, settings in OURS.items():
                state = fold(plans[word], memories[word], when, seen, settings)
                called = state.total >= math.log(A)
                alarms[word] += called
                memories[word] = Sums(made, "", START) if called else state.memory
    for word, count in alarms.items():
        apart(f"ours, {word}", count)


def quiet_river() -> None:
    for word, adwin in adwins().items():
        if adwin is None:
            say(f"no drift, {word}: false alarms", None, note=_peers.MISSING)
            continue
        alarms = 0
        for number in range(STILL):
            reference, windows = still(number, LENGTH)
            detectors: dict[str, Any] = {}
            feed(adwin, detectors, reference)
            alarms += sum(bool(feed(adwin, detectors, rows)) for rows in windows)
        apart(word, alarms)


def apart(whose: str, alarms: int) -> None:
    """Each alarm begins anew, so the windows looked at are a sum of waits; the bound takes the waits as exponential."""
    looked = STILL * LENGTH
    said = f"measured {looked / alarms:,.0f}" if alarms else "none came"
    say(f"no drift, {whose}: false alarms", alarms, note=f"in {looked:,} windows of 20 columns")
    bound = looked / (stats.chi2.ppf(0.95, 2 * (alarms + 1)) / 2)
    say(f"no drift, {whose}: windows from one to the next, at least", bound, note=f"lower 95 % bound; {said}")


def quiet_scipy(streams: int = 10, windows: int = 50) -> None:
    alarms = dict.fromkeys(("p < .05", "Bonferroni", "Benjamini-Hochberg"), 0)
    for number in range(streams):
        reference, rows = still(number, windows)
        for one in rows:
            found = np.array([stats.ks_2samp(one[name], reference[name]).pvalue for name in reference])
            least = {"p < .05": found, "Bonferroni": found * len(found), "Benjamini-Hochberg": stats.false_discovery_control(found)}
            for word, adjusted in least.items():
                alarms[word] += bool(adjusted.min() < 0.05)
    for word, count in alarms.items():
        share(f"scipy's KS, {word}", count, streams * windows)


def share(whose: str, alarms: int, looked: int) -> None:
    low, high = stats.binomtest(alarms, looked).proportion_ci()
    say(
        f"no drift, {whose}: windows with an alarm",
        100 * alarms / looked,
        unit="%",
        note=f"{alarms} of {looked}; 95 %: {100 * low:.2g} to {100 * high:.2g} %",
    )


def quiet_elsewhere(whose: str, program: str, windows: int, streams: int = 4) -> None:
    """One program in an environment of its own: what it calls by default, windows being those ours looks at first."""
    python, figure = _peers.python(whose.lower()), f"no drift, {whose}'s default: windows with an alarm"
    if not python:
        return say(figure, None, note=_peers.MISSING)
    held = [still(number, windows) for number in range(streams)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "streams.npz"
        np.savez(path, references=[table(one) for one, _ in held], windows=[[table(one) for one in rows] for _, rows in held])
        try:
            told = subprocess.run([python, "-c", program, path], capture_output=True, text=True, timeout=400, env=os.environ | SILENT)
        except (OSError, subprocess.TimeoutExpired) as problem:
            return say(figure, None, note=f"{problem!s:.80}")
    if told.returncode:
        print(told.stderr, file=sys.stderr)
        return say(figure, None, note=f"ended with exit code {told.returncode}")
    share(f"{whose}'s default", int(told.stdout.split()[-1]), streams * windows)


def table(rows: dict[str, Any]) -> Any:
    return np.stack(list(rows.values()), axis=1)


def adwins() -> dict[str, Any]:
    """River's ADWIN by default and stricter, or None. River's place goes behind everything else on the path, so that no other package changes."""
    if _peers.python("river"):
        sys.path.extend(map(str, _peers.folder("river").glob("lib/python*/site-packages")))
    try:
        made = import_module("river.drift").ADWIN
    except ImportError:
        made = None
    return {"River's ADWIN": made, f"River's ADWIN, delta {STRICT:g}": made and partial(made, delta=STRICT)}


PARTS: dict[str, Callable[[], None]] = {
    "delays": delays,
    "ours": quiet_ours,
    "river": quiet_river,
    "scipy": quiet_scipy,
    "evidently": lambda: quiet_elsewhere("Evidently", EVIDENTLY, 4),
    "nannyml": lambda: quiet_elsewhere("NannyML", NANNYML, 10),
}


def main(chosen: list[str]) -> None:
    for name, part in PARTS.items():
        if not chosen or name in chosen:
            part()


if __name__ == "__main__":
    main(sys.argv[1:])
