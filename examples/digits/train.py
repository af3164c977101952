"""Trains the digit classifiers, registers them with golden rows and lineage, and writes the stream of images that traffic is made of.

    python -m examples.digits.train --to models

Version 0 learnt from few images; 1 is good; 2 is as good, but the server code shipped with it forgets the preparation; 3 is 2 mended.
The ONNX graphs take prepared pixels (-1 to 1); the service takes raw ones (0 to 16). What lies between is server code: see preprocessing.py.
"""

from __future__ import annotations

import argparse
import json
import platform
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from threadpoolctl import threadpool_limits

from agent import UTC
from agent.targets.folder import record

MODEL = "digits"
PACKAGES = ("numpy", "scikit-learn", "skl2onnx", "onnx")
GOLDEN_ROWS = 16
SIGNATURE = {
    "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 64]}],
    "outputs": [{"name": "label", "datatype": "INT64", "shape": [-1]}, {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]}],
}


@dataclass(frozen=True, slots=True)
class Images:
    """Raw images of 64 pixels from 0 to 16, and the digits they show: what was learnt from, and what was held out."""

    pixels: np.ndarray
    truth: np.ndarray
    held_out: np.ndarray
    held_out_truth: np.ndarray


def images() -> Images:
    """scikit-learn's bundled digits, split the same way each time."""
    digits = load_digits()
    learn, hold, truth, hold_truth = train_test_split(digits.data, digits.target, test_size=600, random_state=7, stratify=digits.target)
    return Images(learn, truth, hold, hold_truth)


def prepare(pixels: np.ndarray) -> np.ndarray:
    """0 to 16 becomes -1 to 1: the step that every server has to repeat."""
    return pixels / 8.0 - 1.0


def trained(data: Images, rows: int, seed: int) -> Pipeline:
    """Preparation and network in one pipeline, as training sees them."""
    network = MLPClassifier((32, 32, 32), max_iter=150, random_state=seed, alpha=1e-3)
    with warnings.catch_warnings(), threadpool_limits(1):  # one thread adds up in one order: the same bytes each time
        warnings.simplefilter("ignore", ConvergenceWarning)  # 150 rounds are enough for 98 %
        return make_pipeline(FunctionTransformer(prepare), network).fit(data.pixels[:rows], data.truth[:rows])


def graph(pipeline: Pipeline) -> bytes:
    """The network alone as ONNX; the preparation stays outside, as it does for most teams."""
    exported = to_onnx(pipeline[-1], initial_types=[("image", _floats())], options={"zipmap": False}, target_opset=17)
    return bytes(exported.SerializeToString())


def _floats() -> Any:
    from skl2onnx.common.data_types import FloatTensorType

    return FloatTensorType([None, 64])


def request(pixels: Sequence[float]) -> dict[str, Any]:
    """One raw image as an Open Inference Protocol request."""
    return {"inputs": [{"name": "image", "shape": [1, 64], "datatype": "FP32", "data": [float(value) for value in pixels]}]}


def answer(pipeline: Pipeline, pixels: np.ndarray) -> dict[str, Any]:
    """What the training pipeline says to one raw image, in the words of the protocol; no serving code has a part in it."""
    chances = pipeline.predict_proba(pixels[None, :])[0]
    return {
        "outputs": [
            {"name": "label", "shape": [1], "datatype": "INT64", "data": [int(chances.argmax())]},
            {"name": "probabilities", "shape": [1, 10], "datatype": "FP32", "data": [float(chance) for chance in chances]},
        ]
    }


def lineage(data: Images, pipeline: Pipeline, rows: int, seed: int, images: str) -> Mapping[str, Any]:
    """What the version was made from, so that it can be made again; `images` is the sha256 of the file that holds what was learnt from."""
    return {
        "data": {"reference.parquet": {"sha256": images, "rows": rows}},
        "sources": {"reference.parquet": "scikit-learn digits"},
        "code": {"file": Path(__file__).name, "sha256": sha256(Path(__file__).read_bytes()).hexdigest()},
        "seed": seed,
        "packages": {"python": platform.python_version(), **{name: installed(name) for name in PACKAGES}},
        "metrics": {"accuracy": round(float(pipeline.score(data.held_out, data.held_out_truth)), 4), "rows": len(data.held_out)},
        "signature": SIGNATURE,
    }


def register(to: Path, data: Images, now: datetime, images: str) -> Mapping[str, Pipeline]:
    """Trains and registers all versions, a day apart, the newest at `now`; version 3 is version 2's network again."""
    every = len(data.pixels)
    recipes = {"0": (200, 0), "1": (every, 1), "2": (every, 2), "3": (every, 2)}
    pipelines: dict[str, Pipeline] = {}
    for days_ago, (name, (rows, seed)) in zip((3, 2, 1, 0), recipes.items(), strict=True):
        pipeline = pipelines["2"] if name == "3" else trained(data, rows, seed)
        pipelines[name] = pipeline
        golden = [(request(pixels), answer(pipeline, pixels)) for pixels in data.held_out[:GOLDEN_ROWS]]
        made_from = lineage(data, pipeline, rows, seed, images)
        record(to / MODEL, name, {"model.onnx": graph(pipeline)}, golden=golden, lineage=made_from, now=now - timedelta(days=days_ago))
    return pipelines


def write_reference(path: Path, data: Images) -> None:
    """The images that were learnt from, a column a pixel: what live images are compared with."""
    pq.write_table(pa.table({f"p{place}": data.pixels[:, place] for place in range(64)}), path)


def write_stream(path: Path, data: Images, good: Pipeline) -> None:
    """Held-out images that the good version reads rightly: a wrong label later on is the doing of whoever serves it."""
    right = good.predict(data.held_out) == data.held_out_truth
    lines = [
        json.dumps({"image": pixels.tolist(), "truth": int(truth)})
        for pixels, truth in zip(data.held_out[right], data.held_out_truth[right], strict=True)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def make(to: Path, now: datetime) -> Mapping[str, Pipeline]:
    """Writes `digits/<version>/`, `reference.parquet` and `stream.jsonl` under `to`, which must not hold them yet."""
    data = images()
    to.mkdir(parents=True, exist_ok=True)
    write_reference(to / "reference.parquet", data)
    pipelines = register(to, data, now, sha256((to / "reference.parquet").read_bytes()).hexdigest())
    write_stream(to / "stream.jsonl", data, pipelines["1"])
    return pipelines


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and register the example's versions.")
    parser.add_argument("--to", type=Path, required=True, help="folder to write; versions that are there already are an error")
    to = parser.parse_args().to
    make(to, datetime.now(UTC))
    for manifest in sorted((to / MODEL).glob("*/manifest.json")):
        said = json.loads(manifest.read_text(encoding="utf-8"))
        print(f"version {said['version']}: accuracy {said['lineage']['metrics']['accuracy']:.3f} on held-out images")


if __name__ == "__main__":
    main()
