"""skew.features and skew.logged: both paths are real, tables in files and a speaker of Feast's protocol; the numbers are counted by hand here."""

import hashlib
import json
import math
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from agent import Locator, Status, Window
from agent.config import load
from agent.errors import AnswerError, ConfigError, DataError, DeadlineError, ServerError
from agent.targets import connect
from checks import _join, _skew, skew
from checks._skew import Near, hint
from tests.conftest import HOUSE
from tests.logs import opened, write
from tests.servers import feast

NOW = datetime(2026, 3, 29, 12, tzinfo=UTC)
OFFLINE = {"time": {"column": "at", "tz": "UTC"}, "entity": "driver"}
LIVE = {"time": {"column": "at", "tz": "UTC"}, "id": "request", "entity": "driver"}
DRIVERS = range(1000, 1100)
NEAR = Near(1e-6, 1e-9)


def truth(driver, hour=10):
    """What is true of a driver at an hour of the day."""
    return {"rate": driver / 7 + hour, "trips": driver % 13 + hour, "city": ["Bonn", "Rome", "Oslo"][driver % 3]}


def at(hour):
    return NOW.replace(hour=0) + timedelta(hours=hour)


def history(drivers=DRIVERS, hours=(8, 9, 10)):
    return [{"driver": driver, "at": at(hour).isoformat(), **truth(driver, hour)} for hour in hours for driver in drivers]


@contextmanager
def both(folder, rows=None, online=None, times=None, form="parquet", declared=None, drivers=DRIVERS, fault="", within=5.0, types=None, **speaker):
    """The offline table, and an online store that holds what was true at ten o'clock, or what `online` says of each driver."""
    url = write(folder, form, history() if rows is None else rows, types)
    told = {driver: truth(driver) | (online(driver) if online else {}) for driver in drivers}
    spoken = feast.Speaker(rows={driver: row for driver, row in told.items() if None not in row}, **speaker)
    spoken.at, spoken.names, spoken.fault = at(10).isoformat(), sorted({name for row in told.values() for name in row if name}), fault
    spoken.times = {driver: time.isoformat() for driver, time in (times or {}).items()}
    store = connect(Locator("fraud", "online", spoken.url, spoken.options, within=timedelta(seconds=within)))
    table = opened(folder, url, {**OFFLINE, **(declared or {})})
    try:
        yield store, table
    finally:
        table.close()
        store.close()
        spoken.stop()


def gone(driver):
    return {None: None}


def by_feature(verdict):
    return {one["feature"]: one for one in json.loads(verdict.data["skew.json"])["features"]}


# The same on both paths


def test_equal_values_are_well_whatever_holds_the_offline_rows(tmp_path, form):
    with both(tmp_path, form=form) as (online, offline):
        verdict = skew.features(online, offline, NOW)
    assert (verdict.status, verdict.reason) == (Status.OK, "3 features are online as offline (100 entities)")
    assert {name: (one.observed, one.n) for name, one in verdict.parts.items()} == dict.fromkeys(("rate", "trips", "city"), (0, 100))


def test_an_online_value_is_held_to_the_offline_row_of_its_own_time_and_not_to_the_newest(tmp_path):
    with both(tmp_path, rows=history(hours=(8, 10, 11.5))) as (online, offline):
        assert skew.features(online, offline, NOW).status is Status.OK


def test_a_whole_second_stands_for_the_fraction_that_some_stores_drop(tmp_path):
    rows = [{**row, "at": (datetime.fromisoformat(row["at"]) + timedelta(milliseconds=700)).isoformat()} for row in history()]
    with both(tmp_path, rows=rows) as (online, offline):
        assert skew.features(online, offline, NOW).status is Status.OK


def test_floats_that_went_through_single_precision_are_equal(tmp_path):
    with both(tmp_path, online=lambda driver: {"rate": float(np.float32(truth(driver)["rate"]))}) as (online, offline):
        assert skew.features(online, offline, NOW).status is Status.OK
        assert skew.features(online, offline, NOW, rtol=0.0, atol=0.0).status is Status.FAIL


def test_nulls_on_both_sides_are_equal(tmp_path):
    rows = [{**row, "rate": None} if row["driver"] % 2 else row for row in history()]
    with both(tmp_path, rows=rows, online=lambda driver: {"rate": None} if driver % 2 else {}) as (online, offline):
        assert skew.features(online, offline, NOW).status is Status.OK


# What is wrong, and what is said about it


def test_a_feature_in_another_unit_fails_and_the_ratio_is_told(tmp_path):
    with both(tmp_path, online=lambda driver: {"rate": truth(driver)["rate"] * 100}) as (online, offline):
        verdict = skew.features(online, offline, NOW)
    someone = verdict.reason.partition("such as ")[2]
    assert verdict.reason == (
        "1 of 3 features are online otherwise than offline (100 entities): rate is wrong in 100.0% (94.7% to 100.0%, limit 1.0%): "
        f"another value in 100 (online is 100 times offline: another unit?), such as {someone}"
    )
    assert verdict.status is Status.FAIL
    assert someone in {hashlib.sha256(str(driver).encode()).hexdigest()[:12] for driver in DRIVERS}
    assert [verdict.parts[name].observed for name in ("rate", "trips", "city")] == [1, 0, 0]


@pytest.mark.parametrize(
    ("feature", "online", "cause", "pattern"),
    [
        ("rate", lambda value: value + 273.15, "value", "online is offline + 273.1: another origin or time zone?"),
        ("rate", lambda value: round(value, 1), "value", "online is offline rounded to 1 decimals"),
        ("rate", lambda value: 0.0, "value", "online gives one and the same number for all: a default that was filled in?"),
        ("trips", lambda value: -value, "value", "online is -1 times offline: another unit?"),
        ("trips", lambda value: value + 1e-7, None, ""),
        ("trips", lambda value: None, "null", ""),
        ("trips", str, "type", ""),
        ("trips", lambda value: value > 15, "type", ""),
        ("trips", lambda value: [value], "type", ""),
        ("city", str.upper, "value", "they differ in case or surrounding blanks only"),
        ("city", lambda value: "?", "value", "online gives one and the same text for all"),
        ("city", lambda value: value[::-1], "value", ""),
        ("city", lambda value: 3, "type", ""),
        ("rate", lambda value: "NaN", "null", ""),
        ("rate", lambda value: "Infinity", "value", ""),
    ],
)
def test_each_way_to_be_wrong_has_its_name_and_its_pattern(tmp_path, feature, online, cause, pattern):
    with both(tmp_path, online=lambda driver: {feature: online(truth(driver)[feature])}) as (store, offline):
        verdict = skew.features(store, offline, NOW)
    assert verdict.status is (Status.FAIL if cause else Status.OK)
    told = by_feature(verdict)[feature]
    assert set(told["wrong"]) == ({cause} if cause else set())
    assert pattern in told["pattern"]
    assert not cause or told["pattern"].endswith(f"({pattern})" if pattern else f" in {told['judged']}")
    others = [one["wrong"] for name, one in by_feature(verdict).items() if name != feature]
    assert others == [{}, {}]


def test_columns_that_were_swapped_are_told_by_their_names(tmp_path):
    with both(tmp_path, online=lambda driver: {"rate": truth(driver)["trips"], "trips": truth(driver)["rate"]}) as (online, offline):
        found = by_feature(skew.features(online, offline, NOW))
    assert found["rate"]["pattern"] == "another value in 100 (online is what offline has as trips: columns swapped?)"
    assert found["trips"]["pattern"] == "another value in 100 (online is what offline has as rate: columns swapped?)"


def test_a_value_online_where_offline_has_none_is_wrong(tmp_path):
    rows = [{**row, "rate": None} for row in history()]
    with both(tmp_path, rows=rows, declared={"features": ["rate", "trips"]}) as (online, offline):
        verdict = skew.features(online, offline, NOW)
    assert by_feature(verdict)["rate"]["wrong"] == {"unexpected": 100}


@pytest.mark.parametrize("redis", [False, True])
def test_an_entity_that_is_missing_online_is_missing_whatever_the_store_calls_it(tmp_path, redis):
    with both(tmp_path, online=lambda driver: gone(driver) if driver % 4 == 0 else {}, redis=redis) as (online, offline):
        verdict = skew.features(online, offline, NOW)
    assert verdict.status is Status.FAIL
    assert {name: one["wrong"] for name, one in by_feature(verdict).items()} == {key: {"missing": 25} for key in ("rate", "trips", "city")}
    assert "missing in 25" in verdict.reason


def test_a_store_that_has_nothing_at_all_is_told_as_that(tmp_path):
    with both(tmp_path, online=lambda driver: gone(driver) | dict.fromkeys(truth(1)), redis=True) as (online, offline):
        verdict = skew.features(online, offline, NOW)
    assert verdict.status is Status.FAIL
    assert verdict.reason.startswith("online has nothing for any of 100 entities: not materialised, or keys of another type or spelling (such as ")


def test_a_new_entity_is_not_missed_before_the_lag_is_over(tmp_path):
    fresh = list(history(range(2000, 2030), hours=(11.5,)))
    with both(tmp_path, rows=[*history(), *fresh]) as (online, offline):
        calm = skew.features(online, offline, NOW)
        hasty = skew.features(online, offline, NOW, lag=timedelta(minutes=10))
    assert (calm.status, by_feature(calm)["rate"]["without_offline_row"]) == (Status.OK, 30)
    assert (hasty.status, by_feature(hasty)["rate"]["wrong"]) == (Status.FAIL, {"missing": 30})


# Late is not wrong


def test_rows_that_were_never_materialised_are_late_and_not_wrong(tmp_path):
    with both(tmp_path, rows=history(hours=(8, 9, 10, 10.75))) as (online, offline):
        verdict = skew.features(online, offline, NOW)
    assert verdict.status is Status.FAIL
    assert verdict.reason == (
        "late, not wrong: city, rate, trips in 100.0% (94.7% to 100.0%, limit 5.0%), up to 45m behind offline; was it materialised?"
    )
    assert {name: one.observed for name, one in verdict.parts.items()} == {
        **dict.fromkeys(("rate", "trips", "city"), 0),
        **dict.fromkeys(("rate.late", "trips.late", "city.late"), 1),
    }


def test_what_came_within_the_lag_is_not_late(tmp_path):
    with both(tmp_path, rows=history(hours=(8, 9, 10, 11.5))) as (online, offline):
        assert skew.features(online, offline, NOW).status is Status.OK
        assert skew.features(online, offline, NOW, lag=timedelta(minutes=29)).status is Status.FAIL
        assert skew.features(online, offline, NOW, lag=timedelta(minutes=29), late=1.0).status is Status.OK


def test_a_value_may_be_late_and_wrong_for_its_time_as_well(tmp_path):
    with both(tmp_path, rows=history(hours=(8, 9, 10, 10.75)), online=lambda driver: {"rate": 1e9 + driver**2}) as (online, offline):
        verdict = skew.features(online, offline, NOW)
    assert by_feature(verdict)["rate"] | {"such_as": None} == {
        "feature": "rate",
        "judged": 100,
        "wrong": {"value": 100},
        "pattern": "another value in 100",
        "late": 100,
        "behind_seconds": pytest.approx(2700, abs=1),
        "newer_online": 0,
        "without_offline_row": 0,
        "such_as": None,
    }
    assert "rate is wrong" in verdict.reason
    assert "late, not wrong: " in verdict.reason


def test_a_store_that_tells_no_times_is_late_where_an_older_row_has_its_value_and_wrong_where_none_has(tmp_path):
    never = datetime(1970, 1, 1, tzinfo=UTC)
    stale = {driver: truth(driver, 8) for driver in DRIVERS if driver % 2}
    times = dict.fromkeys(DRIVERS, never)
    with both(tmp_path, times=times, online=lambda driver: stale.get(driver, {}) | {"trips": -1}) as (online, offline):
        found = by_feature(skew.features(online, offline, NOW))
    assert (found["rate"]["late"], found["rate"]["wrong"], found["rate"]["behind_seconds"]) == (50, {}, 7200)
    assert (found["trips"]["late"], found["trips"]["wrong"]) == (0, {"value": 100})
    assert (found["city"]["late"], found["city"]["wrong"]) == (0, {})


def test_what_is_newer_online_than_offline_and_differs_cannot_be_judged(tmp_path):
    newer = {driver: at(11) for driver in DRIVERS}
    with both(tmp_path, times=newer, online=lambda driver: truth(driver, 11)) as (online, offline):
        verdict = skew.features(online, offline, NOW)
    assert (verdict.status, verdict.reason) == (
        Status.WARN,
        "too few values of rate, trips to judge; the others are online as offline (100 entities) "
        "(100 newer online than offline, which cannot be judged)",
    )
    assert {name: (one["judged"], one["newer_online"]) for name, one in by_feature(verdict).items()} == {
        "rate": (0, 100),
        "trips": (0, 100),
        "city": (100, 0),
    }


def test_what_is_too_old_for_training_and_still_given_is_wrong(tmp_path):
    rows = [*history(hours=(2,)), *history(range(3000, 3040), hours=(10,))]
    live = [{"request": f"r{driver}", "driver": driver, "at": at(11.5).isoformat()} for driver in DRIVERS]
    (tmp_path / "live").mkdir()
    log = opened(tmp_path / "live", write(tmp_path / "live", "parquet", live), LIVE)
    with both(tmp_path, rows=rows, times=dict.fromkeys(DRIVERS, at(2)), online=lambda driver: truth(driver, 2)) as (online, offline):
        assert skew.features(online, offline, NOW, log).status is Status.OK
        verdict = skew.features(online, offline, NOW, log, max_age=timedelta(hours=3))
    assert (verdict.status, by_feature(verdict)["rate"]["wrong"]) == (Status.FAIL, {"expired": 100})


# Who is asked


def test_entities_come_from_the_log_where_it_is_bound_and_a_key_may_be_text_there(tmp_path):
    live = [{"request": f"r{n}", "driver": str(1000 + n % 40), "at": (at(11) + timedelta(seconds=n)).isoformat()} for n in range(400)]
    (tmp_path / "live").mkdir()
    log = opened(tmp_path / "live", write(tmp_path / "live", "parquet", live), LIVE)
    with both(tmp_path) as (online, offline):
        verdict = skew.features(online, offline, NOW, log, Window(at(11), NOW))
        empty = skew.features(online, offline, NOW, log, Window(at(1), at(2)))
    assert verdict.reason == "3 features are online as offline (40 entities)"
    assert (empty.status, empty.reason) == (Status.NODATA, "0 recent entities; 30 are needed")


def test_a_sample_is_the_same_for_one_window_and_another_for_the_next(tmp_path):
    with both(tmp_path, online=lambda driver: {"trips": -1}) as (online, offline):
        asked = [by_feature(skew.features(online, offline, moment, sample=30))["trips"]["such_as"] for moment in (NOW, NOW, NOW + timedelta(hours=1))]
    assert asked[0] == asked[1] != asked[2]
    assert len(asked[0]) == 5


def test_two_keys_are_asked_and_joined_together(tmp_path):
    rows = [row | {"shop": f"s{row['driver'] % 2}"} for row in history()]
    asked = {}

    class Both:
        can = frozenset()

        def features(self, names, entities):
            asked["keys"] = {tuple(one) for one in entities}
            return connect_like(names, entities)

    def connect_like(names, entities):
        from agent import Fetched

        return [{"rate": Fetched(truth(one["driver"])["rate"] if one["shop"] == f"s{one['driver'] % 2}" else -1, at(10))} for one in entities]

    url = write(tmp_path, "parquet", rows)
    verdict = skew.features(Both(), opened(tmp_path, url, OFFLINE), NOW, keys=["driver", "shop"])
    assert (verdict.status, asked["keys"]) == (Status.OK, {("driver", "shop")})


# What cannot be looked at


def test_fewer_entities_than_asked_for_are_no_data(tmp_path):
    with both(tmp_path, rows=history(range(1000, 1007))) as (online, offline):
        few = skew.features(online, offline, NOW)
        none = skew.features(online, offline, at(1))
        enough = skew.features(online, offline, NOW, entities_at_least=7)
    assert (few.status, few.reason) == (Status.NODATA, "7 recent entities; 30 are needed")
    assert (none.status, none.reason) == (Status.NODATA, "0 recent entities; 30 are needed")
    assert enough.status is Status.OK
    with both(tmp_path) as (online, offline):
        assert [skew.features(online, offline, NOW, sample=size).status for size in (0, -1, 1)] == [Status.NODATA] * 3


def test_whole_numbers_beyond_any_float_are_another_value(tmp_path):
    with both(tmp_path, online=lambda driver: {"trips": 10**400 + driver}) as (online, offline):
        assert by_feature(skew.features(online, offline, NOW))["trips"]["wrong"] == {"value": 100}


def test_a_key_named_twice_is_one_key(tmp_path):
    with both(tmp_path) as (online, offline):
        assert skew.features(online, offline, NOW, keys=["driver", "driver"]).status is Status.OK


def test_a_wrong_feature_name_is_told_with_the_nearest_one(tmp_path):
    with both(tmp_path) as (online, offline), pytest.raises(AnswerError, match="no feature 'rates'; did you mean 'rate'"):
        skew.features(online, offline, NOW, columns=["rates"])
    with both(tmp_path, online=lambda driver: {"rates": 1}) as (online, offline):
        with pytest.raises(DataError, match="no feature 'rates' on both sides; did you mean 'rate'"):
            skew.features(online, offline, NOW, columns=["rates"])
        assert skew.features(online, offline, NOW).reason.endswith("(100 entities) (on one side only: rates)")


def test_a_log_without_the_keys_is_passed_over(tmp_path):
    (tmp_path / "live").mkdir()
    url = write(tmp_path / "live", "parquet", [{"request": "r1", "at": at(11).isoformat()}])
    log = opened(tmp_path / "live", url, {key: value for key, value in LIVE.items() if key != "entity"})
    with both(tmp_path) as (online, offline):
        assert skew.features(online, offline, NOW, log).reason == "3 features are online as offline (100 entities)"


def test_keys_that_are_null_or_no_number_are_nobody(tmp_path):
    rows = [{**row, "driver": [None, math.nan, math.inf, float(row["driver"])][row["driver"] % 4]} for row in history()]
    with both(tmp_path, rows=rows) as (online, offline):
        assert skew.features(online, offline, NOW, entities_at_least=20).reason == "3 features are online as offline (25 entities)"


def test_of_two_rows_at_one_time_the_last_in_the_table_counts(tmp_path):
    restated = [{**row, "rate": -1.0} for row in history(hours=(10,))]
    with both(tmp_path, rows=[*restated, *history()]) as (online, offline):
        assert skew.features(online, offline, NOW).status is Status.OK
    with both(tmp_path, rows=[*history(), *restated]) as (online, offline):
        assert skew.features(online, offline, NOW).status is Status.FAIL


def test_times_lists_and_unicode_are_features_too(tmp_path):
    more = {"since": at(3), "vector": [1.0, 2.5], "naïve ☃": "Ω"}
    types = {"since": pa.timestamp("us", "UTC")}
    rows = [row | more for row in history()]
    told = {"since": at(3).isoformat(), "vector": [1.0, 2.5], "naïve ☃": "Ω"}
    with both(tmp_path, rows=rows, online=lambda driver: told, types=types) as (online, offline):
        assert skew.features(online, offline, NOW).reason == "6 features are online as offline (100 entities)"
    with both(tmp_path, rows=rows, online=lambda driver: told | {"since": "soon", "vector": [1.0, 2.6]}, types=types) as (online, offline):
        found = by_feature(skew.features(online, offline, NOW))
    assert {name: found[name]["wrong"] for name in more} == {"since": {"type": 100}, "vector": {"value": 100}, "naïve ☃": {}}


@pytest.mark.parametrize("missing", ["entity", "time"])
def test_offline_must_declare_its_entity_and_time(tmp_path, missing):
    options = {key: value for key, value in OFFLINE.items() if key != missing}
    table = opened(tmp_path, write(tmp_path, "parquet", history()), options)
    with both(tmp_path) as (online, _), pytest.raises(DataError, match=missing):
        skew.features(online, table, NOW)


def test_keys_beyond_what_a_float_holds_are_refused_and_not_mixed_up(tmp_path):
    rows = [{**row, "driver": 2**60 + row["driver"]} for row in history()]
    with both(tmp_path, rows=rows) as (online, offline), pytest.raises(DataError, match=r"2\^53.*CAST\(driver AS VARCHAR\)"):
        skew.features(online, offline, NOW)


@pytest.mark.parametrize(("fault", "error"), [("broken", ServerError), ("nan", AnswerError), ("html", AnswerError), ("cut", AnswerError)])
def test_a_store_that_answers_badly_is_an_error_and_no_verdict(tmp_path, fault, error):
    with both(tmp_path, fault=fault) as (online, offline), pytest.raises(error):
        skew.features(online, offline, NOW)


def test_a_store_that_hangs_costs_its_deadline(tmp_path):
    with both(tmp_path, fault="hang", within=0.2) as (online, offline), pytest.raises(DeadlineError):
        skew.features(online, offline, NOW)


def test_a_huge_sample_is_asked_in_batches(tmp_path):
    many = range(1000, 6000)
    with both(tmp_path, rows=history(many, hours=(10,)), drivers=many) as (online, offline):
        verdict = skew.features(online, offline, NOW, sample=5000)
    assert verdict.reason == "3 features are online as offline (5000 entities)"


# The arithmetic


numbers = st.floats(-1e9, 1e9) | st.integers(-(10**12), 10**12)


@given(numbers, numbers)
def test_numbers_are_apart_as_numpy_says(one, other):
    if isinstance(one, int) and isinstance(other, int):
        assert (_skew.wrong(one, other, NEAR) is None) == (one == other)
    else:
        assert (_skew.wrong(one, other, NEAR) is None) == bool(np.isclose(other, one, rtol=NEAR.rtol, atol=NEAR.atol))


@given(st.none() | st.booleans() | numbers | st.text(), st.none() | st.booleans() | numbers | st.text())
def test_a_value_is_never_wrong_against_itself_and_wrong_both_ways_or_neither(one, other):
    assert _skew.wrong(one, one, NEAR) is None
    exact = Near(0.0, 0.0)
    assert (_skew.wrong(one, other, exact) is None) == (_skew.wrong(other, one, exact) is None)


@pytest.mark.parametrize(
    ("one", "other", "cause"),
    [
        ([1.0, 2.0], [1.0, 2.0000000001], None),
        ([1.0, 2.0], [1.0], "value"),
        ([1.0, None], [1.0, 2.0], "unexpected"),
        ("[1.0,2.5]", [1.0, 2.5], None),
        ("[1.0,2.5]", "[1, 2.5]", None),
        ("[1.0,", [1.0], "type"),
        ("[" * 100_000, [1.0], "type"),
        (math.inf, math.inf, None),
        (math.inf, 1.0, "value"),
        (10**400, 1.5, "value"),
        (True, 1, "type"),
        ("1", 1, "type"),
        (3, 3.0, None),
    ],
)
def test_lists_infinities_and_huge_numbers_have_a_meaning(one, other, cause):
    assert _skew.wrong(one, other, NEAR) == cause


def test_a_pattern_is_told_only_where_nearly_all_follow_it():
    pairs = [(float(n), n * 100.0) for n in range(1, 21)]
    assert "100 times" in hint(pairs, "online", "offline")
    assert "100 times" in hint([*pairs[:19], (20.0, 1.0)], "online", "offline")
    assert hint([*pairs[:17], (18.0, 1.0), (19.0, 2.0), (20.0, 3.0)], "online", "offline") == ""
    assert hint(pairs[:4], "online", "offline") == ""
    assert hint([], "online", "offline") == ""


def test_the_interval_is_scipys_exact_one_at_the_joint_level(tmp_path):
    with both(tmp_path, online=lambda driver: {"trips": -1} if driver < 1008 else {}) as (online, offline):
        reading = skew.features(online, offline, NOW).parts["trips"]
    theirs = binomtest(8, 100).proportion_ci(1 - 0.05 / 6, "exact")
    assert reading.interval == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_a_share_over_the_limit_that_chance_explains_is_a_warning(tmp_path):
    with both(tmp_path, online=lambda driver: {"trips": -1} if driver < 1002 else {}) as (online, offline):
        verdict = skew.features(online, offline, NOW)
    assert (verdict.status, verdict.reason) == (Status.WARN, "trips differs in 2 of 100, not surely above the limit; a larger sample would tell")


def test_without_skew_above_the_limit_a_look_fails_at_most_once_in_twenty():
    """Twenty features, each wrong in exactly the share allowed, which is the worst that is still well."""
    rng, n, features, runs = np.random.default_rng(3), 200, 20, 2000
    level = 1 - 0.05 / (2 * features)
    lowest = [_skew._share(hits, n, 0.02, level).interval[0] for hits in range(n + 1)]
    failed = sum(max(lowest[hits] for hits in rng.binomial(n, 0.02, features)) > 0.02 for _ in range(runs))
    assert failed <= 0.05 * runs


# Joining


keyed = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 20)), max_size=40)


@settings(deadline=None, max_examples=60)
@given(keyed, st.integers(-1, 21))
def test_the_row_as_of_a_time_is_the_newest_at_or_before_it(rows, moment):
    table = Columns_of({"k": [float(key) for key, _ in rows], "t": [float(time) for _, time in rows]})
    wanted = [(str(key),) for key in range(5)]
    found = _join.past(table, ["k"], wanted, "t")
    for who in range(5):
        brute = [(time, place) for place, (key, time) in enumerate(rows) if key == who and time <= moment]
        assert found.before(who, moment) == (max(brute)[1] if brute else None)


class Columns_of:
    """Columns in chunks of three rows, as numpy arrays."""

    def __init__(self, columns):
        self.columns, self.declared = columns, {}

    def kinds(self):
        return dict.fromkeys(self.columns, "number")

    def rows(self):
        return len(next(iter(self.columns.values())))

    def column(self, name):
        values = self.columns[name]
        array = np.array(values, dtype=float) if all(isinstance(one, float) for one in values) else np.array(values, dtype=object)
        return (array[start : start + 3] for start in range(0, len(array), 3))


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3).map(float)), max_size=30),
    st.sets(st.tuples(st.sampled_from("abz"), st.sampled_from("0129"))),
)
def test_rows_with_both_parts_of_a_key_are_found_and_no_others(rows, wanted):
    wanted = sorted(wanted)
    if not wanted:
        return
    table = Columns_of({"a": [one for one, _ in rows], "b": [other for _, other in rows]})
    places, who, _ = _join._located(table, ["a", "b"], wanted)
    expected = [(place, wanted.index((one, str(int(other))))) for place, (one, other) in enumerate(rows) if (one, str(int(other))) in wanted]
    assert list(zip(places.tolist(), who.tolist(), strict=True)) == expected


def test_a_table_that_grew_while_it_was_read_is_an_error_and_no_mix_of_rows():
    table = Columns_of({"k": [1.0, 2.0], "t": [1.0, 2.0], "f": [5.0, 6.0, 7.0]})
    found = _join.past(table, ["k"], [("1",)], "t")
    with pytest.raises(DataError, match="had 2 rows and then 3 while it was read"):
        _join.picked(table, "f", np.array([0]), found.rows)


@pytest.mark.parametrize(
    ("value", "text"), [(7, "7"), (7.0, "7"), ("7", "7"), ("007", "007"), (1.5, "1.5"), (None, None), (math.nan, None), (True, "True")]
)
def test_a_key_has_one_spelling_in_every_table(value, text):
    assert _join.spelled(value) == text


def test_of_large_tables_the_same_ids_are_kept_on_both_sides(monkeypatch):
    monkeypatch.setattr(_join, "SHARED", 500)
    rng = np.random.default_rng(1)
    one, other = (Columns_of({"id": [f"r{n}" for n in rng.permutation(5000)[:4000]]}) for _ in range(2))
    common = set(one.columns["id"]) & set(other.columns["id"])
    found, n, m = _join.shared(one, "id", other, "id", seed=5)
    assert (set(found) <= common, n, m) == (True, 4000, 4000)
    assert 300 < len(found) < 500  # an eighth of 3,200
    assert found != _join.shared(one, "id", other, "id", seed=6)[0]


# skew.logged


SERVED = {"time": {"column": "at", "tz": "UTC"}, "id": "request", "features": ["rate", "trips", "city"]}


def served_rows(count=300):
    return [{"request": f"r{n}", "at": (at(10) + timedelta(seconds=n)).isoformat(), "driver": n % 7, **truth(n)} for n in range(count)]


def sides(folder, served, trained, form="parquet", mine=SERVED, theirs=None):
    tables = []
    for name, rows, options in (("live", served, mine), ("reference", trained, theirs or {"id": "request"})):
        (folder / name).mkdir(exist_ok=True)
        tables.append(opened(folder / name, write(folder / name, form, rows), options))
    return tables


def test_served_rows_are_held_to_the_training_rows_with_their_ids(tmp_path):
    live, reference = sides(tmp_path, served_rows(), served_rows(500)[100:])
    verdict = skew.logged(live, reference)
    assert (verdict.status, verdict.reason) == (Status.OK, "3 features are served as trained on (200 shared ids)")
    again = skew.logged(live, reference, Window(at(10), at(10) + timedelta(seconds=160)))
    assert again.reason == "3 features are served as trained on (60 shared ids)"


def test_a_feature_served_otherwise_than_trained_on_fails_with_its_pattern(tmp_path):
    trained = [row | {"rate": row["rate"] / 1000} for row in served_rows()]
    verdict = skew.logged(*sides(tmp_path, served_rows(), trained), sample=100)
    assert verdict.status is Status.FAIL
    assert "(served is 1000 times trained on: another unit?)" in verdict.reason
    assert (verdict.parts["rate"].observed, verdict.parts["rate"].n, verdict.parts["trips"].observed) == (1, 100, 0)


def test_rows_joined_by_entity_are_held_to_the_training_row_of_their_time(tmp_path):
    mine = {"time": {"column": "at", "tz": "UTC"}, "entity": "driver", "features": ["rate", "trips"]}
    live = [{"at": at(9.5).isoformat(), "driver": driver, **truth(driver, 9)} for driver in DRIVERS]
    tables = sides(tmp_path, live, history(), mine=mine, theirs=OFFLINE)
    assert skew.logged(*tables).reason == "2 features are served as trained on (100 shared ids)"
    assert skew.logged(*tables, key="driver").status is Status.FAIL  # by id alone, the last training row of each


def test_no_shared_ids_are_no_data_that_says_what_was_joined(tmp_path):
    live, reference = sides(tmp_path, served_rows(50), [row | {"request": f"t{n}"} for n, row in enumerate(served_rows(60))])
    verdict = skew.logged(live, reference)
    assert (verdict.status, verdict.reason) == (
        Status.NODATA,
        "0 ids are in both 50 served rows (request) and 60 training rows (request); 30 are needed",
    )


def test_without_ids_on_both_sides_there_is_nothing_to_join_on(tmp_path):
    tables = sides(tmp_path, served_rows(50), served_rows(50), theirs={"entity": "driver"})
    with pytest.raises(DataError, match="neither an id nor an entity both"):
        skew.logged(*tables)
    assert skew.logged(*tables, key="request").status is Status.OK
    with pytest.raises(DataError, match="no feature 'rat' on both sides; did you mean 'rate'"):
        skew.logged(*tables, key="request", columns=["rat"])


def test_features_in_one_json_column_are_compared_with_columns(tmp_path):
    live = [{"request": f"r{n}", "at": at(10).isoformat(), "inputs": json.dumps([n / 7, n])} for n in range(100)]
    trained = [{"request": f"r{n}", "p0": n / 7, "p1": float(n)} for n in range(100)]
    mine = {"time": {"column": "at", "tz": "UTC"}, "id": "request", "features": {"json": "inputs", "size": 2}}
    assert skew.logged(*sides(tmp_path, live, trained, mine=mine)).reason == "2 features are served as trained on (100 shared ids)"


def test_both_sides_may_be_in_any_format(tmp_path, form):
    assert skew.logged(*sides(tmp_path, served_rows(60), served_rows(60), form=form)).status is Status.OK


# The whole way, from a configuration


CONFIG = """
store: state.db
services:
  fraud:
    targets:
      online: {{url: "{url}", service: driver_v1}}
      offline: {{url: "parquet:log.parquet", time: {{column: at, tz: UTC}}, entity: driver}}
      live: {{url: "jsonl:live.jsonl", time: {{column: at, tz: UTC}}, id: request, entity: driver, features: [rate, trips, city]}}
      reference: {{url: "jsonl:live.jsonl", id: request}}
    watches:
      - {{check: skew.features, every: 1h, within: 1m, with: {{lag: 30m, share: 0.02, max_age: 30d}}}}
      - {{check: skew.logged, every: 1h, within: 1m}}
"""


def test_both_checks_run_from_a_configuration_and_the_store_is_knocked_at(tmp_path):
    moment = datetime.now(UTC) - timedelta(minutes=5)
    write(tmp_path, "parquet", [{**row, "at": moment.isoformat()} for row in history(hours=(10,))])
    logged = [{"request": f"r{driver}", "driver": driver, "at": moment.isoformat(), **truth(driver)} for driver in DRIVERS]
    (tmp_path / "live.jsonl").write_text("".join(json.dumps(row) + "\n" for row in logged))
    speaker = feast.Speaker(rows={driver: truth(driver) for driver in DRIVERS})
    speaker.at = moment.isoformat()
    (tmp_path / "watchkeeper.yaml").write_text(CONFIG.format(url=speaker.url))
    try:
        told = run(tmp_path, "check", "--all", "--json")
        knocked = {one["role"]: one for one in run(tmp_path, "validate", "--live", "--json")["targets"]}
    finally:
        speaker.stop()
    assert {one["reason"] for one in told} == {
        "3 features are online as offline (100 entities)",
        "3 features are served as trained on (100 shared ids)",
    }
    assert (knocked["online"]["look"], knocked["online"]["said"]) == ("allowed", "ready; can times")
    assert (knocked["offline"]["said"], knocked["online"]["act"]) == ("5 columns", "nothing to act on")


def test_a_wrong_option_of_the_online_store_stops_start_up_with_its_place(tmp_path):
    (tmp_path / "watchkeeper.yaml").write_text(CONFIG.format(url="feast+http://127.0.0.1:9").replace("service: driver_v1", "servce: driver_v1"))
    with pytest.raises(ConfigError, match=r"watchkeeper.yaml:6:15 services.fraud.targets.online: no option 'servce'"):
        load(tmp_path / "watchkeeper.yaml")
    (tmp_path / "watchkeeper.yaml").write_text(CONFIG.format(url="feats+http://127.0.0.1:9"))
    with pytest.raises(ConfigError, match=r"no adapter speaks 'feats' to a online.*'feast'"):
        load(tmp_path / "watchkeeper.yaml")


def run(folder, *words):
    command = [sys.executable, "-m", "agent.cli", "--config", str(folder / "watchkeeper.yaml"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, cwd=HOUSE)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)
