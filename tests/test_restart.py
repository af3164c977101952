"""Restarting what runs a server: once, proved by another start, and only where nobody is served by it or somebody allowed that."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, datetime
from textwrap import dedent

import pytest

from agent import Absent, Done, Locator, Pending, Try, config, verbs
from agent.errors import AnswerError, ConfigError, PlanError
from agent.targets import connect
from tests.fraud import fraud

NOW = datetime(2026, 11, 1, tzinfo=UTC)
RESTART = """
    import pathlib, sys
    count = pathlib.Path("count")
    with open("calls", "a") as calls:
        calls.write("restart\\n")
    if "--nothing" not in sys.argv:
        count.write_text(str(int(count.read_text()) + 1))
"""


def options(folder, *flags):
    (folder / "count").write_text("1")
    (folder / "calls").write_text("")
    (folder / "restart.py").write_text(dedent(RESTART))
    return {
        "restart": [sys.executable, "restart.py", *flags],
        "started": [sys.executable, "-c", "print(open('count').read())"],
        "ready": [sys.executable, "-c", "import os, sys; sys.exit(os.path.exists('booting'))"],
    }


def calls(folder):
    return (folder / "calls").read_text().count("restart")


def restarting(desk, folder, *flags, **given):
    path = folder / "watchkeeper.yaml"
    lines = "".join(f"        {name}: {words}\n" for name, words in options(folder, *flags).items())
    path.write_text(path.read_text().replace("    watches:\n", f"      process:\n        url: command:.\n{lines}    watches:\n", 1))
    desk.world.use(config.load(path))
    desk.see()
    run = verbs.start(desk.world, "restart", "fraud", given, "ada")
    desk.respond(moves=600)
    with desk.world.store.read() as ledger:
        return ledger.run(run.id)


def test_what_has_the_traffic_is_restarted_only_with_permission(tmp_path):
    with fraud(tmp_path) as desk:
        refused = restarting(desk, tmp_path)
        assert refused.state == "refused" and "downtime=true" in refused.said and calls(tmp_path) == 0
        verbs.start(desk.world, "restart", "fraud", {"downtime": True}, "ada")
        done = desk.respond()
        assert done.state == "succeeded" and calls(tmp_path) == 1, done.said
        assert done.steps[0].output == {"from": "1", "to": "2"} and "version 1 is served" in done.said


def test_a_version_without_traffic_is_restarted_and_looked_over(tmp_path):
    with fraud(tmp_path) as desk:
        done = restarting(desk, tmp_path, version="2")
        assert done.state == "succeeded" and "version 2" in done.said and calls(tmp_path) == 1, done.said


def test_a_restart_that_does_not_come_about_is_not_repeated_and_a_person_is_paged(tmp_path):
    with fraud(tmp_path) as desk:
        run = restarting(desk, tmp_path, "--nothing", version="2", patience="5s")
        assert run.state == "stuck" and "not started anew" in run.said and calls(tmp_path) == 1
        with desk.world.store.read() as ledger:
            assert any(letter["body"]["severity"] == "page" for letter in ledger.letters())


def test_a_restart_is_not_drilled_for_it_cannot_be_taken_back(tmp_path):
    with fraud(tmp_path) as desk:
        restarting(desk, tmp_path)
        with pytest.raises(PlanError, match=r"process.restart cannot be taken back"):
            verbs.start(desk.world, "restart", "fraud", {"version": "2"}, "ada", drill=True, dry_run=True)


# The adapter


def process(folder, **changed):
    return connect(Locator("fraud", "process", "command:.", {**options(folder), **changed}, folder=str(folder)))


def test_only_another_start_and_its_being_ready_are_a_restart(tmp_path):
    one = process(tmp_path)
    before = one.restart.before({})
    t = Try("run-1/0", 1, NOW, before, 0, NOW)
    assert isinstance(one.restart.look({}, t), Absent)
    (tmp_path / "booting").write_text("")
    one.restart.do({}, t)
    assert isinstance(one.restart.look({}, replace(t, number=1)), Pending)
    (tmp_path / "booting").unlink()
    assert one.restart.look({}, t) == Done({"from": "1", "to": "2"}, "it was restarted, and is ready (2)")
    assert one.restart.undo({}, "1", {}) is None and not one.restart.repeatable


def test_a_start_that_cannot_be_told_is_an_error_and_not_a_restart(tmp_path):
    with pytest.raises(AnswerError, match="printed nothing"):
        process(tmp_path, started=[sys.executable, "-c", ""]).restart.before({})


@pytest.mark.parametrize("changed", [{"restart": "systemctl restart fraud"}, {"started": []}, {"ready": 5}, {"reboot": ["x"]}, {"env": ["A"]}])
def test_options_that_cannot_be_are_refused(tmp_path, changed):
    with pytest.raises(ConfigError):
        process(tmp_path, **changed)
