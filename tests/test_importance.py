"""importance.features and traced.predictions against a real server over loopback that leans on one of two inputs."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest

from agent import Locator, Status
from agent.targets import connect
from checks import importance
from tests.logs import START, opened, write
from tests.servers import oip


class Leaning(oip.Speaker):
    """Answers from the first input alone, or from as many as `leans`."""

    leans = 1

    def _infer(self, version: str, body: Any) -> tuple[int, Any]:
        data = body["inputs"][0]["data"]
        if len(data) != 2:
            return 400, {"error": "two values"}
        said = 2.0 * data[0] + (0.5 * data[1] if self.leans > 1 else 0.0)
        return 200, {"model_version": version, "outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [said]}]}


@pytest.fixture
def speaker():
    made = Leaning(loaded=("1",))
    yield made
    made.stop()


def looked(folder, speaker, inputs, **more):
    rows = [{"at": (START + timedelta(seconds=place)).isoformat(), "inputs": text} for place, text in enumerate(inputs)]
    table = opened(folder, write(folder, "parquet", rows), {"time": {"column": "at", "tz": "UTC"}, "features": {"json": "inputs", "size": 2}})
    with closing(connect(Locator("fraud", "server", speaker.url))) as server, closing(table):
        return importance.features(server, table, request=oip.REQUEST, **more)


INPUTS = [f"[{place}, {place * 3}]" for place in range(10)]


def test_a_feature_that_changes_no_answer_is_useless(tmp_path, speaker):
    said = looked(tmp_path, speaker, INPUTS)
    assert said.status is Status.FAIL and said.reason == "1 of 2 features change none of 10 answers: p1"
    assert (said.parts["p0"].observed, said.parts["p1"].observed, said.parts["p0"].n) == (1.0, 0.0, 10)
    speaker.leans = 2
    assert looked(tmp_path, speaker, INPUTS).status is Status.OK


def test_a_feature_that_never_varies_is_useless_and_a_cap_is_a_cap(tmp_path, speaker):
    speaker.leans = 2
    assert "p1" in looked(tmp_path, speaker, [f"[{place}, 5]" for place in range(10)]).reason
    assert looked(tmp_path, speaker, [f"[{place}, 5]" for place in range(10)], useless=0.5).status is Status.OK
    assert looked(tmp_path, speaker, [f"[{place}, 5]" for place in range(10)], useless=0.2).status is Status.WARN


def test_inputs_that_are_not_answered_tell_nothing(tmp_path, speaker):
    said = looked(tmp_path, speaker, ["[1, 2, 3]", "[1]", "no json", "[1, 2]"])
    assert said.status is Status.NODATA and "1 of 3 logged inputs" in said.reason
