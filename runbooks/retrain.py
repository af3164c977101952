"""Learn from the newest rows, without forgetting what was learned before; what is no better serves nobody."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from agent import Columns, Model, Ref, Registry, Router, Server, Step, Trainer, runbook
from runbooks._candidate import MARGIN, beside, following, rows_of


@runbook(asks="Would a model that learned from the newest rows be better, has it forgotten nothing, and may it serve?", cures=("stale",))
def retrain(
    service: str,
    trainer: Trainer,
    registry: Registry,
    now: datetime,
    upstream: Sequence[str],
    drill: bool,
    router: Router | None = None,
    server: Server | None = None,
    train: Columns | None = None,
    live: Columns | None = None,
    labels: Columns | None = None,
    old: Columns | None = None,
    new: Columns | None = None,
    guard: Columns | None = None,
    champion: Model | None = None,
    *,
    gate: dict[str, Any],
    model: dict[str, Any] | None = None,
    file: str = "model.onnx",
    parameters: dict[str, Any] | None = None,
    newest: timedelta | None = None,
    rows: int = 5_000_000,
    held: float = 0.2,
    folder: str = "pins",
    sound: list[str] | None = None,
    seed: int = 0,
    judge: str = "forgetting.eval",
    repeat: str = "model.reproducible",
    version: str | None = None,
    rollout: str = "canary",
    rollout_with: dict[str, Any] | None = None,
    training: timedelta = timedelta(hours=6),
    judging: timedelta = timedelta(minutes=30),
    rolling: timedelta = timedelta(days=1),
    patience: timedelta = timedelta(minutes=5),
) -> tuple[Step, ...]:
    """Pins the rows, looks whether the data are sound, trains, judges, registers, and has a canary decide who serves.

    Learned from is `train`, else `live` with its `labels`: the rows of the `newest` stretch of time (all of them, if it is left out), at most `rows`,
    without the share `held`, which judges as `new` where no such table is bound. `folder` keeps the pins. None of the watches `sound` may fail; by
    default those of the data and of drift, but for the one that asked. `gate` is given to the check `judge`, `model` to the adapter that opens
    `file`, `parameters` and `seed` to the trainer. `version` names what is made, else the next number does. `rollout` is the runbook that gives it
    traffic, "" for none, and `rollout_with` what that is given. `training`, `judging` and `rolling` are how long these may take, `patience` each
    other step. A drill ends at the gate, and trains twice before it: the check `repeat` compares both, and is given `label`, `features` and `loss` of
    the `gate`; with "" it trains once.
    """
    watches = upstream if sound is None else sound
    pinned = rows_of(
        *(service, train, live, labels, (old, guard)), new=new, held=held, folder=folder, rows=rows, newest=newest, now=now, watches=watches
    )
    one = beside(service, registry, router, server, champion, step="train", file=file, model=model)
    args = {"data": {"train": Ref("pin", "train")}, "champion": one.champion, "seed": seed, "parameters": parameters or {}}
    steps = (
        *pinned.steps("what is learned from is kept", "what is broken upstream must not be learned", patience),
        Step("train", "trainer.train", args, training + MARGIN, "stop", f"a candidate beside version {one.parent}; it serves nobody"),
    )
    decided = one.gate(judge, gate, pinned.judged, judging)
    if drill:
        again = Step("again", "trainer.train", args, training + MARGIN, "stop", "from the same rows, with the same seed and parameters")
        twice = (again, one.repeated(repeat, again.name, gate, pinned.judged, judging)) if repeat else ()
        return (*steps, *twice, decided)
    return (
        *steps,
        decided,
        one.register(following(registry, version, now), pinned.lineage("train", "retrain", parameters or {}), patience),
        *one.rolled_out(rollout, rollout_with or {}, rolling),
    )
