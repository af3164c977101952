"""Forgetting, on real ONNX graphs and real tables: what is promoted, what is blocked, and what a served model is held to."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from agent.errors import DataError
from agent.model import Locator, Status
from agent.perform import perform

CLASSES = 4
WEIGHTS = 6.0 * np.eye(CLASSES, dtype=np.float32)


def linear(folder, version: str, weights, *, soft: bool = True):
    """A graph of one layer: x times the weights, and the classes' probabilities."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"])]
    nodes += [helper.make_node("Softmax", ["z"], ["p"])] if soft else [helper.make_node("Identity", ["z"], ["p"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, weights.shape[0]])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, weights.shape[1]])],
        [numpy_helper.from_array(weights.astype(np.float32), "w")],
    )
    path = folder / version / "model.onnx"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString())
    return path


def forgot(*classes):
    """The champion, but for classes it knows nothing of any more."""
    weights = WEIGHTS.copy()
    weights[list(classes)] = 0.0
    weights[list(classes), (classes[0] + 1) % CLASSES] = 6.0
    return weights


def rows(folder, name: str, classes, n: int = 400, seed: int = 0, noise: float = 0.35, label=str):
    """n labelled rows: the features point at the class, now and then at another."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(classes, n)
    features = np.eye(CLASSES)[truth] + rng.normal(0, noise, (n, CLASSES))
    path = folder / f"{name}.csv"
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow([*(f"x{place}" for place in range(CLASSES)), "kind", "y"])
        out.writerows([*(f"{value:.6f}" for value in row), f"k{place}", label(place)] for row, place in zip(features, truth, strict=True))
    return path


def judged(candidate, champion=None, memory=None, label="y", models=None, **given):
    tables = {role: given.pop(role) for role in ("old", "new", "guard") if role in given}
    locators = {role: Locator("fraud", role, f"csv:{path}") for role, path in tables.items()}
    options = {"features": [f"x{place}" for place in range(CLASSES)], **(models or {})}
    for role, path in (("candidate", candidate), ("champion", champion)):
        if path is not None:
            locators[role] = path if isinstance(path, Locator) else Locator("fraud", role, f"onnx:{path}", options)
    features = given.pop("features", [f"x{place}" for place in range(CLASSES)])
    job = {"check": "forgetting.eval", "locators": locators, "parameters": {"label": label, "features": features, **given}, "memory": memory}
    return perform({**job, "window": None, "now": datetime.now(UTC)})


def test_a_candidate_that_knows_what_the_champion_knows_is_promoted(tmp_path):
    champion, candidate = linear(tmp_path, "1", WEIGHTS), linear(tmp_path, "2", 1.1 * WEIGHTS)
    verdict = judged(candidate, champion, old=rows(tmp_path, "old", [0, 1]), new=rows(tmp_path, "new", [2, 3], seed=1))
    assert verdict.status is Status.OK and verdict.reason.startswith("PROMOTE 2/"), verdict.reason
    told = json.loads(verdict.data["gate.json"])
    assert {case["slice"] for case in told["cases"]} == {"old", "new"} and all(case["nfr"] == 0 for case in told["cases"])


def test_a_candidate_that_forgot_an_old_class_is_blocked_and_the_slice_is_named(tmp_path):
    champion, candidate = linear(tmp_path, "1", WEIGHTS), linear(tmp_path, "2", forgot(1))
    verdict = judged(candidate, champion, old=rows(tmp_path, "old", [0, 1]), new=rows(tmp_path, "new", [2, 3], seed=1), by="kind")
    assert verdict.status is Status.FAIL and "BLOCK" in verdict.reason and "old/k1" in verdict.reason.splitlines()[0]
    part = next(reading for name, reading in verdict.parts.items() if name.startswith("old/k1 "))
    assert part.observed < -0.5 and part.interval[1] < 0
    told = json.loads(verdict.data["gate.json"])
    case = next(one for one in told["cases"] if one["slice"] == "old/k1")
    assert case["lost"] > 100 and case["won"] == 0 and 0 <= case["btc"] < 0.5


def test_a_few_rows_say_how_many_more_are_needed(tmp_path):
    champion, candidate = linear(tmp_path, "1", WEIGHTS), linear(tmp_path, "2", WEIGHTS + 0.4)
    verdict = judged(candidate, champion, old=rows(tmp_path, "old", [0, 1], n=30), margin=0.01)
    assert verdict.status is Status.NODATA and "INCONCLUSIVE" in verdict.reason and "more rows" in verdict.reason


def test_a_served_model_is_held_to_the_best_it_ever_was(tmp_path):
    guard, old = rows(tmp_path, "guard", [0, 1], n=800), rows(tmp_path, "old", [2, 3], seed=1)
    first = judged(linear(tmp_path, "1", WEIGHTS), guard=guard, old=old)
    assert first.status is Status.NODATA and "the first that is seen" in first.reason
    same = judged(linear(tmp_path, "1", WEIGHTS), memory=first.memory, guard=guard, old=old)
    assert same.status is Status.OK and "the best ever served" in "".join(same.parts)
    silent = judged(linear(tmp_path, "2", forgot(0)), memory=same.memory, guard=guard, old=old)
    assert silent.status is Status.FAIL and "guard" in silent.reason and "the best ever served, 1/" in silent.reason
    history = json.loads(silent.data["gate.json"])["history"]
    assert history["slices"]["guard"]["forgetting"] > 0.2 and history["backward_transfer"] < 0
    again = judged(linear(tmp_path, "2", forgot(0)), memory=silent.memory, guard=guard, old=old)
    assert again.status is Status.FAIL, "what is served now must not become the yardstick because it is served"


def test_a_guard_slice_is_held_to_the_best_version_even_where_the_champion_is_no_better(tmp_path):
    guard = rows(tmp_path, "guard", [0, 1], n=800)
    best = judged(linear(tmp_path, "1", WEIGHTS), guard=guard)
    worse = linear(tmp_path, "2", forgot(0))
    verdict = judged(linear(tmp_path, "3", 1.01 * forgot(0)), worse, memory=best.memory, guard=guard)
    assert verdict.status is Status.FAIL and "the best ever served, 1/" in verdict.reason
    assert any("the champion, 2/" in name for name in verdict.parts)


def test_other_rows_under_the_same_name_are_another_slice(tmp_path):
    known = judged(linear(tmp_path, "1", WEIGHTS), guard=rows(tmp_path, "guard", [0, 1], n=800))
    other = judged(linear(tmp_path, "2", forgot(0)), memory=known.memory, guard=rows(tmp_path, "guard", [0, 1], n=800, seed=5))
    assert other.status is Status.NODATA and "the first that is seen" in other.reason


def test_uses_of_a_slice_are_counted_and_told(tmp_path):
    guard, memory = rows(tmp_path, "guard", [0, 1], n=100), None
    model = linear(tmp_path, "1", WEIGHTS)
    for _ in range(22):
        verdict = judged(model, memory=memory, guard=guard)
        memory = verdict.memory
    assert "has judged 21 candidates before" in verdict.reason


def test_numbers_are_judged_by_their_loss(tmp_path):
    flat = np.array([[1.0], [2.0], [3.0], [4.0]], dtype=np.float32)
    path = tmp_path / "numbers.csv"
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 4))
    path.write_text("x0,x1,x2,x3,y\n" + "".join(f"{a},{b},{c},{d},{a + 2 * b + 3 * c + 4 * d}\n" for a, b, c, d in features))
    good, bad = linear(tmp_path, "1", flat, soft=False), linear(tmp_path, "2", 0.8 * flat, soft=False)
    assert judged(bad, good, old=path, loss="absolute", margin=0.05).status is Status.FAIL
    assert judged(good, bad, old=path, loss="squared", margin=0.05).status is Status.OK
    with pytest.raises(DataError, match="labels are text"):
        judged(bad, good, old=rows(tmp_path, "old", [0, 1], label=lambda place: f"c{place}"), loss="absolute")


# The command


def ran(folder, *words: str):
    from click.testing import CliRunner

    from agent.cli import main

    features = [part for place in range(CLASSES) for part in ("--feature", f"x{place}")]
    return CliRunner().invoke(main, ["eval", *words, *features], catch_exceptions=False)


def test_the_command_says_promote_block_and_inconclusive_by_its_exit_code(tmp_path):
    first, same, bad, unsure = (
        str(linear(tmp_path, name, weights)) for name, weights in (("1", WEIGHTS), ("2", 1.1 * WEIGHTS), ("3", forgot(1)), ("4", WEIGHTS + 0.4))
    )
    old, new = str(rows(tmp_path, "old", [0, 1])), str(rows(tmp_path, "new", [2, 3], seed=1))
    promoted = ran(tmp_path, first, same, "--old", old, "--new", new, "--label", "y")
    assert promoted.exit_code == 0 and promoted.output.startswith("PROMOTE")
    blocked = ran(tmp_path, first, bad, "--old", old, "--label", "y", "--by", "kind", "--json")
    told = json.loads(blocked.stdout)
    assert blocked.exit_code == 1 and told["outcome"] == "block" and told["cases"][0]["slice"] == "old/k1"
    few = str(rows(tmp_path, "few", [0, 1], n=30))
    assert ran(tmp_path, first, unsure, "--guard", few, "--label", "y", "--margin", "0.01").exit_code == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["1/model.onnx", "1/model.onnx", "--label", "y"], "name rows to judge by"),
        (["gone.onnx", "1/model.onnx", "--label", "y", "--old", "old.csv"], "there is no file gone.onnx"),
        (["1/model.onnx", "1/model.onnx", "--label", "y", "--old", "gone.csv"], "there is no file gone.csv"),
        (["1/model.onnx", "1/model.onnx", "--old", "old.csv"], "Missing option '--label'"),
    ],
)
def test_bad_arguments_of_the_command_are_said_and_end_with_2(tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    linear(tmp_path, "1", WEIGHTS)
    rows(tmp_path, "old", [0, 1])
    result = ran(tmp_path, *words)
    assert result.exit_code == 2 and said in result.output
