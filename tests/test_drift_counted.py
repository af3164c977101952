"""drift.compare where live values stay in their engine: what cells can tell of the exact comparison, and that they call nothing it would not call."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import Ask, Status
from agent.targets import _tally
from checks import _binned, _distances, _gaps
from checks.drift import compare
from tests.logs import OnlyCounts, opened, write

numbers = st.one_of(st.integers(-5, 5).map(float), st.floats(-1e6, 1e6), st.sampled_from([np.inf, -np.inf, -0.0]))
samples = st.lists(numbers, min_size=1, max_size=200)


def counted(live, reference):
    """Gap, distances and picture from counts alone, as every engine counts them."""
    places = _binned.cuts(reference)
    return _binned.compared(_tally.count(Ask("x", places), live), reference, places)


@settings(deadline=None)
@given(samples, samples)
def test_cells_tell_no_more_than_the_exact_distance_and_at_most_a_thirty_second_less(live, reference):
    live, reference = np.sort(live), np.sort(reference)
    gap, near, _ = counted(live, reference)
    exact = _gaps.numbers(live, reference)
    assert exact.effect - 1 / 32 - 1e-12 <= gap.effect <= exact.effect + 1e-12
    assert gap.p >= min(exact.p, 0.9) - 1e-12, "near 1 scipy cannot always say it exactly, and then says it otherwise"
    assert gap.interval[0] <= exact.interval[0] + 1e-12
    assert gap.interval[1] >= exact.interval[1] - 1e-12
    if np.isfinite(reference).all() and np.isfinite(live).all():
        assert near == _distances.of_numbers(live, reference, False), "over deciles nothing is lost"


@pytest.mark.parametrize("size", [400, 3_000, 50_000])
@pytest.mark.parametrize("digits", [0, 1, 9])
def test_a_shift_that_is_called_exactly_is_called_by_cells(size, digits):
    random = np.random.default_rng(size)
    reference = np.sort(random.normal(size=20_000).round(digits))
    for shift in (0, 0.1, 0.5, 3):
        live = np.sort(random.normal(shift, 1, size).round(digits))
        gap, _, shape = counted(live, reference)
        exact = _gaps.numbers(live, reference)
        assert gap.effect == pytest.approx(exact.effect, abs=1 / 64)
        assert gap.p >= exact.p * (1 - 1e-9)
        assert (sum(shape.live), sum(shape.reference), len(shape.edges)) == (size, 20_000, len(shape.live) + 1)


def rows(count, seed, shift=0.0, **more):
    random = np.random.default_rng(seed)
    return [
        {
            "amount": float(random.normal(shift)),
            "age": int(random.integers(18, 90)),
            "city": str(random.choice(["Łódź", "東京", "Paris"])),
            "income": None if random.random() < 0.1 else float(random.normal()),
            **{name: make(place) for name, make in more.items()},
        }
        for place in range(count)
    ]


def test_two_tables_get_the_verdict_that_their_rows_would(tmp_path, form):
    (tmp_path / "reference").mkdir()
    reference = opened(tmp_path / "reference", write(tmp_path / "reference", "parquet", rows(900, 1)), {})
    for shift, status in ((0.0, Status.OK), (1.0, Status.FAIL)):
        (place := tmp_path / status.value).mkdir()
        live = opened(place, write(place, form, rows(600, 2, shift)), {})
        by_rows, by_counts = (compare(one, reference) for one in (live, OnlyCounts(live)))
        assert by_counts.status is by_rows.status is status
        assert set(by_counts.parts) == set(by_rows.parts) == {"amount", "age", "city", "income", "income.nulls"}
        told, seen = ({line["name"]: line for line in json.loads(one.data["compare.json"])["comparisons"]} for one in (by_counts, by_rows))
        for name, line in told.items():
            assert line["effect"] == pytest.approx(seen[name]["effect"], abs=1 / 64)
            assert line.get("distances") == seen[name].get("distances")
            assert line["how"].startswith("Kolmogorov-Smirnov over ") == (name in ("amount", "age", "income"))
        assert {name: line for name, line in told.items() if name in ("city", "income.nulls")} == {
            name: {**line, "p_adjusted": told[name]["p_adjusted"]} for name, line in seen.items() if name in ("city", "income.nulls")
        }
        assert status is Status.OK or b"<svg" in by_counts.data["compare.svg"]


def test_odd_columns_are_told_as_they_are_by_rows(tmp_path):
    place = tmp_path / "log.parquet"
    constant, none = pa.array([3.0] * 300), pa.array([None] * 300, pa.float64())
    odd = pa.array(([np.nan, np.inf, -np.inf, 1e308, -0.0, 7.0] * 50), pa.float64())
    tables = []
    for side, columns in (("live", {"c": constant, "n": none, "o": odd, "flip": ["a"] * 300, "gone": constant}), ("reference", {})):
        (tmp_path / side).mkdir()
        table = pa.table(columns or {"c": constant, "n": constant, "o": odd, "flip": constant, "new": constant})
        pyarrow.parquet.write_table(table, tmp_path / side / place.name)
        tables.append(opened(tmp_path / side, "parquet:log.parquet", {}))
    live, reference = tables
    by_rows, by_counts = (compare(one, reference) for one in (live, OnlyCounts(live)))
    assert by_counts.reason == by_rows.reason
    assert by_counts.parts["c"].observed == by_counts.parts["o"].observed == 0
    assert by_counts.status is Status.FAIL, "all null, where nothing was"
