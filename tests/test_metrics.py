"""The metrics, read by Prometheus's own linter, held to their page, and scraped from ten thousand watches."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.audit.kept import reader
from agent.metrics import FAMILIES, LATE, Watching, exporter
from agent.model import Signal, Status
from agent.scheduler import Job, Scheduler
from agent.store import Store
from tests.conftest import HOUSE

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
BOUNDED = {"service", "check", "runbook", "state", "status", "severity", "outcome", "version", "objective", "over", "section", "item", "debt"}


def signal(n: int, check: str = "serving.ready", status: Status = Status.OK, service: str = "fraud") -> Signal:
    at = NOW - timedelta(seconds=n)
    return Signal(f"{service}/w{n}", service, check, status, "o", "ok", at, at, at, at, "fine", "rule", n)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "watch.db").start()
    yield store
    store.close()


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    scheduler = Scheduler(lambda key, due_at: None, lambda key, due_at: None)
    scheduler.plan({"fraud/ready": Job(timedelta(milliseconds=20))})
    scheduler.start()
    end = time.monotonic() + 10
    while scheduler.counts.run < 3 and time.monotonic() < end:
        time.sleep(0.01)
    yield scheduler
    scheduler.stop(timedelta(seconds=5))


def scraped(text: bytes) -> dict[str, dict[tuple[str, ...], float]]:
    """Sample name -> label values, in the order the family declares them -> value."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            declared = FAMILIES[sample.name].labels if sample.name in FAMILIES else sorted(sample.labels)
            found.setdefault(sample.name, {})[tuple(sample.labels[name] for name in declared)] = sample.value
    return found


def busy(store: Store) -> None:
    def do(ledger):
        for n, status in enumerate([Status.OK, Status.FAIL, Status.FAIL]):
            ledger.put_signal(signal(n, status=status))
        ledger.put_signal(signal(9, check='odd"check\\with\nbreaks', service="credit"))
        ledger.add_incident("fraud", "page", "parity", NOW)
        for runbook, state in (("rollback", "succeeded"), ("rollback", "awaiting"), ("retrain", "stuck")):
            run, _ = ledger.want(runbook=runbook, service="fraud", mode="approve", by="vera", reason="", wanted_at=NOW)
            ledger.conn.exec_driver_sql("UPDATE run SET state = ? WHERE id = ?", (state, run.id))
        ledger.post("incident-1/opened", "vera", "fraud", {}, NOW)
        ledger.post("incident-1/opened", "on-call", "fraud", {}, NOW)
        ledger.letter_sent("incident-1/opened", "vera")

    store.write(do)


def test_what_is_scraped_is_what_is_known(store: Store, scheduler: Scheduler) -> None:
    busy(store)
    collector = Watching(store, lambda: NOW, scheduler, letter_failures=lambda: 4, heartbeat_failures=lambda: 2, halted=lambda: True)
    found = scraped(exporter(collector)())
    assert found["watchkeeper_watches"]["fraud", "serving.ready", "fail"] == 2
    assert ("fraud", "serving.ready", "nodata") not in found["watchkeeper_watches"], "six series a watch would be mostly zeros"
    assert found["watchkeeper_watch_last_look_timestamp_seconds"]["fraud", "serving.ready"] == NOW.timestamp() - 2, "the oldest"
    assert found["watchkeeper_incidents_open"] == {("fraud", "page"): 1}
    assert found["watchkeeper_runs_active"] == {("fraud", "rollback"): 1, ("fraud", "retrain"): 0}
    assert found["watchkeeper_runs_total"] == {("fraud", "rollback", "succeeded"): 1, ("fraud", "retrain", "stuck"): 1}
    assert found["watchkeeper_letters_waiting"] == {(): 1}
    assert found["watchkeeper_letters_total"] == {("sent",): 1, ("dropped",): 0}
    assert found["watchkeeper_letter_failures_total"] == {(): 4}
    assert found["watchkeeper_heartbeat_failures_total"] == {(): 2}
    assert found["watchkeeper_halted"] == {(): 1}
    assert found["watchkeeper_slots_total"]["run",] >= 3
    assert found["watchkeeper_lateness_seconds_count"][()] >= 3
    assert found["watchkeeper_store_size_bytes"][()] > 4096
    assert found["process_resident_memory_bytes"][()] > 0


def test_the_last_audit_of_each_service_that_was_kept_is_told(store: Store) -> None:
    def kept(at: str, final: float) -> dict[str, object]:
        items = [{"item": "DATA-01", "points": 0.5, "at": at}, {"item": "DATA-02", "points": 0.0, "at": None}]
        debt, sections = {"entanglement": 40.0}, {"DATA": final, "MON": 7.0}
        return {"as_of": at, "final": final, "coverage": 0.5, "blockers": 3, "sections": sections, "debt": debt, "items": items}

    def keep(service: str, at: str, final: float) -> None:
        store.write(lambda ledger: ledger.record(NOW, "audit.kept", "", service=service, body=kept(at, final)))

    keep("fraud", "2026-11-21T12:00:00+00:00", 2.0)
    keep("credit", "2026-11-21T12:00:00+00:00", 4.0)
    scrape = exporter(Watching(store, lambda: NOW, audits=reader()))
    assert scraped(scrape())["watchkeeper_audit_final"] == {("fraud",): 2.0, ("credit",): 4.0}
    keep("fraud", "2026-11-22T12:00:00+00:00", 2.5)
    found = scraped(scrape())
    assert found["watchkeeper_audit_final"] == {("fraud",): 2.5, ("credit",): 4.0}
    assert found["watchkeeper_audit_section"]["fraud", "MON"] == 7.0
    assert found["watchkeeper_audit_item_points"]["fraud", "DATA-01"] == 0.5
    day = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()
    assert found["watchkeeper_audit_evidence_timestamp_seconds"] == {("fraud", "DATA-01"): day, ("credit", "DATA-01"): day - 86400}
    assert found["watchkeeper_audit_blockers_open"]["fraud",] == 3


def test_the_length_and_the_head_of_the_chain_are_exact(store: Store) -> None:
    for n in range(40):
        store.write(lambda ledger, n=n: ledger.record(NOW, "agent.start", f"{n}"))
        with store.read() as ledger:
            links, last = ledger.head()
        found = scraped(exporter(Watching(store, lambda: NOW))())
        assert (links, found["watchkeeper_evidence_links"][()]) == (n + 1, n + 1)
        assert int(found["watchkeeper_evidence_head"][()]) == int(last, 16) >> 204, "52 of 256 bits, none of them rounded"


def test_promtool_finds_nothing_to_say(store: Store, scheduler: Scheduler, promtool: Path) -> None:
    busy(store)
    text = exporter(Watching(store, lambda: NOW, scheduler))()
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout.decode(), done.stderr.decode()) == (0, "", "")


def test_every_family_is_exported_and_every_exported_one_is_known(store: Store, scheduler: Scheduler) -> None:
    busy(store)
    text = exporter(Watching(store, lambda: NOW, scheduler))().decode()
    told = dict(re.findall(r"^# TYPE (watchkeeper_\w+) (\w+)$", text, re.MULTILINE))
    assert told == {name: family.kind for name, family in FAMILIES.items()}


def test_every_family_is_on_its_page_and_the_page_names_no_other() -> None:
    page = (HOUSE / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(watchkeeper_\w+)` \| (\w+) \| ([^|]*) \| ([^|]*) \|$", page, re.MULTILINE)
    told = {name: (kind, tuple(re.findall(r"`(\w+)`", labels)), says) for name, kind, labels, says in rows}
    assert told == {name: (family.kind, family.labels, family.says) for name, family in FAMILIES.items()}


def test_every_metric_in_the_examples_of_the_page_exists() -> None:
    page = (HOUSE / "docs" / "metrics.md").read_text(encoding="utf-8")
    for name in re.findall(r"\bwatchkeeper_\w+", page):
        assert re.sub(r"_(bucket|sum|count)$", "", name) in FAMILIES or name in FAMILIES


def test_the_alerts_on_the_page_are_rules_that_prometheus_takes(promtool: Path, tmp_path: Path) -> None:
    page = (HOUSE / "docs" / "metrics.md").read_text(encoding="utf-8")
    rules = tmp_path / "rules.yml"
    rules.write_text(page.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    done = subprocess.run([promtool, "check", "rules", rules], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_label_is_without_bound() -> None:
    assert {label for family in FAMILIES.values() for label in family.labels} <= BOUNDED


def test_ten_thousand_watches_cost_less_than_a_second(store: Store) -> None:
    def do(ledger):
        for n in range(10_000):
            ledger.put_signal(signal(n, check=f"c{n % 10}", service=f"s{n // 10}"))

    store.write(do)
    scrape = exporter(Watching(store, lambda: NOW))
    scrape()
    begun = time.process_time()
    text = scrape()
    assert time.process_time() - begun < 1.0
    assert text.count(b"watchkeeper_watches{") == 10_000


def test_a_store_that_cannot_be_read_leaves_the_rest_in_place(store: Store) -> None:
    scrape = exporter(Watching(store, lambda: NOW))
    store._engine.dispose()
    for ending in ("", "-wal", "-shm"):
        Path(f"{store.path}{ending}").unlink(missing_ok=True)
    store.path.mkdir()
    found = scraped(scrape())
    assert "watchkeeper_incidents_open" not in found
    assert found["watchkeeper_scrape_errors_total"] == {(): 1}
    assert found["watchkeeper_store_backlog"] == {(): 0}


def test_lateness_is_counted_up_to_each_limit(store: Store, scheduler: Scheduler) -> None:
    scheduler.stop(timedelta(seconds=5))
    late = scheduler.counts.late = type(scheduler.counts.late)()
    for seconds in (0.0, 0.004, 0.3, 2.0, 10_000.0):
        late.add(seconds)
    buckets = scraped(exporter(Watching(store, lambda: NOW, scheduler))())["watchkeeper_lateness_seconds_bucket"]
    assert buckets[f"{LATE[0]:g}",] == 2
    assert buckets["0.5",] == 3
    assert buckets["600",] == 4
    assert buckets["+Inf",] == 5
