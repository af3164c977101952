"""What a trainer is: it makes model files from pinned data, in a folder of its own, and says with a manifest what it made.

The folder is the whole of the contract, so that anything can be a trainer that can run a program: `spec.json` lies in it when the work begins, and
`manifest.json` beside the files it names when the work is done.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from agent.errors import TrainingError
from agent.model import Absent, Action, Done, Failed, Json, Look, Pending, Try, Unknown

SPEC, MANIFEST, JOB = "spec.json", "manifest.json", "WATCHKEEPER_JOB"  # what is asked, what was made, and the variable that names the folder of both
LARGEST = 2**20  # bytes of a manifest
AGAIN = timedelta(seconds=5)

State = Literal["absent", "queued", "running", "succeeded", "failed", "lost"]


@dataclass(frozen=True, slots=True)
class Job:
    """How a piece of work stands. `absent`: it certainly never began. `lost`: it began, and nobody knows how it ended."""

    state: State
    said: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a trainer made: its files by their sha256, from which data (sha256 of each table by its name), how many rows, with which seed."""

    folder: Path
    files: Mapping[str, str]
    data: Mapping[str, str]
    rows: int
    seed: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, Json] = field(default_factory=dict)
    code: str | None = None  # the commit of what trained
    environment: str | None = None  # sha256 of the locked packages


@runtime_checkable
class Trainer(Protocol):
    """Whatever makes models. A key names one piece of work for ever: a second `start` with it is the first one."""

    can: frozenset[str]

    def start(self, spec: Mapping[str, Json], key: str) -> None:
        """Begin. `spec`: service, data {name: {path, sha256, rows}}, champion {version, files {name: path}} or None, seed, parameters."""
        ...

    def status(self, key: str) -> Job:
        """How it stands."""
        ...

    def cancel(self, key: str) -> None:
        """End it, if it is under way; nothing else otherwise."""
        ...

    def result(self, key: str) -> Manifest:
        """What it made; TrainingError where that is not what it says."""
        ...

    @property
    def train(self) -> Action:
        """`trainer.train`, as plans use it: `Train(self)`."""
        ...

    def close(self) -> None:
        """Let go of what is held open; the work goes on."""
        ...


@dataclass(frozen=True, slots=True)
class Train:
    """The verb of every trainer: begun once by the key of its step, looked at until it ends, done when what it made is what its manifest says.

    Nothing it makes is served, so there is nothing to take back. What a trainer says it was given must be what this step gave it.
    """

    trainer: Trainer
    writes: bool = True
    repeatable: bool = True
    adds: bool = True
    takes: frozenset[str] = frozenset({"data", "champion", "seed", "parameters"})
    gives: frozenset[str] = frozenset({"folder", "files", "rows", "seed", "metrics", "digest", "code", "environment"})

    def before(self, args: Mapping[str, Json]) -> Json:
        return None

    def look(self, args: Mapping[str, Json], t: Try) -> Look:
        job = self.trainer.status(t.key)
        if job.state == "absent":
            return Absent(job.said or "training has not begun")
        if job.state in ("queued", "running"):
            return Pending(AGAIN, job.said or f"training is {job.state}")
        if job.state == "lost":
            return Unknown(job.said or "nobody knows how training ended")
        if job.state == "failed":
            return Failed(job.said or "training failed")
        try:
            made = self.trainer.result(t.key)
        except TrainingError as problem:
            return Failed(str(problem))
        given = {name: one["sha256"] for name, one in (args.get("data") or {}).items()}
        if dict(made.data) != given:
            return Failed(f"{made.folder} was made from other data than this step gave")
        told = {"folder": str(made.folder), "files": dict(made.files), "rows": made.rows, "seed": made.seed, "metrics": dict(made.metrics)}
        more = {"digest": _sha256(made.folder / MANIFEST), "code": made.code, "environment": made.environment}
        return Done({**told, **more}, f"trained on {made.rows:,} rows: {', '.join(sorted(made.files))}")

    def do(self, args: Mapping[str, Json], t: Try) -> None:
        self.trainer.start(args, t.key)

    def undo(self, args: Mapping[str, Json], before: Json, output: Json) -> Mapping[str, Json] | None:
        return None


# What was made


def handed(folder: Path, spec: Mapping[str, Json]) -> Manifest:
    """What lies in a trainer's folder, held against what its manifest says and what was asked. TrainingError says what is not so.

    Every file named must be a plain file in that folder, with no second name outside of it, and have the sha256 that is said; the data must be the
    data that was given; metrics must be numbers. A trainer can be wrong about how good its model is: the gate, and not the manifest, judges that.
    """
    said = _read(folder / MANIFEST)
    files, data = _texts(said, "files", folder), _texts(said, "data", folder)
    if not files:
        raise TrainingError(f"{folder / MANIFEST} names no file: a trainer must say what it made")
    given = {name: one["sha256"] for name, one in (spec.get("data") or {}).items()}
    if data != given:
        odd = sorted(name for name in {*data, *given} if data.get(name) != given.get(name))
        raise TrainingError(f"{folder / MANIFEST} says it was trained on other data than was given: {', '.join(odd)}")
    for name, digest in files.items():
        if (found := _sha256(_inside(folder, name))) != digest:
            raise TrainingError(f"{folder / name} is not what the manifest says: its sha256 is {found[:12]}…, not {digest[:12]}…")
    metrics = said.get("metrics") or {}
    if not isinstance(metrics, Mapping) or not all(_number(value) for value in metrics.values()):
        raise TrainingError(f"{folder / MANIFEST}: metrics must be numbers by their names")
    rows, seed = (_whole(said.get(key, spec.get(key)), key, folder) for key in ("rows", "seed"))
    code, environment = said.get("code"), said.get("environment")
    parameters = said.get("parameters") or {}
    if not isinstance(parameters, Mapping) or not all(one is None or isinstance(one, str) for one in (code, environment)):
        raise TrainingError(f"{folder / MANIFEST}: parameters must be an object; code and environment text")
    return Manifest(folder, files, data, rows, seed, metrics, parameters, code, environment)


def untouched(spec: Mapping[str, Json]) -> None:
    """The data and the champion's files that a trainer was given are what they were; TrainingError names the file that is not.

    Champion: {"files": {name: path}, "sha256": {name: digest}}; a file without a digest is not looked at.
    """
    champion = spec.get("champion") or {}
    given = [(one["path"], one["sha256"]) for one in (spec.get("data") or {}).values()]
    given += [(champion["files"][name], digest) for name, digest in (champion.get("sha256") or {}).items()]
    for path, digest in given:
        try:
            same = _sha256(Path(path)) == digest
        except OSError as problem:
            raise TrainingError(f"{path} was given to the trainer and cannot be read any more ({problem.strerror})") from problem
        if not same:
            raise TrainingError(f"{path} was given to the trainer and is not what it was; restore it before anything else is trained or served")


def hand_in(folder: Path, spec: Mapping[str, Json], files: Sequence[str], *, rows: int, metrics: Mapping[str, float], **more: Json) -> None:
    """Write the manifest of files that lie in `folder`: the last thing that a trainer written in Python does. All of it appears, or none."""
    told = {
        "files": {name: _sha256(_inside(folder, name)) for name in files},
        "data": {name: one["sha256"] for name, one in (spec.get("data") or {}).items()},
        "rows": rows,
        "seed": spec.get("seed", 0),
        "metrics": dict(metrics),
        "parameters": spec.get("parameters") or {},
        **more,
    }
    draft = folder / f".{MANIFEST}"
    with draft.open("w", encoding="utf-8") as stream:
        json.dump(told, stream, indent=1, allow_nan=False)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(folder / MANIFEST)


def asked(folder: Path) -> Mapping[str, Json]:
    """What a trainer is asked for: its `spec.json`."""
    return _read(folder / SPEC)


def _read(path: Path) -> Mapping[str, Json]:
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise TrainingError(f"{path} has more than {LARGEST:,} bytes")
        found = json.loads(data)
    except (OSError, ValueError) as problem:
        raise TrainingError(f"{path} cannot be read ({getattr(problem, 'strerror', None) or problem}); a trainer must write it last") from problem
    if not isinstance(found, Mapping):
        raise TrainingError(f"{path} holds no JSON object")
    return found


def _texts(said: Mapping[str, Json], key: str, folder: Path) -> Mapping[str, str]:
    found = said.get(key) or {}
    if not isinstance(found, Mapping) or not all(isinstance(value, str) for value in found.values()):
        raise TrainingError(f"{folder / MANIFEST}: {key} must name a sha256 for each name")
    return found


def _inside(folder: Path, name: str) -> Path:
    """A plain file of the folder by its name. TrainingError for what leads out of it, by a path or a link of either kind."""
    path = folder / name
    if Path(name).is_absolute() or folder.resolve() not in path.resolve().parents:
        raise TrainingError(f"the manifest names {name}, which is not in the trainer's folder {folder}")
    try:
        kind = path.lstat()
    except OSError as problem:
        raise TrainingError(f"the manifest names {name}, which is not there ({problem.strerror})") from problem
    if not stat.S_ISREG(kind.st_mode) or kind.st_nlink != 1:
        raise TrainingError(f"{path} is a link, or no plain file; a trainer must hand in files of its own")
    return path


def _number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: Json, key: str, folder: Path) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TrainingError(f"{folder / MANIFEST}: {key} must be a whole number, and is {value!r:.40}")
    return value


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
