"""Restart a server, and see that it is what it was."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from agent import Process, Router, Server, Step, runbook
from agent.errors import PlanError


@runbook(asks="Is the server what it was, and well, after a restart that no user needs to notice?")
def restart(
    service: str,
    process: Process,
    server: Server,
    looks: Sequence[str],
    router: Router | None = None,
    *,
    version: str | None = None,
    downtime: bool = False,
    patience: timedelta = timedelta(minutes=1),
) -> tuple[Step, ...]:
    """Restarts what runs the server once, proves that it has started anew, and looks it over.

    `version` is the one version that the process serves, where there are others: while it has no traffic nobody notices. `downtime` is permission
    to restart what does have traffic. `patience` is how long the restart, and then the look, may take. What cannot be taken back is not drilled.
    """
    shares = router.served() if router is not None else {named: 1.0} if (named := server.version()) else {}
    served = max(shares, key=lambda name: shares[name]) if shares else None
    if served is None:
        raise PlanError(f"{service} does not say which version it serves, so nothing could tell that it is the same after a restart")
    hit = shares.get(version, 0.0) if version is not None else 1.0
    if hit and not downtime:
        what = f"version {version} of {service} has {hit:.0%} of the traffic" if version else f"{service} would serve nobody meanwhile"
        raise PlanError(f"{what}; drain the version of that process first and name it (--param version=...), or allow it: --param downtime=true")
    apart = version is not None and not hit
    if apart and "at" not in server.can:
        raise PlanError(f"the server of {service} cannot be asked about version {version} alone, so nothing could tell that it is well again")
    look = (
        Step("look", "check.passes", {"watches": list(looks), "versions": [version]}, patience, "stop", f"version {version} must be loaded and well")
        if apart
        else Step("look", "check.serves", {"version": served, "watches": list(looks)}, patience, "undo", "the same version must serve, and be well")
    )
    return (Step("restart", "process.restart", {}, patience, "undo", f"restart {f'version {version}' if version else 'the server'}"), look)
