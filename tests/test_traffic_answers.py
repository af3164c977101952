"""What is sent and what makes an answer good: payloads, expectations, streamed tokens, and the numbers of progress."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import ConfigError
from loadtests import _expect, _payload
from loadtests._drive import _sentence, heard, spoken
from loadtests._expect import Bodies, wrong
from loadtests._exposed import place
from loadtests._payload import payload
from loadtests._spec import Arrivals, Expect, Traffic
from loadtests._tokens import Tokens
from loadtests._watching import quantiles, still, together
from tests.traffic import traffic

# Payloads


def written(tmp_path: Path, text: str | bytes, url: str = "http://127.0.0.1:1/predict", **more) -> Traffic:
    file = tmp_path / "requests.jsonl"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Traffic(url, str(file), Arrivals(), str(tmp_path), **more)


def test_a_request_is_written_as_http_wants_it(tmp_path: Path) -> None:
    lines = '{"body": "{\\"x\\": \\"ä\\"}"}\n{"body": "b", "path": "/other?q=1"}\n'
    headers = {"Authorization": "Bearer t", "host": "evil", "Content-Length": "9"}
    one, two = payload(written(tmp_path, lines, "http://[::1]:8080/a b?c=d e", headers=headers))
    head, body = one.split(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /a%20b?c=d%20e HTTP/1.1",
        b"Host: [::1]:8080",
        b"X-Watchkeeper-Probe: watchkeeper",
        b"Authorization: Bearer t",
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
    ]
    assert json.loads(body) == {"x": "ä"} and two.startswith(b"POST /other?q=1 HTTP/1.1\r\n") and two.endswith(b"\r\n\r\nb")


def test_what_only_reads_has_no_body_unless_it_is_given_one(tmp_path: Path) -> None:
    (get,) = payload(written(tmp_path, '{"body": ""}', "https://host", method="get"))
    assert get == b"GET / HTTP/1.1\r\nHost: host\r\nX-Watchkeeper-Probe: watchkeeper\r\n\r\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no request in it"),
        ('{"body": "a"}\n{"body": "b"\n', ":2: the line is not JSON"),
        ('{"body": "a"}\n\n', ":2: the line is not JSON"),
        ('["a"]\n', ":1: a request is written"),
        ('{"path": "/"}\n', ":1: a request is written"),
        ('{"body": "a"}\n{"body": "b"}\n{"body": 3}\n', ":3: a request is written"),
        ('{"body": "a", "header": {}}\n', ":1: a request has a body and a path, and not 'header'"),
        ('{"body": "a", "path": "no"}\n', ":1: path 'no' must begin with /"),
        ('{"body": "a", "path": "/x\\r\\nEvil: 1"}\n', ":1: path "),
        (b"\xff\xfe\n", ":1: the line is not JSON"),
        ("[" * 100_000, ":1: the line is not JSON"),
    ],
)
def test_a_hostile_payload_is_refused_by_its_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        payload(written(tmp_path, text))
    assert said in str(refused.value) and "requests.jsonl" in str(refused.value)


def test_more_than_fits_is_refused_before_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_payload, "MOST_BYTES", 2**20)
    with pytest.raises(ConfigError, match=r"requests.jsonl:2: the requests are more than 1 MiB together"):
        payload(written(tmp_path, json.dumps({"body": "x" * 600_000}) + "\n" + json.dumps({"body": "x" * 600_000})))


@pytest.mark.parametrize(
    "more",
    [
        {"url": "ftp://host/"},
        {"url": "http:///path"},
        {"url": "http://user:secret@host/"},
        {"url": "http://host:99999/"},
        {"method": "GET / HTTP/1.1\r\nEvil: 1"},
        {"headers": {"A": "b\r\nEvil: 1"}},
        {"headers": {"A b": "c"}},
        {"headers": {"A": "☃"}},
    ],
)
def test_an_address_method_or_header_that_cannot_be_is_refused_and_no_secret_is_told(tmp_path: Path, more: dict) -> None:
    with pytest.raises(ConfigError) as refused:
        payload(written(tmp_path, '{"body": ""}', **more))
    assert "secret" not in str(refused.value)


def test_what_the_program_is_told_comes_back_as_it_was(tmp_path: Path) -> None:
    wanted = replace(traffic(tmp_path, "http://h/", headers={"A": "b"}), expect=Expect((200, 204), True, ("a.b",), "x"), abort_errors=0.5)
    assert heard(spoken(wanted)) == wanted and spoken(wanted).count("\n") == 1


# Expectations


@pytest.mark.parametrize(
    ("expect", "body", "said"),
    [
        (Expect(), b"\xff", ""),
        (Expect(json=True), b"[]", ""),
        (Expect(json=True), b"{", "the body is not JSON"),
        (Expect(json=True), b"", "the body is not JSON"),
        (Expect(json=True), b"[" * 100_000, "the body is not JSON"),
        (Expect(fields=("a.0.b",)), b'{"a": [{"b": null}]}', ""),
        (Expect(fields=("a.1.b",)), b'{"a": [{"b": null}]}', "the body has no 'a.1.b'"),
        (Expect(fields=("a", "b")), b'{"a": 1}', "the body has no 'b'"),
        (Expect(fields=("a.b",)), b'{"a": "b"}', "the body has no 'a.b'"),
        (Expect(text="ok"), b"all ok", ""),
        (Expect(text="ok"), b"no", "the body does not hold 'ok'"),
    ],
)
def test_a_body_is_held_to_what_was_expected(expect: Expect, body: bytes, said: str) -> None:
    assert wrong(expect, body) == said


def test_bodies_that_together_are_too_much_are_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_expect, "MOST_HELD", 2**20)
    bodies = Bodies(Expect(json=True), "")
    bodies.take(1, b"1", 0.0)
    for request in (1, 2):
        for _ in range(9):
            bodies.take(request, b" " * 2**16, 0.0)
    assert bodies.wrong(1) == "" and "in flight were more than the 1 MiB" in bodies.wrong(2)
    assert bodies.drop(1) is bodies.drop(2) is None
    for piece in (b"[", *[b" " * 2**16] * 15, b"]"):
        bodies.take(3, piece, 0.0)
    assert bodies.wrong(3) == "", "room is given back"


# Streams


def event(text: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).encode() + b"\r\n\r\n"


STREAM = (
    b": a comment\r\n\r\nevent: x\r\ndata: "
    + json.dumps({"choices": [{"delta": {"role": "assistant", "content": ""}}]}).encode()
    + b"\n\n"
    + event("one")
    + event("zwei ä")
    + b'data:{"choices":[{"text":"three"}]}\r\r'
    + b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n'
    + b'data: {"choices": [], "usage": {"completion_tokens": 3}}\n\n'
    + b"data: [DONE]\n\n"
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_a_stream_is_the_same_wherever_it_is_cut(cuts: list[int]) -> None:
    tokens = Tokens()
    edges = [0, *sorted(cuts), len(STREAM)]
    for number, (one, other) in enumerate(pairwise(edges)):
        tokens.take(STREAM[one:other], float(number))
    assert len(tokens.times) == 3 and tokens.wrong() == "" and tokens.times == sorted(tokens.times)
    whole = STREAM.index(b"zwei") - len(b'data: {"choices": [{"index": 0, "delta": {"content": "')  # where the first token's event has ended
    assert tokens.times[0] == next(number for number, edge in enumerate(edges[1:]) if edge >= whole), "stamped with the piece that ended it"


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        (b"", "ended without [DONE]"),
        (event("a"), "ended without [DONE]"),
        (b"data: [DONE]\n\n", "held no token"),
        (event("a") + b"data: {\n\ndata: [DONE]\n\n", "not JSON"),
        (event("a") + b'data: {"error": {"message": "out of memory"}}\n\ndata: [DONE]\n\n', "held an error"),
        (b"data: " + b"x" * 2_000_000, "longer than 1 MiB"),
        (b'data: [1]\n\ndata: 3\n\ndata: {"choices": 7}\n\ndata: {"choices": [3]}\n\ndata: [DONE]\n\n', "held no token"),
    ],
)
def test_a_stream_that_is_not_as_it_should_be_says_why(stream: bytes, said: str) -> None:
    tokens = Tokens()
    tokens.take(stream, 1.0)
    assert said in tokens.wrong()


# Progress


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 10) | st.just(math.inf), min_size=1, max_size=300))
def test_percentiles_of_progress_are_those_of_numpy(latencies: list[float]) -> None:
    told = quantiles(latencies)
    for name, part in (("p50", 0.5), ("p99", 0.99)):
        exact = float(np.quantile(latencies, part, method="inverted_cdf"))
        assert told[name] == (None if math.isinf(exact) else exact)


def test_a_line_is_a_sentence_whatever_could_not_be_measured() -> None:
    line = {"t": 12.3, "of": 60.0, "rate": 1999.96, "p50": 0.0012, "p99": None, "errors": 1234, "flying": 3}
    assert _sentence(line) == "12 s of 60: 2,000.0 a second, p50 1.2 ms, p99 unanswered, 1,234 errors, 3 in flight"
    assert _sentence({**line, "p50": None, "stopped": "stopped"}) == "12 s of 60: 2,000.0 a second, 1,234 errors, 3 in flight; ending: stopped"
    assert _sentence(still("waiting")) == "waiting"


def test_the_lines_of_workers_are_put_together() -> None:
    line = {"t": 1.0, "of": 9.0, "lag": 0.1, "sent": 5, "done": 4, "errors": 1, "rate": 5.0, "flying": 1, "stopped": "", "kinds": [3, 1, 0]}
    both = together([line, {**line, "t": 1.2, "lag": 0.3}], [0.1, 0.2])
    assert (both["t"], both["lag"], both["sent"], both["rate"], both["kinds"], both["p50"]) == (1.2, 0.3, 10, 10.0, [6, 2, 0], 0.1)


@pytest.mark.parametrize("at", ["9464", "host:", "host:port", ":9464", "host:0", "host:70000", ""])
def test_a_place_to_listen_has_a_host_and_a_port(at: str) -> None:
    assert place("127.0.0.1:9464", "metrics") == ("127.0.0.1", 9464) and place("[::1]:9464", "metrics") == ("::1", 9464)
    with pytest.raises(ConfigError, match="is not host:port"):
        place(at, "metrics")
