"""What happened, told: incidents as prose, the draft of a review, the history of runs, each from the store of a real service."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from agent import verbs
from agent.account import account, after, length, sentence
from agent.cli import main
from agent.errors import PlanError
from agent.judge import escalate
from agent.model import Member
from agent.review import draft, plain
from agent.review.markdown import inline
from agent.runs import history
from agent.store import Ledger
from tests.fraud import Desk, drilled, fraud, spoiled

MORE = "    escalation: [eve]\n"


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A drill; then a bad version, a rollback that waited for grace, and everything well again (incident 1, runs 1 and 2)."""
    with fraud(tmp_path_factory.mktemp("story"), mode="approve", more=MORE) as desk:
        drilled(desk)
        desk.later(5)
        spoiled(desk)
        desk.see()
        desk.later(2)
        desk.look()
        assert desk.respond().state == "awaiting"
        desk.later(16 * 60)
        desk.world.store.write(lambda ledger: escalate(desk.world, ledger, desk.world.clock()))
        desk.world.store.write(lambda ledger: ledger.letter_sent("incident-1/opened", "ada"))
        desk.world.store.write(lambda ledger: ledger.letter_dropped("incident-1/escalated/2", "eve", "no route"))
        verbs.approve(desk.world, 2, "grace")
        assert desk.respond().state == "succeeded"
        for _ in range(2):
            desk.later(61)
            desk.look()
        yield desk


def told(desk: Desk, number: int = 1) -> Any:
    with desk.world.store.read() as ledger:
        return account(ledger, number, desk.world.clock())


def wk(desk: Desk, *args: object, code: int = 0) -> str:
    done = CliRunner().invoke(main, ["-c", str(desk.folder / "watchkeeper.yaml"), *map(str, args)])
    assert done.exit_code == code, done.output + str(done.exception)
    return done.output


# An incident as prose


def test_an_incident_reads_as_a_report_from_what_changed_before_to_how_it_ended(story):
    before, seen, who, done, end = told(story)["summary"]
    assert before.startswith("Changed before it: version 2 serves instead of 1, 2")
    assert re.match(r"At \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ fraud/serving.parity was seen to fail: version 2 answers 1 of 1 golden rows otherwise", seen)
    assert who == "Ada was told, and nobody acknowledged it."
    assert re.match(r"Run 2 \(rollback, mode approve\) succeeded after 16m(?:\d+s)?: version 1 is served; serving.parity ok\.", done)
    assert re.match(r"It was mitigated 16m(?:\d+s)? after it opened, and resolved after 18m(?:\d+s)?\.", end)


def test_the_story_has_every_thing_once_in_order_with_its_time_from_the_start(story):
    found = told(story)["story"]
    said = [one["said"] for one in found]
    assert [one["after"] for one in found] == sorted(one["after"] for one in found)
    assert found[0]["after"] < 0
    for words in (
        "Version 2 serves instead of 1.",
        "The incident opened: fraud/serving.parity: version 2 answers",
        "Run 2, rollback, was wanted, for it began at a version change (version 2 serves instead of 1).",
        "Run 2 looked (counterfactual): version 1 is better",
        "Run 2 waits for a person: wants to send all traffic from 2 to 1",
        "A letter to ada.",
        "A letter to eve, which was dropped (no route): nobody acknowledged it within 15m",
        "Run 2 was approved by grace (plan ",
        "Run 2 changed router.point from 2 to 1 (flip): 1 is pointed at.",
        "Run 2 succeeded: version 1 is served; serving.parity ok.",
        "fraud/serving.parity is ok again.",
        "It was resolved after 18m",
    ):
        assert any(one.startswith(words) for one in said), words
    assert said.index("Run 2 changed router.point from 2 to 1 (flip): 1 is pointed at.") < said.index("fraud/serving.parity is ok again.")


def test_where_nothing_changed_before_it_the_sources_watched_are_named(tmp_path):
    with fraud(tmp_path, mode="observe") as desk:
        desk.see()
        desk.later(25 * 3600)
        desk.server.factors["1"] = 3.0
        desk.look()
        desk.respond()
        summary, text = told(desk)["summary"], review(desk)
    assert summary[0] == "No observed change before it (watched: config, registry, router, server)."
    assert summary[-1].startswith("It is open still, ")
    assert "- no observed change in the day before (watched for changes: registry, router, server, config)" in text
    assert "| resolved |  | not in the record |" in text


def test_an_incident_that_is_not_there_is_an_error_that_names_the_list(story):
    with pytest.raises(PlanError, match="no incident 99; 'watchkeeper incidents' lists them"):
        told(story, 99)


def test_the_commands_tell_the_same_and_the_short_ways_still_work(story):
    full = wk(story, "incidents", "show", 1)
    assert full == wk(story, "incidents", 1) == wk(story, "incidents", "list", 1)
    assert "  It was mitigated 16m" in full
    assert re.search(r"^  \+0ms +\d\d:\d\d:\d\dZ  The incident opened", full, re.MULTILINE)
    assert json.loads(wk(story, "incidents", "--json"))[0]["id"] == json.loads(wk(story, "incidents", "list", "--json"))[0]["id"] == 1
    assert wk(story, "incidents", "--open") == "no incident\n"
    assert "no incident 99" in wk(story, "incidents", "show", 99, code=3)


@pytest.mark.parametrize(
    ("text", "said"),
    [("it ended", "It ended."), ("fraud/x fails", "fraud/x fails."), ("Done.", "Done."), ("", "."), ("v2 serves", "v2 serves.")],
)
def test_a_sentence_begins_with_a_capital_unless_it_begins_with_a_name(text, said):
    assert sentence(text) == said


def test_lengths_and_times_from_the_start():
    assert [length(timedelta(seconds=s)) for s in (0.0421, 1.26, 12.4, 3600)] == ["42ms", "1.3s", "12s", "1h"]
    assert [after(s) for s in (-12, 0, 72)] == ["-12s", "+0ms", "+1m12s"]


# Runs


def test_the_history_tells_who_why_what_came_of_it_and_how_long_to_the_effect(story):
    second, first = json.loads(wk(story, "runbook", "history", "fraud", "--json"))
    assert [(one["id"], one["state"], one["drill"], one["by"], one["approved_by"]) for one in (first, second)] == [
        (1, "succeeded", True, "ada", "ada"),
        (2, "succeeded", False, "watchkeeper", "grace"),
    ]
    assert 16 * 60 < second["took"] < 17 * 60
    assert 0 < second["decision_to_effect"] < 60  # from grace's yes, not from when it was wanted
    assert second["decided_at"] > second["wanted_at"]
    text = wk(story, "runbook", "history", "--since", "1d")
    assert "watchkeeper, approved by grace" in text and "rollback (drill)" in text


def test_the_history_can_be_narrowed(story):
    assert json.loads(wk(story, "runbook", "history", "--limit", 1, "--json"))[0]["id"] == 2
    assert wk(story, "runbook", "history", "--state", "stuck") == "no run\n"
    assert len(json.loads(wk(story, "runbook", "history", "--since", "999999d", "--json"))) == 2
    assert len(json.loads(wk(story, "runbook", "history", "--state", "stuck", "--state", "succeeded", "--json"))) == 2
    assert "did you mean 'succeeded'?" in wk(story, "runbook", "history", "--state", "suceeded", code=2)
    assert "did you mean 'fraud'?" in wk(story, "runbook", "history", "fruad", code=2)
    with story.world.store.read() as ledger:
        assert history(ledger, None, datetime.now(UTC) + timedelta(days=1)) == []


def test_a_run_is_told_with_its_evidence_its_approval_its_steps_and_what_was_seen_after_it(story):
    one = json.loads(wk(story, "runbook", "show", 2, "--json"))
    (rests,) = one["evidence"]
    assert (rests["watch"], rests["status"], rests["version"]) == ("fraud/serving.parity", "fail", "2")
    assert (one["approvals"][0]["by"], one["approvals"][0]["digest"]) == ("grace", one["plan"]["digest"])
    assert (one["afterwards"]["status"], one["afterwards"]["version"]) == ("ok", "1")
    text = wk(story, "runbook", "show", 2)
    assert f"rests on finding {rests['id']} of version 2, fraud/serving.parity fail at " in text
    assert "flip: send all traffic from 2 to 1; router.point stood at 2; left from 2; to 1" in text
    assert "afterwards: finding" in text and "from the decision to its first effect" in text


def test_a_drill_shows_what_it_took_back(story):
    text = wk(story, "runbook", "show", 1)
    assert re.search(r"undo flip +undone", text)
    assert "approved by ada, who asked for it, plan " in text


def test_a_run_that_was_not_allowed_says_why_not_and_one_that_waits_what_it_would_do(tmp_path):
    for mode, words in (("observe", "it was not allowed to act: mode observe: it would have gone on to"), ("approve", "it waits: wants to send")):
        folder = tmp_path / mode
        folder.mkdir()
        with fraud(folder, mode=mode) as desk:
            drilled(desk)
            spoiled(desk)
            desk.see()
            desk.look()
            run = desk.respond()
            text = wk(desk, "runbook", "show", run.id)
            assert words in text
            assert ("router.point from 2 to 1  router.point to 2" in text) is (mode == "approve")


# The ladder, as a command; tests/test_ladder.py has the rule


def test_the_ladder_is_told_for_one_service_or_all(story):
    text = wk(story, "ladder", "fraud")
    assert text == wk(story, "ladder")
    assert text.startswith("rollback on fraud  mode approve\n  last drill  run 1, ")
    assert "acted       succeeded 1" in text and "next        auto: it lacks a version to go back to\n" in text
    assert json.loads(wk(story, "ladder", "--last", "1h", "--json"))[0]["acted"] == {"succeeded": 1}
    assert "did you mean 'fraud'?" in wk(story, "ladder", "fruad", code=2)


# The review


def review(desk: Desk, number: int = 1, name: str = "") -> str:
    with desk.world.store.read() as ledger:
        return draft(desk.world.config, ledger, number, desk.world.clock(), name).text


def part(text: str, head: str) -> str:
    return text.partition(f"## {head}\n")[2].partition("\n## ")[0]


def test_the_draft_has_every_part_and_leaves_blank_what_only_people_know(story):
    text = review(story)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == [
        "Summary",
        "Impact",
        "What changed before it",
        "Times",
        "Timeline",
        "What the runbooks did",
        "What went well",
        "What went badly",
        "Automatic actions",
        "Action items",
        "Root cause",
        "What we learned",
    ]
    assert part(text, "Root cause").strip() == part(text, "What we learned").strip().splitlines()[0] == "_Nobody has written this yet._"
    assert "Users, money, trust: _Nobody has written this yet._" in text


def test_the_draft_says_facts_with_their_numbers(story):
    text = review(story)
    assert re.search(r"- fraud/serving.parity: 1 of [34] looks were not good", part(text, "Impact"))
    assert re.search(r"version 2 was served when it opened, and had the traffic for 16m(?:\d+s)?", part(text, "Impact"))
    assert re.search(r"\| mitigated \| \S+ \S+Z \| \+16m(?:\d+s)? \|", part(text, "Times"))
    assert re.search(r"- it was seen 2\S*s after the version served changed", part(text, "What went well"))
    badly = part(text, "What went badly")
    assert "- nobody acknowledged it within 15m" in badly
    assert "- the letter incident-1/escalated/2 to eve was not delivered (dropped, no route)" in badly
    assert "no drill of" not in badly
    assert "1 of 2 automatic actions in the 1h before its end (run 2)" in part(text, "Automatic actions")
    items = part(text, "Action items")
    assert "- [ ] see why letters do not arrive: `watchkeeper notify test eve`" in items
    assert "name an owner" not in items and "drill it" not in items


def test_what_is_missing_becomes_an_action_item(tmp_path):
    with fraud(tmp_path, mode="observe") as desk:
        desk.look()
        desk.later(1)
        spoiled(desk)
        desk.see()
        desk.look()
        desk.respond()
        text = review(desk)
    items = part(text, "Action items")
    assert "have a version to go back to" in items and "`watchkeeper drill rollback fraud --by NAME`" in items
    assert "- no drill of rollback had succeeded in the 90 days before" in part(text, "What went badly")
    assert re.search(r"run 1 \(rollback\) did not end well \(refused\): no version of fraud", part(text, "What went badly"))


def test_the_draft_is_written_with_its_pictures_beside_it(story, tmp_path):
    out = tmp_path / "seven.md"
    assert "written to" in wk(story, "incidents", "review", 1, "--out", out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["seven-serving.parity.svg", "seven.md"]
    assert "](seven-serving.parity.svg)" in out.read_text()
    picture = (tmp_path / "seven-serving.parity.svg").read_text()
    ElementTree.fromstring(picture)
    assert all(words in picture for words in ("the incident opened", "version 2 serves instead of 1", "run 2 (rollback): flip done", "resolved"))
    assert "cannot be written" in wk(story, "incidents", "review", 1, "--out", tmp_path / "no" / "x.md", code=2)
    assert wk(story, "incidents", "review", 1).startswith("# Incident 1: fraud: serving.parity")
    assert json.loads(wk(story, "incidents", "review", 1, "--json"))["written"] == []
    assert "no incident 99" in wk(story, "incidents", "review", 99, code=3)


def test_only_a_resolved_incident_can_be_marked_reviewed_and_only_once(tmp_path):
    with fraud(tmp_path, mode="observe") as desk:
        desk.look()
        desk.server.factors["1"] = 3.0
        desk.look()
        with pytest.raises(PlanError, match="incident 1 is open, and only one that is resolved can be marked reviewed"):
            verbs.review(desk.world, 1, "ada")
        desk.server.factors["1"] = 2.0
        desk.look()
        desk.look()
        assert verbs.review(desk.world, 1, "ada").state == "reviewed"
        with pytest.raises(PlanError, match="is reviewed"):
            verbs.review(desk.world, 1, "ada")
        assert desk.events("incident.reviewed") == ["reviewed by ada"]
        assert told(desk)["story"][-1]["said"] == "It was reviewed by ada."


def test_the_command_marks_it_reviewed(tmp_path):
    with fraud(tmp_path, mode="observe") as desk:
        desk.look()
        desk.server.factors["1"] = 3.0
        desk.look()
        desk.server.factors["1"] = 2.0
        desk.look()
        desk.look()
    made = json.loads(wk(desk, "incidents", "review", 1, "--by", "ada", "--json"))
    assert made["state"] == "reviewed" and "the incident is **reviewed**" in made["draft"]
    assert "is reviewed, and only one that is resolved" in wk(desk, "incidents", "review", 1, "--by", "ada", code=3)


@pytest.mark.parametrize("text", ["a | b", "[x](javascript:alert(1))", "<img src=x>", "`code` *b* _i_ # h", "two\nlines\x1b[31m", "\\"])
def test_what_a_target_said_stays_one_line_of_plain_text(text):
    made = inline(text)
    assert "\n" not in made and "\x1b" not in made
    assert not re.search(r"(?<!\\)(?:\\\\)*[|<\[`*_#]", made)


HOSTILE = "\x1b[2J|`<script>{0}{what}{} * _x_ \n# h"


def test_a_storm_a_service_that_is_gone_and_hostile_words_are_told_too(tmp_path):
    with fraud(tmp_path, mode="observe") as desk:
        now = desk.world.clock()

        def put(ledger: Ledger) -> None:
            storm = ledger.add_incident("*", "page", HOSTILE, now)
            ledger.put_member(storm.id, Member(f"churn/{HOSTILE}", "c", now, HOSTILE, "blind"))
            for kind in ("incident.opened", "incident.joined", "change.version", "told.silenced", "run.odd", "odd"):
                ledger.record(now, kind, HOSTILE, incident=storm.id)
            gone = ledger.add_incident("gone", "page", "a service nobody configures any more", now)
            run, _ = ledger.want(
                runbook="odd", service="gone", mode="observe", by="watchkeeper", reason=HOSTILE, wanted_at=now, incident=gone.id, trigger="gone/x"
            )
            ledger.save_run(replace(run, state="refused", said=HOSTILE, ended_at=now))

        desk.world.store.write(put)
        storm, gone = told(desk, 1), review(desk, 2)
    assert [one["said"].partition(HOSTILE)[0] for one in storm["story"]] == [
        "The incident opened: ",
        "It was joined by ",
        "",
        "Nobody was told: ",
        "",
        "",
    ]
    assert "could not be looked at" in storm["summary"][1]
    assert "its service is not configured any more" in part(gone, "Automatic actions")
    assert "\x1b" not in gone and "<script" not in gone.replace("\\<script", "")
    text = wk(desk, "incidents", 1) + wk(desk, "incidents", 2) + wk(desk, "runbook", "show", 1) + wk(desk, "runbook", "history")
    assert "\x1b" not in text


def test_of_a_long_incident_what_changed_before_it_is_not_lost(tmp_path):
    with fraud(tmp_path, mode="observe") as desk:
        desk.look()
        desk.server.factors["1"] = 3.0
        desk.look()
        now = desk.world.clock()
        desk.world.store.write(lambda ledger: [ledger.record(now, "step", "look: intended", incident=1) for _ in range(6000)])
        assert told(desk)["summary"][0].startswith("Changed before it: version 1 serves, ")


def test_hostile_names_of_watches_become_plain_file_names(story):
    assert plain("fraud/../../etc/passwd x|y") == "..-..-etc-passwd-x-y"
    assert Path(plain("fraud/a\\b")).name == plain("fraud/a\\b")
