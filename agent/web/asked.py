"""What every route can ask for and gives back: the world, the verbs, bounded words and numbers, and JSON in which nothing is NaN."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Protocol

from fastapi import Depends, HTTPException, Path, Query, Request
from fastapi.responses import JSONResponse
from pydantic import StringConstraints

from agent.config import Said
from agent.model import Baseline, Finding, Incident, Plan, Run, Silence
from agent.web import state
from agent.world import World


class Verbs(Protocol):
    """What people do; the module `agent.verbs` has it."""

    def check(self, world: World, key: str) -> Finding | None: ...
    def ack(self, world: World, incident: int, by: str) -> Incident: ...
    def review(self, world: World, incident: int, by: str) -> Incident: ...
    def silence(self, world: World, match: str, length: timedelta, by: str, why: str) -> Silence: ...
    def expire(self, world: World, number: int, by: str) -> None: ...
    def pin(self, world: World, key: str, start: datetime, end: datetime, by: str, why: str) -> Baseline: ...
    def unpin(self, world: World, key: str, by: str) -> None: ...
    def halt(self, world: World, by: str, why: str) -> None: ...
    def resume(self, world: World, by: str) -> None: ...
    def good(self, world: World, service: str, version: str, by: str) -> None: ...
    def attest(self, world: World, service: str, said: Said) -> Said: ...
    def keep_audit(self, world: World, services: Sequence[str], length: timedelta) -> datetime: ...
    def withdraw(self, world: World, service: str, item: str, by: str) -> int: ...
    def start(
        self,
        world: World,
        runbook: str,
        service: str,
        parameters: Any,
        by: str,
        drill: bool = False,
        dry_run: bool = False,
        live: bool = False,
        fix: str = "",
    ) -> Run | Plan: ...
    def approve(self, world: World, run: int, by: str) -> Run: ...
    def cancel(self, world: World, run: int, by: str) -> Run: ...


class Answer(JSONResponse):
    """JSON in which nothing is NaN."""

    def render(self, content: Any) -> bytes:
        return json.dumps(state.finite(content), allow_nan=False, separators=(",", ":")).encode()


def there(found: Any, what: str) -> Any:
    """What was found; 404 when nothing was."""
    if found is None:
        raise HTTPException(404, f"there is no {what}")
    return found


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
