"""Small ONNX graphs and pinned rows for what makes graphs smaller; made of numpy alone, always the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper

FEATURES = 32
CLASSES = 4


def _weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)


def saved(path: Path, nodes: Sequence[Any], held: Mapping[str, np.ndarray], shape: Sequence[Any], width: int = CLASSES, opset: int = 17) -> Path:
    """A graph from `x` to `y`, checked and written."""
    sides = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape), helper.make_tensor_value_info("y", TensorProto.FLOAT, [shape[0], width])
    weights = [numpy_helper.from_array(value, name) for name, value in held.items()]
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.example", 1)]
    model = helper.make_model(helper.make_graph(nodes, "small", [sides[0]], [sides[1]], weights), opset_imports=opsets, ir_version=9)
    onnx.save(model, str(path))
    return path


def mlp(path: Path, wide: int = 256, *, batch: Any = "n", opset: int = 17, width: int = CLASSES) -> Path:
    """Three layers; the first answer that is largest is its class."""
    rng = np.random.default_rng(7)
    held = {"w0": _weights(rng, FEATURES, wide), "w1": _weights(rng, wide, wide), "w2": _weights(rng, wide, width), "b": np.zeros(width, np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["c"]),
        helper.make_node("MatMul", ["c", "w1"], ["d"], "second"),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("MatMul", ["e", "w2"], ["f"], "third"),
        helper.make_node("Add", ["f", "b"], ["y"]),
    ]
    return saved(path, nodes, held, [batch, FEATURES], width, opset)


def cnn(path: Path, channels: int = 64) -> Path:
    """Two convolutions over eight by eight, and a small head."""
    rng = np.random.default_rng(8)
    held = {
        "k0": _weights(rng, channels, 1, 3, 3),
        "k1": _weights(rng, channels, channels, 3, 3),
        "w": _weights(rng, CLASSES, channels),
        "b": np.zeros(CLASSES, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "k0"], ["a"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["c"]),
        helper.make_node("Conv", ["c", "k1"], ["d"], "second", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("GlobalAveragePool", ["e"], ["f"]),
        helper.make_node("Flatten", ["f"], ["g"]),
        helper.make_node("Gemm", ["g", "w", "b"], ["y"], "head", transB=1),
    ]
    return saved(path, nodes, held, ["n", 1, 8, 8])


def rows(path: Path, n: int = 200, width: int = FEATURES, truth: Sequence[Any] | None = None) -> Path:
    """Rows of normal numbers, columns f0, f1 ..., and a label where there is one."""
    values = np.random.default_rng(9).standard_normal((n, width)).astype(np.float32)
    columns: dict[str, Any] = {f"f{k}": values[:, k] for k in range(width)}
    pq.write_table(pa.table({**columns, **({} if truth is None else {"label": list(truth)})}), path)
    return path


def pin(path: Path) -> dict[str, Any]:
    """As a spec names a table."""
    return {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "rows": pq.read_metadata(path).num_rows}


def job(folder: Path, model: Path | None, calibration: Path | None = None, **parameters: Any) -> Path:
    """A folder in which a trainer is asked to make that model smaller; 24 rounds, because no test judges by time."""
    folder.mkdir(exist_ok=True)
    data = {"calibration": pin(calibration)} if calibration else {}
    champion = {"version": "1", "files": {model.name: str(model)}} if model else None
    told = {"service": "small", "data": data, "champion": champion, "seed": 3, "parameters": {"rounds": 24, "seconds": 0, **parameters}}
    (folder / "spec.json").write_text(json.dumps(told))
    return folder
