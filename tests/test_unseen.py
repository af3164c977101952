"""Wrong and unseen are two ends of a look: what is seen to be wrong is taken back, and where nobody could tell each runbook says what that means."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import config, verbs
from agent.errors import ConfigError
from agent.model import Run, StepRow, to_json
from agent.preview import table
from tests.fraud import Desk, drilled, fraud, spoiled
from tests.servers._loopback import GONE
from tests.test_canary_runbook import begun, canary

INFER = "/v2/models/m/infer"
PATIENCE = 2.0  # seconds each step may take here


@contextmanager
def rolling_back(folder: Path, **more: Any) -> Iterator[Desk]:
    """Version 2 is bad, and a rollback to version 1 is wanted."""
    with fraud(folder, patience=f"{PATIENCE:g}s", **more) as desk:
        drilled(desk)
        spoiled(desk)
        assert desk.look().status == "fail"
        yield desk


def away(desk: Desk, seconds: float = 1e9, seen: int = 1, to: Any = "1", first: Callable[[str], Any] = lambda path: None) -> None:
    """Server and router are gone for that long from the flip on, but for the first `seen` requests after it, which `first` may answer."""
    asked, since = list[str](), list[float]()

    def mood(method: str, path: str) -> tuple[int, Any] | None:
        if desk.server.flips[-1:] != [to]:
            return None
        asked.append(path)
        if len(asked) <= seen:
            return first(path)
        since.append(desk.ahead)
        return GONE if desk.ahead < since[0] + seconds else None

    desk.server.mood = mood


def driven(desk: Desk) -> Run:
    """As far as the run goes now."""
    for future in desk.responder.tick(desk.world.clock()):
        future.result(30)
    with desk.world.store.read() as ledger:
        return ledger.runs()[0]


def row(run: Run, name: str) -> Any:
    return next((step for step in run.steps if step.name == name), StepRow(0, name, "", "planned"))


def test_a_rollback_whose_last_look_cannot_see_stays_at_the_good_version_and_pages(tmp_path):
    with rolling_back(tmp_path) as desk:
        away(desk)
        run = desk.respond()
        assert run.state == "stuck" and desk.server.flips == ["1"] and desk.server.served == "1"
        assert run.said.startswith("look: could not be told within 2 s: ") and run.said.endswith("stays as it is, and a person must look")
        assert (row(run, "flip").state, row(run, "look").state) == ("done", "unseen") and not any(step.undo for step in run.steps)
        with desk.world.store.read() as ledger:
            (incident,) = ledger.open_incidents("fraud")
            letters = [letter for letter in ledger.letters() if letter["key"].endswith(f"run-{run.id}/stuck")]
            assert incident.state == "open" and len(letters) == 1 and "could not be told" in json.dumps(letters[0]["body"])
            assert ledger.holders(["fraud/router"]) == set()


def test_a_rollback_whose_flip_cannot_be_seen_is_left_where_it_was_sent(tmp_path):
    """The router took it and does not answer any more. When it does again, nobody sends the traffic back to what was failing."""
    with rolling_back(tmp_path) as desk:
        away(desk, seconds=PATIENCE + 1, seen=0)
        run = desk.respond()
        assert run.state == "stuck" and run.said.startswith("flip: could not be told within 2 s: "), run.said
        assert row(run, "flip").tries == 1 and desk.server.flips == ["1"]


def test_a_version_seen_not_to_serve_what_it_should_is_wrong_and_not_unseen(tmp_path):
    """The pointer says it moved, and what answers is another version: that was seen, again and again."""
    with rolling_back(tmp_path) as desk:
        asked = list[str]()

        def elsewhere(method: str, path: str) -> tuple[int, Any] | None:
            if desk.server.flips != ["1"] or path != "/admin/pointer" or method != "GET":
                return None
            asked.append(path)
            served = "1" if len(asked) == 1 or desk.ahead > 2 * PATIENCE else "2"
            return 200, {"model": "m", "version": served, "loaded": ["1", "2"]}

        desk.server.mood = elsewhere
        desk.ahead = 0.0
        run = desk.respond()
        assert row(run, "look").state == "failed" and "not within 2 s: version 2 is served, not 1" in row(run, "look").said, run.said


@pytest.mark.parametrize("restarted", [False, True])
def test_what_was_seen_to_be_wrong_stays_known_when_nothing_can_be_seen_any_more(tmp_path, restarted):
    """Also by the agent that is started next: the traffic goes back, once it can be seen where it is."""
    with rolling_back(tmp_path) as desk:

        def wrong(path: str) -> Any:
            return (500, {"error": "not under load"}) if path == INFER else None

        away(desk, seconds=3 * PATIENCE, seen=8, first=wrong)
        while not row(driven(desk), "look").said:
            desk.later(0.1)
        if restarted:
            desk.responder.recover()
        run = desk.respond(400)
        assert run.state == "compensated" and desk.server.flips == ["1", "2"], run.said
        assert row(run, "look").state == "failed" and "; at last it could not be told: " in row(run, "look").said
        assert run.recoveries == restarted


def test_a_drill_goes_back_although_it_could_not_see(tmp_path):
    """It has left nothing that is bad."""
    with fraud(tmp_path, patience=f"{PATIENCE:g}s") as desk:
        drilled(desk)
        away(desk, seconds=PATIENCE + 1, to="2")
        verbs.start(desk.world, "rollback", "fraud", {}, "ada", drill=True)
        run = desk.respond()
        assert run.state == "compensated" and row(run, "look").state == "unseen", run.said
        assert desk.server.flips == ["2", "1"] and {step.unseen for step in run.plan.steps} == {None}


def test_a_canary_that_cannot_see_at_the_end_goes_back_to_what_was_well(tmp_path):
    with canary(tmp_path) as desk:
        away(desk, seconds=11, to="3")
        begun(desk, steps=[0.5])
        run = desk.respond()
        assert run.state == "compensated" and row(run, "look").state == "unseen", run.said
        assert desk.server.flips == [{"1": 0.5, "3": 0.5}, "3", "1"]


def test_the_plan_says_what_it_means_that_nobody_can_tell(tmp_path):
    with rolling_back(tmp_path) as desk:
        plan = verbs.start(desk.world, "rollback", "fraud", {}, "ada", dry_run=True)
        told = {one["step"]: one["failing"] for one in table(to_json(plan))}
        both = "what flip changed is taken back; where nobody can tell, what flip changed stays, and a person is called"
        assert told["flip"] == told["look"] == both and told["preflight"] == "the run stops; nothing was changed"
        blunt = replace(plan, steps=tuple(replace(step, unseen=None) for step in plan.steps))
        assert blunt.digest != plan.digest and table(to_json(blunt))[-2]["failing"] == "what flip changed is taken back"


# In YAML

BOOK = """
runbooks:
  turn:
    asks: Is the other one served?
    steps:
      - router.point: {to: "2"}
        name: flip
      - check: serving.parity
        within: 2s
        HOW
"""


@contextmanager
def written(folder: Path, how: str) -> Iterator[Desk]:
    with fraud(folder) as desk:
        path = folder / "watchkeeper.yaml"
        path.write_text(path.read_text() + BOOK.replace("HOW", how))
        desk.world.use(config.load(path))
        verbs.start(desk.world, "turn", "fraud", {}, "ada")
        yield desk


@pytest.mark.parametrize(
    ("how", "broken", "ends", "flips"),
    [
        ("unseen: stop", False, "stuck", ["2"]),
        ("unseen: stop", True, "compensated", ["2", "1"]),
        ("otherwise: stop", True, "stuck", ["2"]),
        ("{otherwise: stop, unseen: undo}", False, "compensated", ["2", "1"]),
        ("{otherwise: go on, unseen: undo}", False, "compensated", ["2", "1"]),
        ("otherwise: go on", False, "succeeded", ["2"]),
    ],
)
def test_a_written_runbook_says_for_each_step_what_failing_and_not_knowing_mean(tmp_path, how, broken, ends, flips):
    with written(tmp_path, how.strip("{}").replace(", ", "\n        ")) as desk:
        desk.server.factors["2"] = 3.0 if broken else 2.0
        if not broken:
            away(desk, seconds=3, to="2")
        run = desk.respond()
        assert (run.state, desk.server.flips) == (ends, flips), run.said


def test_another_word_for_it_is_refused_with_its_place(tmp_path):
    with pytest.raises(ConfigError, match=r"runbooks\.turn\.steps\[1\]\.unseen") as told, written(tmp_path, "unseen: go on"):
        pass
    assert "undo" in str(told.value)
