"""Several generators: one schedule among them, one set of clocks from them, and what happens when one of them is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.errors import ConfigError, UnreachableError
from loadtests._drive import drive
from loadtests._generator import unfit
from loadtests._schedule import times
from loadtests._spec import Arrivals
from tests.processes import start, until
from tests.servers import hostile
from tests.traffic import kinds, run, traffic

WORKER = "import sys; from loadtests._drive import join; join(sys.argv[1], lambda done, words: print(words, flush=True)); print('done', flush=True)"


def test_a_worker_that_is_lost_ends_the_run_and_makes_it_unfit(tmp_path: Path) -> None:
    def hear(said: Any) -> None:
        if said["done"] > 10 and not killed:
            killed.append(next(pid for pid in descendants(os.getpid()) if working(pid)))
            os.kill(killed[0], signal.SIGKILL)

    killed: list[int] = []
    with hostile.serving(hostile.says(hostile.answer())) as server:
        trace = run(tmp_path, server.url, rate=50, seconds=600, workers=2, hear=hear)
    assert (trace.workers, trace.lost, trace.aborted) == (2, 1, "a worker was lost")
    assert set(kinds(trace)) == {"good"} and "1 of its 2 workers were lost" in unfit(trace, 1.0)[0]


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that they did; threads and processes that end meanwhile have none."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return [*found, *(each for child in found for each in descendants(child))]


def working(pid: int) -> bool:
    """Whether it is a worker that was started here: other tests' servers name addresses too."""
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return "loadtests._crew" in words and any(word.startswith("127.0.0.1:") for word in words)


def test_workers_from_elsewhere_send_one_schedule_between_them(tmp_path: Path) -> None:
    script, requests = hostile.noting()
    address, drawn, traces = f"127.0.0.1:{hostile.refused()}", Arrivals("poisson", rate=150, seconds=0.5, seed=5), []
    with hostile.serving(script) as server:
        wanted = traffic(tmp_path, server.url, arrivals=drawn, bodies=["one", "two", "three"], workers=2, join=address)
        leader = threading.Thread(target=lambda: traces.append(drive(wanted)), daemon=True)
        with start([sys.executable, "-c", WORKER, address]) as one, start([sys.executable, "-c", WORKER, address]) as two:
            until(lambda: "waiting for the load test" in one.text, "the first worker waits", 60, lambda: one.text)
            leader.start()
            for worker in (one, two):
                until(lambda worker=worker: "done" in worker.text, "its work is done", 60, lambda worker=worker: worker.text)
            leader.join(30)
    (trace,) = traces
    assert np.array_equal(trace.intended, times(drawn)), "put together again, it is the schedule that was drawn"
    assert set(kinds(trace)) == {"good"} and trace.workers == 2 and trace.lost == 0 and trace.aborted == ""
    assert (trace.intended <= trace.dispatched).all() and (trace.dispatched <= trace.sent).all() and (trace.sent <= trace.done).all()
    bodies = sorted(request.rpartition(b"\r\n\r\n")[2] for request in requests)
    assert bodies == sorted((b"one", b"two", b"three")[place % 3] for place in range(len(trace.kind))), "request i has line i of the payload"
    (note,) = trace.notes
    assert note.startswith("the clocks of the 2 workers were at most ")


def test_what_is_wrong_for_one_worker_is_said_for_all(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match=r"refused.*nothing was sent"):
        run(tmp_path, f"http://127.0.0.1:{hostile.refused()}", workers=2)


def test_an_address_that_is_taken_is_said(tmp_path: Path) -> None:
    with hostile.serving(hostile.mute) as taken, pytest.raises(ConfigError, match="cannot be listened on"):
        run(tmp_path, taken.url, workers=2, join=f"127.0.0.1:{taken.port}")
