"""groups.disparity: real rows; Newcombe's published example is the oracle of the interval."""

from __future__ import annotations

import pytest

from agent import Status
from agent.errors import ConfigError, DataError
from checks import groups
from tests.logs import opened, write


def looked(folder, counts, declared=None, **more):
    """`counts`: group -> (answered yes, of so many)."""
    rows = [{"who": name, "said": "yes" if place < hits else "no"} for name, (hits, n) in counts.items() for place in range(n)]
    table = opened(folder, write(folder, "parquet", rows), {"prediction": "said"} if declared is None else declared)
    said = groups.disparity(table, **{"group": "who", "positive": "yes", **more})
    table.close()
    return said


def test_the_interval_is_newcombes(tmp_path):
    """Newcombe 1998, table II, example (a), method 10: 56/70 less 48/80 is 0.2, from 0.0524 to 0.3339."""
    said = looked(tmp_path, {"a": (56, 70), "b": (48, 80)}, rows_at_least=1)
    low, high = said.parts["who=a"].interval
    assert said.parts["who=a"].observed == pytest.approx(0.2) and (round(low, 4), round(high, 4)) == (0.0524, 0.3339)


@pytest.mark.parametrize(
    ("counts", "status"),
    [
        ({"a": (500, 1000), "b": (510, 1000)}, Status.OK),
        ({"a": (50, 100), "b": (60, 100)}, Status.WARN),
        ({"a": (900, 1000), "b": (100, 1000)}, Status.FAIL),
        ({"a": (900, 1000), "b": (10, 20)}, Status.NODATA),
        ({"a": (500, 1000), "b": (510, 1000), "c": (0, 9)}, Status.OK),
    ],
)
def test_groups_are_near_apart_or_too_few_to_tell(tmp_path, counts, status):
    said = looked(tmp_path, counts)
    assert said.status is status
    assert "c (9)" in said.reason if "c" in counts else True


def test_what_is_not_declared_or_not_there_is_said(tmp_path):
    with pytest.raises(ConfigError, match="declares no prediction"):
        looked(tmp_path, {"a": (1, 2)}, declared={})
    with pytest.raises(DataError, match="no column 'sex'"):
        looked(tmp_path, {"a": (1, 2)}, group="sex")
