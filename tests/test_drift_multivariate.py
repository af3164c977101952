"""drift.multivariate: its kernel test against loops in float64, its level by simulation, its floor at large n, its words on real tables."""

import json
import math
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as oracle
from scipy.spatial.distance import cdist, pdist

from agent import Status, Window
from agent.errors import DataError
from checks import _discriminant, _encode, _mmd
from checks.drift import multivariate
from tests.logs import LOG, START, log_rows, opened, write


def normal(rng, rows, columns):
    return rng.standard_normal((rows, columns)).astype(np.float32)


def naive(x, y, bandwidth):
    """The unbiased squared discrepancy by its definition, pair by pair, in float64."""
    k = lambda a, b: math.exp(-float(((a.astype(float) - b.astype(float)) ** 2).sum()) / (2 * bandwidth**2))  # noqa: E731
    n, m = len(x), len(y)
    within = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    other = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within + other - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


# The kernel test


@pytest.mark.parametrize(("n", "m", "d", "shift"), [(2, 2, 1, 0), (9, 25, 3, 0.5), (40, 40, 8, 0), (30, 12, 50, 1)])
def test_the_discrepancy_is_that_of_a_plain_double_loop(n, m, d, shift):
    rng = np.random.default_rng(n)
    x, y = normal(rng, n, d) + np.float32(shift), normal(rng, m, d)
    found = _mmd.test(x, y, 20, 1)
    assert found.squared == pytest.approx(naive(x, y, found.bandwidth), abs=1e-6)


def test_its_p_value_is_that_of_a_plain_loop_over_the_same_permutations():
    rng = np.random.default_rng(3)
    x, y = normal(rng, 15, 3) + np.float32(0.4), normal(rng, 20, 3)
    both, found = np.concatenate([x, y]), _mmd.test(x, y, 60, 5)
    again = np.random.default_rng(5)
    width = _discriminant.median_distance(both, again)
    labels = _mmd.labels(15, 35, 60, again)
    values = [naive(both[column == 1], both[column == 0], width) for column in labels]
    assert found.p == (1 + sum(one >= values[0] - _mmd.SLACK for one in values[1:])) / 61
    assert found.by_chance == pytest.approx(np.quantile(values[1:], 0.95), abs=1e-6)
    assert (labels.sum(axis=1) == 15).all() and (labels[0, :15] == 1).all()


def test_the_bandwidth_is_the_median_distance_as_scipy_has_it():
    x = normal(np.random.default_rng(1), 120, 7)
    assert _discriminant.median_distance(x, np.random.default_rng(0)) == pytest.approx(np.median(pdist(x.astype(float))), rel=1e-6)
    assert _discriminant.squares(x.astype(float), x.astype(float)) == pytest.approx(cdist(x, x, "sqeuclidean"), abs=1e-9)


def test_float32_finds_what_float64_finds():
    rng = np.random.default_rng(2)
    both = np.concatenate([normal(rng, 1000, 20) + np.float32(0.1), normal(rng, 1000, 20)])
    labels = _mmd.labels(1000, 2000, 200, rng)
    single = _mmd.exact(_mmd.kernel(both, 6.0), labels)
    double = _mmd.exact(_mmd.kernel(both, 6.0, "float64"), labels.astype(np.float64))
    assert np.abs(single - double).max() < 1e-7


def test_random_frequencies_come_as_near_as_their_number_allows():
    rng = np.random.default_rng(4)
    x, y = normal(rng, 300, 6) + np.float32(0.3), normal(rng, 400, 6)
    both, labels = np.concatenate([x, y]), _mmd.labels(300, 700, 30, rng)
    near = [_mmd.by_features(_mmd.features(both, 3.0, np.random.default_rng(seed)), labels) for seed in range(40)]
    true = _mmd.exact(_mmd.kernel(both, 3.0), labels)
    assert np.mean(near, axis=0) == pytest.approx(true, abs=4 * np.std(near, axis=0).max() / math.sqrt(40))
    assert np.std(near, axis=0).max() < 1 / math.sqrt(_mmd.FREQUENCIES)


def test_features_give_the_unbiased_discrepancy_of_their_own_kernel():
    rng = np.random.default_rng(4)
    both = normal(rng, 90, 4)
    f, labels = _mmd.features(both, 2.0, rng), _mmd.labels(40, 90, 25, rng)
    own = (f @ f.T).astype(np.float64)
    np.fill_diagonal(own, 0)
    assert _mmd.by_features(f, labels) == pytest.approx(_mmd.exact(own, labels), abs=1e-6)


@pytest.mark.parametrize("exactly", [True, False])
def test_without_a_difference_the_kernel_test_keeps_its_level(exactly, monkeypatch):
    monkeypatch.setattr(_mmd, "EXACT", 1000 if exactly else 0)
    rng, runs = np.random.default_rng(8), 300
    p = [_mmd.test(normal(rng, 30, 3), normal(rng, 45, 3), 99, run).p for run in range(runs)]
    for level in (0.01, 0.05, 0.2):
        low, high = oracle.binom.ppf([1e-4, 1 - 1e-4], runs, level)
        assert low <= sum(one <= level for one in p) <= high


@given(st.integers(2, 12), st.integers(2, 12), st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_the_sides_may_change_places_and_rows_their_order(n, m, d, seed):
    rng = np.random.default_rng(seed)
    x, y = normal(rng, n, d), normal(rng, m, d)
    k, labels = _mmd.kernel(np.concatenate([x, y]), 1.5), _mmd.labels(n, n + m, 3, rng)
    mirrored = 1 - labels
    order = rng.permutation(n + m)
    assert _mmd.exact(k, mirrored) == pytest.approx(_mmd.exact(k, labels), abs=1e-6)
    assert _mmd.exact(k[order][:, order], labels[:, order]) == pytest.approx(_mmd.exact(k, labels), abs=1e-6)


# The features and the classifier


@pytest.mark.parametrize("d", [3, 70])
def test_moments_are_those_of_the_features_themselves(d):
    rng = np.random.default_rng(1)
    x = normal(rng, 300, d)
    where, rows = _discriminant.prepared(x, 0)
    found = _discriminant.moments(where, rows)
    every = where.some(rows, np.arange(len(found.mean)))
    assert every.shape[1] == d + (2080 if d > 64 else d * (d + 1) // 2) + _discriminant.WAVES
    assert found.mean == pytest.approx(every.mean(axis=0), abs=1e-3)
    assert found.variance == pytest.approx(np.maximum(every.astype(float).var(axis=0), _discriminant.LEAST), rel=1e-2, abs=1e-3)
    assert [where.factors(place, d) for place in (1, d + 1, len(found.mean) - 1)] == [(1,), (0, 1) if d == 3 else (), ()]


def test_without_a_difference_the_classifier_calls_none_and_its_interval_holds():
    rng, runs = np.random.default_rng(6), 150
    found = []
    for _ in range(runs):
        where, a = _discriminant.prepared(normal(rng, 150, 4), 0)
        then, taught = _discriminant.moments(where, a), _discriminant.moments(where, normal(rng, 80, 4))
        rules = list(_discriminant.rules(where, a, then, taught.mean, taught.n))
        found.append(_discriminant.apart(rules, normal(rng, 80, 4), normal(rng, 150, 4)))
    most = oracle.binom.ppf(1 - 1e-4, runs, 0.05)
    assert sum(one.p <= 0.05 for one in found) <= most
    assert sum(one.interval[0] > 0 for one in found) <= most


def test_equal_rows_are_called_alike_wherever_they_stand():
    rng = np.random.default_rng(1)
    x = (rng.random((4000, 9)) < 0.3).astype(np.float32)
    where, a = _discriminant.prepared(x, 0)
    then = _discriminant.moments(where, a)
    for rule in _discriminant.rules(where, a, then, _discriminant.moments(where, x[:100]).mean, 100):
        for size in (1, 2, 7, 1000):
            alone = np.concatenate([rule.score(x[:1000][start : start + size]) for start in range(0, 1000, size)])
            assert all(((alone > cut) == (rule.score(x[:1000]) > cut)).all() for cut in rule.cuts)


# The check, on real tables


def saved(folder, **columns):
    folder.mkdir(exist_ok=True)
    pyarrow.parquet.write_table(pa.table(columns), folder / "log.parquet")
    return opened(folder, "parquet:log.parquet", {})


def matrix(x):
    return {f"x{place}": x[:, place] for place in range(x.shape[1])}


def pair(folder, live, reference):
    return saved(folder / "live", **live), saved(folder / "reference", **reference)


def test_two_tables_of_one_distribution_are_calm(tmp_path):
    rng = np.random.default_rng(1)
    verdict = multivariate(*pair(tmp_path, matrix(normal(rng, 600, 5)), matrix(normal(rng, 1500, 5))))
    assert verdict.status is Status.OK
    assert verdict.reason.startswith("no difference found (600 rows against 1500, 5 columns; p = ")
    assert "by all pairs" in verdict.reason and "of the rows must differ to be called at these sizes" in verdict.reason
    assert verdict.reading.limit == 0.1 and verdict.reading.interval[0] <= verdict.reading.observed <= verdict.reading.interval[1]
    told = json.loads(verdict.data["multivariate.json"])
    assert told["kernel"]["p"] > 0.005 and told["columns"] == ["x0", "x1", "x2", "x3", "x4", "nulls"]


def test_a_correlation_that_comes_with_the_same_margins_is_found_and_named(tmp_path):
    rng = np.random.default_rng(2)
    x = normal(rng, 2000, 6)
    x[:, 4] = 0.8 * x[:, 1] + 0.6 * x[:, 4]
    verdict = multivariate(*pair(tmp_path, matrix(x), matrix(normal(rng, 4000, 6))))
    assert verdict.status is Status.FAIL
    assert "of the rows would have to change (limit 10%" in verdict.reason and "mostly x1 x x4 by +0.69 sd" in verdict.reason
    assert next(iter(verdict.parts)) == "x1 x x4" and verdict.parts["x1 x x4"].interval[0] > 0.6
    assert verdict.reading.interval[0] > 0.1
    assert "by 256 random frequencies" in verdict.reason


@pytest.mark.parametrize("rows", [1_500, 20_000])
def test_a_certain_but_small_shift_never_fails_however_many_rows(tmp_path, rows):
    rng = np.random.default_rng(3)
    verdict = multivariate(*pair(tmp_path, matrix(normal(rng, rows, 4) + np.float32(0.06)), matrix(normal(rng, rows, 4))))
    assert verdict.status is Status.OK
    if rows > 2_000:
        assert verdict.reason.startswith("different, but not surely by more than 10% of the rows: ")
        assert (
            multivariate(*pair(tmp_path, matrix(normal(rng, rows, 4) + np.float32(0.06)), matrix(normal(rng, rows, 4))), floor=0.01).status
            is Status.FAIL
        )


def test_the_same_window_has_the_same_answer_and_another_window_other_permutations(tmp_path):
    live, reference = log_rows(1500), log_rows(1500)
    for folder in ("live", "reference"):
        (tmp_path / folder).mkdir()
    tables = (opened(tmp_path / n, write(tmp_path / n, "parquet", rows), LOG) for n, rows in (("live", live), ("reference", reference)))
    table, other = tables
    first, later = (Window(START + timedelta(seconds=s), START + timedelta(seconds=s + 700)) for s in (0, 700))
    verdict = multivariate(table, other, first)
    assert verdict == multivariate(table, other, first)
    assert verdict.status is Status.FAIL and "p0" in verdict.parts
    assert (
        json.loads(verdict.data["multivariate.json"])["kernel"] != json.loads(multivariate(table, other, later).data["multivariate.json"])["kernel"]
    )


def test_mixed_columns_with_nulls_are_one_in_every_format(tmp_path, form):
    rng = np.random.default_rng(4)

    def row(gone):
        y = None if rng.random() < gone else 1.5
        return {"x": float(rng.normal()), "y": y, "city": str(rng.choice(["a", "b"])), "id": f"id{rng.random()}"}

    for folder in ("live", "reference"):
        (tmp_path / folder).mkdir()
    reference = opened(tmp_path / "reference", write(tmp_path / "reference", form, [row(0.02) for _ in range(900)]), {})
    calm, gone = (
        multivariate(
            opened(tmp_path / "live", write(tmp_path / "live", form, [row(share) for _ in range(500)]), {}),
            reference,
            columns=["x", "y", "city", "id"],
        )
        for share in (0.02, 0.5)
    )
    assert (calm.status, gone.status) == (Status.OK, Status.FAIL)
    assert "id: no value is common in the reference: a name or prose" in calm.reason
    assert next(iter(gone.parts)) == "y.nulls" and gone.parts["y.nulls"].observed > 2


# Bad input


def test_what_cannot_be_compared_is_left_out_and_said(tmp_path):
    rng = np.random.default_rng(5)
    live = {
        "x": rng.normal(size=400),
        "only": rng.normal(size=400),
        "turned": ["7"] * 400,
        "gone": [None] * 400,
        "at": pa.array([0] * 400, pa.timestamp("us")),
    }
    then = {"x": rng.normal(size=400), "was": rng.normal(size=400), "turned": [7.0] * 400, "gone": pa.nulls(400, pa.float64()), "at": live["at"]}
    verdict = multivariate(*pair(tmp_path, live | {"gone": then["gone"]}, then), columns=["*"])
    assert verdict.status is Status.WARN
    left = {one["name"]: one["why"] for one in json.loads(verdict.data["multivariate.json"])["left_out"]}
    assert left == {
        "only": "missing in the reference",
        "was": "missing in live",
        "turned": "text now, number in the reference",
        "at": "time columns have no place in it",
        "gone": "null in the whole reference",
    }


def test_a_constant_that_became_another_is_found_and_one_that_stayed_is_calm(tmp_path):
    one, other = {"x": np.full(500, 2.0)}, {"x": np.full(500, 2.5)}
    assert multivariate(*pair(tmp_path, one, one)).status is Status.OK
    verdict = multivariate(*pair(tmp_path, other, one))
    assert verdict.status is Status.FAIL and verdict.reading.observed == 1.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e308])
def test_a_column_that_became_no_number_or_endless_is_found(tmp_path, bad):
    rng = np.random.default_rng(6)
    live = matrix(normal(rng, 400, 3).astype(float)) | {"x1": np.where(np.arange(400) % 2, bad, 0.0)}
    verdict = multivariate(*pair(tmp_path, live, matrix(normal(rng, 600, 3).astype(float))))
    assert verdict.status is Status.FAIL
    json.loads(verdict.data["multivariate.json"])


def test_a_reference_full_of_infinities_is_borne(tmp_path):
    rng = np.random.default_rng(6)
    wild = {"x": np.where(rng.random(500) < 0.5, math.inf, rng.normal(size=500)), "y": np.full(500, -math.inf), "z": rng.choice([1e308, -1e308], 500)}
    verdict = multivariate(*pair(tmp_path, wild, wild))
    assert verdict.status is Status.OK and "y: null in the whole reference" not in verdict.reason


def test_few_rows_and_none_are_nodata(tmp_path):
    rng = np.random.default_rng(7)
    few, many = matrix(normal(rng, 1, 3)), matrix(normal(rng, 500, 3))
    assert multivariate(*pair(tmp_path, few, many)).reason == "1 live and 500 reference rows; 200 of each are needed"
    assert multivariate(*pair(tmp_path, many, few)).status is Status.NODATA
    assert multivariate(*pair(tmp_path, few, few), rows_at_least=0).status is Status.NODATA
    assert multivariate(*pair(tmp_path, matrix(normal(rng, 0, 3)), many), rows_at_least=0).status is Status.NODATA
    assert multivariate(*pair(tmp_path, matrix(normal(rng, 8, 3)), matrix(normal(rng, 8, 3))), rows_at_least=1).status is Status.OK


def test_a_million_categories_are_a_name_and_a_common_one_among_them_is_seen(tmp_path):
    rng = np.random.default_rng(8)
    names = lambda often: [("usual" if rng.random() < often else f"n{place}-{rng.random()}") for place in range(1000)]  # noqa: E731
    calm = multivariate(*pair(tmp_path, {"c": names(0)}, {"c": names(0)}))
    assert calm.status is Status.OK and "c: no value is common in the reference" in calm.reason
    assert "c=usual" in multivariate(*pair(tmp_path, {"c": names(0.1)}, {"c": names(0.6)})).parts


def test_more_columns_than_rows(tmp_path):
    rng = np.random.default_rng(9)
    wide = lambda rows, shift: {"e": pa.array(list(normal(rng, rows, 300) + np.float32(shift)), pa.list_(pa.float32()))}  # noqa: E731
    assert multivariate(*pair(tmp_path, wide(200, 0), wide(220, 0))).status is Status.OK
    moved = multivariate(*pair(tmp_path, wide(200, 0.5), wide(220, 0)))
    assert moved.status is Status.FAIL and all(name.startswith("e[") for name in moved.parts)


def test_too_many_columns_are_an_error_that_says_so(tmp_path):
    rng = np.random.default_rng(9)
    wide = {"e": pa.array(list(normal(rng, 20, 3000)), pa.list_(pa.float32()))}
    with pytest.raises(DataError, match="3000 columns are too many to be tested as one"):
        multivariate(*pair(tmp_path, wide, wide), rows_at_least=8)


def test_a_column_nobody_has_is_an_error(tmp_path):
    x = matrix(normal(np.random.default_rng(1), 300, 2))
    with pytest.raises(DataError, match="'incom' is in neither"):
        multivariate(*pair(tmp_path, x, x), columns=["incom"])


def test_lists_that_are_none_are_null_and_long_numbers_endless():
    found = _encode.entries(["[1.0, 2]", "[1]", None, "{}", "[true, null]", f"[1{'0' * 400}, -1{'0' * 400}]", "[NaN, Infinity]", "["], 2)
    assert np.array_equal(found[:2], [[1, 2], [math.nan] * 2], equal_nan=True)
    assert np.isnan(found[[2, 3, 4, 7]]).all()
    assert found[5].tolist() == [math.inf, -math.inf] and math.isnan(found[6][0]) and found[6][1] == math.inf


def test_numbers_that_are_names_are_categories_when_said(tmp_path):
    rng = np.random.default_rng(10)
    codes = lambda among: {"code": rng.choice(among, 800), "x": rng.normal(size=800)}  # noqa: E731
    live, reference = pair(tmp_path, codes([10, 20, 30]), codes([10, 20, 40]))
    assert {"code=40", "code=10"} & set(multivariate(live, reference, nominal=["co*"]).parts)
