"""PostgreSQL as a table: a real server, what it holds that files do not, what it refuses, and what becomes of a look when it goes away."""

import math
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from agent import Ask, Locator
from agent.errors import ConfigError, DataError, DeadlineError, DeniedError, TrustError, UnreachableError
from agent.model import Auth
from agent.targets import connect
from agent.wire import deadline
from tests.cluster import _free_port
from tests.logs import START, column
from tests.test_push import asks, declared, same, tables, windows

KINDS = {
    "number": "double precision",
    "integer": "bigint",
    "word": "text",
    "flag": "boolean",
    "zoned": "timestamptz",
    "naive": "timestamp",
    "epoch": "double precision",
    "list": "double precision[]",
}


def opened(url, options=None, **more):
    return connect(Locator("fraud", "live", url, options or {}, **more))


def only(table, name, **asked):
    return table.tally([Ask(name, **asked)])[name]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables(), asks(), declared(), windows())
def test_any_tally_is_the_same_counted_there_and_here(postgres, columns, asked, options, window):
    url = postgres.load("random", KINDS, zip(*(values.to_pylist() for values in columns.values()), strict=True))
    table = opened(url, options)
    table = table.between(*window) if window else table
    with closing(table):
        same(table._pushed(asked), table._streamed(asked))
        assert table.rows() == table._streamed([Ask("number")])["number"].rows


def test_only_counts_travel(postgres):
    url = postgres.load("many", {"at": "timestamptz", "x": "double precision"}, ((START + timedelta(seconds=n), n / 7) for n in range(5000)))
    table = opened(url, {"time": {"column": "at"}}).between(START, START + timedelta(seconds=4000))
    travelled = []
    answers = table._source.ask
    table._source.ask = lambda statements: travelled.extend(answers(statements)) or travelled[-len(statements) :]
    table._source.scan = None
    found = table.tally([Ask("x", cuts=(10.0, 100.0)), Ask("at")])
    assert (table.rows(), found["x"].counts, found["at"].high) == (4000, (71, 630, 3299), START.timestamp() + 3999)
    assert sum(len(rows) for rows in travelled) == 2, "one row for the tally, one for the number of rows"


def test_what_postgres_calls_a_number_or_a_time_is_read_as_one(postgres):
    rows = [
        (f"{10**27}.0123456789", "NaN", "infinity", "2026-03-29", "-infinity", "0.1"),
        ("0.5", "Infinity", "2026-03-29 00:00:01+02", "infinity", "2026-03-29 01:00:00", "2"),
        (None, "1.5", "294270-01-01 00:00:00+00", None, "2026-03-29 02:00:00", None),
    ]
    shape = {"a": "numeric(38,10)", "b": "numeric", "c": "timestamptz", "d": "date", "e": "timestamp", "f": "real"}
    table = opened(postgres.load("odd", shape, rows))
    assert dict(table.kinds()) == {"a": "number", "b": "number", "c": "time", "d": "time", "e": "time", "f": "number"}
    assert (only(table, "a").nulls, only(table, "a").high) == (1, 1e27)
    assert (only(table, "b", cuts=(2.0,)).counts, only(table, "b").nulls, only(table, "b").high) == ((1, 1), 1, math.inf)
    assert (only(table, "c").nulls, only(table, "c").low) == (1, datetime(2026, 3, 28, 22, 0, 1, tzinfo=UTC).timestamp())
    assert (only(table, "d").nulls, only(table, "d").high) == (2, START.timestamp())
    assert (only(table, "e").nulls, only(table, "e").high) == (1, START.timestamp() + 7200)
    np.testing.assert_array_equal(column(table, "f"), np.array([0.1, 2, np.nan], np.float32).astype(float))
    same(table._pushed([Ask(name, cuts=(0.0, 1.5), top=2) for name in shape]), table._streamed([Ask(name, cuts=(0.0, 1.5), top=2) for name in shape]))
    assert [row["c"] for row in table.head(["c", "a"], 3, newest=False)] == [None, "2026-03-28T22:00:01+00:00", None]


def test_a_row_at_infinity_is_in_no_window(postgres):
    table = opened(postgres.load("log", {"at": "timestamptz"}, [("infinity",), ("-infinity",), (None,), (START,)]), {"time": {"column": "at"}})
    assert table.between(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)).rows() == 1
    assert table.rows() == 4


def test_a_sum_beyond_a_double_is_infinite_here_and_an_error_there_so_the_rows_travel(postgres):
    table = opened(postgres.load("far", {"x": "double precision"}, [(1e308,), (1e308,), (-5.0,)]))
    assert (only(table, "x", cuts=(0.0,)).total, only(table, "x", cuts=(0.0,)).counts) == (math.inf, (1, 2))
    with pytest.raises(DataError, match="out of range"):
        only(opened(postgres.load("further", {"x": "numeric"}, [("1e400",)])), "x")


@pytest.mark.parametrize("kind", ["jsonb", "json", "text", "double precision[]", "integer[]"])
def test_feature_lists_may_be_json_or_arrays(postgres, kind):
    lists = [[1, 2, 3], [4, 5], None, []]
    rows = [(each if each is None or "[" in kind else str(each),) for each in lists]
    table = opened(postgres.load("lists", {"inputs": kind}, rows), {"features": {"json": "inputs", "size": 3}})
    found = table.tally([Ask("p0", cuts=(1.0,)), Ask("p2"), Ask("inputs.length", keys=("3",))])
    assert (found["p0"].counts, found["p0"].nulls, found["p2"].total) == ((1, 1), 2, 3)
    assert found["inputs.length"].by_key == {"3": 1, None: 2}
    np.testing.assert_array_equal(column(table, "p1"), [2, 5, np.nan, np.nan])


def test_arrays_of_other_bounds_or_dimensions_are_lists_all_the_same(postgres):
    url = postgres.load("arrays", {"x": "double precision[]"}, [("[0:1]={7,8}",), ("{{1,2},{3,4}}",), ("{NaN,Infinity}",)])
    table = opened(url, {"features": {"json": "x", "size": 2}})
    asked = [Ask("p0", top=3), Ask("p1", top=3), Ask("x.length", top=3)]
    same(table._pushed(asked), table._streamed(asked))
    assert table.tally(asked)["p1"].by_key == {"8": 1, "inf": 1, None: 0}


def test_names_are_taken_as_they_are(postgres):
    postgres.do('CREATE SCHEMA IF NOT EXISTS "My Logs"', "CREATE SCHEMA IF NOT EXISTS other")
    nasty = {'Weird "Name"; DROP TABLE x; --': "bigint", "Größe%s": "text", "select": "boolean", "it's": "double precision"}
    url = postgres.load("My Logs.Pre-dictions", nasty, [(1, "ä%s", True, 0.5), (2, None, None, None)])
    table = opened(url.replace(" ", "%20"))
    assert list(table.kinds()) == list(nasty)
    for name, form in zip(nasty, ("integer", "text", "boolean", "number"), strict=True):
        assert table.kinds()[name] == form
        assert only(table, name, top=5).rows == 2
    assert only(table, "Größe%s", keys=("ä%s", "'; DROP TABLE x; --")).by_key == {"ä%s": 1, "'; DROP TABLE x; --": 0, None: 0}
    assert len(column(table, 'Weird "Name"; DROP TABLE x; --')) == 2


@pytest.mark.parametrize("evil", ["'; DROP TABLE prey; --", "\\'; DROP TABLE prey; --", "x' OR '1'='1", "a\0b", "\ud800", "%s", "$1"])
def test_a_value_of_the_configuration_stays_a_value(postgres, evil):
    url = postgres.load("prey", {"id": "text", "x": "bigint"}, [("a", 1), ("x", 2), ("%s", 3)])
    expected = 2 if evil == "%s" else 3
    for rule in ({"equals": evil}, {"prefix": evil}, {"in": [evil, "no"]}):
        assert opened(url, {"exclude": [{"column": "id", **rule}]}).rows() == expected
    assert only(opened(url), "id", keys=(evil,)).by_key[evil] == 3 - expected
    with pytest.raises(DataError, match="no column"):
        only(opened(url), f'id"{evil}')
    with pytest.raises(DataError, match="no table"):
        opened(postgres.url("prey%22;DROP%20TABLE%20prey")).rows()
    assert opened(url).rows() == 3


def test_the_table_is_named_with_its_schema_or_found_alone(postgres):
    postgres.do("CREATE SCHEMA IF NOT EXISTS logs", "CREATE DATABASE single")
    url = postgres.load("logs.predictions", {"x": "bigint"}, [(1,), (2,)])
    assert opened(url).rows() == 2
    with pytest.raises(DataError, match=r"no table 'logs\.prediction'; did you mean 'logs\.predictions'"):
        opened(postgres.url("logs.prediction")).rows()
    postgres.do("CREATE TABLE IF NOT EXISTS one (x int)", "CREATE TABLE IF NOT EXISTS two (x int)")
    with pytest.raises(DataError, match=r"more than one table, or none; add \?table="):
        opened(postgres.url()).rows()
    with pytest.raises(DataError, match="more than one table, or none"):
        opened(postgres.url().replace("/postgres", "/single")).rows()
    with pytest.raises(DataError, match='database "nowhere" does not exist'):
        opened(postgres.url().replace("/postgres", "/nowhere")).rows()


def test_views_and_partitions_are_tables(postgres):
    postgres.do(
        "DROP TABLE IF EXISTS whole CASCADE",
        "CREATE TABLE whole (at timestamptz, x int) PARTITION BY RANGE (at)",
        "CREATE TABLE march PARTITION OF whole FOR VALUES FROM ('2026-03-01') TO ('2026-04-01')",
        "CREATE TABLE april PARTITION OF whole DEFAULT",
        "INSERT INTO whole SELECT timestamptz '2026-03-31 23:59:00+00' + n * interval '10 seconds', n FROM generate_series(0, 11) n",
        "CREATE VIEW doubled AS SELECT at, x * 2 AS y FROM whole",
    )
    edge = datetime(2026, 3, 31, 23, 59, 30, tzinfo=UTC)
    for table, name, factor in ((opened(postgres.url("whole"), TIMED), "x", 1), (opened(postgres.url("doubled"), TIMED), "y", 2)):
        window = table.between(edge, edge + timedelta(minutes=1))
        assert (window.rows(), sorted(column(window, name))) == (6, [factor * place for place in range(3, 9)])
        assert only(window, name).total == factor * 33


TIMED = {"time": {"column": "at"}}


def test_columns_of_one_table_line_up_though_an_index_holds_one_of_them(postgres):
    rows = [(START + timedelta(seconds=(place * 7919) % 20_000), place, str(place)) for place in range(20_000)]
    url = postgres.load("indexed", {"at": "timestamptz", "x": "bigint", "id": "text"}, rows)
    postgres.do("CREATE INDEX ON indexed (at, x)", "VACUUM ANALYZE indexed")
    window = opened(url, TIMED).between(START, START + timedelta(seconds=100))
    assert [int(value) for value in column(window, "id")] == column(window, "x").tolist()
    with window._source._reading() as con:
        plan = "\n".join(line for (line,) in con.execute(f"EXPLAIN SELECT count(*) FROM indexed WHERE {window._where()[0]}"))
    assert "Index" in plan, "a window is found by the index"


def test_nothing_can_be_written_through_it(postgres):
    table = opened(postgres.load("kept", {"x": "bigint"}, [(1,)]))
    with pytest.raises(DataError, match="read-only transaction"):
        table._source.ask(["DELETE FROM kept"])
    assert opened(postgres.url("kept")).rows() == 1


def test_an_empty_table_and_one_all_null_have_no_lowest(postgres):
    for rows in ([], [(None, None)] * 3):
        table = opened(postgres.load("bare", {"x": "double precision", "word": "text"}, rows))
        found = table.tally([Ask("x", cuts=(0.0,), top=2), Ask("word", keys=("a",))])
        assert (found["x"].rows, found["x"].nulls, found["x"].low, found["x"].total) == (len(rows), len(rows), None, None)
        assert (found["x"].counts, found["x"].by_key, found["word"].by_key) == ((0, 0), {None: 0}, {"a": 0, None: 0})
        assert column(table, "word").tolist() == [None] * len(rows)


# Let in, or not


@pytest.fixture
def guarded(postgres):
    postgres.load("secret", {"x": "bigint"}, [(1,)])
    postgres.load("open", {"x": "bigint"}, [(1,), (2,)])
    postgres.do("DROP ROLE IF EXISTS looker", "CREATE ROLE looker LOGIN PASSWORD 'right'", "GRANT SELECT ON open TO looker")
    yield postgres
    postgres.do("DROP OWNED BY looker")


def basic(password, user="looker"):
    return Auth("basic", {"user": user, "password": password + "\n"})


def test_a_password_is_shown_and_a_wrong_one_is_denied(guarded):
    url = guarded.url("open").replace("keeper@", "")
    assert opened(url, look=basic("right")).rows() == 2
    for look in (basic("wrong"), basic("right", "nobody"), None):
        with pytest.raises(DeniedError) as caught:
            opened(url, look=look).rows()
        assert "wrong" not in str(caught.value).replace("is wrong", "")


def test_a_table_that_may_not_be_read_says_what_to_grant(guarded):
    table = opened(guarded.url("secret").replace("keeper@", ""), look=basic("right"))
    for read in (table.rows, lambda: column(table, "x")):
        with pytest.raises(DeniedError, match="permission denied for table secret; grant SELECT"):
            read()


@pytest.mark.parametrize(
    ("url", "more", "words"),
    [
        ("postgresql://me:secret@h/d?table=t", {}, "a password in the URL"),
        ("postgresql://h/d?tabel=t", {}, "no option tabel"),
        ("postgresql://h:x/d", {}, "Port could not be cast"),
        ("postgresql://h/d?sslmode=prefer", {}, "sslmode may only be disable"),
        ("postgresql://h/d", {"look": Auth("bearer", {"token": "t"})}, "kind basic or mtls"),
    ],
)
def test_what_could_never_connect_is_refused_before_anything_is_asked(url, more, words):
    with pytest.raises(ConfigError, match=words) as caught:
        opened(url, **more)
    assert "secret" not in str(caught.value)


def test_tls_is_verified_unless_it_is_switched_off_by_name(postgres, tmp_path):
    postgres.load("plain", {"x": "bigint"}, [(1,)])
    assert opened(postgres.url("plain")).rows() == 1, "this machine itself may be asked without"
    (tmp_path / "ca.pem").write_text("")
    for more in ({"verify": False}, {"ca": str(tmp_path / "ca.pem")}):
        with pytest.raises(TrustError):
            opened(postgres.url("plain"), **more).rows()
    assert opened(postgres.url("plain") + "&sslmode=disable", verify=False).rows() == 1


# Gone


def test_a_server_that_is_not_there_is_unreachable():
    with pytest.raises(UnreachableError, match="refused"):
        opened(f"postgresql://127.0.0.1:{_free_port()}/d?table=t").rows()


def test_a_look_that_takes_too_long_is_ended_by_the_server(postgres):
    postgres.do("CREATE OR REPLACE VIEW slow AS SELECT pg_sleep(60)::text AS x")
    began = time.monotonic()
    with deadline(timedelta(seconds=0.5)), pytest.raises(DeadlineError, match="not read in time"):
        only(opened(postgres.url("slow")), "x")
    assert time.monotonic() - began < 30


def test_a_connection_cut_in_the_middle_of_a_scan_is_an_error_not_fewer_rows(postgres):
    url = postgres.load("long", {"x": "bigint", "pad": "text"}, ((place, "x" * 200) for place in range(60_000)))
    table = opened(url)
    chunks = table.column("pad")
    next(chunks)
    postgres.do("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'watchkeeper'")
    with pytest.raises(UnreachableError, match=r"terminating connection|closed the connection|lost"):
        list(chunks)
    assert table.rows() == 60_000, "and the next look connects anew"


def test_a_kept_connection_that_was_cut_between_looks_is_made_anew(postgres):
    table = opened(postgres.load("kept", {"x": "bigint"}, [(1,)]))
    assert table.rows() == 1
    postgres.do("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'watchkeeper'")
    assert table.rows() == 1
    table.close()


def test_columns_may_be_read_while_others_are(postgres):
    table = opened(postgres.load("pairs", {"x": "bigint", "y": "bigint"}, ((place, -place) for place in range(40_000))))
    pairs = zip(table.column("x"), table.column("y"), strict=True)
    one, two = next(pairs)
    assert (one == -two).all() and table.rows() == 40_000
    assert all((one == -two).all() for one, two in pairs)
    assert table._source._readers == 0


def test_a_table_made_anew_between_two_looks_is_seen(postgres):
    table = opened(postgres.load("moving", {"at": "timestamptz", "x": "bigint"}, [(START, 1)]), TIMED)
    assert table.between(START, START + timedelta(hours=1)).kinds()["x"] == "integer"
    postgres.load("moving", {"at": "timestamptz", "x": "text"}, [(START, "one"), (START, "two")])
    window = table.between(START, START + timedelta(hours=1))
    assert (window.kinds()["x"], window.rows()) == ("text", 2)


def test_text_times_are_looked_for_around_the_window_and_cut_here(postgres):
    texts = [(START + timedelta(minutes=place)).isoformat() for place in range(3000)]
    table = opened(postgres.load("texts", {"at": "text", "x": "bigint"}, zip(texts, range(3000), strict=True)), TIMED)
    window = table.between(START + timedelta(hours=30), START + timedelta(hours=31))
    assert window.rows() == 60 and only(window, "x").low == 1800
    with window._source._reading() as con:
        ((near,),) = con.execute(f"SELECT count(*) FROM texts WHERE {window._where()[0]}").fetchall()
    assert 60 < near <= 28 * 60


def test_threads_of_their_own_may_read_at_once(postgres):
    url = postgres.load("shared", {"x": "bigint"}, ((place,) for place in range(30_000)))
    found = []
    threads = [threading.Thread(target=lambda: found.append(opened(url).rows())) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join(60) for thread in threads]
    assert found == [30_000] * 4
