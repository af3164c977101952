"""Speaks as much of Airflow 3's REST interface (v2) as a trainer needs: the DAG `retrain`, whose runs `becomes` carries on."""

from __future__ import annotations

from typing import Any

from tests.servers._loopback import Loopback

SPEAKS = ("trainer:airflow",)
RUNS = "/api/v2/dags/retrain/dagRuns"


class Speaker(Loopback):
    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        super().__init__(self._answer)
        self.url = f"airflow+{self.address}/retrain"

    def jobs(self) -> list[str]:
        """The folders that runs were asked for with."""
        return [run["conf"]["job"] for run in self.runs.values()]

    def becomes(self, state: str, said: str = "") -> None:
        """Every run is in that state now."""
        for run in self.runs.values():
            run["state"] = {"succeeded": "success", "else": "deferred"}.get(state, state)

    def _answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if (method, path) == ("POST", RUNS):
            if set(body) != {"dag_run_id", "logical_date", "conf"}:
                return 422, {"detail": f"unexpected {sorted(body)}"}
            if body["dag_run_id"] in self.runs:
                return 409, {"detail": "Conflict"}
            self.runs[body["dag_run_id"]] = {**body, "dag_id": "retrain", "state": "queued"}
            return 200, self.runs[body["dag_run_id"]]
        run = self.runs.get(path.removeprefix(f"{RUNS}/"))
        if run is None:
            return 404, {"detail": f"no DagRun at {path}"}
        if method == "PATCH":
            run["state"] = body["state"]
        return 200, run
