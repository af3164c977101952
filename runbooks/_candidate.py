"""What every way to a new model shares once it is made: it is judged beside the champion, registered with all it was made from, and rolled out.

one = beside(service, registry, router, server, step="train", file="model.onnx", model={"features": [...]})
steps = (..., one.gate(...), one.register(...), *one.rolled_out(...))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from agent import Columns, Ref, Registry, Router, Server, Step
from agent.errors import PlanError
from runbooks._rollout import served_alone


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
        mine = {"folder": Ref(self.step, "folder"), "file": self.file, "files": Ref(self.step, "files"), "options": dict(self.options)}
        theirs = {"path": self.champion["files"][self.file], "sha256": self.champion["sha256"][self.file], "options": dict(self.options)}
        args = {"check": judge, "with": dict(given), "bind": {"candidate": mine, "champion": theirs, **tables}}
        return Step(
            "gate", "check.judge", args, within, "stop", f"only what is shown to be no worse than version {self.parent} goes on; else that stays"
        )

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
    service: str, registry: Registry, router: Router | None, server: Server | None, *, step: str, file: str, model: Mapping[str, Any] | None
) -> Candidate:
    """A candidate beside the version that is served. PlanError where none is, or its files are not kept where they can be read here."""
    parent = served_alone(service, router) if router is not None else server.version() if server is not None else None
    if parent is None:
        raise PlanError(f"{service} does not say which version it serves, so there is no champion to be better than; bind a router")
    if not {"files", "register"} <= registry.can:
        raise PlanError(f"the registry of {service} does not keep the files of versions, or takes no new ones; bind one that does (docs/targets.md)")
    known = registry.version(parent)
    if known is None:
        raise PlanError(f"version {parent} of {service} is served and not registered, so there is no file of it to compare with; register it first")
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


def learned_from(service: str, train: Columns | None, live: Columns | None, labels: Columns | None) -> Mapping[str, str]:
    """Which rows a model is made with, as `table.pin` takes it: `train`, else `live` with its `labels`. PlanError where there is neither."""
    if train is not None:
        return {"role": "train"}
    if live is None or labels is None:
        raise PlanError(f"{service} has nothing to learn from; bind `train` to labelled rows, or `live` and `labels`")
    return {"role": "live", "labels": "labels"}
