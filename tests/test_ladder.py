"""Whether a run that would have acted was right: the rule over rows, and the report from real stores of a real service."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import Step, ladder, verbs
from agent.ladder import came_right, judge, would_have
from agent.model import Approval, Finding, Member, Plan, Run, Status, StepRow
from tests.fraud import Desk, drilled, fraud, spoiled

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
WATCH = "fraud/serving.parity"


def at(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


def run(number: int = 1, **more: Any) -> Run:
    """A run that looked, found all well, and was then not allowed to flip."""
    steps = (Step("look", "check.passes", {}, timedelta(seconds=1)), Step("flip", "router.point", {"to": "1"}, timedelta(seconds=1)))
    plan = Plan("rollback", "fraud", "x", (), {"router.point": "2"}, steps, NOW, NOW + timedelta(hours=1))
    rows = (StepRow(0, "look", "check.passes", "done"), StepRow(1, "flip", "router.point", "planned"))
    made = Run(number, "rollback", "fraud", "refused", "observe", "watchkeeper", "x fails", NOW, incident=7, trigger=WATCH, plan=plan, steps=rows)
    return replace(made, **more)


def look(minutes: float, status: str, number: int = 0) -> Finding:
    return Finding(number, WATCH, "fraud", "serving.parity", at(minutes), at(minutes), at(minutes), Status(status), "", None, {}, None, "", 0.0)


CLEARED = Member(WATCH, "serving.parity", NOW, "differs", "answers", at(10))
LOOKS = [look(0, "fail"), look(5, "fail"), look(8, "ok", 31), look(10, "ok", 32)]


def served(*changes: tuple[float, str]) -> Callable[[datetime], str | None]:
    """The version at a time, from (minute, version) changes in order."""
    return lambda then: next((version for minute, version in reversed(changes) if at(minute) <= then), None)


# The rule


@pytest.mark.parametrize(
    ("more", "would"),
    [
        ({}, True),
        ({"state": "awaiting", "mode": "approve"}, True),
        ({"state": "expired", "mode": "approve"}, True),
        ({"state": "cancelled", "mode": "suggest"}, True),
        ({"state": "proposed", "mode": "suggest"}, True),
        ({"state": "awaiting", "mode": "auto"}, True),  # auto, and not drilled: it asked
        ({"state": "running", "mode": "auto"}, False),  # it is about to
        ({"state": "proposed", "mode": "auto"}, False),  # halted or frozen
        ({"by": "ada"}, False),
        ({"drill": True}, False),
        ({"plan": None, "steps": ()}, False),
        ({"state": "expired", "mode": "auto"}, False),  # its evidence was stale: it would not have acted either
    ],
)
def test_only_a_run_that_would_have_gone_on_to_change_something_counts(more, would):
    assert would_have(run(**more)) is would


def test_a_run_that_stopped_at_its_own_look_would_not_have_acted():
    rows = run().steps
    assert not would_have(run(state="stopped", steps=(replace(rows[0], state="failed"), rows[1])))
    assert would_have(run(steps=(replace(rows[0], state="passed over"), rows[1])))


def test_a_run_that_acted_is_no_run_that_would_have():
    rows = run().steps
    assert not would_have(run(state="succeeded", steps=(rows[0], replace(rows[1], state="done", tries=1))))


def test_it_was_right_when_the_watch_came_right_only_after_the_version_changed():
    found = judge(run(), [run()], CLEARED, LOOKS, served((-60, "2"), (7, "1")))
    assert (found.mark, found.finding) == ("right", 31)
    assert found.why == "fraud/serving.parity came right once version 1 was served, not 2"


def test_it_was_wrong_when_the_watch_came_right_with_the_version_unchanged():
    found = judge(run(), [run()], CLEARED, LOOKS, served((-60, "2"), (9, "1")))
    assert (found.mark, found.finding) == ("wrong", 31)
    assert found.why == "fraud/serving.parity came right while version 2 was still served"


@pytest.mark.parametrize(
    ("member", "looks", "versions", "why"),
    [
        (None, LOOKS, [(-60, "2")], "has not come right yet"),
        (replace(CLEARED, cleared_at=None), LOOKS, [(-60, "2")], "has not come right yet"),
        (CLEARED, [], [(-60, "2")], "no look is kept"),
        (CLEARED, [look(0, "fail"), look(9, "fail"), look(11, "ok")], [(-60, "2")], "no look is kept"),
        (CLEARED, LOOKS, [], "what was served is not known"),
        (CLEARED, LOOKS, [(1, "2")], "what was served is not known"),
    ],
)
def test_what_cannot_be_said_is_undecided_and_says_why(member, looks, versions, why):
    found = judge(run(), [run()], member, looks, served(*versions))
    assert found.mark == "undecided"
    assert why in found.why


def test_one_good_look_between_bad_ones_is_not_yet_right():
    flicker = [look(0, "fail"), look(2, "ok", 30), look(5, "fail"), look(8, "ok", 31), look(10, "ok", 32)]
    back = came_right(flicker, at(10))
    assert back is not None
    assert back.id == 31


@pytest.mark.parametrize(
    ("more", "mark"),
    [
        ({"by": "ada"}, "right"),
        ({"approvals": (Approval("ada", NOW),)}, "right"),
        ({}, "wrong"),
        ({"by": "ada", "state": "compensated"}, "wrong"),
        ({"by": "ada", "drill": True}, "wrong"),
        ({"by": "ada", "incident": 8}, "wrong"),
        ({"by": "ada", "runbook": "restart"}, "wrong"),
    ],
)
def test_a_person_who_did_the_same_in_that_incident_with_success_says_that_it_was_right(more, mark):
    other = run(2, **{"state": "succeeded", **more})
    found = judge(run(), [other, run()], CLEARED, LOOKS, served((-60, "2")))
    assert found.mark == mark
    assert found.why == "ada ran it (run 2), and it succeeded" or mark == "wrong"


def test_a_run_outside_any_incident_is_not_vouched_for_by_another_outside_any():
    other = run(2, by="ada", state="succeeded", incident=None)
    assert judge(run(incident=None), [other], None, [], served((-60, "2"))).mark == "undecided"


@given(
    st.lists(st.sampled_from(["ok", "warn", "fail", "error", "nodata", "skip"]), max_size=12),
    st.integers(0, 12),
    st.lists(st.tuples(st.integers(-5, 12), st.sampled_from("12")), max_size=4),
)
def test_right_is_said_only_of_a_good_look_at_another_version_and_wrong_only_at_the_same(letters, end, changes):
    looks = [look(n, status, n + 1) for n, status in enumerate(letters)]
    tell = served(*sorted(changes))
    found = judge(run(), [], replace(CLEARED, cleared_at=at(end)), looks, tell)
    if found.mark != "undecided":
        deciding = next(one for one in looks if one.id == found.finding)
        assert deciding.status is Status.OK
        assert deciding.looked_at <= at(end)
        assert not [one for one in looks if deciding.looked_at < one.looked_at <= at(end) and one.status in (Status.FAIL, Status.WARN, Status.ERROR)]
        assert (tell(deciding.looked_at) == tell(NOW)) is (found.mark == "wrong")


# The report, from real stores


def reported(desk: Desk) -> Any:
    with desk.world.store.read() as ledger:
        now = desk.world.clock()
        (told,) = ladder.report(desk.world.config, ledger, ["fraud"], now - ladder.YEAR, now)
    return told


def bad_deploy(desk: Desk) -> Any:
    desk.later(5)
    spoiled(desk)
    desk.see()
    desk.later(1)
    desk.look()
    return desk.respond()


def well_again(desk: Desk) -> None:
    for _ in range(2):
        desk.later(61)
        desk.look()


def test_in_observe_it_would_have_acted_and_was_right_when_people_went_back_by_hand(tmp_path):
    with fraud(tmp_path, mode="observe") as desk:
        drilled(desk)
        assert bad_deploy(desk).state == "refused"
        assert ladder.sentence(reported(desk)["record"][0]) == "in observe it would have acted 1 time; 0 were right, 1 undecided"
        desk.later(30)
        desk.server.served = "1"
        desk.see()
        well_again(desk)
        told = reported(desk)
        assert ladder.sentence(told["record"][0]) == "in observe it would have acted 1 time; 1 was right"
        assert told["judged"][0]["why"] == "fraud/serving.parity came right once version 1 was served, not 2"
        assert (told["mode"], told["drill"]["holds"], told["next"]["mode"]) == ("observe", True, "suggest")
        assert all(need["met"] for need in told["next"]["needs"])


def test_it_was_wrong_where_the_same_version_was_put_right(tmp_path):
    with fraud(tmp_path, mode="observe") as desk:
        drilled(desk)
        bad_deploy(desk)
        desk.server.factors["2"] = 2.0
        well_again(desk)
        told = reported(desk)
        assert told["record"] == [{"mode": "observe", "would": 1, "right": 0, "wrong": 1, "undecided": 0}]
        lacks = [need["what"] for need in told["next"]["needs"] if not need["met"]]
        assert lacks == ["a run that was right, or that acted and succeeded", "no run that was wrong (run 2)"]


def test_a_person_who_rolls_back_by_the_runbook_says_that_it_was_right(tmp_path):
    with fraud(tmp_path, mode="observe") as desk:
        drilled(desk)
        bad_deploy(desk)
        verbs.start(desk.world, "rollback", "fraud", {}, "grace")
        assert desk.respond().state == "succeeded"
        told = reported(desk)
        assert [one["why"] for one in told["judged"]] == ["grace ran it (run 3), and it succeeded"]


def test_what_was_declined_or_has_acted_is_counted_apart(tmp_path):
    with fraud(tmp_path, mode="auto") as desk:
        drilled(desk)
        assert bad_deploy(desk).state == "succeeded"
        told = reported(desk)
        assert (told["acted"], told["record"], told["declined"], told["next"]) == ({"succeeded": 1}, [], 0, None)
        well_again(desk)
        desk.server.factors.update({"1": 3.0, "2": 3.0})
        desk.later(61)
        desk.look()
        run_now = desk.respond()
        assert run_now.state in ("stopped", "refused"), run_now.said
        assert reported(desk)["declined"] == (run_now.state == "stopped")


def test_a_service_whose_runbook_has_never_run_is_told_with_what_it_lacks(tmp_path):
    with fraud(tmp_path, mode="approve") as desk:
        told = reported(desk)
    assert (told["runbook"], told["drill"], told["record"]) == ("rollback", None, [])
    assert [need["what"] for need in told["next"]["needs"] if not need["met"]] == [
        "a run that was right, or that acted and succeeded",
        "a version to go back to",
        "a drill that succeeded within 90 days",
    ]
