"""Audits that are kept in the record, small enough to be kept daily: what the next one is compared with, and what `/metrics` tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from agent.model import Json
from agent.store import Ledger

KIND = "audit.kept"
MOST = 2000  # kept audits that are looked through for the last of each service
WORDS = ("headline", "verdict", "final", "level", "coverage", "served", "catalogue")
OF_AN_ITEM = ("item", "state", "points", "criteria", "why", "at")


def small(told: Mapping[str, Json], as_of: str) -> dict[str, Json]:
    """A service's result as it is kept: enough to compare the next one with, and to draw it."""
    items = [{**{key: one[key] for key in OF_AN_ITEM}, "delta": {"since": (one.get("delta") or {}).get("since", as_of)}} for one in told["items"]]
    sections = {one["section"]: one["points"] for one in told["sections"]}
    debt = {kind: one["index"] for kind, one in told["debt"].items()}
    return {
        **{word: told[word] for word in WORDS},
        "as_of": as_of,
        "sections": sections,
        "blockers": len(told["blockers"]),
        "debt": debt,
        "items": items,
    }


def keep(ledger: Ledger, report: Mapping[str, Json]) -> None:
    """Seal what an audit came to, service by service, at its own moment."""
    at = datetime.fromisoformat(report["as_of"])
    for one in report["services"]:
        told = small(one["readiness"], report["as_of"])
        ledger.record(at, KIND, f"audit: {told['verdict']}, {told['headline']}", service=one["service"], body=told)


def last(ledger: Ledger, services: Sequence[str], until: datetime | None = None) -> dict[str, Json]:
    """The newest audit of each service that was kept, as something to compare with; a service without one is not in it."""
    found: dict[str, Json] = {}
    for name in services:
        newest = next(iter(ledger.events(KIND, service=name, until=until, limit=1)), None)
        if newest is not None:
            found[name] = dict(newest.body)
    first = min((one["as_of"] for one in found.values()), default="")
    return {"as_of": first, "services": [{"service": name, "readiness": told} for name, told in found.items()]}


def reader() -> Callable[[Ledger], Mapping[str, Json]]:
    """A function that gives the newest kept audit of every service by name, and reads them again only when there is a newer one."""
    held: tuple[int, Mapping[str, Json]] = (0, {})

    def read(ledger: Ledger) -> Mapping[str, Json]:
        nonlocal held
        now = next((event.id for event in ledger.events(KIND, limit=1)), 0)
        if now != held[0]:
            held = (now, {str(event.service): event.body for event in reversed(ledger.events(KIND, limit=MOST)) if event.service})
        return held[1]

    return read
