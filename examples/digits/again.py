"""Trains a version once more from what its lineage says, and registers it as a repetition: what a team does now and then to see that it still can.

    python -m examples.digits.again --models models/digits [--of 1] [--unseeded]

With `--unseeded` the rows are put in a random order first, and nobody wrote down which: the mistake of a game day.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from agent import Locator
from agent.targets.folder import Folder, record
from examples.digits.train import GOLDEN_ROWS, Images, answer, graph, images, request, trained


def again(models: Path, of: str, unseeded: bool) -> str:
    """The name of the new version; its lineage claims what that of the first says, as a pipeline would."""
    registry = Folder(Locator("digits", "registry", f"folder:{models.name}", folder=str(models.parent)))
    first = registry.version(of)
    assert first is not None, f"{models} has no version {of}"
    data, said = images(), first.lineage
    pipeline = trained(shuffled(data) if unseeded else data, said["data"]["reference.parquet"]["rows"], said["seed"])
    name = f"{of}-again-{len(registry.versions())}"
    golden = [(request(pixels), answer(pipeline, pixels)) for pixels in data.held_out[:GOLDEN_ROWS]]
    record(models, name, {"model.onnx": graph(pipeline)}, golden=golden, lineage={**said, "repeats": of})
    return name


def shuffled(data: Images) -> Images:
    """The same rows in an order that comes out otherwise each time."""
    order = np.random.default_rng().permutation(len(data.pixels))
    return replace(data, pixels=data.pixels[order], truth=data.truth[order])


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a version of the example once more, and register it as a repetition.")
    parser.add_argument("--models", type=Path, required=True, help="the registry's folder")
    parser.add_argument("--of", default="1", help="the version to train again (1)")
    parser.add_argument("--unseeded", action="store_true", help="in a random order that nobody wrote down")
    given = parser.parse_args()
    print(f"version {again(given.models.resolve(), given.of, given.unseeded)} repeats version {given.of}")


if __name__ == "__main__":
    main()
