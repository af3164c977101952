"""Names that do not resolve, ports that do not answer and certificates that are not to be believed, each ending in time."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from agent.dial import Trust, dial
from agent.errors import (
    ConfigError,
    DeadlineError,
    NameLookupError,
    TrustError,
    UnreachableError,
)
from agent.model import Auth
from agent.wire import Resolver, Wire
from tests.servers import hostile
from tests.servers.hostile import Script, answer, serving
from tests.wires import at, ends_within, tls, wired


def always(host: str, port: int) -> list[Any]:
    return socket.getaddrinfo("127.0.0.1", port, type=socket.SOCK_STREAM)


# Connections


def test_a_port_nobody_listens_on_is_refused_at_once() -> None:
    with ends_within(0), pytest.raises(UnreachableError, match=r"refused.*check that the server runs"):
        Wire(at(f"http://127.0.0.1:{hostile.refused()}", within=30)).get()


def test_a_port_that_neither_takes_nor_refuses_ends_at_the_deadline() -> None:
    with hostile.black_hole() as (host, port), ends_within(), pytest.raises(DeadlineError, match=r"no connection to 127\.0\.0\.1"):
        Wire(at(f"http://{host}:{port}")).get()


def test_an_address_that_is_a_black_hole_leaves_time_for_the_next_one() -> None:
    with hostile.black_hole() as hole, serving(hostile.says(answer())) as server:
        both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in (hole, ("127.0.0.1", server.port))]
        dial("two.test", 80, time.monotonic() + 1, Resolver(lambda host, port: both)).close()


# Names


@pytest.fixture
def hanging() -> Iterator[Callable[[str, int], list[Any]]]:
    """A resolver that never answers for names that begin with `lost`."""
    over = threading.Event()

    def ask(host: str, port: int) -> list[Any]:
        if host.startswith("lost"):
            over.wait(60)
        return always(host, port)

    yield ask
    over.set()


def test_a_resolver_that_hangs_ends_at_the_deadline_and_blocks_nobody_else(hanging: Any) -> None:
    names = Resolver(hanging, size=2)
    with serving(hostile.says(answer())) as server, ThreadPoolExecutor(8) as threads, ends_within():
        lost = [threads.submit(Wire(at("http://lost.test"), names=names).get) for _ in range(7)]  # one name, one thread, however many wait
        assert Wire(at(f"http://found.test:{server.port}"), names=names).get().status == 200
        for each in lost:
            assert isinstance(each.exception(), NameLookupError) and "the resolver does not answer" in str(each.exception())


def test_a_resolver_with_all_threads_hanging_says_that_it_is_busy(hanging: Any) -> None:
    names = Resolver(hanging, size=1)
    with pytest.raises(NameLookupError, match="does not answer"):
        Wire(at("http://lost.test"), names=names).get()
    with pytest.raises(NameLookupError, match="resolver busy"):
        Wire(at("http://found.test"), names=names).get()


def test_an_address_in_digits_needs_no_resolver(hanging: Any) -> None:
    with wired(hostile.says(answer()), names=Resolver(hanging, size=0)) as wire:
        assert wire.get().status == 200


def test_a_name_that_does_not_exist_says_so_and_the_next_lookup_asks_anew() -> None:
    answers: list[Any] = [socket.gaierror(socket.EAI_NONAME, "Name or service not known"), UnicodeError("label too long"), None]

    def ask(host: str, port: int) -> list[Any]:
        if problem := answers.pop(0):
            raise problem
        return always(host, port)

    with serving(hostile.says(answer())) as server:
        wire = Wire(at(f"http://model.test:{server.port}"), names=Resolver(ask, size=1))
        with pytest.raises(NameLookupError, match=r"model\.test does not resolve \(Name or service not known\)"):
            wire.get()
        with pytest.raises(NameLookupError, match="label too long"):
            wire.get()
        assert wire.get().status == 200


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[trustme.CA, str]]:
    ca, path = trustme.CA(), tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    yield ca, str(path)


def test_a_trusted_certificate_is_spoken_to_over_one_kept_connection(authority: Any) -> None:
    ca, path = authority
    with serving(hostile.says(answer(b"[1]")), tls(ca.issue_cert("127.0.0.1"))) as server:
        wire = Wire(at(server.url, ca=path, within=5))
        assert [wire.get().json() for _ in range(3)] == [[1]] * 3
        assert server.connections == 1


@pytest.mark.parametrize(
    ("leaf", "words"),
    [
        (lambda ca: ca.issue_cert("127.0.0.1", not_after=datetime(2020, 1, 1, tzinfo=UTC)), "expired"),
        (lambda ca: ca.issue_cert("elsewhere.test"), "IP address mismatch"),
        (lambda ca: trustme.CA().issue_cert("127.0.0.1"), "unable to get local issuer|self-signed"),
    ],
    ids=["expired", "for another host", "from an unknown issuer"],
)
def test_a_certificate_that_is_not_to_be_believed_is_never_spoken_to(authority: Any, leaf: Any, words: str) -> None:
    ca, path = authority
    with serving(hostile.says(answer()), tls(leaf(ca))) as server:
        with pytest.raises(TrustError, match=words):
            Wire(at(server.url, ca=path, within=5)).get()
        assert Wire(at(server.url, verify=False, within=5)).get().status == 200  # switched off by name, for this target alone


@pytest.mark.parametrize("script", [hostile.mute, hostile.drips(b"")], ids=["mute", "waits"])
def test_a_tls_handshake_that_never_ends_ends_at_the_deadline(script: Script) -> None:
    with serving(script) as server, ends_within(), pytest.raises(DeadlineError, match="TLS handshake"):
        Wire(at(f"https://127.0.0.1:{server.port}")).get()


def test_a_tls_handshake_that_drips_ends_at_the_deadline() -> None:
    def drip(one: socket.socket) -> None:
        for byte in b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03" + bytes(500):
            one.sendall(bytes([byte]))
            time.sleep(0.05)

    with serving(drip) as server, ends_within(), pytest.raises(DeadlineError, match="TLS handshake"):
        Wire(at(f"https://127.0.0.1:{server.port}")).get()


def test_a_port_that_speaks_no_tls_says_so() -> None:
    with (
        serving(lambda one: one.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")) as server,
        pytest.raises(TrustError, match="check that this port speaks TLS"),
    ):
        Wire(at(f"https://127.0.0.1:{server.port}")).get()


def test_a_client_certificate_opens_what_demands_one(authority: Any, tmp_path: Path) -> None:
    ca, path = authority
    demanding = tls(ca.issue_cert("127.0.0.1"))
    ca.configure_trust(demanding)
    demanding.verify_mode = ssl.CERT_REQUIRED
    client = ca.issue_cert("watchkeeper@fraud.test")
    client.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    client.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    with serving(hostile.says(answer()), demanding) as server:
        shown_ = Auth("mtls", {"cert": "cert.pem", "key": "key.pem"})
        assert Wire(at(server.url, ca=path, look=shown_, folder=str(tmp_path), within=5)).get().status == 200
        with pytest.raises((TrustError, UnreachableError)):
            Wire(at(server.url, ca=path, within=5)).get()


def test_one_tls_context_serves_the_whole_process_until_its_file_changes(authority: Any, tmp_path: Path) -> None:
    _, path = authority
    copy = tmp_path / "ca.pem"
    copy.write_bytes(Path(path).read_bytes())
    first = Trust(ca=str(copy)).context()
    assert Trust(ca=str(copy)).context() is first
    os.utime(copy, (1, 1))
    assert Trust(ca=str(copy)).context() is not first


def test_a_missing_ca_file_is_named() -> None:
    with serving(hostile.mute) as server, pytest.raises(ConfigError, match=r"nowhere/ca\.pem"):
        Wire(at(f"https://127.0.0.1:{server.port}", ca="nowhere/ca.pem")).get()
