"""What stands beside drift.compare's verdicts: every distance against scipy or by hand, and that none of them decides anything."""

import json
import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats as oracle
from scipy.spatial import distance as spatial

from checks import _distances
from checks.drift import compare
from tests.test_drift import pair, rows

values = st.lists(st.one_of(st.integers(-4, 4).map(float), st.floats(-1e6, 1e6, width=32)), min_size=2, max_size=60)
counts = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=12)


def ordered(found):
    return np.sort(np.asarray(found, dtype=float))


def full(one, other):
    return _distances.of_numbers(ordered(one), ordered(other), True)


SAMPLES = [
    pytest.param(lambda rng: (rng.normal(0.1, 1, 300), rng.normal(0, 1, 500)), id="small"),
    pytest.param(lambda rng: (rng.normal(0, 1, 100_000), rng.normal(0, 1, 90_000)), id="no difference, 100,000"),
    pytest.param(lambda rng: (rng.lognormal(0.02, 1, 90_000), rng.lognormal(0, 1, 100_000)), id="skewed, 100,000"),
    pytest.param(lambda rng: (rng.poisson(3.1, 50_000), rng.poisson(3, 20_000)), id="ties"),
    pytest.param(lambda rng: (rng.normal(5, 1e-3, 400), rng.normal(0, 1e3, 150)), id="far apart"),
]


@pytest.mark.parametrize("draw", SAMPLES)
def test_distances_over_all_values_are_scipys(draw):
    one, other = draw(np.random.default_rng(5))
    found = full(one, other)
    assert found.wasserstein == pytest.approx(oracle.wasserstein_distance(one, other), rel=1e-12)
    assert found.wasserstein_sd == pytest.approx(oracle.wasserstein_distance(one, other) / np.std(other), rel=1e-12)
    assert found.energy == pytest.approx(oracle.energy_distance(one, other), rel=1e-12)
    theirs = oracle.cramervonmises_2samp(one, other, method="asymptotic")
    size = len(one) * len(other) / (len(one) + len(other))  # scipy takes two numbers of this size from one another, and keeps what digits are left
    assert found.cramer_von_mises == pytest.approx(theirs.statistic, rel=1e-12, abs=1e-14 * size)
    assert found.cramer_von_mises_p == pytest.approx(theirs.pvalue, abs=1e-7), "scipy ends its series at terms of 1e-7"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the p-value, which we do not give
        assert found.anderson_darling == pytest.approx(oracle.anderson_ksamp([one, other]).statistic, rel=1e-12)


@given(values, values)
def test_the_cramer_von_mises_statistic_is_exact(one, other):
    ranks = oracle.rankdata([*sorted(one), *sorted(other)])
    n, m = len(one), len(other)
    mine = sum((Fraction(rank) - place) ** 2 for place, rank in enumerate(ranks[:n], 1))
    yours = sum((Fraction(rank) - place) ** 2 for place, rank in enumerate(ranks[n:], 1))
    exact = Fraction(n * mine + m * yours, n * m * (n + m)) - Fraction(4 * n * m - 1, 6 * (n + m))
    assert full(one, other).cramer_von_mises == pytest.approx(float(exact), rel=1e-14)


@given(values, values)
def test_distances_are_the_same_the_other_way_round_except_those_from_the_reference(one, other):
    here, there = full(one, other), full(other, one)
    for name in ("wasserstein", "energy", "cramer_von_mises", "cramer_von_mises_p", "anderson_darling"):
        mine, yours = getattr(here, name), getattr(there, name)
        assert mine == yours or mine == pytest.approx(yours, rel=1e-9, abs=1e-12)


@given(counts)
def test_distances_over_cells_are_scipys(cells):
    now, then = np.array(cells, dtype=float).T
    assume(now.sum() and then.sum())
    found = _distances.over_cells(now, then)
    p, q = now / now.sum(), then / then.sum()
    assert found.js_distance == pytest.approx(np.nan_to_num(spatial.jensenshannon(p, q, base=2)), abs=1e-7)  # a root: half of the digits
    assert found.js_divergence == pytest.approx(np.nan_to_num(spatial.jensenshannon(p, q, base=2)) ** 2, abs=1e-12)
    assert found.hellinger == pytest.approx(np.linalg.norm(np.sqrt(p) - np.sqrt(q)) / math.sqrt(2), rel=1e-12)
    assert found.total_variation == pytest.approx(np.abs(p - q).sum() / 2, rel=1e-12)
    if (now > 0).all() and (then > 0).all():
        assert found.kl == pytest.approx(oracle.entropy(p, q), rel=1e-12, abs=1e-14)
        assert found.psi == pytest.approx(oracle.entropy(p, q) + oracle.entropy(q, p), rel=1e-12, abs=1e-14)


def test_the_population_stability_index_by_hand():
    found = _distances.of_categories({"a": 30, "b": 70}, {"a": 50, "b": 50})
    assert found.psi == pytest.approx(-0.2 * math.log(0.6) + 0.2 * math.log(1.4))
    assert found.cells == 2
    deciles = full([*range(100), *[95] * 100], range(100))
    assert deciles.psi == pytest.approx(9 * (0.05 - 0.1) * math.log(0.5) + (0.55 - 0.1) * math.log(5.5)), (
        "ten cells of ten, and half of live in the last"
    )


def test_an_empty_cell_counts_as_half_a_row():
    found = _distances.of_categories({"a": 20}, {"a": 10, "b": 10})
    p, q = 20 / 20.5, 10 / 20
    assert found.psi == pytest.approx((p - q) * math.log(p / q) + (0.5 / 20.5 - 0.5) * math.log(0.5 / 20.5 / 0.5))
    assert found.hellinger == pytest.approx(math.sqrt(1 - math.sqrt(0.5))), "only logarithms need it"
    assert _distances.of_categories({"a": 5, "gone": 0}, {"a": 9, "gone": 0}).cells == 1


def test_what_lies_below_a_value_that_fills_deciles_is_a_cell_of_its_own():
    assert full([-1.0] * 50 + [0.0] * 50, [0.0] * 100).total_variation == 0.5
    assert full([0.0] * 100, [0.0] * 50 + [1.0] * 50).total_variation == 0.5
    assert full([2.0] * 100, [1.0] * 100).total_variation == 1.0


def test_where_a_distance_means_nothing_there_is_none():
    same = full([1.0] * 10, [1.0] * 10)
    assert (same.psi, same.wasserstein, same.energy) == (0, 0, 0)
    assert (same.wasserstein_sd, same.anderson_darling) == (None, None), "one value has neither spread nor order"
    endless = full([1.0, math.inf], [1.0, 2.0])
    assert (endless.wasserstein, endless.energy, endless.wasserstein_sd) == (None, None, None)
    assert endless.cramer_von_mises == pytest.approx(full([1.0, 3.0], [1.0, 2.0]).cramer_von_mises), "ranks know no infinity"
    assert full([-1.7e308], [1.7e308]).wasserstein is None


def test_they_decide_nothing_and_the_scheduled_check_leaves_out_what_costs(tmp_path):
    live, reference = pair(tmp_path, rows(), rows(900, seed=2))
    brief, whole = compare(live, reference), compare(live, reference, describe=True)
    assert (brief.status, brief.reason, brief.parts) == (whole.status, whole.reason, whole.parts)
    short, long = ({line["name"]: line["distances"] for line in json.loads(one.data["compare.json"])["comparisons"]} for one in (brief, whole))
    assert short["x"]["psi"] == long["x"]["psi"] < 0.2
    assert short["x"]["wasserstein"] is None
    assert 0 < long["x"]["wasserstein"] < 0.3
    assert long["city"]["wasserstein"] is None, "categories have no order"
