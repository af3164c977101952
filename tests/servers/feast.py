"""Speaks the HTTP protocol of Feast's feature server: feature service `driver_v1`, view `stats` with the features `rate` and `trips`.

It answers as release 0.67 does: the join key comes first, a 500 says in plain JSON text what was wrong with the question. `redis=True` calls what
it never had PRESENT, as Feast does with Redis behind it.
"""

from __future__ import annotations

from typing import Any

from tests.servers._loopback import Loopback

SPEAKS = ("online:feast",)
OPTIONS = {"service": "driver_v1"}
NEVER = "1970-01-01T00:00:00Z"
ROWS = {1001: {"rate": 0.5, "trips": 8}, 1002: {"rate": 0.25, "trips": None}}


class Speaker(Loopback):
    """`rows` is {driver: {feature: value}}; `times` the event time of each driver's row, `at` where it has none of its own."""

    def __init__(self, redis: bool = False, options: dict[str, Any] | None = None, rows: dict[Any, dict[str, Any]] | None = None) -> None:
        self.redis, self.up, self.at, self.rows, self.times = redis, True, "2026-01-02T03:04:05.250Z", ROWS if rows is None else rows, {}
        self.names: list[str] = []
        super().__init__(self._answer)
        self.url, self.options = f"feast+{self.address}", OPTIONS if options is None else options

    def _answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if path == "/health":
            return (200, None) if self.up else (503, {"detail": "starting"})
        if (method, path) != ("POST", "/get-online-features"):
            return 404, {"detail": "Not Found"}
        if (service := body.get("feature_service", "driver_v1")) != "driver_v1":
            return 404, f"Feature service {service} does not exist in project p"
        names = self.names or sorted({name for row in self.rows.values() for name in row})
        asked = [name.split(":")[1] for name in body.get("features", ())] or names
        if unknown := [name for name in asked if name not in names]:
            return 500, f"'Feature {unknown[0]} not found in projection stats'"
        if set(body["entities"]) != {"driver"} or not body["entities"]["driver"]:
            return 500, "Missing join key values for keys: ['driver']."
        drivers = [int(driver) for driver in body["entities"]["driver"]]  # the entity is declared INT64, and text is read as that
        key = {"values": drivers, "statuses": ["PRESENT"] * len(drivers), "event_timestamps": [NEVER] * len(drivers)}
        full = "stats__" if body.get("full_feature_names") else ""
        return 200, {
            "results": [key, *(self._column(name, drivers) for name in asked)],
            "metadata": {"feature_names": ["driver", *(full + name for name in asked)]},
        }

    def _column(self, name: str, drivers: list[Any]) -> dict[str, Any]:
        there = [driver in self.rows for driver in drivers]
        return {
            "values": [self.rows[driver][name] if has else None for driver, has in zip(drivers, there, strict=True)],
            "statuses": ["PRESENT" if has or self.redis else "NOT_FOUND" for has in there],
            "event_timestamps": [self.times.get(driver, self.at) if has else NEVER for driver, has in zip(drivers, there, strict=True)],
        }
