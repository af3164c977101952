"""The load generators people run, each as a command and a reader of what it prints; and ours, driven as the platform drives it."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from agent.stats import quantile
from loadtests._drive import drive
from loadtests._spec import Arrivals, Trace, Traffic

SHARES = (0.5, 0.95, 0.99, 0.999)
WRK = """
done = function(summary, latency)
  io.write(string.format("SAID %d %d %d %d %d\\n", summary.requests,
    latency:percentile(50), latency:percentile(95), latency:percentile(99), latency:percentile(99.9)))
end
"""
LOCUST = """
import json, os, resource, sys
from locust import FastHttpUser, constant_throughput, events, task

def spent():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime

held = {}

@events.init.add_listener
def known(environment, **more):
    held["stats"] = environment.stats.total

@events.spawning_complete.add_listener
def begun(**known):
    held["before"] = held["stats"].num_requests, spent()

@events.test_stop.add_listener
def over(environment, **known):
    total, (requests, cpu) = environment.stats.total, held["before"]
    told = [total.get_response_time_percentile(share) for share in (0.5, 0.95, 0.99, 0.999)]
    each = (spent() - cpu) / (total.num_requests - requests)  # its users' start is no request's cost
    print("SAID " + json.dumps([total.num_requests, total.num_requests * each, *told]), file=sys.stderr)

class Ours(FastHttpUser):
    host = os.environ["HOST"]
    if os.environ["PACE"]:
        wait_time = constant_throughput(float(os.environ["PACE"]))

    @task
    def ask(self):
        self.client.get(os.environ["ASKED"])
"""


@dataclass(frozen=True)
class Said:
    """What a generator says of a run: requests, CPU seconds it took, and milliseconds at each of SHARES (None where it does not tell)."""

    n: int
    cpu: float
    latency: Sequence[float | None] = ()


@dataclass(frozen=True)
class Sender:
    """A generator: its frozen run at 200 requests a second (as near as it can), its run at full speed, and how to read what it printed."""

    name: str
    program: str
    paced: Sequence[str]
    full: Sequence[str]
    read: Callable[[str, str, float], Said]
    more: dict[str, str] = field(default_factory=dict)

    @property
    def here(self) -> bool:
        return find_spec(self.program) is not None if self.program == "locust" else shutil.which(self.program) is not None

    def run(self, command: Sequence[str], seconds: float, pace: str = "") -> Said:
        """RuntimeError with what it printed, where that is not what was expected."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        told = [part.replace("@SECONDS", f"{seconds:g}") for part in command]
        done = subprocess.run(told, env={**os.environ, **self.more, "PACE": pace}, capture_output=True, text=True, timeout=seconds + 90)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        try:
            return self.read(done.stdout, done.stderr, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        except (TypeError, IndexError, ValueError, StopIteration) as problem:
            raise RuntimeError(f"{self.name} ended with {done.returncode}: {(done.stdout + done.stderr)[-500:]}") from problem


def senders(url: str, folder: Path) -> list[Sender]:
    """wrk and ab know no pace, and send as fast as ten connections allow; hey and locust are paced to 200 a second, of twenty users each."""
    (folder / "done.lua").write_text(WRK)
    (folder / "locustfile.py").write_text(LOCUST)
    host, _, asked = url.partition("/v2")
    wrk = ("wrk", "-t1", "-d@SECONDSs", "-s", str(folder / "done.lua"), url)
    ab = ("ab", "-q", "-k", "-t@SECONDS", "-n99999999")
    hey = ("hey", "-z", "@SECONDSs", "-t", "60")
    locust = (sys.executable, "-m", "locust", "-f", str(folder / "locustfile.py"), "--headless", "-t@SECONDSs", "--only-summary")
    return [
        Sender("wrk, 10 connections", "wrk", (*wrk, "-c10"), (*wrk, "-c32"), _wrk),
        Sender("ab, 10 connections", "ab", (*ab, "-c10", url), (*ab, "-c32", url), _ab),
        Sender("hey, 20 users at 10/s", "hey", (*hey, "-c", "20", "-q", "10", "-o", "csv", url), (*hey, "-c", "32", url), _hey),
        Sender(
            "locust, 20 users at 10/s",
            "locust",
            (*locust, "-u20", "-r20"),
            (*locust, "-u32", "-r32"),
            _locust,
            {"HOST": host, "ASKED": f"/v2{asked}"},
        ),
    ]


def _wrk(out: str, err: str, cpu: float) -> Said:
    n, *latency = next(line for line in out.splitlines() if line.startswith("SAID")).split()[1:]
    return Said(int(n), cpu, [float(one) / 1000 for one in latency])


def _ab(out: str, err: str, cpu: float) -> Said:
    told = {share: re.search(rf"^\s+{share}%\s+(\d+)", out, re.MULTILINE) for share in ("50", "95", "99")}
    n = re.findall(r"Complete requests:\s+(\d+)", out)[0]
    return Said(int(n), cpu, [float(one[1]) if one else None for one in told.values()] + [None])


def _hey(out: str, err: str, cpu: float) -> Said:
    if not out.startswith("response-time"):
        return Said(int(re.findall(r"\[200\]\s+(\d+) responses", out)[0]), cpu)
    times = sorted(float(row["response-time"]) * 1000 for row in csv.DictReader(out.splitlines()))
    return Said(len(times), cpu, [quantile(times, share) for share in SHARES])


def _locust(out: str, err: str, cpu: float) -> Said:
    n, cpu, *latency = json.loads(err.rpartition("SAID ")[2].splitlines()[0])
    return Said(n, cpu, latency)


# Ours


def ours(url: str, folder: Path, arrivals: Arrivals, tell: Callable[[float, str], None] | None = None, **more: Any) -> Trace:
    """One run of ours, as the checks and the command have it."""
    (folder / "requests.jsonl").write_text('{"body": ""}\n')
    (out := folder / "out").mkdir(exist_ok=True)
    told = Traffic(url, str(folder / "requests.jsonl"), arrivals, str(out), method="GET", **more)
    return drive(told, tell) if tell else drive(told)


def said(trace: Trace) -> Said:
    """RuntimeError where a request was not answered well: it would have been cheap."""
    if not trace.good.all():
        raise RuntimeError(f"{(~trace.good).sum():,} of {len(trace.good):,} requests were not answered well: {dict(trace.said)}")
    latency = sorted(trace.latency.tolist())
    return Said(len(latency), trace.cpu, [1000 * quantile(latency, share) for share in SHARES])


# Where they run, and what they run against


@contextlib.contextmanager
def on(core: int) -> Iterator[None]:
    """What is started here stays on one core."""
    whole = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, whole)


class Freezing(threading.Thread):
    """Stops a process for a second in every ten, beginning with the sixth, until it is told to end; says for how long it was stopped each time."""

    EVERY, LASTING = 10.0, 1.0

    def __init__(self, process: Any) -> None:
        super().__init__(daemon=True)
        self.lasted: list[float] = []
        self._process, self._over = process, threading.Event()

    def run(self) -> None:
        due = time.monotonic() + self.EVERY / 2
        while not self._over.wait(max(0.0, due - time.monotonic())):
            self._process.suspend()
            began = time.monotonic()
            time.sleep(self.LASTING)
            self._process.resume()
            self.lasted.append(time.monotonic() - began)
            due += self.EVERY

    def __enter__(self) -> Freezing:
        self.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._over.set()
        self.join()

    def truth(self) -> list[float]:
        """Milliseconds at each of SHARES that requests had to wait which come evenly over whole periods, by how long each freeze lasted."""
        if not self.lasted:
            raise RuntimeError("it was over before the first freeze")
        length = sum(self.lasted) / len(self.lasted)
        step = 1e-4
        waits = sorted(max(0.0, length - place * step) for place in range(round(self.EVERY / step)))
        return [1000 * quantile(waits, share) for share in SHARES]
