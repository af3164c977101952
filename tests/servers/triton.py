"""Speaks Triton 2.51's model repository in explicit mode: model `m`, of which the highest loaded version answers."""

from __future__ import annotations

import json
from typing import Any

from tests.servers._loopback import Loopback

SPEAKS = ("router:triton",)
FOLDERS = (1, 2, 3)


class Speaker(Loopback):
    """`loaded` is what answers; a version without a folder is passed over without a word, as Triton does; `breaks` cannot be loaded."""

    def __init__(self, served: str = "1", token: str | None = None) -> None:
        self.loaded, self.token, self.breaks, self.options = [int(served)], token, (), {}
        self.config: Any = {"name": "m", "backend": "python", "max_batch_size": 0}
        super().__init__(self._answer)
        self.url = f"triton+{self.address}/m"

    @property
    def served(self) -> str:
        return str(max(self.loaded))

    @served.setter
    def served(self, version: str) -> None:
        self.loaded = [int(version)]

    def _answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if path == "/v2/models/m":
            return 200, {"name": "m", "versions": [str(one) for one in self.loaded], "platform": "python"}
        if path == "/v2/models/m/config":
            return 200, self.config
        if self.token and self.requests[-1][2].get("Authorization") != f"Bearer {self.token}":
            return 403, {"error": "who are you?"}
        if (method, path) != ("POST", "/v2/repository/models/m/load"):
            return 404, {"error": "not found"}
        wanted = json.loads(body["parameters"]["config"])["version_policy"]["specific"]["versions"]
        if any(version in self.breaks for version in wanted):
            return 400, {"error": f"load failed for model 'm': version {wanted[-1]} is at UNAVAILABLE state: Internal: cannot load it"}
        self.loaded = [version for version in wanted if version in FOLDERS] or self.loaded
        return 200, {}
