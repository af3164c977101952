"""Credentials as HTTP carries them, and the care that none of them is ever printed."""

from __future__ import annotations

import re
import threading
from base64 import b64encode
from collections.abc import Callable, Mapping
from time import monotonic
from typing import TypeAlias
from urllib.parse import parse_qsl, unquote, unquote_plus, urlsplit

from agent.errors import AnswerError
from agent.model import Auth, Json

Headers: TypeAlias = list[tuple[bytes, bytes]]

KINDS = {
    "bearer": ("token",),
    "basic": ("user", "password"),
    "header": ("name", "value"),
    "oauth2": ("token_url", "client_id", "client_secret"),
    "mtls": ("cert", "key"),
}
OPEN = ("name", "user", "token_url", "client_id", "scope", "cert", "key", "ca")  # values of a credential that are no secrets

_SECRET = re.compile(r"token|key|secret|pass|pwd|sig|auth|cred|code", re.IGNORECASE)


def shown(url: str) -> str:
    """A URL fit for an error message or a log: no user, no password, no query value that looks secret."""
    parts = urlsplit(url)
    query = "&".join(f"{name}={'***' if _SECRET.search(name) else value}" for name, value in parse_qsl(parts.query, keep_blank_values=True))
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query, fragment="").geturl()


def within(url: str) -> set[str]:
    """What is secret in a URL, as it is written and as it is meant: the password, and query values whose names look secret."""
    authority = url.partition("//")[2].partition("/")[0].rpartition("@")[0]
    written = [authority.partition(":")[2]]
    for part in url.partition("#")[0].partition("?")[2].split("&"):
        name, _, value = part.partition("=")
        written += [value] if _SECRET.search(name) else []
    return {text for one in written for text in (one, unquote(one), unquote_plus(one)) if text}


def problem(auth: Auth) -> str | None:
    """What is wrong with a credential, without its values; None if nothing is."""
    if auth.kind not in KINDS:
        return f"there is no credential of kind {auth.kind!r}; the kinds are {', '.join(KINDS)}"
    missing = [name for name in KINDS[auth.kind] if not auth.values.get(name)]
    return f"a credential of kind {auth.kind} needs {' and '.join(missing)}" if missing else None


def values(auth: Auth) -> dict[str, str]:
    """Its values without the line break that a secret read from a file often ends in."""
    return {name: value.strip() for name, value in auth.values.items()}


def basic(user: str, password: str) -> bytes:
    """The value of a Basic header."""
    return b"Basic " + b64encode(f"{user}:{password}".encode())


def headers(auth: Auth | None, granted: Callable[[Mapping[str, str]], str]) -> Headers:
    """The headers that show a credential; `granted` fetches the token of an OAuth2 client. mTLS shows its certificate elsewhere."""
    if auth is None or auth.kind == "mtls":
        return []
    value = values(auth)
    match auth.kind:
        case "header":
            return [(value["name"].encode(), value["value"].encode())]
        case "basic":
            return [(b"Authorization", basic(value["user"], value["password"]))]
        case "oauth2":
            return [(b"Authorization", b"Bearer " + granted(value).encode())]
    return [(b"Authorization", b"Bearer " + value["token"].encode())]


def hidden(message: str, auth: Auth | None) -> str:
    """The message without the secrets of a credential: a server may echo what it was shown."""
    if auth is None:
        return message
    value = values(auth)
    secrets = [text for name, text in value.items() if name not in OPEN]
    if auth.kind == "basic":
        secrets.append(basic(value["user"], value["password"]).decode().removeprefix("Basic "))
    for secret in filter(None, secrets):
        message = message.replace(secret, "***")
    return message


class Token:
    """An OAuth2 access token, kept for nine tenths of its life and fetched by one thread at a time."""

    def __init__(self) -> None:
        self._lock, self._text, self._until = threading.Lock(), "", 0.0

    def get(self, fetch: Callable[[], Json], seconds: float) -> str:
        """The token; TimeoutError if another thread has been fetching it for all of `seconds`."""
        if not self._lock.acquire(timeout=seconds):
            raise TimeoutError
        try:
            if monotonic() >= self._until:
                self._keep(fetch())
            return self._text
        finally:
            self._lock.release()

    def forget(self) -> None:
        """It was refused: fetch another one next time."""
        self._until = 0.0

    def _keep(self, answer: Json) -> None:
        text, lasts = (answer.get("access_token"), answer.get("expires_in", 300)) if isinstance(answer, dict) else (None, 0)
        if not isinstance(text, str) or not isinstance(lasts, int | float | str) or not str(lasts).isdigit():
            raise AnswerError("the answer of the token server holds no access_token; check the OAuth2 client and its scope")
        self._text, self._until = text, monotonic() + int(lasts) * 0.9
