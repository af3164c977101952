"""The few ways to make a graph smaller that its operators give reason to try, and how each is made. The arithmetic is onnxruntime's own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runbooks._feeds import Feed
from runbooks._graph import BLOCK, LARGE, ONE_FILE, Graph
from runbooks._layers import Layer, costly

DYNAMIC = ("MatMul", "Gemm", "Gather", "LSTM", "Attention", "EmbedLayerNormalization")  # not Conv: integer convolutions take several times as long
SOME = 0.1  # the part of all weights from which on an operator has a say in what is tried


@dataclass(frozen=True, slots=True)
class Variant:
    """One way: what it is called, why it is tried, and what makes it of a prepared graph."""

    name: str
    why: str
    make: Callable[[Path, Path], None]


def sensible(graph: Graph, found: Sequence[Layer], calibration: Sequence[Feed], device: str) -> tuple[list[Variant], dict[str, str]]:
    """What is worth trying, and why the rest is not. Convolutions want ranges known beforehand, matrices ranges of the moment."""
    untried: dict[str, str] = {}
    left, tried = list(costly(found)), list[Variant]()
    conv, matrices = graph.share("Conv"), graph.share("MatMul", "Gemm", "Gather", "LSTM", "Attention")
    if conv >= SOME:
        tried += _static(calibration, left, matrices)
    else:
        untried["static int8"] = "hardly any weights belong to convolutions, and ranges fixed beforehand cost matrices their quality"
    if matrices >= SOME:
        tried += _dynamic(left)
    else:
        untried["dynamic int8"] = "hardly any weights belong to matrices, and integer convolutions without fixed ranges are slow"
    if graph.large:
        tried.append(Variant("4-bit weights", f"{graph.large} matrices have at least {LARGE:,} weights; the rest as in dynamic int8", _four_bits))
    else:
        untried["4-bit weights"] = f"no matrix has {LARGE:,} weights"
    if not left:
        untried["all but a few in int8"] = "no operator stands out as suffering most"
    if device == "cuda":
        tried.append(Variant("float16", "the device computes in half precision", _half))
    else:
        untried["float16"] = "a CPU gains nothing by it; try it where a GPU serves"
    return tried, untried


def _static(calibration: Sequence[Feed], left: Sequence[str], matrices: float) -> Iterator[Variant]:
    why = "convolutions, by channel, with ranges seen on calibration rows"
    yield Variant("static int8", why, lambda source, to: static(source, to, calibration))
    yield Variant("static int8, outliers cut", f"{why} without the outermost", lambda source, to: static(source, to, calibration, outliers=False))
    if left:
        yield Variant(_but(left, "static int8"), _suffer(left), lambda source, to: static(source, to, calibration, left=left))
    if matrices >= SOME:
        yield Variant("static convolutions, dynamic matrices", "it has many weights of both kinds", lambda source, to: _both(source, to, calibration))


def _dynamic(left: Sequence[str]) -> Iterator[Variant]:
    yield Variant("dynamic int8", "matrices, by channel, with the ranges of each request", dynamic)
    if left:
        yield Variant(_but(left, "dynamic int8"), _suffer(left), lambda source, to: dynamic(source, to, left=left))


def _but(left: Sequence[str], name: str) -> str:
    return f"{name} but {len(left)}"


def _suffer(left: Sequence[str]) -> str:
    names = f"{', '.join(left[:3])}{' and others' if len(left) > 3 else ''}"
    return f"what would lose most by it stays as it is: {names}"


# How they are made


def dynamic(source: Path, to: Path, *, left: Sequence[str] = (), operators: Sequence[str] = DYNAMIC) -> None:
    """Weights in eight signed bits by channel, what comes in in eight unsigned ones of the moment."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet():
        quantize_dynamic(
            str(source),
            str(to),
            op_types_to_quantize=list(operators),
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*left, *(f"{name}_MatMul" for name in left)],  # as a Gemm is called once it is a MatMul and an Add
            use_external_data_format=_beside(source),
            extra_options={"DefaultTensorType": 1},  # of what other quantized operators give, which no inference of shapes knows
        )


def static(source: Path, to: Path, calibration: Sequence[Feed], *, left: Sequence[str] = (), outliers: bool = True, **more: Any) -> None:
    """Weights in eight signed bits by channel, activations in eight unsigned ones, between ranges seen on calibration rows."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with quiet():
        quantize_static(
            str(source),
            str(to),
            _reader(calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(left),
            use_external_data_format=_beside(source),
            calibrate_method=CalibrationMethod.MinMax if outliers else CalibrationMethod.Percentile,
            **more,
        )


def _both(source: Path, to: Path, calibration: Sequence[Feed]) -> None:
    half = to.with_suffix(".half.onnx")
    static(source, half, calibration, op_types_to_quantize=["Conv", "MaxPool", "Relu", "Clip", "Add"])
    dynamic(half, to)


def _four_bits(source: Path, to: Path) -> None:
    """Large matrices in four bits, BLOCK weights to a scale; the others as `dynamic` has them."""
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    from onnxruntime.quantization.onnx_model import ONNXModel

    model, half = ONNXModel(onnx.load(str(source))), to.with_suffix(".half.onnx")
    model.replace_gemm_with_matmul()
    sizes = {one.name: one.dims for one in model.model.graph.initializer}
    nodes = [node for node in model.model.graph.node if node.op_type == "MatMul"]
    large = [node.name for node in nodes if len(shape := sizes.get(node.input[1], ())) == 2 and shape[0] * shape[1] >= LARGE]
    with quiet():
        made = MatMulNBitsQuantizer(model.model, block_size=BLOCK, is_symmetric=True, accuracy_level=4, nodes_to_include=large)
        made.process()
        made.model.save_model_to_file(str(half), _beside(source))
    dynamic(half, to)


def _half(source: Path, to: Path) -> None:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(str(source)), keep_io_types=True), str(to))


def _reader(calibration: Sequence[Feed]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc] # onnxruntime has no types
        def __init__(self) -> None:
            self.rewind()

        def rewind(self) -> None:
            self._runs = iter(calibration)

        def get_next(self) -> Mapping[str, Any] | None:
            one = next(self._runs, None)
            return None if one is None else dict(one.values)

    return Reader()


def _beside(source: Path) -> bool:
    return sum(file.stat().st_size for file in source.parent.glob(f"{source.name}*")) > ONE_FILE


@contextmanager
def quiet() -> Iterator[None]:
    """What the quantizers say on the way is of their own making, and not for who reads the progress."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
