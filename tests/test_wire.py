"""The wire against servers that misbehave: every exchange ends in time, says what happened, and leaks nothing."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agent.errors import (
    AnswerError,
    DeadlineError,
    DeniedError,
    ServerError,
    TargetError,
    UnreachableError,
)
from agent.model import PROBE_PREFIX
from agent.wire import Wire, deadline, probe_id, remaining
from tests.servers import hostile
from tests.servers.hostile import HEAD, Script, answer, serving
from tests.wires import at, ends_within, wired

# Servers that misbehave

CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

BAD: Mapping[str, tuple[Script, type[TargetError], str]] = {
    "hangs": (hostile.mute, DeadlineError, "no answer had come"),
    "half open": (hostile.deaf, DeadlineError, "no answer had come"),
    "drips its head": (hostile.drips(answer()), DeadlineError, "bytes of an answer had come"),
    "drips its body": (hostile.scheduled([(HEAD + b"Content-Length: 99\r\n\r\n", 0.0), *[(b" ", 0.05)] * 99]), DeadlineError, "had come"),
    "never ends its body": (hostile.endless(HEAD + b"\r\n", b"x" * 4096), AnswerError, "longer than 100,000 bytes"),
    "never ends its chunks": (
        hostile.endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"x" * 4096 + b"\r\n"),
        AnswerError,
        "longer than",
    ),
    "chops its body": (hostile.endless(CHUNKED, b"1\r\nx\r\n" * 9999), DeadlineError, "had come"),
    "never ends its head": (hostile.endless(HEAD, b"A: b\r\n" * 99), AnswerError, "not HTTP as it should be"),
    "says continue for ever": (hostile.endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), DeadlineError, "had come"),
    "is no HTTP": (hostile.once(b"SSH-2.0-OpenSSH_9.7\r\n\r\n"), AnswerError, "speaks HTTP"),
    "closes at once": (hostile.once(b""), UnreachableError, "no answer had come"),
    "cuts its body": (hostile.once(HEAD + b"Content-Length: 100\r\n\r\n{}"), UnreachableError, "closed the connection when 7"),
    "is broken": (hostile.says(answer(b"boom", "500 Internal Server Error")), ServerError, "500.*boom"),
    "is away": (hostile.says(answer(b"", "503 Service Unavailable")), ServerError, "503"),
    "wants a credential": (hostile.says(answer(b"", "401 Unauthorized")), DeniedError, "401"),
    "forbids": (hostile.says(answer(b"", "403 Forbidden")), DeniedError, "403"),
    "has no such model": (hostile.says(answer(b"no model", "404 Not Found")), AnswerError, "404.*no model"),
    "sends us elsewhere": (
        hostile.says(answer(b"", "302 Found", "Location: http://u:pw@elsewhere/?sig=1\r\n")),
        AnswerError,
        r"http://elsewhere/\?sig=\*\*\*",
    ),
    "packs a bomb": (hostile.says(hostile.bomb(50_000_000)), AnswerError, "once decompressed"),
    "packs badly": (hostile.says(answer(b"no", headers="Content-Encoding: gzip\r\n")), AnswerError, "not valid gzip"),
    "packs in a way not asked for": (hostile.says(answer(b"no", headers="Content-Encoding: br\r\n")), AnswerError, "'br'"),
}


@pytest.mark.parametrize("how", BAD)
def test_a_server_that_misbehaves_costs_an_error_of_its_kind_within_the_deadline(how: str) -> None:
    script, kind, words = BAD[how]
    with wired(script) as wire:
        with ends_within(), pytest.raises(kind, match=words) as caught:
            wire.get("models")
        assert type(caught.value) is kind
        assert "GET http://127.0.0.1" in str(caught.value)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(1, 60), st.floats(0, 0.12)), max_size=12), st.sampled_from([30, 100, 99_999]))
@example([(60, 0.0), (60, 0.3)], 30)
def test_whatever_the_pieces_and_the_pauses_an_exchange_never_outlasts_its_deadline(pieces: list[tuple[int, float]], promised: int) -> None:
    whole = HEAD + f"Content-Length: {promised}\r\n\r\n".encode() + b'"' + b"a" * 28 + b'"' + b" " * 70
    parts, place = [], 0
    for size, pause in pieces:
        parts.append((whole[place : place + size], pause))
        place += size
    with wired(hostile.scheduled(parts), within=0.25) as wire, ends_within(0.25), contextlib.suppress(TargetError):
        assert wire.get().json() == "a" * 28


def test_three_hundred_half_open_exchanges_leave_no_descriptor_behind() -> None:
    def exchange(url: str) -> None:
        with pytest.raises(DeadlineError):
            Wire(at(url, within=0.1)).get()

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    with serving(hostile.mute) as server, ThreadPoolExecutor(16) as threads:
        list(threads.map(exchange, [server.url] * 300))
        assert server.connections == 300
    give_up = time.monotonic() + 10
    while descriptors() > before and time.monotonic() < give_up:
        time.sleep(0.01)
    assert descriptors() <= before


# Deadlines


def test_all_exchanges_inside_one_deadline_share_its_time() -> None:
    with wired(hostile.mute, within=30) as wire, ends_within(0.3), deadline(timedelta(seconds=0.3)):
        for _ in range(3):
            with pytest.raises(DeadlineError):
                wire.get()
        assert remaining() == 0


def test_an_inner_deadline_is_never_later_than_an_outer_one() -> None:
    assert remaining() is None
    with deadline(timedelta(seconds=1)), deadline(timedelta(hours=1)):
        assert 0 < (remaining() or 0) <= 1
    with deadline(timedelta(hours=1)):
        with deadline(timedelta(seconds=1)):
            assert (remaining() or 0) <= 1
        assert (remaining() or 0) > 3000
    assert remaining() is None


def test_a_third_exchange_waits_its_turn_no_longer_than_its_deadline() -> None:
    with serving(hostile.mute) as server:
        wire = Wire(at(server.url))
        for _ in range(2):
            wire._room.acquire()  # as two exchanges that are under way
        with ends_within(), pytest.raises(DeadlineError, match="2 other exchanges"):
            wire.get()
        assert server.connections == 0


# Kept connections


def closes_second(one: socket.socket) -> None:
    """Answers once, then takes a second request and closes without a word: keep-alive that ended a moment too early."""
    hostile.heard(one)
    one.sendall(answer())
    hostile.heard(one)


def test_a_read_over_a_connection_the_server_has_just_closed_is_asked_once_more() -> None:
    with serving(closes_second) as server:
        wire = Wire(at(server.url))
        assert wire.get().status == wire.get().status == 200
        assert server.connections == 2


def test_a_write_that_may_have_been_heard_is_never_sent_again() -> None:
    with serving(closes_second) as server:
        wire = Wire(at(server.url))
        wire.get()
        with pytest.raises(UnreachableError):
            wire.post("act", json={"to": "1"})
        assert server.connections == 1


def test_a_connection_that_brought_a_5xx_is_never_used_again() -> None:
    with serving(hostile.says(answer(status="503 Service Unavailable"), answer())) as server:
        wire = Wire(at(server.url))
        with pytest.raises(ServerError):
            wire.get()
        assert wire.post("act", json={}).status == 200
        assert server.connections == 2


def test_a_connection_seen_to_be_closed_is_not_used_even_for_a_write() -> None:
    with serving(hostile.once(answer())) as server:
        wire = Wire(at(server.url, within=5))
        wire.get()
        give_up = time.monotonic() + 5
        while server.open and time.monotonic() < give_up:
            time.sleep(0.005)
        assert wire.post(json={}).status == 200
        assert server.connections == 2


def test_an_answer_nobody_asked_for_is_never_taken_for_the_next_one() -> None:
    with wired(hostile.says(answer(b"[1]") + answer(b"[2]"))) as wire:
        assert [wire.get().json(), wire.get().json()] == [[1], [1]]


def test_kept_connections_leave_half_of_the_descriptors_free() -> None:
    code = """if True:
        import resource, sys
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        from agent.model import Locator
        from agent.wire import Wire
        wires = [Wire(Locator("fraud", "server", sys.argv[1])) for _ in range(100)]
        assert all(wire.get().status == 200 for wire in wires)
        print(open("/dev/null").fileno())
    """
    with serving(hostile.says(answer())) as server:
        run = subprocess.run([sys.executable, "-c", code, server.url], capture_output=True, text=True, check=True)
    assert 16 < int(run.stdout) <= 33


def test_closing_a_wire_closes_its_connections_and_it_may_be_used_again() -> None:
    with serving(hostile.says(answer())) as server:
        wire = Wire(at(server.url))
        wire.get()
        wire.close()
        assert wire.get().status == 200
        assert server.connections == 2


# What is asked


@pytest.mark.parametrize(
    ("base", "path", "params", "target"),
    [
        ("", "", None, "/"),
        ("/v2/?x=1", "", None, "/v2/?x=1"),
        ("/v2/", "models", None, "/v2/models"),
        ("/v2", "/health", {"a": "b c"}, "/health?a=b+c"),
        ("/v2", "models?q=1", {"r": "2"}, "/v2/models?q=1&r=2"),
        ("/v2", "my model/é", None, "/v2/my%20model/%C3%A9"),
        ("/v2", "http://elsewhere/", None, "/v2/http://elsewhere/"),
    ],
)
def test_paths_are_joined_to_the_targets_url(base: str, path: str, params: Mapping[str, str] | None, target: str) -> None:
    script, requests = hostile.noting()
    with wired(script, base) as wire:
        wire.get(path, params=params)
        assert requests[0].split()[1].decode() == target


def test_every_request_says_that_it_is_a_probe_and_a_body_says_its_length() -> None:
    script, requests = hostile.noting()
    with wired(script) as wire:
        wire.get(headers={"X-Extra": "1"})
        wire.post("infer", json={"inputs": []})
        wire.request("DELETE", content=b"")
    first, second, third = (one.decode().split("\r\n\r\n") for one in requests)
    assert "X-Watchkeeper-Probe: watchkeeper" in first[0] and "X-Extra: 1" in first[0] and "Content-Length" not in first[0]
    assert "Content-Type: application/json" in second[0] and "Content-Length: 13" in second[0] and second[1] == '{"inputs":[]}'
    assert third[0].startswith("DELETE") and "Content-Length: 0" in third[0]
    assert len({probe_id() for _ in range(100)}) == 100 and probe_id().startswith(PROBE_PREFIX)


def test_anyway_returns_the_answer_whatever_its_status() -> None:
    with wired(hostile.says(answer(b'{"version": "2"}', "409 Conflict"))) as wire:
        reply = wire.post(json={}, anyway=True)
        assert (reply.status, reply.json()) == (409, {"version": "2"})


def test_a_body_is_unpacked() -> None:
    small = hostile.bomb(5)
    with wired(hostile.says(small)) as wire:
        assert wire.get().body == bytes(5)


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b"<html>", "text/html", "expected JSON, but the answer is text/html"),
        (b'{"NaN": "\\"NaN", "a": NaN}', "application/json", "NaN is not a number JSON allows, at offset 22 of 26"),
        (b"[-Infinity]", "application/json", "-Infinity is not .* at offset 1 of"),
        (b"[1, 1e999]", "application/json", "1e999 is not .* at offset 4 of"),
        (b'{"a": [1, 2', "application/json", "at offset 11 of 11"),
        (b'{"a": "\xff"}', "application/json; charset=utf-8", "not UTF-8 at offset 7"),
        (b"", "application/json", "at offset 0 of 0"),
        (b"[" * 99_000, "application/json", "nested too deeply"),
    ],
)
def test_json_is_read_strictly_and_says_where_it_is_wrong(body: bytes, kind: str, words: str) -> None:
    with wired(hostile.says(answer(body, headers=f"Content-Type: {kind}\r\n")), within=5) as wire, pytest.raises(AnswerError, match=words):
        wire.get().json()


def test_json_of_another_or_no_type_is_read_when_allowed() -> None:
    with wired(hostile.says(answer(b"[1]", headers=""), answer(b"[2.5]", headers="Content-Type: text/plain\r\n"))) as wire:
        assert wire.get().json() == [1]
        assert wire.get().json(any_type=True) == [2.5]


# Cost


def test_importing_the_wire_costs_nothing_but_the_standard_library() -> None:
    code = "import sys, agent.wire; print([name for name in ('httpx', 'httpcore', 'h11', 'ssl', 'certifi', 'pydantic') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
