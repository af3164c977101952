"""What the demo that learns begins with: version 10, a small torch net that knows upright digits, and turned ones that people have labelled.

    python -m examples.digits.learned --to models

Its trainer is Watchkeeper's own (`python -m runbooks._continual`): graph, weights and the rows to rehearse are the files of a version. From version
10 on the graph prepares the pixels itself.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from agent import Manifest, asked, handed
from agent.targets.folder import record
from examples.digits.traffic import turned
from examples.digits.train import MODEL, Images, images, write_reference

FIRST, SEED = "10", 1
HOW = {"golden": 0, "factory": "examples.digits.learned:net", "label": "label", "epochs": 15, "optimizer": "adam", "lr": 0.003}
NAIVE, REPLAY = {**HOW, "strategy": "naive"}, {**HOW, "strategy": "replay", "with": {"buffer": 400}}


def net() -> Any:
    """64 pixels of any brightness to the scores of ten digits."""
    from torch import nn

    return nn.Sequential(nn.LayerNorm(64, elementwise_affine=False), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def write(to: Path, data: Images) -> None:
    """Upright rows, to learn first and to judge by; turned ones, to learn later; and what users send, which nobody learns from."""
    half = len(data.held_out) // 2
    write_table(to / "upright.parquet", data.pixels, data.truth)
    write_table(to / "old.parquet", data.held_out[:half], data.held_out_truth[:half])
    write_table(to / "turned.parquet", np.array([turned(image) for image in data.pixels]), data.truth)
    write_reference(to / "reference.parquet", data)
    sent = zip(data.held_out[half:], data.held_out_truth[half:], strict=True)
    lines = [json.dumps({"image": pixels.tolist(), "truth": int(truth)}) for pixels, truth in sent]
    (to / "stream.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_table(path: Path, pixels: np.ndarray, truth: np.ndarray) -> None:
    pq.write_table(pa.table({**{f"p{place}": pixels[:, place] for place in range(64)}, "label": truth}), path)


def learned(to: Path, rows: Path) -> Manifest:
    """What the trainer makes of the rows, in the folder that it is given."""
    to.mkdir()
    train = {"path": str(rows.resolve()), "sha256": sha256(rows.read_bytes()).hexdigest(), "rows": pq.read_metadata(rows).num_rows}
    spec = {"service": MODEL, "data": {"train": train}, "champion": None, "seed": SEED, "parameters": REPLAY}
    (to / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "runbooks._continual"], env={**os.environ, "WATCHKEEPER_JOB": str(to.resolve())}, check=True)
    return handed(to, asked(to))


def main() -> None:
    parser = argparse.ArgumentParser(description="Teach and register the version that the demo which learns begins with.")
    parser.add_argument("--to", type=Path, required=True, help="folder to write, which must not be there yet")
    to = parser.parse_args().to
    to.mkdir(parents=True)
    write(to, images())
    made = learned(to / "job", to / "upright.parquet")
    lineage = {"data": {"train": made.data["train"]}, "seed": made.seed, "metrics": dict(made.metrics), "environment": made.environment}
    record(to / MODEL, FIRST, {name: made.folder / name for name in made.files}, lineage=lineage)
    print(f"version {FIRST}: accuracy {made.metrics['accuracy.train']:.3f} on held-out images")


if __name__ == "__main__":
    main()
