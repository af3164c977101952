"""Everything that can be seen: health, metrics, the page, and the same as JSON."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response

from agent import ladder
from agent import runs as runs_of
from agent.account import account
from agent.audit import attested
from agent.metrics import CONTENT_TYPE
from agent.model import UTC, duration, to_json
from agent.review import draft
from agent.web import page, state
from agent.web.asked import Answer, Limit, Number, W, there

health = APIRouter(tags=["health"])


@health.get("/healthz", response_class=PlainTextResponse)
def alive() -> PlainTextResponse:
    """200 while the process lives."""
    return PlainTextResponse("ok\n")


@health.get("/readyz")
def is_ready(request: Request) -> Answer:
    """200 when what it says can be relied on; else 503 and why not."""
    reasons = list(request.app.state.view.ready())
    return Answer({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)


@health.get("/metrics", response_class=PlainTextResponse)
def measured(request: Request) -> Response:
    """For Prometheus."""
    return Response(request.app.state.metrics(), media_type=CONTENT_TYPE)


@health.get("/", response_class=HTMLResponse, include_in_schema=False)
def shown(request: Request) -> HTMLResponse:
    return page.shown(request.app.state.view.page())


@health.get("/fleet", response_class=HTMLResponse, include_in_schema=False)
def fleet_shown(request: Request) -> HTMLResponse:
    return page.fleet(request.app.state.view.fleet())


# As JSON

KINDS = {".svg": "image/svg+xml", ".json": "application/json", ".html": "text/html; charset=utf-8"}
INERT = {"Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'", "X-Content-Type-Options": "nosniff"}

seeing = APIRouter(tags=["see"])


@seeing.get("/status")
def status(request: Request) -> Answer:
    """Every service: state, owner, what it serves, what it could go back to, its open incident, its watches; and whether action is halted."""
    return Answer(request.app.state.view.status())


@seeing.get("/services/{service}")
def one_service(request: Request, service: str) -> Answer:
    """One service, with the last reading of every watch."""
    return Answer(request.app.state.view.service(service))


@seeing.get("/findings")
def findings(world: W, service: str | None = None, watch: str | None = None, check: str | None = None, limit: Limit = 100) -> Answer:
    """What watches found. `watch` is service/name."""
    return Answer(world.store.see(lambda ledger: to_json(ledger.findings(service, watch, check, limit=limit))))


@seeing.get("/findings/{number}")
def one_finding(world: W, number: Number) -> Answer:
    """One finding, with the names of the files it left."""
    return Answer(world.store.see(lambda ledger: to_json(there(ledger.finding(number), f"finding {number}"))))


@seeing.get("/findings/{number}/files/{name}")
def file(world: W, number: Number, name: str) -> Response:
    """One file a finding left: numbers, or a picture. It is shown as it is and can run nothing."""
    body = world.store.see(lambda ledger: there(ledger.files(number).get(name), f"file '{name}' of finding {number}"))
    return Response(body, media_type=KINDS.get(Path(name).suffix, "application/octet-stream"), headers=INERT)


@seeing.get("/incidents")
def incidents(world: W, open: bool = False, service: str | None = None, limit: Limit = 100) -> Answer:
    """Incidents; with `open`, those that are not over."""
    return Answer(world.store.see(lambda ledger: to_json(ledger.incidents(open, service, limit))))


@seeing.get("/incidents/{number}")
def one_incident(world: W, number: Number) -> Answer:
    """One incident: its watches, what happened in it from what changed before, and its runs."""
    return Answer(world.store.see(lambda ledger: state.incident(ledger, there(ledger.incident(number), f"incident {number}"))))


@seeing.get("/incidents/{number}/account")
def one_account(world: W, number: Number) -> Answer:
    """One incident told as it went: a summary in sentences, and a sentence for each thing that happened, with its time from the start."""
    world.store.see(lambda ledger: there(ledger.incident(number), f"incident {number}"))
    return Answer(world.store.see(lambda ledger: account(ledger, number, world.clock())))


@seeing.get("/incidents/{number}/review", response_class=PlainTextResponse)
def one_review(world: W, number: Number) -> Response:
    """The draft of an incident's review, as Markdown without its pictures."""
    world.store.see(lambda ledger: there(ledger.incident(number), f"incident {number}"))
    text = world.store.see(lambda ledger: draft(world.config, ledger, number, world.clock())).text
    return Response(text, media_type="text/markdown; charset=utf-8", headers=INERT)


@seeing.get("/ladder")
def trusted(world: W, service: str | None = None) -> Answer:
    """How far each runbook can be trusted on each service: its mode, its last drill, what it would have done and whether that was right."""
    names, now = [world.service(service).name] if service else list(world.config.services), world.clock()
    return Answer(world.store.see(lambda ledger: ladder.report(world.config, ledger, names, now - ladder.YEAR, now)))


@seeing.get("/audits")
def audits(request: Request) -> Answer:
    """How ready each service is, by the last audit of it that was kept, the worst first: verdict, level, least section, blockers, budget left."""
    return Answer(request.app.state.view.fleet())


@seeing.get("/runs")
def runs(world: W, active: bool = False, service: str | None = None, limit: Limit = 100) -> Answer:
    """Runs with their steps, without their plans."""
    return Answer(world.store.see(lambda ledger: [state.run(one, in_full=False) for one in ledger.runs(active, service, limit=limit)]))


@seeing.get("/runs/{number}")
def one_run(world: W, number: Number) -> Answer:
    """One run in full: steps, plan and its digest, approvals, the findings it rests on, and how long from the decision to its first effect."""
    return Answer(world.store.see(lambda ledger: runs_of.account(ledger, there(ledger.run(number), f"run {number}"))))


@seeing.get("/events")
def events(world: W, kind: str | None = None, service: str | None = None, incident: int | None = None, limit: Limit = 200) -> Answer:
    """The record: changes seen, steps of incidents and runs, acts of people. `kind` is the word itself, or what stands before a dot."""
    return Answer(world.store.see(lambda ledger: to_json(ledger.events(kind, service, _number(incident), limit=limit))))


@seeing.get("/silences")
def silences(world: W, active: bool = False) -> Answer:
    """Silences; with `active`, those in force."""
    return Answer(world.store.see(lambda ledger: to_json(ledger.silences(world.clock() if active else None))))


@seeing.get("/baselines")
def baselines(world: W) -> Answer:
    """What is pinned as a yardstick, by watch."""
    return Answer(world.store.see(lambda ledger: [{"watch": watch, **to_json(one)} for watch, (_, one) in ledger.baselines().items()]))


@seeing.get("/services/{service}/attestations")
def attestations(world: W, service: str) -> Answer:
    """What people said of the questions of the audit, newest first, and why what does not count does not."""
    found = world.service(service)
    return Answer(world.store.see(lambda ledger: attested.told(attested.words(found, ledger, world.clock()))))


@seeing.get("/letters")
def letters(world: W, limit: Limit = 100) -> Answer:
    """The outbox: what waits, what was sent, what was dropped and why."""
    return Answer(world.store.see(lambda ledger: to_json(ledger.letters(limit))))


@seeing.get("/rollups")
def rollups(world: W, watch: str, since: Annotated[str, Query(max_length=40)] = "1h") -> Answer:
    """Minute by minute: looks, how many were ok, lowest, highest and sum of the reading. `since` is a time, or how long ago."""
    w, start = world.find(watch), _since(since, world.clock())
    return Answer(world.store.see(lambda ledger: to_json(ledger.rollups(w.key, start))))


def _since(said: str, now: datetime) -> datetime:
    try:
        return now - duration(said)
    except (ValueError, OverflowError):
        pass
    try:
        found = datetime.fromisoformat(said.replace(" ", "+"))
    except ValueError:
        raise HTTPException(422, "since: write a duration such as 1h, or a time such as 2026-11-23T12:00:00Z") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _number(value: int | None) -> int | None:
    return None if value is None else max(-1, min(value, 2**63 - 1))
