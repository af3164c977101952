"""Test files for configurations: what they may say, what is wrong with them and where, and whether what they expect came."""

from __future__ import annotations

import re
import statistics
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import series
from agent.cases import read
from agent.errors import ConfigError
from tests.conftest import HOUSE
from tests.test_replay import wk

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
HEAD = """services:
  fraud:
    targets:
      live: {url: "parquet:live.parquet", time: {column: at, tz: UTC}, id: request_id}
    watches:
      - {check: data.contract, every: 10m, with: {columns: {amount: {nulls: 0.1}}}}
notify:
  channels: {ada: "http://127.0.0.1:9/ada"}
tests:
  - name: nulls
"""
TABLE = "    tables:\n      fraud.live: {every: 1m, series: {amount: 5x20 _x20}}\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "fraud.test.yaml"
    path.write_text(text)
    return path


def test_the_example_of_the_page_holds(tmp_path):
    page = (HOUSE / "docs" / "testing.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert wk("test", written(tmp_path, example)).startswith("ok      ")


def test_what_did_not_come_is_told_beside_what_was_expected(tmp_path):
    path = written(
        tmp_path,
        HEAD + TABLE + "    expect: [{at: 40m, watches: {fraud/data.contract: ok}, incidents: [], told: {ada: []}, runs: {fraud: [rollback]}}]\n",
    )
    said = wk("test", path, code=1)
    assert "FAILED" in said and "at 40m  watch fraud/data.contract\n      expected  ok\n      got       fail: 1 rule broken in 10 rows" in said
    assert 'got       [{"service": "fraud", "severity": "page", "watches": ["data.contract"]}]' in said
    assert 'at 40m  told ada\n      expected  []\n      got       ["opened"]' in said
    assert 'at 40m  runs of fraud\n      expected  ["rollback"]\n      got       []' in said
    assert "one test, 1 failed" in said


def test_rows_may_be_written_out_or_lie_in_a_file_and_a_configuration_may_be_another_file(tmp_path):
    head, _, _ = HEAD.partition("tests:")
    (tmp_path / "watchkeeper.yaml").write_text(head)
    series.write(
        tmp_path / "rows.db",
        series.rows({"amount": "5x10"}, {"time": {"column": "at", "tz": "UTC"}, "id": "request_id"}, BEGIN, timedelta(minutes=1)),
    )
    text = """configuration: watchkeeper.yaml
tests:
  - name: written out
    tables: {fraud.live: {rows: [{at: 1m, request_id: a, amount: 1}, {at: "2026-01-01T00:02:00Z", request_id: b, amount: null}]}}
    expect: [{at: 5m, watches: {fraud/data.contract: none}}, {at: 10m, watches: {fraud/data.contract: fail}}]
  - name: in a file
    tables: {fraud.live: "sqlite:rows.db"}
    expect: [{at: 10m, watches: {fraud/data.contract: ok}}, {at: 20m, watches: {fraud/data.contract: nodata}}]
"""
    assert wk("test", written(tmp_path, text)).count("ok      ") == 2


EXPECT = "    expect: [{at: 1h}]\n"
BAD = [
    ("tests: []\n", ["$:1:8 tests: needs at least 1, and has 0", "$:1:1: needs either `configuration:`, which names one, or `services:` here"]),
    (HEAD + "    tabels: {}\n" + EXPECT, ["$:11:5 tests[0].tabels: unknown key; did you mean 'tables'?"]),
    (
        HEAD + "    tables: {fraud.liv: {series: {a: 1}}}\n" + EXPECT,
        ["$:11:14 tests[0].tables.fraud.liv: no table 'fraud.liv'; did you mean 'fraud.live'?"],
    ),
    (
        HEAD + "    tables: {fraud.live: {seires: {a: 1}}}\n" + EXPECT,
        ["$:11:27 tests[0].tables.fraud.live.seires: unknown key; did you mean 'series'?"],
    ),
    (HEAD + "    tables: {fraud.live: {series: {a: 1x2 5(x}}}\n" + EXPECT, ["$:11:39 tests[0].tables.fraud.live.series.a: '5(x' is no value"]),
    (HEAD + "    tables: {fraud.live: {series: {a: 1x999999999}}}\n" + EXPECT, ["makes more than 1,000,000 rows"]),
    (HEAD + "    tables: {fraud.live: {series: {a: 1x2, b: 1x3}}}\n" + EXPECT, ["a has 2 values and b 3; make them equally many"]),
    (
        HEAD + TABLE + "    expect: [{at: 1h, watches: {fraud/data.contrat: ok}}]\n",
        ["no watch 'fraud/data.contrat'; did you mean 'fraud/data.contract'?"],
    ),
    (
        HEAD + TABLE + "    expect: [{at: 1h, watches: {fraud/data.contract: fial}}]\n",
        ["$:13:54 tests[0].expect[0].watches.fraud/data.contract: must be", "did you mean 'fail'?"],
    ),
    (HEAD + TABLE + "    expect: [{at: 1h, told: {adda: []}}]\n", ["$:13:30 tests[0].expect[0].told.adda: no channel 'adda'"]),
    (HEAD + TABLE + "    expect: [{at: 1h, incidents: [{service: fraud, watches: [contract]}]}]\n", ["no watch of fraud 'contract'"]),
    (HEAD + TABLE + "    expect: [{at: soon}]\n", ["$:13:19 tests[0].expect[0].at: no duration 'soon'"]),
    (
        HEAD.replace("data.contract", "data.contrat") + EXPECT,
        ["$:6:17 services.fraud.watches[0].check: no check 'data.contrat'; did you mean 'data.contract'?"],
    ),
    (
        "a: &a [x, x]\nb: &b [*a, *a]\n"
        + "".join(f"c{n}: &c{n} [*{'b' if not n else f'c{n - 1}'}, *{'b' if not n else f'c{n - 1}'}]\n" for n in range(40)),
        ["aliases make this grow"],
    ),
    ("tests: [" + "[" * 100_000, ["is nested more than 50 deep"]),
    ("# " + "x" * 10_000_000, ["has 10,000,002 bytes"]),
    ("", ["is empty"]),
]


@pytest.mark.parametrize(("text", "lines"), BAD, ids=range(len(BAD)))
def test_a_mistake_is_told_with_its_place_and_the_next_move(tmp_path, text, lines):
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as told:
        read(path)
    for line in lines:
        assert line.replace("$", str(path)) in str(told.value)


def test_every_mistake_of_all_files_is_told_at_once(tmp_path):
    one = written(tmp_path, "tests: []\n")
    said = wk("test", one, tmp_path / "none.yaml", code=2)
    assert "fraud.test.yaml:1:8" in said and "none.yaml: no such file" in said


# The notation


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("1x2 _ 3", [1, 1, None, 3]),
        ("1+2x3 5-1x2", [1, 3, 5, 5, 4]),
        ("0.1+0.1x3", [0.1, 0.2, 0.3]),
        ("-5 1e3 true de nullx2", [-5, 1000.0, True, "de", None, None]),
        ([1, None, "max10"], [1, None, "max10"]),
        (7, [7]),
    ],
)
def test_values_are_read_as_they_look(text, made):
    assert series.values("a", text) == made


def test_what_is_drawn_is_the_same_every_time_and_as_wide_as_it_says():
    drawn = series.values("a", "normal(100,15)x4000")
    assert drawn == series.values("a", "normal(100,15)x4000") != series.values("b", "normal(100,15)x4000")
    assert abs(statistics.fmean(drawn) - 100) < 1 and abs(statistics.stdev(drawn) - 15) < 1
    assert all(2 <= value <= 3 for value in series.values("a", "uniform(2,3)x100"))


@given(st.text(max_size=60))
def test_whatever_is_written_is_values_or_a_sentence(text):
    try:
        assert len(series.values("a", text)) <= series.MOST
    except ValueError as problem:
        assert str(problem)


@pytest.mark.parametrize(
    ("unit", "first"), [("iso", "2026-01-01T00:00:00.000000Z"), ("s", 1767225600), ("ms", 1767225600000), ("ns", 1767225600000000000)]
)
def test_times_and_ids_are_filled_in_as_the_table_declares_them(unit, first):
    rows = series.rows({"a": "1x2"}, {"time": {"column": "t", "unit": unit}, "id": "key"}, BEGIN, timedelta(minutes=1))
    assert rows[0] == {"a": 1, "t": first, "key": "r0"} and rows[1]["t"] != first
