"""Credentials reach the target they are for and are never printed; proxies are used only when asked for."""

from __future__ import annotations

import json
import re
import socket
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trustme

from agent.credential import within
from agent.errors import (
    AnswerError,
    ConfigError,
    DeadlineError,
    DeniedError,
    TargetError,
    UnreachableError,
)
from agent.model import Auth
from agent.wire import Wire, shown
from tests.servers import hostile
from tests.servers.hostile import Script, answer, serving
from tests.wires import at, ends_within, tls, wired

# Credentials

CREDENTIALS = [
    (Auth("bearer", {"token": "s3cret\n"}), "Authorization: Bearer s3cret"),
    (Auth("basic", {"user": "me", "password": "s3cret"}), "Authorization: Basic bWU6czNjcmV0"),
    (Auth("header", {"name": "X-Key", "value": "s3cret"}), "X-Key: s3cret"),
]


@pytest.mark.parametrize(("auth", "line"), CREDENTIALS, ids=["bearer", "basic", "header"])
def test_a_credential_is_shown_to_the_target_and_to_nobody_else(auth: Auth, line: str) -> None:
    said: list[str] = []

    def echo(one: socket.socket) -> None:
        said.append(hostile.heard(one).decode())
        one.sendall(answer(said[-1].encode(), "400 Bad Request"))

    with wired(echo, "/v2?token=s3cret", look=auth) as wire:
        with pytest.raises(AnswerError) as caught:
            wire.get()
        assert line in said[0].splitlines()
        assert "***" in str(caught.value)
        trace = "".join(traceback.format_exception(caught.value))
        for text in (trace, repr(wire), repr(auth), repr(wire.at.look), repr(wire.get(anyway=True))):
            assert "s3cret" not in text and "bWU6czNjcmV0" not in text


def test_looking_and_acting_show_different_credentials_over_different_connections() -> None:
    script, requests = hostile.noting()
    with serving(script) as server:
        wire = Wire(at(server.url, look=Auth("bearer", {"token": "eyes"}), act=Auth("bearer", {"token": "hands"})))
        wire.get()
        wire.post("act", json={}, acting=True)
        assert [re.search(rb"Bearer (\w+)", one)[1] for one in requests] == [b"eyes", b"hands"]  # type: ignore[index]
        assert server.connections == 2


def test_with_only_a_credential_to_look_acting_is_refused_before_anything_is_sent() -> None:
    script, requests = hostile.noting()
    with wired(script, look=Auth("bearer", {"token": "eyes"})) as wire:
        with pytest.raises(DeniedError, match="configure `act`"):
            wire.post(json={}, acting=True)
        assert requests == []
    with wired(script) as wire:
        assert wire.post(json={}, acting=True).status == 200  # no credentials at all: the target asks for none


def test_a_credential_with_a_line_break_inside_is_refused_without_being_printed() -> None:
    with wired(hostile.mute, look=Auth("bearer", {"token": "s3cret\r\nX-Evil: 1"})) as wire:
        with pytest.raises(ConfigError, match="check them for line breaks") as caught:
            wire.get()
        assert "s3cret" not in f"{caught.value}{caught.value.__cause__}"


def test_an_oauth2_token_is_fetched_once_kept_and_fetched_again_when_refused() -> None:
    tokens = iter(range(1, 10))
    asked_for: list[bytes] = []

    def granting(one: socket.socket) -> None:
        while True:
            asked_for.append(hostile.heard(one))
            one.sendall(answer(json.dumps({"access_token": f"t{next(tokens)}", "expires_in": 3600}).encode()))

    def picky(one: socket.socket) -> None:
        while True:
            one.sendall(answer(status="401 Unauthorized") if b"Bearer t1" in hostile.heard(one) and len(seen) > 1 else answer())

    seen: list[int] = []
    with serving(granting) as grants, serving(picky) as server:
        client = Auth("oauth2", {"token_url": grants.url + "/token", "client_id": "wk", "client_secret": "s3cret&", "scope": "read"})
        wires = [Wire(at(f"{server.url}/{name}", look=client)) for name in "ab"]
        for wire in wires:
            seen.append(wire.get().status)
        assert len(asked_for) == 1 and b"grant_type=client_credentials&scope=read" in asked_for[0]
        with pytest.raises(DeniedError):
            wires[0].get()
        assert wires[0].get().status == 200 and len(asked_for) == 2


def test_a_token_server_that_hangs_is_told_within_the_targets_own_deadline() -> None:
    with serving(hostile.mute) as grants, serving(hostile.says(answer())) as server:
        client = Auth("oauth2", {"token_url": grants.url, "client_id": "wk", "client_secret": "s3cret"})
        with ends_within(), pytest.raises(DeadlineError, match=str(grants.port)):
            Wire(at(server.url, look=client)).get()


@pytest.mark.parametrize(
    ("url", "more", "words"),
    [
        ("ftp://h/x", {}, "not an HTTP address"),
        ("http://h:99999/", {}, "not an HTTP address"),
        ("http://me:s3cret@h/", {}, "move it to `look`"),
        ("http://h/", {"look": Auth("bearer", {"tokn": "s3cret"})}, "of kind bearer needs token"),
        ("http://h/", {"act": Auth("magic", {})}, "no credential of kind 'magic'"),
        ("http://h/", {"options": {"proxy": "socks5://u:s3cret@p"}}, "proxy 'socks5://p' cannot be used"),
    ],
)
def test_what_could_never_work_is_refused_when_the_wire_is_made(url: str, more: Mapping[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        Wire(at(url, **more))
    assert "s3cret" not in str(caught.value)


def test_a_url_is_shown_without_its_secrets() -> None:
    assert shown("https://u:p@h:1/a?token=x&page=2&X-Amz-Signature=y#f") == "https://h:1/a?token=***&page=2&X-Amz-Signature=***"


# Proxies


def test_the_secrets_within_a_url_are_found_as_written_and_as_meant() -> None:
    assert within("postgresql://ada:p%40ss@db/ml?table=x&sslkey=a+b#c") == {"p%40ss", "p@ss", "a+b", "a b"}
    assert within("https://token@host/x?sig=&page=2") == within("parquet:logs/a?b:c@d/*.parquet") == set()


def test_a_proxy_in_the_environment_is_used_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    script, requests = hostile.noting()
    with serving(script) as through, serving(hostile.says(answer())) as server:
        monkeypatch.setenv("http_proxy", f"http://me:pw@127.0.0.1:{through.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        Wire(at(server.url)).get()
        assert requests == []
        Wire(at(server.url, options={"proxy": "environment"})).get("models")
        assert requests[0].startswith(f"GET {server.url}/models HTTP/1.1".encode()) and b"Proxy-Authorization: Basic bWU6cHc=" in requests[0]


def test_tls_goes_through_a_proxy_in_a_tunnel(tmp_path: Path) -> None:
    ca, path = trustme.CA(), tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    with serving(hostile.forwarding) as through, serving(hostile.says(answer()), tls(ca.issue_cert("127.0.0.1"))) as server:
        wire = Wire(at(server.url, ca=str(path), options={"proxy": through.url}, within=5))
        assert wire.get().status == wire.get().status == 200
        assert (through.connections, server.connections) == (1, 1)


@pytest.mark.parametrize(
    ("script", "kind"),
    [(hostile.mute, DeadlineError), (hostile.once(b""), UnreachableError), (hostile.says(answer(status="407 No")), UnreachableError)],
)
def test_a_proxy_that_gives_no_way_through_ends_in_time(script: Script, kind: type[TargetError]) -> None:
    with serving(script) as through, ends_within(), pytest.raises(kind):
        Wire(at("https://model.test", options={"proxy": through.url})).get()
