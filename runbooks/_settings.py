"""What the program that quantizes is told: strict, because a parameter that is misspelt would be one that is not kept."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from agent import Json
from agent.errors import TrainingError

MEMORY = 4 * 2**30


@dataclass(frozen=True, slots=True)
class Settings:
    """The parameters of a job.

    `features`, `label`, `classes` and `output` say how rows are read and answered, as for models elsewhere. `file` is the champion's, and what is
    handed in; `factory` (module:function) makes the torch module that weights are of. `batches` are the sizes that are timed, in `threads`, in
    `rounds` rounds or as many as fit into `seconds` for each size. `least`, `largest` and `speed` are what a variant must keep. `memory`: bytes that
    loading and running may take; `domains`: of operators that are allowed besides.
    """

    features: tuple[str, ...] = ()
    label: str | None = None
    classes: tuple[str, ...] = ()
    output: str | None = None
    file: str = "model.onnx"
    factory: str | None = None
    batches: tuple[int, ...] = (1, 32)
    threads: int = 1
    rounds: int = 400
    seconds: float = 60.0
    least: float = 0.98
    largest: float = 0.6
    speed: float = 1.0
    memory: int = MEMORY
    domains: tuple[str, ...] = ()
    device: Literal["cpu", "cuda"] = "cpu"


def settings(given: Mapping[str, Json]) -> Settings:
    """The parameters of a spec. TrainingError names the first that is unknown, or not what it should be."""
    known = {field.name: field for field in fields(Settings)}
    made: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise TrainingError(f"there is no parameter '{name}'; {f'did you mean {near[0]!r}?' if near else 'there is ' + ', '.join(known)}")
        if value is not None:
            made[name] = _read(name, value, known[name].default)
    found = Settings(**made)
    shares = {"least": found.least, "largest": found.largest}
    if wrong := next((name for name, share in shares.items() if not 0 <= share <= 1), None):
        raise TrainingError(f"{wrong} is {shares[wrong]:g}, and is a share, 0 to 1")
    if not found.batches or min(*found.batches, found.threads, found.rounds, found.memory) < 1 or not min(found.seconds, found.speed) >= 0:
        raise TrainingError("batches, threads, rounds and memory are whole numbers from 1 on, seconds and speed numbers from 0 on")
    if found.file != Path(found.file).name:
        raise TrainingError(f"file is {found.file!r:.80}, and is the plain name of a file")
    if found.device not in ("cpu", "cuda"):
        raise TrainingError(f"device is {found.device!r}, and is cpu or cuda")
    return found


def _read(name: str, value: Json, default: Any) -> Any:
    """The value as the default's kind; text where there is none."""
    kind = str if default is None else type(default)
    if kind is tuple:
        of = int if name == "batches" else str
        if not isinstance(value, list | tuple) or not all(isinstance(one, of) and not isinstance(one, bool) for one in value):
            raise TrainingError(f"{name} is a list of {'whole numbers' if of is int else 'text'}, not {value!r:.60}")
        return tuple(value)
    allowed: Any = (int, float) if kind is float else kind
    if not isinstance(value, allowed) or isinstance(value, bool) or (kind is float and not math.isfinite(value)):
        words = {str: "text", int: "a whole number", float: "a number"}
        raise TrainingError(f"{name} is {words[kind]}, not {value!r:.60}")
    return value
