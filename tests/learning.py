"""A small service that learns: a log with late labels, a linear model in the registry, a real trainer that makes the next, a driver of its runs."""

from __future__ import annotations

import atexit
import csv
import fcntl
import functools
import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from agent import verbs
from agent.targets.folder import record
from agent.workers import Pool
from tests.fraud import GOLDEN, Desk, Fraud, at_work
from tests.rollout import JUDGE, SPLIT, plugged

CLASSES = 3
FEATURES = [f"x{place}" for place in range(CLASSES)]
FITS = """
import hashlib, json, os, sys
from pathlib import Path

home = Path(os.environ["WATCHKEEPER_JOB"])
sys.path.insert(0, {house!r})
import pyarrow.parquet
from agent import asked, hand_in
from tests.learning import fitted, graph

spec = asked(home)
train = spec["data"]["train"]
assert hashlib.sha256(Path(train["path"]).read_bytes()).hexdigest() == train["sha256"]
print(json.dumps({{"done": 0.5, "what": "fits"}}), flush=True)
table = pyarrow.parquet.read_table(train["path"])
graph(home / "model.onnx", fitted(table))
hand_in(home, spec, ["model.onnx"], rows=table.num_rows, metrics={{"accuracy": 0.9}}, code="4f1c9d2", environment="e" * 64)
"""
COPIES = """
import hashlib, json, os, shutil, sys, time
from pathlib import Path

home = Path(os.environ["WATCHKEEPER_JOB"])
spec = json.loads((home / "spec.json").read_text())
given = spec["parameters"]
shutil.copy(given.get("model", "good.onnx"), home / "model.onnx")
names = ["model.onnx"]
if given.get("golden"):
    (home / "golden.json").write_text(json.dumps({{"rows": given["golden"]}}))
    names.append("golden.json")
files = {{name: hashlib.sha256((home / name).read_bytes()).hexdigest() for name in names}}
data = {{name: one["sha256"] for name, one in spec["data"].items()}}
(home / "manifest.json").write_text(json.dumps({{"files": files, "data": data, "rows": spec["data"]["train"]["rows"]}}))
"""


@functools.cache
def workers() -> Pool:
    """One worker for all tests of learning: what it imports takes longer than what they ask of it."""
    pool = Pool(1)
    atexit.register(pool.close)
    return pool


def graph(path: Path, weights: Any) -> Path:
    """A graph of one layer: x times the weights, and the classes' probabilities."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Softmax", ["z"], ["p"])]
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, CLASSES]) for name in ("x", "p")]
    made = helper.make_graph(nodes, "g", shapes[:1], shapes[1:], [numpy_helper.from_array(weights.astype(np.float32), "w")])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString())
    return path


def fitted(table: Any) -> Any:
    """Weights that point from the middle of each class's rows."""
    truth = np.array([int(float(value)) for value in table["label"].to_pylist()])
    rows = np.stack([table[name].to_numpy() for name in FEATURES], axis=1)
    return np.stack([6 * rows[truth == kind].mean(axis=0) for kind in range(CLASSES)], axis=1)


def written(folder: Path, name: str, n: int, seed: int) -> Path:
    """Labelled rows of all classes, as a CSV file."""
    features, truth = drawn(n, seed)
    path = folder / f"{name}.csv"
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow([*FEATURES, "label"])
        out.writerows([*(f"{value:.6f}" for value in row), kind] for row, kind in zip(features, truth, strict=True))
    return path


def drawn(n: int, seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, CLASSES, n)
    return np.eye(CLASSES)[truth] + rng.normal(0, 0.3, (n, CLASSES)), truth


def logged(path: Path, n: int = 1600, labelled: float = 1.0) -> None:
    """What users sent in the last hour, a probe of ours now and then, and the labels that came since."""
    features, truth = drawn(n, 7)
    begin = datetime.now(UTC) - timedelta(hours=1)
    with closing(sqlite3.connect(path)) as con, con:
        con.execute(f"CREATE TABLE log (at TEXT, id TEXT, probe INTEGER, {', '.join(f'{name} REAL' for name in FEATURES)})")
        con.execute("CREATE TABLE truth (at TEXT, id TEXT, label INTEGER)")
        rows = [((begin + timedelta(seconds=n)).isoformat(), f"id{n}", int(n % 10 == 0), *map(float, row)) for n, row in enumerate(features)]
        con.executemany(f"INSERT INTO log VALUES (?, ?, ?, {', '.join('?' * CLASSES)})", rows)
        con.executemany("INSERT INTO truth VALUES (?, ?, ?)", [(at, key, int(truth[n])) for n, (at, key, *_) in enumerate(rows[: int(n * labelled)])])


CONFIG = """
services:
  fraud:
    owner: ada
    soak: 1s
    drills: {{live: true}}
    mode: {{default: observe, retrain: approve, canary: approve}}
    runbooks:
      retrain:
        with:
          gate: {{label: label, features: [{features}], margin: 0.05}}
          model: {{features: [{features}]}}
          rollout_with: {{judge: judged.compare, steps: [0.5], every: 50ms, compare: {{file: "{folder}/said.json"}}}}
    targets:
      server: oip+{address}/m
      router: split+{address}
      registry: folder:models
      trainer: {{url: "command:.", train: [{python}, {alone}train.py], longest: 2m}}
      live:
        url: sqlite:log.db?table=log
        time: {{column: at, tz: UTC}}
        id: id
        features: [{features}]
        exclude: [{{column: probe, equals: 1}}]
      labels: {{url: "sqlite:log.db?table=truth", key: id, label: label, time: {{column: at, tz: UTC}}}}
      old: csv:old.csv
    watches:
      - {{check: serving.ready, every: 10m}}
      - {{check: serving.parity, every: 10m, needs: [serving.ready]}}
{more}
notify:
  channels: {{ada: "http://127.0.0.1:9/ada"}}
"""


def laid_out(folder: Path, address: str, more: str = "", trainer: str = COPIES) -> Path:
    """The service's files: a champion that knows all classes, the log, the rows that judge, the trainer, the configuration."""
    weights = 6.0 * np.eye(CLASSES)
    graph(folder / "good.onnx", 1.1 * weights)
    graph(folder / "forgot.onnx", weights - 12.0 * np.eye(CLASSES)[:, [1]] @ np.eye(CLASSES)[[1]])
    graph(folder / "odd.onnx", np.full((CLASSES, CLASSES), np.nan))
    record(folder / "models", "1", {"model.onnx": graph(folder / "made" / "model.onnx", weights)}, golden=GOLDEN)
    logged(folder / "log.db")
    written(folder, "old", 600, 3)
    (folder / "train.py").write_text(trainer.format(house=str(Path(__file__).resolve().parent.parent)))
    (folder / "said.json").write_text(json.dumps({"else": "good"}))
    path = folder / "watchkeeper.yaml"
    text = CONFIG.format(
        address=address, features=", ".join(FEATURES), folder=folder, python=sys.executable, more=more, alone="" if "sys.path" in trainer else "-S, "
    )
    path.write_text(text)
    return path


@contextmanager
def learning(folder: Path, more: str = "", trainer: str = COPIES) -> Iterator[Desk]:
    """The service with version 1 serving, and a server that has versions 1 and 2 loaded."""
    with (
        plugged(folder, {"split": SPLIT}, "adapter"),
        plugged(folder, {"judged": JUDGE}),
        closing(Fraud()) as server,
        at_work(laid_out(folder, server.address, more, trainer), server, workers()) as desk,
    ):
        desk.see()
        yield desk


def carried(desk: Desk, number: int, by: str = "ada", moves: int = 400) -> Any:
    """Drive all runs until that one is over or waits for a person; what it wants itself `by` approves.

    The trainer is waited for; where anything else is, the clock is moved on.
    """
    for _ in range(moves):
        for future in desk.responder.tick(desk.world.clock()):
            future.result(60)
        with desk.world.store.read() as ledger:
            run, active = ledger.run(number), ledger.runs(active_only=True)
        for one in active:
            if one.state == "awaiting" and one.parent and by:
                verbs.approve(desk.world, one.id, by)
        if not run.active or any(one.state == "awaiting" and not (one.parent and by) for one in active):
            return run
        for lock in (desk.folder / "jobs").glob("run-*/lock"):
            ended(lock)
        wakes = [one.wake_at for one in active if one.wake_at]
        desk.later(max((min(wakes) - desk.world.clock()).total_seconds(), 0.0) if wakes else 0.0)
    raise AssertionError(f"run {run} does not come to an end")


def ended(lock: Path) -> None:
    """Wait until the job whose lock that is has ended."""
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
