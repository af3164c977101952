"""quality.accuracy, calibration and estimated on real tables: joins, windows, limits, slices, and what bad input means."""

import json
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from scipy import stats as oracle

from agent import Baseline, Status, Window
from agent.errors import DataError
from checks import _estimate, _labels, _metrics
from checks._sample import Sample
from checks.quality import accuracy, calibration, estimated
from tests.labelled import HOUR, LABELS, LIVE, START, hours, logged, table, window


def answers(n, risk, seed=0):
    random = np.random.default_rng(seed)
    truth = random.integers(0, 2, n)
    return np.where(random.random(n) < risk, 1 - truth, truth), truth


def scored(n, seed=0, flip=False):
    random = np.random.default_rng(seed)
    score = random.beta(1, 2, n)
    truth = (random.random(n) < (1 - score if flip else score)).astype(int)
    return (score > 0.5).astype(int), truth, score


# Limits


def test_fail_needs_the_whole_interval_beyond_and_warn_only_the_number(tmp_path):
    prediction, truth = answers(1000, 0.2)
    live, labels = logged(tmp_path, hours(1, per_hour=1000), prediction, truth)
    right = float((prediction == truth).mean())
    sure, unsure, calm = (accuracy(live, labels, window(0), at_least=limit) for limit in (right + 0.05, right + 0.01, right - 0.01))
    assert (sure.status, unsure.status, calm.status) == (Status.FAIL, Status.WARN, Status.OK)
    assert calm.reading.observed == pytest.approx(right) and calm.reading.n == 1000
    assert "beyond the limit, and chance may be why" in unsure.reason
    assert calm.parts["coverage"].observed == 1.0
    assert {"macro_f1", "recall.0", "precision.1"} <= set(calm.parts)
    assert all(part.interval is not None for part in calm.parts.values())
    assert accuracy(live, labels, window(0)).status is Status.SKIP
    told = json.loads(calm.data["quality.json"])
    assert np.sum(told["table"]) == 1000 and told["counts"]["labelled"] == 1000


def test_worse_by_counts_the_yardsticks_own_uncertainty(tmp_path):
    prediction, truth = answers(1000, 0.2)
    live, labels = logged(tmp_path, hours(1, per_hour=1000), prediction, truth)
    verdicts = []
    for n in (150, 20_000):
        told, actual = np.zeros(n, int), (np.arange(n) % 10 == 0).astype(int)  # right 9 times in 10
        verdicts.append(accuracy(live, labels, window(0), table(tmp_path, "reference", {}, prediction=told, label=actual), worse_by=0.05))
    small, large = verdicts
    assert small.reading.limit == large.reading.limit == pytest.approx(0.85)
    assert (small.status, large.status) == (Status.WARN, Status.FAIL)
    with pytest.raises(DataError, match="worse_by needs a yardstick of at least rows_at_least labelled rows"):
        accuracy(live, labels, window(0), worse_by=0.05)


def test_a_pinned_baseline_goes_before_the_reference(tmp_path):
    prediction, truth = answers(1000, np.r_[np.full(500, 0.05), np.full(500, 0.3)])
    live, labels = logged(tmp_path, hours(2, per_hour=500), prediction, truth)
    pin = Baseline(START, START + HOUR, "ada", "good", START + 50 * HOUR)
    verdict = accuracy(live, labels, window(1), None, pin, worse_by=0.1)
    assert verdict.status is Status.FAIL and verdict.reading.limit == pytest.approx((prediction == truth)[:500].mean() - 0.1)


def test_numbers_are_judged_by_their_losses_and_bias_on_both_sides(tmp_path):
    random = np.random.default_rng(0)
    actual = random.normal(100, 10, 500)
    live, labels = logged(tmp_path, hours(1, per_hour=500), actual + random.normal(2, 1, 500), actual)
    assert accuracy(live, labels, window(0), at_most=1.0).reason.startswith("mae 1.9")
    assert accuracy(live, labels, window(0), at_most=1.0).status is Status.FAIL
    assert accuracy(live, labels, window(0), metric="bias", at_least=-1, at_most=1).status is Status.FAIL
    assert accuracy(live, labels, window(0), metric="bias", at_least=-3, at_most=3).good
    assert accuracy(live, labels, window(0), metric="f1", at_least=0.5).status is Status.NODATA
    with pytest.raises(DataError, match="bias has no better side"):
        accuracy(live, labels, window(0), table(tmp_path, "reference", {}, prediction=actual, label=actual), metric="bias", worse_by=1.0)


# Slices


def test_a_bad_slice_is_named_and_small_ones_are_said_to_be_too_small(tmp_path):
    random = np.random.default_rng(1)
    country = random.choice(["de", "fr", "nl"], 3000, p=[0.49, 0.49, 0.02])
    age = random.integers(18, 90, 3000).astype(float)
    prediction, truth = answers(3000, np.where(country == "fr", 0.3, 0.05))
    live, labels = logged(tmp_path, hours(1, per_hour=3000), prediction, truth, more={"country": country, "age": age})
    verdict = accuracy(live, labels, window(0), at_least=0.78, slices=["country", {"age": [30, 60]}])
    assert verdict.status is Status.FAIL
    assert "; in country=fr 0.68" in verdict.reason and "too small to judge: country=nl" in verdict.reason
    assert {"slice.country=de", "slice.age<=30", "slice.30<age<=60", "slice.60<age"} <= set(verdict.parts)
    with pytest.raises(DataError, match=r"'age' is a number with .* say where to cut it"):
        accuracy(live, labels, window(0), at_least=0.8, slices=["age"])
    with pytest.raises(DataError, match="'country' is no number"):
        accuracy(live, labels, window(0), at_least=0.8, slices=[{"country": [1.0]}])


def test_holm_keeps_quiet_slices_at_the_limit_from_failing(tmp_path):
    random, failed, runs = np.random.default_rng(2), 0, 25
    for run in range(runs):
        prediction, truth = answers(4000, 0.2, run)
        live, labels = logged(tmp_path, hours(1, per_hour=4000), prediction, truth, more={"group": random.choice(list("abcdefghij"), 4000)})
        failed += accuracy(live, labels, window(0), metric="accuracy", at_least=0.8, slices=["group"]).status is Status.FAIL
    assert failed <= oracle.binom.ppf(1 - 1e-4, runs, 0.05)


# Which rows, and which labels


def test_successive_windows_judge_every_row_once(tmp_path):
    prediction, truth = answers(600, 0.1)
    live, labels = logged(tmp_path, hours(3, per_hour=200), prediction, truth)
    assert [accuracy(live, labels, window(hour), at_least=0.5).reading.n for hour in range(3)] == [200] * 3
    early = accuracy(live, labels, window(2), at_least=0.5, now=START + timedelta(hours=20))
    assert early.status is Status.NODATA and "are due at 2026-03-03 03:00:00, 1d after its end" in early.reason
    before = accuracy(live, labels, Window(START, START + HOUR), at_least=0.5)
    assert before.status is Status.NODATA and "200 later ones wait for their labels" in before.reason


def test_partly_labelled_windows_say_so_and_do_not_fail(tmp_path):
    prediction, truth = answers(1000, 0.5)
    live, labels = logged(tmp_path, hours(1, per_hour=1000), prediction, truth, keep=np.arange(1000) % 5 == 0)
    verdict = accuracy(live, labels, window(0), at_least=0.9)
    assert verdict.status is Status.WARN and verdict.parts["coverage"].observed == 0.2
    assert "only 20% of 1000 predictions have a label, and those may be biased" in verdict.reason
    assert accuracy(live, labels, window(0), at_least=0.9, coverage_at_least=0.1).status is Status.FAIL


def second_labels(folder, options, value=1):
    """Every row is right by its first label; ten get another label a day later."""
    at, ids = hours(1, per_hour=200), [f"id{n}" for n in range(200)]
    known = at + 3600
    return (
        table(folder, "live", {name: LIVE[name] for name in ("time", "id", "prediction")}, at=at, id=ids, prediction=np.zeros(200, int)),
        table(folder, "labels", LABELS | options, id=ids[:10] + ids, label=[value] * 10 + [0] * 200, known_at=np.r_[known[:10] + 86_400, known]),
    )


def test_the_newest_label_wins_where_that_is_said_and_else_a_second_one_is_reported(tmp_path):
    first = accuracy(*second_labels(tmp_path, {}), window(0), at_least=0.5)
    assert first.reading.observed == 1.0 and first.status is Status.WARN
    assert "10 keys have a second, different label" in first.reason and "10 labels repeat a key" in first.reason
    latest = accuracy(*second_labels(tmp_path, {"latest": True}), window(0), at_least=0.5)
    assert latest.reading.observed == 0.95 and latest.good
    same = accuracy(*second_labels(tmp_path, {}, value=0), window(0), at_least=0.5)
    assert same.good and "10 labels repeat a key" in same.reason


def test_labels_dated_before_their_prediction_count_and_are_told(tmp_path):
    prediction, truth = answers(300, 0.1)
    live, labels = logged(tmp_path, hours(1, per_hour=300), prediction, truth, late=-7200.0)
    verdict = accuracy(live, labels, window(0), at_least=0.5)
    assert verdict.good and "300 labels are dated before their prediction" in verdict.reason


def test_labels_of_unknown_ids_are_no_coverage_and_none_that_matches_is_said(tmp_path):
    prediction, truth = answers(300, 0.1)
    live, _ = logged(tmp_path, hours(1, per_hour=300), prediction, truth)
    other = table(tmp_path, "labels", LABELS, id=["x"] * 5, label=[1] * 5, known_at=[START.timestamp() + 5.0] * 5)
    verdict = accuracy(live, other, window(0), at_least=0.5)
    assert verdict.status is Status.NODATA and "5 labels were read, and none has the id of one" in verdict.reason
    none = table(tmp_path, "labels", LABELS, id=np.array([], dtype=str), label=np.array([], dtype=int), known_at=np.array([], dtype=float))
    assert accuracy(live, none, window(0), at_least=0.5).reason.endswith("no label for them; no label has come")


@pytest.mark.parametrize(
    ("live_ids", "label_ids"),
    [
        pytest.param(lambda n: n, lambda n: n.astype(str), id="numbers and text"),
        pytest.param(lambda n: n.astype(float), lambda n: n, id="floats and numbers"),
        pytest.param(lambda n: n + 2**60, lambda n: (n + 2**60).astype(str), id="beyond 2^53"),
        pytest.param(lambda n: [f"é{one}\u2028" for one in n], lambda n: [f"é{one}\u2028" for one in n], id="unicode"),
    ],
)
def test_ids_meet_as_text_whatever_they_are_stored_as(tmp_path, live_ids, label_ids):
    n = np.arange(200)
    prediction, truth = answers(200, 0.1)
    options = {name: LIVE[name] for name in ("time", "id", "prediction")}
    live = table(tmp_path, "live", options, at=hours(1, per_hour=200), id=live_ids(n), prediction=prediction)
    labels = table(tmp_path, "labels", {"key": "id", "label": "label"}, id=label_ids(n)[::-1], label=truth[::-1])
    verdict = accuracy(live, labels, Window(START, START + HOUR), at_least=0.5)
    assert verdict.reading.observed == pytest.approx((prediction == truth).mean())
    assert verdict.parts["coverage"].observed == 1.0


def test_repeated_and_missing_ids_are_counted(tmp_path):
    ids = [f"id{n}" for n in range(190)] + ["id0"] * 5 + [None] * 5
    live = table(tmp_path, "live", {k: LIVE[k] for k in ("time", "id", "prediction")}, at=hours(1, per_hour=200), id=ids, prediction=[1] * 200)
    labels = table(tmp_path, "labels", {"key": "id", "label": "label"}, id=[f"id{n}" for n in range(190)] + [None], label=[1] * 191)
    verdict = accuracy(live, labels, Window(START, START + HOUR), at_least=0.5)
    assert verdict.reading.n == 195 and verdict.parts["coverage"].observed == 0.975
    assert "5 predictions repeat an id of the window" in verdict.reason


# Classes under several names, and what is no class at all


@pytest.mark.parametrize(
    ("told", "actual"),
    [
        pytest.param(["1", "0"], [1, 0], id="text and integers"),
        pytest.param([1.0, 0.0], ["1", "0"], id="floats and text"),
        pytest.param(["1.0", "0.0"], [1, 0], id="text of floats"),
        pytest.param([True, False], [1, 0], id="booleans and integers"),
        pytest.param(["True", "False"], [True, False], id="text and booleans"),
    ],
)
def test_one_class_has_one_name_however_it_is_stored(tmp_path, told, actual):
    live, labels = logged(tmp_path, hours(1, per_hour=200), told * 100, actual * 100)
    verdict = accuracy(live, labels, window(0), metric="f1", at_least=0.5)
    assert verdict.reading.observed == 1.0 and verdict.good


def test_classes_under_wholly_other_names_are_an_error_and_no_bad_model(tmp_path):
    live, labels = logged(tmp_path, hours(1, per_hour=200), [0, 1] * 100, ["cat", "dog"] * 100)
    with pytest.raises(DataError, match="predictions say 0, 1 and labels cat, dog: the same classes under other names"):
        accuracy(live, labels, window(0), at_least=0.5)


def test_one_class_alone_has_an_accuracy_and_no_ranks(tmp_path):
    live, labels = logged(tmp_path, hours(1, per_hour=200), [0] * 200, [0] * 200, score=[0.1] * 200)
    assert accuracy(live, labels, window(0), at_least=0.5).reading.observed == 1.0
    auc = accuracy(live, labels, window(0), metric="roc_auc", at_least=0.5)
    assert auc.status is Status.NODATA and "all 200 labelled rows are not '1'" in auc.reason
    text = logged(tmp_path, hours(1, per_hour=200), ["a", "b"] * 100, ["a", "b"] * 100)
    assert "needs the class it is about: set `positive` (there is a, b)" in accuracy(*text, window(0), metric="f1", at_least=0.5).reason


def test_rows_without_answer_label_or_sense_are_left_out_and_told(tmp_path):
    told = [None] * 10 + [float("nan")] * 10 + [1.5] * 280
    actual = [1.5] * 20 + [float("inf")] * 5 + [None] * 5 + [1.25] * 270
    live, labels = logged(tmp_path, hours(1, per_hour=300), told, actual)
    verdict = accuracy(live, labels, window(0), at_most=1.0)
    assert verdict.reading.n == 270 and verdict.reading.observed == 0.25
    assert "25 labelled rows have no answer or no usable label" in verdict.reason


def test_scores_that_are_no_probabilities_are_nodata_and_say_so(tmp_path):
    prediction, truth, score = scored(400)
    live, labels = logged(tmp_path, hours(1, per_hour=400), prediction, truth, score=score * 10 - 5)
    for verdict in (accuracy(live, labels, window(0), metric="brier", at_most=0.5), calibration(live, labels, window(0))):
        assert verdict.status is Status.NODATA and "a probability lies between 0 and 1" in verdict.reason
    assert accuracy(live, labels, window(0), metric="roc_auc", at_least=0.5).good


def test_what_is_not_declared_or_of_the_wrong_type_is_an_error_with_the_next_move(tmp_path):
    prediction, truth = answers(200, 0.1)
    live, _ = logged(tmp_path, hours(1, per_hour=200), prediction, truth)
    bare = table(tmp_path, "labels", {"label": "label"}, id=["a"], label=[1])
    with pytest.raises(DataError, match="labels declares no key, so labels cannot be joined; add `key: request_id`"):
        accuracy(live, bare, window(0), at_least=0.5)
    lists = table(tmp_path, "labels", {"key": "id", "label": "label"}, id=["id1"], label=[[1, 2]])
    with pytest.raises(DataError, match="holds list, which is no truth"):
        accuracy(live, lists, window(0), at_least=0.5)


def test_few_rows_are_nodata_with_their_coverage(tmp_path):
    prediction, truth = answers(50, 0.1)
    live, labels = logged(tmp_path, hours(1, per_hour=50), prediction, truth)
    verdict = accuracy(live, labels, window(0), at_least=0.5)
    assert verdict.status is Status.NODATA and verdict.reason == "50 labelled rows of 50 predictions; 100 are needed"


def test_pieces_of_any_length_are_read_side_by_side():
    one, other = iter([np.arange(3), np.arange(3, 10)]), iter([np.arange(5), np.empty(0), np.arange(5, 10)])
    assert [piece.tolist() for piece, _ in _labels.aligned(one, other)] == [[0, 1, 2], [3, 4], [5, 6, 7, 8, 9]]
    with pytest.raises(DataError, match="the labels changed while they were read"):
        list(_labels.aligned(iter([np.arange(3)]), iter([np.arange(2)])))


# Calibration


def test_calibrated_scores_are_ok_and_bent_ones_fail_with_their_table(tmp_path):
    prediction, truth, score = scored(3000)
    live, labels = logged(tmp_path, hours(1, per_hour=3000), prediction, truth, score=score)
    good = calibration(live, labels, window(0))
    assert good.good and good.parts["mce"].interval and good.parts["coverage"].observed == 1.0
    live, labels = logged(tmp_path, hours(1, per_hour=3000), prediction, truth, score=score**3)
    bent = calibration(live, labels, window(0), binning="width", bins=10)
    assert bent.status is Status.FAIL and bent.reading.interval[0] > 0.05
    told = json.loads(bent.data["reliability.json"])
    assert len(told["bins"]) == 10 and set(told["brier"]) == {"brier", "reliability", "resolution", "uncertainty", "within"}
    hit = calibration(live, labels, window(0), task="multiclass")
    assert hit.reading.n == 3000


# Without labels


def reference(folder, n=4000, seed=9):
    prediction, truth, score = scored(n, seed)
    return table(folder, "reference", {}, prediction=prediction, label=truth, score=score)


def test_an_estimate_says_what_it_assumes_and_fails_only_when_sure(tmp_path):
    prediction, truth, score = scored(1000)
    live, _ = logged(tmp_path, hours(1, per_hour=1000), prediction, truth, score=score)
    now, yard, real = Window(START, START + HOUR), reference(tmp_path), float((prediction == truth).mean())
    verdict = estimated(live, yard, now, label="label", at_least=0.5)
    assert verdict.good and verdict.reading.interval[0] <= real <= verdict.reading.interval[1]
    assert verdict.reason.endswith("this holds only while P(y|x) is as in the reference: concept drift is invisible to it")
    assert estimated(live, yard, now, label="label", at_least=real + 0.2).status is Status.FAIL
    assert estimated(live, yard, now, label="label", at_least=verdict.reading.observed + 0.005).status is Status.WARN
    assert estimated(live, yard, now, label="label", worse_by=0.1).good
    assert estimated(live, yard, now, label="label", metric="roc_auc", at_least=0.5).good


def test_concept_drift_is_invisible_to_an_estimate_and_plain_to_labels(tmp_path):
    prediction, truth, score = scored(1000, flip=True)
    live, labels = logged(tmp_path, hours(1, per_hour=1000), prediction, truth, score=score)
    yard = reference(tmp_path)
    assert estimated(live, yard, Window(START, START + HOUR), label="label", worse_by=0.1).good
    assert accuracy(live, labels, window(0), yard, worse_by=0.1).status is Status.FAIL


def test_losses_are_learned_from_inputs_where_there_are_no_classes(tmp_path):
    random = np.random.default_rng(3)

    def rows(n, shift):
        x, kind = random.normal(shift, 1, n), random.choice(["a", "b"], n)
        answer = 2 * x
        return x, kind, answer, answer + random.normal(0, np.where(kind == "a", 0.3, 1.0) * (0.3 + np.abs(x)))

    x, kind, answer, truth = rows(3000, 0)
    yard = table(tmp_path, "reference", {}, x=x, kind=kind, prediction=answer, label=truth)
    x, kind, answer, truth = rows(500, 0.8)
    live, _ = logged(tmp_path, hours(1, per_hour=500), answer, truth, more={"x": x, "kind": kind}, live={"features": ["x", "kind"]})
    for metric in ("mae", "rmse"):
        verdict = estimated(live, yard, Window(START, START + HOUR), label="label", metric=metric, at_most=5.0)
        real = _metrics.point(metric, Sample("regression", truth, answer, np.ones(500)))
        assert verdict.good and verdict.reading.interval[0] <= real <= verdict.reading.interval[1]
    assert estimated(live, yard, Window(START, START + HOUR), label="label", metric="r2", at_least=0.5).status is Status.NODATA


@pytest.mark.parametrize("metric", ["accuracy", "roc_auc"])
def test_the_realised_metric_lies_within_the_stated_error_of_the_estimate(metric):
    random, runs, inside = np.random.default_rng(10), 30, 0

    def drawn(n, shift):
        x = random.normal(shift, 1, n)
        score = 1 / (1 + np.exp(-1.6 * (x - 1)))  # too sure of itself
        truth = (random.random(n) < 1 / (1 + np.exp(1 - x))).astype(int)
        return Sample("binary", truth, (score > 0.5).astype(int), np.ones(n), ("0", "1"), 1, score, np.maximum(score, 1 - score), at=np.arange(n))

    for _ in range(runs):
        now = drawn(400, 0.4)
        found = _estimate.expected(metric, replace(now, truth=now.answer), drawn(2000, 0))
        inside += found.low <= _metrics.point(metric, now) <= found.high
    assert inside >= oracle.binom.ppf(1e-3, runs, 0.93)
