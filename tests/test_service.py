"""Whether somebody answers for the service."""

from __future__ import annotations

import pytest

from agent import Party, Status
from checks.service import owner


def test_an_owner_whom_a_channel_reaches_is_fine():
    verdict = owner(Party("fraud", "risk", "ada", ("grace",), ("slack-ada",)))
    assert verdict.status is Status.OK
    assert verdict.reason == "ada answers for fraud, reached by slack-ada, then grace"


@pytest.mark.parametrize("nobody", [None, ""])
def test_a_service_without_an_owner_fails_and_says_what_to_write(nobody):
    verdict = owner(Party("fraud", owner=nobody, channels=("slack",)))
    assert (verdict.status, verdict.reason) == (Status.FAIL, "fraud has no owner; write `owner: <name>` under services.fraud")


def test_an_owner_without_a_channel_fails_and_is_named_once():
    verdict = owner(Party("fraud", owner="ada", missing=("ada",)))
    assert verdict.status is Status.FAIL
    assert verdict.reason.startswith("no channel reaches ada of fraud; add one")


def test_no_channel_at_all_reaches_nobody():
    verdict = owner(Party("fraud", owner="ada", escalation=("grace",), missing=("grace",)))
    assert (verdict.status, "no channel reaches ada or grace of fraud" in verdict.reason) == (Status.FAIL, True)


def test_whoever_comes_next_must_be_reachable_too():
    verdict = owner(Party("fraud", owner="ada", escalation=("grace", "alan"), channels=("slack",), missing=("grace", "alan")))
    assert (verdict.status, "no channel reaches grace or alan of fraud" in verdict.reason) == (Status.FAIL, True)
