"""How PostgreSQL is reached: what a URL and a credential mean to it, and what its refusals mean to us."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib import import_module
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from agent import Json, Locator
from agent.errors import ConfigError, DataError, DeadlineError, DeniedError, PluginError, TargetError, TrustError, UnreachableError, WatchkeeperError
from agent.targets._push import BeyondError

OPTIONS = {"table", "sslmode", "host"}
NEAR = ("localhost", "127.0.0.1", "::1", "")
SETTINGS = "-c standard_conforming_strings=on -c timezone=UTC -c jit=off"
READ_ONLY = " -c default_transaction_read_only=on"
DENIED = re.compile(r"authentication failed|no pg_hba\.conf entry|role .* does not exist|no password supplied|permission denied", re.IGNORECASE)
UNTRUSTED = re.compile(r"certificate|SSL|root\.crt", re.IGNORECASE)


def driver(place: str) -> Any:
    """psycopg; PluginError says how to get it."""
    try:
        return import_module("psycopg")
    except ImportError as problem:
        raise PluginError(f"{place} needs psycopg, which is not installed: pip install 'watchkeeper[postgres]'") from problem


def _parts(at: Locator) -> tuple[SplitResult, dict[str, str]]:
    parts = urlsplit(at.url)
    return parts, {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}


def table(at: Locator) -> str | None:
    """The table that the URL names."""
    return _parts(at)[1].get("table")


def place(at: Locator) -> str:
    """The URL without what it may hold of a credential."""
    parts, query = _parts(at)
    return f"{at.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" + (f"?table={query['table']}" if query.get("table") else "")


def parameters(at: Locator, writing: bool = False) -> dict[str, Json]:
    """What the driver is given, for writing with the credential to act; ConfigError where the URL or the credential is none that PostgreSQL takes."""
    at = replace(at, look=at.act) if writing and at.act else at
    parts, query = _parts(at)
    where = f"{at.service}.{at.role}"
    if parts.password:
        raise ConfigError(f"{where}: a password in the URL would be seen; write it under auth: {{basic: {{user: ..., password: ...}}}}")
    if unknown := set(query) - OPTIONS:
        raise ConfigError(f"{where}: the URL has no option {', '.join(sorted(unknown))}; there is {', '.join(sorted(OPTIONS))}")
    try:
        port = parts.port or 5432
    except ValueError as problem:
        raise ConfigError(f"{where}: {problem}") from problem
    host = query.get("host") or parts.hostname or ""
    named = {"user": unquote(parts.username)} if parts.username else {}
    base = {"host": host, "port": port, "dbname": unquote(parts.path.strip("/")) or "postgres", "client_encoding": "utf8"}
    quiet = {
        "application_name": "watchkeeper",
        "options": SETTINGS + ("" if writing else READ_ONLY),
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
    }
    return {**base, **quiet, **named, **_trust(at, host, query, where), **_credential(at, where)}


def _trust(at: Locator, host: str, query: dict[str, str], where: str) -> dict[str, Json]:
    """TLS is verified, host name and all, unless it is switched off by name; this machine itself is asked with or without."""
    if query.get("sslmode", "disable") != "disable":
        raise ConfigError(
            f"{where}: sslmode may only be disable (in the clear); TLS is verified without it, or not where the target says verify: false"
        )
    if "sslmode" in query:
        return {"sslmode": "disable"}
    if not at.verify:
        return {"sslmode": "require"}
    if at.ca:
        return {"sslmode": "verify-full", "sslrootcert": at.ca}
    return {"sslmode": "prefer"} if host in NEAR or host.startswith("/") else {"sslmode": "verify-full", "sslrootcert": "system"}


def _credential(at: Locator, where: str) -> dict[str, Json]:
    if at.look is None:
        return {}
    values = {name: value.strip() for name, value in at.look.values.items()}
    if at.look.kind == "basic":
        return {"user": values["user"], "password": values["password"]}
    if at.look.kind == "mtls":
        return {"sslcert": values["cert"], "sslkey": values["key"]}
    raise ConfigError(f"{where}: PostgreSQL takes a credential of kind basic or mtls, not {at.look.kind}")


def told(problem: Any, place: str) -> WatchkeeperError:
    """The error of ours that a driver's is. Rows are no business of a log, so no value that the server quotes is repeated."""
    state, words = problem.sqlstate or "", _words(problem)
    if state == "57014":
        return DeadlineError(f"{place} was not read in time; look at less, index the time column, or give the watch longer")
    if state == "42501":
        return DeniedError(f"{place}: {words}; grant SELECT on it to the user that looks")
    if state == "22003":
        return BeyondError(f"{place}: {words}")
    if state and not state.startswith(("08", "28", "53", "57", "58", "3D")):
        return DataError(f"{place} cannot be read: {words}")
    return _unmet(place, words, state)


def _unmet(place: str, words: str, state: str) -> WatchkeeperError:
    """No connection, or one that broke."""
    kind: type[TargetError] = UnreachableError
    if state.startswith("28") or DENIED.search(words):
        kind = DeniedError
    elif "database" in words and "does not exist" in words:
        return DataError(f"{place}: {words}")
    elif "timeout" in words:
        kind = DeadlineError
    elif UNTRUSTED.search(words):
        kind = TrustError
    return kind(f"{place}: {words}")


def _words(problem: Any) -> str:
    """What the server said, on one line; of what is wrong with a value only that, not the value."""
    lines = [line.strip(" -\t") for line in str(problem).splitlines() if line.strip() and not line.strip().startswith("Is the server running")]
    words = problem.diag.message_primary or "; ".join(lines) or type(problem).__name__
    return re.sub(r'"[^"]*"?', "a value", words)[:300] if (problem.sqlstate or "").startswith("22") else str(words)[:300]
