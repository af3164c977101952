"""The checks of service levels: against real loopback servers whose slowness the test decides, and on runs that were made up."""

from __future__ import annotations

import json
import math
import os
import re
import socket
import sys
from dataclasses import replace
from datetime import timedelta

import numpy as np
import psutil
import pytest

from agent import Baseline, Load, Locator, Sample, Samples, Status
from agent.errors import CancelledError, ConfigError, DataError, UnreachableError
from agent.perform import perform
from agent.plugins import listing
from agent.targets import connect
from loadtests import _asked, _regression_told, _soak_told, _told, sla
from loadtests._asked import Asked, claims
from loadtests._capacity import Attempt, Plan, bracket
from loadtests._capacity_told import outcome as enough
from loadtests._coldstart_told import request
from loadtests._regression import Floors
from loadtests._run import Ran
from loadtests._soak_told import Ends
from loadtests._spec import Arrivals, Claim, Traffic
from loadtests._windows import from_csv, windows
from tests.conftest import HOUSE
from tests.servers import folder, oip, slow
from tests.traces import BEGAN, trace

LOAD = Load(1000.0, timedelta(minutes=5), errors=1.0)
SECOND = timedelta(seconds=1)


def ms(number):
    return timedelta(milliseconds=number)


SHORT = {"rate": 40.0, "duration": ms(1500), "warm": ms(100), "burst": ms(20), "limits": {"p50": 8 * SECOND}}


@pytest.fixture
def speaker():
    made = slow.Speaker()
    yield made
    made.stop()


def to(speaker):
    return connect(Locator("fraud", "server", speaker.url, speaker.options))


def told(verdict, status, *words):
    assert verdict.status is status, verdict.reason
    for word in words:
        assert word in verdict.reason, verdict.reason


def ran(made, *, unfit=(), cancelled=False, warm=timedelta(), **asked):
    """A run that was made up."""
    wanted = Asked(asked.pop("rate", 100.0), timedelta(seconds=len(made.intended) / 100), warm, **asked)
    traffic = Traffic("http://127.0.0.1:9/predict", "", Arrivals(rate=wanted.rate, seconds=wanted.seconds), "")
    return Ran(wanted, traffic, made, made, "one request", unfit, cancelled)


def judged(run, limits, burst=0.02, confidence=0.95):
    asked = replace(run.asked, claims=claims(limits, 30 * SECOND), burst=timedelta(seconds=burst), confidence=confidence)
    run = replace(run, asked=asked)
    return _told.verdict(run, _told.answered(run))


def test_every_check_says_what_its_fail_points_at_and_runs_in_a_worker():
    ours = {name: plugin for name, plugin in listing("check").items() if plugin.module == "loadtests.sla"}
    assert {name: (plugin.promises["cause"], plugin.promises.get("severity", "page")) for name, plugin in ours.items()} == {
        "sla.latency": ("latency", "page"),
        "sla.capacity": ("latency", "ticket"),
        "sla.regression": ("latency", "ticket"),
        "sla.soak": ("latency", "ticket"),
        "sla.coldstart": ("latency", "ticket"),
    }
    assert all(plugin.heavy for plugin in ours.values())


# What is refused before anything is sent


class Untouched:
    """A server that nothing may be asked of."""

    def __getattr__(self, name):
        raise AssertionError(f"{name} was used")


LATENCY = {"rate": 10.0, "duration": SECOND, "limits": {"p99": SECOND}}
SOAK = {"rate": 10.0, "duration": SECOND, "limit": SECOND}
CAPACITY = {"rate": 10.0, "limits": {"p50": SECOND}, "step": SECOND, "duration": ms(60_000)}
BAD = [
    (sla.latency, LATENCY, {"rate": 0.0}, "rate: 0 requests a second; write a number above 0"),
    (sla.latency, LATENCY, {"rate": math.inf}, "rate: inf"),
    (sla.latency, LATENCY, {"rate": math.nan}, "rate: nan"),
    (sla.latency, LATENCY, {"rate": 1001.0}, r"1001 requests a second are more than the 1000 .* `load: {rate: ...}` allows"),
    (sla.latency, LATENCY, {"duration": timedelta()}, "duration: 0ms should be above 0"),
    (sla.latency, LATENCY, {"duration": timedelta(minutes=5)}, "duration: 5m5s with its warm-up is more than the 5m"),
    (sla.latency, LATENCY, {"warm": -SECOND}, "warm: -1s"),
    (sla.latency, LATENCY, {"burst": timedelta()}, "burst: 0ms should be above 0"),
    (sla.latency, LATENCY, {"confidence": 1.0}, "confidence: 1 should be 0.5 or more and below 1"),
    (sla.latency, LATENCY, {"connections": 0}, "connections: 0 should be 1 or more"),
    (sla.latency, LATENCY, {"workers": 0}, "workers: 0"),
    (sla.latency, LATENCY, {"users": -1}, "users: -1"),
    (sla.latency, LATENCY, {"seed": -1}, "seed: -1"),
    (sla.latency, LATENCY, {"timeout": timedelta()}, "timeout: 0ms"),
    (sla.latency, LATENCY, {"arrivals": "sine"}, "arrivals: 'sine' is none of constant, poisson"),
    (sla.latency, LATENCY, {"arrivals": "ramp", "begin": -1.0}, "begin: -1"),
    (sla.latency, LATENCY, {"arrivals": "ramp", "begin": 2000.0}, "2000 requests a second are more"),
    (sla.latency, LATENCY, {"arrivals": "spike"}, "a spike needs `peak` above 0"),
    (sla.latency, LATENCY, {"arrivals": "spike", "peak": 5000.0, "peak_for": SECOND}, "5000 requests a second are more"),
    (sla.latency, LATENCY, {"arrivals": "replayed", "times": "nowhere.txt"}, "there is no file 'nowhere.txt'"),
    (sla.latency, LATENCY, {"limits": {}}, "none is given"),
    (sla.latency, LATENCY, {"limits": {"p99": 31 * SECOND}}, "at most the timeout of 30s"),
    (sla.latency, LATENCY, {"limits": {"p99": timedelta()}}, "should be above 0"),
    (sla.latency, LATENCY, {"limits": {"p999": SECOND}}, r"limits.p999: no percentile; write them as `limits: {p50: 20ms"),
    (sla.latency, LATENCY, {"limits": {"p0": SECOND}}, "limits.p0"),
    (sla.latency, LATENCY, {"limits": {"median": SECOND}}, "limits.median"),
    (sla.capacity, CAPACITY, {"ceiling": 5.0}, r"ceiling: 5 requests a second should be between `rate` \(10\)"),
    (sla.capacity, CAPACITY, {"ceiling": 2000.0}, "allows"),
    (sla.capacity, CAPACITY, {"step": None, "limits": {"p99": SECOND}}, "step: runs of 4m59s .* do not fit"),
    (sla.capacity, CAPACITY, {"step": timedelta()}, "step: runs of 0ms"),
    (sla.capacity, CAPACITY, {"confidence": 1.0, "step": None}, "confidence: 1"),
    (sla.capacity, CAPACITY, {"burst": timedelta(), "step": None}, "burst: 0ms"),
    (sla.capacity, CAPACITY, {"at_least": 0.0}, "at_least: 0"),
    (sla.capacity, CAPACITY, {"at_least": 1001.0}, "at most the highest rate that is tried, 1000"),
    (sla.capacity, CAPACITY, {"width": 1.0}, "width: 1 should be above 1"),
    (sla.capacity, CAPACITY, {"drain": -SECOND}, "drain: -1s"),
    (sla.regression, {"rate": 10.0}, {"duration": SECOND}, "holds fewer than 20 windows of 10s; make it 3m20s"),
    (sla.regression, {"rate": 10.0}, {"cut": SECOND}, "make them 3s or longer"),
    (sla.regression, {"rate": 10.0}, {"cut": timedelta()}, "cut: 0ms"),
    (sla.regression, {"rate": 10.0}, {"windows_at_least": 4}, "windows_at_least: 4"),
    (sla.regression, {"rate": 10.0}, {"floor": -0.1}, "floor: -0.1"),
    (sla.regression, {"rate": 10.0}, {"floor_errors": -0.1}, "floor_errors: -0.1"),
    (sla.regression, {"rate": 10.0}, {"floor_seconds": -SECOND}, "floor_seconds: -1s"),
    (sla.soak, SOAK, {"limit": timedelta()}, "limit: 0ms"),
    (sla.soak, SOAK, {"horizon": timedelta()}, "horizon: 0ms"),
    (sla.soak, SOAK, {"limit_errors": 0.0}, "limit_errors: 0"),
    (sla.soak, SOAK, {"limit_memory": 0.0}, "limit_memory: 0"),
    (sla.soak, SOAK, {"memory": "x"}, "memory: a query needs a `metrics` target"),
    (sla.soak, SOAK, {"memory": "x", "pid": 1}, "leave one out"),
    (sla.soak, SOAK, {"pid": 2**30}, "there is no process 1073741824"),
]


@pytest.mark.parametrize(("check", "good", "bad", "words"), BAD, ids=lambda value: " ".join(value) if isinstance(value, dict) else None)
def test_what_is_out_of_range_is_refused_before_anything_is_asked_of_the_server(check, good, bad, words, tmp_path):
    with pytest.raises(ConfigError, match=words):
        check(Untouched(), LOAD, tmp_path, **(good | bad))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"limit": timedelta()}, "limit: 0ms should be above 0"),
        ({"give_up": ms(1)}, "at most `give_up`, which is 1ms"),
        ({"idle": -SECOND}, "idle: -1s"),
        ({"starts": 0}, "starts: 0"),
        ({"share": 1.0}, "share: 1"),
        ({"confidence": 0.1}, "confidence: 0.1"),
        ({"command": []}, "command: is empty"),
        ({"command": ["x"], "idle": SECOND}, "nothing to be silent for"),
    ],
)
def test_a_start_that_cannot_be_is_refused(bad, words):
    with pytest.raises(ConfigError, match=words):
        sla.coldstart(Untouched(), **({"limit": SECOND} | bad))


def test_everything_that_is_wrong_is_told_at_once(tmp_path):
    with pytest.raises(ConfigError) as refused:
        sla.latency(Untouched(), LOAD, tmp_path, rate=-1.0, duration=timedelta(), limits={"p99": SECOND}, burst=-SECOND, workers=0)
    assert [problem.partition(":")[0] for problem in refused.value.problems] == ["burst", "rate", "duration", "workers"]


def test_a_replay_is_held_to_what_is_said_of_it(tmp_path):
    recorded = tmp_path / "times.txt"
    recorded.write_text("\n".join(map(str, [100.0, *np.arange(107.0, 107.5, 0.01), 130.2])))
    wanted = LATENCY | {"arrivals": "replayed", "times": str(recorded)}
    with pytest.raises(ConfigError) as refused:
        sla.latency(Untouched(), LOAD, tmp_path, **wanted)
    assert refused.value.problems == (
        f"rate: the busiest second of {recorded} has 50 requests; write `rate: 50` if that is meant",
        f"duration: {recorded} goes on for 31s; write `duration: 26s` if that is meant",
    )
    recorded.write_text("0\nsoon\n")
    with pytest.raises(ConfigError, match=r"times\.txt:2: .soon."):
        sla.latency(Untouched(), LOAD, tmp_path, **wanted)


def test_whom_a_target_trusts_the_generator_trusts(tmp_path):
    server = connect(Locator("fraud", "server", "https://127.0.0.1:9/predict", {}, verify=False, ca="our.pem", folder=str(tmp_path)))
    told = _asked.traffic(Asked(10.0, SECOND), LOAD, server.request(slow.REQUEST), tmp_path / "requests.jsonl", tmp_path)
    assert (told.verify, told.ca) == (False, str(tmp_path / "our.pem"))
    assert (told.abort_errors, told.abort_latency) == (1.0, None)


def test_limits_are_judged_from_the_lowest_quantile_on():
    assert claims({"p99.9": SECOND, "p50": ms(20)}, SECOND) == (Claim("p50", 0.5, 0.02), Claim("p99.9", pytest.approx(0.999), 1.0))


# Nothing is sent where there is nothing to send


def test_a_server_that_says_it_is_not_ready_is_left_alone(speaker, tmp_path):
    speaker.up = False
    told(sla.latency(to(speaker), LOAD, tmp_path, **LATENCY, request=slow.REQUEST), Status.NODATA, "not ready", "nothing was sent")
    assert [path for _, path, _, _ in speaker.requests] == ["/readyz"]


@pytest.mark.parametrize("check", [sla.latency, sla.regression, sla.soak, sla.capacity])
def test_without_a_request_there_is_nothing_to_send(check, speaker, tmp_path):
    wanted = {sla.latency: LATENCY, sla.soak: SOAK, sla.capacity: CAPACITY}.get(check, {"rate": 10.0, "duration": ms(200_000)})
    told(check(to(speaker), LOAD, tmp_path, **wanted), Status.NODATA, "no request to send: set `with: {request: ...}`")
    told(sla.coldstart(to(speaker), limit=SECOND), Status.NODATA, "no request to send")


def test_a_payload_that_is_broken_in_the_middle_is_named_by_its_line(speaker, tmp_path):
    broken = tmp_path / "rows.jsonl"
    broken.write_text('{"x": [1, 2]}\n{"x": [1, 2]}\n{"x": [1,\n')
    with pytest.raises(DataError, match=r"rows\.jsonl, line 3: no JSON"):
        sla.latency(to(speaker), LOAD, tmp_path, **LATENCY, requests=str(broken))
    assert len(speaker.requests) == 1


# What a run comes to


def test_a_quick_server_passes_and_the_first_line_says_for_which_bursts():
    verdict = judged(ran(trace(np.full(2000, 0.01))), {"p50": ms(20), "p99": ms(100)})
    told(verdict, Status.OK, "PASS: p99 is 10ms (interval 10ms to 10ms), limit 100ms at 100 requests a second; valid for bursts up to 20ms\n")
    told(verdict, Status.OK, "p50: 0 % of 2,000 requests took over 0.02 s", "2,000 requests (one request), poisson arrivals, seed 0: 2,000 good")
    assert verdict.parts["p99"].limit == verdict.reading.limit == 0.1
    assert verdict.parts["p99 over"].limit == pytest.approx(0.01)
    assert verdict.parts["errors"].observed == 0
    assert json.loads(verdict.data["load.json"])["outcome"] == "pass"
    assert {"latency.svg", "percentiles.svg"} < set(verdict.data)


def test_a_slow_server_fails_by_the_limit_that_it_breaks():
    latency = np.full(2000, 0.01)
    latency[::4] = 0.5
    verdict = judged(ran(trace(latency)), {"p50": ms(20), "p90": ms(100)})
    told(verdict, Status.FAIL, "FAIL: p90 is 500ms", "limit 100ms", "valid for bursts up to 20ms")
    assert verdict.reading == verdict.parts["p90"]


def test_what_was_not_answered_well_is_over_every_limit():
    latency = np.full(2000, 0.01)
    latency[::2] = np.inf
    verdict = judged(ran(trace(latency, said={"status 503": 1000})), {"p50": 30 * SECOND, "p75": 30 * SECOND})
    told(verdict, Status.FAIL, "FAIL: p75 is no answer, limit 30s", "1,000 good, 1,000 status", "1,000 times: status 503")
    assert verdict.parts["p75"].observed is None
    assert verdict.parts["errors"].observed == 0.5


def test_a_run_that_is_too_short_is_inconclusive_and_says_how_much_is_missing():
    verdict = judged(ran(trace(np.full(3000, 0.01))), {"p99": ms(100)}, burst=1)
    told(verdict, Status.NODATA, "INCONCLUSIVE: p99 is 10ms", "4m29s more would tell", "valid for bursts up to 1s")


def test_a_generator_that_was_unfit_says_nothing_about_the_server():
    slow_ones = np.full(2000, 5.0)
    verdict = judged(ran(trace(slow_ones), unfit=("it took requests up late",)), {"p99": ms(100)})
    told(verdict, Status.ERROR, "INVALID: the generator was the bottleneck: it took requests up late", "is not the server's word")


def test_one_limit_of_several_fails_only_with_its_part_of_the_risk():
    latency = np.full(400, 0.01)
    latency[::14] = 0.5  # 29 of 400 over, where 20 may: P(so many at 5 %) = 3 %
    alone = judged(ran(trace(latency)), {"p95": ms(100)}, burst=0.01)
    among = judged(ran(trace(latency)), {"p95": ms(100), "p10": ms(100), "p50": ms(100)}, burst=0.01)
    told(alone, Status.FAIL, "FAIL: p95")
    told(among, Status.NODATA, "INCONCLUSIVE: p95")


def test_a_run_called_off_is_skipped_with_what_it_saw():
    verdict = judged(ran(trace(np.full(2000, 0.01), aborted="cancelled"), cancelled=True), {"p50": ms(100)})
    told(verdict, Status.SKIP, "called off after 20s: p50 is 10ms", "so far")


@pytest.mark.parametrize(("latency", "status", "words"), [(0.01, Status.ERROR, "so far"), (5.0, Status.FAIL, "FAIL: p50 is 5s")])
def test_a_run_given_up_is_a_fail_only_where_what_it_saw_is_one(latency, status, words):
    verdict = judged(ran(trace(np.full(2000, latency), aborted="half of a second's requests failed")), {"p50": ms(100)})
    told(verdict, status, words, "aborted after", "half of a second's requests failed")


def test_a_closed_loop_can_fail_and_never_passes():
    quick, late = (judged(ran(trace(np.full(2000, latency), closed=4), users=4), {"p50": ms(100)}) for latency in (0.01, 0.5))
    told(quick, Status.NODATA, "INCONCLUSIVE", "a closed loop waits for slow answers", "with 4 users in a closed loop")
    told(late, Status.FAIL, "FAIL: p50 is 500ms")


def test_a_run_that_was_slower_at_first_than_was_set_apart_says_so():
    latency = np.where(np.arange(2000) < 200, 0.5, 0.01)
    told(judged(ran(trace(latency)), {"p50": ms(100)}), Status.OK, "the first 2s were slower than the rest, and 0ms of them were set apart")
    assert "slower than the rest" not in judged(ran(trace(latency), warm=2 * SECOND), {"p50": ms(100)}).reason


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"arrivals": "ramp", "begin": 5.0}, "on a ramp from 5 to 100 requests a second"),
        ({"arrivals": "spike", "peak": 500.0}, "at 100, with a spike to 500 requests a second"),
        ({"arrivals": "replayed"}, "with the arrivals replayed"),
    ],
)
def test_the_sentence_says_how_requests_came(asked, words):
    told(judged(ran(trace(np.full(2000, 0.01)), **asked), {"p50": ms(100)}), Status.OK, words)


# Real runs


def test_a_service_is_tested_as_the_daemon_would_and_its_lock_is_free_afterwards(tmp_path):
    speaker = oip.Speaker(loaded=("1",))
    registry = folder.Speaker(tmp_path / "registry")
    job = {
        "check": "sla.latency",
        "load": {"rate": 50.0, "longest": 60.0, "lock": str(tmp_path / "lock" / "x.load")},
        "parameters": {"rate": 40.0, "duration": 1.5, "warm": 0.1, "burst": 0.02, "limits": {"p50": 8.0}, "expect": {"fields": ["outputs.0.data"]}},
        "locators": {
            "server": Locator("fraud", "server", speaker.url, speaker.options),
            "registry": Locator("fraud", "registry", registry.url, registry.options),
        },
    }
    try:
        verdict = perform(job)
    finally:
        speaker.stop()
    told(verdict, Status.OK, "PASS: p50 is", "limit 8s at 40 requests a second; valid for bursts up to 20ms", "golden rows", "after 100ms of warm-up")
    sent = [headers for _, path, headers, _ in speaker.requests if path.endswith("/infer")]
    assert {headers["X-Watchkeeper-Probe"] for headers in sent} == {"watchkeeper"}
    assert verdict.reading.n == json.loads(verdict.data["load.json"])["requests"] < len(sent)


def test_a_share_of_wrong_answers_fails_the_quantile_above_it_and_spares_the_one_below(speaker, tmp_path):
    speaker.break_every = 2  # every other answer is a 503
    verdict = sla.latency(to(speaker), LOAD, tmp_path, **SHORT | {"limits": {"p25": 8 * SECOND, "p80": 8 * SECOND}}, request=slow.REQUEST)
    told(verdict, Status.FAIL, "FAIL: p80 is no answer, limit 8s", "status")
    assert verdict.parts["p25"].observed < 8
    assert verdict.parts["errors"].observed == pytest.approx(0.5, abs=0.1)


def test_a_server_that_dies_in_the_middle_ends_the_run_early_with_what_was_seen(speaker, tmp_path):
    def tell(done, what):
        if done > 0:
            speaker.stop()

    load = Load(1000.0, timedelta(minutes=5), errors=0.5)
    verdict = sla.latency(to(speaker), load, tmp_path, tell=tell, **SHORT | {"duration": 20 * SECOND}, request=slow.REQUEST)
    assert verdict.status in (Status.FAIL, Status.ERROR), verdict.reason
    told(verdict, verdict.status, "aborted after", "connect")
    assert json.loads(verdict.data["load.json"])["aborted"]


def test_a_server_that_is_not_there_at_all_is_unreachable_and_no_verdict(speaker, tmp_path):
    server = connect(Locator("fraud", "server", speaker.url, {}))
    speaker.stop()
    with pytest.raises(UnreachableError):
        sla.latency(server, LOAD, tmp_path, **SHORT, request=slow.REQUEST)


def test_whoever_asked_for_a_run_can_call_it_off(speaker, tmp_path):
    def tell(done, what):
        if done > 0:
            raise CancelledError("not now")

    verdict = sla.latency(to(speaker), LOAD, tmp_path, tell=tell, **SHORT | {"duration": timedelta(minutes=2)}, request=slow.REQUEST)
    told(verdict, Status.SKIP, "called off after", "so far")
    assert "load.json" in verdict.data


# Against a pinned run


def compared(now, then, at_least=20, **more):
    files = {} if then is None else {"yardstick.csv": _regression_told._windows.to_csv(windows(then, 1.0))}
    pinned = Baseline(BEGAN, BEGAN, "ada", "good", BEGAN, None, files)
    return _regression_told.verdict(ran(now, **more), pinned, 1.0, Floors(), at_least)


def noisy(latency, seed, n=3000):
    return trace(latency * np.exp(np.random.default_rng(seed).normal(0, 0.05, n)))


def test_a_run_as_fast_as_the_pinned_one_passes_and_a_slower_one_fails():
    told(
        compared(noisy(0.1, 1), noisy(0.1, 2)),
        Status.OK,
        "PASS: nothing got worse by what matters since 2026-03-01 12:00Z",
        "one run against one run",
    )
    worse = compared(noisy(0.13, 1), noisy(0.1, 2))
    told(worse, Status.FAIL, "more (", "than pinned 2026-03-01 12:00Z, and surely so")
    assert worse.parts["p50"].observed == pytest.approx(0.03, abs=0.002)
    assert set(worse.parts) == {"p50", "p95", "p99", "errors"}


def test_what_cannot_be_compared_is_no_verdict_and_still_leaves_a_yardstick():
    now = noisy(0.1, 1)
    for then, words in ((None, "holds no yardstick.csv"), (noisy(0.1, 2, n=500), "20 a side are needed")):
        verdict = compared(now, then)
        told(verdict, Status.NODATA, words, "watchkeeper baseline pin SERVICE WATCH --finding NUMBER")
        assert len(from_csv(verdict.data["yardstick.csv"])) == 30


def test_a_comparison_with_an_unfit_generator_or_of_half_a_run_is_an_error():
    told(compared(noisy(0.1, 1), noisy(0.1, 2), unfit=("it was late",)), Status.ERROR, "INVALID: the generator was the bottleneck")
    cut_short = trace(np.full(3000, 0.1), aborted="too many errors")
    told(compared(cut_short, noisy(0.1, 2)), Status.ERROR, "aborted after", "too many errors")


def test_a_yardstick_that_was_tampered_with_is_refused_by_its_line():
    pinned = Baseline(BEGAN, BEGAN, "ada", "good", BEGAN, None, {"yardstick.csv": b"start,seconds,n,sent,errors,over,p50,p95,p99\n1\n"})
    with pytest.raises(DataError, match="line 2"):
        _regression_told.verdict(ran(noisy(0.1, 1)), pinned, 1.0, Floors(), 20)


def test_a_real_run_is_compared_with_the_one_that_was_pinned(speaker, tmp_path):
    speaker.every, speaker.delay = 1, 1.0
    quick = windows(trace(np.full(80, 0.001), rate=40.0), 0.1)
    pinned = Baseline(BEGAN, BEGAN, "ada", "good", BEGAN, None, {"yardstick.csv": _regression_told._windows.to_csv(quick)})
    wanted = {"rate": 40.0, "duration": 2 * SECOND, "cut": ms(100), "warm": timedelta(), "arrivals": "constant", "floor_seconds": ms(400)}
    verdict = sla.regression(to(speaker), LOAD, tmp_path, pinned, **wanted, request=slow.REQUEST)
    told(verdict, Status.FAIL, "p50 is", "20 windows of 0.1 s against 20")
    assert len(from_csv(verdict.data["yardstick.csv"])) == 20


# Over hours

HOUR = np.arange(36_000) / 10  # an hour at 10 requests a second


def soaked(latency, memory=None, horizon=timedelta(days=1), **more):
    return _soak_told.verdict(ran(trace(latency, HOUR), rate=10.0, **more), Ends(1.0, 0.01, None, horizon), memory)


def test_an_hour_that_stays_as_it_is_passes_and_says_that_memory_was_not_seen():
    verdict = soaked(0.1 + 0.001 * np.random.default_rng(1).random(36_000))
    told(verdict, Status.OK, "PASS: none of p99, p50, errors would reach its limit within 1d, as 1h of it show", "the server's memory was not seen")
    assert verdict.data["soak.csv"].count(b"\n") == 101


def test_a_latency_that_creeps_fails_with_when_it_would_reach_its_limit():
    verdict = soaked(0.1 + 0.1 * HOUR / 3600)
    told(verdict, Status.FAIL, "limit 1s; slope 100ms an hour", "it would reach its limit in 8h")
    told(soaked(0.1 + 0.1 * HOUR / 3600, horizon=timedelta(hours=2)), Status.OK)


def test_a_leak_fails_where_no_latency_moved():
    leak = np.linspace(1e9, 1.2e9, 100)
    verdict = soaked(np.full(36_000, 0.1), leak)
    told(verdict, Status.FAIL, "FAIL: memory is 1.19 GB, limit 2.02 GB; slope 202 MB an hour", "it would reach its limit in 4h")
    told(soaked(np.full(36_000, 0.1), np.full(100, np.nan)), Status.NODATA, "memory was seen in 0 windows; 20 are needed")


def test_a_server_that_fails_at_the_end_of_a_soak_fails_it():
    latency = np.full(36_000, 0.1)
    latency[-3_000:] = np.inf
    told(soaked(latency), Status.FAIL, "above it at the end of the run")


def test_a_soak_by_an_unfit_generator_or_cut_short_is_no_verdict():
    told(soaked(np.full(36_000, 0.1), unfit=("it was late",)), Status.ERROR, "INVALID")
    told(soaked(np.full(36_000, 0.1), cancelled=True), Status.SKIP, "called off after 1h: ", "so far")
    given_up = _soak_told.verdict(ran(trace(np.full(1000, 5.0), aborted="too slow")), Ends(1.0, 0.01, None, SECOND), None)
    told(given_up, Status.FAIL, "above it at the end of the run", "(aborted after 15s: too slow)")


def test_a_real_soak_sees_a_process_of_this_machine(speaker, tmp_path):
    wanted = {"rate": 40.0, "duration": 2 * SECOND, "warm": timedelta(), "limit": 8 * SECOND, "limit_errors": 1.0, "horizon": ms(1)}
    verdict = sla.soak(to(speaker), LOAD, tmp_path, **wanted, pid=os.getpid(), request=slow.REQUEST)
    told(verdict, Status.NODATA, "memory was seen in", "p99 is", "errors are 0 %")
    assert verdict.parts["memory"].n > 0


class Store:
    """A metrics store that gives `values` in turn, each as two series, and is gone when they are used up."""

    def __init__(self, *values):
        self.values, self.asked = list(values), []

    def query(self, text, window):
        self.asked.append((text, window))
        if not self.values:
            raise UnreachableError("no connection to the store")
        value = self.values.pop(0)
        return Samples(() if value is None else (Sample({"pod": "a"}, value / 2), Sample({"pod": "b"}, value / 2)))


def test_memory_is_asked_for_at_the_end_of_each_window_and_series_are_added_up():
    run, store = ran(trace(np.full(36_000, 0.1), HOUR), rate=10.0), Store(*[1e9] * 50, *[None] * 50)
    seen, why = _soak_told.memory(run, None, store, "resident")
    assert (seen[:50] == 1e9).all() and np.isnan(seen[50:]).all() and why == ""
    (text, first), (_, second) = store.asked[:2]
    assert (text, first.start, first.end) == ("resident", BEGAN, second.start)
    assert first.length.total_seconds() == pytest.approx(36, abs=0.01)


def test_a_metrics_store_that_cannot_be_asked_costs_the_memory_and_not_the_run():
    run = ran(trace(np.full(36_000, 0.1), HOUR), rate=10.0)
    verdict = _soak_told.verdict(run, Ends(1.0, 0.01, None, SECOND), *_soak_told.memory(run, None, Store(1e9), "resident"))
    told(verdict, Status.OK, "the server's memory was not seen: no connection to the store")


def test_a_run_called_off_before_its_first_request_is_skipped_by_every_check():
    empty = ran(trace([], aborted="cancelled"), cancelled=True)
    told(judged(empty, {"p50": SECOND}), Status.SKIP, "called off")
    told(_regression_told.verdict(empty, None, 1.0, Floors(), 20), Status.SKIP, "called off")
    told(_soak_told.verdict(empty, Ends(1.0, 0.01, None, SECOND), *_soak_told.memory(empty, None, Store(), "x")), Status.SKIP, "called off")


def test_a_run_in_which_nothing_was_due_is_refused_with_what_to_change(speaker, tmp_path):
    with pytest.raises(ConfigError, match=r"duration: not one request was due in 0.1 s at 0.01 a second"):
        sla.latency(to(speaker), LOAD, tmp_path, **SHORT | {"rate": 0.01, "duration": ms(100), "warm": timedelta()}, request=slow.REQUEST)
    with pytest.raises(ConfigError, match="rows: -1"):
        sla.latency(to(speaker), LOAD, tmp_path, **SHORT, rows=-1, request=slow.REQUEST)


# Capacity


def test_what_is_needed_decides_and_else_whether_a_capacity_was_found():
    plan = Plan(10, 1000, 0.01, 60, 240, 1.1)

    def found(*attempts):
        return bracket([Attempt(rate, seconds, word) for rate, seconds, word in attempts], plan)

    whole = found((100, 60, "pass"), (105, 60, "fail"), (95, 240, "pass"))
    assert [enough(whole, needed) for needed in (None, 100, 103, 105, 200)] == ["pass", "pass", "inconclusive", "fail", "fail"]
    bound = found((100, 60, "pass"), (200, 60, "unfit"), (200, 60, "unfit"), (95, 240, "pass"))
    assert [enough(bound, needed) for needed in (None, 50, 150)] == ["inconclusive" if bound.end == "unsettled" else "pass", "pass", "invalid"]
    assert enough(found((10, 60, "fail"), (5, 60, "fail")), None) == "fail"
    assert enough(found((10, 240, "inconclusive")), None) == "inconclusive"


def test_a_search_ends_with_the_last_pass_and_the_first_fail(speaker, tmp_path):
    def tell(done, what):
        speaker.break_every = int(float(re.match(r"[\d.]+", what)[0]) > 50)  # what the server bears is decided here, and by no clock

    wanted = {"rate": 40.0, "limits": {"p50": 8 * SECOND}, "step": ms(400), "duration": timedelta(minutes=1), "width": 3.0}
    quick = {"warm": timedelta(), "drain": timedelta(), "burst": ms(20), "at_least": 70.0}
    verdict = sla.capacity(to(speaker), LOAD, tmp_path, tell=tell, **wanted, **quick, request=slow.REQUEST)
    told(
        verdict,
        Status.NODATA,
        "last PASS, first FAIL [40, 80], and 70 a second are needed; valid for bursts up to 20ms",
        "confirmed by a longer run at 38",
    )
    assert (verdict.reading.observed, verdict.reading.interval, verdict.reading.limit) == (40.0, (40.0, 80.0), 70.0)
    assert [line.split(",")[2] for line in verdict.data["capacity.csv"].decode().splitlines()[1:]] == ["pass", "fail", "pass"]


def test_a_search_keeps_what_it_found_when_the_service_is_gone(speaker, tmp_path):
    def tell(done, what):
        if what.startswith("80 "):
            speaker.stop()

    wanted = {"rate": 40.0, "limits": {"p50": 8 * SECOND}, "step": ms(400), "duration": timedelta(minutes=1), "warm": timedelta(), "burst": ms(20)}
    verdict = sla.capacity(to(speaker), LOAD, tmp_path, tell=tell, **wanted, drain=timedelta(), request=slow.REQUEST)
    assert verdict.reading.observed == 40.0, verdict.reason
    told(verdict, verdict.status, "40 a second for 0.4 s: PASS")


def test_a_search_that_has_no_time_left_says_so(speaker, tmp_path):
    wanted = {"rate": 40.0, "limits": {"p50": 8 * SECOND}, "step": ms(400), "duration": ms(500), "warm": timedelta(), "burst": ms(20)}
    verdict = sla.capacity(to(speaker), LOAD, tmp_path, **wanted, drain=timedelta(), request=slow.REQUEST)
    told(verdict, Status.NODATA, "INCONCLUSIVE", "the 500ms of the search were used up", "not confirmed by a longer run")


# From nothing

STARTING = str(HOUSE / "tests" / "servers" / "starting.py")


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def started(bad=0, **more):
    """Cold starts of a program that answers `bad` requests with 503 first; and how many of its processes are left."""
    port = free_port()
    server = connect(Locator("fraud", "server", f"http://127.0.0.1:{port}/predict", {}))
    command = [sys.executable, STARTING, str(port), str(bad)]
    verdict = sla.coldstart(server, command=command, request=slow.REQUEST, **{"limit": 30 * SECOND, "starts": 2} | more)
    assert not [one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == command]
    return verdict


def test_a_process_is_started_timed_until_it_answers_well_and_stopped_again():
    verdict = started(bad=3, share=0.2)
    told(verdict, Status.OK, "PASS: 2 of 2 starts gave a good answer within 30s (between 22.4 % and 100 % of starts are, and 20 % must be)")
    told(verdict, Status.OK, "start 2: ", "the first answer itself took", "from the start of the process")
    assert verdict.parts["in time"].interval[0] == pytest.approx(0.05**0.5)  # nothing but two successes: the exact bound
    assert 0 < verdict.reading.observed < 30


def test_two_starts_are_too_few_to_be_sure_of_every_other_one():
    told(started(), Status.NODATA, "INCONCLUSIVE: 2 of 2 starts")


def test_a_process_that_ends_before_it_answers_fails_and_says_so():
    told(started(bad=-1, share=0.9), Status.FAIL, "FAIL: 0 of 2 starts", "ended with status 3 before it answered: not today")


def test_a_process_that_never_answers_well_is_given_up_with_its_last_words():
    told(started(bad=10**9, starts=1, limit=ms(300), give_up=ms(300)), Status.NODATA, "0 of 1 starts", "start 1: no good answer within 0.3")


def test_a_command_that_cannot_be_run_and_a_server_that_is_there_already_are_refused(speaker):
    server = connect(Locator("fraud", "server", f"http://127.0.0.1:{free_port()}/predict", {}))
    with pytest.raises(ConfigError, match="nowhere-to-be-found cannot be run"):
        sla.coldstart(server, limit=SECOND, command=["nowhere-to-be-found"], request=slow.REQUEST)
    with pytest.raises(ConfigError, match="something answers at the server's address"):
        sla.coldstart(to(speaker), limit=SECOND, command=["x"], request=slow.REQUEST)


def test_without_a_command_each_start_is_a_new_connection_to_the_server_as_it_is(speaker):
    verdict = sla.coldstart(to(speaker), limit=30 * SECOND, request=slow.REQUEST)
    told(verdict, Status.OK, "PASS: 5 of 5 starts", "what loading the model takes is not in it")
    assert len(speaker.kept) == 6  # and the one that comes before all
    speaker.break_every = 1
    told(sla.coldstart(to(speaker), limit=30 * SECOND, request=slow.REQUEST), Status.FAIL, "0 of 5 starts", "503")


def test_starts_can_be_called_off(speaker):
    def tell(done, what):
        if what == "start 3 of 5":
            raise CancelledError("not now")

    told(sla.coldstart(to(speaker), tell=tell, limit=SECOND, request=slow.REQUEST), Status.SKIP, "called off", "of 2 starts")


def test_what_a_server_that_is_not_there_yet_is_asked_is_the_newest_golden_request(tmp_path):
    registry = connect(Locator("fraud", "registry", folder.Speaker(tmp_path / "registry").url, {}))
    newest = registry.golden(registry.versions()[-1].version).rows[0].request
    assert request(Untouched(), registry, None, None, True) == newest
    assert request(Untouched(), None, None, None, True) is None
