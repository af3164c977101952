"""Upgrades in the middle of a run: what another version wrote is followed as it was meant, or not at all."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import verbs
from agent._ledger import _plan
from agent.model import Run, to_json
from tests.fraud import Desk, drilled, fraud, spoiled

Change = Callable[[dict[str, Any]], object]


def changed(path: Path, change: Change, run: int) -> None:
    """The plan of a run, as if another version had written it."""
    with closing(sqlite3.connect(path)) as store, store:
        (text,) = store.execute("SELECT plan FROM run WHERE id = ?", (run,)).fetchone()
        plan = json.loads(text)
        change(plan)
        store.execute("UPDATE run SET plan = ? WHERE id = ?", (json.dumps(plan), run))


def written(path: Path, run: int) -> Any:
    with closing(sqlite3.connect(path)) as store:
        return json.loads(store.execute("SELECT plan FROM run WHERE id = ?", (run,)).fetchone()[0])


def waiting(desk: Desk) -> Run:
    """A rollback that was planned, and waits for a person."""
    drilled(desk)
    spoiled(desk)
    desk.look()
    run = desk.respond()
    assert run.state == "awaiting" and run.plan is not None
    return run


def steps(change: Change) -> Change:
    return lambda plan: [change(step) for step in plan["steps"]]


OTHER_SHAPES: dict[str, Change] = {
    "no within": steps(lambda step: step.pop("within")),
    "within as text": steps(lambda step: step.update(within="10s")),
    "another word for otherwise": steps(lambda step: step.update(otherwise="continue")),
    "another word for unseen": steps(lambda step: step.update(unseen="go on")),
    "a field that says more": steps(lambda step: step.update(unless="version 3 is served")),
    "a reason left out": steps(lambda step: step.pop("why")),
    "steps by name": lambda plan: plan.update(steps={step["name"]: step for step in plan["steps"]}),
    "args as a list": steps(lambda step: step.update(args=list(step["args"]))),
    "no seen": lambda plan: plan.pop("seen"),
    "a time that is none": lambda plan: plan.update(made_at="yesterday"),
    "nothing": lambda plan: plan.clear(),
}


def test_a_plan_of_another_shape_is_stuck_and_paged_and_nothing_is_done(upgraded):
    desk, run = upgraded
    plan = written(desk.world.store.path, run.id)
    for shape, change in OTHER_SHAPES.items():
        changed(desk.world.store.path, lambda now: (now.clear(), now.update(plan)), run.id)
        changed(desk.world.store.path, change, run.id)
        with closing(sqlite3.connect(desk.world.store.path)) as store, store:
            store.execute("UPDATE run SET state = 'awaiting', ended_at = NULL, wake_at = NULL WHERE id = ?", (run.id,))
            store.execute("DELETE FROM letter")
        as_written = written(desk.world.store.path, run.id)
        ended = desk.respond()
        assert ended.state == "stuck" and "another version of Watchkeeper wrote its plan" in ended.said, shape
        assert written(desk.world.store.path, run.id) == as_written != plan, f"{shape}: it stays for whoever looks"
        with desk.world.store.read() as ledger:
            assert [letter["key"] for letter in ledger.letters()] == [f"incident-1/run-{run.id}/stuck"], shape
    assert desk.server.flips == []


@pytest.fixture
def upgraded(tmp_path):
    with fraud(tmp_path, mode="approve") as desk:
        yield desk, waiting(desk)


def test_runs_of_other_services_and_what_can_be_read_go_on_beside_it(upgraded):
    """One plan that cannot be read holds up nobody else, and breaks no list."""
    desk, run = upgraded
    changed(desk.world.store.path, OTHER_SHAPES["nothing"], run.id)
    desk.later(2)
    assert desk.respond().state == "stuck"
    made = verbs.start(desk.world, "rollback", "fraud", {"to": "1"}, "ada")
    assert isinstance(made, Run) and made.id != run.id
    assert desk.respond().state == "succeeded" and desk.server.flips == ["1"]
    with desk.world.store.read() as ledger:
        assert {one.id: one.state for one in ledger.runs()}[run.id] == "stuck"


def test_a_run_under_way_whose_action_is_gone_is_stuck_and_left_as_it_is(tmp_path):
    """It has moved the traffic already: what it would do next is an action that this version does not have."""
    with fraud(tmp_path) as desk:
        drilled(desk)
        desk.server.served = "2"
        desk.see()

        def upgrade_after_the_flip(method: str, path: str) -> None:
            if desk.server.flips == ["1"] and path == "/admin/pointer" and not upgrades:
                upgrades.append(path)
                with closing(sqlite3.connect(desk.world.store.path, timeout=10)) as store, store:
                    (text,) = store.execute("SELECT plan FROM run WHERE state = 'running'").fetchone()
                    store.execute("UPDATE run SET plan = ? WHERE state = 'running'", (text.replace("check.serves", "check.is_served"),))

        upgrades: list[str] = []
        desk.server.mood = upgrade_after_the_flip
        verbs.start(desk.world, "rollback", "fraud", {"to": "1"}, "ada")
        run = desk.respond()
        assert run.state == "stuck" and "no action 'check.is_served'" in run.said, run.said
        assert desk.server.flips == ["1"] and [step.state for step in run.steps if step.name == "flip"] == ["done"]


def test_a_plan_whose_action_is_gone_before_anything_was_changed_changes_nothing(upgraded):
    desk, run = upgraded
    changed(desk.world.store.path, steps(lambda step: step.update(action=step["action"].replace("router.point", "router.aim"))), run.id)
    verbs.approve(desk.world, run.id, "ada")
    ended = desk.respond()
    assert ended.state == "refused" and "cannot 'aim'" in ended.said and desk.server.flips == []


VALUES = st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=4), st.lists(st.integers(), max_size=2), st.just({"from": "a.b"}))
STEP = {"name": "flip", "action": "router.point", "args": {"to": "1"}, "within": 10.0, "otherwise": "undo", "why": "", "unseen": None}
PLAN = {"runbook": "rollback", "service": "fraud", "reason": "asked for", "evidence": [], "seen": {"router.point": "2"}}
TIMES = {"made_at": "2026-03-01T12:00:00+00:00", "good_until": "2026-03-01T13:00:00+00:00", "undo": {}, "aside": []}


@settings(max_examples=60)
@given(st.booleans(), st.sampled_from([*STEP, *PLAN, *TIMES, "new"]), VALUES)
def test_whatever_stands_in_a_plan_it_says_the_same_when_it_is_written_again_or_is_refused(in_step, name, value):
    step = {**STEP, **({name: value} if in_step else {})}
    body = {**PLAN, **TIMES, "steps": [step], **({} if in_step else {name: value})}
    plan, unread = _plan(json.dumps(body), strict=True)
    assert unread or (plan is not None and to_json(plan) == body)


def test_a_plan_as_it_is_written_is_read():
    plan, unread = _plan(json.dumps({**PLAN, **TIMES, "steps": [STEP]}), strict=True)
    assert plan is not None and unread == "" and plan.steps[0].args == {"to": "1"}
