"""Served models as models of rows: what their servers are sent, and what answers are read as."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.config import load
from agent.errors import AnswerError, CannotError, ConfigError, DataError
from agent.model import PROBE_HEADER, PROBE_PREFIX, Locator, Status
from agent.perform import perform
from agent.targets import connect
from tests.servers._loopback import Loopback
from tests.test_forgetting import WEIGHTS, forgot, judged, linear, ran, rows

NAMES = [f"x{place}" for place in range(4)]
EYE = dict(zip(NAMES, np.eye(4), strict=True))


class Soft(Loopback):
    """Serves the model of `linear`, as the Open Inference Protocol at /v2/models/m and as plain JSON at /predict, in the form that `says` makes."""

    def __init__(self, weights: np.ndarray, says: Any = None, single: bool = False) -> None:
        self.weights, self.says, self.single, self.version = weights, says or (lambda scores: {"y": scores.tolist()}), single, "7"
        super().__init__(self._answer)
        self.oip, self.plain = f"oip+{self.address}/m", f"{self.address}/predict"

    def _answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        first = 1 if self.single else -1
        if path == "/v2/models/m":
            tensor = {"name": "x", "datatype": "FP32", "shape": [first, 4]}
            return 200, {"name": "m", "versions": [self.version], "inputs": [tensor], "outputs": []}
        if path == "/predict":
            if not isinstance(body, dict) or not ({"x"} == set(body) or set(NAMES) <= set(body)):
                return 422, {"detail": f"no x in {body}"}
            return 200, self.says(self.scores(body["x"] if "x" in body else [body[name] for name in NAMES]))
        given = body["inputs"][0]
        if self.single and given["shape"][0] != 1:
            return 400, {"error": "one row at a time"}
        scores = self.scores(np.reshape(given["data"], given["shape"]))
        output = {"name": "p", "datatype": "FP32", "shape": list(scores.shape), "data": scores.ravel().tolist()}
        return 200, {"model_name": "m", "model_version": self.version, "id": body.get("id"), "outputs": [output]}

    def scores(self, given: Any) -> np.ndarray:
        found = np.exp(np.asarray(given, dtype=float) @ self.weights)
        return found / found.sum(axis=-1, keepdims=True)


@pytest.fixture
def serve() -> Any:
    """Servers that are stopped when the test ends."""
    made: list[Soft] = []

    def start(*given: Any, **more: Any) -> Soft:
        made.append(Soft(*given, **more))
        return made[-1]

    yield start
    for one in made:
        one.stop()


def asked(url: str, features: Any = EYE, **options: Any) -> Any:
    model = connect(Locator("fraud", "candidate", url, {"features": NAMES, **options}))
    try:
        return model.predict(features)
    finally:
        model.close()


def test_a_served_model_answers_as_the_same_numbers_in_onnx_do(tmp_path: Path, serve: Any) -> None:
    weights, features = (
        np.random.default_rng(0).normal(size=(4, 4)),
        {name: np.random.default_rng(place).normal(size=200) for place, name in enumerate(NAMES)},
    )
    expected = connect(Locator("fraud", "champion", f"onnx:{linear(tmp_path, '1', weights)}", {"features": NAMES})).predict(features)
    server = serve(weights)
    for found in (asked(server.oip, features), asked(server.plain, features, request={"x": "{inputs}"}, output="y", batch=50)):
        assert found.answer.tolist() == expected.answer.tolist()
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)


def test_rows_go_together_only_where_the_server_takes_any_number_and_each_request_is_marked(serve: Any) -> None:
    many = {name: np.zeros(130) for name in NAMES}
    for single, sent in ((False, 3), (True, 130)):
        server = serve(WEIGHTS, single=single)
        asked(server.oip, many)
        posts = [(headers, json.loads(body)) for method, path, headers, body in server.requests if path.endswith("/infer")]
        assert len(posts) == sent
        assert all(headers[PROBE_HEADER] == "watchkeeper" and body["id"].startswith(PROBE_PREFIX) for headers, body in posts)


@pytest.mark.parametrize(
    ("says", "output", "answer"),
    [
        (lambda scores: {"y": scores.tolist()}, "y", ["0", "1", "2", "3"]),
        (lambda scores: {"y": [scores.tolist()]}, "y", ["0", "1", "2", "3"]),
        (lambda scores: scores.tolist(), None, ["0", "1", "2", "3"]),
        (lambda scores: {"label": int(scores.argmax())}, "label", [0, 1, 2, 3]),
        (lambda scores: {"label": "abcd"[scores.argmax()]}, "label", list("abcd")),
        (lambda scores: {"a": {"p": dict(zip("abcd", scores, strict=True))}}, "a.p", list("abcd")),
        (lambda scores: {"y": [int(place == scores.argmax()) for place in range(4)]}, "y", ["0", "1", "2", "3"]),
        (lambda scores: {"risk": float(scores[0])}, "risk", None),
    ],
)
def test_answers_of_many_forms_are_read(serve: Any, says: Any, output: str | None, answer: Any) -> None:
    found = asked(serve(WEIGHTS, says).plain, request={"x": "{inputs}"}, **({"output": output} if output else {}))
    if answer is None:
        assert found.answer[0] > 0.9 > 0.1 > found.answer[1]
    else:
        assert found.answer.tolist() == answer


def test_keys_called_like_the_features_are_filled_and_null_is_sent_for_what_a_row_has_not(serve: Any) -> None:
    server = serve(WEIGHTS)
    request = {**dict.fromkeys(NAMES), "country": "DE"}
    assert asked(server.plain, request=request, output="y").answer.tolist() == ["0", "1", "2", "3"]
    with pytest.raises(AnswerError):
        asked(server.plain, {name: np.array([np.nan]) for name in NAMES}, request=request, output="y")
    assert json.loads(server.requests[-1][3]) == {**dict.fromkeys(NAMES), "country": "DE"}


def test_a_model_that_is_switched_while_it_is_asked_is_no_model_to_judge(serve: Any) -> None:
    server, left = serve(WEIGHTS, single=True), iter(range(100))
    scores = server.scores

    def switched(given: Any) -> np.ndarray:
        server.version = "7" if next(left) < 2 else "8"
        return scores(given)

    server.scores = switched
    with pytest.raises(DataError, match="version 7 answered, and then 8"):
        asked(server.oip)


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({}, CannotError, "does not say what it takes"),
        ({"request": {"z": 1}}, CannotError, "no place for a row"),
        ({"request": {"z": "{inputs}"}}, AnswerError, "422"),
        ({"request": {"x": "{inputs}"}, "output": "p"}, AnswerError, "has no 'p'"),
        ({"request": {"x": "{inputs}"}, "batch": 2}, DataError, "answers 2 rows with"),
    ],
)
def test_what_a_server_cannot_be_asked_or_does_not_answer_is_said(serve: Any, options: dict[str, Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        asked(serve(WEIGHTS, lambda scores: {"y": scores.tolist()[:1]}).plain, **{"output": "y", **options})


@pytest.mark.parametrize("fault", ["broken", "nan", "html", "cut", "list"])
def test_a_server_that_misbehaves_is_an_error_and_no_wrong_answer(serve: Any, fault: str) -> None:
    server = serve(WEIGHTS)
    server.fault = fault
    with pytest.raises((AnswerError, DataError)):
        asked(server.plain, request={"x": "{inputs}"}, output="y")


def test_options_that_cannot_be_are_said_at_the_start() -> None:
    for options, said in (({"batch": 0}, "how many rows"), ({"featurs": []}, "no option 'featurs'")):
        with pytest.raises(ConfigError, match=said):
            connect(Locator("fraud", "candidate", "oip+http://127.0.0.1:9/m", options))


def test_a_candidate_is_judged_where_it_is_served_beside_a_champion_in_a_file(tmp_path: Path, serve: Any) -> None:
    champion, old = linear(tmp_path, "1", WEIGHTS), rows(tmp_path, "old", [0, 1])
    for weights, status in ((WEIGHTS, Status.OK), (forgot(1), Status.FAIL)):
        verdict = judged(Locator("fraud", "candidate", serve(weights).oip, {"features": NAMES}), champion, old=old)
        assert verdict.status is status and verdict.reason.split()[1] == "7", verdict.reason


def test_the_command_takes_the_url_of_a_server(tmp_path: Path, serve: Any) -> None:
    champion, old, server = linear(tmp_path, "1", WEIGHTS), rows(tmp_path, "old", [0, 1], n=120), serve(WEIGHTS)
    words = [str(champion), server.plain, "--old", str(old), "--label", "y", "--margin", "0.2", "--request", '{"x": "{inputs}"}']
    done = ran(tmp_path, *words, "--field", "y")
    assert done.exit_code == 0 and done.output.startswith("PROMOTE"), done.output
    lost = ran(tmp_path, *words)
    assert lost.exit_code == 3 and "gives y, which are no scores" in lost.output
    wrong = ran(tmp_path, *words[:-1], "{")
    assert wrong.exit_code == 2 and "is no JSON" in wrong.output


def test_a_watch_can_judge_the_service_s_own_server(tmp_path: Path, serve: Any) -> None:
    server, guard = serve(WEIGHTS), rows(tmp_path, "guard", [0, 1])
    (tmp_path / "watchkeeper.yaml").write_text(
        f"""
services:
  fraud:
    owner: ada
    targets: {{server: "{server.oip}"}}
    watches:
      - check: forgetting.eval
        every: 1d
        bind: {{candidate: "@fraud.server", guard: "csv:{guard}"}}
        with: {{label: y, features: [x0, x1, x2, x3]}}
notify: {{channels: {{ada: {{url: "http://127.0.0.1:9/"}}}}}}
"""
    )
    watch = load(tmp_path / "watchkeeper.yaml").services["fraud"].watches[0]
    verdict = perform({"check": watch.check, "locators": watch.bind, "parameters": watch.parameters})
    assert verdict.status is Status.NODATA and "7 is the first that is seen" in verdict.reason
