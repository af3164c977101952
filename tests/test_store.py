"""The store: nothing lost, nothing twice, and a chain that shows every change."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from agent import _rows, migrations
from agent.errors import StoreBusyError, StoreCorruptError, StoreError, StoreFullError, StoreSchemaError
from agent.incidents import Rules, follow
from agent.model import Reading, Status, Window, to_json
from agent.store import Store, locked, refuse_network_file_system
from tests.test_incidents import finding

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def store(tmp_path):
    made = Store.open(tmp_path / "w.db", patience=0.3).start()
    yield made
    made.close()


def keep(ledger, n: int = 0, **more):
    at = NOW + timedelta(seconds=n)
    values = {"watch": "s/w", "service": "s", "check": "c", "start_at": at, "end_at": at, "looked_at": at, "status": "ok", "reason": "fine"}
    rest = {"reading": to_json(Reading(1.5, 2.0, (1.0, 2.0), 9, "s")), "parts": {}, "version": "1", "rule": "r", "seq": n, "seconds": 0.25}
    return ledger.keep({"plot.svg": b"<svg/>"}, **{**values, **rest, **more})


def test_what_is_kept_comes_back_as_it_was(store):
    store.write(keep)
    with store.read() as ledger:
        (found,) = ledger.findings(service="s")
    assert found.reading == Reading(1.5, 2.0, (1.0, 2.0), 9, "s") and found.looked_at == NOW and found.status is Status.OK


def test_one_window_of_a_watch_is_kept_once(store):
    store.write(keep)
    with pytest.raises(Exception, match="UNIQUE"):
        store.write(keep)
    with store.read() as ledger:
        assert len(ledger.findings()) == 1


def test_a_failing_piece_of_work_undoes_itself_and_nothing_else(store):
    def bad(ledger):
        keep(ledger, 2)
        raise ValueError("no")

    futures = [store.submit(lambda ledger: keep(ledger, 1)), store.submit(bad), store.submit(lambda ledger: keep(ledger, 3), urgent=True)]
    assert futures[2].result(5) and futures[0].result(5)
    with pytest.raises(ValueError, match="no"):
        futures[1].result(5)
    with store.read() as ledger:
        assert [f.looked_at.second for f in ledger.findings()] == [3, 1]
    assert store.verify() == []


def test_a_naive_time_is_refused(store):
    with pytest.raises(Exception, match="naive"):
        store.write(lambda ledger: ledger.record(NOW.replace(tzinfo=None), "change", "x"))


@settings(max_examples=25, deadline=None)
@given(edit=st.sampled_from(["what", "body", "delete", "finding", "link", "reorder"]), place=st.integers(1, 8))
def test_whatever_is_changed_in_the_record_shows(tmp_path_factory, edit, place):
    store = Store.open(tmp_path_factory.mktemp("chain") / "w.db").start()
    try:
        for n in range(8):
            store.write(lambda ledger, n=n: (keep(ledger, n), ledger.record(NOW, "change", f"event {n}", body={"n": n})))
        assert store.verify() == []
        statements = {
            "what": f"UPDATE event SET what = 'nothing happened' WHERE id = {place}",
            "body": f"UPDATE event SET body = '{{}}' WHERE id = {place}",
            "delete": f"DELETE FROM evidence WHERE seq = {place}",
            "finding": f"UPDATE finding SET status = 'warn' WHERE id = {place}",
            "link": f"UPDATE evidence SET digest = link WHERE seq = {place}",
            "reorder": f"UPDATE evidence SET ref = CASE WHEN seq = {place} THEN ref + 1 ELSE ref END",
        }
        store.write(lambda ledger: ledger.conn.exec_driver_sql(statements[edit]))
        assert store.verify() != []
    finally:
        store.close()


def test_retention_drops_bodies_and_old_links_behind_a_checkpoint_and_the_chain_still_holds(store):
    for day in range(10):
        at = NOW + timedelta(days=day)
        store.write(lambda ledger, at=at, day=day: (keep(ledger, day, looked_at=at, end_at=at), ledger.record(at, "change", str(day))))
    cut = NOW + timedelta(days=5)
    assert store.write(lambda ledger: ledger.prune(cut, cut, NOW - timedelta(days=1), NOW)) == 5
    assert store.verify() == []
    store.write(lambda ledger: ledger.prune(cut, cut, cut, NOW))
    store.write(lambda ledger: ledger.record(NOW, "change", "after"))
    assert store.verify() == []
    store.write(lambda ledger: ledger.conn.exec_driver_sql("DELETE FROM evidence WHERE seq = (SELECT min(seq) FROM evidence)"))
    assert store.verify() != []


def test_the_migrations_make_exactly_the_declared_tables(store):
    with store._engine.connect() as conn:
        differences = compare_metadata(MigrationContext.configure(conn), _rows.METADATA)
    assert differences == []


def test_the_newest_revision_is_the_one_the_program_expects():
    assert migrations.revisions()[0] == migrations.HEAD


OLD_RUN = """INSERT INTO run (runbook, service, state, mode, by, reason, wanted_at, drill, parameters, approved_by, recoveries, said)
VALUES ('rollback', 'fraud', 'succeeded', 'approve', 'ada', 'asked for by ada', '2026-05-01 10:00:00.000000', 0, '{}', :by, 0, '')"""


OLD_FINDING = """INSERT INTO finding (watch, service, "check", start_at, end_at, looked_at, status, reason, parts, data, rule, seq, seconds)
VALUES ('s/w', 's', 'c', :end, :end, :end, :status, '', '{}', '{}', 'r', 1, 0)"""


def test_a_store_of_the_first_schema_is_left_alone_until_it_is_asked_to_be_upgraded(tmp_path):
    path = tmp_path / "w.db"
    setup = AlembicConfig()
    setup.set_main_option("script_location", str(Path(migrations.__file__).parent))
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as conn:
        setup.attributes["connection"] = conn
        command.upgrade(setup, "0001")
        for by in ("ada", None):
            conn.execute(text(OLD_RUN), {"by": by})
        for number, status in enumerate(("ok", "fail", "fail", "warn", "error", "nodata", "skip")):
            conn.execute(text(OLD_FINDING), {"end": f"2026-05-01 10:01:0{number}.500000", "status": status})
        conn.execute(
            text("INSERT INTO rollup (watch, minute_at, looks, good, readings, total) VALUES ('s/w', '2026-05-01 10:01:00.000000', 8, 2, 0, 0)")
        )
        conn.commit()
    with pytest.raises(StoreSchemaError, match="has the older schema 0001; run 'watchkeeper db upgrade'"):
        Store.open(path)
    with engine.connect() as conn:
        assert migrations.bring_up(conn, path, upgrade=True) == migrations.HEAD
        assert compare_metadata(MigrationContext.configure(conn), _rows.METADATA) == []
        conn.commit()
    engine.dispose()
    with contextlib.closing(Store.open(path)) as taken_up, taken_up.read() as ledger:
        nobody, ada = ledger.runs()
        assert (ada.approved_by, ada.approvals[0].at.isoformat()) == (("ada",), "2026-05-01T10:00:00+00:00")
        assert nobody.approvals == () and nobody.parent is None and ledger.baselines() == {}
        (minute,) = ledger.rollups("s/w", ada.approvals[0].at)
        assert (minute["looks"], minute["good"], minute["bad"], minute["blind"]) == (8, 2, 2, 3), "what was held of the past is counted"


def test_a_pinned_finding_outlives_retention_with_its_files(store):
    end = NOW - timedelta(days=200)
    window, judged = Window(end - timedelta(hours=1), end), {"start_at": end - timedelta(hours=1), "end_at": end, "looked_at": end}
    store.write(lambda ledger: [keep(ledger, watch=watch, **judged) for watch in ("fraud/a", "fraud/b")])
    store.write(lambda ledger: ledger.pin("fraud/a", window, "ada", "a good load test", NOW))
    store.write(lambda ledger: ledger.prune(NOW - timedelta(days=90), NOW, NOW - timedelta(days=999), NOW))
    with store.read() as ledger:
        assert [finding.watch for finding in ledger.findings()] == ["fraud/a"]
        pinned = ledger.baseline("fraud/a")
        assert pinned.finding.watch == "fraud/a" and pinned.data == {"plot.svg": b"<svg/>"} and pinned.window == window
        assert ledger.baseline("fraud/b") is None
    assert store.write(lambda ledger: ledger.unpin("fraud/a", NOW)) and not store.write(lambda ledger: ledger.unpin("fraud/a", NOW))
    store.write(lambda ledger: ledger.prune(NOW - timedelta(days=90), NOW, NOW - timedelta(days=999), NOW))
    with store.read() as ledger:
        assert ledger.findings() == []
    assert store.verify() == []


def test_a_store_of_a_newer_schema_is_refused_and_left_alone(store, tmp_path):
    store.write(lambda ledger: ledger.conn.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    body = (tmp_path / "w.db").read_bytes()
    with pytest.raises(StoreSchemaError, match="made by a newer Watchkeeper") as told:
        Store.open(tmp_path / "w.db")
    assert told.value.exit_code == 4 and (tmp_path / "w.db").read_bytes() == body


def test_a_file_that_is_something_else_is_refused(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE recipe(name)")
    with pytest.raises(StoreSchemaError, match="not a Watchkeeper store"):
        Store.open(tmp_path / "other.db")


@pytest.mark.parametrize("damage", ["pages", "header", "text"])
def test_a_damaged_file_is_set_aside_loudly_and_never_lost(tmp_path, damage):
    path = tmp_path / "w.db"
    store = Store.open(path).start()
    for n in range(300):
        store.write(lambda ledger, n=n: keep(ledger, n, reason="x" * 500))
    store.close()
    body = bytearray(path.read_bytes())
    if damage == "text":
        body = bytearray(b"this is not a database" * 500)
    else:
        start = 0 if damage == "header" else 4096 * 6
        body[start : start + 4096 * 20] = os.urandom(4096 * 20)
    path.write_bytes(bytes(body))
    Path(f"{path}-wal").unlink(missing_ok=True)
    with pytest.raises(StoreCorruptError, match="restore a backup"):
        Store.open(path)
    fresh = Store.open(path, set_aside=True, now=NOW).start()
    assert fresh.aside == tmp_path / "w.db.corrupt-20260301T120000Z" and fresh.aside.read_bytes() == bytes(body)
    fresh.write(keep)
    fresh.close()


def test_a_truncated_wal_costs_the_last_commits_at_most(tmp_path):
    path = tmp_path / "w.db"
    code = (
        "import os, sys; from agent.store import Store; from tests.test_store import keep\n"
        f"store = Store.open({str(path)!r}).start()\n"
        "for n in range(50): store.write(lambda ledger: keep(ledger, n), durable=True)\n"
        "os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    wal = Path(f"{path}-wal")
    wal.write_bytes(wal.read_bytes()[: len(wal.read_bytes()) * 2 // 3])
    store = Store.open(path).start()
    with store.read() as ledger:
        assert 0 < len(ledger.findings(limit=100)) < 50
    assert store.verify() == []
    store.close()


def test_a_network_file_system_is_refused(tmp_path):
    mounts = f"/dev/sda1 / ext4 rw 0 0\nserver:/export {tmp_path} nfs4 rw 0 0\n"
    with pytest.raises(StoreError, match="nfs4"):
        refuse_network_file_system(tmp_path / "deep" / "w.db", mounts)
    refuse_network_file_system(Path("/elsewhere/w.db"), mounts)


def test_only_one_process_may_write(tmp_path):
    path = tmp_path / "w.db"
    with locked(path):
        code = f"from pathlib import Path; from agent.store import locked\nwith locked(Path({str(path)!r})): pass"
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert told.returncode != 0 and f"process {os.getpid()}" in told.stderr
    with locked(path):
        pass


def test_while_another_program_locks_the_file_looks_go_on_and_all_is_written_later(store, tmp_path):
    """Fault row 14; the lock is held as long as the test likes, which stands for 60 s: patience is 0.3 s here."""
    with contextlib.closing(sqlite3.connect(tmp_path / "w.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        began = store.submit(lambda ledger: keep(ledger, 1), urgent=True)
        assert began.result(10) > 0  # judged, in memory
        assert "locked" in store.afloat and store.backlog == 1
        store.write(lambda ledger: ledger.post("incident-1/opened", "ada", "it broke", {}, NOW))
        assert [letter.key for letter in store.write(lambda ledger: ledger.letters_due(NOW))] == ["incident-1/opened"]
        with pytest.raises(StoreFullError, match="nothing that changes the world"):
            store.write(lambda ledger: keep(ledger, 2), durable=True)
        other.execute("ROLLBACK")
    _until(lambda: not store.afloat)
    with store.read() as ledger:
        assert len(ledger.findings()) == 1 and len(ledger.letters_due(NOW)) == 1
    assert store.verify() == []


def test_a_letter_sent_while_afloat_is_not_waiting_afterwards(store, tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "w.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        store.write(lambda ledger: ledger.post("k", "ada", "s", {}, NOW))
        store.write(lambda ledger: ledger.letter_sent("k", "ada"))
        other.execute("ROLLBACK")
    _until(lambda: not store.afloat)
    with store.read() as ledger:
        assert ledger.letters_due(NOW) == [] and ledger.letters()[0]["state"] == "sent"


def test_a_full_disk_loses_nothing_and_refuses_what_would_change_the_world(store):
    """Fault row 12: SQLite says "database or disk is full" when max_page_count is reached, as it does on a full file system."""
    store.write(keep)
    limit = store.write(lambda ledger: ledger.conn.exec_driver_sql("PRAGMA page_count").scalar())
    store.close()
    store = Store.open(store.path, patience=0.3)

    from sqlalchemy import event

    @event.listens_for(store._engine, "checkout")
    def full(conn, *_):
        conn.execute(f"PRAGMA max_page_count={limit if full.on else 1_000_000}")

    full.on = True
    store.start()
    futures = [store.submit(lambda ledger, n=n: keep(ledger, n, reason="x" * 4000)) for n in range(1, 40)]
    assert all(future.result(20) for future in futures)
    assert "full" in store.afloat and store.errors >= 1
    with pytest.raises(StoreFullError):
        store.write(keep, durable=True)
    full.on = False
    _until(lambda: not store.afloat)
    with store.read() as ledger:
        assert len(ledger.findings(limit=100)) == 40
    assert store.verify() == []
    store.close()


def test_a_read_only_store_is_told_and_looks_go_on(tmp_path):
    path = tmp_path / "w.db"
    Store.open(path).start().close()
    store = Store.open(path, patience=0.3)

    from sqlalchemy import event

    @event.listens_for(store._engine, "checkout")
    def readonly(conn, *_):
        conn.execute("PRAGMA query_only=ON")

    store.start()
    assert store.submit(keep, urgent=True).result(10)
    assert store.afloat
    store.close()


def test_a_backup_is_whole_while_the_store_is_in_use_and_never_overwrites(store, tmp_path):
    store.write(keep)
    store.backup(tmp_path / "copy.db")
    with pytest.raises(StoreError, match="exists"):
        store.backup(tmp_path / "copy.db")
    copy = Store.open(tmp_path / "copy.db")
    with copy.read() as ledger:
        assert len(ledger.findings()) == 1
    assert copy.verify() == []


def test_signals_are_the_same_in_memory_and_on_disk_whatever_fails(store):
    def good(ledger, n):
        ledger.put_signal(follow(ledger.signal("s/w"), finding(Status.OK, n), Rules(), seq=n, kept=False))

    def bad(ledger):
        good(ledger, 99)
        raise ValueError

    for n in range(1, 6):
        store.submit(lambda ledger, n=n: good(ledger, n))
        store.submit(bad)
    store.write(lambda ledger: None)
    with store.read() as ledger:
        on_disk = ledger.signal("s/w")
    assert on_disk == store.signal("s/w") and on_disk.seq == 5


def test_a_fast_watch_leaves_minute_rows_with_count_low_mean_and_high(store):
    for n, value in enumerate([3.0, 1.0, None, float("nan"), 2.0]):
        store.write(lambda ledger, n=n, value=value: ledger.roll_up("s/w", NOW + timedelta(seconds=n), n != 2, value))
    with store.read() as ledger:
        (row,) = ledger.rollups("s/w", NOW - timedelta(hours=1))
    assert (row["looks"], row["good"], row["readings"], row["low"], row["total"], row["high"]) == (5, 4, 3, 1.0, 6.0, 3.0)


def test_work_that_waits_too_long_is_told_as_such(tmp_path):
    store = Store.open(tmp_path / "w.db")  # no writer was started
    with pytest.raises(StoreBusyError, match="another program"):
        store.write(keep, within=0.05)


@pytest.mark.timeout(120)
def test_two_processes_may_make_the_store_at_once(tmp_path):
    code = f"from agent.store import Store; Store.open({str(tmp_path / 'w.db')!r}).start().close()"
    started = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(3)]
    told = [process.communicate(timeout=60)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], told


def _until(true, seconds: float = 10.0) -> None:
    event, waited = threading.Event(), 0.0
    while not true():
        assert waited < seconds, "it did not come about"
        event.wait(0.02)
        waited += 0.02
