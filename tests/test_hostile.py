"""hostile.*: a real server over loopback that is well, or crashes, lies or hangs in one way at a time."""

from __future__ import annotations

import json
import math
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from agent import PROBE_HEADER, Locator, Status
from agent.targets import connect
from checks import _hostile, hostile
from tests.servers import oip

GOOD = oip.REQUEST


class Careful(oip.Speaker):
    """Refuses what it cannot take with 400; `mood` answers instead."""

    def __init__(self, mood: Any = None) -> None:
        self.mood = mood
        super().__init__(loaded=("1",))

    def _infer(self, version: str, body: Any) -> tuple[int, Any]:
        said = self.mood(body) if self.mood else None
        if said is not None:
            return said
        try:
            one = body["inputs"][0]
            data, shape = one["data"], one["shape"]
            numbers = all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) and abs(x) < 1e300 for x in data)
            if one["datatype"] != "FP32" or one["name"] != "x" or not numbers or len(data) != 2 * shape[0] or shape[1:] != [2]:
                return 400, {"error": "x must be [n, 2] of finite numbers"}
        except (KeyError, TypeError, IndexError, ValueError):
            return 400, {"error": "no such input"}
        return 200, {
            "model_name": "m",
            "model_version": version,
            "outputs": [{**oip.TENSOR, "name": "y", "shape": shape, "data": [2 * x for x in data]}],
        }

    def read(self, content: bytes) -> Any:
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            return None


@contextmanager
def asked(mood: Any = None):
    speaker = Careful(mood)
    server = connect(Locator("fraud", "server", speaker.url, within=timedelta(seconds=5)))
    try:
        yield server, speaker
    finally:
        server.close()
        speaker.stop()


def test_a_careful_server_stands_all_of_it_and_every_request_is_marked_as_a_probe():
    with asked() as (server, speaker):
        said = hostile.inputs(server, request=GOOD, cases=160)
        assert said.status is Status.OK, said.reason
        assert said.reading.observed == 0 and said.reading.n >= 120 and "still answers a good request" in said.reason
        posts = [(path, headers) for method, path, headers, _ in speaker.requests if method == "POST"]
        assert len(posts) >= 120 and all(PROBE_HEADER.lower() in {name.lower() for name in headers} for _, headers in posts)


def infinite(body: Any) -> Any:
    try:
        data = body["inputs"][0]["data"]
        return (
            (200, {"model_version": "1", "outputs": [{**oip.TENSOR, "name": "y", "shape": [1, 2], "data": [None, 1.0]}]}) if len(data) != 2 else None
        )
    except (KeyError, TypeError, IndexError):
        return None


@pytest.mark.parametrize(
    ("mood", "words"),
    [
        (lambda body: (500, {"error": "boom"}) if not isinstance(body, dict) or "surplus" in body else None, "500"),
        (infinite, "NaN, infinite or null"),
        (lambda body: (503, {"error": "crashed"}) if isinstance(body, dict) and not body.get("inputs") else None, "503"),
    ],
)
def test_a_server_that_is_harmed_is_found_out_and_by_what(mood, words):
    with asked(mood) as (server, _):
        said = hostile.inputs(server, request=GOOD, cases=160)
        assert said.status is Status.FAIL and words in said.reason, said.reason


def test_a_server_that_remembers_what_it_was_asked_is_found_out():
    seen: list[Any] = []

    def drifts(body: Any) -> Any:
        seen.append(body)
        answer = {"model_version": "1", "outputs": [{**oip.TENSOR, "name": "y", "shape": [1, 2], "data": [2.0 + len(seen), 4.0]}]}
        return (200, answer) if isinstance(body, dict) and body.get("inputs") == GOOD["inputs"] else None

    with asked(drifts) as (server, _):
        assert "afterwards it answers a good request otherwise" in hostile.inputs(server, request=GOOD, cases=16).reason


def test_a_request_without_its_inputs_that_is_answered_is_misfiled():
    answer = {"model_version": "1", "outputs": [{**oip.TENSOR, "name": "y", "shape": [1, 2], "data": [2.0, 4.0]}]}
    with asked(lambda body: (200, answer) if isinstance(body, dict) and "inputs" in body else None) as (server, _):
        said = hostile.inputs(server, request=GOOD, cases=320, misfiled=0.5)
        assert said.status is Status.WARN and "lacked something and were answered" in said.reason
        assert hostile.inputs(server, request=GOOD, cases=320, misfiled=0.0).status is Status.FAIL


def test_a_batch_is_answered_as_its_rows_or_not():
    rows = [{"inputs": [{**GOOD["inputs"][0], "data": [float(n), 1.0]}]} for n in range(4)]
    batch = _hostile.together(rows)
    assert batch["inputs"][0]["shape"] == [4, 2] and batch["inputs"][0]["data"] == [0.0, 1.0, 1.0, 1.0, 2.0, 1.0, 3.0, 1.0]
    one = [{"outputs": [{"name": "y", "datatype": "FP32", "data": [n, n]}]} for n in range(4)]
    assert _hostile.unlike(one, {"outputs": [{"name": "y", "datatype": "FP32", "data": [0, 0, 1, 1, 2, 2, 3, 3]}]}, 0, 1e-6) == []
    assert _hostile.unlike(one, {"outputs": [{"name": "y", "datatype": "FP32", "data": [0, 0, 1, 1, 2, 2, 3, 4]}]}, 0, 1e-6)
    assert _hostile.together([{"rows": 1}, {"rows": 2}]) is None


def test_the_same_requests_are_asked_each_time_and_within_bounds():
    one, other = (list(_hostile.spoilt([GOOD], 500, 64)) for _ in range(2))
    assert [repr(x) for x in one] == [repr(x) for x in other] and len(one) >= 440
    assert len({x.name for x in one}) >= 15 and GOOD == {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]}
    assert max(len(json.dumps(x.request)) for x in one) < 20_000


@pytest.mark.parametrize("request_", [[1.0, 2.0], {"a": 1.5, "b": "x"}, "text", 7, None, [], {}])
def test_any_request_can_be_spoilt(request_):
    assert len(list(_hostile.spoilt([request_], 80, 64))) >= 20


# Without a dependency


def reply(seconds: float = 0.0, data: Any = (2.0, 4.0), status: int = 200) -> Any:
    return lambda body: (status, {"model_version": "1", "outputs": [{**oip.TENSOR, "name": "y", "shape": [1, 2], "data": list(data)}]})


@pytest.mark.parametrize(
    ("mood", "limit", "status"),
    [
        (reply(), 60.0, Status.OK),
        (reply(), 0.0, Status.WARN),
        (reply(status=503), 60.0, Status.WARN),
        (reply(status=500), 60.0, Status.FAIL),
        (reply(status=404), 60.0, Status.FAIL),
        (reply(data=(None, 1.0)), 60.0, Status.FAIL),
    ],
)
def test_what_is_answered_without_a_dependency(mood, limit, status):
    with asked(mood) as (server, _):
        said = hostile.degraded(server, without="the feature store", request=GOOD, limit=timedelta(seconds=limit), requests=5)
        assert said.status is status and "without the feature store" in said.reason


def test_with_nothing_to_ask_nothing_is_said():
    with asked() as (server, _):
        assert hostile.inputs(server).status is Status.NODATA and hostile.degraded(server, without="x").status is Status.NODATA
