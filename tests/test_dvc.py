"""DVC's own pipeline as a trainer, through the trainer `command`, with a real `dvc` in a real repository."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent import Locator
from agent.targets import connect
from tests.conftest import HOUSE, need
from tests.learning import ended

PIPELINE = """
stages:
  train:
    cmd: python3 fit.py
    deps: [fit.py, data/train.csv]
    params: [{job.json: [seed]}]
    outs: [model.onnx]
    metrics: [{metrics.json: {cache: false}}]
"""
FIT = """
import json
from pathlib import Path
rows = Path("data/train.csv").read_text()
Path("fitted").open("a").write("x")
if "bad" in rows: raise SystemExit("no such column")
Path("model.onnx").write_text(rows + str(json.loads(Path("job.json").read_text())["seed"]))
Path("metrics.json").write_text(json.dumps({"accuracy": 0.9, "by": {"EU": 0.8}, "who": "me"}))
"""
ASKED = ["--in", "train=data/train.csv", "--out", "model.onnx", "--metrics", "metrics.json", "--parameters", "job.json"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of DVC's with one stage; its cache is linked to, as large ones are."""
    place = tmp_path / "repository"
    (place / ".dvc").mkdir(parents=True)
    (place / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n[cache]\n    type = symlink\n")
    (place / "dvc.yaml").write_text(PIPELINE)
    (place / "fit.py").write_text(FIT)
    return place


def job(repository: Path, dvc: Path, key: str, rows: str, asked: list[str] = ASKED) -> Any:
    """How a job ended, and what it made if it did."""
    pin = repository.parent / f"{key[-1]}.csv"
    pin.write_text(rows)
    words = [sys.executable, "-m", "runbooks._dvc", *asked]
    path = os.pathsep.join([str(dvc.parent), os.environ["PATH"]])
    options = {"train": words, "folder": "../jobs", "env": {"PATH": path, "PYTHONPATH": str(HOUSE)}, "longest": "5m"}
    trainer = connect(Locator("fraud", "trainer", "command:.", options, folder=str(repository)))
    data = {"train": {"path": str(pin), "sha256": hashlib.sha256(rows.encode()).hexdigest(), "rows": 2}}
    trainer.start({"data": data, "champion": None, "seed": 7, "parameters": {"epochs": 2}}, key)
    ended(repository.parent / "jobs" / key.replace("/", "-") / "lock")
    told = trainer.status(key)
    return told, trainer.result(key) if told.state == "succeeded" else None


def test_a_pipeline_is_run_on_the_pinned_rows_and_only_where_they_changed(repository: Path) -> None:
    dvc = need("dvc")
    told, made = job(repository, dvc, "run-1/1", "a,b\n")
    assert told.state == "succeeded", told.said
    assert (made.rows, made.seed, dict(made.metrics)) == (2, 7, {"accuracy": 0.9, "by.EU": 0.8})
    assert (repository / "model.onnx").is_symlink() and (made.folder / "model.onnx").read_text() == "a,b\n7"
    assert made.parameters["dvc.lock"] == hashlib.sha256((repository / "dvc.lock").read_bytes()).hexdigest()
    told, again = job(repository, dvc, "run-1/2", "a,b\n")
    assert again.files == made.files and (repository / "fitted").read_text() == "x", "dvc knew the rows"
    told, _ = job(repository, dvc, "run-1/3", "bad\n")
    assert told.state == "failed" and "dvc repro ended with exit status" in told.said


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--in", "other=data/train.csv", "--out", "model.onnx"], "there is no table 'other'"),
        (["--in", "train=data/train.csv"], "--out"),
        (["--in", "train=data/train.csv", "--out", "model.onnx"], "dvc is not on the PATH"),
    ],
)
def test_what_it_cannot_do_is_said_and_nothing_is_handed_in(repository: Path, tmp_path: Path, asked: list[str], said: str) -> None:
    told, _ = job(repository, tmp_path / "nowhere" / "dvc", "run-1/4", "a,b\n", asked)
    assert told.state == "failed" and said in told.said


def test_it_says_where_it_must_be_run(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "runbooks._dvc", "--out", "x"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(HOUSE)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "run this in the repository whose pipeline it is" in done.stderr
