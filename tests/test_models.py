"""Weights in files as models of rows: run in a process of their own, with a factory of the operator's; hostile files are real ones, made here."""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
import time
import zipfile
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import admit, weights
from agent.errors import ArtefactError, CannotError, ConfigError, DataError, DeadlineError, WatchkeeperError
from agent.model import Locator, Status
from agent.targets import connect
from agent.wire import deadline
from tests.conftest import library
from tests.test_forgetting import WEIGHTS, forgot, judged, linear, ran, rows

FACTORIES = """
import os

def soft(weights):
    import numpy as np
    def run(rows):
        scores = np.exp(rows @ weights["w"])
        return scores / scores.sum(axis=1, keepdims=True)
    return run

def dies(weights): os._exit(7)
def raises(weights): raise RuntimeError("no such layer")
def hangs(weights):
    import time
    return lambda rows: time.sleep(600)
def nan(weights): return lambda rows: rows * float("nan")
def one(weights): return lambda rows: rows[:1]
def nothing(weights): return lambda rows: None
def greedy(weights):
    import numpy as np
    return lambda rows: np.ones(2**36)
def env(weights): return lambda rows: {"held": [float("MODEL_SECRET" in os.environ)] * len(rows)}
def talks(weights):
    print("loading")
    return lambda rows: print("asked") or rows
def labels(weights): return lambda rows: (rows.argmax(axis=1), rows)

def net():
    import torch
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(4, 4))
            self.drop = torch.nn.Dropout(0.9)
        def forward(self, x):
            return torch.softmax(self.drop(x.reshape(len(x), -1) @ self.w), dim=1)
    return Net()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "made_here.py").write_text(FACTORIES)
    return tmp_path


pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


@pytest.fixture(scope="session")
def torch() -> Any:
    """torch, which is an extra: without it these tests skip at a desk, and fail where CI is set."""
    return library("torch")


def saved(path: Path, weights: np.ndarray) -> Path:
    """A safetensors file of one tensor, `w`."""
    path.parent.mkdir(exist_ok=True)
    body = weights.astype("<f4").tobytes()
    head = json.dumps({"w": {"dtype": "F32", "shape": list(weights.shape), "data_offsets": [0, len(body)]}}).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + body)
    return path


def model(path: Path, factory: str | None = None, scheme: str = "safetensors", **options: Any) -> Any:
    given = {"features": [f"x{place}" for place in range(4)], **options} | ({"factory": f"made_here:{factory}"} if factory else {})
    folder = path.parent if (path.parent / "made_here.py").exists() else path.parent.parent
    return connect(Locator("fraud", "candidate", f"{scheme}:{path}", given, folder=str(folder)))


def answers(path: Path, factory: str | None = None, scheme: str = "safetensors", **options: Any) -> Any:
    made = model(path, factory, scheme, **options)
    try:
        return made.predict({f"x{place}": column for place, column in enumerate(np.eye(4))})
    finally:
        made.close()


def test_weights_and_a_factory_answer_as_the_same_numbers_in_onnx_do(folder: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(4, 4))
    features = {f"x{place}": np.random.default_rng(1).normal(size=3000) for place in range(4)}
    graph = connect(Locator("fraud", "champion", f"onnx:{linear(folder, '1', weights)}", {"features": list(features)}))
    made = model(saved(folder / "w.safetensors", weights), "soft")
    expected, found = graph.predict(features), made.predict(features)
    made.close()
    assert found.answer.tolist() == expected.answer.tolist() and found.classes == ("0", "1", "2", "3")
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)


def test_a_model_of_any_code_is_judged_like_one_in_onnx(folder: Path) -> None:
    champion = linear(folder, "1", WEIGHTS)
    for numbers, status in ((1.1 * WEIGHTS, Status.OK), (forgot(1), Status.FAIL)):
        candidate = Locator(
            "fraud", "candidate", f"safetensors:{saved(folder / 'w.safetensors', numbers)}", {"factory": "made_here:soft"}, folder=str(folder)
        )
        verdict = judged(candidate, champion, old=rows(folder, "old", [0, 1]))
        assert verdict.status is status, verdict.reason


def test_labels_beside_scores_are_what_is_answered(folder: Path) -> None:
    found = answers(saved(folder / "w.safetensors", WEIGHTS), "labels")
    assert found.answer.tolist() == [0, 1, 2, 3] and found.scores.shape == (4, 4)
    assert answers(saved(folder / "w.safetensors", WEIGHTS), "labels", output="1", classes=list("abcd")).answer.tolist() == list("abcd")


@pytest.mark.parametrize(
    ("factory", "kind", "said"),
    [
        ("dies", CannotError, "exit status 7"),
        ("raises", DataError, "RuntimeError: no such layer"),
        ("gone", DataError, "has no attribute 'gone'"),
        ("nan", DataError, "4 rows with something that is no number"),
        ("one", DataError, r"answers 4 rows with \[1, 4\] values"),
        ("nothing", DataError, "NoneType, where numbers were wanted"),
        ("greedy", DataError, "MemoryError"),
    ],
)
def test_a_model_that_cannot_answer_is_an_error_and_leaves_nothing_running(folder: Path, factory: str, kind: type[Exception], said: str) -> None:
    made = model(saved(folder / "w.safetensors", WEIGHTS), factory, memory=2**28)
    with pytest.raises(kind, match=said):
        made.predict({f"x{place}": column for place, column in enumerate(np.eye(4))})
    left = made._process
    made.close()
    assert left is None or left.returncode is not None


def test_a_model_that_never_answers_ends_with_its_deadline(folder: Path) -> None:
    made = model(saved(folder / "w.safetensors", WEIGHTS), "hangs")
    began = time.monotonic()
    with pytest.raises(DeadlineError, match="was not done in time"), deadline(timedelta(seconds=2)):
        made.predict({f"x{place}": column for place, column in enumerate(np.eye(4))})
    assert made._process is None and time.monotonic() - began < 300


def test_the_process_sees_no_credential_of_ours_and_what_it_prints_is_no_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_SECRET", "s3cret")
    path = saved(folder / "w.safetensors", WEIGHTS)
    assert answers(path, "env").answer.tolist() == [0.0] * 4
    assert answers(path, "env", inherit=["MODEL_SECRET"]).answer.tolist() == [1.0] * 4
    assert answers(path, "talks").answer.tolist() == ["0", "1", "2", "3"]


def test_a_process_whose_parent_is_gone_ends(folder: Path) -> None:
    made = model(saved(folder / "w.safetensors", WEIGHTS), "soft")
    made.predict({f"x{place}": column for place, column in enumerate(np.eye(4))})
    process = made._process
    process.stdin.close()
    assert process.wait(60) in (0, -9)
    made.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "write `factory: module:function`"),
        ({"factory": "os.system"}, "write module:function"),
        ({"factory": "made:x; import os"}, "write module:function"),
        ({"factory": "made:soft", "trust": True}, "write `sha256:` beside it"),
        ({"factory": "made:soft", "shape": 4}, "write the sizes of a row"),
        ({"factory": "made:soft", "features": "x0"}, "write a list of names"),
        ({"factory": "made:soft", "device": "cuda"}, "no option 'device'"),
    ],
)
def test_options_that_cannot_be_are_said_at_the_start(folder: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        connect(Locator("fraud", "candidate", "safetensors:w.safetensors", options))


def test_a_pickle_that_is_called_safetensors_is_not_opened(folder: Path) -> None:
    path = folder / "w.safetensors"
    path.write_bytes(pickle.dumps(Hostile(folder / "mark")))
    with pytest.raises(ArtefactError, match="of another format than was said"):
        answers(path, "soft")
    assert not (folder / "mark").exists()


@settings(max_examples=5, deadline=None)
@given(st.binary(max_size=200))
def test_whatever_bytes_a_file_holds_an_error_is_all_that_comes_of_it(tmp_path_factory: pytest.TempPathFactory, body: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "w.safetensors"
    path.write_bytes(body)
    with pytest.raises(WatchkeeperError):
        answers(path, "soft")


def test_the_command_takes_weights_with_a_factory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    saved(folder / "w.safetensors", 1.1 * WEIGHTS)
    linear(folder, "1", WEIGHTS), rows(folder, "old", [0, 1])
    done = ran(folder, "1/model.onnx", "w.safetensors", "--old", "old.csv", "--label", "y", "--factory", "made_here:soft")
    assert done.exit_code == 0 and done.output.startswith("PROMOTE"), done.output


# Torch


class Hostile:
    """Unpickled, it would leave a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return open, (str(self.mark), "w")


def test_a_torch_module_answers_from_safetensors_and_from_a_pickle_of_weights_alike(torch: Any, folder: Path) -> None:
    features = np.random.default_rng(1).normal(size=(4, 4))
    expected = (features @ WEIGHTS).argmax(axis=1).astype(str).tolist()
    torch.save({"w": torch.tensor(WEIGHTS)}, folder / "w.pt")
    for path, scheme, more in ((saved(folder / "w.safetensors", WEIGHTS), "safetensors", {}), (folder / "w.pt", "torch", {"shape": [2, 2]})):
        made = model(path, "net", scheme, **more)
        found = made.predict({f"x{place}": column for place, column in enumerate(features.T)})
        made.close()
        assert found.answer.tolist() == expected and found.scores is not None, "dropout is off"


def test_weights_of_another_model_are_refused_by_their_names(torch: Any, folder: Path) -> None:
    path = saved(folder / "w.safetensors", np.zeros((2, 2)))
    with pytest.raises(DataError, match=r"size mismatch for w"):
        answers(path, "net")


def test_a_pickle_that_holds_code_is_refused_and_its_code_does_not_run(torch: Any, folder: Path) -> None:
    torch.save({"w": Hostile(folder / "mark")}, folder / "w.pt")
    with pytest.raises(ArtefactError, match="holds more than weights"):
        answers(folder / "w.pt", "soft", "torch")
    (folder / "old.pt").write_bytes(pickle.dumps(Hostile(folder / "mark")))
    with pytest.raises(ArtefactError, match="holds more than weights"):
        weights(admit(folder / "old.pt"))
    assert not (folder / "mark").exists()
    torch.load(folder / "w.pt", weights_only=False)
    assert (folder / "mark").exists(), "the file was no threat, and the test shows nothing"


def test_no_weights_are_read_where_torch_was_told_to_run_their_code(torch: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"w": Hostile(folder / "mark")}, folder / "w.pt")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(ArtefactError, match="unset it"):
        answers(folder / "w.pt", "soft", "torch", inherit=["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"])
    assert not (folder / "mark").exists()


def program(torch: Any, folder: Path) -> Path:
    """An exported program (.pt2), whose example inputs are a pickle that leaves a mark."""

    class Net(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, x: Any) -> Any:
            return torch.softmax(6.0 * x, dim=1)

    rows = torch.export.Dim("rows", min=2, max=4096)
    made = torch.export.export(Net(), (torch.zeros(3, 4),), dynamic_shapes={"x": {0: rows}})
    torch.export.save(made, folder / "plain.pt2")
    with zipfile.ZipFile(folder / "plain.pt2") as plain, zipfile.ZipFile(folder / "hostile.pt2", "w") as hostile:
        inputs = [name for name in plain.namelist() if "sample_inputs" in name]
        for name in plain.namelist():
            hostile.writestr(name, pickle.dumps(Hostile(folder / "mark")) if name in inputs else plain.read(name))
    assert inputs, "torch keeps its example inputs elsewhere now"
    return folder / "plain.pt2"


def test_an_exported_program_runs_only_by_a_persons_trust_in_just_that_file(torch: Any, folder: Path) -> None:
    path = program(torch, folder)
    with pytest.raises(ArtefactError, match=r"an exported program \(.pt2\)"):
        answers(path, "soft", "torch")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert answers(path, None, "torch", trust=True, sha256=digest).answer.tolist() == ["0", "1", "2", "3"]
    hostile = folder / "hostile.pt2"
    with pytest.raises(ArtefactError, match="not the file that was registered"):
        answers(hostile, None, "torch", trust=True, sha256=digest)
    with pytest.raises(ArtefactError, match="can run code when it is loaded"):
        answers(hostile, "soft", "torch", sha256=hashlib.sha256(hostile.read_bytes()).hexdigest())
    assert not (folder / "mark").exists()
    with suppress(Exception):
        torch.export.load(hostile)
    assert (folder / "mark").exists(), "the file was no threat, and the test shows nothing"


def test_torchscript_runs_only_by_a_persons_trust_in_just_that_file(torch: Any, folder: Path) -> None:
    scripted = torch.jit.trace(torch.nn.Softmax(dim=1), torch.zeros(3, 4))
    scripted.save(str(folder / "w.pt"))
    with pytest.raises(ArtefactError, match="is TorchScript"):
        answers(folder / "w.pt", "net", "torch")
    digest = hashlib.sha256((folder / "w.pt").read_bytes()).hexdigest()
    assert answers(folder / "w.pt", None, "torch", trust=True, sha256=digest).answer.tolist() == ["0", "1", "2", "3"]
