"""What a hundred watches cost: memory and CPU of the daemon, each asking one HTTP server every ten seconds."""

import json
import time
from pathlib import Path

from benchmarks._running import agent, load, nginx, scratch

WATCHES, SECONDS = 100, 40


def configuration(address: str, folder: Path) -> str:
    services = "".join(
        f"  s{n}:\n    owner: ada\n    targets: {{server: 'oip+{address}/m{n}'}}\n    watches: [{{check: serving.ready, every: 10s}}]\n"
        for n in range(WATCHES)
    )
    return f"store: {folder}/watch.db\nlisten: 127.0.0.1:0\nservices:\n{services}notify: {{channels: {{ada: 'http://127.0.0.1:9/'}}}}\n"


def main() -> None:
    with scratch() as name:
        folder = Path(name)
        with nginx(folder, 1024) as address:
            configured = folder / "watchkeeper.yaml"
            configured.write_text(configuration(address, folder))
            with agent(configured) as running:
                measure(running)


def measure(running) -> None:
    time.sleep(5)  # what is done once at the start is over
    before, cpu, began = running.metrics(), running.cpu(), time.monotonic()
    resident = 0.0
    while time.monotonic() < began + SECONDS:
        time.sleep(1)
        resident = max(resident, running.resident())
    spent, seconds, after = running.cpu() - cpu, time.monotonic() - began, running.metrics()
    looks = after['watchkeeper_slots_total{outcome="run"}'] - before['watchkeeper_slots_total{outcome="run"}']
    what = f"{WATCHES} HTTP watches at 10 s"
    figure(f"daemon, {what}: memory", resident, "MiB", f"resident, the most in {seconds:.0f} s; {load()}", at_most=120)
    figure(f"daemon, {what}: CPU", 100 * spent / seconds, "% of a core", f"{looks:.0f} looks; {load()}", at_most=5)


def figure(name: str, value: float, unit: str, note: str, **promise: float) -> None:
    print(json.dumps({"figure": name, "value": value, "unit": unit, "note": note, **promise}), flush=True)


if __name__ == "__main__":
    main()
