"""What can be proved about a period: who answers for each service, what was seen, done and not watched, and whether the evidence holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from agent import _proof, plugins
from agent.audit import kept, trend
from agent.audit.canonical import FORMAT, read
from agent.audit.collecting import due
from agent.audit.comparing import compared, difference
from agent.audit.doing import todo
from agent.audit.explaining import explained, explanation
from agent.audit.formats import ENDINGS, FORMATS, written
from agent.audit.gates import GATE, gate
from agent.audit.kept import keep, last, reader
from agent.audit.known import Known
from agent.audit.pages import page
from agent.audit.readiness import readiness, rescored
from agent.changes import sources
from agent.config import Config, ServiceConfig
from agent.credential import shown
from agent.model import Event, Incident, Json, Run, Status, spell, to_json
from agent.standing import standing
from agent.store import Ledger
from agent.world import bound

PILLARS = ("data", "training", "deployment", "monitoring", "learning")
__all__ = [
    "ENDINGS",
    "FORMATS",
    "GATE",
    "collect",
    "compared",
    "difference",
    "due",
    "evidence",
    "explain",
    "explanation",
    "gate",
    "keep",
    "last",
    "page",
    "read",
    "reader",
    "replayed",
    "summary",
    "todo",
    "written",
]

FIRST = 5  # of what to do that a summary tells
MOST = 5000  # findings of a watch, or events, that are read; more are said to be there
EVERYTHING = "*"  # the service of an incident that belongs to no single one


def collect(config: Config, ledger: Ledger, services: Sequence[str], since: datetime, now: datetime) -> dict[str, Json]:
    """The report as JSON values, for [since, now). Everything in it is read from one snapshot of the store."""
    proved, changes = evidence(ledger), ledger.events("change", since=since, limit=MOST)
    return {
        "format": FORMAT,
        "as_of": to_json(now),
        "since_at": to_json(since),
        "config": {"path": str(config.path), "digest": config.digest},
        "store": config.store,
        "evidence": proved,
        "looking": _looking(ledger, since, now),
        "everywhere": [_incident(ledger, i) for i in ledger.incidents(service=EVERYTHING, limit=MOST) if _within(i, since)],
        "services": [
            {
                **_service(config, ledger, config.services[name], since, now, changes),
                "readiness": _readiness(config, ledger, config.services[name], now, proved["verified"]),
            }
            for name in services
        ],
    }


def _readiness(config: Config, ledger: Ledger, service: ServiceConfig, now: datetime, intact: bool) -> dict[str, Json]:
    """How ready it is, and how ready it has been by the audits that were kept."""
    told = readiness(Known(config, ledger, service, now, intact))
    before = kept.since(ledger, service.name, now - trend.QUARTER - trend.HOLDS, now)
    return {**told, "trend": trend.trend(service.name, before, kept.small(told, to_json(now)))}


def explain(config: Config, ledger: Ledger, item: str, services: Sequence[str], now: datetime) -> dict[str, Json]:
    """One question of the fifty, and what is known of it in each service now."""
    intact = bool(evidence(ledger)["verified"])
    return explained(item, [Known(config, ledger, config.services[name], now, intact) for name in services])


def replayed(report: Mapping[str, Json], as_of: datetime) -> dict[str, Json]:
    """A stored result as of another moment, by the questions and rules of today. Later: what of it has run out by then, if nothing is looked at."""
    same = to_json(as_of) == report["as_of"]  # the trend is of its moment: of another one, nothing says what was kept until then
    told = [
        {**one, "readiness": {**rescored(one["readiness"], one["service"], as_of), "trend": one["readiness"].get("trend") if same else None}}
        for one in report["services"]
    ]
    return {**report, "as_of": to_json(as_of), "services": told}


def evidence(ledger: Ledger) -> dict[str, Json]:
    """Whether the chain of evidence holds, and its last link: whoever wrote that link down before can tell whether this is the same chain."""
    problems = list(_proof.broken(ledger))
    return {"verified": not problems, "problems": problems, "links": ledger.head()[0], "last_link": ledger.last_link()}


def _looking(ledger: Ledger, since: datetime, now: datetime) -> dict[str, Json]:
    """When the agent started and stopped in the period, and what of it says that something was not seen."""
    kinds = ("agent", "lead", "config.refused", "store", "clock_jump", "halt", "resume")
    events = [event for kind in kinds for event in ledger.events(kind, since=since, limit=200)]
    return {"events": _told(events)}


def _service(config: Config, ledger: Ledger, service: ServiceConfig, since: datetime, now: datetime, changes: Sequence[Event]) -> dict[str, Json]:
    incidents = [i for i in ledger.incidents(service=service.name, limit=MOST) if _within(i, since)]
    return {
        **standing(config, ledger, service, now),
        "escalation": list(service.escalation),
        "targets": {role: shown(at.url) for role, at in sorted(service.targets.items())},
        "watched_for_changes": sources(service),
        "changes": _told([e for e in changes if e.service in (service.name, None)]),
        "drills": [_drill(ledger, service.name, name) for name, known in sorted(config.runbooks().items()) if bound(known, service)],
        "incidents": [_incident(ledger, i) for i in incidents],
        "runs": [_run(run) for run in ledger.runs(service=service.name, since=since, limit=MOST)],
        "findings": [_findings(ledger, watch.key, since) for watch in service.watches],
        "pillars": _pillars(service),
    }


def _within(incident: Incident, since: datetime) -> bool:
    return not incident.over or incident.changed_at >= since


def _incident(ledger: Ledger, incident: Incident) -> dict[str, Json]:
    lasted = (incident.resolved_at or incident.changed_at) - incident.opened_at
    events = ledger.events(incident=incident.id, limit=MOST)
    return {
        **to_json(incident),
        "lasted": spell(lasted) if incident.resolved_at else None,
        "timeline": _told([e for e in events if e.kind != "step"]),
    }


def _told(events: Sequence[Event]) -> list[dict[str, Json]]:
    """Events oldest first, without their bodies."""
    ordered = sorted(events, key=lambda event: (event.at, event.id))
    return [{"at": to_json(e.at), "kind": e.kind, "what": e.what, "service": e.service, "run": e.run} for e in ordered]


def _run(run: Run) -> dict[str, Json]:
    return {
        **{
            name: to_json(getattr(run, name))
            for name in ("id", "runbook", "state", "mode", "by", "reason", "drill", "incident", "wanted_at", "ended_at")
        },
        "approved_by": " and ".join(run.approved_by) or None,
        "said": run.said,
        "digest": run.plan.digest if run.plan else None,
        "steps": [
            {"name": s.name, "action": s.action, "state": s.state, "said": s.said, "undo": s.undo, "took": _took(s.intended_at, s.ended_at)}
            for s in run.steps
        ],
    }


def _took(began: datetime | None, ended: datetime | None) -> str | None:
    return spell(ended - began) if began and ended else None


def _drill(ledger: Ledger, service: str, runbook: str) -> dict[str, Json]:
    """The last drill of a runbook that succeeded; `run` is None when there was none."""
    run = ledger.last_drill(service, runbook)
    return {"runbook": runbook, "run": None if run is None else _run(run)}


def _findings(ledger: Ledger, watch: str, since: datetime) -> dict[str, Json]:
    """How often a watch was looked at, and what it found. Looks are counted by the minute; of a fast watch only some findings are kept whole."""
    (looks, good, _), counts, signal = ledger.looks(watch, since), ledger.statuses(watch, since), ledger.signal(watch)
    return {
        "watch": watch,
        "looks": looks,
        "good": good,
        "kept": sum(counts.values()),
        "counts": {status.value: counts[status] for status in Status if status in counts},
        "last": None if signal is None else {"status": signal.status.value, "at": to_json(signal.looked_at), "reason": signal.reason},
    }


def _pillars(service: ServiceConfig) -> dict[str, list[str]]:
    """What looks after each part of the model's life; an empty list: nothing does."""
    checks = plugins.listing("check")
    found: dict[str, list[str]] = {pillar: [] for pillar in PILLARS}
    for watch in service.watches:
        found.setdefault(str(checks[watch.check].promises.get("pillar", "")), []).append(watch.name)
    return found


def summary(report: Mapping[str, Json]) -> str:
    """The report in a few lines for a terminal."""
    lines = []
    for service in report["services"]:
        looks = sum(f["looks"] for f in service["findings"])
        blank = [pillar for pillar, watches in service["pillars"].items() if not watches]
        incidents, runs = len(service["incidents"]), len(service["runs"])
        lines.append(
            f"{service['service']}: {looks} looks, {incidents} incident{'' if incidents == 1 else 's'}, {runs} run{'' if runs == 1 else 's'}"
        )
        lines += [f"  no check configured for {', '.join(blank)}"] if blank else []
        lines += [f"  {line}" for line in _ready(service["readiness"])]
    found = report["evidence"]
    lines.append(f"evidence: {'the chain holds' if found['verified'] else 'THE CHAIN DOES NOT HOLD'}; last link {found['last_link'][:16]}")
    return "\n".join([*lines, *(f"  {problem}" for problem in found["problems"][:20])])


def _ready(told: Mapping[str, Json]) -> list[str]:
    """How ready it is, in the words of a terminal."""
    sections = ", ".join(f"{one['section']} {one['points']:g}{' (least)' if one['least'] else ''}" for one in told["sections"])
    lines = [
        f"{told['verdict']}: {told['headline']}",
        sections,
        f"{told['answerable']} of {len(told['items'])} questions have a rule; the others are for people to attest",
    ]
    lines += [f"next: {one['item']} {one['question']} Now: {one['why']}. Do: {one['earn']}" for one in told["plan"][:FIRST]]
    lines += trend.lines(told["trend"])
    source = told["next"]
    best = f"with what is attached {told['ceiling']:g}/10 can be had at best"
    return [*lines, best + (f"; attach {source['source']} next: {source['more']} more answers, {source['ceiling']:g}/10" if source else "")]
