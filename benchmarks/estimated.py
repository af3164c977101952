"""Performance without labels: how often the realised metric lies within the stated error of the estimate, and how near it is beside the peer's.

The CBPE of NannyML, in an environment of its own, estimates the very same windows.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks import _peers

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy: a second thread that waits for work counts as CPU

REFERENCES, WINDOWS, KNOWN, ROWS, SHIFT = 50, 5, 2_000, 400, 0.4  # each reference stands for five windows, whose inputs have moved
METRICS = ("accuracy", "roc_auc", "f1")
PROMISED = 0.93  # of 95 %: each reference is finite, and so are the windows
PEER = """
import json, sys, time, warnings
import numpy as np, pandas as pd
import nannyml
warnings.simplefilter("ignore")
held, metrics, rows = np.load(sys.argv[1]), sys.argv[2].split(","), int(sys.argv[3])
def table(score, truth):
    return pd.DataFrame({"score": score, "answer": (score > 0.5).astype(int), "truth": truth})
spent, found, kinds = 0.0, [], ("value", "lower_confidence_boundary", "upper_confidence_boundary")
for score, truth, window in zip(held["known_score"], held["known_truth"], held["score"]):
    then, now = table(score, truth), table(window.ravel(), 0).drop(columns="truth")
    began = time.process_time()
    names = dict(y_pred_proba="score", y_pred="answer", y_true="truth", problem_type="classification_binary")
    peer = nannyml.CBPE(metrics=metrics, chunk_size=rows, **names).fit(then)
    told = peer.estimate(now).filter(period="analysis").to_df()
    spent += time.process_time() - began
    found += [[[float(told[m, k].iloc[n]) for k in kinds] for m in metrics] for n in range(len(told))]
print(json.dumps({"found": found, "spent": spent, "version": nannyml.__version__}))
"""


def main() -> None:
    import numpy as np

    from checks import _estimate

    known, windows = drawn()
    flat = [(known[place // WINDOWS], one) for place, one in enumerate(windows)]
    real = np.array([[realised(metric, one) for metric in METRICS] for one in windows])
    ours, spent = [], []
    for metric in METRICS:
        began = time.process_time()
        ours.append([_estimate.expected(metric, replace(one, truth=one.answer), then) for then, one in flat])
        spent.append(time.process_time() - began)
    theirs = peer(known, windows)
    sizes = f"{len(windows)} windows of {ROWS} rows, {REFERENCES} references of {KNOWN:,}"
    for place, metric in enumerate(METRICS):
        told, truth = ours[place], real[:, place]
        within = float(np.mean([one.low <= value <= one.high for one, value in zip(told, truth, strict=True)]))
        reach = float(np.mean([one.high - one.low for one in told])) / 2
        figure(f"{metric}: realised within the stated error", within, "", f"{sizes}; the error is {reach:.3f} on average", at_least=PROMISED)
        mine = float(np.abs([one.value - value for one, value in zip(told, truth, strict=True)]).mean())
        figure(f"{metric}: mean distance of the estimate from the realised", mine, "", f"{spent[place]:.1f} s of CPU")
        compared(metric, mine, truth, theirs and theirs["found"][:, place])
    figure("CPU of all estimates, ours", sum(spent), "s", "three metrics, with 200 draws of outcomes and calibrator each")
    figure(
        "CPU of all estimates, nannyml",
        theirs and theirs["spent"],
        "s",
        f"nannyml {theirs['version']}, fitting and estimating" if theirs else _peers.MISSING,
    )


def compared(metric: str, mine: float, truth, theirs) -> None:
    import numpy as np

    name = f"{metric}: mean distance, nannyml"
    if theirs is None:
        figure(name, None, "", _peers.MISSING)
        return
    within = float(np.mean((theirs[:, 1] <= truth) & (truth <= theirs[:, 2])))
    distance = float(np.abs(theirs[:, 0] - truth).mean())
    figure(name, distance, "", f"ours is {mine / distance:.2f} of it; {within:.1%} of the realised lie in its band of three sampling errors")


def drawn():
    """References and windows of a model that is too sure of itself; in the windows the inputs have moved, and P(y|x) is what it was."""
    import numpy as np

    from checks._sample import Sample

    random = np.random.default_rng(10)

    def rows(n: int, shift: float) -> Sample:
        x = random.normal(shift, 1, n)
        score = 1 / (1 + np.exp(-1.6 * (x - 1)))
        truth = (random.random(n) < 1 / (1 + np.exp(1 - x))).astype(int)
        return Sample("binary", truth, (score > 0.5).astype(int), np.ones(n), ("0", "1"), 1, score, np.maximum(score, 1 - score), at=np.arange(n))

    return [rows(KNOWN, 0.0) for _ in range(REFERENCES)], [rows(ROWS, SHIFT) for _ in range(REFERENCES * WINDOWS)]


def realised(metric: str, window) -> float:
    from checks import _metrics

    return _metrics.point(metric, window)


def peer(known, windows):
    """What the peer says of the same windows, [window, metric, (value, low, high)], and its CPU seconds; None where there is no peer."""
    import numpy as np

    python = _peers.python("nannyml")
    if not python:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npz"
        score = np.array([one.score for one in windows]).reshape(REFERENCES, WINDOWS, ROWS)
        np.savez(path, known_score=[one.score for one in known], known_truth=[one.truth for one in known], score=score)
        asked = [python, "-c", PEER, str(path), ",".join(METRICS), str(ROWS)]
        told = subprocess.run(asked, capture_output=True, text=True, timeout=600, env={**os.environ, "NML_DISABLE_USAGE_LOGGING": "1"})
    if told.returncode:
        sys.exit(told.stderr)
    answer = json.loads(told.stdout.splitlines()[-1])
    return {**answer, "found": np.array(answer["found"])}


def figure(name: str, value: float | None, unit: str, note: str, **promise: float) -> None:
    print(json.dumps({"figure": name, "value": value, "unit": unit, "note": note, **promise}), flush=True)


if __name__ == "__main__":
    main()
