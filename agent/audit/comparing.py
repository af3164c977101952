"""What changed between two audits, question by question; what cannot be compared is said to be so, and not counted as better or worse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from agent.audit.gates import SEEN
from agent.audit.readiness import rescored
from agent.model import Json

ORDER = ("regressed", "went-stale", "absent", "criteria-changed", "new", "improved", "unchanged")  # what wants to be read first
TOLD = {
    "regressed": "worse, and seen",
    "went-stale": "not seen any more",
    "absent": "asked no longer",
    "criteria-changed": "held to something else now",
    "new": "known for the first time",
    "improved": "better",
    "unchanged": "as it was",
}


def compared(report: Mapping[str, Json], before: Mapping[str, Json]) -> dict[str, Json]:
    """The report with what changed in each service since an earlier one; `changes` stays null where that one did not have the service."""
    old = {one["service"]: one["readiness"] for one in before["services"]}
    services = []
    for one in report["services"]:
        was = old.get(one["service"])
        ready = one["readiness"] if was is None else _with(one, was, before, report["as_of"])
        services.append({**one, "readiness": ready})
    return {**report, "services": services}


def _with(service: Mapping[str, Json], was: Mapping[str, Json], before: Mapping[str, Json], as_of: str) -> dict[str, Json]:
    now = service["readiness"]
    found = changes(was, now, service["service"], before["as_of"], as_of)
    by = {one["item"]: one for one in found["items"]}
    return {**now, "changes": found, "items": [{**one, "delta": _delta(by[one["item"]])} for one in now["items"]]}


def _delta(change: Mapping[str, Json]) -> dict[str, Json]:
    return {key: change[key] for key in ("state", "since", "before")}


def changes(was: Mapping[str, Json], now: Mapping[str, Json], service: str, was_at: str, as_of: str) -> dict[str, Json]:
    """From one result of a service to the next: every question, the worst first, and the score by like for like.

    Where criteria changed, the old evidence is scored again by the new ones, so that the line is not one between two scales.
    """
    old, new = ({one["item"]: one for one in told["items"]} for told in (was, now))
    items = [_change(name, old.get(name), new.get(name), was_at, as_of) for name in dict.fromkeys([*new, *old])]
    again = any(one["state"] == "criteria-changed" for one in items) and "attached" in was  # what is kept small has no evidence to be scored again
    like = rescored(was, service, datetime.fromisoformat(was_at)) if again else was
    return {
        "since": was_at,
        "final": {"before": was["final"], "like_for_like": like["final"], "now": now["final"]},
        "level": {"before": was["level"], "now": now["level"]},
        "verdict": {"before": was["verdict"], "now": now["verdict"]},
        "served": {"before": was["served"], "now": now["served"]},
        "counts": {state: n for state in ORDER if (n := sum(one["state"] == state for one in items))},
        "items": sorted(items, key=lambda one: (ORDER.index(one["state"]), one["item"])),
    }


def _change(name: str, old: Json, new: Json, was_at: str, as_of: str) -> dict[str, Json]:
    state = _state(old, new)
    before = None if old is None else {"state": old["state"], "points": old["points"]}
    after = None if new is None else {"state": new["state"], "points": new["points"]}
    held = (old or {}).get("delta") or {}
    since = (held.get("since") or was_at) if state == "unchanged" else as_of
    why = (new or old or {}).get("why", "")
    return {"item": name, "state": state, "before": before, "now": after, "since": since, "why": why}


def _state(old: Json, new: Json) -> str:
    if old is None:
        return "new"
    if new is None:
        return "absent"
    if old["criteria"] != new["criteria"]:
        return "criteria-changed"
    if old["state"] in SEEN and new["state"] not in SEEN:
        return "went-stale"
    if new["points"] != old["points"]:
        return "improved" if new["points"] > old["points"] else "regressed"
    return "new" if old["state"] not in SEEN and new["state"] in SEEN else "unchanged"


def difference(report: Mapping[str, Json]) -> str:
    """What changed, for a terminal."""
    return "\n".join(line for one in report["services"] for line in _lines(one["service"], one["readiness"]["changes"])) + "\n"


def _lines(service: str, found: Json) -> Sequence[str]:
    if found is None:
        return [f"{service}: not in the earlier audit, so there is nothing to compare it with"]
    final, level = found["final"], found["level"]
    like = "" if final["like_for_like"] == final["before"] else f" ({final['like_for_like']:g} by the questions of today)"
    counts = ", ".join(f"{n} {state}" for state, n in found["counts"].items())
    head = f"{service}: {final['before']:g}{like} to {final['now']:g}, {level['before']} to {level['now']}; {counts}; since {found['since']}"
    shown = [one for one in found["items"] if one["state"] != "unchanged"]
    return [head, *(f"  {one['item']:9} {one['state']:16} {_went(one)}  {one['why']}" for one in shown)]


def _went(one: Mapping[str, Json]) -> str:
    before, now = ("-" if side is None else f"{side['state']} {side['points']:g}" for side in (one["before"], one["now"]))
    return f"{before} to {now}"
