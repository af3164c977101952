"""The platform's own verbs: waiting, asking and telling people, runs within runs, and holding for evidence."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise

import pytest

from agent import verbs
from agent.errors import PlanError, PluginError
from agent.model import Ref
from tests.fraud import fraud
from tests.plugin_box import install

PLAN = """
    from datetime import timedelta
    from agent import Ref, Router, Step, runbook

    @runbook(asks="Do what the test says?")
    def plan(service: str, router: Router) -> tuple[Step, ...]:
        \"\"\"The steps of one test.\"\"\"
        return (
            {steps}
        )
"""
FLIP = 'Step("flip", "router.point", {"to": "2"}, timedelta(seconds=10), "undo")'


@contextmanager
def planned(tmp_path, *steps, mode="auto", more="", **modules):
    """The service, and a runbook `plan` of these steps."""
    modules = {"plan": PLAN.format(steps=",\n            ".join([*steps, ""])), **modules}
    with install(tmp_path, modules, kind="runbook"), fraud(tmp_path, mode=mode, more=more) as desk:
        yield desk


def carried(desk, **given):
    run = verbs.start(desk.world, "plan", "fraud", given, "ada")
    desk.respond()
    return latest(desk, run.id)


def latest(desk, number):
    with desk.world.store.read() as ledger:
        return ledger.run(number)


def wanted_by(desk, parent, n: int = 0):
    """The run that the n-th step of another wanted."""
    with desk.world.store.read() as ledger:
        return ledger.child(f"run-{parent.id}/{n}")


def step(action: str, args: dict, within: str = "seconds=10", name: str = "it", otherwise: str = "undo") -> str:
    return f'Step("{name}", "{action}", {args!r}, timedelta({within}), "{otherwise}")'


def test_waiting_is_a_row_that_wakes_and_holds_no_thread(tmp_path):
    with planned(tmp_path, step("clock.wait", {"length": "20m"}, "hours=1", "soak"), FLIP) as desk:
        run = verbs.start(desk.world, "plan", "fraud", {}, "ada")
        for _ in range(3):
            for future in desk.responder.tick(desk.world.clock()):
                future.result(30)
        waiting = latest(desk, run.id)
        assert (waiting.wake_at - desk.world.clock()) > timedelta(minutes=19) and desk.server.flips == []
        desk.later(20 * 60)
        assert desk.respond().state == "succeeded" and desk.server.flips == ["2"]


@pytest.mark.parametrize("length", ["soon", "-3s", None, [1], 0, -1, "0s", 1e300])
def test_a_wait_of_no_length_is_refused_before_it_changes_anything(tmp_path, length):
    with planned(tmp_path, step("clock.wait", {"length": length}), FLIP) as desk:
        run = carried(desk)
        assert run.state == "refused" and "no length of time" in run.said and desk.server.flips == [], run.said


def test_a_step_that_asks_goes_on_when_the_right_person_has_said_yes(tmp_path):
    ask = step("person.approve", {"ask": "is the new one good?", "by": ["eve"]}, "hours=1", "asked")
    with planned(tmp_path, FLIP, ask, step("notify.send", {"text": "it is done"}, name="told")) as desk:
        run = verbs.start(desk.world, "plan", "fraud", {}, "ada")
        for _ in range(4):
            for future in desk.responder.tick(desk.world.clock()):
                future.result(30)
            desk.later(1.0)
        waiting = latest(desk, run.id)
        assert waiting.state == "running" and "is the new one good?" in waiting.said
        verbs.approve(desk.world, run.id, "ada")
        for future in desk.responder.tick(desk.world.clock()):
            future.result(30)
        assert latest(desk, run.id).state == "running", "ada is not one of those whose yes counts"
        verbs.approve(desk.world, run.id, "eve")
        done = desk.respond()
        assert done.state == "succeeded" and done.steps[1].output == {"by": ["eve"]}
        with desk.world.store.read() as ledger:
            texts = [letter["body"]["text"] for letter in ledger.letters() if str(letter["key"]).startswith(f"run-{run.id}/")]
        assert any("is the new one good?" in text for text in texts) and "it is done" in texts


def test_nobody_approves_twice(tmp_path):
    ask = step("person.approve", {"ask": "sure?", "two": True}, "hours=1", "asked")
    with planned(tmp_path, FLIP, ask) as desk:
        run = verbs.start(desk.world, "plan", "fraud", {}, "ada")
        for _ in range(4):
            for future in desk.responder.tick(desk.world.clock()):
                future.result(30)
        verbs.approve(desk.world, run.id, "eve")
        with pytest.raises(PlanError, match="eve has approved"):
            verbs.approve(desk.world, run.id, "eve")
        verbs.approve(desk.world, run.id, "ada")
        assert desk.respond().steps[1].output == {"by": ["eve", "ada"]}


def test_what_nobody_approves_in_time_is_taken_back(tmp_path):
    with planned(tmp_path, FLIP, step("person.approve", {"ask": "sure?"}, "minutes=30", "asked")) as desk:
        run = carried(desk)
        assert run.state == "compensated" and "sure?" in run.said and desk.server.flips == ["2", "1"]


def test_two_people_are_needed_where_the_configuration_says_so(tmp_path):
    with planned(tmp_path, FLIP) as desk:
        text = (tmp_path / "watchkeeper.yaml").read_text().replace("runbooks: {", "runbooks: {plan: {two_person: true}, ")
        _reload(desk, tmp_path, text)
        run = carried(desk)
        assert run.state == "awaiting" and "another person" in run.said and desk.server.flips == []
        verbs.approve(desk.world, run.id, "eve")
        assert desk.respond().state == "succeeded" and latest(desk, run.id).approved_by == ("ada", "eve")


def test_a_plan_waits_for_approval_as_long_as_the_configuration_says(tmp_path):
    with planned(tmp_path, FLIP) as desk:
        text = (tmp_path / "watchkeeper.yaml").read_text().replace("runbooks: {", "runbooks: {plan: {two_person: true, approve_within: 10m}, ")
        _reload(desk, tmp_path, text)
        run = carried(desk)
        desk.later(601)
        desk.respond()
        assert latest(desk, run.id).state == "expired" and desk.server.flips == []


def _reload(desk, tmp_path, text):
    from agent import config

    (tmp_path / "watchkeeper.yaml").write_text(text)
    desk.world.use(config.load(tmp_path / "watchkeeper.yaml"))


# A run within a run

CHILD = PLAN.replace("def plan", "def little").replace("{steps}", FLIP + ",")
WANTS = step("run.child", {"runbook": "little"}, "hours=1", "child")


def test_a_child_asks_for_itself_and_its_parent_waits_for_its_end(tmp_path):
    with planned(tmp_path, WANTS, step("notify.send", {"text": "the child is done"}, name="told"), little=CHILD) as desk:
        parent = verbs.start(desk.world, "plan", "fraud", {}, "ada")
        desk.respond()
        child = wanted_by(desk, parent)
        assert (child.state, child.mode) == ("awaiting", "approve") and desk.server.flips == []
        verbs.approve(desk.world, child.id, "eve")
        for _ in range(5):
            desk.respond()
            desk.later(1.0)
        ended = latest(desk, parent.id)
        assert ended.state == "succeeded" and ended.steps[0].output["run"] == child.id and desk.server.flips == ["2"]


def test_a_child_that_was_called_off_ends_its_parent(tmp_path):
    with planned(tmp_path, WANTS, little=CHILD) as desk:
        parent = verbs.start(desk.world, "plan", "fraud", {}, "ada")
        desk.respond()
        child = wanted_by(desk, parent)
        verbs.cancel(desk.world, child.id, "eve")
        for _ in range(3):
            desk.later(1.0)
            desk.respond()
        ended = latest(desk, parent.id)
        assert ended.state == "stopped" and "cancelled by eve" in ended.said and desk.server.flips == []


def test_a_parent_that_is_called_off_calls_off_the_child_that_has_not_begun(tmp_path):
    with planned(tmp_path, WANTS, little=CHILD) as desk:
        parent = verbs.start(desk.world, "plan", "fraud", {}, "ada")
        desk.respond()
        child = wanted_by(desk, parent)
        verbs.cancel(desk.world, parent.id, "ada")
        assert latest(desk, child.id).state == "cancelled" and f"run {parent.id}" in latest(desk, child.id).said


def test_a_child_must_not_change_what_its_parent_holds(tmp_path):
    with planned(tmp_path, FLIP, WANTS, little=CHILD.replace('"to": "2"', '"to": "1"')) as desk:
        parent = verbs.start(desk.world, "plan", "fraud", {}, "ada")
        desk.respond()
        child = wanted_by(desk, parent, 1)
        verbs.approve(desk.world, child.id, "eve")
        for _ in range(6):
            desk.later(1.0)
            desk.respond()
        assert latest(desk, child.id).state == "refused" and "must not change the same" in latest(desk, child.id).said
        assert latest(desk, parent.id).state == "compensated" and desk.server.flips == ["2", "1"]


# Holding for evidence

COUNTS = """
    from dataclasses import dataclass
    from agent import Verdict, Window, check, fail, nodata, ok
    from pathlib import Path

    @dataclass(frozen=True)
    class Seen:
        looks: int

    @check(pillar="deployment", asks="Has the test seen enough?")
    def enough(window: Window, memory: Seen | None, *, file: str) -> Verdict:
        \"\"\"Says what its file says, and how often it was asked, in windows that touch.\"\"\"
        seen = Seen((memory.looks if memory else 0) + 1)
        with open(file, "a") as kept:
            kept.write(f"{window.start.isoformat()} {window.end.isoformat()} {seen.looks}\\n")
        said = Path(file + ".say").read_text()
        return {"hold": nodata, "good": ok, "bad": fail}[said](f"look {seen.looks}: {said}", memory=seen)
"""


@contextmanager
def holding(tmp_path, within="hours=1"):
    hold = step("check.hold", {"check": "holds.enough", "with": {"file": str(tmp_path / "looks")}, "every": "10s"}, within, "hold")
    (tmp_path / "looks.say").write_text("hold")
    with install(tmp_path, {"holds": COUNTS}), planned(tmp_path, FLIP, hold) as desk:
        run = verbs.start(desk.world, "plan", "fraud", {}, "ada")
        for _ in range(12):
            for future in desk.responder.tick(desk.world.clock()):
                future.result(30)
            desk.later(5.0)
        yield desk, run.id


def test_a_hold_judges_touching_windows_once_each_and_carries_its_memory(tmp_path):
    with holding(tmp_path) as (desk, run):
        (tmp_path / "looks.say").write_text("good")
        done = desk.respond()
        looks = [line.split() for line in (tmp_path / "looks").read_text().splitlines()]
        assert done.state == "succeeded" and done.steps[1].output["reason"] == f"look {len(looks)}: good" and len(looks) >= 4
        assert [int(count) for _, _, count in looks] == list(range(1, len(looks) + 1))
        assert all(before[1] == after[0] for before, after in pairwise(looks))
        with desk.world.store.read() as ledger:
            kept = ledger.findings(watch=f"fraud/hold@run-{run}")
            assert len(kept) == len(looks) and ledger.open_incidents("fraud") == []
            assert done.steps[1].output["finding"] == kept[0].id


def test_a_hold_that_says_fail_is_taken_back(tmp_path):
    with holding(tmp_path) as (desk, _):
        (tmp_path / "looks.say").write_text("bad")
        run = desk.respond()
        assert run.state == "compensated" and "bad" in run.said and desk.server.flips == ["2", "1"]


def test_a_hold_that_never_knows_is_taken_back_when_its_time_is_over(tmp_path):
    with holding(tmp_path, within="minutes=5") as (desk, _):
        run = desk.respond()
        assert run.state == "compensated" and "could not be told within 300 s" in run.said and desk.server.flips == ["2", "1"]


def test_an_agent_that_starts_again_believes_the_finding_that_stands(tmp_path):
    """Killed between the transaction of the verdict and that of the step, it must not look again at other rows and come to another end."""
    from agent.actions import find
    from agent.respond import _try

    with holding(tmp_path) as (desk, run):
        (tmp_path / "looks.say").write_text("bad")
        desk.later(20)
        now = latest(desk, run)
        hold = find(desk.world, desk.world.service("fraud"), "check.hold")
        args = now.steps[1].args
        first = hold.look(args, _try(desk.world, now, now.steps[1], timedelta(hours=1), []))
        (tmp_path / "looks.say").write_text("good")
        assert desk.respond().state == "compensated" and "bad" in first.said


# Plans that do not fit


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([step("router.point", {"too": "2"})], "router.point takes no 'too'; did you mean 'to'?"),
        ([step("clock.wait", {"length": "1s"}, name="a"), step("clock.wait", {"length": "1s"}, name="a")], "two steps are called 'a'"),
        (['Step("a", "router.point", {"to": Ref("b", "version")}, timedelta(seconds=1))'], "takes to from 'b', which is not an earlier step"),
        (
            [FLIP, 'Step("a", "notify.send", {"text": [Ref("flip", "fro")]}, timedelta(seconds=1))'],
            "takes text from 'flip.fro', which it does not give; did you mean 'from'?",
        ),
        ([step("clock.wayt", {"length": "1s"})], "no action 'clock.wayt'; did you mean 'clock.wait'?"),
        ([step("trainer.start", {})], "needs a trainer, and fraud has none"),
        ([step("clock.wait", {})], "None is no length of time"),
        ([step("check.hold", {})], "no check 'None'"),
        ([step("check.stays", {"length": "1s"})], "needs `watches`"),
        ([step("check.stays", {"length": "1s", "watches": ["fraud/redy"]})], "no watch 'fraud/redy'"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_before_anybody_sees_it(tmp_path, steps, said):
    with planned(tmp_path, *steps) as desk:
        with pytest.raises((PlanError, PluginError), match=said.replace("(", r"\(").replace("?", r"\?")):
            verbs.start(desk.world, "plan", "fraud", {}, "ada", dry_run=True)
        assert carried(desk).state == "refused" and desk.server.flips == []


def test_a_reference_is_followed_however_deep_it_lies(tmp_path):
    text = 'Step("told", "run.child", {"runbook": "little", "parameters": {"to": Ref("flip", "from")}}, timedelta(hours=1))'
    little = PLAN.replace("def plan(service: str, router: Router)", "def little(service: str, *, to: str)").replace(
        "{steps}", 'Step("say", "notify.send", {"text": to}, timedelta(seconds=5)),'
    )
    with planned(tmp_path, FLIP, text, little=little) as desk:
        run = verbs.start(desk.world, "plan", "fraud", {}, "ada")
        for _ in range(8):
            desk.respond()
            desk.later(1.0)
        assert latest(desk, run.id).steps[1].args == {"runbook": "little", "parameters": {"to": "1"}}
        assert latest(desk, run.id).plan.steps[1].args["parameters"] == {"to": Ref("flip", "from")}
        assert latest(desk, run.id).state == "succeeded", latest(desk, run.id).said
