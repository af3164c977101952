"""The rollback runbook as the plain function it is, called with adapters that speak to real servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from agent import Locator, Ref, Router, Server
from agent.errors import PlanError, UnreachableError
from agent.plugins import find
from agent.targets import connect
from runbooks.rollback import rollback
from tests.servers import hook, oip, plain, pointer

LOOKS = ["fraud/ready", "fraud/parity"]


@contextmanager
def targets(router: Any, server: Any) -> Iterator[tuple[Router, Server]]:
    """The adapters connected to two speakers."""
    made = [
        connect(Locator("fraud", role, one.url, one.options, within=timedelta(seconds=5))) for role, one in (("router", router), ("server", server))
    ]
    try:
        yield made[0], made[1]
    finally:
        for one in made:
            one.close()
        router.stop()
        server.stop()


@pytest.fixture
def two() -> Iterator[tuple[Router, Server]]:
    """A router that points at version 2, and a server with 1 and 2 loaded."""
    with targets(pointer.Speaker("2"), oip.Speaker("2")) as found:
        yield found


def test_the_steps_look_before_they_flip_and_look_again_after_it(two):
    steps = rollback("fraud", *two, good=["1"], looks=LOOKS, trigger="fraud/parity")
    assert [(step.name, step.action, step.otherwise, step.unseen) for step in steps] == [
        ("counterfactual", "check.better", "stop", None),
        ("preflight", "check.passes", "stop", None),
        ("flip", "router.point", "undo", "stop"),
        ("look", "check.serves", "undo", "stop"),
    ]
    assert [dict(step.args) for step in steps] == [
        {"watch": "fraud/parity", "watches": LOOKS, "versions": ["1"]},
        {"watches": LOOKS, "versions": ["1"]},
        {"to": "1"},
        {"version": "1", "watches": ["fraud/parity"]},
    ]
    assert {step.within for step in steps} == {timedelta(seconds=10)}


def test_every_step_says_why_it_is_there(two):
    steps = rollback("fraud", *two, good=["1"], looks=LOOKS, trigger="fraud/parity")
    assert all(step.why for step in steps)
    assert "from 2 to 1" in next(step.why for step in steps if step.name == "flip")


def test_planning_changes_nothing():
    router, server = pointer.Speaker("2"), oip.Speaker("2")
    with targets(router, server) as two:
        rollback("fraud", *two, good=["1"], looks=LOOKS, trigger="fraud/parity")
        assert router.served == "2"
        assert {method for method, *_ in router.requests} == {"GET"}
        assert server.requests == []


def test_without_a_failing_check_there_is_nothing_to_compare_and_all_exact_looks_judge_the_end(two):
    steps = rollback("fraud", *two, good=["1"], looks=LOOKS)
    assert [step.name for step in steps] == ["preflight", "flip", "look"]
    assert steps[-1].args["watches"] == LOOKS


def test_the_good_versions_that_are_not_served_are_asked_in_turn_and_the_first_that_will_do_gets_the_traffic(two):
    steps = rollback("fraud", *two, good=["2", "1", "0", "-1", "-2"], looks=LOOKS, trigger="fraud/parity")
    assert [dict(step.args) for step in steps] == [
        {"watch": "fraud/parity", "watches": LOOKS, "versions": ["1", "0", "-1"]},
        {"watches": LOOKS, "versions": Ref("counterfactual", "versions")},
        {"to": Ref("preflight", "version")},
        {"version": Ref("preflight", "version"), "watches": ["fraud/parity"]},
    ]
    assert "from 2 to 1 or else 0 or else -1" in steps[2].why
    only = rollback("fraud", *two, good=["2", "1", "0"], looks=LOOKS, tries=1)
    assert only[1].args == {"to": "1"}


def test_a_good_version_that_has_only_a_part_of_the_traffic_can_have_it_all(two):
    """A canary stands at 10 %: the version that has the rest is where to go back to."""

    class Split:
        can = frozenset({"switch", "weights", "drain"})
        point = two[0].point

        def served(self) -> dict[str, float]:
            return {"1": 0.9, "2": 0.1, "0": 0.0}

    steps = rollback("fraud", Split(), two[1], good=["1"], looks=LOOKS)
    assert [step.name for step in steps] == ["preflight", "flip", "look", "drain"]
    assert steps[1].args == {"to": "1"}
    assert (steps[3].args, steps[3].otherwise) == ({"versions": ["2"]}, "go on")


def test_a_named_version_goes_before_the_newest_good_one(two):
    steps = rollback("fraud", *two, good=["1", "0"], looks=LOOKS, trigger="fraud/parity", to="0")
    assert [step.args.get("versions", step.args.get("version", step.args.get("to"))) for step in steps] == [["0"], ["0"], "0", "0"]


def test_a_version_nobody_called_good_can_be_named(two):
    assert rollback("fraud", *two, good=[], looks=LOOKS, to="1")[1].args == {"to": "1"}


def test_patience_is_what_each_step_may_take(two):
    steps = rollback("fraud", *two, good=["1"], looks=LOOKS, trigger="fraud/parity", patience=timedelta(seconds=3))
    assert {step.within for step in steps} == {timedelta(seconds=3)}


@pytest.mark.parametrize("good", [[], ["2"]], ids=["none", "only the one served"])
def test_without_another_good_version_it_is_refused_with_the_line_that_makes_one(two, good):
    with pytest.raises(PlanError, match=r"\(2\) is known to be good.*watchkeeper good fraud VERSION --by NAME"):
        rollback("fraud", *two, good=good, looks=LOOKS)


def test_a_version_that_has_the_traffic_already_is_refused(two):
    with pytest.raises(PlanError, match="version 2 of fraud already has the traffic"):
        rollback("fraud", *two, good=["1"], looks=LOOKS, to="2")


def test_a_router_that_cannot_switch_is_refused():
    class OnlyTells:
        """A router that says where the traffic goes and cannot be told: no adapter of ours is one."""

        can: frozenset[str] = frozenset()

        def __init__(self, inner: Any) -> None:
            self.served, self.point = inner.served, inner.point

    with targets(pointer.Speaker("2"), oip.Speaker("2")) as (router, server), pytest.raises(PlanError, match="cannot switch"):
        rollback("fraud", OnlyTells(router), server, good=["1"], looks=LOOKS)


def test_a_server_that_cannot_be_asked_about_one_version_is_refused():
    server = plain.Speaker("2", {name: value for name, value in plain.OPTIONS.items() if name != "at"})
    with targets(pointer.Speaker("2"), server) as two, pytest.raises(PlanError, match="so 1 cannot be tried first"):
        rollback("fraud", *two, good=["1"], looks=LOOKS)


def test_a_router_that_is_gone_is_told_as_such():
    router = pointer.Speaker("2")
    with targets(router, oip.Speaker("2")) as two:
        router.stop()
        with pytest.raises(UnreachableError):
            rollback("fraud", *two, good=["1"], looks=LOOKS)


@pytest.mark.parametrize("router", [pointer, hook], ids=["pointer", "hook"])
@pytest.mark.parametrize("server", [oip, plain], ids=["oip", "http"])
def test_any_router_and_any_server_that_can_will_do(router, server):
    with targets(router.Speaker("2"), server.Speaker("2")) as two:
        assert rollback("fraud", *two, good=["1"], looks=LOOKS)[1].args == {"to": "1"}


def test_it_says_what_it_cures_and_what_it_needs():
    plugin = find("runbook", "rollback")
    assert plugin.promises["cures"] == ("answers", "errors", "latency")
    assert {need.name: need.optional for need in plugin.needs} == {
        "service": False,
        "router": False,
        "server": False,
        "good": False,
        "looks": False,
        "drill": True,
        "trigger": True,
        "registry": True,
        "most": True,
    }
