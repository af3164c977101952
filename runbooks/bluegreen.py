"""Give a new version all of the traffic at once, and stay on watch with the way back open."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from agent import Registry, Router, Server, Step, runbook, spell
from agent.errors import PlanError
from runbooks._rollout import asked_by_name, drained, newer, preflight, recorded, served_alone


@runbook(asks="Is the new version well, and does everything stay well once it has all the traffic?", promotes=True)
def bluegreen(
    service: str,
    router: Router,
    server: Server,
    looks: Sequence[str],
    judges: Sequence[str],
    drill: bool,
    registry: Registry | None = None,
    *,
    to: str | None = None,
    soak: timedelta = timedelta(minutes=10),
    watches: list[str] | None = None,
    patience: timedelta = timedelta(seconds=10),
) -> tuple[Step, ...]:
    """Looks `to` (else the version registered last) over, sends it all traffic in one move, and for `soak` keeps an eye on the service's `watches`.

    Watched are by default those that can blame a release. When one turns bad, or was not seen to be ok by the end, all traffic goes back in one
    move. The old version is drained, and stays loaded as the way back: nothing here unloads it. `patience` is how long each other step may take. A
    drill does the same without the soak, and goes back.
    """
    old = served_alone(service, router)
    new = newer(service, old, to, registry)
    if "switch" not in router.can:
        raise PlanError(f"the router of {service} cannot switch versions; bind one that can (docs/targets.md)")
    asked_by_name(service, server, new)
    watched = [name if "/" in name else f"{service}/{name}" for name in watches] if watches is not None else list(judges)
    if not watched:
        raise PlanError(f"no watch of {service} would notice that version {new} is bad; add one that looks at answers, errors or latency")
    steps = (
        preflight(new, looks, patience),
        Step("switch", "router.point", {"to": new}, patience, "undo", f"send all traffic from {old} to {new} at once"),
        Step("look", "check.serves", {"version": new, "watches": list(looks)}, patience, "undo", "only what is served proves it"),
    )
    return steps if drill else (*steps, _soak(watched, soak, old), *drained(router, [old], patience), *recorded(registry, new, patience))


def _soak(watches: Sequence[str], soak: timedelta, old: str) -> Step:
    """Twice as long at most: a watch that looks seldom may look after the soak is over."""
    why = f"nothing may turn bad for {spell(soak)}; version {old} stays loaded, and gets all traffic back in one move"
    return Step("soak", "check.stays", {"watches": list(watches), "length": soak.total_seconds()}, 2 * soak + timedelta(minutes=1), "undo", why)
