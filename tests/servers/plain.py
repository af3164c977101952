"""Speaks plain HTTP and JSON, as a FastAPI, BentoML or Flask application would, with paths of its own."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.servers._loopback import Loopback
from tests.servers.oip import FACTORS, TENSOR

SPEAKS = ("server:http", "server:https")
REQUEST = [1.0, 2.0]
OPTIONS = {
    "ready": "/readyz",
    "version": {"path": "/metadata", "field": "model.version"},
    "signature": {"path": "/metadata", "field": "model.signature"},
    "at": "/predict?version={version}",
    "wrap": "x",
}


class Speaker(Loopback):
    def __init__(self, served: str = "1", options: dict[str, Any] | None = None) -> None:
        self.served, self.up = served, True
        super().__init__(self._answer)
        self.url, self.options = f"{self.address}/predict", OPTIONS if options is None else options

    def _answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        url = urlsplit(path)
        if url.path == "/readyz":
            return (200, {"ok": True}) if self.up else (503, {"ok": False})
        if url.path == "/metadata":
            return 200, {"model": {"version": self.served, "signature": {"inputs": [TENSOR], "outputs": []}}}
        if url.path != "/predict":
            return 404, {"detail": "Not Found"}
        if method == "GET":
            body = {"x": [float(x) for x in parse_qs(url.query).get("x", ())]}
        named = parse_qs(url.query).get("version", [self.served])[0]
        if named not in FACTORS:
            return 404, {"detail": f"no version {named}"}
        if not isinstance(body, dict) or len(body.get("x", ())) != 2:
            return 422, {"detail": "x must be two numbers"}
        return 200, {"y": [FACTORS[named] * x for x in body["x"]], "meta": {"version": named}}
