"""Weights kept in fewer bits, and unpacked as they are used: nothing is rounded but them. And a graph in half precision."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

from runbooks._graph import BLOCK, ONE_FILE

FLOATS = (1, 10)  # onnx.TensorProto.FLOAT and FLOAT16
SMALL = 2**13  # numbers below which a weight stays as it is: it saves nothing to speak of


def half(source: Path, to: Path) -> None:
    """All numbers in half precision but those that come in and go out."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(str(source)), keep_io_types=True), str(to))


def packed(source: Path, to: Path, bits: int, least: int = SMALL) -> None:
    """The matrices of at least so many weights in four or eight bits, BLOCK of them along a column to a scale; the others as they are."""
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    from onnxruntime.quantization.onnx_model import ONNXModel

    model = ONNXModel(onnx.load(str(source)))
    model.replace_gemm_with_matmul()
    held = {one.name: one.dims for one in model.model.graph.initializer}
    small = [node.name for node in model.model.graph.node if node.op_type == "MatMul" and prod(held.get(node.input[1], ())) < least]
    made = MatMulNBitsQuantizer(model.model, bits=bits, block_size=BLOCK, is_symmetric=True, accuracy_level=4, nodes_to_exclude=small)
    made.process()
    made.model.save_model_to_file(str(to), beside(source))


def tables(source: Path, to: Path) -> None:
    """The rows that a Gather looks up (embeddings), in eight bits, BLOCK of them along a row to a scale; the others as they are."""
    import onnx

    model = onnx.load(str(source))
    held = {one.name: one for one in model.graph.initializer}
    for node in list(_lookups(model.graph, held)):
        _pack(model.graph, node, held[node.input[0]])
    if all(one.domain != "com.microsoft" for one in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, str(to))


def beside(source: Path) -> bool:
    """Whether what is made of these files wants its weights in a file of their own."""
    return sum(file.stat().st_size for file in source.parent.glob(f"{source.name}*")) > ONE_FILE


def _lookups(graph: Any, held: Any) -> Iterator[Any]:
    used: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            used[name] = used.get(name, 0) + 1
    for node in graph.node:
        by_row = node.op_type == "Gather" and all(one.i == 0 for one in node.attribute if one.name == "axis")
        if by_row and node.input[0] in held and _packs(held[node.input[0]]) and used[node.input[0]] == 1:
            yield node


def _packs(weight: Any) -> bool:
    """Whether it is a table of floating-point numbers whose rows are whole blocks, and large enough."""
    return weight.data_type in FLOATS and len(weight.dims) == 2 and prod(weight.dims) >= SMALL and weight.dims[1] % BLOCK == 0


def _pack(graph: Any, node: Any, weight: Any) -> None:
    """The node as one that unpacks what it looks up, and its table as bytes around 128."""
    import numpy as np
    from onnx import helper, numpy_helper

    exact = numpy_helper.to_array(weight)
    blocks = exact.astype(np.float32).reshape(len(exact), -1, BLOCK)
    scales = (np.abs(blocks).max(axis=2) / 127).astype(exact.dtype)
    steps = np.maximum(scales.astype(np.float32), np.finfo(np.float32).tiny)[..., None]
    codes = (np.clip(np.rint(blocks / steps), -128, 127) + 128).astype(np.uint8).reshape(exact.shape)
    graph.initializer.remove(weight)
    graph.initializer.extend([numpy_helper.from_array(codes, f"{weight.name}_packed"), numpy_helper.from_array(scales, f"{weight.name}_scales")])
    inputs = [f"{weight.name}_packed", node.input[1], f"{weight.name}_scales"]
    made = helper.make_node("GatherBlockQuantized", inputs, list(node.output), node.name, domain="com.microsoft")
    about = {"bits": 8, "block_size": BLOCK, "gather_axis": 0, "quantize_axis": 1}
    made.attribute.extend(helper.make_attribute(name, value) for name, value in about.items())
    node.CopyFrom(made)
