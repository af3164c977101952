"""Torch modules on their way to a smaller graph: exported and shown to be equal before anything is made of them; needs torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import graphs
from tests.test_quantize_program import MEANT, done, refused

try:
    import torch
    from safetensors.torch import save_file
except ImportError:
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        raise
    pytest.skip("needs torch: make test EXTRAS=torch", allow_module_level=True)

FACTORY = """
import torch

class Two(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(50, 64)
        self.out = torch.nn.Linear(64, 256)

    def forward(self, ids, weight):
        return self.out((self.embed(ids) * weight[..., None]).mean(1))

def one():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(32, 256), torch.nn.ReLU(), torch.nn.Linear(256, 256), torch.nn.ReLU(), torch.nn.Linear(256, 4))

def two():
    torch.manual_seed(0)
    return Two()

def liar():
    class Liar(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x) + (0.01 if not torch.compiler.is_exporting() and not torch.compiler.is_compiling() else 0.0)
    torch.manual_seed(0)
    return Liar(32, 256)

def broken():
    raise RuntimeError("no such layer")

def text():
    return "a module"
"""


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "made.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    sys.modules.pop("made", None)
    return tmp_path


def weights(room: Path, name: str) -> Path:
    sys.path.insert(0, str(room))
    import made

    save_file(getattr(made, name)().state_dict(), room / "model.safetensors")
    return room / "model.safetensors"


def test_a_module_of_layers_is_exported_equal_and_made_smaller(room: Path) -> None:
    folder = graphs.job(room / "job", weights(room, "one"), graphs.rows(room / "rows.parquet", 60), factory="made:one", batches=[1], **MEANT)
    found, _ = done(folder)
    assert found["outcome"] == "better", found["why"]
    assert found["exported_apart"] < 1e-5 and found["variants"][1]["share"] < 0.35


def test_a_module_of_several_inputs_takes_columns_by_name_and_rows_of_any_length(room: Path) -> None:
    rng = np.random.default_rng(1)
    lengths = rng.integers(2, 5, 60)
    table = {"ids": [rng.integers(0, 50, n).tolist() for n in lengths], "weight": [rng.random(n).tolist() for n in lengths]}
    pq.write_table(pa.table(table), room / "rows.parquet")
    found, _ = done(graphs.job(room / "job", weights(room, "two"), room / "rows.parquet", factory="made:two", batches=[1, 3], **MEANT))
    assert found["outcome"] == "better", found["why"]
    assert found["exported_apart"] < 1e-5 and set(found["champion"]["any_length"]) == {"ids", "weight"}


def test_a_graph_that_answers_otherwise_than_its_module_is_refused(room: Path) -> None:
    folder = graphs.job(room / "job", weights(room, "liar"), graphs.rows(room / "rows.parquet", 60), factory="made:liar")
    assert "answers otherwise than the module, by up to 0.01" in refused(folder)


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        ("made:gone", "made:gone makes no module"),
        ("gone:one", "No module named 'gone'"),
        ("made:broken", "no such layer"),
        ("made:text", "makes no module"),
        ("made:two", "makes no module"),
    ],
)
def test_a_factory_that_makes_no_such_module_is_named(room: Path, factory: str, expected: str) -> None:
    assert expected in refused(graphs.job(room / "job", weights(room, "one"), graphs.rows(room / "rows.parquet", 60), factory=factory))


def test_a_pickle_that_is_code_is_not_run(room: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(room / "ran"),)

    torch.save({"w": Hostile()}, room / "model.pt")
    said = refused(graphs.job(room / "job", room / "model.pt", graphs.rows(room / "rows.parquet", 60), factory="made:one"))
    assert "holds more than weights" in said and not (room / "ran").exists()
