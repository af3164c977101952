"""What the record says about an incident, and no more than that: impact, times, what went well and badly, what asks to be done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from agent import plugins
from agent.account import account, after, length
from agent.changes import sources
from agent.config import Config, ServiceConfig
from agent.drills import HOLDS
from agent.model import Finding, Incident, Json, Run, Status, spell
from agent.preview import together
from agent.review.markdown import clock, inline
from agent.standing import last_good
from agent.store import Ledger

MOST = 5000  # findings of a watch that are read
MARGIN = timedelta(minutes=15)  # before and after it, of which looks are read too
EVERYTHING = "*"  # the service of an incident that belongs to no single one
BAD = (Status.FAIL, Status.WARN)
BLIND = (Status.ERROR, Status.NODATA)


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


def read(config: Config, ledger: Ledger, number: int, now: datetime) -> Facts:
    """Everything about that incident. PlanError when there is no such incident."""
    told = account(ledger, number, now)
    incident = ledger.incident(number)
    assert incident is not None
    until = incident.resolved_at or now
    watches = [member.watch for member in incident.members]
    looks = {watch: _looks(ledger, watch, incident.opened_at - MARGIN, until + MARGIN) for watch in watches}
    counted = {watch: _counted(ledger, watch, incident.opened_at, until) for watch in watches}
    return Facts(told, incident, ledger.runs(incident=number)[::-1], config.services.get(incident.service), looks, counted, until)


def _looks(ledger: Ledger, watch: str, since: datetime, until: datetime) -> list[Finding]:
    return ledger.findings(watch=watch, since=since, until=until, limit=MOST)[::-1]


def _counted(ledger: Ledger, watch: str, since: datetime, until: datetime) -> tuple[int, int]:
    """Looks and good looks by the minute, from the one in which it opened to the one in which it ended."""
    minutes = [row for row in ledger.rollups(watch, since.replace(second=0, microsecond=0)) if row["minute_at"] <= until]
    return sum(row["looks"] for row in minutes), sum(row["good"] for row in minutes)


def impact(ledger: Ledger, facts: Facts) -> Iterator[str]:
    """How long it lasted, which version had the traffic, how many looks were bad."""
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


def changes(facts: Facts) -> Iterator[str]:
    """What was seen to change in the day before, nearest first."""
    opened = facts.told["incident"]["opened_at"]
    kinds = [one for one in facts.told["timeline"] if one["kind"].startswith("change.") and one["kind"] != "change.first"]
    before = [one for one in kinds if one["at"] <= opened]
    for one in reversed(before):
        earlier = facts.incident.opened_at - datetime.fromisoformat(one["at"])
        yield f"{one['what']}, {length(earlier)} before it opened"
    if not before:
        watched = ", ".join(sources(facts.service)) if facts.service else "nothing that is configured now"
        yield f"no observed change in the day before (watched for changes: {watched})"


def times(facts: Facts) -> list[tuple[str, str, str]]:
    """What mattered, when, and how long after the incident opened; the change before it gives how long detection took."""
    known = (
        ("changed_at", "the version served last changed"),
        ("opened_at", "detected"),
        ("acknowledged_at", "acknowledged"),
        ("mitigated_at", "mitigated"),
        ("resolved_at", "resolved"),
    )
    told, opened = facts.told["moments"], facts.incident.opened_at
    rows = [(what, clock(told[name]), after((datetime.fromisoformat(told[name]) - opened).total_seconds())) for name, what in known if told[name]]
    if told["changed_at"]:
        rows.append(("from that change to detection", "", length(opened - datetime.fromisoformat(told["changed_at"]))))
    return rows + [(what, "", "not in the record") for name, what in known if not told[name]]


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
        if run.state == "stopped" and not run.wrote:
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
            yield f"no drill of {run.runbook} had succeeded in the {HOLDS.days} days before"
    for watch, looks in facts.looks.items():
        unseen = [one for one in looks if one.status in BLIND and incident.opened_at <= one.looked_at <= facts.until]
        if unseen:
            yield f"{watch} could not see {len(unseen)} time{'' if len(unseen) == 1 else 's'}, last: {unseen[-1].headline}"


def _drilled(ledger: Ledger, run: Run) -> bool:
    drill = ledger.last_drill(run.service, run.runbook)
    return drill is not None and drill.ended_at is not None and run.wanted_at - drill.ended_at <= HOLDS


def budget_used(ledger: Ledger, facts: Facts) -> Iterator[str]:
    """How many of the automatic actions that the service allows were used before its end."""
    if facts.service is None:
        storm = facts.incident.service == EVERYTHING
        yield "it belongs to no single service; nothing acts by itself in a storm" if storm else "its service is not configured any more"
        return
    budget = facts.service.budget
    since = facts.until - budget.per
    runs = ledger.runs(service=facts.service.name, since=since)
    used = [run for run in runs if run.by == "watchkeeper" and run.wrote and run.wanted_at <= facts.until]
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
        yield f"give {inline(who)} a channel under `notify.channels`: nothing reaches them"
    served = ledger.served_now(name)
    if last_good(ledger, name, served.version if served else None) is None:
        yield f"have a version to go back to: let one serve well for its soak ({spell(service.soak)}), or `watchkeeper good {name} VERSION --by NAME`"
    for book in sorted({run.runbook for run in facts.runs}):
        drill = ledger.last_drill(name, book)
        if drill is None or drill.ended_at is None or now - drill.ended_at > HOLDS:
            yield f"drill it: `watchkeeper drill {book} {name} --by NAME` (none succeeded in {HOLDS.days} days)"
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
            yield f"let {watch.key} see: {inline(signal.reason)}"
    checks = plugins.listing("check")
    covered = {str(checks[watch.check].promises.get("pillar", "")) for watch in service.watches}
    blank = {str(check.promises.get("pillar", "")) for check in checks.values()} - covered - {""}
    if blank:
        yield f"watch {together(sorted(blank))}, or say why not: no check of {'it' if len(blank) == 1 else 'them'} is configured"
