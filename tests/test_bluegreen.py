"""The blue-green runbook: all of the traffic at once, and back in one move while the old version still stands by."""

from __future__ import annotations

import pytest

from agent import verbs
from agent.errors import PlanError
from tests.fraud import Desk
from tests.rollout import splitting


def green(desk: Desk, **given):
    run = verbs.start(desk.world, "bluegreen", "fraud", given, "ada")
    ticked(desk, 4, 0.3)
    return run


def ticked(desk: Desk, times: int, seconds: float = 5.0) -> None:
    for _ in range(times):
        for future in desk.responder.tick(desk.world.clock()):
            future.result(30)
        desk.later(seconds)


def looked(desk: Desk) -> None:
    desk.look("serving.ready")
    desk.look()


def test_it_switches_at_once_and_is_done_when_all_stayed_well(tmp_path):
    with splitting(tmp_path) as desk:
        looked(desk)
        green(desk, soak="10m")
        assert desk.server.flips == ["3"]
        desk.later(601)
        looked(desk)
        run = desk.respond()
        assert run.state == "succeeded" and "fraud/serving.parity and fraud/serving.ready stayed ok for 10m" in run.said
        assert desk.server.flips == ["3"] and (tmp_path / "models" / "force").read_text() == "3"


def test_a_watch_that_turns_bad_while_it_soaks_takes_the_traffic_back(tmp_path):
    with splitting(tmp_path, mode="observe") as desk:
        looked(desk)
        green(desk, soak="10m")
        desk.server.factors["3"] = 9.0
        desk.see()
        assert desk.look().status == "fail"
        for _ in range(4):
            desk.respond()
        with desk.world.store.read() as ledger:
            run = next(run for run in ledger.runs() if run.runbook == "bluegreen")
        assert run.state == "compensated" and "soak: fraud/serving.parity: version 3 answers 1 of 1 golden rows otherwise" in run.said
        assert desk.server.flips == ["3", "1"]


def test_a_soak_in_which_nobody_looked_proves_nothing(tmp_path):
    with splitting(tmp_path) as desk:
        looked(desk)
        green(desk, soak="5s")
        run = desk.respond()
        assert run.state == "compensated" and "fraud/serving.parity and fraud/serving.ready has not been seen ok since it began" in run.said
        assert desk.server.flips == ["3", "1"]


def test_the_watches_can_be_named(tmp_path):
    with splitting(tmp_path) as desk:
        plan = verbs.start(desk.world, "bluegreen", "fraud", {"watches": ["serving.ready"]}, "ada", dry_run=True)
        assert plan.steps[3].args["watches"] == ["fraud/serving.ready"]
        with pytest.raises(PlanError, match="no watch of fraud would notice"):
            verbs.start(desk.world, "bluegreen", "fraud", {"watches": []}, "ada", dry_run=True)
        with pytest.raises(PlanError, match=r"no watch 'fraud/serving.redy'; did you mean 'fraud/serving.ready'\?"):
            verbs.start(desk.world, "bluegreen", "fraud", {"watches": ["serving.redy"]}, "ada", dry_run=True)


def test_a_drill_switches_and_goes_back(tmp_path):
    with splitting(tmp_path) as desk:
        verbs.start(desk.world, "bluegreen", "fraud", {}, "ada", drill=True)
        run = desk.respond()
        assert run.state == "succeeded" and desk.server.flips == ["3", "1"] and not (tmp_path / "models" / "force").exists()


# The registry's word, which nothing waits for


def test_a_rollback_tells_the_registry_which_version_is_in_force(tmp_path):
    with splitting(tmp_path) as desk:
        desk.server.served = "3"
        verbs.start(desk.world, "rollback", "fraud", {"to": "1"}, "ada")
        (tmp_path / "models" / "force").write_text("2")
        verbs.good(desk.world, "fraud", "2", "ada")
        run = desk.respond()
        assert run.state == "succeeded" and (tmp_path / "models" / "force").read_text() == "1"
        with desk.world.store.read() as ledger:
            assert [version for version, _, _ in ledger.goods("fraud")] == ["2"], "what the registry named was not what was rolled back from"
        assert sorted(run.plan.seen) == ["router.point"], "it waits for no registry, and takes nobody's lease on one"


def test_a_rollback_goes_on_without_a_registry_that_is_away(tmp_path):
    with splitting(tmp_path) as desk:
        desk.server.served = "3"
        (tmp_path / "models" / "away").touch()
        verbs.start(desk.world, "rollback", "fraud", {"to": "1"}, "ada")
        run = desk.respond()
        assert run.state == "succeeded" and desk.server.flips == ["1"]
        assert [(row.name, row.state) for row in run.steps][-1] == ("record", "passed over") and "the registry is away" in run.steps[-1].said


def test_a_drill_of_a_rollback_leaves_the_registry_alone(tmp_path):
    with splitting(tmp_path) as desk:
        desk.server.served = "3"
        verbs.good(desk.world, "fraud", "1", "ada")
        verbs.start(desk.world, "rollback", "fraud", {}, "ada", drill=True)
        assert desk.respond().state == "succeeded" and desk.server.flips == ["1", "3"]
        assert not (tmp_path / "models" / "force").exists()
