"""Quantizing what serves: rows are pinned, the real program measures, the gate judges, the registry keeps, and a canary decides who serves."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from agent import config, verbs
from agent.targets.folder import record
from tests.conftest import HOUSE
from tests.fraud import GOLDEN
from tests.learning import CLASSES, FEATURES, carried, learning
from tests.test_retrain import changed, registry, stopped_before

ENDS = ("pin", "sound", "quantize", "gate", "register", "canary")
HERE = f"[{sys.executable}, -m, runbooks._quantize]"
COPIES = """
import hashlib, json, os, shutil
from pathlib import Path

home = Path(os.environ["WATCHKEEPER_JOB"])
spec = json.loads((home / "spec.json").read_text())
shutil.copy(spec["parameters"]["model"], home / "model.onnx")
files = {"model.onnx": hashlib.sha256((home / "model.onnx").read_bytes()).hexdigest()}
data = {name: one["sha256"] for name, one in spec["data"].items()}
(home / "manifest.json").write_text(json.dumps({"files": files, "data": data, "rows": 1, "metrics": {"size": 1.0}}))
"""
CONFIG = """      quantizer: {{url: "command:.", train: {words}, env: {{PYTHONPATH: "{house}"}}, longest: 2m}}
"""


def wide(path, units: int = 256):
    """The champion of tests/learning.py in three layers of which most is padding: what there is to make smaller."""
    rng = np.random.default_rng(1)
    first, second, third = (0.01 * rng.normal(size=shape) for shape in ((CLASSES, units), (units, units), (units, CLASSES)))
    first[:, :CLASSES] = 6 * np.eye(CLASSES)
    second[:CLASSES, :CLASSES] = third[:CLASSES] = np.eye(CLASSES)
    held = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in (("a", first), ("b", second), ("c", third))]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["p"], "first"),
        helper.make_node("Relu", ["p"], ["q"]),
        helper.make_node("MatMul", ["q", "b"], ["r"], "second"),
        helper.make_node("Relu", ["r"], ["s"]),
        helper.make_node("MatMul", ["s", "c"], ["t"], "third"),
        helper.make_node("Softmax", ["t"], ["y"]),
    ]
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", CLASSES]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "wide", sides[:1], sides[1:], held)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


@contextmanager
def served(folder, words: str = HERE):
    """The service of tests/learning.py with a champion that is worth making smaller, and a quantizer."""
    with learning(folder) as desk:
        shutil.rmtree(folder / "models" / "1")
        record(folder / "models", "1", {"model.onnx": wide(folder / "wide.onnx")}, golden=GOLDEN)
        changed(desk, "      live:\n", CONFIG.format(words=words, house=HOUSE) + "      live:\n")
        changed(desk, "      retrain:\n", "      quantize:\n")
        changed(desk, "retrain: approve", "quantize: approve")
        yield desk


def started(desk, **parameters):
    told = {"rounds": 24, "seconds": 0, "batches": [1], "speed": 0, **parameters}
    return verbs.start(desk.world, "quantize", "fraud", {"parameters": told}, "ada").id


def untouched(desk, run, at):
    """The run stopped at that step, nothing is served but the champion, and no half of a version is anywhere."""
    reached = [row.name for row in run.steps if row.state != "planned"]
    assert (run.state, reached[-1]) == ("stopped", at), run.said
    assert desk.server.served == "1" and not desk.server.flips
    assert not list((desk.folder / "models").glob(".*")) and [one.version for one in registry(desk).versions()] == ["1"]
    return run.said


def test_a_smaller_form_that_is_as_good_is_registered_with_its_numbers_and_serves_in_the_end(tmp_path):
    with served(tmp_path) as desk:
        run = carried(desk, started(desk))
        assert run.state == "succeeded", run.said
        assert [row.name for row in run.steps] == list(ENDS)
        made = registry(desk).version("2")
        assert desk.server.served == "2" and set(made.files) == {"model.onnx", "report.json", "quantize.html", "pareto.svg"}
        metrics = made.lineage["metrics"]
        kept = registry(desk).file("2", "model.onnx")
        assert metrics["size"] == kept.stat().st_size < 0.4 * metrics["size_before"] and metrics["kept"] > 0.98
        assert {"p50_batch_1", "p99_batch_1", "speed_batch_1", "memory", "accuracy", "lost", "won"} <= set(metrics)
        assert made.lineage["parent"] == "1" and made.lineage["runbook"] == "quantize" and made.lineage["gate"].startswith("PROMOTE")
        report = json.loads(registry(desk).file("2", "report.json").read_text())
        assert report["champion"]["sha256"] == registry(desk).version("1").files["model.onnx"] and report["judged_by"] == "classes"


def test_where_nothing_is_better_the_champion_stays_and_the_reason_is_told(tmp_path):
    with served(tmp_path) as desk:
        said = untouched(desk, carried(desk, started(desk, largest=0.01)), "quantize")
        assert "none of" in said and "larger: it keeps" in said


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"memory": 1000}, "more than the 1,000 that are allowed"),
        ({"features": ["x0"]}, "a row has 1 values"),
    ],
)
def test_what_cannot_be_measured_stops_it_with_the_program_s_own_words(tmp_path, parameters, told):
    with served(tmp_path) as desk:
        assert told in untouched(desk, carried(desk, started(desk, **parameters)), "quantize")


def test_a_form_that_answers_worse_is_blocked_by_the_gate_whatever_the_program_says_of_it(tmp_path):
    (tmp_path / "copy.py").write_text(COPIES)
    with served(tmp_path, f"[{sys.executable}, -S, copy.py]") as desk:
        said = untouched(desk, carried(desk, started(desk, model="forgot.onnx")), "gate")
        assert "BLOCK" in said


def test_a_registry_that_cannot_be_written_has_no_half_of_a_version(tmp_path):
    (tmp_path / "copy.py").write_text(COPIES)
    with served(tmp_path, f"[{sys.executable}, -S, copy.py]") as desk:
        number = started(desk, model="wide.onnx")
        stopped_before(desk, number, "register", ENDS)
        (tmp_path / "models" / "2").write_text("something else has the name")
        untouched(desk, carried(desk, number), "register")


def test_a_drill_measures_and_judges_and_registers_nothing(tmp_path):
    (tmp_path / "copy.py").write_text(COPIES)
    with served(tmp_path, f"[{sys.executable}, -S, copy.py]") as desk:
        path = tmp_path / "watchkeeper.yaml"
        path.write_text(path.read_text().replace("        with:\n", "        with:\n          parameters: {model: wide.onnx}\n", 1))
        desk.world.use(config.load(path))
        ended = carried(desk, verbs.start(desk.world, "quantize", "fraud", {}, "ada", drill=True).id)
        assert ended.state == "succeeded" and [row.name for row in ended.steps] == list(ENDS[:4]), ended.said
        assert [one.version for one in registry(desk).versions()] == ["1"]


def test_the_plan_says_how_rows_are_read_and_what_stays(tmp_path):
    with served(tmp_path) as desk:
        plan = verbs.start(desk.world, "quantize", "fraud", {"parameters": {"threads": 2}}, "ada", dry_run=True)
        told = {step.name: step for step in plan.steps}
        assert told["quantize"].args["parameters"] == {"features": FEATURES, "label": "label", "file": "model.onnx", "threads": 2}
        assert told["pin"].args["held"] == 0.5 and told["register"].args["version"] == "2" and "version 1" in told["quantize"].why
        assert verbs.start(desk.world, "quantize", "fraud", {"rollout": ""}, "ada", dry_run=True).steps[-1].name == "register"
