"""The metrics against scikit-learn and scipy, their intervals against simulation, calibration and isotonic fits against their oracles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as oracle
from sklearn import isotonic
from sklearn import metrics as sk

from checks import _calibration, _estimate
from checks._metrics import estimate, point
from checks._sample import Sample, UndefinedError

random = np.random.default_rng(1)


def classed(truth, answer, score=None, weight=None, classes=("0", "1"), matrix=None):
    truth, answer = np.asarray(truth), np.asarray(answer)
    task = "binary" if len(classes) == 2 else "multiclass"
    weight = np.ones(len(truth)) if weight is None else np.asarray(weight, float)
    return Sample(task, truth, answer, weight, classes, 1 if task == "binary" else -1, score, None, matrix, np.arange(len(truth)))


def numbered(truth, answer, weight=None):
    truth = np.asarray(truth, float)
    return Sample("regression", truth, np.asarray(answer, float), np.ones(len(truth)) if weight is None else weight, at=np.arange(len(truth)))


def binary(n=300, seed=0, weighted=False):
    rng = np.random.default_rng(seed)
    score = np.round(rng.beta(1, 2, n), 2)  # with ties
    return classed((rng.random(n) < score).astype(int), (score > 0.4).astype(int), score, rng.integers(1, 4, n) if weighted else None)


# Values


ORACLES = {
    "accuracy": lambda t, a, s, w: sk.accuracy_score(t, a, sample_weight=w),
    "balanced_accuracy": lambda t, a, s, w: sk.balanced_accuracy_score(t, a, sample_weight=w),
    "precision": lambda t, a, s, w: sk.precision_score(t, a, sample_weight=w),
    "recall": lambda t, a, s, w: sk.recall_score(t, a, sample_weight=w),
    "f1": lambda t, a, s, w: sk.f1_score(t, a, sample_weight=w),
    "macro_precision": lambda t, a, s, w: sk.precision_score(t, a, average="macro", zero_division=0, sample_weight=w),
    "macro_recall": lambda t, a, s, w: sk.recall_score(t, a, average="macro", zero_division=0, sample_weight=w),
    "macro_f1": lambda t, a, s, w: sk.f1_score(t, a, average="macro", zero_division=0, sample_weight=w),
    "log_loss": lambda t, a, s, w: sk.log_loss(t, s, sample_weight=w),
    "brier": lambda t, a, s, w: sk.brier_score_loss(t, s, sample_weight=w),
    "roc_auc": lambda t, a, s, w: sk.roc_auc_score(t, s, sample_weight=w),
    "average_precision": lambda t, a, s, w: sk.average_precision_score(t, s, sample_weight=w),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("metric", ORACLES)
def test_the_metrics_of_classes_are_scikit_learns(metric, weighted):
    for seed in range(5):
        rows = binary(seed=seed, weighted=weighted)
        theirs = ORACLES[metric](rows.truth, rows.answer, rows.score, rows.weight)
        found = estimate(metric, rows)
        assert found.value == pytest.approx(theirs, abs=1e-9)
        assert point(metric, rows) == pytest.approx(theirs, abs=1e-9)
        assert found.low <= found.value <= found.high


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=60))
def test_macro_means_of_many_classes_are_scikit_learns(rows):
    truth, answer = (np.array(side) for side in zip(*rows, strict=True))
    sample = classed(truth, answer, classes=("a", "b", "c", "d"))
    assert point("macro_f1", sample) == pytest.approx(sk.f1_score(truth, answer, average="macro", zero_division=0))
    assert point("macro_precision", sample) == pytest.approx(sk.precision_score(truth, answer, average="macro", zero_division=0))
    assert point("macro_recall", sample) == pytest.approx(sk.recall_score(truth, answer, average="macro", zero_division=0))


def test_probabilities_of_many_classes_have_log_loss_and_brier():
    matrix = random.dirichlet(np.ones(3), 200)
    truth = random.integers(0, 3, 200)
    rows = classed(truth, matrix.argmax(axis=1), classes=("a", "b", "c"), matrix=matrix)
    assert point("log_loss", rows) == pytest.approx(sk.log_loss(truth, matrix))
    assert point("brier", rows) == pytest.approx(np.mean(((matrix - np.eye(3)[truth]) ** 2).sum(axis=1)))


def test_the_metrics_of_numbers_are_scikit_learns():
    truth, weight = random.normal(5, 2, 300), random.integers(1, 4, 300).astype(float)
    answer = truth + random.normal(0.2, 1, 300)
    rows = numbered(truth, answer, weight)
    assert point("mae", rows) == pytest.approx(sk.mean_absolute_error(truth, answer, sample_weight=weight))
    assert point("rmse", rows) == pytest.approx(sk.root_mean_squared_error(truth, answer, sample_weight=weight))
    assert point("mape", rows) == pytest.approx(sk.mean_absolute_percentage_error(truth, answer, sample_weight=weight))
    assert point("r2", rows) == pytest.approx(sk.r2_score(truth, answer, sample_weight=weight))
    assert point("pinball", rows, 0.9) == pytest.approx(sk.mean_pinball_loss(truth, answer, alpha=0.9, sample_weight=weight))
    assert point("bias", rows) == pytest.approx(np.average(answer - truth, weights=weight))


def test_a_truth_of_zero_is_left_out_of_mape_and_half_of_them_undo_it():
    found = estimate("mape", numbered([0, 2, 4, 10], [1, 3, 4, 10]))
    assert (found.value, found.n) == (pytest.approx(0.5 / 3), 3)
    with pytest.raises(UndefinedError, match="3 of 4 labels are 0"):
        estimate("mape", numbered([0, 0, 0, 4], [1, 1, 1, 1]))


def test_what_has_no_value_says_why():
    ones = classed([1, 1, 1], [1, 0, 1], np.array([0.9, 0.1, 0.8]))
    with pytest.raises(UndefinedError, match="all 3 labelled rows are '1': ranks need both"):
        estimate("roc_auc", ones)
    with pytest.raises(UndefinedError, match="no row is true '1'"):
        estimate("recall", classed([0, 0], [1, 0]))
    with pytest.raises(UndefinedError, match="needs a score"):
        estimate("brier", classed([0, 1], [1, 0]))
    with pytest.raises(UndefinedError, match="from -2 to 3, and a probability lies between 0 and 1"):
        estimate("brier", classed([0, 1], [1, 0], np.array([-2.0, 3.0])))
    with pytest.raises(UndefinedError, match="all labels are the same number"):
        estimate("r2", numbered([1, 1, 1], [1, 2, 3]))
    with pytest.raises(UndefinedError, match="is no metric of classes"):
        estimate("mae", ones)
    with pytest.raises(UndefinedError, match="none has a score"):
        estimate("roc_auc", classed([0, 1], [1, 0], np.array([np.nan, np.nan])))


def test_margins_have_ranks_though_they_are_no_probabilities_and_rounding_is_forgiven():
    assert point("roc_auc", classed([0, 1, 1], [0, 1, 1], np.array([-2.0, 3.0, 7.5]))) == 1.0
    assert point("brier", classed([0, 1], [0, 1], np.array([-1e-9, 1 + 1e-9]))) == 0.0


# Intervals: how often they hold what is true, by simulation; a binomial at 1 in 10,000 decides


def missed_at_most(runs, share=0.05):
    return oracle.binom.ppf(1 - 1e-4, runs, share)


def drawn(n, rng):
    score = rng.beta(1, 2, n)
    return classed((rng.random(n) < score).astype(int), (score > 0.4).astype(int), score)


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "precision", "recall", "f1", "macro_f1", "log_loss", "brier", "roc_auc"])
def test_the_interval_of_a_metric_of_classes_covers_the_true_one(metric):
    whole = drawn(400_000, np.random.default_rng(0))
    truth, rng, runs = point(metric, whole), np.random.default_rng(2), 300
    missed = sum(not (found := estimate(metric, drawn(400, rng))).low <= truth <= found.high for _ in range(runs))
    assert missed <= missed_at_most(runs, 0.06)  # normal theory at 400 rows is near its level, not at it


def test_the_interval_of_average_precision_covers_the_true_one():
    truth, rng, runs = point("average_precision", drawn(400_000, np.random.default_rng(0))), np.random.default_rng(2), 60
    missed = sum(not (found := estimate("average_precision", drawn(400, rng))).low <= truth <= found.high for _ in range(runs))
    assert missed <= missed_at_most(runs, 0.06)


@pytest.mark.parametrize("metric", ["mae", "rmse", "r2", "bias", "pinball", "mape"])
def test_the_interval_of_a_metric_of_numbers_covers_the_true_one(metric):
    def one(n, rng):
        actual = rng.normal(20, 3, n)
        return numbered(actual, actual + rng.normal(0.3, 1, n))

    truth, rng, runs = point(metric, one(400_000, np.random.default_rng(0))), np.random.default_rng(2), 400
    missed = sum(not (found := estimate(metric, one(300, rng))).low <= truth <= found.high for _ in range(runs))
    assert missed <= missed_at_most(runs, 0.06)


def test_the_p_of_a_share_is_the_score_tests():
    found = estimate("accuracy", classed([1] * 100, [1] * 80 + [0] * 20))
    z = (0.9 - 0.8) / np.sqrt(0.9 * 0.1 / 100)
    assert found.p(0.9, below=True) == pytest.approx(oracle.norm.sf(z))
    assert found.p(0.9, below=False) == pytest.approx(oracle.norm.cdf(z))
    assert estimate("mae", numbered([1.0, 2.0], [1.0, 2.0])).p(0.0, below=False) == 0.5


# Calibration


def scored(n, rng, bend=1.0):
    said = rng.random(n)
    return said, (rng.random(n) < said**bend).astype(float), np.ones(n)


@pytest.mark.parametrize("binning", ["mass", "width"])
def test_briers_parts_add_up_and_the_table_holds_every_row(binning):
    said, came, weight = scored(2000, random, 1.5)
    found = _calibration.measure(said, came, weight, 10, binning)
    parts = found.brier
    assert parts["brier"] == pytest.approx(sk.brier_score_loss(came, said))
    assert parts["reliability"] - parts["resolution"] + parts["uncertainty"] + parts["within"] == pytest.approx(parts["brier"])
    assert sum(cell.n for cell in found.bins) == 2000
    if binning == "width":
        fraction, mean = __import__("sklearn.calibration", fromlist=["x"]).calibration_curve(came, said, n_bins=10)
        assert [cell.came for cell in found.bins] == pytest.approx(fraction)
        assert [cell.said for cell in found.bins] == pytest.approx(mean)
    plain = sum(cell.n / 2000 * abs(cell.gap) for cell in found.bins)
    assert found.ece.value <= plain <= found.ece.high
    assert found.mce.value == pytest.approx(max(abs(cell.gap) for cell in found.bins))


@pytest.mark.parametrize("bend", [1.0, 1.3, 2.0])
@pytest.mark.parametrize("n", [300, 3000])
def test_the_interval_of_the_calibration_error_covers_the_true_one(bend, n):
    rng, runs, missed, values = np.random.default_rng(3), 150, 0, []
    for _ in range(runs):
        said, came, weight = scored(n, rng, bend)
        found = _calibration.measure(said, came, weight)
        place, _ = _calibration._places(said, 15, "mass")
        gaps = [abs((said[place == cell] ** bend - said[place == cell]).mean()) * (place == cell).mean() for cell in set(place)]
        missed += not found.ece.low - 1e-12 <= sum(gaps) <= found.ece.high
        plain = sum(cell.n / n * abs(cell.gap) for cell in found.bins)
        values.append((found.ece.value - sum(gaps), plain - sum(gaps)))
    assert missed <= missed_at_most(runs)
    left, added = np.mean(values, axis=0)
    assert abs(left) < (0.7 * added if bend == 1.0 else 0.01)  # most of what chance adds is taken off


def test_equal_scores_share_a_bin_and_constant_ones_have_one():
    found = _calibration.measure(np.full(400, 0.3), (np.arange(400) % 10 < 3).astype(float), np.ones(400))
    assert len(found.bins) == 1 and found.ece.value == 0.0 and found.ece.low == 0.0
    edges = _calibration.measure(np.r_[np.zeros(200), np.ones(200)], np.r_[np.zeros(200), np.ones(200)], np.ones(400))
    assert edges.ece.value < 0.01


# Isotonic fits


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 40), st.booleans()), min_size=1, max_size=120))
def test_the_calibrator_is_scikit_learns_isotonic_regression(rows):
    score, came = np.array([one / 40 for one, _ in rows]), np.array([float(hit) for _, hit in rows])
    theirs = isotonic.IsotonicRegression(out_of_bounds="clip").fit(score, came)
    grid = np.linspace(-0.1, 1.1, 97)
    assert _estimate.steps(score, came).at(grid) == pytest.approx(theirs.predict(grid), abs=1e-9)


def test_many_scores_are_pooled_into_quantiles_and_keep_every_row():
    score = np.random.default_rng(0).random(20_000)
    came = (np.random.default_rng(1).random(20_000) < score).astype(float)
    fitted = _estimate.steps(score, came)
    assert fitted.weights.sum() == 20_000 and fitted.hits.sum() == came.sum() and len(fitted.scores) <= _estimate.CELLS
    theirs = isotonic.IsotonicRegression(out_of_bounds="clip").fit(score, came)
    grid = np.linspace(0, 1, 50)
    assert np.abs(fitted.at(grid) - theirs.predict(grid)).max() < 0.03
