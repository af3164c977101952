"""What tests of the wire share: a Wire to a loopback server, and the promise that something ends in time."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import trustme

from agent.model import Locator
from agent.wire import NAMES, Resolver, Wire
from tests.servers.hostile import Script, serving

WITHIN = 0.4  # seconds an exchange may take in these tests
SLACK = 2.0  # seconds a busy machine may add; it is 0.01 where nothing else runs


def at(url: str, within: float = WITHIN, **more: Any) -> Locator:
    return Locator("fraud", "server", url, within=timedelta(seconds=within), **more)


@contextlib.contextmanager
def wired(script: Script, path: str = "/v2", names: Resolver = NAMES, max_bytes: int = 100_000, **more: Any) -> Iterator[Wire]:
    with serving(script) as server:
        wire = Wire(at(server.url + path, **more), names=names, max_bytes=max_bytes)
        yield wire
        wire.close()


@contextlib.contextmanager
def ends_within(seconds: float = WITHIN) -> Iterator[None]:
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < seconds + SLACK


def tls(leaf: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    return context
