"""Ask a new version what the users ask the one they get, and let no user meet its answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from agent import Registry, Router, Server, Step, runbook, spell
from runbooks._rollout import asked_by_name, newer, preflight, served_alone


@runbook(asks="Would the new version answer what users ask as well as the one they get, before any of them meets it?")
def shadow(
    service: str,
    router: Router,
    server: Server,
    looks: Sequence[str],
    registry: Registry | None = None,
    *,
    to: str | None = None,
    compare: dict[str, Any] | None = None,
    judge: str = "shadow.compare",
    every: timedelta = timedelta(minutes=1),
    longest: timedelta = timedelta(hours=1),
    patience: timedelta = timedelta(seconds=10),
) -> tuple[Step, ...]:
    """Looks `to` (else the version registered last) over, and has the check `judge` send it what users have sent, until it has decided.

    It changes nothing, so nobody is asked: it ends well when the version surely answers as well, stopped when it surely does not or when that is not
    known within `longest`. Requests come from the log, `every` so often, and not from a mirror at the proxy. `compare` is given to the check besides.
    """
    old = served_alone(service, router)
    new = newer(service, old, to, registry)
    asked_by_name(service, server, new)
    args = {"check": judge, "with": {**(compare or {}), "baseline": old, "candidate": new}, "every": every.total_seconds()}
    why = f"recent requests through {old} and {new}; no answer within {spell(longest)} is no yes"
    return (preflight(new, looks, patience), Step("compare", "check.hold", args, longest, "stop", why))
