"""Speaks TorchServe 0.12's management API as far as the default version of model `m` goes: it can be read, and set to any version."""

from __future__ import annotations

from typing import Any

from tests.servers._loopback import Loopback

SPEAKS = ("router:torchserve",)
LOADED = ("1", "2", "3")


class Speaker(Loopback):
    def __init__(self, served: str = "1", token: str | None = None) -> None:
        self.served, self.token, self.options = served, token, {}
        super().__init__(self._answer)
        self.url = f"torchserve+{self.address}/m"

    def _answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if (method, path) == ("GET", "/models/m"):
            return 200, [{"modelName": "m", "modelVersion": self.served, "workers": [{"id": "9000", "status": "READY"}]}]
        if self.token and self.requests[-1][2].get("Authorization") != f"Bearer {self.token}":
            return 403, {"code": 403, "type": "InvalidKeyException", "message": "Token Authorization failed."}
        api, model, version, verb = [*path.split("/")[1:], "", "", ""][:4]
        if (method, api, model, verb) != ("PUT", "models", "m", "set-default"):
            return 405, {"code": 405, "type": "MethodNotAllowedException", "message": "Requested method is not allowed."}
        if version not in LOADED:
            said = f"Model version: {version} does not exist for model: m"
            return 404, {"code": 404, "type": "ModelVersionNotFoundException", "message": said}
        self.served = version
        return 200, {"status": f'Default vesion succesfully updated for model "m" to "{version}"'}
