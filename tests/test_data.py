"""data.contract and data.probe_leak against real files: what is broken is named, what is whole passes, what is empty is nodata."""

import json
import math
import sqlite3
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from agent import Locator, Reading, Status, Window
from agent.errors import DataError
from agent.perform import perform
from checks.data import Rule, contract, probe_leak
from tests.logs import LOG, START, log_rows, opened, write

WINDOW = Window(START, START + timedelta(seconds=40))
NOW = WINDOW.end + timedelta(seconds=1)
RULES = {
    "prediction": Rule(type="number", categories=("0", "1", "2")),
    "score": Rule(type="number", nulls=0.2, low=0, high=1),
    "version": Rule(categories=("1",)),
}


def judged(folder, rows, form="sqlite", options=None, window=WINDOW, now=NOW, types=None, **rules):
    table = opened(folder, write(folder, form, rows, types), LOG if options is None else options)
    return contract(table, window, now, **rules)


def changed(**columns):
    """The usual rows with some columns made by a function of the row's place."""
    return [row | {name: made(place) for name, made in columns.items()} for place, row in enumerate(log_rows())]


def test_whole_rows_keep_their_contract_in_every_format(tmp_path, form):
    verdict = judged(tmp_path, log_rows(), form, columns=RULES, features=Rule(low=0, high=40, nulls=0), freshness=timedelta(minutes=1), volume=30)
    assert verdict.status is Status.OK, verdict.reason
    assert verdict.reading == Reading(0, 0, n=38, unit="rules")
    assert verdict.reason == "38 rows keep the contract of 8 columns"


def test_a_range_fault_names_the_feature_the_share_and_the_extremes(tmp_path, form):
    rows = changed(inputs=lambda place: json.dumps([place, place / 2, 255.0 if place % 2 else -3]))
    verdict = judged(tmp_path, rows, form, features=Rule(low=0, high=40))
    assert verdict.status is Status.FAIL
    assert verdict.reason == "1 rule broken in 38 rows: p2 is outside [0, 40] in 38 of 38 rows (lowest -3, highest 255)"
    part = verdict.parts["p2.range"]
    assert (part.observed, part.limit, part.n) == (1.0, 0.0, 38)
    assert part.interval[0] > 0.9


def test_the_bounds_themselves_are_inside(tmp_path):
    assert judged(tmp_path, log_rows(), columns={"p0": Rule(low=0, high=39)}).good
    assert not judged(tmp_path, log_rows(), columns={"p0": Rule(low=0, high=38.999)}, form="csv").good


def test_the_worst_three_are_named_and_the_others_counted(tmp_path):
    rows = changed(
        inputs=lambda place: json.dumps([999, 999 if place else 0, 999 if place > 20 else 0]), score=lambda place: 2.0 if place == 39 else 0.5
    )
    verdict = judged(tmp_path, rows, columns=RULES | {"p[0-9]": Rule(high=40)})
    assert verdict.reason.startswith("4 rules broken in 38 rows: p0 is outside [-inf, 40] in 38 of 38 rows")
    assert verdict.reason.endswith("; and 1 more")
    assert list(verdict.parts) == ["p0.range", "p1.range", "p2.range", "score.range"]


def test_lists_of_another_length_are_seen_without_any_rule(tmp_path, form):
    rows = changed(inputs=lambda place: json.dumps([1.0] * (3 if place < 30 else 4)) if place != 39 else "gone")
    verdict = judged(tmp_path, rows, form)
    assert verdict.reason == "1 rule broken in 38 rows: inputs is no list of 3 in 10 of 38 rows"
    assert judged(tmp_path, changed(inputs=lambda _: "[1, 2]"), form, features=Rule(length=2)).good
    assert judged(tmp_path, changed(inputs=lambda _: "[1, 2]"), form, columns={"inputs": Rule(length=2, nulls=0)}).good


def test_nulls_beyond_their_share_break_the_contract(tmp_path, form):
    verdict = judged(tmp_path, log_rows(), form, columns={"score": Rule(nulls=0.1)})
    assert verdict.reason == "1 rule broken in 38 rows: score is null in 4 of 38 rows (limit 0.1)"
    assert judged(tmp_path, log_rows(), form, columns={"score": Rule(nulls=4 / 38)}).good


def test_words_among_features_count_as_nulls(tmp_path):
    verdict = judged(tmp_path, changed(inputs=lambda _: '[1, "2", null]'), features=Rule(nulls=0))
    assert set(verdict.parts) == {"p1.nulls", "p2.nulls"}


def test_an_unseen_category_breaks_the_contract(tmp_path, form):
    verdict = judged(tmp_path, changed(version=lambda place: "2" if place > 37 else "1"), form, columns=RULES)
    assert verdict.reason == "1 rule broken in 38 rows: version is none of its 1 categories in 2 of 38 rows"
    assert judged(
        tmp_path, changed(prediction=lambda place: 7 if place > 37 else 0), form, columns={"prediction": Rule(categories=("0",), unseen=0.1)}
    ).good


def test_categories_may_be_written_as_numbers_or_booleans(tmp_path):
    assert judged(tmp_path, log_rows(), columns={"prediction": Rule(categories=(0, 1, 2))}).good
    rows = changed(flag=lambda place: place % 2 == 0)
    assert judged(tmp_path, rows, "parquet", columns={"flag": Rule(categories=(True, False))}).good
    assert not judged(tmp_path, rows, "duckdb", columns={"flag": Rule(categories=(True,))}).good


def test_rules_from_a_configuration_reach_the_check_as_json(tmp_path, form):
    at = Locator("digits", "live", write(tmp_path, form, log_rows()), LOG, folder=str(tmp_path))
    window = [WINDOW.start.isoformat(), WINDOW.end.isoformat()]
    job = {
        "check": "data.contract",
        "locators": {"live": at},
        "parameters": {"columns": {"p2": {"low": 0, "high": 1}}},
        "window": window,
        "now": NOW.isoformat(),
    }
    verdict = perform(job)
    assert verdict.reason == "1 rule broken in 38 rows: p2 is outside [0, 1] in 38 of 38 rows (lowest 1.5, highest 1.5)"


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl", "duckdb"])
def test_a_column_that_turned_to_words_breaks_its_type_not_its_range(tmp_path, form):
    verdict = judged(tmp_path, changed(score=lambda place: f"{place} percent"), form, columns=RULES)
    assert verdict.reason == "1 rule broken in 38 rows: score holds text, not number"
    assert verdict.parts["score.type"] == Reading(None, n=38)


def test_one_word_in_a_window_of_a_sqlite_column_breaks_its_type(tmp_path):
    url = write(tmp_path, "sqlite", log_rows())
    with sqlite3.connect(tmp_path / "log.sqlite") as con:
        con.execute("UPDATE log SET score = 'high' WHERE request_id = 'id20'")
    verdict = contract(opened(tmp_path, url), WINDOW, NOW, columns=RULES)
    assert verdict.reason == "1 rule broken in 38 rows: score holds text, not number"


def test_a_missing_column_is_a_finding_not_an_error(tmp_path, form):
    rows = [{name: value for name, value in row.items() if name != "score"} for row in log_rows()]
    verdict = judged(tmp_path, rows, form, columns={"age": Rule(), "city": Rule(required=False), "income_*": Rule()})
    assert verdict.reason == "3 rules broken in 38 rows: column score is missing; column age is missing; no column matches income_*"
    assert verdict.parts["score"] == Reading(None)


def test_an_all_null_column_breaks_only_its_null_rule(tmp_path, form):
    verdict = judged(tmp_path, changed(score=lambda _: None), form, types={"score": pa.float64()}, columns=RULES)
    assert list(verdict.parts) == ["score.nulls"]


@pytest.mark.parametrize("form", ["parquet", "csv", "sqlite", "duckdb"])
def test_nan_is_null_and_infinity_is_out_of_range(tmp_path, form):
    odd = {0: math.nan, 1: math.inf, 2: -math.inf}
    verdict = judged(tmp_path, changed(score=lambda place: odd.get(place, 0.5)), form, columns={"score": Rule(nulls=0, low=0, high=1)})
    assert {name: part.observed for name, part in verdict.parts.items()} == {
        "score.range": 2 / 38,
        "score.nulls": pytest.approx(1 / 38) if form != "x" else 0,
    }


def test_future_times_are_counted_and_break_the_contract(tmp_path, form):
    later = ["9999-12-31T23:59:59+00:00", "2031-01-01T00:00:00Z"]
    rows = changed(at=lambda place: later[place] if place < 2 else (START + timedelta(seconds=place)).isoformat())
    verdict = judged(tmp_path, rows, form)
    assert verdict.status is Status.FAIL
    assert verdict.parts == {"time.future": Reading(2, 0, n=2, unit="rows")}
    assert "2 rows have an event time more than 1m in the future" in verdict.reason


def test_a_stale_log_breaks_its_freshness_even_with_rows_in_the_window(tmp_path):
    verdict = judged(tmp_path, log_rows(), now=NOW + timedelta(minutes=10), freshness=timedelta(minutes=5))
    assert verdict.status is Status.FAIL
    assert verdict.reason == "1 rule broken in 38 rows: the newest event is 10m2s old (limit 5m)"
    verdict = judged(tmp_path / "..", log_rows(), "csv", now=NOW + timedelta(seconds=10), freshness=timedelta(seconds=5))
    assert "the newest event is 12s old (limit 5s)" in verdict.reason


def test_an_empty_window_is_nodata_unless_rows_were_promised(tmp_path, form):
    empty = Window(START - timedelta(hours=2), START - timedelta(hours=1))
    verdict = judged(tmp_path, log_rows(), form, window=empty, columns=RULES)
    assert verdict.status is Status.NODATA
    assert verdict.reading == Reading(0, 1)
    verdict = judged(tmp_path, log_rows(), form, window=empty, columns=RULES, volume=10)
    assert (verdict.status, verdict.reason) == (Status.FAIL, "1 rule broken in 0 rows: 0 rows came, at least 10 should")


def test_too_few_rows_to_judge_are_nodata(tmp_path):
    assert judged(tmp_path, log_rows(), columns={"score": Rule(nulls=0)}, rows_at_least=50).status is Status.NODATA


def test_an_exact_name_goes_before_a_pattern_and_a_dict_is_a_rule(tmp_path):
    assert judged(tmp_path, log_rows(), columns={"p[0-9]": {"high": 1.5}, "p0": {"high": 40}, "p1": {"high": 20}}).good


def test_infinite_and_huge_values_in_lists_do_not_stop_the_check(tmp_path):
    verdict = judged(tmp_path, changed(inputs=lambda _: "[1" + "0" * 400 + ", -1e999, NaN]"), features=Rule(low=0, high=16, nulls=0))
    assert set(verdict.parts) == {"p0.range", "p1.range", "p2.nulls"}


def test_what_cannot_be_read_is_an_error_not_a_finding(tmp_path):
    path = tmp_path / "log.parquet"
    write(tmp_path, "parquet", log_rows())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="cannot be read"):
        contract(opened(tmp_path, "parquet:log.parquet"), WINDOW, NOW)
    with pytest.raises(DataError, match="declares no time"):
        contract(opened(tmp_path, write(tmp_path, "csv", log_rows()), {}), WINDOW, NOW)


def test_a_broken_hour_in_summer_time_is_judged_once(tmp_path):
    walls = [datetime(2026, 10, 25, 2, minute).isoformat() for minute in range(60)]
    rows = [{"at": wall, "x": 1.0} for wall in walls]
    options = {"time": {"column": "at", "tz": "Europe/Berlin"}}
    table = opened(tmp_path, write(tmp_path, "sqlite", rows), options)
    hours = [
        Window(datetime(2026, 10, 24, 22, tzinfo=UTC) + timedelta(hours=h), datetime(2026, 10, 24, 23, tzinfo=UTC) + timedelta(hours=h))
        for h in range(6)
    ]
    assert sum(contract(table, window, window.end).reading.n or 0 for window in hours) == 60


# probe_leak


def test_probes_that_are_excluded_are_not_a_leak(tmp_path, form):
    verdict = probe_leak(opened(tmp_path, write(tmp_path, form, log_rows())), WINDOW)
    assert verdict.status is Status.OK
    assert verdict.parts == {"request_id": Reading(0, 0, n=38, unit="rows"), "probe": Reading(0, 0, n=38, unit="rows")}


def test_a_leak_tells_the_lines_that_stop_it(tmp_path, form):
    options = {name: value for name, value in LOG.items() if name != "exclude"}
    verdict = probe_leak(opened(tmp_path, write(tmp_path, form, log_rows()), options), WINDOW)
    assert verdict.status is Status.FAIL
    assert verdict.reason == ('1 probe among 40 rows; add to live: exclude: [{column: request_id, prefix: "wk-probe-"}, {column: probe, equals: 1}]')
    assert verdict.parts["request_id"].observed == verdict.parts["probe"].observed == 1


def test_a_log_that_cannot_tell_probes_is_skipped_and_an_empty_one_is_nodata(tmp_path):
    rows = [{"at": START.isoformat(), "x": 1.0}]
    assert probe_leak(opened(tmp_path, write(tmp_path, "csv", rows), {"time": {"column": "at"}}), WINDOW).status is Status.SKIP
    late = Window(WINDOW.end, WINDOW.end + timedelta(hours=1))
    assert probe_leak(opened(tmp_path, write(tmp_path, "sqlite", log_rows())), late).status is Status.NODATA
