"""Speaks the example server's version pointer: read, compare-and-set, load and unload, behind a bearer token if it has one."""

from __future__ import annotations

from typing import Any

from tests.servers._loopback import Loopback

SPEAKS = ("router:pointer",)


class Speaker(Loopback):
    def __init__(self, served: str = "1", loaded: tuple[str, ...] = ("1", "2"), token: str | None = None) -> None:
        self.served, self.loaded, self.token = served, list(loaded), token
        super().__init__(self._answer)
        self.url, self.options = f"pointer+{self.address}", {}

    def _answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if method == "POST" and self.token and self.requests[-1][2].get("Authorization") != f"Bearer {self.token}":
            return 401, {"error": "who are you?"}
        if path == "/admin/pointer" and method == "GET":
            return 200, {"model": "m", "version": self.served, "loaded": self.loaded}
        if path == "/admin/pointer" and body["expected"] != self.served:
            return 409, {"version": self.served}
        if path == "/admin/pointer" and body["to"] not in self.loaded:
            return 404, {"error": f"version {body['to']} is not loaded"}
        if path == "/admin/pointer":
            self.served = body["to"]
            return 200, {"version": self.served}
        if path == "/admin/load":
            self.loaded.append(body["version"])
        elif path == "/admin/unload":
            self.loaded.remove(body["version"])
        else:
            return 404, {"error": "no such page"}
        return 200, {"loaded": self.loaded}
