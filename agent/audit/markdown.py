"""The audit as Markdown, short enough for a comment: the headline, blockers, what got worse, and what to do first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from agent.audit.trend import lines
from agent.model import Json

FIRST = 5
MOST = 30  # rows of one list
SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#!~&@])")


def markdown(report: Mapping[str, Json]) -> str:
    """One section a service. What others wrote is text in it, and neither markup nor a mention of anybody."""
    proved = "the chain of evidence holds" if report["evidence"]["verified"] else "**the chain of evidence does not hold**"
    parts = [line for one in report["services"] for line in _service(one)]
    return "\n".join([*parts, f"As of {report['as_of']}; {proved}. Evidence, not certification.", ""])


def _service(one: Mapping[str, Json]) -> Iterator[str]:
    told = one["readiness"]
    yield f"## {text(one['service'])}: {told['verdict']}\n"
    yield f"**{text(told['headline'])}**\n\n{text(told['why'])}.\n"
    sections = [f"{part['section']} {part['points']:g}{' (least)' if part['least'] else ''}" for part in told["sections"]]
    yield f"{', '.join(sections)}\n"
    yield from _listed("Blockers open", [f"**{part['item']}** {part['state']}: {text(part['why'])}" for part in told["blockers"]])
    yield from _worse(told["changes"])
    yield from _listed("How it has been", [text(line) for line in lines(told["trend"])])
    yield from _listed("Do first", [_fix(part) for part in told["plan"][:FIRST]], number=True)
    if told["steps"]:
        yield f"{'; '.join(steps(told))}.\n"


def _worse(changes: Json) -> Iterator[str]:
    if changes is not None:
        bad = [part for part in changes["items"] if part["state"] in ("regressed", "went-stale", "absent")]
        yield from _listed(f"Worse since {changes['since']}", [f"**{part['item']}** {part['state']}: {text(part['why'])}" for part in bad])


def _listed(head: str, lines: list[str], number: bool = False) -> Iterator[str]:
    if lines:
        more = [f"and {len(lines) - MOST} more"] if len(lines) > MOST else []
        yield f"### {head}\n"
        yield "\n".join(f"{f'{n}.' if number else '-'} {line}" for n, line in enumerate([*lines[:MOST], *more], 1)) + "\n"


def _fix(one: Mapping[str, Json]) -> str:
    return f"**{one['item']}** {text(one['question'])} {text(one['earn'])} (+{one['gain']:g}, score then {one['final']:g})"


def steps(told: Mapping[str, Json]) -> list[str]:
    """How many of the plan lift the score, and to what, such as "the first 4 lift the score to 0.5"."""
    return [f"the first {n} lift the score to {final:g}" for n, final in ((one["do"], one["final"]) for one in told["steps"])]


def text(value: str) -> str:
    """Text on one line, with nothing in it that Markdown would take as its own."""
    return SPECIAL.sub(r"\\\1", " ".join(str(value).split()))
