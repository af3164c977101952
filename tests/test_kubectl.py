"""The words for kubectl in docs/targets.md, run by the command router against kmock: an imitation that keeps JSON, and no cluster."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import yaml

from agent import Absent, Done, Failed, Json, Locator, Try
from agent.errors import ServerError
from agent.targets import connect
from tests.conftest import HOUSE, need
from tests.processes import start
from tests.test_mlserver import free_ports

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PAGE = (HOUSE / "docs" / "targets.md").read_text(encoding="utf-8").partition("### Kubernetes, by `kubectl`")[2].partition("\n## ")[0]
KINDS = {  # as the API server lists them, and an object of each at version 1
    "inferenceservice": ("serving.kserve.io/v1beta1", {"predictor": {"model": {"storageUri": "s3://models/fraud/1"}}}),
    "seldondeployment": ("machinelearning.seldon.io/v1", {"predictors": [{"graph": {"modelUri": "s3://models/fraud/1"}}]}),
    "rollout": ("argoproj.io/v1alpha1", {"template": {"metadata": {"labels": {"version": "1"}}, "spec": {"containers": [{"image": "fraud:1"}]}}}),
}
CLUSTER = """
import asyncio, json, sys
import kmock

async def main():
    async with kmock.KubernetesEmulator() as emulated, kmock.Server(emulated, "127.0.0.1", int(sys.argv[1])):
        for kind, (group, _) in json.loads(sys.argv[2]).items():
            verbs, subresources = {"get", "list", "create", "patch"}, set()
            known = kmock.ResourceInfo(kind=kind.title(), singular=kind, namespaced=True, verbs=verbs, subresources=subresources)
            emulated.resources[f"{group}/{kind}s"] = known
        print("up", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a KUBECONFIG for an imitated API with one object of each kind, called `fraud`, at version 1."""
    python, place, (port,) = need("kmock").parent / "python", tmp_path_factory.mktemp("kubernetes"), free_ports(1)
    need("kubectl")
    at = f"http://127.0.0.1:{port}"
    context = {"name": "it", "context": {"cluster": "it", "user": "it", "namespace": "default"}}
    config = {
        "clusters": [{"name": "it", "cluster": {"server": at}}],
        "contexts": [context],
        "users": [{"name": "it", "user": {}}],
        "current-context": "it",
    }
    (place / "config").write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **config}))
    with start([python, "-c", CLUSTER, str(port), json.dumps(KINDS)], lambda running: "up" in running.text):
        for kind, (group, spec) in KINDS.items():
            body = {"apiVersion": group, "kind": kind.title(), "metadata": {"name": "fraud", "labels": {"version": "1"}}, "spec": spec}
            asked = Request(f"{at}/apis/{group}/namespaces/default/{kind}s", json.dumps(body).encode(), {"content-type": "application/json"})
            urlopen(asked, timeout=30).close()
        yield place


def options(kind: str) -> Mapping[str, Json]:
    """The page's words for KServe; for the other kinds, with the fields of its table in place of KServe's."""
    said = yaml.safe_load(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])["router"]
    (row,) = re.findall(rf"^\| `{kind}`.*$", PAGE, re.MULTILINE)
    version, other = re.findall(r"`(/[\w/]+)`", row)[:2]
    value = "fraud:{to}" if other.endswith("image") else "s3://models/fraud/{to}"
    text = said["write"][-1].replace("/metadata/labels/version", version).replace("/spec/predictor/model/storageUri", other)
    read = f"jsonpath={{{version.replace('/', '.')}}}"
    return {
        "read": [*said["read"][:2], kind, *said["read"][3:-1], read],
        "write": [*said["write"][:2], kind, *said["write"][3:-1], text.replace("s3://models/fraud/{to}", value)],
    }


def router(cluster: Path, kind: str) -> Any:
    given = {**options(kind), "env": {"KUBECONFIG": str(cluster / "config"), "HOME": str(cluster)}}
    return connect(Locator("fraud", "router", "command:.", given, within=timedelta(seconds=60), folder=str(cluster)))


def tried(before: Any) -> Try:
    return Try("run-1/2", 1, NOW + timedelta(seconds=10), before, 1, NOW)


def test_the_page_shows_for_kserve_what_its_table_says():
    assert options("inferenceservice")["write"] == yaml.safe_load(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])["router"]["write"]


@pytest.mark.parametrize("kind", KINDS)
def test_kubectl_moves_the_version_and_all_that_goes_with_it_and_takes_it_back(cluster, kind):
    one = router(cluster, kind)
    assert one.served() == {"1": 1.0}
    for to, was in (("2", "1"), ("1", "2")):
        assert isinstance(one.point.look({"to": to}, tried(was)), Absent)
        one.point.do({"to": to}, tried(was))
        assert isinstance(one.point.look({"to": to}, tried(was)), Done)


def test_a_version_that_somebody_else_set_is_left_alone_by_the_test_in_the_patch(cluster):
    one = router(cluster, "inferenceservice")
    one.point.do({"to": "3"}, tried("1"))
    with pytest.raises(ServerError, match="ended with exit status 1"):
        one.point.do({"to": "2"}, tried("1"))
    seen = one.point.look({"to": "2"}, tried("1"))
    assert isinstance(seen, Failed) and "somebody else moved it" in seen.said
    assert one.served() == {"3": 1.0}
    one.point.do({"to": "1"}, tried("3"))
