"""What every way to give traffic to another version shares: which version it is, and what is done once it has the traffic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from agent import Ref, Registry, Router, Server, Step
from agent.errors import PlanError


def served_alone(service: str, router: Router) -> str:
    """The version that has all the traffic; PlanError while several share it."""
    shares = {version: share for version, share in router.served().items() if share}
    if len(shares) != 1:
        split = ", ".join(f"{version} {share:.0%}" for version, share in sorted(shares.items()))
        raise PlanError(f"the traffic of {service} is split already ({split}); send all of it to one version first: watchkeeper runbook run rollback")
    return next(iter(shares))


def newer(service: str, old: str, to: str | None, registry: Registry | None) -> str:
    """The version to roll out: the one asked for, else the one registered last. PlanError when there is none, or it is the one served."""
    if to is None and registry is not None and (known := registry.versions()):
        to = known[-1].version
    if to is None:
        raise PlanError(f"say which version of {service} to roll out: --param to=VERSION; without it the one registered last is, and there is none")
    if to == old:
        raise PlanError(f"version {to} of {service} already has the traffic")
    return to


def asked_by_name(service: str, server: Server, version: str) -> None:
    """PlanError where one loaded version cannot be asked before it has traffic."""
    if "at" not in server.can:
        raise PlanError(f"the server of {service} cannot be asked about one loaded version, so {version} cannot be tried first; see docs/targets.md")


def preflight(version: str, looks: Sequence[str], patience: timedelta) -> Step:
    """It is loaded and well before anything is sent to it."""
    asked = {"watches": list(looks), "versions": [version]}
    return Step("preflight", "check.passes", asked, patience, "stop", f"version {version} must be loaded and well")


def drained(router: Router, versions: Sequence[str], patience: timedelta) -> Iterator[Step]:
    """What had the traffic has answered all that it was asked, where the router can tell."""
    if versions and "drain" in router.can:
        why = f"what was asked of {' and '.join(versions)} before is still answered there; unload nothing until then"
        yield Step("drain", "router.drained", {"versions": list(versions)}, patience, "go on", why)


def recorded(registry: Registry | None, version: str | Ref, patience: timedelta) -> Iterator[Step]:
    """The registry names it as the one that serves, where it keeps such a thing; traffic depends on no registry."""
    if registry is not None and "record" in registry.can:
        yield Step("record", "registry.record", {"to": version}, patience, "go on", "the registry should name what serves; no traffic depends on it")
