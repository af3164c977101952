"""The search for what a service bears: its logic against every kind of answer, and its brackets against a queue whose capacity is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks._queue import SERVICE, arrivals, latency
from benchmarks.capacity import searched
from loadtests._capacity import BENEATH, STEPS, Attempt, search


def service(truth, blur=1.0, needs=0.0, generator=math.inf):
    """Passes well below the truth and fails well above it; within `blur` of it only runs of `needs` seconds tell."""

    def attempt(rate, seconds):
        if rate > generator:
            return Attempt(rate, seconds, "unfit")
        if truth / blur < rate < truth * blur and seconds < needs:
            return Attempt(rate, seconds, "inconclusive")
        return Attempt(rate, seconds, "pass" if rate <= truth else "fail")

    return attempt


def script(*outcomes):
    """Answers in this order, whatever the rate."""
    left = iter(outcomes)
    return lambda rate, seconds: Attempt(rate, seconds, next(left, "fail"))


HOW = {"start": 10.0, "ceiling": 10_000.0, "seconds": 300.0}


@settings(max_examples=150, deadline=None)
@given(st.floats(0.1, 9000), st.floats(1.0, 1.04), st.sampled_from([0.0, 1200.0, math.inf]), st.floats(1, 9000))
def test_the_bracket_holds_the_truth_is_narrow_and_its_lower_end_is_confirmed(truth, blur, needs, start):
    found = search(service(truth, blur, needs), **{**HOW, "start": start}, floor=0.01)
    assert found.end == "found" and found.low <= truth < found.high <= 1.1 * found.low
    assert found.confirmed is not None and BENEATH * found.low * (1 - 1e-9) <= found.confirmed < found.low
    assert len(found.attempts) <= STEPS
    assert f"{found.low:,.4g} (last PASS)" in found.why and f"{found.high:,.4g} (first FAIL)" in found.why


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(["pass", "fail", "inconclusive", "unfit"]), max_size=80), st.floats(1, 1000), st.floats(1, 1000))
def test_whatever_the_runs_say_it_ends_stays_within_its_bounds_and_contradicts_none_of_them(outcomes, start, ceiling):
    start, ceiling = sorted((start, ceiling))
    found = search(script(*outcomes), start=start, ceiling=ceiling, seconds=10.0, floor=start / 10)
    assert 1 <= len(found.attempts) <= STEPS
    assert all(start / 10 * (1 - 1e-9) <= one.rate <= ceiling and 10 <= one.seconds <= 80 for one in found.attempts)
    last = {one.rate: one.outcome for one in found.attempts}
    assert found.low < found.high
    assert not found.low or all(outcome == "pass" for rate, outcome in last.items() if rate <= found.low)
    assert found.high == min((rate for rate, outcome in last.items() if outcome == "fail"), default=math.inf)
    assert (found.end == "nothing") == (found.low == 0)


def test_it_doubles_bisects_on_the_logarithm_and_confirms():
    found = search(service(70.0), **HOW)
    rates = [one.rate for one in found.attempts]
    assert rates[:4] == [10, 20, 40, 80]
    assert rates[4:7] == pytest.approx([40 * 2**0.5, 40 * 2**0.75, 40 * 2**0.875])
    assert (rates[7], found.attempts[7].seconds) == (pytest.approx(0.95 * 40 * 2**0.75), 1200)
    assert {one.seconds for one in found.attempts[:7]} == {300}


def test_a_run_that_cannot_tell_is_extended_and_then_counts_as_a_fail_but_does_not_end_the_bracket():
    found = search(service(68.0, 1.04, math.inf), **HOW)
    extended = [(one.rate, one.seconds) for one in found.attempts if one.outcome == "inconclusive"]
    assert extended and all(1200.0 in [seconds for other, seconds in extended if other == rate] for rate, _ in extended)
    assert all(one.outcome != "inconclusive" for one in found.attempts if one.rate in (found.low, found.high))


def test_where_it_can_never_tell_enough_it_says_how_far_it_came():
    found = search(service(70.0, 1.2, math.inf), **HOW)
    assert found.end == "unsettled" and found.low < 70 < found.high and found.high / found.low > 1.1
    assert "runs of 2,400 s could not tell more" in found.why


def test_before_that_an_unclear_rate_has_a_run_of_twice_the_longest():
    found = search(service(70.0, 1.2, 2400.0), **HOW)
    assert found.end == "found" and found.low <= 70 < found.high <= 1.1 * found.low
    assert {one.seconds for one in found.attempts} == {300, 1200, 2400}


def test_a_service_that_bears_the_ceiling_is_said_to_bear_it_at_least():
    found = search(service(math.inf), start=10, ceiling=70, seconds=300)
    assert (found.low, found.high, found.end) == (70, math.inf, "ceiling") and found.why == "capacity >= 70 a second, the ceiling"
    assert max(one.rate for one in found.attempts) == 70 and found.confirmed == pytest.approx(66.5)


def test_a_generator_that_cannot_keep_up_ends_it_and_is_tried_once_more_first():
    found = search(service(1000.0, generator=100.0), **HOW)
    assert found.end == "generator" and 100 / 1.1 <= found.low <= 100 and found.high == math.inf
    assert "generator-bound" in found.why and found.why.startswith("capacity >= ")
    assert [one.outcome for one in found.attempts if one.rate == 160.0] == ["unfit", "unfit"]
    hiccup = search(script("pass", "unfit", "pass", "fail", *["fail"] * 3, "pass"), **HOW)
    assert hiccup.attempts[2].rate == hiccup.attempts[1].rate == 20 and hiccup.low == 20


def test_a_run_counts_as_the_one_that_was_asked_for_whatever_it_says_of_itself():
    """A run is a little shorter than planned and its rate is rounded; two runs that were unfit need not say the same of it."""
    asked = []

    def attempt(rate, seconds):
        asked.append((rate, seconds))
        word = service(70.0, 1.04, math.inf, generator=75.0)(rate, seconds).outcome
        return Attempt(round(rate), seconds * 0.999, word, why=f"{len(asked)}")

    found = search(attempt, **HOW)
    assert [(one.rate, one.seconds) for one in found.attempts] == asked and len(asked) < 30
    assert sum(one.outcome == "unfit" and one.rate == 80.0 for one in found.attempts) == 2


def test_a_service_that_bears_nothing_is_tried_down_to_the_floor():
    found = search(script(), start=10, ceiling=20, seconds=300, floor=1)
    assert (found.low, found.end, found.confirmed) == (0, "nothing", None)
    assert [one.rate for one in found.attempts] == [10, 5, 2.5, 1.25] and found.why == "no rate passed, down to 1.25 a second"


def test_a_pass_that_is_not_confirmed_counts_no_more_and_the_search_goes_on_below():
    lucky = search(script("pass", "pass", "pass", "fail", "pass", "fail", "fail", "fail"), **HOW)  # the eighth is the long run beneath
    long_run = lucky.attempts[7]
    assert long_run.outcome == "fail" and lucky.high <= long_run.rate and lucky.low < long_run.rate
    unsure = search(script("pass", "pass", "pass", "fail", "pass", "fail", "fail", "inconclusive", *["pass"] * 9), **HOW)
    assert unsure.attempts[7].seconds == 1200 and unsure.low < unsure.attempts[7].rate
    assert unsure.attempts[8].rate < unsure.attempts[7].rate


def test_between_two_runs_the_service_may_empty_its_queues():
    happened = []

    def attempt(rate, seconds):
        happened.append("run")
        return service(70.0)(rate, seconds)

    found = search(attempt, **HOW, drain=lambda: happened.append("drain"))
    assert happened == ["run", *["drain", "run"] * (len(found.attempts) - 1)]


@pytest.mark.parametrize("wrong", [{"start": 0.0}, {"start": 20_000.0}, {"ceiling": math.inf}, {"seconds": 0.0}, {"longest": 10.0}, {"width": 1.0}])
def test_what_is_no_search_is_refused_before_anything_is_sent(wrong):
    with pytest.raises(ValueError, match="no search"):
        search(pytest.fail, **{**HOW, **wrong})


# Against a queue


def over(load, limit):
    """P(an answer takes longer than `limit` service times) in M/D/1: Crommelin's formula, in service times."""
    wait = limit - 1
    terms = [(load * (k - wait)) ** k / math.factorial(k) * math.exp(load * (wait - k)) for k in range(math.floor(wait) + 1)]
    return 1 - (1 - load) * math.fsum(terms)


def borne(limit):
    near, far = 0.01, 0.99
    for _ in range(50):
        near, far = ((near + far) / 2, far) if over((near + far) / 2, limit) <= 0.01 else (near, (near + far) / 2)
    return near


def test_the_simulated_queue_follows_the_known_distribution_of_one_server():
    random, load = np.random.default_rng(1), 0.56
    took = latency(arrivals(random, load / SERVICE, 5000.0), 1)
    for limit in (2, 3, 5):
        assert (took > limit * SERVICE).mean() == pytest.approx(over(load, limit), rel=0.05)


def test_several_servers_take_who_comes_first():
    arrived = np.sort(np.random.default_rng(2).uniform(0, 1, 300))
    free, expected = [0.0] * 3, []
    for at in arrived:
        begins = max(at, min(free))
        free[free.index(min(free))] = begins + SERVICE
        expected.append(begins + SERVICE - at)
    assert latency(arrived, 3) == pytest.approx(expected)


def test_brackets_hold_the_capacity_of_one_server():
    truth = borne(5) / SERVICE
    assert borne(5) == pytest.approx(0.56, abs=0.005)
    found = [searched(seed, 1, 5 * SERVICE) for seed in range(4)]
    assert sum(one.low <= truth <= one.high for one in found) >= 3
    assert all(one.end == "found" and one.high <= 1.1 * one.low for one in found)
