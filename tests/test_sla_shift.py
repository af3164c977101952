"""The arithmetic of a regression and of a creep: against R's published answers, scipy, and worlds whose truth is known."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal, stats

from loadtests import _soak
from loadtests._regression import Floors, compared, design, hodges_lehmann, rank_sum, unlike, widened
from loadtests._soak import Resident, creep, resident
from loadtests._windows import alike, windows
from tests.traces import trace

# Permeability constants of the human chorioamnion at term, and between 12 and 26 weeks (Hollander and Wolfe 1973, page 69; R's ?wilcox.test)
TERM = np.array([0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46])
EARLY = np.array([1.15, 0.88, 0.90, 0.74, 1.21])
FEW = st.lists(st.integers(0, 6).map(float), min_size=2, max_size=7).map(np.array)


def test_the_published_example_comes_out_as_published():
    assert rank_sum(TERM, EARLY) == pytest.approx(0.1272, abs=5e-5)  # R: W = 35, p-value = 0.1272
    shift, interval = hodges_lehmann(TERM, EARLY)  # R, conf.int = TRUE: 0.305, -0.15 to 0.76
    assert shift == pytest.approx(0.305)
    assert interval == pytest.approx((-0.15, 0.76))


@settings(max_examples=15, deadline=None)
@given(FEW, FEW)
def test_the_chance_is_that_of_every_way_to_deal_the_values_ties_and_all(one, other):
    def ranks(one, other):
        return stats.rankdata(np.concatenate([one, other]))[: len(one)].sum()

    every = stats.permutation_test((one, other), ranks, alternative="greater", n_resamples=np.inf)
    assert rank_sum(one, other) == pytest.approx(every.pvalue)


def test_the_interval_holds_just_the_shifts_that_the_exact_test_does_not_reject():
    draw = np.random.default_rng(4)
    for _ in range(20):
        one, other = draw.normal(1, 1, 9), draw.normal(0, 2, 11)
        _, (low, high) = hodges_lehmann(one, other)

        def p(shift, one=one, other=other):
            return stats.mannwhitneyu(one - shift, other, method="exact").pvalue

        assert min(p(low + 1e-9), p(high - 1e-9)) > 0.05 >= max(p(low - 1e-9), p(high + 1e-9))


def test_a_hundred_windows_a_side_agree_with_the_normal_law():
    draw = np.random.default_rng(1)
    one, other = draw.gamma(2, 1, 100), draw.gamma(2, 1, 100)
    assert rank_sum(one, other) == pytest.approx(stats.mannwhitneyu(one, other, alternative="greater").pvalue, abs=0.002)


# Whole runs


def ran(seed, seconds=200, rate=50.0, slower=1.0, failing=0.0, spread=0.2):
    """A server of about 100 ms whose windows of 10 s differ among themselves, as real ones do."""
    draw = np.random.default_rng(seed)
    n = int(seconds * rate)
    mood = np.exp(draw.normal(0, spread / 4, int(seconds / 10) + 1))[(np.arange(n) / rate // 10).astype(int)]
    latency = 0.1 * slower * mood * np.exp(draw.normal(0, spread, n))
    latency[draw.random(n) < failing] = np.inf
    return windows(trace(latency, rate=rate), 10.0)


def outcomes(then, now, **floors):
    return {one.name: one.outcome for one in compared(then, now, Floors(**floors), 5.0)}


def test_the_same_server_passes_and_a_slower_one_fails_by_its_shift():
    assert set(outcomes(ran(1), ran(2)).values()) == {"pass"}
    found = {one.name: one for one in compared(ran(1), ran(3, slower=1.4), Floors(), 5.0)}
    assert found["p50"].outcome == found["p99"].outcome == "fail"
    assert found["p50"].interval[0] < 0.04 < found["p50"].interval[1]
    assert found["errors"].outcome == "pass"


def test_a_faster_server_passes():
    assert set(outcomes(ran(1), ran(3, slower=0.5)).values()) == {"pass"}


def test_a_sure_shift_that_is_too_small_to_matter_is_no_fail():
    found = {one.name: one for one in compared(ran(1, spread=0.05), ran(2, slower=1.05, spread=0.05), Floors(), 5.0)}
    assert found["p50"].p < 0.01
    assert found["p50"].outcome == "pass"
    assert outcomes(ran(1, spread=0.05), ran(2, slower=1.05, spread=0.05), relative=0.01, seconds=0.001)["p50"] == "fail"


def test_windows_too_noisy_to_tell_are_inconclusive_and_never_pass():
    assert outcomes(ran(1, spread=1.2), ran(2, spread=1.2))["p99"] == "inconclusive"


def test_more_errors_fail_where_no_latency_moved():
    found = compared(ran(1), ran(2, failing=0.03), Floors(), 5.0)
    assert found[0].outcome == "fail"
    by_name = {one.name: one for one in found}
    assert by_name["errors"].outcome == "fail"
    assert by_name["errors"].interval[0] > 0
    assert by_name["p50"].outcome == "pass"


def test_errors_in_one_burst_are_weighed_as_the_one_event_they_are():
    burst = np.full(10_000, 0.1)
    burst[4000:4250] = np.inf  # half a window: 2.5 % of all requests, in one stall
    then, now = ran(1), windows(trace(burst, rate=50.0), 10.0)
    assert design(now) > 100
    assert outcomes(then, now)["errors"] == "inconclusive"


def test_false_alarms_are_as_rare_as_promised_when_nothing_changed():
    told = [compared(ran(2 * seed, seconds=200, rate=5), ran(2 * seed + 1, seconds=200, rate=5), Floors(0, 0, 0), 5.0) for seed in range(60)]
    assert sum(one[0].outcome == "fail" for one in told) <= 3  # P(more than 3 of 60 at 1 %) = 0.3 %


def following(draw, n, alike):
    """Values of which each is drawn towards the one before: an AR(1) of that correlation."""
    return signal.lfilter([1.0], [1.0, -alike], draw.normal(size=n + 50))[50:]


def test_how_many_windows_count_as_one_is_what_theory_says():
    draw = np.random.default_rng(5)
    assert alike(following(draw, 4000, 0.5), following(draw, 4000, 0.5)) == pytest.approx(2.86, abs=0.25)  # (1 + r) / (1 - r), r = 0.48 of ranks
    assert alike(draw.normal(size=4000)) == pytest.approx(1.0, abs=0.05)
    assert alike(np.zeros(30), np.ones(30)) == 1.0
    assert alike(np.arange(100.0)) == pytest.approx(39)  # as alike as is believed: r = 0.95


def test_windows_that_follow_each_other_raise_few_more_alarms_than_those_that_do_not():
    """At r = 0.4 the bare test alarms 5 times in a hundred; the promise is 1."""
    draw = np.random.default_rng(6)
    sides = [(following(draw, 20, 0.4), following(draw, 20, 0.4)) for _ in range(300)]
    sure = [(one, other) for one, other in sides if rank_sum(one, other) <= 0.01]
    intervals = [(alike(one, other), *hodges_lehmann(one, other, 0.98)) for one, other in sure]
    assert len(sure) >= 12 >= 2 * sum(widened(interval, shift, many)[0] > 0 for many, shift, interval in intervals)


def test_an_interval_grows_with_the_root_of_the_windows_that_count_as_one():
    assert widened((-1.0, 3.0), 1.0, 4.0) == (-3.0, 5.0)


def test_a_shift_far_beyond_all_noise_fails_however_alike_neighbours_are():
    creeping = windows(trace(0.3 + np.arange(10_000) * 1e-7, rate=50.0), 10.0)
    then = windows(trace(np.full(10_000, 0.001), rate=50.0), 10.0)
    assert outcomes(then, creeping)["p50"] == "fail"


def test_what_cannot_be_compared_says_why():
    assert "20 a side are needed" in unlike(ran(1, seconds=100), ran(2), 20)
    assert "5 s long" in unlike(windows(trace(np.full(10_000, 0.1), rate=50.0), 5.0), ran(1), 20)
    assert "40 requests a second" in unlike(ran(1, rate=40.0), ran(2), 20)
    assert "make them longer" in unlike(ran(1, seconds=1200, rate=2.0), ran(2, rate=2.0), 20)
    assert unlike(ran(1), ran(2), 20) == ""


# A creep

HOURS = np.arange(100) * 36.0  # an hour in a hundred windows


def crept(values, limit=1.0, horizon=24.0):
    return creep("p99", "s", HOURS, np.asarray(values, float), limit, horizon)


def test_the_slope_and_its_interval_are_those_of_scipy():
    values = 0.1 + 0.2 * HOURS / 3600 + np.random.default_rng(2).normal(0, 0.01, 100)
    slope, _, low, high = stats.theilslopes(values, HOURS / 3600, 0.95)
    found, wider = crept(values), np.sqrt(alike(values - slope * HOURS / 3600))
    assert found.slope == slope
    assert found.interval == pytest.approx((slope - wider * (slope - low), slope + wider * (high - slope)))
    assert found.outcome == "fail"
    assert found.reaches == pytest.approx((1.0 - np.median(values[-10:])) / slope)


def test_a_wave_around_the_line_is_no_creep():
    draw = np.random.default_rng(7)
    up = [crept(0.1 + 0.01 * following(draw, 100, 0.6)).interval[0] > 0 for _ in range(200)]
    assert sum(up) <= 14  # scipy's own interval: 16 % of them; 2.5 % is promised where windows do not follow each other


def test_what_stands_still_passes_and_noise_too_wide_is_inconclusive():
    noise = np.random.default_rng(3).normal(0, 1, 100)
    assert crept(0.1 + 0.001 * noise).outcome == "pass"
    assert crept(0.1 + 0.2 * noise, horizon=24).outcome == "inconclusive"
    assert crept(np.full(100, 0.1)).outcome == "pass"


def test_a_rise_that_would_take_longer_than_the_horizon_passes():
    rising = 0.1 + 0.01 * HOURS / 3600 + np.random.default_rng(2).normal(0, 0.0001, 100)
    assert crept(rising, horizon=24).outcome == "pass"
    assert crept(rising, horizon=200).outcome == "fail"


def test_a_server_that_breaks_down_at_the_end_fails_although_the_slope_never_saw_it():
    late = np.full(100, 0.1)
    late[90:] = 5.0
    found = crept(late)
    assert found.slope == 0
    assert (found.outcome, found.why) == ("fail", "above its limit at the end")


def test_windows_without_a_value_are_left_out_and_too_few_of_them_judge_nothing():
    holes = np.full(100, 0.1)
    holes[::2] = np.nan
    assert (crept(holes).outcome, crept(holes).n) == ("pass", 50)
    holes[15:] = np.nan
    assert crept(holes).outcome == "inconclusive"


# Memory of a process here

HOLDS = "import sys; held = bytearray(int(sys.argv[1])); held[::4096] = b'x' * len(held[::4096]); print('held', flush=True); sys.stdin.read()"


def holding(size):
    child = subprocess.Popen([sys.executable, "-c", HOLDS, str(size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"held\n"
    return child


def test_the_memory_of_a_process_is_read_with_that_of_what_it_started():
    child = holding(50_000_000)
    try:
        assert 50_000_000 < resident(child.pid) < 100_000_000
        assert resident(os.getpid()) >= resident(child.pid) + 10_000_000
    finally:
        child.communicate()
    assert resident(child.pid) == 0


def test_readings_are_put_into_their_windows_and_a_window_without_one_is_not_a_number():
    now = [0.0]
    seen = Resident(os.getpid(), lambda: now[0])
    for at in (1.0, 2.0, 11.0, 35.0):
        now[0] = at
        seen.look()
    over = seen.over([0, 10, 20, 30, 40])
    assert list(np.isnan(over)) == [False, False, True, False]
    assert over[0] == np.median(seen.bytes[:2])


def test_readings_from_before_the_first_request_are_of_before_the_run():
    now, heard = [0.0], []
    seen = Resident(os.getpid(), lambda: now[0])
    tell = seen.told(lambda done, what: heard.append(done))
    for at, done in ((1.0, 0.0), (2.0, 0.0), (2.5, 0.25), (3.0, 0.5)):
        now[0] = at
        tell(done, "")
    assert seen.at == [0.0, 0.5, 1.0]
    assert heard == [0.0, 0.0, 0.25, 0.5]


def test_an_hour_of_leak_is_found_and_said_when_it_ends():
    leak = 2e9 + 1e8 * HOURS / 3600 + 5e6 * np.sin(HOURS)
    found = creep("memory", "B", HOURS, leak, 2.4e9, 24.0)
    assert found.outcome == "fail"
    assert found.reaches == pytest.approx(3.05, abs=0.1)
    assert _soak.HOUR == 3600
