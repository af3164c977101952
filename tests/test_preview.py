"""The dry-run table: what each step looks at, changes and takes back, from what the actions themselves say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent import Ref, Step, verbs
from agent.model import Absent, Plan, Swap, plan_from_json, to_json
from agent.planning import undos
from agent.preview import ASIDE, NEVER, PERHAPS, plan_json, table, together, value, words
from tests.fraud import drilled, fraud, spoiled

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def planned(*steps: Step, seen: Any = None, undo: Any = None) -> Plan:
    return Plan("rollback", "fraud", "asked for by ada", (), seen or {}, steps, NOW, NOW + timedelta(hours=1), undo or {})


LOOK = Step("preflight", "check.passes", {"watches": ["fraud/ready"], "versions": ["1"]}, timedelta(seconds=3), "stop", "it must be well")
FLIP = Step("flip", "router.point", {"to": "1"}, timedelta(seconds=5), "undo", "send it back")
BACK_OR_STAYS = "what flip changed is taken back; where nobody can tell, what flip changed stays, and a person is called"
DRAIN = Step("drain", "router.drained", {"versions": ["2"]}, timedelta(minutes=1), "go on")


def test_a_rollback_tells_what_every_step_would_look_at_change_and_take_back(tmp_path):
    with fraud(tmp_path, mode="approve") as desk:
        drilled(desk)
        spoiled(desk)
        desk.see()
        told = plan_json(verbs.start(desk.world, "rollback", "fraud", {}, "ada", dry_run=True))
        assert desk.server.flips == []
    assert [(row["n"], row["step"], row["changes"], row["back"], row["within"], row["failing"]) for row in told["table"]] == [
        (1, "preflight", "", "", "10s", "the run stops; nothing was changed"),
        (2, "flip", "router.point from 2 to 1", "router.point to 2", "10s", BACK_OR_STAYS),
        (3, "look", "", "", "10s", BACK_OR_STAYS),
        (4, "record", "registry.record: to 1", ASIDE, "10s", "the run goes on without it"),
    ]
    assert told["table"][0]["looks"] == "check.passes: watches fraud/serving.ready, fraud/serving.parity; versions 1"
    assert told["table"][1]["looks"] == "where router.point stands"
    assert (told["at_most"], told["back_at_most"], told["undo"]) == (40.0, 10.0, {"flip": {"to": "2"}})


def test_what_an_action_says_it_cannot_undo_is_told_and_a_person_is_called(tmp_path):
    (_, row, last) = table(to_json(planned(LOOK, FLIP, replace(LOOK, name="look"), seen={"router.point": "2"}, undo={"flip": None})))
    assert row["back"] == NEVER
    assert last["failing"] == "what flip changed stays, and a person is called"


def test_one_thing_may_be_taken_back_where_another_stays(tmp_path):
    mail = Step("mail", "person.tell", {"text": "hello"}, timedelta(seconds=1))
    rows = table(to_json(planned(FLIP, mail, seen={"router.point": "2", "person.tell": None}, undo={"flip": {"to": "2"}, "mail": None})))
    assert rows[1]["failing"] == "what flip changed is taken back; what mail changed stays, and a person is called"
    assert rows[1]["changes"] == "person.tell: text hello; it stands at nothing"


def test_what_depends_on_an_earlier_step_is_named_by_it_and_not_promised():
    later = replace(FLIP, args={"to": Ref("preflight", "version")})
    row = table(to_json(planned(LOOK, later, seen={"router.point": {"1": 0.9, "2": 0.1}})))[1]
    assert row["changes"] == "router.point from 1 0.9, 2 0.1 to the version that preflight finds"
    assert row["back"] == PERHAPS


def test_a_step_that_is_passed_over_when_it_fails_says_so_wherever_it_stands():
    assert table(to_json(planned(FLIP, DRAIN, seen={"router.point": "2"})))[1]["failing"] == "the run goes on without it"


def test_the_undos_of_one_verb_are_one_and_take_the_longest_of_their_steps():
    steps = [replace(FLIP, name=f"to {n}", within=timedelta(seconds=n)) for n in (1, 7, 3)]
    told = plan_json(planned(*steps, DRAIN, seen={"router.point": "2"}))
    assert (told["at_most"], told["back_at_most"]) == (71.0, 7.0)


def test_a_run_within_a_run_is_told_to_change_things_of_its_own():
    child = Step("retrain", "run.child", {"runbook": "retrain", "parameters": {}}, timedelta(hours=6), "stop")
    (row,) = table(to_json(planned(child)))
    assert (row["changes"], row["back"]) == ("what retrain changes, with a plan and a permission of its own", "not by this run")


def test_a_plan_without_a_step_is_an_empty_table():
    assert plan_json(planned())["table"] == []


def test_what_the_actions_say_about_undoing_is_part_of_what_is_approved_and_survives_the_store():
    plan = planned(FLIP, seen={"router.point": "2"}, undo={"flip": {"to": "2"}})
    assert plan.digest != planned(FLIP, seen={"router.point": "2"}).digest
    assert plan_from_json(to_json(plan)) == plan
    old = {name: one for name, one in to_json(plan).items() if name != "undo"}
    assert plan_from_json(old).undo == {}


@dataclass
class Needs:
    """An action whose undo wants the output of what was done."""

    writes: bool = True
    repeatable: bool = True

    def before(self, args: Any) -> Any:
        return None

    def look(self, args: Any, t: Any) -> Any:
        return Absent()

    def do(self, args: Any, t: Any) -> None:
        return None

    def undo(self, args: Any, before: Any, output: Any) -> Any:
        return {"job": output["job"]}


def test_an_undo_that_wants_the_output_or_an_earlier_step_is_left_out():
    point = Swap(lambda: "2", lambda to, expected: None)
    later = replace(FLIP, name="later", args={"to": Ref("preflight", "version")})
    steps = [(replace(FLIP, name="train"), Needs()), (FLIP, point), (later, point), (LOOK, Needs(writes=False))]
    assert undos(steps, {"router.point": "2"}) == {"flip": {"to": "2"}}


@pytest.mark.parametrize(
    ("one", "said"),
    [(None, "nothing"), ({}, "nothing"), ([], ""), (["a", "b"], "a, b"), ({"from": "train.version"}, "the version that train finds"), (0.5, "0.5")],
)
def test_a_value_is_told_as_people_read_it(one, said):
    assert value(one) == said


def test_words_and_names():
    assert words({"to": "1", "share": 0.1}) == "to 1; share 0.1"
    assert [together(names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
