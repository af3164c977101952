"""Knocks at every target with the credential it would look with, and says what each credential can and cannot do; never has an effect."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from agent.config import Config
from agent.credential import shown
from agent.errors import CannotError, DeniedError, TargetError, TrustError, UnreachableError, WatchkeeperError
from agent.model import UTC, Json, Locator, Window
from agent.plugins import TABLES
from agent.targets import connect
from agent.wire import deadline

ANSWERS = {DeniedError: "denied", TrustError: "denied", CannotError: "cannot", UnreachableError: "unreachable", TargetError: "error"}


def knock(config: Config) -> Iterator[dict[str, Json]]:
    """One line for each target of each service: `look` is allowed, denied, unreachable, cannot or error; `act` is about configuration only."""
    for service in config.services.values():
        for role, at in service.targets.items():
            look, said = _looked(at)
            yield {"service": service.name, "role": role, "url": shown(at.url), "look": look, "said": said, "act": _act(config, at)}


def _looked(at: Locator) -> tuple[str, str]:
    try:
        with deadline(at.within):
            adapter = connect(at)
            try:
                return "allowed", _asked(at.role, adapter)
            finally:
                getattr(adapter, "close", lambda: None)()
    except WatchkeeperError as problem:
        return next((word for kind, word in ANSWERS.items() if isinstance(problem, kind)), "error"), str(problem)


def _asked(role: str, adapter: Any) -> str:
    """The smallest question each role can answer."""
    can = f"; can {', '.join(sorted(adapter.can))}" if getattr(adapter, "can", None) else ""
    if role == "server":
        version = adapter.version() if "version" in adapter.can else None
        return f"{'ready' if adapter.ready() else 'not ready'}, version {version or 'not told'}{can}"
    if role == "router":
        return f"sends traffic to {', '.join(f'{name} ({share:.0%})' for name, share in adapter.served().items())}{can}"
    if role == "online":
        return f"{'ready' if adapter.ready() else 'not ready'}{can}"
    if role == "registry":
        return f"{len(adapter.versions())} versions{can}"
    if role in TABLES:
        return f"{len(adapter.kinds())} columns"
    if role == "metrics":
        now = datetime.now(UTC)
        adapter.query(adapter.smallest, Window(now - timedelta(minutes=1), now))
        return f"answers queries{can}"
    if role == "report":
        newest = adapter.newest()
        return f"newest is {newest.name}, written {newest.written_at:%Y-%m-%d %H:%M} UTC" if newest else "no report yet"
    return f"connected, and not asked anything: no question is known for the role {role}"


def _act(config: Config, at: Locator) -> str:
    """Whether it could be told to change anything. Nothing is tried: only an effect would prove it."""
    if at.act is not None:
        return f"configured ({at.act.kind}), not tried"
    if at.look is not None:
        return "no act credential: every action is refused"
    return "open: no credential is configured, and acting would use none" if _acts(config, at) else "nothing to act on"


def _acts(config: Config, at: Locator) -> bool:
    return at.role == "router" or any(need.name == at.role for book in config.runbooks().values() for need in book.needs)
