"""When requests are meant to be sent: against the distributions they are drawn from, and against hostile numbers and files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from agent.errors import ConfigError
from loadtests._schedule import MOST, busiest, times
from loadtests._spec import Arrivals


def test_a_constant_rate_is_a_grid_that_begins_at_once() -> None:
    assert times(Arrivals("constant", rate=4, seconds=1)).tolist() == [0.0, 0.25, 0.5, 0.75]
    assert len(times(Arrivals("constant", rate=0.1, seconds=5))) == 1
    assert len(times(Arrivals("constant", rate=3, seconds=600))) == 1800


def test_poisson_gaps_are_exponential_and_the_seed_alone_decides() -> None:
    drawn = Arrivals("poisson", rate=50, seconds=400, seed=7)
    at = times(drawn)
    assert stats.kstest(np.diff(at), stats.expon(scale=1 / 50).cdf).pvalue > 0.01
    assert abs(len(at) - 20_000) < 4 * math.sqrt(20_000)
    assert np.array_equal(at, times(drawn)) and not np.array_equal(at[:9], times(Arrivals("poisson", rate=50, seconds=400, seed=8))[:9])


@pytest.mark.parametrize(
    ("arrivals", "cumulative"),
    [
        (Arrivals("ramp", rate=200, begin=0, seconds=300, seed=1), lambda t: t * t * 200 / 300 / 2),
        (Arrivals("ramp", rate=10, begin=200, seconds=300, seed=2), lambda t: 200 * t - t * t * 190 / 300 / 2),
        (Arrivals("ramp", rate=80, begin=80, seconds=300, seed=3), lambda t: 80 * t),
        (
            Arrivals("spike", rate=20, peak=400, peak_at=100, peak_for=30, seconds=300, seed=4),
            lambda t: 20 * t + 380 * np.clip(t - 100, 0, 30),
        ),
    ],
    ids=("up", "down", "flat", "spike"),
)
def test_a_changing_rate_is_poisson_in_its_own_cumulative_rate(arrivals: Arrivals, cumulative) -> None:
    """The time-rescaling theorem (Brown et al., Neural Computation 14, 2002): through the cumulative rate the gaps are exponential with mean 1."""
    at = times(arrivals)
    assert (np.diff(at) >= 0).all() and at[0] >= 0 and at[-1] < 300
    assert stats.kstest(np.diff(np.concatenate(([0], cumulative(at)))), "expon").pvalue > 0.01
    assert abs(len(at) - cumulative(300.0)) < 4 * math.sqrt(cumulative(300.0))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(("constant", "poisson", "ramp", "spike")),
    st.floats(1e-3, 1e3),
    st.floats(1e-3, 30),
    st.floats(0, 1e3),
    st.floats(0.01, 1),
    st.integers(0, 2**63 - 1),
)
def test_any_schedule_rises_and_lies_within_its_run(pattern, rate: float, seconds: float, other: float, share: float, seed: int) -> None:
    peak = {"peak": other + 1, "peak_at": (1 - share) * seconds / 2, "peak_for": share * seconds / 2}
    at = times(Arrivals(pattern, rate, seconds, begin=other, seed=seed, **peak))
    assert at.dtype == np.float64 and (np.diff(at) >= 0).all() and (at >= 0).all() and (at < seconds).all()


@pytest.mark.parametrize(
    ("arrivals", "said"),
    [
        (Arrivals(rate=0), "rate is 0 requests a second"),
        (Arrivals(rate=-3), "rate is -3"),
        (Arrivals(rate=math.nan), "rate is nan"),
        (Arrivals(rate=math.inf), "rate is inf"),
        (Arrivals(rate=1e9), "at most 1,000,000"),
        (Arrivals(seconds=0), "more than 0"),
        (Arrivals(seconds=math.nan), "more than 0"),
        (Arrivals(seconds=1e9), "31 days"),
        (Arrivals(rate=20_000, seconds=3600), "about 72,000,000 requests are more than the 10,000,000"),
        (Arrivals("ramp", begin=math.nan), "begin is nan"),
        (Arrivals("spike", seconds=10, peak=5, peak_at=8, peak_for=4), "does not lie within the run of 10 s"),
        (Arrivals("spike", seconds=10, peak=0, peak_at=1, peak_for=4), "peak is 0"),
        (Arrivals("spike", rate=1, seconds=1000, peak=1e6, peak_at=1, peak_for=400), "are more than"),
        (Arrivals("sometimes"), "pattern is 'sometimes'; it is one of constant, poisson, ramp, spike, replayed"),  # type: ignore[arg-type]  # hostile
        (Arrivals(seed=-1), "seed is -1"),
    ],
)
def test_what_cannot_be_meant_is_refused(arrivals: Arrivals, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        times(arrivals)
    assert said in str(refused.value) and str(refused.value).startswith("the load's schedule: ")


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        times(Arrivals("spike", rate=0, seconds=math.inf, seed=-1))
    assert len(refused.value.problems) >= 4


def test_replayed_times_begin_at_their_first_one(tmp_path: Path) -> None:
    file = tmp_path / "times"
    file.write_text("# from the access log\n1795739114.25\n\n1795739114.5\n1795739114.5\n 1795739116 \n")
    assert times(Arrivals("replayed", times=str(file))).tolist() == [0.0, 0.25, 0.25, 1.75]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "there is no time in it"),
        (b"1\ntwo\n", ":2: 'two' is not a time"),
        (b"1\nnan\n", ":2: 'nan' is not a time"),
        (b"1\n2\n1e999\n", ":3: '1e999' is not a time"),
        (b"1\n\xff\xfe\x00\n", ":2: "),
        (b"3\n2\n", "after 3.0 comes 2.0; sort the file"),
        (b"0\n1795739114000\n", "are they seconds?"),
        (b"1" * 5_000_000, "is not a time"),
    ],
    ids=("empty", "words", "nan", "infinite", "bytes", "unsorted", "milliseconds", "one long line"),
)
def test_a_hostile_file_of_times_is_refused_by_its_line(tmp_path: Path, text: bytes, said: str) -> None:
    file = tmp_path / "times"
    file.write_bytes(text)
    with pytest.raises(ConfigError) as refused:
        times(Arrivals("replayed", times=str(file)))
    assert said in str(refused.value) and str(file) in str(refused.value)


def test_no_file_of_times_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        times(Arrivals("replayed", times=str(tmp_path / "nothing")))
    with pytest.raises(ConfigError, match="cannot be read"):
        times(Arrivals("replayed", times=str(tmp_path)))
    assert MOST == 10_000_000


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 5), max_size=40).map(sorted))
def test_the_busiest_second_is_found(at: list[float]) -> None:
    assert busiest(at) == max((sum(one <= other < one + 1.0 for other in at) for one in at), default=0)
