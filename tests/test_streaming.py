"""streaming.river against River itself: it calls what River calls when River is fed by hand, in the order things happened."""

from __future__ import annotations

import sys
from datetime import timedelta

import numpy as np
import pytest

from agent import Window
from agent.errors import ConfigError, DataError
from checks.streaming import BINARY, DETECTORS, river
from tests.conftest import need, peers
from tests.logs import START, opened, write

COUNT = 3_000
LIVE = {"time": {"column": "at", "tz": "UTC"}}


@pytest.fixture(scope="module")
def drift():
    """River, from this environment or from that of `make peers`; behind everything else on the path, so that no other package changes."""
    sys.path.extend(map(str, peers().glob("river/lib/python*/site-packages")))
    try:
        from river import drift
    except ImportError:
        need("river")
        raise
    return drift


def stream(folder, values, order=None):
    """A live table with a value a second, stored in any order."""
    rows = [{"at": (START + timedelta(seconds=place)).isoformat(), "x": value} for place, value in enumerate(values)]
    rows = [rows[place] for place in (range(len(rows)) if order is None else order)]
    return opened(folder, write(folder, "sqlite", rows), LIVE)


def moved(count=COUNT, at=2_000, by=1.0):
    values = np.random.default_rng(3).normal(0, 1, count)
    values[at:] += by
    return values.tolist()


def window(end=COUNT, length=1_000):
    return Window(START + timedelta(seconds=end - length), START + timedelta(seconds=end))


def by_hand(detector, values):
    calls = []
    for place, value in enumerate(values):
        detector.update(value)
        if detector.drift_detected:
            calls.append(place)
    return calls


@pytest.mark.parametrize("name", DETECTORS)
def test_it_calls_what_river_calls_when_it_is_fed_by_hand(tmp_path, drift, name):
    values = moved()
    made = getattr(drift, name)(**({"seed": 0} if name == "KSWIN" else {}))
    calls = by_hand(made, values)
    verdict = river(stream(tmp_path, values), window(), columns=["x"], detector=name, hold=timedelta(seconds=COUNT))
    assert calls and verdict.status == "fail"
    assert (verdict.parts["x"].observed, verdict.parts["x"].n) == (len(calls), COUNT)
    assert f"x at {START + timedelta(seconds=calls[-1]):%H:%M:%S}" in verdict.reason


@pytest.mark.parametrize("name", BINARY)
def test_a_binary_detector_hears_errors(tmp_path, drift, name):
    rng = np.random.default_rng(3)
    wrong = [*(rng.random(2_000) < 0.05), *(rng.random(1_000) < 0.6)]
    calls = by_hand(getattr(drift.binary, name)(), wrong)
    verdict = river(stream(tmp_path, list(map(int, wrong))), window(), columns=["x"], detector=name, hold=timedelta(seconds=COUNT))
    assert verdict.parts["x"].observed == len(calls)
    with pytest.raises(DataError, match="more than 0 and 1"):
        river(stream(tmp_path, moved()), window(), columns=["x"], detector=name)


def test_the_order_rows_are_stored_in_changes_nothing(tmp_path, drift):
    values, shuffled = moved(), np.random.default_rng(5).permutation(COUNT)
    straight = river(stream(tmp_path, values), window(), columns=["x"])
    assert straight.status == "fail" and river(stream(tmp_path, values, shuffled), window(), columns=["x"]) == straight


def test_a_call_is_held_for_three_windows_and_then_over(tmp_path, drift):
    table = stream(tmp_path, moved(6_000))
    (called,) = by_hand(drift.ADWIN(), moved(6_000))
    for end, status in ((called, "ok"), (called + 1, "fail"), (called + 300, "fail"), (called + 301, "ok")):
        assert river(table, window(end, 100), columns=["x"]).status == status, end


def test_a_stream_that_stays_as_it_is_is_ok(tmp_path, drift):
    verdict = river(stream(tmp_path, moved(by=0)), window(), columns=["x"])
    assert verdict.status == "ok" and verdict.reason == "ADWIN calls no change in x after 3000 values"


def test_only_the_newest_values_are_heard_and_that_is_said(tmp_path, drift):
    verdict = river(stream(tmp_path, moved()), window(), columns=["x"], values_at_most=900)
    assert verdict.status == "ok" and verdict.reason.endswith("after 900 values, the newest 900 a column")


def test_only_what_lies_in_the_replay_is_heard(tmp_path, drift):
    verdict = river(stream(tmp_path, moved()), window(length=500), columns=["x"], replay=timedelta(seconds=100))
    assert verdict.status == "ok" and verdict.parts["x"].n == 600


def test_nulls_and_infinities_are_not_fed(tmp_path, drift):
    values = moved()
    holed = [value for one in values[:1_400] for value in (one, None)] + [float("inf")] + values[1_400:1_500]
    verdict = river(stream(tmp_path, holed), window(len(holed)), columns=["x"])
    assert verdict.status == "ok" and verdict.parts["x"].n == 1_500


@pytest.mark.parametrize("values", [[None], [1.0], [0.0] * 2_000])
def test_next_to_nothing_and_always_the_same_are_no_change(tmp_path, drift, values):
    assert river(stream(tmp_path, [*values, 0.0]), window(len(values) + 1, 1_000), columns=["x"]).status == "ok"


def test_a_window_without_values_is_no_data(tmp_path, drift):
    assert river(stream(tmp_path, moved()), window(9_000), columns=["x"]).status == "nodata"


@pytest.mark.parametrize("column", ["at", "y"])
def test_a_column_that_holds_no_numbers_is_an_error(tmp_path, drift, column):
    with pytest.raises(DataError, match=f"column '{column}'"):
        river(stream(tmp_path, moved()), window(), columns=[column])


@pytest.mark.parametrize("settings", [{"clock": 0}, {"detla": 1}, {"clock": "x"}])
def test_settings_the_detector_does_not_take_are_an_error_even_when_rust_panics(tmp_path, drift, settings):
    with pytest.raises(ConfigError, match="does not take its settings"):
        river(stream(tmp_path, moved()), window(), columns=["x"], settings=settings)


def test_settings_reach_the_detector(tmp_path, drift):
    assert river(stream(tmp_path, moved(by=0.15)), window(), columns=["x"], settings={"delta": 1e-12}).status == "ok"
    assert river(stream(tmp_path, moved(by=0.5)), window(), columns=["x"], settings={"delta": 0.01}).status == "fail"


def test_a_detector_nobody_knows_is_told_with_those_there_are(tmp_path):
    with pytest.raises(ConfigError, match="no detector 'Adwin'; there is ADWIN, KSWIN"):
        river(stream(tmp_path, moved()), window(), columns=["x"], detector="Adwin")


def test_without_river_it_says_what_to_install(tmp_path, monkeypatch):
    for name in ("river", "river.drift"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"install watchkeeper\[river\]"):
        river(stream(tmp_path, moved()), window(), columns=["x"])
