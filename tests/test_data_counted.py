"""data.contract where only counts leave the engine: the verdict that the rows themselves would get, and what takes rows is named and not guessed."""

import json
import math
from datetime import timedelta

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent import Status, Window
from agent.errors import DataError
from checks.data import Pair, Rule, contract
from tests.logs import LOG, START, OnlyCounts, log_rows, opened, write

WINDOW = Window(START, START + timedelta(seconds=40))
NOW = WINDOW.end + timedelta(seconds=1)


def both(folder, rows, form="parquet", options=LOG, window=WINDOW, types=None, **rules):
    """The verdict by counts, after it was seen to be the one by rows."""
    table = opened(folder, write(folder, form, rows, types), options)
    by_rows, by_counts = (contract(one, window, NOW, **rules) for one in (table, OnlyCounts(table)))
    assert (by_counts.status, by_counts.reason, by_counts.reading) == (by_rows.status, by_rows.reason, by_rows.reading)
    assert list(by_counts.parts.items()) == list(by_rows.parts.items())
    told, seen = (json.loads(one.data["contract.json"]) if one.data else {} for one in (by_counts, by_rows))
    assert [{**line, "ids": []} for line in told.get("broken", ())] == [{**line, "ids": []} for line in seen.get("broken", ())]
    return by_counts


def odd(place):
    return [0.5, None, math.nan, math.inf, -math.inf, -0.0, 1.0, math.nextafter(1, 2), math.nextafter(0, -1), -5.0][place % 10]


def test_whole_rows_keep_their_contract_and_broken_ones_break_it_by_the_same_words(tmp_path, form):
    rules = {
        "prediction": Rule(type="number", categories=("0", "1", "2.0", 7)),
        "score": Rule(type="number", nulls=0.2, low=0, high=1),
        "version": Rule(categories=("1",)),
    }
    told = {"columns": rules, "features": Rule(low=0, high=40, nulls=0), "freshness": timedelta(minutes=1), "volume": 30}
    assert both(tmp_path, log_rows(), form, **told).reason == "38 rows keep the contract of 8 columns"
    rows = [row | {"version": "ab"[place % 2], "inputs": json.dumps([place, None, 99][: 2 + place % 2])} for place, row in enumerate(log_rows())]
    verdict = both(tmp_path, rows, form, **told | {"volume_at_most": 20})
    assert set(verdict.parts) == {"version.unseen", "inputs.length", "p1.nulls", "p2.nulls", "p2.range", "volume"}


@pytest.mark.parametrize("form", ["parquet", "sqlite", "duckdb", "delta"])
def test_nulls_infinities_and_the_bounds_themselves_are_counted_as_they_are_seen(tmp_path, form):
    rows = [row | {"score": odd(place), "flag": [True, False, None][place % 3]} for place, row in enumerate(log_rows())]
    for rule in (Rule(low=0, high=1, nulls=0), Rule(low=0), Rule(high=1.0), Rule(low=-math.inf, high=math.inf), Rule(low=0, high=0, outside=0.4)):
        both(
            tmp_path, rows, form, columns={"score": rule, "flag": Rule(categories=(True,), unseen=0.5), "prediction": Rule(low=1, categories=(1, 2))}
        )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.none() | st.floats(), min_size=1, max_size=30), st.floats(allow_nan=False), st.floats(allow_nan=False), st.floats(0, 1))
def test_any_range_and_any_list_of_numbers_count_as_they_are_seen(tmp_path, values, one, other, share):
    low, high = sorted((one, other))
    rows = [{"x": value, "y": 1} for value in values]
    rule = Rule(low=low, high=high, outside=share, categories=(0, low, 7.0, "nan", "1e3"), unseen=share, nulls=share)
    table = opened(tmp_path, write(tmp_path, "parquet", rows, {"x": pa.float64()}), {})
    by_rows, by_counts = (contract(one, None, NOW, columns={"x": rule}) for one in (table, OnlyCounts(table)))
    assert (by_counts.reason, dict(by_counts.parts)) == (by_rows.reason, dict(by_rows.parts))


def test_a_column_of_another_kind_breaks_its_type_and_one_that_is_missing_is_missing(tmp_path):
    rows = [row | {"score": f"{place} percent"} for place, row in enumerate(log_rows())]
    assert both(tmp_path, rows, columns={"score": Rule(low=0), "age": Rule(), "city_*": Rule()}, closed=True).parts["score.type"].n == 38
    rows = [{"at": START.isoformat(), "score": None, "word": "a"}] * 3
    text = pa.string()
    verdict = both(tmp_path, rows, options={"time": {"column": "at"}}, types={"score": text}, columns={"score": Rule(low=0, nulls=1)}, closed=True)
    assert list(verdict.parts) == ["columns.new"], "all null is of no kind"


def test_future_rows_a_stale_log_and_an_empty_window_are_told_alike(tmp_path, form):
    later = [row | {"at": "2031-01-01T00:00:00Z"} if place < 2 else row for place, row in enumerate(log_rows())]
    assert set(both(tmp_path, later, form).parts) == {"time.future"}
    assert set(both(tmp_path, later, form, freshness=timedelta(seconds=1)).parts) == {"time.future", "freshness"}
    empty = Window(START - timedelta(hours=2), START - timedelta(hours=1))
    assert both(tmp_path, log_rows(), form, window=empty).status is Status.NODATA


def test_what_takes_rows_is_named_and_never_called_kept(tmp_path):
    table = OnlyCounts(opened(tmp_path, write(tmp_path, "parquet", log_rows())))
    rules = {"request_id": Rule(unique=True, pattern="id[0-9]+", longest=9), "score": Rule(low=0, high=1)}
    pairs = [Pair("score", at_most="prediction")]
    verdict = contract(table, WINDOW, NOW, columns=rules, pairs=pairs, unique=[["version", "score"]])
    assert (verdict.status, verdict.reading.observed) == (Status.NODATA, 0)
    assert verdict.reason == (
        "38 rows keep what can be counted of the contract; request_id.characters, request_id.pattern, request_id.unique, score.at_most.prediction, "
        "version+score.unique cannot be told by counts, and no more leaves this engine; leave out what takes rows, or watch an export of them"
    )
    assert json.loads(verdict.data["contract.json"])["not_judged"]
    verdict = contract(table, WINDOW, NOW, columns=rules | {"score": Rule(low=0, high=0.5)}, unique=[["nowhere"]])
    assert verdict.status is Status.FAIL, "what counts tell is told"
    assert "score is outside [0, 0.5] in 18 of 38 rows (lowest 0.025, highest 0.975); could not tell: request_id.characters" in verdict.reason
    assert set(verdict.parts) == {"nowhere.unique", "score.range"}


def test_no_row_is_named_where_none_leaves_and_the_evidence_says_so(tmp_path):
    table = OnlyCounts(opened(tmp_path, write(tmp_path, "parquet", log_rows())))
    told = json.loads(contract(table, WINDOW, NOW, columns={"score": Rule(high=0.5)}).data["contract.json"])
    assert told["broken"][0]["ids"] == []
    assert told["ids"] == "only counts leave the engine, so that no row can be named"


def test_a_table_that_declares_no_time_has_no_windows_here_either(tmp_path):
    table = OnlyCounts(opened(tmp_path, write(tmp_path, "parquet", log_rows()), {}))
    with pytest.raises(DataError, match="declares no time"):
        contract(table, WINDOW, NOW)
    assert contract(table, None, NOW).reason == "40 rows keep the contract of 0 columns"
