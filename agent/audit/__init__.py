"""What can be proved about a period: who answers for each service, what was seen, done and not watched, and whether the evidence holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

from agent import _proof, plugins
from agent.audit.collecting import due
from agent.audit.known import Known
from agent.audit.readiness import GATE, explained, explanation, gate, readiness
from agent.changes import sources
from agent.config import Config, ServiceConfig
from agent.credential import shown
from agent.model import Event, Incident, Json, Run, Status, spell, to_json
from agent.standing import standing
from agent.store import Ledger
from agent.world import bound

PILLARS = ("data", "training", "deployment", "monitoring", "learning")
__all__ = ["GATE", "collect", "due", "evidence", "explain", "explanation", "gate", "page", "summary"]

MOST = 5000  # findings of a watch, or events, that are read; more are said to be there
EVERYTHING = "*"  # the service of an incident that belongs to no single one


def collect(config: Config, ledger: Ledger, services: Sequence[str], since: datetime, now: datetime) -> dict[str, Json]:
    """The report as JSON values, for [since, now). Everything in it is read from one snapshot of the store."""
    proved = evidence(ledger)
    return {
        "generated_at": to_json(now),
        "since_at": to_json(since),
        "config": {"path": str(config.path), "digest": config.digest},
        "store": config.store,
        "evidence": proved,
        "looking": _looking(ledger, since, now),
        "everywhere": [_incident(ledger, i) for i in ledger.incidents(service=EVERYTHING, limit=MOST) if _within(i, since)],
        "services": [
            {
                **_service(config, ledger, config.services[name], since, now),
                "readiness": readiness(Known(config, ledger, config.services[name], now, proved["verified"])),
            }
            for name in services
        ],
    }


def explain(config: Config, ledger: Ledger, item: str, services: Sequence[str], now: datetime) -> dict[str, Json]:
    """One question of the fifty, and what is known of it in each service now."""
    intact = bool(evidence(ledger)["verified"])
    return explained(item, [Known(config, ledger, config.services[name], now, intact) for name in services])


def evidence(ledger: Ledger) -> dict[str, Json]:
    """Whether the chain of evidence holds, and its last link: whoever wrote that link down before can tell whether this is the same chain."""
    problems = list(_proof.broken(ledger))
    return {"verified": not problems, "problems": problems, "last_link": ledger.last_link()}


def _looking(ledger: Ledger, since: datetime, now: datetime) -> dict[str, Json]:
    """When the agent started and stopped in the period, and what of it says that something was not seen."""
    kinds = ("agent", "lead", "config.refused", "store", "clock_jump", "halt", "resume")
    events = [event for kind in kinds for event in ledger.events(kind, since=since, limit=200)]
    return {"events": _told(events)}


def _service(config: Config, ledger: Ledger, service: ServiceConfig, since: datetime, now: datetime) -> dict[str, Json]:
    incidents = [i for i in ledger.incidents(service=service.name, limit=MOST) if _within(i, since)]
    return {
        **standing(config, ledger, service, now),
        "escalation": list(service.escalation),
        "targets": {role: shown(at.url) for role, at in sorted(service.targets.items())},
        "watched_for_changes": sources(service),
        "changes": _told([e for e in ledger.events("change", since=since, limit=MOST) if e.service in (service.name, None)]),
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
    kept, minutes = ledger.findings(watch=watch, since=since, limit=MOST), ledger.rollups(watch, since)
    counts, signal = Counter(finding.status for finding in kept), ledger.signal(watch)
    return {
        "watch": watch,
        "looks": sum(row["looks"] for row in minutes),
        "good": sum(row["good"] for row in minutes),
        "kept": len(kept),
        "more": len(kept) == MOST,
        "counts": {status.value: counts[status] for status in Status if counts[status]},
        "last": None if signal is None else {"status": signal.status.value, "at": to_json(signal.looked_at), "reason": signal.reason},
    }


def _pillars(service: ServiceConfig) -> dict[str, list[str]]:
    """What looks after each part of the model's life; an empty list: nothing does."""
    checks = plugins.listing("check")
    found: dict[str, list[str]] = {pillar: [] for pillar in PILLARS}
    for watch in service.watches:
        found.setdefault(str(checks[watch.check].promises.get("pillar", "")), []).append(watch.name)
    return found


def page(report: Mapping[str, Json]) -> str:
    """The report as one self-contained HTML page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    house = Environment(loader=PackageLoader("agent", "audit"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    house.filters["at"] = lambda text: f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S}Z" if text else "-"
    return house.get_template("page.html").render(report)


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
        f"{told['answerable']} of {len(told['items'])} questions have a rule; the rest is unknown",
    ]
    lines += [f"next: {one['item']} {one['question']} Now: {one['why']}. Do: {one['earn']}" for one in told["plan"]]
    source = told["next"]
    best = f"with what is attached {told['ceiling']:g}/10 can be had at best"
    return [*lines, best + (f"; attach {source['source']} next: {source['more']} more answers, {source['ceiling']:g}/10" if source else "")]
