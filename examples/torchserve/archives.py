"""Model archives of registered versions, as TorchServe takes them: zip files with a manifest, and the same bytes whenever they are made."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MODEL = "digits"
HANDLER = Path(__file__).with_name("digits_handler.py")
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the first time that a zip file can tell


def pack(store: Path, models: Path, versions: Sequence[str]) -> list[Path]:
    """An archive for each version, in a model store that may be new."""
    store.mkdir(parents=True, exist_ok=True)
    return [_pack(store / f"{MODEL}-{version}.mar", models / version) for version in versions]


def _pack(archive: Path, folder: Path) -> Path:
    parts = {"MAR-INF/MANIFEST.json": json.dumps(manifest(folder.name)).encode(), HANDLER.name: HANDLER.read_bytes()}
    parts["model.onnx"] = (folder / "model.onnx").read_bytes()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in parts.items():
            made.writestr(zipfile.ZipInfo(name, LONG_AGO), content, zipfile.ZIP_DEFLATED)
    return archive


def manifest(version: str) -> Mapping[str, Any]:
    """What an archive says of itself."""
    model = {"modelName": MODEL, "modelVersion": version, "handler": HANDLER.name, "serializedFile": "model.onnx"}
    return {"runtime": "python", "archiverVersion": "0.12.0", "model": model}
