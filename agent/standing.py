"""How each service stands: what it serves, what it could go back to, what every watch last saw, and how old that is."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from agent import objectives
from agent.config import Config, ServiceConfig, WatchConfig
from agent.model import Json, Signal, Status, spell, to_json
from agent.store import Ledger

GRAVITY = ("bad", "blind", "stale", "new", "unwatched", "ok")  # a service is what its worst watch is


def standing(config: Config, ledger: Ledger, service: ServiceConfig, now: datetime, signals: Mapping[str, Signal] | None = None) -> dict[str, Json]:
    """One service as JSON. `state` is its worst watch: bad, blind (we cannot see), stale (nobody has looked for a while), new or ok.

    `signals`, by watch, spares reading all of them from the store for each of many services.
    """
    if signals is None:
        signals = {signal.watch: signal for signal in ledger.all_signals() if signal.service == service.name}
    watches = [_watch(watch, signals.get(watch.key), now) for watch in service.watches]
    served = ledger.served_now(service.name)
    return {
        "service": service.name,
        "team": service.team,
        "owner": service.owner,
        "state": min((w["state"] for w in watches), key=GRAVITY.index, default="unwatched"),
        "mode": service.mode,
        "modes": dict(service.modes),
        "served": None if served is None else {"version": served.version, "since_at": to_json(served.since_at)},
        "last_known_good": last_good(ledger, service.name, served.version if served else None),
        "incidents": [to_json(incident) for incident in ledger.open_incidents(service.name)],
        "runs": [{"id": r.id, "runbook": r.runbook, "state": r.state, "said": r.said} for r in ledger.runs(active_only=True, service=service.name)],
        "objectives": objectives.told(ledger, service, now),
        "watches": watches,
    }


def last_good(ledger: Ledger, service: str, served: str | None) -> Json:
    """The version a rollback would go to: good, and not the one served. None: a rollback would be refused."""
    other = next(((version, by, at) for version, by, at in ledger.goods(service) if version != served), None)
    return None if other is None else {"version": other[0], "by": other[1], "at": to_json(other[2])}


def _watch(watch: WatchConfig, signal: Signal | None, now: datetime) -> dict[str, Json]:
    known = {"watch": watch.key, "check": watch.check, "every": spell(watch.every)}
    if signal is None:
        return {**known, "status": None, "state": "new", "reason": "not looked at yet", "age": None}
    old = now - signal.looked_at
    stale = old > 2 * watch.every + watch.within
    return {
        **known,
        "status": signal.status.value,
        "state": "stale" if stale and signal.state == "ok" else "blind" if _unseen(signal) else signal.state,
        "reason": signal.reason,
        "since_at": to_json(signal.since_at),
        "looked_at": to_json(signal.looked_at),
        "age": old.total_seconds(),
        "stale": stale,
        "flapping": signal.flapping,
    }


def _unseen(signal: Signal) -> bool:
    """An `ok` state whose last look saw nothing is not shown as ok."""
    return signal.state == "ok" and signal.status in (Status.ERROR, Status.NODATA)
