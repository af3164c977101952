"""budget.burn, and the error budgets it looks at: real looks in a real store, held to the SRE workbook's tables and to a count second by second."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import ErrorBudget, Status, Verdict, config, error, fail, ok, warn
from agent.cli import main
from agent.config import Objective
from agent.metrics import Watching, exporter
from agent.model import Plan, StepRow, Window
from agent.objectives import BURNS, _budget, budgets, everywhere
from agent.observe import fold, found
from agent.store import Ledger, Store
from agent.workers import Pool
from agent.world import World
from checks.budget import burn, left

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
CONFIG = """
services:
  fraud:
    targets: {server: "oip+http://127.0.0.1:9/m"}
    objectives: {availability: {target: 0.999, watch: serving.ready}}
    watches:
      - {check: serving.ready, every: 10s}
      - {check: budget.burn, every: 1m}
"""


def budget(bad: timedelta = timedelta(), target: float = 0.999, over: timedelta = 30 * DAY, seen: bool = True, **burns: float) -> ErrorBudget:
    return ErrorBudget("availability", "fraud/up", target, over, bad, over, seen, {**dict.fromkeys(BURNS, 0.0), **burns})


def burning(rate: float, *over: str) -> dict[str, float]:
    return dict.fromkeys(over, rate)


@contextmanager
def desk(folder: Path, text: str = CONFIG) -> Iterator[World]:
    path = folder / "watchkeeper.yaml"
    path.write_text(f"store: {folder}/w.db\n{text}")
    made = config.load(path)
    with closing(Store.open(made.store).start()) as store, closing(Pool(1)) as pool:
        world = World(made, store, pool)
        world.clock = lambda: NOW
        yield world


def saw(world: World, verdict: Verdict, *times: datetime, watch: str = "serving.ready") -> None:
    w = world.find(f"fraud/{watch}")

    def keep(ledger: Ledger) -> None:
        for at in times:
            fold(world, ledger, w, found(w, Window(at - w.watch.window, at), at, verdict, "1", 0.01), verdict)

    world.store.write(keep)


def every(length: timedelta, since: datetime, until: datetime) -> list[datetime]:
    return [since + n * length for n in range(int((until - since) / length))]


def of(world: World, now: datetime = NOW) -> ErrorBudget:
    with world.store.read() as ledger:
        return budgets(ledger, world.service("fraud"), now)[0]


# What it comes to


@pytest.mark.parametrize(("rate", "length"), [(2, 15 * DAY), (10, 3 * DAY), (1000, timedelta(minutes=43, seconds=12))])
def test_a_whole_budget_lasts_as_long_as_the_table_of_the_workbook_says(rate: float, length: timedelta):
    gone = budget(**burning(rate, "1h")).gone_in
    assert gone is not None and abs(gone - length) < timedelta(seconds=1)


def test_a_budget_that_comes_back_as_fast_as_it_is_used_is_never_gone():
    assert budget(**burning(1, "1h")).gone_in is None
    assert budget(bad=DAY).spent and budget(bad=DAY, **burning(1000, "1h")).gone_in is None


@pytest.mark.parametrize(
    ("burns", "status"),
    [
        ({}, Status.OK),
        (burning(14.4, "1h", "5m"), Status.FAIL),
        (burning(14.3, "1h", "5m"), Status.OK),
        (burning(14.4, "1h"), Status.OK),  # it is over: the short window says so
        (burning(14.4, "5m"), Status.OK),  # a blip: the long window does
        (burning(6, "6h", "30m"), Status.FAIL),
        (burning(5.9, "6h", "30m"), Status.OK),
        (burning(6, "6h"), Status.OK),
    ],
)
def test_a_long_and_a_short_window_must_both_burn(burns: Mapping[str, float], status: Status):
    assert burn([budget(**burns)]).status is status


def test_a_fail_says_in_plain_words_how_much_is_used_and_when_it_is_gone():
    whole = timedelta(minutes=43, seconds=12)
    verdict = burn([budget(bad=0.41 * whole, **burning(22, "1h", "5m", "6h", "30m"))])
    assert verdict.reason.partition("\n")[0] == "availability burns 22 times too fast over 1h and 5m: 41 % used; gone in 19 h 18 min at this rate"
    assert timedelta(hours=19, minutes=18) <= 0.59 * 30 * DAY / 22 < timedelta(hours=19, minutes=19)
    assert verdict.reading == verdict.parts["availability.burn_1h"] and verdict.reading.limit == 14.4


def test_the_rates_are_parameters():
    one = budget(**burning(3, "1h", "5m"))
    assert burn([one]).status is Status.OK and burn([one], fast=3).status is Status.FAIL
    assert burn([budget(**burning(3, "6h", "30m"))], slow=3).status is Status.FAIL


@pytest.mark.parametrize("look", [burn, left])
def test_what_is_not_seen_is_no_data_unless_what_was_seen_is_bad(look):
    assert look([budget(), budget(seen=False)]).status is Status.NODATA
    assert look([budget(bad=DAY, seen=False, **burning(20, "1h", "5m"))]).status is Status.FAIL
    assert look([]).status is Status.NODATA


def test_a_budget_that_is_used_up_and_burns_no_more_fails_only_the_check_that_can_wait():
    whole = budget().whole
    assert burn([budget(bad=whole)]).status is Status.OK, "else the incident of a burn would stay open until the budget is back"
    assert left([budget(bad=whole)]).status is Status.FAIL and left([budget(bad=0.99 * whole)]).status is Status.OK
    assert left([budget(bad=0.99 * whole)], at_least=0.05).status is Status.FAIL
    worst = left([budget(bad=whole), replace(budget(bad=2 * whole), objective="latency")])
    assert worst.reason.startswith("latency: 200 % used; nothing left of 43 min 12 s in 30d\navailability (fraud/up for 0.999 of 30 d): 100 % used")


# From looks


def test_half_a_minute_of_fails_is_reckoned_from_its_looks(tmp_path):
    with desk(tmp_path) as world:
        saw(world, ok("up"), *every(10 * timedelta(seconds=1), NOW - 10 * MINUTE, NOW - 5 * MINUTE))
        for second in range(0, 60, 10):
            saw(world, fail("down") if second < 30 else ok("up"), NOW - 5 * MINUTE + timedelta(seconds=second))
        saw(world, ok("up"), *every(10 * timedelta(seconds=1), NOW - 4 * MINUTE, NOW))
        one = of(world)
    assert one.whole == timedelta(minutes=40, seconds=19, microseconds=200_000)  # 28 d of which one in a thousand: by hand
    assert one.bad == timedelta(seconds=30) and one.used == pytest.approx(30 / 2419.2)
    assert one.burns["5m"] == pytest.approx(30 / 300 / 0.001) and one.burns["1h"] == pytest.approx(30 / 3600 / 0.001)
    assert one.seen and one.said == "1 % used; gone in 3 d 7 h at this rate; record of 10 min of 28 d"
    assert timedelta(days=3, hours=7) <= timedelta(seconds=(2419.2 - 30) / (30 / 3600)) < timedelta(days=3, hours=8)


def test_a_total_outage_is_told_after_as_long_as_the_workbook_says(tmp_path):
    """Detection time is (1 - target) / error ratio x window x burn rate: 0.001 x 1 h x 14.4 = 51.84 s."""
    with desk(tmp_path) as world:
        saw(world, fail("down"), *every(timedelta(seconds=10), NOW, NOW + 2 * MINUTE))
        told = next(second for second in range(120) if of(world, NOW + timedelta(seconds=second)).burning())
    assert told == 52


def test_looks_that_saw_nothing_are_neither_good_nor_bad(tmp_path):
    with desk(tmp_path) as world:
        saw(world, fail("down"), NOW - MINUTE, NOW - MINUTE + timedelta(seconds=10))
        saw(world, error("blind"), *every(timedelta(seconds=10), NOW - MINUTE + timedelta(seconds=20), NOW))
        assert of(world).bad == MINUTE, "of what was seen in that minute all was bad"


def test_a_warning_is_no_fail(tmp_path):
    with desk(tmp_path) as world:
        saw(world, warn("odd"), *every(timedelta(seconds=10), NOW - MINUTE, NOW - timedelta(seconds=10)))
        assert of(world).bad == timedelta()
        saw(world, fail("down"), NOW - timedelta(seconds=10))
        assert of(world).bad == MINUTE / 6


def test_a_slow_watch_s_fail_stands_until_its_next_look_and_no_longer_than_one_interval(tmp_path):
    with desk(tmp_path, CONFIG.replace("every: 10s", "every: 1h")) as world:
        saw(world, fail("down"), NOW - 5 * HOUR)
        assert of(world).bad == HOUR and not of(world).seen
        saw(world, ok("up"), NOW - 5 * HOUR + 7 * MINUTE)
        assert of(world).bad == 7 * MINUTE


def test_what_is_older_than_the_objective_counts_comes_back(tmp_path):
    with desk(tmp_path) as world:
        saw(world, fail("down"), *every(MINUTE, NOW - 28 * DAY - 5 * MINUTE, NOW - 28 * DAY + 5 * MINUTE))
        assert of(world).bad == 5 * MINUTE and of(world, NOW + 5 * MINUTE).bad == timedelta()
        assert of(world, NOW - 27 * DAY).bad == 10 * MINUTE, "as of another day"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with closing(Store.open(tmp_path_factory.mktemp("budget") / "w.db").start()) as made:
        yield made


LOOKS = st.lists(st.tuples(st.integers(0, 40), st.sampled_from("ofe")), max_size=30)
NUMBER = iter(range(10**9))


def reckoned(store: Store, looks: list[tuple[int, str]], length: timedelta = 5 * MINUTE) -> ErrorBudget:
    watch = f"s/{next(NUMBER)}"

    def keep(ledger: Ledger) -> None:
        for minute, word in looks:
            ledger.roll_up(watch, NOW - HOUR + minute * MINUTE, word == "o", 1.0, bad=word == "f", blind=word == "e")

    store.write(keep)
    with store.read() as ledger:
        return _budget(ledger, Objective("availability", 0.99, DAY, watch, length), NOW)


@given(LOOKS)
@settings(max_examples=25, deadline=None)
def test_what_is_used_is_what_a_count_second_by_second_finds(store: Store, looks: list[tuple[int, str]]):
    minutes: dict[int, list[str]] = {}
    for minute, word in looks:
        minutes.setdefault(minute, []).append(word)
    bad = 0.0
    for second in range(3600):
        last = max((m for m in minutes if m * 60 <= second < m * 60 + 300), default=None)
        if last is not None:
            seen = [word for word in minutes[last] if word != "e"]
            bad += seen.count("f") / len(seen) if seen else 0.0
    assert reckoned(store, looks).bad.total_seconds() == pytest.approx(bad, abs=0.01)


@given(LOOKS, st.data())
@settings(max_examples=25, deadline=None)
def test_to_withdraw_looks_that_were_not_bad_never_lowers_what_is_used(store: Store, looks: list[tuple[int, str]], data: st.DataObject):
    left = [look for look in looks if look[1] == "f" or data.draw(st.booleans())]
    whole, less = reckoned(store, looks), reckoned(store, left)
    assert less.used >= whole.used - 1e-9
    assert all(less.burns[name] >= rate - 1e-9 for name, rate in whole.burns.items())


@given(LOOKS, st.integers(0, 40))
@settings(max_examples=25, deadline=None)
def test_one_more_fail_never_lowers_what_is_used_and_looks_by_hand_buy_nothing(store: Store, looks: list[tuple[int, str]], minute: int):
    assert reckoned(store, [*looks, (minute, "f")]).used >= reckoned(store, looks).used - 1e-9
    good = [(m, "o") for m in range(41) if all(m != other for other, _ in looks)]
    assert reckoned(store, [*looks, *good * 3], MINUTE).used == reckoned(store, looks, MINUTE).used, "good minutes give nothing back"


# An incident, the command, the page, and Prometheus


def test_a_burn_opens_the_incident_as_any_check_would_and_joins_one_that_is_open(tmp_path):
    from agent.observe import observe

    with desk(tmp_path) as world:
        saw(world, fail("down"), *every(timedelta(seconds=10), NOW - 2 * MINUTE, NOW), watch="serving.ready")
        finding = observe(world, "fraud/budget.burn", NOW).result(30)
        assert finding.status is Status.FAIL and finding.headline.startswith("availability burns 33.3 times too fast over 1h and 5m: 4 % used")
        with world.store.read() as ledger:
            (incident,) = ledger.open_incidents("fraud")
        assert {member.watch for member in incident.members} == {"fraud/serving.ready", "fraud/budget.burn"}


def test_the_command_tells_each_budget_and_ends_by_the_table_of_exit_codes(tmp_path):
    def run(*more: str) -> Any:
        return CliRunner().invoke(main, ["-c", str(tmp_path / "watchkeeper.yaml"), "budget", *more])

    now = datetime.now(UTC)
    with desk(tmp_path) as world:
        saw(world, ok("up"), now - 2 * DAY)
        assert run().exit_code == 3, "not seen now"
        saw(world, ok("up"), now)
        assert (done := run("fraud")).exit_code == 0 and "0 % used; 40 min 19 s left of 40 min 19 s in 28d; record of 2 d of 28 d" in done.output
    (tmp_path / "w.db").unlink()
    with desk(tmp_path) as world:
        saw(world, fail("down"), *every(timedelta(seconds=20), now - DAY, now - DAY + 41 * MINUTE))
        saw(world, ok("up"), now)
    assert (done := run("fraud")).exit_code == 1 and "% used; nothing left of 40 min 19 s in 28d" in done.output and "used up" in done.output
    assert run("fruad").exit_code == 2


def test_prometheus_and_the_page_are_told_what_is_used(tmp_path):
    from agent.web.page import shown
    from agent.web.state import View

    with desk(tmp_path) as world:
        saw(world, fail("down"), *every(timedelta(seconds=10), NOW - 2 * MINUTE, NOW))
        text = exporter(Watching(world.store, world.clock, budgets=lambda ledger: everywhere(ledger, world.config, NOW)))().decode()
        assert 'watchkeeper_budget_used_ratio{objective="availability",service="fraud"} 0.0496' in text
        assert 'watchkeeper_budget_burn_ratio{objective="availability",over="1h",service="fraud"} 33.33' in text
        page = bytes(shown(View(world, lambda: ()).page()).body).decode()
        assert "4 % used; gone in " in page


def test_a_configuration_that_looks_at_budgets_needs_objectives(tmp_path):
    from agent.errors import ConfigError

    without = CONFIG.replace("    objectives: {availability: {target: 0.999, watch: serving.ready}}\n", "")
    said = "budget.burn looks at error budgets, of which there are none; add `objectives:` to fraud"
    with pytest.raises(ConfigError, match=said), desk(tmp_path, without):
        pass


# What an exhausted budget keeps from happening


@contextmanager
def spent(folder: Path, minutes: int = 45) -> Iterator[Any]:
    """The service behind a router that splits: version 1 serves and is good, version 3 is the newest, and so many bad minutes lie behind."""
    from agent import verbs
    from tests.rollout import splitting

    with splitting(folder, more="    objectives: {availability: {target: 0.999, watch: serving.ready}}\n") as desk:
        verbs.good(desk.world, "fraud", "1", "ada")
        desk.see()
        now = desk.world.clock()

        def bad(ledger: Ledger) -> None:
            for n in range(minutes):
                ledger.roll_up("fraud/serving.ready", now - DAY + n * MINUTE, False, 1.0, bad=True)
            ledger.roll_up("fraud/serving.ready", now - DAY + minutes * MINUTE, True, 1.0)

        desk.world.store.write(bad)
        yield desk


@pytest.mark.parametrize("runbook", ["canary", "bluegreen"])
def test_a_budget_that_is_used_up_refuses_what_is_new(tmp_path, runbook):
    from agent import verbs

    with spent(tmp_path) as desk:
        given = {"judge": "judged.compare", "compare": {"file": str(tmp_path / "said.json")}} if runbook == "canary" else {}
        verbs.start(desk.world, runbook, "fraud", given, "ada")
        run = desk.respond()
        assert run.state == "refused" and not desk.server.flips
        told = "availability: 111 % used; nothing left of 40 min 19 s in 28d; record of 1 d of 28 d; not seen now"
        assert f"the error budget is used up ({told}), so nothing new is brought in" in run.said
        assert f"a fix may be: watchkeeper runbook run {runbook} fraud --fix WHY --by NAME" in run.said


def test_with_budget_left_nothing_is_refused(tmp_path):
    from agent import verbs

    with spent(tmp_path, minutes=39) as desk:
        verbs.start(desk.world, "bluegreen", "fraud", {"watches": ["serving.ready"]}, "ada", drill=True)
        assert desk.respond().state == "succeeded" and desk.server.flips == ["3", "1"]


def test_a_fix_may_go_on_and_who_said_that_it_is_one_is_sealed(tmp_path):
    from agent import verbs

    with spent(tmp_path) as desk:
        verbs.start(desk.world, "bluegreen", "fraud", {"watches": ["serving.ready"]}, "ada", drill=True, fix="the leak that used it up")
        assert desk.respond().state == "succeeded" and desk.server.flips == ["3", "1"]
        assert desk.events("run.fix") == ["tagged as a fix by ada: the leak that used it up"]
        assert desk.world.store.verify() == []


def test_a_rollback_is_never_refused_for_want_of_budget(tmp_path):
    from agent import verbs

    with spent(tmp_path) as desk:
        verbs.good(desk.world, "fraud", "2", "ada")
        verbs.start(desk.world, "rollback", "fraud", {"to": "2"}, "ada", drill=True)
        run = desk.respond()
        assert run.state == "succeeded" and desk.server.flips == ["2", "1"], run.said


def test_a_child_of_a_run_that_is_a_fix_is_one(tmp_path):
    from agent.permit import may

    with spent(tmp_path) as desk:
        service, now = desk.world.service("fraud"), desk.world.clock()

        def two(ledger: Ledger) -> Any:
            parent, _ = ledger.want(runbook="retrain", service="fraud", mode="approve", by="ada", reason="", wanted_at=now)
            child, _ = ledger.want(runbook="canary", service="fraud", mode="approve", by="ada", reason="", wanted_at=now, parent=f"run-{parent.id}/3")
            return parent, child

        parent, child = desk.world.store.write(two)
        plan = Plan("canary", "fraud", "", (), {}, (), now, now + HOUR)
        assert may(desk.world, service, child, plan).state == "refused"
        desk.world.store.write(lambda ledger: ledger.record(now, "run.fix", "a fix", service="fraud", run=parent.id))
        assert may(desk.world, service, child, plan).answer == "ask"


def test_a_written_plan_says_itself_whether_it_brings_in_what_is_new(tmp_path):
    path = tmp_path / "w.yaml"
    plan = "asks: Is it out?\n    steps: [{wait: 1s}]\n"
    path.write_text(f"services: {{}}\nrunbooks:\n  release:\n    promotes: true\n    {plan}  tidy:\n    {plan}")
    books = config.load(path).runbooks()
    promoting = {name for name, book in books.items() if book.promises.get("promotes")}
    assert {"release", "canary", "bluegreen"} <= promoting and not {"tidy", "rollback", "drain", "restart", "shadow"} & promoting


# What the audit makes of it


FOUR = """
services:
  fraud:
    targets:
      server: oip+http://127.0.0.1:9/m
      live: {url: "csv:log.csv", time: {column: at, tz: UTC}, id: id, prediction: p, features: [x]}
      labels: {url: "csv:labels.csv", key: id, label: y, time: {column: known, tz: UTC}}
    objectives:
      availability: {target: 0.999, watch: serving.ready}
      latency: {target: 0.99, watch: serving.ready}
      freshness: {target: 0.99, watch: serving.ready}
      quality: {target: 0.9, watch: serving.ready}
    watches:
      - {check: serving.ready, every: 10s}
      - {check: budget.burn, every: 1m}
"""


def answered(world: World) -> tuple[str, str]:
    from agent.audit.known import Known
    from agent.audit.promised import promised

    with world.store.read() as ledger:
        answer = promised(Known(world.config, ledger, world.service("fraud"), NOW))
    assert answer is not None
    return answer.said, answer.observed


def looked(world: World, since: timedelta) -> None:
    def keep(ledger: Ledger) -> None:
        ledger.roll_up("fraud/serving.ready", NOW - since, True, 1.0)
        ledger.roll_up("fraud/serving.ready", NOW, True, 1.0)
        ledger.record(NOW, "agent.start", "watching")

    world.store.write(keep)


def overdrawn(world: World, minutes: int = 60) -> None:
    def bad(ledger: Ledger) -> None:
        for n in range(minutes):
            ledger.roll_up("fraud/serving.ready", NOW - 2 * DAY + n * MINUTE, False, 1.0, bad=True)

    world.store.write(bad)


def came(world: World, at: datetime) -> None:
    world.store.write(lambda ledger: ledger.record(at, "change.version", "version 2 took over", service="fraud", body={"to": "2"}))


def ran(world: World, runbook: str, fix: bool = False) -> None:
    def do(ledger: Ledger) -> None:
        run, _ = ledger.want(runbook=runbook, service="fraud", mode="approve", by="ada", reason="", wanted_at=NOW - DAY - HOUR)
        plan = Plan(runbook, "fraud", "", (), {"router.point": "1"}, (), NOW, NOW)
        ledger.save_run(replace(run, state="succeeded", plan=plan, ended_at=NOW - DAY + HOUR))
        ledger.save_step(run.id, StepRow(1, "switch", "router.point", "done", tries=1))
        if fix:
            ledger.record(NOW, "run.fix", "a fix", service="fraud", run=run.id)

    world.store.write(do)


def test_objectives_of_all_four_kinds_with_28_days_behind_them_pass_and_less_is_half(tmp_path):
    with desk(tmp_path, FOUR) as world:
        looked(world, 3 * MINUTE)
        said, observed = answered(world)
        assert said == "partial" and "availability: 0 % used; 40 min 19 s left of 40 min 19 s in 28d; record of 3 min of 28 d" in observed
        looked(world, 28 * DAY)
        assert answered(world)[0] == "pass"
    with desk(tmp_path, FOUR.replace("      quality: {target: 0.9, watch: serving.ready}\n", "")) as world:
        said, observed = answered(world)
        assert said == "partial" and observed.endswith("no objective of quality")


def test_no_objective_fails_and_one_never_looked_at_is_unknown(tmp_path):
    from agent.audit.known import Known
    from agent.audit.promised import promised

    with desk(tmp_path, "services:\n  fraud: {}\n") as world:
        assert answered(world) == ("fail", "no objective is set")
    with desk(tmp_path, FOUR) as world, world.store.read() as ledger:
        assert promised(Known(world.config, ledger, world.service("fraud"), NOW)) is None


@pytest.mark.parametrize(
    ("how", "said"),
    [("nothing came", "partial"), ("by hand", "fail"), ("before it", "partial"), ("rollback", "partial"), ("canary", "fail"), ("a fix", "partial")],
)
def test_a_version_that_came_on_a_budget_that_was_used_up_fails_unless_it_took_back_or_mended(tmp_path, how, said):
    with desk(tmp_path, FOUR) as world:
        looked(world, 28 * DAY)
        overdrawn(world)
        if how in ("rollback", "canary", "a fix"):
            ran(world, "canary" if how == "a fix" else how, fix=how == "a fix")
        if how != "nothing came":
            came(world, NOW - (3 * DAY if how == "before it" else DAY))
        told = answered(world)
        assert told[0] == said and ("version 2 took over though a budget was used up" in told[1]) == (said == "fail")
