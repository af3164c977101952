"""Each rule of the audit against a real store: what passes as far as it can, what fails, what stays unknown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent import Reading, Verdict, config, error, fail, nodata, ok, warn
from agent.audit.answers import RULES, answers
from agent.audit.catalogue import SECTIONS, catalogue
from agent.audit.gates import gate
from agent.audit.known import Known, brief
from agent.audit.readiness import ceiling, readiness
from agent.model import Approval, Incident, Window
from agent.observe import fold, found
from agent.store import Ledger, Store
from agent.workers import Pool
from agent.world import World
from tests.conftest import HOUSE

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SERVICE = """
{more}
services:
  fraud:
    owner: ada
    escalation: [{line}]
    load: {{rate: 300, longest: 20m}}
    targets: {targets}
    watches: [{watches}]
notify: {{channels: {{ada: "http://127.0.0.1:9/ada", eve: "http://127.0.0.1:9/eve"}}}}
"""
TARGETS = """
      server: oip+http://127.0.0.1:9/m
      router: pointer+http://127.0.0.1:9
      registry: folder:models
      live: {url: "csv:log.csv", time: {column: at, tz: UTC}, id: id, prediction: p, score: s, features: [x]}
      reference: {url: "csv:train.csv", time: {column: at, tz: UTC}, id: id, prediction: p, features: [x]}
      labels: {url: "csv:labels.csv", key: id, label: y, time: {column: known, tz: UTC}}
"""
LOAD = "{check: sla.latency, every: 1d, within: 10m, with: {rate: 200, duration: 6m, limits: {p99: 100ms}}}"
SLICED = "{check: quality.accuracy, every: 1h, window: 1h, with: {at_least: 0.9, slices: [x]}}"
FORGETTING = '{check: forgetting.eval, every: 1d, within: 10m, bind: {candidate: "onnx:m.onnx", old: {url: "csv:old.csv"}}, with: {label: y}}'


def watch(check: str, every: str = "1h", **parameters: str) -> str:
    given = ", ".join(f"{name}: {value}" for name, value in parameters.items())
    return f"{{check: {check}, every: {every}, window: 1h, with: {{{given}}}}}"


@dataclass
class Desk:
    """A real store, and what is written to it as the agent would."""

    world: World

    def write(self, work: Callable[[Ledger], object]) -> None:
        self.world.store.write(work)

    def saw(self, check: str, verdict: Verdict, at: datetime = NOW, version: str | None = "1") -> None:
        w = self.world.find(f"fraud/{check}")
        finding = found(w, Window(at - w.watch.window, at), at, verdict, version, 0.01)
        self.write(lambda ledger: fold(self.world, ledger, w, finding, verdict))

    def page(self, opened: datetime, by: str | None = "ada", after: timedelta = timedelta(minutes=5), letter: str = "sent", watch: str = "a") -> None:
        """An incident that paged, was told of, acknowledged and resolved."""

        def do(ledger: Ledger) -> None:
            made: Incident = ledger.add_incident("fraud", "page", "it is bad", opened)
            acked = opened + after if by else None
            over = replace(made, state="resolved", acknowledged_by=by, acknowledged_at=acked, resolved_at=opened + HOUR, changed_at=opened + HOUR)
            ledger.save_incident(over)
            ledger.record(opened, "incident.opened", "it is bad", service="fraud", incident=made.id)
            key = f"incident-{made.id}/opened"
            ledger.post(key, "ada", "it is bad", {}, opened)
            if letter == "sent":
                ledger.letter_sent(key, "ada")
            elif letter == "dropped":
                ledger.letter_dropped(key, "ada", "no such host")

        self.write(do)

    def ran(self, runbook: str, at: datetime, by: str = "ada", state: str = "succeeded", seconds: float = 20.0, drill: bool = True) -> None:
        """A run with one step that changed something."""
        from agent.model import Plan, StepRow

        def do(ledger: Ledger) -> None:
            plan = Plan(runbook, "fraud", "a drill", (), {"router.point": "1"}, (), at, at + HOUR)
            run, _ = ledger.want(
                runbook=runbook, service="fraud", mode="approve", by=by, reason="a drill", wanted_at=at, drill=drill, approvals=(Approval(by, at),)
            )
            end = at + timedelta(seconds=seconds)
            ledger.save_run(replace(run, state=state, plan=plan, ended_at=end))
            ledger.save_step(run.id, StepRow(1, "flip", "router.point", "done", tries=1, intended_at=at, ended_at=end))
            ledger.record(at, "run.wanted", f"{runbook} wanted", service="fraud", run=run.id)

        self.write(do)

    def say(self, item: str, now: datetime = NOW) -> tuple[str, str] | None:
        """(what the question came to, what was observed); None: unknown."""
        with self.world.store.read() as ledger:
            answer = answers(catalogue(), Known(self.world.config, ledger, self.world.config.services["fraud"], now)).get(item)
            assert answer is None or answer.said != "pass" or not RULES[item].lacks
            return None if answer is None else (answer.said, answer.observed)

    def said(self, item: str, now: datetime = NOW) -> str | None:
        found = self.say(item, now)
        return found and found[0]


Make = Callable[..., Desk]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Make]:
    """A desk of a service with these watches; without targets nothing is attached."""
    open_things: list[object] = []

    def make(*watches: str, targets: str = TARGETS, more: str = "", line: str = "eve") -> Desk:
        path = tmp_path / f"watchkeeper-{len(open_things)}.yaml"
        path.write_text(SERVICE.format(targets=targets, watches=", ".join(watches), line=line, more=f"store: {path}.db\n{more}"))
        read = config.load(path)
        store, pool = Store.open(read.store).start(), Pool(1)
        open_things.extend((store, pool))
        desk = Desk(World(read, store, pool))
        desk.world.clock = lambda: NOW
        return desk

    yield make
    for thing in open_things:
        with closing(thing):  # type: ignore[type-var] # a store or a pool
            pass


BARE = "{}"


# The record begins: `long` is a year of it


def long(desk: Desk) -> Desk:
    desk.write(lambda ledger: ledger.record(NOW - 365 * DAY, "agent.start", "watching"))
    return desk


def test_every_rule_answers_a_question_of_the_catalogue_and_says_how():
    assert set(RULES) <= set(catalogue().items) and len(RULES) >= 44
    for name, rule in RULES.items():
        assert rule.item == name and rule.reads.endswith(".") and rule.earn
        assert catalogue().items[name].mode != "attested"


def test_nothing_is_said_of_a_service_that_was_never_looked_at(made):
    desk = made(targets=BARE)
    with desk.world.store.read() as ledger:
        held = answers(catalogue(), Known(desk.world.config, ledger, desk.world.config.services["fraud"], NOW))
    assert set(held) == {"MON-08", "TEAM-01", "TEAM-09", "TEAM-10"} and {one.said for one in held.values()} == {"fail"}
    assert "0 s of 90 d" in held["TEAM-01"].observed and "never seen to act" in held["TEAM-01"].observed


# People


def test_an_owner_and_a_deputy_who_were_seen_to_act_pass_and_one_is_half(made):
    desk = made(targets=BARE)
    assert desk.said("TEAM-01") == "fail"
    desk.page(NOW - DAY, by="ada")
    assert desk.said("TEAM-01") == "partial"
    desk.ran("rollback", NOW - DAY, by="eve")
    assert desk.say("TEAM-01") == ("pass", "named: ada (seen to act), eve (seen to act); record of 1 d of 90 d")
    assert desk.said("TEAM-01", NOW + 100 * DAY) == "fail", "what they did then says nothing of them now"


def test_nobody_is_a_deputy_of_their_own_and_any_deputy_will_do(made):
    alone = made(targets=BARE, line="")
    alone.page(NOW - DAY, by="ada")
    assert alone.say("TEAM-01")[0] == "partial" and "no deputy" in alone.say("TEAM-01")[1]
    several = made(targets=BARE, line="eve, ada")
    several.page(NOW - DAY, by="ada")
    assert several.said("TEAM-01") == "partial"
    several.page(NOW - DAY, by="eve")
    assert several.said("TEAM-01") == "pass"


def test_people_answer_in_time_or_not_and_few_pages_are_no_proof(made):
    desk = long(made(targets=BARE))
    assert desk.say("TEAM-02") is None
    for day in range(9):
        desk.page(NOW - (day + 1) * DAY)
    assert desk.said("TEAM-02") == "partial", "nine are too few"
    desk.page(NOW - 20 * DAY)
    assert desk.say("TEAM-02") == ("pass", "p90 of 10 pages is 5 min; 0 open for more than a day and not acknowledged; record of 90 d of 90 d")
    for day in range(2):
        desk.page(NOW - (day + 30) * DAY, after=timedelta(minutes=61))
    assert desk.said("TEAM-02") == "fail"


def test_a_page_that_nobody_acknowledged_counts_as_long_as_it_was_there(made):
    desk = long(made(targets=BARE))
    desk.page(NOW - DAY, by=None)
    assert desk.say("TEAM-02")[1].startswith("p90 of 1 pages is 1 h")


def test_alerts_lead_to_runbooks_that_were_run(made):
    desk = made(watch("serving.ready"), watch("serving.parity"))
    assert desk.said("TEAM-03") == "fail"
    desk.ran("rollback", NOW - DAY)
    assert desk.say("TEAM-03") == (
        "pass",
        "100% of 2 watches lead to a runbook; 1 of 1 runbooks ran last with success in 90 d; record of 1 d of 90 d",
    )
    desk.ran("rollback", NOW - HOUR, state="stuck")
    assert desk.said("TEAM-03") == "fail"
    assert made(targets=BARE).say("TEAM-03") is None
    leading_nowhere = made(watch("serving.ready"), watch("sample"))
    leading_nowhere.ran("rollback", NOW - DAY)
    assert leading_nowhere.said("TEAM-03") == "fail", "a watch that leads nowhere"
    tickets = made(watch("serving.ready"), watch("service.owner"))
    tickets.ran("rollback", NOW - DAY)
    assert tickets.said("TEAM-03") == "pass", "a ticket waits for somebody to think"


def test_two_people_can_do_each_or_only_one_can(made):
    desk = made(targets=BARE)
    assert desk.say("TEAM-04") is None
    desk.ran("rollback", NOW - DAY, by="ada")
    assert desk.said("TEAM-04") == "fail"
    desk.ran("rollback", NOW - DAY, by="eve")
    assert desk.say("TEAM-04") == ("partial", "different people: 2 for rollback, 0 for retrain, 0 for ack; record of 1 d of 180 d")
    for who in ("ada", "eve"):
        desk.ran("retrain", NOW - DAY, by=who)
        desk.page(NOW - DAY, by=who)
    assert desk.said("TEAM-04") == "pass"


def test_what_pages_again_and_again_was_not_learned_from(made):
    desk = made(watch("serving.ready"))
    assert desk.say("TEAM-05") is None
    for day in range(3):
        desk.saw("serving.ready", fail("not ready"), NOW - (9 - 2 * day) * DAY)
        desk.saw("serving.ready", fail("not ready"), NOW - (9 - 2 * day) * DAY + HOUR)
        for hour in range(2, 8):
            desk.saw("serving.ready", ok("ready"), NOW - (9 - 2 * day) * DAY + hour * HOUR)
    told = "0 of 0 pages were reviewed within 14 d; 2 pages came again from a watch that had paged before; record of 9 d of 90 d"
    assert desk.say("TEAM-05") == ("fail", told)


def test_pages_are_looked_back_at_or_not(made):
    desk = long(made(watch("serving.ready")))
    desk.page(NOW - 30 * DAY)
    assert desk.say("TEAM-05")[0] == "partial" and desk.say("TEAM-05")[1].startswith("0 of 1 pages were reviewed within 14 d; 0 pages came again")
    desk.page(NOW - 29 * DAY)
    assert desk.said("TEAM-05") == "fail"
    for incident, day in ((1, 20), (2, 19)):
        reviewed = {"service": "fraud", "incident": incident}
        desk.write(lambda ledger, day=day, reviewed=reviewed: ledger.record(NOW - day * DAY, "incident.reviewed", "reviewed by ada", **reviewed))
    assert desk.say("TEAM-05")[0] == "partial" and "not seen: the actions" in desk.say("TEAM-05")[1]


def test_a_page_reaches_somebody_or_does_not(made):
    desk = long(made(watch("serving.ready")))
    assert desk.say("MON-07") is None
    desk.page(NOW - HOUR)
    assert desk.said("MON-07") == "pass"
    lost = long(made(watch("serving.ready")))
    lost.page(NOW - DAY, by=None, letter="dropped")
    assert lost.said("MON-07") == "fail"
    lost.page(NOW - HOUR)
    assert lost.said("MON-07") == "partial", "one of two reached nobody"
    desk.write(lambda ledger: ledger.add_silence("fraud/*", NOW - HOUR, NOW + 20 * DAY, "eve", "too loud"))
    assert desk.say("MON-07")[0] == "partial" and "1 silences longer than 14 d" in desk.say("MON-07")[1]


def test_a_page_on_a_short_record_is_half_a_proof(made):
    desk = made(watch("serving.ready"))
    desk.page(NOW - HOUR)
    assert desk.say("MON-07")[0] == "partial" and "record of 1 h of 90 d" in desk.say("MON-07")[1]


def test_the_agent_is_watched_over_in_part_and_a_broken_chain_fails(made):
    desk = made(watch("serving.ready"), more='heartbeat: {url: "http://127.0.0.1:9/beat", every: 1m}')
    assert desk.say("MON-10") is None
    for hour in reversed(range(24)):
        desk.saw("serving.ready", ok("ready"), NOW - hour * HOUR)
    assert desk.say("MON-10")[0] == "partial" and "23 h of 28 d" in desk.say("MON-10")[1] and "not seen: a test of the dead" in desk.say("MON-10")[1]
    assert desk.say("MON-10", NOW + 5 * HOUR) is None, "looks were missed since"
    with desk.world.store.read() as ledger:
        broken = answers(catalogue(), Known(desk.world.config, ledger, desk.world.config.services["fraud"], NOW, intact=False))
    assert broken["MON-10"].said == "fail"
    assert made(watch("serving.ready")).say("MON-10") is None


# Data and model


@pytest.mark.parametrize(
    ("item", "check", "configured"),
    [
        ("DATA-01", "data.contract", watch("data.contract", freshness="1h", volume="5")),
        ("DEPL-06", "sla.latency", LOAD),
        ("MON-05", "quality.accuracy", watch("quality.accuracy", at_least="0.9")),
        ("MODEL-10", "forgetting.eval", FORGETTING),
    ],
)
def test_what_a_watch_last_saw_is_half_at_best_and_fails_where_it_fails(made, item, check, configured):
    desk = made(configured)
    assert desk.say(item) is None, "configured and never looked"
    desk.saw(check, ok("all is well\nand more"), NOW - 2 * HOUR)
    said, told = desk.say(item)
    assert said == "partial" and told.startswith(f"{check}: all is well; not seen: {RULES[item].lacks}")
    desk.saw(check, fail("all is bad"), NOW)
    desk.saw(check, fail("all is bad"), NOW + timedelta(seconds=1))
    assert desk.said(item, NOW + HOUR) == "fail"
    assert made(targets=BARE).say(item) is None


def test_a_watch_that_cannot_see_answers_nothing(made):
    desk = made(watch("data.contract"))
    desk.saw("data.contract", ok("all is well"), NOW - 2 * HOUR)
    desk.saw("data.contract", error("no such file"), NOW - HOUR)
    assert desk.say("DATA-01") is None


def test_rows_are_in_time_in_nearly_all_looks_or_not(made):
    desk = made(watch("data.contract", freshness="1h", volume="5"))
    assert desk.say("DATA-03") is None
    late = {"freshness": Reading(7200, 3600)}
    for hour in range(100, 0, -1):
        broken = fail("late", parts=late) if hour == 50 else fail("a null", parts={"x.null": Reading(1, 0)}) if hour % 20 == 0 else ok("well")
        desk.saw("data.contract", broken, NOW - hour * HOUR)
    said, told = desk.say("DATA-03")
    assert said == "partial" and told.startswith("data.contract: 99 of 100 looks inside, 4 d of 28 d")
    for minute in range(1, 8):
        desk.saw("data.contract", fail("late", parts=late), NOW - HOUR + timedelta(minutes=minute))
    assert desk.said("DATA-03") == "fail"
    unlimited = made(watch("data.contract"))
    unlimited.saw("data.contract", ok("well"))
    assert unlimited.say("DATA-03") == ("fail", "data.contract has no limit of freshness or none of volume")


def test_skew_is_judged_by_the_numbers_of_the_catalogue(made):
    desk = made(watch("skew.logged"))
    assert desk.say("DATA-06") is None
    for hour, share, n, wanted in (
        (9, 0.0, 1000, "pass"),
        (8, 0.0, 199, "partial"),
        (7, 0.004, 1000, "partial"),
        (6, 0.02, 1000, "fail"),
        (5, 0.0, 0, None),
    ):
        desk.saw("skew.logged", ok("well", parts={"x": Reading(share, 0.05, n=n), "x.late": Reading(0.5, 1.0, n=n)}), NOW - hour * HOUR)
        assert desk.said("DATA-06") == wanted, share
    desk.saw("skew.logged", fail("wrong", parts={"x": Reading(0.5, 0.01, n=500)}), NOW - 4 * HOUR)
    assert desk.said("DATA-06") == "fail"


def test_a_yardstick_is_of_the_version_that_serves_or_of_another(made):
    desk = made(watch("drift.compare"))
    assert desk.say("DATA-07") is None
    desk.saw("drift.compare", ok("well", Reading(0.1, 0.2, n=1000)), NOW - 2 * HOUR, version="1")
    desk.write(lambda ledger: ledger.serve("fraud", "1", NOW - DAY))
    desk.write(lambda ledger: ledger.pin("fraud/drift.compare", Window(NOW - 3 * HOUR, NOW - 2 * HOUR), "ada", "a good hour", NOW - HOUR))
    said, told = desk.say("DATA-07")
    assert said == "partial" and told.startswith("1 yardsticks of version 1, 1000 rows or more")
    desk.write(lambda ledger: ledger.serve("fraud", "2", NOW - HOUR))
    assert desk.say("DATA-07") == ("fail", "a yardstick is of version 1, and 2 is served")


def test_what_serves_is_in_the_registry_or_is_not(made):
    desk = made(watch("serving.ready"))
    assert desk.say("MODEL-01") is None
    desk.saw("serving.ready", ok("ready"))
    desk.write(lambda ledger: (ledger.serve("fraud", "1", NOW - DAY), ledger.set("seen/fraud", {"registry": {"1": "aa"}}, NOW, "watchkeeper")))
    assert desk.say("MODEL-01")[0] == "partial"
    desk.write(lambda ledger: ledger.serve("fraud", "9", NOW - HOUR))
    assert desk.say("MODEL-01") is None, "nobody has looked at the registry since, as far as is known"
    long(desk)
    assert desk.say("MODEL-01") == ("fail", "version 9 is served, and the registry does not know it")


def test_slices_are_declared_and_judged_or_are_not(made):
    assert made(targets=BARE).say("MODEL-07") is None
    assert made(watch("quality.accuracy", at_least="0.9")).say("MODEL-07") == ("fail", "no watch of quality declares slices")
    desk = made(SLICED)
    assert desk.say("MODEL-07") is None
    desk.saw("quality.accuracy", warn("unsure", parts={"accuracy": Reading(0.9), "slice.x=1": Reading(0.8, 0.9)}), NOW - 2 * HOUR)
    assert desk.say("MODEL-07")[0] == "partial" and desk.say("MODEL-07")[1].startswith("1 slices judged; unsure")
    desk.saw("quality.accuracy", fail("x=1 is bad", parts={"slice.x=1": Reading(0.5, 0.9)}), NOW - HOUR)
    assert desk.said("MODEL-07") == "fail"


# Deployment


def test_readiness_was_asked_for_and_its_truth_not_proved(made):
    desk = made(watch("serving.ready"))
    assert desk.say("DEPL-01") is None
    desk.saw("serving.ready", ok("ready"), NOW - 2 * HOUR)
    desk.saw("serving.ready", fail("not ready"), NOW - HOUR)
    said, told = desk.say("DEPL-01")
    assert said == "partial" and told.startswith("ready in 1 of 2 looks, 2 h of 7 d; not seen: what it says while")


def test_a_release_had_a_small_share_first_or_none(made):
    desk = made(watch("serving.ready"))
    assert desk.say("DEPL-04") is None

    def took_over(version: str, at: datetime) -> None:
        body = {"from": "1", "to": version}
        desk.write(lambda ledger: ledger.record(at, "change.version", f"{version} serves", service="fraud", body=body))

    took_over("2", NOW - 2 * DAY)
    assert desk.say("DEPL-04")[0] == "fail"
    desk.write(
        lambda ledger: ledger.record(NOW - DAY, "change.weights", "split", service="fraud", body={"from": {"2": 1}, "to": {"2": 0.9, "3": 0.1}})
    )
    took_over("3", NOW - HOUR)
    said, told = desk.say("DEPL-04")
    assert said == "partial" and told.startswith("1 of 2 versions that took over had a small share first")
    assert desk.said("DEPL-04", NOW + 100 * DAY) is None, "nothing was released in 90 days"


def test_a_rollback_is_not_a_release(made):
    desk = made(watch("serving.ready"))
    desk.ran("rollback", NOW - HOUR, seconds=60.0)
    desk.write(
        lambda ledger: ledger.record(NOW - HOUR + timedelta(seconds=30), "change.version", "1 serves", service="fraud", body={"from": "2", "to": "1"})
    )
    assert desk.say("DEPL-04") is None


def test_a_rollback_is_proved_slow_failed_or_never(made):
    assert made(targets=BARE).say("DEPL-05") is None
    desk = made(watch("serving.ready"))
    assert desk.say("DEPL-05") == ("fail", "never run, as far as the record goes: 0 s of 90 d")
    desk.ran("rollback", NOW - DAY, seconds=20.0)
    said, told = desk.say("DEPL-05")
    assert said == "partial" and told == "drill 1 took 20.0 s, 23 h ago; not seen: what answered then"
    desk.ran("rollback", NOW - HOUR, seconds=1000.0)
    assert desk.said("DEPL-05") == "fail"
    desk.ran("rollback", NOW - HOUR / 2, state="stuck")
    assert desk.say("DEPL-05") == ("fail", "drill 3 ended as stuck")


# Monitoring


def test_drift_is_looked_at_on_schedule_or_is_not(made):
    desk = made(watch("drift.compare"))
    assert desk.say("MON-03") is None
    for hour in range(24, 0, -1):
        desk.saw("drift.compare", ok("well"), NOW - hour * HOUR)
    said, told = desk.say("MON-03")
    assert said == "partial" and told.startswith("100% of the looks that were due were made and saw something, 1 d of 7 d; not seen: a test")
    assert desk.said("MON-03", NOW + 12 * HOUR) == "fail", "24 of 36"
    for hour in range(12):
        desk.saw("drift.compare", nodata("no rows") if hour < 11 else ok("well"), NOW + hour * HOUR)
    assert desk.said("MON-03", NOW + 12 * HOUR) == "fail", "what saw nothing tested nothing"


def test_outputs_are_watched_or_are_not(made):
    assert made(targets=BARE).say("MON-04") is None
    assert made(watch("serving.ready")).say("MON-04") == ("fail", "no watch looks at what the model answers")
    desk = made(watch("drift.predictions"))
    assert desk.say("MON-04") is None
    desk.saw("drift.predictions", ok("well"))
    assert desk.say("MON-04")[0] == "partial" and desk.say("MON-04")[1].startswith("drift.predictions ok, of 1 watches; not seen")


def test_nobody_watching_quality_is_a_fail_where_it_could_be_watched(made):
    assert made(watch("serving.ready")).said("MON-05") == "fail"
    assert made(targets=BARE).said("MON-05") is None


# The whole


def test_readiness_says_what_is_seen_and_counts_the_rest_as_nothing(made):
    desk = made(watch("serving.ready"))
    desk.saw("serving.ready", ok("ready"), NOW - HOUR)
    desk.saw("serving.ready", ok("ready"))
    with desk.world.store.read() as ledger:
        told = readiness(Known(desk.world.config, ledger, desk.world.config.services["fraud"], NOW))
    assert told["verdict"] == "UNVERIFIED" and told["final"] == min(one["points"] for one in told["sections"])
    assert re.fullmatch(r"0/10 \(R0\), evidence \d+/50 fresh, 12 blockers open, MTS-eq 0", told["headline"])
    assert {one["item"] for one in told["items"] if one["state"] == "unknown"} >= {"DATA-03", "MON-03"}
    assert {one["item"] for one in told["items"] if one["state"] == "fail"} >= set(catalogue().items) - set(RULES), "nobody has attested them"
    assert told["plan"] and all(one["item"] in RULES for one in told["plan"])
    assert told["attached"] == ["registry", "server", "tables"] and told["ceiling"] == ceiling(frozenset(told["attached"])) <= 10


def test_what_a_watch_said_is_text_in_the_page_and_never_markup(made):
    from agent import audit

    desk = made(watch("data.contract"))
    desk.saw("data.contract", ok("<script>alert(1)</script>"))
    with desk.world.store.read() as ledger:
        report = audit.collect(desk.world.config, ledger, ["fraud"], NOW - DAY, NOW)
    (told,) = (one for one in report["services"][0]["readiness"]["items"] if one["item"] == "DATA-01")
    assert "<script>" in told["why"]
    page = audit.page(report)
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page


def test_the_same_record_makes_the_same_answers(made):
    desk = made(watch("serving.ready"))
    desk.page(NOW - DAY)
    desk.ran("rollback", NOW - DAY)
    with desk.world.store.read() as ledger:
        service = desk.world.config.services["fraud"]
        one, other = (readiness(Known(desk.world.config, ledger, service, NOW)) for _ in range(2))
        later = readiness(Known(desk.world.config, ledger, service, NOW + 400 * DAY))
    assert one == other
    assert all(was["points"] >= now["points"] for was, now in zip(one["items"], later["items"], strict=True)), "time alone only takes away"
    assert later["fresh"] < one["fresh"]


def test_the_best_that_can_be_had_by_hand():
    """All but code attached: seven questions of MODEL, of which two come to half at best; eight of DEPL, of which four do."""
    assert [RULES[name].best for name in ("MODEL-01", "MODEL-07", "MODEL-10")] == [1.0, 0.5, 0.5]
    assert ceiling(frozenset({"server", "registry", "tables", "metrics"})) == 6.0
    assert ceiling(frozenset()) == 0.0


def told_of(*states: tuple[str, str, float], verdict: str = "NOT-READY", level: str = "R0") -> dict[str, object]:
    """What a gate reads; every question that is not named is met."""
    given = {name: (state, points) for name, state, points in states}
    items = [{"item": name, "state": given.get(name, ("pass", 1.0))[0], "points": given.get(name, ("pass", 1.0))[1]} for name in catalogue().items]
    blockers = [one for one in items if catalogue().items[str(one["item"])].criticality == "blocker" and one["points"] != 1.0]
    sums = {name: sum(float(str(one["points"])) for one in items if str(one["item"]).startswith(f"{name}-")) for name in SECTIONS}
    sections = [{"section": name, "points": points} for name, points in sums.items()]
    return {"verdict": verdict, "level": level, "items": items, "blockers": blockers, "sections": sections}


@pytest.mark.parametrize(
    ("wish", "told", "code"),
    [
        ("verdict", told_of(verdict="READY"), 0),
        ("verdict", told_of(verdict="CONDITIONAL"), 1),
        ("verdict", told_of(verdict="NOT-READY"), 1),
        ("verdict", told_of(verdict="UNVERIFIED"), 3),
        ("blockers", told_of(), 0),
        ("blockers", told_of(("DEPL-05", "fail", 0.0), ("DATA-01", "unknown", 0.0)), 1),
        ("blockers", told_of(("DEPL-05", "pass", 0.5)), 1),
        ("blockers", told_of(("DEPL-05", "stale", 0.5), ("DATA-01", "unknown", 0.0)), 3),
        ("level=R3", told_of(level="R3"), 0),
        ("level=R3", told_of(level="R4"), 0),
        ("level=R5", told_of(("MON-01", "unknown", 0.0), level="R4"), 3),
        ("level=R5", told_of(*((f"MON-{number:02}", "fail", 0.0) for number in range(1, 4)), level="R4"), 1),
    ],
)
def test_a_gate_is_met_not_met_or_cannot_be_told(wish, told, code):
    assert gate(wish, [told]) == code


def test_a_gate_over_several_services_is_that_of_the_worst_that_is_known():
    ready, bad, blind = (told_of(verdict=word) for word in ("READY", "NOT-READY", "UNVERIFIED"))
    assert [gate("verdict", services) for services in ([], [ready, blind], [ready, blind, bad], [ready])] == [3, 3, 1, 0]


@pytest.mark.parametrize(
    ("length", "told"),
    [(timedelta(seconds=59.9), "59 s"), (timedelta(minutes=3, seconds=59), "3 min"), (timedelta(hours=47), "1 d"), (timedelta(), "0 s")],
)
def test_a_length_is_never_said_to_be_longer_than_it_was(length, told):
    assert brief(length) == told


# The page


BEST = {1.0: "pass", 0.5: "partial", 0.0: "tells a fail, and else nothing"}


def tables() -> dict[str, str]:
    """The two tables of docs/audit.md, from the rules there are."""
    items = catalogue().items
    answered = [f"| {name} | {item.question} | {BEST[RULES[name].best]} |" for name, item in items.items() if name in RULES]
    left = [f"| {name} | {item.question} | {item.evidence} |" for name, item in items.items() if name not in RULES]
    return {
        "answered": "\n".join(["| Item | Question | At best |", "|---|---|---|", *answered, ""]),
        "unanswered": "\n".join(["| Item | Question | What would answer it |", "|---|---|---|", *left, ""]),
    }


def test_the_page_lists_what_is_answered_and_what_is_not():
    page = (HOUSE / "docs" / "audit.md").read_text(encoding="utf-8")
    for name, text in tables().items():
        assert f"<!-- {name} -->\n{text}<!-- end of {name} -->" in page, f"docs/audit.md: the table '{name}' is stale"
    assert {name.partition("-")[0] for name in RULES} == set(SECTIONS)
