"""The program a model of torch runs in (`python -m agent.targets._torch`): what is asked on stdin, answers on stdout, and no credential to be seen.

First a line of JSON that says what to load; then, as often as wanted, a line with the shape of some rows and the rows themselves. Each is answered by
a line of JSON, and the arrays that it names.
"""

from __future__ import annotations

import json
import os
import select
import signal
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import IO, Any

from agent import Artefact, admit, bounded, weights
from agent.errors import ArtefactError

Given = Callable[[Any], Any]  # rows in, whatever the model gives out
TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?"}


def main() -> None:
    """Load what the first line says, then answer until stdin closes."""
    asked, told = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a model prints is no answer
    threading.Thread(target=_end_with_parent, args=(asked.fileno(),), daemon=True).start()
    job = json.loads(asked.readline())
    try:
        made = _maker(job)
        with bounded(job["memory"]):
            model = made()
            _say(told, {"outputs": []})
            for line in asked:
                _answer(told, model, _rows(asked, json.loads(line)["shape"]))
    except BaseException as problem:  # noqa: BLE001 - a factory may do anything, leaving the program included
        _say(told, _blame(problem))


def _answer(told: IO[bytes], model: Given, rows: Any) -> None:
    try:
        found = dict(_named(model(rows)))
    except BaseException as problem:  # noqa: BLE001 - as above
        return _say(told, _blame(problem))
    heads = [{"name": name, "type": value.dtype.str, "shape": list(value.shape)} for name, value in found.items()]
    return _say(told, {"outputs": heads}, *(value.tobytes() for value in found.values()))


def _say(told: IO[bytes], head: Mapping[str, Any], *parts: bytes) -> None:
    told.write(json.dumps(head).encode() + b"\n")
    told.writelines(parts)
    told.flush()


def _rows(asked: IO[bytes], shape: list[int]) -> Any:
    import numpy as np

    rows = np.empty(shape, dtype=np.float32)
    asked.readinto(rows.data.cast("B"))  # type: ignore[attr-defined]  # a buffered file, which has it
    return rows


def _end_with_parent(asked: int) -> None:
    """Nobody is left to answer to, though a model may be in the middle of it."""
    watch = select.poll()
    watch.register(asked, 0)
    watch.poll()
    os.kill(os.getpid(), signal.SIGKILL)


def _blame(problem: BaseException) -> Mapping[str, str]:
    if isinstance(problem, ArtefactError):
        return {"refused": str(problem)}
    remedy = "; install watchkeeper[torch]" if isinstance(problem, ImportError) and problem.name in ("torch", "safetensors") else ""
    return {"error": f"{type(problem).__name__}: {str(problem)[:500]}{remedy}"}


# What is loaded


def _maker(job: Mapping[str, Any]) -> Callable[[], Given]:
    """What makes the model, with all that it imports: that takes memory too, and is not the model's.

    The file is looked over once more here, so that what is opened is what was admitted.
    """
    found = admit(Path(job["path"]), sha256=job["sha256"], trusted=job["trust"], largest=job["memory"])
    if found.format in ("torchscript", "exported"):
        return partial(_program, _torch(), found)
    sys.path.append(job["folder"])
    module, _, name = job["factory"].partition(":")
    factory = getattr(import_module(module), name)
    if any(
        one.default is one.empty and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) for one in signature(factory).parameters.values()
    ):
        return lambda: factory(dict(_arrays(found)))
    return partial(_module, _torch(), factory, found)


def _torch() -> Any:
    import torch

    torch.set_num_threads(1)
    return torch


def _module(torch: Any, factory: Callable[[], Any], found: Artefact) -> Given:
    made = factory()
    made.load_state_dict(_tensors(found), strict=True)
    return _called(torch, made.eval())


def _program(torch: Any, found: Artefact) -> Given:
    """What can run code as it is loaded: a person trusts it, by the sha256 that it has."""
    if found.format == "torchscript":
        return _called(torch, torch.jit.load(str(found.path), map_location="cpu").eval())
    return _called(torch, torch.export.load(found.path).module())


def _tensors(found: Artefact) -> Mapping[str, Any]:
    if found.format == "torch":
        return weights(found)
    from safetensors.torch import load_file

    return load_file(found.path)


def _arrays(found: Artefact) -> Iterator[tuple[str, Any]]:
    """The weights by name as arrays of numpy, for models that are not torch's."""
    import numpy as np

    if found.format == "torch":
        yield from ((name, tensor.numpy()) for name, tensor in weights(found).items())
        return
    with found.path.open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        begin = file.tell()
    for name, one in header.items():
        if name != "__metadata__":
            if one["dtype"] not in TYPES:
                raise TypeError(f"'{name}' is {one['dtype']}, which numpy has no type for; save it as F32")
            count, at = (one["data_offsets"][1] - one["data_offsets"][0]), begin + one["data_offsets"][0]
            yield name, np.fromfile(found.path, dtype="u1", count=count, offset=at).view(TYPES[one["dtype"]]).reshape(one["shape"])


# What it gives


def _called(torch: Any, module: Any) -> Given:
    def run(rows: Any) -> Any:
        with torch.inference_mode():
            return module(torch.from_numpy(rows))

    return run


def _named(given: Any) -> Iterator[tuple[str, Any]]:
    """The outputs by name: of a mapping its own, of several their places, of one alone `output`."""
    if isinstance(given, Mapping):
        yield from ((str(name), _array(value)) for name, value in given.items())
    elif isinstance(given, (tuple, list)):
        yield from ((str(place), _array(value)) for place, value in enumerate(given))
    else:
        yield "output", _array(given)


def _array(value: Any) -> Any:
    import numpy as np

    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    found = np.ascontiguousarray(value)
    if found.dtype.kind not in "fiub":
        raise TypeError(f"the model gives {type(value).__name__}, where numbers were wanted")
    return found.astype(np.int8) if found.dtype.kind == "b" else found


if __name__ == "__main__":
    main()
