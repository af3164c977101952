"""Runs a registered ONNX graph on the tensors of a request, and compares a server's answer with what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent import Json, admit
from agent.errors import ArtefactError
from checks._answers import Gap, flat, gaps, is_tensor, outputs

KINDS = {"float": "float32", "double": "float64", "string": "object"}  # the rest are called alike by ONNX and numpy
WORDS = {"float16": "FP16", "float32": "FP32", "float64": "FP64", "object": "BYTES"}


class UnlikeError(Exception):
    """The graph and the server share no name, so that there is nothing to compare; says which names there are."""


class DamagedError(Exception):
    """The file is no graph that can be run; says which file, and what the runtime says of it."""


def load(path: Path) -> Any:
    """The graph, ready to run in one thread on the CPU. ImportError without onnxruntime; DamagedError for a file that it cannot or must not run."""
    import onnxruntime

    try:
        path = admit(path).path
    except ArtefactError as problem:
        raise DamagedError(str(problem)) from problem

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised, and needs no second line in the log
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as problem:
        raise DamagedError(f"{path} is no ONNX graph that this runtime can run ({str(problem)[:300]}); record the model again") from problem


def answer(graph: Any, request: Json) -> Mapping[str, Any] | None:
    """What the graph gives for a request, arrays by name; None where it does not take these values, or gives something that is no number."""
    fed = feed(graph.get_inputs(), tensors(request))
    if fed is None:
        return None
    try:
        found = graph.run(None, fed)
    except Exception:  # noqa: BLE001 - the runtime has an error class for each way to dislike an input, and they share no parent
        return None
    named = {one.name: array for one, array in zip(graph.get_outputs(), found, strict=True) if hasattr(array, "dtype")}
    return named if all(map(_finite, named.values())) else None


def _finite(array: Any) -> bool:
    import numpy as np

    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def tensors(request: Json) -> Mapping[str, Json]:
    """A request's inputs by name: an Open Inference Protocol list, the keys of an object, or the whole request as one."""
    if isinstance(request, Mapping) and isinstance(request.get("inputs"), list):
        named = outputs({"outputs": request["inputs"]})
        return named if "outputs" not in named else {"inputs": request["inputs"]}
    return request if isinstance(request, Mapping) else {"inputs": request}


def feed(wanted: Sequence[Any], given: Mapping[str, Json]) -> Mapping[str, Any] | None:
    """An array for each input of the graph, by name, or the only one for the only one; None where the values do not fit. UnlikeError: no such."""
    if len(wanted) == len(given) == 1:
        given = {wanted[0].name: next(iter(given.values()))}
    lacking = [one.name for one in wanted if one.name not in given]
    if lacking:
        raise UnlikeError(f"the graph takes {_named(one.name for one in wanted)}, and the request has {_named(given)}")
    fed = {one.name: array(given[one.name], one) for one in wanted}
    return None if any(one is None for one in fed.values()) else fed


def array(given: Json, wanted: Any) -> Any:
    """The values in the type and shape of one input; None where numbers would have to be made out of something else."""
    import numpy as np

    word = wanted.type.removeprefix("tensor(").removesuffix(")")
    sizes = [size if isinstance(size, int) else -1 for size in wanted.shape]
    if is_tensor(given):
        given, sizes = given["data"], given.get("shape", sizes)
    try:
        found = np.asarray(given)
        cast = found.astype(KINDS.get(word, word))
        fits = found.dtype.kind == "U" if cast.dtype.kind == "O" else found.dtype.kind in "biuf"
        if not fits or (cast.dtype.kind in "biu" and (cast != found).any()):
            return None
        return cast.reshape(sizes) if sizes.count(-1) <= 1 else cast
    except (TypeError, ValueError, OverflowError):
        return None


def differ(given: Mapping[str, Any], body: Json, rtol: float, atol: float) -> list[Gap]:
    """The gaps between the outputs that the graph and the answer both name. UnlikeError where they name none alike.

    A tensor is compared with its datatype and shape, what else comes as JSON by its values in their order.
    """
    told = outputs(body)
    common = {name: one for name, one in given.items() if name in told}
    if not common:
        raise UnlikeError(f"the graph gives {_named(given)}, and the server answers with {_named(told)}")
    wanted = {name: _tensor(one) if is_tensor(told[name]) else one.ravel().tolist() for name, one in common.items()}
    plain = {name: told[name] if is_tensor(told[name]) else list(flat(told[name])) for name in common}
    found = gaps(wanted, plain, rtol, atol)
    return [replace(gap, what=gap.what.replace(", recorded w", ", the graph's w")) for gap in found]


def _tensor(one: Any) -> Mapping[str, Json]:
    return {"datatype": WORDS.get(one.dtype.name, one.dtype.name.upper()), "shape": list(one.shape), "data": one.ravel().tolist()}


def _named(names: Any) -> str:
    return ", ".join(f"'{name}'" for name in names) or "nothing"
