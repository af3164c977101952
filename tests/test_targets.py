"""One suite that every server, router, registry and online store adapter passes against a real speaker of its protocol in tests/servers/."""

from __future__ import annotations

import importlib
import json
import math
import pkgutil
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import pytest

import tests.servers
from agent import (
    PROBE_HEADER,
    PROBE_PREFIX,
    UTC,
    Absent,
    Auth,
    Done,
    Failed,
    Fetched,
    Locator,
    Metrics,
    OnlineStore,
    Registry,
    Router,
    Sample,
    Sent,
    Server,
    Signature,
    Try,
)
from agent.errors import (
    AnswerError,
    CannotError,
    ConfigError,
    DataError,
    DeadlineError,
    DeniedError,
    PluginError,
    ServerError,
    TargetError,
    UnreachableError,
)
from agent.plugins import listing
from agent.targets import connect
from agent.targets.folder import record
from tests.servers import business, feast, folder, hook, oip, plain, pointer, torchserve_default, triton
from tests.servers._loopback import Loopback

ROLES = ("server", "router", "registry", "online", "metrics")
LOCAL = ("folder", "sqlite", "duckdb")  # schemes that name a place on this disk
APART = {
    "router:haproxy": "test_haproxy.py",
    "router:nginx": "test_nginx.py",
    "router:command": "test_command.py",
}  # those that speak no HTTP, each with a file of its own and the real thing in it
ADAPTERS = [name for name in listing("adapter") if name.startswith(ROLES) and name not in APART]
LOOK, ACT = Auth("bearer", {"token": "may-look"}), Auth("bearer", {"token": "may-act"})


def speakers() -> dict[str, ModuleType]:
    found = [importlib.import_module(f"tests.servers.{one.name}") for one in pkgutil.iter_modules(tests.servers.__path__)]
    return {name: module for module in found for name in getattr(module, "SPEAKS", ())}


def of(role: str) -> list[str]:
    """The adapters of a role, but for https: the same adapter, whose TLS is the wire's and tested with it."""
    return [name for name in ADAPTERS if name.startswith(f"{role}:") and not name.endswith(":https")]


@contextmanager
def talk(name: str, tmp_path: Path, **more: Any) -> Iterator[tuple[Any, Any]]:
    """A fresh speaker and the adapter connected to it."""
    speaker = speaking(name, tmp_path)
    adapter = connect(where(speaker, name.split(":")[0], **more))
    try:
        yield speaker, adapter
    finally:
        adapter.close()
        speaker.stop()


def speaking(name: str, tmp_path: Path) -> Any:
    module = speakers()[name]
    if module is business:
        return module.Speaker(tmp_path, name.partition(":")[2])
    return module.Speaker(tmp_path / "registry") if module is folder else module.Speaker()


def where(speaker: Any, role: str, **more: Any) -> Locator:
    return Locator("fraud", role, speaker.url, **{"options": speaker.options, "within": timedelta(seconds=5), **more})


def again(sent: Sent) -> bytes:
    """Sends what `request` gave, as a client that knows nothing else would; the answer's body."""
    at = urlsplit(sent.url)
    connection = HTTPConnection(at.netloc, timeout=5)
    connection.request(sent.method, at.path + (f"?{at.query}" if at.query else ""), sent.body or None, dict(sent.headers))
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert answer.status == 200, body
    return body


def as_recorded(request: tuple[str, str, dict[str, str], bytes]) -> tuple[str, str, dict[str, str], bytes]:
    """A request that a speaker got, with every probe id made the same."""
    method, path, headers, body = request
    return method, path, {name.lower(): value for name, value in headers.items()}, re.sub(rb"wk-probe-[0-9a-f]+", b"wk-probe-", body)


def attempt(before: Any) -> Try:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Try("key", 1, now + timedelta(seconds=10), before, 1, now)


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_adapter_has_a_speaker_to_be_tested_against(name):
    assert name in speakers(), f"{name} has no speaker: add tests/servers/<name>.py with SPEAKS = ('{name}',) and a class Speaker"


@pytest.mark.parametrize("name", APART)
def test_an_adapter_that_speaks_no_http_has_tests_of_its_own(name):
    assert name in listing("adapter")
    assert (Path(__file__).parent / APART[name]).is_file()


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_is_made_without_any_request(name):
    scheme = name.partition(":")[2]
    module = speakers()[name]
    url = (
        f"{scheme}:nowhere"
        if scheme in LOCAL
        else f"{scheme}+http://127.0.0.1:9/m"
        if scheme not in ("http", "https")
        else f"{scheme}://127.0.0.1:9/"
    )
    options = hook.Speaker().options if module is hook else getattr(module, "OPTIONS", {})
    connect(Locator("fraud", name.split(":")[0], url, options)).close()


def test_an_unknown_scheme_is_told_with_the_nearest_one():
    with pytest.raises(PluginError, match=r"no adapter speaks 'oipp' to a server .*did you mean 'oip'"):
        connect(Locator("fraud", "server", "oipp+http://host/m"))


def test_an_unknown_option_is_told_with_those_there_are():
    with pytest.raises(ConfigError, match=r"fraud.server: no option 'redy'; there is ready, predict, method, version, signature, at, wrap, proxy"):
        connect(Locator("fraud", "server", "http://host/m", {"redy": "/readyz"}))


# Servers


@pytest.mark.parametrize("name", of("server"))
class TestServer:
    def test_it_is_a_server(self, name, tmp_path):
        with talk(name, tmp_path) as (_, server):
            assert isinstance(server, Server)
            assert server.can <= {"version", "at", "signature", "load"}

    def test_it_says_whether_the_model_is_ready(self, name, tmp_path):
        with talk(name, tmp_path) as (speaker, server):
            assert server.ready() is True
            speaker.up = False
            assert server.ready() is False

    def test_it_answers_a_request_with_body_version_and_seconds(self, name, tmp_path):
        with talk(name, tmp_path) as (_, server):
            answer = server.infer(speakers()[name].REQUEST)
            assert "[2.0, 4.0]" in json.dumps(answer.body)
            assert answer.version in ("1", None)
            assert 0 < answer.seconds < 5

    def test_it_follows_a_switch_of_the_version_served(self, name, tmp_path):
        with talk(name, tmp_path) as (speaker, server):
            server.infer(speakers()[name].REQUEST)
            assert server.version() == "1"
            speaker.served = "2"
            assert server.version() == "2"

    def test_it_reaches_a_loaded_version_that_is_not_served(self, name, tmp_path):
        with talk(name, tmp_path) as (_, server):
            assert "at" in server.can
            second = server.at("2")
            assert "[3.0, 6.0]" in json.dumps(second.infer(speakers()[name].REQUEST).body)
            assert second.version() == "2"
            assert "[2.0, 4.0]" in json.dumps(server.infer(speakers()[name].REQUEST).body)

    def test_a_version_that_is_not_loaded_is_an_answer_error(self, name, tmp_path):
        with talk(name, tmp_path) as (_, server), pytest.raises(AnswerError) as caught:
            server.at("../9").infer(speakers()[name].REQUEST)
        assert caught.value.status == 404

    def test_it_states_the_signature(self, name, tmp_path):
        with talk(name, tmp_path) as (_, server):
            stated = server.signature()
            if "signature" not in server.can:
                assert stated is None
                return
            assert isinstance(stated, Signature)
            assert (stated.inputs[0].name, stated.inputs[0].datatype, stated.inputs[0].shape) == ("x", "FP32", (-1, 2))

    def test_every_request_says_that_it_is_a_probe(self, name, tmp_path):
        with talk(name, tmp_path) as (speaker, server):
            for ask in (server.ready, server.version, server.signature, lambda: server.infer(speakers()[name].REQUEST)):
                ask()
            assert len(speaker.requests) >= 3 + ("signature" in server.can)
            assert all(PROBE_HEADER.lower() in {key.lower() for key in headers} for _, _, headers, _ in speaker.requests)

    def test_a_request_sent_many_times_over_is_the_one_that_infer_sends(self, name, tmp_path):
        with talk(name, tmp_path, look=LOOK) as (speaker, server):
            for one in (server, server.at("2")):
                speaker.requests.clear()
                one.infer(speakers()[name].REQUEST)
                again(one.request(speakers()[name].REQUEST))
                by_infer, by_hand = map(as_recorded, speaker.requests[-2:])
                if name == "server:openai":  # the one difference there is: load reads a stream
                    streamed = json.loads(by_hand[3])
                    assert (streamed.pop("stream"), streamed.pop("stream_options")) == (True, {"include_usage": True})
                    body = json.dumps(streamed, separators=(",", ":")).encode()
                    by_hand = (*by_hand[:2], {**by_hand[2], "content-length": str(len(body))}, body)
                assert by_infer == by_hand
                assert by_hand[2]["authorization"] == "Bearer may-look"

    def test_a_request_the_server_refuses_keeps_its_status(self, name, tmp_path):
        with talk(name, tmp_path) as (_, server), pytest.raises(AnswerError) as caught:
            request = json.loads(json.dumps(speakers()[name].REQUEST).replace("[1.0, 2.0]", "[1.0]"))
            server.infer(request)
        assert caught.value.status in (400, 422)

    @pytest.mark.parametrize(
        ("fault", "error"), [("broken", ServerError), ("nan", AnswerError), ("html", AnswerError), ("redirect", AnswerError), ("cut", AnswerError)]
    )
    def test_a_bad_answer_is_an_error_and_never_an_answer(self, name, tmp_path, fault, error):
        with talk(name, tmp_path) as (speaker, server):
            speaker.fault = fault
            stating = (server.signature,) if "signature" in server.can else ()
            for ask in (server.version, *stating, lambda: server.infer(speakers()[name].REQUEST)):
                with pytest.raises(error):
                    ask()

    def test_a_hanging_server_costs_the_deadline_and_no_more(self, name, tmp_path):
        with talk(name, tmp_path, within=timedelta(milliseconds=200)) as (speaker, server):
            speaker.fault = "hang"
            for ask in (server.ready, server.version, lambda: server.infer(speakers()[name].REQUEST)):
                with pytest.raises(DeadlineError):
                    ask()

    def test_a_server_that_is_gone_is_unreachable(self, name, tmp_path):
        with talk(name, tmp_path) as (speaker, server):
            speaker.stop()
            with pytest.raises(UnreachableError):
                server.ready()


def test_oip_marks_its_requests_with_an_id_unless_they_have_one():
    speaker = oip.Speaker()
    server = connect(where(speaker, "server"))
    assert server.infer(oip.REQUEST).body["id"].startswith(PROBE_PREFIX)
    assert server.infer({**oip.REQUEST, "id": "mine"}).body["id"] == "mine"
    speaker.stop()


@pytest.mark.parametrize(
    ("loaded", "silent", "expected"),
    [
        (("2",), (), "2"),  # the metadata names one
        (("1", "2"), (), None),  # it names two, and nothing was asked yet
        (("2",), ("metadata",), "2"),  # MLServer: only the repository index tells
        (("1", "2"), ("metadata",), None),
        (("2",), ("metadata", "index"), None),
    ],
)
def test_oip_says_which_version_is_served_only_when_it_knows(loaded, silent, expected):
    speaker = oip.Speaker("2", loaded, silent)
    assert connect(where(speaker, "server")).version() == expected
    speaker.stop()


def test_oip_states_no_signature_when_the_server_leaves_it_empty():
    speaker = oip.Speaker(silent=("metadata",))
    assert connect(where(speaker, "server")).signature() is None
    speaker.stop()


def test_oip_keeps_a_prefix_before_the_model_and_needs_a_model():
    assert connect(Locator("fraud", "server", "oip+http://host/serving/m"))._path == "/serving/v2/models/m"
    assert connect(Locator("fraud", "server", "oip+http://host/v2/models/m"))._path == "/v2/models/m"
    with pytest.raises(ConfigError, match="names no model"):
        connect(Locator("fraud", "server", "oip+http://host/"))


@pytest.mark.parametrize(
    ("auth", "options", "told"),
    [
        (Auth("mtls", {"cert": "a.pem", "key": "a.key"}), {}, "with a client certificate"),
        (None, {"proxy": "http://proxy.example:3128"}, "through a proxy"),
    ],
)
def test_what_no_request_shows_by_itself_is_not_sent_many_times_over(auth, options, told):
    server = connect(Locator("fraud", "server", "http://models.example/m", options, look=auth))
    with pytest.raises(CannotError, match=f"fraud.server: requests are not sent many times over {told}"):
        server.request({"x": 1})


def test_a_request_shows_the_token_that_an_oauth2_client_was_granted():
    granting = Loopback(lambda *_: (200, {"access_token": "granted", "expires_in": 3600}))
    granting.read = lambda content: content
    auth = Auth("oauth2", {"token_url": f"{granting.address}/token", "client_id": "wk", "client_secret": "s3cret"})
    server = connect(Locator("fraud", "server", "http://127.0.0.1:9/m", look=auth))
    for _ in range(3):
        assert server.request({"x": 1}).headers["Authorization"] == "Bearer granted"
    assert len(granting.requests) == 1
    granting.stop()


def test_a_token_that_is_not_granted_is_told_without_the_secret():
    auth = Auth("oauth2", {"token_url": "http://127.0.0.1:9/token", "client_id": "wk", "client_secret": "s3cret"})
    with pytest.raises(UnreachableError) as caught:
        connect(Locator("fraud", "server", "http://127.0.0.1:9/m", look=auth)).request({"x": 1})
    assert "s3cret" not in str(caught.value)


def test_a_request_does_not_print_its_credential():
    sent = connect(Locator("fraud", "server", "http://host/m", look=LOOK)).request({"x": 1})
    assert sent.headers["Authorization"] == "Bearer may-look"
    assert "may-look" not in repr(sent)


def test_plain_http_asks_a_server_that_only_takes_get():
    speaker = plain.Speaker(options={"method": "GET", "at": "/predict?version={version}", "version": {"field": "meta.version"}})
    server = connect(where(speaker, "server"))
    assert server.infer({"x": [1.0, 2.0], "left out": None, "exact": True, "note": "a&b=c é"}).body["y"] == [2.0, 4.0]
    method, path, headers, body = speaker.requests[-1]
    assert (method, path, body) == ("GET", "/predict?x=1.0&x=2.0&exact=true&note=a%26b%3Dc+%C3%A9", b"")
    assert "Content-Type" not in headers
    assert server.at("2").infer({"x": [1, 2]}).version == "2"
    assert json.loads(again(server.at("2").request({"x": [1, 2]})))["y"] == [3.0, 6.0]
    speaker.stop()


@pytest.mark.parametrize(
    ("request_", "told"), [([1.0], "`wrap` gives it a name"), ({"x": {"deep": 1}}, "the value of 'x'"), ({"x": [[1]]}, "of 'x'")]
)
def test_what_no_query_holds_is_not_asked(request_, told):
    server = connect(Locator("fraud", "server", "http://127.0.0.1:9/m", {"method": "GET"}))
    for ask in (server.infer, server.request):
        with pytest.raises(CannotError, match=told):
            ask(request_)


def test_plain_http_only_asks():
    with pytest.raises(ConfigError, match=r"fraud.server.method: write GET or POST, not 'DELETE'"):
        connect(Locator("fraud", "server", "http://host/m", {"method": "DELETE"}))


def test_plain_http_reads_the_version_from_its_answers_where_it_is_told_to():
    speaker = plain.Speaker(options={"wrap": "x", "version": {"field": "meta.version"}})
    server = connect(where(speaker, "server"))
    assert server.version() is None
    assert server.infer(plain.REQUEST).version == "1"
    speaker.served = "2"
    assert server.version() == "2"
    speaker.stop()


def test_plain_http_without_options_only_infers():
    speaker = plain.Speaker(options={})
    server = connect(where(speaker, "server"))
    assert server.can == {"load"}
    assert server.infer({"x": [1.0, 2.0]}).body["y"] == [2.0, 4.0]
    assert (server.version(), server.signature()) == (None, None)
    for cannot in (server.ready, lambda: server.at("1")):
        with pytest.raises(CannotError, match="add `"):
            cannot()
    speaker.stop()


def test_a_missing_field_says_how_far_the_answer_followed():
    speaker = plain.Speaker(options={"version": {"path": "/metadata", "field": "model.edition"}})
    with pytest.raises(AnswerError, match="no 'edition' in model"):
        connect(where(speaker, "server")).version()
    speaker.stop()


# Routers


@pytest.mark.parametrize("name", of("router"))
class TestRouter:
    def test_its_shares_sum_to_one(self, name, tmp_path):
        with talk(name, tmp_path) as (_, router):
            assert isinstance(router, Router)
            assert "switch" in router.can
            assert router.served() == {"1": 1.0}

    def test_it_points_all_traffic_to_another_version_and_back(self, name, tmp_path):
        with talk(name, tmp_path) as (speaker, router):
            before = router.point.before({"to": "2"})
            assert router.point.look({"to": "2"}, attempt(before)) == Absent("1 is still pointed at")
            router.point.do({"to": "2"}, attempt(before))
            assert isinstance(router.point.look({"to": "2"}, attempt(before)), Done)
            assert (speaker.served, router.served()) == ("2", {"2": 1.0})
            back = router.point.undo({"to": "2"}, before, None)
            router.point.do(back, attempt("2"))
            assert router.served() == {"1": 1.0}

    def test_it_leaves_alone_what_somebody_else_has_moved(self, name, tmp_path):
        with talk(name, tmp_path) as (speaker, router):
            speaker.served = "3"
            with pytest.raises(AnswerError, match="somebody else moved it") as caught:
                router.point.do({"to": "2"}, attempt("1"))
            assert caught.value.status == 409
            assert speaker.served == "3"
            assert isinstance(router.point.look({"to": "2"}, attempt("1")), Failed)

    def test_an_agent_that_may_only_look_writes_nothing(self, name, tmp_path):
        with talk(name, tmp_path, look=LOOK) as (speaker, router):
            assert router.served() == {"1": 1.0}
            with pytest.raises(DeniedError):
                router.point.do({"to": "2"}, attempt("1"))
            assert {method for method, *_ in speaker.requests} == {"GET"}

    def test_the_credential_that_acts_is_never_shown_to_look(self, name, tmp_path):
        with talk(name, tmp_path, look=LOOK, act=ACT) as (speaker, router):
            speaker.token = "may-act"
            router.point.do({"to": "2"}, attempt(router.point.before({})))
            shown = {(method == "GET", headers.get("Authorization")) for method, _, headers, _ in speaker.requests}
            assert shown == {(True, "Bearer may-look"), (False, "Bearer may-act")}

    @pytest.mark.parametrize("fault", ["broken", "nan", "html", "redirect", "cut", "list"])
    def test_a_bad_answer_is_an_error_and_moves_nothing(self, name, tmp_path, fault):
        with talk(name, tmp_path) as (speaker, router):
            speaker.fault = fault
            with pytest.raises(TargetError):
                router.served()
            assert speaker.served == "1"


def test_the_pointer_loads_versions():
    speaker = pointer.Speaker(loaded=("1",))
    router = connect(where(speaker, "router"))
    router.load("7")
    assert router.loaded() == ("1", "7")
    speaker.stop()


@pytest.mark.parametrize("speaker", [pointer.Speaker, triton.Speaker, torchserve_default.Speaker], ids=["pointer", "triton", "torchserve"])
def test_a_router_that_can_unload_drops_what_has_no_traffic_and_nothing_else(speaker):
    speaker = speaker("2")
    speaker.loaded = [1, 2] if isinstance(speaker, triton.Speaker) else ["1", "2"]
    router = connect(where(speaker, "router"))
    assert "unload" in router.can
    assert router.unload.before({"version": "1"}) == {"served": {"2": 1.0}, "loaded": ["1", "2"]}
    assert isinstance(router.unload.look({"version": "1"}, attempt(None)), Absent)
    router.unload.do({"version": "1"}, attempt(None))
    assert router.unload.look({"version": "1"}, attempt(None)) == Done({"loaded": ["2"]}, "version 1 is not loaded any more; 2 still is")
    with pytest.raises(CannotError, match="has traffic"):
        router.unload.do({"version": "2"}, attempt(None))
    assert list(router.loaded()) == ["2"] and router.unload.undo({"version": "1"}, None, None) is None
    speaker.stop()


def test_a_hook_that_cannot_compare_is_read_again_right_before_the_write():
    speaker = hook.Speaker(compares=False)
    router = connect(where(speaker, "router"))
    router.point.do({"to": "2"}, attempt("1"))
    assert [(method, path) for method, path, *_ in speaker.requests] == [("GET", "/route"), ("PUT", "/route/2")]
    with pytest.raises(AnswerError, match="somebody else moved it"):
        router.point.do({"to": "3"}, attempt("1"))
    assert speaker.served == "2"
    speaker.stop()


@pytest.mark.parametrize(
    ("options", "told"),
    [({}, "fraud.router.read"), ({"read": {"path": "/"}, "write": {"path": "/x"}}, "{to}"), ({"read": {"pth": "/"}}, "pth")],
)
def test_a_hook_that_could_not_work_is_refused_before_anything_is_sent(options, told):
    with pytest.raises(ConfigError, match=told):
        connect(Locator("fraud", "router", "hook+http://host", options))


# Online stores


@pytest.mark.parametrize("name", of("online"))
class TestOnlineStore:
    """A speaker has the drivers 1001 and 1002 with `rate` and `trips`; `trips` of 1002 is a null that was stored."""

    ASKED = ({"driver": 1001}, {"driver": 9999}, {"driver": 1002})

    def test_it_gives_value_event_time_and_whether_it_is_there(self, name, tmp_path):
        with talk(name, tmp_path) as (_, store):
            assert isinstance(store, OnlineStore)
            assert (store.can, store.ready()) == ({"times"}, True)
            at = datetime(2026, 1, 2, 3, 4, 5, 250_000, tzinfo=UTC)
            one, nobody, two = store.features(["trips", "rate"], self.ASKED)
            assert one == {"trips": Fetched(8, at), "rate": Fetched(0.5, at)}
            assert nobody == {"trips": Fetched(None, None, False), "rate": Fetched(None, None, False)}
            assert two["trips"] == Fetched(None, at, True)

    def test_without_names_it_gives_all_it_has_and_not_the_keys(self, name, tmp_path):
        with talk(name, tmp_path) as (_, store):
            assert [set(row) for row in store.features((), self.ASKED)] == [{"rate", "trips"}] * 3
            assert store.features((), ()) == []

    def test_it_says_whether_it_is_ready(self, name, tmp_path):
        with talk(name, tmp_path) as (speaker, store):
            speaker.up = False
            assert store.ready() is False

    def test_many_entities_go_in_batches_and_come_back_in_their_order(self, name, tmp_path):
        with talk(name, tmp_path) as (speaker, store):
            asked = [{"driver": 1001 if place % 3 else 1002} for place in range(250)]
            assert [row["rate"].value for row in store.features(["rate"], asked)] == [0.5 if place % 3 else 0.25 for place in range(250)]
            assert len(speaker.requests) == 3

    def test_a_name_it_does_not_give_is_told_with_the_nearest_one(self, name, tmp_path):
        with talk(name, tmp_path) as (_, store), pytest.raises(AnswerError, match=r"no feature 'trip'.*'trips'"):
            store.features(["rate", "trip"], self.ASKED)

    def test_every_request_says_that_it_is_a_probe_and_shows_its_credential(self, name, tmp_path):
        with talk(name, tmp_path, look=LOOK) as (speaker, store):
            store.ready()
            store.features((), self.ASKED)
            shown = [(headers.get(PROBE_HEADER), headers.get("Authorization")) for _, _, headers, _ in speaker.requests]
            assert shown == [("watchkeeper", "Bearer may-look")] * 2

    @pytest.mark.parametrize(
        ("fault", "error"),
        [
            ("broken", ServerError),
            ("nan", AnswerError),
            ("html", AnswerError),
            ("redirect", AnswerError),
            ("cut", AnswerError),
            ("list", AnswerError),
        ],
    )
    def test_a_bad_answer_is_an_error_and_never_a_value(self, name, tmp_path, fault, error):
        with talk(name, tmp_path) as (speaker, store):
            speaker.fault = fault
            with pytest.raises(error):
                store.features((), self.ASKED)

    def test_a_hanging_store_costs_the_deadline_and_one_that_is_gone_is_unreachable(self, name, tmp_path):
        with talk(name, tmp_path, within=timedelta(milliseconds=200)) as (speaker, store):
            speaker.fault = "hang"
            with pytest.raises(DeadlineError):
                store.features((), self.ASKED)
            speaker.stop()
            with pytest.raises(UnreachableError):
                store.features((), self.ASKED)


def test_feast_with_redis_behind_it_calls_what_it_never_had_present_and_is_not_believed():
    speaker = feast.Speaker(redis=True)
    store = connect(where(speaker, "online"))
    (row,) = store.features(["rate"], [{"driver": 9999}])
    assert row["rate"] == Fetched(None, None, False)
    speaker.stop()


def test_a_value_of_1970_is_there_and_has_no_event_time():
    speaker = feast.Speaker()
    speaker.at = feast.NEVER
    (row,) = connect(where(speaker, "online")).features((), [{"driver": 1001}])
    assert row == {"rate": Fetched(0.5, None), "trips": Fetched(8, None)}
    speaker.stop()


@pytest.mark.parametrize(("full", "names"), [(False, {"rate"}), (True, {"stats__rate"})])
def test_feast_is_asked_for_references_where_no_service_is_named(full, names):
    speaker = feast.Speaker(options={"features": ["stats:rate"], "full_names": full})
    store = connect(where(speaker, "online"))
    assert [set(row) for row in store.features((), [{"driver": 1001}])] == [names]
    with pytest.raises(AnswerError, match=r"no feature 'ratte'; (did you mean 'rate'|there is stats__rate)"):
        store.features(["ratte"], [{"driver": 1001}])
    speaker.stop()


def test_what_feast_says_of_a_wrong_service_or_reference_is_passed_on():
    speaker = feast.Speaker(options={"service": "driver_v2"})
    with pytest.raises(AnswerError, match="Feature service driver_v2 does not exist"):
        connect(where(speaker, "online")).features((), [{"driver": 1001}])
    speaker.options = {"features": ["stats:ratte"]}
    with pytest.raises(ServerError, match="Feature ratte not found in projection stats"):
        connect(where(speaker, "online")).features((), [{"driver": 1001}])
    speaker.stop()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({}, "metadata"),
        ({"metadata": {"feature_names": ["rate"]}, "results": []}, "shorter"),
        ({"metadata": {"feature_names": ["rate"]}, "results": [{"values": [1, 2]}]}, "2 values"),
        ({"metadata": {"feature_names": ["rate"]}, "results": [{"values": "1"}]}, "1 values"),
        ({"metadata": {"feature_names": ["rate"]}, "results": [{"values": [1], "event_timestamps": ["soon"]}]}, "soon"),
        ({"metadata": {"feature_names": ["rate"]}, "results": [{"values": [1], "event_timestamps": [17]}]}, "TypeError"),
        ({"metadata": {"feature_names": ["rate"]}, "results": [{"values": [1], "event_timestamps": []}]}, None),
        ({"metadata": {"feature_names": ["rate"]}, "results": [{"values": [1], "event_timestamps": [None]}]}, None),
    ],
)
def test_an_answer_of_another_shape_is_an_error_and_a_time_that_is_left_out_is_not(body, why):
    other = Loopback(lambda *_: (200, body))
    store = connect(Locator("fraud", "online", f"feast+{other.address}", feast.OPTIONS))
    if why is None:
        assert store.features((), [{"driver": 1}]) == [{"rate": Fetched(1, None)}]
    else:
        with pytest.raises(AnswerError, match=why):
            store.features((), [{"driver": 1}])
    other.stop()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "needs either `service"),
        ({"service": "s", "features": ["v:f"]}, "needs either `service"),
        ({"features": []}, "list of view:feature"),
        ({"features": ["rate"]}, "list of view:feature"),
        ({"features": "v:f"}, "list of view:feature"),
        ({"features": ["a:rate", "b:rate"]}, "full_names"),
        ({"service": "s", "batch": 0}, "from 1 to 1000"),
        ({"service": "s", "batch": True}, "from 1 to 1000"),
        ({"service": "s", "full_names": "yes"}, "true or false"),
        ({"servce": "s"}, "no option 'servce'"),
    ],
)
def test_a_feast_target_that_could_not_work_is_refused_before_anything_is_sent(options, told):
    with pytest.raises(ConfigError, match=told):
        connect(Locator("fraud", "online", "feast+http://host:6566", options))


# Metrics


@pytest.mark.parametrize("name", of("metrics"))
class TestMetrics:
    def test_it_is_a_store_of_metrics(self, name, tmp_path):
        with talk(name, tmp_path) as (_, metrics):
            assert isinstance(metrics, Metrics)
            assert metrics.can <= {"control"}

    def test_one_number_is_one_series_without_labels(self, name, tmp_path):
        with talk(name, tmp_path) as (_, metrics):
            assert metrics.query(speakers()[name].ONE, business.WINDOW).series == (Sample({}, 1.5),)

    def test_a_series_without_a_number_keeps_its_labels_and_is_nan(self, name, tmp_path):
        with talk(name, tmp_path) as (_, metrics):
            one, other = metrics.query(speakers()[name].SOME, business.WINDOW).series
            assert one == Sample({"version": "1"}, 0.25)
            assert other.labels == {"version": "2"} and math.isnan(other.value)

    def test_nothing_found_is_empty_and_no_error(self, name, tmp_path):
        with talk(name, tmp_path) as (_, metrics):
            assert metrics.query(speakers()[name].NONE, business.WINDOW).series == ()

    def test_a_query_it_does_not_take_is_told_in_its_own_words(self, name, tmp_path):
        with talk(name, tmp_path) as (_, metrics), pytest.raises((AnswerError, DataError), match=r"parse error|syntax error"):
            metrics.query(speakers()[name].BAD, business.WINDOW)

    def test_the_smallest_query_is_answered(self, name, tmp_path):
        with talk(name, tmp_path) as (_, metrics):
            assert metrics.query(metrics.smallest, business.WINDOW).series == (Sample({}, 1.0),)

    def test_it_is_no_control_look_unless_it_is_told_how(self, name, tmp_path):
        with talk(name, tmp_path) as (speaker, metrics):
            assert (metrics.can, metrics.sighted()) == (frozenset(), "")
            assert not getattr(speaker, "requests", ())


# Registries


@pytest.mark.parametrize("name", of("registry"))
class TestRegistry:
    def test_versions_come_in_the_order_of_their_registration(self, name, tmp_path):
        with talk(name, tmp_path) as (_, registry):
            assert isinstance(registry, Registry)
            assert [one.version for one in registry.versions()] == ["2", "1"]
            assert all(one.registered_at.tzinfo is not None for one in registry.versions())

    def test_a_version_that_is_not_registered_is_none(self, name, tmp_path):
        with talk(name, tmp_path) as (_, registry):
            assert registry.version("9") is None
            assert registry.golden("9") is None

    def test_golden_rows_come_back_as_they_were_recorded(self, name, tmp_path):
        with talk(name, tmp_path) as (_, registry):
            golden = registry.golden("2")
            assert (golden.version, len(golden.rows), golden.rtol, golden.atol) == ("2", 5, 1e-3, 1e-5)
            assert golden.rows[3].request["inputs"][0]["data"] == [3, 1.0]
            assert golden.rows[3].expected["outputs"][0]["data"] == [9.0, 3.0]

    def test_a_digest_names_each_version(self, name, tmp_path):
        with talk(name, tmp_path) as (_, registry):
            assert len({one.digest for one in registry.versions()}) == 2

    def test_it_writes_down_which_version_is_in_force_and_takes_it_back(self, name, tmp_path):
        with talk(name, tmp_path) as (speaker, registry):
            assert "record" in registry.can
            assert registry.record.before({"to": "2"}) is None
            assert registry.record.look({"to": "2"}, attempt(None)) == Absent("nothing is still in force by the registry")
            for to, was in (("2", None), ("1", "2")):
                registry.record.do({"to": to}, attempt(was))
                assert registry.record.look({"to": to}, attempt(was)) == Done({"from": was, "to": to}, f"{to} is in force by the registry")
                assert speaker.recorded == to
            back = registry.record.undo({"to": "2"}, None, None)
            registry.record.do(back, attempt("1"))
            assert registry.record.look(back, attempt("1")) == Done({"from": "1", "to": None}, "nothing is in force by the registry")
            assert speaker.recorded is None

    def test_it_leaves_alone_what_somebody_else_has_recorded(self, name, tmp_path):
        with talk(name, tmp_path) as (speaker, registry):
            speaker.recorded = "1"
            with pytest.raises(AnswerError, match="somebody else moved it") as caught:
                registry.record.do({"to": "2"}, attempt(None))
            assert (caught.value.status, speaker.recorded) == (409, "1")
            assert isinstance(registry.record.look({"to": "2"}, attempt(None)), Failed)

    def test_a_version_that_is_not_registered_is_not_recorded(self, name, tmp_path):
        with talk(name, tmp_path) as (speaker, registry):
            for _ in range(2):
                with pytest.raises((CannotError, AnswerError)):
                    registry.record.do({"to": "9"}, attempt(None))
            assert speaker.recorded is None


@pytest.fixture
def registry(tmp_path):
    return connect(where(folder.Speaker(tmp_path), "registry"))


@pytest.mark.parametrize("damage", ["", "../1", "1\n2", "\x00", "x" * 300])
def test_a_promoted_version_that_could_be_none_is_an_error_and_is_left(registry, damage):
    (registry.root / "_promoted").write_text(damage)
    with pytest.raises(AnswerError, match="names no version"):
        registry.record.before({"to": "1"})
    with pytest.raises(AnswerError, match="names no version"):
        registry.record.do({"to": "1"}, attempt(None))
    assert (registry.root / "_promoted").read_text() == damage


def test_of_many_that_promote_at_once_each_sees_what_it_replaced(registry):
    """No write is lost: what the winners say they replaced and set makes one line of succession."""
    together, steps = threading.Barrier(4), []

    def one(mine: str) -> None:
        together.wait(10)
        for _ in range(30):
            was = registry.record.before({"to": mine})
            try:
                registry.record.do({"to": mine}, attempt(was))
                steps.append((was, mine))
            except AnswerError:
                continue

    threads = [threading.Thread(target=one, args=(mine,)) for mine in ("1", "2", "1", "2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert steps[0][0] is None and steps[-1][1] == registry.record.before({})
    assert sum(was is None for was, _ in steps) == 1
    changes = [(was, to) for was, to in steps if was != to]
    assert abs(sum(to == "1" for _, to in changes) - sum(to == "2" for _, to in changes)) <= 1


@pytest.mark.parametrize("forged", [False, True])
def test_golden_rows_that_were_changed_are_refused_even_with_a_digest_of_their_own(registry, forged):
    path = registry.root / "1" / "golden.json"
    document = json.loads(path.read_text())
    document["rows"][0]["expected"]["outputs"][0]["data"] = [0.0, 0.1]
    if forged:
        from agent import digest

        document["digest"] = digest({key: value for key, value in document.items() if key != "digest"})
    path.write_text(json.dumps(document))
    with pytest.raises(AnswerError, match="changed after it was recorded"):
        registry.golden("1")


def test_a_manifest_that_was_changed_is_refused_but_may_be_declared_good(registry):
    path = registry.root / "1" / "manifest.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "declared_good_by": "ada"}))
    assert registry.version("1").declared_good_by == "ada"
    path.write_text(json.dumps({**document, "lineage": {"data": "elsewhere"}}))
    with pytest.raises(AnswerError, match="changed after it was recorded"):
        registry.versions()


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", "\xff"])
def test_a_damaged_manifest_is_an_error_that_names_the_file(registry, damage):
    (registry.root / "1" / "manifest.json").write_text(damage, encoding="latin-1")
    with pytest.raises(AnswerError, match=r"manifest.json"):
        registry.version("1")


def test_golden_rows_that_were_deleted_are_missed(registry):
    (registry.root / "1" / "golden.json").unlink()
    with pytest.raises(AnswerError, match="changed after it was recorded"):
        registry.golden("1")


def test_a_file_is_handed_out_only_as_it_was_registered(registry):
    path = registry.file("1", "model.bin")
    assert path.read_bytes() == b"times 2.0"
    path.write_bytes(b"times 2.1")
    with pytest.raises(AnswerError, match="changed after it was recorded"):
        registry.file("1", "model.bin")


@pytest.mark.parametrize("name", ["../1", "/etc", "..", ".", "", "a/b", "1\x00", ".hidden", "x" * 200])
def test_a_version_cannot_lead_out_of_the_registry(registry, tmp_path, name):
    for ask in (registry.version, registry.golden, lambda name: record(tmp_path, name, {})):
        with pytest.raises(AnswerError, match="names no version"):
            ask(name)


def test_a_link_cannot_lead_out_of_the_registry(tmp_path):
    folder.Speaker(tmp_path / "outside")
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "1").symlink_to(tmp_path / "outside" / "1")
    with pytest.raises(AnswerError, match="leads out of the registry"):
        connect(Locator("fraud", "registry", "folder:inside", folder=str(tmp_path))).version("1")


@pytest.mark.parametrize("name", ["../escaped.bin", "/etc/escaped", "manifest.json", "golden.json"])
def test_a_file_cannot_be_recorded_outside_its_version(tmp_path, name):
    with pytest.raises(CannotError, match="no file of a version"):
        record(tmp_path, "1", {name: b"x"})
    assert list(tmp_path.iterdir()) == []


def test_a_version_is_written_once(registry):
    with pytest.raises(CannotError, match="is there already"):
        record(registry.root, "1", {})
    assert registry.file("1", "model.bin").read_bytes() == b"times 2.0"


def test_of_two_that_record_one_version_at_once_one_is_refused(tmp_path):
    together, ends = threading.Barrier(2), []

    def one(mine: bytes) -> None:
        together.wait(10)
        try:
            record(tmp_path, "1", {"model.bin": mine})
            ends.append(mine)
        except CannotError:
            ends.append(None)

    threads = [threading.Thread(target=one, args=(mine,)) for mine in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    (winner,) = [end for end in ends if end]
    assert len(ends) == 2
    assert connect(Locator("fraud", "registry", f"folder:{tmp_path}")).file("1", "model.bin").read_bytes() == winner


def test_a_process_killed_while_it_records_leaves_no_version(tmp_path):
    program = """
import sys, time
from agent.targets.folder import record

def rows():
    print("recording", flush=True)
    time.sleep(60)
    yield {}, {}

record(sys.argv[1], "1", {"model.bin": b"x"}, golden=rows())
"""
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "recording\n"
        process.kill()
    registry = connect(Locator("fraud", "registry", f"folder:{tmp_path}"))
    assert (list(registry.versions()), registry.version("1")) == ([], None)
    record(tmp_path, "1", {"model.bin": b"x"})
    assert [one.version for one in registry.versions()] == ["1"]


@pytest.mark.parametrize("golden", [[({}, {"y": float("nan")})], [({}, {"y": object()})]])
def test_a_record_that_fails_leaves_nothing_behind(tmp_path, golden):
    with pytest.raises(ValueError, match="JSON"):
        record(tmp_path, "1", {"model.bin": b"x"}, golden=golden)
    assert list(tmp_path.iterdir()) == []


def test_numpy_values_are_recorded_as_lists_and_numbers(tmp_path):
    import numpy as np

    record(tmp_path, "1", {}, golden=[({"x": np.arange(3)}, {"y": np.float64(0.5)})])
    row = connect(Locator("fraud", "registry", f"folder:{tmp_path}")).golden("1").rows[0]
    assert (row.request, row.expected) == ({"x": [0, 1, 2]}, {"y": 0.5})


def test_a_registry_that_is_not_mounted_is_unreachable_and_not_empty(tmp_path):
    with pytest.raises(UnreachableError, match="no registry folder"):
        connect(Locator("fraud", "registry", "folder:nowhere", folder=str(tmp_path))).versions()
