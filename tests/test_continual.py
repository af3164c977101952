"""The torch trainer on real job folders: what it hands in, that a kill changes nothing, and what it says to rows and nets that cannot be."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from agent import Status
from agent.errors import ArtefactError, ConfigError, TrainingError
from agent.training import asked, handed
from checks.model import reproducible
from tests.conftest import HOUSE, library
from tests.lessons import NETS, WIDTH, clouds, job, pinned, table

torch = library("torch")

from runbooks._continual_files import CHECKPOINT, tensors  # noqa: E402 - not to be imported where torch is missing
from runbooks._continual_work import work  # noqa: E402

LINES: list[tuple[float, str]] = []


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """The operator's folder, from which the trainer is started."""
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("nets", None)
    LINES.clear()
    yield tmp_path
    sys.modules.pop("nets", None)


def done(folder):
    """The manifest of a job that is worked off here."""
    work(folder, lambda share, what: LINES.append((share, what)))
    return handed(folder, asked(folder))


def program(folder: Path, **more: str) -> subprocess.Popen[str]:
    env = {**os.environ, "WATCHKEEPER_JOB": str(folder), "PYTHONPATH": str(HOUSE), **more}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-m", "runbooks._continual"], env=env, cwd=folder.parent, stdout=pipe, stderr=pipe, text=True)


def old_and_new(place, **more):
    return {"old": table(place / "old.parquet", (0, 1), seed=1, **more), "train": table(place / "new.parquet", (2, 3), seed=2, **more)}


def test_training_again_in_another_process_comes_to_the_same_bits(place):
    with program(job(place / "again", old_and_new(place), strategy="der++"), PYTHONHASHSEED="7") as running:
        first = done(job(place / "one", old_and_new(place), strategy="der++"))
        assert running.wait(200) == 0, running.stderr.read()
    second = handed(place / "again", asked(place / "again"))
    said = reproducible(None, None, label="y", files=first.files, files_again=second.files)
    assert said.status is Status.OK and "bit by bit" in said.reason and "model.onnx" in said.reason and first.metrics == second.metrics


# What is handed in


def test_a_job_hands_in_weights_a_graph_that_answers_alike_a_buffer_and_where_they_are_from(place):
    import onnxruntime

    made = done(job(place / "one", old_and_new(place), strategy="der++", **{"with": {"buffer": 40}}))
    assert set(made.files) == {"model.safetensors", "learned.safetensors", "model.onnx", "buffer.parquet", "environment.txt", "golden.json"}
    assert made.metrics["rows_kept"] == 40 and made.rows == 240 and made.seed == 3 and made.environment
    assert LINES[0] == (0.0, "reading") and [share for share, _ in LINES] == sorted(share for share, _ in LINES) and LINES[-1][0] == 1.0
    weights, said = tensors(made.folder / "model.safetensors")
    assert said["classes"] == ["0", "1", "2", "3"] and made.parameters["classes"] == said["classes"]
    x, _ = clouds((0, 1, 2, 3), 50)
    net = sys.modules["nets"].mlp()
    net.load_state_dict(weights)
    session = onnxruntime.InferenceSession(str(made.folder / "model.onnx"))
    (found,) = session.run(None, {session.get_inputs()[0].name: x})
    with torch.no_grad():
        assert np.abs(found - net(torch.from_numpy(x)).softmax(1).numpy()).max() < 1e-5
    kept = pq.read_table(made.folder / "buffer.parquet")
    assert kept.column_names == [*(f"x{n}" for n in range(WIDTH)), "y", "lot", "scores"] and len(kept) == 40
    assert not (made.folder / CHECKPOINT).exists()


def test_golden_rows_are_requests_with_what_torch_answers_and_a_registry_takes_them(place):
    from agent import Locator
    from agent.targets.folder import Folder, record

    made = done(job(place / "one", old_and_new(place), golden=7))
    said = json.loads((made.folder / "golden.json").read_text())
    net = sys.modules["nets"].mlp()
    net.load_state_dict(tensors(made.folder / "model.safetensors")[0])
    assert len(said["rows"]) == 7
    for row in said["rows"]:
        (asked_for,), (expected,) = row["request"]["inputs"], row["expected"]["outputs"]
        assert (asked_for["name"], asked_for["shape"], expected["name"], expected["shape"]) == ("x", [1, WIDTH], "probabilities", [1, 4])
        with torch.no_grad():
            assert expected["data"] == pytest.approx(net(torch.tensor([asked_for["data"]])).softmax(1)[0].tolist(), abs=1e-6)
    pairs = [(row["request"], row["expected"]) for row in said["rows"]]
    record(place / "models", "1", {"model.onnx": made.folder / "model.onnx"}, golden=pairs, rtol=said["rtol"], atol=said["atol"])
    kept = Folder(Locator("s", "registry", "folder:models", folder=str(place))).golden("1")
    assert kept is not None and len(kept.rows) == 7 and kept.atol == said["atol"]
    assert "golden.json" not in done(job(place / "two", old_and_new(place), golden=0)).files


def test_the_next_job_goes_on_from_what_the_one_before_it_left(place):
    first = done(job(place / "one", {"train": table(place / "a.parquet", (0, 1), seed=1)}, strategy="ewc+replay", epochs=6))
    second = done(job(place / "two", {"train": table(place / "b.parquet", (2, 3), seed=2)}, place / "one", strategy="ewc+replay", epochs=8))
    assert second.parameters["classes"] == ["0", "1", "2", "3"] and first.parameters["classes"] == ["0", "1"]
    labels = pq.read_table(second.folder / "buffer.parquet")["y"].to_pylist()
    assert {"0", "1", "2", "3"} == set(labels)
    firm, _ = tensors(second.folder / "learned.safetensors")
    before, _ = tensors(first.folder / "learned.safetensors")
    assert all((firm[name] >= before[name]).all() for name in before if ".firm." in name)


def test_a_champion_without_a_memory_is_remembered_by_its_old_rows(place):
    done(job(place / "one", {"train": table(place / "a.parquet", (0, 1), seed=1)}, strategy="naive", epochs=8, classes=["0", "1", "2", "3"]))
    data = old_and_new(place)
    made = done(job(place / "two", data, place / "one", strategy="replay", epochs=25))
    assert made.metrics["before.accuracy.old"] > 0.9 and made.metrics["accuracy.old"] > 0.9 and made.metrics["forgotten.old"] < 0.1
    assert made.metrics["accuracy.train"] > 0.9


def test_tasks_that_stand_apart_are_one_graph_that_takes_the_task_as_its_last_column(place):
    import onnxruntime

    zeros, ones = np.zeros(120), np.ones(120)
    data = {"old": table(place / "a.parquet", (0, 1), seed=1, task=zeros), "train": table(place / "b.parquet", (2, 3), seed=2, task=ones)}
    made = done(job(place / "one", data, strategy="packnet", task="task", epochs=25))
    assert made.metrics["accuracy.old"] > 0.9 and made.metrics["accuracy.train"] > 0.9
    x, y = clouds((2, 3), 60, seed=5)
    (found,) = onnxruntime.InferenceSession(str(made.folder / "model.onnx")).run(None, {"x": np.c_[x, np.ones(60, np.float32)]})
    assert (found.argmax(1) == y).mean() > 0.9
    again = done(
        job(
            place / "two",
            {"train": table(place / "c.parquet", (0, 2), seed=4, task=2 * ones)},
            place / "one",
            strategy="packnet",
            task="task",
            epochs=8,
        )
    )
    assert again.metrics["accuracy.train"] > 0.9
    with pytest.raises(ConfigError, match="cannot go on from a champion that was taught by packnet"):
        done(job(place / "three", data, place / "one", strategy="replay", task="task"))


def test_rows_are_kept_no_longer_than_they_may_be(place):
    def days(first):
        return (np.datetime64("2026-03-01") + (first + np.arange(120) // 12).astype("timedelta64[D]")).astype("datetime64[us]")

    data = {"old": table(place / "a.parquet", (0, 1), seed=1, at=days(0)), "train": table(place / "b.parquet", (2, 3), seed=2, at=days(10))}
    done(job(place / "one", data, strategy="replay", time="at", epochs=1))
    later = {"train": table(place / "c.parquet", (2, 3), seed=3, at=days(20))}
    done(job(place / "two", later, place / "one", strategy="replay", time="at", keep="15d", epochs=1))
    kept = pq.read_table(place / "two" / "buffer.parquet")
    newest = days(20).max()
    assert kept["at"].to_numpy().astype("datetime64[us]").min() >= newest - np.timedelta64(15, "D")
    assert len(kept) and kept["at"].to_numpy().astype("datetime64[us]").min() < days(20).min()


# Killed


def test_killed_after_an_epoch_it_goes_on_and_hands_in_the_same_bits(place):
    data, given = old_and_new(place), {"strategy": "ewc+replay", "factory": "nets:dropped", "optimizer": "adam", "lr": 0.01, "epochs": 40}
    folder = job(place / "killed", data, **given)
    with program(folder) as running:
        assert running.stdout
        heard = next(line for line in running.stdout if "train: epoch 3 " in line)
        running.send_signal(signal.SIGKILL)
    assert 0.5 < json.loads(heard)["done"] < 0.6
    assert (folder / CHECKPOINT).exists() and not (folder / "manifest.json").exists()
    files = done(folder).files
    assert not any("old: epoch" in what for _, what in LINES) and (0.5, "going on where an earlier try ended") in LINES
    assert done(job(place / "whole", data, **given)).files == files


def test_a_checkpoint_of_another_job_or_of_nobody_is_not_taken_up(place):
    data = old_and_new(place)
    whole = done(job(place / "whole", data, epochs=2))
    for body in (b"", b"nonsense", (place / "whole" / "model.safetensors").read_bytes()):
        folder = job(place / "odd", data, epochs=2)
        (folder / CHECKPOINT).write_bytes(body)
        assert done(folder).files["model.safetensors"] == whole.files["model.safetensors"]


# What cannot be


@pytest.mark.parametrize(
    ("columns", "parameters", "said"),
    [
        ({"x1": np.r_[np.nan, np.zeros(119)]}, {}, "train: 'x1' is no number in 1 of 120 rows"),
        ({"x1": np.array(["a"] * 120)}, {}, "train: 'x1' is string, and the net takes numbers"),
        ({"x1": None}, {}, "train: there is no column 'x1'"),
        ({"y": None}, {}, "there is no column 'y'"),
        ({"y": np.zeros(120, int)}, {}, "every row is labelled '0': with one class there is nothing to tell apart"),
        ({"y": np.array([None] * 120, object)}, {"classes": ["a", "b"]}, "train has no labelled row"),
        ({}, {"classes": ["0", "1"]}, "train: label '2' is none of the classes 0, 1"),
        ({}, {"factory": "nowhere:net"}, "there is no module 'nowhere'"),
        ({}, {"factory": "nets:nothing"}, "has no attribute 'nothing'"),
        ({}, {"factory": "nets:broken"}, "nets:broken raised RuntimeError: the weights of the base model are not here"),
        ({}, {"factory": "nets:no_net"}, "gave int, and must give a torch.nn.Module"),
        ({}, {"factory": "nets:narrow", "classes": ["0", "1", "2", "3"]}, r"the net gives \[2\] for a row, and there are 4 classes"),
        ({}, {"factory": "nets:other"}, "the net does not take 6 features side by side"),
        ({}, {"factory": "nets:Odd"}, "the net cannot learn these rows: ValueError: this net cannot be trained"),
        ({}, {"factory": "os.system"}, "parameters.factory: string should match pattern"),
        ({}, {"strategy": "packnet"}, "packnet must be told the task of a row"),
        ({"task": np.full(120, 0.5)}, {"task": "task"}, "'task' tells tasks apart, and must hold whole numbers"),
        ({}, {"epochs": 0}, "parameters.epochs: input should be greater than or equal to 1"),
        ({}, {"epoch": 3}, "parameters.epoch: unknown parameter; did you mean 'epochs'"),
        ({}, {"lr": 1e30}, "learning ran away"),
        ({}, {"keep": "90d"}, "say with `time` which column"),
        ({}, {"patience": 2, "held_out": 0.0}, "nothing is held out to be patient about"),
        ({}, {"device": "cuda"}, "there is no CUDA device here"),
    ],
)
def test_rows_nets_and_parameters_that_cannot_be_are_named(place, columns, parameters, said):
    if parameters.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    folder = job(place / "one", {"train": table(place / "new.parquet", (2, 3), seed=2, **columns)}, **parameters)
    with pytest.raises((ConfigError, TrainingError), match=said):
        done(folder)
    assert not (folder / "manifest.json").exists()


def test_data_that_is_not_what_was_pinned_is_not_learned(place):
    data = {"train": {**table(place / "new.parquet", (2, 3)), "sha256": "0" * 64}}
    with pytest.raises(TrainingError, match="is not the data that was pinned"):
        done(job(place / "one", data))
    (place / "text.parquet").write_text("x,y")
    for odd in ({"train": pinned(place / "text.parquet")}, {"train": {"path": str(place / "gone"), "sha256": "0" * 64}}):
        with pytest.raises(TrainingError, match="cannot be read as Parquet"):
            done(job(place / "one", odd))


@pytest.mark.parametrize(
    ("data", "said"), [({}, "no table 'train'"), ({"train": 1, "guard": 1}, "a table 'guard'; a trainer takes 'train', 'buffer', and")]
)
def test_a_job_with_other_tables_is_refused(place, data, said):
    with pytest.raises(ConfigError, match=said):
        done(job(place / "one", {name: table(place / f"{name}.parquet", (0, 1)) for name in data}))


def test_no_rows_at_all_are_nothing_to_learn_from(place):
    with pytest.raises(TrainingError, match="no row has a label"):
        done(job(place / "one", {"train": table(place / "none.parquet", (0, 1), n=0)}))


def test_a_champion_that_is_no_model_is_not_opened(place):
    done(job(place / "one", {"train": table(place / "a.parquet", (0, 1))}, epochs=1))
    (place / "one" / "model.safetensors").write_bytes(b"\x80\x04 a pickle")
    with pytest.raises((ArtefactError, TrainingError)):
        done(job(place / "two", {"train": table(place / "a.parquet", (0, 1))}, place / "one", epochs=1))
    with pytest.raises(ConfigError, match="weights do not fit nets:dropped"):
        done(job(place / "three", {"train": table(place / "a.parquet", (0, 1))}, done_beside(place), factory="nets:dropped"))


def done_beside(place):
    done(job(place / "four", {"train": table(place / "a.parquet", (0, 1))}, epochs=1))
    return place / "four"


def test_a_full_disk_is_said_and_leaves_nothing_half_written(place):
    folder = job(place / "one", old_and_new(place), epochs=2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        with pytest.raises(TrainingError, match=r"checkpoint\.safetensors cannot be written \(File too large\)"):
            work(folder, lambda share, what: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(path.name for path in folder.iterdir()) == ["spec.json"]


def test_the_program_says_on_stderr_what_is_wrong_and_ends_with_its_code(place):
    with program(place / "not there") as ended:
        _, wrong = ended.communicate()
    assert wrong.startswith("error: WATCHKEEPER_JOB must name the folder of a job") and ended.returncode == ConfigError.exit_code


def test_a_net_whose_trace_is_not_what_it_does_is_exported_as_a_whole(place):
    import onnxruntime

    made = done(job(place / "one", {"train": table(place / "new.parquet", (0, 1))}, factory="nets:counting", epochs=1))
    (found,) = onnxruntime.InferenceSession(str(made.folder / "model.onnx")).run(None, {"x": clouds((0, 1), 9)[0]})
    assert found.shape == (9, 2)
    with pytest.raises(TrainingError, match="the net cannot be exported to ONNX"):
        done(job(place / "two", {"train": table(place / "new.parquet", (0, 1))}, factory="nets:listing", epochs=1))
