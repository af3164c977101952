"""A registered model of an MLflow tracking server: its versions, what they were made from, and the alias that says which one is in force."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from agent import Golden, GoldenRow, Json, Locator, ModelVersion, Swap, adapter, digest
from agent.errors import AnswerError, CannotError, ConfigError
from agent.targets import _shapes
from agent.targets._register import Register
from agent.wire import Reply, Wire

OPTIONS = ("alias", "golden", "experiment")
API = "/api/2.0/mlflow"
PAGE, MOST = 200, 10_000  # versions in one answer, and of one model
NUMBER = re.compile("[0-9]{1,9}")  # what MLflow calls its versions
NAMED, FILES = "watchkeeper.version", "watchkeeper.files"  # tags of a version that was registered here
PROXIED = "mlflow-artifacts:"  # artifacts that MLflow itself takes and gives
GONE = "RESOURCE_DOES_NOT_EXIST"  # what it says, beside 404, of what it does not have


@adapter(role="registry", schemes=("mlflow",))
class MLflow:
    """`mlflow+http://host:port/NAME`, a registered model.

    `alias`: the one that names the version in force (champion); `record` moves it. `golden`: the path of an artifact of each version's run with
    golden rows, as JSON {rows: [{request, expected}], rtol, atol}. `experiment`: the one in which a version that is registered here has its run; 0,
    which is always there, without one. MLflow keeps no digests of files: a version's digest is that of what it was
    registered as, and a file that was exchanged behind it is not seen.
    """

    can: frozenset[str]

    def __init__(self, at: Locator) -> None:
        given, self._where = _shapes.options(at, OPTIONS), f"{at.service}.{at.role}"
        prefix, name = _shapes.model(at)
        self._root, self._name, self._wire = prefix.rstrip("/"), unquote(name), Wire(at)
        if "'" in self._name:
            raise ConfigError(f"{self._where}: {at.url}: a model's name with a quote in it cannot be searched for")
        self._alias, self._golden = str(given.get("alias", "champion")), str(given.get("golden", ""))
        self._experiment = str(given.get("experiment", "0"))
        acts = at.look is None or at.act is not None
        self.can = frozenset({"versions", *(("record", "register") if acts else ()), *(("golden",) if self._golden else ())})

    def versions(self) -> Sequence[ModelVersion]:
        """All versions that are ready, oldest first; their lineage is what the registry itself holds, without their runs."""
        found = [self._made(one, {}) for one in self._listed() if one.get("status", "READY") == "READY"] or self._none()
        return sorted(found, key=lambda one: (one.registered_at, len(one.version), one.version))

    def version(self, name: str) -> ModelVersion | None:
        """One version, with what its run says it was made from; None if it is not registered."""
        found = self._registered(name)
        return self._made(found, self._run(found)) if found is not None else None

    def golden(self, version: str) -> Golden | None:
        """The golden rows that its run left as an artifact; None without one. AnswerError when it holds none, or others than its digest says."""
        found = self._registered(version) if self._golden else None
        run = found.get("run_id") if found else None
        if not run:
            return None
        reply = self._asked("/get-artifact", {"run_uuid": str(run), "path": self._golden}, api="")
        return None if reply is None else _rows(version, reply.json(any_type=True), f"{self._golden} of run {run}")

    @property
    def record(self) -> Swap:
        """Moves the alias to `{"to": version}`, None to take it away: it is the record of truth, and moves no traffic. MLflow compares nothing, so
        it is read again right before."""
        return Swap(self._recorded, self._record, word="in force by the registry")

    @property
    def register(self) -> Register:
        """Leaves the files as artifacts of a run, and then makes it a version: a run that did not come so far is no version. MLflow gives the number;
        the name that was asked for, and the digests of the files, are tags of the version, by which it is found again."""
        return Register(self._named, self._register)

    def close(self) -> None:
        """Closes the connections."""
        self._wire.close()

    # What stands

    def _recorded(self) -> str | None:
        """The version that the alias names: read from the model, where a missing alias cannot be mistaken for a missing model."""
        aliases = self._model().get("aliases", [])
        try:
            return next((_shapes.version(one["version"], self._where) for one in aliases if one["alias"] == self._alias), None)
        except (TypeError, KeyError) as problem:
            raise AnswerError(f"{self._where}: the aliases of '{self._name}' are {aliases!r:.120}, which are none") from problem

    def _model(self) -> Mapping[str, Json]:
        reply = self._asked("/registered-models/get", {"name": self._name})
        if reply is None:
            raise AnswerError(f"{self._where}: MLflow has no registered model '{self._name}'; mend the name in the URL, or register it first", 404)
        return _part(reply.json(), "registered_model", reply)

    def _none(self) -> list[ModelVersion]:
        """No versions, of a model that is registered: a name that MLflow does not know is an error, and no empty registry."""
        self._model()
        return []

    def _registered(self, name: str) -> Mapping[str, Json] | None:
        if not NUMBER.fullmatch(name):  # MLflow would call it an invalid parameter, as it calls much else
            return None
        reply = self._asked("/model-versions/get", {"name": self._name, "version": name})
        return None if reply is None else _part(reply.json(), "model_version", reply)

    def _listed(self) -> Iterator[Mapping[str, Json]]:
        asked = {"filter": f"name='{self._name}'", "max_results": str(PAGE)}
        for _ in range(MOST // PAGE):
            reply = self._wire.get(f"{self._root}{API}/model-versions/search", params=asked)
            body = reply.json()
            rows = body.get("model_versions", []) if isinstance(body, Mapping) else None
            if not isinstance(rows, list) or not all(isinstance(one, Mapping) for one in rows):
                raise AnswerError(f"{reply.url}: the answer has no list of model versions")
            yield from rows
            if not (token := body.get("next_page_token")):
                return
            asked = {**asked, "page_token": str(token)}
        raise AnswerError(f"{self._where}: '{self._name}' has more than {MOST:,} versions, or its pages have no end")

    def _run(self, version: Mapping[str, Json]) -> Mapping[str, Json]:
        """What the run that made a version says: its code, its parameters, its data with their digests; {} where it is gone."""
        reply = self._asked("/runs/get", {"run_id": str(version["run_id"])}) if version.get("run_id") else None
        if reply is None:
            return {}
        run = _part(reply.json(), "run", reply)
        try:
            said = {one["key"]: one["value"] for one in run.get("data", {}).get("tags", ())}
            return {
                "code": said.get("mlflow.source.git.commit"),
                "made_by": said.get("mlflow.user"),
                "parameters": {one["key"]: one["value"] for one in run.get("data", {}).get("params", ())},
                "data": [_dataset(one) for one in run.get("inputs", {}).get("dataset_inputs", ())],
            }
        except (TypeError, KeyError, AttributeError) as problem:
            raise AnswerError(f"{reply.url}: the run is of another shape ({type(problem).__name__}: {problem})") from problem

    def _asked(self, path: str, params: Mapping[str, str], api: str = API) -> Reply | None:
        """An answer; None when it is MLflow that says there is no such thing, and not whoever else is at this address."""
        try:
            return self._wire.get(f"{self._root}{api}{path}", params=params)
        except AnswerError as problem:
            if problem.status == 404 and GONE in str(problem):
                return None
            raise

    def _made(self, found: Mapping[str, Json], run: Mapping[str, Json]) -> ModelVersion:
        try:
            tags = {str(one["key"]): one.get("value", "") for one in found.get("tags", ())}
            fixed = {key: found.get(key) for key in ("name", "version", "source", "run_id", "model_id", "creation_timestamp")}
            at = datetime.fromtimestamp(int(found["creation_timestamp"]) / 1000, UTC)
            lineage = {"source": found.get("source"), "run": found.get("run_id"), "tags": tags, **run}
            return ModelVersion(str(found["version"]), digest(fixed), {}, lineage, at, tags.get("declared_good_by") or None)
        except (TypeError, KeyError, AttributeError, ValueError, OverflowError, OSError) as problem:
            raise AnswerError(f"{self._where}: MLflow describes a version as {dict(found)!r:.200} ({type(problem).__name__}: {problem})") from problem

    # What is changed

    def _named(self, name: str) -> ModelVersion | None:
        """The version that was registered here under a name, with the digests of its files."""
        tagged = [(one, {str(tag["key"]): str(tag.get("value", "")) for tag in one.get("tags", ())}) for one in self._listed()]
        found = next(((one, tags) for one, tags in tagged if tags.get(NAMED) == name), None)
        return None if found is None else replace(self._made(found[0], {}), files=_digests(found[1].get(FILES, "")))

    def _register(self, name: str, folder: Path, files: Mapping[str, str], lineage: Mapping[str, Json]) -> None:
        run, place = self._begun(name, lineage)
        for file, expected in files.items():
            self._leave(place, file, _body(folder / file, expected))
        self._leave(place, "lineage.json", json.dumps(dict(lineage), indent=1).encode())
        self._describe(run, lineage)
        kept = [{"key": NAMED, "value": name}, {"key": FILES, "value": json.dumps(dict(files))}]
        self._acted("/model-versions/create", {"name": self._name, "source": place, "run_id": run, "tags": kept})

    def _begun(self, name: str, lineage: Mapping[str, Json]) -> tuple[str, str]:
        """A new run, and where its artifacts lie."""
        tags = [{"key": "mlflow.source.git.commit", "value": str(lineage["code"])}] if lineage.get("code") else []
        reply = self._acted("/runs/create", {"experiment_id": self._experiment, "start_time": _now(), "run_name": name, "tags": tags})
        info = _part(_part(reply.json(), "run", reply), "info", reply)
        run, place = str(info.get("run_id")), str(info.get("artifact_uri"))
        if not place.startswith(PROXIED):
            raise CannotError(f"{self._where}: MLflow keeps artifacts at {place:.80}, where only its own clients can leave them; let it serve them")
        return run, place

    def _leave(self, place: str, file: str, body: bytes) -> None:
        path = f"{self._root}/api/2.0/mlflow-artifacts/artifacts/{place.removeprefix(PROXIED).lstrip('/')}/{quote(file)}"
        self._wire.request("PUT", path, content=body, headers={"Content-Type": "application/octet-stream"}, acting=True)

    def _describe(self, run: str, lineage: Mapping[str, Json]) -> None:
        """What a run is expected to say in MLflow's own words; all of it lies in lineage.json besides."""
        metrics = [{"key": key, "value": value, "timestamp": _now(), "step": 0} for key, value in (lineage.get("metrics") or {}).items()]
        data = [{"key": f"{key}.sha256", "value": str(one.get("sha256"))} for key, one in (lineage.get("data") or {}).items()]
        told = [{"key": key, "value": str(lineage[key])} for key in ("parent", "seed", "rows") if lineage.get(key) is not None]
        self._acted("/runs/log-batch", {"run_id": run, "metrics": metrics, "params": [*told, *data]})
        self._acted("/runs/update", {"run_id": run, "status": "FINISHED", "end_time": _now()})

    def _acted(self, path: str, body: Mapping[str, Json]) -> Reply:
        return self._wire.request("POST", f"{self._root}{API}{path}", json=dict(body), acting=True)

    def _record(self, to: Json, expected: Json) -> None:
        if (found := self._recorded()) != expected:
            raise _shapes.moved(f"{self._where}: alias '{self._alias}'", expected, f"it names {found}")
        alias: dict[str, Any] = {"name": self._name, "alias": self._alias}
        path = f"{self._root}{API}/registered-models/alias"
        if to is None:
            self._wire.request("DELETE", path, json=alias, acting=True)
        else:
            self._wire.post(path, json={**alias, "version": str(to)}, acting=True)


def _part(body: Json, name: str, reply: Reply) -> Mapping[str, Json]:
    part = body.get(name) if isinstance(body, Mapping) else None
    if not isinstance(part, Mapping):
        raise AnswerError(f"{reply.url}: the answer has no {name}; is it MLflow's tracking server?")
    return part


def _now() -> int:
    return round(datetime.now(UTC).timestamp() * 1000)


def _digests(said: str) -> Mapping[str, str]:
    """The digests of files that a tag holds; none where it holds something else."""
    try:
        found = json.loads(said)
    except ValueError:
        return {}
    return {str(name): str(one) for name, one in found.items()} if isinstance(found, Mapping) else {}


def _body(path: Path, expected: str) -> bytes:
    """A file that is left as an artifact; AnswerError where it is not what was handed in."""
    try:
        body = path.read_bytes()
    except OSError as problem:
        raise AnswerError(f"{path} cannot be read ({problem.strerror}); nothing was registered") from problem
    if sha256(body).hexdigest() != expected:
        raise AnswerError(f"{path} is not what was handed in: its sha256 is another; nothing was registered")
    return body


def _dataset(one: Mapping[str, Json]) -> Mapping[str, Json]:
    context = next((tag["value"] for tag in one.get("tags", ()) if tag["key"] == "mlflow.data.context"), None)
    return {**{key: one["dataset"].get(key) for key in ("name", "digest", "source_type", "source")}, "context": context}


def _rows(version: str, body: Json, where: str) -> Golden:
    try:
        rows = tuple(GoldenRow(row["request"], row["expected"]) for row in body["rows"])
        sealed = digest({key: value for key, value in body.items() if key != "digest"})
        if body.get("digest", sealed) != sealed:
            raise AnswerError(f"{where} was changed after it was recorded: its digest does not match; restore it, or register a new version")
        return Golden(version, rows, float(body.get("rtol", 1e-3)), float(body.get("atol", 1e-5)), sealed)
    except (TypeError, KeyError, AttributeError, ValueError) as problem:
        raise AnswerError(f"{where} holds no golden rows ({type(problem).__name__}: {problem}); write {json.dumps(SHAPE)}") from problem


SHAPE = {"rows": [{"request": {}, "expected": {}}], "rtol": 0.001, "atol": 0.00001}
