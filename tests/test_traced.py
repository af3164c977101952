"""traced.predictions: logged rows, asked again of a real server over loopback."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta

import pytest

from agent import Locator, Status
from agent.targets import connect
from checks import traced
from tests.logs import START, opened, write
from tests.servers import oip

NOW = START + timedelta(days=200)
DECLARED = {
    "time": {"column": "at", "tz": "UTC"},
    "id": "id",
    "version": "version",
    "features": {"json": "inputs", "size": 2},
    "prediction": "prediction",
}


@pytest.fixture(scope="module")
def server():
    speaker = oip.Speaker(loaded=("1",))
    with closing(connect(Locator("fraud", "server", speaker.url))) as made:
        yield made
    speaker.stop()


def looked(folder, server, wrong=0, declared=DECLARED, now=NOW, version="1", kind=float, n=50):
    def said(place):
        return kind(2.0 * place + (1 if place < wrong else 0))

    rows = [
        {
            "at": (START + timedelta(seconds=place)).isoformat(),
            "id": f"i{place}",
            "version": version,
            "inputs": f"[{place}.0, 1.0]",
            "prediction": said(place),
        }
        for place in range(n)
    ]
    table = opened(folder, write(folder, "parquet", rows), declared)
    with closing(table):
        return traced.predictions(server, table, now, request=oip.REQUEST)


def test_logged_predictions_come_out_the_same(tmp_path, server):
    said = looked(tmp_path, server)
    assert said.status is Status.OK and said.reason == "50 of 50 logged predictions of version 1 come out the same; the log reaches back 200d"
    assert looked(tmp_path, server, kind=str).status is Status.OK, "a log may hold numbers as text"


@pytest.mark.parametrize(("wrong", "status"), [(1, Status.WARN), (5, Status.WARN), (6, Status.FAIL), (50, Status.FAIL)])
def test_predictions_that_come_out_otherwise_are_counted(tmp_path, server, wrong, status):
    assert looked(tmp_path, server, wrong).status is status


def test_a_short_log_is_half(tmp_path, server):
    said = looked(tmp_path, server, now=START + timedelta(days=100))
    assert said.status is Status.WARN and "183d is wanted" in said.reason


def test_a_log_that_lacks_a_field_or_the_version_that_serves(tmp_path, server):
    said = looked(tmp_path, server, declared={name: value for name, value in DECLARED.items() if name not in ("version", "id")})
    assert said.status is Status.FAIL and "declares no id, version" in said.reason
    assert looked(tmp_path, server, version="7").status is Status.NODATA
