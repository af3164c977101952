"""Speaks TorchServe 0.12's inference and management APIs, on one address: model `m`, which doubles x in version 1 and trebles it in version 2."""

from __future__ import annotations

from typing import Any

from tests.servers._loopback import Loopback
from tests.servers.oip import FACTORS

SPEAKS = ("server:torchserve",)
REQUEST = {"x": [1.0, 2.0]}
OPTIONS = {"management": "http://127.0.0.1:9"}


class Speaker(Loopback):
    """`worker` is what the management API calls its one worker; `up` is what `/ping` says."""

    def __init__(self, served: str = "1", worker: str = "READY") -> None:
        self.served, self.worker, self.up = served, worker, True
        super().__init__(self._answer)
        self.url, self.options = f"torchserve+{self.address}/m", {"management": self.address}

    def _answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if path == "/ping":
            return (200, {"status": "Healthy"}) if self.up else (500, {"status": "Unhealthy"})
        api, model, version = [*path.split("/")[1:], self.served][:3]
        if model != "m" or api not in ("predictions", "models"):
            return 404, {"code": 404, "type": "ResourceNotFoundException", "message": "Requested resource is not found."}
        if version not in FACTORS:
            said = f"Model version: {version} does not exist for model: m"
            return 404, {"code": 404, "type": "ModelVersionNotFoundException", "message": said}
        if api == "models":
            return 200, [{"modelName": "m", "modelVersion": version, "workers": [{"id": "9000", "status": self.worker}]}]
        if len(body["x"]) != 2:
            return 400, {"code": 400, "type": "InternalServerException", "message": "x must be two numbers"}
        return 200, [FACTORS[version] * x for x in body["x"]]
