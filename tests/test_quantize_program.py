"""The program that quantizes, as a trainer: what it hands in, and what becomes of each thing that is wrong with what it was given."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import helper
from skl2onnx import to_onnx
from sklearn.neural_network import MLPClassifier

from agent import handed
from runbooks._layers import GAP, Layer, _rounded, costly, layers
from runbooks._measure import Measuring
from runbooks._quantize import quantize
from runbooks._settings import Settings
from runbooks._variants import dynamic
from tests import graphs

MEANT = {"least": 0.9, "speed": 0}  # no test judges by time


@pytest.fixture
def room(tmp_path: Path) -> Path:
    return tmp_path


def done(folder: Path):
    """The report, and the progress that was told."""
    said: list[tuple[float, str]] = []
    return quantize(folder, lambda done, what: said.append((done, what))), said


def run(path: Path, rows: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: rows})[0]


# What is handed in


def test_convolutions_are_made_smaller_by_ranges_seen_beforehand_and_handed_in_with_their_numbers(room: Path) -> None:
    model, rows = graphs.cnn(room / "model.onnx"), graphs.rows(room / "rows.parquet", 120, 64)
    found, said = done(graphs.job(room / "job", model, rows, least=0.9, speed=0, batches=[1, 8]))
    assert found["outcome"] == "better", found["why"]
    assert {one["name"]: one["outcome"] for one in found["variants"]}.keys() == {"as it is", "static int8", "static int8, outliers cut"}
    assert "integer convolutions" in found["untried"]["dynamic int8"]
    made = handed(room / "job", json.loads((room / "job" / "spec.json").read_text()))
    assert set(made.files) == {"model.onnx", "report.json", "quantize.html", "pareto.svg"} and (made.seed, made.rows) == (3, 120)
    best = next(one for one in found["variants"] if one["outcome"] == "chosen")
    assert best["size"] == (room / "job" / "model.onnx").stat().st_size < 0.3 * model.stat().st_size
    assert made.metrics["size"] == best["size"] and set(best["speed"]) == {"1", "8"} and best["memory"] > 2**20
    given = _numbers(rows).reshape(-1, 1, 8, 8)
    plain, smaller = run(model, given), run(room / "job" / "model.onnx", given)
    compared = [place for place in range(len(given)) if place % 4]
    cosines = (plain * smaller).sum(1) / np.linalg.norm(plain, axis=1) / np.linalg.norm(smaller, axis=1)
    assert best["quality"]["cosine"][0] == pytest.approx(cosines[compared].mean(), abs=1e-6)
    assert {one["operator"] for one in found["layers"]} == {"Conv", "Gemm"}
    assert [one for one, _ in said] == sorted(one for one, _ in said) and not (room / "job" / "variants").exists()


def _numbers(rows: Path) -> np.ndarray:
    table = pq.read_table(rows)
    return np.stack([table[name].to_numpy() for name in table.column_names], axis=1).astype(np.float32)


def test_large_matrices_are_tried_in_eight_bits_of_the_moment_and_in_four(room: Path) -> None:
    model, rows = graphs.mlp(room / "model.onnx", 512), graphs.rows(room / "rows.parquet", 100)
    found, _ = done(graphs.job(room / "job", model, rows, batches=[1], **MEANT))
    shares = {one["name"]: one["share"] for one in found["variants"]}
    assert shares["dynamic int8"] < 0.3 and shares["4-bit weights"] < 0.2
    assert "cost matrices their quality" in found["untried"]["static int8"]


def test_the_truth_is_counted_where_there_is_one(room: Path) -> None:
    model = graphs.mlp(room / "model.onnx", 64)
    truth = run(model, _numbers(graphs.rows(room / "bare.parquet", 80))).argmax(1)
    rows = graphs.rows(room / "rows.parquet", 80, truth=truth)
    found, _ = done(graphs.job(room / "job", model, rows, label="label", batches=[1], **MEANT))
    assert found["judged_by"] == "classes" and found["rows"] == {"calibration": 20, "compared": 60}
    plain = found["variants"][0]["quality"]
    assert (plain["before"], plain["lost"], plain["won"]) == (1.0, 0, 0)


def test_scikit_learn_s_own_graphs_are_taken_with_the_labels_they_name(room: Path) -> None:
    values = np.random.default_rng(0).normal(size=(120, 8)).astype(np.float32)
    truth = np.where(values[:, 0] + values[:, 1] > 0, "yes", "no")
    fitted = MLPClassifier((64, 64), max_iter=5, random_state=0).fit(values, truth)
    (room / "model.onnx").write_bytes(to_onnx(fitted, values[:1]).SerializeToString())
    pq.write_table(pa.table({**{f"c{k}": values[:, k] for k in range(8)}, "y": truth}), room / "rows.parquet")
    found, _ = done(graphs.job(room / "job", room / "model.onnx", room / "rows.parquet", label="y", batches=[1], **MEANT))
    compared = [place for place in range(120) if place % 4]
    assert found["outcome"] == "better" and found["judged_by"] == "classes", found["why"]
    assert found["variants"][0]["quality"]["before"] == pytest.approx(fitted.score(values[compared], truth[compared]))


def test_what_stands_out_is_left_as_it_is_and_that_keeps_more(room: Path) -> None:
    model = spiked(room / "model.onnx")
    rows = graphs.rows(room / "rows.parquet", 80)
    found, _ = done(graphs.job(room / "job", model, rows, batches=[1], least=0.0, speed=0, largest=1.0))
    whole, part = ({one["name"]: one["quality"]["fidelity"] for one in found["variants"]}[name] for name in ("dynamic int8", "dynamic int8 but 1"))
    assert part > whole + GAP
    assert found["layers"][0]["name"].startswith("third")


def spiked(path: Path) -> Path:
    """An MLP whose third layer gets one input a thousand times as large as the others, which has hardly any weight: eight bits leave them nothing."""
    graphs.mlp(path, 64)
    model = onnx.load(str(path))
    held = {one.name: one for one in model.graph.initializer}
    first, last = (onnx.numpy_helper.to_array(held[name]).copy() for name in ("w1", "w2"))
    first[:, 0] *= 1000
    last[0] /= 1e6
    held["w1"].CopyFrom(onnx.numpy_helper.from_array(first, "w1"))
    held["w2"].CopyFrom(onnx.numpy_helper.from_array(last, "w2"))
    onnx.save(model, str(path))
    return path


def test_rounding_is_onnx_s_own(room: Path) -> None:
    values = np.random.default_rng(1).normal(2, 3, (40, 7)).astype(np.float32)
    nodes = [helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]), helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"])]
    path = graphs.saved(room / "rounded.onnx", nodes, {}, ["n", 7], 7)
    ours = _rounded(values, float(values.min()), float(values.max()))
    assert np.abs(ours - run(path, values)).max() < 1e-5


def test_the_noise_of_an_operator_is_about_what_it_is_when_it_alone_is_quantized(room: Path) -> None:
    model = graphs.mlp(room / "model.onnx", 64)
    measuring = Measuring(graph_of(model), Settings(), room, lambda done, what: None)
    rows = rows_of(graphs.rows(room / "rows.parquet", 64))
    measuring.take(rows, range(64), rows, range(64))
    found = {one.name: one.decibels for one in layers(model, measuring._calibration, 2**30)}
    one = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(onnx.load(str(model)))).extract_model(["x"], ["a"])
    onnx.save(one, str(room / "first.onnx"))
    dynamic(room / "first.onnx", room / "rounded.onnx")
    exact, coarse = run(room / "first.onnx", _numbers(room / "rows.parquet")), run(room / "rounded.onnx", _numbers(room / "rows.parquet"))
    alone = 10 * np.log10((exact**2).sum() / ((exact - coarse) ** 2).sum())
    assert found["first"] == pytest.approx(alone, abs=1.0)


def graph_of(path: Path):
    from agent import admit
    from runbooks._graph import inspect

    return inspect(admit(path))


def rows_of(path: Path):
    from runbooks._feeds import read

    return read(graphs.pin(path))


def test_only_a_few_and_only_what_stands_out_is_left_as_it_is() -> None:
    even = [Layer(f"n{place}", "MatMul", 40.0 + place / 10) for place in range(30)]
    assert costly(even) == ()
    low = [Layer(f"low{place}", "MatMul", 20.0) for place in range(6)]
    assert costly(sorted([*even, *low], key=lambda one: one.decibels)) == ("low0", "low1", "low2")
    assert costly(low[:2]) == ()
    heavy = [Layer("heavy", "Conv", 10.0, 50), Layer("light", "Conv", 12.0, 5), *(Layer(f"n{place}", "Conv", 40.0, 5) for place in range(20))]
    assert costly(heavy) == ("light",)


# What is wrong with what it was given: a clear word each, and nothing handed in


def refused(folder: Path) -> str:
    found, _ = done(folder)
    assert found["outcome"] == "unknown"
    assert json.loads((folder / "report.json").read_text())["why"] == found["why"]
    assert sorted(path.name for path in folder.iterdir()) == ["report.json", "spec.json"]
    return str(found["why"])


def test_what_is_quantized_already_is_not_quantized_again(room: Path) -> None:
    dynamic(graphs.mlp(room / "model.onnx", 64), room / "small.onnx")
    said = refused(graphs.job(room / "job", room / "small.onnx", graphs.rows(room / "rows.parquet")))
    assert "quantized already: it holds DynamicQuantizeLinear, MatMulInteger" in said


def test_an_opset_that_knows_no_channels_is_refused(room: Path) -> None:
    said = refused(graphs.job(room / "job", graphs.mlp(room / "model.onnx", 64, opset=11), graphs.rows(room / "rows.parquet")))
    assert "has opset 11" in said and "version_converter" in said


def test_custom_operators_are_refused_by_name(room: Path) -> None:
    nodes = [helper.make_node("Shrink", ["x"], ["y"], domain="com.example")]
    model = graphs.saved(room / "model.onnx", nodes, {}, ["n", graphs.FEATURES])
    rows = graphs.rows(room / "rows.parquet")
    assert "uses com.example.Shrink, which no runtime here knows" in refused(graphs.job(room / "job", model, rows))
    weights = {"w": np.ones((graphs.FEATURES, graphs.CLASSES), np.float32)}
    both = [helper.make_node("Shrink", ["x"], ["a"], domain="com.example"), helper.make_node("MatMul", ["a", "w"], ["y"])]
    allowed = graphs.saved(room / "allowed.onnx", both, weights, ["n", graphs.FEATURES])
    assert "cannot be run here" in refused(graphs.job(room / "listed", allowed, rows, domains=["com.example"]))


def test_without_rows_nothing_is_measured(room: Path) -> None:
    model = graphs.mlp(room / "model.onnx", 64)
    assert "there are no rows" in refused(graphs.job(room / "none", model))
    assert "has no rows" in refused(graphs.job(room / "empty", model, graphs.rows(room / "empty.parquet", 0)))
    assert "leaves 18 rows to compare answers on, and 20 are needed" in refused(
        graphs.job(room / "few", model, graphs.rows(room / "few.parquet", 24))
    )


@pytest.mark.parametrize(
    ("width", "parameters", "expected"),
    [
        (31, {}, "a row has 31 values; name its columns"),
        (32, {"features": ["f0", "amount"]}, "has no column 'amount'"),
        (32, {"label": "truth"}, "has no column 'truth'"),
    ],
)
def test_rows_of_another_schema_are_told_by_what_is_missing(room: Path, width: int, parameters: dict, expected: str) -> None:
    model = graphs.mlp(room / "model.onnx", 64)
    assert expected in refused(graphs.job(room / "job", model, graphs.rows(room / "rows.parquet", 100, width), **parameters))


def test_text_where_the_graph_takes_numbers_is_told_by_its_column(room: Path) -> None:
    pq.write_table(pa.table({f"f{n}": ["a" if n == 3 else 1.0] * 50 for n in range(graphs.FEATURES)}), room / "rows.parquet")
    said = refused(graphs.job(room / "job", graphs.mlp(room / "model.onnx", 64), room / "rows.parquet"))
    assert "'x' takes float, and 'f3' holds text" in said


def test_rows_that_are_not_what_was_pinned_are_refused(room: Path) -> None:
    folder = graphs.job(room / "job", graphs.mlp(room / "model.onnx", 64), graphs.rows(room / "rows.parquet"))
    graphs.rows(room / "rows.parquet", 199)
    assert "is not what was pinned" in refused(folder)


def test_a_model_that_answers_with_no_number_cannot_be_compared(room: Path) -> None:
    weights = {"w": np.ones((graphs.FEATURES, graphs.CLASSES), np.float32)}
    nodes = [helper.make_node("Log", ["x"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["y"])]
    model = graphs.saved(room / "model.onnx", nodes, weights, ["n", graphs.FEATURES])
    said = refused(graphs.job(room / "job", model, graphs.rows(room / "rows.parquet", 100)))
    assert "itself answers 75 of 75 rows with something that is no number" in said


def test_a_graph_without_weights_has_nothing_to_make_smaller(room: Path) -> None:
    model = graphs.saved(room / "model.onnx", [helper.make_node("Relu", ["x"], ["y"])], {}, ["n", graphs.FEATURES], graphs.FEATURES)
    assert "nothing to make smaller" in refused(graphs.job(room / "job", model, graphs.rows(room / "rows.parquet")))


def test_memory_that_does_not_suffice_is_said_not_to(room: Path) -> None:
    rows = graphs.rows(room / "rows.parquet", 100)
    model = graphs.mlp(room / "model.onnx", 256)
    assert "more than the 100,000 that are allowed" in refused(graphs.job(room / "large", model, rows, memory=100_000))
    shape = {"w": np.ones((graphs.FEATURES, graphs.CLASSES), np.float32), "s": np.array([20_000_000, 1, 1], np.int64)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Expand", ["a", "s"], ["e"]),
        helper.make_node("ReduceMean", ["e"], ["y"], axes=[0], keepdims=0),
    ]
    greedy = graphs.saved(room / "greedy.onnx", nodes, shape, ["n", graphs.FEATURES])
    assert "it may take 500,000,000 bytes" in refused(graphs.job(room / "greedy", greedy, rows, memory=500_000_000))


def test_no_champion_or_weights_without_a_factory_are_told(room: Path) -> None:
    rows = graphs.rows(room / "rows.parquet")
    assert "names no champion" in refused(graphs.job(room / "none", None, rows))
    head = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (room / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + b"\0" * 4)
    assert "weights need the parameter `factory`" in refused(graphs.job(room / "bare", room / "model.safetensors", rows))


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"fetures": ["a"]}, "there is no parameter 'fetures'; did you mean 'features'?"),
        ({"least": 1.5}, "least is 1.5, and is a share"),
        ({"speed": float("nan")}, "speed is a number"),
        ({"speed": -1}, "numbers from 0 on"),
        ({"batches": []}, "whole numbers from 1 on"),
        ({"batches": [0]}, "whole numbers from 1 on"),
        ({"batches": "1"}, "batches is a list of whole numbers"),
        ({"threads": True}, "threads is a whole number"),
        ({"label": 3}, "label is text"),
        ({"file": "../model.onnx"}, "is the plain name of a file"),
        ({"device": "tpu"}, "device is 'tpu', and is cpu or cuda"),
    ],
)
def test_a_parameter_that_cannot_be_meant_is_named(room: Path, parameters: dict, expected: str) -> None:
    assert expected in refused(graphs.job(room / "job", graphs.mlp(room / "model.onnx", 64), graphs.rows(room / "rows.parquet"), **parameters))


def test_a_device_that_is_not_here_is_said_not_to_be(room: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has it")
    folder = graphs.job(room / "job", graphs.mlp(room / "model.onnx", 64), graphs.rows(room / "rows.parquet"), device="cuda")
    assert "onnxruntime has no CUDAExecutionProvider here" in refused(folder)


# Shapes and places


def test_a_graph_that_takes_one_batch_only_is_timed_at_that(room: Path) -> None:
    model = graphs.mlp(room / "model.onnx", 64, batch=4)
    found, _ = done(graphs.job(room / "job", model, graphs.rows(room / "rows.parquet", 100), **MEANT))
    assert found["champion"]["batch"] == 4 and [*found["variants"][0]["speed"]] == ["4"] and found["rows"]["compared"] == 72


def ragged(folder: Path) -> tuple[Path, Path]:
    """A graph that sums up rows of vectors of any number, and rows of several lengths."""
    weights = {"w": np.random.default_rng(5).normal(size=(64, 256)).astype(np.float32), "e": np.ones((50, 64), np.float32)}
    weights["e"] = np.random.default_rng(6).normal(size=(50, 64)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["e", "ids"], ["g"]),
        helper.make_node("MatMul", ["g", "w"], ["m"], "first"),
        helper.make_node("ReduceMean", ["m"], ["y"], axes=[1], keepdims=0),
    ]
    model = graphs.saved(folder / "model.onnx", nodes, weights, ["n", "t"], 256)
    made = onnx.load(str(model))
    made.graph.input[0].CopyFrom(helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["n", "t"]))
    onnx.save(made, str(model))
    rng = np.random.default_rng(7)
    pq.write_table(pa.table({"ids": [rng.integers(0, 50, rng.integers(2, 6)).tolist() for _ in range(80)]}), folder / "rows.parquet")
    return model, folder / "rows.parquet"


def test_rows_of_several_lengths_are_asked_length_by_length(room: Path) -> None:
    found, _ = done(graphs.job(room / "job", *ragged(room), batches=[1, 4], **MEANT))
    assert found["outcome"] == "better", found["why"]
    assert found["judged_by"] == "vectors" and found["rows"] == {"calibration": 20, "compared": 60} and found["champion"]["any_length"] == ["ids"]


def test_weights_in_another_file_count_and_come_back_in_one(room: Path) -> None:
    model = onnx.load(str(graphs.mlp(room / "whole.onnx", 128)))
    size = (room / "whole.onnx").stat().st_size
    onnx.save(model, str(room / "model.onnx"), save_as_external_data=True, location="weights.bin", size_threshold=0)
    found, _ = done(graphs.job(room / "job", room / "model.onnx", graphs.rows(room / "rows.parquet", 60), batches=[1], **MEANT))
    assert found["outcome"] == "better", found["why"]
    assert found["champion"]["size"] == pytest.approx(size, rel=0.05)
    assert found["variants"][1]["size"] == (room / "job" / "model.onnx").stat().st_size


def test_weights_linked_from_elsewhere_are_never_read(room: Path) -> None:
    model = onnx.load(str(graphs.mlp(room / "whole.onnx", 64)))
    onnx.save(model, str(room / "model.onnx"), save_as_external_data=True, location="weights.bin", size_threshold=0)
    os.link(room / "weights.bin", room / "other.bin")
    assert "weights.bin" in refused(graphs.job(room / "job", room / "model.onnx", graphs.rows(room / "rows.parquet")))


def test_a_disk_that_is_full_leaves_nothing_that_looks_done(room: Path) -> None:
    folder = graphs.job(room / "job", graphs.mlp(room / "model.onnx", 64), graphs.rows(room / "rows.parquet", 60), batches=[1], **MEANT)
    (folder / "report.json").symlink_to("/dev/full")
    found, _ = done(folder)
    assert found["outcome"] == "unknown" and "No space left on device" in found["why"] and not (folder / "manifest.json").exists()


# As a program


def program(folder: Path) -> subprocess.Popen[str]:
    command, env = [sys.executable, "-P", "-m", "runbooks._quantize"], {**os.environ, "WATCHKEEPER_JOB": str(folder)}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_at_work_it_leaves_nothing_and_asked_again_it_does_it_all(room: Path) -> None:
    folder = graphs.job(room / "job", graphs.cnn(room / "model.onnx", 16), graphs.rows(room / "rows.parquet", 60, 64), batches=[1], **MEANT)
    with program(folder) as first:
        assert first.stdout
        while "making" not in first.stdout.readline():
            assert first.poll() is None
        first.send_signal(signal.SIGKILL)
    assert not (folder / "manifest.json").exists() and not (folder / "model.onnx").exists()
    with program(folder) as second:
        out, _ = second.communicate()
    lines = [json.loads(line) for line in out.splitlines()]
    assert second.returncode == 0 and lines[-1]["done"] == 1.0 and "static int8" in lines[-1]["what"]
    assert (folder / "manifest.json").exists() and not (folder / "variants").exists()


def test_none_that_is_better_ends_with_one_and_says_why_last(room: Path) -> None:
    folder = graphs.job(room / "job", graphs.mlp(room / "model.onnx", 64), graphs.rows(room / "rows.parquet", 60), batches=[1], largest=0.1)
    with program(folder) as only:
        out, err = only.communicate()
    assert only.returncode == 1 and not (folder / "manifest.json").exists() and not (folder / "model.onnx").exists()
    assert "none of 1 variants is better; dynamic int8: larger" in json.loads(out.splitlines()[-1])["what"] and "larger" in err.splitlines()[-1]
