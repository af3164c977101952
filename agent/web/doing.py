"""Every verb a person has, over HTTP; the guard has asked for the token before any of this is reached."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Query, Request, Security
from fastapi.security import HTTPBearer
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from agent.config import Said
from agent.config.shape import Apart, Waived
from agent.model import Plan, duration, to_json
from agent.permit import halted
from agent.preview import plan_json
from agent.web import state
from agent.web.asked import Answer, Name, Number, V, W, Words, there

LOOKS = 8  # looks that people may have going at once


class Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class By(Body):
    by: Name


class Because(By):
    why: Words


class Silencing(Because):
    match: Annotated[str, StringConstraints(min_length=1, max_length=300)] = Field(description="service/watch; * is a wildcard")
    length: Annotated[str, StringConstraints(max_length=40)] = Field(alias="for", description="such as 2h")


class Pinning(Because):
    start_at: Annotated[AwareDatetime, Field(strict=False)]
    end_at: Annotated[AwareDatetime, Field(strict=False)]


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
    live: bool = False
    fix: Words | None = None


class Attesting(By):
    item: Annotated[str, StringConstraints(pattern=r"^(DATA|MODEL|DEPL|MON|TEAM)-(0[1-9]|10)$")]
    until_at: Annotated[AwareDatetime, Field(strict=False)]
    note: Words
    kind: Literal["attested", "waived", "not applicable"] = "attested"
    reason: Waived | Apart | Literal[""] = ""
    version: Name | None = None


class Auditing(Body):
    services: Annotated[list[Name], Field(min_length=1, max_length=1000)]
    seconds: Annotated[float, Field(gt=0, le=10 * 366 * 86400)] = 30 * 86400.0


class Good(By):
    version: Name


doing = APIRouter(tags=["do"], dependencies=[Security(HTTPBearer(auto_error=False))])


@doing.post("/incidents/{number}/ack")
def ack(world: W, verbs: V, number: Number, body: By) -> Answer:
    """Somebody has it: nobody further is told."""
    world.store.see(lambda ledger: there(ledger.incident(number), f"incident {number}"))
    return Answer(to_json(verbs.ack(world, number, body.by)))


@doing.post("/incidents/{number}/review")
def review(world: W, verbs: V, number: Number, body: By) -> Answer:
    """Somebody has looked back at it: an incident that is over is marked reviewed."""
    world.store.see(lambda ledger: there(ledger.incident(number), f"incident {number}"))
    return Answer(to_json(verbs.review(world, number, body.by)))


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


@doing.put("/services/{service}/watches/{watch}/baseline")
def pin(world: W, verbs: V, service: str, watch: str, body: Pinning) -> Answer:
    """Make a stretch of event time the watch's yardstick; what it had added up is let go."""
    key = world.find(f"{service}/{watch}").key
    return Answer(to_json(verbs.pin(world, key, body.start_at, body.end_at, body.by, body.why)))


@doing.delete("/services/{service}/watches/{watch}/baseline")
def unpin(world: W, verbs: V, service: str, watch: str, by: Annotated[Name, Query()]) -> Answer:
    """Take the pinned yardstick away."""
    key = world.find(f"{service}/{watch}").key
    verbs.unpin(world, key, by)
    return Answer({"watch": key})


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
    how: dict[str, Any] = {"drill": body.drill, "dry_run": body.dry_run, "live": body.live, "fix": body.fix or ""}
    made = verbs.start(world, runbook, service, body.parameters, body.by, **how)
    return Answer(plan_json(made) if isinstance(made, Plan) else state.run(made))


@doing.post("/runs/{number}/approve")
def approve(world: W, verbs: V, number: Number, body: By) -> Answer:
    """Say yes to the plan as it stands."""
    world.store.see(lambda ledger: there(ledger.run(number), f"run {number}"))
    return Answer(state.run(verbs.approve(world, number, body.by)))


@doing.post("/runs/{number}/cancel")
def cancel(world: W, verbs: V, number: Number, body: By) -> Answer:
    """Call off a run that has changed nothing that is in use; a training it has under way ends."""
    world.store.see(lambda ledger: there(ledger.run(number), f"run {number}"))
    return Answer(state.run(verbs.cancel(world, number, body.by)))


@doing.post("/services/{service}/attestations", status_code=201)
def attest(world: W, verbs: V, service: str, body: Attesting) -> Answer:
    """A person's word on a question of the audit: that it is met, that its gap is accepted, or that it does not apply."""
    return Answer(to_json(verbs.attest(world, world.service(service).name, Said(**body.model_dump()))), 201)


@doing.delete("/services/{service}/attestations/{item}")
def withdraw(world: W, verbs: V, service: str, item: str, by: Annotated[Name, Query()]) -> Answer:
    """Take back what was said of a question."""
    return Answer({"item": item, "withdrawn": verbs.withdraw(world, world.service(service).name, item, by)})


@doing.post("/audits", status_code=201)
def keep_audit(world: W, verbs: V, body: Auditing) -> Answer:
    """Audit services now, and seal what each came to: the next audit is compared with it."""
    kept_at = verbs.keep_audit(world, [world.service(name).name for name in body.services], timedelta(seconds=body.seconds))
    return Answer({"services": body.services, "kept_at": to_json(kept_at)}, 201)


@doing.post("/services/{service}/good")
def good(world: W, verbs: V, service: str, body: Good) -> Answer:
    """A named person's word that a version is good, so that it can be rolled back to."""
    world.service(service)
    verbs.good(world, service, body.version, body.by)
    return Answer({"service": service, "version": body.version, "by": body.by})
