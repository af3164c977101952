"""Speaks a hook of a team's own making: GET /route tells the version, PUT /route/{to} sets it, comparing if it is told what to expect."""

from __future__ import annotations

from typing import Any

from tests.servers._loopback import Loopback

SPEAKS = ("router:hook",)


class Speaker(Loopback):
    """`compares=False` is a hook that overwrites whatever is there."""

    def __init__(self, served: str = "1", compares: bool = True, token: str | None = None) -> None:
        self.served, self.token = served, token
        super().__init__(self._answer)
        body = {"was": "{expected}"} if compares else {}
        self.url = f"hook+{self.address}"
        self.options = {"read": {"path": "/route", "field": "to.version"}, "write": {"method": "put", "path": "/route/{to}", "body": body}}

    def _answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if method == "GET" and path == "/route":
            return 200, {"to": {"version": self.served}}
        if self.token and self.requests[-1][2].get("Authorization") != f"Bearer {self.token}":
            return 403, {"error": "not yours"}
        if method != "PUT" or not path.startswith("/route/"):
            return 405, {"error": method}
        if body.get("was", self.served) != self.served:
            return 412, {"version": self.served}
        self.served = path.removeprefix("/route/")
        return 204, None
