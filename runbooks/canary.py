"""Give a new version a little of the traffic, then more, as long as it is shown to be no worse, and at last all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any

from agent import Registry, Router, Server, Step, runbook, spell
from agent.errors import PlanError
from runbooks._rollout import asked_by_name, drained, newer, preflight, recorded, served_alone

MARGINS = {"errors": 0.005, "latency": 0.02, "predictions": 0.05, "quality": 0.02}  # shares of all requests
WIDEST = 0.5  # a margin of one version's requests
FINEST = 0.01  # no proxy keeps a smaller share


@runbook(asks="Is the new version no worse than the old one with a little of the traffic, then with more, and may it have it all?", promotes=True)
def canary(
    service: str,
    router: Router,
    server: Server,
    looks: Sequence[str],
    drill: bool,
    registry: Registry | None = None,
    *,
    to: str | None = None,
    steps: tuple[float, ...] = (0.05, 0.25, 0.5),
    compare: dict[str, Any] | None = None,
    margins: dict[str, float] | None = None,
    alpha: float = 0.01,
    judge: str = "canary.compare",
    every: timedelta = timedelta(seconds=10),
    longest: timedelta = timedelta(hours=1),
    patience: timedelta = timedelta(seconds=10),
) -> tuple[Step, ...]:
    """Gives `to` (else the version registered last) each share of `steps` in turn, and holds there until the check `judge` has decided.

    Harm shown takes all traffic back to the old version in one move; so does a hold that has not decided within `longest`. A share grows only when
    it is shown that, with the next one, no more than `margins` of all requests are harmed: so a hold allows margin / next share of the new version's
    own requests, and the last one, before all, the margin itself. A good version loses the traffic wrongly with a chance of at most `alpha` over the
    whole canary; a worse one gets all of it with a chance of at most that part of it which one hold has. `compare` is given to the check besides
    (`status`, `latency`, `client` ...), `every` is how often it looks, `patience` how long each other step may take. A drill gives the first share,
    looks, and takes it back: it waits for no evidence.
    """
    old = served_alone(service, router)
    new = newer(service, old, to, registry)
    if "weights" not in router.can:
        raise PlanError(f"the router of {service} cannot split traffic; bind one that can (`weights` in docs/targets.md), or use bluegreen")
    asked_by_name(service, server, new)
    if not steps or not all(later - earlier >= FINEST for earlier, later in pairwise((0.0, *steps, 1.0))):
        raise PlanError(f"steps: {list(steps)} should rise from {FINEST:g} on to less than 1, by at least {FINEST:g} each, such as [0.05, 0.25, 0.5]")
    allowed = {**MARGINS, **(margins or {})}
    if not all(0 < share < 1 for share in (alpha, *allowed.values())):
        raise PlanError(f"alpha {alpha:g} and margins {allowed} are shares, between 0 and 1")
    if twice := sorted({"baseline", "candidate", "alpha", "margins"} & set(compare or {})):
        raise PlanError(f"compare.{twice[0]} is what the canary itself gives to {judge}; leave it out, or give {twice[0]} as its own parameter")
    judged = _Judged(judge, {**(compare or {}), "baseline": old, "candidate": new, "alpha": alpha / len(steps)}, allowed, every, longest)
    if drill:
        again = Step("look", "check.passes", {"watches": list(looks), "versions": [new]}, patience, "undo", "it is well with its first share")
        return (preflight(new, looks, patience), _give(old, new, steps[0], patience), again)
    return (
        preflight(new, looks, patience),
        *(step for share, then in pairwise((*steps, 1.0)) for step in (_give(old, new, share, patience), judged.hold(share, then))),
        Step("promote", "router.point", {"to": new}, patience, "undo", f"send all traffic from {old} to {new}"),
        Step("look", "check.serves", {"version": new, "watches": list(looks)}, patience, "undo", "only what is served proves it"),
        *drained(router, [old], patience),
        *recorded(registry, new, patience),
    )


@dataclass(frozen=True, slots=True)
class _Judged:
    """How a share is judged: by which check, what that is given, and how much of all requests may be harmed."""

    check: str
    given: Mapping[str, Any]
    margins: Mapping[str, float]
    every: timedelta
    longest: timedelta

    def hold(self, share: float, then: float) -> Step:
        """Hold a share until the next one may be given."""
        allowed = {name: round(min(margin / then, WIDEST), 6) for name, margin in self.margins.items()}
        args = {"check": self.check, "with": {**self.given, "margins": allowed}, "every": self.every.total_seconds()}
        why = f"no worse is to be shown before it gets {then:.4g}; harm, or no answer within {spell(self.longest)}, takes all traffic back"
        return Step(f"hold-{_percent(share)}", "check.hold", args, self.longest, "undo", why)


def _give(old: str, new: str, share: float, patience: timedelta) -> Step:
    shares = {old: round(1 - share, 6), new: share}
    return Step(f"give-{_percent(share)}", "router.point", {"to": shares}, patience, "undo", f"send {share:.4g} of the traffic to {new}")


def _percent(share: float) -> str:
    return f"{share * 100:.6g}"
