"""The trainer of online models on real River: the figures are River's own, what was learned goes on, and no other bytes are ever opened."""

from __future__ import annotations

import hashlib
import importlib
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from agent import admit, asked, handed
from agent.errors import ArtefactError
from runbooks import _online
from tests.conftest import need, peers

MADE = """
from river import compose, linear_model, preprocessing

def model(): return compose.Pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression())
def slope(): return compose.Pipeline(preprocessing.StandardScaler(), linear_model.LinearRegression())
def nothing(): raise RuntimeError("no such model")
"""
NAMES = ["x0", "x1", "x2"]


@pytest.fixture(scope="session")
def river() -> Any:
    """River, from its own environment, beside our packages, as those who install it have it."""
    sys.path.extend(map(str, peers().glob("river/lib/python*/site-packages")))
    try:
        import river
        from river import evaluate, metrics  # what is used of it
    except ImportError:
        need("river")
        raise
    return river, evaluate, metrics


def rows(n: int, seed: int = 0) -> dict[str, list[Any]]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 3))
    label = features @ [1.0, -2.0, 0.5] + rng.normal(0, 0.5, n) > 0
    return {**{name: features[:, place].tolist() for place, name in enumerate(NAMES)}, "label": label.tolist()}


def job(folder: Path, key: str, table: dict[str, list[Any]], champion: Any = None, **parameters: Any) -> Path:
    home = folder / key
    home.mkdir()
    (folder / "made.py").write_text(MADE)
    pin = folder / f"{key}.parquet"
    pyarrow.parquet.write_table(pyarrow.table(table), pin)
    data = {"train": {"path": str(pin), "sha256": hashlib.sha256(pin.read_bytes()).hexdigest(), "rows": len(table["label"])}}
    given = {"factory": "made:model", "label": "label", "metrics": ["Accuracy", "LogLoss"], "last": 100, **parameters}
    (home / "spec.json").write_text(json.dumps({"data": data, "champion": champion, "seed": 7, "parameters": given}))
    return home


@pytest.fixture
def trained(river: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the program on a job here, in the folder of its factories: gives how it ended, and the last it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "made", raising=False)

    def run(home: Path) -> tuple[int, str]:
        monkeypatch.setenv("WATCHKEEPER_JOB", str(home))
        return _online.main(), (capsys.readouterr().err.strip().splitlines() or [""])[-1]

    yield run
    sys.modules.pop("made", None)


def as_champion(home: Path) -> dict[str, Any]:
    path = home / "state.bin"
    return {"version": "1", "files": {"state.bin": str(path)}, "sha256": {"state.bin": hashlib.sha256(path.read_bytes()).hexdigest()}}


def test_its_figures_are_those_river_comes_to_by_itself(tmp_path: Path, trained: Any, river: Any) -> None:
    table = rows(600)
    home = job(tmp_path, "one", table)
    assert trained(home) == (0, "")
    made = handed(home, asked(home))
    _, evaluate, metrics = river
    stream = [({name: table[name][place] for name in NAMES}, table["label"][place]) for place in range(600)]
    factory = importlib.import_module("made").model
    expected = [evaluate.progressive_val_score(stream, factory(), metric()).get() for metric in (metrics.Accuracy, metrics.LogLoss)]
    assert [made.metrics["prequential.Accuracy"], made.metrics["prequential.LogLoss"]] == pytest.approx(expected, rel=1e-12)
    assert made.rows == 600 and made.metrics["last.Accuracy"] > 0.8


def test_what_was_learned_goes_on_where_it_ended(tmp_path: Path, trained: Any) -> None:
    table = rows(400)
    parts = [{name: values[begin : begin + 200] for name, values in table.items()} for begin in (0, 200)]
    first = job(tmp_path, "first", parts[0])
    assert trained(first)[0] == 0
    second = job(tmp_path, "second", parts[1], as_champion(first))
    whole = job(tmp_path, "whole", table, last=200)
    assert trained(second)[0] == trained(whole)[0] == 0
    after, all_of_it = handed(second, asked(second)), handed(whole, asked(whole))
    assert after.metrics["prequential.Accuracy"] == pytest.approx(all_of_it.metrics["last.Accuracy"])
    models = [pickle.loads((home / "state.bin").read_bytes()) for home in (second, whole)]
    answers = [[model.predict_proba_one({"x0": x, "x1": 0.5, "x2": 1.0})[True] for x in range(-3, 4)] for model in models]
    assert answers[0] == answers[1], "to the last bit"


class Hostile:
    """Unpickled, it would leave a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return open, (str(self.mark), "w")


def test_bytes_that_were_not_registered_are_opened_by_nobody(tmp_path: Path, trained: Any) -> None:
    first = job(tmp_path, "first", rows(50))
    (first / "state.bin").write_bytes(b"registered")
    champion = as_champion(first)
    (first / "state.bin").write_bytes(pickle.dumps(Hostile(tmp_path / "mark")))
    code, said = trained(job(tmp_path, "second", rows(50), champion))
    assert code == 1 and "is not what was registered, and is not opened" in said
    code, said = trained(job(tmp_path, "third", rows(50), {**champion, "sha256": {}}))
    assert code == 1 and "is not opened" in said
    assert admit(first / "state.bin").format == "torch", "for the agent it is a pickle, of which it reads weights or nothing"
    (first / "state.bin").write_bytes(b"\x00" * 64)
    with pytest.raises(ArtefactError):
        admit(first / "state.bin")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("table", "given", "said"),
    [
        ({}, {"factory": "made:nothing"}, "made:nothing makes no model (RuntimeError: no such model)"),
        ({}, {"factory": "gone:model"}, "gone:model makes no model"),
        ({}, {"factory": None}, "`factory` is None"),
        ({}, {"label": "gone"}, "the rows have no column 'gone'"),
        ({}, {"features": "x0"}, "must be lists of names"),
        ({}, {"last": 0}, "must be a number of rows"),
        ({}, {"epochs": 2}, "no parameter 'epochs'"),
        ({}, {"metrics": ["Goodness"]}, "River has no metric 'Goodness'"),
        ({"x1": [None, "a"] * 10}, {}, "row 1: the model cannot take it"),
        ({"label": [None] * 20}, {}, "no row has a label"),
    ],
)
def test_what_it_cannot_learn_from_is_said_and_nothing_is_handed_in(
    tmp_path: Path, trained: Any, table: dict[str, list[Any]], given: dict[str, Any], said: str
) -> None:
    home = job(tmp_path, "one", {**rows(20), **table}, **given)
    code, told = trained(home)
    assert code == 1 and said in told and not (home / "manifest.json").exists()


def test_nulls_are_left_out_and_numbers_are_learned_as_well(tmp_path: Path, trained: Any) -> None:
    table = rows(300)
    table["label"] = [2 * x for x in table["x0"]]
    table["x1"][3] = table["x2"][4] = table["label"][5] = None
    home = job(tmp_path, "one", table, factory="made:slope", metrics=["MAE"])
    assert trained(home) == (0, "")
    assert handed(home, asked(home)).rows == 299
