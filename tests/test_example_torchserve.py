"""The example behind TorchServe: archives that are the same whenever they are made, and a handler that answers as the example's server does."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent import Locator, Status
from agent.errors import AnswerError
from agent.targets import connect
from checks import serving
from examples.digits.stage import BrokenOffError, Stage, fetch
from examples.torchserve import digits_handler
from examples.torchserve.archives import pack
from examples.torchserve.served import TorchServe
from tests.conftest import need
from tests.processes import HOUSE


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a space in its name, and the trained versions in it."""
    found = tmp_path_factory.mktemp("torch serve")
    subprocess.run([sys.executable, "-m", "examples.digits.train", "--to", found / "models"], check=True, cwd=HOUSE, timeout=100)
    return found


@dataclass
class Told:
    """What TorchServe's worker hands a handler."""

    system_properties: dict[str, Any]
    manifest: dict[str, Any]
    statuses: dict[int, int] = field(default_factory=dict)

    def set_response_status(self, code: int, phrase: str, idx: int) -> None:
        self.statuses[idx] = code


def unpacked(archive: Path, to: Path) -> Told:
    with zipfile.ZipFile(archive) as held:
        held.extractall(to)
    return Told({"model_dir": str(to)}, json.loads((to / "MAR-INF" / "MANIFEST.json").read_text()))


def golden(place: Path, version: str) -> list[dict[str, Any]]:
    return json.loads((place / "models" / "digits" / version / "golden.json").read_text())["rows"]


def test_archives_have_the_same_bytes_whenever_they_are_made(place: Path, tmp_path: Path) -> None:
    first, again = (pack(tmp_path / name, place / "models" / "digits", ["1", "2"]) for name in ("one", "other"))
    assert [one.read_bytes() for one in first] == [one.read_bytes() for one in again] and first[0].read_bytes() != first[1].read_bytes()


def test_the_handler_answers_golden_rows_as_they_were_recorded_and_refuses_the_rest(place: Path, tmp_path: Path) -> None:
    told = unpacked(*pack(tmp_path / "store", place / "models" / "digits", ["1"]), tmp_path / "unpacked")
    assert digits_handler.handle(None, told) is None
    rows = golden(place, "1")[:4]
    bodies: list[Any] = [{"body": row["request"]} for row in rows]
    said = digits_handler.handle([*bodies, {"body": b"no JSON"}, {"body": {"inputs": []}}, {}], told)
    assert said is not None and told.statuses == {4: 400, 5: 400, 6: 400}
    for row, answer in zip(rows, said, strict=False):
        assert answer["model_version"] == "1"
        wanted = {one["name"]: one["data"] for one in row["expected"]["outputs"]}
        assert {one["name"]: one["data"] for one in answer["outputs"]} == {name: pytest.approx(data, abs=1e-6) for name, data in wanted.items()}


@pytest.fixture(scope="module")
def box(place: Path) -> Iterator[TorchServe]:
    program, _ = need("torchserve"), need("java")
    with Stage(place) as stage:
        found = TorchServe(stage, program, ["1", "2"], serve="1")
        found.start()
        until(found.up)
        yield found


def until(holds: Any) -> None:
    end = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < end, "TorchServe did not start"
        time.sleep(0.2)


def test_golden_rows_tell_the_bad_version_apart_behind_torchserve(box: TorchServe, place: Path) -> None:
    server = connect(Locator("digits", "server", f"torchserve+{box.url}/digits", {"management": box.management}, within=timedelta(seconds=30)))
    registry = connect(Locator("digits", "registry", f"folder:{place / 'models' / 'digits'}"))
    assert (server.version(), serving.parity(server, registry, None).status) == ("1", Status.OK)
    box.deploy("2")
    assert (server.version(), serving.parity(server, registry, None).status) == ("2", Status.FAIL)
    with pytest.raises(AnswerError) as refused:
        server.infer({"inputs": []})
    assert refused.value.status == 400
    box.deploy("1")
    server.close()


def test_an_archive_that_does_not_load_changes_nothing(box: TorchServe, place: Path) -> None:
    bad = place / "torchserve" / "store" / "bad.mar"
    with zipfile.ZipFile(place / "torchserve" / "store" / "digits-2.mar") as whole, zipfile.ZipFile(bad, "w") as made:
        for name in whole.namelist():
            made.writestr(name, b"no graph" if name == "model.onnx" else whole.read(name).replace(b'"2"', b'"4"'))
    with pytest.raises(BrokenOffError, match="answered 500"):
        fetch(f"{box.management}/models?url=bad.mar&model_name=digits&initial_workers=1&synchronous=true&response_timeout=20", method="POST")
    assert box.served() == "1"
