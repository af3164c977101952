"""The audit of a long record: CPU of one service's audit over a hundred thousand rows of the chain, and of a fleet of two hundred services.

    python -m benchmarks.audit [--rows 100000] [--services 200]

The record is written through the verbs of the agent: nine tenths findings of twelve watches, with a reading and parts, one tenth events.
"""

import argparse
import cProfile
import json
import pstats
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks._running import load, scratch

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--rows", type=int, default=100_000)
    asked.add_argument("--services", type=int, default=200)
    asked.add_argument("--profile", action="store_true", help="where the time of the first goes, to stderr")
    given = asked.parse_args()
    spent = audited(1, given.rows, given.profile)
    figure(f"audit of a service over {given.rows:,} rows of the chain", spent, "CPU s", at_most=2)
    spent = audited(given.services, given.rows, False)
    figure(f"audit of {given.services} services over {given.rows:,} rows of the chain", spent, "CPU s", at_most=60)


def audited(services: int, rows: int, profile: bool) -> float:
    """CPU seconds of collecting and drawing the report of all services, from a record of so many rows."""
    from agent import audit, config
    from agent.store import Store

    with scratch() as name:
        path = Path(name, "watchkeeper.yaml")
        path.write_text(configuration(services))
        read = config.load(path)
        written(read, services, rows)
        store = Store(read.store)
        profiler = cProfile.Profile()
        with store.read() as ledger:
            began = time.process_time()
            if profile:
                profiler.enable()
            report = audit.collect(read, ledger, list(read.services), NOW - timedelta(days=30), NOW)
            profiler.disable()
            spent = time.process_time() - began
        if profile:
            pstats.Stats(profiler, stream=sys.stderr).sort_stats("cumulative").print_stats(45)
        assert report["evidence"]["verified"], report["evidence"]["problems"]
        return spent


def configuration(services: int) -> str:
    made = []
    for n in range(services):
        watches = ", ".join(f"{{check: serving.ready, name: ready-{k}, every: 5m}}" for k in range(12))
        made.append(f"  s{n}: {{owner: ada, targets: {{server: 'oip+http://127.0.0.1:9/m'}}, watches: [{watches}]}}\n")
    return f"services:\n{''.join(made)}notify: {{channels: {{ada: 'http://127.0.0.1:9/'}}}}\n"


def written(read, services: int, rows: int) -> None:
    """A record of so many rows of the chain."""
    from agent.model import Reading
    from agent.store import Store
    from agent.workers import Pool
    from agent.world import World

    store, pool = Store.open(read.store).start(), Pool(1)
    watched = list(World(read, store, pool).watched.values())
    parts = {f"feature {n}": Reading(0.1 * n, 1.0, (0.05 * n, 0.2 * n), 1000) for n in range(3)}
    body = {name: {"observed": one.observed, "limit": one.limit, "interval": list(one.interval), "n": one.n} for name, one in parts.items()}
    step = timedelta(days=30) / rows

    def some(begin: int, end: int):
        def do(ledger) -> None:
            for n in range(begin, end):
                at, w = NOW - timedelta(days=30) + n * step, watched[n % len(watched)]
                if n % 10 == 0:
                    ledger.record(at, "change", f"version {n}", service=w.service.name, body={"from": str(n), "to": str(n + 1)})
                    continue
                told = {"start_at": at - timedelta(minutes=5), "end_at": at, "looked_at": at, "status": "ok", "reason": "the model says it is ready"}
                more = {"reading": body["feature 0"], "parts": body, "version": "1", "rule": w.rule, "seq": n, "seconds": 0.01}
                ledger.keep({}, watch=w.key, service=w.service.name, check=w.watch.check, **told, **more)
                ledger.roll_up(w.key, at, True, 1.0)

        return do

    for begin in range(0, rows, 5000):
        store.write(some(begin, min(begin + 5000, rows)))
    store.close()
    pool.close()


def figure(name: str, value: float, unit: str, **limits: float) -> None:
    print(json.dumps({"figure": name, "value": round(value, 2), "unit": unit, "note": load(), **limits}), flush=True)


if __name__ == "__main__":
    main()
