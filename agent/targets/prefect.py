"""A trainer that is a deployment of Prefect's: a flow run is asked for over its REST interface, and what it makes comes back in a shared folder."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from agent import Job, Json, Locator, Manifest, Train, adapter
from agent.errors import AnswerError, ConfigError
from agent.targets import _jobs, _shapes
from agent.wire import Wire

OPTIONS = ("folder", "seen", "parameters")
STATES = {  # its words for how a run stands
    **dict.fromkeys(("SCHEDULED", "PENDING"), "queued"),
    **dict.fromkeys(("RUNNING", "PAUSED", "CANCELLING"), "running"),
    "COMPLETED": "succeeded",
    **dict.fromkeys(("FAILED", "CRASHED", "CANCELLED"), "failed"),
}


@adapter(role="trainer", schemes=("prefect",))
class Prefect:
    """`prefect+http://host:4200/FLOW/DEPLOYMENT`; a path before the flow's name is that of the interface, /api where there is none.

    The flow takes the parameter `job`: the folder with spec.json, into which it writes its files and last manifest.json. `folder`: where those
    folders lie, storage that we and the workers share (jobs); `seen`: the path by which the workers see it, where it is another; `parameters`: more
    of them for the flow.
    """

    can: frozenset[str] = frozenset({"cancel"})

    def __init__(self, at: Locator) -> None:
        given = _shapes.options(at, OPTIONS)
        *prefix, flow, deployment = ["", "", *urlsplit(at.address).path.strip("/").split("/")]
        if not flow or not deployment:
            raise ConfigError(f"{at.service}.{at.role}: {at.url} names no deployment; write {at.scheme}+http://host:4200/FLOW/DEPLOYMENT")
        self._root, self._name = "/" + "/".join(filter(None, prefix)) if any(prefix) else "/api", f"{flow}/{deployment}"
        self._jobs, self._given = _jobs.Jobs.of(at), given.get("parameters") or {}
        self._wire = Wire(at)

    @property
    def train(self) -> Train:
        """`trainer.train`."""
        return Train(self)

    def start(self, spec: Mapping[str, Json], key: str) -> None:
        """Asks for a run of the deployment; a second one of this key is, for Prefect, the first."""
        self._jobs.laid_out(spec, key)
        found = self._wire.get(f"{self._root}/deployments/name/{'/'.join(quote(part, safe='') for part in self._name.split('/'))}").json()
        asked = {"name": self._jobs.mark(key), "idempotency_key": self._jobs.mark(key), "parameters": {**self._given, "job": self._jobs.there(key)}}
        self._wire.post(f"{self._root}/deployments/{_shapes.pick(found, 'id', self._name)}/create_flow_run", json=asked, acting=True)

    def status(self, key: str) -> Job:
        """How its run stands."""
        run = self._run(key)
        if run is None:
            return Job("absent", "Prefect has no run of this")
        state = run.get("state") or {}
        kind = str(state.get("type") or run.get("state_type"))
        said = str(state.get("message") or "")[:300]
        return Job(STATES.get(kind, "lost"), f"Prefect's run {run.get('name')} is {kind}{': ' + said if said else ''}")  # type: ignore[arg-type]  # the words of STATES are those of a Job

    def cancel(self, key: str) -> None:
        """Asks Prefect to end the run; whoever runs it does so when it next looks."""
        run = self._run(key)
        if run is not None and STATES.get(str(run.get("state_type"))) in ("queued", "running"):
            kind = "CANCELLING" if run.get("state_type") == "RUNNING" else "CANCELLED"
            self._wire.post(f"{self._root}/flow_runs/{run['id']}/set_state", json={"state": {"type": kind}}, acting=True)

    def result(self, key: str) -> Manifest:
        """What it made, once what it was given is found to be what it was."""
        return self._jobs.result(key)

    def close(self) -> None:
        """Closes the connections; the run goes on."""
        self._wire.close()

    def _run(self, key: str) -> Mapping[str, Json] | None:
        asked = {"flow_runs": {"idempotency_key": {"any_": [self._jobs.mark(key)]}}, "limit": 1}
        found = self._wire.post(f"{self._root}/flow_runs/filter", json=asked).json()
        if not isinstance(found, list) or not all(isinstance(run, Mapping) for run in found):
            raise AnswerError(f"{self._root}/flow_runs/filter: the answer is no list of runs")
        return found[0] if found else None
