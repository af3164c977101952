"""Audits that are kept in the record, small enough to be kept daily: what the next one is compared with, and what `/metrics` tells."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta

from agent.audit.gates import SEEN
from agent.audit.trend import Kept, used
from agent.model import Json, spell
from agent.store import Ledger

KIND = "audit.kept"
MOST = 1000  # kept audits of a service that are looked through
WORDS = ("headline", "verdict", "final", "level", "coverage", "served", "catalogue")
OF_AN_ITEM = ("item", "state", "points", "criteria", "why", "at")


def small(told: Mapping[str, Json], as_of: str) -> dict[str, Json]:
    """A service's result as it is kept: enough to compare the next one with, to reckon a trend from, and to draw it."""
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
    for one in report["services"]:
        seal(ledger, one["service"], one["readiness"], report["as_of"])


def seal(ledger: Ledger, service: str, told: Mapping[str, Json], as_of: str, late: timedelta | None = None) -> Kept:
    """Seal what the audit of one service came to. `late`: how long after its time, where that is worth telling."""
    before = newest(ledger, service)
    kept = {**small(told, as_of), **summed(told), "late_seconds": late.total_seconds() if late else 0.0}
    kept["best"] = best(before, told["items"])
    kept["down"] = down(before, kept["best"], told["items"])
    said = f"audit: {told['verdict']}, {told['headline']}" + (f"; {spell(timedelta(seconds=round(late.total_seconds())))} late" if late else "")
    ledger.record(datetime.fromisoformat(as_of), KIND, said, service=service, body=kept)
    return kept


def newest(ledger: Ledger, service: str) -> Kept | None:
    """The last audit of a service that was kept."""
    return next((event.body for event in ledger.events(KIND, service=service, limit=1)), None)


def since(ledger: Ledger, service: str, start: datetime, until: datetime) -> list[Kept]:
    """The audits of a service from `start` to `until` that were kept, oldest first; the newest where there are very many."""
    return [event.body for event in reversed(ledger.events(KIND, service=service, since=start, until=until, limit=MOST))]


def summed(told: Mapping[str, Json]) -> dict[str, Json]:
    """Of the trend what a list of many services tells."""
    found = told.get("trend")
    last = (found or {}).get("comparisons", {}).get("last")
    return {"used": None if found is None else used(found), "arrow": last["arrow"] if last else None}


# Worse than it was


def best(before: Kept | None, items: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
    """The most points that each question has been seen to earn in the kept audits, as long as its criteria are the same."""
    was = _best(before)
    made = {}
    for one in items:
        held = was.get(one["item"])
        old = held["points"] if held and held["criteria"] == one["criteria"] else None
        points = [points for points in (old, one["points"] if one["state"] in SEEN else None) if points is not None]
        if points:
            made[one["item"]] = {"points": max(points), "criteria": one["criteria"]}
    return made


def _best(before: Kept | None) -> Mapping[str, Json]:
    """An audit of before this was kept has only its own points."""
    if before is None or "best" in before:
        return before["best"] if before else {}
    return {one["item"]: {"points": one["points"], "criteria": one["criteria"]} for one in before["items"] if one["state"] in SEEN}


def down(before: Kept | None, most: Mapping[str, Json], items: Sequence[Mapping[str, Json]]) -> list[str]:
    """The questions that are worse than they were and that nobody has accepted: seen with fewer points than they have earned before.

    One that is not seen now stays as it was, down or not: losing sight of it has not mended it.
    """
    was = (before or {}).get("down", ())
    return [one["item"] for one in items if not one.get("waiver") and one["item"] in most and _down(one, most[one["item"]]["points"], was)]


def _down(one: Mapping[str, Json], most: float, was: Collection[str]) -> bool:
    if one["state"] in SEEN:
        return bool(one["points"] < most)
    return one["state"] != "n/a" and one["item"] in was


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
            held = (now, {service: event.body for service, event in ledger.newest(KIND).items()})
        return held[1]

    return read
