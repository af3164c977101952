"""The JSON API: everything that can be seen, and every verb a person has; a sentence for everything that goes wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Path, Query, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from fastapi.security import HTTPBearer
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints
from starlette.exceptions import HTTPException as StarletteException

from agent.errors import ConfigError, DataError, LeaseLostError, PlanError, PluginError, StoreError, TargetError, WatchkeeperError, WorkerError
from agent.metrics import CONTENT_TYPE
from agent.model import UTC, Finding, Incident, Plan, Run, Silence, duration, to_json
from agent.permit import halted
from agent.web import page, state
from agent.web.guard import Guard
from agent.world import World

LOOKS = 8  # looks that people may have going at once
STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (PluginError, 404),
    (PlanError, 409),
    (LeaseLostError, 409),
    (ConfigError, 422),
    (DataError, 422),
    (StoreError, 503),
    (TargetError, 503),
    (WorkerError, 503),
    (TimeoutError, 503),
)


class Verbs(Protocol):
    """What people do; the module `agent.verbs` has it."""

    def check(self, world: World, key: str) -> Finding | None: ...
    def ack(self, world: World, incident: int, by: str) -> Incident: ...
    def silence(self, world: World, match: str, length: timedelta, by: str, why: str) -> Silence: ...
    def expire(self, world: World, number: int, by: str) -> None: ...
    def halt(self, world: World, by: str, why: str) -> None: ...
    def resume(self, world: World, by: str) -> None: ...
    def good(self, world: World, service: str, version: str, by: str) -> None: ...
    def start(self, world: World, runbook: str, service: str, parameters: Any, by: str, drill: bool = False, dry_run: bool = False) -> Run | Plan: ...
    def approve(self, world: World, run: int, by: str) -> Run: ...
    def cancel(self, world: World, run: int, by: str) -> Run: ...


class Answer(JSONResponse):
    """JSON in which nothing is NaN."""

    def render(self, content: Any) -> bytes:
        return json.dumps(state.finite(content), allow_nan=False, separators=(",", ":")).encode()


def app(
    world: World,
    verbs: Verbs,
    token: str | Sequence[str] | None,
    ready: Callable[[], Sequence[str]] = lambda: (),
    metrics: Callable[[], bytes] = lambda: b"",
) -> FastAPI:
    """The application. Without a token nothing can be changed through it; `ready` gives the reasons why this agent should not be relied on now."""
    made = FastAPI(
        title="Watchkeeper",
        version="1",
        description="Reading needs nothing; changing anything needs a token.",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        default_response_class=Answer,
    )
    made.state.world, made.state.verbs, made.state.view, made.state.metrics = world, verbs, state.View(world, ready), metrics
    made.state.looks, made.state.hosts = threading.BoundedSemaphore(LOOKS), None
    made.add_middleware(Guard, tokens=[token] if isinstance(token, str) else list(token or ()))
    made.include_router(health)
    made.include_router(seeing, prefix="/api")
    made.include_router(doing, prefix="/api")
    made.add_exception_handler(RequestValidationError, _unfit)
    made.add_exception_handler(StarletteException, _http)
    made.add_exception_handler(Exception, _mistake)
    for kind in (WatchkeeperError, TimeoutError):
        made.add_exception_handler(kind, _refused)
    return made


# What goes wrong


def _refused(request: Request, problem: Exception) -> Response:
    code = next((code for kind, code in STATUSES if isinstance(problem, kind)), 500)
    return Answer({"error": str(problem) or "it took too long"}, code)


def _unfit(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, RequestValidationError)
    told = [f"{'.'.join(str(step) for step in error['loc'] if step != 'body') or 'body'}: {error['msg']}" for error in problem.errors()[:20]]
    return Answer({"error": "; ".join(told)}, 422)


def _http(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, StarletteException)
    known = {404: "there is nothing here; /api/openapi.json lists what there is", 405: "this can be read or changed, but not in this way"}
    said = (
        problem.detail
        if problem.status_code not in known or problem.detail not in ("Not Found", "Method Not Allowed")
        else known[problem.status_code]
    )
    return Answer({"error": said}, problem.status_code, problem.headers)


def _mistake(request: Request, problem: Exception) -> Response:
    return Answer({"error": f"a mistake of Watchkeeper's own ({type(problem).__name__}); its log has it"}, 500)


def there(found: Any, what: str) -> Any:
    """What was found; 404 when nothing was."""
    if found is None:
        raise HTTPException(404, f"there is no {what}")
    return found


# What every route can ask for


def _world(request: Request) -> World:
    found: World = request.app.state.world
    return found


def _verbs(request: Request) -> Verbs:
    found: Verbs = request.app.state.verbs
    return found


W = Annotated[World, Depends(_world)]
V = Annotated[Verbs, Depends(_verbs)]
Number = Annotated[int, Path(ge=1, le=2**63 - 1)]
Limit = Annotated[int, Query(ge=1, le=1000, description="at most that many, newest first")]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]


# Health

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


# Seeing

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


@seeing.get("/incidents")
def incidents(world: W, open: bool = False, service: str | None = None, limit: Limit = 100) -> Answer:
    """Incidents; with `open`, those that are not over."""
    return Answer(world.store.see(lambda ledger: to_json(ledger.incidents(open, service, limit))))


@seeing.get("/incidents/{number}")
def one_incident(world: W, number: Number) -> Answer:
    """One incident: its watches, what happened in it from what changed before, and its runs."""
    return Answer(world.store.see(lambda ledger: state.incident(ledger, there(ledger.incident(number), f"incident {number}"))))


@seeing.get("/runs")
def runs(world: W, active: bool = False, service: str | None = None, limit: Limit = 100) -> Answer:
    """Runs with their steps, without their plans."""
    return Answer(world.store.see(lambda ledger: [state.run(one, in_full=False) for one in ledger.runs(active, service, limit=limit)]))


@seeing.get("/runs/{number}")
def one_run(world: W, number: Number) -> Answer:
    """One run with its steps, its plan and the plan's digest."""
    return Answer(world.store.see(lambda ledger: state.run(there(ledger.run(number), f"run {number}"))))


@seeing.get("/events")
def events(world: W, kind: str | None = None, service: str | None = None, incident: int | None = None, limit: Limit = 200) -> Answer:
    """The record: changes seen, steps of incidents and runs, acts of people. `kind` is the word itself, or what stands before a dot."""
    return Answer(world.store.see(lambda ledger: to_json(ledger.events(kind, service, _number(incident), limit=limit))))


@seeing.get("/silences")
def silences(world: W, active: bool = False) -> Answer:
    """Silences; with `active`, those in force."""
    return Answer(world.store.see(lambda ledger: to_json(ledger.silences(world.clock() if active else None))))


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


# Doing


class Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class By(Body):
    by: Name


class Because(By):
    why: Words


class Silencing(Because):
    match: Annotated[str, StringConstraints(min_length=1, max_length=300)] = Field(description="service/watch; * is a wildcard")
    length: Annotated[str, StringConstraints(max_length=40)] = Field(alias="for", description="such as 2h")


def _sayable(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except ValueError:
        raise ValueError("NaN, infinity and half characters cannot be kept") from None
    return value


class Start(By):
    parameters: Annotated[dict[str, JsonValue], AfterValidator(_sayable)] = {}
    drill: bool = False
    dry_run: bool = False


class Good(By):
    version: Name


doing = APIRouter(tags=["do"], dependencies=[Security(HTTPBearer(auto_error=False))])


@doing.post("/incidents/{number}/ack")
def ack(world: W, verbs: V, number: Number, body: By) -> Answer:
    """Somebody has it: nobody further is told."""
    world.store.see(lambda ledger: there(ledger.incident(number), f"incident {number}"))
    return Answer(to_json(verbs.ack(world, number, body.by)))


@doing.post("/silences", status_code=201)
def silence(world: W, verbs: V, body: Silencing) -> Answer:
    """Tell nobody about matching watches for a while; findings and incidents are recorded all the same."""
    try:
        length = duration(body.length)
    except (ValueError, OverflowError):
        raise HTTPException(422, "for: write a duration such as 30m, 2h or 1d") from None
    return Answer(to_json(verbs.silence(world, body.match, length, body.by, body.why)), 201)


@doing.delete("/silences/{number}")
def expire(world: W, verbs: V, number: Number, by: Annotated[Name, Query()]) -> Answer:
    """End a silence now."""
    world.store.see(lambda ledger: there(next((one for one in ledger.silences() if one.id == number), None), f"silence {number}"))
    verbs.expire(world, number, by)
    return Answer({"silence": number})


@doing.post("/halt")
def stop(world: W, verbs: V, body: Because) -> Answer:
    """Stop every automatic action until it is resumed; looking goes on."""
    verbs.halt(world, body.by, body.why)
    return Answer({"halted": halted(world)})


@doing.post("/resume")
def resume(world: W, verbs: V, body: By) -> Answer:
    """Let automatic action go on."""
    verbs.resume(world, body.by)
    return Answer({"halted": halted(world)})


@doing.post("/services/{service}/watches/{watch}/check")
def check(request: Request, world: W, verbs: V, service: str, watch: str) -> Answer:
    """Look now; answers when that is done, with the finding."""
    key = world.find(f"{service}/{watch}").key
    if not request.app.state.looks.acquire(blocking=False):
        raise HTTPException(503, f"{LOOKS} looks that people asked for are going on; try again when one has ended")
    try:
        return Answer(state.finding(verbs.check(world, key)))
    finally:
        request.app.state.looks.release()


@doing.post("/services/{service}/runbooks/{runbook}")
def start(world: W, verbs: V, service: str, runbook: str, body: Start) -> Answer:
    """Start a runbook, or with `dry_run` only plan it: answers with the run, or with the plan."""
    made = verbs.start(world, runbook, service, body.parameters, body.by, drill=body.drill, dry_run=body.dry_run)
    return Answer({**to_json(made), "digest": made.digest} if isinstance(made, Plan) else state.run(made))


@doing.post("/runs/{number}/approve")
def approve(world: W, verbs: V, number: Number, body: By) -> Answer:
    """Say yes to the plan as it stands."""
    world.store.see(lambda ledger: there(ledger.run(number), f"run {number}"))
    return Answer(state.run(verbs.approve(world, number, body.by)))


@doing.post("/runs/{number}/cancel")
def cancel(world: W, verbs: V, number: Number, body: By) -> Answer:
    """Call off a run that has not begun to change anything."""
    world.store.see(lambda ledger: there(ledger.run(number), f"run {number}"))
    return Answer(state.run(verbs.cancel(world, number, body.by)))


@doing.post("/services/{service}/good")
def good(world: W, verbs: V, service: str, body: Good) -> Answer:
    """A named person's word that a version is good, so that it can be rolled back to."""
    world.service(service)
    verbs.good(world, service, body.version, body.by)
    return Answer({"service": service, "version": body.version, "by": body.by})
