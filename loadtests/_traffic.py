"""The traffic program (`python -m loadtests._traffic`): a Traffic as JSON in on stdin, progress out as JSON lines, the clocks left in files.

It stands on what locust stands on, gevent and geventhttpclient, without its users: theirs is a closed loop. It is a program of its own because
a loop of gevent's and the threads of others do not share a process well. It ends when its stdin closes, whatever it is doing: whoever started
it is gone then.
"""

from __future__ import annotations

import gc
import json
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of the group, and our parent decides what it means

import gevent  # noqa: E402
import gevent.socket  # noqa: E402
import gevent.ssl  # noqa: E402
from geventhttpclient.connectionpool import ConnectionPool, SSLConnectionPool  # noqa: E402

from agent.errors import ConfigError, NameLookupError, TrustError, UnreachableError, WatchkeeperError  # noqa: E402
from loadtests._clocks import Clocks  # noqa: E402
from loadtests._drive import heard  # noqa: E402
from loadtests._exposed import Exposed  # noqa: E402
from loadtests._lines import clock, worded  # noqa: E402
from loadtests._payload import address, payload  # noqa: E402
from loadtests._schedule import busiest, times  # noqa: E402
from loadtests._sending import Sending  # noqa: E402
from loadtests._spec import Traffic  # noqa: E402
from loadtests._watching import DRAIN, Line, Watching  # noqa: E402

OPENING = 10.0  # seconds in which connections are opened before the run
SPARE = 64  # file descriptors beside the connections
AHEAD = 0.1  # seconds between the last preparation and the first intended time


def main() -> None:
    """One run; its problem, where it has one, is its last line."""
    try:
        _run(heard(told()))
    except WatchkeeperError as problem:
        say({"problem": {"kind": type(problem).__name__, "message": str(problem)}}, must=True)


def told() -> str:
    """The first line of stdin; from then on its end is ours, and a mistake in a callback ends the program instead of being printed only."""
    line = sys.stdin.buffer.readline().decode()
    if not line:
        os._exit(1)
    hub = gevent.get_hub()
    hub.SYSTEM_ERROR = (*hub.SYSTEM_ERROR, Exception)
    _KEPT.append(hub.loop.io(0, 1))
    _KEPT[-1].start(_end_with_parent)
    return line


_KEPT: list[Any] = []  # a watcher lives as long as somebody holds it


def _end_with_parent() -> None:
    if not os.read(0, 4096):
        os._exit(1)


def _run(traffic: Traffic) -> None:
    requests, exposed = payload(traffic), Exposed(traffic.metrics)
    clocks = Clocks([] if traffic.closed else times(traffic.arrivals), bool(traffic.stream))

    def tell(line: Line, recent: Sequence[float]) -> None:
        exposed.take(line, recent)
        say(line)

    sending = ready(traffic, requests, clocks)
    watching = Watching(sending, tell)
    _KEPT.append(gevent.signal_handler(signal.SIGTERM, sending.stop, "stopped", DRAIN))
    say(watching.line())
    opened(sending)
    end = sent(sending, watching, AHEAD)
    clocks.save(Path(traffic.out), sending.next)
    say({"end": end | {"workers": 1, "lost": 0, "notes": []}}, must=True)


def ready(traffic: Traffic, requests: Sequence[bytes], clocks: Clocks, first: int = 0, step: int = 1) -> Sending:
    """All that can be known to be wrong before the first connection of the run, and then what will send it."""
    _descriptors(traffic.connections + SPARE)
    return Sending(traffic, requests, clocks, _pool(traffic), first, step)


def opened(sending: Sending) -> None:
    """Opens connections before the run: as many as told, or as the busiest second needs where answers take a tenth of one."""
    traffic = sending.traffic
    guess = traffic.closed or math.ceil(busiest(sending.clocks.intended) / 10)
    sending.open(min(traffic.connections, traffic.open_first or max(1, guess)), OPENING)


def sent(sending: Sending, watching: Watching, after: float) -> dict[str, Any]:
    """Sends it all, beginning in so many seconds, and says what came of it beside the clocks."""
    gc.freeze()  # what is there by now stays, and need not be looked through while requests are in flight
    cpu, began, at = time.process_time(), clock() + after, time.time() + after
    watch = gevent.spawn(watching.run)
    sending.run(began)
    watch.kill()
    first = sending.clocks.intended[0] if len(sending.clocks) else 0.0
    told = {"began": at, "first": first, "last": sending.last, "wall": max(0.0, sending.last - first), "cpu": time.process_time() - cpu}
    return told | {"aborted": sending.stopped, "said": dict(sending.clocks.said.most_common())}


def _descriptors(count: int) -> None:
    """Raises the soft limit of open files where that is needed and allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft in (resource.RLIM_INFINITY, -1) or soft >= count:
        return
    if hard not in (resource.RLIM_INFINITY, -1) and hard < count:
        wanted = f"{count - SPARE:,} connections need {count:,} open files"
        raise ConfigError(f"{wanted}, and this process may have {hard:,}; lower `connections`, or raise ulimit -Hn")
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def _pool(traffic: Traffic) -> ConnectionPool:
    """geventhttpclient's connections to the first of the host's addresses that takes one. The name is looked up once: a run is against one place."""
    safe, (host, port), _ = address(traffic.url)
    try:
        found = gevent.socket.getaddrinfo(host, port, type=gevent.socket.SOCK_STREAM)
    except (OSError, UnicodeError) as problem:
        raise NameLookupError(f"the load's host {host!r} was not found: {worded(problem)}; is it spelled right?") from problem
    troubles = []
    for place in found:
        pool = _connecting(traffic, safe, host, port)
        pool._resolve = lambda place=place: [place]  # type: ignore[misc, method-assign]  # it would ask a thread for every connection
        try:
            pool.release_socket(pool.get_socket())
        except (OSError, RuntimeError) as problem:
            troubles.append(problem)
        else:
            return pool
    words = f"no connection to {host}:{port}: {worded(troubles[0])}"
    raise (TrustError if words.rpartition(": ")[0].endswith("TLS") else UnreachableError)(f"{words}; nothing was sent") from troubles[0]


def _connecting(traffic: Traffic, safe: bool, host: str, port: int) -> ConnectionPool:
    within = min(traffic.timeout, OPENING)
    common: dict[str, Any] = {"size": traffic.connections + 1, "connection_timeout": within, "network_timeout": within}
    if not safe:
        return ConnectionPool(host, port, host, port, **common)
    try:
        return SSLConnectionPool(host, port, host, port, insecure=not traffic.verify, ssl_context_factory=_context(traffic), **common)
    except OSError as problem:
        raise ConfigError(f"{traffic.ca}: the certificates cannot be read: {worded(problem)}") from problem


def _context(traffic: Traffic) -> Any:
    def made(cafile: str | None = None) -> Any:
        if traffic.verify:
            return gevent.ssl.create_default_context(cafile=traffic.ca)
        return gevent.ssl._create_unverified_context()

    return made


def say(line: dict[str, Any], must: bool = False) -> None:
    """One line to whoever started us. Progress that does not fit into the pipe is dropped: a slow reader must not slow the traffic."""
    os.set_blocking(1, must)
    unsaid = json.dumps(line).encode() + b"\n"
    with suppress(BlockingIOError):
        try:
            while unsaid:
                unsaid = unsaid[os.write(1, unsaid) :]
        except BrokenPipeError:
            os._exit(1)


if __name__ == "__main__":
    main()
