"""What a forgetting eval makes of rows and models that do not fit: a plain word each, and never a wrong verdict."""

from __future__ import annotations

import json
from datetime import timedelta

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from agent.errors import ArtefactError, DataError
from agent.model import Locator, Status
from agent.targets import connect
from agent.workers import Pool
from tests.test_forgetting import CLASSES, WEIGHTS, forgot, judged, linear, rows


def test_rows_without_labels_are_left_out_and_counted_and_twins_are_named(tmp_path):
    path = rows(tmp_path, "old", [0, 1])
    lines = path.read_text().splitlines()
    lines[1] = lines[1].rpartition(",")[0] + ","
    path.write_text("\n".join(lines) + "\n")
    (tmp_path / "guard.csv").write_text("\n".join([lines[0], *lines[2:40]]) + "\n")
    model = linear(tmp_path, "1", WEIGHTS)
    verdict = judged(model, model, old=path, guard=tmp_path / "guard.csv")
    assert "old: 1 rows have no label" in verdict.reason and "38 rows are both in old and in guard" in verdict.reason


def test_a_slice_without_rows_and_one_of_a_single_class_are_told(tmp_path):
    model = linear(tmp_path, "1", WEIGHTS)
    (tmp_path / "none.csv").write_text("x0,x1,x2,x3,kind,y\n")
    empty = judged(model, model, old=tmp_path / "none.csv")
    assert empty.status is Status.NODATA and "has no rows" in empty.reason
    assert "all labels are '2'" in judged(model, model, old=rows(tmp_path, "one", [2])).reason


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"label": "gone"}, "there is no column 'gone'"),
        ({"features": ["x0", "x9"]}, "there is no column 'x9'"),
        ({"features": ["x0", "x1"]}, "the rows have no column 'x2'"),
        ({"by": "gone"}, "there is no column 'gone'"),
        ({"models": {"features": ["x0"]}}, "a row has 1 values"),
        ({"models": {"classes": ["a", "b"]}}, "`classes` names 2"),
        ({"models": {"output": "q"}}, "the model gives no 'q'; there is p"),
        ({"models": {"features": ["x0", "x1", "x2", "kind"]}, "features": ["x0", "x1", "x2", "kind"]}, "the rows hold text"),
    ],
)
def test_what_does_not_fit_is_said_with_its_name(tmp_path, given, said):
    model = linear(tmp_path, "1", WEIGHTS)
    with pytest.raises(DataError, match=said):
        judged(model, model, old=rows(tmp_path, "old", [0, 1]), **given)


def test_a_model_that_answers_nan_is_an_error_and_no_wrong_answer(tmp_path):
    bad = WEIGHTS.copy()
    bad[0, 0] = np.nan
    with pytest.raises(DataError, match="something that is no number"):
        judged(linear(tmp_path, "2", bad), linear(tmp_path, "1", WEIGHTS), old=rows(tmp_path, "old", [0, 1]))


def test_classes_in_another_order_are_the_same_classes(tmp_path):
    """The candidate's outputs stand the other way round, and its own list of classes says so."""
    champion, turned = linear(tmp_path, "1", WEIGHTS), linear(tmp_path, "2", WEIGHTS[:, ::-1].copy())
    old = rows(tmp_path, "old", [0, 1, 2, 3])
    assert judged(turned, champion, old=old).status is Status.FAIL
    model = connect(Locator("fraud", "candidate", f"onnx:{turned}", {"features": [f"x{n}" for n in range(CLASSES)], "classes": ["3", "2", "1", "0"]}))
    columns = {f"x{n}": np.eye(CLASSES)[n] for n in range(CLASSES)}
    assert model.predict(columns).answer.tolist() == ["0", "1", "2", "3"]


def test_a_file_that_is_not_the_registered_one_is_not_run(tmp_path):
    model = linear(tmp_path, "1", WEIGHTS)
    with pytest.raises(ArtefactError, match="not the file that was registered"):
        judged(model, model, old=rows(tmp_path, "old", [0, 1]), models={"sha256": "0" * 64})


def test_labels_are_the_same_whether_they_were_written_as_numbers_or_as_text(tmp_path):
    model = linear(tmp_path, "1", WEIGHTS)
    assert judged(model, model, old=rows(tmp_path, "old", [0, 1], label=lambda place: f"{place}.0")).status is Status.OK


def test_slices_are_read_by_the_names_of_their_columns_in_whichever_order_those_stand(tmp_path):
    old, new = rows(tmp_path, "old", [0, 1]), rows(tmp_path, "new", [2, 3], seed=1)
    table = [line.split(",") for line in new.read_text().splitlines()]
    new.write_text("\n".join(",".join(row[place] for place in (3, 1, 5, 0, 2)) for row in table) + "\n")
    old.write_text("\n".join(",".join(row[:4] + row[5:]) for row in (line.split(",") for line in old.read_text().splitlines())) + "\n")
    model = linear(tmp_path, "1", WEIGHTS)
    verdict = judged(model, model, old=old, new=new, features=[], models={"features": []})
    told = {case["slice"]: case for case in json.loads(verdict.data["gate.json"])["cases"]}
    assert told["new"]["before"] > 0.9 and told["old"]["before"] > 0.9


def test_a_slice_with_another_schema_is_an_error_that_names_the_column(tmp_path):
    old, new = rows(tmp_path, "old", [0, 1]), rows(tmp_path, "new", [2, 3], seed=1)
    new.write_text(new.read_text().replace("x3,kind", "x4,kind"))
    model = linear(tmp_path, "1", WEIGHTS)
    with pytest.raises(DataError, match="old has a column 'x3', and new has none; say by `features`"):
        judged(model, model, old=old, new=new, features=[])
    with pytest.raises(DataError, match="new: there is no column 'x3'"):
        judged(model, model, old=old, new=new)
    new.write_text("x0,x1,x2,x3,y\n" + "a,b,c,d,0\n" * 5)
    with pytest.raises(DataError, match="'x' takes float32, and the rows hold text"):
        judged(model, model, old=old, new=new)


def test_a_slice_that_has_no_label_at_all_has_no_rows_to_judge_by(tmp_path):
    old = rows(tmp_path, "old", [0, 1], label=lambda place: "")
    model = linear(tmp_path, "1", WEIGHTS)
    verdict = judged(model, model, old=old)
    assert verdict.status is Status.NODATA and "old has no rows" in verdict.reason and "400 rows have no label" in verdict.reason


@pytest.mark.parametrize(
    ("models", "label", "said"),
    [
        ({}, lambda place: f"c{place}", r"the candidate's classes are '0', '1', '2' and others, and the labels 'c0', 'c1': name them with `classes`"),
        ({"classes": list("abcd")}, lambda place: f"c{place}", "the candidate's classes are 'a', 'b', 'c' and others"),
    ],
)
def test_classes_that_are_no_labels_are_an_error_and_not_two_equally_wrong_models(tmp_path, models, label, said):
    model = linear(tmp_path, "1", WEIGHTS)
    with pytest.raises(DataError, match=said):
        judged(model, None, old=rows(tmp_path, "old", [0, 1], label=label), models=models)
    with pytest.raises(DataError, match="these are no answers to that"):
        judged(model, model, old=rows(tmp_path, "old", [0, 1], label=label), models=models)


def test_numbers_where_classes_were_meant_are_an_error(tmp_path):
    number = linear(tmp_path, "1", np.array([[0.31], [0.12], [0.07], [0.01]]), soft=False)
    with pytest.raises(DataError, match="see `classes` and `loss`"):
        judged(number, number, old=rows(tmp_path, "old", [0, 1]))


def test_a_candidate_that_only_ever_says_another_class_has_forgotten_and_is_blocked(tmp_path):
    champion, candidate = linear(tmp_path, "1", WEIGHTS), linear(tmp_path, "2", forgot(0, 1, 2, 3))
    assert judged(candidate, champion, old=rows(tmp_path, "old", [0])).status is Status.FAIL


def test_a_class_the_champion_never_heard_of_is_no_error_where_it_is_to_be_learned(tmp_path):
    champion, candidate = linear(tmp_path, "1", WEIGHTS[:, :3]), linear(tmp_path, "2", WEIGHTS)
    verdict = judged(candidate, champion, new=rows(tmp_path, "new", [3]), untrained={"new": 0.25})
    assert verdict.status is Status.OK and verdict.reading.observed > 0.9
    assert json.loads(verdict.data["gate.json"])["history"]["forward_transfer"] == -0.25


def test_inputs_of_other_names_and_shapes_are_said_or_fitted(tmp_path):
    model, old = linear(tmp_path, "1", WEIGHTS), rows(tmp_path, "old", [0, 1], n=50)
    for dims, single in (([None, 2, 2], False), ([1, 4], True)):
        judged(shaped(tmp_path, dims, single), model, old=old)
    with pytest.raises(DataError, match=r"takes .* a row, and a row has 4 values"):
        judged(shaped(tmp_path, [None, 3, 2], False), model, old=old)
    with pytest.raises(DataError, match="the graph takes 'amount', and the rows have no such column"):
        judged(named(tmp_path), model, old=old)


def shaped(folder, dims, single: bool):
    """A graph whose rows are not flat, or that takes one row at a time."""
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "s"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["p"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, [1 if single else None, 4])],
        [numpy_helper.from_array(WEIGHTS, "w"), numpy_helper.from_array(np.array([-1, 4]), "s")],
    )
    return written(folder, graph)


def named(folder):
    """A graph with an input for each of two columns, of which the rows have none."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]) for name in ("amount", "age")]
    graph = helper.make_graph(
        [helper.make_node("Add", ["amount", "age"], ["p"])], "g", values, [helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, 1])]
    )
    return written(folder, graph)


def written(folder, graph):
    path = folder / "other" / "model.onnx"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString())
    return path


def test_a_model_larger_than_its_memory_is_an_error_and_the_worker_goes_on(tmp_path):
    """One is larger as a file, one makes sixteen gigabytes of a row."""
    model, old = linear(tmp_path, "1", WEIGHTS), rows(tmp_path, "old", [0, 1], n=50)
    with pytest.raises(ArtefactError, match="more than the 100 that are allowed"):
        judged(model, None, old=old, models={"memory": 100})
    size = numpy_helper.from_array(np.array([4, 2**30]), "size")
    graph = helper.make_graph(
        [helper.make_node("ConstantOfShape", ["size"], ["w"]), helper.make_node("MatMul", ["x", "w"], ["p"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, 2**30])],
        [size],
    )
    with Pool(1) as pool:
        job = {"check": "forgetting.eval", "parameters": {"label": "y", "features": ["x0", "x1", "x2", "x3"]}}
        for path, kind in ((written(tmp_path, graph), DataError), (model, None)):
            at = {"candidate": Locator("fraud", "candidate", f"onnx:{path}", {"memory": 2**28}), "old": Locator("fraud", "old", f"csv:{old}")}
            if kind is None:
                assert pool.call({**job, "locators": at}, timedelta(seconds=60))["verdict"]["status"] == "nodata"
            else:
                with pytest.raises(kind, match=r"no graph that this runtime can run|the graph fails"):
                    pool.call({**job, "locators": at}, timedelta(seconds=60))
        assert [worker.calls for worker in pool._all] == [2], "it is the same worker"
