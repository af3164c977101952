"""data.profile: what it writes is read again as it stands, is kept by the rows it came from, is broken by others, and is the same each time."""

import math
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent import Locator, Status
from agent.config.apart import settings as read_settings
from agent.perform import perform
from checks import _infer
from checks.data import profile
from tests.logs import LOG, START, log_rows, opened, write

FILE = "a contract", "columns"
ODD = [
    "no",
    "1",
    "a: b",
    "*x",
    "<<",
    "null",
    "~",
    "- x",
    "#c",
    "日本",
    "é",
    "x" * 60,
    '"',
    "'",
    "\\",
    "{a}",
    "$HOME",
    "${HOME}",
    "a\tb",
    "\u2028",
    " ",
]


def inferred(folder, url, options, **settings):
    verdict = profile(opened(folder, url, options), None, **settings)
    assert verdict.status is Status.OK, verdict.reason
    (folder / "contract.yaml").write_bytes(verdict.data["contract.yaml"])
    return verdict.data["contract.yaml"].decode()


def kept(folder, url, options, now=START + timedelta(seconds=41)):
    """The contract of the folder, read as a command and a watch read it, on a table."""
    rules = read_settings(folder / "contract.yaml", "data.contract", FILE)
    job = {"check": "data.contract", "locators": {"live": Locator("", "live", url, options, folder=str(folder))}, "parameters": rules, "now": now}
    return perform(job)


def test_the_contract_of_the_usual_log_says_what_was_seen(tmp_path, form):
    text = inferred(tmp_path, write(tmp_path, form, log_rows(400)), LOG)
    found = yaml.safe_load(text)
    assert (found["freshness"], found["volume"], found["volume_at_most"]) == ("3s", 199, 796)  # the probes left gaps of two seconds
    assert found["columns"]["score"] == {"type": "number", "nulls": pytest.approx(0.16, abs=0.01), "low": 0, "high": 1}
    assert found["columns"]["prediction"] == {"type": "integer", "nulls": 0, "categories": [0, 1, 2]}
    assert found["columns"]["request_id"] == {"type": "text", "nulls": 0, "shortest": 1, "longest": 6, "unique": True}
    assert "at" not in found["columns"]
    assert "# text; 0 of 398 rows null (0); 3 to 5 characters; no value twice" in text
    assert "# the longest time without an event was 2s" in text


def test_what_is_written_once_is_written_again(tmp_path, form):
    url = write(tmp_path, form, log_rows())
    assert inferred(tmp_path, url, LOG) == inferred(tmp_path, url, LOG)


def test_it_can_be_pasted_under_with_of_a_watch(tmp_path):
    from agent.config import load

    text = inferred(tmp_path, write(tmp_path, "sqlite", log_rows()), LOG)
    pasted = "".join(f"          {line}\n" for line in text.splitlines())
    live = "      live: {url: 'sqlite:log.sqlite', time: {column: at, tz: UTC}}\n"
    head = f"services:\n  digits:\n    targets:\n{live}    watches:\n      - check: data.contract\n        with:\n"
    (tmp_path / "watchkeeper.yaml").write_text(head + pasted)
    (watch,) = load(tmp_path / "watchkeeper.yaml").services["digits"].watches
    assert watch.parameters == yaml.safe_load(text)


# Whatever the table

NUMBERS = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.integers(-5, 5).map(float))
TEXTS = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12), st.sampled_from(["no", "1", "$a", "${HOME}", "é"]))
KINDS = {
    "number": (NUMBERS, pa.float64()),
    "integer": (st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(0, 3)), pa.int64()),
    "text": (TEXTS, pa.string()),
    "boolean": (st.one_of(st.none(), st.booleans()), pa.bool_()),
}


@st.composite
def tables(draw):
    names = draw(st.lists(st.sampled_from(ODD), min_size=1, max_size=4, unique_by=str.lower))
    rows = draw(st.integers(1, 30))
    kinds = {name: draw(st.sampled_from(sorted(KINDS))) for name in names}
    made = {name: draw(st.lists(KINDS[kind][0], min_size=rows, max_size=rows)) for name, kind in kinds.items()}
    return [{name: made[name][n] for name in names} for n in range(rows)], {name: KINDS[kind][1] for name, kind in kinds.items()}


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(table=tables(), margin=st.sampled_from([0.0, 0.1, 3.0]))
def test_a_table_keeps_the_contract_made_from_it(tmp_path, form, table, margin):
    rows, types = table
    if form == "jsonl":  # JSON has no NaN, and no infinity
        rows = [{n: None if isinstance(v, float) and not math.isfinite(v) else v for n, v in row.items()} for row in rows]
    url = write(tmp_path, form, rows, types)
    inferred(tmp_path, url, {}, margin=margin)
    verdict = kept(tmp_path, url, {})
    assert verdict.status is Status.OK, f"{verdict.reason}\n{(tmp_path / 'contract.yaml').read_text()}"


@pytest.mark.parametrize(
    ("column", "change", "broken"),
    [
        ("score", lambda n: 7.5, "score.range"),
        ("score", lambda n: "high" if n == 3 else "low", "score.type"),
        ("score", lambda n: None, "score.nulls"),
        ("prediction", lambda n: 9 if n == 3 else n % 3, "prediction.unseen"),
        ("prediction", lambda n: n % 3 + 0.5, "prediction.type"),
        ("request_id", lambda n: "id1" if n == 3 else f"id{n}", "request_id.unique"),
        ("request_id", lambda n: f"a much longer id {n}", "request_id.characters"),
        ("version", None, "version"),
    ],
)
def test_a_changed_table_breaks_the_rule_of_what_changed(tmp_path, form, column, change, broken):
    options = {"time": LOG["time"], "version": "version"}  # declared, so that it is text in a CSV as well
    types = {"version": pa.string()}
    inferred(tmp_path, write(tmp_path, form, log_rows(), types), options)
    if change:
        rows = [row | {column: change(n)} for n, row in enumerate(log_rows())]
    else:
        rows = [{name: value for name, value in row.items() if name != column} for row in log_rows()]
    verdict = kept(tmp_path, write(tmp_path, form, rows, {"score": pa.float64()} if broken == "score.nulls" else None), options)
    if form in ("csv", "jsonl") and broken == "score.nulls":  # without any value a text format has no type to keep
        assert broken in verdict.parts
    else:
        assert list(verdict.parts) == [broken], verdict.reason


def test_half_the_rows_twice_the_rows_and_old_rows_break_what_time_promises(tmp_path):
    inferred(tmp_path, write(tmp_path, "csv", log_rows()), LOG)
    assert list(kept(tmp_path, write(tmp_path, "csv", log_rows(15)), LOG, START + timedelta(seconds=15)).parts) == ["volume"]
    assert list(kept(tmp_path, write(tmp_path, "csv", log_rows(100)), LOG, START + timedelta(seconds=100)).parts)[-1:] == ["volume"]
    assert list(kept(tmp_path, write(tmp_path, "csv", log_rows()), LOG, START + timedelta(minutes=5)).parts) == ["freshness"]
    assert kept(tmp_path, write(tmp_path, "csv", log_rows()), LOG, START + timedelta(seconds=40)).good


def test_future_times_are_no_part_of_any_contract(tmp_path):
    rows = [*log_rows(), log_rows()[9] | {"at": "2031-01-01T00:00:00Z"}]
    inferred(tmp_path, write(tmp_path, "csv", rows), LOG)
    assert "time.future" in kept(tmp_path, write(tmp_path, "csv", rows), LOG, START + timedelta(seconds=40)).parts


# Odd tables


def test_columns_of_nothing_and_of_one_value(tmp_path):
    rows = [{"nothing": None, "always": 5, "zero": 0.0, "inf": math.inf, "many": n} for n in range(30)]
    found = yaml.safe_load(inferred(tmp_path, write(tmp_path, "parquet", rows, {"nothing": pa.float64()}), {}))["columns"]
    assert found["nothing"] == {}
    assert found["always"]["categories"] == [5]
    assert found["zero"] == {"type": "number", "nulls": 0, "low": 0, "high": 0}
    assert found["inf"] == {"type": "number", "nulls": 0}
    assert found["many"] == {"type": "integer", "nulls": 0, "low": 0, "high": 32, "unique": True}


def test_categories_of_any_spelling_and_numbers_with_nulls_are_kept(tmp_path, form):
    words = ["${HOME}", "$$", "no", "1", "a: b", "*x", "日本", "it's"]
    rows = [{"word": words[n % 8], "code": None if n % 3 == 0 else n % 2, "huge": 2**60 + n % 2, "flag": n % 2 == 0} for n in range(48)]
    url = write(tmp_path, form, rows)
    found = yaml.safe_load(inferred(tmp_path, url, {}))["columns"]
    assert sorted(text.replace("$$", "$") for text in found["word"]["categories"]) == sorted(words)
    assert found["code"]["categories"] == [0, 1]
    assert "categories" not in found["huge"]
    assert kept(tmp_path, url, {}).good, kept(tmp_path, url, {}).reason


def test_a_name_that_cannot_be_a_key_is_left_out_and_said(tmp_path):
    rows = [{"x" * 500: 1, "y": 1}]
    text = inferred(tmp_path, write(tmp_path, "parquet", rows), {})
    assert "a column whose name has 500 characters was left out" in text
    assert list(yaml.safe_load(text)["columns"]) == ["y"]


def test_a_million_different_texts_are_no_categories_and_stay_out_of_the_file(tmp_path):
    pa.parquet.write_table(pa.table({"id": pa.array(np.arange(1_000_000)).cast(pa.string())}), tmp_path / "log.parquet", use_dictionary=False)
    text = inferred(tmp_path, "parquet:log.parquet", {})
    assert len(text) < 1000
    assert yaml.safe_load(text)["columns"]["id"]["unique"] is True


def test_a_table_without_rows_teaches_nothing(tmp_path):
    url = write(tmp_path, "parquet", [{"probe": 1}])
    verdict = profile(opened(tmp_path, url, {"exclude": [{"column": "probe", "equals": 1}]}), None)
    assert (verdict.status, verdict.reason) == (Status.NODATA, "no rows, so nothing is known of them")


# Arithmetic


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False), st.floats(0, 10))
def test_bounds_hold_what_was_seen_and_are_read_back_as_they_are(one, other, margin):
    from agent.config.source import plain

    low, high = min(one, other), max(one, other)
    for whole in (False, True):
        edges = (math.trunc(low), math.trunc(high)) if whole else (low, high)
        least, most = _infer.bounds(float(edges[0]), float(edges[1]), margin, whole)
        assert least <= edges[0]
        assert most >= edges[1]
        for edge in (least, most):
            assert not math.isfinite(edge) or plain(_infer.number(edge)) == edge


@pytest.mark.parametrize(
    ("low", "high", "whole", "wanted"),
    [
        (0.0, 9.0, True, (0, 10)),
        (-3.0, 7.0, True, (-4, 8)),
        (0.021, 0.977, False, (0.0, 1.0)),
        (12.34, 56.78, False, (7.8, 61.3)),
        (-1.0, 1.0, False, (-1.2, 1.2)),
        (5.0, 5.0, False, (4.5, 5.5)),
    ],
)
def test_bounds_are_a_tenth_wider_in_few_digits(low, high, whole, wanted):
    assert _infer.bounds(low, high, 0.1, whole) == pytest.approx(wanted)


@settings(max_examples=30)
@given(st.text(max_size=30))
def test_any_text_is_read_back_as_it_is_by_any_reader_of_yaml(text):
    text = text.encode("utf-8", "ignore").decode()
    assert yaml.safe_load(_infer.word(text) + ": 1") == {text: 1}
    assert yaml.safe_load(_infer.text(text)) == text.replace("$", "$$")
