"""The whole as JSON values: what the API answers, and what the page shows."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from math import isfinite

from agent import incidents
from agent.audit import kept
from agent.audit.fleet import fleet
from agent.config import ServiceConfig
from agent.model import Finding, Incident, Json, Run, Signal, Silence, Status, to_json
from agent.permit import frozen, halted
from agent.preview import plan_json
from agent.standing import GRAVITY, standing
from agent.store import Ledger
from agent.world import World

MANY = 200  # watches up to which everything about each is told at once
FRESH = 1.0  # seconds after which ages are reckoned anew though nothing was written
DEAR = 0.25  # seconds that make a status worth keeping a while


def finite(value: Json) -> Json:
    """The value with what JSON cannot say, NaN and infinity, as null."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, (list, tuple)) else value


class View:
    """One world as it is shown: knows what it was asked a moment ago, so that pages left open do not cost what looking costs."""

    def __init__(self, world: World, ready: Callable[[], Sequence[str]]) -> None:
        self.world, self.ready = world, ready
        self._readings: dict[str, tuple[datetime, Json]] = {}
        self._lock = threading.Lock()
        self._audits = kept.reader()
        self._last: tuple[float, float, dict[str, Json]] | None = None  # when it was made, what it cost, what it is

    def status(self) -> dict[str, Json]:
        """How everything stands. Made anew when anything was written; with a thousand services at most a sixth of the time."""
        with self._lock:
            now = time.monotonic()
            if self._last is not None and self._last[0] > self.world.store.written_at and now - self._last[0] < FRESH:
                return self._last[2]
            if self._last is not None and self._last[1] > DEAR and now - self._last[0] < 5 * self._last[1]:
                return self._last[2]
            made = self._status()
            self._last = (now, time.monotonic() - now, made)
            return made

    def _status(self) -> dict[str, Json]:
        world, now, in_full = self.world, self.world.clock(), len(self.world.watched) <= MANY

        def services(ledger: Ledger) -> dict[str, Json]:
            silences = ledger.silences(now)
            told = [self._service(ledger, one, now, silences, in_full) for one in world.config.services.values()]
            return {"services": told, "silences": to_json(silences)}

        return {
            "at": to_json(now),
            "team": world.config.team,
            "halted": halted(world),
            "afloat": world.store.afloat,
            "unready": list(self.ready()),
            **world.store.see(services),
        }

    def service(self, name: str) -> dict[str, Json]:
        """One service, in full."""
        found, now = self.world.service(name), self.world.clock()
        return self.world.store.see(lambda ledger: self._service(ledger, found, now, ledger.silences(now), True))

    def _service(self, ledger: Ledger, one: ServiceConfig, now: datetime, silences: Sequence[Silence], in_full: bool) -> dict[str, Json]:
        """Signals come from the writer's memory: they are right while the store cannot be written, too."""
        signals = {w.key: signal for w in one.watches if (signal := self.world.store.signal(w.key))}
        found = standing(self.world.config, ledger, one, now, signals)
        for watch in found["watches"]:
            signal = signals.get(watch["watch"])
            silence = incidents.silenced(watch["watch"], silences, now)
            watch["statuses"] = signal.statuses if signal else ""
            watch["silenced"] = None if silence is None else f"by {silence.by} until {silence.until_at:%Y-%m-%d %H:%M}Z: {silence.why}"
            watch["reading"] = self._reading(ledger, signal) if signal and in_full else None
        return {**found, "frozen": frozen(self.world, one, now)}

    def _reading(self, ledger: Ledger, signal: Signal) -> Json:
        """The watch's last kept reading; asked of the store only after another was kept."""
        known = self._readings.get(signal.watch)
        if known is None or known[0] != signal.kept_at:
            last = ledger.findings(watch=signal.watch, limit=1)
            known = self._readings[signal.watch] = (signal.kept_at, to_json(last[0].reading) if last else None)
        return known[1]

    def fleet(self) -> dict[str, Json]:
        """How ready each service is by its last audit, the worst first; what was kept is read again only after another was."""
        return self.world.store.see(lambda ledger: fleet(self.world.config, self._audits(ledger), self.world.clock()))

    def page(self) -> dict[str, Json]:
        """What the page shows: the status with the worst first, open incidents and the last that are over, runs, findings that are not ok."""
        state = self.status()
        return {
            **state,
            "services": sorted(state["services"], key=lambda one: GRAVITY.index(one["state"])),
            "counted": Counter(one["state"] for one in state["services"]),
            "many": len(self.world.watched) > MANY,
            **self.world.store.see(_told),
        }


def _told(ledger: Ledger) -> dict[str, Json]:
    over = [one for one in ledger.incidents(limit=20) if one.over][:5]
    recent = [one for one in ledger.findings(limit=100) if one.status not in (Status.OK, Status.SKIP)][:15]
    return {
        "open": [incident(ledger, one) for one in ledger.incidents(open_only=True, limit=50)],
        "over": [incident(ledger, one) for one in over],
        "runs": [run(one, in_full=one.state in ("proposed", "awaiting")) for one in ledger.runs(limit=10)],
        "findings": to_json(recent),
    }


def incident(ledger: Ledger, one: Incident) -> dict[str, Json]:
    """An incident with everything that happened in it, oldest first, and its runs."""
    runs = [found for found in ledger.runs(since=one.opened_at, limit=1000) if found.incident == one.id]
    return {**to_json(one), "events": to_json(ledger.events(incident=one.id, limit=1000)[::-1]), "runs": [run(found) for found in runs]}


def run(one: Run, in_full: bool = True) -> dict[str, Json]:
    """A run with its steps; `in_full` with its plan, and the digest that an approval binds."""
    short: dict[str, Json] = {**to_json(replace(one, plan=None)), "approved_by": " and ".join(one.approved_by) or None}
    if in_full and one.plan is not None:
        short["plan"] = plan_json(one.plan)
    return short


def finding(one: Finding | None) -> Json:
    return None if one is None else to_json(one)
