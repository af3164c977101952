"""Trainers behind an orchestrator's interface: begun once by their key, their words for how it goes, and what they hand in is not believed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent import Absent, Auth, Done, Failed, Locator, Pending, Trainer, Try, Unknown
from agent.errors import AnswerError, CannotError, ConfigError, DeniedError, ServerError, TargetError, TrainingError, UnreachableError
from agent.targets import connect
from tests.servers import airflow, prefect

KEY = "run-1/2"


@pytest.fixture(params=[prefect, airflow], ids=["prefect", "airflow"])
def speaker(request: pytest.FixtureRequest) -> Iterator[Any]:
    made = request.param.Speaker()
    yield made
    made.stop()


def at(speaker: Any, folder: Path, /, **options: Any) -> Locator:
    return Locator("fraud", "trainer", speaker.url, options, folder=str(folder))


def spec(folder: Path) -> dict[str, Any]:
    pin = folder / "train.parquet"
    pin.write_bytes(b"rows")
    data = {"train": {"path": str(pin), "sha256": hashlib.sha256(b"rows").hexdigest(), "rows": 3}}
    return {"data": data, "champion": None, "seed": 7, "parameters": {"epochs": 2}}


def worked(home: Path, weights: bytes = b"weights", **lies: Any) -> None:
    """What a flow does that knows nothing of us but the folder."""
    asked = json.loads((home / "spec.json").read_text())
    (home / "model.onnx").write_bytes(weights)
    data = {name: one["sha256"] for name, one in asked["data"].items()}
    told = {"files": {"model.onnx": hashlib.sha256(weights).hexdigest()}, "data": data, "rows": 3, "metrics": {"accuracy": 0.9}}
    (home / "manifest.json").write_text(json.dumps({**told, **lies}))


def tried() -> Try:
    now = datetime.now(UTC)
    return Try(KEY, 1, now + timedelta(hours=1), None, 1, now)


def test_a_run_is_asked_for_with_its_folder_and_what_it_makes_comes_back_in_it(speaker: Any, tmp_path: Path) -> None:
    trainer = connect(at(speaker, tmp_path))
    assert isinstance(trainer, Trainer) and trainer.status(KEY).state == "absent"
    trainer.start(spec(tmp_path), KEY)
    (job,) = speaker.jobs()
    assert Path(job) == tmp_path / "jobs" / "run-1-2" and json.loads((Path(job) / "spec.json").read_text())["seed"] == 7
    worked(Path(job))
    speaker.becomes("succeeded")
    found = trainer.result(KEY)
    assert trainer.status(KEY).state == "succeeded" and (found.rows, found.seed, list(found.files)) == (3, 7, ["model.onnx"])


def test_whoever_asks_however_often_there_is_one_run(speaker: Any, tmp_path: Path) -> None:
    for _ in range(3):
        connect(at(speaker, tmp_path)).start(spec(tmp_path), KEY)
    assert len(speaker.runs) == 1
    connect(at(speaker, tmp_path, folder="others")).start(spec(tmp_path), KEY)
    assert len(speaker.runs) == 2, "the same key of another agent is another piece of work"


@pytest.mark.parametrize("state", ["queued", "running", "failed"])
def test_how_it_goes_is_told_in_our_words(speaker: Any, tmp_path: Path, state: str) -> None:
    trainer = connect(at(speaker, tmp_path))
    trainer.start(spec(tmp_path), KEY)
    speaker.becomes(state)
    assert trainer.status(KEY).state == state
    speaker.becomes("else")
    assert trainer.status(KEY).state == "lost", "a word we do not know is no success"


def test_a_plan_s_step_goes_from_absent_to_done_and_a_lie_is_its_end(speaker: Any, tmp_path: Path) -> None:
    train, asked, t = connect(at(speaker, tmp_path)).train, spec(tmp_path), tried()
    assert isinstance(train.look(asked, t), Absent)
    train.do(asked, t)
    assert isinstance(train.look(asked, t), Pending)
    speaker.becomes("else")
    assert isinstance(train.look(asked, t), Unknown)
    speaker.becomes("succeeded")
    assert isinstance(train.look(asked, t), Failed), "there is no manifest"
    worked(Path(speaker.jobs()[0]), files={"model.onnx": "0" * 64})
    assert isinstance(train.look(asked, t), Failed)
    worked(Path(speaker.jobs()[0]))
    done = train.look(asked, t)
    assert isinstance(done, Done) and done.output["metrics"] == {"accuracy": 0.9}


def test_pinned_rows_that_were_written_over_are_found_out(speaker: Any, tmp_path: Path) -> None:
    trainer = connect(at(speaker, tmp_path))
    trainer.start(spec(tmp_path), KEY)
    worked(Path(speaker.jobs()[0]))
    (tmp_path / "train.parquet").write_bytes(b"others")
    with pytest.raises(TrainingError, match="is not what it was"):
        trainer.result(KEY)


def test_workers_may_see_the_folder_under_another_path(speaker: Any, tmp_path: Path) -> None:
    connect(at(speaker, tmp_path, seen="/mnt/jobs/")).start(spec(tmp_path), KEY)
    assert speaker.jobs() == ["/mnt/jobs/run-1-2"]


def test_it_is_ended_when_it_is_cancelled_and_not_when_it_is_over(speaker: Any, tmp_path: Path) -> None:
    trainer = connect(at(speaker, tmp_path))
    trainer.cancel(KEY)
    trainer.start(spec(tmp_path), KEY)
    trainer.cancel(KEY)
    assert trainer.status(KEY).state == "failed"
    speaker.becomes("succeeded")
    trainer.cancel(KEY)
    assert trainer.status(KEY).state == "succeeded"


def test_looking_alone_begins_and_ends_nothing(speaker: Any, tmp_path: Path) -> None:
    trainer = connect(replace(at(speaker, tmp_path), look=Auth("bearer", {"token": "may-look"})))
    assert trainer.status(KEY).state == "absent"
    with pytest.raises((CannotError, DeniedError)):
        trainer.start(spec(tmp_path), KEY)
    assert not speaker.runs and all(headers["Authorization"] == "Bearer may-look" for _, _, headers, _ in speaker.requests)


@pytest.mark.parametrize("fault", ["broken", "html", "cut", "list", "nan", "redirect"])
def test_an_orchestrator_that_misbehaves_is_an_error_and_never_absent(speaker: Any, tmp_path: Path, fault: str) -> None:
    trainer = connect(at(speaker, tmp_path))
    trainer.start(spec(tmp_path), KEY)
    speaker.fault = fault
    with pytest.raises(TargetError):
        trainer.status(KEY)


def test_one_that_is_gone_is_an_error_and_what_does_not_exist_is_said(speaker: Any, tmp_path: Path) -> None:
    wrong = connect(replace(at(speaker, tmp_path), url=speaker.url.replace("retrain", "other")))
    with pytest.raises(AnswerError, match="404"):
        wrong.start(spec(tmp_path), KEY)
    trainer = connect(at(speaker, tmp_path))
    speaker.stop()
    with pytest.raises(UnreachableError):
        trainer.status(KEY)


def test_a_second_failure_of_the_server_is_not_taken_for_a_run_that_is_there(speaker: Any, tmp_path: Path) -> None:
    trainer = connect(at(speaker, tmp_path))
    speaker.fault = "broken"
    with pytest.raises(ServerError):
        trainer.start(spec(tmp_path), KEY)
    speaker.fault = ""
    assert trainer.status(KEY).state == "absent"


@pytest.mark.parametrize("key", ["", "../../etc", "-x", "a b", "x" * 200])
def test_what_is_no_key_leads_out_of_no_folder(speaker: Any, tmp_path: Path, key: str) -> None:
    for ask in ("status", "cancel", "result"):
        with pytest.raises(TrainingError, match="names no piece of work"):
            getattr(connect(at(speaker, tmp_path)), ask)(key)


def test_a_url_without_a_name_and_options_unknown_are_said_at_the_start(speaker: Any, tmp_path: Path) -> None:
    for url in (speaker.address, f"{speaker.address}/"):
        with pytest.raises(ConfigError, match="names no"):
            connect(replace(at(speaker, tmp_path), url=f"{speaker.url.partition('+')[0]}+{url}"))
    with pytest.raises(ConfigError, match="no option 'jobs'"):
        connect(at(speaker, tmp_path, jobs="x"))
