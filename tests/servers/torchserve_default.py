"""Speaks TorchServe 0.12's management API as far as the versions of model `m` go: one is the default, and the others can be unregistered."""

from __future__ import annotations

from typing import Any

from tests.servers._loopback import Loopback

SPEAKS = ("router:torchserve",)
LOADED = ("1", "2", "3")


class Speaker(Loopback):
    def __init__(self, served: str = "1", token: str | None = None) -> None:
        self.served, self.token, self.options, self.loaded = served, token, {}, list(LOADED)
        super().__init__(self._answer)
        self.url = f"torchserve+{self.address}/m"

    def _answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if (method, path) == ("GET", "/models/m"):
            return 200, [{"modelName": "m", "modelVersion": self.served, "workers": [{"id": "9000", "status": "READY"}]}]
        if (method, path) == ("GET", "/models/m/all"):
            return 200, [{"modelName": "m", "modelVersion": version, "workers": []} for version in self.loaded]
        if self.token and self.requests[-1][2].get("Authorization") != f"Bearer {self.token}":
            return 403, {"code": 403, "type": "InvalidKeyException", "message": "Token Authorization failed."}
        api, model, version, verb = [*path.split("/")[1:], "", "", ""][:4]
        if (api, model) != ("models", "m") or (method, verb) not in (("PUT", "set-default"), ("DELETE", "")):
            return 405, {"code": 405, "type": "MethodNotAllowedException", "message": "Requested method is not allowed."}
        if version not in self.loaded:
            said = f"Model version: {version} does not exist for model: m"
            return 404, {"code": 404, "type": "ModelVersionNotFoundException", "message": said}
        if method == "DELETE" and version == self.served:
            said = f"Cannot remove default version {version} for model m"
            return 403, {"code": 403, "type": "InvalidModelVersionException", "message": said}
        if method == "DELETE":
            self.loaded.remove(version)
            return 200, {"status": 'Model "m" unregistered'}
        self.served = version
        return 200, {"status": f'Default vesion succesfully updated for model "m" to "{version}"'}
