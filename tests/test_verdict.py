"""The verdict on one quantile: held against scipy, against runs whose truth is known, and against what spoils the rules it replaces."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats as oracle

from benchmarks._stalls import Part, drawn
from loadtests import _bursts
from loadtests._verdict import judge, needed_seconds, outcome, percentile, supports

RATE, ALLOWED, RISK = 200, 0.01, 0.05
due = np.arange(300 * RATE) / RATE  # five minutes


def late(share, how="single", lasts=0.0):
    return (Part(how, lasts, share),)


HALF = 1 - (1 - ALLOWED) ** 0.5
MIXED = (Part("single", 0.0, HALF), Part("poisson", 1.0, HALF))


def words(parts, seconds, runs=200, seed=3):
    return Counter(outcome(run, ALLOWED, RISK)[0] for run in drawn(np.random.default_rng(seed), runs, seconds, parts))


def kept(wrong, runs, promised=0.05):
    """Whether so many wrong ones of so many runs are in keeping with what is promised."""
    return oracle.binomtest(wrong, runs, promised, alternative="greater").pvalue > 0.001


# The arithmetic


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.05, 0.01]))
def test_bounds_of_whole_counts_are_scipys_exact_interval(seen, risk):
    over, n = seen
    theirs = oracle.binomtest(over, n).proportion_ci(1 - 2 * risk, method="exact")
    assert _bursts.exact(over, n, risk) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@pytest.mark.parametrize("cells", [298, 299, 1000])
def test_where_every_cell_is_clean_or_whole_the_bet_is_clopper_and_pearsons_bound_or_wider(cells):
    def refuted(bad):
        return _bursts.refuted(np.array([0.0, 1.0]), np.array([cells - bad, bad], dtype=float), ALLOWED, RISK)

    for bad in range(20):
        theirs = oracle.binomtest(bad, cells).proportion_ci(1 - 2 * RISK, method="exact").high
        assert not refuted(bad) or theirs <= ALLOWED * 1.01
    assert refuted(0) == (cells >= 299)


def test_a_cell_begins_where_a_request_is_late_so_that_none_cuts_a_burst_in_two():
    run = _bursts.Run(1000, np.arange(95, 105), 10.0)
    x, count = _bursts.cells(run)
    assert dict(zip(x.tolist(), count.tolist(), strict=True)) == {1.0: 1.0, 0.0: 99.0}


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 999), max_size=300), st.floats(1.0, 50.0))
def test_cells_hold_every_late_request_and_are_no_more_than_the_run_has_room_for(places, burst):
    x, count = _bursts.cells(_bursts.Run(1000, np.array(sorted(places), dtype=np.int64), burst))
    assert ((x >= 0) & (x <= 1)).all() and count.sum() <= 1000 / burst + 1
    assert (x * count).sum() * burst <= len(places) + 1e-6
    assert burst != round(burst) or (x * count).sum() * burst == pytest.approx(len(places))


def test_independent_requests_count_as_one_each_and_a_stall_as_one():
    for parts, low, high in ((late(0.01), 1.0, 1.3), (late(0.01, "poisson", 0.2), 30, 45), (late(0.01, "poisson", 1.0), 170, 210)):
        seen = [_bursts.design(run) for run in drawn(np.random.default_rng(1), 60, 900, parts)]
        assert low <= np.median(seen) <= high


def test_a_burst_on_a_ramp_holds_more_than_the_mean_rate_says_and_chance_alone_makes_no_difference():
    random, seconds = np.random.default_rng(1), 300.0
    steady, at_random, ramp = np.arange(60_000) / 200, np.sort(random.uniform(0, seconds, 60_000)), seconds * np.sqrt(random.uniform(0, 1, 60_000))
    assert _bursts.held(steady, seconds, 1.0) == pytest.approx(200)
    assert _bursts.held(at_random, seconds, 1.0) == pytest.approx(200, rel=1e-3)
    assert _bursts.held(np.sort(ramp), seconds, 1.0) == pytest.approx(200 * 4 / 3, rel=0.01)  # the mean of r^2 over the squared mean of r


# What is promised, and what breaks it


@pytest.mark.parametrize("seconds", [300, 600])
@pytest.mark.parametrize("how", ["poisson", "periodic"])
@pytest.mark.parametrize("lasts", [1 / 3, 0.6, 1.0])
def test_a_run_exactly_at_the_limit_passes_at_most_one_time_in_twenty_whatever_its_stalls(how, lasts, seconds):
    assert kept(words(late(ALLOWED, how, lasts), seconds)["pass"], 200)


@pytest.mark.parametrize("seconds", [300, 900])
@pytest.mark.parametrize("parts", [late(ALLOWED), MIXED], ids=["independent", "half in stalls"])
def test_nor_when_requests_are_independent_or_half_of_them_are(parts, seconds):
    assert kept(words(parts, seconds)["pass"], 200)


def test_a_rule_for_independent_requests_passes_a_third_of_them():
    runs = drawn(np.random.default_rng(3), 200, 300, late(ALLOWED, "poisson", 0.6))
    assert sum(_bursts.exact(len(run.late), run.n, RISK)[1] <= ALLOWED for run in runs) >= 60


def test_the_design_effect_alone_passes_one_in_eight_where_stalls_are_rare_and_something_else_is_frequent():
    wrong = 0
    for run in drawn(np.random.default_rng(3), 200, 300, MIXED):
        one = _bursts.design(run)
        wrong += _bursts.exact(len(run.late) / one, run.n / one, RISK)[1] <= ALLOWED
    assert wrong >= 25 and not kept(wrong, 200)


def test_longer_stalls_than_it_is_valid_for_do_break_it_and_a_longer_burst_mends_it():
    stalls = late(ALLOWED, "poisson", 5.0)
    assert words(stalls, 300)["pass"] >= 80
    allowed_for = [outcome(run, ALLOWED, RISK)[0] for run in drawn(np.random.default_rng(3), 100, 1500, stalls, burst=5.0)]
    assert kept(allowed_for.count("pass"), 100)


@pytest.mark.parametrize("parts", [late(0.008), late(0.008, "poisson", 0.6), late(0.008, "poisson", 1.0), late(0.008, "periodic", 1.0)])
def test_a_share_of_four_fifths_of_what_is_allowed_hardly_ever_fails(parts):
    for seconds in (60, 300):
        assert kept(words(parts, seconds)["fail"], 200)


def test_a_quarter_of_what_is_allowed_passes_in_fifteen_minutes_and_five_times_as_much_fails_in_one():
    assert words(late(0.0025, "poisson", 0.6), 900)["pass"] >= 0.9 * 200
    assert words(late(0.05), 60)["fail"] == 200
    assert words(late(0.1, "poisson", 0.6), 120)["fail"] >= 190


def test_stalls_in_step_with_the_windows_that_are_counted_do_not_pass():
    """One of 0.1 s every 10 s looks like no spread at all."""
    runs = drawn(np.random.default_rng(3), 40, 305, late(ALLOWED, "periodic", 0.1), rate=2000)
    assert all(outcome(run, ALLOWED, RISK)[0] == "inconclusive" for run in runs)


# What a run is told


def test_a_clean_run_passes_from_299_bursts_on_and_never_before():
    for seconds, burst, word in ((298.9, 1.0, "inconclusive"), (299, 1.0, "pass"), (30, 0.1, "pass"), (29.8, 0.1, "inconclusive")):
        n = round(seconds * RATE)
        assert judge(np.arange(n) / RATE, np.full(n, 0.01), limit=0.1, burst=burst).outcome == word
    assert needed_seconds(0.99, 1.0) == 299 and needed_seconds(0.999, 1.0) == 2995 and needed_seconds(0.99, 0.1, 0.99) == pytest.approx(45.9)


def test_few_requests_need_as_many_as_bursts_would():
    """At a request every two seconds a burst of one second is one request."""
    for n, word in ((298, "inconclusive"), (299, "pass")):
        assert judge(np.arange(n) * 2.0, np.full(n, 0.01), limit=0.1).outcome == word


def test_it_says_what_it_saw_how_sure_it_is_what_is_missing_and_for_which_bursts():
    took = np.where(np.arange(60_000) % 250 == 0, 0.2, 0.01)  # 0.4 %, one at a time
    seen = judge(due, took, limit=0.1)
    assert (seen.outcome, seen.n, seen.over, seen.share, seen.seconds) == ("inconclusive", 60_000, 240, 0.004, 300.0)
    assert seen.why == (
        f"0.4 % of 60,000 requests took over 0.1 s and 1 % may; between {100 * seen.share_interval[0]:.3g} % and {100 * seen.share_interval[1]:.3g} %"
        f" with 95 % confidence; {math.ceil(seen.missing)} s more of the same would PASS; valid for bursts up to 1 s"
    )


def test_what_is_missing_is_what_more_of_the_same_needs():
    for every in (200, 250, 500, 10_000):
        took = np.where(np.arange(30_000) % every == 0, 0.2, 0.01)
        seen = judge(due[:30_000], took, limit=0.1)
        assert seen.missing is not None
        for n, word in ((30_000 + seen.missing * RATE * 1.03, "pass"), (30_000 + seen.missing * RATE * 0.9, "inconclusive")):
            longer = np.arange(math.ceil(n))
            assert judge(longer / RATE, np.where(longer % every == 0, 0.2, 0.01), limit=0.1).outcome == word


def test_where_more_of_the_same_would_never_pass_it_says_so():
    took = np.where(np.arange(60_000) % 100 == 0, 0.2, 0.01)
    seen = judge(due, took, limit=0.1)
    assert (seen.outcome, seen.missing) == ("inconclusive", None) and "more of the same would not PASS" in seen.why
    assert judge(due, np.full(60_000, 0.2), limit=0.1).missing is None


def test_a_quantile_that_the_run_cannot_support_is_refused():
    seen = judge(due, np.full(60_000, 0.01), limit=0.1, quantile=0.999)
    assert seen.outcome == "inconclusive" and seen.missing == pytest.approx(2695, rel=1e-3)
    assert "p99.9 is not supported by a run of 300 s: it takes 2,995 s even when all are in time" in seen.why
    assert not supports(300, 200, 0.999) and supports(2995, 200, 0.999) and supports(300, 200, 0.99) and not supports(300, 0.5, 0.99)
    assert judge(due, np.full(60_000, 0.2), limit=0.1, quantile=0.999).outcome == "fail", "that much it can say"


@settings(max_examples=40, deadline=None)
@example(145, 0.99, 0.5)  # at 0.29 s it would PASS, and at 0.5 s, where fewer are late and all of them together, it does not
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.9, 0.99]), st.floats(0.02, 0.5))
def test_the_interval_holds_what_was_observed_and_the_outcome_follows_from_it(seed, quantile, limit):
    random = np.random.default_rng(seed)
    n = int(random.integers(200, 4000))
    took = random.exponential(0.05, n) + 0.5 * (random.random(n) < random.uniform(0, 0.02))
    seen = judge(np.sort(random.uniform(0, 40, n)), took, limit=limit, quantile=quantile, burst=0.1)
    low, high = seen.interval
    assert low <= seen.observed <= high
    assert seen.share_interval[0] <= seen.share <= seen.share_interval[1]
    assert (seen.outcome == "pass") == (high <= limit) and (seen.outcome == "fail") == (low > limit)
    assert (seen.outcome == "pass") == (seen.missing == 0.0)


def test_for_independent_requests_the_interval_is_about_the_exact_one_of_order_statistics():
    took = np.random.default_rng(5).exponential(1.0, 40_000)
    low, high = judge(np.arange(40_000.0), took, limit=100.0).interval  # a request a second: no burst holds two
    rising = np.sort(took)
    ranks = oracle.binom.ppf([0.05, 0.95], 40_000, 0.99).astype(int)
    assert (low, high) == pytest.approx(tuple(rising[ranks]), rel=0.03)


def test_words_for_quantiles():
    assert [percentile(q) for q in (0.5, 0.99, 0.999, 0.9999)] == ["p50", "p99", "p99.9", "p99.99"]


# Input that is odd


def test_no_request_is_no_verdict():
    seen = judge([], [], limit=0.1)
    assert (seen.outcome, seen.n, seen.missing) == ("inconclusive", 0, None) and math.isnan(seen.observed)
    assert seen.why == "no request was sent, so nothing is known; valid for bursts up to 1 s"


def test_an_answer_that_never_came_is_over_every_limit():
    for nothing in (math.inf, math.nan, -math.inf):
        seen = judge(due, np.full(60_000, nothing), limit=math.inf)
        assert (seen.outcome, seen.over, seen.observed, seen.interval) == ("fail", 60_000, math.inf, (math.inf, math.inf))


def test_a_latency_at_the_limit_is_within_it():
    assert judge(due, np.full(60_000, 0.1), limit=0.1).outcome == "pass"
    assert judge(due, np.full(60_000, 0.1), limit=np.nextafter(0.1, 0)).outcome == "fail"


def test_an_answer_before_its_time_is_in_time():
    assert judge(due, np.full(60_000, -1e-4), limit=0.1).outcome == "pass"


def test_all_at_one_moment_are_one_observation():
    seen = judge(np.zeros(5000), np.where(np.arange(5000) < 2500, 0.2, 0.01), limit=0.1)
    assert seen.design == 5000 and seen.missing is None
    assert judge(np.zeros(5000), np.full(5000, 0.01), limit=0.1).outcome == "inconclusive"


def test_one_request_is_not_enough_to_pass():
    assert judge([3.0], [0.01], limit=0.1).outcome == "inconclusive"


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_the_requests_makes_no_difference(seed):
    random = np.random.default_rng(seed)
    at, took = np.sort(random.uniform(0, 50, 3000)), random.exponential(0.03, 3000)
    mixed = random.permutation(3000)
    assert judge(at, took, limit=0.1) == judge(at[mixed], took[mixed], limit=0.1)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(allow_nan=True, allow_infinity=True)), max_size=50),
    st.floats(1e-9, 1e9),
    st.sampled_from([0.5, 0.95, 0.99, 0.999]),
    st.floats(1e-6, 1e6),
)
def test_no_run_however_odd_breaks_it_and_none_so_short_passes_p99(requests, limit, quantile, burst):
    at, took = ([one[place] for one in requests] for place in (0, 1))
    seen = judge(at, took, limit=limit, quantile=quantile, burst=burst)
    assert seen.outcome in ("pass", "fail", "inconclusive") and (quantile < 0.9 or seen.outcome != "pass")
    assert f"valid for bursts up to {burst:g} s" in seen.why
    assert 0 <= seen.share_interval[0] <= seen.share <= seen.share_interval[1] <= 1 and 1 <= seen.design <= max(seen.n, 1)


@pytest.mark.parametrize(
    ("at", "took", "how", "said"),
    [
        ([0.0, 1.0], [0.1], {}, "one intended time and one latency"),
        ([0.0, math.nan], [0.1, 0.1], {}, "no part of the schedule"),
        ([0.0], [0.1], {"limit": 0.0}, "no verdict"),
        ([0.0], [0.1], {"limit": math.nan}, "no verdict"),
        ([0.0], [0.1], {"quantile": 1.0}, "no verdict"),
        ([0.0], [0.1], {"burst": 0.0}, "no verdict"),
        ([0.0], [0.1], {"burst": math.inf}, "no verdict"),
        ([0.0], [0.1], {"confidence": 1.0}, "no verdict"),
    ],
)
def test_what_is_no_run_or_no_limit_is_refused(at, took, how, said):
    with pytest.raises(ValueError, match=said):
        judge(at, took, **{"limit": 0.1, **how})
