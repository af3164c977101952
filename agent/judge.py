"""What one more finding means, inside its transaction: incidents, letters, a wanted run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from agent import incidents
from agent.changes import changes_before, sources
from agent.model import Finding, Incident, Member, Signal, Status, spell
from agent.store import Ledger
from agent.world import Watched, World, mode_of, runbook_for

TOGETHER = timedelta(seconds=2)  # how long a page waits for what belongs to it
Severity: TypeAlias = Literal["page", "ticket"]
State: TypeAlias = Literal["open", "acknowledged"]
LOAD = "load"  # the cause of a fail that a load test may have brought
ALL = "*"  # the service name of an incident that belongs to no single one


def judge(world: World, ledger: Ledger, w: Watched, before: Signal | None, signal: Signal, finding: Finding, loaded: bool = False) -> None:
    """Open, join, clear or resolve the service's incident, tell who should know, and want a run where a fail points at one.

    A fail that came while load was made (`loaded`) wants none, for it may be our own doing; the next one without does.
    """
    if signal.state == "ok" and (before is None or before.state in ("ok", "new")):
        return
    opened = [*ledger.open_incidents(w.service.name), *ledger.open_incidents(ALL)]
    within = next((incident for incident in opened if incidents.joined(incident, w.key)), None)
    if signal.state == "ok":
        for incident in opened:
            if incidents.joined(incident, w.key):
                clear(world, ledger, incident, w.key, finding.looked_at, "is ok again")
    elif signal.state in ("bad", "blind") and finding.status in (Status.FAIL, Status.ERROR):
        severity: Severity = "page" if finding.status is Status.FAIL and w.severity == "page" else "ticket"
        member = incidents.joined(within, w.key) if within else None
        ticket = within if within is not None and (within.severity, severity) == ("ticket", "page") else None
        failed = finding.status is Status.FAIL
        unsure = ("blind",) if loaded else ("blind", LOAD)
        if within is None or member is None or ticket is not None or (failed and member.cause in unsure):
            worsen(world, ledger, w, ticket, severity, before, finding, loaded)
        elif failed and within.service != ALL and not loaded:
            linger(world, ledger, w, within, before, signal, finding)


def worsen(
    world: World, ledger: Ledger, w: Watched, ticket: Incident | None, severity: Severity, before: Signal | None, finding: Finding, loaded: bool
) -> None:
    """A watch has turned bad, or worse than the `ticket` it is in: it joins an incident or opens one, unless what it needs is bad itself.

    What can wait joins whatever is open; what pages never disappears in a ticket that has been open for weeks.
    """
    now = finding.looked_at
    failed = finding.status is Status.FAIL
    parent = incidents.suppressed_by(w.watch.needed, {name: s for name in w.watch.needed if (s := ledger.signal(name)) is not None}, failed)
    if parent is not None:
        if before is None or before.status is not finding.status:
            ledger.record(now, "suppressed", f"{w.key} {finding.status}; suppressed: it needs {parent}", service=w.service.name)
        return
    cause = "blind" if not failed else LOAD if loaded else w.cause
    member = Member(w.key, finding.check, now, finding.headline, cause)
    stormy = _storm(world, ledger, w, member, severity, now)
    if ticket is not None:
        clear(world, ledger, ticket, w.key, now, "now pages")
    if stormy:
        return
    incident = next((i for i in ledger.open_incidents(w.service.name) if severity == "ticket" or i.severity == "page"), None)
    opened = incident is None
    incident = _open(ledger, w, member, severity, now) if incident is None else _join(ledger, incident, member, now)
    announce(world, ledger, w, incident, member, opened, now)
    if failed and loaded:
        said = f"no run is wanted for {w.key}: a load test ran meanwhile, and may be why it fails"
        ledger.record(now, "incident.suggestion", said, service=w.service.name, incident=incident.id)
    elif failed:
        want(world, ledger, w, incident, before, finding)


def linger(world: World, ledger: Ledger, w: Watched, incident: Incident, before: Signal | None, signal: Signal, finding: Finding) -> None:
    """A watch in an incident fails still, or again: what was mitigated did not hold, or what a runbook was wanted for is not what is served now."""
    began = finding.looked_at - timedelta(seconds=finding.seconds)
    if incident.state == "mitigated":
        if (began if w.rules.exact else finding.start_at) > incident.changed_at:
            state: State = "acknowledged" if incident.acknowledged_at else "open"
            ledger.save_incident(replace(incident, state=state, changed_at=finding.looked_at))
            said = f"{w.key} fails again: {finding.headline}"
            ledger.record(finding.looked_at, "incident.relapsed", said, service=w.service.name, incident=incident.id)
            want(world, ledger, w, incident, before, finding)
        return
    last = next((run for run in ledger.runs(service=w.service.name) if run.incident == incident.id), None)
    if last is None or last.active:
        return
    was = ledger.served_at(w.service.name, last.wanted_at)
    released = was is not None and finding.version not in (None, was.version)
    if released or (last.state == "expired" and last.mode == "auto" and not signal.flapping):
        want(world, ledger, w, incident, before, finding)


def _open(ledger: Ledger, w: Watched, member: Member, severity: str, now: datetime) -> Incident:
    incident = ledger.add_incident(w.service.name, severity, incidents.title(w.service.name, [member]), now)
    ledger.put_member(incident.id, member)
    changes = changes_before(ledger, w.service.name, now)
    told = incidents.before_it(now, changes, sources(w.service))
    ledger.record(now, "incident.opened", f"{member.watch}: {member.reason}", service=w.service.name, incident=incident.id)
    ledger.record(now, "incident.context", told, service=w.service.name, incident=incident.id, body={"changes": [c.id for c in changes]})
    return replace(incident, members=(member,))


def _join(ledger: Ledger, incident: Incident, member: Member, now: datetime) -> Incident:
    state = "open" if incident.state == "mitigated" else incident.state
    joined = replace(incident, changed_at=now, state=state, members=(*incident.members, member))
    ledger.put_member(incident.id, member)
    ledger.save_incident(joined)
    ledger.record(now, "incident.joined", f"{member.watch}: {member.reason}", service=incident.service, incident=incident.id)
    return joined


def _storm(world: World, ledger: Ledger, w: Watched, member: Member, severity: Severity, now: datetime) -> bool:
    """Whether this watch belongs to a storm: three services, or a fifth of them, bad or unseen within an interval.

    Then one incident stands for all of them, and nothing acts by itself until it is over. What turns bad long after it began is its own.
    """
    opened = {i.service: i for i in ledger.incidents(open_only=True) if _grave(i.severity, i.members)}
    everywhere, name = opened.pop(ALL, None), w.service.name
    within = min(max(w.watch.every, timedelta(seconds=10)), timedelta(minutes=5))
    if everywhere is None:
        if not _grave(severity, [member]):
            return False
        since = {name: now} | {service: i.opened_at for service, i in opened.items()}
        together = incidents.storm(since, len(world.config.services), now, within)
        if not together:
            return False
        everywhere = _storm_breaks(world, ledger, [opened[other] for other in together if other in opened], together, within, member, now)
    elif now - everywhere.opened_at > max(within, w.watch.every * w.rules.of) and not any(m.watch.startswith(f"{name}/") for m in everywhere.members):
        return False
    if name in opened and opened[name].severity == "page":
        return False
    ledger.put_member(everywhere.id, member)
    ledger.record(now, "incident.joined", f"{member.watch}: {member.reason}", service=name, incident=everywhere.id)
    return True


def _grave(severity: str, members: Sequence[Member]) -> bool:
    """What pages, or cannot be seen, may be part of a storm; a ticket that can wait is not."""
    return severity == "page" or any(m.cause == "blind" and m.cleared_at is None for m in members)


def _storm_breaks(
    world: World, ledger: Ledger, children: Sequence[Incident], together: Sequence[str], within: timedelta, member: Member, now: datetime
) -> Incident:
    said = f"{len(together)} services turned bad within {spell(within)}: {', '.join(together)}; automatic action is halted"
    everywhere = ledger.add_incident(ALL, "page", said, now)
    ledger.record(now, "incident.opened", said, incident=everywhere.id)
    if not (ledger.setting("halt") or {}).get("on"):
        ledger.set("halt", {"on": True, "why": said, "storm": everywhere.id}, now, "storm")
    for child in children:
        if ledger.withdraw(child.id, f"part of incident {everywhere.id}"):
            ledger.save_incident(replace(child, told=0))  # if it is still open when the storm is over, somebody must hear of it
        ledger.record(now, "incident.suppressed", f"part of incident {everywhere.id}", service=child.service, incident=child.id)
    if incidents.silenced(member.watch, ledger.silences(now), now) is None:
        everywhere = replace(everywhere, told=len(world.channels))
        post(ledger, everywhere, world.channels, "opened", said, now)
        ledger.save_incident(everywhere)
    return everywhere


def let_go(world: World, ledger: Ledger, now: datetime) -> None:
    """Forget the watches that the configuration no longer names: an incident cannot wait for what nobody looks at."""
    for incident in ledger.incidents(open_only=True):
        for member in incident.members:
            if member.cleared_at is None and not world.judges(member.watch):
                clear(world, ledger, ledger.incident(incident.id) or incident, member.watch, now, "is not watched any more")
    for gone in [signal.watch for signal in ledger.all_signals() if not world.judges(signal.watch)]:
        ledger.forget_signal(gone)


def clear(world: World, ledger: Ledger, incident: Incident, watch: str, now: datetime, why: str) -> None:
    """A watch leaves its incident; when it was the last of it, the incident is resolved."""
    member = incidents.joined(incident, watch)
    assert member is not None
    ledger.put_member(incident.id, replace(member, cleared_at=now))
    ledger.record(now, "incident.cleared", f"{watch} {why}", service=incident.service, incident=incident.id)
    if any(m.cleared_at is None for m in incident.members if m.watch != watch):
        return
    said = f"resolved after {spell(timedelta(seconds=round((now - incident.opened_at).total_seconds(), 1)))}: no watch in it is bad any more"
    over = replace(incident, state="resolved", resolved_at=now, changed_at=now)
    ledger.save_incident(over)
    ledger.record(now, "incident.resolved", said, service=incident.service, incident=incident.id)
    if (ledger.setting("halt") or {}).get("storm") == incident.id:
        ledger.set("halt", {"on": False, "why": "the storm is over"}, now, "storm")
    line = world.line(world.config.services.get(incident.service))[: incident.told]
    post(ledger, over, line, "resolved", said, now)


# Telling


def announce(world: World, ledger: Ledger, w: Watched, incident: Incident, member: Member, opened: bool, now: datetime) -> None:
    """Tell the people in line that an incident opened, or that one more watch joined it; a silence is noted instead."""
    silence = incidents.silenced(member.watch, ledger.silences(now), now)
    if silence is not None:
        said = f"silenced by {silence.by} until {silence.until_at:%H:%M}Z: {silence.why}"
        ledger.record(now, "told.silenced", said, service=w.service.name, incident=incident.id)
        return
    line, due = _due(world, incident, now)
    what = "opened" if opened or incident.told == 0 else f"joined/{member.watch}"
    ledger.save_incident(replace(incident, told=due))
    post(ledger, incident, line[:due], what, f"{member.watch}: {member.reason}", now)


def _due(world: World, incident: Incident, now: datetime) -> tuple[list[str], int]:
    """The line of those who answer for it, and how many of them should know by now: all at once when nobody owns it."""
    service = world.config.services.get(incident.service)
    line = world.line(service)
    due = incidents.due_to_tell(incident, len(line), world.ack_within, now) if world.owned(service) else len(line)
    return line, max(due, incident.told)


def escalate(world: World, ledger: Ledger, now: datetime) -> None:
    """Tell the next in line of every incident that nobody acknowledged in time, and those that a silence, now over, kept quiet."""
    silences = ledger.silences(now)
    storm = any(i.service == ALL for i in ledger.incidents(open_only=True))
    for incident in ledger.incidents(open_only=True):
        if storm and incident.service != ALL:
            continue
        line, due = _due(world, incident, now)
        quiet = all(incidents.silenced(m.watch, silences, now) for m in incident.members if m.cleared_at is None)
        if not quiet and incident.told and incident.acknowledged_at is None:
            _remind(world, ledger, incident, line, now)
        if due <= incident.told or quiet:
            continue
        late = f"nobody acknowledged it within {spell(world.ack_within)}"
        said = late if incident.told else "it is still open, and what kept it quiet is over"
        ledger.save_incident(replace(incident, told=due))
        ledger.record(now, "told.escalated", f"telling {line[due - 1]}: {said}", service=incident.service, incident=incident.id)
        post(ledger, incident, line[incident.told : due], f"escalated/{due}", f"{said}: {incident.title}", now)


def _remind(world: World, ledger: Ledger, incident: Incident, line: Sequence[str], now: datetime) -> None:
    """Tell those who know already once more every `repeat_every`; the key counts, so that each reminder goes out once."""
    number = int((now - incident.opened_at) / world.config.notify.repeat_every)
    if number:
        said = f"still {incident.state} after {spell(number * world.config.notify.repeat_every)}, and nobody has acknowledged it"
        post(ledger, incident, line[: incident.told], f"reminder/{number}", said, now)


def post(ledger: Ledger, incident: Incident, channels: Sequence[str], what: str, said: str, now: datetime) -> None:
    """Put one letter for each channel into the outbox, under a key that names the incident and what happened to it."""
    wait = TOGETHER if what == "opened" and incident.service != ALL else timedelta()
    context = next((event.what for event in ledger.events("incident.context", incident=incident.id, limit=1)), "")
    body = {
        "incident": incident.id,
        "service": incident.service,
        "severity": incident.severity,
        "state": incident.state,
        "what": what,
        "title": incident.title,
        "text": said,
        "context": context,
        "watches": [m.watch for m in incident.members if m.cleared_at is None],
        "at": now,
    }
    for channel in channels:
        ledger.post(f"incident-{incident.id}/{what}", channel, f"[{incident.severity}] {incident.title}", body, now, wait)


# Wanting a run


def want(world: World, ledger: Ledger, w: Watched, incident: Incident, before: Signal | None, finding: Finding) -> None:
    """Write down that a runbook is wanted, when the cause of the fail has one; planning and acting are somebody else's."""
    at, name = finding.looked_at, w.service.name
    runbook = runbook_for(world.config, w.service, w.cause)
    if runbook is None:
        said = f"no runbook answers the cause '{w.cause or 'unknown'}' of {w.key}: a person should look"
        ledger.record(at, "incident.suggestion", said, service=name, incident=incident.id)
        return
    change = incidents.began_at_change(at, incidents.last_good(before, w.watch.every), changes_before(ledger, name, at), _releases(w))
    began = f"it began at a version change ({change.what})" if change else "it did not begin at a version change"
    ages, mode = w.cause in incidents.AGEING, mode_of(w.service, runbook)
    run, new = ledger.want(
        runbook=runbook,
        service=name,
        mode="approve" if mode == "auto" and change is None and not ages else mode,
        by="watchkeeper",
        reason=f"{w.key} fails: {finding.headline}{'' if ages else f'; {began}'}",
        wanted_at=at,
        incident=incident.id,
        trigger=w.key,
    )
    if new:
        ledger.record(at, "run.wanted", f"{runbook} wanted: {began}", service=name, incident=incident.id, run=run.id)


def _releases(w: Watched) -> Collection[str]:
    """The changes that such a fail can be blamed on: other data where the data is what is wrong, else another version of the model."""
    return ("change.data",) if w.cause == "data" else incidents.RELEASES
