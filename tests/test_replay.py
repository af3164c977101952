"""What would have been: real logs replayed through the real loop, with workers of their own and a store that is thrown away."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent import config as configuration
from agent.backtest import backtest
from agent.cli import main
from agent.limits import FACTORS, Nearness
from agent.model import Finding, Reading, Status
from agent.observe import observe
from agent.replay import FOLDER, _now, replay, scratch, slots
from agent.store import Store
from agent.workers import Pool
from agent.world import World
from tests import plugin_box
from tests.conftest import HOUSE
from tests.logs import write
from tests.servers._loopback import Loopback

START = datetime(2026, 3, 2, tzinfo=UTC)
DAYS = 3
HOUR = timedelta(hours=1)
NULLS = (START + timedelta(days=1, hours=6), START + timedelta(days=1, hours=12))
DRIFT = (START + timedelta(days=2, hours=3), START + timedelta(days=2, hours=9))
END = START + timedelta(days=DAYS)
CONFIG = """
services:
  fraud:
    owner: ada
    escalation: [eve]
    targets:
      server: oip+{server}/m
      live: {{url: "{live}", time: {{column: at, tz: UTC}}, id: request_id}}
      reference: {{url: "{reference}"}}
    watches:
      - {{check: serving.ready, every: 1h, splay: false}}
      - {{check: data.contract, every: 1h, splay: false, with: {{columns: {{amount: {{nulls: 0.1}}}}}}}}
      - {{check: drift.compare, every: 1h, splay: false, with: {{columns: [age], rows_at_least: 20}}}}
{more}
notify:
  channels: {{ada: "{told}/ada", eve: "{told}/eve"}}
"""


def inside(at: datetime, span: tuple[datetime, datetime]) -> bool:
    return span[0] <= at < span[1]


def log_rows() -> list[dict[str, object]]:
    """A row every two minutes; amount is missing for six hours of the second day, age has moved for six of the third."""
    chance = random.Random(11)
    times = [START + n * timedelta(minutes=2) for n in range(DAYS * 720)]
    return [
        {
            "at": at.isoformat(),
            "request_id": f"r{n}",
            "amount": None if inside(at, NULLS) else chance.gauss(50, 5),
            "age": chance.gauss(40, 5) + (20 if inside(at, DRIFT) else 0),
        }
        for n, at in enumerate(times)
    ]


def desk(folder: Path, form: str = "parquet", server: str = "http://127.0.0.1:9", told: str = "http://127.0.0.1:9", more: str = "") -> Path:
    chance = random.Random(5)
    reference = write(folder, "jsonl", [{"age": chance.gauss(40, 5), "amount": chance.gauss(50, 5)} for _ in range(2000)])
    (folder / "log.jsonl").rename(folder / "reference.jsonl")
    live = write(folder, form, log_rows())
    path = folder / "watchkeeper.yaml"
    path.write_text(CONFIG.format(server=server, live=live, reference=reference.replace("log.", "reference."), told=told, more=more))
    return path


def keys(config: configuration.Config) -> list[str]:
    return [watch.key for _, watch in config.watches()]


def told(path: Path, since: datetime = START, until: datetime = END, **more: object) -> dict:
    config = configuration.load(path)
    return backtest(config, keys(config), since, until, **more)


def steady(told: dict) -> dict:
    """Without what a clock says of this machine."""
    return {**told, "cpu_seconds": 0, "watches": [{**one, "seconds": 0} for one in told["watches"]]}


def program(*args: object) -> dict:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HOUSE), os.environ.get("PYTHONPATH", "")]), "COLUMNS": "200", "NO_COLOR": "1"}
    return {"args": [sys.executable, "-m", "agent.cli", *map(str, args)], "env": env, "text": True}


def wk(*args: object, code: int = 0, **more: object) -> str:
    done = subprocess.run(**{**program(*args), **more}, capture_output=True, timeout=100)
    assert done.returncode == code, f"{args} ended with {done.returncode}, not {code}:\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def past(tmp_path_factory, pool) -> tuple[Path, dict]:
    """The log as Parquet, and what a backtest of it says."""
    folder = tmp_path_factory.mktemp("past")
    path = desk(folder)
    return path, told(path, keep=folder / "kept.db", pool=pool)


# What would have opened, and when


def test_exactly_the_incident_of_each_fault_opens_at_the_second_bad_window_and_ends_after_two_good_ones(past):
    _, found = past
    first, second = found["incidents"]
    assert (first["opened_at"], first["resolved_at"]) == ((NULLS[0] + 2 * HOUR).isoformat(), (NULLS[1] + 2 * HOUR).isoformat())
    assert (second["opened_at"], second["resolved_at"]) == ((DRIFT[0] + 2 * HOUR).isoformat(), (DRIFT[1] + 2 * HOUR).isoformat())
    assert [[m["watch"] for m in one["members"]] for one in (first, second)] == [["fraud/data.contract"], ["fraud/drift.compare"]]
    assert found["would_have"] == {"opened": 2, "paged": 2, "told": len(first["told"]) + len(second["told"]), "proposed": {}}
    assert first["lasted"] == 6 * 3600.0


def test_an_incident_shows_the_findings_that_opened_it(past):
    evidence = past[1]["incidents"][0]["members"][0]["evidence"]
    assert [one["at"] for one in evidence] == [(NULLS[0] + n * HOUR).isoformat() for n in (1, 2)]
    assert all(one["status"] == "fail" and one["reason"].startswith("1 rule broken in 30 rows: amount is null in 30 of 30 rows") for one in evidence)


def test_people_are_told_reminded_and_escalated_to_at_the_simulated_times(past):
    at = datetime.fromisoformat(past[1]["incidents"][0]["opened_at"])
    heard = [(one["channel"], one["what"], datetime.fromisoformat(one["at"]) - at) for one in past[1]["incidents"][0]["told"]]
    reminded = [(who, "reminder/1", 4 * HOUR) for who in ("ada", "eve")]
    ended = [(who, "resolved", 6 * HOUR) for who in ("ada", "eve")]
    assert heard == [("ada", "opened", timedelta(0)), ("eve", "escalated/2", timedelta(minutes=15)), *reminded, *ended]


def test_the_windows_of_each_watch_are_counted_by_what_became_of_them(past):
    contract, drift = past[1]["watches"]
    assert contract["windows"] == drift["windows"] == DAYS * 24
    assert {name: n for name, n in contract["counts"].items() if n} == {"ok": 66, "fail": 6}
    assert {name: n for name, n in drift["counts"].items() if n} == {"ok": 66, "fail": 6}


def test_what_looks_at_the_present_is_named_and_left_out(past):
    (left,) = past[1]["left_out"]
    assert left["watch"] == "fraud/serving.ready" and left["why"] == "it looks at the present: it asks the server"


def test_rows_that_are_still_to_come_are_not_seen_as_rows_from_the_future(past):
    contract = past[1]["watches"][0]
    assert "time.future" not in json.dumps(past[1]) and contract["counts"]["ok"] == 66


def test_two_backtests_give_the_same(past, pool):
    path, found = past
    again = told(path, keep=path.parent / "again.db", pool=pool)
    assert steady(again) == steady(found)
    assert kept(path.parent / "again.db") == kept(path.parent / "kept.db")


def kept(file: Path) -> list[tuple]:
    with closing(Store.open(file)) as store, store.read() as ledger:
        return [plainly(finding) for finding in ledger.findings(limit=100_000)]


def plainly(f: Finding) -> tuple:
    return f.watch, f.start_at, f.end_at, f.looked_at, f.status, f.reason, f.reading, dict(f.parts), f.rule


def test_a_kept_store_holds_every_finding_and_no_letter_or_run_that_could_still_go_out(past):
    with closing(Store.open(past[0].parent / "kept.db")) as store, store.read() as ledger:
        assert len(ledger.findings(limit=100_000)) == past[1]["windows"]
        assert ledger.letters_due(datetime(2100, 1, 1, tzinfo=UTC), limit=1000) == [] and ledger.letter_counts() == {"dropped": 12}
        assert ledger.runs(active_only=True) == []
    assert "exists already" in wk("backtest", "-c", past[0], "--since", "2026-03-02", "--keep", past[0].parent / "kept.db", code=3)


@pytest.mark.parametrize("form", ["csv", "jsonl", "sqlite", "duckdb"])
def test_the_same_rows_in_another_format_have_the_same_past(past, pool, tmp_path, form):
    span = (NULLS[0] - 3 * HOUR, NULLS[0] + 3 * HOUR)
    there, here = told(desk(tmp_path, form), *span, pool=pool), told(past[0], *span, pool=pool)
    assert there["windows"] == 14 and there["incidents"]
    assert steady({**there, "notes": []}) == steady({**here, "notes": []})


# The loop body is the agent's own

REMEMBERS = """
    from dataclasses import dataclass
    from agent import Columns, Reading, Verdict, Window, check, fail, ok

    @dataclass(frozen=True)
    class Sums:
        rows: int = 0
        windows: int = 0

    @check(pillar="monitoring", asks="Did enough rows come, all in all?", cause="answers")
    def total(live: Columns, window: Window, memory: Sums | None = None, *, limit: int = 1000) -> Verdict:
        before = memory or Sums()
        now = Sums(before.rows + live.between(window.start, window.end).rows(), before.windows + 1)
        said = f"{now.rows} rows in {now.windows} windows"
        return (fail if now.rows > limit else ok)(said, Reading(now.rows, limit), memory=now)
"""


def test_a_check_that_remembers_is_folded_as_observe_folds_it_one_look_after_the_other(tmp_path, monkeypatch):
    with plugin_box.install(tmp_path, {"sums": REMEMBERS}) as package:
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HOUSE), str(tmp_path / f"site-{package}")]))
        config = configuration.load(desk(tmp_path, more="      - {check: sums.total, every: 1h, with: {limit: 600}}"))
        with scratch(config) as world:
            seen = [one.finding for one in replay(world, [("fraud/sums.total", START, START + 30 * HOUR)], [])]
            memory = world.store.see(lambda ledger: ledger.memory("fraud/sums.total"))
        with closing(Store.open(tmp_path / "by-hand.db").start()) as store, Pool(1) as pool:
            by_hand = World(config, store, pool, clock=_now.get)
            w = by_hand.find("fraud/sums.total")
            grid, first, count = slots(w, START, START + 30 * HOUR)
            looked = []
            for n in range(count):
                due = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=first + n * grid.every)
                _now.set(due)
                looked.append(observe(by_hand, w.key, due).result(60))
            assert store.see(lambda ledger: ledger.memory("fraud/sums.total")) == memory
        assert [plainly(one) for one in seen] == [plainly(one) for one in looked]
        assert len(seen) == 30 and seen[-1].reason == f"{29 * 30 + (seen[0].reading.observed)} rows in 30 windows".replace(".0", "")
        assert Counter(one.status for one in seen)[Status.FAIL] > 0


def test_a_fail_whose_cause_has_a_runbook_would_have_proposed_it_once_and_begins_nothing(tmp_path, monkeypatch):
    with plugin_box.install(tmp_path, {"sums": REMEMBERS}) as package:
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HOUSE), str(tmp_path / f"site-{package}")]))
        path = desk(
            tmp_path,
            more="      - {check: sums.total, every: 1h, with: {limit: 600}}\n"
            "    causes: {answers: rollback}\n    mode: {default: observe, rollback: auto}",
        )
        config = configuration.load(path)
        found = backtest(config, ["fraud/sums.total"], START, START + 40 * HOUR)
        assert found["would_have"]["proposed"] == {"rollback": 1}
        assert [one["runbook"] for one in found["incidents"][0]["proposed"]] == ["rollback"]


def test_slots_are_those_the_scheduler_gives(past):
    config = configuration.load(past[0])
    with scratch(config) as world:
        w = world.find("fraud/data.contract")
        grid, first, count = slots(w, START, END)
        assert (first, count) == (int(START.timestamp() * 1e6), DAYS * 24 + 1)
        assert grid.after(first) == first + 3_600_000_000


# Nothing is touched


def test_the_store_is_left_alone_byte_for_byte_and_no_server_or_channel_hears_anything(tmp_path):
    with closing(_Stopping(Loopback(lambda *_: (200, {})))) as heard:
        path = desk(tmp_path, server=heard.one.address, told=heard.one.address)
        with closing(Store.open(tmp_path / "watchkeeper.db").start()) as store:
            store.write(lambda ledger: ledger.record(START, "note", "something that stands there"))
        before = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in tmp_path.iterdir()}
        said = wk("backtest", "-c", path, "--since", "2026-03-02", "--until", "2026-03-04", code=1)
        assert "would have opened one incident, paged once, proposed nothing" in said
        assert {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in tmp_path.iterdir()} == before
        assert heard.one.requests == [] and heard.one.kept == []


class _Stopping:
    def __init__(self, one: Loopback) -> None:
        self.one = one

    def close(self) -> None:
        self.one.stop()


def begun(path: Path, temporary: Path) -> subprocess.Popen:
    """A backtest of a great many windows, once it has folded some."""
    temporary.mkdir()
    call = program("backtest", "-c", path, "--since", "2026-03-02", "--until", "2026-03-04T20:00:00Z", "--watch", "often")
    call["env"]["TMPDIR"] = str(temporary)
    running = subprocess.Popen(**call, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until = time.monotonic() + 60
    while time.monotonic() < until and running.poll() is None:
        stores = list(temporary.glob(f"{FOLDER}*/scratch.db-wal"))
        if stores and stores[0].stat().st_size > 400_000:
            return running
        time.sleep(0.02)
    raise AssertionError(running.communicate())


OFTEN = "      - {check: data.contract, name: often, every: 10s, within: 10s, window: 10m, with: {columns: {amount: {nulls: 0.1}}}}"


def test_ctrl_c_tells_what_was_seen_until_then_and_leaves_nothing_behind(tmp_path):
    path = desk(tmp_path, more=OFTEN)
    running = begun(path, tmp_path / "temporary")
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "interrupted: this is what was seen up to 2026-03-0" in out and "would have opened" in out and "Traceback" not in err
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_kill_leaves_only_a_temporary_folder(tmp_path):
    path = desk(tmp_path, more=OFTEN)
    names = {file.name for file in tmp_path.iterdir()}
    running = begun(path, tmp_path / "temporary")
    running.kill()
    running.communicate(timeout=60)
    assert {file.name for file in tmp_path.iterdir()} == names | {"temporary"}
    assert all(file.name.startswith(FOLDER) for file in (tmp_path / "temporary").iterdir())


# Hostile


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("--since", "2999-01-01"), 2, "--since lies in the future"),
        (("--since", "1d", "--until", "2d"), 2, "is not before --until"),
        (("--since", "yesterday"), 2, "say how long ago, such as 90d"),
        (("--since", "99999999d"), 2, "longer ago than there is a calendar for"),
        (("--since", "30d", "--watch", "data.contrat"), 2, "no watch 'data.contrat'; did you mean 'data.contract'?"),
        (("fruad", "--since", "30d"), 2, "no service 'fruad'"),
        (("fraud", "--since", "30d", "--watch", "drift.compere"), 2, "did you mean 'drift.compare'?"),
        (("--since", "2026-03-02", "--watch", "serving.ready"), 3, "nothing could be judged"),
        (("--since", "2020-01-01", "--until", "2020-02-01"), 3, "fraud.live begins 2026-03-02 00:00:00Z, and no window of 1h lies between that and"),
    ],
)
def test_what_cannot_be_asked_is_answered_with_the_next_move(past, args, code, said):
    done = CliRunner().invoke(main, ["backtest", "-c", str(past[0]), *args])
    assert (done.exit_code, said in done.output) == (code, True), done.output


def test_a_history_that_is_shorter_than_asked_is_judged_from_where_it_begins(past):
    found = told(past[0], START - timedelta(days=30), START + 5 * HOUR)
    assert "fraud.live begins 2026-03-02 00:00:00Z: it is judged from there" in found["notes"]
    assert [one["windows"] for one in found["watches"]] == [5, 5]


def test_no_rows_and_no_table_are_said_and_nothing_is_judged(tmp_path):
    path = desk(tmp_path)
    write(tmp_path, "parquet", log_rows()[:0] or [{"at": None, "request_id": None, "amount": None, "age": None}], None)
    assert [one["why"] for one in told(path)["left_out"]][1:] == ["fraud.live has no row with a time"] * 2
    (tmp_path / "log.parquet").unlink()
    assert all("fraud.live cannot be read: parquet:log.parquet matches no file" in one["why"] for one in told(path)["left_out"][1:])


def test_windows_without_end_are_refused_before_anything_is_read(past, tmp_path):
    path = desk(tmp_path, more="      - {check: data.contract, name: each, every: 1s}")
    said = wk("backtest", "-c", path, "--since", "2026-03-02", code=2)
    assert "of fraud/each (every 1s); at most 500,000 are replayed at once: shorten --since, or name watches with --watch" in said


def test_a_table_that_vanishes_half_way_costs_errors_and_a_ticket_and_not_the_rest(past, tmp_path):
    config = configuration.load(desk(tmp_path))
    with scratch(config) as world:
        seen = []
        for one in replay(world, [("fraud/data.contract", START + HOUR, START + 40 * HOUR)], [START + 40 * HOUR]):
            seen.append(one)
            if len(seen) == 5:
                (tmp_path / "log.parquet").unlink()
        statuses = Counter(one.finding.status.value for one in seen if one.finding)
        assert statuses["error"] >= 20 and statuses["ok"] >= 5 and sum(statuses.values()) == 40
        (incident,) = world.store.see(lambda ledger: ledger.incidents())
        assert incident.severity == "ticket" and incident.members[0].cause == "blind"


@pytest.fixture(scope="module")
def pool():
    with Pool(2) as made:
        yield made


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rows=st.lists(
        st.tuples(
            st.one_of(st.integers(-3600, 12 * 3600), st.none(), st.just(10**12)),
            st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.integers(-5, 5).map(float)),
        ),
        min_size=1,
        max_size=40,
    ),
    limit=st.sampled_from([0.0, 0.1, 0.5]),
)
def test_whatever_the_log_holds_every_slot_is_judged_once_and_the_counts_add_up(pool, rows, limit):
    with tempfile.TemporaryDirectory() as folder:
        text = "services: {f: {targets: {live: {url: 'parquet:log.parquet', time: {column: at, unit: s}}}, watches: ["
        text += f"{{check: data.contract, every: 1h, with: {{columns: {{amount: {{nulls: {limit}}}}}}}}}, "
        text += "{check: data.contract, name: b, every: 2h}]}}"
        path = Path(folder) / "watchkeeper.yaml"
        path.write_text(text)
        base = int(START.timestamp())
        body = [{"at": None if at is None else float(base + at), "amount": amount} for at, amount in rows]
        write(Path(folder), "parquet", body, {"at": "double", "amount": "double"})
        config = configuration.load(path)
        spans = [(key, START, START + 8 * HOUR) for key in keys(config)]
        with scratch(config, pool=pool) as world:
            seen = [one for one in replay(world, spans, [START + 8 * HOUR]) if one.finding]
            assert [one.at for one in seen] == sorted(one.at for one in seen)
            assert Counter(one.finding.watch for one in seen) == {key: slots(world.find(key), *span)[2] for key, *span in spans}
            assert len(world.store.see(lambda ledger: ledger.findings(limit=1000))) == len(seen)
            assert world.store.verify() == []
        found = backtest(config, keys(config), START, START + 8 * HOUR, pool=pool)
        assert len(found["watches"]) + len(found["left_out"]) == 2
        assert all(sum(one["counts"].values()) == one["windows"] == one["of"] for one in found["watches"])
        assert found["windows"] == sum(one["windows"] for one in found["watches"]) >= found["judged"]


# How near the limits were


def finding(observed: float | None, limit: float | None, status: Status, **parts: Reading) -> Finding:
    return Finding(0, "f/w", "f", "c", START, START, START, status, "", Reading(observed, limit), parts, None, "", 0.0)


def near(*found: Finding) -> list[dict]:
    made = Nearness()
    for one in found:
        made.add(one)
    return list(made.told())


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=50), st.floats(0.1, 5))
def test_a_plain_threshold_is_counted_as_the_check_itself_would_have(values, limit):
    rows = near(*(finding(value, limit, Status.FAIL if value > limit else Status.OK) for value in values))
    if all(value == limit for value in values):
        assert rows == []
    else:
        assert rows[0]["fails"] == "above" and not rows[0]["approximate"]
        assert list(rows[0]["would_fail_at_limit_times"].values()) == [sum(value > limit * factor for value in values) for factor in FACTORS]


def test_a_limit_from_below_is_told_by_its_good_windows_and_one_of_zero_has_no_multiples():
    rows = near(finding(30, 50, Status.FAIL), finding(60, 50, Status.OK), finding(110, 50, Status.OK))
    assert rows[0]["fails"] == "below" and list(rows[0]["would_fail_at_limit_times"].values()) == [0, 1, 1, 2, 2]
    assert near(finding(3, 0, Status.FAIL), finding(0, 0, Status.OK), finding(None, 1, Status.OK), finding(float("nan"), 1, Status.OK)) == []


def test_the_worst_part_is_the_one_that_would_have_failed_most_often_and_follows_the_whole_where_all_failed():
    parts = {"calm": Reading(0.01, 0.1), "wild": Reading(0.3, 0.1)}
    rows = near(*(finding(0.3, 0.1, Status.FAIL, **parts) for _ in range(4)))
    assert [(one["part"], one["fails"], one["would_fail_at_limit_times"]["1"]) for one in rows] == [(None, "above", 4), ("wild", "above", 4)]


def test_a_check_that_is_more_than_its_threshold_is_called_approximate():
    rows = near(finding(0.3, 0.1, Status.OK), finding(0.05, 0.1, Status.OK), finding(0.04, 0.1, Status.OK))
    assert rows[0]["approximate"] and rows[0]["failed"] == 0 and rows[0]["would_fail_at_limit_times"]["1"] == 1
