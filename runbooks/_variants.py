"""The few ways to make a graph smaller that its operators give reason to try, and how each is made. The arithmetic is onnxruntime's own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from runbooks._feeds import Feed
from runbooks._graph import LARGE, Graph
from runbooks._layers import Layer, costly
from runbooks._packed import beside, half, packed, tables

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
    if device == "cuda":
        return _on_cuda(graph)
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
        tried.append(Variant("4-bit weights", f"{_large(graph)}; the rest as in dynamic int8", _four_bits))
    else:
        untried["4-bit weights"] = f"no matrix has {LARGE:,} weights"
    if not left:
        untried["all but a few in int8"] = "no operator stands out as suffering most"
    untried["float16"] = "a CPU gains nothing by it; try it where a GPU serves"
    return tried, untried


def _on_cuda(graph: Graph) -> tuple[list[Variant], dict[str, str]]:
    tried = [Variant("float16", "the device computes in half precision", half)]
    untried = {"static and dynamic int8": "onnxruntime computes no integers on CUDA: what it does not leave to the CPU becomes floating point first"}
    if graph.share("MatMul", "Gemm", "Gather") >= SOME:
        tried.append(Variant("8-bit weights, float16", "the weights of matrices are unpacked as they are used", _eight_bits_and_half))
    else:
        untried["8-bit weights, float16"] = "hardly any weights belong to matrices"
    if graph.large:
        tried.append(Variant("4-bit weights, float16", f"{_large(graph)}; the rest as in 8-bit weights", _four_bits_and_half))
    else:
        untried["4-bit weights, float16"] = f"no matrix has {LARGE:,} weights"
    return tried, untried


def _large(graph: Graph) -> str:
    return f"{graph.large} matrices have at least {LARGE:,} weights"


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
            use_external_data_format=beside(source),
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
            use_external_data_format=beside(source),
            calibrate_method=CalibrationMethod.MinMax if outliers else CalibrationMethod.Percentile,
            **more,
        )


def _both(source: Path, to: Path, calibration: Sequence[Feed]) -> None:
    convolutions = partial(static, calibration=calibration, op_types_to_quantize=["Conv", "MaxPool", "Relu", "Clip", "Add"])
    _one_after_the_other(source, to, convolutions, dynamic)


def _four_bits(source: Path, to: Path) -> None:
    _one_after_the_other(source, to, partial(packed, bits=4, least=LARGE), dynamic)


def _eight_bits_and_half(source: Path, to: Path) -> None:
    _one_after_the_other(source, to, half, tables, partial(packed, bits=8))


def _four_bits_and_half(source: Path, to: Path) -> None:
    _one_after_the_other(source, to, half, tables, partial(packed, bits=4, least=LARGE), partial(packed, bits=8))


def _one_after_the_other(source: Path, to: Path, *ways: Callable[[Path, Path], None]) -> None:
    steps = [to.with_suffix(f".{n}.onnx") for n in range(1, len(ways))]
    with quiet():
        for way, before, after in zip(ways, [source, *steps], [*steps, to], strict=True):
            way(before, after)


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


@contextmanager
def quiet() -> Iterator[None]:
    """What the quantizers say on the way is of their own making, and not for who reads the progress."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
