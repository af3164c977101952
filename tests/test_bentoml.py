"""The plain HTTP adapter against BentoML, which nobody here wrote."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from agent import Done, Locator, Status, Try
from agent.errors import AnswerError, ServerError
from agent.targets import connect
from checks import serving
from tests import haproxy
from tests.clients import asking
from tests.conftest import need
from tests.processes import Running, start, until
from tests.test_mlserver import free_ports
from tests.test_targets import again

SERVICE = """
import os

import bentoml

@bentoml.service(workers=1)
class Fraud:
    @bentoml.api
    def predict(self, x: list[float]) -> dict:
        return {"y": [2 * one for one in x], "version": os.environ["MODEL_VERSION"], "first": 1 / x[0]}

    def __is_ready__(self) -> bool:
        return not os.path.exists("unready")
"""
OPTIONS = {"ready": "/readyz", "version": {"field": "version"}, "wrap": "x"}  # as docs/targets.md says


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("bentoml")
    (place / "service.py").write_text(SERVICE)
    return place


@contextmanager
def serving_version(place: Path, version: str) -> Iterator[tuple[Running, str]]:
    """BentoML with one version of the service, and where it stands."""
    program, (port,) = need("bentoml"), free_ports(1)
    path = os.pathsep.join([str(program.parent), os.environ["PATH"]])
    home = {"PATH": path, "BENTOML_HOME": str(place / "home"), "BENTOML_DO_NOT_TRACK": "true", "MODEL_VERSION": version}
    line = [program, "serve", "service:Fraud", "--host", "127.0.0.1", "--port", str(port)]
    with start(line, lambda _: _up(port), home, place, 120) as running:
        yield running, f"127.0.0.1:{port}"


def _up(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def beside(place: Path) -> Iterator[tuple[Running, str]]:
    """A second process, of version 8."""
    with serving_version(place, "8") as found:
        yield found


@pytest.fixture(scope="module")
def stands(place: Path) -> Iterator[str]:
    with serving_version(place, "7") as (_, at):
        yield at


@pytest.fixture(scope="module")
def server(stands: str) -> Iterator[Any]:
    server = connect(Locator("fraud", "server", f"http://{stands}/predict", OPTIONS))
    yield server
    server.close()


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


def test_two_of_bentoml_behind_haproxy_are_moved_and_one_is_stopped_and_no_request_is_lost(stands, beside, tmp_path):
    """The recipe of docs/targets.md: point, drain, stop; and one version asked by its own path."""
    running, other = beside
    with haproxy.standing(need("haproxy"), tmp_path, places=(stands, other)) as box:
        one = connect(Locator("fraud", "router", f"haproxy+unix:{tmp_path}/admin.sock", {"backend": "fraud", "versions": {"7": "v1", "8": "v2"}}))
        through = connect(Locator("fraud", "server", f"{box.url}/predict", {**OPTIONS, "at": "/versions/{version}/predict"}))
        _moved(one, "7")
        with asking(f"{box.url}/predict", {"x": [1.0, 2.0]}, lambda body: body["version"]) as seen:
            seen.more("7")
            for _ in range(10):
                _moved(one, "8")
                seen.more("8")
                assert through.at("1").infer([1.0]).version == "7"  # loaded, and asked though it has no traffic
                _moved(one, "7")
                seen.more("7")
            until(lambda: isinstance(one.drained.look({"versions": ["8"]}, _tried(None)), Done), "version 8 is drained")
            running.process.terminate()
            running.process.wait(60)
            seen.more("7")
        assert (seen.lost, set(seen.answers)) == ([], {"7", "8"})
        through.close()


def _tried(before: Any) -> Try:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Try("run-1/2", 1, now + timedelta(seconds=10), before, 1, now)


def _moved(router: Any, to: str) -> None:
    before = router.point.before({"to": to})
    router.point.do({"to": to}, _tried(before))
    assert isinstance(router.point.look({"to": to}, _tried(before)), Done)
