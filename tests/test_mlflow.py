"""The MLflow registry: hostile answers from a speaker, and the whole of it against a real MLflow, which nobody here wrote."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.request import Request, urlopen

import pytest

from agent import Absent, Done, Failed, Locator, Status, Try
from agent.errors import AnswerError, ConfigError
from agent.targets import connect
from checks import serving
from tests.conftest import need
from tests.processes import start
from tests.servers import mlflow, oip
from tests.test_mlserver import free_ports

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GOLDEN = {"golden": "golden.json"}


@pytest.fixture
def speaker() -> Iterator[mlflow.Speaker]:
    found = mlflow.Speaker()
    yield found
    found.stop()


def registry(url: str, **options: Any) -> Any:
    return connect(Locator("fraud", "registry", url, options or GOLDEN, within=timedelta(seconds=10)))


def tried(before: Any) -> Try:
    return Try("run-1/2", 1, NOW + timedelta(seconds=10), before, 1, NOW)


# What it makes of answers


def test_a_version_says_what_it_was_made_from(speaker):
    one = registry(speaker.url).version("1")
    assert (one.declared_good_by, one.registered_at) == ("ada", mlflow.BEGAN_AT + timedelta(days=1))
    assert one.lineage == {
        "source": "models:/m-1",
        "run": "run-1",
        "tags": {"declared_good_by": "ada"},
        "code": "4f1c9d2",
        "made_by": "ada",
        "parameters": {"depth": "3"},
        "data": [{"name": "rides", "digest": "fbc06655", "source_type": "s3", "source": '{"uri": "s3://rides/2026"}', "context": "training"}],
    }


def test_a_digest_is_of_what_was_registered_and_not_of_what_was_said_about_it_since(speaker):
    one = registry(speaker.url)
    before = {version.version: version.digest for version in one.versions()}
    assert before == {name: one.version(name).digest for name in ("1", "2")}
    said = mlflow.version("1", tags=[{"key": "reviewed", "value": "yes"}], last_updated_timestamp=1, description="better")
    speaker.odd["model-versions/get"] = 200, {"model_version": said}
    assert one.version("1").digest == before["1"]
    speaker.odd["model-versions/get"] = 200, {"model_version": mlflow.version("1", source="models:/m-9")}
    assert one.version("1").digest != before["1"]


def test_a_version_that_is_still_being_registered_is_not_listed(speaker):
    rows = [mlflow.version("1"), mlflow.version("2", status="PENDING_REGISTRATION"), mlflow.version("3", status="FAILED_REGISTRATION")]
    speaker.odd["model-versions/search"] = 200, {"model_versions": rows}
    assert [one.version for one in registry(speaker.url).versions()] == ["1"]


def test_a_model_without_versions_has_none_and_one_that_is_not_registered_is_an_error(speaker):
    speaker.odd["model-versions/search"] = 200, {}
    assert registry(speaker.url).versions() == []
    other = registry(speaker.url.replace("fraud", "froud"))
    for ask in (other.versions, lambda: other.record.before({"to": "1"})):
        with pytest.raises(AnswerError, match="MLflow has no registered model 'froud'; mend the name in the URL"):
            ask()


@pytest.mark.parametrize("name", ["abc", "-1", "1.0", "", "../1", "9" * 30, "٣"])
def test_what_is_no_number_is_no_version_and_is_not_asked_for(speaker, name):
    assert (registry(speaker.url).version(name), registry(speaker.url).golden(name)) == (None, None)
    assert speaker.requests == []


def test_pages_without_an_end_are_an_error(speaker):
    speaker.odd["model-versions/search"] = 200, {"model_versions": [], "next_page_token": "again"}
    with pytest.raises(AnswerError, match="its pages have no end"):
        registry(speaker.url).versions()


@pytest.mark.parametrize(
    ("place", "body"),
    [
        ("model-versions/search", [1]),
        ("model-versions/search", {"model_versions": {}}),
        ("model-versions/search", {"model_versions": [7]}),
        ("model-versions/search", {"model_versions": [mlflow.version("1", creation_timestamp="soon")]}),
        ("model-versions/search", {"model_versions": [mlflow.version("1", creation_timestamp=10**30)]}),
        ("model-versions/search", {"model_versions": [mlflow.version("1", tags=[{"value": "keyless"}])]}),
        ("model-versions/search", {"model_versions": [{"name": "fraud"}]}),
        ("model-versions/get", {}),
        ("model-versions/get", {"model_version": []}),
        ("runs/get", {"run": None}),
        ("runs/get", {"run": {"data": {"tags": [1]}}}),
        ("runs/get", {"run": {"inputs": {"dataset_inputs": [{"dataset": None}]}}}),
        ("registered-models/get", {"registered_model": {"aliases": [{"alias": "champion"}]}}),
        ("registered-models/get", {"registered_model": {"aliases": 1}}),
        ("registered-models/get", {"registered_model": {"aliases": [{"alias": "champion", "version": [1]}]}}),
    ],
)
def test_an_answer_of_another_shape_is_an_error_that_says_where(speaker, place, body):
    speaker.odd[place] = 200, body
    one = registry(speaker.url)
    asked = {"model-versions/search": one.versions, "registered-models/get": lambda: one.record.before({"to": "1"})}
    with pytest.raises(AnswerError, match=r"fraud.registry|http://127.0.0.1"):
        asked.get(place, lambda: one.version("1"))()


def test_a_run_that_is_gone_leaves_what_the_registry_itself_says(speaker):
    speaker.odd["runs/get"] = mlflow.GONE
    assert registry(speaker.url).version("1").lineage == {"source": "models:/m-1", "run": "run-1", "tags": {"declared_good_by": "ada"}}


def test_whoever_else_answers_404_does_not_say_that_a_version_is_not_registered(speaker):
    speaker.odd["model-versions/get"] = 404, {"detail": "Not Found"}
    with pytest.raises(AnswerError, match="404"):
        registry(speaker.url).version("1")


# Golden rows


def artifact(speaker: mlflow.Speaker, body: Any) -> Any:
    speaker.odd["/get-artifact"] = 200, body
    return registry(speaker.url).golden("1")


def test_golden_rows_may_carry_a_digest_which_must_be_theirs(speaker):
    from agent import digest

    rows = mlflow.golden("1")
    assert artifact(speaker, {**rows, "digest": digest(rows)}).digest == digest(rows)
    with pytest.raises(AnswerError, match="was changed after it was recorded"):
        artifact(speaker, {**rows, "rtol": 0.5, "digest": digest(rows)})


@pytest.mark.parametrize("body", [[], {"rows": 1}, {"rows": [{"request": 1}]}, {"rows": [], "rtol": "much"}, {}, "rows", None])
def test_an_artifact_that_holds_no_golden_rows_is_an_error_that_says_how_they_are_written(speaker, body):
    with pytest.raises(AnswerError, match=r"golden.json of run run-1 holds no golden rows .*expected"):
        artifact(speaker, body)


def test_there_are_no_golden_rows_where_none_are_configured_or_none_were_left(speaker):
    one = registry(speaker.url, alias="champion")
    assert (one.can, one.golden("1")) == ({"versions", "record", "register"}, None)
    assert registry(speaker.url, golden="other.json").golden("1") is None
    speaker.odd["model-versions/get"] = 200, {"model_version": mlflow.version("1", run_id="")}
    assert registry(speaker.url).golden("1") is None


# What is configured


def test_a_prefix_stays_in_front_and_a_name_may_be_quoted():
    at = "mlflow+https://ml.internal/mlflow/risk%20model"
    one = connect(Locator("fraud", "registry", at))
    assert (one._root, one._name, one.can) == ("/mlflow", "risk model", {"versions", "record", "register"})


@pytest.mark.parametrize(
    ("url", "options", "told"),
    [
        ("mlflow+http://host:5000", {}, "names no model"),
        ("mlflow+http://host:5000/it's", {}, "a quote in it"),
        ("mlflow+http://host:5000/m", {"alais": "champion"}, "no option 'alais'"),
        ("mlflow+http://ada:pw@host:5000/m", {}, "holds a credential"),
    ],
)
def test_a_registry_that_could_not_work_is_refused_before_anything_is_sent(url, options, told):
    with pytest.raises(ConfigError, match=told):
        connect(Locator("fraud", "registry", url, options))


# MLflow itself


class Real:
    """A real server, and what training code would have told it: versions 1 and 2 of `fraud`, the first with golden rows for the `oip` speaker."""

    def __init__(self, url: str) -> None:
        self.url = url
        experiment = self.post("experiments/create", name="fraud")["experiment_id"]
        self.post("registered-models/create", name="fraud")
        for version, factor in (("1", 2.0), ("2", 3.0)):
            run = self.post("runs/create", experiment_id=experiment, tags=[{"key": "mlflow.source.git.commit", "value": f"c{version}"}])["run"][
                "info"
            ]
            self.post("runs/log-parameter", run_id=run["run_id"], key="factor", value=str(factor))
            data = {"name": "rides", "digest": f"d{version}", "source_type": "s3", "source": "{}", "schema": "{}", "profile": "{}"}
            tags = [{"key": "mlflow.data.context", "value": "training"}]
            self.post("runs/log-inputs", run_id=run["run_id"], datasets=[{"tags": tags, "dataset": data}])
            if version == "1":
                rows = [{"request": oip.REQUEST, "expected": {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [2.0, 4.0]}]}}]
                place = run["artifact_uri"].removeprefix("mlflow-artifacts:/")
                self.ask("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{place}/golden.json", {"rows": rows})
            made = self.post("model-versions/create", name="fraud", source=run["artifact_uri"], run_id=run["run_id"])["model_version"]
            assert made["version"] == version
        self.post("model-versions/set-tag", name="fraud", version="1", key="declared_good_by", value="ada")

    def post(self, path: str, **body: Any) -> Any:
        return self.ask("POST", f"/api/2.0/mlflow/{path}", body)

    def ask(self, method: str, path: str, body: Any) -> Any:
        request = Request(self.url + path, json.dumps(body).encode(), {"content-type": "application/json"}, method=method)
        with urlopen(request, timeout=60) as reply:
            return json.loads(reply.read() or b"{}")


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    program, place, (port,) = need("mlflow"), tmp_path_factory.mktemp("mlflow"), free_ports(1)
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    quiet["PATH"] = os.pathsep.join([str(program.parent), os.environ["PATH"]])
    kept = ["--backend-store-uri", f"sqlite:///{place}/mlflow.db", "--artifacts-destination", str(place / "artifacts")]
    line = [program, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *kept]
    with start(line, lambda _: answers(port), env=quiet, cwd=place, seconds=120):
        yield Real(f"http://127.0.0.1:{port}")


def answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def test_mlflow_says_which_versions_there_are_and_what_they_were_made_from(real):
    one = registry(f"mlflow+{real.url}/fraud")
    assert [(found.version, found.declared_good_by) for found in one.versions()] == [("1", "ada"), ("2", None)]
    first = one.version("1")
    assert (first.lineage["code"], first.lineage["parameters"]) == ("c1", {"factor": "2.0"})
    assert first.lineage["data"] == [{"name": "rides", "digest": "d1", "source_type": "s3", "source": "{}", "context": "training"}]
    assert first.digest == one.versions()[0].digest != one.version("2").digest
    assert one.version("9") is None and one.golden("9") is None


def test_golden_rows_that_a_run_left_in_mlflow_are_asked_of_the_server(real):
    one, server = registry(f"mlflow+{real.url}/fraud"), oip.Speaker("1")
    at = connect(Locator("fraud", "server", server.url, within=timedelta(seconds=10)))
    verdict = serving.parity(at, one, version="1")
    assert (verdict.status, verdict.reason) == (Status.OK, "version 1 answers all 1 golden rows as recorded")
    server.factors["1"] = 3.0
    assert serving.parity(at, one, version="1").status is Status.FAIL
    assert one.golden("2") is None
    at.close()
    server.stop()


def test_the_alias_in_mlflow_is_moved_read_back_and_taken_back(real):
    one = registry(f"mlflow+{real.url}/fraud", alias="champion")
    assert one.record.before({"to": "2"}) is None
    assert isinstance(one.record.look({"to": "2"}, tried(None)), Absent)
    one.record.do({"to": "2"}, tried(None))
    assert isinstance(one.record.look({"to": "2"}, tried(None)), Done)
    one.record.do({"to": "1"}, tried("2"))
    assert one.record.before({"to": "2"}) == "1"
    one.record.do(one.record.undo({"to": "1"}, "2", {}), tried("1"))
    assert one.record.before({"to": "1"}) == "2"
    one.record.do(one.record.undo({"to": "2"}, None, {}), tried("2"))
    assert one.record.before({"to": "1"}) is None


def test_the_alias_in_mlflow_that_somebody_else_moved_is_left_alone(real):
    one = registry(f"mlflow+{real.url}/fraud", alias="contested")
    real.post("registered-models/alias", name="fraud", alias="contested", version="2")
    with pytest.raises(AnswerError, match="alias 'contested' no longer points at None: somebody else moved it"):
        one.record.do({"to": "1"}, tried(None))
    assert isinstance(one.record.look({"to": "1"}, tried(None)), Failed)
    assert one.record.before({"to": "1"}) == "2"


def test_mlflow_records_no_version_that_it_does_not_have(real):
    one = registry(f"mlflow+{real.url}/fraud", alias="careful")
    with pytest.raises(AnswerError, match=r"version=9. not found"):
        one.record.do({"to": "9"}, tried(None))
    assert one.record.before({"to": "1"}) is None


def test_a_candidate_is_registered_in_mlflow_with_its_files_at_once_and_only_once(real, tmp_path):
    real.post("registered-models/create", name="learned")
    one = registry(f"mlflow+{real.url}/learned", golden="golden.json")
    rows = {"rows": [{"request": oip.REQUEST, "expected": {"outputs": []}}]}
    bodies = {"model.onnx": b"weights", "golden.json": json.dumps(rows).encode()}
    for name, body in bodies.items():
        (tmp_path / name).write_bytes(body)
    files = {name: hashlib.sha256(body).hexdigest() for name, body in bodies.items()}
    lineage = {"parent": "1", "code": "4f1c9d2", "seed": 7, "metrics": {"accuracy": 0.9}, "data": {"train": {"sha256": "d" * 64}}}
    args = {"version": "next", "folder": str(tmp_path), "files": files, "lineage": lineage}
    assert one.register.before(args) is None and isinstance(one.register.look(args, tried(None)), Absent)
    one.register.do(args, tried(None))
    seen = one.register.look(args, tried(None))
    assert isinstance(seen, Done) and seen.output["version"] == "1"
    made = one.version("1")
    assert (made.lineage["code"], made.lineage["parameters"]) == ("4f1c9d2", {"parent": "1", "seed": "7", "train.sha256": "d" * 64})
    assert one.golden("1").rows[0].request == oip.REQUEST
    other = {**args, "files": {"model.onnx": "0" * 64}}
    assert isinstance(one.register.look(other, tried(None)), Failed), "the name is taken by another model"
    with pytest.raises(AnswerError, match="is not what was handed in"):
        one.register.do({**other, "version": "bad"}, tried(None))
    assert [found.version for found in one.versions()] == ["1"], "a run that did not come so far is no version"


def test_a_model_that_mlflow_does_not_know_and_an_address_that_is_not_its_own_are_errors(real):
    for url, told in ((f"mlflow+{real.url}/froud", "no registered model 'froud'"), (f"mlflow+{real.url}/elsewhere/fraud", "404")):
        one = registry(url)
        for ask in (one.versions, lambda one=one: one.record.before({"to": "1"})):
            with pytest.raises(AnswerError, match=told):
                ask()
