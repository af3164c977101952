"""Make the model that serves smaller and faster, and let it serve only when it is shown to answer as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from agent import Columns, Model, Ref, Registry, Router, Server, Step, Trainer, runbook
from runbooks._candidate import MARGIN, beside, following, rows_of


@runbook(asks="Is there a smaller form of the model that serves, which is as fast and as good, and may it serve instead?")
def quantize(
    service: str,
    quantizer: Trainer,
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
    rows: int = 100_000,
    held: float = 0.5,
    folder: str = "pins",
    sound: list[str] | None = None,
    judge: str = "forgetting.eval",
    version: str | None = None,
    rollout: str = "canary",
    rollout_with: dict[str, Any] | None = None,
    measuring: timedelta = timedelta(hours=1),
    judging: timedelta = timedelta(minutes=30),
    rolling: timedelta = timedelta(days=1),
    patience: timedelta = timedelta(minutes=5),
) -> tuple[Step, ...]:
    """Pins rows, looks whether they are sound, makes and measures variants, judges the best one, registers it, and has a canary decide who serves.

    The rows are `train`, else `live` with its `labels`: those of the `newest` stretch of time, at most `rows`. The share `held` of them judges as
    `new` where no such table is bound; with the rest the quantizer calibrates and compares. `folder` keeps the pins; none of the watches `sound` may
    fail, by default those of the data and of drift. `gate` is given to the check `judge`; `model` to the adapter that opens `file`; `parameters` to
    the quantizer, besides what these two say of the rows. `version` names what is made, else the next number does. `rollout` is the runbook that
    gives it traffic, "" for none, and `rollout_with` what that is given. `measuring`, `judging` and `rolling` are how long these may take, `patience`
    each other step. Where no variant is better the run stops and says why. A drill ends at the gate.
    """
    watches = upstream if sound is None else sound
    pinned = rows_of(
        *(service, train, live, labels, (old, guard)), new=new, held=held, folder=folder, rows=rows, newest=newest, now=now, watches=watches
    )
    one = beside(service, registry, router, server, champion, step="quantize", file=file, model=model)
    told = {**_rows(gate, model or {}), "file": file, **(parameters or {})}
    args = {"data": {"calibration": Ref("pin", "train")}, "champion": one.champion, "seed": 0, "parameters": told}
    why = f"what is smaller than version {one.parent}, and neither slower nor worse; where nothing is, that stays"
    steps = (
        *pinned.steps("what is measured on is kept", "what is broken upstream must not calibrate", patience),
        Step("quantize", "quantizer.train", args, measuring + MARGIN, "stop", why),
        one.gate(judge, gate, pinned.judged, judging),
    )
    if drill:
        return steps
    return (
        *steps,
        one.register(following(registry, version, now), pinned.lineage("calibration", "quantize", told), patience),
        *one.rolled_out(rollout, rollout_with or {}, rolling),
    )


def _rows(gate: Mapping[str, Any], model: Mapping[str, Any]) -> Mapping[str, Any]:
    """How rows are read, as the gate and the adapter are told it anyway."""
    found = {name: model.get(name, gate.get(name)) for name in ("features", "classes", "output", "label")}
    return {name: value for name, value in found.items() if value is not None}
