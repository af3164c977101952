"""The trainers that others wrote, for real: a flow on Prefect's own local server, and a pipeline of Kubeflow's in its local runner, as a command.

Each comes from an environment of its own. Both are asked for the same: a job that is done, one that fails, and one that is called off (Prefect) or
told of twice (both); figures are jobs that ended as they should.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent import Locator, Trainer
from agent.errors import TargetError
from agent.targets import connect
from benchmarks import _peers

LONGEST = 300.0  # seconds until anything is given up
WORK = """
import hashlib, json, os, sys, time
from pathlib import Path

def work(job):
    home = Path(job)
    asked = json.loads((home / "spec.json").read_text())
    if asked["parameters"].get("hangs"):
        time.sleep(3600)
    if asked["parameters"].get("fails"):
        raise RuntimeError("no such layer")
    (home / "model.onnx").write_bytes(b"weights")
    told = {"files": {"model.onnx": hashlib.sha256(b"weights").hexdigest()}, "data": {n: o["sha256"] for n, o in asked["data"].items()}, "rows": 3}
    (home / "manifest.json").write_text(json.dumps(told))
"""
FLOW = """
from prefect import flow
from work import work

@flow
def retrain(job: str) -> None:
    work(job)

if __name__ == "__main__":
    retrain.serve(name="on-demand")
"""
PIPELINE = """
import os
from kfp import dsl, local

@dsl.component
def fit(job: str, folder: str) -> str:
    import sys
    sys.path.insert(0, folder)
    from work import work
    work(job)
    return "done"

@dsl.pipeline
def retrain(job: str, folder: str) -> str:
    return fit(job=job, folder=folder).output

local.init(runner=local.SubprocessRunner(use_venv=False))
retrain(job=os.environ["WATCHKEEPER_JOB"], folder=os.getcwd())
"""
SILENT = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "PREFECT_RUNNER_POLL_FREQUENCY": "1"}


def main() -> None:
    for name, tried in (("prefect", prefect), ("kfp", kubeflow)):
        python = _peers.python(name)
        if python is None:
            print(json.dumps({"figure": f"jobs through {name} that ended as they should", "value": None, "note": _peers.MISSING}))
            continue
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            (folder / "work.py").write_text(WORK)
            right, wanted = tried(folder, Path(python))
        print(json.dumps({"figure": f"jobs through {name} that ended as they should", "value": right, "at_least": wanted, "note": f"of {wanted}"}))


def prefect(folder: Path, python: Path) -> tuple[int, int]:
    """Three flow runs at once on a server of its own."""
    port = _free()
    env = {**os.environ, **SILENT, "PREFECT_HOME": str(folder / "home"), "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
    env["PATH"] = f"{python.parent}{os.pathsep}{env['PATH']}"
    (folder / "flow.py").write_text(FLOW)
    server = [str(python.parent / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    trainer = connect(Locator("fraud", "trainer", f"prefect+http://127.0.0.1:{port}/retrain/on-demand", folder=str(folder)))
    with _running(server, folder, env):
        _until(lambda: _up(trainer))
        with _running([str(python), "flow.py"], folder, env):
            _until(lambda: _begun(trainer, folder, "run-1/1"))
            return ends(trainer, folder, cancelled=True)


def kubeflow(folder: Path, python: Path) -> tuple[int, int]:
    """Two pipelines, each a command of its own."""
    (folder / "pipeline.py").write_text(PIPELINE)
    options = {"train": [str(python), "pipeline.py"], "longest": "5m", "env": {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}}
    return ends(connect(Locator("fraud", "trainer", "command:.", options, folder=str(folder))), folder, cancelled=False)


def ends(trainer: Trainer, folder: Path, cancelled: bool) -> tuple[int, int]:
    """How many jobs ended as they should, and how many there were: one done, one failed, one called off."""
    jobs: dict[str, tuple[str, Mapping[str, Any]]] = {"run-1/1": ("succeeded", {}), "run-1/2": ("failed", {"fails": True})}
    if cancelled:
        jobs["run-1/3"] = ("failed", {"hangs": True})
    for key, (_, parameters) in jobs.items():
        trainer.start(spec(folder, parameters), key)
        trainer.start(spec(folder, parameters), key)
    if cancelled:
        _until(lambda: trainer.status("run-1/3").state == "running")
        trainer.cancel("run-1/3")
    _until(lambda: all(trainer.status(key).state in ("succeeded", "failed") for key in jobs))
    right = sum(trainer.status(key).state == state for key, (state, _) in jobs.items())
    return right - (trainer.result("run-1/1").rows != 3), len(jobs)


def spec(folder: Path, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    pin = folder / "train.parquet"
    pin.write_bytes(b"rows")
    data = {"train": {"path": str(pin), "sha256": hashlib.sha256(b"rows").hexdigest(), "rows": 3}}
    return {"data": data, "champion": None, "seed": 7, "parameters": parameters}


def _up(trainer: Trainer) -> bool:
    try:
        return trainer.status("run-0/0").state == "absent"
    except TargetError:
        return False


def _begun(trainer: Trainer, folder: Path, key: str) -> bool:
    """The deployment is there once what serves it has said so."""
    try:
        trainer.start(spec(folder, {}), key)
    except TargetError:
        return False
    return True


def _until(true: Any) -> None:
    end = time.monotonic() + LONGEST
    while not true():
        if time.monotonic() > end:
            raise SystemExit("it was given up: nothing had come of it after five minutes")
        time.sleep(0.5)


@contextmanager
def _running(words: list[str], folder: Path, env: Mapping[str, str]) -> Iterator[None]:
    with (folder / f"{Path(words[-1]).stem}.log").open("w") as log:
        process = subprocess.Popen(words, cwd=folder, env=env, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(60)


def _free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


if __name__ == "__main__":
    main()
