"""What Watchkeeper says about itself to Prometheus, read at scrape time from what it knows anyway: nothing is counted in the paths that look."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, Protocol

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from agent.errors import StoreError
from agent.model import ACTIVE, ErrorBudget, Json, Status
from agent.store import Ledger, Store

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
HEAD_DIGITS = 13  # hexadecimal digits of a link, 52 bits: what a number in Prometheus keeps exactly
LATE = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0)


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its kind, what it says, its labels. No label is ever a watch, a version, an incident or a reason: those have no bound."""

    kind: Literal["gauge", "counter", "histogram"]
    says: str
    labels: tuple[str, ...] = ()


FAMILIES: Mapping[str, Family] = {
    "watchkeeper_build_info": Family("gauge", "1, with the version that runs.", ("version",)),
    "watchkeeper_watches": Family(
        "gauge", "Watches of this check whose last look came to this status; absent if none.", ("service", "check", "status")
    ),
    "watchkeeper_watch_last_look_timestamp_seconds": Family(
        "gauge", "When this check last looked; of several watches, the oldest.", ("service", "check")
    ),
    "watchkeeper_incidents_open": Family("gauge", "Incidents that are not over.", ("service", "severity")),
    "watchkeeper_runs_active": Family("gauge", "Runs of this runbook that are not over, waiting for approval included.", ("service", "runbook")),
    "watchkeeper_runs_total": Family("counter", "Runs of this runbook that ended so.", ("service", "runbook", "state")),
    "watchkeeper_budget_used_ratio": Family(
        "gauge", "The share of an objective's error budget that is used; more than 1 when it is overdrawn.", ("service", "objective")
    ),
    "watchkeeper_budget_burn_ratio": Family(
        "gauge", "How fast the budget was used over the last 1h or 6h; at 1 it lasts just as long as it counts.", ("service", "objective", "over")
    ),
    "watchkeeper_halted": Family("gauge", "1 while no automatic action is taken."),
    "watchkeeper_slots_total": Family(
        "counter", "Scheduled looks: run, in_flight (an earlier one was still going), no_room (the lane was full).", ("outcome",)
    ),
    "watchkeeper_lateness_seconds": Family("histogram", "From the time a look was scheduled for to its start."),
    "watchkeeper_extra_looks_total": Family("counter", "Looks out of turn: to confirm a fail, or because a person asked."),
    "watchkeeper_looks_in_flight": Family("gauge", "Looks going on now."),
    "watchkeeper_looks_lost_total": Family("counter", "Looks that never came back and were given up."),
    "watchkeeper_looks_raised_total": Family("counter", "Looks that ended in a mistake of Watchkeeper's own; its log has each."),
    "watchkeeper_loop_lag_seconds": Family("gauge", "By how much the loop is late now; 0 when it is not."),
    "watchkeeper_clock_jumps_total": Family("counter", "Times the wall clock was set, or the machine slept."),
    "watchkeeper_store_errors_total": Family("counter", "Writes to the store that failed."),
    "watchkeeper_store_backlog": Family("gauge", "Pieces of work that are not yet on disk."),
    "watchkeeper_store_afloat": Family("gauge", "1 while the store cannot be written and is kept in memory."),
    "watchkeeper_store_last_write_timestamp_seconds": Family("gauge", "When the store was last written."),
    "watchkeeper_store_size_bytes": Family("gauge", "Size of the store with its write-ahead log."),
    "watchkeeper_letters_waiting": Family("gauge", "Letters in the outbox."),
    "watchkeeper_letters_total": Family("counter", "Letters that were sent, or dropped.", ("state",)),
    "watchkeeper_letter_failures_total": Family("counter", "Tries to send a letter that failed."),
    "watchkeeper_heartbeat_failures_total": Family("counter", "Heartbeats that were not heard."),
    "watchkeeper_evidence_links": Family("gauge", "Links that the chain of evidence has had: kept outside, it anchors the chain."),
    "watchkeeper_evidence_head": Family("gauge", "The first 52 bits of the last of these links, as a number."),
    "watchkeeper_audit_final": Family("gauge", "The score of the last audit that was kept, 0 to 10: its lowest section.", ("service",)),
    "watchkeeper_audit_section": Family("gauge", "The points of each section in it, 0 to 10.", ("service", "section")),
    "watchkeeper_audit_item_points": Family("gauge", "The points of each question in it, 0 to 1.", ("service", "item")),
    "watchkeeper_audit_evidence_timestamp_seconds": Family(
        "gauge", "When the evidence of a question was made; absent if there is none.", ("service", "item")
    ),
    "watchkeeper_audit_coverage_ratio": Family("gauge", "The share of its questions that had fresh evidence.", ("service",)),
    "watchkeeper_audit_blockers_open": Family("gauge", "Its blockers that were not wholly met.", ("service",)),
    "watchkeeper_audit_debt_index": Family("gauge", "The index of each type of technical debt in it, 0 to 100.", ("service", "debt")),
    "watchkeeper_audit_timestamp_seconds": Family("gauge", "When it was made.", ("service",)),
    "watchkeeper_scrape_errors_total": Family("counter", "Scrapes for which the store could not be read: what comes from it was left out."),
}


class Late(Protocol):
    """Lateness of runs; what the scheduler keeps."""

    n: int
    total: float

    def within(self, seconds: float) -> int: ...


class Counts(Protocol):
    """What became of every slot; what the scheduler keeps."""

    run: int
    in_flight: int
    no_room: int
    lost: int
    looks: int
    raised: int
    jumps: int

    @property
    def late(self) -> Late: ...


class Loop(Protocol):
    """The scheduler, as far as it is measured."""

    @property
    def counts(self) -> Counts: ...

    def lag(self) -> float: ...

    def in_flight(self) -> Mapping[str, float]: ...


class Watching(Collector):
    """Collects every family at scrape time. Counters of the loop start at 0 with the process; those of runs and letters are as old as the store."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], datetime],
        loop: Loop | None = None,
        *,
        letter_failures: Callable[[], int] = lambda: 0,
        heartbeat_failures: Callable[[], int] = lambda: 0,
        halted: Callable[[], bool] = lambda: False,
        budgets: Callable[[Ledger], Iterable[tuple[str, ErrorBudget]]] = lambda ledger: (),
        audits: Callable[[Ledger], Mapping[str, Json]] = lambda ledger: {},
    ) -> None:
        self._store, self._clock, self._loop = store, clock, loop
        self._letter_failures, self._heartbeat_failures, self._halted = letter_failures, heartbeat_failures, halted
        self._budgets, self._audits, self._errors = budgets, audits, 0

    def collect(self) -> Iterator[Metric]:
        yield _one("watchkeeper_build_info", 1, _version())
        yield from self._watches()
        yield from self._loops()
        yield from self._stored()
        try:
            yield from list(self._kept())
        except StoreError:
            self._errors += 1
        yield _one("watchkeeper_letter_failures_total", self._letter_failures())
        yield _one("watchkeeper_heartbeat_failures_total", self._heartbeat_failures())
        yield _one("watchkeeper_scrape_errors_total", self._errors)

    def _watches(self) -> Iterator[Metric]:
        statuses: Counter[tuple[str, str, Status]] = Counter()
        oldest: dict[tuple[str, str], datetime] = {}
        for signal in self._store.signals.values():
            place = (signal.service, signal.check)
            statuses[*place, signal.status] += 1
            oldest[place] = min(signal.looked_at, oldest.get(place, signal.looked_at))
        watches, looked = _family("watchkeeper_watches"), _family("watchkeeper_watch_last_look_timestamp_seconds")
        for (service, check, status), n in statuses.items():
            watches.add_metric((service, check, status.value), n)
        for (service, check), at in oldest.items():
            looked.add_metric((service, check), at.timestamp())
        yield from (watches, looked)

    def _loops(self) -> Iterator[Metric]:
        if self._loop is None:
            return
        counts = self._loop.counts
        slots = _family("watchkeeper_slots_total")
        for outcome in ("run", "in_flight", "no_room"):
            slots.add_metric((outcome,), getattr(counts, outcome))
        yield slots
        late = _family("watchkeeper_lateness_seconds")
        buckets = [(f"{limit:g}", float(counts.late.within(limit))) for limit in LATE]
        late.add_metric((), [*buckets, ("+Inf", max(float(counts.late.n), buckets[-1][1]))], counts.late.total)
        yield late
        yield _one("watchkeeper_extra_looks_total", counts.looks)
        yield _one("watchkeeper_looks_in_flight", len(self._loop.in_flight()))
        yield _one("watchkeeper_looks_lost_total", counts.lost)
        yield _one("watchkeeper_looks_raised_total", counts.raised)
        yield _one("watchkeeper_clock_jumps_total", counts.jumps)
        yield _one("watchkeeper_loop_lag_seconds", self._loop.lag())

    def _stored(self) -> Iterator[Metric]:
        store = self._store
        yield _one("watchkeeper_store_errors_total", store.errors)
        yield _one("watchkeeper_store_backlog", store.backlog)
        yield _one("watchkeeper_store_afloat", bool(store.afloat))
        yield _one("watchkeeper_store_last_write_timestamp_seconds", self._clock().timestamp() - (time.monotonic() - store.written_at))
        yield _one("watchkeeper_store_size_bytes", sum(_size(f"{store.path}{ending}") for ending in ("", "-wal")))

    def _kept(self) -> Iterator[Metric]:
        opened, runs, letters, budgets, head, audits = self._store.see(
            lambda ledger: (
                ledger.incidents(open_only=True, limit=10_000),
                ledger.run_counts(),
                ledger.letter_counts(),
                list(self._budgets(ledger)),
                ledger.head(),
                self._audits(ledger),
            ),
            within=5.0,
        )
        yield _counted("watchkeeper_incidents_open", Counter((i.service, i.severity) for i in opened))
        active: Counter[tuple[str, ...]] = Counter()
        for (service, runbook, state), n in runs.items():
            active[service, runbook] += n if state in ACTIVE else 0
        yield _counted("watchkeeper_runs_active", active)
        yield _counted("watchkeeper_runs_total", {place: n for place, n in runs.items() if place[2] not in ACTIVE})
        yield _one("watchkeeper_letters_waiting", letters.get("waiting", 0))
        yield _counted("watchkeeper_letters_total", {(state,): letters.get(state, 0) for state in ("sent", "dropped")})
        yield _one("watchkeeper_halted", self._halted())
        yield _counted("watchkeeper_budget_used_ratio", {(service, one.objective): one.used for service, one in budgets})
        burns = {(service, one.objective, over): one.burns[over] for service, one in budgets for over in ("1h", "6h")}
        yield _counted("watchkeeper_budget_burn_ratio", burns)
        if not self._store.afloat:  # the copy in memory begins a chain of its own, that ends with it
            yield _one("watchkeeper_evidence_links", head[0])
            yield _one("watchkeeper_evidence_head", int(head[1][:HEAD_DIGITS], 16))
        yield from _audited(audits)


def _audited(audits: Mapping[str, Json]) -> Iterator[Metric]:
    """The last audit of every service that was kept."""
    for name, key in (("final", "final"), ("coverage_ratio", "coverage"), ("blockers_open", "blockers")):
        yield _counted(f"watchkeeper_audit_{name}", {(service,): told[key] for service, told in audits.items()})
    yield _counted("watchkeeper_audit_timestamp_seconds", {(service,): _seconds(told["as_of"]) for service, told in audits.items()})
    for name, key in (("section", "sections"), ("debt_index", "debt")):
        yield _counted(f"watchkeeper_audit_{name}", {(service, part): n for service, told in audits.items() for part, n in told[key].items()})
    items = [(service, one) for service, told in audits.items() for one in told["items"]]
    yield _counted("watchkeeper_audit_item_points", {(service, one["item"]): one["points"] for service, one in items})
    dated = {(service, one["item"]): _seconds(one["at"]) for service, one in items if one["at"]}
    yield _counted("watchkeeper_audit_evidence_timestamp_seconds", dated)


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def exporter(collector: Collector) -> Callable[[], bytes]:
    """A function that gives the text of `/metrics`, from a registry of its own: Watchkeeper's families and those of the process."""
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    return lambda: generate_latest(registry)


_KINDS: Mapping[str, Any] = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily, "histogram": HistogramMetricFamily}


def _family(name: str) -> Any:
    family = FAMILIES[name]
    return _KINDS[family.kind](name, family.says, labels=family.labels)


def _one(name: str, value: float, *labels: str) -> Metric:
    return _counted(name, {labels: value})


def _counted(name: str, values: Mapping[Any, float]) -> Metric:
    family: Metric = _family(name)
    for labels, value in values.items():
        family.add_metric(labels, value)  # type: ignore[attr-defined]  # every family has it, their parent does not
    return family


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - a name that may be gone
    except OSError:
        return 0


def _version() -> str:
    try:
        return version("watchkeeper")
    except PackageNotFoundError:
        return "unknown"
