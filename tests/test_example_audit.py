"""The example's service, audited in one command with the configuration that comes with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agent.cli import main
from tests.processes import HOUSE, python, start, until
from tests.test_examples import models, serve  # noqa: F401 - a fixture

EXAMPLE = HOUSE / "examples" / "digits" / "audit.yaml"
ROWS = 240  # of the log, before it is looked at


def test_one_command_shows_at_least_thirty_questions_with_evidence_of_some_age(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    shutil.copyfile(EXAMPLE, tmp_path / "audit.yaml")
    shutil.copytree(models, tmp_path / "models")
    answers = tmp_path / "answers.jsonl"
    with serve(tmp_path / "models", "--versions", "0,1", "--serve", "1", "--log", tmp_path / "predictions.db") as server:
        stream = tmp_path / "models" / "stream.jsonl"
        words = ("--url", server.url, "--stream", stream, "--answers", answers, "--rate", "60")
        with start(python("examples.digits.traffic", *words)):
            until(lambda: answers.exists() and len(answers.read_text().splitlines()) > ROWS, "users were answered", 60)
            monkeypatch.chdir(tmp_path)
            for name, value in {"DIGITS_PORT": server.url.rpartition(":")[2], "WATCHKEEPER_PORT": "0", "DEMO_WEBHOOK": "http://127.0.0.1:9/"}.items():
                monkeypatch.setenv(name, value)
            wk("good", "digits", "0", "--by", "ada")
            wk("good", "digits", "1", "--by", "ada")
            wk("check", "digits", "serving.ready")
            wk("check", "digits", "serving.parity")
            wk("drill", "rollback", "digits", "--by", "ada")
            told = json.loads(wk("audit", "run", "digits", "--collect", "--json"))
    items = told["services"][0]["readiness"]["items"]
    seen = [one["item"] for one in items if one["evidence"] and one["at"]]
    assert len(seen) >= 30, sorted({one["item"] for one in items} - set(seen))
    assert all(one["state"] != "unknown" for one in items if one["item"] in seen)


def wk(*words: str) -> Any:
    done = CliRunner().invoke(main, ["-c", "audit.yaml", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout
