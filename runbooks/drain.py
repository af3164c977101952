"""Take one version out of the traffic, and wait until it has answered all that it was asked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from agent import Router, Server, Step, runbook
from agent.errors import PlanError


@runbook(asks="Can one version give up its traffic without a request being lost?")
def drain(
    service: str,
    router: Router,
    looks: Sequence[str],
    server: Server | None = None,
    *,
    version: str,
    patience: timedelta = timedelta(seconds=30),
) -> tuple[Step, ...]:
    """Gives the traffic of `version` to the others, in the shares that they have, and waits until no request is under way at it any more.

    The others are looked over first where the server can be asked about one version. `patience` is how long each step may take; what does not drain
    in that time gets its traffic back. Refused while planning when it has no traffic, or all of it, and when the router cannot split traffic or
    cannot tell what is under way.
    """
    shares = {name: share for name, share in router.served().items() if share}
    if version not in shares:
        raise PlanError(f"version {version} of {service} has no traffic; {', '.join(f'{name} has {share:.0%}' for name, share in shares.items())}")
    if len(shares) == 1:
        raise PlanError(f"version {version} of {service} has all the traffic; give it to another one first (rollback --param to=...)")
    if missing := [what for what in ("weights", "drain") if what not in router.can]:
        raise PlanError(f"the router of {service} cannot do that ({' and '.join(missing)}); bind one that can (docs/targets.md)")
    others = {name: share / (1 - shares[version]) for name, share in shares.items() if name != version}
    to = next(iter(others)) if len(others) == 1 else others
    able = list(others) if looks and server is not None and "at" in server.can else []
    return (
        *(Step(f"preflight {name}", "check.passes", _args(looks, name), patience, "stop", f"version {name} must be well") for name in able),
        Step("take out", "router.point", {"to": to}, patience, "undo", f"give the traffic of {version} to {' and '.join(others)}"),
        Step("drain", "router.drained", {"versions": [version]}, patience, "undo", f"what was asked of {version} before is still answered there"),
    )


def _args(looks: Sequence[str], version: str) -> dict[str, list[str]]:
    return {"watches": list(looks), "versions": [version]}
