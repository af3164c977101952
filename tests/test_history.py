"""The checker of recorded histories: it finds nothing in a good one, and in one that was altered just what was altered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from agent.model import Event
from tests import history
from tests.fraud import Desk, drilled, fraud, spoiled
from tests.history import History

KNOWN = {"patience": {"fraud/serving.parity": 1}}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> History:
    """A drill, and version 2 deployed and rolled back twice; each incident resolved."""
    with fraud(tmp_path_factory.mktemp("history")) as desk:
        drilled(desk)
        for _ in range(2):
            _rolled_back(desk)
        return history.read(desk.world.store, effects=tuple(desk.server.moves), stands=desk.server.served, **KNOWN)


def _rolled_back(desk: Desk) -> None:
    spoiled(desk)
    desk.look()
    assert desk.respond().state == "succeeded"
    desk.look()
    desk.look()


def test_a_good_history_violates_nothing(good):
    assert history.violations(good) == []
    assert [run.state for run in good.runs] == ["succeeded"] * 3 and [one.state for one in good.incidents] == ["resolved"] * 2
    assert good.effects == ("1", "2", "1", "1") or good.effects == ("2", "1", "1", "1")


# What was altered, and the one invariant that must notice


def last(made: History, kind: str, **values: Any) -> Event:
    return next(e for e in reversed(made.events) if e.kind == kind and all(e.body.get(name) == value for name, value in values.items()))


def without(made: History, gone: Event) -> History:
    return replace(made, events=tuple(event for event in made.events if event is not gone))


def changed(made: History, old: Event, **values: Any) -> History:
    return replace(made, events=tuple(replace(event, **values) if event is old else event for event in made.events))


def after(made: History, place: Event, new: Event) -> History:
    at = made.events.index(place) + 1
    return replace(made, events=(*made.events[:at], new, *made.events[at:]))


def run_changed(made: History, place: int, **values: Any) -> History:
    runs = list(made.runs)
    runs[place] = replace(runs[place], **values)
    return replace(made, runs=tuple(runs))


def a_token_is_used_twice(made: History) -> History:
    began = last(made, "run.began")
    return changed(made, began, body={**began.body, "token": began.body["token"] - 1})


def a_lease_was_never_taken(made: History) -> History:
    began = last(made, "run.began")
    return changed(made, began, body={**began.body, "things": []})


def a_lease_is_taken_from_its_holder(made: History) -> History:
    """The run before lets its lease go only after the next one has taken it."""
    ended, began = [event for event in made.events if event.kind == "run.succeeded"][1], last(made, "run.began")
    return after(without(made, ended), began, ended)


def a_run_is_wanted_twice(made: History) -> History:
    planned = last(made, "run.planned")
    return after(made, planned, replace(planned, kind="run.wanted", run=made.runs[0].id))


def an_effect_is_confirmed_twice(made: History) -> History:
    done = last(made, "step", state="done", action="router.point")
    return after(made, done, done)


def an_effect_is_tried_after_it_was_confirmed(made: History) -> History:
    done, tries = last(made, "step", state="done", action="router.point"), last(made, "step", state="intended", tries=1)
    return after(made, done, replace(tries, body={**tries.body, "tries": 2}))


def the_target_knows_of_one_more_effect(made: History) -> History:
    return replace(made, effects=(*(made.effects or ()), "1"))


def the_target_knows_of_one_effect_less(made: History) -> History:
    return replace(made, effects=(made.effects or ())[:-1])


def a_run_has_no_end(made: History) -> History:
    return without(made, last(made, "run.succeeded"))


def a_run_ends_twice(made: History) -> History:
    ended = last(made, "run.succeeded")
    return after(made, ended, replace(ended, kind="run.stopped"))


def a_run_ends_a_day_late(made: History) -> History:
    ended = made.runs[-1].ended_at
    assert ended
    return run_changed(made, -1, ended_at=ended + timedelta(days=1))


def a_run_goes_on_for_ever(made: History) -> History:
    """It is still running, and something was written down two days later."""
    run, ended = made.runs[-1], last(made, "run.succeeded")
    late = changed(made, made.events[-1], at=made.events[-1].at + timedelta(days=2))
    return run_changed(without(late, ended), -1, state="running", ended_at=None, id=run.id)


def a_stuck_run_is_told_to_nobody(made: History) -> History:
    return run_changed(changed(made, last(made, "run.succeeded"), kind="run.stuck"), -1, state="stuck")


def an_incident_is_gone(made: History) -> History:
    """The row, and all that was found meanwhile, so that only the incident is missed."""
    return replace(made, incidents=made.incidents[:1], findings=())


def an_incident_is_resolved_without_a_word(made: History) -> History:
    return without(made, last(made, "incident.resolved"))


def an_incident_waits_for_nothing(made: History) -> History:
    open_ = replace(made.incidents[-1], state="open", resolved_at=None)
    return replace(an_incident_is_resolved_without_a_word(made), incidents=(*made.incidents[:-1], open_))


def nobody_is_told(made: History) -> History:
    return replace(made, letters=())


def a_letter_is_dropped_without_a_reason(made: History) -> History:
    return replace(made, letters=({**made.letters[0], "state": "dropped", "error": ""}, *made.letters[1:]))


def two_incidents_are_open(made: History) -> History:
    resolved, opened = made.first("incident.resolved"), last(made, "incident.opened")
    assert resolved
    return after(without(made, resolved), opened, resolved)


def there_was_no_drill(made: History) -> History:
    return run_changed(made, 0, drill=False)


def the_approval_is_somebody_elses(made: History) -> History:
    return changed(made, last(made, "run.began"), what="approved by eve")


def the_plan_is_another_one(made: History) -> History:
    planned = last(made, "run.planned")
    return changed(made, planned, body={"digest": "0" * 64})


def automatic_action_was_halted(made: History) -> History:
    planned = last(made, "run.planned")
    return after(made, planned, replace(planned, kind="halt", run=None, at=made.runs[-1].wanted_at - timedelta(seconds=1)))


def the_traffic_goes_to_a_version_that_was_not_good(made: History) -> History:
    good = made.first("good")
    assert good and good.body["version"] == "1"
    return without(made, good)


def the_traffic_is_somewhere_else(made: History) -> History:
    return replace(made, stands="3")


def what_stopped_had_an_effect(made: History) -> History:
    return run_changed(changed(made, last(made, "run.succeeded"), kind="run.stopped"), -1, state="stopped")


def a_fail_is_in_no_incident(made: History) -> History:
    return replace(made, incidents=tuple(replace(one, members=()) for one in made.incidents))


ALTERED: tuple[tuple[str, Callable[[History], History]], ...] = (
    ("I1", a_token_is_used_twice),
    ("I1", a_lease_was_never_taken),
    ("I1", a_lease_is_taken_from_its_holder),
    ("I1", a_run_is_wanted_twice),
    ("I2", an_effect_is_confirmed_twice),
    ("I2", an_effect_is_tried_after_it_was_confirmed),
    ("I2", the_target_knows_of_one_more_effect),
    ("I2", the_target_knows_of_one_effect_less),
    ("I3", a_run_has_no_end),
    ("I3", a_run_ends_twice),
    ("I3", a_run_ends_a_day_late),
    ("I3", a_run_goes_on_for_ever),
    ("I3", a_stuck_run_is_told_to_nobody),
    ("I4", an_incident_is_gone),
    ("I4", an_incident_is_resolved_without_a_word),
    ("I4", an_incident_waits_for_nothing),
    ("I4", nobody_is_told),
    ("I4", a_letter_is_dropped_without_a_reason),
    ("I5", two_incidents_are_open),
    ("I6", there_was_no_drill),
    ("I6", the_approval_is_somebody_elses),
    ("I6", the_plan_is_another_one),
    ("I6", automatic_action_was_halted),
    ("I7", the_traffic_goes_to_a_version_that_was_not_good),
    ("I7", the_traffic_is_somewhere_else),
    ("I7", what_stopped_had_an_effect),
    ("I8", a_fail_is_in_no_incident),
)


@pytest.mark.parametrize(("name", "alter"), ALTERED, ids=lambda one: one if isinstance(one, str) else one.__name__)
def test_what_was_altered_is_named_and_nothing_else(good, name, alter):
    found = history.violations(alter(good))
    assert found and {said.split(":")[0] for said in found} == {name}, found


def test_every_invariant_is_violated_once_here():
    assert {name for name, _ in ALTERED} == set(history.INVARIANTS)
