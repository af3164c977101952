"""What a trainer hands in, held against what it says and what it was asked for."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from agent import asked, hand_in, handed
from agent.errors import TrainingError

SPEC = {"data": {"train": {"path": "/data/train.parquet", "sha256": "d" * 64, "rows": 3}}, "seed": 7, "parameters": {"epochs": 2}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "job"
    made.mkdir()
    (made / "spec.json").write_text(json.dumps(SPEC))
    (made / "model.onnx").write_bytes(b"weights")
    return made


def test_what_is_handed_in_is_what_is_read_back(folder: Path) -> None:
    hand_in(folder, asked(folder), ["model.onnx"], rows=3, metrics={"accuracy": 0.5}, code="abc")
    made = handed(folder, SPEC)
    assert (made.rows, made.seed, made.code, made.metrics) == (3, 7, "abc", {"accuracy": 0.5})
    assert made.files == {"model.onnx": hashlib.sha256(b"weights").hexdigest()}
    assert made.parameters == {"epochs": 2}


def lie(folder: Path, **said: object) -> None:
    hand_in(folder, SPEC, ["model.onnx"], rows=3, metrics={})
    told = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**told, **said}))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"files": {}}, "names no file"),
        ({"files": {"model.onnx": "0" * 64}}, "is not what the manifest says"),
        ({"files": {"gone.onnx": "0" * 64}}, "is not there"),
        ({"files": {"../spec.json": "0" * 64}}, "not in the trainer's folder"),
        ({"files": {"/etc/passwd": "0" * 64}}, "not in the trainer's folder"),
        ({"files": ["model.onnx"]}, "files must name a sha256"),
        ({"data": {"train": "e" * 64}}, "trained on other data than was given: train"),
        ({"data": {}}, "trained on other data"),
        ({"rows": -1}, "rows must be a whole number"),
        ({"rows": None}, "rows must be a whole number"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"metrics": {"accuracy": "good"}}, "metrics must be numbers"),
        ({"metrics": {"accuracy": float("nan")}}, "metrics must be numbers"),
        ({"code": 7}, "code and environment text"),
    ],
)
def test_a_manifest_that_is_not_so_is_refused(folder: Path, said: dict[str, object], expected: str) -> None:
    lie(folder, **said)
    with pytest.raises(TrainingError, match=expected):
        handed(folder, SPEC)


def test_a_link_out_of_the_folder_is_refused_whichever_kind_it_is(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "champion.onnx"
    outside.write_bytes(b"served")
    for link in (os.symlink, os.link):
        (folder / "model.onnx").unlink()
        link(outside, folder / "model.onnx")
        with pytest.raises(TrainingError, match=r"link|not in the trainer's folder"):
            hand_in(folder, SPEC, ["model.onnx"], rows=3, metrics={})


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b"{" + b" " * 2**20])
def test_a_manifest_that_is_cut_off_or_endless_is_refused(folder: Path, text: bytes) -> None:
    (folder / "manifest.json").write_bytes(text)
    with pytest.raises(TrainingError, match=r"manifest\.json"):
        handed(folder, SPEC)
    (folder / "manifest.json").unlink()
    with pytest.raises(TrainingError, match="a trainer must write it last"):
        handed(folder, SPEC)
