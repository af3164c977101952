"""Drives the runs of a store to their end in a process that can be killed: at its n-th durable commit by itself, or by whoever knows its number.

    python -m tests.crash CONFIG before|after|full|never N

`full`: the n-th durable commit finds no room on the disk.

With --warm it takes such jobs as lines of JSON, {"config", "where", "n", "by"}, and answers each with two lines: the number of the process that
does it, and its exit status. That process is forked from one with all imports behind it, which saves a second of CPU each time.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sqlalchemy.exc import OperationalError

from agent import config, verbs
from agent.errors import StoreError
from agent.respond import Responder
from agent.store import Store, locked
from agent.workers import Pool
from agent.world import World

FULL = 3
LONGEST = 60.0  # seconds that all runs together may take


def drive(path: str, where: str, n: int, by: str = "") -> int:
    """All active runs to their end; `by` approves what waits for a person. 1: they do not come to it; FULL: there was no room once."""
    made = config.load(Path(path))
    with locked(Path(made.store)):
        store = Store.open(made.store, mark=_failing(where, n)).start()
        world = World(made, store, Pool(1))
        responder = Responder(world)
        responder.recover()
        ended = _driven(world, responder, by)
        responder.stop()
        store.close()
    return 1 if not ended else FULL if store.errors else 0


def _driven(world: World, responder: Responder, by: str) -> bool:
    end = time.monotonic() + LONGEST
    while time.monotonic() < end:
        for future in responder.tick(world.clock()):
            future.result(30)
        with world.store.read() as ledger:
            active = ledger.runs(active_only=True)
        if not active:
            return True
        for run in active:
            if by and run.state == "awaiting" and not run.approved_by:
                with suppress(StoreError):  # no room to write it down: whoever approves is told so, and tries again
                    verbs.approve(world, run.id, by)
        time.sleep(0.01)  # runs wait in steps of 50 ms and more: do not spin meanwhile
    return False


def _failing(where: str, n: int) -> Callable[[str], None]:
    """What the store calls before and after each durable commit."""
    seen = Counter[str]()

    def mark(point: str) -> None:
        seen[point] += 1
        if seen[point] != n:
            return
        if point == where:
            os.kill(os.getpid(), signal.SIGKILL)
        if (where, point) == ("full", "before"):
            raise OperationalError("COMMIT", {}, sqlite3.OperationalError("database or disk is full"))

    return mark


def warm() -> None:
    """One job after the other, each in a process of its own, until stdin closes."""
    for line in sys.stdin:
        job = json.loads(line)
        _import(Path(job["config"]))
        pid = os.fork()
        if not pid:
            status = 1
            try:
                status = drive(job["config"], job["where"], job["n"], job["by"])
            finally:
                os._exit(status)
        _say(pid)
        _say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def _import(path: Path) -> None:
    """What reading a configuration, its plugins and a store takes, once for all."""
    from agent import migrations, plugins

    assert migrations
    for service, watch in config.load(path).watches():
        plugins.find("check", watch.check).load()
        assert service


if __name__ == "__main__":
    if sys.argv[1:] == ["--warm"]:
        warm()
    else:
        sys.exit(drive(sys.argv[1], sys.argv[2], int(sys.argv[3])))
