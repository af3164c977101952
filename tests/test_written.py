"""Runbooks that a configuration writes out: found, listed, wanted, permitted, drilled and carried out like any other."""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import timedelta

import pytest
from click.testing import CliRunner

from agent import config, verbs
from agent.cli import main
from agent.errors import ConfigError, PlanError, PluginError
from agent.model import Ref
from tests.fraud import drilled, fraud, spoiled
from tests.plugin_box import install
from tests.test_steps import latest

BOOK = """
runbooks:
  turn:
    asks: Is the other one served?
    cures: [answers]
    parameters: {to: "2", pause: {type: duration, default: 30s}, n: {type: integer}}
    steps:
      - {check: serving.ready, otherwise: stop}
      - {router.point: {to: {parameter: to}}, name: flip, why: send it there}
      - {wait: {parameter: pause}}
      - {notify: {text: {from: flip.from}}}
"""
ONE = BOOK.replace(", n: {type: integer}", "")


@contextmanager
def written(tmp_path, book=ONE, **more):
    with fraud(tmp_path, **more) as desk:
        reread(desk, tmp_path, lambda text: text + book)
        yield desk


def reread(desk, tmp_path, change):
    path = tmp_path / "watchkeeper.yaml"
    path.write_text(change(path.read_text()))
    desk.world.use(config.load(path))


def said(tmp_path, *words, code=0):
    result = CliRunner().invoke(main, ["-c", str(tmp_path / "watchkeeper.yaml"), *words])
    assert result.exit_code == code, result.output
    return result.output


def test_it_becomes_the_steps_that_python_would_have_made(tmp_path):
    with written(tmp_path) as desk:
        plan = verbs.start(desk.world, "turn", "fraud", {"pause": "2m"}, "ada", dry_run=True)
        assert [(s.name, s.action, s.args, s.otherwise) for s in plan.steps] == [
            ("check", "check.ok", {"watch": "serving.ready"}, "stop"),
            ("flip", "router.point", {"to": "2"}, "undo"),
            ("wait", "clock.wait", {"length": 120.0}, "undo"),
            ("notify", "notify.send", {"text": Ref("flip", "from")}, "undo"),
        ]
        assert plan.steps[2].within == timedelta(minutes=3) and plan.seen == {"router.point": "1"}
        run = verbs.start(desk.world, "turn", "fraud", {}, "ada")
        assert desk.respond().state == "succeeded" and desk.server.flips == ["2"] and latest(desk, run.id).runbook == "turn"


def test_it_is_listed_with_its_needs_and_parameters(tmp_path):
    with written(tmp_path, BOOK):
        for words in (("runbook", "list"), ("plugins",), ("plugins", "--kind", "runbook")):
            assert "Is the other one served?" in said(tmp_path, *words) and "rollback" in said(tmp_path, *words)
        told = json.loads(said(tmp_path, "plugins", "turn", "--json"))
        assert [need["name"] for need in told["needs"]] == ["service", "router"] and told["promises"]["cures"] == ["answers"]
        assert [(p["name"], p["annotation"], p["default"]) for p in told["parameters"]] == [
            ("to", "str", "'2'"),
            ("pause", "timedelta", "30s"),
            ("n", "int", None),
        ]
        assert told["path"] == str(tmp_path / "watchkeeper.yaml") and told["line"] > 10


def test_a_configuration_with_errors_hides_no_other_plugin(tmp_path):
    with written(tmp_path):
        path = tmp_path / "watchkeeper.yaml"
        path.write_text(path.read_text().replace("wait:", "wiat:"))
        assert "rollback" in said(tmp_path, "runbook", "list") and "drift.compare" in said(tmp_path, "plugins")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"n": "x"}, "turn: n: must be a whole number, not the text 'x'"),
        ({}, "turn needs a n; give it with --param n=..., or services.fraud.runbooks.turn.with"),
        ({"n": 1, "paws": "1s"}, "turn has no parameter 'paws'; did you mean 'pause'?"),
    ],
)
def test_parameters_are_judged_as_those_of_any_runbook(tmp_path, given, words):
    with written(tmp_path, BOOK) as desk, pytest.raises(PlanError) as caught:
        verbs.start(desk.world, "turn", "fraud", given, "ada", dry_run=True)
    assert words in str(caught.value)


def test_a_service_gives_it_parameters_a_mode_and_people(tmp_path):
    with written(tmp_path) as desk:
        reread(desk, tmp_path, lambda text: text.replace("runbooks: {rollback", "runbooks: {turn: {two_person: true, with: {to: '1'}}, rollback", 1))
        assert verbs.start(desk.world, "turn", "fraud", {}, "ada", dry_run=True).steps[1].args == {"to": "1"}
        with pytest.raises(ConfigError, match=r"turn has no parameter 'too'; did you mean 'to'\?"):
            reread(desk, tmp_path, lambda text: text.replace("with: {to: '1'}", "with: {too: 1}"))


def test_a_cause_wants_it_before_what_packages_bring_and_drilled_it_acts_by_itself(tmp_path):
    quick = ONE.replace("default: 30s", "default: 1ms").replace('to: "2"', 'to: "1"')
    with written(tmp_path, quick) as desk:
        reread(desk, tmp_path, lambda text: text.replace("mode: {", "mode: {turn: auto, "))
        drilled(desk)
        desk.server.served = "2"
        verbs.start(desk.world, "turn", "fraud", {}, "ada", drill=True)
        drill = desk.respond()
        assert drill.state == "succeeded" and desk.server.flips == ["1", "2"], drill.said
        desk.server.flips.clear()
        desk.server.served = "1"
        desk.see()
        desk.later(5)
        spoiled(desk)
        desk.see()
        assert desk.look().status == "fail"
        run = desk.respond()
        assert (run.runbook, run.by, run.state, desk.server.flips) == ("turn", "watchkeeper", "succeeded", ["1"]), run.said


def test_it_runs_another_and_is_run_by_another(tmp_path):
    steps = "[{run: {runbook: turn, with: {pause: 1ms}}, name: inner}, {notify: {text: {from: inner.said}}}]"
    book = f"{ONE}  outer:\n    asks: Is it turned?\n    steps: {steps}\n"
    with written(tmp_path, book) as desk:
        run = verbs.start(desk.world, "outer", "fraud", {}, "ada")
        desk.respond()
        with desk.world.store.read() as ledger:
            child = ledger.child(f"run-{run.id}/0")
        verbs.approve(desk.world, child.id, "eve")
        for _ in range(6):
            desk.respond()
            desk.later(1.0)
        assert latest(desk, run.id).state == "succeeded" and desk.server.flips == ["2"], latest(desk, run.id).said


def test_each_may_have_a_file_of_its_own_in_a_folder(tmp_path):
    with fraud(tmp_path):
        (tmp_path / "turn.yaml").write_text(ONE)
        assert config.load(tmp_path).runbook("turn").path == str(tmp_path / "turn.yaml")
        (tmp_path / "twice.yaml").write_text(ONE)
        with pytest.raises(ConfigError, match="already defined at"):
            config.load(tmp_path)


TURN = """
    from agent import Step, runbook

    @runbook(asks="Is it another?")
    def turn(service: str) -> tuple[Step, ...]:
        \"\"\"Nothing.\"\"\"
        return ()
"""


def test_a_name_that_a_package_has_is_refused_naming_both_whichever_came_first(tmp_path):
    with written(tmp_path) as desk, install(tmp_path, {"turn": TURN}, kind="runbook") as box:
        with pytest.raises(ConfigError) as caught:
            config.load(tmp_path / "watchkeeper.yaml")
        (line,) = caught.value.problems
        assert "runbooks.turn: two runbooks are called 'turn'" in line and box in line and "watchkeeper.yaml" in line and "turn.py" in line
        with pytest.raises(PluginError, match=r"two runbooks are called 'turn'.*rename one of them"):
            verbs.start(desk.world, "turn", "fraud", {}, "ada")


def test_an_unknown_name_is_told_the_nearest_of_both(tmp_path):
    with written(tmp_path) as desk:
        with pytest.raises(PluginError, match="did you mean 'turn'"):
            verbs.start(desk.world, "trun", "fraud", {}, "ada")
        assert "did you mean 'turn'" in said(tmp_path, "runbook", "run", "trun", "fraud", "--by", "ada", code=2)
