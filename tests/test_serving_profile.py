"""Where an inference's time goes: the arithmetic on times that are given, and the check and the command on real graphs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from agent import Locator, Status, Verdict, admit
from agent.cli import main
from agent.errors import ArtefactError, DataError, WatchkeeperError
from agent.perform import perform
from agent.stats import FEWEST
from agent.targets.folder import record
from checks._engines import Onnx, Operators, Setting, read, threads, tiled
from checks._timed import AGAIN, BASE, SURE, Batch, Timed, _opened, judged, report
from checks._timed_page import page
from tests import graphs

QUICK = {"seconds": "1ms", "batches": [1, 4]}
SETTINGS = {BASE: Setting(), "2 threads": Setting(2)}


def profile(path: Path, table: Path | None = None, **parameters: Any) -> Verdict:
    locators = {"live": Locator("here", "live", f"parquet:{table}")} if table else {}
    return perform({"check": "serving.profile", "locators": locators, "parameters": {"path": str(path), **QUICK, **parameters}})


def told(verdict: Verdict) -> dict[str, Any]:
    return json.loads(verdict.data["profile.json"])


# The choice, on times that are given

TIMES = st.lists(st.floats(1e-5, 1.0), min_size=FEWEST, max_size=80)


@settings(max_examples=50)
@given(TIMES, st.floats(1.05, 50))
def test_what_is_faster_by_a_factor_in_every_round_is_recommended_with_that_gain(took: list[float], factor: float) -> None:
    (found,) = judged({1: {BASE: took, "2 threads": [time / factor for time in took]}}, SETTINGS)
    assert found.sure and found.gain == pytest.approx(1 - 1 / factor)


@settings(max_examples=50)
@given(TIMES, TIMES, st.floats(1.05, 50))
def test_what_is_surely_slower_at_one_batch_size_is_never_recommended(took: list[float], other: list[float], factor: float) -> None:
    times = {1: {BASE: took, "2 threads": [time / factor for time in took]}, 8: {BASE: other, "2 threads": [time * factor for time in other]}}
    (found,) = judged(times, SETTINGS)
    assert not found.sure


@settings(max_examples=50)
@given(TIMES)
def test_the_same_times_are_no_gain(took: list[float]) -> None:
    (found,) = judged({1: {BASE: took, "2 threads": took}}, SETTINGS)
    assert not found.sure and found.gain == 0.0


@settings(max_examples=50)
@given(TIMES, st.floats(1.05, 2), st.floats(0.5, 2))
def test_what_gains_no_more_than_the_same_setting_opened_again_is_no_gain(took: list[float], factor: float, apart: float) -> None:
    times = {BASE: took, AGAIN: [time / apart for time in took], "2 threads": [time / factor for time in took]}
    (found,) = judged({1: times}, {**SETTINGS, AGAIN: Setting()})
    assert found.sure == (found.ratios[1].low > max(1, found.floor)) and found.floor == pytest.approx(max(apart, 1 / apart))


def test_equal_settings_are_recommended_no_oftener_than_is_promised() -> None:
    rng, looks = np.random.default_rng(5), 400
    names = {BASE: Setting(), **{f"{n} threads": Setting(n) for n in range(2, 6)}}
    wrong = 0
    for _ in range(looks):
        times = {size: {told: rng.lognormal(0, 0.5, 48).tolist() for told in names} for size in (1, 8, 32)}
        wrong += any(one.sure for one in judged(times, names))
    assert wrong / looks <= SURE


def test_a_twofold_gain_in_heavy_noise_is_found_nearly_always() -> None:
    rng, looks, found = np.random.default_rng(6), 100, 0
    for _ in range(looks):
        noise = rng.lognormal(0, 0.3, (2, 96))
        found += judged({1: {BASE: noise[0].tolist(), "2 threads": (noise[1] / 2).tolist()}}, SETTINGS)[0].sure
    assert found >= 95


# What a profile holds


def event(name: str, at: int, took: int, operator: str = "", thread: int = 1) -> dict[str, Any]:
    """An event of onnxruntime's profile: of a kernel where it names its operator, else of the session."""
    kind, args = ("Node", {"op_name": operator}) if operator else ("Session", {})
    return {"cat": kind, "name": name, "ts": at, "dur": took, "tid": thread, "args": args}


def one_run(at: int, first: int = 30) -> list[dict[str, Any]]:
    kernels = [event("a_kernel_time", at, first, "MatMul"), event("b_kernel_time", at + first, 20, "MatMul")]
    return [*kernels, event("c_kernel_time", at + first + 20, 10, "Relu"), event("model_run", at, first + 70)]


def test_kernels_are_added_up_and_what_is_left_of_a_run_lies_between_them() -> None:
    found = read([event("model_loading_uri", 0, 900), event("a_fence_before", 900, 50, "MatMul"), *one_run(1000), *one_run(2000)])
    assert found.kinds == {"MatMul": 50, "Relu": 10} and found.nodes["a"] == ("MatMul", 30) and (found.whole, found.between) == (100, 40)


def test_an_operator_that_was_held_up_once_takes_no_more_by_it() -> None:
    runs = [one for n in range(5) for one in one_run(100_000 * n, 50_000 if n == 3 else 30)]
    assert read(runs) == read([one for n in range(5) for one in one_run(100_000 * n)])


def test_the_first_runs_are_passed_over() -> None:
    assert read([*one_run(0, 900), *one_run(2000)], cold=1).kinds == {"MatMul": 50, "Relu": 10}


def test_kernels_side_by_side_take_no_more_than_all_of_it() -> None:
    kernels = [event("a_kernel_time", 0, 30, "Conv"), event("b_kernel_time", 0, 30, "Relu", thread=2)]
    found = read([*kernels, event("model_run", 0, 40)])
    assert found.between == 0 and found.kinds == {"Conv": 30, "Relu": 30}


TREES = st.recursive(st.integers(1, 50), lambda inner: st.lists(inner, min_size=1, max_size=4), max_leaves=20)


@settings(max_examples=50)
@given(st.lists(TREES, min_size=1, max_size=4))
def test_kernels_within_kernels_are_counted_once(trees: list[Any]) -> None:
    """A number is a kernel that takes so long; a list is one with others inside it, which takes two microseconds of its own."""
    events, own = list[dict[str, Any]](), dict[str, float]()

    def lay(tree: Any, at: int) -> int:
        name = f"n{len(own)}"
        own[name] = 2 if isinstance(tree, list) else tree
        end = at + own[name]
        for inner in tree if isinstance(tree, list) else ():
            end = lay(inner, int(end) - 1) + 1
        events.append(event(f"{name}_kernel_time", at, int(end) - at, "Loop" if isinstance(tree, list) else "MatMul"))
        return int(end)

    end = 0
    for tree in trees:
        end = lay(tree, end)
    found = read([*events, event("model_run", 0, end + 5)])
    assert {name: took for name, (_, took) in found.nodes.items()} == own and found.between == 5


def test_a_loop_has_no_part_of_what_its_body_takes(tmp_path: Path) -> None:
    found = told(profile(loop(tmp_path / "model.onnx"), memory=2**30, worth=1.0))
    first, *rest = found["operators"]["kinds"]
    assert first["name"] == "MatMul" and first["share"] + sum(one["share"] for one in rest) == pytest.approx(1)


def loop(path: Path) -> Path:
    """Ten times a matrix, in the body of a Loop."""
    info, kinds = helper.make_tensor_value_info, TensorProto
    inside = [helper.make_node("MatMul", ["a", "w"], ["b"], "inner"), helper.make_node("Identity", ["c"], ["d"])]
    takes = [info("i", kinds.INT64, []), info("c", kinds.BOOL, []), info("a", kinds.FLOAT, None)]
    body = helper.make_graph(inside, "body", takes, [info("d", kinds.BOOL, []), info("b", kinds.FLOAT, None)])
    held = {"n": np.array(10, np.int64), "go": np.array(True), "w": np.eye(1024, dtype=np.float32)}
    return graphs.saved(path, [helper.make_node("Loop", ["n", "go", "x"], ["y"], body=body)], held, ["n", 1024], 1024)


def nothing(path: Path) -> Path:
    """A graph without inputs."""
    node = helper.make_node("RandomNormal", [], ["y"], shape=[2, 2])
    graph = helper.make_graph([node], "nothing", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


def test_a_session_s_threads_stop_spinning_when_its_run_ends(tmp_path: Path) -> None:
    session = Onnx(admit(graphs.mlp(tmp_path / "model.onnx", 64)), 2**30)._session(Setting(2))
    assert session.get_session_options().get_session_config_entry("session.force_spinning_stop") == "1"


@pytest.mark.parametrize("most", [0, 1, 2])
def test_settings_for_which_there_is_no_room_are_told(tmp_path: Path, most: int) -> None:
    engine = Onnx(admit(graphs.mlp(tmp_path / "model.onnx", 64)), 2**30)
    runs, broken = _opened(engine, Setting(), most)
    assert [*runs] == [BASE, AGAIN][: max(1, most)] and len(broken) == len(engine.settings(Setting()))
    assert all("allow it more" in why for why in broken.values())


@pytest.mark.parametrize("given_", [{"batches": []}, {"batches": [0]}, {"threads": 0}, {"rows": 0}, {"worth": float("nan")}, {"worth": 1.5}])
def test_numbers_that_mean_nothing_are_refused(given_: Mapping[str, Any], tmp_path: Path) -> None:
    verdict = profile(graphs.mlp(tmp_path / "model.onnx", 64), **given_)
    assert verdict.status is Status.ERROR and "from 1 on" in verdict.reason


def test_every_share_is_told_and_they_add_up_to_one(tmp_path: Path) -> None:
    found = told(profile(graphs.mlp(tmp_path / "model.onnx", 1024)))
    kinds = {one["name"]: one["share"] for one in found["operators"]["kinds"]}
    assert sum(kinds.values()) == pytest.approx(1) and max(kinds, key=lambda name: kinds[name]) == "MatMul"
    assert found["operators"]["nodes"][0]["name"] == "second"  # a million of its weights


# The check


def test_the_verdict_says_where_the_time_goes_and_that_the_rows_were_made_up(tmp_path: Path) -> None:
    verdict = profile(graphs.cnn(tmp_path / "model.onnx"), worth=1.0)
    first, second, *_ = verdict.reason.splitlines()
    assert verdict.status is Status.OK and "of it in Conv" in first and "rows were made up" in second
    assert set(verdict.parts) == {"batch 1", "batch 4"} and verdict.reading is not None and verdict.reading.unit == "s"
    found = told(verdict)
    assert [one["size"] for one in found["batches"]] == [1, 4]
    assert all(one["rounds"] >= FEWEST and one["p50"] <= one["p99"] and one["memory"] >= 0 for one in found["batches"])
    assert {one["threads"] for one in found["settings"]} <= set(threads())


def test_the_file_of_a_registered_version_is_profiled_and_another_is_named_as_missing(tmp_path: Path) -> None:
    record(tmp_path / "models", "7", {"model.onnx": graphs.mlp(tmp_path / "model.onnx", 64)}, golden=[])
    job = {"check": "serving.profile", "locators": {"registry": Locator("here", "registry", f"folder:{tmp_path / 'models'}")}}
    verdict = perform({**job, "parameters": {"version": "7", **QUICK}})
    assert verdict.reason.startswith("7/model.onnx: ")
    gone = perform({**job, "parameters": {"version": "8", **QUICK}})
    assert gone.status is Status.NODATA and "no file 'model.onnx' of version 8" in gone.reason


def test_without_a_file_there_is_nothing_to_profile() -> None:
    verdict = perform({"check": "serving.profile", "locators": {}, "parameters": {}})
    assert verdict.status is Status.NODATA and "`path`" in verdict.reason


def test_rows_of_a_table_are_asked_in_the_order_of_the_features(tmp_path: Path) -> None:
    rows = graphs.rows(tmp_path / "rows.parquet", 40)
    verdict = profile(graphs.mlp(tmp_path / "model.onnx", 64), rows, features=[f"f{k}" for k in range(graphs.FEATURES)])
    assert "40 rows of the table were asked" in verdict.reason


def test_a_graph_that_takes_one_batch_size_is_timed_at_that_alone(tmp_path: Path) -> None:
    found = told(profile(graphs.mlp(tmp_path / "model.onnx", 64, batch=3)))
    assert [one["size"] for one in found["batches"]] == [3]


def ragged(path: Path) -> Path:
    """A graph over token ids of any length."""
    nodes = [helper.make_node("Cast", ["ids"], ["a"], "cast", to=TensorProto.FLOAT), helper.make_node("ReduceMean", ["a"], ["y"], axes=[1])]
    sides = helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "t"]), helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])
    model = helper.make_model(helper.make_graph(nodes, "ragged", [sides[0]], [sides[1]]), opset_imports=[helper.make_opsetid("", 13)], ir_version=9)
    onnx.save(model, str(path))
    return path


def test_rows_of_several_lengths_are_asked_at_the_commonest(tmp_path: Path) -> None:
    pq.write_table(pa.table({"ids": [[1, 2, 3]] * 6 + [[1, 2]] * 4}), tmp_path / "rows.parquet")
    verdict = profile(ragged(tmp_path / "model.onnx"), tmp_path / "rows.parquet")
    assert "6 rows of the table were asked, those of the commonest lengths" in verdict.reason
    assert profile(ragged(tmp_path / "model.onnx")).status in (Status.OK, Status.WARN)


def nans(path: Path) -> Path:
    nodes = [helper.make_node("Log", ["x"], ["y"])]
    return graphs.saved(path, nodes, {}, ["n", graphs.CLASSES])


def custom(path: Path) -> Path:
    return graphs.saved(path, [helper.make_node("Odd", ["x"], ["y"], domain="com.example")], {}, ["n", graphs.CLASSES])


def large(path: Path) -> Path:
    return graphs.mlp(path, 3000)


def words(path: Path) -> Path:
    path.write_bytes(b"not a model at all")
    return path


@pytest.mark.parametrize(
    ("make", "table", "parameters", "said"),
    [
        (words, None, {}, "model"),
        (custom, None, {}, "com.example"),
        (nans, None, {}, "no number"),
        (nothing, None, {}, "takes nothing"),
        (graphs.mlp, None, {"batches": [10**12]}, "memory does not hold a batch"),
        (large, None, {"memory": 40 * 2**20}, "does not load in"),
        (graphs.mlp, None, {"memory": 1000}, "bytes"),
        (graphs.mlp, {"a": [1.0, 2.0]}, {}, "do not fit the graph"),
        (graphs.mlp, {"a": ["x", "y"]}, {}, "holds text"),
        (graphs.mlp, {"a": [1.0]}, {"features": ["b"]}, "no column 'b'"),
        (graphs.mlp, {"a": pa.array([], pa.float64())}, {}, "no rows"),
        (ragged, {"ids": ["x", "y"]}, {}, "do not fit the graph"),
    ],
)
def test_what_it_cannot_profile_is_said(make: Any, table: Mapping[str, Any] | None, parameters: Mapping[str, Any], said: str, tmp_path: Path) -> None:
    if table is not None:
        pq.write_table(pa.table(dict(table)), tmp_path / "rows.parquet")
    with pytest.raises((ArtefactError, DataError), match=said):
        profile(make(tmp_path / "model.onnx"), tmp_path / "rows.parquet" if table is not None else None, **parameters)


def test_rows_are_repeated_where_there_are_too_few() -> None:
    assert tiled({"x": np.array([[1], [2], [3]])}, 5)["x"].ravel().tolist() == [1, 2, 3, 1, 2]


# The page


def made(ratios: Sequence[float]) -> Timed:
    """A result whose other setting is so many times as fast at batches 1, 8 ..."""
    sizes = [8**n for n in range(len(ratios))]
    times = {size: {BASE: [0.01 * size] * 48, "2 threads": [0.01 * size / ratio] * 48} for size, ratio in zip(sizes, ratios, strict=True)}
    batches = [Batch(size, 0.01 * size, (0.009 * size, float("inf")), 0.02 * size, 48, None) for size in sizes]
    return Timed(batches, Operators({"<Odd> & co": 60.0}, {"<n>": ("<Odd> & co", 60.0)}, 80.0), 1, judged(times, SETTINGS), {"bad": "<why>"})


def test_the_page_tells_all_of_it_and_takes_no_name_for_markup() -> None:
    found = report(made([2.0, 1.0]), model="<m>", runtime="onnxruntime", threads=1, rows="made up")
    text = page("warn", "one\ntwo", found)
    assert "saves 50% at least" in text and "&lt;Odd&gt; &amp; co" in text and "<m>" not in text and "<why>" not in text
    assert "between operators" in text and "25.0%" in text and found["recommended"] == "2 threads"
    assert "broken: &lt;why&gt;" in text


def test_one_batch_size_is_a_picture_too() -> None:
    assert "<svg" in page("ok", "one", report(made([1.0]), model="m"))


# The command


def command(*given_: object, json_: bool = False) -> Result:
    quick = ["--seconds", "1", "--batch", "1"]
    return CliRunner().invoke(main, ["profile", *map(str, given_), *quick, *(["--json"] if json_ else [])])


def test_the_command_prints_tables_and_writes_the_page(tmp_path: Path) -> None:
    done = command(graphs.mlp(tmp_path / "model.onnx", 128), "--html", tmp_path / "page.html", "--worth", "1")
    assert done.exit_code == 0, done.output
    assert "MatMul" in done.output and "rows a second" in done.output and "tells all of it" in done.output
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")


def test_the_command_says_the_same_as_json(tmp_path: Path) -> None:
    rows = graphs.rows(tmp_path / "rows.parquet", 20)
    done = command(graphs.mlp(tmp_path / "model.onnx", 128), "--rows", rows, "--worth", "1", json_=True)
    found = json.loads(done.output)
    assert done.exit_code == 0 and found["status"] == "ok" and found["batches"][0]["size"] == 1 and "20 rows" in found["rows"]


@pytest.mark.parametrize(
    ("given_", "code", "said"),
    [
        (["gone.onnx"], 2, "there is no file"),
        (["model.onnx", "--html", "no/where.html"], 2, "cannot be written: there is no such folder"),
        (["bad.onnx"], 3, "could not tell"),
    ],
)
def test_what_the_command_cannot_do_it_says(given_: Sequence[str], code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    graphs.mlp(tmp_path / "model.onnx", 64)
    words(tmp_path / "bad.onnx")
    done = command(*given_)
    assert (done.exit_code, said in done.output) == (code, True), done.output


# Torch


def test_a_torch_module_says_where_its_time_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        import torch
        from safetensors.torch import save_file
    except ImportError:
        if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
            raise
        pytest.skip("needs torch: make test EXTRAS=torch")
    (tmp_path / "nets.py").write_text("import torch\ndef wide():\n    return torch.nn.Sequential(torch.nn.Linear(32, 512), torch.nn.ReLU())\n")
    monkeypatch.chdir(tmp_path)
    save_file(torch.nn.Sequential(torch.nn.Linear(32, 512), torch.nn.ReLU()).state_dict(), tmp_path / "w.safetensors")
    rows = graphs.rows(tmp_path / "rows.parquet", 20)
    verdict = profile(tmp_path / "w.safetensors", rows, factory="nets:wide", worth=1.0)
    kinds = {one["name"]: one["share"] for one in told(verdict)["operators"]["kinds"]}
    assert sum(kinds.values()) == pytest.approx(1) and "addmm" in kinds
    with pytest.raises(WatchkeeperError, match="give it rows"):
        profile(tmp_path / "w.safetensors", factory="nets:wide")
    with pytest.raises(ArtefactError, match="weights need a factory"):
        profile(tmp_path / "w.safetensors", rows)
