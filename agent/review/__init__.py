"""The review of an incident, drafted from the record as Markdown: facts are filled in, what only people know stays blank and says so."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from agent.account import after, length
from agent.config import Config
from agent.curve import Mark, Point, draw
from agent.model import Json
from agent.review.facts import MARGIN, Facts, action_items, budget_used, changes, impact, read, times, went_badly, went_well
from agent.review.markdown import bullets, clock, inline, table
from agent.runs import first_effect
from agent.store import Ledger

BLANK = "_Nobody has written this yet._"


@dataclass(frozen=True, slots=True)
class Draft:
    """A review as Markdown, and the pictures it shows, by file name."""

    text: str
    pictures: Mapping[str, bytes] = field(default_factory=dict)


def draft(config: Config, ledger: Ledger, number: int, now: datetime, name: str = "") -> Draft:
    """The review of that incident; pictures are called after `name`, and made if there is one. PlanError when there is no such incident."""
    facts = read(config, ledger, number, now)
    pictures = _drawn(ledger, facts, name) if name else {}
    return Draft("\n".join(_page(config, ledger, facts, pictures, now)) + "\n", pictures)


def _drawn(ledger: Ledger, facts: Facts, name: str) -> dict[str, bytes]:
    made: dict[str, bytes] = {}
    for watch in facts.looks:
        file = f"{name}{plain(watch)}"
        if picture := picture_of(ledger, facts, watch):
            made[f"{file}.svg" if f"{file}.svg" not in made else f"{file}-{len(made)}.svg"] = picture
    return made


def plain(watch: str) -> str:
    """The name of a watch as that of a file."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", watch.split("/", 1)[-1])


# The page


def _page(config: Config, ledger: Ledger, facts: Facts, pictures: Mapping[str, bytes], now: datetime) -> Iterator[str]:
    incident, told = facts.incident, facts.told
    yield f"# Incident {incident.id}: {inline(incident.title)}\n"
    yield f"Drafted from Watchkeeper's record at {now:%Y-%m-%d %H:%M:%S}Z; the incident is **{incident.state}**. Times are UTC.\n"
    yield "## Summary\n"
    yield " ".join(inline(said) for said in told["summary"]) + "\n"
    yield "## Impact\n"
    yield from bullets(map(inline, impact(ledger, facts)))
    yield "Users, money, trust: " + BLANK + "\n"
    yield "## What changed before it\n"
    yield from bullets(map(inline, changes(facts)))
    yield "## Times\n"
    yield from table(("what", "when", "after it opened"), times(facts))
    yield from _pictures(pictures)
    yield "## Timeline\n"
    yield from table(("after", "at", "what happened"), [(after(one["after"]), clock(one["at"]), one["said"]) for one in told["story"]])
    yield "## What the runbooks did\n"
    yield from _runs(facts)
    yield "## What went well\n"
    yield from bullets(map(inline, went_well(config, facts)))
    yield "## What went badly\n"
    yield from bullets(map(inline, went_badly(config, ledger, facts)))
    yield "## Automatic actions\n"
    yield from bullets(map(inline, budget_used(ledger, facts)))
    yield "## Action items\n"
    yield from bullets(f"[ ] {item}" for item in (*action_items(config, ledger, facts, now), BLANK))
    yield f"## Root cause\n\n{BLANK}\n"
    yield f"## What we learned\n\n{BLANK}\n"
    yield f"When people have written what is missing: `watchkeeper incidents review {incident.id} --by NAME` marks it reviewed."


def _pictures(pictures: Mapping[str, bytes]) -> Iterator[str]:
    if pictures:
        yield "## Readings\n"
        for name in pictures:
            yield f"![{name.removesuffix('.svg')}]({name})\n"


def _runs(facts: Facts) -> Iterator[str]:
    if not facts.runs:
        yield "No runbook ran.\n"
    for told in facts.told["runs"]:
        yield f"### Run {told['id']}: {told['runbook']}, {told['state']}\n"
        yield f"Wanted by {inline(told['by'])} in mode {told['mode']}: {inline(told['reason'])}.\n"
        if told["said"]:
            yield f"How it ended: {inline(told['said'])}.\n"
        if told["decision_to_effect"] is not None:
            yield f"From the decision to its first effect: {length(timedelta(seconds=told['decision_to_effect']))}.\n"
        body = [(row["name"], row["state"], _took(row), str(row["tries"]), row["said"]) for row in told["steps"]]
        yield from table(("step", "state", "took", "tries", "what it said"), body)


def _took(row: Mapping[str, Json]) -> str:
    both = row["intended_at"] and row["ended_at"]
    return length(datetime.fromisoformat(row["ended_at"]) - datetime.fromisoformat(row["intended_at"])) if both else "-"


# Pictures


def picture_of(ledger: Ledger, facts: Facts, watch: str) -> bytes:
    """The reading of a watch around the incident, with its limit and what happened; empty when it has no reading."""
    since, until = facts.incident.opened_at - MARGIN, facts.until + MARGIN
    looks = facts.looks[watch]
    points = [
        Point(row["minute_at"], row["total"] / row["readings"], row["low"], row["high"])
        for row in ledger.rollups(watch, since)
        if row["readings"] and row["minute_at"] <= until
    ]
    exact = [Point(one.looked_at, value, value, value) for one in looks if one.reading and (value := one.reading.observed) is not None]
    last = next((one.reading for one in reversed(looks) if one.reading), None)
    shown = exact if len(exact) >= len(points) else points
    return draw(shown, last.limit if last else None, _marked(facts, since), watch, last.unit if last else "").encode()


def _marked(facts: Facts, since: datetime) -> list[Mark]:
    happened = [Mark(facts.incident.opened_at, "the incident opened")]
    for event in facts.told["timeline"]:
        at = datetime.fromisoformat(event["at"])
        if event["kind"] == "change.version" and at >= since:
            happened.append(Mark(at, event["what"]))
    for run in facts.runs:
        row = first_effect(run)
        if row is not None and row.ended_at is not None:
            happened.append(Mark(row.ended_at, f"run {run.id} ({run.runbook}): {row.name} done"))
    if facts.incident.resolved_at:
        happened.append(Mark(facts.incident.resolved_at, "resolved"))
    return sorted(happened, key=lambda mark: mark.at)
