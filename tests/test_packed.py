"""Weights in fewer bits: what is packed, what is left, and by how much the answers move."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from agent import admit
from runbooks._graph import BLOCK, inspect
from runbooks._packed import half, packed, tables
from runbooks._variants import sensible
from tests import graphs
from tests.test_quantize_program import run


def lookup(path: Path, table: np.ndarray, *, twice: bool = False) -> Path:
    """A graph that looks rows up in a table, and that is all."""
    nodes = [helper.make_node("Gather", ["table", "ids"], ["found"], "look", axis=0)]
    if twice:
        nodes.append(helper.make_node("MatMul", ["found", "table"], ["other"], "again"))
    kind = helper.np_dtype_to_tensor_dtype(table.dtype)
    given, found = helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"]), helper.make_tensor_value_info("found", kind, ["n", table.shape[1]])
    graph = helper.make_graph(nodes, "lookup", [given], [found], [numpy_helper.from_array(table, "table")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


def found(path: Path, ids: list[int]) -> np.ndarray:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"ids": np.array(ids)})[0]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-3, 3), st.sampled_from([np.float32, np.float16]))
def test_a_table_in_eight_bits_is_off_by_half_a_step_at_most(tmp_path_factory: pytest.TempPathFactory, seed: int, power: float, kind: type) -> None:
    room = tmp_path_factory.mktemp("table")
    table = (np.random.default_rng(seed).normal(size=(256, 64)) * 10**power).astype(kind)
    table[3] = 0
    tables(lookup(room / "model.onnx", table), room / "small.onnx")
    ids = [3, 0, 255, 7]
    exact = table.astype(np.float32)[ids]
    step = np.repeat(np.abs(exact.reshape(4, -1, BLOCK)).max(axis=2) / 127, BLOCK, axis=1)
    rounding = 0 if kind is np.float32 else 2**-10 * np.abs(exact) + 127 * 2**-11 * step + 2**-24 * 128  # of the scale, and of the answer
    assert (np.abs(found(room / "small.onnx", ids) - exact) <= step * 0.501 + rounding).all()
    assert (room / "small.onnx").stat().st_size < (0.32 if kind is np.float32 else 0.6) * (room / "model.onnx").stat().st_size


def test_a_table_that_something_else_takes_too_is_left(tmp_path: Path) -> None:
    table = np.random.default_rng(0).normal(size=(128, 128)).astype(np.float32)
    tables(lookup(tmp_path / "model.onnx", table, twice=True), tmp_path / "small.onnx")
    assert [node.op_type for node in onnx.load(str(tmp_path / "small.onnx")).graph.node] == ["Gather", "MatMul"]


@pytest.mark.parametrize("shape", [(16, 64), (256, 40)])  # little to save; no whole blocks
def test_a_table_that_does_not_pay_or_does_not_fit_is_left(tmp_path: Path, shape: tuple[int, int]) -> None:
    table = np.ones(shape, dtype=np.float32)
    tables(lookup(tmp_path / "model.onnx", table), tmp_path / "small.onnx")
    assert found(tmp_path / "small.onnx", [1]).tolist() == table[:1].tolist()


def test_only_matrices_of_so_many_weights_are_packed(tmp_path: Path) -> None:
    model = graphs.mlp(tmp_path / "model.onnx", 512)
    packed(model, tmp_path / "small.onnx", bits=4, least=512 * 512)
    kinds = [node.op_type for node in onnx.load(str(tmp_path / "small.onnx")).graph.node]
    assert kinds.count("MatMulNBits") == 1 and kinds.count("MatMul") == 2
    packed(model, tmp_path / "smaller.onnx", bits=4, least=0)
    assert [node.op_type for node in onnx.load(str(tmp_path / "smaller.onnx")).graph.node].count("MatMulNBits") == 3


def test_what_is_made_for_cuda_answers_like_the_graph_and_is_as_small_as_promised(tmp_path: Path) -> None:
    model = graphs.mlp(tmp_path / "model.onnx", 512)
    tried, untried = sensible(inspect(admit(model)), [], [], "cuda")
    assert [one.name for one in tried] == ["float16", "8-bit weights, float16", "4-bit weights, float16"]
    assert set(untried) == {"static and dynamic int8"}
    rows = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    exact = run(model, rows)
    for one, share, least in zip(tried, (0.51, 0.3, 0.2), (0.99999, 0.999, 0.98), strict=True):
        one.make(model, tmp_path / "made.onnx")
        theirs = run(tmp_path / "made.onnx", rows)
        cosines = (exact * theirs).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(theirs, axis=1)
        assert cosines.mean() > least and (tmp_path / "made.onnx").stat().st_size < share * model.stat().st_size, one.name


def test_what_has_no_matrices_is_halved_and_nothing_else(tmp_path: Path) -> None:

    tried, untried = sensible(inspect(admit(graphs.cnn(tmp_path / "model.onnx"))), [], [], "cuda")
    assert [one.name for one in tried] == ["float16"] and "4-bit weights, float16" in untried


def test_half_takes_and_gives_the_same_kinds(tmp_path: Path) -> None:
    half(graphs.mlp(tmp_path / "model.onnx", 64), tmp_path / "half.onnx")
    model = onnx.load(str(tmp_path / "half.onnx"))
    assert {one.type.tensor_type.elem_type for one in (*model.graph.input, *model.graph.output)} == {TensorProto.FLOAT}
    assert {one.data_type for one in model.graph.initializer if len(one.dims) > 1} == {TensorProto.FLOAT16}
