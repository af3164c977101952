"""What people say where evidence cannot: sealed, for a while, never of their own work, never against what was seen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import config, verbs
from agent.audit import attested
from agent.audit.attested import LONGEST, REVIEWS
from agent.audit.catalogue import SECTIONS, catalogue
from agent.audit.known import Known
from agent.audit.readiness import readiness
from agent.audit.scoring import Answer, Score, score, verdict
from agent.cli import main
from agent.config import Said
from agent.errors import ConfigError, PlanError
from agent.model import Window
from agent.observe import fold, found
from agent.store import Store
from agent.workers import Pool
from agent.world import World

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
CONFIG = """
services:
  fraud:
    owner: ada
    targets:
      server: oip+http://127.0.0.1:9/m
      live: {{url: "csv:log.csv", time: {{column: at, tz: UTC}}, id: id, prediction: p, features: [x]}}
      labels: {{url: "csv:labels.csv", key: id, label: y, time: {{column: known, tz: UTC}}}}
    attest: [{attest}]
    watches: [{{check: serving.ready, every: 10s}}, {{check: quality.accuracy, every: 1h, window: 1h, with: {{at_least: 0.9, slices: [x]}}}}]
notify: {{channels: {{ada: "http://127.0.0.1:9/ada"}}}}
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = config.load(written(tmp_path))
    with closing(Store.open(made.store).start()) as store, closing(Pool(1)) as pool:
        there = World(made, store, pool)
        there.clock = lambda: NOW
        yield there


def written(folder: Path, *attest: str) -> Path:
    path = folder / "watchkeeper.yaml"
    path.write_text(f"store: {folder}/w.db\n" + CONFIG.format(attest=", ".join(attest)))
    return path


def say(item: str = "TEAM-10", by: str = "eve", days: float = 30, kind: Any = "attested", reason: str = "", version: str | None = None) -> Said:
    return Said(kind, item, by, NOW + days * DAY, "on-call may switch it off", reason, version)


def waived(item: str, by: str = "eve", days: float = 30) -> Said:
    return say(item, by, days, "waived", "accepted-risk")


def apart(item: str, by: str = "eve", days: float = 30) -> Said:
    return say(item, by, days, "not applicable", "no-such-thing")


def told(world: World, now: datetime = NOW) -> dict[str, Any]:
    with world.store.read() as ledger:
        return readiness(Known(world.config, ledger, world.config.services["fraud"], now))


def item(world: World, name: str, now: datetime = NOW) -> tuple[str, float, str]:
    one = next(one for one in told(world, now)["items"] if one["item"] == name)
    return one["state"], one["points"], one["why"]


def heard(world: World, now: datetime = NOW) -> list[tuple[str, str, str]]:
    with world.store.read() as ledger:
        return [(one.said.item, one.said.kind, one.void) for one in attested.words(world.config.services["fraud"], ledger, now)]


def serve(world: World, version: str) -> None:
    world.store.write(lambda ledger: ledger.serve("fraud", version, NOW - DAY))


# A word


def test_a_word_alone_earns_half_until_its_day_and_then_nothing(world):
    assert item(world, "TEAM-10") == ("fail", 0.0, "nobody has attested it")
    verbs.attest(world, "fraud", say())
    state, points, why = item(world, "TEAM-10")
    assert (state, points) == ("pass", 0.5)
    assert why == "eve on 2026-03-01, until 2026-03-31: on-call may switch it off; nothing bears it out: DEPL-08 fails; by a person's word alone"
    assert item(world, "TEAM-10", NOW + 29.9 * DAY)[1] == 0.5 and item(world, "TEAM-10", NOW + 30 * DAY)[1] == 0.0
    assert heard(world, NOW + 30 * DAY) == [("TEAM-10", "attested", "it ended at 2026-03-31 12:00Z")]


def test_a_word_is_sealed_with_the_time_at_which_it_was_said_and_cannot_be_dated_back(world):
    verbs.attest(world, "fraud", say())
    with world.store.read() as ledger:
        (event,) = ledger.events("attest", service="fraud")
    assert event.at == NOW and world.store.verify() == []
    assert "at" not in Said.__dataclass_fields__, "there is no way to say when it was said"
    early = (NOW - 30 * DAY).strftime("%Y-%m-%d %H:%M:%S.%f")
    world.store.write(lambda ledger: ledger.conn.exec_driver_sql("UPDATE event SET at = ? WHERE id = ?", (early, event.id)))
    assert any(f"event {event.id}" in problem for problem in world.store.verify())


def test_the_answer_says_which_event_it_rests_on_and_where_that_is_in_the_chain(world):
    from agent.audit.answers import answers

    verbs.attest(world, "fraud", say())
    with world.store.read() as ledger:
        (rests,) = answers(catalogue(), Known(world.config, ledger, world.config.services["fraud"], NOW))["TEAM-10"].evidence
        (event,) = ledger.events("attest")
        assert (rests.link, rests.digest) == ledger.seals({"event": [event.id]})["event", event.id] and rests.link is not None
    assert (rests.kind, rests.vantage, rests.locator) == ("attestation", "self", f"event {event.id}")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (say("DATA-11"), "no question 'DATA-11'; did you mean 'DATA-10'"),
        (say(days=-1), "it ended at 2026-02-28 12:00Z"),
        (say(days=182), "it may hold for at most 180d; say an earlier day"),
        (waived("DATA-08", days=92), "it may hold for at most 90d"),
        (say("TEAM-08"), "it holds for one version: name it"),
        (say("MODEL-02", "Ada ", version="1"), "owns fraud, and nobody attests their own review"),
        (say("TEAM-02", "ada"), "ada owns fraud, and nobody attests their own review; let somebody else look"),
        (apart("DEPL-05"), "it is a blocker, and a blocker always applies"),
    ],
)
def test_what_may_not_be_said_is_refused_and_leaves_no_trace(world, said, why):
    with pytest.raises(PlanError, match=why.replace("(", "\\(")):
        verbs.attest(world, "fraud", said)
    assert heard(world) == []


def test_the_questions_that_judge_people_are_those_nobody_answers_for_themselves():
    assert set(REVIEWS) == {"MODEL-02"} | {name for name in catalogue().items if name.startswith("TEAM-")}


def test_who_brought_a_version_in_does_not_attest_its_review(world):
    from agent.model import Approval, Plan, StepRow

    def ran(ledger: Any) -> None:
        plan = Plan("bluegreen", "fraud", "", (), {"router.point": "1"}, (), NOW, NOW + DAY)
        run, _ = ledger.want(
            runbook="bluegreen", service="fraud", mode="approve", by="bob", reason="", wanted_at=NOW - 2 * DAY, approvals=(Approval("cy", NOW),)
        )
        ledger.save_run(replace(run, state="succeeded", plan=plan, ended_at=NOW))
        ledger.save_step(run.id, StepRow(1, "switch", "router.point", "done", tries=1, intended_at=NOW - DAY, ended_at=NOW))

    world.store.write(ran)
    serve(world, "2")
    with pytest.raises(PlanError, match=r"bob brought version 2 in \(run 1\), and nobody attests their own review"):
        verbs.attest(world, "fraud", say("MODEL-02", "bob"))
    verbs.attest(world, "fraud", say("MODEL-02", "cy"))


def test_a_word_about_a_version_ends_with_that_version(world):
    serve(world, "1")
    assert verbs.attest(world, "fraud", say("TEAM-08")).version == "1", "what is served, where that matters"
    verbs.attest(world, "fraud", say("TEAM-10", version="1"))
    verbs.attest(world, "fraud", say("TEAM-09"))
    assert not any(void for _, _, void in heard(world))
    world.store.write(lambda ledger: ledger.serve("fraud", "2", NOW))
    assert {name: void for name, _, void in heard(world)} == {
        "TEAM-08": "it is about version 1, and 2 is served",
        "TEAM-10": "it is about version 1, and 2 is served",
        "TEAM-09": "",
    }


def test_what_was_said_can_be_taken_back(world):
    verbs.attest(world, "fraud", say())
    verbs.attest(world, "fraud", say("TEAM-09"))
    assert verbs.withdraw(world, "fraud", "team-10", "zoe") == 1
    assert [name for name, _, _ in heard(world)] == ["TEAM-09"] and item(world, "TEAM-10")[1] == 0.0
    with world.store.read() as ledger:
        assert [event.what for event in ledger.events("attest.withdrawn")] == ["TEAM-10 is not attested by eve any more: withdrawn by zoe"]
    with pytest.raises(PlanError, match="nothing is said of TEAM-10 of fraud"):
        verbs.withdraw(world, "fraud", "TEAM-10", "zoe")


# Beside evidence


def saw(world: World, verdict: Any) -> None:
    w = world.find("fraud/quality.accuracy")
    world.store.write(lambda ledger: fold(world, ledger, w, found(w, Window(NOW - w.watch.window, NOW), NOW, verdict, "1", 0.01), verdict))


def test_what_is_seen_comes_before_what_is_said(world):
    from agent import Reading, fail

    serve(world, "1")
    verbs.attest(world, "fraud", say("MODEL-07"))
    assert item(world, "MODEL-07")[:2] == ("pass", 0.5), "nothing is seen yet"
    saw(world, fail("slice x=1 is below", parts={"slice.x=1": Reading(0.2, 0.9)}))
    assert item(world, "MODEL-07")[:2] == ("fail", 0.0)
    gone = replace(world.config.services["fraud"], watches=world.config.services["fraud"].watches[:1])
    bare = replace(world.config, services={"fraud": gone})
    with world.store.read() as ledger:
        left = readiness(Known(bare, ledger, gone, NOW))
    assert next(one for one in left["items"] if one["item"] == "MODEL-07")["points"] == 0.0, "to take the watch away wins nothing"


def test_a_word_does_not_count_where_what_would_show_it_is_not_attached(world):
    serve(world, "1")
    verbs.attest(world, "fraud", say("TEAM-08"))
    assert "code" not in told(world)["attached"] and item(world, "TEAM-08")[:2] == ("unknown", 0.0)


def test_of_what_is_attested_in_part_both_halves_make_a_pass(world):
    serve(world, "1")
    half = catalogue().items["DATA-09"]
    assert half.mode == "attested in part"
    seen = Answer("pass", NOW, observed="all tagged")
    with world.store.read() as ledger:
        known = Known(world.config, ledger, world.config.services["fraud"], NOW)
        assert attested.heard(known, {"DATA-09": seen})["DATA-09"].said == "partial"
        assert "DATA-09" not in attested.heard(known, {})
    verbs.attest(world, "fraud", say("DATA-09"))
    with world.store.read() as ledger:
        known = Known(world.config, ledger, world.config.services["fraud"], NOW)
        both = attested.heard(known, {"DATA-09": seen})["DATA-09"]
        assert (both.said, both.attested, len(both.evidence)) == ("pass", False, 1)
        alone = attested.heard(known, {})["DATA-09"]
        assert (alone.said, alone.attested) == ("pass", True)
        for said in ("partial", "fail"):
            assert attested.heard(known, {"DATA-09": replace(seen, said=said)})["DATA-09"].said == said
        borne = attested.heard(known, {"TEAM-10": seen})
        assert borne["TEAM-10"].said == "fail", "a drill says nothing of who decided"


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(catalogue().items)), st.sampled_from(["pass", "partial", "fail"])), st.data())
def test_nothing_that_is_said_not_to_apply_makes_a_section_more_than_ten_or_a_blocker_less(said: dict[str, Any], data: st.DataObject):
    able = [name for name, one in catalogue().items.items() if one.criticality != "blocker"]
    chosen = data.draw(st.lists(st.sampled_from(able), unique=True, max_size=4))
    away = dict.fromkeys(chosen, "ada: no-such-thing")
    found = score(catalogue(), {name: Answer(one, NOW) for name, one in said.items()}, NOW, None, away)
    assert all(0 <= value <= 10 for value in found.sections.values()) and 0 <= found.coverage <= 1
    assert not set(found.blockers) & set(chosen) and all(found.scored[name].state == "n/a" for name in chosen)


# Gaps that are accepted, and questions that do not apply


def test_an_accepted_gap_changes_no_points_and_makes_a_condition_of_it(world):
    before = told(world)
    verbs.attest(world, "fraud", waived("DATA-08"))
    assert (told(world)["final"], item(world, "DATA-08")) == (before["final"], item(world, "DATA-08"))
    found = {one["item"]: (one["waiver"]["by"], one["waiver"]["reason"]) for one in told(world)["items"] if one["waiver"]}
    assert found == {"DATA-08": ("eve", "accepted-risk")}


def nearly() -> Score:
    half = {name: Answer("partial" if one.criticality == "blocker" else "pass", NOW) for name, one in catalogue().items.items()}
    return score(catalogue(), half, NOW)


def test_with_every_blocker_half_met_and_its_gap_accepted_the_verdict_is_conditional():
    planned = set(nearly().blockers)
    assert verdict(nearly())[0] == "NOT-READY" and verdict(nearly(), planned=planned)[0] == "CONDITIONAL"
    assert verdict(nearly(), planned=planned - {"DEPL-05"})[0] == "NOT-READY"


def test_a_blocker_s_gap_is_accepted_by_two_people_or_by_nobody(world):
    def planned() -> set[str]:
        with world.store.read() as ledger:
            return set(attested.by_item(attested.words(world.config.services["fraud"], ledger, NOW), "waived"))

    verbs.attest(world, "fraud", waived("DEPL-05"))
    verbs.attest(world, "fraud", waived("DEPL-05", "EVE"))
    assert planned() == set() and heard(world)[0][2] == "it is a blocker: a second person must accept it too"
    verbs.attest(world, "fraud", waived("DEPL-05", "ada"))
    assert planned() == {"DEPL-05"}


def test_what_does_not_apply_is_left_out_and_its_section_scaled(world):
    verbs.attest(world, "fraud", apart("DATA-10"))
    assert item(world, "DATA-10")[0] == "n/a"
    ten = {name: Answer("pass", NOW) for name in catalogue().items if name.startswith("DATA") and name not in ("DATA-10", "DATA-08", "DATA-03")}
    assert score(catalogue(), ten, NOW, None, {"DATA-10": "", "DATA-08": ""}).sections["DATA"] == pytest.approx(7 * 10 / 8)
    assert set(SECTIONS) == set(score(catalogue(), {}, NOW).sections)


def test_at_most_two_questions_of_a_section_do_not_apply(world):
    verbs.attest(world, "fraud", apart("DATA-10"))
    verbs.attest(world, "fraud", apart("DATA-08"))
    verbs.attest(world, "fraud", apart("MODEL-06"))
    with pytest.raises(PlanError, match="DATA-05: DATA-08 and DATA-10 are said not to apply already; at most 2 questions of a section may be"):
        verbs.attest(world, "fraud", apart("DATA-05"))
    verbs.attest(world, "fraud", apart("DATA-10", days=60))  # said again is not a third


# Written in the configuration


TEAM10 = '{item: TEAM-10, by: eve, until: 2026-03-31, note: "on-call may switch it off"}'


def reload(world: World, *attest: str, at: datetime = NOW) -> None:
    world.use(config.load(written(Path(str(world.config.path)).parent, *attest)))
    world.store.write(lambda ledger: attested.take_up(ledger, world.config, at))


def test_what_the_configuration_says_counts_from_when_it_was_first_read_and_as_long_as_it_stands_there(world):
    world.use(config.load(written(Path(str(world.config.path)).parent, TEAM10)))
    assert heard(world) == [("TEAM-10", "attested", "it counts from when the agent has read it: watchkeeper run")] and item(world, "TEAM-10")[1] == 0
    reload(world, TEAM10)
    reload(world, TEAM10, at=NOW + DAY)
    assert item(world, "TEAM-10", NOW + DAY)[1] == 0.5
    with world.store.read() as ledger:
        assert [event.at for event in ledger.events("attest")] == [NOW], "it is recorded once"
    with pytest.raises(PlanError, match=r"stands in the configuration: take it out under services.fraud.attest"):
        verbs.withdraw(world, "fraud", "TEAM-10", "zoe")
    world.use(config.load(written(Path(str(world.config.path)).parent)))
    assert heard(world) == [("TEAM-10", "attested", "it stands in the configuration no more")]
    reload(world)
    reload(world, TEAM10, at=NOW + 2 * DAY)
    with world.store.read() as ledger:
        (word,) = attested.words(world.config.services["fraud"], ledger, NOW + 2 * DAY)
    assert word.at == NOW + 2 * DAY and not word.void, "taken out and put back it is a new word"


def test_what_the_configuration_may_not_say_is_recorded_and_does_not_count(world):
    reload(
        world,
        "{item: TEAM-02, by: ada, until: 2026-03-31, note: x}",
        "{item: DEPL-05, by: eve, until: 2026-03-31, note: x, not_applicable: no-such-thing}",
        "{item: TEAM-08, by: eve, until: 2027-03-31, note: x, version: '1'}",
    )
    assert len(heard(world)) == 3 and all(void for _, _, void in heard(world))


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("{item: DATA-11, by: eve, until: 2026-03-31, note: x}", "'DATA-11' cannot be a name; use a question of the audit, DATA-01 to TEAM-10"),
        ("{item: DATA-10, by: eve, until: 2026-02-30, note: x}", "'2026-02-30' is no day there is"),
        ("{item: DATA-10, by: eve, note: x}", "needs `until`"),
        ("{item: DATA-10, until: 2026-03-31, note: x}", "needs `by`"),
        ("{item: DATA-10, by: eve, until: 2026-03-31, note: x, waive: because}", "waive: must be"),
        (
            "{item: DATA-10, by: eve, until: 2026-03-31, note: x, waive: not-detected, not_applicable: not-supported}",
            "is either waived or not applicable, not both",
        ),
    ],
)
def test_a_bad_entry_is_told_with_its_place(tmp_path, entry, problem):
    with pytest.raises(ConfigError, match=r"services\.fraud\.attest") as caught:
        config.load(written(tmp_path, entry))
    assert problem in str(caught.value)


# The command and the API


def test_the_command_says_lists_and_takes_back(tmp_path):
    def run(*words: str) -> Any:
        return CliRunner().invoke(main, ["-c", str(path), "attest", *words])

    path, day = written(tmp_path), f"{datetime.now(UTC) + 30 * DAY:%Y-%m-%d}"
    made = run("TEAM-10", "fraud", "--by", "eve", "--until", day, "--note", "on-call may switch it off")
    assert (made.exit_code, made.output) == (0, f"TEAM-10 of fraud is attested by eve until {day}\n")
    assert run("DEPL-05", "fraud", "--by", "eve", "--until", day, "--note", "next sprint", "--waive", "accepted-risk").exit_code == 0
    listed = run()
    assert (
        listed.exit_code == 1 and "does not count: it is a blocker: a second person must accept it too (accepted-risk: next sprint)" in listed.output
    )
    assert run("DEPL-05", "fraud", "--by", "ada", "--until", day, "--note", "agreed", "--waive", "accepted-risk").exit_code == 0
    assert run().exit_code == 0 and len(json.loads(run("--json").output)) == 3
    assert run("DEPL-05", "fraud", "--withdraw", "--by", "ada").output == "DEPL-05 of fraud: 2 withdrawn\n"
    assert run("TEAM-02", "fraud", "--by", "ada", "--until", day, "--note", "x").exit_code == 3
    for wrong in (
        ("TEAM-10",),
        ("TEAM-10", "fruad"),
        ("TEAM-10", "fraud", "--until", day),
        ("TEAM-10", "fraud", "--until", "soon", "--note", "x"),
        ("TEAM-10", "fraud", "--until", day, "--note", "x", "--waive", "because"),
        ("TEAM-10", "fraud", "--until", day, "--note", "x", "--waive", "not-detected", "--not-applicable", "not-supported"),
    ):
        assert run(*wrong, "--by", "eve").exit_code == 2, wrong


def test_every_kind_has_its_longest_time():
    assert LONGEST == {"attested": 180 * DAY, "waived": 90 * DAY, "not applicable": 180 * DAY}


def test_over_the_api_the_same_is_said_listed_taken_back_and_refused(world):
    import httpx

    from agent import web

    served = web.serve(web.app(world, verbs, "a-token-of-the-test"), "127.0.0.1", 0)
    try:
        with httpx.Client(base_url=f"{served.url}/api/services/fraud/", headers={"Authorization": "Bearer a-token-of-the-test"}) as client:
            body = {"item": "TEAM-10", "by": "eve", "until_at": (NOW + 9 * DAY).isoformat(), "note": "on-call may switch it off"}
            assert client.post("attestations", json=body).status_code == 201
            (one,) = client.get("attestations").json()
            assert (one["item"], one["by"], one["at"], one["void"]) == ("TEAM-10", "eve", NOW.isoformat(), "")
            assert client.post("attestations", json={**body, "by": "ada"}).status_code == 409
            for wrong in ({"item": "TEAM-11"}, {"until_at": "soon"}, {"note": "x" * 1001}, {"kind": "sworn"}, {"at": NOW.isoformat()}, {"by": "\0"}):
                assert client.post("attestations", json={**body, **wrong}).status_code == 422, wrong
            assert client.post("attestations", json={**body, "until_at": "9999-12-31T23:59:59-12:00"}).status_code == 409
            assert client.delete("attestations/TEAM-10", params={"by": "eve"}).json() == {"item": "TEAM-10", "withdrawn": 1}
            assert client.delete("attestations/TEAM-10", params={"by": "eve"}).status_code == 409
            assert client.get("attestations", headers={"Authorization": ""}).json() == []
            assert client.post("attestations", json=body, headers={"Authorization": ""}).status_code in (401, 403)
    finally:
        served.stop()


@pytest.mark.parametrize(
    "said", [say(by=" "), say(by="e" * 101), replace(say(), note=""), replace(say(), note="x" * 1001), replace(say(), note="\n")]
)
def test_a_word_of_nobody_or_about_nothing_is_refused(world, said):
    with pytest.raises(PlanError, match="say who you are, and what, in at most 100 and 1000 characters"):
        verbs.attest(world, "fraud", said)


# Whoever takes a source away must not gain by it


MENTIONED = ("DATA-09", "DATA-10", "MODEL-08", "TEAM-09", "TEAM-10", "MODEL-07", "DEPL-05", "MON-01", "MODEL-04", "TEAM-07")
GRADES = ("UNVERIFIED", "NOT-READY", "CONDITIONAL", "READY")


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("spoken")
    made = config.load(written(folder))
    with closing(Store.open(made.store).start()) as store, closing(Pool(1)) as pool:
        world = World(made, store, pool, clock=lambda: NOW)
        world.store.write(lambda ledger: ledger.serve("fraud", "1", NOW - DAY))
        for name in MENTIONED:
            verbs.attest(world, "fraud", say(name))
        for by in ("ada", "eve"):
            verbs.attest(world, "fraud", waived("DEPL-05", by))
        yield world


SOURCES = ("server", "registry", "tables", "metrics", "code")
STATES = st.dictionaries(st.sampled_from(sorted(catalogue().items)), st.sampled_from(["pass", "pass", "pass", "partial", "fail"]), min_size=30)


@settings(max_examples=60, deadline=None)
@given(STATES, st.sets(st.sampled_from(SOURCES)), st.sampled_from(SOURCES))
def test_to_take_a_source_away_never_raises_a_score_a_section_or_the_verdict(spoken: World, said: dict[str, Any], rest: set[str], gone: str):
    with spoken.store.read() as ledger:
        planned = set(attested.by_item(attested.words(spoken.config.services["fraud"], ledger, NOW), "waived"))

        def come(attached: set[str]) -> Score:
            known = Known(spoken.config, ledger, spoken.config.services["fraud"], NOW)
            known.__dict__["attached"] = frozenset(attached)
            seen = {name: Answer(one, NOW) for name, one in said.items() if catalogue().items[name].within(frozenset(attached))}
            return score(catalogue(), attested.heard(known, seen), NOW, "1")

        whole, less = come(rest | {gone}), come(rest - {gone})
    assert all(less.sections[name] <= value for name, value in whole.sections.items()) and less.coverage <= whole.coverage
    grade = [GRADES.index(verdict(one, planned=planned)[0]) for one in (whole, less)]
    assert grade[1] <= grade[0]
