"""Runbooks: the right one, only when allowed, and once, whatever happens in between."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from agent import actions, config, verbs
from agent.errors import PlanError
from agent.model import Ref, Run, StepRow
from agent.respond import carry
from agent.targets.folder import record
from tests.fraud import GOLDEN, Desk, drilled, fraud, spoiled


def test_a_bad_version_is_rolled_back_to_the_last_good_one(tmp_path):
    with fraud(tmp_path) as desk:
        drilled(desk)
        spoiled(desk)
        assert desk.look().status == "fail"
        run = desk.respond()
        assert (run.state, desk.server.served, desk.server.flips) == ("succeeded", "1", ["1"])
        assert [step.name for step in run.steps][:4] == ["counterfactual", "preflight", "flip", "look"]
        with desk.world.store.read() as ledger:
            (incident,) = ledger.open_incidents("fraud")
        assert incident.state == "mitigated"
        desk.look()
        desk.look()
        with desk.world.store.read() as ledger:
            assert ledger.incident(incident.id).state == "resolved"
        assert desk.world.store.verify() == []


def test_no_rollback_when_the_last_good_version_is_no_better(tmp_path):
    with fraud(tmp_path) as desk:
        drilled(desk)
        spoiled(desk)
        desk.server.factors["1"] = 5.0
        desk.look()
        run = desk.respond()
        assert run.state == "stopped" and "no better" in run.said and "likely cause" in run.said
        assert desk.server.served == "2" and desk.server.flips == []


def older(desk: Desk) -> None:
    """A version 0 is loaded and good as well, from before the others."""
    (desk.folder / "old.bin").write_bytes(b"old")
    record(desk.folder / "models", "0", {"old.bin": desk.folder / "old.bin"}, golden=GOLDEN)
    desk.server.factors = {"0": 2.0, **desk.server.factors}
    desk.server.loaded = ("0", *desk.server.loaded)
    verbs.good(desk.world, "fraud", "0", "ada")


def test_the_next_good_version_gets_the_traffic_where_the_last_one_is_broken_too(tmp_path):
    with fraud(tmp_path) as desk:
        older(desk)
        drilled(desk)
        spoiled(desk)
        desk.server.factors["1"] = 5.0
        desk.look()
        run = desk.respond()
        assert (run.state, desk.server.served, desk.server.flips) == ("succeeded", "0", ["0"]), run.said
        assert "version 1 is no better" in run.steps[0].said and "version 0 is better" in run.steps[0].said
        assert run.plan.steps[2].args == {"to": Ref("preflight", "version")} and run.steps[2].args == {"to": "0"}


def test_the_next_good_version_is_asked_where_the_last_one_is_not_loaded_any_more(tmp_path):
    with fraud(tmp_path) as desk:
        older(desk)
        drilled(desk)
        spoiled(desk)
        desk.server.loaded = tuple(version for version in desk.server.loaded if version != "1")
        del desk.server.factors["1"]
        desk.look()
        assert (desk.respond().state, desk.server.served) == ("succeeded", "0")


def test_a_run_from_several_good_versions_is_taken_back_to_where_it_was(tmp_path):
    """The flip to the one that was found is undone like any other: what it was found to be stands in the journal."""
    with fraud(tmp_path) as desk:
        older(desk)
        drilled(desk)
        spoiled(desk)
        desk.server.factors["1"] = 5.0
        desk.look()
        asked = []

        def mood(method: str, path: str):
            if desk.server.flips == ["0"] and path.endswith("/infer"):
                asked.append(path)
                return 200, {"model_version": "0", "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [9.0, 9.0]}]}
            return None

        desk.server.mood = mood
        run = desk.respond()
        assert asked and (run.state, desk.server.flips) == ("compensated", ["0", "2"]), run.said


def test_without_a_good_version_a_rollback_is_refused_and_says_how_to_have_one(tmp_path):
    with fraud(tmp_path) as desk:
        spoiled(desk)
        desk.look()
        run = desk.respond()
        assert run.state == "refused" and "watchkeeper good fraud" in run.said and desk.server.flips == []


def test_observe_never_acts_and_says_what_it_would_have_done(tmp_path):
    with fraud(tmp_path, mode="observe") as desk:
        drilled(desk)
        spoiled(desk)
        desk.look()
        run = desk.respond()
        assert run.state == "refused" and "would have" in run.said and desk.server.flips == []
        assert [s.state for s in run.steps[:2]] == ["done", "done"]  # the counterfactual was looked at all the same


def test_suggest_waits_for_a_person_and_then_acts(tmp_path):
    with fraud(tmp_path, mode="suggest") as desk:
        drilled(desk)
        spoiled(desk)
        desk.look()
        run = desk.respond()
        assert run.state == "proposed" and desk.server.flips == []
        verbs.approve(desk.world, run.id, "ada")
        assert desk.respond().state == "succeeded" and desk.server.flips == ["1"]


def test_auto_without_a_drill_asks_first(tmp_path):
    with fraud(tmp_path) as desk:
        verbs.good(desk.world, "fraud", "1", "ada")
        desk.see()
        desk.look()
        spoiled(desk)
        desk.look()
        run = desk.respond()
        assert run.state == "awaiting" and "drill" in run.said and desk.server.flips == []


def test_the_budget_ends_automatic_action(tmp_path):
    with fraud(tmp_path) as desk:
        drilled(desk)
        for _ in range(2):
            spoiled(desk)
            desk.look()
            assert desk.respond().state == "succeeded"
            desk.look()
            desk.look()
        spoiled(desk)
        desk.look()
        run = desk.respond()
        assert run.state == "awaiting" and "budget" in run.said


def test_a_fail_that_did_not_begin_at_a_version_change_asks_first(tmp_path):
    with fraud(tmp_path) as desk:
        drilled(desk)
        desk.server.served = "2"
        desk.see()
        desk.later(600)
        desk.look()
        desk.later(600)
        desk.server.factors["2"] = 3.0  # the same version turns bad
        desk.look()
        run = desk.respond()
        assert run.state == "awaiting" and "did not begin at a version change" in run.reason


def test_halt_holds_an_automatic_run_and_resume_lets_it_go(tmp_path):
    with fraud(tmp_path) as desk:
        drilled(desk)
        verbs.halt(desk.world, "ada", "a migration")
        spoiled(desk)
        desk.look()
        run = desk.respond()
        assert "halted" in run.said and desk.server.flips == []
        verbs.resume(desk.world, "ada")
        desk.later(2)
        assert desk.respond().state == "succeeded"


def test_the_halt_file_alone_halts(tmp_path):
    with fraud(tmp_path) as desk:
        drilled(desk)
        halt = Path(f"{desk.world.store.path}.halt")
        halt.touch()
        spoiled(desk)
        desk.look()
        desk.respond()
        assert desk.server.flips == []
        with pytest.raises(PlanError, match="remove it"):
            verbs.resume(desk.world, "ada")


def test_a_flip_that_does_not_help_is_taken_back(tmp_path):
    """The last look is at what is served: version 1 was well when asked by name, and is not once it has the traffic."""
    with fraud(tmp_path) as desk:
        drilled(desk)
        spoiled(desk)
        desk.look()

        def moody(method, path):
            if desk.server.flips == ["1"] and path == "/v2/models/m/infer":
                return 500, {"error": "not under load"}
            return None

        desk.server.mood = moody
        run = desk.respond()
        assert run.state == "compensated" and desk.server.flips == ["1", "2"] and desk.server.served == "2"


def test_an_undo_leaves_alone_what_somebody_else_changed(tmp_path):
    with fraud(tmp_path) as desk:
        drilled(desk)
        spoiled(desk)
        desk.server.loaded = ("1", "2", "3")
        desk.server.factors["3"] = 2.0
        desk.look()

        def meddled(method, path):
            if desk.server.flips == ["1"] and path == "/v2/models/m/infer":
                desk.server.served = "3"
                return 500, {"error": "not under load"}
            return None

        desk.server.mood = meddled
        run = desk.respond()
        assert run.state == "stuck" and "somebody else" in run.said and desk.server.served == "3"


def test_a_hundred_triggers_at_once_are_one_run(tmp_path):
    with fraud(tmp_path) as desk:
        drilled(desk)
        desk.server.served = "2"
        barrier = threading.Barrier(20)

        def ask(n: int) -> Run:
            if n < 20:
                barrier.wait(10)
            made = verbs.start(desk.world, "rollback", "fraud", {}, f"person {n}")
            assert isinstance(made, Run)
            return made

        with ThreadPoolExecutor(20) as pool:
            numbers = {run.id for run in pool.map(ask, range(100))}
        assert len(numbers) == 1
        assert desk.respond().state == "succeeded" and desk.server.flips == ["1"]


def test_a_dry_run_changes_nothing_and_its_digest_is_what_an_approval_binds(tmp_path):
    with fraud(tmp_path) as desk:
        drilled(desk)
        plan = verbs.start(desk.world, "rollback", "fraud", {}, "ada", dry_run=True)
        assert [step.action for step in plan.steps][:3] == ["check.passes", "router.point", "check.serves"]
        assert desk.server.flips == [] and len(plan.digest) == 64
        assert replace(plan, reason="another").digest != plan.digest


def test_a_changed_world_expires_an_approved_plan(tmp_path):
    with fraud(tmp_path, mode="approve") as desk:
        drilled(desk)
        spoiled(desk)
        desk.look()
        run = desk.respond()
        assert run.state == "awaiting"
        desk.server.loaded, desk.server.served = ("1", "2", "3"), "3"
        verbs.approve(desk.world, run.id, "ada")
        run = desk.respond()
        assert run.state == "expired" and desk.server.flips == []


def test_after_a_drill_the_record_names_the_version_that_really_serves(tmp_path):
    with fraud(tmp_path) as desk:
        drilled(desk)
        with desk.world.store.read() as ledger:
            assert ledger.served_now("fraud").version == desk.server.served == "1"


def test_an_unknown_parameter_of_a_runbook_is_refused_with_a_suggestion(tmp_path):
    with fraud(tmp_path) as desk, pytest.raises(PlanError, match="did you mean 'patience'"):
        drilled(desk)
        verbs.start(desk.world, "rollback", "fraud", {"patienc": "5s"}, "ada", dry_run=True)


def test_a_run_that_was_restarted_too_often_is_parked_and_paged(tmp_path):
    with fraud(tmp_path) as desk:
        drilled(desk)
        spoiled(desk)
        desk.look()
        with desk.world.store.read() as ledger:
            (run,) = ledger.runs(active_only=True)
        desk.world.store.write(lambda ledger: ledger.save_run(replace(run, state="running")))
        for _ in range(4):
            desk.responder.recover()
        with desk.world.store.read() as ledger:
            parked = ledger.run(run.id)
            assert parked.state == "stuck" and "restarts" in parked.said
            assert any("stuck" in letter["key"] for letter in ledger.letters())


def test_a_router_that_may_only_be_looked_at_is_refused_while_planning(tmp_path):
    with fraud(tmp_path) as desk:
        drilled(desk)
        path = tmp_path / "watchkeeper.yaml"
        router = f"router: pointer+{desk.server.address}"
        path.write_text(path.read_text().replace(router, f"router: {{url: pointer+{desk.server.address}, auth: {{look: {{bearer: x}}}}}}"))
        desk.world.use(config.load(path))
        with pytest.raises(PlanError, match=r"router\.auth\.act"):
            verbs.start(desk.world, "rollback", "fraud", {}, "ada", dry_run=True)


@pytest.mark.parametrize(("undo", "state", "flips"), [(True, "done", ["1"]), (False, "failed", [])])
def test_a_step_is_tried_to_be_taken_back_once_however_late_it_is_and_begun_only_in_its_time(tmp_path, undo, state, flips):
    """What held the run up, such as a disk that was full, is no reason to leave what it changed as it is."""
    with fraud(tmp_path) as desk:
        drilled(desk)
        spoiled(desk)
        with desk.world.store.read() as ledger:
            (run,) = ledger.runs()
        long_ago = desk.world.clock() - timedelta(hours=1)
        row = StepRow(0, "flip", "router.point", "intended", undo=undo, args={"to": "1"}, before="2", intended_at=long_ago)
        desk.server.flips.clear()
        action = actions.find(desk.world, desk.world.service("fraud"), "router.point")
        moved, again = carry(desk.world, run, action, row, {"to": "1"}, timedelta(seconds=2), ())
        assert (moved.state, again, desk.server.flips) == (state, None, flips), moved.said
