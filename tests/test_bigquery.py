"""BigQuery's REST API and its SQL, against a speaker of it on this machine: the real service has not been tried."""

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import Ask, Locator
from agent.config import load
from agent.errors import AnswerError, CannotError, ConfigError, DataError, DeadlineError, DeniedError, ServerError, UnreachableError
from agent.model import Auth
from agent.targets import connect
from agent.targets._dialect import BIGQUERY
from agent.targets.files import Files
from agent.wire import deadline
from tests.logs import START
from tests.servers.bigquery import QUOTED, Speaker, refusal
from tests.test_push import same
from tests.test_spark import ASKS, CONFIG, FEATURES, random_rows


@pytest.fixture
def speaker():
    started = []

    def start(rows=None, **more):
        started.append(Speaker(pa.table({"x": [1.0, 2.0, None], "w": ["a", "b", "a"]}) if rows is None else rows, **more))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def opened(speaker, options=None, query="", **more):
    return connect(Locator("fraud", "live", speaker.url + query, options or {}, **more))


def answering(speaker, **pages):
    """A speaker whose next answers to a statement, or to what follows one, have these fields instead."""
    honest = speaker._page
    speaker._page = lambda job, first: {name: value for name, value in (honest(job, first) | pages).items() if value != "gone"}
    return speaker


def as_stored(rows):
    """A repeated column has no null: what was one is an empty list."""
    lists = pa.array([value or [] for value in rows["list"].to_pylist()], pa.list_(pa.float64()))
    return rows.set_column(rows.column_names.index("list"), "list", lists)


@pytest.mark.parametrize(
    ("seed", "time", "exclude"),
    [
        (1, {"column": "zoned"}, [{"column": "word", "prefix": "a"}]),
        (2, {"column": "naive", "tz": "Europe/Berlin"}, [{"column": "number", "equals": 7}, {"column": "fl`ag", "equals": 1}]),
        (3, {"column": "ms", "unit": "ms"}, [{"column": "word", "in": ["\\'; DROP", "7"]}]),
        (4, {"column": "epoch", "unit": "s"}, [{"column": "word", "prefix": "\\"}]),
    ],
)
def test_its_counts_are_those_made_here(speaker, tmp_path, seed, time, exclude):
    rows, options = as_stored(random_rows(seed)), FEATURES | {"time": time, "exclude": exclude}
    pyarrow.parquet.write_table(rows, tmp_path / "log.parquet")
    asks = [ask for ask in [*ASKS, Ask("ms", (START.timestamp(),)), Ask("epoch", top=2)] if ask.column != "naive" or time["column"] != "naive"]
    span = (datetime(2026, 3, 28, 23, 10, tzinfo=UTC), datetime(2026, 3, 29, 5, 0, 0, 1, tzinfo=UTC))
    there, here = opened(speaker(rows), options), Files(Locator("fraud", "live", "parquet:log.parquet", options, folder=str(tmp_path)))
    assert there.kinds() == here.kinds()
    for one, two in ((there, here), (there.between(*span), here.between(*span))):
        assert one.rows() == two.rows() > 0
        same(one.tally(asks), two._streamed(asks))


def test_an_epoch_between_two_microseconds_is_read_as_the_even_one(speaker, tmp_path):
    halves = [1770000000.5 + step * 2.0**-22 for step in range(-40, 40)]  # as fine as a double is in our years: halves of microseconds among them
    rows, options = pa.table({"at": halves}), {"time": {"column": "at", "unit": "s"}}
    pyarrow.parquet.write_table(rows, tmp_path / "log.parquet")
    there, here = opened(speaker(rows), options), Files(Locator("fraud", "live", "parquet:log.parquet", options, folder=str(tmp_path)))
    same(there.tally([Ask("at", tuple(halves[::7]), top=50)]), here._streamed([Ask("at", tuple(halves[::7]), top=50)]))


def test_a_column_of_nothing_has_no_lowest_and_an_empty_table_no_rows(speaker):
    for rows in (0, 2):
        table = opened(speaker(pa.table({"x": pa.array([None] * rows, pa.float64()), "w": pa.array([None] * rows, pa.string())})))
        told = table.tally([Ask("x", (0.0,), top=2), Ask("w", keys=("a",))])
        assert (table.rows(), told["x"].rows, told["x"].nulls, told["x"].low, told["x"].counts) == (rows, rows, rows, None, (0, 0))
        assert (told["x"].by_key, told["w"].by_key) == ({None: 0}, {"a": 0, None: 0})


def test_every_type_it_stores_has_a_kind(speaker):
    odd = speaker(
        pa.table({"n": [Decimal("1.5")], "d": [date(2026, 3, 29)], "b": [b"x"], "s": [{"a": 1}], "r": [[{"a": 1}]], "t": [["a"]], "i": [7]})
    )
    table = opened(odd)
    assert table.kinds() == {"n": "number", "d": "time", "b": "bytes", "s": "other", "r": "list", "t": "list", "i": "integer"}
    told = table.tally([Ask("n", (1.0, 2.0)), Ask("d", (date_seconds(2026, 3, 29) - 1,)), Ask("s"), Ask("r")])
    assert (told["n"].total, told["d"].low, told["s"].nulls, told["r"].nulls) == (1.5, date_seconds(2026, 3, 29), 0, 0)


def date_seconds(*day):
    return datetime(*day, tzinfo=UTC).timestamp()


def test_what_it_answers_is_read_by_its_type_and_what_is_no_single_value_is_refused(speaker):
    source = opened(speaker())._source
    times = "DATETIME '2026-03-29 01:02:03.5', TIMESTAMP '1970-01-02 00:00:00.25+00:00'"
    ((row,),) = source.ask([f"SELECT 7, CAST('inf' AS FLOAT64), CAST('-inf' AS FLOAT64), TRUE, 'ä', CAST(NULL AS STRING), {times}"])
    assert row == [7, float("inf"), float("-inf"), True, "ä", None, datetime(2026, 3, 29, 1, 2, 3, 500000), 86400.25]
    ((nan,),) = source.ask(["SELECT CAST('nan' AS FLOAT64)"])
    assert nan[0] != nan[0]
    for statement in ("SELECT [1, 2]", "SELECT {'a': 1}"):
        with pytest.raises(AnswerError, match="holds no counts"):
            source.ask([statement])


def test_a_statement_says_what_it_may_cost_where_it_runs_and_who_asks(speaker):
    heard = speaker()
    table = opened(heard, query="?location=EU&billing=other-9&max_bytes=20000000", look=Auth("bearer", {"token": "secret\n"}))
    assert table.rows() == 3
    (said,) = heard.statements
    expected = {
        "useLegacySql": False,
        "useQueryCache": True,
        "location": "EU",
        "maximumBytesBilled": "20000000",
        "labels": {"asked_by": "watchkeeper"},
    }
    assert said.items() >= expected.items() and 0 < said["timeoutMs"] <= 5000
    assert said["connectionProperties"] == [{"key": "time_zone", "value": "UTC"}]
    paths = [urlsplit(request[1]).path for request in heard.requests]
    assert paths == ["/bigquery/v2/projects/ml-7/datasets/logs/tables/predictions", "/bigquery/v2/projects/other-9/queries"]
    assert {request[2]["Authorization"] for request in heard.requests} == {"Bearer secret"}


def test_pages_and_jobs_not_done_are_asked_for_on_this_server_and_in_this_project_only(speaker):
    slow = speaker(pa.table({"w": list("aabbccddeef")}), pending=3)
    assert opened(slow).tally([Ask("w", top=5)])["w"].by_key == {"a": 2, "b": 2, "c": 2, "d": 2, "e": 2, None: 1}
    more = [urlsplit(request[1]) for request in slow.requests if request[0] == "GET"][1:]
    assert {url.path.rpartition("/")[0] for url in more} == {"/bigquery/v2/projects/ml-7/queries"}, "whatever project the answer names"
    assert {url.path.rpartition("/")[2] for url in more} == {"..%2Fjob%200", "..%2Fjob%201"}
    assert all(parse_qs(url.query)["location"] == ["EU"] for url in more)
    tokens = [parse_qs(url.query).get("pageToken", ["first"])[0] for url in more]
    assert tokens == ["first", "first", "first", "first", "first", "first", "2", "4"]
    assert not slow.cancelled


def test_a_job_that_takes_too_long_is_cancelled(speaker):
    slow = speaker(pending=10_000)
    with deadline(timedelta(seconds=0.6)), pytest.raises(DeadlineError):
        opened(slow).rows()
    assert slow.cancelled == ["../job 0"]
    asked = next(urlsplit(path) for method, path, *_ in slow.requests if path.partition("?")[0].endswith("cancel"))
    assert (asked.path, asked.query) == ("/bigquery/v2/projects/ml-7/jobs/..%2Fjob%200/cancel", "location=EU")


def test_a_job_is_cancelled_too_where_asking_for_it_goes_wrong(speaker):
    broken = speaker(pending=1)
    honest = broken._page
    broken._page = lambda job, first: honest(job, first) if broken._asked.get(job, 0) == 0 else {"jobComplete": "soon"}
    with pytest.raises(AnswerError, match="does not say whether it is complete"):
        opened(broken).rows()
    assert broken.cancelled == ["../job 0"]


@pytest.mark.parametrize(
    ("code", "reason", "kind", "words"),
    [
        (401, "authError", DeniedError, "lasts an hour"),
        (403, "accessDenied", DeniedError, "bigquery.jobs.create"),
        (403, "rateLimitExceeded", ServerError, "rateLimitExceeded"),
        (403, "quotaExceeded", ServerError, "quotaExceeded"),
        (429, "tooMany", ServerError, "429"),
        (503, "backendError", ServerError, "503"),
        (404, "notFound", DataError, "bigquery:ml-7/logs/predictions: 404 notFound: so it is"),
        (400, "invalidQuery", DataError, "so it is"),
        (400, "bytesBilledLimitExceeded", DataError, "bytesBilledLimitExceeded"),
        (400, "stopped", DeadlineError, "stopped"),
        (409, "duplicate", AnswerError, "409"),
    ],
)
def test_what_it_refuses_is_told_apart(speaker, code, reason, kind, words):
    refusing = speaker()
    refusing._told = lambda statement, answered: (code, refusal(code, reason, "so it is"))
    with pytest.raises(kind, match=words) as caught:
        opened(refusing).rows()
    assert type(caught.value) is kind


def test_a_table_or_column_that_is_not_there_is_named(speaker):
    table = opened(speaker())
    with pytest.raises(DataError, match="no column 'y'"):
        table.tally([Ask("y")])
    with pytest.raises(DataError, match="bigquery:ml-7/logs/nothing: 404 notFound"):
        connect(Locator("fraud", "live", speaker().url.replace("predictions", "nothing"))).rows()


@pytest.mark.parametrize(
    ("fault", "kind"), [("broken", ServerError), ("html", AnswerError), ("cut", AnswerError), ("list", AnswerError), ("redirect", AnswerError)]
)
def test_what_is_no_answer_is_an_error(speaker, fault, kind):
    odd = speaker()
    odd.fault = fault
    with pytest.raises(kind):
        opened(odd).rows()


@pytest.mark.parametrize(
    "pages",
    [
        {"jobComplete": "gone"},
        {"jobComplete": False, "jobReference": "gone"},
        {"jobComplete": False, "jobReference": {"jobId": ".."}},
        {"schema": "gone"},
        {"schema": {"fields": [{"name": "n", "type": "GEOGRAPHY"}]}},
        {"schema": {"fields": [7]}},
        {"schema": {"fields": [{"type": []}]}},
        {"schema": ["fields"]},
        {"totalRows": "gone"},
        {"totalRows": "2"},
        {"totalRows": "many"},
        {"rows": "gone"},
        {"rows": [{"f": []}]},
        {"rows": [{"f": [{"v": "three"}]}]},
        {"rows": [{"f": [{"v": 3}]}]},
        {"rows": [{"f": [{"v": {"f": []}}]}]},
        {"rows": ["3"]},
        {"rows": 7},
        {"rows": [{"f": [{"v": "9" * 5000}]}]},
        {"rows": [{"f": [{"v": "3"}]}] * 2},
    ],
)
def test_an_answer_of_another_shape_is_an_error_and_never_fewer_rows(speaker, pages):
    with pytest.raises(AnswerError):
        opened(answering(speaker(), **pages)).rows()


def test_pages_that_never_end_are_left(speaker):
    endless = answering(speaker(), pageToken="0", rows=[], totalRows="3")
    with deadline(timedelta(seconds=0.5)), pytest.raises(DeadlineError):
        opened(endless).rows()


def test_a_table_without_columns_is_an_error(speaker):
    for described in ({}, {"schema": {}}, {"schema": {"fields": [{"type": "STRING"}]}}, {"schema": {"fields": [7]}}):
        bare = speaker()
        bare._told = lambda statement, answered, described=described: (200, described)
        with pytest.raises(AnswerError, match="describes no table with columns"):
            opened(bare).rows()


NASTY = ["`", "\\", "\\`", "a\\", "x` FROM y; DROP TABLE z; --", "'", "\\'", "\n", "\0", "é", "😀", "\\u0060", '"', "/* "]


@given(st.one_of(st.sampled_from(NASTY), st.text(st.characters(exclude_categories=["Cs"]), min_size=1)))
def test_whatever_a_name_or_a_value_holds_it_stays_one_name_or_one_value(text):
    for written in (BIGQUERY.name(text), BIGQUERY.string(text)):
        assert QUOTED.fullmatch(written) and "\n" not in written
        assert not set(written[1:-1]) & {"'", "`"}
        assert json.loads('"' + written[1:-1].replace('"', '\\"') + '"') == text, "JSON has the same escapes, and is another reader of them"


def test_a_hostile_name_is_a_column_like_another(speaker):
    rows = pa.table({name: [1.0, None] for name in NASTY if "\0" not in name})
    table = opened(speaker(rows))
    assert {name: tally.total for name, tally in table.tally([Ask(name) for name in rows.column_names]).items()} == dict.fromkeys(
        rows.column_names, 1.0
    )


def test_a_path_in_a_name_stays_in_its_place(speaker):
    heard = speaker()
    url = f"bigquery+{heard.address}/ml-7/..%2F..%2Fjobs/pre%60dictions"
    with pytest.raises(DataError):
        connect(Locator("fraud", "live", url)).rows()
    assert heard.requests[0][1].startswith("/bigquery/v2/projects/ml-7/datasets/..%2F..%2Fjobs/tables/pre%60dictions?")


def test_only_counts_leave_it(speaker):
    table = opened(speaker())
    assert table.can == frozenset()
    for read in (lambda: table.column("x"), lambda: table.head(["x"], 1)):
        with pytest.raises(CannotError, match="gives counts only"):
            read()


def test_a_check_that_needs_columns_is_refused_at_start_up(tmp_path):
    (tmp_path / "watchkeeper.yaml").write_text(CONFIG.format(url="bigquery:ml-7/logs/predictions"))
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "watchkeeper.yaml")
    assert all("fraud.live (bigquery) cannot stream columns, which drift.multivariate needs" in problem for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("bigquery:ml-7", "names no table"),
        ("bigquery:ml-7/logs", "names no table"),
        ("bigquery:ml-7/../predictions", "names no table"),
        ("bigquery:ml-7//predictions", "names no table"),
        ("bigquery+https://h/ml-7/logs/a/b", "names no table"),
        ("bigquery:ml-7/logs/t?locaton=EU", "did you mean 'location'"),
        ("bigquery:ml-7/logs/t?location=", "says nothing"),
        ("bigquery:ml-7/logs/t?billing=..", "says nothing"),
        ("bigquery:ml-7/logs/t?max_bytes=1e9", "whole number of bytes"),
        ("bigquery+https://me:secret@h/ml-7/logs/t", "holds a credential"),
    ],
)
def test_a_url_that_names_no_table_is_refused(url, words):
    with pytest.raises(ConfigError, match=words):
        connect(Locator("fraud", "live", url))


def test_without_an_endpoint_it_is_googles_and_nobody_there_is_no_answer():
    for url in ("bigquery:example.com:ml/logs/t", "bigquery://example.com:ml/logs/t"):
        source = connect(Locator("fraud", "live", url))._source
        assert source.relation() == "`example.com:ml`.`logs`.`t`"
        assert source._wire.at.address == "https://bigquery.googleapis.com/example.com:ml/logs/t"
    with pytest.raises(UnreachableError):
        connect(Locator("fraud", "live", "bigquery+http://127.0.0.1:9/ml-7/logs/t")).rows()
