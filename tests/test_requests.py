"""What a load test sends: where its requests are from, how they are laid down, and what a file of somebody's own may hold."""

from __future__ import annotations

import json
import tracemalloc
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import PROBE_PREFIX, Auth, Locator, fill
from agent.errors import CannotError, ConfigError, DataError
from agent.targets import connect
from loadtests import _requests
from loadtests._requests import written
from tests import logs
from tests.servers import folder, oip

URL = "http://127.0.0.1:9/predict"  # nobody is asked
EXAMPLE = {"x": [1.5, 2.5]}


def server(**options):
    return connect(Locator("fraud", "server", URL, options))


def lines(path: Path) -> list:
    return [json.loads(line) for line in path.read_text().splitlines()]


def bodies(path: Path) -> list:
    return [json.loads(line["body"]) for line in lines(path)]


@pytest.fixture
def laid(tmp_path):
    return tmp_path / "laid.jsonl"


@pytest.fixture
def live(tmp_path):
    return connect(Locator("fraud", "live", logs.write(tmp_path, "parquet", logs.log_rows()), logs.LOG, folder=str(tmp_path)))


@pytest.fixture
def registry(tmp_path):
    return connect(Locator("fraud", "registry", folder.Speaker(tmp_path / "registry").url))


@pytest.fixture
def speaker():
    speaker = oip.Speaker("2", ("2",))
    yield speaker
    speaker.stop()


def asked(speaker):
    return connect(Locator("fraud", "server", speaker.url, within=timedelta(seconds=5)))


# Where they are from


def test_one_request_is_laid_as_it_is_sent(laid):
    found = written(laid, server(wrap="inputs"), request=EXAMPLE)
    assert (found.n, found.source, found.sent.method, found.sent.url) == (1, "one request", "POST", URL)
    assert lines(laid) == [{"body": '{"inputs":{"x":[1.5,2.5]}}'}]
    assert found.sent.body.decode() == lines(laid)[0]["body"]


def test_golden_rows_are_those_of_the_version_served(laid, registry, speaker):
    found = written(laid, asked(speaker), registry)
    assert (found.n, found.source) == (5, "golden rows")
    assert [one["inputs"][0]["data"] for one in bodies(laid)] == [[row, row / 3] for row in range(5)]
    assert found.sent.url.endswith("/v2/models/m/infer")
    assert found.sent.fields == ("outputs.0",)
    ids = {one["id"] for one in bodies(laid)}
    assert len(ids) == 5
    assert all(one.startswith(PROBE_PREFIX) for one in ids)


def test_the_newest_rows_of_a_table_are_put_into_the_request(laid, live):
    found = written(laid, server(), live=live, request={"rows": ["{inputs}"], "who": "load"}, rows=3)
    assert (found.n, found.source) == (3, "the newest rows of the live table")
    assert bodies(laid) == [{"rows": [[place, place / 2, 1.5]], "who": "load"} for place in (39, 38, 37)]


def test_inputs_are_put_into_a_prompt_as_the_text_they_are():
    prompt = {"messages": [{"role": "user", "content": "Is this fraud? {inputs}"}], "max_tokens": 8}
    assert fill(prompt, "A {strange} letter")["messages"][0]["content"] == "Is this fraud? A {strange} letter"
    assert fill(prompt, {"amount": 1}) == {"messages": [{"role": "user", "content": 'Is this fraud? {"amount": 1}'}], "max_tokens": 8}
    assert fill("{inputs}", [1.0]) == [1.0]


def test_the_newest_rows_of_a_table_take_the_place_of_a_golden_requests_data(laid, registry, live, speaker):
    assert written(laid, asked(speaker), registry, live).n == 38  # of 40, what probes sent is none of the users'
    first = bodies(laid)[0]["inputs"][0]
    assert (first["name"], first["shape"], first["data"]) == ("x", [1, 3], [39, 19.5, 1.5])


def test_without_rows_the_example_itself_is_sent(laid, live):
    assert written(laid, server(), live=live.between(logs.START - timedelta(days=2), logs.START), request=EXAMPLE).source == "one request"
    assert written(laid, server(), live=live, request=EXAMPLE, rows=0).source == "one request"


def test_an_example_with_a_place_for_inputs_is_no_request_by_itself(laid, live):
    empty = live.between(logs.START - timedelta(days=2), logs.START)
    assert written(laid, server(), live=empty, request={"x": "{inputs}"}) is None
    assert written(laid, server()) is None


def test_a_request_without_a_place_for_the_inputs_says_so(laid, live):
    with pytest.raises(DataError, match=r"no place for what the table logged \(\[39, 19.5, 1.5\]\): write \{inputs\}"):
        written(laid, server(), live=live, request=EXAMPLE)


def test_a_file_of_ones_own_comes_before_everything_else(laid, registry, live, tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"x": 1}\n{"x": 2}\n')
    found = written(laid, server(), registry, live, request=EXAMPLE, requests=str(tmp_path / "mine.jsonl"))
    assert (found.n, found.source, bodies(laid)) == (2, "mine.jsonl", [{"x": 1}, {"x": 2}])


# How they are laid


def test_a_request_that_is_a_path_names_its_own(laid, tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"x": 1}\n{"x": 2}\n{"x": 1}\n')
    found = written(laid, server(method="GET"), requests=str(tmp_path / "mine.jsonl"))
    assert (found.sent.method, found.sent.url) == ("GET", URL + "?x=1")
    assert lines(laid) == [{"body": ""}, {"body": "", "path": "/predict?x=2"}, {"body": ""}]


def test_no_credential_is_laid_down(laid):
    secret = connect(Locator("fraud", "server", URL, look=Auth("bearer", {"token": "s3cret"})))
    found = written(laid, secret, request=EXAMPLE)
    assert found.sent.headers["Authorization"] == "Bearer s3cret"
    assert b"s3cret" not in laid.read_bytes()
    assert "s3cret" not in repr(found)


def test_a_server_that_cannot_be_asked_many_times_over_says_so(laid):
    behind = connect(Locator("fraud", "server", URL, {"proxy": "http://proxy.example:3128"}))
    with pytest.raises(CannotError, match="through a proxy"):
        written(laid, behind, request=EXAMPLE)


def test_an_adapter_that_does_not_say_what_a_request_is_sends_none(laid):
    class Silent:
        can = frozenset({"version"})

    with pytest.raises(CannotError, match="`load` in `can`"):
        written(laid, Silent(), request=EXAMPLE)


def test_a_request_in_the_middle_that_cannot_be_sent_says_which(laid, tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"x": 1}\n{"x": {"deep": 1}}\n')
    with pytest.raises(CannotError, match=r"mine.jsonl, request 2: with `method: GET` the value of 'x'"):
        written(laid, server(method="GET"), requests=str(tmp_path / "mine.jsonl"))


@pytest.mark.parametrize("rows", [-1, 100_001])
def test_rows_beyond_what_memory_is_given_are_refused(laid, live, rows):
    with pytest.raises(ConfigError, match=r"rows: .* should be between 0 and 100,000; give more as a file"):
        written(laid, server(), live=live, request=EXAMPLE, rows=rows)


@settings(max_examples=40, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_whatever_json_a_line_holds_is_sent_as_it_is(tmp_path_factory, value):
    place = tmp_path_factory.mktemp("any")
    (place / "mine.jsonl").write_text(json.dumps({"": value}) + "\n", encoding="utf-8")
    written(place / "laid", server(), requests=str(place / "mine.jsonl"))
    assert bodies(place / "laid") == [{"": value}]


def test_a_large_file_is_never_in_memory_at_once(laid, tmp_path):
    with (tmp_path / "mine.jsonl").open("w") as file:
        file.writelines(json.dumps({"x": "a" * 16000, "n": n}) + "\n" for n in range(1000))
    tracemalloc.start()
    assert written(laid, server(), requests=str(tmp_path / "mine.jsonl")).n == 1000
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert laid.stat().st_size > 16e6
    assert most < 2e6


# A file of one's own


@pytest.mark.parametrize(
    "text",
    [b'\xef\xbb\xbf{"x": 1}\n{"x": 2}\n', b'{"x": 1}\r\n{"x": 2}\r\n', b'\n\n{"x": 1}\n  \t\n{"x": 2}', b'  {"x": 1}  \n{"x": 2}'],
    ids=["byte order mark", "Windows line ends", "blank lines, no last line end", "spaces"],
)
def test_how_a_file_was_written_does_not_matter(laid, tmp_path, text):
    (tmp_path / "mine.jsonl").write_bytes(text)
    assert written(laid, server(), requests=str(tmp_path / "mine.jsonl")).n == 2
    assert bodies(laid) == [{"x": 1}, {"x": 2}]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b'{"x": 1}\n\n{"x": 2\n', r"mine.jsonl, line 3: no JSON \(.*each line is one whole request"),
        (b'{\n  "x": 1\n}\n', r"line 1: no JSON"),
        (b'{"x": 1}{"x": 2}\n', r"line 1: no JSON \(Extra data"),
        (b'{"x": 1}\nnull\n', r"line 2: null is no request"),
        (b'{"x": 1}\n{"x": "\xff"}\n', r"line 2: no UTF-8 at byte 8"),
        (b"\xff\xfe{\x00}\x00", r"line 1: no UTF-8 at byte 1; write the file as UTF-8"),
        (b"[" * 100_000, r"line 1: no JSON \(it is nested too deeply\)"),
        (b"9" * 5000, r"line 1: no JSON \(Exceeds the limit"),
        (b"\x00" * 20, r"line 1: no JSON"),
        (b"", r"holds no request; write one JSON request a line"),
        (b"\xef\xbb\xbf\r\n  \n", r"holds no request"),
    ],
)
def test_a_line_that_is_no_request_is_told_with_file_and_line(laid, tmp_path, text, told):
    (tmp_path / "mine.jsonl").write_bytes(text)
    with pytest.raises(DataError, match=told):
        written(laid, server(), requests=str(tmp_path / "mine.jsonl"))


def test_a_line_or_a_file_that_is_too_long_is_told_before_it_fills_memory(laid, tmp_path, monkeypatch):
    monkeypatch.setattr(_requests, "LINE", 2**20)
    monkeypatch.setattr(_requests, "WHOLE", 2**21)
    mine = tmp_path / "mine.jsonl"
    mine.write_bytes(b'{"x": 1}\n"' + b"a" * 2**22)
    with pytest.raises(DataError, match=r"mine.jsonl, line 2: longer than 1 MiB"):
        written(laid, server(), requests=str(mine))
    mine.write_bytes((b'"' + b"a" * 2**19 + b'"\n') * 5)
    with pytest.raises(DataError, match=r"mine.jsonl: 4 requests are more than 2 MiB; give fewer"):
        written(laid, server(), requests=str(mine))


@pytest.mark.parametrize("name", ["nowhere.jsonl", "."])
def test_a_file_that_cannot_be_read_says_what_to_name(laid, tmp_path, name):
    with pytest.raises(DataError, match=r"cannot be read \(.*name a file of one JSON request a line"):
        written(laid, server(), requests=str(tmp_path / name))
