"""The example is what the demo and most tests stand on, so it is held to the protocol, the log's format and its own story."""

from __future__ import annotations

import asyncio
import json
import math
import sqlite3
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent import PROBE_HEADER, Locator, Status, Verdict
from agent.config import load
from agent.perform import perform
from agent.targets.folder import Folder
from examples.prediction_log import PredictionLog
from tests import processes

INFER = "/v2/models/digits/infer"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained once, in a folder with a space in its name."""
    folder = tmp_path_factory.mktemp("trained models") / "a b"
    subprocess.run(processes.python("examples.digits.train", "--to", folder), check=True, cwd=processes.HOUSE, timeout=100)
    return folder


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "predictions.db"


def serve(models: Path, *more: str | Path) -> Any:
    command = processes.python("examples.digits.server", "--models", models / "digits", "--port", "0", *more)
    return processes.start(command, processes.answers("/v2/health/ready"))


@pytest.fixture
def server(models: Path, log: Path) -> Iterator[processes.Running]:
    with serve(models, "--versions", "0,1", "--log", log) as running:
        yield running


def ask(running: processes.Running, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """Status and decoded body; `body` as JSON, or bytes as they are."""
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = urllib.request.Request(running.url + path, content, {"content-type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as refused:
        return refused.code, json.loads(refused.read())


def image(pixels: list[float] | None = None, **more: Any) -> dict[str, Any]:
    data = [0.0] * 64 if pixels is None else pixels
    return {"inputs": [{"name": "image", "shape": [1, len(data)], "datatype": "FP32", "data": data, **more}]}


def rows(log: Path, least: int) -> list[dict[str, Any]]:
    """What was logged, once at least so many rows are there."""

    def has_table() -> bool:
        with closing(sqlite3.connect(log)) as database:
            return bool(database.execute("SELECT * FROM sqlite_master").fetchall())

    def read() -> list[dict[str, Any]]:
        with closing(sqlite3.connect(log)) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute("SELECT * FROM predictions ORDER BY at")]

    processes.until(lambda: log.exists() and has_table() and len(read()) >= least, f"{least} rows are logged")
    return read()


def worst(expected: Any, answer: Any) -> float:
    """The largest difference between recorded and served probabilities; infinite if the labels differ."""
    (label, chances), (label_now, chances_now) = expected["outputs"], answer["outputs"]
    return math.inf if label["data"] != label_now["data"] else max(abs(a - b) for a, b in zip(chances["data"], chances_now["data"], strict=True))


# Training


def test_every_version_is_registered_with_golden_rows_and_where_it_came_from(models: Path) -> None:
    registry = Folder(Locator("digits", "registry", f"folder:{models / 'digits'}"))
    versions = {one.version: one for one in registry.versions()}
    assert list(versions) == ["0", "1", "2", "3"]
    assert {len(registry.golden(version).rows) for version in versions} == {16}
    made_from = versions["1"].lineage
    assert made_from["metrics"]["accuracy"] > 0.95 > versions["0"].lineage["metrics"]["accuracy"]
    assert set(made_from) == {"data", "sources", "code", "seed", "packages", "metrics", "signature"}
    assert versions["2"].files["model.onnx"] == versions["3"].files["model.onnx"] != versions["1"].files["model.onnx"]


def test_training_twice_makes_the_same_models(models: Path, tmp_path: Path) -> None:
    subprocess.run(processes.python("examples.digits.train", "--to", tmp_path), check=True, cwd=processes.HOUSE, timeout=100)
    again, first = (Folder(Locator("digits", "registry", f"folder:{folder / 'digits'}")).versions() for folder in (tmp_path, models))
    assert [one.files["model.onnx"] for one in again] == [one.files["model.onnx"] for one in first]


# The server


def test_the_server_speaks_the_open_inference_protocol(server: processes.Running) -> None:
    assert ask(server, "/v2/health/live")[0] == ask(server, "/v2/health/ready")[0] == ask(server, "/v2")[0] == 200
    status, said = ask(server, "/v2/models/digits")
    assert (status, said["name"], said["versions"]) == (200, "digits", ["0", "1"])
    assert said["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 64]}]
    assert [(one["name"], one["datatype"], one["shape"]) for one in said["outputs"]] == [
        ("label", "INT64", [-1]),
        ("probabilities", "FP32", [-1, 10]),
    ]
    assert ask(server, "/v2/models/digits/versions/0")[1]["versions"] == ["0"]
    assert ask(server, "/v2/models/digits/versions/0/ready")[1]["ready"] is ask(server, "/v2/models/digits/ready")[1]["ready"] is True
    assert ask(server, "/v2/models/digits/versions/9/ready")[0] == 404


def test_answers_carry_the_version_the_id_and_the_shapes(server: processes.Running) -> None:
    status, said = ask(server, INFER, {"id": "mine", **image()})
    assert (status, said["model_version"], said["id"]) == (200, "1", "mine")
    assert ask(server, "/v2/models/digits/versions/0/infer", image())[1]["model_version"] == "0"
    batch = ask(server, INFER, image([3.0] * 128, shape=[2, 64]))[1]
    assert [one["shape"] for one in batch["outputs"]] == [[2], [2, 10]]
    nested = ask(server, INFER, image([[3.0] * 64] * 2, shape=[2, 64]))[1]
    assert nested["outputs"] == batch["outputs"]


REFUSED: dict[str, Any] = {
    "too few pixels": image([0.0] * 56),
    "another shape": image([0.0] * 64, shape=[1, 56]),
    "no length": image([0.0] * 64, shape=[-1, 64]),
    "text": image(["0"] * 64),  # type: ignore[list-item]
    "booleans": image([True] * 64),
    "null": image([None] * 64),  # type: ignore[list-item]
    "more than a float holds": image([1e39] * 64),
    "more than a double holds": image([10**400] * 64),
    "doubles": image(datatype="FP64"),
    "another name": image(name="x"),
    "no input": {"inputs": []},
    "a list": [],
    "nothing": b"",
    "half a body": b"{",
    "no UTF-8": b"\xff",
    "too deep": b"[" * 100_000,
    "NaN": json.dumps(image([math.nan] * 64)).encode(),
    "Infinity": json.dumps(image([math.inf] * 64)).encode(),
    "1e999": json.dumps(image()).replace("0.0", "1e999").encode(),
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED.keys())
def test_what_the_model_does_not_take_is_refused_and_says_why(module_server: processes.Running, body: Any) -> None:
    status, said = ask(module_server, INFER, body)
    assert status == 400 and said["error"]


@pytest.fixture(scope="module")
def module_server(models: Path) -> Iterator[processes.Running]:
    with serve(models, "--versions", "0,1,2,3") as running:
        yield running


@pytest.mark.parametrize(("version", "as_trained"), [("0", True), ("1", True), ("2", False), ("3", True)])
def test_only_version_2_answers_otherwise_than_it_was_trained(models: Path, module_server: processes.Running, version: str, as_trained: bool) -> None:
    golden = Folder(Locator("digits", "registry", f"folder:{models / 'digits'}")).golden(version)
    assert golden
    gaps = [worst(row.expected, ask(module_server, f"/v2/models/digits/versions/{version}/infer", row.request)[1]) for row in golden.rows]
    assert (max(gaps) < 1e-4) is as_trained
    assert as_trained or gaps.count(math.inf) > 4, "the forgotten step changes labels, not only digits after the point"


# The pointer


def test_the_pointer_moves_only_from_where_the_caller_believes_it_to_be(server: processes.Running) -> None:
    assert ask(server, "/admin/pointer") == (200, {"model": "digits", "version": "1", "loaded": ["0", "1"], "inflight": {"0": 0, "1": 0}})
    assert ask(server, "/admin/pointer", {"to": "0", "expected": "1"}) == (200, {"version": "0"})
    assert ask(server, INFER, image())[1]["model_version"] == "0"
    status, said = ask(server, "/admin/pointer", {"to": "1", "expected": "1"})
    assert (status, said["version"]) == (409, "0")
    assert ask(server, "/admin/pointer", {"to": "2", "expected": "0"})[0] == 404
    assert ask(server, "/admin/pointer", {"to": "1"})[0] == ask(server, "/admin/pointer", {"to": ["1"], "expected": "0"})[0] == 400
    assert ask(server, "/admin/pointer")[1]["version"] == "0"


def test_versions_are_loaded_beside_the_served_one_which_cannot_be_unloaded(server: processes.Running) -> None:
    assert ask(server, "/admin/load", {"version": "2"})[1]["loaded"] == ["0", "1", "2"]
    assert ask(server, "/admin/unload", {"version": "0"})[1]["loaded"] == ["1", "2"]
    assert ask(server, "/admin/unload", {"version": "1"})[0] == 409
    assert ask(server, "/admin/unload", {"version": "0"})[0] == ask(server, "/admin/load", {"version": "../1"})[0] == 404


def test_one_token_looks_and_the_other_acts(models: Path) -> None:
    tokens = {"DIGITS_ADMIN_TOKEN": "act", "DIGITS_LOOK_TOKEN": "look"}
    command = processes.python("examples.digits.server", "--models", models / "digits", "--port", "0")
    with processes.start(command, processes.answers("/v2/health/ready"), env=tokens) as running:
        looked = [ask(running, "/admin/pointer", Authorization=f"Bearer {token}")[0] for token in ("", "no", "look", "act")]
        move = {"to": "0", "expected": "1"}
        acted = [ask(running, "/admin/pointer", move, Authorization=f"Bearer {token}")[0] for token in ("", "no", "look", "act")]
        assert looked == [401, 401, 200, 200] and acted == [401, 401, 403, 200]
        assert ask(running, INFER, image())[0] == 200


def test_a_request_in_flight_is_counted_and_finishes_on_the_version_it_began_with(models: Path) -> None:
    with serve(models, "--slow", "1=1.5") as running:
        said: list[Any] = []
        thread = threading.Thread(target=lambda: said.append(ask(running, INFER, image())))
        thread.start()
        processes.until(lambda: ask(running, "/admin/pointer")[1]["inflight"]["1"] == 1, "the request is in flight")
        assert ask(running, "/admin/pointer", {"to": "0", "expected": "1"})[0] == 200
        assert ask(running, INFER, image())[1]["model_version"] == "0"
        thread.join(10)
        assert said[0][1]["model_version"] == "1" and ask(running, "/admin/pointer")[1]["inflight"] == {"0": 0, "1": 0}


def test_sigterm_answers_what_is_in_flight_logs_it_and_leaves_nothing_running(models: Path, log: Path) -> None:
    with serve(models, "--log", log, "--slow", "1=0.5") as running:
        said: list[Any] = []
        thread = threading.Thread(target=lambda: said.append(ask(running, INFER, image())))
        thread.start()
        processes.until(lambda: ask(running, "/admin/pointer")[1]["inflight"]["1"] == 1, "the request is in flight")
        assert running.terminate() == 0
        thread.join(10)
        assert said[0][0] == 200 and len(rows(log, 1)) == 1
        assert not processes.alive(running.pid)


def test_a_port_that_is_taken_and_a_version_that_is_not_there_are_said_in_one_line(models: Path, server: processes.Running) -> None:
    port = server.url.rpartition(":")[2]
    for more, word in ((["--port", port], "choose another with --port"), (["--port", "0", "--versions", "1,9"], "there is no version '9'")):
        done = subprocess.run(
            processes.python("examples.digits.server", "--models", models / "digits", *more), capture_output=True, text=True, cwd=processes.HOUSE
        )
        assert done.returncode == 1 and word in done.stderr and len(done.stderr.splitlines()) == 1


# The prediction log


def test_answers_are_logged_with_what_was_sent(server: processes.Running, log: Path) -> None:
    pixels = [float(place % 17) for place in range(64)]
    said = ask(server, INFER, {"id": "one", **image(pixels)})[1]
    ask(server, INFER, image(), **{PROBE_HEADER: "watchkeeper"})
    first, second = rows(log, 2)
    assert (first["request_id"], first["model"], first["version"], first["status"], first["probe"]) == ("one", "digits", "1", 200, 0)
    assert json.loads(first["inputs"]) == pixels and first["error"] is None
    assert (first["prediction"], first["score"]) == (str(said["outputs"][0]["data"][0]), max(said["outputs"][1]["data"]))
    assert datetime.fromisoformat(first["at"]).tzinfo and 0 < first["seconds"] < 5
    assert second["probe"] == 1 and len(second["request_id"]) == 32


def test_a_batch_is_a_row_for_each_image(server: processes.Running, log: Path) -> None:
    ask(server, INFER, {"id": "b", **image([1.0] * 64 + [2.0] * 64, shape=[2, 64])})
    logged = rows(log, 2)
    assert [(row["request_id"], json.loads(row["inputs"])) for row in logged] == [("b:0", [1.0] * 64), ("b:1", [2.0] * 64)]


def test_refused_requests_are_logged_as_they_were_sent(server: processes.Running, log: Path) -> None:
    for body in (image([255.0] * 56), json.dumps(image([math.nan, 1.0])).encode(), b"no json at all", image("text")):  # type: ignore[arg-type]
        assert ask(server, INFER, body)[0] == 400
    logged = rows(log, 4)
    assert [json.loads(row["inputs"]) for row in logged] == [[255.0] * 56, [None, 1.0], "no json at all", "text"]
    assert {row["status"] for row in logged} == {400} and all(row["error"] and row["prediction"] is None for row in logged)
    assert logged[0]["version"] == "1", "which version refused it is part of the story"


def test_a_disk_that_fails_costs_rows_and_no_answer(models: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "missing" / "predictions.db"
    with serve(models, "--log", nowhere) as running:
        assert {ask(running, INFER, image())[0] for _ in range(20)} == {200}
        processes.until(lambda: "were not logged" in running.text, "it says so")
        nowhere.parent.mkdir()
        assert ask(running, INFER, {"id": "back", **image()})[0] == 200
        assert rows(nowhere, 1)[-1]["request_id"] == "back"


def test_rows_that_could_not_be_kept_are_counted(tmp_path: Path) -> None:
    log = PredictionLog(echo, tmp_path)  # a folder is no database
    asyncio.run(call(log, b"{}"))
    log.close()
    assert (log.written, log.dropped) == (0, 1)


def test_a_team_describes_bodies_of_its_own(log: Path) -> None:
    kept = PredictionLog(
        echo, log, describe=lambda asked, said: [{"inputs": asked["x"], "prediction": said["x"], "version": "v7"}], suffix="/predict"
    )
    asyncio.run(call(kept, b'{"x": [1, 2]}', "/predict"))
    asyncio.run(call(kept, b'{"x": [1, 2]}', "/other"))
    kept.close()
    (row,) = rows(log, 1)
    assert (row["inputs"], row["prediction"], row["version"], row["status"]) == ("[1, 2]", "[1, 2]", "v7", 200)


@pytest.mark.parametrize(
    "body", [b'{"id": "\\ud800", "inputs": [{"data": [1]}]}', b'{"id": 99999999999999999999, "inputs": [{"data": [1e999]}]}', b'{"inputs": [[]]}']
)
def test_nothing_that_is_sent_stops_the_log(log: Path, body: bytes) -> None:
    kept = PredictionLog(echo, log)
    asyncio.run(call(kept, body))
    kept.close()
    assert (kept.written, kept.dropped, len(rows(log, 1))) == (1, 0, 1)


def test_an_application_that_fails_is_logged_as_500_and_still_fails(log: Path) -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise RuntimeError("out of memory")

    kept = PredictionLog(fails, log)
    with pytest.raises(RuntimeError, match="out of memory"):
        asyncio.run(call(kept, json.dumps(image()).encode()))
    kept.close()
    assert rows(log, 1)[0]["status"] == 500


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """The smallest ASGI application: what comes goes back."""
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def call(app: Any, body: bytes, path: str = INFER) -> None:
    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None: ...

    await app({"type": "http", "method": "POST", "path": path, "headers": []}, receive, send)


# The traffic


def test_traffic_is_answered_rightly_until_the_upstream_breaks(models: Path, server: processes.Running, log: Path, tmp_path: Path) -> None:
    answers, control = tmp_path / "answers.jsonl", tmp_path / "mode"
    files = ("--stream", models / "stream.jsonl", "--answers", answers, "--control", control)

    def seen(**said: Any) -> list[Any]:
        lines = [json.loads(line) for line in answers.read_text().splitlines()] if answers.exists() else []
        return [line for line in lines if said.items() <= line.items()]

    with processes.start(processes.python("examples.digits.traffic", "--url", server.url, *files, "--rate", "50")) as traffic:
        processes.until(lambda: len(seen(status=200)) > 30, "30 answers came")
        assert all(line["version"] == "1" and not line["wrong"] for line in seen())
        control.write_text("broken\n")
        processes.until(lambda: len(seen(mode="broken", status=400)) > 10, "broken images are refused")
        control.write_text("good\n")
        ask(server, "/admin/load", {"version": "2"})
        ask(server, "/admin/pointer", {"to": "2", "expected": "1"})
        processes.until(lambda: len(seen(version="2", wrong=True)) > 3, "the bad version misreads images")
        assert traffic.terminate() == 0
    ids = [line["id"] for line in seen()]
    assert len(set(ids)) == len(ids) == len(rows(log, len(ids)))
    assert max(max(json.loads(row["inputs"])) for row in rows(log, 1) if row["status"] == 400) > 200


def test_traffic_keeps_to_its_timetable_when_the_server_is_slow(models: Path, tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    with serve(models, "--slow", "1=0.2") as server:
        command = processes.python("examples.digits.traffic", "--url", server.url, "--stream", models / "stream.jsonl", "--answers", answers)
        with processes.start(command) as traffic:
            processes.until(lambda: answers.exists() and len(answers.read_text().splitlines()) >= 40, "40 answers came")
            assert traffic.terminate() == 0
    sent = sorted(datetime.fromisoformat(json.loads(line)["at"]) for line in answers.read_text().splitlines())
    assert (sent[39] - sent[0]).total_seconds() < 39 / 20 + 2, "8 callers one after another would take 8 s alone"


# The watch over it


class Demo:
    """The demo's own configuration over real processes: what each of its checks says now."""

    def __init__(self, folder: Path) -> None:
        (folder / "watchkeeper.yaml").write_bytes((processes.HOUSE / "examples" / "digits" / "watchkeeper.yaml").read_bytes())
        self.config = load(folder / "watchkeeper.yaml")
        self.watches = {watch.name: watch for _, watch in self.config.watches()}

    def look(self, name: str) -> Verdict:
        watch, now = self.watches[name], datetime.now(UTC)
        end = now - timedelta(seconds=1)  # what the log's `settle` asks for
        window = [(end - watch.window).isoformat(), end.isoformat()]
        locators = {**self.config.services["digits"].targets, **watch.bind}
        job = {"check": watch.check, "locators": locators, "parameters": watch.parameters, "window": window, "now": now.isoformat()}
        return perform({**job, "party": self.config.party("digits")})

    def becomes(self, name: str, status: Status) -> Verdict:
        seen: list[Verdict] = []
        processes.until(lambda: seen.append(self.look(name)) or seen[-1].status is status, f"{name} says {status}", telling=lambda: str(seen[-1]))
        return seen[-1]


@pytest.fixture
def demo(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Demo, processes.Running, Path]]:
    """Server, traffic and configuration as the demo starts them, in a folder with a space in its name."""
    folder = tmp_path / "the demo"
    folder.mkdir()
    (folder / "models").symlink_to(models)
    files = ("--stream", models / "stream.jsonl", "--answers", folder / "answers.jsonl", "--control", folder / "mode")
    with serve(models, "--log", folder / "predictions.db") as server:
        traffic = processes.python("examples.digits.traffic", "--url", server.url, *files)
        for name, value in {"DIGITS_PORT": server.url.rpartition(":")[2], "WATCHKEEPER_PORT": "8420", "DEMO_WEBHOOK": f"{server.url}/hook"}.items():
            monkeypatch.setenv(name, value)
        with processes.start(traffic):
            yield Demo(folder), server, folder / "mode"


def test_every_watch_of_the_demo_is_ok_until_the_bad_version_and_then_the_broken_images(demo: tuple[Demo, processes.Running, Path]) -> None:
    watched, server, mode = demo
    for name in watched.watches:
        watched.becomes(name, Status.OK)
    ask(server, "/admin/load", {"version": "2"})
    ask(server, "/admin/pointer", {"to": "2", "expected": "1"})
    watched.becomes("serving.parity", Status.FAIL)
    assert watched.look("serving.answers").status is watched.look("data.contract").status is Status.OK, "only parity sees the forgotten step"
    ask(server, "/admin/pointer", {"to": "1", "expected": "2"})
    assert watched.look("serving.parity").status is Status.OK
    mode.write_text("broken")
    broken = watched.becomes("data.contract", Status.FAIL).parts
    assert "inputs.length" in broken and any(name.endswith(".range") for name in broken)
    watched.becomes("serving.answers", Status.FAIL)
    assert watched.look("serving.parity").status is watched.look("data.probe_leak").status is Status.OK, "the model itself is as good as ever"
