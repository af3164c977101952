"""canary.compare on real tables: roll back, promote and hold; and the e-values it stands on, by exact sums and by simulation."""

import base64
import json
import math
from datetime import timedelta
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from scipy import stats as oracle

from agent import Status, Window, config, to_json
from agent.errors import ConfigError, DataError
from agent.perform import MEMORY_LIMIT, perform
from agent.rebuild import rebuild, verdict_to_json
from checks import _arms
from checks._arms import Rows, arranged, counted, remembered
from checks._canary import ODDS, Evidence, averaged, further, harm_ratios, log_ratio, nearest, proved, rates, safe_ratios, standing, summed
from checks._hits import Hits, scale
from checks._trial import MARGINS, Kept, Trial
from checks.canary import compare
from tests.labelled import START, logged, table

ARMS = {"baseline": "1", "candidate": "2"}
DECLARED = {"time": {"column": "at", "unit": "s"}, "id": "id", "version": "version"}
RATES = st.floats(0.001, 0.999)


# The e-values


def outcomes(n_b, n_c, p_b, p_c):
    """Every (x_b, x_c) as counts, and its probability."""
    pairs = np.array(list(product(range(n_b + 1), range(n_c + 1))))
    counts = np.stack([np.full(len(pairs), n_b), pairs[:, 0], np.full(len(pairs), n_c), pairs[:, 1]], axis=-1)
    return counts, oracle.binom.pmf(pairs[:, 0], n_b, p_b) * oracle.binom.pmf(pairs[:, 1], n_c, p_c)


def null(p, d, inside):
    """Rates (p_b, p_c) with p_c - p_b <= d, or beyond it where `inside` is negative."""
    p_b = p * (1 - d)
    return p_b, min(max(p_b + d - inside, 0.0), 1.0)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), RATES, st.floats(0, 0.6), RATES, st.floats(0, 1))
def test_the_mean_of_an_e_value_is_at_most_1_wherever_in_its_null_the_rates_are(n_b, n_c, guess, d, p, depth):
    p_b, p_c = null(p, d, depth)
    counts, chance = outcomes(n_b, n_c, p_b, p_c)
    worse = np.exp(harm_ratios(counts[:, None], np.full((len(counts), 1), guess), (d,)))[:, 0, 0]
    assert (chance @ worse <= 1 + 1e-6).all()
    p_b, p_c = null(p, d, -depth)
    counts, chance = outcomes(n_b, n_c, p_b, p_c)
    if d > 0:
        alike = np.exp(safe_ratios(counts[:, None], np.full((len(counts), 1), guess), (d,)))[:, 0, 0]
        assert chance @ alike <= 1 + 1e-6


def test_an_e_value_that_is_right_grows_and_one_that_is_not_may_only_shrink():
    counts, chance = outcomes(20, 10, 0.05, 0.4)
    told = harm_ratios(counts[:, None], np.full((len(counts), 1), 0.1), (0.0,))[:, 0, 0]
    assert (chance @ told).max() > 0.5  # in a world that is worse the evidence grows ...
    counts, chance = outcomes(20, 10, 0.1, 0.1)
    assert (chance @ harm_ratios(counts[:, None], np.full((len(counts), 1), 0.1), (0.0,))[:, 0, 0] < 0).all()  # ... and else not


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 500), st.integers(1, 500), RATES, RATES, st.floats(0, 0.9))
def test_the_nearest_point_of_the_null_is_the_one_an_optimiser_finds(n_b, n_c, g_b, g_c, d):
    def far(q):
        told = g_b * math.log(g_b / q) + (1 - g_b) * math.log((1 - g_b) / (1 - q))
        return n_b * told + n_c * (g_c * math.log(g_c / (q + d)) + (1 - g_c) * math.log((1 - g_c) / (1 - q - d)))

    best = optimize.minimize_scalar(far, bounds=(1e-12, 1 - d - 1e-12), method="bounded", options={"xatol": 1e-12})
    mine = float(nearest(np.float64(n_b), np.float64(n_c), g_b, g_c, d))
    assert far(mine) <= best.fun + 1e-7 * max(1.0, abs(best.fun))


def test_of_rare_hits_it_only_matters_which_arm_they_come_from():
    counts, odds = np.array([9_000.0, 2, 1_000, 3]), 5.0
    guess = 1e-6 / (1 + 0.1 * (odds - 1))
    told = float(log_ratio(counts, guess, guess * odds, 0.0))
    assert told == pytest.approx(3 * math.log(odds / (0.9 + 0.1 * odds)) - 2 * math.log(0.9 + 0.1 * odds), rel=1e-4)


def drawn(p_b, p_c, canaries, looks, weight=0.1, cell=100, seed=0):
    random = np.random.default_rng(seed)
    n_c = random.binomial(cell, weight, (looks, canaries))
    return np.stack([cell - n_c, random.binomial(cell - n_c, p_b), n_c, random.binomial(n_c, p_c)], axis=-1)


def evidence(counts):
    ratios = harm_ratios(counts, rates(counts, np.zeros(counts.shape[1:])), (0.0,))
    return averaged(summed(ratios, np.full(ratios.shape[1:], -np.inf), 0))


def test_few_good_canaries_are_rolled_back_however_often_one_looks_and_a_peeked_test_rolls_back_many():
    counts = drawn(0.01, 0.01, 500, 100)
    wrong = (evidence(counts).max(axis=0) >= math.log(1 / 0.05)).mean()
    n_b, x_b, n_c, x_c = np.moveaxis(np.cumsum(counts, axis=0), -1, 0)
    peeked = (oracle.binom.sf(x_c - 1, x_b + x_c, n_c / (n_b + n_c)).min(axis=0) <= 0.05).mean()
    assert wrong <= oracle.binom.ppf(1 - 1e-6, 500, 0.05) / 500 < peeked


def test_incidents_that_befall_both_versions_and_weights_that_change_roll_nothing_back():
    random = np.random.default_rng(3)
    rate = np.where(random.random((90, 300)) < 0.1, random.random((90, 300)), 0.001)
    n_c = random.binomial(100, np.repeat([0.01, 0.1, 0.5], 30)[:, None], (90, 300))
    counts = np.stack([100 - n_c, random.binomial(100 - n_c, rate), n_c, random.binomial(n_c, rate)], axis=-1)
    assert (evidence(counts).max(axis=0) >= math.log(20)).sum() <= oracle.binom.ppf(1 - 1e-6, 300, 0.05)


def test_few_canaries_that_are_worse_by_the_margin_are_promoted_at_any_look():
    counts = drawn(0.05, 0.1, 400, 100)
    sums = np.cumsum(safe_ratios(counts, rates(counts, np.zeros((400, 4))), (0.05,))[..., 0], axis=0)
    assert (sums.max(axis=0) >= math.log(20)).sum() <= oracle.binom.ppf(1 - 1e-6, 400, 0.05)
    good = drawn(0.05, 0.05, 50, 100)
    sums = np.cumsum(safe_ratios(good, rates(good, np.zeros((50, 4))), (0.05,))[..., 0], axis=0)
    assert (sums.max(axis=0) >= math.log(20)).all()


def test_the_bounds_hold_the_true_difference():
    inside = []
    for seed in range(100):
        one = further(Evidence(1), drawn(0.1, 0.16, 1, 60, 0.5, seed=seed), 0.05)
        told = standing(one, 0.05, 0.05)
        inside.append(told.low <= 0.06 <= told.high)
        assert told.low < told.high
    assert sum(inside) >= oracle.binom.ppf(1e-6, 100, 0.9)
    assert standing(Evidence(1), 0.05, 0.05).shares[0] != standing(Evidence(1), 0.05, 0.05).shares[0]  # NaN: no row, no share


def test_products_that_begin_in_each_cell_are_averaged_as_a_plain_loop_does_and_weigh_one_in_all():
    ratios = np.random.default_rng(0).normal(size=(40, 1, 1, 1))
    weights = [0.9, *(0.1 / (cell * (cell - 1)) for cell in range(2, 41))]
    total, way = 0.0, []
    for weight, ratio in zip(weights, ratios.ravel(), strict=True):
        total = (total + weight) * math.exp(ratio)
        way.append(math.log(total))
    np.testing.assert_allclose(summed(ratios, np.full((1, 1, 1), -np.inf), 0).ravel(), way, rtol=1e-9, atol=1e-9)
    assert sum(weights) < 1


def test_what_was_proved_once_stays_proved():
    bad, good = drawn(0.1, 0.5, 1, 10, 0.5), drawn(0.1, 0.0, 1, 300, 0.5)
    proof = further(Evidence(1), bad, 0.1)
    after = further(proof, good, 0.1)
    assert after.best >= proof.best > math.log(100) > after.path[-1] * math.log(10)
    assert further(Evidence(1), np.concatenate([bad, good]), 0.1).best == pytest.approx(after.best)


def test_a_difference_that_comes_and_goes_is_told_as_such_and_not_promoted():
    calm, wild = drawn(0.1, 0.1, 1, 80, 0.5), drawn(0.1, 0.6, 1, 6, 0.5)
    told = standing(further(Evidence(1), np.concatenate([calm, wild]), 0.1), 0.1, 0.01)
    assert told.low > told.high and not told.safe and told.p < 0.01


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.integers(0, 1_000))
def test_cells_judged_one_by_one_or_all_at_once_give_the_same_evidence(sizes, seed):
    counts = drawn(0.1, 0.2, 3, sum(sizes), seed=seed)
    whole, parts, at = further(Evidence(3), counts, 0.05), Evidence(3), 0
    for size in sizes:
        parts, at = further(parts, counts[at : at + size], 0.05), at + size
    for one, other in zip(whole.arrays(8), parts.arrays(8), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)
    assert whole.best == pytest.approx(parts.best) and len(whole.arrays(8)[1][0, 0]) == len(ODDS)


def test_holm_asks_more_of_one_metric_among_four_and_counts_those_that_have_said_nothing():
    def at(p):
        return standing(Evidence(1, best=-math.log(p)), 0.05, 0.01)

    assert proved([at(0.009)], 0.01) == [True] and proved([at(0.009)], 0.01, absent=3) == [False]
    assert proved([at(0.0024), at(0.004), at(0.5), at(0.5)], 0.01) == [True, False, False, False]
    assert proved([at(0.0024), at(0.003), at(0.5), at(0.5)], 0.01) == [True, True, False, False]


# On tables


def log(folder, seconds=300, rate=100, weight=0.2, errors=(0.001, 0.001), seed=0, before=120, **more):
    """Requests of version 1, and from START on of version 2 as well, with a status, a latency and a class."""
    random, n = np.random.default_rng(seed), (seconds + before) * rate
    at = np.sort(START.timestamp() - before + random.random(n) * (seconds + before))
    new = (random.random(n) < weight) & (at >= START.timestamp())
    columns = {
        "at": at,
        "id": [f"id{place}" for place in range(n)],
        "version": np.where(new, 2, 1).tolist(),
        "status": np.where(random.random(n) < np.where(new, errors[1], errors[0]), 503, 200).tolist(),
        "latency": np.exp(random.normal(size=n)).tolist(),
        "prediction": random.choice(["cat", "dog"], n, p=[0.7, 0.3]).tolist(),
    }
    return table(folder, "live", DECLARED | {"prediction": "prediction"}, **columns | {name: make(new, random) for name, make in more.items()})


def look(live, start, end, memory=None, labels=None, **asked):
    """One look at the seconds from START on, its memory kept as the platform keeps it."""
    asked = ARMS | {"status": "status"} | asked
    verdict = compare(live, Window(START + timedelta(seconds=start), START + timedelta(seconds=end)), memory, labels, **asked)
    kept = None if verdict.memory is None else rebuild(Trial, json.loads(json.dumps(to_json(verdict.memory))))
    return verdict, kept


def looks(live, ends, labels=None, **asked):
    """Looks whose windows follow each other, until roll back or promote is said."""
    memory, start, verdicts = None, 0.0, []
    for end in ends:
        verdict, memory = look(live, start, end, memory, labels, **asked)
        start, verdicts = end, [*verdicts, verdict]
        if verdict.status in (Status.FAIL, Status.OK):
            break
    return verdicts, memory


def test_a_version_with_more_errors_is_rolled_back_and_the_reason_says_how_many_more(tmp_path):
    verdicts, _ = looks(log(tmp_path, errors=(0.001, 0.03)), range(15, 300, 15))
    assert [one.status for one in verdicts[:-1]] == [Status.NODATA] * (len(verdicts) - 1)
    last = verdicts[-1]
    assert last.status is Status.FAIL and last.reason.startswith("roll back 2: errors ") and "surely more" in last.reason
    assert last.parts["errors"].interval[0] >= 0 and last.parts["errors"].observed > 0.01
    told = json.loads(last.data["canary.json"])
    assert [one["worse"] for one in told["metrics"]] == [True, False] and last.data["errors.svg"].startswith(b"<svg")


def test_an_equal_version_is_held_with_what_is_still_needed_and_then_promoted(tmp_path):
    verdicts, memory = looks(log(tmp_path, rate=120), range(15, 300, 15), latency="latency")
    assert verdicts[0].reason.splitlines()[0].startswith("hold: about ") and "more requests of version 2 (" in verdicts[0].reason
    last = verdicts[-1]
    assert last.status is Status.OK and last.reason.startswith("promote 2: by errors (0.5 points), latency (2 points), predictions (5 points)")
    assert all(part.interval[1] <= part.limit for part in last.parts.values()) and {*last.parts} == {"errors", "latency", "predictions"}
    assert len(json.dumps(to_json(memory))) < 20_000


def test_a_slower_version_is_rolled_back_and_an_error_counts_as_slow(tmp_path):
    slower = log(tmp_path, latency=lambda new, random: np.exp(random.normal(size=len(new)) + 0.5 * new))
    assert looks(slower, range(20, 300, 20), latency="latency")[0][-1].reason.startswith("roll back 2: latency ")
    broken = log(tmp_path, errors=(0.0, 0.5), latency=lambda new, random: np.full(len(new), 0.1))
    last = looks(broken, range(20, 300, 20), latency="latency", metrics=["latency"], slow_above=1.0)[0][-1]
    assert last.status is Status.FAIL and last.parts["latency"].observed == pytest.approx(0.5, abs=0.1)


def test_other_predictions_hold_for_a_person_and_roll_back_only_where_that_is_said(tmp_path):
    live = log(tmp_path, prediction=lambda new, random: np.where(random.random(len(new)) < 0.7 - 0.2 * new, "cat", "dog").tolist())
    held = looks(live, range(60, 300, 60))[0][-1]
    assert held.status is Status.NODATA and "predictions 'dog' 49.6" in held.reason and "for a person to say" in held.reason
    assert looks(live, range(60, 300, 60), critical=["predictions"])[0][-1].reason.startswith("roll back 2: predictions ")


def test_a_version_that_answers_nothing_is_seen_by_its_predictions(tmp_path):
    def gone(new, random):
        return [None if one and random.random() < 0.3 else 0.5 + random.random() for one in new]

    live = log(tmp_path, seconds=120, prediction=gone)
    assert "predictions 'null' " in looks(live, [120])[0][-1].reason


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 1_190), max_size=6))
def test_how_windows_are_cut_and_which_looks_failed_changes_nothing(tmp_path_factory, cuts):
    live = log(
        tmp_path_factory.mktemp("cut"), seconds=120, rate=30, errors=(0.05, 0.08), client=lambda new, random: random.integers(0, 500, len(new))
    )
    asked = {"latency": "latency", "client": "client"}
    whole = look(live, 0, 120, **asked)[1]
    memory, start = None, 0.0
    for end in [*sorted(cut / 10 for cut in cuts), 120.0]:
        if memory is None or len(cuts) % 2 == 0:
            memory = look(live, start, end, memory, **asked)[1] if end > start else memory
        start = end
    memory = look(live, start, 120, memory, **asked)[1]
    assert memory.until_at == whole.until_at and {*memory.metrics} == {"errors", "latency", "predictions"}
    for name, kept in whole.metrics.items():
        other = memory.metrics[name]
        assert (kept.rows, kept.left) == (other.rows, other.left)
        for one, two in zip(kept.evidence.arrays(8), other.evidence.arrays(8), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-9)


def test_a_look_at_a_window_that_was_judged_adds_nothing(tmp_path):
    live = log(tmp_path, seconds=100)
    verdict, memory = look(live, 0, 60)
    again, kept = look(live, 0, 60, memory)
    assert kept.metrics == memory.metrics and again.reason == verdict.reason and again.parts == verdict.parts


# Clients


def test_a_client_counts_once_a_cell_and_no_more_once_it_was_a_hit():
    at = np.arange(8.0)
    rows = arranged({}, at, [0, 0, 1, 1, 0, 0, 1, 1], ["a", "a", "b", "b", "a", "c", "b", None])
    hits = Hits(("errors",), np.ones(8, bool), np.array([[0, 1, 0, 0, 1, 0, 1, 0]], bool))
    bounds = [(0, 4, START), (4, 8, START)]
    counts, left = counted(rows, hits, bounds)
    assert counts[:, 0].tolist() == [[1, 1, 1, 0], [1, 0, 2, 1]]  # a failed, and is not asked again; a row without a client is one of its own
    assert len(remembered(left)) == 2
    assert counted(rows, hits, bounds, left)[0][:, 0].tolist() == [[0, 0, 0, 0], [1, 0, 1, 0]]
    first = Hits(("x", "y"), np.ones(8, bool), np.array([[1, 0, 1, 0, 0, 0, 0, 0], [0, 1, 0, 1, 1, 1, 1, 1]], bool), once=True)
    assert counted(rows, first, bounds)[0].tolist() == [[[1, 1, 1, 1], [1, 0, 1, 0]], [[1, 0, 1, 0], [1, 1, 1, 1]]]


def test_no_more_clients_are_counted_than_can_be_remembered(monkeypatch):
    monkeypatch.setattr(_arms, "CLIENTS", 50)
    rows = arranged({}, np.arange(100.0), np.arange(100) % 2, [f"c{n}" for n in range(100)])
    hits = Hits(("errors",), np.ones(100, bool), np.ones((1, 100), bool))
    counts, left = counted(rows, hits, [(n, n + 10, START) for n in range(0, 100, 10)])
    assert counts[:, 0, 0].tolist() == [5] * 5 + [0] * 5 and len(remembered(left)) == 50


def test_a_few_clients_that_fail_all_the_time_roll_nothing_back_where_clients_are_counted(tmp_path):
    def client(new, random):
        return np.where(new, random.integers(0, 200, len(new)), random.integers(200, 1_000, len(new))).tolist()

    who = {"client": client}
    live = log(tmp_path, **who)
    names, status = (np.concatenate(list(live.column(name))) for name in ("client", "status"))
    status = np.where(names == 7, 503, 200).tolist()  # one broken client, which stays with version 2
    live = log(tmp_path, **who, status=lambda new, random: status)
    assert looks(live, [150, 300])[0][-1].status is Status.FAIL
    (first, *_, last), _ = looks(live, [20, 150, 300], client="client", metrics=["errors"])
    assert "more clients of version 2 (errors)" in first.reason
    assert last.status is Status.OK and "by clients" in last.reason


def test_clients_that_go_from_version_to_version_are_no_clients_to_count_by(tmp_path):
    mixed = log(tmp_path, seconds=60, client=lambda new, random: random.integers(0, 50, len(new)))
    assert "of the clients are in both versions, so requests are what is routed; leave out client" in look(mixed, 0, 60, client="client")[0].reason


def test_a_cell_waits_for_ten_rows_of_either_version_and_no_longer_than_sixty_stretches():
    step, minute = timedelta(seconds=10), timedelta(minutes=1)
    at = START.timestamp() + np.arange(1_300.0)  # one request a second, every twentieth of the candidate: ten of them in 200 s
    rows = arranged({}, at, np.arange(1_300) % 20 == 0, None)
    found = _arms.cells(rows, Window(START + timedelta(seconds=3), START + timedelta(seconds=1_300)), step)
    assert [(end - START).total_seconds() for *_, end in found] == [190.0, 390.0, 590.0, 790.0, 990.0, 1190.0]
    alone = arranged({}, at, np.zeros(1_300), None)
    assert [(end - START) / minute for *_, end in _arms.cells(alone, Window(START, START + 21 * minute), step)] == [10.0, 20.0]
    assert _arms.cells(alone, Window(START + timedelta(seconds=1), START + timedelta(seconds=9)), step) == []


def test_a_memory_full_of_clients_is_one_the_platform_keeps():
    full = base64.b64encode(np.arange(_arms.CLIENTS, dtype="<u4").tobytes()).decode()
    kept = {name: Kept(("x",) * 10, further(Evidence(20), np.full((1, 20, 4), 10.0), 0.05), full) for name in MARGINS}
    text = json.dumps(to_json(Trial(START, START, metrics=kept)))
    assert len(text) < MEMORY_LIMIT and rebuild(Trial, json.loads(text)).metrics == kept


# The truth


def test_wrong_answers_roll_back_once_their_labels_are_due(tmp_path):
    random, n = np.random.default_rng(0), 6_000
    at = START.timestamp() + np.arange(n) / 20
    new = random.random(n) < 0.5
    truth = random.integers(0, 2, n)
    said = np.where(random.random(n) < np.where(new, 0.3, 0.1), 1 - truth, truth)
    more = {"version": np.where(new, "2", "1").tolist(), "status": [200] * n}
    live, labels = logged(tmp_path, at, said, truth, live=DECLARED, labels={"delay": 3600.0}, more=more)
    asked = {"metrics": ["errors", "quality"]}
    early, memory = look(live, 0, 300, labels=labels, **asked)
    assert early.status is Status.NODATA and "no label of either version was due yet" in early.reason
    late, _ = look(live, 300, 3_900, memory, labels, **asked)
    assert late.status is Status.FAIL and late.reason.startswith("roll back 2: quality 29.8") and late.parts["quality"].n > 2_000


def test_amounts_are_wrong_by_how_far_they_are_off(tmp_path):
    random, n = np.random.default_rng(1), 4_000
    at, new = START.timestamp() + np.arange(n) / 20, random.random(n) < 0.5
    truth = random.normal(100, 20, n)
    more = {"version": np.where(new, "2", "1").tolist()}
    live, labels = logged(tmp_path, at, truth + np.where(new, 3, 1) * random.normal(size=n), truth, live=DECLARED, labels={"delay": 0.0}, more=more)
    with pytest.raises(ConfigError, match="say with wrong_above how far off"):
        look(live, 0, 200, labels=labels, status=None, metrics=["quality"])
    last, _ = look(live, 0, 200, labels=labels, status=None, metrics=["quality"], wrong_above=3.0)
    assert last.status is Status.FAIL and last.reason.startswith("roll back 2: quality ")


# Hostile tables, and what is said of them


def test_no_row_and_a_silent_version_are_never_ok(tmp_path):
    empty = table(tmp_path, "live", DECLARED, at=np.empty(0), id=np.array([], str), version=np.array([], str), status=np.empty(0))
    verdict, _ = look(empty, 0, 300)
    assert verdict.status is Status.NODATA and verdict.reason.startswith("hold: no request of version 1 yet; no request of version 2 yet")
    alone, _ = look(log(tmp_path, weight=0.0), 0, 300)
    assert alone.status is Status.NODATA and "no request of version 2 yet" in alone.reason
    stopped, _ = look(log(tmp_path, rate=150, version=lambda new, random: np.where(new & (np.arange(len(new)) < 50_000), 2, 1).tolist()), 0, 300)
    assert stopped.status is Status.NODATA and "no request of version 2 since 2026-03-02 00:03:3" in stopped.reason


def test_a_status_that_nobody_logged_is_no_error_and_no_success(tmp_path):
    def lost(new, random):
        return np.where(new & (random.random(len(new)) < 0.5), np.nan, 200.0)

    verdict = looks(log(tmp_path, rate=150, status=lost), [100, 200, 300])[0][-1]
    assert verdict.status is Status.NODATA and "of the requests of version 2 say nothing of errors" in verdict.reason
    never = looks(log(tmp_path, status=lambda new, random: [None] * len(new)), [150, 300])[0][-1]
    assert never.status is Status.NODATA and "100% of the requests of version 1 say nothing of errors" in never.reason


@pytest.mark.parametrize(
    ("status", "from_"),
    [
        (lambda bad: bad.tolist(), 500),  # true is an error
        (lambda bad: bad.astype(int).tolist(), 1),
        (lambda bad: np.where(bad, "500", "200").tolist(), 500),
        (lambda bad: np.where(bad, np.inf, 200.0), 500),
    ],
)
def test_an_error_may_be_a_flag_a_number_or_its_text(tmp_path, status, from_):
    live = log(tmp_path, status=lambda new, random: status(random.random(len(new)) < np.where(new, 0.2, 0.01)))
    verdict = looks(live, [100, 200], error_from=from_)[0][-1]
    assert (verdict.status is Status.FAIL) == (status(np.array([True])) != [np.inf]), verdict.reason


def test_a_limit_that_most_of_the_baseline_is_beyond_promotes_nothing(tmp_path):
    live = log(tmp_path, rate=150)
    verdict = looks(live, [150, 300], latency="latency", slow_above=0.0001, metrics=["errors", "latency"])[0][-1]
    assert verdict.status is Status.NODATA and "100% of version 1 count in latency, which tells nothing apart" in verdict.reason
    assert "100% of version 1 count in errors" in looks(live, [150, 300], error_from=0, metrics=["errors"])[0][-1].reason


def test_harm_that_begins_late_is_found_without_undoing_all_that_was_good():
    ratios = harm_ratios(good := drawn(0.05, 0.05, 20, 200), rates(good, np.zeros((20, 4))), (0.0,))
    kept, plain = summed(ratios, np.full(ratios.shape[1:], -np.inf), 0)[-1], ratios.sum(axis=0)
    assert (kept > plain + math.log(0.89)).all() and kept.min() > plain.min() + 2
    again = summed(ratios[120:], summed(ratios[:120], np.full(ratios.shape[1:], -np.inf), 0)[-1], 120)[-1]
    np.testing.assert_allclose(again, kept, rtol=1e-9)


def test_latency_that_is_no_number_or_never_was_one_holds(tmp_path):
    never = log(tmp_path, seconds=60, latency=lambda new, random: [None if one else math.nan for one in new])
    assert look(never, 0, 60, latency="latency")[0].reason.startswith("hold: no number in latency in ")
    endless = log(tmp_path, latency=lambda new, random: np.where(new & (random.random(len(new)) < 0.3), np.inf, random.random(len(new))))
    assert looks(endless, [100, 200, 300], latency="latency")[0][-1].reason.startswith("roll back 2: latency")


def test_without_earlier_rows_the_window_says_what_is_usual_and_is_not_judged(tmp_path):
    live = log(tmp_path, seconds=120, before=0)
    first, memory = look(live, 0, 60)
    assert first.reason.startswith("hold: what is usual was learnt from this window; what comes after it is judged")
    assert first.status is Status.NODATA and memory.metrics == {} and memory.until_at == START + timedelta(seconds=60)
    assert look(live, 60, 120, memory)[0].parts["predictions"].n == pytest.approx(1_200, abs=150)
    assert look(log(tmp_path, seconds=1, rate=50, before=0), 0, 1)[0].reason.startswith("hold: 50 rows before it and in it, and 100 are needed")


def test_what_is_not_declared_or_makes_no_sense_is_an_error_that_says_what_to_add(tmp_path):
    live = log(tmp_path, seconds=20)
    for asked, said in (
        ({"candidate": " "}, "the names of two versions, and one is empty"),
        ({"candidate": "1.0"}, "baseline and candidate are both '1'"),
        ({"alpha": 0.0}, "alpha is 0"),
        ({"margins": {"errors": 0.0}}, "margins: errors is 0"),
        ({"stretch": timedelta(0)}, "stretch is at least 100ms"),
        ({"metrics": ["quality"]}, "metrics: quality cannot be judged; bind labels"),
        ({"metrics": []}, "nothing to compare two versions by"),
    ):
        with pytest.raises(ConfigError, match=said):
            look(live, 0, 20, **asked)
    with pytest.raises(DataError, match="column 'at' holds time, which cannot be compared"):
        look(live, 0, 20, client="at")
    with pytest.raises(DataError, match=r"4,000,000 stretches since .* take a longer stretch"):
        look(live, 0, 20_000_000, status=None)
    with pytest.raises(DataError, match="live has no column 'stat'; there is at, id, version"):
        look(live, 0, 20, status="stat")
    nameless = table(tmp_path, "live", {"time": DECLARED["time"]}, at=[START.timestamp()], status=[200])
    with pytest.raises(ConfigError, match="live declares no version"):
        look(nameless, 0, 20)


def test_versions_meet_as_text_and_rows_of_none_or_another_are_not_compared(tmp_path):
    odd = log(tmp_path, seconds=60, version=lambda new, random: np.where(random.random(len(new)) < 0.1, np.nan, np.where(new, 2.0, 1.0)))
    verdict, _ = look(odd, 0, 60, baseline="1.0")
    assert verdict.parts["errors"].n > 900 and "requests of other versions in this look are not compared" in verdict.reason


def test_what_is_usual_of_numbers_is_their_quintiles_and_of_few_values_each_of_them():
    assert scale(np.arange(1_000.0)).cuts == (199.0, 399.0, 599.0, 799.0)
    assert scale(np.array([1.0, 0.0, np.nan, 1.0])).classes == ("0", "1")
    assert scale(np.array([f"c{n % 30}" for n in range(100)], dtype=object)).classes == tuple(sorted(f"c{n}" for n in range(8)))
    assert scale(np.array([None, None], dtype=object)) is None
    told = scale(np.arange(1_000.0)).told(np.array([-np.inf, 199.0, 199.5, np.inf, np.nan]))
    assert told.hit.argmax(axis=0).tolist() == [0, 0, 1, 4, 5]
    assert isinstance(arranged({}, [2.0, 1.0], [0, 1], None), Rows) and arranged({}, [2.0, 1.0], [0, 1], None).candidate.tolist() == [True, False]


def test_the_platform_keeps_its_memory_and_takes_versions_from_a_configuration(tmp_path):
    log(tmp_path, seconds=40)
    written = tmp_path / "watchkeeper.yaml"
    written.write_text(
        """
services:
  fraud:
    owner: ada
    targets:
      live: {url: "parquet:live.parquet", time: {column: at, unit: s}, version: version, prediction: prediction}
    watches:
      - {check: canary.compare, every: 5s, with: {baseline: "1", candidate: "2", status: status, margins: {errors: 0.01}}}
notify: {channels: {ada: "http://127.0.0.1:9/ada"}}
"""
    )
    made = config.load(written)
    watch = made.services["fraud"].watches[0]
    job = {"check": watch.check, "locators": dict(made.services["fraud"].targets), "parameters": watch.parameters, "service": "fraud"}
    for start in (0, 20):
        end = start + 20
        verdict = perform(job | {"window": Window(START + timedelta(seconds=start), START + timedelta(seconds=end))})
        job["memory"] = json.loads(json.dumps(verdict_to_json(verdict)))["memory"]
    assert verdict.status is Status.NODATA and verdict.memory["looks"] == 2 and verdict.parts["errors"].limit == 0.01
