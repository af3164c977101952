"""One bad piece of work costs itself: never its neighbours, never the writer, never the record's proof."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.exc import DatabaseError

from agent.errors import StoreError
from agent.incidents import Rules, follow
from agent.model import Run, Status, digest
from agent.store import Store
from tests.fraud import fraud
from tests.test_incidents import finding
from tests.test_store import NOW, _until, keep

UNSPEAKABLE = "half a pair: \ud83d"  # a lone surrogate: JSON may carry it, UTF-8 may not


@pytest.fixture
def store(tmp_path):
    made = Store.open(tmp_path / "w.db", patience=0.3).start()
    yield made
    made.close()


def unspeakable(ledger):
    said = follow(None, finding(Status.OK), Rules(), seq=1, kept=False)
    ledger.put_signal(replace(said, reason=UNSPEAKABLE))


def endless(ledger):
    ledger.roll_up("s/w", NOW, True, float("inf"))
    ledger.roll_up("s/w", NOW, True, float("-inf"))


@pytest.mark.parametrize("bad", [unspeakable, endless])
@pytest.mark.parametrize("afloat", [False, True], ids=["on disk", "in memory"])
def test_what_cannot_be_written_never_ends_the_writer(store, tmp_path, bad, afloat):
    with contextlib.closing(sqlite3.connect(tmp_path / "w.db", isolation_level=None)) as other:
        if afloat:
            other.execute("BEGIN EXCLUSIVE")
        neighbours = [store.submit(lambda ledger, n=n: keep(ledger, n)) for n in (1, 2)]
        store.submit(bad)
        neighbours.append(store.submit(lambda ledger: keep(ledger, 3), urgent=True))
        assert all(future.result(10) for future in neighbours)
        if afloat:
            other.execute("ROLLBACK")
    _until(lambda: not store.afloat)
    with store.read() as ledger:
        assert len(ledger.findings()) == 3
    assert store.verify() == []


def test_a_wrong_statement_is_the_fault_of_its_work_and_not_of_the_disk(store):
    with pytest.raises((StoreError, DatabaseError), match="no such table"):
        store.write(lambda ledger: ledger.conn.exec_driver_sql("SELECT * FROM nothing_of_the_kind"))
    assert store.write(keep) and store.afloat == "" and store.errors == 0


def test_what_failed_while_the_disk_was_away_is_not_done_later(store, tmp_path):
    tries = []

    def half(ledger):
        ledger.post("k", "ada", "s", {}, NOW)
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("only in memory")

    with contextlib.closing(sqlite3.connect(tmp_path / "w.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        store.write(lambda ledger: None)
        with pytest.raises(ValueError, match="only in memory"):
            store.write(half)
        other.execute("ROLLBACK")
    _until(lambda: not store.afloat)
    with store.read() as ledger:
        assert ledger.letters() == []


def test_a_look_that_failed_in_the_store_is_not_counted(store):
    def bad(ledger):
        ledger.roll_up("s/w", NOW, True, 1.0)
        raise ValueError("no")

    good = store.submit(lambda ledger: ledger.roll_up("s/w", NOW, True, 1.0))
    failing = store.submit(bad)
    store.write(lambda ledger: None)
    assert good.exception(5) is None and isinstance(failing.exception(5), ValueError)
    with store.read() as ledger:
        assert [row["looks"] for row in ledger.rollups("s/w", NOW - timedelta(hours=1))] == [1]


def test_work_for_a_closed_store_is_refused_at_once(store):
    store.close()
    began = datetime.now(UTC)
    with pytest.raises(StoreError, match="closed"):
        store.write(keep)
    assert datetime.now(UTC) - began < timedelta(seconds=5)


@pytest.mark.parametrize("said", [UNSPEAKABLE, "null \x00 byte", "\U0001d4ca ✓ \u202e", "%_'\";--", "x" * 100_000])
def test_whatever_a_target_says_is_kept_and_proven(tmp_path, said):
    with fraud(tmp_path) as desk:
        store = desk.world.store
        number = store.write(lambda ledger: ledger.record(NOW, "change", said, body={"said": said, "nan": float("nan")}))
        w = desk.world.find("fraud/serving.ready")
        from agent.model import fail
        from agent.observe import fold, found

        verdict = fail(said)
        heard = found(w, w.window(desk.world.clock()), desk.world.clock(), verdict, "1", 0.1)
        assert store.write(lambda ledger: fold(desk.world, ledger, w, heard, verdict)).id == 1
        with store.read() as ledger:
            assert number in [event.id for event in ledger.events("change")] and len(ledger.open_incidents("fraud")) == 1
        assert store.verify() == []


def test_an_event_that_was_taken_out_of_the_record_is_missed(store):
    for n in range(3):
        store.write(lambda ledger, n=n: ledger.record(NOW, "change", str(n)))
    store.write(lambda ledger: ledger.conn.exec_driver_sql("DELETE FROM event WHERE id = 2"))
    assert any("event 2 is gone" in line for line in store.verify())


def test_a_finding_that_was_taken_out_is_missed_and_one_that_retention_dropped_is_not(store):
    for day in range(4):
        at = NOW + timedelta(days=day)
        store.write(lambda ledger, at=at, day=day: keep(ledger, day, looked_at=at, end_at=at))
    store.write(lambda ledger: ledger.prune(NOW + timedelta(days=1), NOW, NOW - timedelta(days=9), NOW + timedelta(days=4)))
    assert store.verify() == []
    store.write(lambda ledger: ledger.conn.exec_driver_sql("DELETE FROM finding WHERE id = 3"))
    assert any("finding 3 is gone" in line for line in store.verify())


def test_a_plan_that_was_changed_after_it_was_sealed_shows(tmp_path):
    from tests.fraud import drilled

    with fraud(tmp_path) as desk:
        drilled(desk)
        assert desk.world.store.verify() == []
        with desk.world.store.read() as ledger:
            (run,) = ledger.runs()
        assert isinstance(run, Run) and run.plan is not None
        assert digest(run.plan) == run.plan.digest
        desk.world.store.write(
            lambda ledger: ledger.conn.exec_driver_sql('UPDATE run SET plan = replace(plan, \'"reason":"drill\', \'"reason":"dril\')')
        )
        assert any(f"run {run.id}" in line for line in desk.world.store.verify())


def test_retention_keeps_the_findings_of_what_is_still_open_and_drops_files_nobody_names(tmp_path):
    with fraud(tmp_path) as desk:
        desk.server.up = False
        desk.look("serving.ready")
        store, far = desk.world.store, desk.world.clock() + timedelta(days=400)
        store.write(keep)
        store.write(lambda ledger: ledger.prune(far, far, NOW - timedelta(days=9), far))
        with store.read() as ledger:
            assert [f.watch for f in ledger.findings()] == ["fraud/serving.ready"]
            assert ledger.conn.exec_driver_sql("SELECT count(*) FROM file").scalar() == 0
        assert store.verify() == []
