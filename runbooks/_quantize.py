"""The program that quantizes (`python -m runbooks._quantize`), a trainer like any other: its folder is its contract (agent/training.py).

`spec.json` names the champion (an ONNX file, or weights with the parameter `factory`), and as data `calibration` and, if there is one, `evaluation`:
pinned parquet files. It hands in `model.onnx` (or what the parameter `file` calls it), the best variant, with `report.json`, `quantize.html` and
`pareto.svg`. It ends with 0 when one is better, with 1 when none is, and with 3 when it could not tell; its last line says why. The report is there
in each case.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent import Artefact, Json, admit, asked, hand_in, module
from agent.errors import ArtefactError, DataError, TrainingError, WatchkeeperError
from runbooks._export import export
from runbooks._feeds import Rows, read
from runbooks._graph import inspect
from runbooks._measure import Measuring
from runbooks._pareto import pareto
from runbooks._quantize_page import page
from runbooks._report import metrics, report
from runbooks._settings import Settings, settings

JOB = "WATCHKEEPER_JOB"  # the variable that names the folder
REPORT, PAGE, PARETO = "report.json", "quantize.html", "pareto.svg"
CALIBRATION, EVALUATION = 512, 4096  # rows that are used, at most
FEWEST = 20  # rows without which agreement says nothing
APART = 4  # where one table is all there is, each so-and-so-many-th row calibrates, and the others compare
CODES = {"better": 0, "none": 1, "unknown": 3}

Tell = Callable[[float, str], None]


def main() -> int:
    """One job. What the libraries print goes to stderr: stdout is for progress, a JSON object a line."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)

    def tell(done: float, what: str) -> None:
        out.write(json.dumps({"done": round(done, 3), "what": what}) + "\n")

    found = quantize(Path(os.environ[JOB]), tell)
    tell(1.0, str(found["why"]))
    sys.stderr.write(f"{found['why']}\n")
    return CODES[found["outcome"]]


def quantize(folder: Path, tell: Tell) -> Mapping[str, Json]:
    """Does the job in the folder, and gives its report; `outcome` is better, none or unknown."""
    scratch = folder / "variants"
    try:
        scratch.mkdir(exist_ok=True)
        spec = asked(folder)
        found, rows = _work(spec, folder, scratch, tell)
    except WatchkeeperError as problem:
        found, rows = {"outcome": "unknown", "why": str(problem)}, 0
    except MemoryError:
        found, rows = {"outcome": "unknown", "why": "memory ran out; allow it more with the parameter `memory`, or give fewer rows"}, 0
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    try:
        _written(folder, found)
        if found["outcome"] == "better":
            files = [found["file"], *(path.name for path in folder.glob(f"{found['file']}.data")), REPORT, PAGE, PARETO]
            hand_in(folder, spec, files, rows=rows, metrics=metrics(found))
    except OSError as problem:
        return {"outcome": "unknown", "why": f"{folder} cannot be written ({problem.strerror}); make room, or name another folder"}
    return found


@dataclass(frozen=True, slots=True)
class _Parts:
    """Rows by what they are for."""

    calibration: Rows
    evaluation: Rows
    calibrating: Sequence[int]
    evaluating: Sequence[int]


def _work(spec: Mapping[str, Json], folder: Path, scratch: Path, tell: Tell) -> tuple[Mapping[str, Json], int]:
    asked_for = settings(spec.get("parameters") or {})
    tell(0.0, "looking the model and the rows over")
    parts = _parts(spec.get("data") or {}, asked_for)
    artefact, apart = _champion(spec.get("champion"), asked_for, parts.evaluation, scratch)
    graph = inspect(artefact)
    measuring = Measuring(graph, asked_for, scratch, tell)
    measuring.take(parts.calibration, parts.calibrating, parts.evaluation, parts.evaluating)
    found = report(measuring.all(), graph, asked_for, {"exported_apart": apart, "file": asked_for.file})
    if found["chosen"]:
        _moved(measuring.path(found["chosen"]), folder / asked_for.file)
    return found, len(parts.calibrating) + len(parts.evaluating)


def _parts(data: Mapping[str, Json], given: Settings) -> _Parts:
    """The rows to calibrate with and those to compare on: two tables, or one that is divided."""
    if not (pin := data.get("calibration")):
        raise DataError("there are no rows: nothing can be calibrated, and no answers compared; pin some as `calibration`")
    calibration = read(pin, given.features, given.label)
    if other := data.get("evaluation"):
        evaluation = read(other, given.features, given.label)
        parts = _Parts(calibration, evaluation, _some(range(calibration.n), CALIBRATION), _some(range(evaluation.n), EVALUATION))
    else:
        places = range(calibration.n)
        rest = [place for place in places if place % APART]
        parts = _Parts(calibration, calibration, _some(places[::APART], CALIBRATION), _some(rest, EVALUATION))
    if len(parts.evaluating) < FEWEST:
        raise DataError(f"{parts.evaluation.where} leaves {len(parts.evaluating)} rows to compare answers on, and {FEWEST} are needed")
    return parts


def _some(places: Sequence[int], most: int) -> list[int]:
    """At most so many of them, spread evenly."""
    return [places[len(places) * n // min(most, len(places))] for n in range(min(most, len(places)))]


def _champion(champion: Mapping[str, Json] | None, given: Settings, rows: Rows, scratch: Path) -> tuple[Artefact, float | None]:
    """The graph to begin with: the one given, or the torch module exported and shown to be equal."""
    files = dict((champion or {}).get("files") or {})
    named = [path for name, path in files.items() if name == given.file and not given.factory]
    wanted = (".safetensors", ".pt", ".bin", ".pth") if given.factory else (".onnx",)
    found = named or [path for name, path in sorted(files.items()) if name.endswith(wanted)] or list(files.values())[:1]
    if not found:
        raise TrainingError("the spec names no champion with a file: there is nothing to quantize")
    artefact = admit(Path(found[0]), largest=given.memory, domains=given.domains)
    if artefact.format == "onnx":
        return artefact, None
    if artefact.format not in ("safetensors", "torch") or not given.factory:
        raise ArtefactError(f"{artefact.path} is {artefact.format}; weights need the parameter `factory` (module:function), which makes their module")
    made = scratch / "exported.onnx"
    apart = export(module(given.factory, artefact), rows, made, given.memory)
    return admit(made, largest=given.memory), apart


def _moved(made: Path, to: Path) -> None:
    """The chosen file into the folder, under its own name, with the weights beside it where it has any."""
    import onnx

    beside = sum(file.stat().st_size for file in made.parent.glob(f"{made.name}*")) > made.stat().st_size
    if beside:
        model = onnx.load(str(made))
        onnx.save(model, str(to), save_as_external_data=True, location=f"{to.name}.data")
    else:
        made.replace(to)


def _written(folder: Path, found: Mapping[str, Json]) -> None:
    (folder / REPORT).write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if found.get("variants"):
        (folder / PARETO).write_text(pareto(found), encoding="utf-8")
        (folder / PAGE).write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        sys.exit(main())
