"""Take the traffic back to the last version that was good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from agent import Ref, Registry, Router, Server, Step, runbook
from agent.errors import PlanError
from runbooks._rollout import asked_by_name, drained, recorded


@runbook(asks="Does the last known good version do better, and if so, can it have the traffic back now?", cures=("answers", "errors", "latency"))
def rollback(
    service: str,
    router: Router,
    server: Server,
    good: Sequence[str],
    looks: Sequence[str],
    drill: bool = False,
    trigger: str | None = None,
    registry: Registry | None = None,
    most: float = 1.0,
    *,
    to: str | None = None,
    tries: int = 3,
    patience: timedelta = timedelta(seconds=10),
) -> tuple[Step, ...]:
    """Asks the failing check of the last known good version (the counterfactual), looks it over, flips, and looks at what is served.

    `to` names the version instead of the newest good ones, of which at most `tries` are asked in turn until one is better and well; `patience` is
    how long each step may take. Only what is seen to be wrong sends the traffic back: where nobody can tell in time, it stays at the good version. A
    drill that may move `most` of the traffic moves that share; a registry that keeps which version is in force is told at the end, except by a
    drill. Refused while planning when there is no good version, when the router cannot switch, or when the server cannot be
    asked about one loaded version.
    """
    shares = {version: share for version, share in router.served().items() if share}
    alone = next(iter(shares)) if len(shares) == 1 else None
    backs = [to] if to else [version for version in good if version != alone][: max(tries, 1)]
    if not backs:
        raise PlanError(
            f"no version of {service} but the one served ({alone}) is known to be good, so there is nothing to roll back to; "
            f"one becomes good by serving well for its soak, or by a person's word: watchkeeper good {service} VERSION --by NAME"
        )
    if to is not None and to == alone:
        raise PlanError(f"version {to} of {service} already has the traffic")
    if "switch" not in router.can:
        raise PlanError(f"the router of {service} cannot switch versions; bind one that can (docs/targets.md)")
    asked_by_name(service, server, backs[0])
    if most < 1:
        return _a_part(service, router, shares, backs[0], looks, most, patience)
    back: str | Ref = backs[0] if len(backs) == 1 else Ref("preflight", "version")
    asked: list[str] | Ref = Ref("counterfactual", "versions") if trigger and len(backs) > 1 else backs
    judges = [trigger] if trigger else list(looks)
    left = [version for version in shares if version not in backs]
    return (
        *(_only_if_better(trigger, backs, looks, patience) if trigger else ()),
        Step("preflight", "check.passes", {"watches": list(looks), "versions": asked}, patience, "stop", _well(backs)),
        Step("flip", "router.point", {"to": back}, patience, "undo", _sent(shares, backs), "stop"),
        Step("look", "check.serves", {"version": back, "watches": judges}, patience, "undo", "only what is served proves it", "stop"),
        *drained(router, left, patience),
        *(() if drill else recorded(registry, back, patience)),
    )


def _only_if_better(trigger: str, backs: Sequence[str], looks: Sequence[str], patience: timedelta) -> tuple[Step, ...]:
    why = f"the failing check on the same inputs through version {' or else '.join(backs)}: no better there, no rollback"
    args = {"watch": trigger, "watches": list(looks), "versions": list(backs)}
    return (Step("counterfactual", "check.better", args, patience, "stop", why),)


def _well(backs: Sequence[str]) -> str:
    return f"version {' or else '.join(backs)} must be loaded and well"


def _sent(shares: Mapping[str, float], backs: Sequence[str]) -> str:
    return f"send all traffic from {' and '.join(shares)} to {' or else '.join(backs)}"


def _a_part(
    service: str, router: Router, shares: Mapping[str, float], back: str, looks: Sequence[str], most: float, patience: timedelta
) -> tuple[Step, ...]:
    """What a drill does that may move only so much of the traffic: the same looks and the same flip, of that share."""
    if "weights" not in router.can:
        raise PlanError(
            f"the router of {service} cannot move {most:.0%} of the traffic alone (drills.most); let a drill move all of it, or bind one that can"
        )
    to = {version: share * (1 - most) for version, share in shares.items() if version != back}
    to[back] = 1 - sum(to.values())
    well = {"watches": list(looks), "versions": [back]}
    return (
        Step("preflight", "check.passes", well, patience, "stop", _well([back])),
        Step("flip", "router.point", {"to": to}, patience, "undo", f"send {most:.0%} of the traffic to {back}"),
        Step("look", "check.passes", well, patience, "undo", "it is well with traffic, too"),
    )
