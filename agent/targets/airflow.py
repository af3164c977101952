"""A trainer that is a DAG of Airflow 3's: a DAG run is asked for over its REST interface (v2), and what it makes comes back in a shared folder."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from agent import Job, Json, Locator, Manifest, Train, adapter
from agent.errors import AnswerError, ServerError
from agent.targets import _jobs, _shapes
from agent.wire import Wire

OPTIONS = ("folder", "seen", "conf")
STATES = {"queued": "queued", "running": "running", "success": "succeeded", "failed": "failed"}  # its words for how a run stands
TAKEN = 409


@adapter(role="trainer", schemes=("airflow",))
class Airflow:
    """`airflow+http://host:8080/DAG`; a path before the DAG's name is that of the web server.

    The DAG finds in its `conf` the key `job`: the folder with spec.json, into which it writes its files and last manifest.json. `folder`: where those
    folders lie, storage that we and the workers share (jobs); `seen`: the path by which the workers see it, where it is another; `conf`: more for it.
    """

    can: frozenset[str] = frozenset({"cancel"})

    def __init__(self, at: Locator) -> None:
        given = _shapes.options(at, OPTIONS)
        prefix, dag = _shapes.model(at, "dags")
        self._path = f"{prefix}/api/v2/dags/{quote(dag, safe='')}/dagRuns"
        self._jobs, self._conf = _jobs.Jobs.of(at), given.get("conf") or {}
        self._wire = Wire(at)

    @property
    def train(self) -> Train:
        """`trainer.train`."""
        return Train(self)

    def start(self, spec: Mapping[str, Json], key: str) -> None:
        """Asks for a run under a name that only this job has; one of that name is the one that was begun."""
        self._jobs.laid_out(spec, key)
        try:
            self._wire.post(
                self._path,
                json={"dag_run_id": self._jobs.mark(key), "logical_date": None, "conf": {**self._conf, "job": self._jobs.there(key)}},
                acting=True,
            )
        except AnswerError as problem:
            if problem.status != TAKEN or isinstance(problem, ServerError):
                raise

    def status(self, key: str) -> Job:
        """How its run stands."""
        run = self._run(key)
        if run is None:
            return Job("absent", "Airflow has no run of this")
        state = str(run.get("state"))
        return Job(STATES.get(state, "lost"), f"Airflow's run {self._jobs.mark(key)} is {state}")  # type: ignore[arg-type]  # the words of STATES are those of a Job

    def cancel(self, key: str) -> None:
        """Marks the run as failed, which is how Airflow ends one."""
        run = self._run(key)
        if run is not None and STATES.get(str(run.get("state"))) in ("queued", "running"):
            self._wire.request("PATCH", f"{self._path}/{self._jobs.mark(key)}", json={"state": "failed"}, acting=True)

    def result(self, key: str) -> Manifest:
        """What it made, once what it was given is found to be what it was."""
        return self._jobs.result(key)

    def close(self) -> None:
        """Closes the connections; the run goes on."""
        self._wire.close()

    def _run(self, key: str) -> Mapping[str, Json] | None:
        try:
            found = self._wire.get(f"{self._path}/{self._jobs.mark(key)}").json()
        except AnswerError as problem:
            if problem.status == 404:
                return None
            raise
        if not isinstance(found, Mapping):
            raise AnswerError(f"{self._path}: the answer is no run")
        return found
