"""What a graph is made of, as far as making it smaller is concerned: its operators, who has the weights, what shapes it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from agent import Artefact
from agent.errors import ArtefactError

OLDEST = 13  # the opset in which QuantizeLinear came to know channels
LARGE = 2**18  # weights from which on one matrix is worth four bits
BLOCK = 32  # weights along a column that share one scale at four bits
ONE_FILE = 2**31 - 2**20  # bytes beyond which protobuf needs weights beside it
DONE = frozenset(
    (
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearConv", "QLinearMatMul", "QGemm"),
        *("MatMulNBits", "MatMulBnb4", "GatherBlockQuantized", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "DynamicQuantizeLSTM", "QAttention"),
    )
)


@dataclass(frozen=True, slots=True)
class Graph:
    """An admitted ONNX graph: how often it has each operator, and by operator the bytes of 32-bit weights that it takes."""

    path: Path
    sha256: str
    size: int
    opset: int
    operators: Mapping[str, int]
    weights: Mapping[str, int]
    large: int  # matrices of at least LARGE weights that a MatMul or Gemm takes
    batch: int | None  # the only batch it takes, where its first axis is a number
    open: tuple[str, ...]  # inputs with an axis besides the first that may have any length

    def share(self, *operators: str) -> float:
        """Which part of all weights these operators take."""
        return sum(self.weights.get(one, 0) for one in operators) / max(1, sum(self.weights.values()))


def inspect(artefact: Artefact) -> Graph:
    """What the admitted file holds. ArtefactError for what is no ONNX, was quantized before, is too old, or has nothing to make smaller."""
    import onnx

    if artefact.format != "onnx":
        raise ArtefactError(f"{artefact.path} is {artefact.format}, and only ONNX can be quantized here; name its factory, or export it to ONNX")
    model = onnx.load(str(artefact.path), load_external_data=False)
    operators = Counter(node.op_type for node in _nodes(model.graph))
    if before := sorted(DONE & operators.keys()):
        raise ArtefactError(f"{artefact.path} is quantized already: it holds {', '.join(before)}; give the one that it was made from")
    opset = max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=0)
    if opset < OLDEST:
        raise ArtefactError(
            f"{artefact.path} has opset {opset}, and quantizing by channel takes {OLDEST}; export it again, or convert it with onnx.version_converter"
        )
    taken = list(_taken(model.graph))
    if not taken:
        raise ArtefactError(f"{artefact.path} has no 32-bit weights that an operator takes ({_most(operators)}): there is nothing to make smaller")
    weights: Counter[str] = Counter()
    for operator, shape in taken:
        weights[operator] += 4 * prod(shape)
    large = sum(operator in ("MatMul", "Gemm") and len(shape) == 2 and prod(shape) >= LARGE for operator, shape in taken)
    inputs = _inputs(model.graph)
    first = {sizes[0] for sizes in inputs.values() if sizes and sizes[0] is not None}
    free = tuple(name for name, sizes in inputs.items() if None in sizes[1:])
    return Graph(artefact.path, artefact.sha256, artefact.size, opset, dict(operators), dict(weights), large, next(iter(first), None), free)


def prepare(graph: Graph, to: Path) -> Path:
    """The graph as quantizers like it best, in one file of its own: constants folded, shapes known, nothing else changed."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quant_pre_process(str(graph.path), str(to), skip_symbolic_shape=True, save_as_external_data=graph.size > ONE_FILE)
    return to


def _nodes(graph: Any) -> Iterator[Any]:
    """Every node, in the bodies of branches and loops as well."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _taken(graph: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The operator and the shape of each 32-bit weight with more than one axis; the first to take it counts."""
    import onnx

    held = {one.name: tuple(one.dims) for one in graph.initializer if one.data_type == onnx.TensorProto.FLOAT and len(one.dims) > 1}
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.t.data_type == onnx.TensorProto.FLOAT and len(attribute.t.dims) > 1:
                held[node.output[0]] = tuple(attribute.t.dims)
    for node in _nodes(graph):
        for name in node.input:
            if name in held:
                yield node.op_type, held.pop(name)


def _inputs(graph: Any) -> dict[str, tuple[int | None, ...]]:
    held = {one.name for one in graph.initializer}
    return {one.name: tuple(d.dim_value or None for d in one.type.tensor_type.shape.dim) for one in graph.input if one.name not in held}


def _most(operators: Mapping[str, int]) -> str:
    return ", ".join(sorted(operators, key=lambda one: (-operators[one], one))[:4]) or "no operator"
