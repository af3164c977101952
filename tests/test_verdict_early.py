"""Evidence that may be looked at at any time, the published numbers of early stopping, and what a warm-up may and may not do."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as oracle

from benchmarks._stalls import Part, drawn
from loadtests._early import OVER, UNDER, Early, needed
from loadtests._warm import warmed

RATE = 200


def counts(parts, runs, seconds, seed=4):
    for run in drawn(np.random.default_rng(seed), runs, seconds, parts):
        yield np.bincount(run.late // RATE, minlength=seconds).tolist()


def said(late, evidence=None):
    """The first word, and after how many windows."""
    evidence = evidence or Early(RATE)
    for number, over in enumerate(late, 1):
        if word := evidence.fold(RATE, over):
            return word, number
    return None, len(late)


def kept(wrong, runs):
    return oracle.binomtest(wrong, runs, 0.05, alternative="greater").pvalue > 0.001


HALF = 1 - 0.99**0.5
CAUSES = {
    "independent": (Part("single", 0.0, 0.01),),
    "stalls of 0.33 s": (Part("poisson", 1 / 3, 0.01),),
    "stalls of 1 s": (Part("poisson", 1.0, 0.01),),
    "periodic stalls of 0.6 s": (Part("periodic", 0.6, 0.01),),  # every 60 windows: all in odd ones, or all in even ones
    "periodic stalls of 1 s": (Part("periodic", 1.0, 0.01),),
    "half in stalls of 1 s": (Part("poisson", 1.0, HALF), Part("single", 0.0, HALF)),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_a_run_exactly_at_the_limit_and_looked_at_every_second_is_hardly_ever_ended(cause):
    words = [said(late)[0] for late in counts(CAUSES[cause], 40, 900)]
    assert kept(words.count("pass"), 40) and kept(words.count("fail"), 40)


class Whole(Early):
    """A bet on every window in turn with one capital: a burst that lies in two windows is then won twice."""

    def fold(self, n, over):
        self.windows = 0
        super().fold(n, over)
        for logs in self._logs.values():
            logs[1] = logs[0]
        return self.said


class Repeated(Early):
    """Looking at the exact bound every second, as if it were looked at once."""

    def fold(self, n, over):
        self.sent, self.bad = getattr(self, "sent", 0) + n, getattr(self, "bad", 0) + over
        high = oracle.beta.ppf(0.95, self.bad + 1, self.sent - self.bad)
        return "pass" if high <= 0.01 else None


def test_bets_on_neighbouring_windows_with_one_capital_would_win_on_average_by_the_bursts_that_lie_in_two():
    """Stalls of a second that begin in the middle of a window: the mean of the capital must not exceed 1, whatever happens."""
    begins = np.random.default_rng(4).random((4000, 4)) < 0.01
    runs = (RATE // 2 * (begins[:, 1:] + begins[:, :-1].astype(int))).tolist()
    for kind, fair in ((Early, True), (Whole, False)):
        capital = []
        for late in runs:
            evidence = kind(RATE)
            said(late, evidence)
            capital.append(evidence._capital("fail", OVER))
        low = np.mean(capital) - 3 * np.std(capital) / len(capital) ** 0.5
        assert (low <= 1.0) == fair


def test_looking_at_a_bound_for_one_look_every_second_would_too():
    runs = list(counts(CAUSES["independent"], 100, 60))
    assert not kept([said(late, Repeated(RATE))[0] for late in runs].count("pass"), 100)


@settings(max_examples=100, deadline=None)
@given(st.floats(0.001, 0.2), st.sampled_from([0.9, 0.95, 0.99]))
def test_a_bet_on_whole_windows_is_a_likelihood_ratio_and_so_cannot_win_on_average(allowed, confidence):
    """The mean of what one window multiplies every stake by is 1 where the share is what is allowed."""
    for over in (0, RATE):
        evidence = Early(RATE, 1 - allowed, confidence)
        evidence.fold(RATE, over)
        bad = over / RATE
        ratios = [math.exp(log) for log in evidence._logs["pass"][0]]
        assert ratios == pytest.approx([(1 - stake) if bad else (1 - allowed * (1 - stake)) / (1 - allowed) for stake, _ in UNDER], abs=1e-9)
        falling = [math.exp(log) for log in evidence._logs["fail"][0]]
        assert falling == pytest.approx([1 + stake * (bad - allowed) / allowed for stake, _ in OVER])
    for stakes in (UNDER, OVER):
        assert sum(weight for _, weight in stakes) == pytest.approx(1)


@given(st.lists(st.integers(0, RATE), max_size=298), st.sampled_from([0.95, 0.99]))
@settings(max_examples=60, deadline=None)
def test_it_never_passes_before_a_run_could(late, confidence):
    evidence = Early(RATE, 0.99, confidence)
    assert all(evidence.fold(RATE, over) != "pass" for over in late)


def test_a_clean_run_passes_in_time_and_a_bad_one_fails_at_once():
    assert said([0] * 1000) == ("pass", 710)
    assert said([RATE] * 10)[0] == "fail" and said([RATE] * 10)[1] <= 4
    assert said([4] * 300)[0] == "fail"
    assert said([2] * 3000) == (None, 3000)


def test_a_window_without_requests_says_nothing():
    evidence = Early(RATE)
    assert evidence.fold(0, 0) is None and evidence.windows == 1
    assert said([0] * 1000, evidence) == ("pass", 710)


def test_a_window_that_holds_less_counts_for_less():
    half = Early(RATE)
    assert next(number for number in range(1, 3000) if half.fold(RATE // 2, 0)) == pytest.approx(1418, rel=0.01)


@pytest.mark.parametrize(("n", "over"), [(-1, 0), (10, 11), (10, -1), (RATE + 1, 0)])
def test_counts_that_cannot_be_are_refused(n, over):
    with pytest.raises(ValueError, match="over the limit of"):
        Early(RATE).fold(n, over)


# How many requests


PUBLISHED = {  # MLPerf Inference's early stopping, quantile -> confidence -> for 0, 1, 2, 5, 10 and 50 over the limit
    0.95: {0.95: (59, 93, 124, 208, 336, 1260), 0.99: (90, 130, 165, 259, 398, 1372)},
    0.99: {0.95: (299, 473, 628, 1049, 1693, 6323), 0.99: (459, 662, 838, 1307, 2010, 6898)},
    0.999: {0.95: (2995, 4742, 6294, 10_511, 16_959, 63_281), 0.99: (4603, 6636, 8403, 13_105, 20_140, 69_058)},
}


@pytest.mark.parametrize(("quantile", "confidence"), [(quantile, confidence) for quantile, rows in PUBLISHED.items() for confidence in rows])
def test_sample_sizes_are_the_published_ones(quantile, confidence):
    assert tuple(needed(over, quantile, confidence) for over in (0, 1, 2, 5, 10, 50)) == PUBLISHED[quantile][confidence]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 300), st.floats(0.5, 0.9999), st.floats(0.5, 0.999))
def test_and_they_are_the_least_that_scipys_binomial_allows(over, quantile, confidence):
    n = needed(over, quantile, confidence)
    assert oracle.binom.cdf(over, n, 1 - quantile) <= (1 - confidence) * (1 + 1e-9)
    assert n == over + 1 or oracle.binom.cdf(over, n - 1, 1 - quantile) > (1 - confidence) * (1 - 1e-9)


def test_no_number_answers_a_question_that_makes_no_sense():
    for wrong in ((-1, 0.99, 0.95), (0, 1.0, 0.95), (0, 0.99, 1.0)):
        with pytest.raises(ValueError, match="no number of requests"):
            needed(*wrong)


# Warm-up


def test_a_warm_up_is_told_in_seconds():
    at = np.arange(0, 300, 0.01)
    cold = np.where(at < 25, 0.08, 0.01)
    assert warmed(at, cold) == pytest.approx(25, abs=6)
    assert warmed(at, np.full_like(at, 0.01)) == 0.0
    assert warmed(at, np.where(at < 100, 0.08, 0.01)) is None, "it is longer than a fifth of the run"
    assert warmed(at, np.where(at < 25, math.inf, 0.01)) == pytest.approx(25, abs=6)


def test_a_stall_is_no_warm_up():
    at = np.arange(0, 300, 0.01)
    assert warmed(at, np.where((at > 3) & (at < 4.2), 1.0, 0.01)) == 0.0


@pytest.mark.parametrize("at", [[], [1.0], [2.0, 2.0]])
def test_too_little_to_say(at):
    assert warmed(at, [0.1] * len(at)) is None
