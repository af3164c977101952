"""lineage.*: real registries in folders, real files, a real git repository, a server that answers."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import zipfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import Locator, Status
from agent.errors import CannotError
from agent.targets import connect
from agent.targets.folder import record
from checks import _lineage, lineage
from tests.repository import Repository
from tests.servers import oip

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
GOLDEN = [(oip.REQUEST, {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [2.0, 4.0]}]})]


@pytest.fixture(scope="module")
def server():
    with closing(connected("server", (speaker := oip.Speaker(loaded=("1",))).url)) as made:
        yield made
    speaker.stop()


def connected(role: str, url: str, **options: Any) -> Any:
    return connect(Locator("fraud", role, url, options))


def registry(folder: Path, files: dict[str, bytes] | None = None, version: str = "1", golden: Any = (), **lineage: Any) -> Any:
    record(folder / "models", version, files or {"w.bin": b"weights"}, golden=golden, lineage=lineage, now=NOW)
    return connected("registry", f"folder:{folder}/models")


def test_the_training_data_is_read_back_or_lost_or_altered(tmp_path, server):
    table = tmp_path / "train.csv"
    table.write_text("x,y\n1,2\n")
    digest = hashlib.sha256(table.read_bytes()).hexdigest()
    held, there = registry(tmp_path, data={"train.csv": {"sha256": digest}}), connected("reference", f"csv:{table}")
    said = lineage.data(server, held, None, there)
    assert (said.status, said.reason) == (Status.OK, "the training data of version 1 is what was recorded: train.csv")
    assert lineage.data(server, held).status is Status.WARN
    table.write_text("x,y\n1,3\n")
    assert lineage.data(server, held, None, connected("reference", f"csv:{table}")).status is Status.FAIL


def test_several_files_have_one_digest_and_a_window_of_them_the_same(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text(f"at,x\n2026-03-01T00:00:00,{name}\n")
    table = connected("reference", f"csv:{tmp_path}/*.csv", time={"column": "at", "tz": "UTC"})
    own = [hashlib.sha256((tmp_path / f"{name}.csv").read_bytes()).hexdigest() for name in ("a", "b")]
    assert table.digest() == hashlib.sha256("".join(own).encode()).hexdigest() == table.between(NOW, NOW).digest()
    (tmp_path / "t.duckdb").write_bytes(b"")
    with pytest.raises(CannotError, match="no file whose sha256"):
        connected("reference", f"sqlite:{tmp_path}/t.db?table=t").digest()


def test_data_that_dvc_pinned_is_read_back_from_its_cache(tmp_path, server):
    code, body = Repository(tmp_path / "code"), b"x\n1\n"
    commit = code.commit(code.pin("train.csv", body))
    md5 = hashlib.md5(body).hexdigest()
    held, git = registry(tmp_path, data={"train.csv": md5}, commit=commit), connected("code", f"git:{tmp_path}/code")
    assert lineage.data(server, held, None, None, git).status is Status.OK
    (tmp_path / "code/train.csv").write_bytes(b"x\n2\n")
    assert lineage.data(server, held, None, None, git).status is Status.FAIL
    (tmp_path / "code/train.csv").unlink()
    assert lineage.data(server, held, None, None, git).status is Status.WARN, "recorded, and neither in the cache nor where it lay"


@pytest.mark.parametrize("data", [None, {}, "train.csv", {"train.csv": 7}, {"train.csv": ""}, [], {"train.csv": {"rows": 3}}])
def test_data_that_is_not_recorded_fails_whatever_stands_there(tmp_path, server, data):
    assert lineage.data(server, registry(tmp_path, data=data)).reason.startswith("version 1 does not record what it was trained on")


def test_what_serves_and_was_never_registered_fails_everything(tmp_path, server):
    other = registry(tmp_path, version="7", data={"t": "0" * 64})
    for check in (lineage.data, lineage.search, lineage.artefacts):
        assert check(server, other).status is Status.FAIL and "never registered" in check(server, other).reason


def test_the_chain_is_walked_link_by_link(tmp_path, server):
    code, body = Repository(tmp_path / "code"), b"x\n1\n"
    commit, git = code.commit(code.pin("train.csv", body)), connected("code", f"git:{tmp_path}/code")
    md5 = hashlib.md5(body).hexdigest()
    whole = lineage.chain(server, registry(tmp_path / "a", data={"train.csv": md5}, commit=commit), git)
    assert whole.status is Status.OK and whole.reading.n == 4
    elsewhere = lineage.chain(server, registry(tmp_path / "b", data={"t": "0" * 64}, commit=commit, sources={"t": "s3://lake/t"}), git)
    assert elsewhere.status is Status.OK
    one = lineage.chain(server, registry(tmp_path / "c", data={"t": "0" * 64}, commit=commit), git)
    assert one.status is Status.WARN and "where the data of version 1 came from" in one.reason
    assert lineage.chain(server, registry(tmp_path / "d", data={"t": "0" * 64}, commit="0" * 40), git).status is Status.FAIL
    assert lineage.chain(server, registry(tmp_path / "e", version="9"), git).reading.observed == 4


def test_a_repetition_has_the_same_pins_and_the_same_answers(tmp_path):
    pins = {"data": {"t": "0" * 64}, "commit": "c", "seed": 1}

    def rows(*numbers):
        return [(place, number) for place, number in enumerate(numbers)]

    folder = tmp_path / "models"
    record(folder, "1", {"w": b"1"}, golden=rows(*range(100)), lineage=pins, now=NOW)
    held = connected("registry", f"folder:{folder}")
    assert lineage.repeated(held).status is Status.FAIL
    for name, answers, wanted in (
        ("2", rows(*range(100)), Status.OK),
        ("3", rows(*range(97), 0, 0, 0), Status.WARN),
        ("4", rows(*range(90), *[0] * 10), Status.FAIL),
    ):
        record(folder, name, {"w": b"2"}, golden=answers, lineage={**pins, "repeats": "1"}, now=NOW.replace(hour=12 + int(name)))
        assert lineage.repeated(held).status is wanted, name
    record(folder, "5", {"w": b"2"}, golden=rows(*range(100)), lineage={**pins, "seed": 2, "repeats": "1"}, now=NOW.replace(hour=20))
    assert "no repetition of 1: seed differ" in lineage.repeated(held).reason
    record(folder, "6", {"w": b"2"}, golden=[("x", 1)], lineage={**pins, "repeats": "1"}, now=NOW.replace(hour=21))
    assert lineage.repeated(held).status is Status.NODATA
    record(folder, "7", {"w": b"2"}, lineage={"repeats": "none"}, now=NOW.replace(hour=22))
    assert "does not hold" in lineage.repeated(held).reason


def searched(runs: int, chosen: int = 0, knobs: Any = ("lr", "depth")) -> dict[str, Any]:
    tried = [{"parameters": {"lr": 0.1 * place, "depth": place % 3}, "metric": 1.0 - place / 100} for place in range(runs)]
    return {"search": {"knobs": list(knobs), "runs": tried}, "parameters": tried[chosen]["parameters"] if tried else {}}


@pytest.mark.parametrize(
    ("told", "status", "words"),
    [
        (searched(10), Status.OK, "number 1 of 10 runs over lr, depth"),
        (searched(9), Status.WARN, "9 runs, and 10 are wanted"),
        (searched(20, chosen=7), Status.WARN, "what was chosen is number 8"),
        (searched(12, knobs=("lr", "momentum")), Status.WARN, "momentum never varied"),
        (searched(12, knobs=()), Status.WARN, "no knob is declared"),
        (searched(12) | {"parameters": {"lr": 9}}, Status.WARN, "none of them"),
        ({}, Status.FAIL, "records no search"),
        ({"search": "yes"}, Status.FAIL, "records no search"),
        ({"search": {"runs": [{"parameters": {}, "metric": "good"}, 7, {"metric": 1.0}]}}, Status.FAIL, "records no search"),
    ],
)
def test_a_configuration_comes_of_a_search_or_of_nothing(tmp_path, server, told, status, words):
    said = lineage.search(server, registry(tmp_path, **told))
    assert said.status is status and words in said.reason


def test_a_file_is_known_by_its_bytes_and_not_by_its_name(tmp_path, server):
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"w": [1]}, 2))
    torch_like = (tmp_path / "w.zip").read_bytes()
    safe = {
        "model.onnx": b"\x08\x09\x12\x04torch",
        "model.safetensors": b"\x10\0\0\0\0\0\0\0{}",
        "config.json": b'{"a": 1}',
        "README.md": b"I am a model.\n",
    }
    assert lineage.artefacts(server, registry(tmp_path / "a", safe)).status is Status.OK
    for name, body in (
        ("model.onnx", pickle.dumps([1, 2, 3], 4)),
        ("notes.txt", pickle.dumps({"a": object}, 0)),
        ("weights.bin", torch_like),
        ("m.joblib", gzip.compress(pickle.dumps([1]))),
    ):
        said = lineage.artefacts(server, registry(tmp_path / name, {name: body}))
        assert said.status is Status.FAIL and name in said.reason, said.reason


def test_a_file_that_was_altered_is_found(tmp_path, server):
    held = registry(tmp_path, {"model.onnx": b"\x08\x09"})
    (tmp_path / "models/1/model.onnx").write_bytes(b"\x08\x0a")
    assert "was changed after it was recorded" in lineage.artefacts(server, held).reason


@settings(max_examples=40)
@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=20) | st.booleans(),
        lambda x: st.lists(x, max_size=4) | st.dictionaries(st.text(max_size=4), x),
        max_leaves=8,
    ),
    st.integers(0, 5),
)
def test_every_pickle_of_every_protocol_is_known_for_one(value, protocol):
    body = pickle.dumps([value, [value]], protocol)
    assert _lineage._pickled(body[: _lineage.HEAD])
