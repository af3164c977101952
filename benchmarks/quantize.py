"""Quantizing three models: size, speed and quality of what is chosen beside onnxruntime's defaults, and whether five runs choose the same.

`python -m benchmarks.quantize [MODEL ...] [--runs 5] [--device cuda]`; MODEL is mlp, cnn or minilm. Needs torch, and for CUDA onnxruntime-gpu.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import _quantized
from benchmarks._running import load, scratch

EQUAL = 1e-5  # of the export, absolute and relative
BATCHES = {"mlp": [1, 32], "cnn": [1, 32], "minilm": [1, 8]}
LARGE = {"mlp": 1024, "cnn": 1024, "minilm": 256}  # one more on CUDA, which is there for large ones
SECONDS = 8.0  # of timing, for each batch size and run
FASTER = 0.9  # a default is held against ours where it is at least so many times as fast as that
COSINE, SPEED = 0.993, 1.7  # what MiniLM is promised to keep, and how fast it is to be


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=list(BATCHES), metavar="MODEL", help=", ".join(BATCHES))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    given = parser.parse_args()
    with scratch() as place:
        return max(measure(name, Path(place), given.runs, given.device) for name in given.models)


def figure(name: str, value: float | None, unit: str = "", note: str = "", **promised: float) -> bool:
    """Prints it; whether it keeps what was promised."""
    print(json.dumps({"figure": name, "value": value, "unit": unit, "note": note, **promised}), flush=True)
    if value is None:
        return True
    return promised.get("at_least", value) <= value <= promised.get("at_most", value)


def measure(name: str, place: Path, runs: int, device: str) -> int:
    """All figures of one model; 1 where one is missed."""
    if name == "minilm" and _quantized.package() is None:
        figure("MiniLM", None, note="its weights could not be fetched")
        return 0
    folder = place / name
    folder.mkdir()
    weights, calibration, held = (sentences if name == "minilm" else digits)(name, folder)
    model = folder / "model.onnx"
    apart = exported(name, weights, held, model)
    kept = [figure(f"{name}: export against torch, the largest difference", apart, note="absolute and relative", at_most=EQUAL)]
    if device == "cuda":
        BATCHES[name].append(LARGE[name])
    told = [job(folder / f"run{n}", {"model.onnx": model}, calibration, held, name, seconds=SECONDS, device=device) for n in range(runs)]
    for one in told[-1]["variants"][1:]:
        refused = f": {one['why']}" if one["outcome"] == "refused" else ""
        figure(f"{name}: {one['name']}", one.get("slowest", [None])[0], "x", f"{one['outcome']}{refused}; {one.get('share')}x the size")
    names = [one["chosen"] for one in told]
    best = [next((v for v in one["variants"] if v["outcome"] == "chosen"), None) for one in told]
    kept += [
        figure(
            f"{name}: different choices in {runs} runs",
            len(set(names)),
            note=f"{', '.join(map(str, sorted(set(map(str, names)))))}; {load()}",
            at_most=1,
        )
    ]
    if device == "cuda" and names == [None] * runs:
        return 0 if all(kept) else 1  # nothing is faster than a model whose launches take all the time; that it is refused is the result
    if None in best:
        return 1
    kept += [
        figure(f"{name}: size of what is chosen", max(one["share"] for one in best), "x", at_most=0.3),
        figure(f"{name}: speed at its slowest batch, the least of {runs} runs", min(one["slowest"][0] for one in best), "x", names[0], at_least=1.0),
        *against(name, best[-1], told[-1], defaults(folder, model, calibration, held, name, device)),
    ]
    if name == "minilm":
        kept += [figure("minilm: mean cosine", min(one["quality"]["kept"] for one in best), at_least=COSINE)]
        speeds = sorted(one["slowest"][0] for one in best)
        kept += [figure("minilm: speed, the middle run", speeds[len(speeds) // 2], "x", at_least=SPEED)]
    return 0 if all(kept) else 1


def digits(name: str, folder: Path) -> tuple[Path, Path, Path]:
    from safetensors.torch import save_file

    rows, truth, _, _ = _quantized.digits(folder)
    made = _quantized.trained(getattr(_quantized, name)(), rows, truth, 30 if name == "mlp" else 20)
    save_file(made.state_dict(), folder / "model.safetensors")
    return folder / "model.safetensors", folder / "digits-calibration.parquet", folder / "digits-held.parquet"


def sentences(name: str, folder: Path) -> tuple[Path, Path, Path]:
    return _quantized.renamed(folder / "model.safetensors"), *_quantized.sentences(folder)


def exported(name: str, weights: Path, held: Path, to: Path) -> float:
    """The graph of the torch module, for all runs; by how much their answers differ."""
    from agent import admit, module
    from runbooks._export import export
    from runbooks._feeds import read

    return export(module(f"benchmarks._quantized:{name}", admit(weights)), read(pin(held), label=label(name)), to, 2**33)


def label(name: str) -> str | None:
    return None if name == "minilm" else "label"


def job(folder: Path, files: Mapping[str, Path], calibration: Path, held: Path, name: str, **parameters: Any) -> Mapping[str, Any]:
    """One run of the program, as a trainer's command would run it; its report."""
    folder.mkdir()
    told = {
        "data": {"calibration": pin(calibration), "evaluation": pin(held)},
        "champion": {"version": "1", "files": {file: str(path) for file, path in files.items()}},
        "seed": 0,
        "parameters": {"batches": BATCHES[name], "label": label(name), "least": 0.98, **parameters},
    }
    (folder / "spec.json").write_text(json.dumps(told))
    done = subprocess.run([sys.executable, "-m", "runbooks._quantize"], env={**os.environ, "WATCHKEEPER_JOB": str(folder)}, stdout=subprocess.DEVNULL)
    found = json.loads((folder / "report.json").read_text())
    if done.returncode not in (0, 1):
        sys.exit(found["why"])
    return found


def pin(path: Path) -> Mapping[str, Any]:
    return {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "rows": 0}


# onnxruntime's own defaults


def defaults(folder: Path, model: Path, calibration: Path, held: Path, name: str, device: str) -> Mapping[str, Mapping[str, Any]]:
    """What somebody gets who calls onnxruntime's quantizers as they are: how alike, and how fast beside ours, in the same rounds."""
    from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from agent.stats import interleaved, paired
    from runbooks._feeds import batch, feeds, read
    from runbooks._quality import compare, kind_of
    from runbooks._runtime import answers, opened
    from runbooks._variants import _reader, quiet

    rows, others = (read(pin(path), label=label(name)) for path in (held, calibration))
    prepared = folder / "prepared.onnx"
    plain = opened(model, 1, 2**33, device)
    fed, calibrating = (list(feeds(plain.get_inputs(), some, range(some.n), most)) for some, most in ((rows, 256), (others, 16)))
    made = {"ours": folder / "run0" / "model.onnx"}
    with quiet():
        quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
        ways = {
            "quantize_dynamic": lambda to: quantize_dynamic(prepared, to),
            "quantize_dynamic, unsigned": lambda to: quantize_dynamic(prepared, to, weight_type=QuantType.QUInt8),
            "quantize_static": lambda to: quantize_static(prepared, to, _reader(calibrating)),
        }
        for way, make in ways.items():
            made[way] = folder / f"{way}.onnx"
            make(made[way])
    sessions = {way: opened(path, 1, 2**33, device) for way, path in made.items()}
    exact = answers(plain, fed, 2**33)
    truth = None if rows.truth is None else rows.truth[[place for one in fed for place in one.places]]
    found = {way: compare(exact, answers(session, fed, 2**33), kind_of(exact, classes=truth is not None), truth) for way, session in sessions.items()}
    times = {}
    for size in BATCHES[name]:
        one = dict(batch(plain.get_inputs(), rows, range(rows.n), size).values)
        times[size] = interleaved({way: partial(session.run, None, one) for way, session in sessions.items()}, 400, SECONDS)
    speeds = {way: min(paired(times[size]["ours"], times[size][way]).middle for size in times) for way in sessions}
    return {way: {"kept": found[way].kept, "right": found[way].after, "beside": speeds[way]} for way in sessions}


def against(name: str, ours: Mapping[str, Any], told: Mapping[str, Any], found: Mapping[str, Mapping[str, Any]]) -> Sequence[bool]:
    """Ours held against the best default that is as fast."""
    kept = []
    for way, one in found.items():
        if way != "ours":
            figure(f"{name}: {way}, what it keeps", one["kept"], note=f"{one['beside']:.2f}x as fast as ours; {told['judged_by']}")
    rivals = [one for way, one in found.items() if way != "ours" and one["beside"] >= FASTER]
    lead = ours["quality"]["kept"] - max((one["kept"] for one in rivals), default=0.0)
    kept.append(figure(f"{name}: what is kept, more than by the best default of that speed", lead, note=ours["quality"]["in_words"], at_least=0.0))
    return kept


if __name__ == "__main__":
    sys.exit(main())
