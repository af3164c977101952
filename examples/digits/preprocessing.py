"""How the server prepares raw pixels, by version: the part of a model that its ONNX graph does not hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

Preparation = Callable[[np.ndarray], np.ndarray]


def to_unit_range(pixels: np.ndarray) -> np.ndarray:
    """0 to 16 becomes -1 to 1, which is what the networks learnt from."""
    return pixels / np.float32(8) - np.float32(1)


def as_sent(pixels: np.ndarray) -> np.ndarray:
    """The pixels as they came."""
    return pixels


# Versions that are not named here prepare pixels in their graph.
# The code released with version 2 was rewritten, and this step was lost; every test of the graph itself still passed.
PREPARATIONS: Mapping[str, Preparation] = {"0": to_unit_range, "1": to_unit_range, "2": as_sent, "3": to_unit_range}
