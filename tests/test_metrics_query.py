"""metrics.query, latency and errors: against a real Prometheus, real databases, and a speaker that answers what no real one would."""

from __future__ import annotations

import math
import re
import sqlite3
from datetime import timedelta

import pytest

from agent import Locator, Sample, Samples, Status, Window
from agent.errors import AnswerError, ConfigError, DataError, DeadlineError, DeniedError, ServerError, UnreachableError
from agent.perform import perform
from agent.plugins import find
from agent.targets import connect
from checks import metrics as checks
from tests.servers import business
from tests.servers.prometheus import ONE, Speaker

WINDOW = business.WINDOW


class Held:
    """A store that holds just these series: what the arithmetic is tested on."""

    can, smallest = frozenset(), ""

    def __init__(self, *values, warnings=(), label="slice"):
        self.found = Samples(tuple(Sample({label: str(n)}, value) for n, value in enumerate(values)), tuple(warnings))

    def query(self, text, window):
        return self.found

    def sighted(self):
        return ""


def judged(store, **parameters):
    return checks.query(store, WINDOW, query="x", **parameters)


@pytest.fixture
def speaker():
    made = Speaker()
    yield made
    made.stop()


def speaking(speaker, **more):
    return connect(Locator("fraud", "metrics", speaker.url, speaker.options, **{"within": timedelta(seconds=5), **more}))


# What is judged


@pytest.mark.parametrize(
    ("value", "limits", "status"),
    [
        (0.3, {"at_most": 0.3}, "ok"),
        (0.30000000000000004, {"at_most": 0.3}, "fail"),
        (5, {"at_least": 5}, "ok"),
        (4.999, {"at_least": 5}, "fail"),
        (7, {"at_least": 5, "at_most": 6}, "fail"),
        (4, {"at_least": 5, "at_most": 6}, "fail"),
        (5.5, {"at_least": 5, "at_most": 6}, "ok"),
        (-1, {"at_most": 0}, "ok"),
        (math.nan, {"at_most": 1}, "nodata"),
        (math.inf, {"at_most": 1}, "nodata"),
        (-math.inf, {"at_least": 1}, "nodata"),
    ],
)
def test_a_limit_holds_at_its_very_value_and_what_is_no_number_is_no_data(value, limits, status):
    assert judged(Held(value), **limits).status == status


def test_nothing_found_is_no_data_whatever_the_limit():
    verdict = judged(Held(), at_most=1)
    assert verdict.status == "nodata" and verdict.reason == "0 series with a number, 1 needed"


def test_every_series_is_a_part_and_the_worst_is_the_reading():
    verdict = judged(Held(0.1, 0.5, 0.9, math.nan), at_most=0.4, unit="s")
    assert verdict.status == "fail"
    assert (verdict.reading.observed, verdict.reading.limit, verdict.reading.n, verdict.reading.unit) == (0.9, 0.4, 3, "s")
    assert [(name, part.observed) for name, part in verdict.parts.items()] == [
        ("slice=2", 0.9),
        ("slice=1", 0.5),
        ("slice=0", 0.1),
        ("slice=3", None),
    ]
    assert verdict.reason == "2 of 3 series beyond the limit: slice=2 0.9 s (at most 0.4); slice=1 0.5 s (at most 0.4); no number: slice=3 is nan"


def test_an_idle_series_beside_a_good_one_is_told_and_does_not_spoil_it():
    verdict = judged(Held(0.1, math.nan), at_most=0.4)
    assert verdict.status == "ok" and verdict.reason.endswith("no number: slice=1 is nan")
    assert judged(Held(0.1, math.nan), at_most=0.4, series_at_least=2).status == "nodata"


def test_a_reading_stands_beside_the_limit_it_is_nearest_to():
    assert judged(Held(7.0), at_least=1, at_most=9).reading.limit == 9
    assert judged(Held(2.0), at_least=1, at_most=9).reading.limit == 1


def test_a_warning_of_the_store_is_told_and_takes_the_ok_away():
    assert judged(Held(0.1, warnings=["a store is down"]), at_most=1).status == "warn"
    verdict = judged(Held(2.0, warnings=["a store is down"]), at_most=1)
    assert verdict.status == "fail" and verdict.reason.endswith("the store warns: a store is down")


def test_labels_named_in_by_name_the_parts_and_two_of_one_name_are_an_error():
    found = Samples((Sample({"version": "1", "zone": "a"}, 1.0), Sample({"version": "1", "zone": "b"}, 2.0)))
    store = Held()
    store.found = found
    assert list(judged(store, at_most=9, by=["version", "zone"]).parts) == ["1, b", "1, a"]
    verdict = judged(store, at_most=9, by=["version"])
    assert verdict.status == "error" and verdict.reason.startswith("two series are called 1;")
    store.found = Samples((Sample({"a": "b"}, 1.0), Sample({"a": "b"}, 2.0)))
    assert judged(store, at_most=9).status == "error"


def test_of_thousands_of_series_all_are_judged_and_the_worst_hundred_kept():
    verdict = judged(Held(*range(5_000)), at_most=4_998)
    assert verdict.status == "fail" and verdict.reading.n == 5_000
    assert len(verdict.parts) == 100 and next(iter(verdict.parts)) == "slice=4999"


def test_a_label_as_long_as_a_book_is_cut_and_still_tells_two_apart():
    store = Held()
    store.found = Samples(tuple(Sample({"x": "a" * 10_000 + end}, 1.0) for end in "bc"))
    assert [len(name) for name in judged(store, at_most=9).parts] == [199, 199]


@pytest.mark.parametrize(("limits", "told"), [({}, "neither at_most nor at_least"), ({"at_most": 1, "at_least": 2}, "exchange them")])
def test_limits_that_cannot_be_meant_are_refused(limits, told):
    with pytest.raises(ConfigError, match=told):
        judged(Held(1.0), **limits)


def test_each_of_the_three_points_at_its_own_cause():
    assert {name: find("check", f"metrics.{name}").promises["cause"] for name in ("latency", "errors", "query")} == {
        "latency": "latency",
        "errors": "errors",
        "query": "business",
    }
    assert checks.latency(Held(2.0), WINDOW, query="x", at_most=1).reading.unit == "s"
    assert checks.errors(Held(2.0), WINDOW, query="x", at_most=1).reading.unit == "share"


# Against a real Prometheus


@pytest.mark.parametrize(
    "text",
    [
        'orders{shop="north"}',
        'sum(rate(answered_total{code="500"}[5s])) / sum(rate(answered_total[5s]))',
        'histogram_quantile(0.9, sum by (le) (rate(waited_seconds_bucket{version="1"}[5s])))',
        "scalar(sum(up))",
        "1 / 3",
    ],
)
def test_the_recorded_number_is_exactly_what_prometheus_answers(prometheus, text):
    verdict = checks.query(prometheus.metrics(), prometheus.window, query=text, at_most=1e9)
    answered = prometheus.asked(text)
    value = answered[1] if isinstance(answered[1:2], list) and not isinstance(answered[0], dict) else answered[0]["value"][1]
    assert verdict.status == "ok" and repr(verdict.reading.observed) == repr(float(value))


def test_an_error_share_a_rate_and_its_window_come_from_one_query(prometheus):
    text = 'sum(rate(answered_total{code="500"}[$window])) / sum(rate(answered_total[$window]))'
    verdict = checks.errors(prometheus.metrics(), prometheus.window, query=text, at_most=0.1)
    assert verdict.status == "fail" and verdict.reading.observed == pytest.approx(0.2)
    assert prometheus.asked(text.replace("$window", "5s"))[0]["value"][1] == repr(verdict.reading.observed)


def test_the_quantile_of_an_idle_histogram_is_nan_and_so_no_data(prometheus):
    text = "histogram_quantile(0.99, sum by (le, version) (rate(waited_seconds_bucket[$window])))"
    both = checks.latency(prometheus.metrics(), prometheus.window, query=text, by=["version"], at_most=0.5)
    assert both.status == "ok" and both.parts["2"].observed is None and both.parts["1"].observed == pytest.approx(0.2 + 0.97 * 0.2)
    idle = checks.latency(prometheus.metrics(), prometheus.window, query=text.replace("_bucket", '_bucket{version="2"}'), at_most=0.5)
    assert idle.status == "nodata" and "is nan" in idle.reason


@pytest.mark.parametrize(("text", "told"), [("no_such_series", "0 series"), ("lost", "lost.* is inf"), ("vector(0) / 0", "nan")])
def test_what_prometheus_has_no_number_for_is_no_data(prometheus, text, told):
    verdict = checks.query(prometheus.metrics(), prometheus.window, query=text, at_most=1)
    assert verdict.status == "nodata"
    assert re.search(told, verdict.reason)


@pytest.mark.parametrize(
    ("text", "status", "told"),
    [
        ("sum(", 400, r"400, .*parse error: unclosed left parenthesis; mend the query"),
        ("up * on (job) waited_seconds_bucket * up", 422, r"422, .*many-to-many matching not allowed"),
        ("answered_total[5s]", None, r"gives ranges, not numbers; put a function around it"),
        ('"words"', None, r"gives 'string'"),
    ],
)
def test_a_query_prometheus_does_not_take_is_told_in_its_words(prometheus, text, status, told):
    with pytest.raises(AnswerError, match=told) as caught:
        prometheus.metrics().query(text, prometheus.window)
    assert caught.value.status == status


def test_a_path_that_is_no_api_says_to_check_the_prefix(prometheus):
    with pytest.raises(AnswerError, match="path prefix"):
        connect(Locator("fraud", "metrics", f"{prometheus.url}/prefix")).query("up", prometheus.window)


def test_prometheus_shows_that_the_world_is_seen(prometheus):
    """The service's own scrape fails, or another target's succeeds, and neither is older than two intervals."""
    assert prometheus.metrics(up='up{job="gone"}').sighted() == 'Prometheus cannot scrape up{job="gone"} either'
    assert prometheus.metrics(up='up{job="fraud"}').sighted() == "Prometheus sees 1 other target"
    assert prometheus.metrics(up='up{job=~"fraud|prometheus"}').sighted() == ""
    assert prometheus.metrics(up='up{job="fraud"}', interval=0.000001).sighted() == ""


# Against a speaker that misbehaves


def test_every_query_is_a_form_that_says_it_is_a_probe_and_when_it_will_be_over(speaker):
    speaking(speaker, within=timedelta(seconds=2)).query(ONE, WINDOW)
    ((method, path, headers, _),) = speaker.requests
    assert (method, path, headers["Content-Type"]) == ("POST", "/prom/api/v1/query", "application/x-www-form-urlencoded")
    assert headers["X-Watchkeeper-Probe"] == "watchkeeper"
    assert speaker.forms == [{"query": ONE, "time": "1767225620.000", "timeout": "1800ms"}]


def test_the_window_is_written_as_prometheus_writes_durations_and_other_dollars_are_left(speaker):
    text = 'rate(x{path=~"/a.*$"}[$window]) > $windows'
    speaker.vectors[text.replace("[$window]", "[1500ms]")] = [({}, "1")]
    assert speaking(speaker).query(text, Window(WINDOW.end - timedelta(seconds=1.5), WINDOW.end)).series[0].value == 1.0


def test_a_tenant_is_named_in_the_header_that_mimir_reads(speaker):
    speaker.options = {"tenant": "fraud"}
    speaking(speaker).query(ONE, WINDOW)
    assert speaker.requests[0][2]["X-Scope-OrgID"] == "fraud"


@pytest.mark.parametrize(
    ("fault", "error"),
    [("broken", ServerError), ("nan", AnswerError), ("html", AnswerError), ("redirect", AnswerError), ("cut", AnswerError), ("list", AnswerError)],
)
def test_a_bad_answer_is_an_error_and_never_a_number(speaker, fault, error):
    speaker.fault = fault
    with pytest.raises(error):
        speaking(speaker).query(ONE, WINDOW)


@pytest.mark.parametrize(
    ("refusal", "error", "told"),
    [
        ((503, "timeout", "query timed out in expression evaluation"), DeadlineError, "costs too much"),
        ((422, "execution", "query processing would load too many samples"), AnswerError, "too many samples; mend the query"),
        ((500, "internal", "disk is gone"), ServerError, "disk is gone"),
        ((401, "auth", "who are you?"), DeniedError, "credential"),
        ((403, "auth", "not you"), DeniedError, "credential"),
        ((429, "", "slow down"), AnswerError, "slow down"),
    ],
)
def test_a_refusal_keeps_the_words_of_the_server(speaker, refusal, error, told):
    speaker.refusal = refusal
    with pytest.raises(error, match=told):
        speaking(speaker).query(ONE, WINDOW)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"resultType": "vector"},
        {"resultType": "vector", "result": {}},
        {"resultType": "vector", "result": [1]},
        {"resultType": "vector", "result": [{"metric": {}}]},
        {"resultType": "vector", "result": [{"metric": [], "value": [0, "1"]}]},
        {"resultType": "vector", "result": [{"metric": {}, "value": [0, 1.5]}]},
        {"resultType": "vector", "result": [{"metric": {}, "value": [0, "many"]}]},
        {"resultType": "vector", "result": [{"metric": {}, "histogram": [0, {"count": "1"}]}]},
        {"resultType": "scalar", "result": None},
        {"resultType": "streams", "result": []},
    ],
)
def test_an_answer_of_another_shape_is_an_error_and_never_a_number(speaker, data):
    speaker.data = data
    with pytest.raises(AnswerError):
        speaking(speaker).query(ONE, WINDOW)


def test_a_server_that_hangs_costs_the_deadline_and_one_that_is_gone_is_unreachable(speaker):
    metrics = speaking(speaker, within=timedelta(milliseconds=200))
    speaker.fault = "hang"
    with pytest.raises(DeadlineError):
        metrics.query(ONE, WINDOW)
    speaker.stop()
    with pytest.raises(UnreachableError):
        metrics.query(ONE, WINDOW)


def test_an_answer_of_more_bytes_than_may_be_is_an_error(speaker):
    speaker.vectors[ONE] = [({"x": f"{n}" + "y" * 1000}, "1") for n in range(9_000)]
    with pytest.raises(AnswerError, match="longer than"):
        speaking(speaker).query(ONE, WINDOW)


def test_warnings_of_the_server_are_kept(speaker):
    speaker.warnings = ["store gateway is down"]
    assert speaking(speaker).query(ONE, WINDOW).warnings == ("store gateway is down",)


@pytest.mark.parametrize("options", [{"interval": "soon"}, {"interval": [1]}, {"upp": "up"}])
def test_options_that_could_not_work_are_refused_before_anything_is_sent(options):
    with pytest.raises(ConfigError, match=r"fraud\.metrics"):
        connect(Locator("fraud", "metrics", "prometheus+http://127.0.0.1:9", options))


# SQL


@pytest.mark.parametrize("scheme", ["sqlite", "duckdb"])
class TestSql:
    @pytest.fixture
    def metrics(self, tmp_path, scheme):
        return connect(Locator("fraud", "metrics", business.Speaker(tmp_path, scheme).url, within=timedelta(seconds=2)))

    def test_the_window_is_bound_as_text_and_as_seconds(self, metrics):
        text = "SELECT count(*) FROM orders WHERE made_at >= :start AND made_at < :end"
        assert metrics.query(text, WINDOW).series == (Sample({}, 10.0),)
        assert metrics.query("SELECT :end_s - :start_s", WINDOW).series == (Sample({}, 10.0),)

    def test_the_columns_before_the_last_are_labels(self, metrics):
        text = "SELECT CASE amount WHEN 1 THEN 'small' ELSE 'large' END AS size, 'x' AS shop, sum(amount) FROM orders GROUP BY 1 ORDER BY 1"
        assert metrics.query(text, WINDOW).series == (Sample({"size": "large", "shop": "x"}, 60.0), Sample({"size": "small", "shop": "x"}, 30.0))

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("", "does not take"),
            ("DROP TABLE orders", r"read-only|not authorized"),
            ("DELETE FROM orders", r"read-only|not authorized"),
            ("ATTACH 'elsewhere.db' AS x", r"not authorized|Cannot access"),
            ("SELECT nothing FROM orders", "nothing"),
            ("SELECT 'many'", "should be a number, and is 'many'"),
            ("SELECT :begin", "begin"),
            ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) SELECT i, i FROM n", "more than 10,000 rows"),
        ],
    )
    def test_what_is_no_measurement_is_an_error(self, metrics, text, told, tmp_path):
        with pytest.raises(DataError, match=told):
            metrics.query(text, WINDOW)
        assert len(list(tmp_path.iterdir())) == 1

    def test_a_query_without_end_is_stopped(self, tmp_path, scheme):
        metrics = connect(Locator("fraud", "metrics", business.Speaker(tmp_path, scheme).url, within=timedelta(milliseconds=100)))
        with pytest.raises(DeadlineError, match="was stopped"):
            metrics.query("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000000) SELECT max(i) FROM n", WINDOW)

    def test_a_file_that_is_not_there_or_no_database_is_an_error(self, tmp_path, scheme):
        (tmp_path / "broken").write_bytes(b"no database " * 100)
        for name in ("nowhere", "broken"):
            with pytest.raises(DataError, match=name):
                connect(Locator("fraud", "metrics", f"{scheme}:{name}", folder=str(tmp_path))).query("SELECT count(*) FROM orders", WINDOW)

    def test_a_table_in_the_url_is_refused(self, scheme):
        with pytest.raises(ConfigError, match="leave that to the query"):
            connect(Locator("fraud", "metrics", f"{scheme}:x.db?table=orders"))


def test_a_live_writer_is_not_locked_out(tmp_path):
    made = business.Speaker(tmp_path, "sqlite")
    metrics = connect(Locator("fraud", "metrics", made.url))
    with sqlite3.connect(made.path) as con:
        con.execute("PRAGMA journal_mode=WAL")
        con.execute("INSERT INTO orders VALUES ('2027-02-01T00:00:00Z', 3)")
        assert metrics.query("SELECT count(*) FROM orders", WINDOW).series == (Sample({}, 60.0),)
        con.commit()
        assert metrics.query("SELECT count(*) FROM orders", WINDOW).series == (Sample({}, 61.0),)
    con.close()


def test_a_whole_look_ends_as_a_finding_that_can_be_kept(tmp_path):
    made = business.Speaker(tmp_path, "sqlite")
    job = {
        "check": "metrics.query",
        "locators": {"metrics": Locator("fraud", "metrics", made.url)},
        "parameters": {"query": business.SOME, "at_most": 0.2, "by": ["version"], "unit": "share"},
        "window": WINDOW,
    }
    verdict = perform(job)
    assert verdict.status is Status.FAIL
    assert verdict.parts["1"].observed == 0.25 and verdict.parts["2"].observed is None
