"""The plain HTTP adapter against BentoML, which nobody here wrote."""

from __future__ import annotations

import json
import os
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
from tests.conftest import need
from tests.test_mlserver import free_ports
from tests.test_targets import again

SERVICE = """
import os

import bentoml

@bentoml.service(workers=1)
class Fraud:
    @bentoml.api
    def predict(self, x: list[float]) -> dict:
        return {"y": [2 * one for one in x], "version": "7", "first": 1 / x[0]}

    def __is_ready__(self) -> bool:
        return not os.path.exists("unready")
"""
OPTIONS = {"ready": "/readyz", "version": {"field": "version"}, "wrap": "x"}  # as docs/targets.md says


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("bentoml")
    (place / "service.py").write_text(SERVICE)
    return place


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Any]:
    program, (port,) = need("bentoml"), free_ports(1)
    path = os.pathsep.join([str(program.parent), os.environ["PATH"]])
    home = {"PATH": path, "BENTOML_HOME": str(place / "home"), "BENTOML_DO_NOT_TRACK": "true"}
    with (place / "log").open("w") as log:
        line = [program, "serve", "service:Fraud", "--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen(line, cwd=place, env=os.environ | home, stdout=log, stderr=log)
    server = connect(Locator("fraud", "server", f"http://127.0.0.1:{port}/predict", OPTIONS))
    try:
        _wait(server, process, place / "log")
        yield server
    finally:
        server.close()
        process.terminate()
        process.wait(20)


def _wait(server: Any, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        try:
            if server.ready():
                return
        except TargetError:
            assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    pytest.fail(log.read_text())


def test_bentoml_tells_its_version_in_its_answers(server):
    assert server.infer([1.0, 2.0]).body["y"] == [2.0, 4.0]
    assert server.version() == "7"


def test_bentoml_is_sent_many_times_over_what_infer_sends(server):
    assert json.loads(again(server.request([1.0, 3.0])))["y"] == [2.0, 6.0]


def test_bentoml_says_that_it_is_not_ready_and_that_it_is_again(server, place):
    (place / "unready").touch()
    assert server.ready() is False
    (place / "unready").unlink()
    assert server.ready() is True


def test_bentoml_refuses_what_it_cannot_read_and_breaks_on_what_it_cannot_compute(server):
    with pytest.raises(AnswerError, match="400") as caught:
        server.infer(["a"])
    assert not isinstance(caught.value, ServerError)
    for _ in range(3):
        with pytest.raises(ServerError):
            server.infer([0.0])


def test_bentoml_is_timed_like_any_server(server):
    plain = connect(Locator("fraud", "server", server._at.url, {**OPTIONS, "wrap": ""}))
    assert serving.latency(plain, request={"x": [1.0, 2.0]}, limit=timedelta(seconds=5)).status is Status.OK
    plain.close()
