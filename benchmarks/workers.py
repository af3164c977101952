"""What a heavy look pays for being elsewhere: CPU of starting a worker, and of one call to a warm one, on both sides of the pipe."""

import json
import os
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

CALLS = 900  # one worker's life is 1,000
CHECK = """
from agent import check, ok
@check(pillar="monitoring", asks="Anything at all?")
def nothing():
    return ok("nothing to do")
"""


def main():
    with tempfile.TemporaryDirectory() as folder:
        install(Path(folder))
        measure()


def install(folder):
    """A package with one check that does nothing, found as anyone's is."""
    for name, text in {
        "idle/__init__.py": "",
        "idle/idle.py": CHECK,
        "idle-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: idle\nVersion: 1\n",
        "idle-1.dist-info/entry_points.txt": "[watchkeeper.checks]\nidle = idle\n",
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = str(folder)


def measure():
    import psutil

    from agent.workers import Pool, perform

    job, minute = {"check": "idle.nothing", "now": "2026-01-01T00:00:00+00:00"}, timedelta(minutes=1)
    with Pool(1) as pool:
        began = time.monotonic()
        pool.call(job, minute)
        first = time.monotonic() - began
        child = psutil.Process(next(iter(pool._all))._process.pid)
        start = cpu(child)
        figure(
            "CPU of starting a worker",
            start * 1000,
            "ms",
            f"first call answered after {first * 1000:.0f} ms, {child.memory_info().rss >> 20} MB resident",
        )
        here, there = time.process_time(), cpu(child)
        for _ in range(CALLS):
            pool.call(job, minute)
        here, there = time.process_time() - here, cpu(child) - there
    perform(job)
    alone = time.process_time()
    for _ in range(CALLS):
        perform(job)
    alone = time.process_time() - alone
    note = f"{here / CALLS * 1e6:.0f} us here, {there / CALLS * 1e6:.0f} us there; {alone / CALLS * 1e6:.0f} us of it in a thread"
    figure("CPU of a call to a warm worker", (here + there) / CALLS * 1e6, "us", note)


def cpu(process):
    spent = process.cpu_times()
    return spent.user + spent.system


def figure(name, value, unit, note):
    print(json.dumps({"figure": name, "value": value, "unit": unit, "note": note}))


if __name__ == "__main__":
    main()
