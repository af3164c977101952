"""The TorchServe adapters against TorchServe itself, which nobody here wrote."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from agent import Absent, Done, Locator, Try
from agent.errors import AnswerError, ServerError
from agent.targets import connect
from examples.torchserve.served import CONFIG, STUB
from tests.clients import asking
from tests.conftest import need
from tests.processes import start
from tests.test_mlserver import free_ports

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HANDLER = """
import json

def handle(data, context):
    if data is None:
        return None
    version = context.manifest["model"]["modelVersion"]
    return [[float(version) * x for x in asked(row)["x"]] for row in data]

def asked(row):
    body = row.get("body") or row.get("data")
    return json.loads(body) if isinstance(body, (bytes, bytearray)) else body
"""


@dataclass
class Box:
    """A real TorchServe with model `m`, whose versions 2.0 and 3.0 are loaded and answer twice and three times x."""

    inference: str
    management: str

    def server(self) -> Any:
        return connect(Locator("fraud", "server", f"torchserve+{self.inference}/m", {"management": self.management}, within=timedelta(seconds=30)))

    def router(self) -> Any:
        return connect(Locator("fraud", "router", f"torchserve+{self.management}/m", within=timedelta(seconds=30)))

    def set(self, version: str) -> None:
        urlopen(Request(f"{self.management}/models/m/{version}/set-default", method="PUT"), timeout=30).close()

    def register(self, version: str) -> None:
        asked = f"{self.management}/models?url=m-{version}.mar&model_name=m&initial_workers=1&synchronous=true"
        urlopen(Request(asked, method="POST"), timeout=120).close()


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    program, _, place, ports = need("torchserve"), need("java"), tmp_path_factory.mktemp("torchserve"), free_ports(5)
    inference, management = (f"http://127.0.0.1:{port}" for port in ports[:2])
    for name in ("stub", "store", "tmp"):
        (place / name).mkdir()
    (place / "stub" / "torch.py").write_text(STUB)
    (place / "handler.py").write_text(HANDLER)
    named = dict(zip(("metrics", "grpc", "grpc_management"), ports[2:], strict=True))
    (place / "config.properties").write_text(CONFIG.format(url=inference, management=management, **named))
    path = os.pathsep.join([str(program.parent), os.environ["PATH"]])
    env = {"PATH": path, "PYTHONPATH": str(place / "stub"), "TMPDIR": str(place / "tmp"), "LOG_LOCATION": str(place), "METRICS_LOCATION": str(place)}
    for version in ("2.0", "3.0"):
        line = [program.parent / "torch-model-archiver", "--version", version, "--model-name", f"m-{version}", "--handler", place / "handler.py"]
        subprocess.run([*line, "--export-path", place / "store"], env=os.environ | env, check=True, capture_output=True)
    line = [program, "--start", "--foreground", "--ncs", "--model-store", place / "store", "--ts-config", place / "config.properties"]
    with start(line, lambda _: up(inference), env, place, 120):
        found = Box(inference, management)
        for version in ("2.0", "3.0"):
            found.register(version)
        yield found


def up(inference: str) -> bool:
    try:
        with urlopen(f"{inference}/ping", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def tried(before: Any) -> Try:
    return Try("run-1/2", 1, NOW + timedelta(seconds=10), before, 1, NOW)


def moved(one: Any, to: str) -> Any:
    before = one.point.before({"to": to})
    one.point.do({"to": to}, tried(before))
    return one.point.look({"to": to}, tried(before))


def test_torchserve_says_which_version_it_serves_and_answers_with_each_that_is_loaded(box):
    server = box.server()
    box.set("2.0")
    assert (server.ready(), server.version(), server.signature()) == (True, "2.0", None)
    assert server.infer({"x": [1.0, 2.0]}).body == [2.0, 4.0]
    assert server.at("3.0").infer({"x": [1.0, 2.0]}).body == [3.0, 6.0]
    assert (server.at("3.0").ready(), server.at("9.0").ready()) == (True, False)
    server.close()


def test_what_a_handler_of_torchserve_cannot_take_looks_like_a_broken_server_as_the_documentation_says(box):
    server = box.server()
    for _ in range(2):
        with pytest.raises(ServerError, match="503"):
            server.infer({"y": 1})
    with pytest.raises(AnswerError) as caught:
        server.at("9.0").infer({"x": [1.0]})
    assert caught.value.status == 404
    server.close()


def test_keep_alive_clients_lose_nothing_while_the_default_of_torchserve_is_moved_and_taken_back(box):
    box.set("2.0")
    one = box.router()
    with asking(f"{box.inference}/predictions/m", {"x": [1.0]}, lambda body: body[0]) as seen:
        seen.more(2.0)
        for _ in range(5):
            assert isinstance(moved(one, "3.0"), Done)
            seen.more(3.0)
            assert isinstance(moved(one, "2.0"), Done)
            seen.more(2.0)
    assert (seen.lost, set(seen.answers), one.served()) == ([], {2.0, 3.0}, {"2.0": 1.0})


def test_a_version_that_torchserve_has_not_loaded_cannot_become_its_default(box):
    box.set("2.0")
    one = box.router()
    with pytest.raises(AnswerError) as caught:
        one.point.do({"to": "9.0"}, tried("2.0"))
    assert caught.value.status == 404
    assert isinstance(one.point.look({"to": "9.0"}, tried("2.0")), Absent)


def test_a_default_that_somebody_else_set_is_left_alone(box):
    box.set("3.0")
    with pytest.raises(AnswerError, match="somebody else moved it"):
        box.router().point.do({"to": "2.0"}, tried("2.0"))
    assert box.router().served() == {"3.0": 1.0}


def test_torchserve_keeps_its_default_from_being_unloaded(box):
    box.set("3.0")
    with pytest.raises(HTTPError) as caught:
        urlopen(Request(f"{box.management}/models/m/3.0", method="DELETE"), timeout=30)
    assert caught.value.code == 403


def test_what_torchserve_unloads_is_gone_while_its_default_answers_on(box):
    box.set("2.0")
    one, server = box.router(), box.server()
    assert sorted(one.loaded()) == ["2.0", "3.0"]
    with asking(f"{box.inference}/predictions/m", {"x": [1.0]}, lambda body: body[0]) as seen:
        seen.more(2.0)
        one.unload.do({"version": "3.0"}, tried(None))
        seen.more(2.0)
    assert isinstance(one.unload.look({"version": "3.0"}, tried(None)), Done) and one.loaded() == ["2.0"]
    assert (seen.lost, set(seen.answers), server.at("3.0").ready()) == ([], {2.0}, False)
    box.register("3.0")
    server.close()
