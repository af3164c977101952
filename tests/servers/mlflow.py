"""Speaks MLflow 3.17's REST API as far as the registered model `fraud` goes: versions, their runs with golden rows, and the alias `champion`."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.servers._loopback import Loopback
from tests.servers.folder import BEGAN_AT, _answer, _request

SPEAKS = ("registry:mlflow",)
OPTIONS = {"golden": "golden.json"}
GONE = 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such thing"}


class Speaker(Loopback):
    """Version 2 is registered before 1, and a version a page is listed. `recorded` is what the alias names; `odd` replaces parts of its answers."""

    def __init__(self, recorded: str | None = None) -> None:
        self.recorded, self.odd, self.token = recorded, {}, None
        super().__init__(self._answer)
        self.url, self.options = f"mlflow+{self.address}/fraud", OPTIONS

    def _answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        at, asked = urlsplit(path), {name: value for name, (value, *_) in parse_qs(urlsplit(path).query).items()}
        place = at.path.removeprefix("/api/2.0/mlflow/")
        if place in self.odd:
            return self.odd[place]
        if method != "GET":
            return self._record(method, body)
        if place == "model-versions/search":
            return 200, self._page(asked)
        if place == "registered-models/get":
            aliases = [{"alias": "other", "version": "1"}, {"alias": "champion", "version": self.recorded}][: 2 if self.recorded else 1]
            return (200, {"registered_model": {"name": "fraud", "aliases": aliases}}) if asked["name"] == "fraud" else GONE
        if place == "model-versions/get":
            return (200, {"model_version": version(asked["version"])}) if asked["version"] in ("1", "2") else GONE
        if place == "runs/get":
            return 200, {"run": run(asked["run_id"])}
        return (200, golden(asked["run_uuid"].removeprefix("run-"))) if at.path == "/get-artifact" and asked["path"] == "golden.json" else GONE

    def _page(self, asked: dict[str, str]) -> dict[str, Any]:
        if asked["filter"] != "name='fraud'":
            return {}
        last = asked.get("page_token") == "second"
        return {"model_versions": [version("2")]} if last else {"model_versions": [version("1")], "next_page_token": "second"}

    def _record(self, method: str, body: Any) -> tuple[int, Any]:
        if self.token and self.requests[-1][2].get("Authorization") != f"Bearer {self.token}":
            return 403, {"error_code": "PERMISSION_DENIED", "message": "Permission denied"}
        if method == "POST" and body["version"] not in ("1", "2"):
            return GONE
        self.recorded = body["version"] if method == "POST" else None
        return 200, {}


def version(name: str, **more: Any) -> dict[str, Any]:
    at = round(BEGAN_AT.timestamp() * 1000) + (86_400_000 if name == "1" else 0)
    tags = [{"key": "declared_good_by", "value": "ada"}] if name == "1" else []
    kept = {"name": "fraud", "version": name, "creation_timestamp": at, "last_updated_timestamp": at, "status": "READY", "tags": tags}
    return {**kept, "source": f"models:/m-{name}", "run_id": f"run-{name}", **more}


def run(name: str) -> dict[str, Any]:
    tags = [{"key": "mlflow.source.git.commit", "value": "4f1c9d2"}, {"key": "mlflow.user", "value": "ada"}]
    data = {"name": "rides", "digest": "fbc06655", "source_type": "s3", "source": '{"uri": "s3://rides/2026"}', "schema": "{}"}
    inputs = {"dataset_inputs": [{"dataset": data, "tags": [{"key": "mlflow.data.context", "value": "training"}]}]}
    return {"info": {"run_id": name}, "data": {"params": [{"key": "depth", "value": "3"}], "tags": tags}, "inputs": inputs}


def golden(name: str) -> dict[str, Any]:
    return {"rows": [{"request": _request(row), "expected": _answer(row, name)} for row in range(5)], "rtol": 1e-3, "atol": 1e-5}
