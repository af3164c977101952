"""Speaks what MLServer 1.7 says of its versions and its model repository: it reads the settings files when it is told to load, as MLServer does."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from tests.servers._loopback import Loopback

SPEAKS = ("router:mlserver",)
OPTIONS = {"settings": {"from": "settings/{version}.json", "to": "repository/m/model-settings.json"}}


def settings(version: str, **more: Any) -> str:
    return json.dumps({"name": "m", "implementation": "runtime.Times", "parameters": {"version": version}, **more})


class Speaker(Loopback):
    """`together`: each version has a folder in the repository. `breaks`: versions that cannot be loaded. The highest one loaded is `served`."""

    def __init__(self, together: bool = False, token: str | None = None) -> None:
        self.token, self.breaks, self.hangs, self._made = token, (), False, tempfile.TemporaryDirectory()
        self.place, at = Path(self._made.name), "repository/m/{version}/model-settings.json" if together else OPTIONS["settings"]["to"]
        self.to = str(self.place / at)
        for version in ("1", "2", "3"):
            for path in (self.place / "settings" / f"{version}.json", Path(self.to.replace("{version}", version))):
                path.parent.mkdir(parents=True, exist_ok=True)
            (self.place / "settings" / f"{version}.json").write_text(settings(version))
        Path(self.to.replace("{version}", "1")).write_text(settings("1"))
        self.loaded = ["1"]
        super().__init__(self._answer)
        self.url, self.options = f"mlserver+{self.address}/m", {"settings": {"from": str(self.place / "settings/{version}.json"), "to": self.to}}

    @property
    def served(self) -> str:
        return max(self.loaded)

    @served.setter
    def served(self, version: str) -> None:
        self.loaded = [version]

    def live(self) -> list[str]:
        return sorted(json.loads(path.read_text())["parameters"]["version"] for path in self.place.glob("repository/**/model-settings.json"))

    def stop(self) -> None:
        super().stop()
        self._made.cleanup()

    def _answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if path == "/v2/models/m":
            return 200, {"name": "m", "versions": [], "inputs": [], "outputs": []}
        if path.endswith("/ready"):
            version = self.served if path == "/v2/models/m/ready" else path.split("/")[-2]
            return (404, {"error": "not found"}) if version not in self.loaded else (400, {"error": "not ready yet"}) if self.hangs else (200, {})
        if self.token and self.requests[-1][2].get("Authorization") != f"Bearer {self.token}":
            return 403, {"error": "who are you?"}
        if (method, path) != ("POST", "/v2/repository/models/m/load"):
            return 405, {"detail": "Method Not Allowed"}
        if self.hangs:
            self.loaded = sorted({*self.loaded, *self.live()})  # held, and not ready
            self.released.wait(10)
            return 503, {}
        if any(version in self.breaks for version in self.live()):
            return 500, {"error": "cannot load it"}
        self.loaded = self.live()
        return 200, {}
