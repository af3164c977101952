"""The writer: folds of one look each into signal, roll-up and, where it is kept, a chained finding; beside bare inserts into SQLite."""

import json
import sqlite3
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks._running import load, scratch

WATCHES, ROUNDS = 1000, 10
RATE = 535  # looks a second of ten thousand watches


def main() -> None:
    with scratch() as name:
        folder = Path(name)
        (folder / "watchkeeper.yaml").write_text(configuration())
        bare = plain(folder)
        kept, followed = folds(folder)
        note = f"{kept:.0f} us of CPU against {bare:.1f} us; {load()}"
        figure("fold of a look that is kept, in the writer", kept, "us of CPU", f"{1e6 / kept:.0f} a second at most; {load()}")
        figure("fold of a look that is as before", followed, "us of CPU", f"{1e6 / followed:.0f} a second at most; {load()}")
        figure("looking at the start of a transaction whether the lead is held still", asked(folder), "us of CPU", load())
        figure("fold of a look that is kept / two bare inserts", kept / bare, "x", note)
        figure(f"the writer at {RATE} looks a second", RATE * followed / 1e4, "% of a core", "none of them kept", at_most=15)


def configuration() -> str:
    services = "".join(
        f"  s{n}: {{owner: ada, targets: {{server: 'oip+http://127.0.0.1:9/m'}}, watches: [{{check: serving.ready, every: 10s}}]}}\n"
        for n in range(WATCHES)
    )
    return f"services:\n{services}notify: {{channels: {{ada: 'http://127.0.0.1:9/'}}}}\n"


def folds(folder: Path) -> tuple[float, float]:
    """Microseconds of CPU for a fold that keeps its finding, and for one that does not; the whole process, the queue included."""
    from agent import config
    from agent.model import Reading, ok
    from agent.observe import fold, found
    from agent.store import Store
    from agent.workers import Pool
    from agent.world import World

    made = config.load(folder / "watchkeeper.yaml")
    store, pool = Store.open(made.store).start(), Pool(1)
    world, verdict, start = World(made, store, pool), ok("the model says it is ready", Reading(1, 1)), datetime.now(UTC)

    def look(w, at):
        finding = found(w, w.window(at), at, verdict, None, 0.001)
        return lambda ledger: fold(world, ledger, w, finding, verdict)

    def spent(rounds, every):
        work = [look(w, start + n * every) for n in rounds for w in world.watched.values()]
        began = time.process_time()
        for future in [store.submit(one) for one in work]:
            future.result(60)
        return (time.process_time() - began) / len(work) * 1e6

    try:
        spent([0], timedelta())
        followed = spent(range(1, ROUNDS), timedelta(seconds=10))
        kept = spent(range(1, ROUNDS), timedelta(hours=1))  # a steady watch is kept once an hour
    finally:
        pool.close()
        store.close()
    return kept, followed


def asked(folder: Path) -> float:
    """Microseconds of CPU; a transaction holds up to five hundred folds."""
    from agent.store import Store

    store = Store.open(folder / "led.db")
    lead = store.once(lambda ledger: ledger.take_lead("benchmark", "process 1", datetime.now(UTC)))
    with store.read() as ledger:
        began = time.process_time()
        for _ in range(10_000):
            ledger.leads(lead)
        spent = time.process_time() - began
    store.close()
    return spent / 10_000 * 1e6


def plain(folder: Path) -> float:
    """Microseconds of CPU for two rows in a table without an index, one statement each, five hundred in a transaction."""
    with sqlite3.connect(folder / "plain.db", isolation_level=None) as store:
        store.execute("PRAGMA journal_mode=WAL")
        store.execute("CREATE TABLE row (id INTEGER PRIMARY KEY, at TEXT, body TEXT)")
        began = time.process_time()
        for _ in range(ROUNDS):
            store.execute("BEGIN IMMEDIATE")
            for n in range(WATCHES):
                store.execute("INSERT INTO row (at, body) VALUES (?, ?)", ("2026-01-01 00:00:00.000000", f"{n} " * 20))
            store.execute("COMMIT")
        return 2 * (time.process_time() - began) / (ROUNDS * WATCHES) * 1e6


def figure(name: str, value: float, unit: str, note: str, **promise: float) -> None:
    print(json.dumps({"figure": name, "value": value, "unit": unit, "note": note, **promise}), flush=True)


if __name__ == "__main__":
    main()
