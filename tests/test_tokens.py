"""Streams of tokens: what each measure is, which streams have ended, and the check that judges them against a real loopback server."""

from __future__ import annotations

import json
import math
import re
from datetime import timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import Load, Locator, Status
from agent.errors import ConfigError
from agent.perform import perform
from agent.plugins import listing
from agent.targets import connect
from loadtests import _streamed, _summary, tokens
from loadtests._asked import Asked
from loadtests._run import Ran
from loadtests._spec import Arrivals, Trace, Traffic
from loadtests._tokens import Tokens
from loadtests._windows import since
from tests.servers import openai
from tests.traces import trace

LOAD = Load(1000.0, timedelta(minutes=5), errors=1.0)
SECOND = timedelta(seconds=1)
MS = timedelta(milliseconds=1)
LIMITS = {"ttft": 10 * SECOND, "itl": 10 * SECOND, "tpot": 10 * SECOND, "e2e": 30 * SECOND}
SHORT = {"rate": 80.0, "duration": 1500 * MS, "warm": 100 * MS, "burst": 20 * MS, "limits": LIMITS, "request": openai.REQUEST}
BAD = None


def streams(*answers: Any, usage: Any = None, **more: Any) -> Trace:
    """A run that was made up: of each answer the seconds at which its pieces came and at which it ended, or BAD."""
    whole = [math.inf if answer is BAD else answer[-1] for answer in answers]
    pieces = [[] if answer is BAD else answer[:-1] for answer in answers]
    return trace(
        whole,
        first=np.array([one[0] if one else math.nan for one in pieces]),
        tokens=np.array([len(one) for one in pieces], np.uint32),
        gaps=np.concatenate([np.diff(one) for one in pieces] or [[]]),
        usage=None if usage is None else np.array(usage, np.uint32),
        **more,
    )


def ran(made: Trace, **more: Any) -> Ran:
    asked = Asked(100.0, timedelta(seconds=len(made.intended) / 100), timedelta(), stream="openai", burst=20 * MS)
    traffic = Traffic("http://127.0.0.1:9/v1/chat/completions", "", Arrivals(rate=100, seconds=asked.seconds), "", stream="openai")
    return Ran(asked, traffic, made, made, "one request", more.get("unfit", ()), more.get("cancelled", False))


def judged(made: Trace, limits: dict[str, float], share: float = 0.9, **more: Any) -> Any:
    return tokens.judged(ran(made, **more), limits, share)


# The measures


def test_a_stream_is_measured_from_when_it_was_due():
    seen = _streamed.measured(streams([0.2, 0.3, 0.5, 0.6]))
    assert [float(getattr(seen, name)[0]) for name in _streamed.MEASURES] == pytest.approx([0.2, 0.2, (0.6 - 0.2) / 2, 0.6])


def test_tokens_are_those_that_the_server_counts():
    seen = _streamed.measured(streams([0.2, 0.3, 0.6], [0.2, 0.3, 0.6], usage=[5, 0]))
    assert seen.n.tolist() == [5, 2]
    assert seen.tpot.tolist() == pytest.approx([0.1, 0.4])


def test_a_single_token_has_no_gap_and_takes_no_time_after_the_first():
    seen = _streamed.measured(streams([0.2, 0.25]))
    assert (seen.itl[0], seen.tpot[0], seen.several[0]) == (0, 0, False)


def test_what_was_not_answered_whole_meets_no_limit():
    cut = streams([0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [0.1, 0.2, 0.3], kind=np.array([0, 5, 0], np.uint8))
    cut.tokens[2], cut.first[2] = 0, math.nan  # an answer without a token
    cut = Trace(**{**vars(cut), "gaps": cut.gaps[:2]})
    seen = _streamed.measured(cut)
    for name in _streamed.MEASURES:
        assert np.isfinite(getattr(seen, name)).tolist() == [True, False, False]
    assert _streamed.goodput(cut, {"ttft": 100.0}, share=0.9, burst=0.01, confidence=0.95).over == 2


ANSWER = st.one_of(st.just(BAD), st.lists(st.floats(0.001, 5), min_size=2, max_size=6).map(lambda steps: np.cumsum(steps).tolist()))


@given(st.lists(ANSWER, min_size=1, max_size=12), st.lists(st.sampled_from([0, 1, 2, 3, 9]), min_size=12, max_size=12), st.floats(0.01, 5))
def test_the_measures_are_what_a_loop_over_the_answers_says(answers, counted, limit):
    usage = [0 if answer is BAD else count for answer, count in zip(answers, counted, strict=False)]
    made = streams(*answers, usage=usage)
    expected = []
    for answer, count in zip(answers, usage, strict=True):
        if answer is BAD:
            expected.append([math.inf] * 4)
            continue
        *pieces, end = answer
        n = count or len(pieces)
        gaps = [later - sooner for sooner, later in pairwise(pieces)]
        expected.append([pieces[0], max(gaps, default=0.0), (end - pieces[0]) / (n - 1) if n > 1 else 0.0, end])
    seen = _streamed.measured(made)
    found = np.array([getattr(seen, name) for name in _streamed.MEASURES]).T
    assert found == pytest.approx(np.array(expected))
    limits = dict.fromkeys(_streamed.MEASURES, limit)
    met = sum(all(value <= limit for value in row) for row in found.tolist())
    assert _streamed.goodput(made, limits, share=0.9, burst=0.01, confidence=0.95).over == len(answers) - met


def test_each_measure_may_hold_where_all_of_them_together_do_not():
    made = streams(*([0.1, 0.2, 0.3] if place % 10 else [0.9, 1.0, 1.1] if place % 20 else [0.1, 0.9, 1.1] for place in range(1000)))
    limits = {"ttft": 0.5, "itl": 0.5}
    each = _streamed.apart(made, limits, share=0.9, burst=0.01, confidence=0.95)
    assert (each["ttft"].share, each["itl"].share) == (0.05, 0.05)
    joint = _streamed.goodput(made, limits, share=0.9, burst=0.01, confidence=0.95)
    assert (joint.share, joint.outcome) == (0.1, "inconclusive")
    assert (each["ttft"].outcome, each["itl"].outcome) == ("pass", "pass")
    assert _streamed.goodput(made, limits, share=0.95, burst=0.01, confidence=0.95).outcome == "fail"


def test_the_warm_up_takes_its_gaps_and_counts_along():
    made = streams([0.1, 0.4, 0.5], [0.1, 0.15], BAD, [0.1, 0.2, 0.25, 0.3], usage=[7, 1, 0, 9])
    kept = since(made, 0.01)
    seen = _streamed.measured(kept)
    assert seen.n.tolist() == [1, 0, 9]
    assert seen.itl.tolist() == pytest.approx([0, math.inf, 0.1])


def test_the_run_in_numbers_counts_tokens_as_the_check_does():
    told = _summary._tokens(streams([0.2, 0.3, 0.6], [0.2, 0.25], BAD, usage=[5, 0, 0]))
    assert told["tokens"] == 6
    assert told["each"]["max" if "max" in told["each"] else "p99"] == pytest.approx(0.1)


# How a stream is read


def read(*events: Any, size: int = 7) -> Tokens:
    """The events as bytes that come a few at a time, a second apart."""
    data = "".join(f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n" for event in events).encode()
    found = Tokens()
    for place in range(0, len(data), size):
        found.take(data[place : place + size], float(place))
    return found


def piece(text: str, index: int = 0, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish}]}


def test_a_stream_has_ended_when_it_says_so_or_each_choice_is_finished():
    assert read(piece("a"), "[DONE]").wrong() == ""
    assert read(piece("a"), piece("", finish="length")).wrong() == ""
    assert read(piece("a"), piece("b", 1), piece("", 1, "stop"), piece("", 0, "stop")).wrong() == ""
    for cut in ((piece("a"),), (piece("a"), piece("b", 1), piece("", 1, "stop")), ()):
        assert read(*cut).wrong() == "the stream ended without [DONE]"
    assert read(piece("", finish="stop")).wrong() == "the stream held no token"


@pytest.mark.parametrize("body", ['{"y": [2.0]}', "data: [1]", "event: ping", ": comment", "", "\x00" * 50])
def test_an_answer_that_is_no_such_stream_is_broken_off(body):
    found = Tokens()
    found.take(body.encode(), 0.0)
    found.take(b"\n\n", 1.0)
    assert found.wrong() == "the stream ended without [DONE]"


@pytest.mark.parametrize(("usage", "count"), [({"completion_tokens": 8}, 8), (None, 0), ([], 0), ({"completion_tokens": "8"}, 0), ({}, 0)])
def test_the_servers_count_is_read_wherever_it_stands(usage, count):
    assert read(piece("a"), {**piece("", finish="length"), "usage": usage}).usage == count
    assert read(piece("a"), {"choices": [], "usage": usage}, "[DONE]").usage == count


@pytest.mark.parametrize("count", [-1, 2**32, 10**30, True])
def test_a_count_that_cannot_be_one_is_none(count):
    assert read(piece("a"), {"choices": [], "usage": {"completion_tokens": count}}).usage in (0, 1)


# The check


@pytest.fixture
def llm():
    speaker = openai.Speaker()
    yield speaker
    speaker.stop()


def goodput(speaker: Any, scratch: Any, **more: Any) -> Any:
    server = connect(Locator("fraud", "server", speaker.url, speaker.options, within=timedelta(seconds=5)))
    try:
        return tokens.goodput(server, LOAD, scratch, **{**SHORT, **more})
    finally:
        server.close()


def test_the_check_runs_in_a_worker_and_points_at_latency():
    plugin = listing("check")["tokens.goodput"]
    assert (plugin.promises["cause"], plugin.heavy) == ("latency", True)


def test_streams_that_meet_every_limit_pass(llm, tmp_path):
    llm.counted = 3
    verdict = goodput(llm, tmp_path)
    assert verdict.status is Status.OK, verdict.reason
    assert re.match(r"PASS: 100 % of the streams met ttft 10s, itl 10s, tpot 10s, e2e 30s \(interval 9\d.* at least 95 % promised\)", verdict.reason)
    assert "valid for bursts up to 20ms" in verdict.reason.splitlines()[0]
    assert "requests missed a limit and 5 % may" in verdict.reason.splitlines()[1]
    n = verdict.reading.n
    assert f"the server counts {6 * n:,} tokens, which came in {2 * n:,} pieces" in verdict.reason
    assert verdict.parts["tokens"].n == 6 * n
    assert verdict.parts["ttft"].observed <= verdict.parts["e2e"].observed  # all of a short stream may come in one piece
    assert all(json.loads(body)["stream_options"] == {"include_usage": True} for method, _, _, body in llm.requests if method == "POST")


def test_several_generators_bring_their_streams_together(llm, tmp_path):
    llm.counted = 3
    verdict = goodput(llm, tmp_path, workers=2, warm=timedelta())
    assert verdict.status is Status.OK, verdict.reason
    assert verdict.parts["tokens"].n == 6 * verdict.reading.n


def test_a_wait_before_and_a_gap_within_are_told_apart(llm, tmp_path):
    llm.first, llm.gap = 0.03, 0.06
    parts = goodput(llm, tmp_path, rate=20.0).parts
    assert parts["ttft"].observed >= 0.03
    assert parts["itl"].observed >= 0.06
    assert parts["e2e"].observed >= 0.09
    assert parts["tpot"].limit == 10


def test_streams_that_break_off_meet_no_limit(llm, tmp_path):
    llm.cut, llm.every = 1, 3
    verdict = goodput(llm, tmp_path)
    assert verdict.status is Status.FAIL, verdict.reason
    assert verdict.parts["errors"].observed == pytest.approx(1 / 3, abs=0.02)
    assert verdict.reading.observed == 1 - verdict.parts["errors"].observed
    assert "closed before the whole answer" in verdict.reason


def test_plain_requests_may_ask_for_a_stream_themselves_and_must(llm, tmp_path):
    llm.url, llm.options = f"{llm.address}/v1/completions", {}
    request = {"model": "1", "prompt": "[1, 2]", "stream": True}
    (tmp_path / "one").mkdir()
    verdict = goodput(llm, tmp_path / "one", request=request)
    assert verdict.status is Status.OK, verdict.reason
    assert "answers came without usage: their pieces count as tokens" in verdict.reason
    refused = goodput(llm, tmp_path, request={**request, "stream": False})
    assert (refused.status, refused.parts) == (Status.ERROR, {})
    assert "does not ask for a stream" in refused.reason


def test_it_is_performed_as_it_is_configured(llm, tmp_path):
    job = {
        "check": "tokens.goodput",
        "load": {"rate": 100.0, "longest": 60.0, "lock": str(tmp_path / "lock" / "x.load")},
        "parameters": {"rate": 80.0, "duration": 1.5, "warm": 0.1, "burst": 0.02, "limits": {"ttft": 10.0, "tpot": 10.0}, "request": openai.REQUEST},
        "locators": {"server": Locator("fraud", "server", llm.url, llm.options)},
    }
    verdict = perform(job)
    assert verdict.status is Status.OK, verdict.reason
    assert json.loads(verdict.data["load.json"])["tokens"]["tokens"] == verdict.parts["tokens"].n


def test_a_server_that_is_not_ready_is_sent_nothing(llm, tmp_path):
    llm.up = False
    assert goodput(llm, tmp_path).status is Status.NODATA
    assert {method for method, *_ in llm.requests} == {"GET"}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"limits": {}}, "limits: none is given"),
        ({"limits": {"p99": SECOND}}, "limits.p99: none of ttft, itl, tpot, e2e"),
        ({"limits": {"ttft": timedelta()}}, "limits.ttft: 0ms should be above 0"),
        ({"limits": {"e2e": timedelta(minutes=3)}}, "limits.e2e: 3m should be above 0 and at most the timeout of 2m"),
        ({"share": 1.0}, "share: 1 should lie between 0 and 1"),
        ({"share": math.nan}, "share: nan should lie"),
        ({"burst": timedelta()}, "burst: "),
        ({"rate": 2000.0}, "more than the 1000 that the service's `load:"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_anything_is_sent(llm, tmp_path, more, told):
    with pytest.raises(ConfigError, match=re.escape(told)):
        goodput(llm, tmp_path, **more)
    assert llm.requests == []


def test_a_generator_that_was_too_slow_judges_nothing():
    verdict = judged(streams(*[[0.1, 0.2]] * 500), {"ttft": 1.0}, unfit=("it was late",))
    assert verdict.status is Status.ERROR
    assert verdict.reason.startswith("INVALID: the generator was the bottleneck: it was late; 100 % of the streams met ttft 1s")


def test_a_run_that_is_called_off_is_no_verdict():
    made = Trace(**{**vars(streams(*[[0.1, 0.2]] * 50)), "aborted": "cancelled"})
    assert judged(made, {"ttft": 1.0}, cancelled=True).status is Status.SKIP


@pytest.mark.parametrize("made", [streams(), streams(BAD, BAD), streams([0.1, 0.2])])
def test_a_run_of_hardly_anything_is_judged_without_a_crash(made):
    assert judged(made, {"ttft": 1.0, "tpot": 1.0}).status in (Status.NODATA, Status.FAIL)
