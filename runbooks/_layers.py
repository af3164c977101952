"""Which operators suffer most from eight bits: each computed alone, on what it gets in the whole graph, as it is and rounded.

The signal-to-quantization-noise ratio of each operator, after the per-layer analysis of Nagel et al. 2021 (A White Paper on Neural Network
Quantization, arXiv 2106.08295, section 3.6): weights in eight signed bits by channel, what comes in in eight unsigned bits between its extremes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

from runbooks._feeds import Feed
from runbooks._quality import decibels
from runbooks._runtime import opened

RUNS = 8  # of calibration rows
GAP = 6.0  # dB below the middle from which on an operator stands out: twice the noise
FEW = 0.1  # at most this share of all operators is left as it is, and one
LIGHT = 0.06  # ... with at most this share of their weights, for what stays as it is keeps its size


@dataclass(frozen=True, slots=True)
class Layer:
    """One operator with a weight: its name, what it does, its signal to noise in dB, and of how many numbers the weight is."""

    name: str
    operator: str
    decibels: float
    weights: int = 0


def layers(path: Path, fed: Sequence[Feed], memory: int) -> list[Layer]:
    """Each Conv, MatMul and Gemm with a constant weight, the worst first; all nodes of the graph must have names."""
    import onnx

    model = onnx.load(str(path))
    held = {one.name: one for one in model.graph.initializer if one.data_type == onnx.TensorProto.FLOAT and len(one.dims) > 1}
    nodes = [node for node in model.graph.node if node.op_type in ("Conv", "MatMul", "Gemm") and node.input[1] in held]
    seen = _seen(model, sorted({node.input[0] for node in nodes}), fed, path.with_suffix(".seen.onnx"), memory)
    taken = [node for node in nodes if node.input[0] in seen]
    found = [Layer(node.name, node.op_type, _noise(node, seen[node.input[0]], held, model), prod(held[node.input[1]].dims)) for node in taken]
    return sorted(found, key=lambda one: (one.decibels, one.name))


def costly(found: Sequence[Layer]) -> tuple[str, ...]:
    """The few that stand out, by name, the worst first: at least GAP below the middle one, and light enough together."""
    if len(found) < 3:
        return ()
    middle, room = median(one.decibels for one in found), LIGHT * sum(one.weights for one in found)
    left: list[str] = []
    for one in found[: max(1, int(len(found) * FEW))]:
        if one.decibels <= middle - GAP and one.weights <= room:
            left.append(one.name)
            room -= one.weights
    return tuple(left)


def named(model: Any) -> Any:
    """The graph with a name for every node, so that one can be left out by it."""
    taken = {node.name for node in model.graph.node if node.name}
    for place, node in enumerate(model.graph.node):
        if not node.name:
            node.name = next(name for n in range(len(taken) + 1) if (name := f"{node.op_type}_{place}{'_' * n}") not in taken)
            taken.add(node.name)
    return model


def _seen(model: Any, names: Sequence[str], fed: Sequence[Feed], scratch: Path, memory: int) -> dict[str, list[Any]]:
    """What flows through these places of the graph on a few runs."""
    import onnx

    given = {one.name for one in model.graph.input}
    shown = [name for name in names if name not in given]
    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    kept = {one.name for one in asked.graph.output}
    asked.graph.output.extend(onnx.ValueInfoProto(name=name) for name in shown if name not in kept)
    _saved(asked, scratch)
    try:
        session = opened(scratch, 1, memory)
        runs = [dict(zip(shown, session.run(shown, dict(one.values)), strict=True)) | dict(one.values) for one in fed[:RUNS]]
    finally:
        for file in scratch.parent.glob(f"{scratch.name}*"):
            file.unlink()
    return {name: [run[name] for run in runs] for name in names if name in runs[0]}


def _saved(model: Any, path: Path) -> None:
    import onnx

    beside = model.ByteSize() > 2**31 - 2**20
    onnx.save(model, str(path), save_as_external_data=beside, location=f"{path.name}.data" if beside else None)


def _noise(node: Any, given: Sequence[Any], held: Any, model: Any) -> float:
    """One operator's answers as it is and rounded."""
    import numpy as np
    from onnx import numpy_helper

    weight = numpy_helper.to_array(held[node.input[1]])
    axis = 0 if node.op_type == "Conv" or any(one.name == "transB" and one.i for one in node.attribute) else weight.ndim - 1
    rounded = _by_channel(weight, axis)
    low, high = min(0.0, *(float(one.min()) for one in given)), max(0.0, *(float(one.max()) for one in given))
    if not np.isfinite([low, high]).all():
        return 0.0
    run = _alone(node, model)
    signal = noise = 0.0
    for one in given:
        exact, coarse = run(one, weight), run(_rounded(one, low, high), rounded)
        signal, noise = signal + float((exact.astype(np.float64) ** 2).sum()), noise + float(((exact - coarse).astype(np.float64) ** 2).sum())
    return decibels(signal, noise)


def _alone(node: Any, model: Any) -> Any:
    """The operator by itself, without its bias, which has 32 bits anyway."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    single = onnx.NodeProto()
    single.CopyFrom(node)
    del single.input[2:]
    single.input[0], single.input[1], single.output[0] = "x", "w", "y"
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "w", "y")]
    opsets = [one for one in model.opset_import if one.domain in ("", "ai.onnx")]
    made = helper.make_model(helper.make_graph([single], "alone", sides[:2], sides[2:]), opset_imports=opsets, ir_version=model.ir_version)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda x, w: session.run(None, {"x": x, "w": w})[0]


def _by_channel(weight: Any, axis: int) -> Any:
    import numpy as np

    others = tuple(n for n in range(weight.ndim) if n != axis)
    step = np.maximum(np.abs(weight).max(axis=others, keepdims=True), 1e-30) / 127
    return (np.rint(weight / step) * step).astype(np.float32)


def _rounded(values: Any, low: float, high: float) -> Any:
    import numpy as np

    step = max((high - low) / 255, 1e-30)
    zero = round(-low / step)
    return ((np.clip(np.rint(values / step) + zero, 0, 255) - zero) * step).astype(np.float32)


def told(found: Sequence[Layer]) -> Iterator[dict[str, Any]]:
    """As JSON."""
    yield from ({"name": one.name, "operator": one.operator, "decibels": round(one.decibels, 2)} for one in found)
