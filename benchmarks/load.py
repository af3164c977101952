"""Load tests beside the generators people run: what each says of a server that freezes, CPU of a request, memory, and the daemon meanwhile.

`python -m benchmarks.load` takes seven minutes and wants two cores of its own; `--brief` is over in two and shows that it works. Both judge.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from agent.errors import CancelledError
from benchmarks.__main__ import Figure, table
from benchmarks._running import agent, load, nginx, quantile, scratch
from benchmarks._senders import SHARES, Freezing, Said, Sender, on, ours, said, senders
from loadtests._spec import Arrivals, Trace

BRIEF = "--brief" in sys.argv[1:]
ROUNDS, FROZEN, FULL, MEMORY, BESIDE = (1, 10, 4, 10, 10) if BRIEF else (3, 30, 5, 60, 40)  # seconds each, but for the first
RATE = 200
WATCHES = 100
TOLD: list[Figure] = []


def main() -> int:
    first, *_, last = [*sorted(os.sched_getaffinity(0))] * 2
    if first == last:
        print("one core only: server and generator share it, and the figures are not those promised", file=sys.stderr)
    with scratch() as name, ExitStack() as held:
        folder = Path(name)
        with on(first):
            address = held.enter_context(nginx(folder, 4096))
        url = f"{address}/v2/models/m/ready"
        with on(last):
            memory(url, folder)  # first: what is asked is the largest child so far
            accuracy(url, folder)
            cost(url, folder)
        beside(url, folder)
    if BRIEF:
        print(table(TOLD))
    return 1 if BRIEF and any(one.word == "MISSED" for one in TOLD) else 0


# What is said of a frozen server


def accuracy(url: str, folder: Path) -> None:
    """The server stands still for a second in every ten: of requests that do not wait for each other, one in ten meets it, evenly late."""
    found, truth = [], []
    for _ in range(ROUNDS):
        with Freezing(server()) as freezing:
            found.append(said(ours(url, folder, Arrivals("constant", RATE, FROZEN))))
        truth.append(freezing.truth())
    latency, true = ([median(column) for column in zip(*each, strict=True)] for each in ([one.latency for one in found], truth))
    for share, seen, right in zip(SHARES, latency, true, strict=True):
        near = {"at_most": 2.0} if share == 0.5 else {"at_least": round(0.95 * right, 1), "at_most": round(1.05 * right, 1)}
        figure(f"frozen server, ours: p{100 * share:g}", seen, "ms", f"true: {right:.0f}; {ROUNDS} x {found[0].n:,} requests; {load()}", **near)
    for sender in senders(url, folder):
        peer(sender, f"frozen server, {sender.name}: p99", lambda sender=sender: frozen(sender))


def frozen(sender: Sender) -> tuple[float | None, str, str]:
    """A peer's p99, with the others beside it."""
    with Freezing(server()) as freezing:
        one = sender.run(sender.paced, FROZEN, pace="10")
    words = [f"p{100 * share:g} {'-' if seen is None else f'{seen:.3g}'}" for share, seen in zip(SHARES, one.latency, strict=True) if share != 0.99]
    return one.latency[2], "ms", f"{', '.join(words)}; true: {', '.join(f'{right:.0f}' for right in freezing.truth())}; {one.n:,} requests"


def peer(sender: Sender, what: str, measure: Any) -> None:
    """A peer that is not here, or that did not run, is said so and stops nothing."""
    if not sender.here:
        return figure(what, None, note="not installed")
    try:
        value, unit, note = measure()
    except (RuntimeError, subprocess.TimeoutExpired) as problem:
        return figure(what, None, note=str(problem))
    figure(what, value, unit, note)


def server() -> Any:
    """The worker of the nginx that we started: its master may go on."""
    import psutil

    return next(one for one in psutil.Process().children(recursive=True) if one.name() == "nginx" and one.parent().name() == "nginx")


# What a request costs


def cost(url: str, folder: Path) -> None:
    """As fast as the server answers over 32 connections, ours and locust's in turn; and ours at a schedule it has to keep."""
    closed, paced, theirs = [], [], []
    *compiled, locust = senders(url, folder)
    for _ in range(ROUNDS):
        closed.append(each(said(ours(url, folder, Arrivals("constant", 1.0, FULL), closed=32, connections=32))))
        if locust.here:
            theirs.append(each(locust.run(locust.full, FULL)))
        paced.append(each(said(ours(url, folder, Arrivals("constant", 2_000, FULL)))))
    figure("CPU of a request, ours, 32 users", median(closed), "us", load())
    figure("CPU of a request, ours, 2,000 a second", median(paced), "us", load())
    ratio = [max(pair) / other for *pair, other in zip(closed, paced, theirs, strict=False)]
    note = f"the dearer of ours; locust: {median(theirs):.0f} us, 32 users; medians of {ROUNDS}" if theirs else "locust is not installed"
    figure("CPU of a request, ours / locust FastHttpUser", median(ratio) if ratio else None, "x", note, at_most=0.6)
    figure("requests a second and core, ours", 1e6 / max(median(closed), median(paced)), "", "by the dearer of the two", at_least=5_000)
    for one in compiled:
        peer(one, f"CPU of a request, {one.program}", lambda one=one: (each(one.run(one.full, FULL)), "us", f"its start included; {load()}"))


def each(one: Said) -> float:
    return 1e6 * one.cpu / one.n


# Memory


def memory(url: str, folder: Path) -> None:
    """Arrays for ten minutes are made before the first request, and the run is cut off; what still grows is counted for the rest."""
    seen: list[tuple[float, int]] = []

    def tell(done: float, what: str) -> None:
        if (at := done * 600) > 0:
            seen.append((at, resident()))
        if at >= MEMORY:
            raise CancelledError("enough")

    trace = ours(url, folder, Arrivals("constant", 1_000, 600), tell)
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # with what it takes to write the arrays down
    (began, before), (until, after) = seen[len(seen) // 3], seen[-1]
    growth = max(0.0, (after - before) / (until - began)) * (600 - until) / 2**20
    note = f"{most:.0f} after {until:.0f} s and {len(trace.intended):,} requests, arrays for 600 s in it; growing by {growth:.0f} in the rest"
    figure("10 minutes at 1,000 a second: memory", most + growth, "MiB", note, at_most=150)


def resident() -> int:
    """Bytes of the traffic program."""
    import psutil

    return max(one.memory_info().rss for one in psutil.Process().children() if one.name() != "nginx")


# The daemon meanwhile


def beside(url: str, folder: Path) -> None:
    """A hundred watches of the same server go on, each every two seconds."""
    home = folder / "daemon"
    home.mkdir()
    address = url.partition("/v2")[0]
    watch = "watches: [{check: serving.ready, every: 2s}]"
    services = "".join(f"  s{n}: {{owner: ada, targets: {{server: 'oip+{address}/m{n}'}}, {watch}}}\n" for n in range(WATCHES))
    configured = home / "watchkeeper.yaml"
    configured.write_text(f"store: {home}/watch.db\nlisten: 127.0.0.1:0\nservices:\n{services}notify: {{channels: {{ada: 'http://127.0.0.1:9/'}}}}\n")
    with agent(configured) as running:
        time.sleep(5)  # what is done once at the start is over
        alone = lateness(running, lambda: time.sleep(BESIDE))
        traces: list[Trace] = []
        late = lateness(running, lambda: traces.append(ours(url, folder, Arrivals("poisson", RATE, BESIDE))))
    lag = sorted(1000 * float(one) for one in traces[0].dispatched - traces[0].intended)
    note = f"without the load {alone:.0f} ms; the generator's own lag p99 {lag[int(0.99 * len(lag))]:.1f} ms; {load()}"
    figure(f"{RATE} requests a second beside {WATCHES} watches at 2 s: lateness p99", late, "ms", note, at_most=50)


def lateness(running: Any, meanwhile: Callable[[], None]) -> float:
    """By how many milliseconds 99 % of the looks were late at most."""
    before = running.metrics()
    meanwhile()
    return 1000 * quantile(before, running.metrics(), 0.99)


def figure(name: str, value: float | None, unit: str = "", note: str = "", **promise: float) -> None:
    TOLD.append(Figure(name, value, unit, note=note, **promise))
    print(json.dumps({"figure": name, "value": value, "unit": unit, "note": note, **promise}), flush=True, file=sys.stderr if BRIEF else sys.stdout)


if __name__ == "__main__":
    sys.exit(main())
