"""A run cut into windows: nothing lost, exact quantiles, and the file they are kept in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import stats
from agent.errors import DataError
from loadtests._windows import COLUMNS, from_csv, since, to_csv, windows
from tests.traces import trace

SECONDS = st.one_of(st.floats(0, 5, width=32), st.just(float("inf")))
REQUESTS = st.lists(st.tuples(st.floats(0, 40, width=32), SECONDS), min_size=1, max_size=60)


def run(requests):
    requests = sorted(requests)
    return trace([latency for _, latency in requests], [at for at, _ in requests])


@given(REQUESTS, st.sampled_from([0.5, 3.0, 10.0]), st.floats(0, 5))
def test_every_request_is_in_one_window_and_each_quantile_is_one_of_its_latencies(requests, width, limit):
    made, table = run(requests), windows(run(requests), width, limit)
    assert table.n.sum() == len(requests)
    assert table.errors.sum() == sum(latency == float("inf") for _, latency in requests)
    assert table.over.sum() == np.sum(made.latency > limit)
    edges = [*table.start[1:], float("inf")]
    for place, (start, end) in enumerate(zip(table.start, edges, strict=True)):
        rising = sorted(made.latency[(made.intended >= start) & (made.intended < end)])
        assert table.n[place] == len(rising)
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            told = getattr(table, name)[place]
            assert np.isnan(told) if not rising else told == stats.quantile(rising, share)


@given(REQUESTS, st.sampled_from([0.5, 3.0, 10.0]))
def test_windows_come_back_from_their_file_to_the_last_digit(requests, width):
    table = windows(run(requests), width, 1.0)
    again = from_csv(to_csv(table))
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name))


def test_what_is_left_of_the_last_window_joins_the_one_before():
    table = windows(trace(np.full(1240, 0.01), rate=100), 5.0)
    assert list(table.start) == [0, 5]
    assert list(table.n) == [500, 740]
    assert table.seconds[1] == pytest.approx(7.39)
    assert table.rate == pytest.approx(100, rel=0.01)


def test_a_request_that_never_was_sent_is_meant_and_not_sent():
    sent = np.array([0.0, np.nan, 0.02])
    table = windows(trace([0.01, float("inf"), 0.01], sent=sent), 1.0)
    assert (table.n[0], table.sent[0], table.errors[0]) == (3, 2, 1)


def test_the_warm_up_is_left_out_and_the_clocks_begin_anew():
    tokens, gaps = np.array([1, 3, 2]), np.array([0.1, 0.2, 0.3])
    made = since(trace([0.5, 0.25, 0.125], [0.0, 1.0, 2.0], tokens=tokens, gaps=gaps, first=np.array([0.5, 0.2, 0.1])), 1.0)
    assert list(made.intended) == [0, 1]
    assert list(made.latency) == [0.25, 0.125]
    assert list(made.tokens) == [3, 2]
    assert list(made.gaps) == [0.1, 0.2, 0.3]
    assert list(since(trace([0.5, 0.25], [0.0, 1.0], tokens=np.array([3, 1]), gaps=gaps[:2]), 1.0).gaps) == []


def test_a_run_without_a_request_has_no_windows():
    with pytest.raises(DataError, match="sent no request"):
        windows(trace([]), 10.0)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "should begin with start,seconds,n"),
        (b"\xff\xfe", "no CSV text"),
        (b"start,seconds,n,sent,errors,over,p50,p95,p99\n", "a line for each window"),
        (b"a,b\n1,2\n", "should begin with"),
        (b"start,seconds,n,sent,errors,over,p50,p95,p99\n0,10,5,5,0,0,1,1\n", "line 2"),
        (b"start,seconds,n,sent,errors,over,p50,p95,p99\n0,10,5,5,0,0,1,1,1\n10,10,many,5,0,0,1,1,1\n", "line 3: could not convert"),
    ],
)
def test_a_file_that_holds_no_windows_is_refused_with_its_line(body, words):
    with pytest.raises(DataError, match=words):
        from_csv(body)
