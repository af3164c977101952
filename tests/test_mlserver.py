"""The Open Inference Protocol adapter and the serving checks against MLServer, which nobody here wrote."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent import Locator, Status
from agent.errors import AnswerError, ServerError, TargetError
from agent.targets import connect
from checks import serving
from loadtests._expect import expected, wrong
from tests.servers import folder, oip
from tests.test_targets import again

RUNTIME = """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

class Times(MLModel):
    async def predict(self, payload):
        factor = 2.0 if self.version == "1" else 3.0
        output = NumpyCodec.encode_output("y", NumpyCodec.decode_input(payload.inputs[0]) * factor)
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])
"""


def free_ports(count: int) -> list[int]:
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in taken]
    for one in taken:
        one.close()
    return ports


@pytest.fixture(scope="module")
def server(mlserver: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Model `m` with versions 1 and 2 loaded; metadata empty, as MLServer leaves it."""
    place, ports = tmp_path_factory.mktemp("repository"), free_ports(3)
    (place / "runtime.py").write_text(RUNTIME)
    names = dict(zip(("http_port", "grpc_port", "metrics_port"), ports, strict=True))
    (place / "settings.json").write_text(json.dumps({"host": "127.0.0.1", "parallel_workers": 0, **names}))
    for version in ("1", "2"):
        (place / version).mkdir()
        model = {"name": "m", "implementation": "runtime.Times", "parameters": {"version": version}}
        (place / version / "model-settings.json").write_text(json.dumps(model))
    with (place / "log").open("w") as log:
        process = subprocess.Popen([mlserver, "start", place], env={**os.environ, "PYTHONPATH": str(place)}, stdout=log, stderr=log)
    server = connect(Locator("fraud", "server", f"oip+http://127.0.0.1:{ports[0]}/m"))
    try:
        wait(server, process, place / "log")
        yield server
    finally:
        server.close()
        process.terminate()
        process.wait(20)


def wait(server: Any, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        try:
            if server.at("1").ready() and server.at("2").ready():
                return
        except TargetError:
            assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    pytest.fail(log.read_text())


@pytest.fixture
def registry(tmp_path):
    return connect(Locator("fraud", "registry", folder.Speaker(tmp_path).url))


def test_mlserver_tells_its_version_only_in_its_answers(server):
    fresh = server.at("2")
    assert (fresh.ready(), fresh.signature(), fresh.version()) == (True, None, "2")
    assert server.infer(oip.REQUEST).version == server.version()
    assert server.at("1").infer(oip.REQUEST).version == "1"


def test_mlserver_says_that_it_does_not_know_a_version(server):
    assert server.at("9").ready() is False
    for ask in (server.at("9").version, lambda: server.at("9").infer(oip.REQUEST)):
        with pytest.raises(AnswerError) as caught:
            ask()
        assert caught.value.status == 404


def test_mlserver_that_breaks_on_a_request_is_a_server_error_each_time(server):
    for _ in range(5):
        with pytest.raises(ServerError):
            server.infer({"inputs": []})


def test_mlserver_is_sent_many_times_over_what_infer_sends(server):
    for one in (server, server.at("1")):
        sent = one.request(oip.REQUEST)
        answer = again(sent)
        assert json.loads(answer)["outputs"][0]["data"] == one.infer(oip.REQUEST).body["outputs"][0]["data"]
        assert wrong(expected(sent), answer) == ""


def test_golden_rows_are_asked_again_of_each_version_that_mlserver_has_loaded(server, registry):
    for version in ("1", "2"):
        verdict = serving.parity(server, registry, version=version)
        assert (verdict.status, verdict.reason) == (Status.OK, f"version {version} answers all 5 golden rows as recorded")
    assert serving.parity(server, registry).status is Status.OK
    assert serving.signature(server, registry).status is Status.NODATA
    assert serving.latency(server, registry, limit=timedelta(seconds=5)).status is Status.OK
