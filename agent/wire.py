"""HTTP to a target under one total deadline, with a bounded body and verified TLS: what every adapter speaks through.

httpcore, the engine of httpx, speaks the protocol; httpx's client above it would double the CPU of a probe and is left out.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from datetime import timedelta
from functools import cache, lru_cache
from json import dumps
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote, quote_plus, urlencode, urlsplit
from uuid import uuid4

from agent import credential, proxy
from agent.credential import Token, shown
from agent.dial import NAMES, Resolver, Stream, Trust, dial, explained, left, secure
from agent.errors import AnswerError, CannotError, ConfigError, DeadlineError, DeniedError, ServerError, TargetError, WatchkeeperError
from agent.model import PROBE_HEADER, PROBE_PREFIX, Auth, Json, Locator, Sent
from agent.reply import Reply, bounded, inflated

if TYPE_CHECKING:
    import httpcore

__all__ = ["MAX_BYTES", "NAMES", "Reply", "Resolver", "Wire", "deadline", "probe_id", "remaining", "shown"]

MAX_BYTES = 8 * 2**20
LINES = 2  # connections one Wire may hold
IDLE, AGE = 75.0, 300.0  # seconds; an old connection would hide that the name has moved, or that nobody new is let in
READS = ("GET", "HEAD")
SAID_ALWAYS = [
    (b"User-Agent", b"watchkeeper"),
    (b"Accept", b"*/*"),
    (b"Accept-Encoding", b"identity"),
    (PROBE_HEADER.encode(), b"watchkeeper"),
]

Params = Mapping[str, str] | Sequence[tuple[str, str]]  # pairs, where a name may come twice

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


@cache
def _kept_below() -> int:
    """Half of the descriptors this process may have. They are given out lowest first, so a higher one means that half are in use."""
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if most == resource.RLIM_INFINITY else most // 2


class _Line:
    """One connection to a target, when it was opened and when it was last used."""

    __slots__ = ("connection", "opened_at", "stream", "used_at")

    def __init__(self, origin: httpcore.Origin, stream: Stream) -> None:
        import httpcore

        self.stream, self.opened_at, self.used_at = stream, monotonic(), monotonic()
        self.connection = httpcore.HTTP11Connection(origin, stream)  # type: ignore[arg-type]  # has all that is called of a NetworkStream

    def fit(self, now: float) -> bool:
        """May be used again: young enough, still open, and nothing unasked for was said that would be taken for the next answer."""
        unread, _ = self.connection._h11_state.trailing_data
        return now - self.used_at < IDLE and now - self.opened_at < AGE and not unread and not self.stream.readable()

    def exchange(self, request: httpcore.Request, end: float, limit: int) -> tuple[int, dict[str, str], bytes]:
        """Sends a request and reads the whole answer: status, headers, body."""
        self.stream.begin(end)
        response = self.connection.handle_request(request)
        try:
            headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            body = bounded(self._timely(response.iter_stream()), limit)
        finally:
            response.close()
        if response.status >= 500:
            self.connection.close()  # frameworks drop the connection then without saying so, and the next request on it would be lost
        self.used_at = monotonic()
        return response.status, headers, inflated(body, headers.get("content-encoding", ""), limit)

    def _timely(self, parts: Iterable[bytes]) -> Iterator[bytes]:
        for part in parts:
            left(self.stream.end)  # one read can hold ten thousand chunks, and taking them apart takes time too
            yield part

    def unheard(self, method: str, error: Exception) -> bool:
        """The server had closed this kept connection: it answered nothing, and asking again cannot do a thing twice."""
        return not isinstance(error, TimeoutError) and self.stream.got == 0 and (method in READS or self.stream.sent == 0)


class Wire:
    """Speaks HTTP to one target. Cheap to make, connects when first used, keeps at most two connections, may be shared by threads.

    `at.look` opens what is only read; `acting=True` shows `at.act` instead and is refused where only `look` is configured.
    Proxies in the environment are used only with the option `proxy: environment` (or the URL of one): a forgotten variable
    would make every target look down at once, and hand their credentials to a third party.
    """

    __slots__ = ("_acting", "_free", "_host", "_names", "_parts", "_proxy", "_room", "_said", "at", "max_bytes")

    def __init__(self, at: Locator, *, names: Resolver = NAMES, max_bytes: int = MAX_BYTES) -> None:
        self.at, self._names, self.max_bytes = at, names, max_bytes
        self._parts = _checked(at)
        host = self._parts.hostname or ""
        self._host = host.encode("ascii" if host.isascii() else "idna")
        self._proxy = proxy.chosen(at.options.get("proxy"), self._parts.scheme, host)
        self._said = [(b"Host", self._named()), *SAID_ALWAYS]
        if self._proxy and self._parts.scheme == "http":
            self._said += proxy.credential(self._proxy)
        self._free: list[_Line] = []
        self._room = threading.BoundedSemaphore(LINES)
        self._acting: Wire | None = None

    def __repr__(self) -> str:
        return f"Wire({shown(self.at.address)})"

    def get(self, path: str = "", params: Params | None = None, headers: Mapping[str, str] | None = None, **more: Any) -> Reply:
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
        params: Params | None = None,
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
            raise wire._told(error, f"{method} {shown(url)}") from None  # the one before may still hold a secret

    def sent(
        self, method: str, path: str = "", *, params: Params | None = None, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Sent:
        """What `request` would put on the wire, for whoever sends it many times over, and nothing is sent now (but for an OAuth2 token).

        Host and Content-Length are left to the sender. CannotError for what no request shows by itself: a client certificate, a proxy.
        """
        if self._proxy or (self.at.look and self.at.look.kind == "mtls"):
            what = "through a proxy" if self._proxy else "with a client certificate"
            raise CannotError(f"{self.at.service}.{self.at.role}: requests are not sent many times over {what}; name an address that needs none")
        target = self._target(path, params)
        url = f"{self._parts.scheme}://{self._parts.netloc}{target}"
        try:
            with deadline(self.at.within):
                said = self._showing(headers or {})
        except TimeoutError as error:
            raise DeadlineError(f"{method} {shown(url)}: no token was granted in time") from error
        except (TargetError, ConfigError) as error:
            raise self._told(error, f"{method} {shown(url)}") from None
        shown_as, trust = {name.decode(): value.decode() for name, value in said if name != b"Host"}, self._trust()
        return Sent(method, url, shown_as, content or b"", verify=trust.verify, ca=trust.ca)

    def close(self) -> None:
        """Closes the connections; a later exchange opens new ones."""
        with contextlib.suppress(IndexError):
            while line := self._free.pop():
                line.connection.close()
        if self._acting is not None:
            self._acting.close()

    def _hand(self) -> Wire:
        """The Wire that acts: another credential never shares a connection with the one that looks."""
        if self.at.act is None and self.at.look is not None:
            raise DeniedError(f"{self.at.service}.{self.at.role} may only be looked at: no credential to act with; configure `act` beside `look`")
        if self._acting is None and self.at.act is not None:
            self._acting = Wire(replace(self.at, look=self.at.act, act=None), names=self._names, max_bytes=self.max_bytes)
        return self._acting or self

    def _named(self) -> bytes:
        host = b"[" + self._host + b"]" if b":" in self._host else self._host
        return host + (f":{self._parts.port}".encode() if self._parts.port else b"")

    def _target(self, path: str, params: Params | None) -> str:
        base, query = self._parts.path, self._parts.query if not path else ""
        if path:
            path, _, query = path.partition("?")
            base = path if path.startswith("/") else f"{base.rstrip('/')}/{path}"
        query = "&".join(filter(None, (query, urlencode(params) if params else "")))
        return quote(base or "/", safe="/%:@!$&'()*+,;=~-._") + (f"?{query}" if query else "")

    def _exchange(self, method: str, target: str, headers: Mapping[str, str], content: bytes | None, url: str) -> Reply:
        begun, end = monotonic(), _end.get() or 0.0
        try:
            request = self._asking(method, url if self._proxy and self._parts.scheme == "http" else target, headers, content)
            if not self._room.acquire(timeout=left(end)):
                raise DeadlineError(f"{LINES} other exchanges with this target took all of the {end - begun:.3g} s")
            try:
                status, answered, body = self._spoken(request, method, end)
            finally:
                self._room.release()
        except TimeoutError as error:
            raise DeadlineError(f"the {end - begun:.3g} s for it were over before it was asked") from error
        if status == 401 and self.at.look and self.at.look.kind == "oauth2":
            self._granted(credential.values(self.at.look), forget=True)
        return Reply(status, answered, body, monotonic() - begun, shown(url))

    def _asking(self, method: str, target: str, headers: Mapping[str, str], content: bytes | None) -> httpcore.Request:
        import httpcore

        said = self._showing(headers)
        if content is not None or method not in READS:
            said.append((b"Content-Length", str(len(content or b"")).encode()))
        where = httpcore.URL(scheme=self._parts.scheme.encode(), host=self._host, port=self._parts.port, target=target.encode())
        return httpcore.Request(method, where, headers=said, content=content)

    def _showing(self, headers: Mapping[str, str]) -> credential.Headers:
        said = self._said + credential.headers(self.at.look, self._granted)
        return said + [(name.encode(), value.encode()) for name, value in headers.items()]

    def _granted(self, values: Mapping[str, str], forget: bool = False) -> str:
        token, fetch = _grant(tuple(sorted(values.items())), self._names)
        if forget:
            token.forget()
            return ""
        return token.get(fetch, left(_end.get() or 0.0))

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
            if line.connection.is_idle() and line.stream.socket.fileno() < _kept_below():
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
        safe = self._parts.scheme == "https"
        host, port = self._parts.hostname or "", self._parts.port or (443 if safe else 80)
        first = (self._proxy.hostname or "", self._proxy.port or 80) if self._proxy else (host, port)
        sock = dial(*first, end, self._names)
        if safe and self._proxy:
            proxy.tunnel(sock, self._proxy, host, port, end)
        if safe:
            sock = secure(sock, host, self._trust(), end)
        return _Line(origin, Stream(sock, end))

    def _trust(self) -> Trust:
        files = self.at.look.values if self.at.look and self.at.look.kind == "mtls" else {}
        ca, cert, key = (str(Path(self.at.folder, name)) if name else None for name in (self.at.ca, files.get("cert"), files.get("key")))
        return Trust(self.at.verify, ca, cert, key)

    def _told(self, error: WatchkeeperError, what: str) -> WatchkeeperError:
        """The same error with what was asked in front and nothing secret left in it."""
        message = credential.hidden(f"{what}: {error}", self.at.look)
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
        if problem := credential.problem(auth):
            raise ConfigError(f"{whose}: {problem}")
    return parts


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


@lru_cache(maxsize=1024)
def _grant(values: tuple[tuple[str, str], ...], names: Resolver) -> tuple[Token, Callable[[], Json]]:
    """One token, and how to fetch it, for each OAuth2 client in the whole process: a thousand targets behind one client share it."""
    value = dict(values)
    client = Auth("basic", {"user": quote_plus(value["client_id"]), "password": quote_plus(value["client_secret"])})
    form = {"grant_type": "client_credentials"} | ({"scope": value["scope"]} if value.get("scope") else {})
    wire = Wire(Locator("oauth2", "token", value["token_url"], look=client, ca=value.get("ca"), within=timedelta(minutes=1)), names=names)
    return Token(), lambda: wire.post(content=urlencode(form).encode(), headers={"Content-Type": "application/x-www-form-urlencoded"}).json()
