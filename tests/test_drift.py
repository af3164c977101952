"""drift.compare: its statistics against scipy, its promises against simulation, its words against real tables."""

import json
import sys
from datetime import date, timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats as oracle

from agent import Ask, Status, Window
from agent.errors import DataError
from agent.stats import benjamini_hochberg
from checks import _gaps
from checks.drift import compare
from tests.logs import LOG, START, log_rows, opened, write

samples = st.lists(st.one_of(st.integers(-5, 5).map(float), st.floats(-1e6, 1e6)), min_size=1, max_size=60)
tables = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 200), min_size=1)


def ordered(values):
    return np.sort(np.asarray(values, dtype=float))


# The arithmetic


@given(samples, samples)
def test_the_distance_and_its_exact_p_are_scipys(one, other):
    gap = _gaps.numbers(ordered(one), ordered(other))
    theirs = oracle.ks_2samp(one, other, method="exact")
    assert gap.effect == pytest.approx(theirs.statistic, abs=1e-12)
    assert gap.p == pytest.approx(theirs.pvalue, abs=1e-9)


@pytest.mark.parametrize("sizes", [(1000, 600), (5000, 20_000), (40, 2000)])
def test_the_p_of_large_samples_is_scipys_asymptotic_one(sizes):
    rng = np.random.default_rng(4)
    one, other = rng.normal(0.05, 1, sizes[0]), rng.normal(0, 1, sizes[1])
    theirs = oracle.ks_2samp(one, other, method="asymp")
    gap = _gaps.numbers(ordered(one), ordered(other))
    assert (gap.effect, gap.p) == (pytest.approx(theirs.statistic, abs=1e-12), pytest.approx(theirs.pvalue, rel=1e-9))


@settings(max_examples=40)
@given(st.integers(_gaps.MANY + 1, 20_000), st.floats(_gaps.FAR, 330))
def test_the_p_of_very_large_samples_is_scipys_without_adding_up_all_rows(n, squared):
    distance = (squared / n) ** 0.5
    assert _gaps._far(n, distance) == pytest.approx(oracle.kstwo.sf(distance, n), rel=1e-12)


def test_half_a_million_rows_a_side_have_scipys_p():
    for distance in (0.0031, 0.02):
        assert _gaps._far(250_000, distance) == pytest.approx(oracle.kstwo.sf(distance, 250_000), rel=1e-12)


@given(samples, samples, st.randoms())
def test_order_and_scale_change_nothing(one, other, random):
    gap = _gaps.numbers(ordered(one), ordered(other))
    shuffled = random.sample(one, len(one))
    assert _gaps.numbers(ordered(shuffled), ordered(other)) == gap
    assert _gaps.numbers(ordered(np.array(one) * 8), ordered(np.array(other) * 8)) == gap
    ranks = {value: float(rank) ** 3 for rank, value in enumerate(sorted({*one, *other}))}
    assert _gaps.numbers(ordered([ranks[v] for v in one]), ordered([ranks[v] for v in other])) == gap
    mirrored = _gaps.numbers(ordered(other), ordered(one))
    assert (mirrored.effect, mirrored.p) == (pytest.approx(gap.effect), pytest.approx(gap.p))


@given(tables, tables)
def test_chi_square_is_scipys_on_the_pooled_cells(one, other):
    gap = _gaps.categories(one, other)
    assume(gap is not None)
    cells = np.array(_gaps._pooled(one, other))
    theirs = oracle.chi2_contingency(cells, correction=False)
    assert gap.p == pytest.approx(theirs.pvalue, abs=1e-9)
    assert theirs.expected_freq.min() >= 5 - 1e-9
    assert cells.sum(axis=0).tolist() == [sum(one.values()), sum(other.values())]
    assert gap.interval[0] <= gap.effect <= gap.interval[1]


@given(tables, tables)
def test_names_of_categories_do_not_matter_unless_counts_tie(one, other):
    totals = [one.get(key, 0) + other.get(key, 0) for key in {*one, *other}]
    assume(len(set(totals)) == len(totals))
    renamed = [{key.upper() + "!": count for key, count in reversed(table.items())} for table in (one, other)]
    assert _gaps.categories(*renamed) == _gaps.categories(one, other)


@given(st.integers(0, 50), st.integers(50, 400), st.integers(0, 50), st.integers(50, 400))
def test_shares_are_tested_by_fisher_or_chi_square(hits, n, then, m):
    gap = _gaps.shares(hits, n, then, m)
    table = [[hits, n - hits], [then, m - then]]
    theirs = oracle.fisher_exact(table).pvalue if gap.how.startswith("Fisher") else oracle.chi2_contingency(table, correction=False).pvalue
    assert gap.p == pytest.approx(min(1, theirs), abs=1e-9)
    assert gap.effect == pytest.approx(abs(hits / n - then / m))
    assert gap.interval[0] - 1e-9 <= gap.effect <= gap.interval[1] + 1e-9


@pytest.mark.parametrize(("hits", "n", "then", "m"), [(3, 10**7, 1, 200), (3, 10**7, 4, 10**6), (10**7 - 1, 10**7, 197, 200), (0, 10**7, 2, 500)])
def test_few_of_many_million_rows_are_tested_as_fisher_would_and_at_once(hits, n, then, m):
    gap = _gaps.shares(hits, n, then, m)
    assert gap.how == "binomial test"
    assert gap.p == pytest.approx(oracle.fisher_exact([[hits, n - hits], [then, m - then]]).pvalue, rel=0.03)
    assert _gaps.shares(1, 2**53, 17, 200).p < 1e-100 and _gaps.shares(0, 2**53, 0, 2**53).p == 1  # Fisher's test would not come to an end


# The promises, by simulation; the seeds are fixed, the bounds are those of a binomial at 1 in 10,000


def within(share, runs):
    return oracle.binom.ppf(1 - 1e-4, runs, share)


def test_without_drift_a_run_of_twenty_columns_calls_one_in_at_most_its_level():
    rng, runs = np.random.default_rng(11), 400
    called = 0
    for _ in range(runs):
        ps = [_gaps.numbers(ordered(rng.normal(size=600)), ordered(rng.normal(size=1500))).p for _ in range(12)]
        for k in (2, 5, 30):
            shares = rng.dirichlet(np.ones(k))
            now, then = rng.multinomial(600, shares), rng.multinomial(1500, shares)
            gap = _gaps.categories({str(i): int(c) for i, c in enumerate(now)}, {str(i): int(c) for i, c in enumerate(then)})
            ps += [gap.p] if gap else []
        called += min(benjamini_hochberg(ps)) <= 0.05
    assert called <= within(0.05, runs)


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0])
def test_the_interval_of_a_distance_covers_the_true_one(shift):
    rng, runs = np.random.default_rng(5), 400
    truth = 2 * oracle.norm.cdf(shift / 2) - 1
    missed = 0
    for _ in range(runs):
        low, high = _gaps.numbers(ordered(rng.normal(shift, 1, 300)), ordered(rng.normal(0, 1, 900))).interval
        missed += not low <= truth <= high
    assert missed <= within(0.05, runs)


@pytest.mark.parametrize("k", [2, 5, 40])
def test_the_interval_of_a_total_variation_covers_the_true_one(k):
    rng, runs = np.random.default_rng(6), 400
    one, other = np.full(k, 1 / k), np.linspace(1, 3, k) / np.linspace(1, 3, k).sum()
    truth = np.abs(one - other).sum() / 2
    missed = 0
    for _ in range(runs):
        now, then = rng.multinomial(800, one), rng.multinomial(2000, other)
        low, high = _gaps.categories({str(i): int(c) for i, c in enumerate(now)}, {str(i): int(c) for i, c in enumerate(then)}).interval
        missed += not low <= truth <= high
    assert missed <= within(0.05, runs)


# The check, on real tables


def rows(count=400, seed=1, **columns):
    rng = np.random.default_rng(seed)
    usual = {"x": lambda: float(rng.normal()), "y": lambda: float(rng.exponential()), "city": lambda: str(rng.choice(["a", "b", "c"]))}
    return [{name: make() for name, make in (usual | columns).items()} for _ in range(count)]


def pair(folder, live, reference, form="parquet", options=None):
    (folder / "live").mkdir(exist_ok=True)
    (folder / "reference").mkdir(exist_ok=True)
    return (
        opened(folder / "live", write(folder / "live", form, live), options or {}),
        opened(folder / "reference", write(folder / "reference", form, reference), {}),
    )


def test_two_tables_of_one_distribution_are_calm(tmp_path, form):
    verdict = compare(*pair(tmp_path, rows(), rows(900, seed=2), form))
    assert verdict.status is Status.OK
    assert set(verdict.parts) == {"x", "y", "city"}
    assert verdict.reason == "3 comparisons within their limits (400 rows against 900; a distance below 0.18 cannot be called at these sizes)"
    for part in verdict.parts.values():
        assert None not in (part.observed, part.limit, part.interval, part.n)


def test_a_moved_column_is_named_with_its_distance_interval_and_limit(tmp_path, form):
    rng = np.random.default_rng(3)
    moved = rows(x=lambda: float(rng.normal(2)), city=lambda: "c" if rng.random() < 0.8 else "a")
    verdict = compare(*pair(tmp_path, moved, rows(900, seed=2), form))
    assert verdict.status is Status.FAIL
    assert verdict.reason.startswith("2 of 3 comparisons drifted (400 rows against 900): x by 0.75 (0.67 to 0.84, limit 0.1)")
    assert list(verdict.parts)[:2] == ["x", "city"]
    assert verdict.reading == verdict.parts["x"]
    assert verdict.parts["x"].interval[0] > 0.5
    told = {line["name"]: line for line in json.loads(verdict.data["compare.json"])["comparisons"]}
    assert told["x"]["drifted"] and not told["y"]["drifted"] and told["x"]["p_adjusted"] < 1e-6


def test_a_certain_but_small_shift_is_below_the_floor(tmp_path):
    rng = np.random.default_rng(3)
    live, reference = pair(tmp_path, rows(8000, x=lambda: float(rng.normal(0.15))), rows(8000, seed=2))
    calm = compare(live, reference)
    assert calm.good
    assert json.loads(calm.data["compare.json"])["comparisons"][0]["p_adjusted"] < 1e-4
    assert compare(live, reference, floor_number=0.01).status is Status.FAIL


def test_a_column_going_null_is_a_comparison_of_its_own(tmp_path):
    rng = np.random.default_rng(3)
    live, reference = pair(tmp_path, rows(x=lambda: None if rng.random() < 0.2 else 0.5), rows(x=lambda: 0.5))
    verdict = compare(live, reference, columns=["x"])
    assert verdict.status is Status.FAIL
    assert verdict.reason.startswith("1 of 2 comparisons drifted (400 rows against 400): x.nulls by 0.18 (0.15 to 0.22, limit 0.02)")
    assert verdict.parts["x"].observed == 0


def test_what_cannot_be_compared_is_said(tmp_path):
    live = rows(gone=lambda: None, name=iter(map(str, range(9999))).__next__, changed=lambda: "7.5", constant=lambda: "k")
    reference = rows(gone=lambda: 1.0, name=iter(map(str, range(9999))).__next__, changed=lambda: 7.5, constant=lambda: "k", old=lambda: 1)
    for row in live[:3]:
        row["gone"] = 1.0
    verdict = compare(*pair(tmp_path, live, reference), columns=["name", "gone", "changed", "constant", "old", "x"])
    notes = {note["name"]: note["why"] for note in json.loads(verdict.data["compare.json"])["not_compared"]}
    assert notes == {
        "name": "every value is too rare to test",
        "gone": "3 live and 400 reference values are too few",
        "changed": "text now, number in the reference",
        "constant": "one value only on both sides",
        "old": "missing in live",
    }
    assert set(verdict.parts) == {"x", "gone.nulls"}
    assert verdict.status is Status.FAIL and "gone.nulls" in verdict.reason


def test_a_type_change_alone_is_a_warning(tmp_path):
    verdict = compare(*pair(tmp_path, rows(y=lambda: "high"), rows(900, seed=2)))
    assert verdict.status is Status.WARN
    assert verdict.reason.endswith("not compared: y: text now, number in the reference")


def test_names_and_prose_are_no_categories(tmp_path):
    live, reference = (rows(1500, seed=seed, city=iter(f"{seed}-{n}" for n in range(1500)).__next__) for seed in (1, 2))
    verdict = compare(*pair(tmp_path, live, reference), columns=["city", "x"])
    assert "city: more than 1000 different values" in verdict.reason
    assert verdict.good


def test_a_constant_that_became_another_constant_has_drifted(tmp_path):
    verdict = compare(*pair(tmp_path, rows(x=lambda: 2.0, city=lambda: "b"), rows(x=lambda: 1.0, city=lambda: "a")), columns=["x", "city"])
    assert verdict.reason.startswith("2 of 2 comparisons drifted")
    assert verdict.parts["x"].observed == verdict.parts["city"].observed == 1.0


def test_infinities_are_the_largest_numbers_and_nan_is_null(tmp_path):
    live = rows(x=lambda: float("inf"), y=lambda: float("nan"))
    verdict = compare(*pair(tmp_path, live, rows(900, seed=2)))
    assert verdict.parts["x"].observed == 1.0
    assert verdict.parts["y.nulls"].observed == 1.0
    json.loads(verdict.data["compare.json"])


def test_too_few_rows_are_nodata(tmp_path):
    assert compare(*pair(tmp_path, rows(20), rows(900))).status is Status.NODATA
    assert compare(*pair(tmp_path, rows(), rows(20))).status is Status.NODATA


def test_a_column_nobody_has_is_an_error(tmp_path):
    with pytest.raises(DataError, match="'incom' is in neither"):
        compare(*pair(tmp_path, rows(), rows()), columns=["incom"])


def judged(folder, live, reference, **settings):
    """The verdict, and what compare.json says of each comparison and of each column that was left out."""
    verdict = compare(*pair(folder, live, reference), **settings)
    told = json.loads(verdict.data["compare.json"])
    return verdict, {line["name"]: line for line in told["comparisons"]}, {note["name"]: note["why"] for note in told["not_compared"]}


def test_a_constant_number_that_stayed_is_compared_and_calm(tmp_path):
    verdict, lines, _ = judged(tmp_path, rows(x=lambda: 1.0), rows(x=lambda: 1.0), columns=["x"], describe=True)
    assert verdict.good
    assert (lines["x"]["effect"], lines["x"]["p"], lines["x"]["distances"]["wasserstein_sd"]) == (0, 1, None)


def test_a_column_null_on_both_sides_is_left_out_and_its_nulls_have_not_moved(tmp_path):
    live = [{"x": float("nan"), "y": float(place)} for place in range(200)]
    verdict, lines, notes = judged(tmp_path, live, live)
    assert notes == {"x": "0 live and 0 reference values are too few"}
    assert (lines["x.nulls"]["effect"], lines["x.nulls"]["shares"]) == (0, [1, 1])
    assert verdict.good


def test_a_column_of_no_type_is_left_out(tmp_path):
    verdict, _, notes = judged(tmp_path, rows(gone=lambda: None), rows(gone=lambda: None), columns=["gone", "x"])
    assert set(notes) == {"gone"}
    assert verdict.status in (Status.OK, Status.WARN)


def test_one_row_can_be_asked_for_and_says_nothing(tmp_path):
    verdict, lines, _ = judged(tmp_path, [{"x": 1.0}], [{"x": 5.0}], rows_at_least=0, describe=True)
    assert verdict.good, "an interval of one row reaches everywhere"
    assert lines["x"]["interval"][0] == 0


@pytest.mark.parametrize("form", ["parquet", "sqlite", "duckdb"])
def test_an_empty_table_is_nodata_however_few_rows_are_asked_for(tmp_path, form):
    live, reference = pair(tmp_path, rows(1), rows(5), form)
    nothing = live.between(START, START) if "time" in live.declared else opened(tmp_path / "live", f"{form}:log.{form}", EVERY_ROW_EXCLUDED)
    verdict = compare(nothing, reference, rows_at_least=0)
    assert (verdict.status, verdict.reason) == (Status.NODATA, "0 live and 5 reference rows; 1 of each are needed")


EVERY_ROW_EXCLUDED = {"exclude": [{"column": "city", "in": ["a", "b", "c"]}]}


def test_new_and_vanished_columns_are_told_and_the_others_compared(tmp_path):
    verdict, lines, notes = judged(tmp_path, rows(new=lambda: 1.0), rows(old=lambda: 1.0))
    assert notes == {"new": "missing in the reference", "old": "missing in live"}
    assert (verdict.status, set(lines)) == (Status.WARN, {"x", "y", "city"})


@pytest.mark.parametrize(
    ("now", "then", "why"),
    [
        (lambda: "7", lambda: 7, "text now, integer in the reference"),
        (lambda: True, lambda: 1, "boolean now, integer in the reference"),
        (lambda: 7.5, lambda: "7.5", "number now, text in the reference"),
        (lambda: date(2026, 1, 1), lambda: "2026-01-01", "time now, text in the reference"),
        (lambda: date(2026, 1, 1), lambda: date(2025, 1, 1), "time columns have no distribution to compare"),
    ],
)
def test_a_type_that_flipped_is_told_and_dates_are_not_compared(tmp_path, now, then, why):
    verdict, _, notes = judged(tmp_path, rows(flip=now), rows(flip=then), columns=["flip", "x"])
    assert notes == {"flip": why}
    assert verdict.status is (Status.OK if "columns" in why else Status.WARN)


def test_whole_numbers_that_became_fractions_are_still_numbers(tmp_path):
    verdict, lines, notes = judged(tmp_path, rows(x=lambda: 7.0), rows(x=lambda: 7), columns=["x"])
    assert (verdict.good, lines["x"]["effect"], notes) == (True, 0, {})


def test_booleans_are_categories_and_decimals_are_numbers(tmp_path):
    live = rows(flag=lambda: True, price=lambda: Decimal("2.50"))
    verdict, lines, _ = judged(
        tmp_path, live, rows(flag=iter([True, False] * 200).__next__, price=lambda: Decimal("1.25")), columns=["flag", "price"]
    )
    assert verdict.status is Status.FAIL
    assert lines["flag"]["effect"] == pytest.approx(0.5)
    assert lines["flag"]["how"].startswith("chi-square")
    assert (lines["price"]["effect"], lines["price"]["how"]) == (1, "Kolmogorov-Smirnov")


def test_categories_and_columns_may_have_any_name(tmp_path):
    names = ["東京", "Łódź", "'; DROP TABLE log", "", " ", '"', "🚀", "a,b"]
    live = [{"näme; \"'": names[place % 8], "x": float(place)} for place in range(800)]
    reference = [{"näme; \"'": names[place % 8], "x": float(place)} for place in range(1600)]
    _, lines, _ = judged(tmp_path, live, reference)
    assert lines["näme; \"'"]["effect"] == 0
    assert lines["näme; \"'"]["distances"]["cells"] == 8


def test_a_million_categories_are_no_category_and_none_of_them_becomes_an_object(tmp_path):
    (tmp_path / "live").mkdir()
    table = pa.table({"id": pa.array(np.arange(1_000_000)).cast(pa.string())})
    pyarrow.parquet.write_table(table, tmp_path / "live" / "log.parquet")
    live = opened(tmp_path / "live", "parquet:log.parquet", {})
    assert live.kinds() == {"id": "text"}
    before = sys.getallocatedblocks()
    tally = live.tally([Ask("id", top=1000)])["id"]
    assert sys.getallocatedblocks() - before < 10_000
    assert (tally.rows, len(tally.by_key), tally.by_key[None]) == (1_000_000, 1001, 999_000)
    verdict = compare(live, live)
    assert verdict.status is Status.NODATA
    assert "id: more than 1000 different values" in verdict.reason


def test_columns_of_one_name_in_a_file_are_told_apart(tmp_path):
    for side in ("live", "reference"):
        (tmp_path / side).mkdir()
        (tmp_path / side / "log.csv").write_text("x,x\n" + "".join(f"{place},{place % 7 if side == 'live' else 3}\n" for place in range(300)))
    verdict = compare(*(opened(tmp_path / side, "csv:log.csv", {}) for side in ("live", "reference")))
    assert set(verdict.parts) == {"x", "x_1"}
    assert verdict.parts["x"].observed == 0
    assert verdict.reason.startswith("1 of 2 comparisons drifted")


@pytest.mark.parametrize("size", [1, 63, 64, 65, 1000, 20_000])
@pytest.mark.parametrize("digits", [0, 1, 9])
def test_the_distance_between_known_places_is_found_exactly(size, digits):
    rng = np.random.default_rng(size)
    for shift, count in ((0, 17), (0.02, 3000), (5, size), (0, size)):
        one, other = rng.normal(shift, 1, size).round(digits), rng.normal(0, 1, count).round(digits)
        assert _gaps.numbers(ordered(one), ordered(other)).effect == pytest.approx(oracle.ks_2samp(one, other, method="asymp").statistic, abs=1e-12)
    assert _gaps.numbers(ordered(one), ordered(one)).effect == 0


def test_progress_is_told_column_by_column_and_may_call_it_off(tmp_path):
    told = []
    compare(*pair(tmp_path, rows(), rows(900, seed=2)), None, lambda done, what: told.append((round(done, 2), what)))
    assert told == [(0, "x"), (0.33, "y"), (0.67, "city")]


def test_json_features_of_a_window_are_compared_with_plain_columns(tmp_path, form):
    live = log_rows(2000)
    reference = [{"p0": float(place), "p1": place / 2, "p2": 1.5, "prediction": str(place % 3), "score": place / 2000} for place in range(500, 1500)]
    for folder in ("live", "reference"):
        (tmp_path / folder).mkdir()
    table = opened(tmp_path / "live", write(tmp_path / "live", form, live), LOG)
    other = opened(tmp_path / "reference", write(tmp_path / "reference", "parquet", reference), {})
    same = Window(START + timedelta(seconds=500), START + timedelta(seconds=1500))
    calm = compare(table, other, same)
    assert calm.status is Status.FAIL and next(iter(calm.parts)) == "score.nulls", "every tenth live score is null"
    assert compare(table, other, same, floor_nulls=0.2).good
    late = Window(START + timedelta(seconds=1000), START + timedelta(seconds=2000))
    verdict = compare(table, other, late, floor_nulls=0.2)
    assert verdict.parts["p0"].observed == pytest.approx(0.5, abs=0.01)
    assert verdict.parts["prediction"].observed < 0.01, "labels spelled as text or numbers are the same labels"
    assert verdict.reason.startswith("3 of 6 comparisons drifted (1000 rows against 1000): ")


@settings(max_examples=15, deadline=None)
@given(st.randoms())
def test_rows_in_another_order_give_the_same_verdict(tmp_path_factory, random):
    folder = tmp_path_factory.mktemp("order")
    live, reference = rows(200), rows(300, seed=2)
    first = compare(*pair(folder, live, reference))
    assert compare(*pair(folder, random.sample(live, 200), random.sample(reference, 300))) == first
