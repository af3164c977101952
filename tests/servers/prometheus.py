"""Speaks Prometheus' query API: `vectors` holds what each query answers, as (labels, value) pairs; anything else is a parse error."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.servers._loopback import Loopback

SPEAKS = ("metrics:prometheus",)
ONE, SOME, NONE, BAD = "one", "some", "none", "sum("


class Speaker(Loopback):
    """Behind the prefix /prom, as Mimir's; `data` is answered instead of a vector, `refusal` instead of anything."""

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        self.vectors: dict[str, list[tuple[dict[str, str], Any]]] = {
            ONE: [({}, "1.5")],
            SOME: [({"version": "1"}, "0.25"), ({"version": "2"}, "NaN")],
            NONE: [],
            "vector(1)": [({}, "1")],
        }
        self.data: Any = None
        self.warnings: list[str] = []
        self.refusal: tuple[int, str, str] | None = None
        super().__init__(self._answer)
        self.url, self.options = f"prometheus+{self.address}/prom", options or {}

    @property
    def forms(self) -> list[dict[str, str]]:
        """What was asked, newest last."""
        return [{name: values[0] for name, values in parse_qs(body.decode()).items()} for _, _, _, body in self.requests]

    def read(self, content: bytes) -> Any:
        return None  # a form, not JSON

    def _answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if urlsplit(path).path != "/prom/api/v1/query":
            return 404, {"error": "no such page"}
        asked = self.forms[-1]["query"]
        status, kind, words = self.refusal or (400, "bad_data", "1:5: parse error: unclosed left parenthesis")
        if self.refusal or (self.data is None and asked not in self.vectors):
            return status, {"status": "error", "errorType": kind, "error": words}
        vector = [{"metric": labels, "value": [float(self.forms[-1].get("time", 0)), value]} for labels, value in self.vectors.get(asked, ())]
        data = {"resultType": "vector", "result": vector} if self.data is None else self.data
        return 200, {"status": "success", "data": data, **({"warnings": self.warnings} if self.warnings else {})}
