"""The example's story behind MLServer: its own router hook moves the version, and nothing here is imitated."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent import Locator, Status
from agent.targets import connect
from checks import serving
from examples.mlserver.repository import lay, show
from tests import processes

LOAD = "/v2/repository/models/digits/load"


@dataclass
class Stack:
    server: Any
    router: Any
    registry: Any
    url: str
    hook: str
    repository: Path
    program: processes.Running

    def deploy(self, version: str) -> None:
        asked = {"to": version, "expected": next(iter(self.router.served()))}
        assert post(f"{self.hook}/version", asked)[0] == 200


def post(url: str, body: Any) -> tuple[int, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status, json.loads(reply.read() or b"null")
    except urllib.error.HTTPError as refused:
        return refused.code, json.loads(refused.read())


def free_ports(count: int) -> list[int]:
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in taken]
    for one in taken:
        one.close()
    return ports


@pytest.fixture(scope="module")
def stack(mlserver: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """MLServer with versions 1 and 2 laid and 1 served, the hook beside it, both in a folder with a space in its name."""
    place = tmp_path_factory.mktemp("ml server")
    subprocess.run(processes.python("examples.digits.train", "--to", place), check=True, cwd=processes.HOUSE, timeout=100)
    repository, ports = place / "repository", free_ports(3)
    lay(repository, place / "digits", ["1", "2"], serve="1", **dict(zip(("http_port", "grpc_port", "metrics_port"), ports, strict=True)))
    url = f"http://127.0.0.1:{ports[0]}"
    path = {"PYTHONPATH": str(processes.HOUSE)}
    with processes.start([mlserver, "start", repository], lambda _: answers(f"{url}/v2/models/digits/ready"), env=path) as program:
        command = processes.python("examples.mlserver.switch", "--mlserver", url, "--repository", repository, "--port", "0")
        with processes.start(command, processes.answers("/version")) as hook:
            options = {
                "read": {"path": "/version", "field": "version"},
                "write": {"path": "/version", "body": {"to": "{to}", "expected": "{expected}"}},
            }
            parts = (
                connect(Locator("digits", "server", f"oip+{url}/digits")),
                connect(Locator("digits", "router", f"hook+{hook.url}", options)),
                connect(Locator("digits", "registry", f"folder:{place / 'digits'}")),
            )
            yield Stack(*parts, url, hook.url, repository, program)
            for part in parts:
                part.close()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@pytest.fixture
def at_one(stack: Stack) -> Stack:
    """The stack, serving version 1 again whatever an earlier test left."""
    show(stack.repository, "1")
    assert post(stack.url + LOAD, {})[0] == 200
    assert stack.router.served() == {"1": 1.0}
    return stack


def test_the_forgotten_step_is_seen_and_moved_back(at_one: Stack) -> None:
    asked = (at_one.server, at_one.registry, at_one.router)
    assert serving.ready(at_one.server).status is Status.OK
    assert serving.signature(*asked).status is Status.OK
    assert serving.parity(*asked).status is Status.OK
    at_one.deploy("2")
    assert at_one.router.served() == {"2": 1.0}
    bad = serving.parity(*asked)
    assert bad.status is Status.FAIL and "version 2" in bad.reason
    assert serving.parity(*asked, version="1").status is Status.OK, "the counterfactual: 1 is still loaded beside 2, and better"
    at_one.router.point.write("1", "2")
    assert at_one.router.served() == {"1": 1.0}
    assert serving.parity(*asked).status is Status.OK


def test_the_hook_moves_only_from_the_version_that_is_really_served(at_one: Stack) -> None:
    assert post(f"{at_one.hook}/version", {"to": "1", "expected": "2"}) == (
        409,
        {"version": "1", "error": "version 1 is served, not '2'"},
    )
    assert post(f"{at_one.hook}/version", {"to": "9", "expected": "1"})[0] == 404
    assert post(f"{at_one.hook}/version", {"to": "2"})[0] == post(f"{at_one.hook}/version", [])[0] == 400
    show(at_one.repository, "2")  # files alone move nothing
    assert at_one.router.served() == {"1": 1.0}


def test_a_version_that_does_not_load_is_put_back(at_one: Stack) -> None:
    hidden = at_one.repository / "digits-2" / "model-settings.json.hidden"
    good = hidden.read_text()
    hidden.write_text(good.replace('/2"', '/missing"'))
    try:
        status, said = post(f"{at_one.hook}/version", {"to": "2", "expected": "1"})
        assert (status, said["version"]) == (502, "1")
        assert at_one.router.served() == {"1": 1.0} and serving.parity(at_one.server, at_one.registry, at_one.router).status is Status.OK
    finally:
        hidden.write_text(good)


def test_no_request_fails_while_the_version_is_moved(at_one: Stack) -> None:
    row = at_one.registry.golden("1").rows[0].request
    seen: list[tuple[int, str | None]] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            status, said = post(f"{at_one.url}/v2/models/digits/infer", row)
            seen.append((status, said.get("model_version")))

    thread = threading.Thread(target=ask)
    thread.start()
    at_one.deploy("2")
    processes.until(lambda: seen[-1:] == [(200, "2")], "version 2 answers")
    at_one.router.point.write("1", "2")
    processes.until(lambda: seen[-1:] == [(200, "1")], "version 1 answers again")
    stop.set()
    thread.join(20)
    assert {status for status, _ in seen} == {200}


def test_images_that_the_model_does_not_take_are_refused_and_say_why(at_one: Stack) -> None:
    tensor = {"name": "image", "shape": [1, 56], "datatype": "FP32", "data": [255.0] * 56}
    status, said = post(f"{at_one.url}/v2/models/digits/infer", {"inputs": [tensor]})
    assert status == 400 and "64" in said["error"]
