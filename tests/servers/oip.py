"""Speaks the Open Inference Protocol v2: model `m`, which doubles x in version 1 and trebles it in version 2."""

from __future__ import annotations

from typing import Any

from tests.servers._loopback import Loopback

SPEAKS = ("server:oip",)
TENSOR = {"name": "x", "datatype": "FP32", "shape": [-1, 2]}
REQUEST = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]}
FACTORS = {"1": 2.0, "2": 3.0}


class Speaker(Loopback):
    """`silent` names what it leaves out, as real servers do: metadata (MLServer), version, index."""

    def __init__(self, served: str = "1", loaded: tuple[str, ...] = ("1", "2"), silent: tuple[str, ...] = ()) -> None:
        self.served, self.loaded, self.silent, self.up, self.factors = served, loaded, silent, True, dict(FACTORS)
        super().__init__(self._answer)
        self.url, self.options = f"oip+{self.address}/m", {}

    def _answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        parts = path.split("/")[1:]
        if parts[:2] == ["v2", "repository"]:
            index = [{"name": "m", "version": version, "state": "READY"} for version in self.loaded]
            return (404, {"error": "no repository"}) if "index" in self.silent else (200, index)
        if parts[:3] != ["v2", "models", "m"]:
            return 404, {"error": f"no model at {path}"}
        named = parts[4] if parts[3:4] == ["versions"] else None
        if named and named not in self.loaded:
            return 404, {"error": f"version {named} is not loaded"}
        if parts[-1] == "ready":
            return (200, {}) if self.up else (503, {"error": "loading"})
        return self._infer(named or self.served, body) if parts[-1] == "infer" else (200, self._metadata())

    def _metadata(self) -> dict[str, Any]:
        empty = "metadata" in self.silent
        output = {"name": "y", "datatype": "FP32", "shape": [-1, 2]}
        return {
            "name": "m",
            "versions": [] if empty else list(self.loaded),
            "inputs": [] if empty else [TENSOR],
            "outputs": [] if empty else [output],
        }

    def _infer(self, version: str, body: Any) -> tuple[int, Any]:
        data = body["inputs"][0]["data"]
        if len(data) != 2 or body["inputs"][0]["shape"] != [1, 2]:
            return 400, {"error": f"x must be [1, 2], is {len(data)} values"}
        said = {} if "version" in self.silent else {"model_version": version}
        outputs = [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [self.factors[version] * x for x in data]}]
        return 200, {"model_name": "m", **said, "id": body.get("id"), "outputs": outputs}
