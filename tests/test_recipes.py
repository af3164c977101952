"""The recipes of docs/recipes.md do what they say: the DVC stage is parsed and its command is run, on data that is good, bad and gone."""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml

from tests.conftest import HOUSE

PAGE = (HOUSE / "docs" / "recipes.md").read_text(encoding="utf-8")


def block(language, mark):
    (found,) = [text for text in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if mark in text]
    return found


def run(command, folder):
    """A shell line of a recipe, with this checkout's command."""
    line = command.replace("watchkeeper", f"'{sys.executable}' -m agent.cli", 1)
    env = {**os.environ, "PYTHONPATH": str(HOUSE), "NO_COLOR": "1"}
    return subprocess.run(line, shell=True, cwd=folder, env=env, capture_output=True, text=True, timeout=60)


@pytest.fixture
def stage():
    return yaml.safe_load(block("yaml", "dvc.yaml"))["stages"]["contract"]


def test_the_stage_depends_on_what_its_command_reads_and_makes_what_it_names(stage):
    assert all(name in stage["cmd"].split() for name in stage["deps"])
    (made,) = stage["metrics"]
    assert stage["cmd"].endswith(f"> {next(iter(made))}")


def test_the_stage_passes_fails_and_cannot_tell(stage, tmp_path):
    (tmp_path / "predictions.csv").write_text("score\n0.1\n0.7\n")
    (tmp_path / "contract.yaml").write_text("columns: {score: {low: 0, high: 1}}\n")
    assert run(stage["cmd"], tmp_path).returncode == 0
    assert json.loads((tmp_path / "contract.json").read_text())["status"] == "ok"
    (tmp_path / "predictions.csv").write_text("score\n0.1\n7\n")
    assert run(stage["cmd"], tmp_path).returncode == 1
    assert json.loads((tmp_path / "contract.json").read_text())["broken"][0]["rule"] == "score.range"
    (tmp_path / "predictions.csv").unlink()
    assert run(stage["cmd"], tmp_path).returncode == 3
    assert "error" in json.loads((tmp_path / "contract.json").read_text())


def test_the_workflow_is_one_and_its_pattern_is_left_to_the_command(tmp_path):
    workflow = yaml.safe_load(block("yaml", "runs-on"))
    (line,) = [step["run"] for step in workflow["jobs"]["contract"]["steps"] if "contract check" in step.get("run", "")]
    (tmp_path / "data").mkdir()
    for name in "ab":
        (tmp_path / "data" / f"{name}.csv").write_text("score\n0.1\n0.7\n")
    (tmp_path / "contract.yaml").write_text("columns: {score: {low: 0, high: 1}}\nvolume: 4\n")
    done = run(line.replace("parquet", "csv"), tmp_path)
    assert (done.returncode, done.stdout) == (0, "ok  data/*.csv: 4 rows keep the contract of 1 column\n")
