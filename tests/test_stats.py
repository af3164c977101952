"""Intervals and joint p-values, held against scipy and against their own promises."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as oracle

from agent import stats

counts = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
p_values = st.lists(st.floats(0, 1), min_size=1, max_size=40)


@given(counts, st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_and_clopper_pearson_are_scipys(seen, level):
    hits, n = seen
    for ours, method in ((stats.wilson, "wilson"), (stats.clopper_pearson, "exact")):
        theirs = oracle.binomtest(hits, n).proportion_ci(level, method=method)
        assert ours(hits, n, level) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@given(counts)
def test_an_interval_holds_what_was_observed(seen):
    hits, n = seen
    for low, high in (stats.wilson(hits, n), stats.clopper_pearson(hits, n)):
        assert 0 <= low <= hits / n <= high <= 1


@pytest.mark.parametrize(("n", "share"), [(10, 0.01), (30, 0.3), (200, 0.5), (200, 0.002)])
def test_clopper_pearson_covers_at_least_its_level(n, share):
    chance = oracle.binom.pmf(np.arange(n + 1), n, share)
    covered = sum(p for hits, p in enumerate(chance) if stats.clopper_pearson(hits, n)[0] <= share <= stats.clopper_pearson(hits, n)[1])
    assert covered >= 0.95


def test_nothing_seen_says_nothing():
    assert stats.wilson(0, 0) == stats.clopper_pearson(0, 0) == (0.0, 1.0)
    assert stats.difference(0, 0, 3, 4) == (-1.0, 1.0)
    with pytest.raises(ValueError, match="5 of 4"):
        stats.wilson(5, 4)


def test_newcombes_published_example_is_reproduced():
    assert stats.difference(56, 70, 48, 80) == pytest.approx((0.0524, 0.3339), abs=5e-5)


@given(counts, counts)
def test_a_difference_turned_round_is_its_mirror(one, other):
    low, high = stats.difference(*one, *other)
    assert stats.difference(*other, *one) == pytest.approx((-high, -low), abs=1e-12)


@given(st.integers(1, 800), st.floats(0.01, 0.99))
def test_quantile_ranks_cover_at_least_their_level_and_are_the_closest_that_do(n, share):
    low, high = stats.quantile_ranks(n, share)
    assert oracle.binom.cdf(low - 1, n, share) <= 0.025 + 1e-9
    assert oracle.binom.cdf(high - 1, n, share) >= 0.975 - 1e-9
    assert oracle.binom.cdf(low, n, share) > 0.025 - 1e-9 or low == n
    assert high == n + 1 or oracle.binom.cdf(high - 2, n, share) < 0.975 + 1e-9


def test_few_values_bound_no_far_quantile():
    assert stats.quantile_interval([1.0, 2.0, 3.0], 0.99) == (2.0, math.inf) or stats.quantile_interval([1.0, 2.0, 3.0], 0.99)[1] == math.inf
    assert stats.quantile_interval([], 0.5) == (-math.inf, math.inf)
    low, high = stats.quantile_interval([float(value) for value in range(1, 10_001)], 0.99)
    assert 9870 < low < 9900 < high < 9925


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0.01, 0.99))
def test_a_quantile_is_numpys_inverted_cdf(values, share):
    if abs(share * len(values) - round(share * len(values))) < 1e-6:
        return  # on the edge of a step two roundings may differ
    assert stats.quantile(sorted(values), share) == np.quantile(values, share, method="inverted_cdf")


@given(p_values)
def test_benjamini_hochberg_is_scipys(ps):
    assert stats.benjamini_hochberg(ps) == pytest.approx(oracle.false_discovery_control(ps), abs=1e-12)


@given(p_values)
def test_holm_is_the_step_down_of_its_definition(ps):
    adjusted = stats.holm(ps)
    order = sorted(range(len(ps)), key=lambda place: ps[place])
    called = []
    for rank, place in enumerate(order):
        if ps[place] > 0.05 / (len(ps) - rank):
            break
        called.append(place)
    assert (
        {place for place, p in enumerate(adjusted) if p <= 0.05 - 1e-12}
        <= set(called)
        <= {place for place, p in enumerate(adjusted) if p <= 0.05 + 1e-12}
    )


@given(p_values, st.randoms())
def test_adjusting_does_not_depend_on_the_order(ps, random):
    places = list(range(len(ps)))
    random.shuffle(places)
    for adjust in (stats.benjamini_hochberg, stats.holm):
        shuffled = adjust([ps[place] for place in places])
        assert [adjust(ps)[place] for place in places] == pytest.approx(list(shuffled), abs=1e-12)


def test_what_is_no_p_value_is_refused():
    for wrong in ([math.nan], [1.2], [-0.1]):
        with pytest.raises(ValueError, match="p-value"):
            stats.benjamini_hochberg(wrong)
    assert stats.holm([]) == stats.benjamini_hochberg([]) == ()
