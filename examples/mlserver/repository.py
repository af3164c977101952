"""An MLServer model repository over registered versions, of which those are visible that may be loaded now.

MLServer answers with the highest version it has loaded and has no pointer. So version 1 is served by hiding the settings of every
version above it, and lower ones stay loaded beside it: they can be asked by name, which is what a rollback's counterfactual needs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MODEL = "digits"
SETTINGS = "model-settings.json"


def lay(repository: Path, models: Path, versions: Sequence[str], serve: str, **server: Any) -> None:
    """Writes a folder for each version and the server's own settings; `server` are further settings, such as http_port."""
    for version in versions:
        folder = repository / f"{MODEL}-{version}"
        folder.mkdir(parents=True)
        (folder / f"{SETTINGS}.hidden").write_text(json.dumps(settings_of(models.resolve() / version)), encoding="utf-8")
    show(repository, serve)
    (repository / "settings.json").write_text(json.dumps({"host": "127.0.0.1", "parallel_workers": 0, **server}), encoding="utf-8")


def settings_of(folder: Path) -> Mapping[str, Any]:
    """What MLServer must know of one registered version; the signature goes with it, for MLServer finds none by itself."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return {
        "name": MODEL,
        "implementation": "examples.mlserver.digits_runtime.Digits",
        "platform": "onnxruntime_onnx",
        "parameters": {"version": folder.name, "uri": str(folder)},
        **manifest["lineage"]["signature"],
    }


def versions(repository: Path) -> list[str]:
    """All that were laid, lowest first, as MLServer orders them."""
    return sorted((path.name.removeprefix(f"{MODEL}-") for path in repository.glob(f"{MODEL}-*")), key=int)


def show(repository: Path, highest: str) -> None:
    """Makes this version the highest that MLServer can find; it takes notice when it is next told to load."""
    for version in versions(repository):
        shown = repository / f"{MODEL}-{version}" / SETTINGS
        hidden = shown.with_name(f"{SETTINGS}.hidden")
        wanted = int(version) <= int(highest)
        if wanted and hidden.exists():
            hidden.rename(shown)
        elif not wanted and shown.exists():
            shown.rename(hidden)
