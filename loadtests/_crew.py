"""Several generators (`python -m loadtests._crew`): locust's own master and workers, each sending its slice of one global schedule.

The leader draws the schedule, gives worker i of k its requests i, i + k, i + 2k ..., measures how far each worker's clock is from its own, lets
all begin at one moment, and puts their clocks together again. With an address as its argument the program is a worker.

Locust's RPC is neither encrypted nor authenticated, and what it carries holds the requests and their headers: a port that workers of other
machines join belongs on a private network. Workers here prove themselves by a word they were given on stdin.
"""

from __future__ import annotations

import locust  # isort: skip  # noqa: F401 - patches the standard library, so it comes before whatever uses that

import logging
import os
import signal
import sys
from contextlib import suppress
from typing import Any

import gevent
from locust.env import Environment
from locust.exception import RPCError

from agent.errors import ConfigError, WatchkeeperError
from loadtests._drive import heard
from loadtests._exposed import place
from loadtests._leading import Leader, Stopped
from loadtests._spec import Traffic
from loadtests._traffic import say, told
from loadtests._watching import still
from loadtests._working import Worker


def main() -> None:
    """The leader, or with an address the worker; a problem is the last line."""
    logging.disable(logging.WARNING)  # locust's own words about users and spawning
    word = told()
    try:
        if len(sys.argv) > 1:
            Worker(Environment(user_classes=[]), *place(sys.argv[1], "join"), word.strip()).work()
        else:
            _lead(heard(word))
    except WatchkeeperError as trouble:
        say({"problem": {"kind": type(trouble).__name__, "message": str(trouble)}}, must=True)
    os._exit(0)  # locust's greenlets would keep us


def _lead(traffic: Traffic) -> None:
    leader = Leader(traffic, _listening)
    ending = gevent.signal_handler(signal.SIGTERM, leader.stop, "stopped")
    say(still("starting workers"))
    with suppress(Stopped):
        leader.lead()
    say({"end": leader.save()}, must=True)
    ending.cancel()


def _listening(host: str, port: int) -> Any:
    """locust's master, which listens from then on; port 0 is any that is free."""
    try:
        return Environment(user_classes=[]).create_master_runner(host, port)
    except (RPCError, SystemExit, OSError) as trouble:
        raise ConfigError(f"join: {host}:{port} cannot be listened on; is the address one of ours, and the port free?") from trouble


if __name__ == "__main__":
    main()
