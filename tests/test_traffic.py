"""The traffic program against real servers of loopback: its clocks, how requests end, and how a run ends before its time."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.errors import CancelledError, ConfigError, NameLookupError, UnreachableError
from loadtests._generator import unfit
from loadtests._spec import Expect
from tests.processes import start
from tests.servers import hostile
from tests.traffic import kinds, run, traffic

# Clocks


def test_every_request_of_the_schedule_is_sent_marked_as_ours_and_its_clocks_are_in_order(tmp_path: Path) -> None:
    script, requests = hostile.noting()
    with hostile.serving(script) as server:
        trace = run(tmp_path, server.url + "/v2/infer?a=1", bodies=["one", "two", "three"], headers={"Authorization": "Bearer x"})
    assert kinds(trace) == ["good"] * 30
    assert trace.intended == pytest.approx(np.arange(30) / 100)
    assert (trace.intended <= trace.dispatched).all() and (trace.dispatched <= trace.sent).all() and (trace.sent <= trace.done).all()
    assert trace.latency == pytest.approx(trace.done - trace.intended) and trace.status.tolist() == [200] * 30
    assert trace.wall == pytest.approx(trace.done.max(), abs=1e-3) and trace.cpu > 0 and trace.aborted == "" and trace.lost == 0
    heads, bodies = zip(*(request.split(b"\r\n\r\n") for request in requests), strict=True)
    assert sorted(bodies) == sorted([b"one", b"two", b"three"] * 10)
    for head in heads:
        assert head.startswith(b"POST /v2/infer?a=1 HTTP/1.1\r\n") and b"X-Watchkeeper-Probe: watchkeeper" in head and b"Bearer x" in head


def test_what_a_slow_server_keeps_waiting_is_timed_from_when_it_was_meant_and_is_never_the_generators_fault(tmp_path: Path) -> None:
    gate = threading.Event()

    def script(one: socket.socket) -> None:
        while True:
            hostile.heard(one)
            gate.wait(30)
            one.sendall(hostile.answer())

    def hear(said: Any) -> None:
        if said["sent"] == 20:  # all taken up, though only two can be with the server
            gate.set()

    with hostile.serving(script) as server:
        trace = run(tmp_path, server.url, rate=200, seconds=0.1, connections=2, hear=hear)
    assert kinds(trace) == ["good"] * 20
    assert trace.done.min() > trace.dispatched.max(), "nothing was answered before all were taken up"
    late = trace.sent > trace.dispatched.max()
    assert late.sum() == 18, "all but two waited for a connection, and their clocks ran"
    assert trace.latency.min() > trace.dispatched.max() - trace.intended.max()
    assert unfit(trace, limit=100.0) == ()


FROZEN = """
import threading
from tests.processes import start
from tests.servers import hostile
with hostile.serving(hostile.says(hostile.answer())) as server:
    print(server.url, flush=True)
    threading.Event().wait()
"""


def test_a_frozen_server_delays_all_that_was_meant_meanwhile_and_loses_none(tmp_path: Path) -> None:
    with start([sys.executable, "-c", FROZEN]) as server:
        states = iter(
            [
                (lambda said: said["done"] >= 5, lambda: os.kill(server.pid, signal.SIGSTOP)),
                (lambda said: said["flying"] >= 30, lambda: os.kill(server.pid, signal.SIGCONT)),
                (lambda said: said["flying"] < 10, cancel),
            ]
        )
        now = [next(states)]

        def hear(said: Any) -> None:
            reached, act = now[0]
            if reached(said):
                now[0] = next(states, now[0])
                act()

        trace = run(tmp_path, server.url, rate=50, seconds=600, hear=hear)
    assert set(kinds(trace)) == {"good"} and trace.aborted == "cancelled"
    waiting = [int(((trace.intended <= at) & (trace.done > at)).sum()) for at in trace.dispatched]
    assert max(waiting) >= 30, "the schedule went on while nothing was answered"
    assert unfit(trace, limit=100.0) == ()


def cancel() -> None:
    raise CancelledError


def test_a_long_request_is_sent_whole_over_a_connection_that_takes_it_in_pieces(tmp_path: Path) -> None:
    script, requests = hostile.noting()
    body = "x" * 3_000_000
    with hostile.serving(script) as server:
        trace = run(tmp_path, server.url, bodies=[body], rate=10, seconds=0.2)
    assert kinds(trace) == ["good"] * 2
    assert all(request.endswith(b"\r\n\r\n" + body.encode()) for request in requests)


# How requests end


def bodily(one: socket.socket) -> None:
    """Does what the body of each request says."""
    while True:
        wish = hostile.heard(one).rpartition(b"\r\n\r\n")[2]
        if wish == b"nothing":
            hostile.mute(one)
        one.sendall(SAYS.get(wish, hostile.answer(b'{"outputs": [1]}')))
        if wish in (b"cut", b"close"):
            return


CHUNKED = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{"o\r\n12\r\nutputs": [{"a":1}]\r\n1\r\n}\r\n0\r\n\r\n'
SAYS = {
    b"broken": hostile.answer(status="500 Internal Server Error"),
    b"moved": hostile.answer(status="302 Found"),
    b"garbage": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    b"twice": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    b"cut": b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n{",
    b"close": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b'{"outputs": [1]}',
    b"text": hostile.answer(b"sorry"),
    b"less": hostile.answer(b'{"outputs": []}'),
    b"interim": b"HTTP/1.1 100 Continue\r\n\r\n" + hostile.answer(b'{"outputs": [1]}'),
    b"chunked": CHUNKED,
    b"more": hostile.answer(b'{"outputs": [1]}') + hostile.answer(b'{"outputs": [1]}'),
}
ENDS = {
    "broken": ("status", "HTTP 500"),
    "moved": ("status", "HTTP 302"),
    "garbage": ("protocol", "not HTTP"),
    "twice": ("protocol", "not HTTP"),
    "cut": ("connect", "closed before the whole answer"),
    "text": ("invalid", "not JSON"),
    "less": ("invalid", "outputs.0"),
    "nothing": ("timeout", "no answer within"),
    "close": ("good", ""),
    "interim": ("good", ""),
    "chunked": ("good", ""),
    "more": ("good", ""),
    "fine": ("good", ""),
}


def test_each_request_is_booked_by_how_it_ended_and_one_that_fails_spoils_no_other(tmp_path: Path) -> None:
    with hostile.serving(bodily) as server:
        trace = run(tmp_path, server.url, bodies=[*ENDS], rate=200, seconds=0.13, timeout=3.0, expect=Expect(json=True, fields=("outputs.0",)))
    assert kinds(trace) == [kind for kind, _ in ENDS.values()] * 2
    for kind, words in ENDS.values():
        assert kind == "good" or any(words in said for said in trace.said), f"{words!r} is not told in {trace.said}"
    bad = trace.kind != 0
    assert np.isinf(trace.latency[bad]).all() and np.isfinite(trace.latency[~bad]).all()


def test_an_endless_answer_ends_by_its_length_or_by_its_time(tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    fast, slow = hostile.endless(head, b"40000\r\n" + b"x" * 0x40000 + b"\r\n"), hostile.drips(head + b"1\r\nx\r\n" * 1000)
    with hostile.serving(fast) as server:
        assert kinds(run(tmp_path, server.url, rate=10, seconds=0.1, timeout=60)) == ["protocol"]
    with hostile.serving(slow) as server:
        assert kinds(run(tmp_path, server.url, rate=10, seconds=0.1, timeout=0.5)) == ["timeout"]


def test_a_server_that_dies_in_the_middle_leaves_errors_for_the_rest(tmp_path: Path) -> None:
    with hostile.serving(hostile.says(hostile.answer())) as server:

        def hear(said: Any) -> None:
            if said["done"] > 3:
                server.close()
            if said["errors"] > 5:
                raise CancelledError

        trace = run(tmp_path, server.url, rate=50, seconds=600, hear=hear)
    found = kinds(trace)
    assert found[:3] == ["good"] * 3 and found[-1] == "connect" and set(found) == {"good", "connect"}
    assert found.index("connect") == found.count("good"), "before its death all, and after it none"
    assert "Connection refused" in trace.said


# Streams


def test_tokens_of_a_stream_are_timed_from_when_the_request_was_meant(tmp_path: Path) -> None:
    words = [b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'] * 3 + [b"data: [DONE]\n\n"]
    chunks = [b"%x\r\n%s\r\n" % (len(word), word) for word in words]

    def script(one: socket.socket) -> None:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            short = hostile.heard(one).endswith(b"short")
            one.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks[0][:9])
            one.sendall(chunks[0][9:])
            for chunk in chunks[3:] if short else chunks[1:]:
                time.sleep(0.005)  # tokens take time, and pieces of it come apart
                one.sendall(chunk)
            one.sendall(b"0\r\n\r\n")

    with hostile.serving(script) as server:
        trace = run(tmp_path, server.url, bodies=["long", "short"], rate=1000, seconds=0.004, connections=1, stream="openai")
    assert kinds(trace) == ["good"] * 4 and trace.tokens.tolist() == [3, 1, 3, 1]
    assert len(trace.gaps) == 4 and (trace.gaps >= 0).all(), "two for each long answer, in the order of the schedule"
    assert trace.first[1] >= trace.done[0] - trace.intended[1], "it waited for the connection, and its clock ran"
    assert (trace.first <= trace.latency).all()
    assert trace.first[0] + trace.gaps[:2].sum() <= trace.latency[0] and trace.first[2] + trace.gaps[2:].sum() <= trace.latency[2]


# What cannot be run at all


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"timeout": 0.0}, "timeout is 0 s"),
        ({"timeout": float("nan")}, "timeout is nan s"),
        ({"connections": 0}, "connections are 0; there are 1 to 60,000"),
        ({"connections": 100_000}, "there are 1 to 60,000"),
        ({"workers": 0}, "workers are 0"),
        ({"workers": 3, "closed": 2}, "each of 3 workers has at least one"),
        ({"closed": 1, "seconds": float("nan")}, "seconds are nan"),
        ({"closed": -1}, "closed is -1 users"),
        ({"open_first": -1}, "open_first is -1"),
        ({"abort_errors": 50.0}, "it is a share, 0 to 1"),
        ({"abort_latency": 0.0}, "abort_latency is 0.0 s"),
        ({"rate": 0.0}, "rate is 0 requests a second"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        run(tmp_path, "http://127.0.0.1:1", **more)
    assert said in str(refused.value)


def test_nobody_there_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match=r"refused.*nothing was sent"):
        run(tmp_path, f"http://127.0.0.1:{hostile.refused()}")
    with pytest.raises(NameLookupError, match=r"nowhere\.invalid"):
        run(tmp_path, "http://nowhere.invalid/")


def test_a_request_that_is_none_is_named_by_its_line(tmp_path: Path) -> None:
    wanted = traffic(tmp_path, "http://127.0.0.1:1", bodies=["a", "b"])
    with Path(wanted.requests).open("a") as more:
        more.write('{"body": 7}\n')
    from loadtests._drive import drive

    with pytest.raises(ConfigError, match=r"requests\.jsonl:3: a request is written"):
        drive(wanted)


# An end before its time


def test_cancelled_it_drains_and_gives_back_what_there_is(tmp_path: Path) -> None:
    def tell(done: float, words: str) -> None:
        heard.append(words)
        if done > 0:
            raise CancelledError("the caller asked to stop")

    heard: list[str] = []
    with hostile.serving(hostile.says(hostile.answer())) as server:
        trace = run(tmp_path, server.url, rate=50, seconds=600, tell=tell)
    assert trace.aborted == "cancelled" and 0 < len(trace.kind) < 30_000 and set(kinds(trace)) == {"good"}
    assert heard[0] == "opening connections" and re.search(r"\d s of 600: [\d.]+ a second, p50 .* m?s, p99 .* m?s, 0 errors, \d in flight", heard[-1])
