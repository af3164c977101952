"""What the engine itself costs: a plan of five steps whose actions take no time, from wanted to its end, every durable commit included.

    python -m benchmarks.engine [--runs 300]

Two plans: five effects one after the other, which is three durable commits each, and one effect among four looks, which is the shape of a rollback.
Beside them the same number of bare commits in SQLite with `synchronous=FULL`, which no engine on this disk could do without.
"""

import argparse
import json
import sqlite3
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from agent import config, verbs
from agent.respond import Responder
from agent.store import Store
from agent.workers import Pool
from agent.world import World
from benchmarks._running import load, scratch
from tests.plugin_box import install

TARGET = """
from agent import Done, Swap, adapter

class Looks(Swap):
    def look(self, args, t):
        return Done({}, "it is so")

@adapter(role="router", schemes=("memory",))
class Memory:
    can = frozenset({"switch"})
    at = "0"

    def __init__(self, at): ...

    def served(self):
        return {Memory.at: 1.0}

    def _write(self, value, expected):
        Memory.at = value

    @property
    def point(self):
        return Swap(lambda: Memory.at, self._write)

    @property
    def looks(self):
        return Looks(lambda: Memory.at, self._write, writes=False)

    def close(self): ...
"""
PLANS = """
from datetime import timedelta
from agent import Router, Step, runbook

PATIENCE = timedelta(seconds=10)

@runbook(asks="What do five effects cost?")
def effects(service: str, router: Router) -> tuple[Step, ...]:
    # Five effects, one after the other.
    return tuple(Step(f"step {n}", "router.point", {"to": str(n)}, PATIENCE) for n in range(1, 6))

@runbook(asks="What does one effect among four looks cost?")
def looks(service: str, router: Router) -> tuple[Step, ...]:
    # The shape of a rollback.
    verbs = ("looks", "looks", "point", "looks", "looks")
    return tuple(Step(f"step {n}", f"router.{verb}", {"to": "1"}, PATIENCE) for n, verb in enumerate(verbs))
"""
CONFIG = """
services: {s: {owner: ada, targets: {router: "memory:x"}}}
notify: {channels: {ada: "http://127.0.0.1:9/"}}
"""
PROMISED = {"at_most": 60}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=300)
    runs = parser.parse_args().runs
    with scratch() as name, install(Path(name), {"memory": TARGET}, "adapter"), install(Path(name), {"plans": PLANS}, "runbook"):
        (Path(name) / "watchkeeper.yaml").write_text(CONFIG)
        for runbook, words in (("plans.effects", "five effects"), ("plans.looks", "one effect, four looks")):
            cpu = time.process_time()
            measured, commits = plans(Path(name), runbook, runs)
            cpu = 1000 * (time.process_time() - cpu) / runs
            bare = committed(Path(name), commits, runs)
            figure(f"engine, {words}: median", statistics.median(measured), f"{commits} durable commits; {load()}", **PROMISED)
            figure(f"engine, {words}: p99", quantile(measured, 0.99), f"{runs} runs", **PROMISED)
            figure(f"engine, {words}: CPU", cpu, "a run, whatever else the machine does")
            figure(f"{commits} bare durable commits: median", statistics.median(bare), f"p99 {quantile(bare, 0.99):.1f} ms, in the same minute")


def plans(folder: Path, runbook: str, runs: int) -> tuple[list[float], int]:
    """Milliseconds of each run from the moment it is asked for, and how many durable commits each makes."""
    made, marks = config.load(folder / "watchkeeper.yaml"), list[str]()
    store = Store.open(made.store, mark=marks.append).start()
    world, found = World(made, store, Pool(1)), list[float]()
    responder = Responder(world)
    try:
        for _ in range(runs):
            world.connections.close()
            with world.connections(made.services["s"].targets["router"]) as router:
                type(router).at = "0"
            marks.clear()
            began = time.perf_counter()
            run = verbs.start(world, runbook, "s", {}, "ada")
            for future in responder.tick(world.clock()):
                future.result(60)
            found.append(1000 * (time.perf_counter() - began))
            with store.read() as ledger:
                ended = ledger.run(run.id)
            assert ended and ended.state == "succeeded", ended and ended.said
        return found, marks.count("after")
    finally:
        responder.stop()
        world.close()
        store.close()


def committed(folder: Path, commits: int, runs: int) -> list[float]:
    """Milliseconds of so many rows, each in a commit of its own."""
    with sqlite3.connect(folder / "bare.db", isolation_level=None) as store:
        store.execute("PRAGMA journal_mode=WAL")
        store.execute("PRAGMA synchronous=FULL")
        store.execute("CREATE TABLE IF NOT EXISTS row (id INTEGER PRIMARY KEY, body TEXT)")
        return [timed(lambda: [store.execute("INSERT INTO row (body) VALUES (?)", ("x" * 500,)) for _ in range(commits)]) for _ in range(runs)]


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def figure(name: str, value: float, note: str, **promise: float) -> None:
    print(json.dumps({"figure": name, "value": value, "unit": "ms", "note": note, **promise}), flush=True)


if __name__ == "__main__":
    main()
