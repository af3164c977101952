"""One contract for every table: the same rows written in any format give the same answers, and what cannot be read says so."""

import math
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import Ask
from agent.errors import DataError
from agent.targets._unfold import Kept
from tests.logs import FILES, LOG, START, column, log_rows, opened, write


def test_excluded_rows_are_in_no_read(tmp_path, form):
    table = opened(tmp_path, write(tmp_path, form, log_rows()))
    assert table.rows() == 38
    assert len(column(table, "score")) == 38
    assert not {"id5", "wk-probe-7"} & set(column(table, "request_id"))
    assert table.tally([Ask("score")])["score"].rows == 38
    assert {row["request_id"] for row in table.head(["request_id"], 100)}.isdisjoint({"id5", "wk-probe-7"})


def test_a_window_is_half_open_to_the_microsecond(tmp_path, form):
    table = opened(tmp_path, write(tmp_path, form, log_rows()))
    window = table.between(START + timedelta(seconds=10), START + timedelta(seconds=20))
    assert window.rows() == 10
    assert window.between(START, START + timedelta(seconds=12)).rows() == 2
    assert table.between(START + timedelta(seconds=10, microseconds=1), START + timedelta(seconds=20, microseconds=1)).rows() == 10
    assert column(window, "at").tolist() == [START.timestamp() + second for second in range(10, 20)]


def test_json_features_are_columns_of_their_own(tmp_path, form):
    table = opened(tmp_path, write(tmp_path, form, log_rows())).between(START, START + timedelta(seconds=4))
    kinds = table.kinds()
    assert [kinds[name] for name in ("p0", "p1", "p2", "inputs.length", "at")] == ["number", "number", "number", "integer", "time"]
    assert column(table, "p0").tolist() == [0, 1, 2, 3]
    assert column(table, "p1").tolist() == [0, 0.5, 1, 1.5]
    assert column(table, "p0").tolist() == [0, 1, 2, 3], "and again, from what was kept"
    assert column(table, "inputs.length").tolist() == [3, 3, 3, 3]


def test_json_of_another_length_or_with_words_is_seen(tmp_path, form):
    rows = log_rows(6)
    for row, text in zip(rows, ["[1, 2]", '[1, "x", true]', "not json", '{"p0": 4}', "[NaN, 1e999, null, 9]", "[1, 2, 3]"], strict=True):
        row["inputs"] = text
    table = opened(tmp_path, write(tmp_path, form, rows), LOG | {"exclude": []})
    np.testing.assert_array_equal(column(table, "inputs.length"), [2, 3, np.nan, 1, 4, 3])
    np.testing.assert_array_equal(column(table, "p0"), [1, 1, np.nan, 4, np.nan, 1])
    np.testing.assert_array_equal(column(table, "p1"), [2, np.nan, np.nan, np.nan, np.inf, 2])
    np.testing.assert_array_equal(column(table, "p2"), [np.nan, np.nan, np.nan, np.nan, np.nan, 3])


@given(st.lists(st.integers(1, 5), max_size=6), st.integers(0, 40))
def test_parsed_features_beyond_the_room_come_back_from_the_file(sizes, room):
    chunks = [np.random.default_rng(place).normal(size=(size, 3)) for place, size in enumerate(sizes)]
    kept = Kept(iter(chunks), room)
    for place in (2, 0, 1):
        assert [values.tolist() for values in kept.column(place)] == [chunk[:, place].tolist() for chunk in chunks]


def test_a_tally_is_the_same_from_every_engine(tmp_path, form):
    table = opened(tmp_path, write(tmp_path, form, log_rows()))
    asks = [Ask("score", cuts=(0.25, 0.5)), Ask("prediction", keys=("0", "1")), Ask("p1", cuts=(2.0,)), Ask("at"), Ask("version", top=1)]
    found = table.tally(asks)
    score = found["score"]
    assert (score.rows, score.nulls, score.low, score.high, score.counts) == (38, 4, 0.025, 0.975, (7, 9, 18))
    assert score.total == pytest.approx(sum(place / 40 for place in range(40) if place % 10 and place not in (5, 7)))
    assert found["prediction"].by_key == {"0": 14, "1": 12, None: 12}
    assert found["p1"].counts == (5, 33)
    assert (found["at"].low, found["at"].high) == (START.timestamp(), START.timestamp() + 39)
    assert found["version"].by_key == {"1": 38, None: 0}


@pytest.mark.parametrize("top", [1, 3, 100])
@pytest.mark.parametrize("column", ["word", "flag"])
def test_the_most_frequent_values_are_the_same_from_every_engine(tmp_path, form, column, top):
    words = ["b", "é", "a", "'", None, "Z", "\U0001f680", "a", "é", None, "10", "9"]
    rows = [{"at": START.isoformat(), "probe": 0, "word": word, "flag": place % 3 == 0} for place, word in enumerate(words)]
    table = opened(tmp_path, write(tmp_path, form, [*rows, {**rows[0], "probe": 1}]), {"exclude": [{"column": "probe", "equals": 1}]})
    found = table.tally([Ask(column, top=top)])[column]
    both = table.tally([Ask(column, top=top), Ask("probe")])[column]  # counted row by row
    assert (found.rows, found.nulls, dict(found.by_key)) == (both.rows, both.nulls, dict(both.by_key))
    if column == "word":
        assert (found.nulls, next(iter(found.by_key)), found.by_key["a"]) == (2, "a", 2)


def test_a_tally_of_an_empty_window_counts_nothing(tmp_path, form):
    table = opened(tmp_path, write(tmp_path, form, log_rows())).between(START - timedelta(days=9), START - timedelta(days=8))
    assert table.rows() == 0
    assert table.tally([Ask("score", cuts=(1.0,))])["score"].rows == 0
    assert column(table, "p0").tolist() == []
    assert table.head(["score"], 5) == []


def test_head_gives_the_newest_rows_whole(tmp_path, form):
    table = opened(tmp_path, write(tmp_path, form, log_rows()))
    newest = table.head(["request_id", "prediction", "score", "p1", "inputs", "inputs.length"], 2)
    assert [row["request_id"] for row in newest] == ["id39", "id38"]
    assert newest[0] == {"request_id": "id39", "prediction": 0, "score": 0.975, "p1": 19.5, "inputs": "[39, 19.5, 1.5]", "inputs.length": 3}
    assert table.head(["request_id"], 1, newest=False) == [{"request_id": "id0"}]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 20_000_000), min_size=1, max_size=30), st.lists(st.integers(0, 20_000_000), max_size=6), st.data())
def test_windows_side_by_side_hold_every_row_once(tmp_path_factory, times, cuts, data):
    folder = tmp_path_factory.mktemp("windows")
    zone = timezone(timedelta(minutes=data.draw(st.sampled_from([0, 0, 330, -600, 840]))))
    rows = [{"at": (START + timedelta(microseconds=at)).astimezone(zone).isoformat(), "x": float(at)} for at in times]
    edges = [START, *(START + timedelta(microseconds=cut) for cut in sorted(cuts)), START + timedelta(seconds=21)]
    for form in ("sqlite", "parquet"):
        table = opened(folder, write(folder, form, rows), {"time": {"column": "at", "tz": "UTC"}})
        windows = [column(table.between(one, two), "x").tolist() for one, two in pairwise(edges)]
        assert sorted(value for window in windows for value in window) == sorted(map(float, times))


def test_columns_of_one_table_line_up(tmp_path, form):
    table = opened(tmp_path, write(tmp_path, form, log_rows(4000)))
    assert (column(table, "p0") / 4000)[-9:].tolist() == column(table, "score")[-9:].tolist()
    assert [f"id{int(place)}" for place in column(table, "p0")] == column(table, "request_id").tolist()


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_may_be_epochs(tmp_path, form, unit):
    scale = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}[unit]
    rows = [{"at": int((START + timedelta(seconds=place)).timestamp() * scale), "x": float(place)} for place in range(10)]
    table = opened(tmp_path, write(tmp_path, form, rows), {"time": {"column": "at", "unit": unit}})
    window = table.between(START + timedelta(seconds=3), START + timedelta(seconds=5))
    assert column(window, "x").tolist() == [3.0, 4.0]
    assert table.kinds()["at"] == "time"


def test_times_with_offsets_and_without_are_read_in_their_zone(tmp_path, form):
    berlin = timezone(timedelta(hours=2))
    texts = [
        "2026-03-29T12:00:00Z",
        "2026-03-29 12:00:01+00:00",
        datetime(2026, 3, 29, 14, 0, 2, tzinfo=berlin).isoformat(),
        "2026-03-29T14:00:03",  # Berlin, by declaration
        "2026-03-29T02:00:04-10:00",
        "2026-03-30T02:00:05+14:00",
        "2026-03-29T12:01:00Z",
    ]
    rows = [{"at": text, "x": float(place)} for place, text in enumerate(texts)]
    table = opened(tmp_path, write(tmp_path, form, rows), {"time": {"column": "at", "tz": "Europe/Berlin"}})
    noon = datetime(2026, 3, 29, 12, tzinfo=UTC)
    assert column(table.between(noon, noon + timedelta(seconds=6)), "x").tolist() == [0, 1, 2, 3, 4, 5]
    assert column(table.between(noon + timedelta(seconds=3), noon + timedelta(seconds=5)), "x").tolist() == [3, 4]


@pytest.mark.parametrize("form", ["parquet", "duckdb", "delta", "postgresql"])
@pytest.mark.parametrize(("kind", "tz", "hours"), [("zoned", None, 0), ("naive", "UTC", 0), ("naive", "Europe/Berlin", 2)])
def test_native_times_are_instants_or_wall_clocks(tmp_path, form, kind, tz, hours):
    noon = datetime(2026, 3, 29, 12, tzinfo=UTC)
    walls = [noon + timedelta(hours=hours, seconds=place) for place in range(10)]
    rows = [{"at": wall if kind == "zoned" else wall.replace(tzinfo=None), "x": float(place)} for place, wall in enumerate(walls)]
    table = opened(tmp_path, write(tmp_path, form, rows), {"time": {"column": "at"} | ({"tz": tz} if tz else {})})
    window = table.between(noon + timedelta(seconds=2), noon + timedelta(seconds=4))
    assert column(window, "x").tolist() == [2.0, 3.0]
    assert [row["x"] for row in window.head(["x", "at"], 1)] == [3.0]


def test_future_and_unreadable_times_do_not_stop_a_read(tmp_path, form):
    texts = ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "yesterday", "2026-03-29T00:00:00Z", "2026-03-29T00:00:00.123456789Z", None]
    rows = [{"at": text, "x": float(place)} for place, text in enumerate(texts)]
    table = opened(tmp_path, write(tmp_path, form, rows), {"time": {"column": "at"}})
    assert column(table.between(START, START + timedelta(seconds=1)), "x").tolist() == [3.0, 4.0]
    assert column(table.between(START + timedelta(days=1), datetime.max.replace(tzinfo=UTC)), "x").tolist() in ([], [0.0])
    assert table.rows() == 6
    assert table.tally([Ask("at")])["at"].nulls == 2


def test_future_epochs_of_any_size_do_not_stop_a_read(tmp_path, form):
    rows = [{"at": at, "x": float(place)} for place, at in enumerate([1e300, -1e300, START.timestamp(), 9e15])]
    table = opened(tmp_path, write(tmp_path, form, rows), {"time": {"column": "at", "unit": "s"}})
    assert column(table.between(START, START + timedelta(seconds=1)), "x").tolist() == [2.0]
    assert table.rows() == 4


def test_a_time_column_of_the_wrong_kind_says_what_to_declare(tmp_path, form):
    table = opened(tmp_path, write(tmp_path, form, [{"at": 17, "x": 1.0}]), {"time": {"column": "at"}})
    with pytest.raises(DataError, match=r"'at' holds .*time\.unit"):
        column(table, "at")


def test_a_naive_time_without_a_zone_is_refused(tmp_path, form):
    table = opened(tmp_path, write(tmp_path, form, [{"at": "2026-03-29T00:00:00", "x": 1.0}]), {"time": {"column": "at"}})
    with pytest.raises(DataError, match=r"no offset.*time\.tz"):
        table.between(START, START + timedelta(days=1)).rows()


def test_a_table_without_a_declared_time_has_no_windows(tmp_path, form):
    table = opened(tmp_path, write(tmp_path, form, [{"x": 1.0}]), {})
    assert table.rows() == 1
    with pytest.raises(DataError, match="declares no time"):
        table.between(START, START)


def test_a_missing_column_is_named_with_the_nearest(tmp_path, form):
    url = write(tmp_path, form, log_rows())
    with pytest.raises(DataError, match="no column 'scor'; did you mean 'score'"):
        column(opened(tmp_path, url), "scor")
    with pytest.raises(DataError, match=r"no column 'prob' \(exclude declares it\); did you mean 'probe'"):
        opened(tmp_path, url, LOG | {"exclude": [{"column": "prob", "equals": 1}]}).rows()
    with pytest.raises(DataError, match=r"no column 'att' \(time declares it\)"):
        opened(tmp_path, url, {"time": {"column": "att"}}).kinds()


@pytest.mark.parametrize("form", FILES)
def test_a_missing_file_says_where_it_was_looked_for(tmp_path, form):
    with pytest.raises(DataError, match=r"nowhere"):
        opened(tmp_path, f"{form}:nowhere.{form}").rows()


@pytest.mark.parametrize("form", FILES)
def test_an_empty_file_is_not_an_empty_table(tmp_path, form):
    (tmp_path / f"log.{form}").write_bytes(b"")
    with pytest.raises(DataError, match=r"empty|cannot be read"):
        opened(tmp_path, f"{form}:log.{form}").rows()


@pytest.mark.parametrize("form", ["parquet", "sqlite", "duckdb"])
def test_a_truncated_or_foreign_file_is_an_error_not_fewer_rows(tmp_path, form):
    write(tmp_path, form, log_rows(20_000))
    path = tmp_path / f"log.{form}"
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], b"this is no table at all" * 500):
        path.write_bytes(broken)
        with pytest.raises(DataError, match="cannot be read"):
            column(opened(tmp_path, f"{form}:log.{form}"), "score")


def test_all_null_columns_are_read_as_null(tmp_path, form):
    rows = [{"x": None, "y": 1.0}, {"x": None, "y": 2.0}]
    url = write(tmp_path, form, rows, {"x": pa.float64()})
    values = column(opened(tmp_path, url, {}), "x")
    assert all(value is None or math.isnan(value) for value in values) and len(values) == 2
    assert opened(tmp_path, url, {}).tally([Ask("x")])["x"].nulls == 2


@pytest.mark.parametrize("form", ["parquet", "csv", "sqlite", "duckdb", "delta", "postgresql"])
def test_nan_counts_as_null_and_infinity_as_a_value(tmp_path, form):
    rows = [{"x": value} for value in (1.0, math.nan, math.inf, -math.inf, None)]
    tally = opened(tmp_path, write(tmp_path, form, rows), {}).tally([Ask("x", cuts=(0.0,))])["x"]
    assert (tally.rows, tally.nulls, tally.low, tally.high, tally.counts) == (5, 2, -math.inf, math.inf, (1, 2))


def test_huge_integers_are_read(tmp_path, form):
    table = opened(tmp_path, write(tmp_path, form, [{"x": 2**62 + 1}, {"x": 1}]), {})
    assert column(table, "x").tolist() == [float(2**62), 1.0]
    assert table.head(["x"], 1, newest=False) == [{"x": 2**62 + 1}]


@pytest.mark.parametrize("form", ["parquet", "csv", "duckdb", "sqlite", "delta", "postgresql"])
def test_booleans_are_booleans_and_excluded_like_ones(tmp_path, form):
    rows = [{"x": bool(place % 2), "y": float(place)} for place in range(6)]
    url = write(tmp_path, form, rows)
    assert column(opened(tmp_path, url, {}), "x").tolist() == [False, True] * 3
    assert opened(tmp_path, url, {"exclude": [{"column": "x", "equals": 1}]}).rows() == 3
    assert opened(tmp_path, url, {}).tally([Ask("x", keys=("true", "false"))])["x"].by_key == {"true": 3, "false": 3, None: 0}


def test_an_exclude_that_can_match_nothing_is_refused(tmp_path, form):
    url = write(tmp_path, form, log_rows())
    with pytest.raises(DataError, match="can match nothing"):
        opened(tmp_path, url, {"exclude": [{"column": "probe", "equals": "yes"}]}).rows()
    assert opened(tmp_path, url, {"exclude": [{"column": "request_id", "in": ["id1", "id2"]}]}).rows() == 38


# Particular to one format


def test_a_glob_reads_all_its_files_in_the_order_of_their_names(tmp_path):
    for name, first in (("b", 100), ("a", 0)):
        pa.parquet.write_table(pa.table({"x": [first, first + 1]}), tmp_path / f"{name}.parquet")
    assert column(opened(tmp_path, "parquet:*.parquet", {}), "x").tolist() == [0, 1, 100, 101]
    (tmp_path / "c.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"c\.parquet is empty"):
        opened(tmp_path, "parquet:*.parquet", {}).rows()


def test_a_window_asked_for_later_sees_files_written_since(tmp_path):
    table = opened(tmp_path, write(tmp_path, "parquet", log_rows()).replace("log", "*"), {"time": {"column": "at"}})
    assert table.between(START, START + timedelta(hours=1)).rows() == 40
    (tmp_path / "log.parquet").rename(tmp_path / "first.parquet")
    write(tmp_path, "parquet", log_rows())
    assert table.between(START, START + timedelta(hours=1)).rows() == 80


def test_list_columns_of_parquet_are_features_too(tmp_path):
    pyarrow.parquet.write_table(pa.table({"inputs": [[1.0, 2.0, 3.0], [4.0, None, 6.0], None]}), tmp_path / "x.parquet")
    table = opened(tmp_path, "parquet:x.parquet", {"features": {"json": "inputs", "names": ["a", "b", "c"]}})
    np.testing.assert_array_equal(column(table, "b"), [2, np.nan, np.nan])
    np.testing.assert_array_equal(column(table, "inputs.length"), [3, 3, np.nan])


def test_csv_names_that_look_like_numbers_stay_text(tmp_path):
    (tmp_path / "x.csv").write_text("id,version,x\n007,1,0.5\n008,2,1\n")
    table = opened(tmp_path, "csv:x.csv", {"id": "id", "version": "version"})
    assert table.head(["id", "version", "x"], 1, newest=False) == [{"id": "007", "version": "1", "x": 0.5}]


def test_a_csv_column_with_one_word_among_numbers_is_text(tmp_path):
    (tmp_path / "x.csv").write_text("x\n" + "1\n" * 60_000 + "oops\n")
    assert opened(tmp_path, "csv:x.csv", {}).kinds()["x"] == "text"


def test_a_sqlite_column_that_turned_to_words_is_text_in_that_window(tmp_path):
    rows = [{"at": START.timestamp() + place, "x": float(place)} for place in range(4)]
    url = write(tmp_path, "sqlite", rows)
    with sqlite3.connect(tmp_path / "log.sqlite") as con:
        con.execute("INSERT INTO log VALUES (?, ?)", [START.timestamp() + 60, "high"])
    table = opened(tmp_path, url, {"time": {"column": "at", "unit": "s"}})
    assert table.between(START, START + timedelta(seconds=60)).kinds()["x"] == "number"
    assert table.between(START + timedelta(seconds=60), START + timedelta(seconds=61)).kinds()["x"] == "text"


def test_a_live_sqlite_log_is_read_while_its_writer_holds_it(tmp_path):
    url = write(tmp_path, "sqlite", log_rows())
    writer = sqlite3.connect(tmp_path / "log.sqlite", isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("INSERT INTO log (request_id) VALUES ('half written')")
    table = opened(tmp_path, url)
    assert table.rows() == 38
    writer.execute("COMMIT")
    assert table.rows() == 39
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        table._source._connection().execute("DELETE FROM log")
    table.close()
    writer.close()


def test_a_sqlite_file_with_several_tables_asks_which(tmp_path):
    with sqlite3.connect(tmp_path / "x.db") as con:
        con.executescript("CREATE TABLE predictions (x); CREATE TABLE labels (y); INSERT INTO predictions VALUES (1)")
    with pytest.raises(DataError, match=r"add \?table="):
        opened(tmp_path, "sqlite:x.db", {}).rows()
    with pytest.raises(DataError, match="no table 'prediction'; did you mean 'predictions'"):
        opened(tmp_path, "sqlite:x.db?table=prediction", {}).rows()
    assert opened(tmp_path, "sqlite:x.db?table=predictions", {}).rows() == 1


def test_a_sqlite_view_and_a_path_with_spaces_are_read(tmp_path):
    folder = tmp_path / "my logs?#"
    folder.mkdir()
    with sqlite3.connect(folder / "x.db") as con:
        con.executescript("CREATE TABLE t (x REAL); INSERT INTO t VALUES (1), (2); CREATE VIEW v AS SELECT x * 2 AS y FROM t")
    table = opened(folder, "sqlite:x.db?table=v", {})
    assert column(table, "y").tolist() == [2.0, 4.0]


def test_a_csv_of_another_encoding_is_an_error_that_quotes_no_row(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"name,x\nsecret caf\xe9,1\n")
    with pytest.raises(DataError, match=r"unicode|utf-8|encod") as problem:
        opened(tmp_path, "csv:x.csv", {}).rows()
    assert "secret" not in str(problem.value)


def test_a_time_zone_that_is_none_is_named(tmp_path, form):
    options = {"time": {"column": "at", "tz": "Europe/Bonn"}}
    table = opened(tmp_path, write(tmp_path, form, [{"at": "2026-03-29T12:00:00", "x": 1.0}]), options)
    with pytest.raises(DataError, match="no time zone 'Europe/Bonn'"):
        table.between(START, START + timedelta(days=1)).rows()


def test_a_duckdb_file_held_by_its_writer_says_so_and_is_read_afterwards(tmp_path):
    url = write(tmp_path, "duckdb", log_rows())
    hold = "import sys, duckdb; con = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    writer = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path / "log.duckdb")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert writer.stdout.readline() == b"held\n"
        table = opened(tmp_path, url)
        with pytest.raises(DataError, match=r"cannot be read: .*lock"):
            table.rows()
    finally:
        writer.communicate(timeout=30)
    assert table.rows() == 38


def test_a_log_of_mixed_offsets_is_still_found_in_its_window(tmp_path):
    """The index serves plain UTC text; one text with another offset makes the window look around instead of missing it."""
    rows = [{"at": (START + timedelta(seconds=place)).isoformat(), "x": float(place)} for place in range(100)]
    rows[50]["at"] = (START + timedelta(seconds=50)).astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat()
    table = opened(tmp_path, write(tmp_path, "sqlite", rows), {"time": {"column": "at", "tz": "UTC"}})
    assert column(table.between(START + timedelta(seconds=49), START + timedelta(seconds=52)), "x").tolist() == [49, 50, 51]


@pytest.mark.parametrize("cuts", [1, 9, 64, 65, 300])
def test_values_are_counted_between_cuts_alike_however_many_there_are(cuts):
    from agent.targets._tally import count

    random = np.random.default_rng(cuts)
    values = np.concatenate([random.integers(-9, 9, 500).astype(float), random.normal(size=500), [np.nan, np.inf, -np.inf]])
    asked = tuple(sorted({*random.integers(-9, 9, cuts).astype(float), *random.normal(size=cuts)})[:cuts])
    found = count(Ask("x", asked), values)
    known = values[~np.isnan(values)]
    below = [int((known <= cut).sum()) for cut in asked]
    assert found.counts == tuple(np.diff([0, *below, len(known)]).tolist()) and (found.rows, found.nulls) == (1003, 1)
