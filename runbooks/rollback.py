"""Take the traffic back to the last version that was good."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from agent import Router, Server, Step, runbook
from agent.errors import PlanError


@runbook(asks="Does the last known good version do better, and if so, can it have the traffic back now?", cures=("answers", "errors", "latency"))
def rollback(
    service: str,
    router: Router,
    server: Server,
    good: Sequence[str],
    looks: Sequence[str],
    trigger: str | None = None,
    *,
    to: str | None = None,
    patience: timedelta = timedelta(seconds=10),
) -> tuple[Step, ...]:
    """Asks the failing check of the last known good version (the counterfactual), looks it over, flips, and looks at what is served.

    `to` names the version instead of the newest good one; `patience` is how long each step may take. Refused while planning when there
    is no good version, when the router cannot switch, or when the server cannot be asked about one loaded version.
    """
    shares = router.served()
    served = max(shares, key=lambda version: shares[version]) if shares else None
    back = to or next((version for version in good if version != served), None)
    if back is None:
        raise PlanError(
            f"no version of {service} but the one served ({served}) is known to be good, so there is nothing to roll back to; "
            f"one becomes good by serving well for its soak, or by a person's word: watchkeeper good {service} VERSION --by NAME"
        )
    if back == served:
        raise PlanError(f"version {back} of {service} already has the traffic")
    if "switch" not in router.can:
        raise PlanError(f"the router of {service} cannot switch versions; bind one that can (docs/targets.md)")
    if "at" not in server.can:
        raise PlanError(f"the server of {service} cannot be asked about one loaded version, so {back} cannot be tried first; see docs/targets.md")
    return (
        *(_only_if_better(trigger, back, patience) if trigger else ()),
        Step("preflight", "check.passes", {"watches": list(looks), "version": back}, patience, "stop", f"version {back} must be loaded and well"),
        Step("flip", "router.point", {"to": back}, patience, "undo", f"send all traffic from {served} to {back}"),
        Step(
            "look",
            "check.serves",
            {"version": back, "watches": [trigger] if trigger else list(looks)},
            patience,
            "undo",
            "only what is served proves it",
        ),
    )


def _only_if_better(trigger: str, back: str, patience: timedelta) -> tuple[Step, ...]:
    why = f"the failing check on the same inputs through version {back}: no better there, no rollback"
    return (Step("counterfactual", "check.better", {"watch": trigger, "version": back}, patience, "stop", why),)
