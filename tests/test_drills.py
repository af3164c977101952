"""Drills: live only where somebody said so, bounded, taken back at once when a watch says so, and filed with the time of each step."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta

import pytest

from agent import config, drills, verbs
from agent.errors import ConfigError, PlanError
from tests import haproxy
from tests.conftest import need
from tests.fraud import fraud
from tests.plugin_box import install

LIVE = "drills: {live: true}"


def again(desk, tmp_path, *changes):
    """Use the configuration with these changes of its text."""
    path = tmp_path / "watchkeeper.yaml"
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    desk.world.use(config.load(path))


@contextmanager
def drilling(tmp_path, terms=LIVE):
    """The service, where both versions are good, under these terms."""
    with fraud(tmp_path) as desk:
        again(desk, tmp_path, (LIVE, terms))
        for version in ("1", "2"):
            verbs.good(desk.world, "fraud", version, "ada")
        desk.see()
        desk.look("serving.ready")
        desk.look()
        yield desk


def drill(desk, live=False):
    run = verbs.start(desk.world, "rollback", "fraud", {}, "ada", drill=True, live=live)
    desk.respond()
    with desk.world.store.read() as ledger:
        return ledger.run(run.id)


def told(desk):
    with desk.world.store.read() as ledger:
        return next(one for one in drills.told(desk.world.config, ledger, ["fraud"], desk.world.clock()) if one["runbook"] == "rollback")


def test_nobodys_users_are_part_of_a_drill_unless_somebody_said_so(tmp_path):
    with drilling(tmp_path, "drills: {}") as desk:
        with pytest.raises(PlanError, match=r"its users are part of it. Say so with --live"):
            drill(desk)
        assert desk.server.flips == []
        assert verbs.start(desk.world, "rollback", "fraud", {}, "ada", drill=True, dry_run=True).steps, "a plan moves nothing"
        assert drill(desk, live=True).state == "succeeded" and desk.server.flips == ["2", "1"]


def test_there_is_no_drill_in_the_middle_of_an_incident(tmp_path):
    with drilling(tmp_path) as desk:
        desk.server.factors["1"] = 5.0
        desk.look()
        desk.respond()
        with pytest.raises(PlanError, match="drill when it is over"):
            drill(desk)


def test_a_freeze_holds_a_drill_though_not_a_rollback(tmp_path):
    with drilling(tmp_path) as desk:
        now = desk.world.clock()
        until = f"freeze: [{{from: {now.isoformat()}, to: {(now + timedelta(minutes=10)).isoformat()}, why: a sale}}]"
        again(desk, tmp_path, (LIVE, f"{LIVE}\n    {until}"))
        verbs.start(desk.world, "rollback", "fraud", {}, "ada", drill=True)
        for _ in range(3):
            for future in desk.responder.tick(desk.world.clock()):
                future.result(30)
            desk.later(2)
        assert desk.server.flips == [] and any("a sale" in what for what in desk.events("run"))
        desk.later(600)
        assert desk.respond().state == "succeeded"


def test_a_drill_leaves_the_time_of_each_step_in_the_sealed_record(tmp_path):
    with drilling(tmp_path) as desk:
        run = drill(desk)
        with desk.world.store.read() as ledger:
            (event,) = ledger.events("run.succeeded")
        assert event.body["drill"] is True and event.body["by"] == "ada" and event.body["digest"] == run.plan.digest
        assert [step["name"] for step in event.body["steps"]] == ["preflight", "flip", "look", "undo flip"]
        assert all(0 <= step["seconds"] < 60 for step in event.body["steps"])


def test_a_drill_is_not_begun_when_a_watch_that_must_stay_ok_is_not(tmp_path):
    with drilling(tmp_path, "drills: {live: true, abort_on: [serving.parity]}") as desk:
        desk.server.factors["1"] = 5.0
        run = drill(desk)
        assert run.state == "stopped" and "declined at well before" in run.said and desk.server.flips == []


def test_a_drill_is_taken_back_at_once_when_a_watch_fails_while_it_is_held(tmp_path):
    with drilling(tmp_path, "drills: {live: true, hold: 5m, abort_on: [serving.parity]}") as desk:
        verbs.start(desk.world, "rollback", "fraud", {}, "ada", drill=True)
        for _ in range(30):
            for future in desk.responder.tick(desk.world.clock()):
                future.result(30)
            desk.later(1)
            if desk.server.flips:
                break
        desk.server.factors["2"] = 5.0
        run = desk.respond()
        assert run.state == "compensated" and "serving.parity fail" in run.said and desk.server.flips == ["2", "1"]
        assert told(desk)["state"] == "never" and "compensated" in told(desk)["last"]["state"]


def test_a_drill_is_held_as_long_as_the_service_says(tmp_path):
    with drilling(tmp_path, "drills: {live: true, hold: 1m, abort_on: [serving.parity]}") as desk:
        began = desk.world.clock()
        run = drill(desk)
        assert run.state == "succeeded" and desk.world.clock() - began > timedelta(minutes=1), run.said
        assert [step.name for step in run.plan.steps] == ["well before", "preflight", "flip", "look", "held"]


def test_a_drill_is_due_again_after_ninety_days(tmp_path):
    with drilling(tmp_path) as desk:
        assert (told(desk)["state"], told(desk)["due_at"]) == ("never", None)
        run = drill(desk)
        one = told(desk)
        assert (one["state"], one["by"], one["run"]) == ("drilled", "ada", run.id)
        assert [step["name"] for step in one["steps"]] == ["preflight", "flip", "look", "undo flip"]
        desk.later(timedelta(days=90, seconds=1).total_seconds())
        assert told(desk)["state"] == "overdue"


def test_only_runbooks_that_have_their_targets_are_told_of(tmp_path):
    with drilling(tmp_path) as desk, desk.world.store.read() as ledger:
        names = [one["runbook"] for one in drills.told(desk.world.config, ledger, ["fraud"], desk.world.clock())]
        assert "rollback" in names and "quarantine" not in names and "restart" not in names


# How much of the traffic


ALL = """
    from datetime import timedelta
    from agent import Router, Step, runbook

    @runbook(asks="Move all of it?")
    def everything(router: Router) -> tuple[Step, ...]:
        \"\"\"Knows no share.\"\"\"
        return (Step("flip", "router.point", {"to": "2"}, timedelta(seconds=10)),)
"""


def test_what_cannot_keep_to_a_share_of_the_traffic_is_refused(tmp_path):
    with install(tmp_path, {"everything": ALL}, kind="runbook"), drilling(tmp_path, "drills: {live: true, most: 0.1}") as desk:
        with pytest.raises(PlanError, match=r"the router of fraud cannot move 10% of the traffic"):
            verbs.start(desk.world, "rollback", "fraud", {}, "ada", drill=True, dry_run=True)
        with pytest.raises(PlanError, match=r"everything moves more than the 10% of the traffic"):
            verbs.start(desk.world, "everything", "fraud", {}, "ada", drill=True, dry_run=True)
        flip = verbs.start(desk.world, "rollback", "fraud", {}, "ada", dry_run=True).steps[1]
        assert flip.args == {"to": "2"}, "a rollback that is none is not held to it"


def test_a_drill_moves_no_more_than_its_share_and_gives_it_back(tmp_path):
    with haproxy.standing(need("haproxy"), tmp_path) as box, drilling(tmp_path, "drills: {live: true, most: 0.1, hold: 2s}") as desk:
        place = f"{{url: 'haproxy+unix:{box.folder}/admin.sock', backend: fraud, versions: {{'1': v1, '2': v2}}}}"
        again(desk, tmp_path, (f"router: pointer+{desk.server.address}", f"router: {place}"))
        haproxy.say(box.folder / "admin.sock", "set server fraud/v2 weight 0")
        desk.world.served.clear()
        desk.see()
        run = drill(desk)
        assert run.state == "succeeded", run.said
        assert run.plan.steps[1].args == {"to": {"1": 0.9, "2": pytest.approx(0.1)}}
        assert run.steps[1].output["to"] == {"1": pytest.approx(0.9, abs=0.005), "2": pytest.approx(0.1, abs=0.005)}
        with desk.world.connections(desk.world.service("fraud").targets["router"]) as router:
            assert router.served() == {"1": 1.0}


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ("drills: {abort_on: [serving.party]}", "no watch 'serving.party'; did you mean 'serving.parity'?"),
        ("drills: {most: 0}", "most"),
        ("drills: {most: 1.5}", "most"),
        ("drills: {between: noon}", "between"),
    ],
)
def test_terms_that_cannot_be_are_told_with_their_place(tmp_path, terms, said):
    with fraud(tmp_path) as desk, pytest.raises(ConfigError) as problem:
        again(desk, tmp_path, (LIVE, terms))
    assert said in str(problem.value) and "watchkeeper.yaml:" in str(problem.value)
