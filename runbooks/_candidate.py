"""What every way to a new model shares: its rows, how it is judged beside the champion, registered with what it was made from, and rolled out.

pinned = rows_of(service, train, live, labels, ...)
one = beside(service, registry, router, server, champion, step="train", file="model.onnx", model={"features": [...]})
steps = (*pinned.steps(...), <what makes it>, one.gate(...), one.register(...), *one.rolled_out(...))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from agent import Columns, Model, Ref, Registry, Router, Server, Step
from agent.errors import PlanError
from runbooks._rollout import served_alone

MARGIN = timedelta(minutes=5)  # that a trainer may take to end what has taken too long


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that the step `step` makes, as the file `file`, beside the version that is served.

    `champion` is what a trainer is told of that: {version, files: {name: path}, sha256: {name: digest}}; `options` are those of the adapter that
    opens both files.
    """

    step: str
    file: str
    champion: Mapping[str, Any]
    options: Mapping[str, Any]

    @property
    def parent(self) -> str:
        """The version that is served."""
        return str(self.champion["version"])

    def gate(self, judge: str, given: Mapping[str, Any], tables: Mapping[str, Any], within: timedelta) -> Step:
        """The check `judge` on the candidate beside the champion: only its ok goes on. `tables` binds roles to files of earlier steps."""
        mine = self._made(self.step)
        theirs = {"path": self.champion["files"].get(self.file), "sha256": self.champion["sha256"].get(self.file), "options": dict(self.options)}
        models = {"candidate": mine, **({"champion": theirs} if theirs["path"] else {})}
        args = {"check": judge, "with": dict(given), "bind": {**models, **tables}}
        why = f"only what is shown to be no worse than version {self.parent} goes on; else that stays"
        return Step("gate", "check.judge", args, within, "stop", why)

    def repeated(self, check: str, again: str, given: Mapping[str, Any], tables: Mapping[str, Any], within: timedelta) -> Step:
        """The check `check` on the candidate beside what the step `again` made of the same: only its ok goes on."""
        told = {name: given[name] for name in ("label", "features", "loss") if name in given}
        digests = {"files": Ref(self.step, "files"), "files_again": Ref(again, "files")}
        args = {"check": check, "with": {**told, **digests}, "bind": {"candidate": self._made(self.step), "again": self._made(again), **tables}}
        return Step("repeated", "check.judge", args, within, "stop", "what cannot be made again cannot be traced to what it was made from")

    def _made(self, step: str) -> Mapping[str, Any]:
        return {"folder": Ref(step, "folder"), "file": self.file, "files": Ref(step, "files"), "options": dict(self.options)}

    def register(self, version: str, lineage: Mapping[str, Any], patience: timedelta) -> Step:
        """The candidate with all its files in the registry, under a new name, with what it was made from; all of it at once or nothing."""
        made = {name: Ref(self.step, name) for name in ("rows", "seed", "metrics", "code", "environment")}
        told = {"parent": self.parent, **made, "manifest": Ref(self.step, "digest"), "gate": Ref("gate", "reason"), **lineage}
        args = {"version": version, "folder": Ref(self.step, "folder"), "files": Ref(self.step, "files"), "lineage": told}
        return Step("register", "registry.register", args, patience, "stop", f"version {version}, which serves nobody yet")

    def rolled_out(self, runbook: str, given: Mapping[str, Any], within: timedelta) -> Iterator[Step]:
        """The runbook that gives it traffic, as a run of its own with a permission of its own; none where none is named."""
        if runbook:
            args = {"runbook": runbook, "parameters": {**given, "to": Ref("register", "version")}}
            why = f"{runbook} decides whether it is served; if not, version {self.parent} goes on serving"
            yield Step(runbook, "run.child", args, within, "stop", why)


def beside(
    service: str,
    registry: Registry,
    router: Router | None,
    server: Server | None,
    champion: Model | None = None,
    *,
    step: str,
    file: str,
    model: Mapping[str, Any] | None,
) -> Candidate:
    """A candidate beside the version that is served, whose file is the registry's, or the service's own `champion` where the registry keeps none.

    PlanError where no version is served, where it is not registered, or where neither has its file.
    """
    parent = served_alone(service, router) if router is not None else server.version() if server is not None else None
    if parent is None:
        raise PlanError(f"{service} does not say which version it serves, so there is no champion to be better than; bind a router")
    if "register" not in registry.can:
        raise PlanError(f"the registry of {service} takes no new versions; bind one that does, and let it be changed (docs/targets.md)")
    known = registry.version(parent)
    if known is None:
        raise PlanError(f"version {parent} of {service} is served and not registered, so there is no file of it to compare with; register it first")
    if "files" not in registry.can:
        if champion is None:
            raise PlanError(f"the registry of {service} keeps no files that can be read here; bind `champion` to the file of what is served")
        return Candidate(step, file, {"version": parent, "files": {}, "sha256": {}}, model or {})
    if file not in known.files:
        raise PlanError(f"version {parent} of {service} has no file '{file}'; there is {', '.join(known.files)}; name the model's with `file`")
    kept: Any = registry
    files = {name: str(kept.file(parent, name).resolve()) for name in known.files}
    return Candidate(step, file, {"version": parent, "files": files, "sha256": dict(known.files)}, model or {})


def following(registry: Registry, version: str | None, now: datetime) -> str:
    """A name for a new version: the one that is asked for, the next number where all are numbers, else the time. PlanError where it is taken."""
    known = [one.version for one in registry.versions()]
    if version is not None:
        if version in known:
            raise PlanError(f"version {version} is registered already, and a version is written once; choose another name")
        return version
    return str(max(map(int, known)) + 1) if known and all(one.isascii() and one.isdigit() for one in known) else f"{now:%Y%m%dT%H%M%S}"


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows that a model is made with, as `table.pin` takes them; without the share `held`, which judges as `new` where no such table is bound."""

    pin: Mapping[str, Any]
    judged: Mapping[str, Any]
    watches: Sequence[str]

    def steps(self, why: str, sound: str, patience: timedelta) -> tuple[Step, Step]:
        """Pin them, and look whether what they come from is well."""
        calm = {"watches": list(self.watches), "causes": ["data"]}
        return (Step("pin", "table.pin", dict(self.pin), patience, "stop", why), Step("sound", "check.calm", calm, patience, "stop", sound))

    def lineage(self, name: str, runbook: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """What is written down of them with the model, under the name that its maker knows them by."""
        seen = {field: Ref("pin", field) for field in ("from", "to", "origin")}
        return {"data": {name: Ref("pin", "train")}, **seen, "runbook": runbook, "parameters": dict(parameters)}


def rows_of(
    service: str,
    train: Columns | None,
    live: Columns | None,
    labels: Columns | None,
    judging: Sequence[Columns | None],
    *,
    new: Columns | None,
    held: float,
    folder: str,
    rows: int,
    newest: timedelta | None,
    now: datetime,
    watches: Sequence[str],
) -> Rows:
    """`train`, else `live` with its `labels`, of the `newest` stretch of time. PlanError where there is neither, or nothing to judge by.

    `judging` are the tables that are bound for that besides what is held back; `watches` are those that none of may fail, by name or by key.
    """
    if not held and new is None and all(table is None for table in judging):
        raise PlanError(f"{service} has no rows that a candidate could be judged by; bind `old`, `new` or `guard`, or hold a share of the rows back")
    span = {"from": now - newest, "to": now} if newest is not None else {}
    pin = {**_source(service, train, live, labels), **span, "folder": folder, "rows": rows, "held": held}
    judged = {} if new is not None or not held else {"new": {"pin": Ref("pin", "held")}}
    return Rows(pin, judged, [name if "/" in name else f"{service}/{name}" for name in watches])


def _source(service: str, train: Columns | None, live: Columns | None, labels: Columns | None) -> Mapping[str, str]:
    if train is not None:
        return {"role": "train"}
    if live is None or labels is None:
        raise PlanError(f"{service} has nothing to learn from; bind `train` to labelled rows, or `live` and `labels`")
    return {"role": "live", "labels": "labels"}
