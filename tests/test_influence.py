"""influence.holdout: real rows; scipy's Welch interval is the oracle of the gap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from agent import Status
from agent.errors import DataError
from checks import influence
from tests.logs import opened, write


def looked(folder, held, out, others, outcome="paid"):
    rows = [
        {"random": 1 if place < held else 0, "paid": (out[place] if place < held else others[place - held])} for place in range(held + len(others))
    ]
    table = opened(folder, write(folder, "parquet", rows), {})
    said = influence.holdout(table, column="random", outcome=outcome)
    table.close()
    return said


def test_the_gap_is_that_of_welch(tmp_path):
    rng = np.random.default_rng(1)
    out, others = rng.normal(0.6, 1, 200).tolist(), rng.normal(0.2, 1.5, 800).tolist()
    said = looked(tmp_path, 200, out, others)
    low, high = said.parts["gap"].interval
    wanted = stats.ttest_ind(out, others, equal_var=False).confidence_interval()
    assert said.status is Status.OK and said.reading.observed == 0.2
    assert low == pytest.approx(wanted.low, abs=0.01) and high == pytest.approx(wanted.high, abs=0.01)


@pytest.mark.parametrize(
    ("held", "n", "outcome", "status"),
    [
        (0, 500, "paid", Status.FAIL),
        (40, 460, "paid", Status.OK),
        (40, 9960, "paid", Status.WARN),
        (5, 495, "paid", Status.WARN),
        (40, 460, None, Status.WARN),
        (5, 20, "paid", Status.NODATA),
    ],
)
def test_a_share_is_decided_at_random_or_nothing_is_known(tmp_path, held, n, outcome, status):
    assert looked(tmp_path, held, [1.0, 0.0] * (held // 2 + 1), [0.0, 1.0] * (n // 2), outcome).status is status


def test_a_column_that_is_not_there_is_said_so(tmp_path):
    with pytest.raises(DataError, match="no column 'coin'"):
        influence.holdout(opened(tmp_path, write(tmp_path, "parquet", [{"a": 1}]), {}), column="coin")
