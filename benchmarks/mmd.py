"""All columns as one: CPU of the kernel test beside the peer's, how near float32 comes to float64, and how soon the betting classifier finds what.

alibi-detect, in an environment of its own, is measured beside; where that cannot be made, the figure of our notes stands for it.
"""

import json
import os
import statistics
import subprocess
import sys
import time

from benchmarks import _peers

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy: a second thread that waits for work counts as CPU

ROWS, COLUMNS, PERMUTATIONS = 1_000, 20, 1_000
NOTED = 5.4  # CPU seconds of alibi-detect 0.13.0 on torch 2.13.0, the same sizes with a tenth of the permutations, one thread
PEER = """
import time, numpy as np, torch
from alibi_detect.cd import MMDDrift
torch.set_num_threads(1)
rng = np.random.default_rng(0)
x, y = (rng.standard_normal(({rows}, {columns})).astype("float32") for _ in "xy")
began = time.process_time()
MMDDrift(x, backend="pytorch", p_val=0.05, n_permutations=100).predict(y)
print(time.process_time() - began)
"""


def main() -> None:
    kernel()
    for name, change in CHANGES.items():
        delays(name, change)


def kernel() -> None:
    import numpy as np

    from checks import _mmd

    rng = np.random.default_rng(0)
    x, y = (normal(rng, ROWS, COLUMNS) for _ in "xy")
    ours = statistics.median(spent(lambda: _mmd.test(x, y, PERMUTATIONS, 1)) for _ in range(7))
    theirs, how = peer()
    sizes = f"{ROWS} rows a side, {COLUMNS} columns"
    figure(f"MMD of {sizes}, {PERMUTATIONS} permutations", ours, "s of CPU", "median of 7")
    figure("alibi-detect on torch with 100 permutations / ours with 1,000", theirs / ours, "x", f"{theirs:.2g} s {how}", at_least=20)
    both, labels = np.concatenate([x, y]), _mmd.labels(ROWS, 2 * ROWS, PERMUTATIONS, rng)
    single = _mmd.exact(_mmd.kernel(both, 6.0), labels)
    double = _mmd.exact(_mmd.kernel(both, 6.0, "float64"), labels.astype(np.float64))
    figure("float32 against float64, the largest difference of 1,001", float(np.abs(single - double).max()), "", sizes, at_most=1e-5)
    many = [normal(rng, 10_000, COLUMNS) for _ in "xy"]
    figure("the same of 10,000 rows a side, by random frequencies", spent(lambda: _mmd.test(*many, PERMUTATIONS, 1)), "s of CPU", "")


def peer() -> tuple[float, str]:
    python = _peers.python("alibi")
    if not python:
        return NOTED, "as noted"
    told = subprocess.run([python, "-c", PEER.format(rows=ROWS, columns=COLUMNS)], capture_output=True, text=True, timeout=300)
    if told.returncode:
        sys.exit(told.stderr)
    return float(told.stdout.split()[-1]), "measured here"


def spent(work) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


# How soon: 64 columns, windows of 500 rows against a reference of 20,000, ten quiet windows first, a mean time of 2,160 windows between false alarms

D, N, QUIET, LIMIT, SEEDS, RUN_LENGTH = 64, 500, 10, 40, 15, 2_160.0


def normal(rng, rows, columns):
    return rng.standard_normal((rows, columns)).astype("float32")


def shifted(by, columns=3):
    def change(x, rng):
        x[:, :columns] += by

    return change


def correlated(by):
    def change(x, rng):
        x[:, 1] = by * x[:, 0] + (1 - by**2) ** 0.5 * x[:, 1]

    return change


def together(x, rng):
    x *= 0.9**0.5
    x += 0.1**0.5 * normal(rng, len(x), 1)


def few(x, rng):
    x[rng.random(len(x)) < 0.05] += 1


CHANGES = {
    "no change": lambda x, rng: None,
    "+0.3 sd in 3 columns": shifted(0.3),
    "+0.15 sd in 3 columns": shifted(0.15),
    "one correlation 0 to 0.6, same margins": correlated(0.6),
    "one correlation 0 to 0.3, same margins": correlated(0.3),
    "all correlations 0 to 0.1, same margins": together,
    "+1 sd in all columns of 5 % of rows": few,
}


def delays(name: str, change) -> None:
    """Windows from the change to the alarm: 0 would be the first changed one, from which nothing can have been learnt yet."""
    began = time.process_time()
    found = [delay(change, seed) for seed in range(SEEDS)]
    early = sum(one < 0 for one in found)
    cost = f"{(time.process_time() - began) / SEEDS:.1f} s of CPU a stream"
    if name == "no change":
        figure("false alarms of a betting classifier", sum(one < LIMIT for one in found), "", f"{SEEDS} streams of {QUIET + LIMIT} windows; {cost}")
        return
    soon = sorted(one for one in found if one >= 0)
    value = soon[len(soon) // 2]
    worst = soon[int(0.9 * (len(soon) - 1))]
    note = f"median of {len(soon)}, of 64 columns; nine in ten by {worst}{f'; {early} false alarms before' if early else ''}; {cost}"
    limit = {"at_most": 1} if name in ("+0.3 sd in 3 columns", "one correlation 0 to 0.6, same margins") else {}
    figure(f"windows to the alarm, {name}", value, "windows", note, **limit)


def delay(change, seed: int) -> int:
    import numpy as np

    from checks import _bettor

    rng = np.random.default_rng(seed)
    reference, memory = _bettor.known(normal(rng, 10_000, D), normal(rng, 10_000, D)), _bettor.Bets("")
    for place in range(-QUIET, LIMIT):
        window = normal(rng, N, D)
        if place >= 0:
            change(window, rng)
        memory, _ = _bettor.play(memory, reference, window, 0.02, RUN_LENGTH)
        if memory.alarmed:
            return place
    return LIMIT


def figure(name: str, value: float, unit: str, note: str, **promise: float) -> None:
    print(json.dumps({"figure": name, "value": value, "unit": unit, "note": note, **promise}), flush=True)


if __name__ == "__main__":
    main()
