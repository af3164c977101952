"""One loaded version of the classifier: strict about what it is asked, and silent about how it prepares it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from examples.digits.preprocessing import PREPARATIONS, as_sent

DATATYPES = {"tensor(float)": "FP32", "tensor(int64)": "INT64"}
LABEL: Mapping[str, Any] = {"name": "label", "datatype": "INT64", "shape": [-1]}
PIXELS = 64
MOST_IMAGES = 1024
LARGEST = float(np.finfo(np.float32).max)


class RefusedError(ValueError):
    """The request is not one that this model takes; says what is wrong with it."""


class DigitModel:
    """`DigitModel(models/digits/1)`: its graph, and the preparation that the server's code has for that version."""

    def __init__(self, folder: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.version = folder.name
        self._session = onnxruntime.InferenceSession((folder / "model.onnx").read_bytes(), options, providers=["CPUExecutionProvider"])
        self._prepare = PREPARATIONS.get(self.version, as_sent)

    @property
    def inputs(self) -> Sequence[Mapping[str, Any]]:
        """Datatype and shape of the input, which is the image whatever the graph calls it."""
        return [{**_tensor(one), "name": "image"} for one in self._session.get_inputs()]

    @property
    def outputs(self) -> Sequence[Mapping[str, Any]]:
        """Name, datatype and shape of each output; the label is the likeliest digit where the graph gives probabilities alone."""
        found = [_tensor(one) for one in self._session.get_outputs()]
        return found if any(one["name"] == LABEL["name"] for one in found) else [LABEL, *found]

    def predict(self, pixels: np.ndarray) -> Mapping[str, np.ndarray]:
        """Raw pixels, n rows of 64, to `label` and `probabilities`."""
        names = [one.name for one in self._session.get_outputs()]
        takes = self._session.get_inputs()[0].name
        found = dict(zip(names, self._session.run(names, {takes: self._prepare(pixels).astype(np.float32)}), strict=True))
        return found if "label" in found else {"label": found["probabilities"].argmax(axis=1), **found}


def pixels_of(request: Any) -> np.ndarray:
    """The images of an Open Inference Protocol request as float32 of shape [n, 64]; RefusedError says what is wrong."""
    inputs = request.get("inputs") if isinstance(request, Mapping) else None
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], Mapping) or inputs[0].get("name") != "image":
        raise RefusedError("the request must have one input, named 'image'")
    tensor = inputs[0]
    if tensor.get("datatype") != "FP32":
        raise RefusedError(f"'image' must be FP32, is {tensor.get('datatype')!r}")
    return checked(tensor.get("shape"), tensor.get("data"))


def checked(shape: Any, data: Any) -> np.ndarray:
    """Data in row-major order, flat or nested, held to the shape that was declared for it."""
    rows = shape[0] if isinstance(shape, list) and len(shape) == 2 and shape[1] == PIXELS else None
    if type(rows) is not int or not 1 <= rows <= MOST_IMAGES:
        raise RefusedError(f"'image' must have shape [n, {PIXELS}] with n from 1 to {MOST_IMAGES}, has {shape!r}"[:200])
    flat = [pixel for row in data for pixel in row] if isinstance(data, list) and data and all(isinstance(row, list) for row in data) else data
    if not isinstance(flat, list) or len(flat) != rows * PIXELS:
        raise RefusedError(f"'image' must hold {rows * PIXELS} numbers, holds {len(flat) if isinstance(flat, list) else type(flat).__name__}")
    if not all(type(pixel) in (int, float) and abs(pixel) <= LARGEST for pixel in flat):  # NaN and infinity fail it too
        raise RefusedError("'image' must hold finite numbers only")
    return np.asarray(flat, dtype=np.float32).reshape(rows, PIXELS)


def _tensor(one: Any) -> Mapping[str, Any]:
    return {"name": one.name, "datatype": DATATYPES[one.type], "shape": [size if isinstance(size, int) else -1 for size in one.shape]}
