"""The application: its routes behind their guard, and a sentence for everything that goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from agent.errors import ConfigError, DataError, LeaseLostError, PlanError, PluginError, StoreError, TargetError, WatchkeeperError, WorkerError
from agent.web.asked import Answer, Verbs
from agent.web.doing import LOOKS, doing
from agent.web.guard import Guard
from agent.web.seeing import health, seeing
from agent.web.state import View
from agent.world import World

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
    made.state.world, made.state.verbs, made.state.view, made.state.metrics = world, verbs, View(world, ready), metrics
    made.state.looks, made.state.hosts = threading.BoundedSemaphore(LOOKS), None
    made.add_middleware(Guard, tokens=[token] if isinstance(token, str) else list(token or ()))
    made.include_router(health)
    made.include_router(seeing, prefix="/api")
    made.include_router(doing, prefix="/api")
    made.add_exception_handler(RequestValidationError, _unfit)
    made.add_exception_handler(HTTPException, _http)
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
    assert isinstance(problem, HTTPException)
    known = {404: "there is nothing here; /api/openapi.json lists what there is", 405: "this can be read or changed, but not in this way"}
    said = (
        problem.detail
        if problem.status_code not in known or problem.detail not in ("Not Found", "Method Not Allowed")
        else known[problem.status_code]
    )
    return Answer({"error": said}, problem.status_code, problem.headers)


def _mistake(request: Request, problem: Exception) -> Response:
    return Answer({"error": f"a mistake of Watchkeeper's own ({type(problem).__name__}); its log has it"}, 500)
