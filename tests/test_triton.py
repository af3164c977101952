"""The Triton router: what it refuses, from a speaker, and what it does to a real Triton under load, which nobody here wrote."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from agent import Absent, Done, Locator, Try
from agent.errors import AnswerError, CannotError, ConfigError
from agent.targets import connect
from tests.clients import asking
from tests.conftest import need
from tests.processes import start
from tests.servers import triton
from tests.servers.oip import REQUEST
from tests.test_mlserver import free_ports

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = """
import os, sys, time
sys.path.insert(0, SITE)
import numpy
import triton_python_backend_utils as triton

VERSION = os.path.basename(os.path.dirname(__file__))

class TritonPythonModel:
    def initialize(self, args):
        time.sleep(0.5)
        if VERSION == "3":
            raise RuntimeError("its weights are gone")

    def execute(self, requests):
        return [triton.InferenceResponse([triton.Tensor("y", self.times(request))]) for request in requests]

    def times(self, request):
        x = triton.get_input_tensor_by_name(request, "x").as_numpy()
        return numpy.ascontiguousarray(x * (int(VERSION) + 1), dtype=numpy.float32)
"""
CONFIG = """
backend: "python"
max_batch_size: 0
input [{name: "x" data_type: TYPE_FP32 dims: [-1, 2]}]
output [{name: "y" data_type: TYPE_FP32 dims: [-1, 2]}]
instance_group [{kind: KIND_CPU count: 1}]
version_policy: { specific { versions: [1] } }
"""


def tried(before: Any) -> Try:
    return Try("run-1/2", 1, NOW + timedelta(seconds=10), before, 1, NOW)


def moved(one: Any, to: str) -> Any:
    """Through the action, as a run would: what stood, the effect, what is seen then."""
    before = one.point.before({"to": to})
    one.point.do({"to": to}, tried(before))
    return one.point.look({"to": to}, tried(before))


def router(url: str) -> Any:
    return connect(Locator("fraud", "router", url, within=timedelta(seconds=30)))


# From a speaker


@pytest.fixture
def speaker() -> Iterator[triton.Speaker]:
    found = triton.Speaker()
    yield found
    found.stop()


def test_versions_below_the_one_pointed_at_stay_loaded_and_those_above_do_not(speaker):
    for to, loaded in (("3", [1, 3]), ("2", [1, 2]), ("1", [1])):
        assert isinstance(moved(router(speaker.url), to), Done)
        assert speaker.loaded == loaded


def test_whole_numbers_are_ordered_by_their_value(speaker):
    speaker.loaded = [9, 10]
    assert router(speaker.url).served() == {"10": 1.0}


def test_a_version_without_a_folder_is_an_error_though_triton_passes_it_over(speaker):
    with pytest.raises(AnswerError, match=r"took the load and still answers with 1; has the repository a folder m/9\?"):
        router(speaker.url).point.do({"to": "9"}, tried("1"))


@pytest.mark.parametrize("to", ["v2", "", "-1", "1.0", "9" * 30, "٣"])
def test_what_is_no_whole_number_is_no_version(speaker, to):
    with pytest.raises(CannotError, match="is a whole number"):
        router(speaker.url).point.do({"to": to}, tried("1"))


@pytest.mark.parametrize("loaded", [["a"], ["9" * 30], [None], [[1]]])
def test_versions_that_are_none_are_an_error(speaker, loaded):
    speaker.loaded = loaded
    with pytest.raises(AnswerError, match="no versions that are whole numbers"):
        router(speaker.url).served()


@pytest.mark.parametrize("config", [[], {}, {"name": "other"}])
def test_a_configuration_of_something_else_is_not_loaded(speaker, config):
    speaker.config = config
    with pytest.raises(AnswerError, match="no configuration of m"):
        router(speaker.url).point.do({"to": "2"}, tried("1"))
    assert speaker.loaded == [1]


def test_a_router_that_could_not_work_is_refused_before_anything_is_sent():
    with pytest.raises(ConfigError, match="names no model; write triton\\+http://host:port/MODEL"):
        router("triton+http://host:8000")


# Triton itself


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real Triton with model `m`: version 1 doubles, 2 trebles, each takes half a second to load, and 3 cannot be."""
    peer, place, (port,) = need("triton").parent.parent, tmp_path_factory.mktemp("triton"), free_ports(1)
    (site,) = peer.glob("lib/python3*/site-packages")
    server, backend = site / "pytriton" / "tritonserver", place / "backends" / "python"
    shutil.copytree(server / "backends" / "python", backend)
    stub = shutil.copy(server / "python_backend_stubs" / site.parent.name.removeprefix("python") / "triton_python_backend_stub", backend)
    program = shutil.copy(server / "bin" / "tritonserver", place)  # as pip leaves them, neither is executable
    for one in (program, stub):
        Path(one).chmod(0o755)
    for version in ("1", "2", "3"):
        (place / "models" / "m" / version).mkdir(parents=True)
        (place / "models" / "m" / version / "model.py").write_text(f"SITE = {str(site)!r}\n{MODEL}")
    (place / "models" / "m" / "config.pbtxt").write_text(CONFIG)
    told = {"model-repository": place / "models", "backend-directory": place / "backends", "http-address": "127.0.0.1", "http-port": port}
    told |= {"allow-grpc": "false", "allow-metrics": "false", "model-control-mode": "explicit", "load-model": "m"}
    libraries = {"LD_LIBRARY_PATH": os.pathsep.join([str(site / "nvidia_pytriton.libs"), str(sysconfig.get_config_var("LIBDIR"))])}
    url = f"http://127.0.0.1:{port}"
    with start([program, *(f"--{name}={value}" for name, value in told.items())], lambda _: ready(url), libraries, place, 90):
        yield url


def ready(url: str) -> bool:
    try:
        with urlopen(f"{url}/v2/models/m/ready", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def test_keep_alive_clients_lose_nothing_while_triton_is_moved_and_taken_back(real):
    one, server = router(f"triton+{real}/m"), connect(Locator("fraud", "server", f"oip+{real}/m"))
    with asking(f"{real}/v2/models/m/infer", REQUEST, lambda body: (body["model_version"], body["outputs"][0]["data"][0])) as seen:
        seen.more(("1", 2.0))
        for _ in range(2):
            assert isinstance(moved(one, "2"), Done)
            seen.more(("2", 3.0))
            assert server.at("1").infer(REQUEST).body["outputs"][0]["data"] == [2.0, 4.0]  # kept, and can be asked before a rollback
            assert isinstance(moved(one, "1"), Done)
            seen.more(("1", 2.0))
    assert (seen.lost, set(seen.answers)) == ([], {("1", 2.0), ("2", 3.0)})
    server.close()


@pytest.mark.parametrize(("to", "told"), [("3", "its weights are gone"), ("9", "has the repository a folder m/9")])
def test_a_version_that_triton_cannot_load_leaves_the_one_that_was_served(real, to, told):
    one = router(f"triton+{real}/m")
    with asking(f"{real}/v2/models/m/infer", REQUEST, lambda body: body["model_version"]) as seen:
        seen.more("1")
        with pytest.raises(AnswerError, match=told):
            one.point.do({"to": to}, tried("1"))
        seen.more("1")
    assert (seen.lost, set(seen.answers)) == ([], {"1"})
    assert isinstance(one.point.look({"to": to}, tried("1")), Absent)


def test_what_somebody_else_had_triton_load_is_left_alone(real):
    one, other = router(f"triton+{real}/m"), router(f"triton+{real}/m")
    moved(other, "2")
    with pytest.raises(AnswerError, match="no longer points at 1: somebody else moved it"):
        one.point.do({"to": "1"}, tried("1"))
    assert one.served() == {"2": 1.0}
    assert isinstance(moved(one, "1"), Done)


def test_what_triton_unloads_is_gone_while_what_it_serves_answers_on(real):
    one, server = router(f"triton+{real}/m"), connect(Locator("fraud", "server", f"oip+{real}/m"))
    assert isinstance(moved(one, "2"), Done) and one.loaded() == ["1", "2"]
    with asking(f"{real}/v2/models/m/infer", REQUEST, lambda body: body["model_version"]) as seen:
        seen.more("2")
        one.unload.do({"version": "1"}, tried(None))
        seen.more("2")
    assert isinstance(one.unload.look({"version": "1"}, tried(None)), Done) and one.loaded() == ["2"]
    assert (seen.lost, set(seen.answers), server.at("1").ready()) == ([], {"2"}, False)
    assert isinstance(moved(one, "1"), Done)
    server.close()
