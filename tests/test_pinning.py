"""Rows written down to be learned from: the same from every format, named by what is in them, whole or not there."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import sqlite3
import stat
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import DataError
from agent.model import Locator, Window
from agent.pinning import _marks, pin, pinned
from agent.targets import connect
from tests.logs import LOG, START, log_rows, write


def table(folder, url, role="train", **options):
    return connect(Locator("fraud", role, url, options, folder=str(folder)))


def read(part):
    assert hashlib.sha256(Path(part["path"]).read_bytes()).hexdigest() == part["sha256"] == Path(part["path"]).stem
    found = pyarrow.parquet.read_table(part["path"])
    assert found.num_rows == part["rows"]
    return found


def test_the_rows_of_a_window_are_pinned_alike_from_every_format_and_never_our_own_probes(tmp_path, form):
    rows = table(tmp_path, write(tmp_path, form, log_rows()), "live", **LOG)
    told = pin(rows, tmp_path / "pins", "run-1-0", window=Window(START, START + timedelta(seconds=20)))
    found = read(told["train"])
    assert told["train"]["rows"] == 18, "20 seconds of rows, without the two that are ours"
    assert found["request_id"].to_pylist()[:3] == ["id0", "id1", "id2"] and found["p1"].to_pylist()[:3] == [0.0, 0.5, 1.0]
    assert "inputs" not in found.column_names and told["left"] == ["inputs", "inputs.length"]
    assert found["score"].null_count == 2 and found["at"].type == pa.timestamp("us", tz="UTC")
    assert found["at"].to_pylist()[1] == START + timedelta(seconds=1)


def test_what_was_pinned_under_a_name_is_found_again_and_what_is_gone_is_not(tmp_path):
    rows = table(tmp_path, write(tmp_path, "parquet", log_rows()), "live", **LOG)
    told = pin(rows, tmp_path / "pins", "run-1-0")
    assert pinned(tmp_path / "pins", "run-1-0") == told and pinned(tmp_path / "pins", "run-1-1") is None
    assert pin(rows, tmp_path / "pins", "run-2-0")["train"] == told["train"], "the same rows are the same file"
    assert len(list((tmp_path / "pins").glob("*.parquet"))) == 1
    assert stat.S_IMODE(Path(told["train"]["path"]).stat().st_mode) == 0o600 and stat.S_IMODE((tmp_path / "pins").stat().st_mode) == 0o700
    Path(told["train"]["path"]).unlink()
    assert pinned(tmp_path / "pins", "run-1-0") is None
    (tmp_path / "pins" / "run-1-0.json").write_text("{")
    assert pinned(tmp_path / "pins", "run-1-0") is None


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("ab")), min_size=40, max_size=80), st.floats(0.1, 0.9))
def test_no_row_is_lost_or_doubled_and_equal_rows_lie_on_one_side(tmp_path_factory, rows, held):
    folder = tmp_path_factory.mktemp("held")
    with (folder / "rows.csv").open("w") as file:
        csv.writer(file).writerows([("x", "y"), *rows])
    try:
        told = pin(table(folder, "csv:rows.csv"), folder / "pins", "k", held=held)
    except DataError as problem:
        assert "no row to pin" in str(problem) or "none falls into the share" in str(problem)
        return
    parts = [[tuple(row.values()) for row in read(part).to_pylist()] if part else [] for part in (told["train"], told["held"])]
    assert sorted(parts[0] + parts[1]) == sorted(rows) and not set(parts[0]) & set(parts[1])
    shutil.rmtree(folder)


def test_about_the_share_that_was_asked_for_is_held(tmp_path):
    marks = _marks({"x": np.random.default_rng(0).normal(size=100_000)})
    assert abs(float(np.mean(marks < np.uint64(int(0.2 * 2**64)))) - 0.2) < 0.006, "beyond four standard deviations"


def labelled(folder, labels):
    with closing(sqlite3.connect(folder / "log.db")) as con, con:
        con.execute("CREATE TABLE log (at TEXT, id TEXT, x REAL)")
        con.execute("CREATE TABLE truth (at TEXT, id TEXT, y TEXT)")
        con.executemany("INSERT INTO log VALUES (?, ?, ?)", [((START + timedelta(seconds=n)).isoformat(), f"00{n}", n) for n in range(5)])
        con.executemany("INSERT INTO truth VALUES (?, ?, ?)", labels)
    rows = table(folder, "sqlite:log.db?table=log", "live", time={"column": "at", "tz": "UTC"}, id="id")
    return rows, table(folder, "sqlite:log.db?table=truth", "labels", key="id", label="y", time={"column": "at", "tz": "UTC"})


def test_each_row_gets_its_label_the_later_one_of_two_and_a_row_without_one_is_left_out(tmp_path):
    at = [(START + timedelta(hours=n)).isoformat() for n in range(3)]
    rows, labels = labelled(tmp_path, [(at[1], "001", "late"), (at[0], "001", "early"), (at[0], "003", "b"), (at[0], "004", None), (at[0], "9", "c")])
    found = read(pin(rows, tmp_path / "pins", "k", labels=labels)["train"])
    assert [(row["id"], row["y"]) for row in found.to_pylist()] == [("001", "late"), ("003", "b")]
    with pytest.raises(DataError, match="do rows have their labels yet"):
        pin(rows, tmp_path / "pins", "k2", labels=labels, window=Window(START, START + timedelta(seconds=1)))
    assert pinned(tmp_path / "pins", "k2") is None and not list((tmp_path / "pins").glob(".*"))


def test_more_rows_than_were_allowed_are_refused_and_not_cut(tmp_path):
    rows = table(tmp_path, write(tmp_path, "parquet", log_rows()), "live", **LOG)
    with pytest.raises(DataError, match="more than 10 rows"):
        pin(rows, tmp_path / "pins", "k", most=10)
    assert not list((tmp_path / "pins").iterdir())


def test_values_stay_what_they_are_and_what_would_not_is_refused(tmp_path):
    kept = pa.table(
        {
            "whole": pa.array([2**52, None, -3]),
            "id": pa.array([2**60 + 1, 2, 3]),
            "flag": pa.array([True, None, False]),
            "text": pa.array(["ä\n", None, ""]),
            "list": pa.array([[1.0, 2.0], None, []]),
            "words": pa.array([["a"], None, []]),
            "bytes": pa.array([b"\x00", None, b""]),
            "number": pa.array([float("inf"), None, float("nan")]),
        }
    )
    pyarrow.parquet.write_table(kept, tmp_path / "rows.parquet")
    found = read(pin(table(tmp_path, "parquet:rows.parquet", id="id"), tmp_path / "pins", "k")["train"])
    assert found["id"].to_pylist() == [str(2**60 + 1), "2", "3"], "an id is text, whatever it looks like"
    for name in ("whole", "flag", "text", "list", "bytes"):
        assert found[name].to_pylist() == kept[name].to_pylist(), name
    assert found["number"].to_pylist() == [float("inf"), None, None]
    assert found["words"].to_pylist() == ['["a"]', None, "[]"], "lists of text stay text"
    pyarrow.parquet.write_table(pa.table({"whole": pa.array([2**60 + 1])}), tmp_path / "large.parquet")
    with pytest.raises(DataError, match=r"column 'whole' cannot be pinned: whole numbers beyond 2\^53"):
        pin(table(tmp_path, "parquet:large.parquet"), tmp_path / "pins", "k2")


def test_a_pin_says_which_state_of_its_table_it_was_made_from(tmp_path):
    import deltalake

    for n in range(2):
        deltalake.write_deltalake(str(tmp_path / "lake"), pa.table({"x": [float(n)]}), mode="append")
    assert pin(table(tmp_path, "delta:lake"), tmp_path / "pins", "a")["origin"] == {"delta": 1}
    assert pin(table(tmp_path, "delta:lake?version=0"), tmp_path / "pins", "b")["origin"] == {"delta": 0}
    (tmp_path / "rows.csv").write_text("x\n1\n")
    (tmp_path / "rows.csv.dvc").write_text("outs:\n- md5: 0123456789abcdef0123456789abcdef\n  size: 4\n  path: rows.csv\n")
    (one,) = pin(table(tmp_path, "csv:rows.csv"), tmp_path / "pins", "c")["origin"]["files"].values()
    assert one == {"sha256": hashlib.sha256(b"x\n1\n").hexdigest(), "dvc": "0123456789abcdef0123456789abcdef"}


def test_what_a_killed_writer_left_half_written_is_taken_away(tmp_path):
    (tmp_path / "rows.csv").write_text("x\n1\n")
    (tmp_path / "pins").mkdir()
    old, young = tmp_path / "pins" / ".old", tmp_path / "pins" / ".young"
    for draft in (old, young):
        draft.write_bytes(b"rows")
    os.utime(old, (0, 0))
    pin(table(tmp_path, "csv:rows.csv"), tmp_path / "pins", "k")
    assert young.exists() and not old.exists(), "a young one may be somebody's who is writing it now"


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "rows.csv").write_text("x\n1\n")
    (tmp_path / "pins").write_text("a file")
    with pytest.raises(DataError, match="could not be written down"):
        pin(table(tmp_path, "csv:rows.csv"), tmp_path / "pins", "k")


def test_a_table_without_a_time_has_no_window(tmp_path):
    (tmp_path / "rows.csv").write_text("x\n1\n")
    with pytest.raises(DataError, match="declares no time"):
        pin(table(tmp_path, "csv:rows.csv"), tmp_path / "pins", "k", window=Window(START, START + timedelta(days=1)))
    assert json.loads(json.dumps(pin(table(tmp_path, "csv:rows.csv"), tmp_path / "pins", "k")))["from"] is None
