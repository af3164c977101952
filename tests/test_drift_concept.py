"""drift.concept: its factors summed exactly, its false alarms counted at the edge of what is allowed, its delay, its words about real tables."""

import math
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from scipy import stats as oracle

from agent import Baseline, Status, Window
from agent.errors import DataError
from agent.rebuild import rebuild, verdict_from_json, verdict_to_json
from checks import _concept
from checks._concept import BETS, Sums, edge, evidence, gain, restarted
from checks.drift import concept
from tests.labelled import HOUR, LABELS, LIVE, START, hours, logged, table, window


def errors(n, hits):
    return np.r_[np.ones(hits), np.zeros(n - hits)]


# The promise, by exact summation over the losses of one window


def most_expected(factor, most, n, p):
    """The largest mean that any bet's factor has, over all counts of errors, when each row errs with chance p."""
    chance = oracle.binom.pmf(np.arange(n + 1), n, p)
    logs = np.array([factor(errors(n, hits), most) for hits in range(n + 1)])
    return float((chance[:, None] * np.exp(logs)).sum(axis=0).max())


NULLS = [(0.118, 0.118), (0.118, 0.1), (0.118, 0.02), (0.5, 0.5), (0.5, 0.3), (0.01, 0.01), (0.9, 0.9), (0.9, 0.2)]


@pytest.mark.parametrize("n", [1, 2, 10, 100, 1000])
def test_no_factor_has_a_mean_above_one_while_the_risk_is_allowed(n):
    for most, p in NULLS:
        assert most_expected(gain, most, n, p) <= 1 + 1e-9


def test_nor_has_one_for_losses_that_are_no_errors():
    random = np.random.default_rng(2)
    for values in (np.array([0.0, 0.1, 0.4, 1.0]), np.array([0.05, 0.2, 0.9])):
        for chances in random.dirichlet(np.ones(len(values)), 50):
            most = float(values @ chances)
            means = np.array([gain(np.array([value]), most) for value in values])
            assert (chances @ np.exp(means)).max() <= 1 + 1e-9


# The promise, on streams at the edge: 400 streams of 50 windows at A = 100


def alarms(factor, most, p, streams=400, windows=50, rows=40, threshold=100.0):
    random = np.random.default_rng(7)
    count, factors = 0, [factor(errors(rows, hits), most) for hits in range(rows + 1)]
    for stream in random.binomial(rows, p, (streams, windows)):
        logs = ()
        for hits in stream:
            logs = restarted(logs, factors[hits])
            if evidence(logs) >= threshold:
                count += 1
                break
    return count


def kept(factor, most=0.118, p=0.118):
    """Whether a factor passes both: the exact means, and P(alarm within 50 windows) <= 50 / 100 by a binomial test at 1 in 10,000."""
    exact = all(most_expected(factor, limit, 100, risk) <= 1 + 1e-9 for limit, risk in NULLS)
    return exact and alarms(factor, most, p) <= oracle.binom.ppf(1 - 1e-4, 400, 0.5)


def test_at_the_edge_false_alarms_are_as_rare_as_promised():
    assert kept(gain)
    assert alarms(gain, 0.118, 0.118) <= 0.2 * 400  # and far rarer in fact


@pytest.mark.parametrize(
    "mutation",
    [
        pytest.param(lambda lost, most: gain(lost, most * 0.8), id="the margin forgotten"),
        pytest.param(lambda lost, most: gain(2 * most - lost, most), id="the sign swapped"),
        pytest.param(lambda lost, most: tuple(2 * one for one in gain(lost, most)), id="a window counted twice"),
        pytest.param(lambda lost, most: tuple(bet * float(((lost - most) / most).sum()) for bet in BETS), id="no price for variance"),
        pytest.param(lambda lost, most: tuple(one + 0.05 for one in gain(lost, most)), id="a small constant gained"),
    ],
)
def test_a_broken_factor_fails_these_tests(mutation):
    assert not kept(mutation)


def test_a_rise_from_a_tenth_to_three_twentieths_is_found_after_some_1900_labels():
    random, needed = np.random.default_rng(3), []
    for _ in range(80):
        hits = random.binomial(20_000, 0.1)
        most = edge(Sums(base_n=20_000, base_total=hits, base_squares=hits)) + 0.01
        logs, labels = (), 0
        for _ in range(20):
            logs = restarted(logs, gain(errors(100, random.binomial(100, 0.1)), most))
        while evidence(logs) < 2160:
            logs = restarted(logs, gain(errors(100, random.binomial(100, 0.15)), most))
            labels += 100
        needed.append(labels)
    assert 1300 < np.median(needed) < 2100
    assert np.quantile(needed, 0.9) < 3500


def test_the_upper_bound_covers_the_mean_loss_99_times_in_100():
    random, runs = np.random.default_rng(4), 2000
    for draw, truth in (
        (lambda: (random.random(500) < 0.1).astype(float), 0.1),
        (lambda: random.beta(0.5, 4, 500), 1 / 9),
    ):
        missed = 0
        for _ in range(runs):
            lost = draw()
            missed += edge(_concept._added(Sums(), lost)) < truth
        assert missed <= oracle.binom.ppf(1 - 1e-4, runs, 0.01)


def test_the_restarted_sum_is_the_sum_over_all_starts():
    steps = [(0.3,), (-0.2,), (0.5,), (0.1,)]
    logs = ()
    for step in steps:
        logs = restarted(logs, step)
    assert math.exp(logs[0]) == pytest.approx(sum(math.exp(sum(one for (one,) in steps[start:])) for start in range(4)))


# The check, on real tables


def answers(n, risk, seed=0):
    random = np.random.default_rng(seed)
    truth = random.integers(0, 2, n)
    return np.where(random.random(n) < risk, 1 - truth, truth), truth


def reference(folder, n=20_000, risk=0.1):
    prediction, truth = answers(n, risk, 99)
    return table(folder, "reference", {}, prediction=prediction, label=truth)


def folded(live, labels, count, first=0, memory=None, **more):
    """So many hours one after the other, memory going through JSON as the store has it."""
    found = []
    for hour in range(first, first + count):
        verdict = concept(live, labels, window(hour), 2160.0, memory=memory, **more)
        memory = rebuild(Sums, verdict_from_json(verdict_to_json(verdict)).memory)
        found.append(verdict)
    return found, memory


def test_a_quiet_stream_stays_ok_and_a_moved_truth_fails(tmp_path):
    (calm, moved) = answers(3000, 0.1, 1), answers(3000, 0.2, 2)
    live, labels = logged(tmp_path, hours(20, per_hour=300), np.r_[calm[0], moved[0]], np.r_[calm[1], moved[1]])
    found, memory = folded(live, labels, 20, reference=reference(tmp_path))
    assert {one.status for one in found[:10]} == {Status.OK}
    failed = next(place for place, one in enumerate(found) if one.status is Status.FAIL)
    assert 10 <= failed <= 13
    told = found[failed]
    assert told.reason.startswith("the truth has moved away from the answers: mean loss 0.")
    assert told.parts["evidence"].observed >= told.parts["evidence"].limit == 2160
    assert told.parts["coverage"].observed == 1.0
    assert told.parts["baseline"].n == 20_000
    assert memory.windows == 20


def test_windows_are_those_whose_labels_are_due_each_once(tmp_path):
    prediction, truth = answers(500, 0.1)
    live, labels = logged(tmp_path, hours(5), prediction, truth)
    yard = reference(tmp_path)
    found, memory = folded(live, labels, 5, reference=yard)
    assert [one.reading.n for one in found] == [100] * 5
    assert (memory.start_at, memory.end_at) == (START + 4 * HOUR, START + 5 * HOUR)
    after = concept(live, labels, window(5), 2160.0, yard, memory=memory)
    assert after.status is Status.NODATA and after.memory.end_at == START + 6 * HOUR


def test_of_a_window_that_overlaps_the_last_only_what_is_new_counts(tmp_path):
    prediction, truth = answers(500, 0.1)
    live, labels = logged(tmp_path, hours(5), prediction, truth)
    _, memory = folded(live, labels, 2, reference=reference(tmp_path))
    half = Window(window(1).start + timedelta(minutes=30), window(2).end)
    seen = concept(live, labels, half, 2160.0, reference(tmp_path), memory=memory)
    assert seen.reading.n == 100 and seen.memory.start_at == memory.end_at and seen.memory.end_at - seen.memory.start_at == HOUR
    with pytest.raises(DataError, match="no row may count twice"):
        concept(live, labels, window(1), 2160.0, reference(tmp_path), memory=memory)


def test_a_window_that_is_not_due_says_when_and_changes_nothing(tmp_path):
    prediction, truth = answers(500, 0.1)
    live, labels = logged(tmp_path, hours(5), prediction, truth)
    _, memory = folded(live, labels, 2, reference=reference(tmp_path))
    early = concept(live, labels, window(2), 2160.0, reference(tmp_path), memory=memory, now=START + timedelta(hours=26))
    assert early.status is Status.NODATA
    assert early.reason == "the labels of 2026-03-02 02:00:00 to 2026-03-02 03:00:00 are due at 2026-03-03 03:00:00, 1d after its end"
    assert early.memory == memory


def test_without_a_reference_the_first_labelled_rows_are_the_baseline_and_never_tested(tmp_path):
    prediction, truth = answers(3000, 0.1)
    live, labels = logged(tmp_path, hours(6, per_hour=500), prediction, truth)
    found, memory = folded(live, labels, 6, learn=2000)
    assert {one.status for one in found[:4]} == {Status.NODATA}
    assert found[0].reason == "no reference and no pinned baseline: 500 of the first 2000 labelled rows are taken as the baseline"
    assert found[3].reason.endswith("it is complete")
    assert {one.status for one in found[4:]} == {Status.OK}
    assert (memory.base_n, memory.windows) == (2000, 2)


def test_a_pinned_baseline_goes_before_the_reference_and_is_not_tested_against_itself(tmp_path):
    prediction, truth = answers(3000, 0.2)
    live, labels = logged(tmp_path, hours(30), prediction, truth)
    pin = Baseline(START, START + 20 * HOUR, "ada", "the present is as it should be", START + 50 * HOUR)
    inside = concept(live, labels, window(19), 2160.0, reference(tmp_path), pin)
    assert inside.status is Status.NODATA and "is part of the pinned baseline" in inside.reason
    found, _ = folded(live, labels, 3, first=20, baseline=pin, reference=reference(tmp_path))
    assert {one.status for one in found} == {Status.OK}
    assert found[0].parts["baseline"].n == 2000


def test_what_comes_late_is_told_in_the_next_finding_and_never_added(tmp_path):
    prediction, truth = answers(300, 0.1)
    keep = np.ones(300, bool)
    keep[[3, 50, 77]] = False
    live, labels = logged(tmp_path, hours(3), prediction, truth, keep=keep)
    yard = reference(tmp_path)
    _, memory = folded(live, labels, 1, reference=yard)
    live, labels = logged(tmp_path, hours(3), prediction, truth)
    (second, *_), after = folded(live, labels, 1, first=1, memory=memory, reference=yard)
    assert second.reason.endswith("3 labels of the last window came late and are not counted")
    expected = restarted(memory.logs, gain((prediction != truth)[100:200].astype(float), edge(memory) + 0.01))
    assert after.logs == pytest.approx(expected)


def test_few_labels_are_said_to_be_biased_and_fail_nothing(tmp_path):
    prediction, truth = answers(3000, 0.5)
    keep = np.arange(3000) % 5 == 0
    live, labels = logged(tmp_path, hours(6, per_hour=500), prediction, truth, keep=keep)
    found, _ = folded(live, labels, 6, reference=reference(tmp_path))
    assert {one.status for one in found} == {Status.WARN}
    assert "only 20% of the predictions have a label, and those may be biased" in found[-1].reason
    assert found[-1].reason.startswith("the truth has moved")
    found, _ = folded(live, labels, 6, reference=reference(tmp_path), coverage_at_least=0.1)
    assert found[-1].status is Status.FAIL


def test_probabilities_and_numbers_have_losses_too(tmp_path):
    random = np.random.default_rng(5)
    score = random.beta(1, 3, 3000)
    truth = (random.random(3000) < np.where(np.arange(3000) < 1500, score, 1 - score)).astype(int)
    live, labels = logged(tmp_path, hours(6, per_hour=500), (score > 0.5).astype(int), truth, score=score)
    found, _ = folded(live, labels, 6, loss="brier", learn=1000)
    assert [one.status for one in found[2:3]] == [Status.OK] and found[-1].status is Status.FAIL
    told = random.normal(100, 10, 3000)
    actual = told + random.normal(0, np.where(np.arange(3000) < 1500, 1, 3))
    live, labels = logged(tmp_path, hours(6, per_hour=500), told, actual)
    found, memory = folded(live, labels, 6, learn=1000)
    assert [one.status for one in found[2:3]] == [Status.OK] and found[-1].status is Status.FAIL
    assert memory.scale == pytest.approx(3.0, abs=0.8)
    with pytest.raises(DataError, match="loss 'brier' is none of regression"):
        concept(live, labels, window(0), 2160.0, loss="brier")


def test_a_reference_without_the_truth_is_an_error_that_says_what_to_do(tmp_path):
    prediction, truth = answers(300, 0.1)
    live, labels = logged(tmp_path, hours(3), prediction, truth)
    bare = table(tmp_path, "reference", {}, prediction=prediction)
    with pytest.raises(DataError, match="declares no id, so labels cannot be joined"):
        concept(live, labels, window(0), 2160.0, bare)
    with pytest.raises(DataError, match="has no column 'outcome' with the truth"):
        concept(live, labels, window(0), 2160.0, bare, label="outcome")


def test_a_reference_may_be_joined_to_the_labels_by_id(tmp_path):
    prediction, truth = answers(600, 0.1)
    live, labels = logged(tmp_path, hours(6), prediction, truth)
    named = {name: column for name, column in LIVE.items() if name != "score"}
    yard = table(tmp_path, "reference", named, at=hours(2), id=[f"id{n}" for n in range(200)], prediction=prediction[:200])
    found = concept(live, labels, window(3), 2160.0, yard)
    assert found.parts["baseline"].n == 200


def test_a_reference_too_small_to_bound_anything_is_nodata_and_an_always_wrong_one_too(tmp_path):
    prediction, truth = answers(300, 0.1)
    live, labels = logged(tmp_path, hours(3), prediction, truth)
    wrong = table(tmp_path, "reference", {}, prediction=1 - truth, label=truth)
    found = concept(live, labels, window(0), 2160.0, wrong)
    assert found.status is Status.NODATA and "cannot bound the mean loss below 1" in found.reason
    one = table(tmp_path, "reference", {}, prediction=truth[:1], label=truth[:1])
    with pytest.raises(DataError, match="has 1 labelled rows"):
        concept(live, labels, window(0), 2160.0, one)


def test_memory_is_small_and_comes_back_the_same():
    sums = replace(Sums(), logs=(0.1,) * len(BETS), end_at=START, start_at=START, learned=True)
    from agent.model import to_json

    assert rebuild(Sums, to_json(sums)) == sums
    assert LABELS["delay"] == 86_400
