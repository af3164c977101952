"""Small nets and rows for the tests of learning: classes that lie apart, each a cloud of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

WIDTH = 6
NETS = f"""
import torch
from torch import nn

def mlp():
    return nn.Sequential(nn.Linear({WIDTH}, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))

def dropped():
    return nn.Sequential(nn.Linear({WIDTH}, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 4))

def narrow():
    return nn.Linear({WIDTH}, 2)

def other():
    return nn.Linear(3, 4)

def normed():
    return nn.Sequential(nn.Linear({WIDTH}, 16), nn.BatchNorm1d(16), nn.Linear(16, 4))

def broken():
    raise RuntimeError("the weights of the base model are not here")

def no_net():
    return 7

class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear({WIDTH}, 4)
    def forward(self, x):
        if self.training:
            raise ValueError("this net cannot be trained")
        return self.last(x)

class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear({WIDTH}, 4)
    def forward(self, x):
        return self.last(x) + torch.frac(x).sum(1, keepdim=True)  # an operator that no trace knows

def counting():
    return Counting()

class Listing(Counting):
    def forward(self, x):
        return super().forward(x) + torch.tensor([sum(row) for row in x.tolist()])[:, None]

def listing():
    return Listing()
"""


def clouds(classes: Sequence[int], n: int = 120, seed: int = 0, apart: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """n rows, each near the centre of its class; centres are the same whatever is asked for."""
    centres = np.random.default_rng(7).normal(0, apart, (4, WIDTH))
    random = np.random.default_rng(seed)
    y = random.choice(np.array(classes), n)
    return (centres[y] + random.normal(0, 0.7, (n, WIDTH))).astype(np.float32), y.astype(np.int64)


def table(path: Path, classes: Sequence[int], n: int = 120, seed: int = 0, **columns: Any) -> dict[str, Any]:
    """The rows as a pinned Parquet file, as a job names it; further columns, or other ones in the place of these."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    x, y = clouds(classes, n, seed)
    found = {**{f"x{place}": x[:, place] for place in range(WIDTH)}, "y": y, **columns}
    pq.write_table(pa.table({name: column for name, column in found.items() if column is not None}), path)
    return pinned(path)


def pinned(path: Path) -> dict[str, Any]:
    return {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def job(folder: Path, data: Mapping[str, Any], champion: Path | None = None, **parameters: Any) -> Path:
    """A folder with what a trainer is asked; `champion` is the folder of an earlier job."""
    folder.mkdir(exist_ok=True)
    files = {name: str(champion / name) for name in json.loads((champion / "manifest.json").read_text())["files"]} if champion else {}
    features = [f"x{place}" for place in range(WIDTH)]
    spec = {
        "service": "fraud",
        "data": dict(data),
        "champion": {"version": "1", "files": files} if champion else None,
        "seed": 3,
        "parameters": {"factory": "nets:mlp", "label": "y", "features": features, "strategy": "naive", "epochs": 3, **parameters},
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    return folder
