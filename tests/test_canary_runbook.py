"""The canary runbook: more and more of the traffic as long as it is shown to be no worse, and all of it back in one move when it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent import verbs
from agent.errors import PlanError, PluginError
from agent.model import Run
from tests.fraud import Desk
from tests.rollout import splitting

SHARES = [{"1": 0.95, "3": 0.05}, {"1": 0.75, "3": 0.25}, {"1": 0.5, "3": 0.5}]


@contextmanager
def canary(folder: Path, say: str = "good", **by_margin: str) -> Iterator[Desk]:
    with splitting(folder) as desk:
        said(folder, say, **by_margin)
        verbs.good(desk.world, "fraud", "1", "ada")
        desk.see()
        yield desk


def said(folder: Path, word: str, **by_margin: str) -> None:
    told = {margin.removeprefix("at_").replace("_", "."): one for margin, one in by_margin.items()}
    (folder / "said.json").write_text(json.dumps({"else": word, **told}))


def begun(desk: Desk, **given: Any) -> Run:
    given = {"judge": "judged.compare", "compare": {"file": str(desk.folder / "said.json")}, **given}
    made = verbs.start(desk.world, "canary", "fraud", given, "ada")
    assert isinstance(made, Run)
    return made


def ticked(desk: Desk, times: int, seconds: float = 5.0) -> None:
    for _ in range(times):
        for future in desk.responder.tick(desk.world.clock()):
            future.result(30)
        desk.later(seconds)


def latest(desk: Desk, number: int) -> Run:
    with desk.world.store.read() as ledger:
        run = ledger.run(number)
    assert run is not None
    return run


def test_a_version_that_is_no_worse_gets_more_and_more_and_at_last_all(tmp_path):
    with canary(tmp_path) as desk:
        begun(desk)
        run = desk.respond()
        assert run.state == "succeeded" and "version 3 is served" in run.said, run.said
        assert desk.server.flips == [*SHARES, "3"] and (tmp_path / "models" / "force").read_text() == "3"
        assert [step.name for step in run.plan.steps] == [
            "preflight", "give-5", "hold-5", "give-25", "hold-25", "give-50", "hold-50", "promote", "look", "record",
        ]  # fmt: skip


def test_no_more_than_the_margin_of_all_requests_may_be_harmed_by_the_next_share(tmp_path):
    with canary(tmp_path) as desk:
        plan = verbs.start(desk.world, "canary", "fraud", {"judge": "judged.compare", "compare": {"file": "x"}}, "ada", dry_run=True)
        holds = [step.args["with"] for step in plan.steps if step.action == "check.hold"]
        assert [hold["margins"]["errors"] for hold in holds] == [0.02, 0.01, 0.005]
        assert [hold["margins"]["predictions"] for hold in holds] == [0.2, 0.1, 0.05]
        assert sum(hold["alpha"] for hold in holds) == pytest.approx(0.01)
        assert {(hold["baseline"], hold["candidate"]) for hold in holds} == {("1", "3")}


def test_harm_at_any_share_takes_all_traffic_back_in_one_move(tmp_path):
    with canary(tmp_path, at_0_01="bad") as desk:
        begun(desk)
        run = desk.respond()
        assert run.state == "compensated" and "hold-25: bad: 3 beside 1" in run.said
        assert desk.server.flips == [*SHARES[:2], "1"], "straight to the oldest, not through 5 %"


def test_what_is_not_known_in_time_is_no_yes(tmp_path):
    with canary(tmp_path, "hold") as desk:
        begun(desk, longest="5m")
        run = desk.respond()
        assert run.state == "compensated" and "hold-5: could not be told within 300 s: nodata: hold: 3 beside 1" in run.said
        assert desk.server.flips == [SHARES[0], "1"]


def test_a_version_that_is_not_well_gets_nothing(tmp_path):
    with canary(tmp_path) as desk:
        desk.server.factors["3"] = 9.0
        begun(desk)
        run = desk.respond()
        assert run.state == "stopped" and "version 3 is not well" in run.said and desk.server.flips == []


def test_a_version_that_is_worse_than_its_golden_rows_with_all_the_traffic_loses_it(tmp_path):
    with canary(tmp_path) as desk:
        desk.server.mood = lambda method, path: (500, {}) if desk.server.flips[-1:] == ["3"] and path == "/v2/models/m/infer" else None
        begun(desk)
        run = desk.respond()
        assert run.state == "compensated" and desk.server.flips == [*SHARES, "3", "1"]


def test_every_hold_has_evidence_of_its_own(tmp_path):
    with canary(tmp_path, "hold") as desk:
        run = begun(desk)
        ticked(desk, 8)
        said(tmp_path, "good")
        done = desk.respond()
        reasons = [row.output["reason"] for row in done.steps if row.action == "check.hold"]
        assert reasons[0].startswith("good: 3 beside 1, look ") and reasons[0] != reasons[1]
        assert reasons[1:] == ["good: 3 beside 1, look 1"] * 2
        with desk.world.store.read() as ledger:
            assert [ledger.findings(watch=f"fraud/hold-{share}@run-{run.id}", limit=1)[0].version for share in (5, 25, 50)] == [None] * 3


# Others who move the traffic


def test_a_rollback_in_the_middle_supersedes_it_and_the_traffic_ends_at_the_last_known_good(tmp_path):
    with canary(tmp_path, at_0_01="hold") as desk:
        run = begun(desk)
        ticked(desk, 6)
        assert latest(desk, run.id).state == "running" and desk.server.flips == SHARES[:2]
        verbs.good(desk.world, "fraud", "3", "ada")  # the newest word, and yet not where to go back to
        verbs.start(desk.world, "rollback", "fraud", {}, "eve")
        rolled = desk.respond()
        assert (rolled.runbook, rolled.state) == ("rollback", "succeeded"), rolled.said
        assert latest(desk, run.id).state == "superseded" and not any(row.undo for row in latest(desk, run.id).steps)
        ticked(desk, 3)
        assert desk.server.flips == [*SHARES[:2], "1"] and desk.server.shares is None
        with desk.world.store.read() as ledger:
            assert [version for version, _, _ in ledger.goods("fraud")] == ["1"], "what had a part of the traffic was rolled back from"


def test_what_a_person_moved_in_the_middle_is_left_where_they_put_it(tmp_path):
    with canary(tmp_path, "hold") as desk:
        begun(desk)
        ticked(desk, 3)
        desk.server.shares = {"1": 0.8, "3": 0.2}
        said(tmp_path, "good")
        run = desk.respond()
        assert run.state == "stuck" and "what give-5 did does not stand any more" in run.said
        assert desk.server.flips == SHARES[:1] and desk.server.shares == {"1": 0.8, "3": 0.2}


def test_a_person_who_took_it_all_back_in_the_middle_ends_it(tmp_path):
    with canary(tmp_path, "hold") as desk:
        begun(desk)
        ticked(desk, 3)
        desk.server.shares = None
        said(tmp_path, "good")
        run = desk.respond()
        assert run.state == "compensated" and desk.server.flips == SHARES[:1] and desk.server.shares is None


def test_a_share_that_the_router_refuses_is_taken_back_from_the_one_before(tmp_path):
    with canary(tmp_path) as desk:
        refusals = iter([(503, {})] * 3)
        desk.server.mood = lambda method, path: (
            next(refusals, None) if (method, desk.server.flips) == ("POST", SHARES[:1]) and "pointer" in path else None
        )
        begun(desk)
        run = desk.respond()
        assert run.state == "compensated" and "give-25: tried 3 times" in run.said
        assert desk.server.flips == [SHARES[0], "1"]


def test_a_router_that_does_not_answer_for_a_moment_takes_nothing_back(tmp_path):
    with canary(tmp_path) as desk:
        refusals = iter([(503, {})] * 4)
        desk.server.mood = lambda method, path: (
            next(refusals, None) if (method, desk.server.flips) == ("GET", SHARES[:1]) and "pointer" in path else None
        )
        begun(desk)
        assert desk.respond().state == "succeeded" and next(refusals, None) is None


# What is served while traffic is split


def test_a_version_with_a_part_of_the_traffic_serves_only_once_it_has_replaced_the_old_one(tmp_path):
    with canary(tmp_path, "hold", at_0_02="good", at_0_01="good") as desk:
        begun(desk)
        ticked(desk, 12)
        assert desk.server.flips[-1] == SHARES[2]
        for _ in range(3):
            desk.later(700)
            desk.look("serving.ready")
            found = desk.look()
            desk.see()
        assert found.version is None and desk.world.served["fraud"] == "1", "what is seen now can be blamed on no version"
        with desk.world.store.read() as ledger:
            assert [version for version, _, _ in ledger.goods("fraud")] == ["1"], "half of the traffic makes no version good"
        said(tmp_path, "good")
        assert desk.respond().state == "succeeded" and desk.world.served["fraud"] == "3"
        assert desk.events("change.version") == ["version 3 serves instead of 1"]
        assert "traffic is split 1 50%, 3 50%" in desk.events("change.weights")


def test_a_bad_canary_that_a_watch_sees_is_rolled_back_to_the_version_that_the_others_still_get(tmp_path):
    """While traffic is split a fail names no version, so the old one stays the way back."""
    with canary(tmp_path, "hold") as desk:
        begun(desk)
        ticked(desk, 2)
        desk.see()
        wrong = {"model_version": "1", "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [3.0, 6.0]}]}
        desk.server.mood = lambda method, path: (200, wrong) if path == "/v2/models/m/infer" and desk.server.shares else None
        assert desk.look().status == "fail"
        with desk.world.store.read() as ledger:
            rollback = ledger.runs()[0]
        assert rollback.runbook == "rollback" and "it began at a version change (traffic is split 1 95%, 3 5%)" in rollback.reason
        assert desk.respond().state == "awaiting", "no drill of it has succeeded yet"
        verbs.approve(desk.world, rollback.id, "ada")
        assert desk.respond().state == "succeeded" and desk.server.flips == [SHARES[0], "1"]


# Planning


def test_a_drill_gives_the_first_share_and_takes_it_back(tmp_path):
    with canary(tmp_path, "hold") as desk:
        given = {"judge": "judged.compare"}
        verbs.start(desk.world, "canary", "fraud", given, "ada", drill=True)
        run = desk.respond()
        assert run.state == "succeeded" and desk.server.flips == [SHARES[0], "1"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"steps": []}, "should rise"),
        ({"steps": [0.5, 0.25]}, "should rise"),
        ({"steps": [0.001]}, "should rise"),
        ({"steps": [0.5, 1.0]}, "should rise"),
        ({"to": "1"}, "already has the traffic"),
        ({"margins": {"errors": 0}}, "are shares"),
        ({"alpha": 0}, "are shares"),
        ({"steps": [float("nan")]}, "should rise"),
        ({"steps": "many"}, "canary: "),
        ({"every": 0}, "must be a duration"),
        ({"compare": {"file": "x", "margins": {}}}, "leave it out"),
        ({"judge": "judged.compere"}, "no check 'judged.compere'"),
        ({"compare": {"file": "x", "fil": "x"}}, "with.fil: judged.compare has no parameter 'fil'; did you mean 'file'"),
        ({"compare": {"file": 3}}, "with.file: "),
        ({"compare": {}}, "judged.compare needs with.file"),
    ],
)
def test_a_canary_that_cannot_be_meant_is_refused_while_planning(tmp_path, given, said):
    with canary(tmp_path) as desk:
        given = {"judge": "judged.compare", "compare": {"file": "x"}, **given}
        with pytest.raises((PlanError, PluginError), match=said):
            verbs.start(desk.world, "canary", "fraud", given, "ada", dry_run=True)


def test_traffic_that_is_split_already_is_refused(tmp_path):
    with canary(tmp_path) as desk:
        desk.server.shares = {"1": 0.9, "2": 0.1}
        with pytest.raises(PlanError, match=r"split already \(1 90%, 2 10%\)"):
            verbs.start(desk.world, "canary", "fraud", {}, "ada", dry_run=True)


def test_without_a_registry_the_version_must_be_named():
    from runbooks._rollout import newer

    with pytest.raises(PlanError, match="say which version"):
        newer("fraud", "1", None, None)
    assert newer("fraud", "1", "2", None) == "2"


def test_a_hold_waits_as_often_as_it_is_told(tmp_path):
    with canary(tmp_path) as desk:
        plan = verbs.start(
            desk.world, "canary", "fraud", {"judge": "judged.compare", "compare": {"file": "x"}, "every": "1m", "longest": "2h"}, "ada", dry_run=True
        )
        hold = plan.steps[2]
        assert (hold.args["every"], hold.within) == (60.0, timedelta(hours=2))
