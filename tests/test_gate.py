"""The promotion gate: two models on the same rows, judged by what surely was lost, what surely was not, and what nobody can tell yet."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, ttest_1samp

from agent.stats import holm
from checks._gate import Case, Matrix, Slice, gate
from checks._paired import Flips, Losses, _score, flips, losses, rows_needed

COUNTS = st.tuples(*[st.integers(0, 400)] * 4).filter(lambda counts: sum(counts) > 0)


def simulated(rng, n: int, drop: float = 0.0, churn: float = 0.05, acc: float = 0.9) -> Flips:
    """A slice whose true change is -drop and of whose rows `churn` change between right and wrong."""
    lost, won = (churn + drop) / 2, (churn - drop) / 2
    both, b, c, neither = rng.multinomial(n, [acc - lost, lost, won, 1 - acc - won])
    return Flips(int(both), int(b), int(c), int(neither))


# Against oracles from outside


@given(COUNTS)
def test_the_chance_of_the_losses_is_mcnemars_exact_one(counts):
    pair = Flips(*counts)
    n = pair.lost + pair.won
    wanted = binomtest(pair.lost, n, 0.5, alternative="greater").pvalue if n else 1.0
    assert math.isclose(pair.worse(), wanted, rel_tol=1e-9)


def likeliest(pair: Flips, change: float) -> float:
    """The score by its definition: the share of losses most likely under that change, found by search and not by formula."""
    rest = pair.both + pair.neither

    def unlikely(lost: float) -> float:
        won = lost + change
        parts = [(pair.lost, lost), (pair.won, won), (rest, 1 - lost - won)]
        if any(p < 0 or (k and p <= 0) for k, p in parts):
            return 1e300
        return -sum(k * math.log(p) for k, p in parts if k)

    low, high = max(0.0, -change), (1 - change) / 2
    lost = minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return (pair.won - pair.lost - pair.n * change) / math.sqrt(pair.n * (2 * lost + change - change**2))


@settings(max_examples=60)
@given(st.tuples(*[st.integers(1, 400)] * 4), st.floats(-0.6, 0.6))
def test_tangos_score_is_that_of_the_likeliest_shares(counts, change):
    pair = Flips(*counts)
    assert math.isclose(_score(pair, change), likeliest(pair, change), rel_tol=1e-4, abs_tol=1e-4)


def test_tangos_interval_ends_where_the_score_is_just_not_rejected():
    """Its ends are the changes whose score, by definition, is one normal quantile away."""
    pair = Flips(both=26, lost=12, won=2, neither=3)
    low, high = pair.interval(0.95)
    z = 1.959963984540054
    assert math.isclose(likeliest(pair, low), z, rel_tol=1e-3) and math.isclose(likeliest(pair, high), -z, rel_tol=1e-3)


@given(COUNTS, st.floats(0.5, 0.999))
def test_an_interval_holds_the_change_and_stays_inside_minus_one_and_one(counts, level):
    pair = Flips(*counts)
    low, high = pair.interval(level)
    assert -1 <= low <= pair.change <= high <= 1


@given(COUNTS, st.floats(0.0, 0.5))
def test_what_is_within_its_margin_by_the_test_is_so_by_the_interval(counts, margin):
    pair = Flips(*counts)
    p, low = pair.within(margin), pair.interval(0.9)[0]
    assert p > 0.05 - 1e-6 or low >= -margin - 1e-9
    assert p < 0.05 + 1e-6 or low <= -margin + 1e-9


def test_the_interval_covers_the_true_change_as_often_as_it_says():
    rng = np.random.default_rng(0)
    for n, drop, churn in [(50, 0.0, 0.1), (200, 0.03, 0.05), (200, 0.0, 0.02), (1000, 0.05, 0.1)]:
        found = [simulated(rng, n, drop, churn).interval(0.9) for _ in range(600)]
        covered = sum(low <= -drop <= high for low, high in found)
        assert binomtest(covered, 600, 0.9, alternative="less").pvalue > 0.001, (n, drop, churn, covered / 600)


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=50), st.floats(0, 3))
def test_losses_are_judged_by_students_t(values, margin):
    gap = np.asarray(values)
    pair = losses(np.zeros(len(gap)), gap)
    if pair.sd < 1e-6:
        return
    assert math.isclose(pair.worse(), ttest_1samp(gap, 0.0, alternative="greater").pvalue, rel_tol=1e-6, abs_tol=1e-12)
    assert math.isclose(pair.within(margin), ttest_1samp(gap, margin, alternative="less").pvalue, rel_tol=1e-6, abs_tol=1e-12)
    low, high = ttest_1samp(-gap, 0.0).confidence_interval(0.9)
    assert np.allclose(pair.interval(0.9), (low, high), rtol=1e-6, atol=1e-9)


def test_losses_that_never_differ_are_neither_worse_nor_unsure():
    same = losses(np.ones(5), np.ones(5))
    assert (same.worse(), same.within(0.1), same.interval(0.9)) == (1.0, 0.0, (0.0, 0.0))
    assert losses(np.ones(1), np.ones(1)).within(0.1) == 1.0


# Hand-computed


def test_flips_and_what_is_made_of_them_by_hand():
    truth = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
    before = np.array([0, 0, 0, 1, 1, 1, 0, 0, 2, 0])
    after = np.array([0, 0, 1, 0, 1, 0, 1, 2, 2, 1])
    pair = flips(truth, before, after)
    assert (pair.both, pair.lost, pair.won, pair.neither, pair.moved) == (4, 2, 2, 2, 6)
    assert (pair.before, pair.after, pair.change, pair.nfr, pair.pfr, pair.churn) == (0.6, 0.6, 0.0, 0.2, 0.2, 0.6)
    assert (pair.btc, pair.bec) == (4 / 6, 2 / 4)


MATRIX = Matrix(
    ("1", "2", "3"),
    ("a", "b", "c"),
    {("1", "a"): 0.90, ("2", "a"): 0.95, ("3", "a"): 0.50, ("1", "b"): 0.30, ("2", "b"): 0.90, ("3", "b"): 0.40, ("3", "c"): 0.80, ("2", "c"): 0.35},
)


def test_forgetting_is_chaudhrys_and_transfer_lopez_pazs_by_hand():
    """The first two figures are those of the table of definitions: 0.45 and 0.50, whose mean is its 0.475."""
    assert math.isclose(MATRIX.forgetting("a"), 0.45) and math.isclose(MATRIX.forgetting("b"), 0.50)
    assert MATRIX.best("a") == "2" and MATRIX.best("c") == "3"
    assert math.isclose(MATRIX.transfer(), ((0.50 - 0.90) + (0.40 - 0.30) + (0.80 - 0.35)) / 3)
    forward = MATRIX.forward({"a": "1", "b": "2", "c": "3"}, {"a": 0.1, "b": 0.1, "c": 0.1})
    assert math.isclose(forward, ((0.30 - 0.1) + (0.35 - 0.1)) / 2)


def test_a_slice_that_improves_was_not_forgotten_and_one_seen_once_has_no_past():
    assert math.isclose(Matrix(("1", "2"), ("a",), {("1", "a"): 0.8, ("2", "a"): 0.9}).forgetting("a"), -0.1)
    assert Matrix(("1",), ("a",), {("1", "a"): 0.8}).forgetting("a") is None
    assert Matrix((), (), {}).transfer() is None and Matrix((), ("a",), {}).best("a") is None


def learned_in_turn(*rows: list[float]) -> Matrix:
    """Version i is served once slice i is learned; what is not learned yet is not measured."""
    names = [str(place) for place in range(len(rows))]
    values = {(names[i], names[j]): value for i, row in enumerate(rows) for j, value in enumerate(row)}
    return Matrix(tuple(names), tuple(names), values)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [  # the last three are what the libraries' own code gives for these accuracies
        (([0.9], [0.5, 0.9]), {"chaudhry": 0.4, "avalanche": 0.4, "mammoth": 0.4, "continuum": 0.0}),
        (([0.9], [0.95, 0.9], [0.5, 0.4, 0.9]), {"chaudhry": 0.475, "avalanche": 0.45, "mammoth": 0.475, "continuum": 0.2}),
        (([0.8], [0.9, 0.9]), {"chaudhry": -0.1, "avalanche": -0.1, "mammoth": 0.0, "continuum": 0.0}),
    ],
)
def test_what_libraries_call_forgetting_is_told_under_their_names(rows, expected):
    found = learned_in_turn(*rows).forgotten()
    assert found == pytest.approx(expected)


@given(st.integers(2, 6).flatmap(lambda n: st.lists(st.lists(st.floats(0, 1), min_size=n, max_size=n), min_size=n, max_size=n)))
def test_forgetting_agrees_with_its_formulas_over_any_whole_matrix(table):
    size = len(table)
    matrix, full = learned_in_turn(*(row[: place + 1] for place, row in enumerate(table))), np.tril(np.array(table))
    found, old = matrix.forgotten(), range(size - 1)
    assert found["mammoth"] == pytest.approx(np.mean([full[:, j].max() - full[-1, j] for j in old]))
    assert found["avalanche"] == pytest.approx(np.mean([full[j, j] - full[-1, j] for j in old]))
    assert found["chaudhry"] == pytest.approx(np.mean([full[j:-1, j].max() - full[-1, j] for j in old]))
    assert found["continuum"] == pytest.approx(sum(full[j : size - 2, j].max() - full[-1, j] for j in range(size - 2)) / (size - 1))
    assert matrix.transfer() == pytest.approx(-found["avalanche"])


def test_nothing_is_called_forgotten_where_nothing_is_known():
    assert Matrix((), (), {}).forgotten() == {} == Matrix(("1",), ("a",), {("1", "a"): 0.8}).forgotten()


# The verdict


def one(pair, **more):
    return gate([Case(Slice("old", "old", **more), "version 1", pair)])


def test_a_candidate_that_forgot_is_blocked_and_one_that_did_not_is_promoted():
    assert one(Flips(850, 50, 10, 90)).outcome == "block"
    promoted = one(Flips(2200, 60, 62, 178))
    assert promoted.outcome == "promote" and "loses less than 0.02" in promoted.why


def test_what_cannot_be_told_yet_says_how_many_rows_are_lacking():
    found = one(Flips(85, 3, 2, 10))
    (judged,) = found.judged
    assert found.outcome == "inconclusive" and f"label about {judged.short} more rows" in found.why
    again = Flips(85 * 40, 3 * 40, 2 * 40, 10 * 40)
    assert one(again).outcome in ("promote", "block", "inconclusive")


@given(COUNTS, st.floats(0.005, 0.2))
def test_so_many_rows_more_of_the_same_would_do_and_fewer_would_not(counts, margin):
    pair = Flips(*counts)
    short = rows_needed(pair, margin)
    if short is None:
        assert pair.change <= -margin or pair.times(2**20).within(margin) > 0.05
    else:
        assert pair.times((pair.n + short) / pair.n).within(margin) <= 0.05
        assert short == 1 or pair.times((pair.n + short - 2) / pair.n).within(margin) > 0.05 - 1e-9


def test_a_loss_larger_than_the_margin_asks_for_no_more_rows():
    assert rows_needed(Flips(90, 6, 2, 2), 0.02) is None
    assert "more rows would not show it" in one(Flips(90, 5, 2, 3), margin=0.02).why


def test_a_loss_that_is_sure_and_small_is_put_up_with():
    """A hundred thousand rows show a loss of half a point beyond any doubt; it is within the margin of two."""
    found = one(Flips(87_500, 2_500, 2_000, 8_000))
    assert found.judged[0].adjusted < 1e-6 and found.outcome == "promote"


def test_a_floor_blocks_whatever_was_served_before():
    assert one(Flips(700, 10, 12, 278), floor=0.9).outcome == "block"
    unsure = one(Flips(9_020, 100, 100, 780), floor=0.91)
    assert unsure.outcome == "inconclusive" and "floor of 0.91" in unsure.why
    assert one(Flips(9_420, 100, 100, 380), floor=0.91).outcome == "promote"


def test_one_bad_slice_blocks_and_one_unsure_slice_holds():
    good, bad, unsure = Flips(2300, 40, 42, 118), Flips(850, 50, 10, 90), Flips(85, 3, 2, 10)
    cases = [Case(Slice(name, "guard"), "version 1", pair) for name, pair in (("good", good), ("bad", bad), ("unsure", unsure))]
    assert gate(cases).outcome == "block" and gate(cases).judged[0].case.slice.name == "bad" and "bad" in gate(cases).why
    assert gate([cases[0], cases[2]]).outcome == "inconclusive"
    assert gate([cases[0]]).outcome == "promote"


def test_nothing_compared_is_inconclusive_and_so_are_no_rows():
    assert gate([]).outcome == "inconclusive"
    assert one(Flips(0, 0, 0, 0)).outcome == "inconclusive"


def test_ten_small_losses_in_a_row_do_not_pass_the_ratchet():
    """Each against the version before loses one point of a margin of two; against the best ever served the second one does not pass any more."""
    small, large = Flips(18_000, 500, 300, 1_200), Flips(17_600, 900, 300, 1_200)
    ratchet = gate([Case(Slice("guard", "guard"), "version 9", small), Case(Slice("guard", "guard"), "version 2, the best served", large)])
    assert ratchet.outcome == "block" and "the best served" in ratchet.why


@settings(max_examples=50)
@given(st.lists(COUNTS, min_size=1, max_size=6), st.randoms())
def test_the_order_of_the_slices_changes_nothing(counts, random):
    cases = [Case(Slice(str(place), "old"), "version 1", Flips(*given)) for place, given in enumerate(counts)]
    mixed = random.sample(cases, len(cases))
    assert gate(cases).outcome == gate(mixed).outcome
    assert {j.case.slice.name: j.outcome for j in gate(cases).judged} == {j.case.slice.name: j.outcome for j in gate(mixed).judged}


@settings(max_examples=50)
@given(st.lists(COUNTS, min_size=1, max_size=6))
def test_more_losses_never_turn_a_block_into_a_promotion(counts):
    def judged(extra: int):
        return gate([Case(Slice(str(n), "old"), "1", Flips(b, lost + extra, won, w)) for n, (b, lost, won, w) in enumerate(counts)]).outcome

    order = ["promote", "inconclusive", "block"]
    assert judged(0) != "block" or judged(50) != "promote"
    assert order.index(judged(50)) >= order.index(judged(0)) or judged(0) == "block"


def test_equal_candidates_are_seldom_blocked_and_the_forgetful_nearly_always():
    """The figures at their size are in benchmarks/gate.py; this holds the shape at a tenth of the runs."""
    rng = np.random.default_rng(1)
    equal = [gate([Case(Slice(str(n), "guard"), "1", simulated(rng, 300)) for n in range(20)]).outcome for _ in range(200)]
    assert binomtest(equal.count("block"), 200, 0.05, alternative="greater").pvalue > 0.001
    dropped = [
        gate([Case(Slice(str(n), "guard"), "1", simulated(rng, 1000, 0.03 if n == 7 else 0.0)) for n in range(20)]).outcome for _ in range(100)
    ]
    assert binomtest(dropped.count("block"), 100, 0.9, alternative="less").pvalue > 0.001


def test_the_adjusted_chances_are_holms():
    rng = np.random.default_rng(2)
    cases = [Case(Slice(str(n), "guard"), "1", simulated(rng, 500, 0.02 * (n % 3))) for n in range(9)]
    found = {j.case.slice.name: j.adjusted for j in gate(cases).judged}
    assert [found[str(n)] for n in range(9)] == list(holm([case.pair.worse() for case in cases]))


@pytest.mark.parametrize("pair", [Losses(200, 0.5, 1.0), Losses(200, -0.5, 1.0), Losses(5, 0.0, 1.0)])
def test_losses_are_gated_by_the_same_rules(pair):
    assert one(pair, margin=0.2).outcome == {0.5: "block", -0.5: "promote", 0.0: "inconclusive"}[pair.mean]
