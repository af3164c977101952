"""Whether an audit is good enough for a pipeline to go on: pure functions of its JSON, each with an answer for what is not known."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from agent.audit.catalogue import SECTIONS
from agent.audit.scoring import LEVELS
from agent.model import Json

SEEN = ("pass", "partial", "fail")
GATE = re.compile(r"verdict|blockers|regression|level=R[0-5]|section:(?:DATA|MODEL|DEPL|MON|TEAM)>=(?:10|[0-9])(?:\.[05])?")
WORSE = ("regressed", "absent")  # of what was known before and is known now, or is asked no longer
UNSEEN = ("went-stale",)


def gate(wish: str, told: Sequence[Mapping[str, Json]], ratchet: bool = False) -> int:
    """0: every service meets it. 1: one does not, whatever else may turn up. 3: what is not known decides. No service: 3.

    With `ratchet` a service that does not meet it is held up only by what got worse since the audit it is compared with.
    """
    codes = [_gate(wish, one) and (_regression(one) if ratchet else _gate(wish, one)) for one in told]
    return 1 if 1 in codes else 3 if 3 in codes or not codes else 0


def _gate(wish: str, told: Mapping[str, Json]) -> int:
    name, _, wanted = wish.partition("=")
    match name.partition(":")[0]:
        case "verdict":
            return {"READY": 0, "UNVERIFIED": 3}.get(told["verdict"], 1)
        case "blockers":
            seen = any(one["state"] in SEEN for one in told["blockers"])
            return 1 if seen else 3 if told["blockers"] else 0
        case "regression":
            return _regression(told)
        case "level":
            return _reached(told["level"] >= wanted, _level(min(at_best(told).values())) >= wanted)
    section, points = name.removeprefix("section:").rstrip(">"), float(wanted)
    have = next(one["points"] for one in told["sections"] if one["section"] == section)
    return _reached(have >= points, at_best(told)[section] >= points)


def _reached(now: bool, ever: bool) -> int:
    """`ever`: if all that is not known turned out well."""
    return 0 if now else 3 if ever else 1


def _regression(told: Mapping[str, Json]) -> int:
    """3 without an audit to compare with, and where what was known before is not seen any more."""
    changes = told.get("changes")
    if not changes:
        return 3
    states = {one["state"] for one in changes["items"]}
    return 1 if states.intersection(WORSE) else 3 if states.intersection(UNSEEN) else 0


def at_best(told: Mapping[str, Json]) -> dict[str, float]:
    """The sections if everything that is not known turned out well."""
    sections = {one["section"]: one["points"] for one in told["sections"]}
    for one in told["items"]:
        sections[one["item"].partition("-")[0]] += 0.0 if one["state"] in (*SEEN, "n/a") else 1.0 - one["points"]
    return {name: sections[name] for name in SECTIONS}


def _level(points: float) -> str:
    return next(name for most, name in LEVELS if points <= most)
