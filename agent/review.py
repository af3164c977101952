"""The review of an incident, drafted from the record as Markdown: facts are filled in, what only people know stays blank and says so."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from agent import plugins
from agent.account import account, after, length
from agent.changes import sources
from agent.config import Config, ServiceConfig
from agent.curve import Mark, Point, draw
from agent.model import Finding, Incident, Json, Run, Status, spell
from agent.permit import DRILL_HOLDS
from agent.preview import together
from agent.runs import first_effect
from agent.standing import last_good
from agent.store import Ledger

MOST = 5000  # findings of a watch that are read
MARGIN = timedelta(minutes=15)  # of a picture, before and after
EVERYTHING = "*"  # the service of an incident that belongs to no single one
BLANK = "_Nobody has written this yet._"
BAD = (Status.FAIL, Status.WARN)
BLIND = (Status.ERROR, Status.NODATA)


@dataclass(frozen=True, slots=True)
class Draft:
    """A review as Markdown, and the pictures it shows, by file name."""

    text: str
    pictures: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the record says about an incident, read once."""

    told: Json
    incident: Incident
    runs: Sequence[Run]
    service: ServiceConfig | None
    looks: Mapping[str, Sequence[Finding]]  # by watch, oldest first
    counted: Mapping[str, tuple[int, int]]  # by watch: looks, and how many were good
    until: datetime


def draft(config: Config, ledger: Ledger, number: int, now: datetime, name: str = "") -> Draft:
    """The review of that incident; pictures are called after `name`. PlanError when there is no such incident."""
    told = account(ledger, number, now)
    incident = ledger.incident(number)
    assert incident is not None
    until = incident.resolved_at or now
    runs = [run for one in told["runs"] if (run := ledger.run(one["id"])) is not None]
    watches = [member.watch for member in incident.members]
    looks = {watch: _looks(ledger, watch, incident.opened_at - MARGIN, until + MARGIN) for watch in watches}
    counted = {watch: _counted(ledger, watch, incident.opened_at, until) for watch in watches}
    facts = Facts(told, incident, runs, config.services.get(incident.service), looks, counted, until)
    pictures = {f"{name}{_plain(watch)}.svg": picture for watch in watches if (picture := picture_of(ledger, facts, watch))} if name else {}
    return Draft("\n".join(_page(config, ledger, facts, pictures, now)) + "\n", pictures)


def _looks(ledger: Ledger, watch: str, since: datetime, until: datetime) -> list[Finding]:
    return ledger.findings(watch=watch, since=since, until=until, limit=MOST)[::-1]


def _counted(ledger: Ledger, watch: str, since: datetime, until: datetime) -> tuple[int, int]:
    """Looks and good looks by the minute, from the one in which it opened to the one in which it ended."""
    minutes = [row for row in ledger.rollups(watch, since.replace(second=0, microsecond=0)) if row["minute_at"] <= until]
    return sum(row["looks"] for row in minutes), sum(row["good"] for row in minutes)


def _plain(watch: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", watch.split("/", 1)[-1])


# The page


def _page(config: Config, ledger: Ledger, facts: Facts, pictures: Mapping[str, bytes], now: datetime) -> Iterator[str]:
    incident, told = facts.incident, facts.told
    yield f"# Incident {incident.id}: {_inline(incident.title)}\n"
    yield f"Drafted from Watchkeeper's record at {now:%Y-%m-%d %H:%M:%S}Z; the incident is **{incident.state}**. Times are UTC.\n"
    yield "## Summary\n"
    yield " ".join(_inline(said) for said in told["summary"]) + "\n"
    yield "## Impact\n"
    yield from _bullets(map(_inline, _impact(ledger, facts)))
    yield "Users, money, trust: " + BLANK + "\n"
    yield "## What changed before it\n"
    yield from _bullets(map(_inline, _changes(facts)))
    yield "## Times\n"
    yield from _table(("what", "when", "after it opened"), _times(facts))
    yield from _pictures(pictures)
    yield "## Timeline\n"
    yield from _table(("after", "at", "what happened"), [(after(one["after"]), _clock(one["at"]), one["said"]) for one in told["story"]])
    yield "## What the runbooks did\n"
    yield from _runs(facts)
    yield "## What went well\n"
    yield from _bullets(map(_inline, went_well(config, facts)))
    yield "## What went badly\n"
    yield from _bullets(map(_inline, went_badly(config, ledger, facts)))
    yield "## Automatic actions\n"
    yield from _bullets(map(_inline, _budget(ledger, facts)))
    yield "## Action items\n"
    yield from _bullets(f"[ ] {item}" for item in (*action_items(config, ledger, facts, now), BLANK))
    yield f"## Root cause\n\n{BLANK}\n"
    yield f"## What we learned\n\n{BLANK}\n"
    yield f"When people have written what is missing: `watchkeeper incidents review {incident.id} --by NAME` marks it reviewed."


def _impact(ledger: Ledger, facts: Facts) -> Iterator[str]:
    lasted = length(facts.until - facts.incident.opened_at)
    yield f"it {'lasted' if facts.incident.resolved_at else 'has lasted'} {lasted}"
    served = ledger.served_at(facts.incident.service, facts.incident.opened_at)
    if served is not None:
        lasted = length((served.until_at or facts.until) - served.since_at)
        yield f"version {served.version} was served when it opened, and had the traffic for {lasted}"
    for watch, (looks, good) in facts.counted.items():
        yield f"{watch}: {looks - good} of {looks} looks were not good" if looks else f"{watch}: no look is counted any more"
        rested = [one.reading.n for one in facts.looks[watch] if one.status in BAD and one.reading and one.reading.n is not None]
        if rested:
            yield f"the last bad look of {watch} rests on {rested[-1]} rows or requests"
    yield "how many requests of users were answered badly is not in the record"


def _changes(facts: Facts) -> Iterator[str]:
    opened = facts.told["incident"]["opened_at"]
    kinds = [one for one in facts.told["timeline"] if one["kind"].startswith("change.") and one["kind"] != "change.first"]
    before = [one for one in kinds if one["at"] <= opened]
    for one in reversed(before):
        earlier = facts.incident.opened_at - datetime.fromisoformat(one["at"])
        yield f"{one['what']}, {length(earlier)} before it opened"
    if not before:
        watched = ", ".join(sources(facts.service)) if facts.service else "nothing that is configured now"
        yield f"no observed change in the day before (watched for changes: {watched})"


def _times(facts: Facts) -> list[tuple[str, str, str]]:
    """What mattered, when, and how long after the incident opened; the change before it gives how long detection took."""
    known = (
        ("changed_at", "the version served last changed"),
        ("opened_at", "detected"),
        ("acknowledged_at", "acknowledged"),
        ("mitigated_at", "mitigated"),
        ("resolved_at", "resolved"),
    )
    told, opened = facts.told["moments"], facts.incident.opened_at
    rows = [(what, _clock(told[name]), after((datetime.fromisoformat(told[name]) - opened).total_seconds())) for name, what in known if told[name]]
    if told["changed_at"]:
        rows.append(("from that change to detection", "", length(opened - datetime.fromisoformat(told["changed_at"]))))
    return rows + [(what, "", "not in the record") for name, what in known if not told[name]]


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
        yield f"Wanted by {_inline(told['by'])} in mode {told['mode']}: {_inline(told['reason'])}.\n"
        if told["said"]:
            yield f"How it ended: {_inline(told['said'])}.\n"
        if told["decision_to_effect"] is not None:
            yield f"From the decision to its first effect: {length(timedelta(seconds=told['decision_to_effect']))}.\n"
        body = [(row["name"], row["state"], _took(row), str(row["tries"]), row["said"]) for row in told["steps"]]
        yield from _table(("step", "state", "took", "tries", "what it said"), body)


def _took(row: Mapping[str, Json]) -> str:
    both = row["intended_at"] and row["ended_at"]
    return length(datetime.fromisoformat(row["ended_at"]) - datetime.fromisoformat(row["intended_at"])) if both else "-"


# Facts, and no more


def went_well(config: Config, facts: Facts) -> Iterator[str]:
    """What the record shows to have gone as it should."""
    incident, told = facts.incident, facts.told["moments"]
    if told["changed_at"] and any("it began at a version change" in run.reason for run in facts.runs):
        yield f"it was seen {length(incident.opened_at - datetime.fromisoformat(told['changed_at']))} after the version served changed"
    if incident.acknowledged_at and incident.acknowledged_at - incident.opened_at <= config.notify.ack_within:
        yield f"{incident.acknowledged_by} acknowledged it within {spell(config.notify.ack_within)}"
    for run in (run for run in facts.runs if not run.drill):
        if run.state == "succeeded":
            yield f"run {run.id} ({run.runbook}) succeeded"
        if run.state == "stopped" and not run.acted:
            yield f"run {run.id} ({run.runbook}) changed nothing when it saw that it would not help: {run.said}"


def went_badly(config: Config, ledger: Ledger, facts: Facts) -> Iterator[str]:
    """What the record shows to have gone otherwise."""
    incident, kinds = facts.incident, Counter(event["kind"] for event in facts.told["timeline"])
    acknowledged = incident.acknowledged_at
    if (acknowledged or facts.until) - incident.opened_at > config.notify.ack_within:
        yield f"nobody acknowledged it within {spell(config.notify.ack_within)}"
    for one in facts.told["letters"]:
        if one["state"] != "sent":
            yield f"the letter {one['key']} to {one['channel']} was not delivered ({one['state']}{', ' + one['error'] if one['error'] else ''})"
    if kinds["told.silenced"]:
        yield "a silence kept people from being told"
    if kinds["incident.relapsed"]:
        yield f"it came back {kinds['incident.relapsed']} time{'' if kinds['incident.relapsed'] == 1 else 's'} after it was mitigated"
    for run in facts.runs:
        if run.state in ("stuck", "compensated", "refused", "expired", "cancelled", "superseded"):
            yield f"run {run.id} ({run.runbook}) did not end well ({run.state}): {run.said}"
        if not run.drill and not _drilled(ledger, run):
            yield f"no drill of {run.runbook} had succeeded in the {DRILL_HOLDS.days} days before"
    for watch, looks in facts.looks.items():
        unseen = [one for one in looks if one.status in BLIND and incident.opened_at <= one.looked_at <= facts.until]
        if unseen:
            yield f"{watch} could not see {len(unseen)} time{'' if len(unseen) == 1 else 's'}, last: {unseen[-1].headline}"


def _drilled(ledger: Ledger, run: Run) -> bool:
    drill = ledger.last_drill(run.service, run.runbook)
    return drill is not None and drill.ended_at is not None and run.wanted_at - drill.ended_at <= DRILL_HOLDS


def _budget(ledger: Ledger, facts: Facts) -> Iterator[str]:
    if facts.service is None:
        storm = facts.incident.service == EVERYTHING
        yield "it belongs to no single service; nothing acts by itself in a storm" if storm else "its service is not configured any more"
        return
    budget = facts.service.budget
    since = facts.until - budget.per
    runs = ledger.runs(service=facts.service.name, since=since)
    used = [run for run in runs if run.by == "watchkeeper" and run.acted and run.wanted_at <= facts.until]
    named = f" (run {', '.join(str(run.id) for run in reversed(used))})" if used else ""
    yield f"{len(used)} of {budget.actions} automatic actions in the {spell(budget.per)} before its end{named}"


def action_items(config: Config, ledger: Ledger, facts: Facts, now: datetime) -> Iterator[str]:
    """What facts ask for, each once; how things stand now, not then."""
    service = facts.service
    if service is None:
        return
    name, party = service.name, config.party(service.name)
    if not service.owner:
        yield f"name an owner: `services.{name}.owner`"
    if not service.escalation:
        yield f"name who comes next when the owner does not answer: `services.{name}.escalation`"
    for who in party.missing:
        yield f"give {_inline(who)} a channel under `notify.channels`: nothing reaches them"
    served = ledger.served_now(name)
    if last_good(ledger, name, served.version if served else None) is None:
        yield f"have a version to go back to: let one serve well for its soak ({spell(service.soak)}), or `watchkeeper good {name} VERSION --by NAME`"
    for book in sorted({run.runbook for run in facts.runs}):
        drill = ledger.last_drill(name, book)
        if drill is None or drill.ended_at is None or now - drill.ended_at > DRILL_HOLDS:
            yield f"drill it: `watchkeeper drill {book} {name} --by NAME` (none succeeded in {DRILL_HOLDS.days} days)"
        if any(run.runbook == book and run.mode == "observe" and run.state == "refused" for run in facts.runs):
            yield f"decide whether {book} may do more than observe: `watchkeeper ladder {name}` has its record"
    if any(event["kind"] == "incident.suggestion" for event in facts.told["timeline"]) and not facts.runs:
        yield "write down what is to be done about it: no runbook answers its cause"
    yield from _blind_spots(ledger, service)
    for channel in dict.fromkeys(one["channel"] for one in facts.told["letters"] if one["state"] != "sent"):
        yield f"see why letters do not arrive: `watchkeeper notify test {channel}`"


def _blind_spots(ledger: Ledger, service: ServiceConfig) -> Iterator[str]:
    """Watches that see nothing now, such as for want of golden rows, and parts of the model's life that nothing looks after."""
    for watch in service.watches:
        signal = ledger.signal(watch.key)
        if signal is None:
            yield f"look at {watch.key}: it has never been looked at"
        elif signal.status in BLIND:
            yield f"let {watch.key} see: {_inline(signal.reason)}"
    checks = plugins.listing("check")
    covered = {str(checks[watch.check].promises.get("pillar", "")) for watch in service.watches}
    blank = {str(check.promises.get("pillar", "")) for check in checks.values()} - covered - {""}
    if blank:
        yield f"watch {together(sorted(blank))}, or say why not: no check of {'it' if len(blank) == 1 else 'them'} is configured"


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


# Markdown


def _clock(at: str | None) -> str:
    return f"{datetime.fromisoformat(at):%Y-%m-%d %H:%M:%S}Z" if at else "-"


def _inline(text: object) -> str:
    """Text from elsewhere as a stretch of Markdown: one line, with what would be read as markup taken literally."""
    one = " ".join("".join(c if c.isprintable() or c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in str(text)).split())
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", one)


def _bullets(lines: Iterable[str], none: str = "nothing in the record") -> Iterator[str]:
    found = list(lines)
    yield "\n".join(f"- {line}" for line in found or [none]) + "\n"


def _table(columns: Sequence[str], body: Sequence[Sequence[str]]) -> Iterator[str]:
    head = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    yield "\n".join([*head, *(f"| {' | '.join(_inline(cell) for cell in row)} |" for row in body)]) + "\n"
