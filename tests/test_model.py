"""model.reproducible: real graphs on real rows, and drills of retraining with trainers that make the same again, nearly the same, or another."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from agent import Locator, Status, config, verbs
from agent.audit.answers import answers
from agent.audit.catalogue import catalogue
from agent.audit.known import Known
from agent.targets import connect
from checks.model import _difference, reproducible
from tests.graphs import saved
from tests.learning import CLASSES, FEATURES, FITS, carried, graph, learning

ROLLED = np.eye(CLASSES)[[0, 0, 2]]  # rows of the second feature are taken for the first class


def model(folder: Path, name: str, weights):
    return connect(Locator("fraud", "candidate", f"onnx:{graph(folder / name / 'model.onnx', 6.0 * weights)}", {"features": FEATURES}))


def number(folder: Path, name: str, slope: float):
    """Answers with the place of the feature that is set, counted from 1, times the slope."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    held = {"w": np.array([[1.0], [2.0], [3.0]], np.float32) * np.float32(slope)}
    (folder / name).mkdir()
    return connect(Locator("fraud", "candidate", f"onnx:{saved(folder / name / 'm.onnx', nodes, held, [None, CLASSES], 1)}", {"features": FEATURES}))


def rows(folder: Path, plain: int, lost: int = 0, won: int = 0):
    """Rows that both answer rightly, that only the first does, and that only the second does."""
    made = [(np.eye(CLASSES)[0], 0)] * plain + [(np.eye(CLASSES)[1], 1)] * lost + [(np.eye(CLASSES)[1], 0)] * won
    with (folder / "rows.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow([*FEATURES, "label"])
        out.writerows([*row, truth] for row, truth in made)
    return connect(Locator("fraud", "new", f"csv:{folder / 'rows.csv'}"))


def asked(folder: Path, plain: int, lost: int = 0, won: int = 0, **given):
    one, other = model(folder, "one", np.eye(CLASSES)), model(folder, "other", ROLLED)
    return reproducible(one, other, new=rows(folder, plain, lost, won), label="label", **given)


def test_what_is_equal_bit_by_bit_is_the_same_and_no_row_is_asked():
    nowhere = connect(Locator("fraud", "candidate", "onnx:nowhere.onnx", {"features": FEATURES}))
    said = reproducible(nowhere, nowhere, label="label", files={"m": "a" * 64, "b": "c" * 64}, files_again={"b": "c" * 64, "m": "a" * 64})
    assert (said.status, said.reason) == (Status.OK, "training made the same again, bit by bit: b, m")


@pytest.mark.parametrize(
    ("plain", "lost", "won", "status"),
    [
        (1000, 0, 0, Status.OK),
        (992, 4, 4, Status.OK),  # as often better as worse
        (990, 10, 0, Status.WARN),  # 99 %, but always for the worse: ten of ten is more than two standard errors
        (970, 15, 15, Status.WARN),
        (949, 26, 25, Status.FAIL),
    ],
)
def test_other_bytes_are_judged_by_the_rows(tmp_path, plain, lost, won, status):
    said = asked(tmp_path, plain, lost, won, files={"model.onnx": "a" * 64, "log": "b" * 64}, files_again={"model.onnx": "c" * 64, "log": "b" * 64})
    assert said.status is status and said.reading.n == 1000 and said.reading.observed == plain / 1000
    assert f"{plain} of 1000 rows" in said.reason and "other bytes in model.onnx" in said.reason


def test_numbers_are_alike_within_a_tolerance_and_judged_by_their_loss(tmp_path):
    one, near, far = (number(tmp_path, name, slope) for name, slope in (("one", 1.0), ("near", 1.0001), ("far", 1.1)))
    table = rows(tmp_path, 80, 20)  # 80 rows of 1 that should be 0, 20 of 2 that should be 1
    close, off = (reproducible(one, other, new=table, label="label", loss="absolute", errors=1e9) for other in (near, far))
    assert (close.status, off.status) == (Status.OK, Status.FAIL) and close.reading.observed == 1.0
    assert off.parts["metric"].observed == pytest.approx(0.8 * 0.1 + 0.2 * 0.2, rel=1e-4)


def test_without_a_labelled_row_nothing_is_claimed(tmp_path):
    assert asked(tmp_path, 0).status is Status.NODATA
    nobody = model(tmp_path, "one", np.eye(CLASSES))
    assert reproducible(nobody, nobody, label="label").status is Status.NODATA


@settings(max_examples=15, deadline=None)
@given(st.integers(20, 200), st.integers(0, 20), st.integers(0, 20), st.integers(0, 2**31))
def test_the_standard_error_is_the_one_that_resampling_comes_to(same, lost, won, seed):
    before = np.array([1.0] * (same + lost) + [0.0] * won)
    after = np.array([1.0] * same + [0.0] * lost + [1.0] * won)
    delta, error = _difference(before, after)
    rng, n = np.random.default_rng(seed), len(before)
    drawn = rng.integers(0, n, (4000, n))
    assert delta == pytest.approx((won - lost) / n)
    assert error == pytest.approx((after - before)[drawn].mean(axis=1).std(), rel=0.1, abs=1e-12)


# Drills

UNLIKE = FITS.replace("import pyarrow", "import numpy as np, pyarrow")
NEARLY = UNLIKE.replace("fitted(table))", "fitted(table) + np.random.default_rng().normal(0, 1e-4, (3, 3)))")
OTHERWISE = UNLIKE.replace("fitted(table))", "np.roll(fitted(table), MADE, axis=1))").replace("MADE", "len([*home.parent.glob('run-*')]) - 1")


def drilled(desk, **given):
    """A drill, what it found, if it looked, and what the audit makes of it."""
    path = desk.folder / "watchkeeper.yaml"
    path.write_text(path.read_text().replace("csv:old.csv\n    watches", "csv:old.csv\n      code: git:.\n    watches"))
    desk.world.use(config.load(path))
    run = carried(desk, verbs.start(desk.world, "retrain", "fraud", given, "ada", drill=True).id)
    with desk.world.store.read() as ledger:
        answer = answers(catalogue(), Known(desk.world.config, ledger, desk.world.config.services["fraud"], desk.world.clock()))["MODEL-03"]
        return run, next(iter(ledger.findings(check="model.reproducible", limit=1)), None), answer


def test_a_drill_trains_again_and_files_that_it_came_out_the_same(tmp_path):
    with learning(tmp_path, trainer=FITS) as desk:
        run, finding, answer = drilled(desk)
        assert run.state == "succeeded" and [row.name for row in run.steps] == ["pin", "sound", "train", "again", "repeated", "gate"], run.said
        assert finding.watch == f"fraud/repeated@run-{run.id}" and "bit by bit: model.onnx" in finding.reason
        assert answer.said == "pass" and "bit by bit" in answer.observed and answer.evidence[0].locator == f"finding {finding.id}"


def test_a_drill_lets_pass_what_an_unseeded_trainer_makes_nearly_the_same(tmp_path):
    with learning(tmp_path, trainer=NEARLY) as desk:
        run, finding, answer = drilled(desk)
        assert run.state == "succeeded" and finding.status is Status.OK and "other bytes in model.onnx" in finding.reason
        assert answer.said == "pass" and "rows are answered alike" in answer.observed


def test_a_drill_stops_at_a_trainer_that_makes_another_model_each_time_until_it_is_mended(tmp_path):
    with learning(tmp_path, trainer=OTHERWISE) as desk:
        run, finding, answer = drilled(desk)
        assert run.state != "succeeded" and "model.reproducible" not in run.said and "answered alike" in run.said, run.said
        assert [row.name for row in run.steps if row.state != "planned"][-1] == "repeated" and finding.status is Status.FAIL
        assert answer.said == "fail" and desk.server.served == "1"
        program = (tmp_path / "train.py").read_text()
        (tmp_path / "train.py").write_text(program.replace("len([*home.parent.glob('run-*')]) - 1", "0"))
        assert drilled(desk)[2].said == "pass", "the newest drill counts"


def test_a_drill_that_is_told_to_trains_once_and_nobody_knows(tmp_path):
    with learning(tmp_path, trainer=FITS) as desk:
        run, finding, answer = drilled(desk, repeat="")
        assert [row.name for row in run.steps] == ["pin", "sound", "train", "gate"] and finding is None
        assert answer.said == "fail" and "never drilled" in answer.observed
