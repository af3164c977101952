"""The promise of the sequential checks, tested as one: exactly where it can be summed, by the binomial test elsewhere, and against mutations."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import logsumexp

from checks import _sequential as seq

A = 100.0
LOW, HIGH = np.array([0.08, 0.47, 0.86]), np.array([0.12, 0.53, 0.91])
TOLERANCE = 0.02


def one_column(low=LOW, high=HIGH, tolerance=TOLERANCE, design=1.0):
    streams = len(low)
    return seq.bets(low, high, np.full(streams, tolerance), np.full(streams, design), np.zeros(streams, int))


@pytest.mark.parametrize("n", [1, 2, 10, 100, 1000])
def test_no_bet_is_worth_more_than_its_stake_anywhere_in_the_null(n):
    made, hits = one_column(), np.arange(n + 1)
    for stream in range(len(LOW)):
        mine = made.stream == stream
        gain = np.outer(hits, made.hit[mine]) + np.outer(n - hits, made.miss[mine])
        for share in np.linspace(LOW[stream] - TOLERANCE, HIGH[stream] + TOLERANCE, 25):
            assert logsumexp(stats.binom.logpmf(hits, n, share)[:, None] + gain, axis=0).max() <= 1e-9


def test_and_beyond_the_null_some_bet_is():
    made, n = one_column(), 100
    hits = np.arange(n + 1)
    mine = made.stream == 1
    gain = np.exp(np.outer(hits, made.hit[mine]) + np.outer(n - hits, made.miss[mine]))
    assert (stats.binom.pmf(hits, n, HIGH[1] + TOLERANCE + 0.05) @ gain).max() > 1.5


# P(alarm within t windows) <= t / A, on streams at the edge of the null. Streams without drift never alarm, and would prove nothing.

STREAMS, WINDOWS, ROWS = 400, 20, 200


def edge_of_the_null():
    """Cell shares that put every cut at the upper edge at once."""
    return np.diff([0.0, *(HIGH + TOLERANCE), 1.0])


def alarms(made, shares, repeat=1, clusters=1, streams=STREAMS, windows=WINDOWS):
    """In how many streams an alarm comes within the windows; rows come in `clusters` of equal ones, each window is counted `repeat` times."""
    random = np.random.default_rng(7)
    sums, alarmed = np.full((streams, len(made)), -np.inf), np.zeros(streams, bool)
    for _ in range(windows):
        cells = random.multinomial(ROWS // clusters, shares, size=streams) * clusters
        hits, rows = np.cumsum(cells, axis=1)[:, :-1].astype(float), np.full((streams, len(shares) - 1), float(ROWS))
        for _ in range(repeat):
            sums = seq.restarted(sums, seq.increments(made, hits, rows))
        alarmed |= seq.mean_log(seq.pooled(sums, made.column, made.columns)) >= math.log(A)
    return int(alarmed.sum())


def kept(count, streams=STREAMS, windows=WINDOWS):
    """Whether so many alarms are in keeping with at most windows / A of the streams."""
    return stats.binomtest(count, streams, windows / A, alternative="greater").pvalue > 0.001


def test_the_chance_of_a_false_alarm_within_t_windows_is_at_most_t_over_a():
    assert kept(alarms(one_column(), edge_of_the_null()))


def test_dependent_rows_keep_the_promise_once_the_design_effect_is_divided_out():
    assert kept(alarms(one_column(design=4.0), edge_of_the_null(), clusters=4))


@pytest.mark.parametrize("broken", ["no margin", "sign swapped", "window counted twice", "design effect ignored"])
def test_a_detector_that_is_broken_in_this_way_does_not_keep_the_promise(broken):
    made, shares, how = one_column(), edge_of_the_null(), {}
    if broken == "no margin":
        middle = (LOW + HIGH) / 2
        made = one_column(middle, middle, tolerance=1e-9)
    elif broken == "sign swapped":
        made = one_column(HIGH, LOW)
    elif broken == "window counted twice":
        how = {"repeat": 2}
    else:
        how = {"clusters": 4}
    assert not kept(alarms(made, shares, **how))


# Bounds of the reference


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 500), st.integers(1, 500), st.floats(1, 8))
def test_edges_are_clopper_and_pearsons_with_the_design_effect_divided_out(hits, rows, design):
    hits = min(hits, rows)
    low, high = (float(side[0]) for side in seq.edges(np.array([float(hits)]), np.array([float(rows)]), np.array([design]), 0.05))
    r, m = hits / design, rows / design
    assert low == pytest.approx(0.0 if not hits else stats.beta.ppf(0.025, r, m - r + 1), abs=1e-12)
    assert high == pytest.approx(1.0 if hits == rows else stats.beta.ppf(0.975, r + 1, m - r), abs=1e-12)


def test_without_a_design_effect_they_are_scipys_exact_interval():
    low, high = seq.edges(np.array([7.0]), np.array([90.0]), np.array([1.0]), 0.01)
    ci = stats.binomtest(7, 90).proportion_ci(0.99, method="exact")
    assert (low[0], high[0]) == pytest.approx((ci.low, ci.high), abs=1e-12)


# Sums


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=30))
def test_the_restarted_sum_is_the_sum_over_all_starts(increments):
    sums = np.array([-np.inf])
    for one in increments:
        sums = seq.restarted(sums, np.array([one]))
    starts = [math.exp(math.fsum(increments[start:])) for start in range(len(increments))]
    assert math.exp(sums[0]) == pytest.approx(math.fsum(starts), rel=1e-9)


def test_a_window_without_rows_changes_nothing():
    made = one_column()
    before = np.linspace(-2, 3, len(made))
    after = seq.restarted(before, seq.increments(made, np.zeros(3), np.zeros(3)))
    assert (after == before).all()


def test_packing_loses_no_bit():
    sums = np.array([-np.inf, 0.0, math.pi, 1e300])
    assert (seq.unpacked(seq.packed(sums)) == sums).all()


def test_a_column_s_evidence_is_the_mean_of_its_components_and_a_column_without_any_has_none():
    sums, column = np.log(np.array([1.0, 3.0, 10.0])), np.array([0, 0, 2])
    assert np.exp(seq.pooled(sums, column, 3)).tolist() == pytest.approx([2.0, 0.0, 10.0])


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([1.0, 1.0, 1.0], ()),
        ([301.0, 1.0, 1.0], (0,)),
        ([1.0, 151.0, 160.0], (2, 1)),  # each at least F A / 2
        ([101.0, 101.0, 101.0], (0, 1, 2)),
        ([299.0, 149.0, 1.0], ()),
    ],
)
def test_e_d_bh_names_the_largest_set_that_holds(evidence, expected):
    assert seq.named([math.log(value) for value in evidence], 100.0) == expected


def test_a_smaller_shift_is_found_in_more_windows_and_none_where_there_is_no_room():
    needed = math.log(2160 * 20 * 100)
    near, far = (seq.smallest_shift(0.49, 0.51, 0.02, 1.0, 1000, windows, needed) for windows in (2, 24))
    assert 0.03 < far < near < 0.2
    assert seq.smallest_shift(0.0, 1.0, 0.02, 1.0, 1000, 24, needed) == math.inf
    assert seq.smallest_shift(0.49, 0.51, 0.02, 1.0, 1, 1, needed) == math.inf
