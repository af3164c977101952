"""Stands before every request: which host it was meant for, whether it may write, how long its body is; and what every answer forbids a browser."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from collections.abc import Collection, Mapping, Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LIMIT = 2**20  # bytes a body may have
DRAIN = 8 * LIMIT  # bytes that are read and thrown away, so that who sends too much can hear so
PATIENCE = 10.0  # seconds a body may take
READS = ("GET", "HEAD", "OPTIONS")
FORBIDS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Refused(Exception):
    """What is answered instead: a status and a sentence."""

    def __init__(self, status: int, said: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(said)
        self.status, self.headers = status, headers


class Guard:
    """An ASGI application around another. Whatever does not only read needs one of the tokens, before anything else about it is looked at."""

    def __init__(self, app: ASGIApp, tokens: Sequence[str]) -> None:
        self._app, self._digests = app, [_digest(token) for token in tokens]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        answered = _forbidding(send)
        try:
            self._judge(scope, Headers(scope=scope))
            whole = await _whole(Headers(scope=scope), receive)
        except Refused as no:
            await JSONResponse({"error": str(no)}, no.status, no.headers)(scope, receive, answered)
            return
        method = "GET" if scope["method"] == "HEAD" else scope["method"]  # the server leaves out the body
        await self._app({**scope, "method": method}, whole, answered)

    def _judge(self, scope: Scope, headers: Headers) -> None:
        hosts: Collection[str] | None = getattr(scope["app"].state, "hosts", None)
        if hosts is not None and named(headers.get("host", "")) not in hosts:
            raise Refused(421, "this request was meant for another host; ask for localhost, or for the address under `listen:`")
        if scope["method"] in READS:
            return
        self._known(headers.get("authorization", ""))
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            raise Refused(403, "this request was sent by a page of another site")

    def _known(self, said: str) -> None:
        kind, _, token = said.partition(" ")
        ask = {"WWW-Authenticate": 'Bearer realm="watchkeeper"'}
        if not self._digests:
            raise Refused(401, "changing anything over HTTP needs a token, and none is configured; set `token:`", ask)
        if kind.lower() != "bearer" or not token:
            raise Refused(401, "changing anything needs a token; send it as 'Authorization: Bearer TOKEN'", ask)
        found = _digest(token.strip())
        if not any(hmac.compare_digest(found, known) for known in self._digests):
            raise Refused(401, "this token is not the one that is configured", ask)


def named(host: str) -> str:
    """The name in a Host header, without its port: "[::1]:8420" -> "::1"."""
    found = re.fullmatch(r"\[([^\]]*)\](?::\d*)?|([^:]*)(?::\d*)?", host)
    return ((found[1] or found[2] or "") if found else "").rstrip(".").lower()


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


async def _whole(headers: Headers, receive: Receive) -> Receive:
    """The whole body, read before anybody works on it; Refused when it is too long or too slow."""
    if int(headers.get("content-length") or 0) > DRAIN:
        raise _too_long()
    try:
        async with asyncio.timeout(PATIENCE):
            body = await _read(receive)
    except TimeoutError:
        raise Refused(408, f"the body did not arrive within {PATIENCE:g} s", {"Connection": "close"}) from None
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


async def _read(receive: Receive) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if size <= LIMIT:
            parts.append(message.get("body", b""))
        if size > DRAIN or (size > LIMIT and not message.get("more_body", False)):
            raise _too_long()
        if not message.get("more_body", False):
            return b"".join(parts)


def _too_long() -> Refused:
    return Refused(413, f"the body is longer than {LIMIT:,} bytes", {"Connection": "close"})


def _forbidding(send: Send) -> Send:
    async def answered(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in FORBIDS.items():
                headers.setdefault(name, value)
        await send(message)

    return answered
