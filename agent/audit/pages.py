"""The audit as one page for people: it needs no network, no script and no other file, and reads the same on paper and in the dark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from math import cos, pi, sin
from typing import Any

from agent.audit.canonical import digest, fixed
from agent.audit.gates import SEEN
from agent.audit.markdown import steps
from agent.audit.trend import lines
from agent.model import Json

CLUMPS = ("failed", "partial", "unknown or stale", "attested", "passed", "does not apply")
SOON = 20  # rows of the calendar
MOST = 20  # incidents, runs, and lines of a timeline: a page is for people, and the JSON has all


def page(report: Mapping[str, Json]) -> str:
    """The report as one self-contained HTML page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    house = Environment(loader=PackageLoader("agent", "audit"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    house.filters |= {"at": _at, "day": lambda text: _at(text)[:10], "n": lambda value: f"{value:g}", "code": _code}
    more = {
        "clumps": clumps,
        "calendar": calendar,
        "crosswalk": crosswalk,
        "lifts": steps,
        "dial": dial,
        "accepted": accepted,
        "trend": lines,
        "MOST": MOST,
    }
    return house.get_template("page.html").render({**fixed(report), **more, "digest": digest(report)})


def _code(text: str) -> Any:
    """Words between backticks as code, and everything escaped."""
    from markupsafe import Markup, escape

    parts = text.split("`")
    if not len(parts) % 2:  # one of them stands alone, and so means itself
        return escape(text)
    return Markup().join(Markup("<code>{}</code>").format(part) if place % 2 else escape(part) for place, part in enumerate(parts))


def _at(text: str | None) -> str:
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S}Z" if text else "-"


def clumps(told: Mapping[str, Json], section: str) -> Iterator[tuple[str, Sequence[Json]]]:
    """The questions of a section by how they stand, what is worst first; empty clumps are left out."""
    items = [one for one in told["items"] if one["item"].startswith(f"{section}-")]
    for name in CLUMPS:
        if found := [one for one in items if clump(one) == name]:
            yield name, found


def clump(one: Mapping[str, Json]) -> str:
    """How a question stands, as people look for it."""
    if one["state"] == "n/a":
        return "does not apply"
    if one["state"] not in SEEN:
        return "unknown or stale"
    if one["state"] == "pass" and one["answer"] and one["answer"]["attested"]:
        return "attested"
    return {"fail": "failed", "partial": "partial"}.get(one["state"], "passed")


def calendar(told: Mapping[str, Json], as_of: str) -> list[Json]:
    """What runs out next, the soonest first."""
    ahead = [one for one in told["items"] if one["until_at"] and one["state"] in SEEN and one["until_at"] >= as_of]
    return sorted(ahead, key=lambda one: (one["until_at"], one["item"]))[:SOON]


def crosswalk(told: Mapping[str, Json]) -> list[tuple[str, list[Json]]]:
    """What each clause has for evidence: (its name, its questions). The evidence supports it, and never proves it."""
    found: dict[str, list[Json]] = {}
    for key, name in (("ai_act", "EU AI Act, Article {}"), ("nist", "NIST AI RMF, {}")):
        named = {clause for one in told["items"] for clause in one["maps"][key]}
        for clause in sorted(named, key=_natural):
            found[name.format(clause)] = [one for one in told["items"] if clause in one["maps"][key]]
    return list(found.items())


def _natural(clause: str) -> tuple[str, list[int]]:
    """So that 2.10 comes after 2.6."""
    words, _, numbers = clause.rpartition(" ")
    return words, [int(part) for part in numbers.split(".") if part.isdigit()]


def accepted(told: Mapping[str, Json]) -> list[Json]:
    """The questions that somebody attested or that are waived."""
    return [one for one in told["items"] if one["attestation"] or one["waiver"]]


def dial(points: float, size: float = 36.0) -> str:
    """The path of an arc that fills as much of a circle as `points` are of ten."""
    share = min(max(points / 10, 0.0), 0.9999)
    x, y = size + size * sin(2 * pi * share), size - size * cos(2 * pi * share)
    return f"M{size:g} 0A{size:g} {size:g} 0 {int(share > 0.5)} 1 {x:.2f} {y:.2f}"
