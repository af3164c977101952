"""A canary that is killed, or finds no room, at every durable commit, one after the other: the same end, each effect once, a record that proves it.

The campaign is that of tests/test_campaign.py: the n-th thing fails, for n = 1, 2, 3 and so on until a whole canary passes. `make bench ARGS=kills`
breaks every exchange with its target besides.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.campaign import HALF, Stage, each_chance, staged
from tests.test_campaign import NAMED, all_of

LOST = 7  # the durable commit after that of the finding that decides: planned, begun, intended, tried and done come before it


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(NAMED[request.param], tmp_path_factory.mktemp("canary")) as found:
        yield found


canary = pytest.mark.parametrize("stage", ["canary"], indirect=True)
worse = pytest.mark.parametrize("stage", ["canary of a worse version"], indirect=True)


@canary
@pytest.mark.timeout(300)
def test_killed_at_any_durable_commit_it_goes_on_with_the_evidence_it_had(stage):
    found = all_of(each_chance(stage, "killed after commit"), at_least=12)
    assert all((one.state, one.moves) == ("succeeded", (HALF, "3")) for one in found)


@canary
@pytest.mark.timeout(300)
def test_it_waits_for_room_wherever_the_disk_is_full_for_a_moment(stage):
    all_of(each_chance(stage, "no room at commit"), at_least=12)


@worse
@pytest.mark.timeout(300)
def test_a_worse_version_loses_the_traffic_once_wherever_the_agent_is_killed(stage):
    """From the moment on at which it is found to be worse."""
    found = all_of(each_chance(stage, "killed before commit", first=LOST), at_least=4)
    assert all((one.state, one.moves) == ("compensated", (HALF, "1")) for one in found)
