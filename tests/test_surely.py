"""A run that surely fails ends early; one that does not, or that is not steady, does not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from loadtests._clocks import GOOD, STATUS, UNFINISHED, Clocks
from loadtests._spec import Arrivals, Claim, Traffic
from loadtests._surely import Surely

P90 = Claim("p90", 0.9, 1.0)


def traffic(*claims: Claim, pattern: str = "constant", seconds: float = 100.0, **more: object) -> Traffic:
    return Traffic("http://127.0.0.1:9/", "", Arrivals(pattern, 20, seconds), "", claims=claims, **more)


def clocks(latency: np.ndarray, rate: float = 20.0) -> Clocks:
    """Requests one after another, with these latencies; infinite: still in flight, NaN: answered badly."""
    made = Clocks(np.arange(len(latency)) / rate)
    for place, took in enumerate(latency):
        made.kind[place] = UNFINISHED if math.isinf(took) else STATUS if math.isnan(took) else GOOD
        made.done[place] = made.intended[place] + took
    return made


def ended(surely: Surely, until: float) -> float | None:
    """When it was said, looking twice a second as the program does."""
    return next((now for now in np.arange(0, until, 0.5) if surely.words(float(now))), None)


def shares(over: float, n: int = 2000, bad: float = 2.0) -> np.ndarray:
    return np.where(np.random.default_rng(3).random(n) < over, bad, 0.1)


@pytest.mark.parametrize("bad", [2.0, math.inf, math.nan], ids=["slow", "unanswered", "answered badly"])
def test_a_run_far_over_its_limit_ends_within_seconds(bad):
    found = Surely(traffic(P90), clocks(shares(0.9, bad=bad)))
    at = ended(found, 100)
    assert at is not None and at < 15
    assert found.failed == "p90" and "p90 surely fails" in found.words(100)


@pytest.mark.parametrize("over", [0.0, 0.05, 0.1])
def test_a_run_within_or_at_its_limit_goes_on_to_its_end(over):
    assert ended(Surely(traffic(P90), clocks(shares(over))), 200) is None


def test_no_window_is_judged_before_its_last_request_is_over_its_limit():
    """Everything is unanswered: what was due a moment ago may still come in time."""
    found = Surely(traffic(P90), clocks(np.full(2000, math.inf)))
    for now in np.arange(0, 1.99, 0.01):
        found.words(float(now))
    assert found._windows == 0
    found.words(2.0)
    assert found._windows == 1


def test_what_is_sent_to_warm_up_counts_for_nothing():
    slow_first = np.concatenate([np.full(400, 2.0), np.full(1600, 0.1)])
    assert ended(Surely(traffic(P90), clocks(slow_first)), 100) is not None
    assert ended(Surely(traffic(P90, warm=20.0), clocks(slow_first)), 100) is None


def test_of_several_claims_the_one_that_fails_is_named():
    found = Surely(traffic(P90, Claim("p50", 0.5, 0.05)), clocks(np.full(2000, 0.1)))
    ended(found, 100)
    assert found.failed == "p50"


@pytest.mark.parametrize(
    "more",
    [{"pattern": "ramp"}, {"pattern": "spike"}, {"pattern": "replayed"}, {"closed": 5}, {"workers": 2}],
    ids=lambda more: "-".join(map(str, more.values())),
)
def test_what_is_not_one_steady_open_run_is_never_ended(more):
    assert ended(Surely(traffic(P90, **more), clocks(np.full(2000, 2.0))), 200) is None


def test_without_claims_or_requests_nothing_is_said():
    assert ended(Surely(traffic(), clocks(np.full(100, 9.0))), 100) is None
    assert ended(Surely(traffic(P90), clocks(np.empty(0))), 100) is None
    assert ended(Surely(traffic(P90, warm=99.0), clocks(np.full(100, 9.0))), 200) is None


def test_at_the_limit_with_stalls_as_long_as_a_burst_it_ends_wrongly_no_more_often_than_promised():
    """Stalls of one second, one after another with the share that is allowed on average: 200 runs of 200 s, at most 5 % with binomial room."""
    rng, wrong = np.random.default_rng(7), 0
    for _ in range(200):
        seconds = rng.random(200) < 0.1
        wrong += ended(Surely(traffic(P90, seconds=200.0), clocks(np.where(np.repeat(seconds, 5), 2.0, 0.1), rate=5.0)), 205) is not None
    assert wrong <= 18  # P(Bin(200, 0.05) > 18) < 1 %
