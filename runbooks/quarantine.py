"""Point a service at the last version of its data that was good."""

from __future__ import annotations

from datetime import timedelta

from agent import Data, Ref, Step, runbook
from agent.errors import PlanError


@runbook(asks="Is an earlier version of the data sound, and can the service read that one now?", cures=("data",))
def quarantine(
    service: str,
    data: Data,
    trigger: str | None = None,
    *,
    watch: str | None = None,
    to: str | None = None,
    tries: int = 3,
    patience: timedelta = timedelta(seconds=30),
) -> tuple[Step, ...]:
    """Asks the failing watch of the versions before the one that is read now, the newest first, points at the first on which it is ok, looks again.

    `watch` names the watch that judges, where no failing one asked for this; `to` the version, instead of the newest `tries` before the present one.
    `patience` is how long each step may take. Where nobody can tell in time whether that was any good, it is left so: only what is seen to be wrong
    sends the service back. Refused while planning when there is no such version, and when no watch is named.
    """
    judge = trigger or (f"{service}/{watch}" if watch else None)
    if judge is None:
        raise PlanError(
            f"quarantine needs a watch that tells good data from bad; name it: --param watch=NAME, or runbooks.quarantine.with of {service}"
        )
    now, known = data.point.read(), list(data.versions())
    before = known[: known.index(now)] if now in known else known
    backs = [to] if to else before[::-1][: max(tries, 1)]
    if not backs:
        raise PlanError(f"{service} reads version {now} of its data, and there is none before it to point at")
    if to is not None and (to == now or to not in known):
        raise PlanError(
            f"{service} reads that version already" if to == now else f"there is no version {to} of the data; there is {', '.join(known[-8:])}"
        )
    told = " or else ".join(backs)
    why = f"{judge} as of its last good look, on version {told}: no better there, no quarantine"
    args = {"watch": judge, "versions": backs}
    return (
        Step("counterfactual", "check.sound", args, patience, "stop", why),
        Step("point", "data.point", {"to": Ref("counterfactual", "version")}, patience, "undo", f"read version {told} of the data instead of {now}"),
        Step("look", "check.sound", {"watch": judge}, patience, "undo", "only what is read proves it", "stop"),
    )
