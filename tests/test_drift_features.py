"""drift.features and its kin, window by window over real files, with memory as the store would keep it."""

import json
import math
from datetime import timedelta
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from agent import Baseline, Locator, Status
from agent.errors import DataError
from agent.perform import perform
from agent.rebuild import baseline_to_json
from checks import _evidence, _profile
from tests.logs import START, opened, write

HOUR = timedelta(hours=1)
LOG = {"time": {"column": "at", "tz": "UTC"}, "id": "id", "features": ["amount", "age", "country"], "prediction": "label", "score": "score"}
A = 2160.0


def columns(rows, seed=0, start=START, over=HOUR, **changed):
    """A log of that many rows, spread evenly; `changed` replaces columns."""
    random = np.random.default_rng(seed)
    at = [start + over * (place / rows) for place in range(rows)]
    made = {
        "at": pa.array(at, pa.timestamp("us", "UTC")),
        "id": [f"id{seed}-{place}" for place in range(rows)],
        "amount": random.lognormal(size=rows),
        "age": random.integers(18, 90, rows),
        "country": random.choice(["de", "fr", "it", "es"], rows, p=[0.4, 0.3, 0.2, 0.1]),
        "label": random.integers(0, 2, rows),
        "score": random.random(rows),
    }
    return pa.table(made | {name: value(random, rows) if callable(value) else value for name, value in changed.items() if value is not None})


class Watch:
    """One watch over files in a folder: each look is a job as a worker gets it, memory through JSON."""

    def __init__(self, folder, check="drift.features", rows=20_000, reference=None, roles=("live", "reference"), **parameters):
        self.folder, self.check, self.parameters, self.roles = folder, check, parameters, roles
        (folder / "live").mkdir()
        pyarrow.parquet.write_table(columns(rows, 99) if reference is None else reference, folder / "reference.parquet")
        self.memory, self.at, self.baseline = None, START, None

    def add(self, rows=1000, seed=None, start=None, over=HOUR, **changed):
        """More rows in the live log, by default those of the window that comes next."""
        start = start or self.at
        seed = int((start - START) / HOUR) + 1 if seed is None else seed
        pyarrow.parquet.write_table(
            columns(rows, seed, start, over, **changed), self.folder / "live" / f"{len(list((self.folder / 'live').iterdir())):04}.parquet"
        )

    def look(self, window=None, run_length=A):
        first, last = window or (self.at, self.at + HOUR)
        urls = {"live": "parquet:live/*.parquet", "reference": "parquet:reference.parquet", "labels": "parquet:live/*.parquet"}
        options = {"live": LOG, "reference": {}, "labels": {"time": LOG["time"], "key": "id", "label": "label"}}
        job = {
            "check": self.check,
            "locators": {role: Locator("fraud", role, urls[role], options[role], folder=str(self.folder)) for role in self.roles},
            "parameters": self.parameters,
            "window": [first.isoformat(), last.isoformat()],
            "run_length": run_length,
            "memory": self.memory,
            "baseline": baseline_to_json(self.baseline),
        }
        verdict = perform(json.loads(json.dumps(job, default=_portable)))
        if verdict.memory is not None:
            self.memory = verdict.memory
        self.at = max(self.at, last)
        return verdict

    def windows(self, count, **changed):
        """That many windows of rows, each looked at; the verdicts."""
        verdicts = []
        for _ in range(count):
            self.add(**changed)
            verdicts.append(self.look())
        return verdicts


def _portable(value):
    from agent.rebuild import locator_to_json

    return locator_to_json(value)


@pytest.fixture
def watch(tmp_path):
    return Watch(tmp_path)


def test_quiet_windows_stay_ok_and_every_verdict_says_what_it_could_have_seen(watch):
    verdicts = watch.windows(6)
    assert [verdict.status for verdict in verdicts] == [Status.OK] * 6
    said = verdicts[-1].reason
    assert said.startswith("3 follow as before (")
    for word in (
        "Reference: ",
        "margin 0.0",
        "design effect 1",
        "in 2 windows",
        "in 24 windows",
        "99 %",
        "90d apart on average",
        "in the 6 windows judged so far is at most 0.28%",
    ):
        assert word in said
    assert verdicts[-1].reading.limit == A and 0 <= verdicts[-1].reading.observed < A
    assert len(json.dumps(watch.memory)) < 40_000


@pytest.mark.parametrize(
    ("changed", "within", "words"),
    [
        ({"amount": lambda r, n: r.lognormal(0.3, size=n)}, 2, r"amount moved up: [\d.]+% are at most [\d.]+, [\d.]+% were"),
        ({"amount": lambda r, n: np.where(r.random(n) < 0.03, np.nan, r.lognormal(size=n))}, 2, r"amount is null in 2.\d%|amount is null in 3.\d%"),
        (
            {"country": lambda r, n: r.choice(["de", "fr", "it", "es", "pl"], n, p=[0.38, 0.3, 0.2, 0.1, 0.02])},
            4,
            r"country has [\d.]+% values the reference never had, had 0.0%",
        ),
        (
            {"country": lambda r, n: r.choice(["de", "fr", "it", "es"], n, p=[0.3, 0.4, 0.2, 0.1])},
            3,
            r"country is '(de|fr)' in [\d.]+%, was in [34]\d",
        ),
        ({"country": lambda r, n: pa.nulls(n, pa.string())}, 1, "country is null in 100.0%, was in 0.0%"),
        ({"age": lambda r, n: np.full(n, np.inf)}, 1, "age moved up"),
    ],
)
def test_a_real_change_is_found_soon_and_named_with_its_direction(watch, changed, within, words):
    import re

    watch.windows(3)
    verdicts = watch.windows(within, **changed)
    assert verdicts[-1].status is Status.FAIL, verdicts[-1].reason
    assert re.search(words, verdicts[-1].reason), verdicts[-1].reason
    assert verdicts[-1].reason.startswith("1 of 3 drifted: ")
    name = next(iter(changed))
    assert next(iter(verdicts[-1].parts)) == name
    part = verdicts[-1].parts[name]
    assert part.interval[0] <= part.observed <= part.interval[1] and part.n >= 1000
    told = json.loads(verdicts[-1].data["drift.json"])
    assert [one["name"] for one in told["columns"] if one["named"]] == [name]
    for picture, words in (("drift.svg", name), ("evidence.svg", "an alarm at 2,160")):
        drawn = verdicts[-1].data[picture].decode()
        assert ElementTree.fromstring(drawn).tag.endswith("svg") and words in drawn and len(drawn) < 20_000


def test_it_goes_on_failing_while_the_shift_lasts_measures_the_rows_after_the_alarm_and_ends_with_it(watch):
    shifted = {"amount": lambda r, n: r.lognormal(0.5, size=n)}
    watch.windows(2)
    during = watch.windows(5, **shifted)
    assert [verdict.status for verdict in during] == [Status.FAIL] * 5
    assert ", since" not in during[0].reason and ", since 2026-03-29 03:00Z" in during[1].reason
    assert [verdict.parts["amount"].n for verdict in during] == [1000, 1000, 2000, 3000, 4000]
    after = watch.windows(4)
    assert after[-1].status is Status.OK, after[-1].reason


def test_a_window_may_not_be_judged_twice_and_an_overlap_counts_only_what_is_new(watch):
    watch.windows(2)
    kept = json.dumps(watch.memory)
    with pytest.raises(DataError, match="was judged before; no row may count twice"):
        watch.look((START, START + 2 * HOUR))
    assert json.dumps(watch.memory) == kept
    watch.add()
    assert watch.look((START + HOUR, START + 3 * HOUR)).reading.n == 1000


def test_rows_that_come_late_are_counted_once_and_never_added(watch):
    watch.windows(3)
    watch.add(rows=7, seed=50, start=START + HOUR)
    (verdict,) = watch.windows(1)
    assert "7 rows of earlier windows came late and are not added (7 so far)" in verdict.reason
    assert verdict.reading.n == 1000
    assert "late" not in watch.windows(1)[0].reason
    watch.add(rows=1, seed=51, start=START)
    assert "1 row of earlier windows came late and are not added (8 so far)" in watch.windows(1)[0].reason


def test_late_rows_are_told_across_the_stretch_that_begins_anew(watch):
    watch.add(rows=1000, over=60 * HOUR)
    for _ in range(40):
        watch.look()
    watch.add(rows=3, seed=70, start=watch.at - 2 * HOUR)
    assert "3 rows of earlier windows came late" in watch.look().reason


def test_an_empty_window_is_nodata_and_changes_no_memory(watch):
    watch.windows(1)
    watch.at += HOUR
    before = json.dumps(watch.memory)
    verdict = watch.look((watch.at, watch.at + HOUR))
    assert verdict.status is Status.NODATA and json.dumps(watch.memory) == before


def test_a_column_that_is_gone_or_changed_its_type_counts_as_null_and_is_named(tmp_path):
    watch = Watch(tmp_path)
    watch.add()
    watch.look()
    for path in (tmp_path / "live").iterdir():
        path.unlink()
    watch.add(amount=lambda r, n: ["much"] * n)
    verdict = watch.look()
    assert verdict.status is Status.FAIL
    assert "amount holds text now, and held numbers, so every row counts as null" in verdict.reason
    for path in (tmp_path / "live").iterdir():
        path.unlink()
    table = columns(1000, 5, watch.at).drop_columns(["amount"])
    pyarrow.parquet.write_table(table, tmp_path / "live" / "0000.parquet")
    verdict = watch.look()
    assert verdict.status is Status.FAIL and "amount is gone, so every row counts as null" in verdict.reason


def test_pinning_the_present_makes_it_the_yardstick_and_its_rows_are_not_tested(watch):
    shifted = {"amount": lambda r, n: r.lognormal(0.5, size=n)}
    watch.add(rows=20_000, over=10 * HOUR, **shifted)
    watch.at = START + 10 * HOUR
    watch.memory = None
    watch.baseline = Baseline(START, watch.at, "ada", "the new market", watch.at)
    watch.at -= HOUR / 2
    watch.add(rows=1000, start=watch.at + HOUR / 2, **shifted)
    verdict = watch.look((watch.at, watch.at + 1.5 * HOUR))
    assert verdict.status is Status.OK, verdict.reason
    assert verdict.reading.n == 1000, "the half hour before the end of what was pinned is not tested"
    verdicts = watch.windows(2)
    assert verdicts[-1].status is Status.FAIL, "the old market would now be drift"
    assert "amount moved down" in verdicts[-1].reason


def test_without_reference_and_pin_it_says_what_to_do(tmp_path):
    watch = Watch(tmp_path, roles=("live",))
    watch.add()
    verdict = watch.look()
    assert verdict.status is Status.NODATA and "watchkeeper baseline pin" in verdict.reason


@pytest.mark.parametrize("rows", [0, 1, 99])
def test_a_reference_too_small_to_say_what_is_usual_is_nodata(tmp_path, rows):
    watch = Watch(tmp_path, rows=rows) if rows else Watch(tmp_path, reference=columns(1).slice(1))
    watch.add()
    verdict = watch.look()
    assert verdict.status is Status.NODATA and f"{rows} rows; 100 are needed" in verdict.reason


@pytest.mark.parametrize(
    ("name", "made", "says"),
    [
        ("amount", lambda r, n: pa.nulls(n, pa.float64()), "amount (all null in the reference)"),
        ("amount", lambda r, n: [[1.0]] * n, "amount (list columns have no distribution to watch)"),
    ],
)
def test_a_reference_column_that_says_nothing_is_left_out_with_the_reason(tmp_path, name, made, says):
    watch = Watch(tmp_path, reference=columns(5000, 99, **{name: made}))
    watch.add()
    assert f"not watched: {says}" in watch.look().reason


@pytest.mark.parametrize(
    "made",
    [
        lambda r, n: np.full(n, 7.0),
        lambda r, n: r.random(n) < 0.3,
        lambda r, n: np.where(r.random(n) < 0.5, np.inf, -np.inf),
        lambda r, n: r.choice(["ä", "日本", "\u202e", "a'b\"c", ""], n),
        lambda r, n: [f"user{value}" for value in r.integers(0, 10**6, n)],
        lambda r, n: [f"user{value}" for value in r.zipf(1.3, n)],
        lambda r, n: r.choice([0.0, 0.0, 0.0, 1.5], n),
        lambda r, n: pa.array([f"{value:.2f}" for value in r.random(n)]).cast(pa.decimal128(10, 2)),
    ],
    ids=["constant", "boolean", "infinite", "unicode", "a million names", "long tail", "zeros", "decimal"],
)
def test_odd_columns_without_drift_stay_calm(tmp_path, made):
    watch = Watch(tmp_path, reference=columns(20_000, 99, amount=made))
    assert [verdict.status for verdict in watch.windows(5, amount=made)] == [Status.OK] * 5


def test_a_number_that_is_never_finite_is_watched_and_drawn_too(tmp_path):
    def endless(share):
        return {"amount": lambda r, n: np.where(r.random(n) < share, np.inf, -np.inf)}

    watch = Watch(tmp_path, reference=columns(5000, 99, **endless(0.5)))
    assert watch.windows(1, **endless(0.5))[0].status is Status.OK
    verdict = watch.windows(2, **endless(0.9))[-1]
    assert verdict.status is Status.FAIL and "drift.svg" in verdict.data and "inf' in" in verdict.reason


def test_a_tiny_window_of_one_row_is_taken_as_it_is(watch):
    watch.add(rows=1)
    verdict = watch.look()
    assert verdict.status is Status.OK and verdict.reading.n == 1 and "none in 2 windows" in verdict.reason


def test_rows_that_move_together_are_recognised_in_a_reference_with_times(tmp_path):
    def clustered(random, rows):
        return np.repeat(random.normal(size=rows // 10 + 1), 10)[:rows]

    reference = columns(40_000, 99, over=40 * HOUR, amount=clustered)
    watch = Watch(tmp_path, reference=reference)
    watch.roles = ("live", "reference")
    table = opened(tmp_path, "parquet:reference.parquet", {"time": LOG["time"]})
    made = _profile.profile(table, {"amount": "number", "age": "integer"}, (), None, HOUR.total_seconds())
    design = {one.name: one.designs[0] for one in made.columns}
    assert 6 < design["amount"] < 15 and design["age"] < 2
    assert _profile.profile(table, {"amount": "number"}, (), 3.0, HOUR.total_seconds()).columns[0].designs == (3.0, 3.0)


def test_every_engine_gives_the_same_counts(tmp_path, form):
    rows = [
        {
            "at": (START + timedelta(seconds=place)).isoformat(),
            "x": None if place % 9 == 0 else place % 50 / 4,
            "c": "abcde"[place % 5],
            "flag": place % 3 == 0,
        }
        for place in range(600)
    ]
    table = opened(tmp_path, write(tmp_path, form, rows), {"time": LOG["time"]})
    made = _profile.profile(table, {"x": "number", "c": "text", "flag": "boolean"}, (), None, None)
    seen = _evidence.counted(table, _evidence.Window(START, START + timedelta(seconds=600)), made.columns, None)
    again = [int(hits) for hits in seen.hits]
    assert made.rows == 600 and seen.tallied.n == 600
    x = np.array([np.nan if row["x"] is None else row["x"] for row in rows])
    one = next(column for column in made.columns if column.name == "x")
    expected = [int((x <= cut).sum()) for cut in one.cuts] + [int((x == float(key)).sum()) for key in one.keys] + [int(np.isnan(x).sum())]
    assert again[: len(expected)] == expected
    assert seen.rows[0] == (~np.isnan(x)).sum() and seen.rows[len(expected) - 1] == 600


def test_unseen_is_judged_against_values_the_other_part_had_not_seen(tmp_path, monkeypatch):
    """Without the split, what A has not met looks as if it never came, and a long tail without drift is drift."""
    made = {"country": lambda r, n: [f"v{value}" for value in r.permutation(np.minimum(r.zipf(1.4, n), 900))]}
    watch = Watch(tmp_path, rows=3000, reference=columns(3000, 99, **made))
    assert [verdict.status for verdict in watch.windows(4, **made)] == [Status.OK] * 4
    chosen = _profile._Blocks.chosen
    whole = _profile._counted
    monkeypatch.setattr(_profile._Blocks, "chosen", lambda self, share, rows: np.ones(rows, bool) if share > 0.1 else chosen(self, share, rows))
    monkeypatch.setattr(_profile, "_counted", lambda made, values, known, second, *rest: whole(made, values, known, np.ones_like(known), *rest))
    (tmp_path / "again").mkdir()
    broken = Watch(tmp_path / "again", rows=3000, reference=columns(3000, 99, **made))
    assert Status.FAIL in [verdict.status for verdict in broken.windows(4, **made)]


def test_predictions_and_labels_go_through_the_same_engine(tmp_path):
    for check, roles in (("drift.predictions", ("live", "reference")), ("drift.labels", ("labels", "reference"))):
        (tmp_path / check).mkdir()
        watch = Watch(tmp_path / check, check, roles=roles)
        assert {verdict.status for verdict in watch.windows(2)} == {Status.OK}
        verdicts = watch.windows(2, label=lambda r, n: (r.random(n) < 0.7).astype(int))
        assert verdicts[-1].status is Status.FAIL and "label is '" in verdicts[-1].reason


def test_traffic_is_ranked_among_its_own_past(tmp_path):
    watch = Watch(tmp_path, traffic=True)
    random = np.random.default_rng(3)
    for _ in range(60):
        watch.add(rows=int(random.integers(180, 220)))
        assert watch.look().status is Status.OK
    verdicts = []
    for _ in range(12):
        watch.add(rows=int(random.integers(100, 120)))
        verdicts.append(watch.look())
    assert verdicts[-1].status is Status.FAIL
    assert "rows is unlike before" in verdicts[-1].reason


def test_the_memory_of_sixty_columns_is_small(tmp_path):
    random = np.random.default_rng(1)
    wide = {f"n{place}": random.normal(size=3000) for place in range(50)} | {
        f"c{place}": random.choice([f"v{k}" for k in range(300)], 3000) for place in range(10)
    }
    pyarrow.parquet.write_table(pa.table(wide), tmp_path / "wide.parquet")
    table = opened(tmp_path, "parquet:wide.parquet", {})
    made = _profile.profile(table, table.kinds(), (), None, None)
    plan = _evidence.layout(made, _evidence.Settings(0.02, 0.005, A))
    assert len(made.columns) == 60 and len(plan.made) * 8 * 4 / 3 < 200_000
    assert not any(math.isnan(value) for one in made.columns for value in (*one.low, *one.high))


def test_the_mean_bet_finds_a_small_move_of_a_whole_distribution_and_says_how_far(tmp_path):
    def at(middle):
        return {"amount": lambda r, n: r.normal(middle, size=n)}

    watch = Watch(tmp_path, "drift.means", reference=columns(20_000, 99, **at(0)), tolerance=0.0, columns=["amount", "age"])
    assert {verdict.status for verdict in watch.windows(4, **at(0))} == {Status.OK}
    verdicts = watch.windows(3, **at(0.2))
    assert verdicts[-1].status is Status.FAIL
    assert "the mean of amount moved up: " in verdicts[-1].reason
    part = verdicts[-1].parts["amount"]
    assert part.limit < part.observed < 1 and part.n == 1000


def test_no_bet_on_a_mean_is_worth_more_than_its_stake():
    """Exactly, over two-point distributions at and inside the edge: expectation at most 1 for each lambda."""
    from checks._means import LAMBDAS, _log_bets

    for edge in (0.1, 0.5, 0.93):
        for low, high in ((0.0, 1.0), (0.0, 0.95), (0.05, 1.0)):
            share = min(1.0, max(0.0, (edge - low) / (high - low)))
            for mean in (share, share / 2):
                up = (1 - mean) * np.exp(_log_bets(np.array([low]), edge, 1)) + mean * np.exp(_log_bets(np.array([high]), edge, 1))
                assert len(up) == len(LAMBDAS) and up.max() <= 1 + 1e-9
                down = (1 - mean) * np.exp(_log_bets(1 - np.array([low]), 1 - edge, -1)) + mean * np.exp(
                    _log_bets(1 - np.array([high]), 1 - edge, -1)
                )
                assert down.max() <= 1 + 1e-9


def test_a_number_that_is_gone_is_a_warning_of_the_mean_bet(tmp_path):
    watch = Watch(tmp_path, "drift.means", columns=["amount"])
    watch.add(amount=lambda r, n: ["much"] * n)
    verdict = watch.look()
    assert verdict.status is Status.WARN and "amount holds text now: its mean cannot be watched" in verdict.reason


def own_past(tmp_path, quiet, loud=6, **parameters):
    watch = Watch(tmp_path, "drift.past", roles=("live",), columns=["amount", "age"], **parameters)
    random = np.random.default_rng(11)
    for _ in range(quiet):
        watch.add(rows=200, amount=lambda r, n: random.normal(size=n))
        assert watch.look().status is Status.OK
    for _ in range(loud):
        watch.add(rows=200, amount=lambda r, n: random.normal(0.5, size=n))
        yield watch.look(run_length=200.0)


def test_a_window_unlike_its_own_past_is_found_without_a_reference(tmp_path):
    verdicts = list(own_past(tmp_path, 60))
    assert verdicts[-1].status is Status.FAIL, verdicts[-1].reason
    assert "the mean of amount is 0.5" in verdicts[-1].reason or "the mean of amount is 0.4" in verdicts[-1].reason


def test_with_a_season_each_window_is_ranked_by_its_difference_from_the_one_a_season_before():
    from checks._past import Past, further

    def rhythm(past, hours, season, random, sums):
        for hour in range(hours):
            window = _evidence.Window(START + hour * HOUR, START + (hour + 1) * HOUR)
            past = further(past, [10 * math.sin(hour / 24 * 2 * math.pi) + random.normal()], window, season, 2160.0)
            sums.append(float(np.exp(past.log_sums).mean()))
        return past

    with_season, without = [], []
    rhythm(Past(("rows",)), 24 * 12, timedelta(days=1), np.random.default_rng(2), with_season)
    rhythm(Past(("rows",)), 24 * 12, None, np.random.default_rng(2), without)
    assert max(with_season) < 2160 and with_season[23] == 0 and with_season[30] > 0


def test_conformal_p_values_are_uniform_while_windows_are_exchangeable():
    from scipy import stats

    from checks._past import _rank

    random = np.random.default_rng(5)
    values = np.round(random.normal(size=400), 1)  # with ties
    p = [_rank(values[:place], values[place], np.random.default_rng(place)) for place in range(20, 400)]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_the_traffic_of_a_past_keeps_the_promise_at_its_edge():
    """Exchangeable windows are the whole null of a conformal bet: P(alarm within t) is at most t / A there."""
    from scipy import stats

    from checks._past import Past, further

    alarmed = 0
    for stream in range(60):
        random, past = np.random.default_rng(stream), Past(("x",))
        for hour in range(40):
            past = further(past, [float(random.normal())], _evidence.Window(START + hour * HOUR, START + (hour + 1) * HOUR), None, 40.0)
            if float(np.exp(past.log_sums).mean()) >= 200:
                alarmed += 1
                break
    assert stats.binomtest(alarmed, 60, 40 / 200, alternative="greater").pvalue > 0.001
