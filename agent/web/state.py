"""The whole as JSON values: what the API answers, and what the page shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from math import isfinite

from agent import incidents
from agent.config import ServiceConfig
from agent.model import Finding, Incident, Json, Run, Silence, Status, spell, to_json
from agent.permit import frozen, halted
from agent.standing import standing
from agent.store import Ledger
from agent.world import World

MANY = 200  # watches up to which everything about each is told at once


def finite(value: Json) -> Json:
    """The value with what JSON cannot say, NaN and infinity, as null."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def status(world: World, ledger: Ledger, ready: Callable[[], Sequence[str]]) -> dict[str, Json]:
    """How everything stands."""
    now, in_full = world.clock(), len(world.watched) <= MANY
    silences = ledger.silences(now)
    return {
        "at": to_json(now),
        "team": world.config.team,
        "halted": halted(world),
        "afloat": world.store.afloat,
        "unready": list(ready()),
        "services": [service(world, ledger, one, now, silences, in_full) for one in world.config.services.values()],
        "silences": to_json(silences),
    }


def service(world: World, ledger: Ledger, one: ServiceConfig, now: datetime, silences: Sequence[Silence], in_full: bool = True) -> dict[str, Json]:
    """One service: how it stands, and about each watch its last statuses; `in_full` its last kept reading as well."""
    found = standing(world.config, ledger, one, now)
    for watch in found["watches"]:
        signal = world.store.signal(watch["watch"])
        silence = incidents.silenced(watch["watch"], silences, now)
        watch["statuses"] = signal.statuses if signal else ""
        watch["silenced"] = None if silence is None else f"by {silence.by} until {silence.until_at:%Y-%m-%d %H:%M}Z: {silence.why}"
        watch["reading"] = to_json(_reading(ledger, watch["watch"])) if in_full else None
    return {**found, "frozen": frozen(world, one, now)}


def _reading(ledger: Ledger, watch: str) -> Json:
    last = ledger.findings(watch=watch, limit=1)
    return to_json(last[0].reading) if last else None


def incident(ledger: Ledger, one: Incident) -> dict[str, Json]:
    """An incident with everything that happened in it, oldest first, and its runs."""
    runs = [found for found in ledger.runs(since=one.opened_at, limit=1000) if found.incident == one.id]
    return {**to_json(one), "events": to_json(ledger.events(incident=one.id, limit=1000)[::-1]), "runs": [run(found) for found in runs]}


def run(one: Run, in_full: bool = True) -> dict[str, Json]:
    """A run with its steps; `in_full` with its plan, and the digest that an approval binds."""
    short: dict[str, Json] = to_json(replace(one, plan=None))
    if in_full and one.plan is not None:
        short["plan"] = {**to_json(one.plan), "digest": one.plan.digest}
    return short


def finding(one: Finding | None) -> Json:
    return None if one is None else to_json(one)


def page(world: World, ledger: Ledger, ready: Callable[[], Sequence[str]]) -> dict[str, Json]:
    """What the page shows: the status, open incidents and the last that are over, the last runs, and the last findings that are not ok."""
    over = [one for one in ledger.incidents(limit=20) if one.over][:5]
    recent = [one for one in ledger.findings(limit=300) if one.status not in (Status.OK, Status.SKIP)][:15]
    state = status(world, ledger, ready)
    for one in state["services"]:
        for watch in one["watches"]:
            watch["age"] = None if watch["age"] is None else spell(world.clock() - datetime.fromisoformat(watch["looked_at"]))
    return {
        **state,
        "open": [incident(ledger, one) for one in ledger.incidents(open_only=True, limit=50)],
        "over": [incident(ledger, one) for one in over],
        "runs": [run(one, in_full=False) for one in ledger.runs(limit=10)],
        "findings": to_json(recent),
    }
