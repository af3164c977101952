"""HTTP to a target under one total deadline, with a bounded body and verified TLS: what every adapter speaks through.

httpcore, the engine of httpx, speaks the protocol; httpx's client above it would double the CPU of a probe and is left out.
"""

from __future__ import annotations

import contextlib
import re
import threading
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from json import dumps
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, quote, quote_plus, urlencode, urlsplit
from uuid import uuid4

from agent.dial import NAMES, Resolver, Stream, Trust, dial, explained, left, secure
from agent.errors import AnswerError, ConfigError, DeadlineError, DeniedError, ServerError, TargetError, WatchkeeperError
from agent.model import PROBE_HEADER, PROBE_PREFIX, Auth, Json, Locator, spell
from agent.reply import Reply, bounded, inflated

if TYPE_CHECKING:
    import httpcore

__all__ = ["MAX_BYTES", "Reply", "Resolver", "Wire", "deadline", "probe_id", "remaining", "shown"]

MAX_BYTES = 8 * 2**20
LINES = 2  # connections one Wire may hold
IDLE, AGE = 75.0, 300.0  # seconds; an old connection would hide that the name has moved, or that nobody new is let in
READS = ("GET", "HEAD")
KINDS = {
    "bearer": ("token",),
    "basic": ("user", "password"),
    "header": ("name", "value"),
    "oauth2": ("token_url", "client_id", "client_secret"),
    "mtls": ("cert", "key"),
}
SAID_ALWAYS = [
    (b"User-Agent", b"watchkeeper"),
    (b"Accept", b"*/*"),
    (b"Accept-Encoding", b"identity"),
    (PROBE_HEADER.encode(), b"watchkeeper"),
]

_end: ContextVar[float | None] = ContextVar("deadline", default=None)


@contextlib.contextmanager
def deadline(within: timedelta) -> Iterator[None]:
    """All exchanges made inside, in this thread, share this one total time; an inner deadline is never later than an outer one."""
    outer, end = _end.get(), monotonic() + within.total_seconds()
    token = _end.set(end if outer is None else min(outer, end))
    try:
        yield
    finally:
        _end.reset(token)


def remaining() -> float | None:
    """Seconds left of the deadline around the caller, never below 0; None without one."""
    end = _end.get()
    return None if end is None else max(end - monotonic(), 0.0)


def probe_id() -> str:
    """A unique request id that `exclude:` can recognise by its prefix."""
    return PROBE_PREFIX + uuid4().hex


_SECRET = re.compile(r"token|key|secret|pass|pwd|sig|auth|cred|code", re.IGNORECASE)


def shown(url: str) -> str:
    """A URL fit for an error message or a log: no user, no password, no query value that looks secret."""
    parts = urlsplit(url)
    query = "&".join(f"{name}={'***' if _SECRET.search(name) else value}" for name, value in parse_qsl(parts.query, keep_blank_values=True))
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query, fragment="").geturl()


class _Line:
    """One connection to a target, when it was opened and when it was last used."""

    __slots__ = ("connection", "opened_at", "stream", "used_at")

    def __init__(self, origin: httpcore.Origin, stream: Stream) -> None:
        import httpcore

        self.stream, self.opened_at, self.used_at = stream, monotonic(), monotonic()
        self.connection = httpcore.HTTP11Connection(origin, stream)  # type: ignore[arg-type]  # has all that is called of a NetworkStream

    def fit(self, now: float) -> bool:
        """May be used again."""
        return now - self.used_at < IDLE and now - self.opened_at < AGE and not self.stream.readable()

    def exchange(self, request: httpcore.Request, end: float, limit: int) -> tuple[int, dict[str, str], bytes]:
        """Sends a request and reads the whole answer: status, headers, body."""
        self.stream.begin(end)
        response = self.connection.handle_request(request)
        try:
            headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            body = bounded(response.iter_stream(), limit)
        finally:
            response.close()
        self.used_at = monotonic()
        return response.status, headers, inflated(body, headers.get("content-encoding", ""), limit)

    def unheard(self, method: str, error: Exception) -> bool:
        """The server had closed this kept connection: it answered nothing, and asking again cannot do a thing twice."""
        return not isinstance(error, TimeoutError) and self.stream.got == 0 and (method in READS or self.stream.sent == 0)


class Wire:
    """Speaks HTTP to one target. Cheap to make, connects when first used, keeps at most two connections, may be shared by threads.

    `at.look` opens what is only read; `acting=True` shows `at.act` instead and is refused where only `look` is configured.
    Proxies in the environment are not used: a forgotten variable would make every target look down and hand its credential to a third party.
    """

    __slots__ = ("_acting", "_free", "_names", "_parts", "_room", "_said", "at", "max_bytes")

    def __init__(self, at: Locator, *, names: Resolver = NAMES, max_bytes: int = MAX_BYTES) -> None:
        self.at, self._names, self.max_bytes = at, names, max_bytes
        self._parts = _checked(at)
        self._said = [(b"Host", self._parts.netloc.encode()), *SAID_ALWAYS]
        self._free: list[_Line] = []
        self._room = threading.BoundedSemaphore(LINES)
        self._acting: Wire | None = None

    def __repr__(self) -> str:
        return f"Wire({shown(self.at.address)})"

    def get(self, path: str = "", params: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None, **more: Any) -> Reply:
        """GET; see `request`."""
        return self.request("GET", path, params=params, headers=headers, **more)

    def post(self, path: str = "", json: Json = None, content: bytes | None = None, headers: Mapping[str, str] | None = None, **more: Any) -> Reply:
        """POST; see `request`."""
        return self.request("POST", path, json=json, content=content, headers=headers, **more)

    def request(
        self,
        method: str,
        path: str = "",
        *,
        params: Mapping[str, str] | None = None,
        json: Json = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        acting: bool = False,
        anyway: bool = False,
    ) -> Reply:
        """One exchange within `at.within` and every `deadline` around it, counted from this call to the last byte of the body.

        `path`: "" is the target's URL itself, "/x" starts at its root, "x" goes below it. The body is `json` or `content`.
        A status other than 2xx is raised: DeniedError (401, 403), ServerError (5xx), AnswerError; `anyway` returns it. No redirect is followed.
        A kept connection found closed is replaced once, if `method` only reads or nothing was sent.
        """
        wire = self._hand() if acting else self
        if json is not None:
            content, headers = dumps(json, allow_nan=False, separators=(",", ":")).encode(), {"Content-Type": "application/json", **(headers or {})}
        target = wire._target(path, params)
        url = f"{wire._parts.scheme}://{wire._parts.netloc}{target}"
        try:
            with deadline(wire.at.within):
                reply = wire._exchange(method, target, headers or {}, content, url)
            return reply if anyway or 200 <= reply.status < 300 else _judged(reply)
        except (TargetError, ConfigError) as error:
            raise wire._told(error, f"{method} {shown(url)}") from error

    def close(self) -> None:
        """Closes the connections; a later exchange opens new ones."""
        while self._free:
            self._free.pop().connection.close()
        if self._acting is not None:
            self._acting.close()

    def _hand(self) -> Wire:
        """The Wire that acts: another credential never shares a connection with the one that looks."""
        if self.at.act is None and self.at.look is not None:
            raise DeniedError(f"{self.at.service}.{self.at.role} may only be looked at: no credential to act with; configure `act` beside `look`")
        if self._acting is None and self.at.act is not None:
            self._acting = Wire(replace(self.at, look=self.at.act, act=None), names=self._names, max_bytes=self.max_bytes)
        return self._acting or self

    def _target(self, path: str, params: Mapping[str, str] | None) -> str:
        base, query = self._parts.path, self._parts.query if not path else ""
        if path:
            path, _, query = path.partition("?")
            base = path if path.startswith("/") else f"{base.rstrip('/')}/{path}"
        query = "&".join(filter(None, (query, urlencode(params) if params else "")))
        return quote(base or "/", safe="/%:@!$&'()*+,;=~-._") + (f"?{query}" if query else "")

    def _exchange(self, method: str, target: str, headers: Mapping[str, str], content: bytes | None, url: str) -> Reply:
        import httpcore

        begun, end = monotonic(), _end.get() or 0.0
        said = [(name.encode(), value.encode()) for name, value in headers.items()]
        if content is not None or method not in READS:
            said.append((b"Content-Length", str(len(content or b"")).encode()))
        parts = self._parts
        where = httpcore.URL(scheme=parts.scheme.encode(), host=_host(parts), port=parts.port, target=target.encode())
        try:
            request = httpcore.Request(method, where, headers=self._said + self._credential() + said, content=content)
            if not self._room.acquire(timeout=left(end)):
                raise DeadlineError(f"{LINES} exchanges with this target took all of {spell(self.at.within)}")
            try:
                status, answered, body = self._spoken(request, method, end)
            finally:
                self._room.release()
        except TimeoutError as error:
            raise DeadlineError(f"not over in {end - begun:.3g} s") from error
        return Reply(status, answered, body, monotonic() - begun, shown(url))

    def _spoken(self, request: httpcore.Request, method: str, end: float) -> tuple[int, dict[str, str], bytes]:
        kept = self._kept()
        answer = self._over(kept, request, end, method) if kept else None
        return answer or self._over(self._opened(request.url.origin, end), request, end)  # type: ignore[return-value]

    def _over(self, line: _Line, request: httpcore.Request, end: float, again: str = "") -> tuple[int, dict[str, str], bytes] | None:
        """One exchange over one connection; None if that was `again`, a method to repeat, and the server had closed it before."""
        import httpcore

        try:
            return line.exchange(request, end, self.max_bytes)
        except (OSError, httpcore.ProtocolError) as error:
            if again and line.unheard(again, error):
                return None
            raise explained(error, line.stream) from (None if isinstance(error, httpcore.LocalProtocolError) else error)
        finally:
            if line.connection.is_idle():
                self._free.append(line)
            else:
                line.connection.close()

    def _kept(self) -> _Line | None:
        with contextlib.suppress(IndexError):  # another thread took the last one
            while line := self._free.pop():
                if line.fit(monotonic()):
                    return line
                line.connection.close()
        return None

    def _opened(self, origin: httpcore.Origin, end: float) -> _Line:
        host, port = self._parts.hostname or "", self._parts.port or (443 if self._parts.scheme == "https" else 80)
        sock = dial(host, port, end, self._names)
        if self._parts.scheme == "https":
            sock = secure(sock, host, self._trust(), end)
        return _Line(origin, Stream(sock, end))

    def _trust(self) -> Trust:
        files = self.at.look.values if self.at.look and self.at.look.kind == "mtls" else {}
        ca, cert, key = (str(Path(self.at.folder, name)) if name else None for name in (self.at.ca, files.get("cert"), files.get("key")))
        return Trust(self.at.verify, ca, cert, key)

    def _credential(self) -> list[tuple[bytes, bytes]]:
        if self.at.look is None or self.at.look.kind == "mtls":
            return []
        value = {name: text.strip() for name, text in self.at.look.values.items()}  # a secret read from a file often ends in a line break
        match self.at.look.kind:
            case "header":
                return [(value["name"].encode(), value["value"].encode())]
            case "basic":
                return [(b"Authorization", b"Basic " + b64encode(f"{value['user']}:{value['password']}".encode()))]
            case "oauth2":
                return [(b"Authorization", b"Bearer " + _grant(tuple(sorted(value.items())), self._names).token().encode())]
        return [(b"Authorization", b"Bearer " + value["token"].encode())]

    def _told(self, error: WatchkeeperError, what: str) -> WatchkeeperError:
        """The same error with what was asked in front and nothing secret left in it: a server may echo the credential it was shown."""
        message = f"{what}: {error}"
        auth = self.at.look
        secrets = [value.strip() for name, value in auth.values.items() if _SECRET.search(name) or name == "value"] if auth else []
        if auth and auth.kind == "basic":
            secrets.append(self._credential()[0][1].decode().removeprefix("Basic "))
        for secret in filter(None, secrets):
            message = message.replace(secret, "***")
        return type(error)(message, error.status) if isinstance(error, AnswerError) else type(error)(message)


def _checked(at: Locator) -> SplitResult:
    """The target's URL in parts; ConfigError for what could never work, said before anything is sent."""
    whose = f"{at.service}.{at.role}"
    try:
        parts = urlsplit(at.address)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine:
        raise ConfigError(f"{whose}: {shown(at.address)!r} is not an HTTP address; write http://host:port/path or https://...")
    if "@" in parts.netloc:
        raise ConfigError(f"{whose}: the URL holds a credential, and URLs are printed; move it to `look` as kind basic with user and password")
    for auth in filter(None, (at.look, at.act)):
        missing = [name for name in KINDS.get(auth.kind, ("kind",)) if not auth.values.get(name)]
        if missing:
            raise ConfigError(f"{whose}: a credential of kind {auth.kind!r} needs {', '.join(missing)}; the kinds are {', '.join(KINDS)}")
    return parts


def _host(parts: SplitResult) -> bytes:
    host = parts.hostname or ""
    return host.encode("ascii" if host.isascii() else "idna")


def _judged(reply: Reply) -> Reply:
    """Raises what a status other than 2xx means."""
    said = f": {excerpt!r}" if (excerpt := reply.excerpt()) else ""
    if reply.status in (401, 403):
        raise DeniedError(f"{reply.status}, this credential may not do that{said}; check what it is allowed to do")
    if reply.status >= 500:
        raise ServerError(f"{reply.status}, the server says it is broken{said}", reply.status)
    if 300 <= reply.status < 400:
        to = shown(reply.headers.get("location", "nowhere"))
        raise AnswerError(
            f"{reply.status}, a redirect to {to}, is not followed so that credentials stay where they belong; configure that URL", reply.status
        )
    raise AnswerError(f"{reply.status} is not the expected answer{said}", reply.status)


class _Grant:
    """One OAuth2 client: its access token, fetched when needed and kept until shortly before it expires."""

    def __init__(self, values: Mapping[str, str], names: Resolver) -> None:
        client = {"user": quote_plus(values["client_id"]), "password": quote_plus(values["client_secret"])}
        at = Locator("oauth2", "token", values["token_url"], look=Auth("basic", client), ca=values.get("ca"), within=timedelta(minutes=1))
        self._wire, self._scope = Wire(at, names=names), values.get("scope", "")
        self._lock, self._token, self._until = threading.Lock(), "", 0.0

    def token(self) -> str:
        """The token, fetched within the deadline of the exchange that needs it."""
        if not self._lock.acquire(timeout=left(_end.get() or 0.0)):
            raise TimeoutError
        try:
            if monotonic() >= self._until:
                self._fetch()
            return self._token
        finally:
            self._lock.release()

    def _fetch(self) -> None:
        form = {"grant_type": "client_credentials"} | ({"scope": self._scope} if self._scope else {})
        reply = self._wire.post(content=urlencode(form).encode(), headers={"Content-Type": "application/x-www-form-urlencoded"})
        said = reply.json()
        if not isinstance(said, dict) or not isinstance(said.get("access_token"), str):
            raise AnswerError(f"{reply.url}: the answer holds no access_token; check the OAuth2 client and its scope", reply.status)
        lasts = float(said.get("expires_in") or 300)
        self._token, self._until = said["access_token"], monotonic() + lasts * 0.9


@lru_cache(maxsize=1024)
def _grant(values: tuple[tuple[str, str], ...], names: Resolver) -> _Grant:
    """One grant a client for the whole process: a thousand targets behind one client fetch one token."""
    return _Grant(dict(values), names)
