"""selftest.drift: the reference's own rows, split and shifted; the bounds are those of Clopper and Pearson, by scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from agent import Status
from checks import selftest
from tests.logs import opened, write


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("reference"), np.random.default_rng(1)
    rows = [{"x": float(x), "y": float(y), "name": "n"} for x, y in zip(rng.normal(0, 1, 1500), rng.exponential(2, 1500), strict=True)]
    made = opened(folder, write(folder, "parquet", rows), {})
    yield made
    made.close()


def test_tests_that_are_as_good_as_promised_pass_with_bounds(reference):
    said = selftest.drift(reference)
    assert said.status is Status.OK, said.reason
    alarms, power = said.parts["false alarms"], said.parts["power"]
    for part in (alarms, power):
        wanted = binomtest(round(part.observed * part.n), part.n).proportion_ci(0.90, "exact")
        assert part.interval == pytest.approx((wanted.low, wanted.high), abs=1e-9)
    assert alarms.interval[1] <= 0.05 and power.interval[0] >= 0.9


def test_a_shift_that_is_too_small_to_be_heard_fails_and_too_few_trials_are_not_sure(reference):
    assert selftest.drift(reference, shift=0.01, trials=30).status is Status.FAIL
    said = selftest.drift(reference, trials=10)
    assert said.status is Status.WARN and "too few trials" in said.reason


def test_a_reference_without_numbers_or_rows_tells_nothing(reference, tmp_path):
    assert selftest.drift(reference, columns=["name"]).status is Status.NODATA
    assert selftest.drift(reference, rows=800).status is Status.NODATA
    same = opened(tmp_path, write(tmp_path, "parquet", [{"x": 1.0}] * 2000), {})
    assert selftest.drift(same).status is Status.NODATA


def test_it_tries_what_drift_compare_does_by_default(reference):
    from checks.drift import compare

    held = selftest._read(reference, None)
    some, rest = held.split(500, 3)
    for moved in (some, some.moved("x", 0.5), some.moved("y", 0.3)):
        assert selftest._calls(moved, rest, ["x", "y"]) == (compare(moved, rest).status is Status.FAIL)


def test_it_is_the_same_each_time(reference):
    assert selftest.drift(reference, trials=5).reason == selftest.drift(reference, trials=5).reason
