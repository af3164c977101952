"""What TorchServe's worker runs for one version of the digits classifier: the server's code is this package's, the graph is the archive's.

It takes the body of the Open Inference Protocol and answers as the example's own server does. TorchServe makes a 503 of whatever a handler raises,
so a request that the model refuses is answered with 400 instead.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from examples.digits.model import DigitModel, RefusedError, pixels_of


def handle(data: Sequence[Mapping[str, Any]] | None, context: Any) -> list[Any] | None:
    """One answer for each request of the batch. Asked with nothing it loads the model."""
    model = loaded(context.system_properties["model_dir"], context.manifest["model"]["modelVersion"])
    return None if data is None else [answer(model, context, place, one.get("body")) for place, one in enumerate(data)]


@cache
def loaded(folder: str, version: str) -> DigitModel:
    """The archive's graph, with the preparation that the server's code has for this version."""
    own = Path(folder) / version
    own.mkdir(exist_ok=True)
    shutil.copyfile(Path(folder) / "model.onnx", own / "model.onnx")
    return DigitModel(own)


def answer(model: DigitModel, context: Any, place: int, request: Any) -> Mapping[str, Any]:
    """As the example's server answers it."""
    said = {"model_name": "digits", "model_version": model.version}
    try:
        found = model.predict(pixels_of(json.loads(request) if isinstance(request, bytes | bytearray) else request))
    except (RefusedError, ValueError) as problem:
        context.set_response_status(code=400, phrase="Bad Request", idx=place)
        return {**said, "error": str(problem)}
    outputs = [{**one, "shape": list(found[one["name"]].shape), "data": found[one["name"]].ravel().tolist()} for one in model.outputs]
    return {**said, "outputs": outputs}
