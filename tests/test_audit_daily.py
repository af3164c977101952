"""The audit of every day: when one is due, that it is kept whole and once, the incident while something is worse, and the fleet, the worst first."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import audit, config, judge, verbs
from agent.account import account
from agent.audit import daily, kept
from agent.audit.fleet import fleet, text
from agent.cli import main
from agent.config import Config
from agent.config.values import Audits
from agent.errors import ConfigError
from agent.incidents import trouble
from agent.model import Event
from agent.review import draft
from agent.standing import standing
from agent.store import Store
from agent.web.page import fleet as shown
from agent.web.state import View
from tests.conftest import HOUSE
from tests.fraud import Desk, fraud

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
DAILY = """    audit: {{every: 1d, at: "06:00", incident_on: {on}}}
    objectives: {{availability: {{target: 0.9, watch: serving.ready}}}}
"""


@pytest.fixture
def desk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Desk]:
    """The fraud service, audited at six, with an owner who was seen to act; nothing but the clock moves by itself."""
    with fraud(tmp_path, more=DAILY.format(on=getattr(request, "param", "regression"))) as made:
        made.world.clock = lambda: NOW + timedelta(seconds=made.ahead)
        verbs.expire(made.world, verbs.silence(made.world, "fraud/*", HOUR, "ada", "to be seen to act").id, "ada")
        made.look("serving.ready")
        yield made


def tick(desk: Desk, after: timedelta = DAY) -> list[str]:
    desk.later(after.total_seconds())
    return daily.tick(desk.world, desk.world.clock())


def audits(desk: Desk) -> list[Event]:
    with desk.world.store.read() as ledger:
        return ledger.events(kept.KIND)


def incidents(desk: Desk) -> list[Any]:
    with desk.world.store.read() as ledger:
        return ledger.incidents()


def changed(desk: Desk, **fields: Any) -> None:
    """The configuration of the service with other values, as after a reload."""
    services = {name: replace(one, **fields) for name, one in desk.world.config.services.items()}
    desk.world.use(replace(desk.world.config, services=services))


# When


@pytest.mark.parametrize(
    ("every", "at", "now", "last"),
    [
        (DAY, 6 * HOUR, NOW, datetime(2026, 3, 1, 6, tzinfo=UTC)),
        (DAY, 6 * HOUR, datetime(2026, 3, 1, 6, tzinfo=UTC), datetime(2026, 3, 1, 6, tzinfo=UTC)),
        (DAY, 6 * HOUR, datetime(2026, 3, 1, 5, 59, tzinfo=UTC), datetime(2026, 2, 28, 6, tzinfo=UTC)),
        (6 * HOUR, timedelta(), NOW, NOW),
        (7 * DAY, timedelta(), NOW, datetime(2026, 2, 26, tzinfo=UTC)),  # a Thursday, as was 1970-01-01
    ],
)
def test_slots_lie_on_a_grid_from_1970_that_begins_at_the_time_of_day(every: timedelta, at: timedelta, now: datetime, last: datetime) -> None:
    assert daily.slot(Audits(every, at, "never"), now) == last


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 24 * 14), st.integers(0, 24 * 60 - 1), st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)))
def test_a_slot_is_never_ahead_nor_a_whole_interval_behind_and_the_next_is_one_interval_on(hours: int, at: int, now: datetime) -> None:
    audits, moment = Audits(hours * HOUR, timedelta(minutes=at), "never"), now.replace(tzinfo=UTC)
    found = daily.slot(audits, moment)
    assert timedelta() <= moment - found < audits.every
    assert daily.slot(audits, found) == found and daily.slot(audits, found + audits.every) == found + audits.every


def test_each_slot_has_one_audit_however_often_it_is_asked_for(desk: Desk) -> None:
    assert tick(desk, timedelta()) == ["fraud"], "never audited: due at once"
    assert tick(desk, HOUR) == [] and tick(desk, 16 * HOUR) == [], "until six in the morning"
    assert tick(desk, HOUR) == ["fraud"]
    assert [one.at for one in audits(desk)] == [NOW + 18 * HOUR, NOW]
    assert not any(one.body["late_seconds"] for one in audits(desk)), "the first of all is not late"


def test_an_audit_that_somebody_kept_after_its_time_meets_the_slot_and_one_before_does_not(desk: Desk) -> None:
    tick(desk, timedelta())
    desk.later(17 * 3600)
    verbs.keep_audit(desk.world, ["fraud"], 30 * DAY)
    assert tick(desk, HOUR) == ["fraud"]
    desk.later(24 * 3600 + 60)
    verbs.keep_audit(desk.world, ["fraud"], 30 * DAY)
    assert tick(desk, timedelta()) == []


def test_a_missed_audit_is_made_up_once_and_told_as_late(desk: Desk) -> None:
    tick(desk, timedelta())
    assert tick(desk, 3 * DAY) == ["fraud"] and tick(desk, timedelta()) == []
    made = audits(desk)
    assert len(made) == 2, "the two slots in between are missing, and stay so"
    assert made[0].body["late_seconds"] == 6 * 3600 and made[0].what.endswith("6h late")


def test_a_clock_that_was_set_back_makes_no_second_audit(desk: Desk) -> None:
    tick(desk, timedelta())
    assert tick(desk, -10 * DAY) == []


def test_a_second_agent_finds_the_slot_met_whatever_it_had_read_before(desk: Desk) -> None:
    """Both read that it is due; the one that comes second in the transaction leaves it."""
    now = desk.world.clock()
    with desk.world.store.read() as ledger:
        report = audit.collect(desk.world.config, ledger, ["fraud"], now - DAY, now)
    for _ in range(2):
        desk.world.store.write(lambda ledger: daily._seal(desk.world, report["services"][0], now, True, ledger))
    assert len(audits(desk)) == 1


def test_a_service_says_otherwise_than_the_agent_and_none_is_audited_unasked(tmp_path: Path) -> None:
    assert daily.due(world_of(tmp_path, ["a"]), {}, NOW) == [], "nothing is audited that nobody configured"
    assert world_of(tmp_path, ["a"], "audit: {every: 6h}").services["a"].audit == Audits(6 * HOUR, timedelta(), "never")
    path = tmp_path / "watchkeeper.yaml"
    path.write_text(path.read_text().replace("a: {", "a: {audit: {at: 18:30, incident_on: blocker}, ", 1))
    assert config.load(path).services["a"].audit == Audits(DAY, timedelta(hours=18, minutes=30), "blocker"), "and a time needs no quotes"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("audit: {every: 30m}", "at least 1h"),
        ("audit: {at: 25:00}", "is no time of day"),
        ("audit: {at: 6}", "audit.at"),
        ("audit: {incident_on: always}", "regression"),
        ("audit: {evry: 1d}", "every"),
        ("audit: daily", "audit"),
    ],
)
def test_a_wrong_key_of_the_audit_is_refused_with_its_place(tmp_path: Path, wrong: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        world_of(tmp_path, ["a"], wrong)
    assert said in str(caught.value)


def test_no_watch_may_take_the_name_that_the_audit_has_in_incidents(tmp_path: Path) -> None:
    path = tmp_path / "watchkeeper.yaml"
    path.write_text("services: {a: {watches: [{check: service.owner, name: audit}]}}")
    with pytest.raises(ConfigError, match="choose another name"):
        config.load(path)


KILLED = """
import os, signal, sys
from datetime import datetime
from pathlib import Path
from agent import config
from agent.audit import daily, kept
from agent.store import Store
from agent.workers import Pool
from agent.world import World
made = config.load(Path(sys.argv[1]))
store = Store.open(made.store).start()
world = World(made, store, Pool(1))
seal = kept.seal
def sealed(ledger, service, *more):
    found = seal(ledger, service, *more)
    if service == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
    return found
kept.seal = sealed
daily.tick(world, datetime.fromisoformat(sys.argv[3]))
"""


def test_a_kill_in_the_middle_leaves_whole_audits_and_the_rest_is_made_up(tmp_path: Path) -> None:
    """Of three services the second is cut off inside its transaction: it is not there at all, and the next tick does it and the third."""
    path = tmp_path / "watchkeeper.yaml"
    services = "".join(f"  s{n}: {{watches: [{{check: service.owner, every: 1h}}]}}\n" for n in range(3))
    path.write_text(f"audit: {{every: 1d, incident_on: blocker}}\nservices:\n{services}")
    done = subprocess.run([sys.executable, "-c", KILLED, path, "s1", NOW.isoformat()], cwd=HOUSE, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with closing(sqlite3.connect(tmp_path / "watchkeeper.db")) as store:
        assert [row[0] for row in store.execute("SELECT service FROM event WHERE kind = 'audit.kept'")] == ["s0"]
    again = KILLED.replace("sys.argv[2]", "''")
    done = subprocess.run(
        [sys.executable, "-c", f"{again}store.close()", path, "", NOW.isoformat()], cwd=HOUSE, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    with closing(Store.open(tmp_path / "watchkeeper.db")) as store, store.read() as ledger:
        assert sorted(str(one.service) for one in ledger.events(kept.KIND)) == ["s0", "s1", "s2"]
        assert audit.evidence(ledger)["verified"]
        assert sorted(one.service for one in ledger.incidents(open_only=True)) == ["s0", "s1", "s2"], "one each: its blockers fail"


# What got worse


def item(name: str, state: str, points: float, criteria: str = "a", waiver: Any = None) -> dict[str, Any]:
    return {"item": name, "state": state, "points": points, "criteria": criteria, "waiver": waiver}


@pytest.mark.parametrize(
    ("told", "worse"),
    [
        ([("pass", 1.0), ("partial", 0.5)], True),
        ([("partial", 0.5), ("pass", 1.0)], False),
        ([("pass", 1.0), ("unknown", 0.0)], False),  # not seen is not seen to be worse
        ([("pass", 1.0), ("unknown", 0.0), ("fail", 0.0)], True),  # and forgets nothing
        ([("pass", 1.0), ("fail", 0.0), ("stale", 0.0)], True),  # losing sight mends nothing
        ([("pass", 1.0), ("fail", 0.0), ("partial", 0.5)], True),  # half mended
        ([("pass", 1.0), ("fail", 0.0), ("pass", 1.0)], False),
        ([("pass", 1.0), ("fail", 0.0), ("n/a", 0.0)], False),
        ([("fail", 0.0), ("fail", 0.0)], False),  # it never was any better
    ],
)
def test_a_question_is_worse_while_it_is_seen_to_earn_less_than_it_has(told: list[tuple[str, float]], worse: bool) -> None:
    before: Any = None
    for state, points in told:
        items = [item("MON-10", state, points)]
        best = kept.best(before, items)
        before = {"best": best, "down": kept.down(before, best, items)}
    assert before["down"] == (["MON-10"] if worse else [])


def test_other_criteria_and_a_waiver_make_nothing_worse() -> None:
    best = kept.best(None, [item("MON-10", "pass", 1.0)])
    before = {"best": best, "down": []}
    other = [item("MON-10", "fail", 0.0, criteria="b")]
    assert kept.down(before, kept.best(before, other), other) == []
    waived = [item("MON-10", "fail", 0.0, waiver={"by": "ada"})]
    assert kept.down(before, kept.best(before, waived), waived) == []
    assert kept.best({"items": [item("MON-10", "pass", 1.0)]}, []) == {}, "a question asked no longer has no best"


def test_a_regression_opens_a_ticket_at_the_second_audit_that_sees_it_and_two_good_ones_close_it(desk: Desk) -> None:
    tick(desk, HOUR)
    promised = desk.world.config
    changed(desk, objectives=())
    tick(desk)
    assert incidents(desk) == [], "once is not enough"
    tick(desk)
    (made,) = incidents(desk)
    assert (made.service, made.severity, made.state) == ("fraud", "ticket", "open")
    assert made.title.startswith("fraud: audit: MON-08 fail, 0 where it earned 0.5: no objective is set; do: watchkeeper ")
    with desk.world.store.read() as ledger:
        letters, told = ledger.letters(), [event.kind for event in ledger.events(incident=made.id)]
    assert [(row["key"], row["channel"]) for row in letters] == [(f"incident-{made.id}/opened", "ada")], "its owner is told, as of any watch"
    assert "incident.context" in told, "with what changed before it"
    desk.world.use(promised)
    tick(desk)
    assert incidents(desk)[0].state == "open"
    tick(desk)
    assert incidents(desk)[0].state == "resolved"
    tick(desk)
    assert len(incidents(desk)) == 1


def test_a_blocker_that_got_worse_and_fails_opens_it_at_once(desk: Desk) -> None:
    tick(desk, timedelta())
    assert incidents(desk) == [], "what never was any better is no regression"
    changed(desk, owner=None)
    tick(desk)
    (made,) = incidents(desk)
    assert made.title.startswith("fraud: audit: TEAM-01 fail, 0 where it earned 0.5: named: nobody")


@pytest.mark.parametrize("desk", ["blocker"], indirect=True)
def test_a_blocker_that_fails_opens_it_whatever_it_was_before(desk: Desk) -> None:
    tick(desk, timedelta())
    (made,) = incidents(desk)
    assert made.title.startswith("fraud: audit: DEPL-05 fail: never run")
    assert made.severity == "ticket", "three services at once would be a storm of pages, and halt every action"


@pytest.mark.parametrize("desk", ["never"], indirect=True)
def test_nothing_is_opened_where_that_is_not_wanted(desk: Desk) -> None:
    for _ in range(3):
        tick(desk)
        changed(desk, owner=None)
    assert len(audits(desk)) == 3 and incidents(desk) == []


def test_an_open_ticket_is_let_go_when_audits_open_none_any_more(desk: Desk) -> None:
    tick(desk, timedelta())
    changed(desk, owner=None)
    tick(desk)
    start(desk)
    assert incidents(desk)[0].state == "open", "a start takes it up again"
    changed(desk, audit=None)
    start(desk)
    assert incidents(desk)[0].state == "resolved"


def test_a_ticket_of_the_audit_holds_up_no_load_test_that_might_close_it(desk: Desk) -> None:
    tick(desk, timedelta())
    changed(desk, owner=None)
    tick(desk)
    (made,) = incidents(desk)
    assert trouble([made], "fraud", []) == ""
    other = replace(made.members[0], watch="fraud/serving.ready", cause="answers")
    assert trouble([replace(made, members=(*made.members, other))], "fraud", []).startswith("incident 1 is open")


def start(desk: Desk) -> None:
    """What the daemon does of it at its start."""
    desk.world.store.write(lambda ledger: judge.let_go(desk.world, ledger, desk.world.clock()))


def test_what_tells_of_incidents_takes_an_audit_for_what_it_is(desk: Desk) -> None:
    tick(desk, timedelta())
    changed(desk, owner=None)
    tick(desk)
    number, now = incidents(desk)[0].id, desk.world.clock()
    assert verbs.silence(desk.world, "fraud/audit", HOUR, "ada", "known").match == "fraud/audit"
    with desk.world.store.read() as ledger:
        assert "audit" in json.dumps(account(ledger, number, now))
        assert "TEAM-01" in draft(desk.world.config, ledger, number, now).text
        assert standing(desk.world.config, ledger, desk.world.config.services["fraud"], now)["incidents"]
        report = audit.collect(desk.world.config, ledger, ["fraud"], now - DAY, now)
    assert "TEAM-01" in audit.written(report, "html").decode()
    assert [one.watch for one in incidents(desk)[0].members] == ["fraud/audit"]


# The fleet


def told(verdict: str, level: str = "R0", data: float = 0.0, blockers: int = 0, **more: Any) -> dict[str, Any]:
    """One kept audit, as far as the fleet reads it."""
    sections = {"DATA": data, "MODEL": 9.0, "DEPL": 9.0, "MON": 9.0, "TEAM": 9.0}
    return {"verdict": verdict, "level": level, "final": data, "sections": sections, "blockers": blockers, "served": "1", "items": [], **more}


def world_of(folder: Path, names: Sequence[str], more: str = "") -> Config:
    path = folder / "watchkeeper.yaml"
    path.write_text(f"{more}\nservices:\n" + "".join(f"  {name}: {{watches: [{{check: service.owner, every: 1h}}]}}\n" for name in names))
    return config.load(path)


def test_the_fleet_is_told_the_worst_first(tmp_path: Path) -> None:
    as_of = NOW.isoformat()
    known = {
        "ready": told("READY", "R4", 7.0),
        "nearly": told("CONDITIONAL", "R3", 4.0),
        "blind": told("UNVERIFIED"),
        "bad": told("NOT-READY", "R2", 2.0, 1),
        "worse": told("NOT-READY", "R2", 2.0, 3),
        "worst": told("NOT-READY", "R1", 1.0, 1),
    }
    made = fleet(world_of(tmp_path, [*sorted(known), "never"]), {name: {**one, "as_of": as_of} for name, one in known.items()}, NOW)
    assert [one["service"] for one in made["services"]] == ["worst", "worse", "bad", "blind", "never", "nearly", "ready"]
    never = made["services"][4]
    assert (never["verdict"], never["left"], never["why"]) == (None, None, "no audit of it was kept: watchkeeper audit run never --keep")
    assert made["services"][0]["least"] == {"section": "DATA", "points": 1.0}


def test_the_fleet_says_which_audit_is_late(tmp_path: Path) -> None:
    made = world_of(tmp_path, ["a", "b", "c"], 'audit: {every: 1d, at: "06:00"}')
    kept_at = {"a": NOW, "b": NOW - 7 * HOUR, "c": NOW - 6 * HOUR}
    found = fleet(made, {name: {**told("READY"), "as_of": at.isoformat()} for name, at in kept_at.items()}, NOW)
    assert {one["service"]: one["late"] for one in found["services"]} == {"a": False, "b": True, "c": False}
    early = NOW.replace(hour=6, minute=5)
    assert not any(one["late"] for one in fleet(made, {"a": {**told("READY"), "as_of": (NOW - DAY).isoformat()}}, early)["services"]), "in its time"


def test_an_audit_kept_before_there_were_budgets_is_told_without(tmp_path: Path) -> None:
    found = fleet(world_of(tmp_path, ["a"]), {"a": {**told("READY"), "as_of": NOW.isoformat()}}, NOW)["services"][0]
    assert (found["left"], found["arrow"], found["down"]) == (None, None, [])
    spent = fleet(world_of(tmp_path, ["a"]), {"a": {**told("READY", used=1.5, arrow="down"), "as_of": NOW.isoformat()}}, NOW)
    assert "budget spent, worse" in text(spent) and "owner nobody" in text(spent)


def test_the_command_and_the_page_tell_the_fleet(desk: Desk) -> None:
    tick(desk, timedelta())
    view = View(desk.world, lambda: ())
    (one,) = view.fleet()["services"]
    assert (one["verdict"], one["owner"], one["blockers"]) == ("UNVERIFIED", "ada", 12)
    page = bytes(shown(view.fleet()).body).decode()
    assert "<b>fraud</b>" in page and "UNVERIFIED" in page and "TEAM-09" not in page
    done = CliRunner().invoke(main, ["-c", str(desk.world.config.path), *("audit", "fleet"), "--json"])
    assert done.exit_code == 0 and json.loads(done.output)["services"][0]["why"] == one["why"]


def test_a_name_is_text_in_the_page_of_the_fleet(tmp_path: Path) -> None:
    made = {**told("READY"), "as_of": NOW.isoformat(), "items": [{"item": "DATA-01", "state": "fail", "points": 0.0, "why": "<script>x</script>"}]}
    page = bytes(shown(fleet(world_of(tmp_path, ["a"]), {"a": made}, NOW)).body).decode()
    assert "<script>" not in page and "&lt;script&gt;x" in page
    assert "script-src 'none'" in shown(fleet(world_of(tmp_path, ["a"]), {}, NOW)).headers["content-security-policy"]


def test_the_newest_of_each_service_is_read_however_many_were_kept_before(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path / "a.db").start()) as store:
        for n in range(40):
            store.write(lambda ledger, n=n: ledger.record(NOW + n * HOUR, kept.KIND, "x", service=f"s{n % 2}", body={"n": n}))
        store.write(lambda ledger: ledger.record(NOW, f"{kept.KIND}.other", "x", service="s0", body={"n": -1}))
        with store.read() as ledger:
            assert {name: one.body["n"] for name, one in ledger.newest(kept.KIND).items()} == {"s0": 38, "s1": 39}
