"""What a model file must be before anything opens it; each hostile file is a real one, made here."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from agent import admit, bounded
from agent.errors import ArtefactError, WatchkeeperError

FLOATS = np.arange(6, dtype=np.float32).reshape(2, 3)


def graph(*nodes, initializers=(), sparse=(), functions=(), opset=17, domains=()):
    nodes = nodes or (helper.make_node("Identity", ["x"], ["y"]),)
    made = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
        initializer=list(initializers),
        sparse_initializer=list(sparse),
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, 1) for name in domains)]
    return helper.make_model(made, opset_imports=imports, functions=list(functions), ir_version=9)


def outside(location: str, name: str = "w", offset: str = "0", length: str = "24") -> TensorProto:
    """A tensor whose values lie in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2, 3], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=value)
    return tensor


ADD = helper.make_node("Add", ["x", "w"], ["y"])


def saved(folder, model, name="model.onnx"):
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def secret(tmp_path):
    """A file outside the model's folder that a model would like to read."""
    (tmp_path / "models").mkdir(exist_ok=True)
    (tmp_path / "secret.bin").write_bytes(FLOATS.tobytes())
    return tmp_path / "models"


def test_a_plain_graph_is_admitted_with_its_digest(tmp_path):
    path = saved(tmp_path, graph(ADD, initializers=[numpy_helper.from_array(FLOATS, "w")]))
    found = admit(path)
    assert (found.format, found.sha256, found.size) == ("onnx", hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
    assert admit(path, sha256=found.sha256.upper()).path == path


def test_weights_in_a_file_beside_are_admitted_and_counted(tmp_path):
    (tmp_path / "w.bin").write_bytes(FLOATS.tobytes())
    path = saved(tmp_path, graph(ADD, initializers=[outside("w.bin")]))
    found = admit(path)
    assert found.beside == (tmp_path / "w.bin",) and found.size == path.stat().st_size + 24
    with pytest.raises(ArtefactError, match="beside it, more than are allowed"):
        admit(path, largest=path.stat().st_size + 23)


def in_a_constant(location):
    constant = helper.make_node("Constant", [], ["w"], value=outside(location))
    return graph(constant, ADD)


def in_a_subgraph(location):
    branch = helper.make_graph([helper.make_node("Identity", ["v"], ["b"])], "b", [], [helper.make_tensor_value_info("b", 1, [2, 3])])
    branch.initializer.append(outside(location, "v"))
    yes = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True)))
    return graph(yes, helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch))


def in_a_sparse_tensor(location):
    values = outside(location, "w", length="8")
    values.dims[:] = [2]
    indices = numpy_helper.from_array(np.array([0, 3], dtype=np.int64), "i")
    return graph(ADD, sparse=[helper.make_sparse_tensor(values, indices, [2, 3])])


def in_a_function(location):
    body = helper.make_node("Constant", [], ["o"], value=outside(location))
    function = helper.make_function("own", "F", [], ["o"], [body], [helper.make_opsetid("", 17)])
    return graph(helper.make_node("F", [], ["w"], domain="own"), ADD, functions=[function], domains=["own"])


def in_an_initializer(location):
    return graph(ADD, initializers=[outside(location)])


WHERE = [in_an_initializer, in_a_constant, in_a_subgraph, in_a_sparse_tensor, in_a_function]


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize(
    "location", ["../secret.bin", "ABSOLUTE", "a/../../secret.bin", "..\\secret.bin", "symlink", "folder/secret.bin", "hard", "", "gone.bin", "."]
)
def test_no_graph_reaches_out_of_its_folder_wherever_it_hides_it(tmp_path, where, location):
    models = secret(tmp_path)
    (models / "symlink").symlink_to(tmp_path / "secret.bin")
    (models / "folder").symlink_to(tmp_path)
    os.link(tmp_path / "secret.bin", models / "hard")
    location = str(tmp_path / "secret.bin") if location == "ABSOLUTE" else location
    with pytest.raises(ArtefactError, match="keeps weights at"):
        admit(saved(models, where(location)))


@pytest.mark.parametrize(("offset", "length"), [("0", "25"), ("8", "24"), ("-1", "4"), ("0", "-4"), ("x", "4"), ("99999999999", "1")])
def test_weights_beyond_the_end_of_their_file_are_refused(tmp_path, offset, length):
    (tmp_path / "w.bin").write_bytes(FLOATS.tobytes())
    with pytest.raises(ArtefactError, match=r"cut short|does not say where"):
        admit(saved(tmp_path, graph(ADD, initializers=[outside("w.bin", offset=offset, length=length)])))


def test_operators_of_a_library_nobody_listed_are_refused(tmp_path):
    path = saved(tmp_path, graph(helper.make_node("Steal", ["x"], ["y"], domain="evil"), domains=["evil"]))
    with pytest.raises(ArtefactError, match=r"uses evil\.Steal"):
        admit(path)
    assert admit(path, domains=["evil"]).format == "onnx"


def test_operators_of_the_runtime_itself_are_known(tmp_path):
    path = saved(tmp_path, graph(helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft"), domains=["com.microsoft"]))
    assert admit(path).format == "onnx"


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_graph_is_refused_or_admitted_and_never_anything_else(tmp_path, data):
    body = bytearray(graph(ADD, initializers=[numpy_helper.from_array(FLOATS, "w")]).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes(body[: data.draw(st.integers(0, len(body)))]))
    try:
        admit(path)
    except WatchkeeperError as problem:
        assert isinstance(problem, ArtefactError)


@pytest.mark.parametrize("name", ["gone.onnx", "folder", "pipe"])
def test_what_is_no_file_is_refused_at_once(tmp_path, name):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ArtefactError):
        admit(tmp_path / name)


def test_another_file_than_was_registered_and_one_too_large_are_refused(tmp_path):
    path = saved(tmp_path, graph())
    with pytest.raises(ArtefactError, match="not the file that was registered"):
        admit(path, sha256="0" * 64)
    with pytest.raises(ArtefactError, match="more than the 10 that are allowed"):
        admit(path, largest=10)


# Torch


class Hostile:
    """Unpickled, it would leave a mark."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


def archive(path, names, body=b""):
    with zipfile.ZipFile(path, "w") as made:
        for name in names:
            made.writestr(name, body)
    return path


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["m/code/__torch__.py", "m/constants.pkl", "m/data.pkl"], "is TorchScript"),
        (["m/archive_format", "m/models/model.json", "m/data/sample_inputs/model.pt"], r"an exported program \(.pt2\)"),
        (["serialized_exported_program.json", "data.pkl"], r"an exported program \(.pt2\)"),
        (["m/anything"], r"an exported program \(.pt2\)"),
    ],
)
def test_what_can_run_code_takes_a_persons_trust_and_its_digest(tmp_path, names, said):
    path = archive(tmp_path / "model.onnx", names)
    with pytest.raises(ArtefactError, match=said):
        admit(path)
    with pytest.raises(ArtefactError, match=said):
        admit(path, trusted=True)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ArtefactError, match=said):
        admit(path, sha256=digest)
    assert admit(path, trusted=True, sha256=digest).format in ("torchscript", "exported")


def test_a_pickle_is_known_for_one_whatever_its_name_and_is_never_opened(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(Hostile(tmp_path / "mark")))
    assert admit(path).format == "torch" and not (tmp_path / "mark").exists()


def test_no_pickle_is_read_where_torch_was_told_to_run_its_code(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(ArtefactError, match="unset it"):
        admit(archive(tmp_path / "m.pt", ["m/data.pkl", "m/data/0"]))


def test_a_damaged_archive_is_refused(tmp_path):
    path = archive(tmp_path / "m.pt", ["m/data.pkl", "m/data/0"], b"x" * 1000)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ArtefactError, match="damaged archive"):
        admit(path)


# Safetensors


def tensors(header, body=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


ONE = {"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}


def test_tensors_that_lie_whole_one_after_the_other_are_admitted(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(tensors({**ONE, "b": {"dtype": "BF16", "shape": [], "data_offsets": [24, 26]}, "__metadata__": {"format": "pt"}}, b"x" * 26))
    assert admit(path).format == "safetensors"


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (ONE, b"x" * 23),
        (ONE, b"x" * 25),
        ({"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [4, 28]}}, b"x" * 28),
        ({**ONE, "b": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}, b"x" * 24),
        ({"w": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 24]}}, b"x" * 24),
        ({"w": {"dtype": "X", "shape": [2, 3], "data_offsets": [0, 24]}}, b"x" * 24),
        ({"w": {"dtype": "F32", "shape": [-2, -3], "data_offsets": [0, 24]}}, b"x" * 24),
        ({"w": {"dtype": "F32", "shape": "2,3", "data_offsets": [0, 24]}}, b"x" * 24),
        ({"w": {"dtype": "F32", "shape": [2, 3]}}, b"x" * 24),
        ({"w": 3}, b""),
        (b"{" + b'"a":{' * 50_000, b""),
        (b"{not json", b""),
        (b"{}", b"something"),
    ],
)
def test_tensors_that_lie_otherwise_are_refused(tmp_path, header, body):
    path = tmp_path / "m.safetensors"
    path.write_bytes(tensors(header, body))
    with pytest.raises(ArtefactError):
        admit(path)


@pytest.mark.parametrize("body", [b"", b"\x80", b"hello world", b"PK", b"\x00" * 100, b"<html></html>"])
def test_what_is_no_model_is_refused_or_known_for_what_it_is(tmp_path, body):
    path = tmp_path / "model"
    path.write_bytes(body)
    try:
        assert admit(path).format == "torch" and body == b"\x80"
    except ArtefactError as problem:
        assert str(path) in str(problem)


# Memory


def test_a_model_larger_than_its_memory_costs_an_error_and_not_the_process():
    with pytest.raises(MemoryError), bounded(64 * 2**20):
        bytearray(512 * 2**20)
    assert len(bytearray(128 * 2**20)) == 128 * 2**20, "the limit is gone again"
