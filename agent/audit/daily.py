"""The audit that every service has on its own: when one is due, sealing it, and the incident while what it finds is worse than it was.

A slot is met by any audit that was kept at or after it. So a missed one is made up once, by whoever leads the store when it is noticed, and told as
late; one that was cut off is not there at all, because each service's is sealed in one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from agent import audit
from agent.audit import kept
from agent.audit.gates import SEEN
from agent.config import Config
from agent.config.values import Audits
from agent.incidents import Rules
from agent.model import UTC, Event, Json, Reading, Verdict, Window, fail, ok
from agent.observe import fold, found
from agent.store import Ledger
from agent.world import World

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PERIOD = timedelta(days=30)  # that a daily audit tells of
LATE = timedelta(minutes=10)  # after its time, from which an audit is told to be late
AT_ONCE = 50  # services that are audited in one reading


def slot(audits: Audits, now: datetime) -> datetime:
    """The last time at which an audit was due."""
    return now - (now - EPOCH - audits.at) % audits.every


def due(config: Config, newest: Mapping[str, Event], now: datetime) -> list[str]:
    """The services whose last slot has no audit yet."""
    asked = [(name, one.audit) for name, one in config.services.items() if one.audit]
    return [name for name, audits in asked if name not in newest or newest[name].at < slot(audits, now)]


def tick(world: World, now: datetime) -> list[str]:
    """Audit and seal what is due, and judge it; the services it was done for."""
    if not any(one.audit for one in world.config.services.values()):
        return []
    with world.store.read() as ledger:
        names = due(world.config, ledger.newest(kept.KIND), now)
    for start in range(0, len(names), AT_ONCE):
        if world.stopping():
            return names[:start]
        _audit(world, names[start : start + AT_ONCE], PERIOD, now, on_time=True)
    return names


def keep(world: World, names: Sequence[str], length: timedelta, now: datetime) -> None:
    """Audit these services because somebody asks for it, whether or not it is due; sealed and judged as on any day."""
    _audit(world, names, length, now, on_time=False)


def _audit(world: World, names: Sequence[str], length: timedelta, now: datetime, on_time: bool) -> None:
    with world.store.read() as ledger:
        report = audit.collect(world.config, ledger, names, now - length, now)
    for one in report["services"]:
        world.store.write(partial(_seal, world, one, now, on_time), durable=True)


def _seal(world: World, one: Mapping[str, Json], now: datetime, on_time: bool, ledger: Ledger) -> None:
    """One service's, in one transaction; nothing where another audit met its slot meanwhile."""
    name, late = one["service"], None
    audits = world.config.services[name].audit if name in world.config.services else None
    if on_time and audits is not None:
        before, slotted = kept.newest(ledger, name), slot(audits, now)
        if before is not None and datetime.fromisoformat(before["as_of"]) >= slotted:
            return
        late = now - slotted if before is not None and now - slotted > LATE else None
    sealed = kept.seal(ledger, name, one["readiness"], now.isoformat(), late)
    if audits is not None and (w := world.audits.get(f"{name}/audit")) is not None:
        verdict, at_once = judged(audits.incident_on, one["readiness"]["items"], sealed)
        w = replace(w, rules=Rules(bad=1, of=1)) if at_once else w
        fold(world, ledger, w, found(w, Window(now - audits.every, now), now, verdict, world.alone(name), 0.0), verdict)


def judged(incident_on: str, items: Sequence[Mapping[str, Json]], sealed: Mapping[str, Any]) -> tuple[Verdict, bool]:
    """What an audit means for an incident, and whether that holds at once rather than after two in a row: a blocker is seen to fail.

    `regression`: a question is worse than it has been, as `down` says. `blocker`: a blocker is seen to fail, whatever it was before. What is
    waived is neither.
    """
    blockers = {one["item"] for one in items if one["criticality"] == "blocker" and one["state"] == "fail" and not one["waiver"]}
    named = set(sealed["down"]) if incident_on == "regression" else blockers
    bad = sorted((one for one in items if one["item"] in named), key=lambda one: (one["item"] not in blockers, one["item"]))
    if not bad:
        return ok("nothing is worse than it was" if incident_on == "regression" else "no blocker fails"), False
    told = [_told(one, sealed["best"]) for one in bad]
    head = told[0] + (f" (+{len(told) - 1} more)" if len(told) > 1 else "")
    parts = {one["item"]: Reading(one["points"], sealed["best"].get(one["item"], {}).get("points"), n=None) for one in bad}
    return fail("\n".join([head, *told[1:]]), parts=parts), bool(named & blockers)


def _told(one: Mapping[str, Json], best: Mapping[str, Json]) -> str:
    """A question that got worse, and the command that would mend it."""
    was = best.get(one["item"], {}).get("points", 0.0)
    went = f", {one['points']:g} where it earned {was:g}" if was > one["points"] else ""
    commands = (one["fix"] or {}).get("commands") or [f"watchkeeper audit explain {one['item']}"]
    seen = "" if one["state"] in SEEN else " (as last seen)"
    return f"{one['item']} {one['state']}{went}{seen}: {one['why']}; do: {commands[0]}"
