"""drift.embedding: its promise by exact sums and by streams at the edge of its null, broken on purpose to see that they tell; then real tables."""

import itertools
import json
import math
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from scipy import stats as oracle
from scipy.special import logsumexp

from agent import Locator, Status, Window
from agent.errors import DataError
from agent.perform import MEMORY_LIMIT, perform
from agent.rebuild import rebuild, verdict_to_json
from checks import _bettor, _sides
from checks._bettor import Bets, Past, Stream
from checks.drift import embedding
from tests.logs import START, opened, write

A = 100.0


def stream(bound, n, hits):
    return Stream(hits, n, 0, 1, bound)


def normal(rng, rows, columns):
    return rng.standard_normal((rows, columns)).astype(np.float32)


# The promise, step by step


@pytest.mark.parametrize("n", [1, 2, 10, 100, 1000])
def test_the_mean_of_a_bet_is_at_most_one_wherever_the_null_holds(n):
    for edge in (0.003, 0.07, 0.52, 0.97):
        outcomes = np.array([list(_bettor.log_ratios(stream(edge - 0.002, n, hits), 0.002)) for hits in range(n + 1)])
        for rate in (edge, edge * 0.99, edge / 2, 0.0):
            chances = oracle.binom.pmf(np.arange(n + 1), n, rate)
            with np.errstate(divide="ignore"):
                assert (logsumexp(outcomes + np.log(chances)[:, None], axis=0) <= 1e-9).all()


def test_rows_whose_rates_differ_gain_a_bet_nothing_while_their_mean_is_at_the_edge():
    rates = (0.1, 0.2, 0.3, 0.6)
    mean = 0.0
    for calls in itertools.product((0, 1), repeat=4):
        chance = math.prod(rate if call else 1 - rate for rate, call in zip(rates, calls, strict=True))
        mean = mean + chance * np.exp(list(_bettor.log_ratios(stream(0.28, 4, sum(calls)), 0.02)))
    assert (mean <= 1 + 1e-9).all()


@pytest.mark.parametrize("cluster", [2, 5])
def test_rows_that_move_together_gain_a_bet_nothing_when_their_number_is_said(cluster):
    sizes = np.arange(41)
    chances = oracle.binom.pmf(sizes, 40, 0.3)
    said = [np.exp(list(_bettor.log_ratios(stream(0.28, 40 * cluster, int(k) * cluster), 0.02, cluster))) for k in sizes]
    unsaid = [np.exp(list(_bettor.log_ratios(stream(0.28, 40 * cluster, int(k) * cluster), 0.02))) for k in sizes]
    assert (chances @ np.array(said) <= 1 + 1e-9).all()
    assert (chances @ np.array(unsaid) > 1.05).any(), "left unsaid, they would"


@pytest.mark.parametrize("hits", [0, 3, 250, 499, 500])
def test_the_bound_of_a_rate_is_scipys(hits):
    theirs = oracle.binomtest(hits, 500, alternative="less").proportion_ci(0.999).high
    assert _bettor.bound(hits, 500, 0.001) == pytest.approx(theirs, abs=1e-9)
    assert _bettor.bound(hits, 500, 0.001, 5) >= theirs - 1e-12


def test_doubt_about_bounds_adds_up_to_one_in_a_hundred():
    spent = sum(_bettor.DOUBT / (k * (k + 1)) / _bettor.STREAMS * _bettor.STREAMS for k in range(1, 100_000))
    assert spent <= 0.01


def test_the_sum_is_that_of_shiryaev_and_roberts():
    memory, plain = Bets("s", log_sums=(_bettor.LEAST,) * 6), np.zeros(6)
    rng = np.random.default_rng(2)
    for _ in range(20):
        one = stream(0.3, 50, int(rng.binomial(50, 0.33)))
        memory = _bettor.settled(memory, [one], 0.02, 1e12)
        plain = (plain + 1) * np.exp(list(_bettor.log_ratios(one, 0.02)))
        assert np.exp(memory.log_sums) == pytest.approx(plain)
        assert math.exp(_bettor.log_mean(memory.log_sums)) == pytest.approx(plain.mean())


def at_most(share, runs):
    return oracle.binom.ppf(1 - 1e-4, runs, share)


def alarms_at_the_edge(tolerance, runs=400, windows=50):
    rng, alarms = np.random.default_rng(7), 0
    for _ in range(runs):
        memory = Bets("s", log_sums=(_bettor.LEAST,) * 12)
        for hits in rng.binomial(200, (0.32, 0.12), (windows, 2)):
            memory = _bettor.settled(memory, [stream(0.3, 200, int(hits[0])), stream(0.1, 200, int(hits[1]))], tolerance, A)
            if memory.alarmed:
                alarms += 1
                break
    return alarms


def test_streams_at_the_edge_of_the_null_alarm_no_more_often_than_promised():
    alarms = alarms_at_the_edge(0.02)
    assert 0 < alarms <= at_most(50 / A, 400)
    assert alarms_at_the_edge(0.0) > at_most(50 / A, 400), "the test tells when the tolerance is forgotten"


def alarmed(rng, d, n, of_a, of_b, tolerance, windows=30, play=_bettor.play, far=4.0):
    """Whether a stream at the edge of the null, a reference of its own, alarms: `tolerance` of its rows come from elsewhere."""
    a = normal(rng, of_a, d)
    reference, memory = _bettor.known(a, normal(rng, of_b, d) if of_b else a), Bets("s")
    for _ in range(windows):
        window = normal(rng, n, d)
        window[rng.random(n) < tolerance] += far
        memory, _ = play(memory, reference, window, tolerance, A)
        if memory.alarmed:
            return True
    return False


def peeking(memory, reference, window, tolerance, run_length):
    """The mistake: rules that have seen the window they bet on."""
    seen = _bettor.moments(reference.where, window)
    memory = replace(memory, pasts=tuple(past.after(seen, left) for past, left in zip(memory.pasts, _bettor.MEMORIES, strict=True)))
    return _bettor.settled(memory, list(_bettor._streams(memory, reference, window, 1)), tolerance, run_length), []


FEW = {"d": 3, "n": 400, "of_a": 100, "of_b": 100, "tolerance": 0.02}
WIDE = {"d": 30, "n": 60, "of_a": 150, "of_b": 1500, "tolerance": 0.0}


@pytest.mark.parametrize("case", [FEW, WIDE], ids=["few reference rows", "wide rows"])
def test_a_classifier_that_bets_keeps_the_promise(case):
    rng, runs = np.random.default_rng(3), 12
    assert sum(alarmed(rng, **case) for _ in range(runs)) <= at_most(30 / A + _bettor.DOUBT, runs)


def test_the_promise_breaks_where_the_reference_is_taken_to_be_exact(monkeypatch):
    monkeypatch.setattr(_bettor, "bound", lambda hits, n, *_: hits / n)
    assert sum(alarmed(np.random.default_rng(3), **FEW) for _ in range(16)) > at_most(30 / A + _bettor.DOUBT, 16)


def test_the_promise_breaks_where_rules_have_seen_the_window_they_bet_on():
    assert sum(alarmed(np.random.default_rng(3), **WIDE, play=peeking) for _ in range(16)) > at_most(30 / A + _bettor.DOUBT, 16)


def test_the_promise_breaks_where_rules_are_bounded_by_the_rows_that_taught_them():
    case = WIDE | {"of_b": 0, "n": 400, "of_a": 400}
    assert sum(alarmed(np.random.default_rng(3), **case) for _ in range(16)) > at_most(30 / A + _bettor.DOUBT, 16)


# How soon


def correlated(rng, n, d):
    x = rng.standard_normal((n, d))
    x[:, 1] = 0.6 * x[:, 0] + 0.8 * x[:, 1]
    return x.astype(np.float32)


def shifted(rng, n, d):
    x = normal(rng, n, d)
    x[:, :3] += 0.3
    return x


@pytest.mark.parametrize(("change", "named"), [(shifted, {"x0", "x1", "x2"}), (correlated, {"x0 x x1"})])
def test_a_change_of_three_of_64_columns_or_of_one_correlation_is_found_in_its_second_window(change, named):
    rng = np.random.default_rng(5)
    reference, memory = _bettor.known(normal(rng, 10_000, 64), normal(rng, 10_000, 64)), Bets("s")
    for _ in range(8):
        memory, _ = _bettor.play(memory, reference, normal(rng, 500, 64), 0.02, 2160)
        assert not memory.alarmed
    for delay in range(10):  # noqa: B007
        memory, _ = _bettor.play(memory, reference, change(rng, 500, 64), 0.02, 2160)
        if memory.alarmed:
            break
    assert delay == 1
    then = _bettor.moments(reference.where, change(rng, 500, 64))
    moved = _bettor_names(reference, then)
    assert named <= set(moved)


def _bettor_names(reference, now):
    from checks._discriminant import standing_out

    return standing_out([f"x{place}" for place in range(64)], reference.where, reference.then, now)


# On tables


def table(folder, x, form="parquet", lists=False):
    folder.mkdir(exist_ok=True)
    at = [(START + timedelta(seconds=place)).isoformat() for place in range(len(x))]
    if form != "parquet":
        rows = [{"at": when, "e": json.dumps(row.tolist())} for when, row in zip(at, x, strict=True)]
        return opened(folder, write(folder, form, rows), {"time": {"column": "at", "tz": "UTC"}, **({} if lists else features(x.shape[1]))})
    kind = pa.list_(pa.float32())
    pyarrow.parquet.write_table(pa.table({"at": at, "e": pa.array([row if row is not None else None for row in x], kind)}), folder / "log.parquet")
    return opened(folder, "parquet:log.parquet", {"time": {"column": "at", "tz": "UTC"}, **({} if lists else features(len(x[0])))})


def features(size):
    return {"features": {"json": "e", "size": size}}


def nth(place, rows):
    return Window(START + timedelta(seconds=place * rows), START + timedelta(seconds=(place + 1) * rows))


def watched(live, reference, windows, rows, **more):
    """Every finding of a watch, its memory gone through JSON each time as the store does it."""
    memory = None
    for place in range(windows):
        verdict = embedding(live, reference, nth(place, rows), 500.0, memory, **more)
        if verdict.memory is not None:
            text = json.dumps(verdict_to_json(verdict)["memory"])
            assert len(text) < MEMORY_LIMIT
            memory = rebuild(Bets, json.loads(text))
            assert memory == verdict.memory
        yield verdict


@pytest.mark.parametrize(("form", "lists"), [("parquet", True), ("parquet", False), ("sqlite", False), ("sqlite", True), ("jsonl", True)])
def test_embeddings_that_move_are_found_however_they_are_stored(tmp_path, form, lists):
    rng = np.random.default_rng(1)
    live = normal(rng, 200 * 6, 16)
    live[600:, :4] += 0.8
    tables = table(tmp_path / "live", live, form, lists), table(tmp_path / "reference", normal(rng, 2000, 16), form, lists)
    found = list(watched(*tables, 6, 200, **({"columns": ["e"]} if lists and form == "sqlite" else {})))
    assert [one.status for one in found] == ["nodata", "ok", "ok", "ok", "fail", "fail"]
    assert found[0].reason == "200 rows of the first window are learnt from, 1000 of the reference kept to test on"
    assert found[2].reason.startswith("evidence ") and "after 2 windows" in found[2].reason
    first = "e[0]" if lists else "p0"
    assert first in found[4].parts and found[4].parts[first].observed == pytest.approx(0.8, abs=0.25)
    assert found[4].reading.observed >= found[4].reading.limit == 500
    assert json.loads(found[4].data["embedding.json"])["streams"]


def test_768_columns_are_no_trouble(tmp_path):
    rng = np.random.default_rng(1)
    live = normal(rng, 450, 768)
    live[150:] += rng.standard_normal((300, 1)).astype(np.float32) * 0.6  # no mean moves; all columns move together
    tables = table(tmp_path / "live", live, lists=True), table(tmp_path / "reference", normal(rng, 500, 768), lists=True)
    assert [one.status for one in watched(*tables, 3, 150)] == ["nodata", "ok", "fail"]


def test_an_alarm_ends_when_rows_are_as_before_and_evidence_starts_again_from_nothing():
    rng = np.random.default_rng(9)
    reference, memory, said = _bettor.known(normal(rng, 2000, 5), normal(rng, 2000, 5)), Bets("s"), []
    for place in range(30):
        window = normal(rng, 300, 5) + (place in range(5, 15)) * np.float32(1)
        memory, _ = _bettor.play(memory, reference, window, 0.02, 500.0)
        said.append(memory.alarmed)
        if place and said[place - 1] and not memory.alarmed:
            assert memory.log_sums == (_bettor.LEAST,) * len(memory.log_sums)
    assert said[:5] == [False] * 5 and said[7:15] == [True] * 8 and not any(said[18:])


def test_of_an_overlapping_window_only_what_is_new_counts_and_nothing_counts_twice(tmp_path):
    rng = np.random.default_rng(1)
    tables = table(tmp_path / "live", normal(rng, 400, 4)), table(tmp_path / "reference", normal(rng, 400, 4))
    first = embedding(*tables, nth(0, 200), A)
    late = Window(nth(0, 200).start + timedelta(seconds=50), nth(1, 200).end)
    assert embedding(*tables, late, A, first.memory).reading.n == 200
    with pytest.raises(DataError, match="no row may count twice"):
        embedding(*tables, nth(0, 200), A, first.memory)


def test_another_reference_starts_afresh_and_says_so(tmp_path):
    rng = np.random.default_rng(1)
    live = table(tmp_path / "live", normal(rng, 600, 4))
    memory = embedding(live, table(tmp_path / "reference", normal(rng, 400, 4)), nth(0, 200), A).memory
    verdict = embedding(live, table(tmp_path / "reference", normal(rng, 400, 4)), nth(1, 200), A, memory)
    assert verdict.status is Status.NODATA
    assert verdict.reason.endswith("started afresh: the reference or its columns changed")


def test_the_same_window_and_memory_give_the_same_answer(tmp_path):
    rng = np.random.default_rng(1)
    tables = table(tmp_path / "live", normal(rng, 400, 4)), table(tmp_path / "reference", normal(rng, 400, 4))
    memory = embedding(*tables, nth(0, 200), A).memory
    assert embedding(*tables, nth(1, 200), A, memory) == embedding(*tables, nth(1, 200), A, memory)


def test_few_rows_are_nodata_and_change_nothing(tmp_path):
    rng = np.random.default_rng(1)
    tables = table(tmp_path / "live", normal(rng, 210, 4)), table(tmp_path / "reference", normal(rng, 400, 4))
    few = embedding(*tables, nth(1, 200), A)
    assert (few.status, few.memory, few.reason) == (Status.NODATA, None, "10 live and 400 reference rows; 20 and 200 are needed")
    assert embedding(tables[0], table(tmp_path / "small", normal(rng, 150, 4)), nth(0, 200), A).status is Status.NODATA
    assert embedding(*tables, nth(7, 200), A, rows_at_least=0).status is Status.NODATA


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e308])
def test_numbers_that_are_none_or_endless_are_evidence_and_no_accident(tmp_path, bad):
    rng = np.random.default_rng(1)
    live = normal(rng, 1000, 4).astype(float)
    live[400:, 1] = bad
    tables = table(tmp_path / "live", live, lists=True), table(tmp_path / "reference", normal(rng, 600, 4), lists=True)
    found = [one.status for one in watched(*tables, 5, 200)]
    assert found[1] == "ok" and found[-1] == "fail"


def test_lists_of_another_length_are_null_rows(tmp_path):
    rng = np.random.default_rng(1)
    live = [*normal(rng, 400, 4), *normal(rng, 600, 3)]
    tables = table(tmp_path / "live", live, lists=True), table(tmp_path / "reference", normal(rng, 600, 4), lists=True)
    found = list(watched(*tables, 5, 200))
    assert found[-1].status is Status.FAIL and "mostly nulls by " in found[-1].reason


def test_a_reference_of_one_half_lists_and_some_empty_ones_is_read(tmp_path):
    rng = np.random.default_rng(1)
    then = [*normal(rng, 500, 4), *[np.empty(0)] * 30, *normal(rng, 200, 4)]
    verdict = embedding(table(tmp_path / "live", normal(rng, 300, 4), lists=True), table(tmp_path / "reference", then, lists=True), nth(0, 200), A)
    assert verdict.reason.startswith("200 rows of the first window are learnt from, 365 of the reference")


def test_a_tolerance_that_is_no_share_is_refused(tmp_path):
    rng = np.random.default_rng(1)
    tables = table(tmp_path / "live", normal(rng, 200, 4)), table(tmp_path / "reference", normal(rng, 400, 4))
    for tolerance in (-0.1, 1.0, math.nan):
        with pytest.raises(DataError, match="no share of rows"):
            embedding(*tables, nth(0, 200), A, tolerance=tolerance)


def test_the_platform_hands_the_memory_back_as_it_was(tmp_path):
    rng = np.random.default_rng(1)
    live, reference = (tmp_path / name for name in ("live", "reference"))
    table(live, normal(rng, 600, 4)), table(reference, normal(rng, 400, 4))
    options = {"time": {"column": "at", "tz": "UTC"}, **features(4)}
    locators = {name.name: Locator("s", name.name, "parquet:log.parquet", options, folder=str(name)) for name in (live, reference)}
    job = {"check": "drift.embedding", "locators": locators, "parameters": {"tolerance": 0.05}, "run_length": 500.0, "memory": None}
    for place in range(3):
        window = [moment.isoformat() for moment in (nth(place, 200).start, nth(place, 200).end)]
        verdict = perform(job | {"window": window})
        job["memory"] = json.loads(json.dumps(verdict.memory))
    assert verdict.status is Status.OK and "after 2 windows" in verdict.reason
    assert verdict.memory["bets"] == 2


@pytest.mark.parametrize(("rows", "cluster"), [(0, 1), (1, 1), (401, 1), (5000, 3), (90, 7)])
def test_the_halves_of_a_reference_share_no_row_and_few_clusters(rows, cluster):
    a, b = _sides._halves(rows, cluster)
    assert sorted([*a, *b]) == list(range(rows))
    assert abs(len(a) - len(b)) <= max(1, rows // 20)
    torn = {*(a // cluster)} & {*(b // cluster)}
    assert cluster == 1 or len(torn) <= 41


def test_an_empty_past_has_no_rows():
    assert Past().rows == 0
