"""Olive as a quantizer: a trainer's command (docs/targets.md) that hands the champion to Olive and its result to Watchkeeper. Standard library only.

    quantizer: {url: "command:.", train: [/opt/olive/bin/python, olive_quantizer.py]}

Run it by the Python that has olive-ai. The parameter `passes` is Olive's own, by default {"quantize": {"type": "OnnxDynamicQuantization"}}; `file` is
what the model's file is called. Nothing is judged here: the runbook's gate does that, on rows that Olive never saw.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

PASSES = {"quantize": {"type": "OnnxDynamicQuantization"}}


def main() -> int:
    folder = Path(os.environ["WATCHKEEPER_JOB"])
    spec = json.loads((folder / "spec.json").read_text())
    given = spec.get("parameters") or {}
    name, made = given.get("file", "model.onnx"), folder / "olive"
    champion = spec["champion"]["files"][name]
    config = {
        "input_model": {"type": "ONNXModel", "model_path": champion},
        "passes": given.get("passes") or PASSES,
        "output_dir": str(made),
        "cache_dir": str(folder / "cache"),
    }
    (folder / "olive.json").write_text(json.dumps(config))
    program = Path(sys.executable).with_name("olive")
    done = subprocess.run([program, "run", "--config", folder / "olive.json", "--disable_telemetry"], env={**os.environ, "HOME": str(folder)})
    if done.returncode or not (made / "model.onnx").exists():
        print("Olive made no model; its own words are above", file=sys.stderr)
        return done.returncode or 1
    shutil.move(made / "model.onnx", folder / name)
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest()}
    data = {word: one["sha256"] for word, one in (spec.get("data") or {}).items()}
    rows = sum(int(one.get("rows") or 0) for one in (spec.get("data") or {}).values())
    (folder / "manifest.json").write_text(json.dumps({"files": files, "data": data, "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
