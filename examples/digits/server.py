"""A model server of the kind teams write themselves: FastAPI and onnxruntime, Open Inference Protocol v2, several versions and one pointer.

    python -m examples.digits.server --models models/digits --versions 0,1 --serve 1 --port 8080 --log predictions.db

With DIGITS_ADMIN_TOKEN set, /admin/ takes only that bearer token; DIGITS_LOOK_TOKEN may then read the pointer and change nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import json
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from examples.digits.model import DigitModel, RefusedError, pixels_of
from examples.prediction_log import PredictionLog

MODEL = "digits"


class ProblemError(Exception):
    """An answer other than 200: a status and what is said with it."""

    def __init__(self, status: int, **said: Any) -> None:
        super().__init__(status, said)
        self.status, self.said = status, said


class Serving:
    """The loaded versions and the pointer to the one that answers. Touched by the event loop alone, so it needs no lock."""

    def __init__(self, models: Path, slow: Mapping[str, float]) -> None:
        self.models, self.slow, self.pointer = models, slow, ""
        self.loaded: dict[str, DigitModel] = {}
        self.in_flight: Counter[str] = Counter()

    async def load(self, version: str) -> None:
        """Loads beside what is served; a version that fails to load changes nothing."""
        registered = self._registered()
        if version not in registered:
            raise ProblemError(404, error=f"there is no version {version!r:.60}; there are {', '.join(sorted(registered)) or 'none'}")
        try:
            self.loaded[version] = await run_in_threadpool(DigitModel, self.models / version)
        except Exception as problem:  # whatever onnxruntime thinks of the file
            raise ProblemError(500, error=f"version {version} does not load: {problem}"[:500]) from problem

    async def follow(self) -> None:
        """Loads each version that is registered from now on; one that does not load is left, and asked for it can be told why."""
        known = self._registered()
        while True:
            await asyncio.sleep(0.1)
            for version in self._registered() - known:
                known.add(version)
                with suppress(ProblemError):
                    await self.load(version)

    def _registered(self) -> set[str]:
        return {path.parent.name for path in self.models.glob("[!.]*/model.onnx")}

    def unload(self, version: str) -> None:
        """Forgets a version, unless it is the one that answers."""
        if version == self.pointer:
            raise ProblemError(409, error=f"version {version} is being served; point at another first", version=version)
        self.loaded.pop(self.named(version).version)

    def point(self, to: str, expected: str) -> None:
        """Moves the pointer if it still is where the caller believes it to be."""
        if expected != self.pointer:
            raise ProblemError(409, error=f"version {self.pointer} is served, not {expected!r:.60}", version=self.pointer)
        self.pointer = self.named(to).version

    def named(self, version: str | None) -> DigitModel:
        """A loaded version; the one pointed at when none is named."""
        found = self.loaded.get(self.pointer if version is None else version)
        if found is None:
            raise ProblemError(404, error=f"version {version!r:.60} is not loaded; loaded are {', '.join(sorted(self.loaded))}")
        return found

    @contextmanager
    def counted(self, version: str) -> Iterator[None]:
        """Counts a request as in flight while the block runs."""
        self.in_flight[version] += 1
        try:
            yield
        finally:
            self.in_flight[version] -= 1

    async def infer(self, version: str | None, request: Any) -> Mapping[str, Any]:
        """The answer of one version, chosen once the whole request is here."""
        model = self.named(version)
        with self.counted(model.version):
            if model.version in self.slow:
                await asyncio.sleep(self.slow[model.version])
            try:
                found = await run_in_threadpool(model.predict, pixels_of(request))
            except RefusedError as problem:
                raise ProblemError(400, error=str(problem), model_name=MODEL, model_version=model.version) from problem
        said = {"id": request["id"]} if isinstance(request.get("id"), str) else {}
        outputs = [{**tensor, "shape": list(found[tensor["name"]].shape), "data": found[tensor["name"]].ravel().tolist()} for tensor in model.outputs]
        return {"model_name": MODEL, "model_version": model.version, **said, "outputs": outputs}

    def state(self) -> Mapping[str, Any]:
        """Where the pointer is, what could be pointed at, and who is still answering."""
        loaded = sorted(self.loaded)
        return {"model": MODEL, "version": self.pointer, "loaded": loaded, "inflight": {version: self.in_flight[version] for version in loaded}}


async def body_of(request: Request) -> Any:
    """The body as strict JSON: NaN and Infinity are no JSON."""
    try:
        return json.loads(await request.body(), parse_constant=_no_json)
    except (ValueError, RecursionError) as problem:
        raise ProblemError(400, error=f"the body is no JSON: {problem}"[:200]) from problem


def _no_json(word: str) -> None:
    raise ValueError(f"{word} is no JSON number")


async def words_of(request: Request, *names: str) -> list[str]:
    """Those fields of the body, each of which must be text."""
    body = await body_of(request)
    found = [body.get(name) if isinstance(body, dict) else None for name in names]
    if not all(isinstance(word, str) for word in found):
        raise ProblemError(400, error=f"the body must be a JSON object with text in {' and '.join(names)}")
    return [str(word) for word in found]


def permit(request: Request, *, acting: bool) -> None:
    """Lets a caller in by bearer token, if the server has one at all."""
    act, look = os.environ.get("DIGITS_ADMIN_TOKEN"), os.environ.get("DIGITS_LOOK_TOKEN")
    given = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
    if not act or hmac.compare_digest(given, act.encode()):
        return
    looks = bool(look) and hmac.compare_digest(given, str(look).encode())
    if not looks:
        raise ProblemError(401, error="this needs a bearer token")
    if acting:
        raise ProblemError(403, error="this token may look, not act")


def application(serving: Serving) -> FastAPI:
    """The protocol's paths, and the pointer's."""
    app = FastAPI(title="digits", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(ProblemError, _tell)
    protocol(app, serving)
    administration(app, serving)
    return app


async def _tell(_: Request, problem: Exception) -> JSONResponse:
    return JSONResponse(problem.said, problem.status) if isinstance(problem, ProblemError) else JSONResponse({"error": "internal"}, 500)


def protocol(app: FastAPI, serving: Serving) -> None:
    """Open Inference Protocol v2, with and without a version in the path."""
    model, version = f"/v2/models/{MODEL}", f"/v2/models/{MODEL}/versions/{{version}}"

    @app.get("/v2")
    async def server() -> Any:
        return {"name": "digits-server", "version": "1", "extensions": []}

    @app.get("/v2/health/live")
    async def live() -> Any:
        return {"live": True}

    @app.get("/v2/health/ready")
    async def ready() -> Any:
        return {"ready": True}

    @app.get(model)
    @app.get(version)
    async def metadata(version: str | None = None) -> Any:
        found = serving.named(version)
        named = [version] if version else sorted(serving.loaded)
        return {"name": MODEL, "versions": named, "platform": "onnxruntime_onnx", "inputs": found.inputs, "outputs": found.outputs}

    @app.get(f"{model}/ready")
    @app.get(f"{version}/ready")
    async def model_ready(version: str | None = None) -> Any:
        return {"name": MODEL, "version": serving.named(version).version, "ready": True}

    @app.post(f"{model}/infer")
    @app.post(f"{version}/infer")
    async def infer(request: Request, version: str | None = None) -> Any:
        return await serving.infer(version, await body_of(request))


def administration(app: FastAPI, serving: Serving) -> None:
    """The pointer: read, moved by compare-and-set, and what it may point at."""

    @app.get("/admin/pointer")
    async def read(request: Request) -> Any:
        permit(request, acting=False)
        return serving.state()

    @app.post("/admin/pointer")
    async def point(request: Request) -> Any:
        permit(request, acting=True)
        serving.point(*await words_of(request, "to", "expected"))
        return {"version": serving.pointer}

    @app.post("/admin/load")
    async def load(request: Request) -> Any:
        permit(request, acting=True)
        await serving.load(*await words_of(request, "version"))
        return serving.state()

    @app.post("/admin/unload")
    async def unload(request: Request) -> Any:
        permit(request, acting=True)
        serving.unload(*await words_of(request, "version"))
        return serving.state()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Serve the example's digit classifiers.")
    parser.add_argument("--models", type=Path, required=True, help="the folder with a folder for each version")
    parser.add_argument("--versions", default="0,1", help="those to load at first, with commas between")
    parser.add_argument("--serve", default="1", help="the one that answers at first")
    parser.add_argument("--follow", action="store_true", help="load every version that is registered later, beside the others")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one")
    parser.add_argument("--log", type=Path, help="the SQLite file to log predictions in")
    parser.add_argument("--slow", action="append", default=[], metavar="VERSION=SECONDS", help="makes a version wait before it answers")
    return parser.parse_args()


async def started(given: argparse.Namespace) -> Serving:
    slow = {version: float(seconds) for version, _, seconds in (one.partition("=") for one in given.slow)}
    serving = Serving(given.models, slow)
    for version in given.versions.split(","):
        await serving.load(version)
    serving.pointer = serving.named(given.serve).version
    return serving


async def serve(given: argparse.Namespace, listening: socket.socket) -> None:
    serving = await started(given)
    app: Any = application(serving)
    if given.log:
        app = PredictionLog(app, given.log)
    host, port = listening.getsockname()[:2]
    # In one write: a line of the log must not come between the port and the end of its line.
    sys.stdout.write(f"digits {serving.pointer} of {', '.join(sorted(serving.loaded))} at http://{host}:{port}\n")
    sys.stdout.flush()
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=5)
    following = asyncio.create_task(serving.follow()) if given.follow else None
    await uvicorn.Server(config).serve(sockets=[listening])
    if following is not None:
        following.cancel()


def main() -> None:
    given = arguments()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: sys.exit(0))  # uvicorn drains first, then lets us have the signal
    try:
        with socket.create_server(("127.0.0.1", given.port)) as listening:
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio sets it on sockets of its own only: else 40 ms an answer
            asyncio.run(serve(given, listening))
    except ProblemError as problem:
        sys.exit(f"digits server: {problem.said['error']}")
    except OSError as problem:
        sys.exit(f"digits server: port {given.port}: {problem.strerror}; choose another with --port")


if __name__ == "__main__":
    main()
