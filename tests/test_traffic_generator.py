"""Whether the generator was fit to judge: what it did itself counts, and nothing that the server did."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from loadtests._generator import unfit
from loadtests._spec import Trace


def trace(lag: float = 0.001, n: int = 1000, rate: float = 100.0, **more) -> Trace:
    """A run of constant rate in which every request was taken up `lag` seconds late and answered 5 ms later."""
    intended = np.arange(n) / rate
    taken = intended + lag
    kind, status = np.zeros(n, np.uint8), np.full(n, 200, np.uint16)
    return replace(Trace(intended, taken, taken, taken + 0.005, kind, status, datetime.now(UTC), n / rate, 0.2 * n / rate), **more)


def test_a_generator_on_time_is_fit() -> None:
    assert unfit(trace(), 0.1) == ()


ALLOWED = [(0.009, 0.01, True), (0.011, 0.01, False), (0.011, 0.1, False), (0.09, 1.0, True), (0.11, 1.0, False)]


@pytest.mark.parametrize(("lag", "limit", "fit"), ALLOWED)
def test_its_lag_may_be_a_tenth_of_the_limit_and_always_ten_milliseconds(lag: float, limit: float, fit: bool) -> None:
    assert bool(unfit(trace(lag), limit)) is not fit


def test_one_late_request_in_a_hundred_is_still_forgiven_and_two_are_not() -> None:
    late = trace().dispatched.copy()
    late[500:510] += 0.5
    assert unfit(trace(dispatched=late), 0.1) == ()
    late[510:520] += 0.5
    assert "p99 of its lag" in unfit(trace(dispatched=late), 0.1)[0]


def test_a_frozen_server_is_never_the_generators_fault() -> None:
    done = np.full(1000, np.nan)
    sent = np.concatenate((trace().sent[:4], np.full(996, np.nan)))  # four connections, and all others wait for ever
    assert unfit(trace(sent=sent, done=done, kind=np.full(1000, 2, np.uint8)), 0.1) == ()


def test_a_core_that_is_full_is_told_for_each_worker() -> None:
    assert "85% of a core" in unfit(trace(cpu=8.5), 0.1)[0]
    assert unfit(trace(cpu=8.5, workers=2), 0.1) == ()


def test_a_rate_that_is_off_is_told_both_ways() -> None:
    fast, slow = trace().intended * 0.98, trace().intended * 1.02
    assert "102.0 requests a second where 100.0 were meant" in unfit(trace(dispatched=fast), 0.1)[0]
    assert any("98.0 requests a second" in why for why in unfit(trace(dispatched=slow), 0.1))


def test_what_was_never_taken_up_and_who_was_lost_are_told() -> None:
    taken = trace().dispatched.copy()
    taken[7] = np.nan
    assert unfit(trace(dispatched=taken), 0.1) == ("it never took up 1 of 1,000 requests",)
    assert "1 of its 4 workers were lost" in unfit(trace(workers=4, lost=1), 0.1)[0]


def test_a_run_of_nothing_and_a_run_of_one_are_no_fault() -> None:
    assert unfit(trace(n=0), 0.1) == () and unfit(trace(n=1), 0.1) == () and unfit(trace(n=1, wall=0.001, cpu=0.05), 0.1) == ()
