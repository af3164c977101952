"""Drop a loaded version that nobody needs any more."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from agent import Router, Step, runbook
from agent.errors import PlanError
from runbooks._rollout import drained


@runbook(asks="May this version be unloaded, and is the way back still open then?")
def unload(
    service: str, router: Router, good: Sequence[str], drill: bool, *, version: str, patience: timedelta = timedelta(seconds=10)
) -> tuple[Step, ...]:
    """Unloads `version`, once it has answered all it was asked; each step may take `patience`.

    Refused for what has any traffic, for the version that a rollback would go to, and where the router cannot unload. A rollout that is under way
    holds the router, and this waits for its end. It cannot be taken back, so there is no drill of it.
    """
    if drill:
        raise PlanError("what was unloaded is not loaded again by taking it back, so unload cannot be drilled")
    if "unload" not in router.can:
        raise PlanError(f"the router of {service} cannot unload a version; see docs/targets.md")
    shares = {name: share for name, share in router.served().items() if share}
    if version in shares:
        raise PlanError(f"version {version} of {service} has traffic ({shares[version]:.0%}); send it elsewhere first")
    back = next((name for name in good if set(shares) != {name}), None)
    if version == back:
        raise PlanError(f"version {version} of {service} is what a rollback would go to; it stays loaded until another version is good")
    if back is None:
        raise PlanError(f"no version of {service} but what serves is known to be good, so version {version} may be needed as the way back")
    why = f"version {', '.join(shares)} serves, and version {back} stays loaded as the way back"
    return (*drained(router, [version], patience), Step("unload", "router.unload", {"version": version}, patience, "undo", why))
