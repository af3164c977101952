"""Trino's client protocol and its SQL, against a speaker of it on this machine: the real service has not been tried."""

import time
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet
import pytest

from agent import Ask, Locator
from agent.errors import AnswerError, CannotError, ConfigError, DataError, DeadlineError, DeniedError, ServerError
from agent.model import Auth
from agent.targets import connect
from agent.targets.files import Files
from agent.wire import deadline
from tests.logs import START
from tests.servers.trino import Speaker
from tests.test_push import same
from tests.test_spark import ASKS, FEATURES, random_rows


@pytest.fixture
def speaker():
    started = []

    def start(rows=None, **more):
        started.append(Speaker(pa.table({"x": [1.0, 2.0, None], "w": ["a", "b", "a"]}) if rows is None else rows, **more))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def opened(speaker, options=None, **more):
    return connect(Locator("fraud", "live", speaker.url, options or {}, **more))


@pytest.mark.parametrize(
    ("seed", "time", "exclude"),
    [
        (1, {"column": "zoned"}, [{"column": "word", "prefix": "a"}]),
        (2, {"column": "naive", "tz": "Europe/Berlin"}, [{"column": "number", "equals": 7}, {"column": "fl`ag", "equals": 1}]),
        (3, {"column": "ms", "unit": "ms"}, [{"column": "word", "in": ["\\'; DROP", "7"]}]),
    ],
)
def test_its_counts_are_those_made_here(speaker, tmp_path, seed, time, exclude):
    rows, options = random_rows(seed), FEATURES | {"time": time, "exclude": exclude}
    pyarrow.parquet.write_table(rows, tmp_path / "log.parquet")
    asks = [ask for ask in [*ASKS, Ask("ms", (START.timestamp(),))] if ask.column != "naive" or time["column"] != "naive"]
    span = (datetime(2026, 3, 28, 23, 10, tzinfo=UTC), datetime(2026, 3, 29, 5, 0, 0, 1, tzinfo=UTC))
    there, here = opened(speaker(rows), options), Files(Locator("fraud", "live", "parquet:log.parquet", options, folder=str(tmp_path)))
    assert there.kinds() == here.kinds()
    for one, two in ((there, here), (there.between(*span), here.between(*span))):
        assert one.rows() == two.rows()
        same(one.tally(asks), two._streamed(asks))


def test_pages_are_followed_on_this_server_only_and_asked_again_when_it_is_busy(speaker):
    busy = speaker(again=2)
    assert opened(busy).tally([Ask("w", top=5)])["w"].by_key == {"a": 2, "b": 1, None: 0}
    assert all(request[2]["X-Trino-User"] == "watchkeeper" for request in busy.requests)
    pages = {request[1] for request in busy.requests if request[0] == "GET"}
    assert len(busy.statements) == 3 and len(pages) > 3
    assert all(sum(request[1] == page for request in busy.requests) == 3 for page in pages), "busy twice, then the answer"


def test_who_asks_is_who_shows_the_credential(speaker):
    heard = speaker()
    opened(heard, look=Auth("basic", {"user": "ada", "password": "secret"})).rows()
    assert {request[2]["X-Trino-User"] for request in heard.requests} == {"ada"}
    assert all(request[2]["Authorization"].startswith("Basic ") for request in heard.requests)


def test_what_it_refuses_is_told_apart(speaker):
    table = opened(speaker())
    with pytest.raises(DataError, match="no column 'y'"):
        table.tally([Ask("y")])
    with pytest.raises(DataError, match="trino:hive/ml/nothing"):
        connect(Locator("fraud", "live", speaker().url.replace("predictions", "nothing"))).rows()
    for error, kind in (
        ({"errorName": "PERMISSION_DENIED", "errorType": "USER_ERROR", "message": "Access Denied"}, DeniedError),
        ({"errorName": "EXCEEDED_TIME_LIMIT", "errorType": "INSUFFICIENT_RESOURCES", "message": "too long"}, DeadlineError),
        ({"errorName": "GENERIC_INTERNAL_ERROR", "errorType": "INTERNAL_ERROR", "message": "oops"}, ServerError),
        ("words", ServerError),
    ):
        broken = speaker()
        broken._begun = lambda statement, error=error: {"id": "q", "error": error}
        with pytest.raises(kind):
            opened(broken).rows()


@pytest.mark.parametrize(("fault", "kind"), [("broken", ServerError), ("html", AnswerError), ("cut", AnswerError), ("list", AnswerError)])
def test_what_is_no_answer_is_an_error(speaker, fault, kind):
    odd = speaker()
    odd.fault = fault
    with pytest.raises(kind):
        opened(odd).rows()


def test_a_statement_that_takes_too_long_is_cancelled(speaker):
    slow = speaker(again=10_000)
    slow._busy["/v1/statement"] = 10_000
    began = time.monotonic()
    with deadline(timedelta(seconds=0.5)), pytest.raises(DeadlineError):
        opened(slow).rows()
    assert time.monotonic() - began < 20
    assert slow.cancelled == ["/v1/statement/executing/0/0"]


def test_only_counts_leave_it_and_a_url_without_a_table_is_refused(speaker):
    with pytest.raises(CannotError, match="gives counts only"):
        opened(speaker()).column("x")
    for url in ("trino+https://h", "trino+https://h/hive/ml", "trino+https://h/hive//t"):
        with pytest.raises(ConfigError, match="names no table"):
            connect(Locator("fraud", "live", url))
