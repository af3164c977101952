"""`watchkeeper runbook new`: what it writes is valid, is planned and carried out as it stands, and nothing is overwritten."""

from __future__ import annotations

import json
import sys
import tomllib
from contextlib import contextmanager

import pytest
import yaml
from click.testing import CliRunner

from agent import config, verbs
from agent.cli import main
from agent.plugins import find
from tests import plugin_box
from tests.fraud import fraud
from tests.test_steps import latest


def said(*words, code=0):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


def carried(desk, name, **given):
    run = verbs.start(desk.world, name, "fraud", given, "ada")
    desk.respond()
    return latest(desk, run.id)


def test_the_plan_is_valid_planned_and_carried_out_as_it_stands(tmp_path):
    with fraud(tmp_path) as desk:
        said("-c", tmp_path / "watchkeeper.yaml", "runbook", "new", "reload")
        assert "no error" in said("-c", tmp_path, "validate")
        assert "reload" in said("-c", tmp_path, "runbook", "list")
        assert "Is it as it was before?" in said("-c", tmp_path, "plugins", "reload")
        desk.world.use(config.load(tmp_path))
        plan = verbs.start(desk.world, "reload", "fraud", {"pause": "2s"}, "ada", dry_run=True)
        assert [step.action for step in plan.steps] == ["command.run", "clock.wait", "command.ensure"] and plan.steps[1].args == {"length": 2.0}
        run = carried(desk, "reload")
        assert run.state == "succeeded" and run.steps[2].output == {"printed": "hello again"}, run.said


def test_the_command_line_plans_it_and_carries_it_out(tmp_path):
    with fraud(tmp_path) as desk:
        desk.world.store.close()
        said("-c", tmp_path / "watchkeeper.yaml", "runbook", "new", "reload")
        plan = json.loads(said("-c", tmp_path, "runbook", "run", "reload", "fraud", "--dry-run", "--json", "--by", "ada"))
        assert [step["name"] for step in plan["steps"]] == ["hello", "wait", "command-2"]
        told = json.loads(said("-c", tmp_path, "runbook", "run", "reload", "fraud", "--param", "pause=1ms", "--json", "--by", "ada"))
        assert told["state"] == "succeeded"


def test_all_that_is_commented_out_in_the_plan_is_valid_too(tmp_path, monkeypatch):
    """Every example in it is one that the configuration takes."""
    monkeypatch.setenv("RELOAD_TOKEN", "t")
    with fraud(tmp_path):
        said("-c", tmp_path / "watchkeeper.yaml", "runbook", "new", "reload")
        text = (tmp_path / "reload.yaml").read_text()
        for comment, live in (("# - ", "- "), ("      #  ", "       "), ("# cures", "cures"), ("# version", "version")):
            text = text.replace(comment, live)
        (tmp_path / "reload.yaml").write_text("runbooks:\n" + text.partition("runbooks:\n")[2])
        path = tmp_path / "watchkeeper.yaml"
        path.write_text(path.read_text().replace("registry: folder:models", "registry: folder:models\n      live: 'sqlite:x.db?table=t'"))
        made = config.load(tmp_path)
        steps = yaml.safe_load((tmp_path / "reload.yaml").read_text())["runbooks"]["reload"]["steps"]
        assert len(steps) == 9 and made.runbook("reload").promises["cures"] == ("errors",)


@contextmanager
def installed(folder, package):
    """As `pip install -e` leaves it: its folder on the path, and what its pyproject promises beside it."""
    promised = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / f"{package}-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {promised['name']}\nVersion: {promised['version']}\n")
    points = promised["entry-points"]["watchkeeper.runbooks"]
    (info / "entry_points.txt").write_text("[watchkeeper.runbooks]\n" + "".join(f"{name} = {value}\n" for name, value in points.items()))
    sys.path.append(str(folder))
    plugin_box._forget()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.split(".")[0] == package]:
            del sys.modules[name]
        plugin_box._forget()


def test_the_package_is_found_planned_and_carried_out_as_it_stands(tmp_path):
    said("-c", tmp_path / "none.yaml", "runbook", "new", "warm_up", "--python", "--out", tmp_path / "ours")
    with installed(tmp_path / "ours", "warm_up_runbooks"), fraud(tmp_path) as desk:
        assert find("runbook", "warm_up").owner == "warm_up_runbooks"
        run = carried(desk, "warm_up", pause="1ms")
        assert run.state == "succeeded" and run.steps[2].output == {"printed": "hello fraud"}, run.said
        said("-c", tmp_path / "none.yaml", "runbook", "new", "another", "--python", "--out", tmp_path / "ours" / "warm_up_runbooks")
        assert find("runbook", "another").path == str(tmp_path / "ours" / "warm_up_runbooks" / "another.py")


def test_nothing_is_overwritten_and_no_name_is_taken_twice(tmp_path):
    with fraud(tmp_path):
        (tmp_path / "mine.yaml").write_text("mine")
        assert "was left as it is" in said("-c", tmp_path / "watchkeeper.yaml", "runbook", "new", "mine", code=2)
        assert (tmp_path / "mine.yaml").read_text() == "mine"
        assert "already, in" in said("-c", tmp_path / "watchkeeper.yaml", "runbook", "new", "rollback", code=2)
        (tmp_path / "ours").mkdir()
        (tmp_path / "ours" / "pyproject.toml").write_text("mine")
        assert "was left as it is" in said("runbook", "new", "reload", "--python", "--out", tmp_path / "ours", code=2)
        assert [path.name for path in (tmp_path / "ours").iterdir()] == ["pyproject.toml"], "all of it or nothing"


@pytest.mark.parametrize("name", ["../evil", "a b", "x" * 101, "a/b", "", "Größe", "-c"])
def test_a_name_that_is_no_name_writes_nothing(tmp_path, name):
    for kind in ("--yaml", "--python"):
        said("-c", tmp_path / "watchkeeper.yaml", "runbook", "new", kind, "--out", tmp_path / "out", "--", name, code=2)
    assert not list(tmp_path.iterdir())
