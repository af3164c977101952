"""Every service by its last audit that was kept, the worst first: one reading of the record for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from agent.audit.catalogue import catalogue
from agent.audit.daily import LATE, slot
from agent.config import Config, ServiceConfig
from agent.config.values import Audits
from agent.model import Json, to_json

ORDER = ("NOT-READY", "UNVERIFIED", None, "CONDITIONAL", "READY")  # a known fault before one that may be; never audited is not known either
ARROWS = {"up": "better", "down": "worse", "level": "as it was"}


def fleet(config: Config, kept: Mapping[str, Mapping[str, Json]], now: datetime) -> dict[str, Json]:
    """Each service of the configuration with what its last audit came to; `kept` has those by name."""
    told = [_service(one, kept.get(name), now) for name, one in config.services.items()]
    return {"at": to_json(now), "team": config.team, "services": sorted(told, key=_worst)}


def _worst(one: Mapping[str, Json]) -> tuple[int, str, float, int, str]:
    return ORDER.index(one["verdict"]), one["level"] or "", one["least"]["points"] if one["least"] else 0.0, -(one["blockers"] or 0), one["service"]


def _service(one: ServiceConfig, told: Mapping[str, Json] | None, now: datetime) -> dict[str, Json]:
    about: dict[str, Json] = {"service": one.name, "owner": one.owner, "team": one.team}
    if told is None:
        nothing = dict.fromkeys(("verdict", "level", "final", "least", "blockers", "left", "arrow", "served", "as_of"))
        return {**about, **nothing, "down": [], "late": False, "why": f"no audit of it was kept: watchkeeper audit run {one.name} --keep"}
    section = min(told["sections"], key=lambda name: told["sections"][name])
    return {
        **about,
        **{key: told[key] for key in ("verdict", "level", "final", "blockers", "served", "as_of")},
        "least": {"section": section, "points": told["sections"][section]},
        "left": None if told.get("used") is None else 1 - told["used"],
        "arrow": told.get("arrow"),
        "down": told.get("down", []),
        "late": _late(one.audit, datetime.fromisoformat(told["as_of"]), now),
        "why": _why(told),
    }


def _late(audits: Audits | None, kept_at: datetime, now: datetime) -> bool:
    """Whether the last slot has no audit, though there was time for one."""
    return audits is not None and kept_at < slot(audits, now - LATE)


def _why(told: Mapping[str, Json]) -> str:
    """What is wrong first: a blocker, what is worse than it was first; else what got worse."""
    down = told.get("down", [])
    open_blockers = [one for one in told["items"] if _blocks(one)]
    short = sorted(open_blockers, key=lambda one: (one["state"] != "fail", one["item"] not in down, one["points"], one["item"]))
    first = next(iter(short), None) or next((one for one in told["items"] if one["item"] in down), None)
    return "" if first is None else f"{first['item']} {first['state']}: {first['why']}"


def _blocks(one: Mapping[str, Json]) -> bool:
    item = catalogue().items.get(one["item"])
    return item is not None and item.criticality == "blocker" and one["state"] != "n/a" and one["points"] < 1


def text(told: Mapping[str, Json]) -> str:
    """The fleet for a terminal: a line a service."""
    wide = max((len(one["service"]) for one in told["services"]), default=0)
    return "\n".join(_line(one, wide) for one in told["services"]) or "no service is configured"


def _line(one: Mapping[str, Json], wide: int) -> str:
    name = f"{one['service']:{wide}}  {one['verdict'] or 'not audited':11}"
    if one["verdict"] is None:
        return f"{name}  {one['why']}"
    left = "budget unknown" if one["left"] is None else "budget spent" if one["left"] <= 0 else f"{one['left']:.0%} of budget left"
    facts = (one["level"], f"least {one['least']['section']} {one['least']['points']:g}", f"{one['blockers']} blockers", left)
    since = [ARROWS[one["arrow"]]] if one["arrow"] else []
    late = ["late"] if one["late"] else []
    return f"{name}  {', '.join([*facts, *since, *late])}; owner {one['owner'] or 'nobody'}{'; ' if one['why'] else ''}{one['why']}"
