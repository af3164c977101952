"""Ten thousand HTTP watches, one a service, at 10 to 60 s: every slot run, in time, on less than a core; and none lost after a pause."""

import json
import signal
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks._running import agent, load, nginx, quantile, scratch

SERVICES, SECONDS, PAUSE, AFTER = 10_000, 70, 15, 25
INTERVALS = (10, 15, 20, 30, 60)
FILES = 20_000
RUN, REFUSED = 'watchkeeper_slots_total{outcome="run"}', 'watchkeeper_slots_total{outcome="no_room"}'
WHAT = f"{SERVICES:,} HTTP watches at 10-60 s"


def configuration(address: str, folder: Path) -> Path:
    """A folder of files, five hundred services each: more would be too long for one file."""
    place = folder / "watchkeeper"
    place.mkdir()
    for first in range(0, SERVICES, 500):
        (place / f"{first:05}.yaml").write_text("services:\n" + "".join(service(n, address) for n in range(first, first + 500)))
    more = f"store: {folder}/watch.db\nlisten: 127.0.0.1:0\nnotify: {{channels: {{ada: 'http://127.0.0.1:9/'}}}}\n"
    (place / "agent.yaml").write_text(more)
    return place


def service(n: int, address: str) -> str:
    watch = f"{{check: serving.ready, every: {every(n).total_seconds():.0f}s}}"
    return f"  s{n}: {{owner: ada, targets: {{server: 'oip+{address}/m{n}'}}, watches: [{watch}]}}\n"


def every(n: int) -> timedelta:
    return timedelta(seconds=INTERVALS[n % len(INTERVALS)])


def main() -> None:
    with scratch() as name:
        folder = Path(name)
        with nginx(folder, FILES) as address:
            configured, began = configuration(address, folder), time.monotonic()
            with agent(configured) as running:
                note = f"{time.monotonic() - began:.1f} s from the start to the first look"
                steady(running, folder, note)
                paused(running, folder)


def steady(running, folder: Path, note: str) -> None:
    """A minute from the start on, first connections included."""
    at, before, cpu, began = running.ready_at, running.metrics(), running.cpu(), time.monotonic()
    resident = 0.0
    while time.monotonic() < began + SECONDS:
        time.sleep(1)
        resident = max(resident, running.resident())
    spent, seconds, until = running.cpu() - cpu, time.monotonic() - began, datetime.now(UTC)
    after = running.metrics()
    time.sleep(1)  # what was due by then has been written
    lost, due = missed(folder, at, until - timedelta(seconds=1))
    runs = after[RUN] - before[RUN]
    late = ", ".join(f"p{100 * share:g} {1000 * quantile(before, after, share):.0f} ms" for share in (0.5, 0.95, 0.999))
    figure(f"{WHAT}: slots run", 100 * (1 - lost / due), "%", f"{due:,} slots in {seconds:.0f} s; {note}; {load()}", at_least=100)
    figure(f"{WHAT}: lateness p99", 1000 * quantile(before, after, 0.99), "ms", late, at_most=250)
    figure(
        f"{WHAT}: CPU", 100 * spent / seconds, "% of a core", f"{1e6 * spent / runs:.0f} us a look, {runs / seconds:.0f} looks a second", at_most=80
    )
    figure(f"{WHAT}: memory", resident, "MiB", "resident, the most", at_most=400)


def paused(running, folder: Path) -> None:
    """The process stops for as long as most watches' interval, and goes on."""
    before, began = running.metrics(), datetime.now(UTC)
    running.process.send_signal(signal.SIGSTOP)
    time.sleep(PAUSE)
    running.process.send_signal(signal.SIGCONT)
    over = datetime.now(UTC)
    waiting = [n for n in range(SERVICES) if next(slots(n, began), over) < over]
    time.sleep(AFTER)
    after, now = running.metrics(), datetime.now(UTC)
    with sqlite3.connect(folder / "watch.db") as store:
        seen = {watch: datetime.fromisoformat(at).replace(tzinfo=UTC) for watch, at in store.execute("SELECT watch, looked_at FROM signal")}
    unseen = [n for n in waiting if seen[f"s{n}/serving.ready"] < over]
    behind = [n for n in range(SERVICES) if seen[f"s{n}/serving.ready"] < now - every(n) - timedelta(seconds=2)]
    note = f"{len(waiting):,} watches were due; p99 of lateness {quantile(before, after, 0.99):.2f} s, the pause included; {load()}"
    lost = len(set(unseen) | set(behind)) + after[REFUSED] - before[REFUSED]
    figure(f"{WHAT}: lost after a pause of {PAUSE} s", lost, "watches", note, at_most=0)


def slots(n: int, since: datetime) -> Iterator[datetime]:
    """When a watch is due, from the grid itself."""
    from agent.slots import EPOCH, MICROSECOND, Job, Slots, moment

    grid, due = Slots.of(f"s{n}/serving.ready", Job(every(n))), (since - EPOCH) // MICROSECOND
    while True:
        due = grid.after(due)
        yield moment(due)


def missed(folder: Path, since: datetime, until: datetime) -> tuple[int, int]:
    """(slots that left no look in the store, slots there were)."""
    with sqlite3.connect(folder / "watch.db") as store:
        looks = dict(store.execute("SELECT watch, seq FROM signal"))
    lost = due = 0
    for n in range(SERVICES):
        wanted = next(count for count, at in enumerate(slots(n, since)) if at >= until)
        due += wanted
        lost += max(0, wanted - looks.get(f"s{n}/serving.ready", 0))
    return lost, due


def figure(name: str, value: float, unit: str, note: str, **promise: float) -> None:
    print(json.dumps({"figure": name, "value": value, "unit": unit, "note": note, **promise}), flush=True)


if __name__ == "__main__":
    main()
