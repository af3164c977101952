"""What is made of measurements: ratios of paired rounds, agreement of answers, and which variant may take the place of a graph."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cosine
from scipy.stats import binomtest
from sklearn.metrics import r2_score

from agent.errors import DataError
from agent.stats import CELLS, FEWEST, interleaved, paired
from runbooks._choose import Limits, Measured, choose, refusal
from runbooks._latency import surely_later
from runbooks._quality import Quality, _tail, compare, decibels, kind_of, unsound
from runbooks._runtime import Answers

# Paired rounds


@settings(max_examples=30)
@given(st.lists(st.floats(1e-6, 10), min_size=FEWEST, max_size=200), st.floats(0.01, 100))
def test_a_common_factor_is_the_ratio_whatever_the_rounds_were_like(times: list[float], factor: float) -> None:
    found = paired(times, [time / factor for time in times])
    assert found.low == pytest.approx(factor) and found.middle == pytest.approx(factor) and found.high == pytest.approx(factor)


def busy(rng: np.random.Generator, n: int) -> np.ndarray:
    """What a shared machine does to times: slow waves, and stretches in which everything takes three times as long."""
    wave = np.cumsum(rng.normal(0, 0.05, n))
    return np.exp(wave - wave.mean()) * np.where(np.repeat(rng.random(n // 8 + 1) < 0.2, 8)[:n], 3.0, 1.0)


def test_the_interval_holds_the_true_ratio_on_a_busy_machine() -> None:
    rng, held, runs = np.random.default_rng(1), 0, 400
    for _ in range(runs):
        noise = busy(rng, 240)
        before, after = (noise * rng.lognormal(0, 0.2, 240) for _ in range(2))
        found = paired(before.tolist(), (after / 1.3).tolist())
        held += found.low <= 1.3 <= found.high
    assert binomtest(held, runs, 0.93, "less").pvalue > 0.001  # 95 % is promised; a level below 93 % would be seen


def test_rounds_that_are_too_few_or_not_the_same_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        paired([1.0] * (CELLS - 1), [1.0] * (CELLS - 1))
    with pytest.raises(ValueError, match="cannot be paired"):
        paired([1.0] * 50, [1.0] * 49)


class Clock:
    """A clock that only runs while something is computed."""

    def __init__(self) -> None:
        self.now, self.ran = 0.0, list[str]()

    def run(self, name: str, seconds: float):
        def go() -> None:
            self.ran.append(name)
            self.now += seconds

        return go


def test_each_is_timed_once_a_round_and_none_always_after_the_same() -> None:
    clock = Clock()
    took = interleaved({"a": clock.run("a", 1.0), "b": clock.run("b", 2.0), "c": clock.run("c", 4.0)}, 30, 1e9, lambda: clock.now)
    assert took == {"a": [1.0] * 30, "b": [2.0] * 30, "c": [4.0] * 30}
    rounds = ["".join(clock.ran[at : at + 3]) for at in range(9, len(clock.ran), 3)]
    assert {"".join(sorted(one)) for one in rounds} == {"abc"} and len(set(rounds)) == 6
    before = [clock.ran[at - 1] for at in range(10, len(clock.ran)) if clock.ran[at] == "a"]
    assert set(before) == {"a", "b", "c"}


def test_time_that_is_used_up_ends_the_rounds_but_never_before_there_are_enough() -> None:
    clock = Clock()
    took = interleaved({"a": clock.run("a", 1.0)}, 1000, 40.0, lambda: clock.now)
    assert len(took["a"]) == 41
    took = interleaved({"a": clock.run("a", 1.0)}, 1000, 0.0, lambda: clock.now)
    assert len(took["a"]) == FEWEST


def test_a_tail_is_later_only_where_the_rounds_are_enough_to_say_so() -> None:
    rng = np.random.default_rng(2)
    before = rng.lognormal(0, 0.1, 1000).tolist()
    assert surely_later(before, [2 * time for time in before])
    assert not surely_later(before, before)
    assert not surely_later(before[:100], [2 * time for time in before[:100]])


# Agreement


def answered(values: np.ndarray, labels: list[object] | None = None) -> Answers:
    return Answers(None if labels is None else np.array(labels, dtype=object), (values.astype(np.float64),), values.shape[1])


ROWS = np.random.default_rng(3).normal(size=(50, 6))
OTHER = ROWS + np.random.default_rng(4).normal(0, 0.3, ROWS.shape)


def test_cosines_are_scipy_s() -> None:
    found = compare(answered(ROWS), answered(OTHER), "vectors")
    each = [1 - cosine(one, other) for one, other in zip(ROWS, OTHER, strict=True)]
    assert found.kept == found.cosine[0] == pytest.approx(np.mean(each)) and found.cosine[1] == pytest.approx(min(each))
    assert found.worst == pytest.approx(np.abs(ROWS - OTHER).max())
    assert found.fidelity == pytest.approx(10 * np.log10((ROWS**2).sum() / ((ROWS - OTHER) ** 2).sum()))


def test_the_variance_that_numbers_keep_is_scikit_learn_s() -> None:
    one, other = ROWS[:, :1], OTHER[:, :1]
    assert compare(answered(one), answered(other), "numbers").kept == pytest.approx(r2_score(one, other))


def test_right_and_wrong_are_counted_by_the_truth() -> None:
    truth = np.array(["0", "1", "1", "0"], dtype=object)
    plain, smaller = (np.array([[1.0, 0.0] if right == "0" else [0.0, 1.0] for right in text]) for text in ("0110", "0100"))
    found = compare(answered(plain), answered(smaller), "classes", truth)
    assert (found.before, found.after, found.lost, found.won, found.kept) == (1.0, 0.75, 1, 0, 0.75)


def test_labels_are_the_answers_where_a_graph_names_any() -> None:
    plain, smaller = answered(ROWS[:3], ["a", "b", "c"]), answered(OTHER[:3], ["a", "b", "x"])
    assert kind_of(plain, classes=False) == "classes"
    assert compare(plain, smaller, "classes", np.array(["a", "b", "c"], dtype=object)).lost == 1


def test_what_a_graph_answers_with_is_told_by_its_shape() -> None:
    assert kind_of(answered(ROWS), classes=False) == "vectors"
    assert kind_of(answered(ROWS), classes=True) == "classes"
    assert kind_of(answered(ROWS[:, :1]), classes=True) == "numbers"


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (3, 1), (5, 0), (40, 20), (700, 600)])
def test_surely_wrong_more_often_is_mcnemar_s_exact_test(lost: int, won: int) -> None:
    chance = 1.0 if lost + won == 0 else binomtest(lost, lost + won, 0.5, "greater").pvalue
    assert _tail(lost, lost + won) == pytest.approx(chance, abs=1e-3 if lost + won > 1000 else 1e-12)
    assert Quality("classes", 1.0, 99.0, (1.0, 1.0), 0.0, 2000, 0.9, 0.9, lost, won).worse is bool(chance <= 0.05)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_answer_that_is_no_number_is_never_compared(bad: float) -> None:
    broken = ROWS.copy()
    broken[[3, 7], 2] = bad
    assert unsound(answered(broken)) == 2
    with pytest.raises(DataError, match="answers 2 rows with something that is no number"):
        compare(answered(ROWS), answered(broken), "vectors")


@pytest.mark.parametrize(
    ("truth", "classes", "expected"),
    [
        (["yes", "no", "no"], (), "none of the answers"),
        (["0", "1"], (), "3 answers for 2 labels"),
        (["0", "1", "1"], ("a", "b"), "`classes` names 2"),
    ],
)
def test_a_truth_that_does_not_fit_the_answers_is_an_error(truth: list[str], classes: tuple[str, ...], expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        compare(answered(ROWS[:3]), answered(OTHER[:3]), "classes", np.array(truth, dtype=object), classes)


def test_answers_of_another_shape_are_none() -> None:
    with pytest.raises(DataError, match="another shape"):
        compare(answered(ROWS), answered(ROWS[:, :3]), "vectors")


def test_rows_of_zeros_are_like_each_other_and_like_nothing_else() -> None:
    zeros = np.zeros((2, 3))
    assert compare(answered(zeros), answered(zeros), "vectors").kept == 1.0
    assert compare(answered(zeros), answered(zeros + 1), "vectors").kept == 0.0
    assert decibels(1.0, 0.0) == 200.0 and decibels(0.0, 1.0) == 0.0


# The choice


KEPT = Quality("vectors", 0.999, 40.0, (0.999, 0.99), 0.1, 100)


def measured(
    name: str, factor: float, *, size: int = 250, kept: float = 0.999, fidelity: float = 40.0, noise: float = 0.02, seed: int = 5
) -> Measured:
    rng = np.random.default_rng([seed, sum(map(ord, name))])
    times = {batch: (batch / factor * rng.lognormal(0, noise, 240)).tolist() for batch in (1, 32)}
    return Measured(name, size, times, replace(KEPT, kept=kept, fidelity=fidelity))


PLAIN = measured("as it is", 1.0, size=1000)


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (measured("big", 2.0, size=700), "larger: it keeps 70% of the size, and may keep 60%"),
        (measured("bad", 2.0, kept=0.763), "worse: mean cosine 0.7630, and at least 0.98 is wanted"),
        (measured("slow", 0.2), "slower: 0.20x (0.2"),
        (measured("noisy", 1.0, noise=1.5), "not shown to be fast enough"),
        (measured("fine", 1.5), ""),
        (measured("even", 1.0, noise=0.01), ""),
    ],
)
def test_what_is_larger_slower_or_worse_is_refused_with_the_reason(one: Measured, why: str) -> None:
    assert refusal(PLAIN, one, Limits()).startswith(why) and bool(refusal(PLAIN, one, Limits())) is bool(why)


def test_what_is_surely_wrong_more_often_is_refused_however_many_answers_agree() -> None:
    one = measured("wrong", 2.0)
    lost = replace(one, quality=replace(one.quality, kind="classes", before=0.9, after=0.89, lost=10, won=0))
    assert "10 rows were right before and are wrong now, 0 the other way" in refusal(PLAIN, lost, Limits())


def test_one_batch_size_that_is_slower_is_enough() -> None:
    fast, slow = measured("a", 3.0), measured("a", 0.5)
    mixed = replace(fast, times={1: fast.times[1], 32: slow.times[32]})
    assert "at batch 32" in refusal(PLAIN, mixed, Limits())


def test_a_tie_in_speed_goes_to_the_better_quality() -> None:
    found = choose(PLAIN, [measured("fast", 2.0, kept=0.99), measured("faithful", 1.95, kept=0.995)], Limits())
    assert (found.best, set(found.tied)) == ("faithful", {"fast", "faithful"})


def test_a_lead_that_is_sure_beats_a_better_quality() -> None:
    found = choose(PLAIN, [measured("fast", 2.0, kept=0.99), measured("faithful", 1.4, kept=0.995)], Limits())
    assert (found.best, found.tied) == ("fast", ("fast",))


def test_none_is_chosen_where_all_are_refused() -> None:
    found = choose(PLAIN, [measured("slow", 0.5), measured("bad", 2.0, kept=0.5)], Limits())
    assert found.best is None and set(found.refused) == {"slow", "bad"}


@settings(max_examples=15)
@given(st.lists(st.tuples(st.floats(0.3, 4), st.floats(0.9, 1), st.integers(100, 900)), min_size=1, max_size=4))
def test_the_choice_is_the_same_in_any_order_and_never_one_that_is_refused(drawn: list[tuple[float, float, int]]) -> None:
    made = [measured(f"v{n}", factor, kept=kept, size=size) for n, (factor, kept, size) in enumerate(drawn)]
    found = {(one.best, frozenset(one.refused)) for order in list(permutations(made))[:3] for one in [choose(PLAIN, order, Limits())]}
    assert len(found) == 1
    best, refused = found.pop()
    assert best not in refused and (best is not None or len(refused) == len(made))


def test_the_choice_is_the_same_in_twenty_runs_on_a_busy_machine() -> None:
    rng, chosen = np.random.default_rng(6), set()
    for _ in range(20):
        noise = busy(rng, 240)
        made = {
            name: Measured(name, size, {1: (noise / factor * rng.lognormal(0, 0.1, 240)).tolist()}, replace(KEPT, kept=kept))
            for name, factor, kept, size in (("as it is", 1, 1, 1000), ("a", 1.8, 0.993, 250), ("b", 1.85, 0.99, 250), ("c", 1.2, 0.999, 300))
        }
        chosen.add(choose(made.pop("as it is"), list(made.values()), Limits()).best)
    assert chosen == {"a"}
