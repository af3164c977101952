"""What an answer rests on, as evidence that can be found again: findings, runs, incidents, events, the configuration."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from agent import plugins
from agent.audit.scoring import Answer, Evidence
from agent.config import Config, ServiceConfig
from agent.model import Event, Finding, Incident, Run, to_json
from agent.plugins import MODELS, TABLES
from agent.store import Ledger

MOST = 20  # pieces of evidence of one answer: the newest
SOURCES = {**dict.fromkeys(TABLES, "tables"), "server": "server", "registry": "registry", "metrics": "metrics", "code": "code"}
READ = {**SOURCES, "router": "server", "online": "tables", "data": "tables", **dict.fromkeys(MODELS, "registry")}  # what a check of it has read
Thing = Finding | Run | Incident | Event


def rests(service: ServiceConfig, things: Iterable[Thing]) -> tuple[Evidence, ...]:
    """Evidence of each of these, the newest first, not yet sealed: see `sealed`."""
    found = (_finding(service, one) if isinstance(one, Finding) else _of_the_record(one) for one in things)
    return tuple(sorted(dict.fromkeys(found), key=lambda one: (one.at, one.locator), reverse=True)[:MOST])


def configured(config: Config, service: ServiceConfig, at: datetime, *keys: str) -> Evidence:
    """What the configuration says of a service at `at` under these keys; its digest is the one that every `change.config` names."""
    query = ", ".join(f"services.{service.name}.{key}" for key in keys)
    return Evidence("config", "config", "self", at, "watchkeeper", query, config.path.name, config.digest)


def _finding(service: ServiceConfig, one: Finding) -> Evidence:
    """A finding saw what its check is bound to: none of that is the agent's own, unless it is bound to nothing."""
    watch = next((watch for watch in service.watches if watch.key == one.watch), None)
    known = plugins.listing("check").get(one.check)
    roles = {*service.targets, *(watch.bind if watch else ())}
    seen = [READ[need.name] for need in (known.needs if known else ()) if need.name in roles and need.name in READ]
    query = json.dumps(to_json(watch.parameters if watch else {}), sort_keys=True, default=str)
    collector, locator = f"{one.check}@{one.rule[:12]}", f"finding {one.id}"
    return Evidence("finding", seen[0] if seen else "agent", "independent" if seen else "self", one.looked_at, collector, query, locator, "")


def _of_the_record(one: Run | Incident | Event) -> Evidence:
    if isinstance(one, Run):
        query = json.dumps(to_json(one.parameters), sort_keys=True, default=str)
        drill = "drill of " if one.drill else ""
        return Evidence("run", "agent", "self", one.ended_at or one.wanted_at, f"{drill}{one.runbook} by {one.by}", query, f"run {one.id}", "")
    if isinstance(one, Incident):
        return Evidence("incident", "agent", "self", one.changed_at, "watchkeeper", one.title, f"incident {one.id}", "")
    return Evidence("event", "agent", "self", one.at, "watchkeeper", one.kind, f"event {one.id}", "")


def sealed(ledger: Ledger, answers: Mapping[str, Answer]) -> dict[str, Answer]:
    """The answers with the digest and the link of each piece of evidence, asked of the chain once for all of them.

    Runs and incidents are sealed by the last event about them. What retention has dropped from the chain has neither.
    """
    wanted: dict[str, set[int]] = {}
    for one in (one for answer in answers.values() for one in answer.evidence if not one.digest):
        wanted.setdefault(one.kind, set()).add(_number(one))
    held = ledger.seals(wanted)

    def seal(one: Evidence) -> Evidence:
        seq, digest = held.get((one.kind, _number(one)), (None, "")) if not one.digest else (one.link, one.digest)
        return replace(one, digest=digest, link=seq)

    return {name: replace(answer, evidence=tuple(map(seal, answer.evidence))) for name, answer in answers.items()}


def _number(one: Evidence) -> int:
    return int(one.locator.rpartition(" ")[2]) if one.kind != "config" else 0
