"""Runs that are killed, cut off and refused at every place there is, one after the other: the same end, each effect once, a record that proves it.

`make bench ARGS=kills` does the same to all cases in all ways, and 500 times at random.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaign import CASES, PEACE, Case, Outcome, Stage, at_random, each_chance, staged

FLIPPED = 5  # the durable commit that says so: planned, begun, intended and tried come before it
NAMED = {case.name: case for case in CASES}


@pytest.fixture(scope="module")
def rollback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(NAMED["rollback"], tmp_path_factory.mktemp("rollback")) as stage:
        yield stage


def all_of(outcomes: Iterator[Outcome], at_least: int) -> list[Outcome]:
    """So many at least were disturbed, and nothing was wrong with any."""
    found = list(outcomes)
    assert [(str(one.way), one.state, one.wrong) for one in found if one.wrong] == []
    assert sum(one.hit for one in found) >= at_least
    return found


def test_a_rollback_killed_at_any_durable_commit_goes_on_and_flips_once(rollback):
    found = all_of(each_chance(rollback, "killed after commit"), at_least=6)
    assert {(one.state, one.moves) for one in found} == {("succeeded", ("1",))}


@pytest.mark.timeout(300)
def test_a_flip_that_does_not_help_is_taken_back_once_wherever_the_agent_is_killed(tmp_path):
    """From the commit on with which the flip is done; until then it is a rollback like any other."""
    with staged(NAMED["compensation"], tmp_path) as stage:
        found = all_of(each_chance(stage, "killed after commit", first=FLIPPED), at_least=5)
        assert {(one.state, one.moves) for one in found} >= {("compensated", ("1", "2"))}  # a machine may be too slow for one, not for all


def test_an_agent_killed_while_its_target_acts_finds_it_done_and_does_not_repeat_it(rollback):
    """The request has reached the target and has its effect there, and nobody is left to hear the answer."""
    flips = [one for one in all_of(each_chance(rollback, "killed at answer", first=9), at_least=4) if one.hit]
    assert {(one.state, one.moves) for one in flips} == {("succeeded", ("1",))}


def test_a_run_that_waits_for_a_person_waits_on_after_a_kill(tmp_path):
    with staged(NAMED["waiting for a person"], tmp_path) as stage:
        all_of(each_chance(stage, "killed before commit", first=2), at_least=6)


def test_killed_at_any_moment(rollback):
    all_of(at_random(rollback, 6, seed=0), at_least=0)  # whether a kill lands while it acts is up to the machine


# The n-th thing fails, for n = 1, 2, 3 and so on until a whole rollback passes


@pytest.mark.timeout(300)
def test_a_rollback_waits_for_room_wherever_the_disk_is_full_for_a_moment(rollback):
    all_of(each_chance(rollback, "no room at commit"), at_least=6)


@pytest.mark.timeout(300)
def test_no_single_exchange_that_fails_costs_the_rollback(rollback):
    """Whether it only looks or has had its effect: what was not heard is asked again."""
    all_of(each_chance(rollback, "cut at answer"), at_least=12)


# The campaign itself


def test_a_run_in_peace_is_not_hit(rollback):
    assert rollback.run(PEACE).hit is False


def test_an_end_that_a_case_does_not_have_is_wrong(tmp_path):
    known = NAMED["rollback"]
    with staged(Case("other", known.world, known.want, {"stopped": []}), tmp_path) as stage:
        assert any("succeeded after ['1']" in said for said in stage.run(PEACE).wrong)


def test_the_cases_have_names_of_their_own(tmp_path: Path):
    assert len(NAMED) == len(CASES)
