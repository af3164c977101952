"""Speaks as much of Prefect's REST interface as a trainer needs: the deployment `retrain/on-demand`, whose runs `work` carries out."""

from __future__ import annotations

from typing import Any

from tests.servers._loopback import Loopback

SPEAKS = ("trainer:prefect",)


class Speaker(Loopback):
    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        super().__init__(self._answer)
        self.url = f"prefect+{self.address}/retrain/on-demand"

    def jobs(self) -> list[str]:
        """The folders that runs were asked for with."""
        return [run["parameters"]["job"] for run in self.runs.values()]

    def becomes(self, state: str, said: str = "") -> None:
        """Every run is in that state now."""
        word = {"queued": "SCHEDULED", "running": "RUNNING", "succeeded": "COMPLETED", "failed": "CRASHED", "else": "ROLLED_BACK"}[state]
        for run in self.runs.values():
            run.update(state_type=word, state={"type": word, "message": said})

    def _answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if (method, path) == ("GET", "/api/deployments/name/retrain/on-demand"):
            return 200, {"id": "d-1", "name": "on-demand"}
        if (method, path) == ("POST", "/api/deployments/d-1/create_flow_run"):
            key = body["idempotency_key"]
            fresh = {"id": f"r-{len(self.runs)}", "state_type": "SCHEDULED", "state": {"type": "SCHEDULED"}, **body}
            return (200 if key in self.runs else 201), self.runs.setdefault(key, fresh)
        if (method, path) == ("POST", "/api/flow_runs/filter"):
            return 200, [self.runs[key] for key in body["flow_runs"]["idempotency_key"]["any_"] if key in self.runs]
        if method == "POST" and path.endswith("/set_state"):
            run = next(run for run in self.runs.values() if run["id"] == path.split("/")[-2])
            run.update(state_type=body["state"]["type"], state=body["state"])
            return 201, {"status": "ACCEPT"}
        return 404, {"detail": "Not Found"}
