"""Whether the daemon keeps its time while it makes load: how late looks begin with a load test of 200 requests a second beside them, and without."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks._running import agent, fetch, load, nginx, quantile, scratch, until

WATCHES, RATE, SECONDS = 50, 200, 60
MOST = 0.05  # seconds


def configuration(address: str, folder: Path) -> str:
    """Fifty services that are asked every second, and one that bears load."""
    services = "".join(
        f"  s{n}:\n    targets: {{server: 'oip+{address}/m{n}'}}\n    watches: [{{check: serving.ready, every: 1s}}]\n" for n in range(WATCHES)
    )
    given = f"{{rate: {RATE}, duration: {SECONDS}s, limits: {{p50: 1s}}, request: {{inputs: []}}}}"
    pressed = f"""  pressed:
    load: {{rate: {RATE}, longest: 10m}}
    targets: {{server: 'oip+{address}/m'}}
    watches: [{{check: sla.latency, every: 1d, with: {given}}}]
"""
    return f"store: {folder}/watch.db\nlisten: 127.0.0.1:0\nservices:\n{services}{pressed}"


def main() -> None:
    with scratch() as name:
        folder = Path(name)
        with nginx(folder, 4096) as address:
            until(lambda: fetch(f"{address}/v2/models/m/infer"), 10)
            configured = folder / "watchkeeper.yaml"
            configured.write_text(configuration(address, folder))
            with agent(configured) as running:
                time.sleep(5)  # what is done once at the start is over
                without = late(running, lambda: time.sleep(SECONDS))
                beside = late(running, lambda: pressed(configured))
    figure("lateness of looks, p99, no load test", 1000 * without, "ms", f"{WATCHES} looks a second for {SECONDS} s; {load()}")
    figure("lateness of looks, p99, beside a load test", 1000 * beside, "ms", f"of {RATE} requests a second; {load()}", at_most=1000 * MOST)


def late(running, meanwhile) -> float:
    before = running.metrics()
    meanwhile()
    return quantile(before, running.metrics(), 0.99)


def pressed(configured: Path) -> None:
    """The load test on demand, which the daemon runs as it runs one on schedule."""
    command = [sys.executable, "-m", "agent.cli", "-c", str(configured), "check", "pressed", "sla.latency", "--json"]
    told = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=SECONDS + 120)
    (finding,) = json.loads(told.stdout)
    print(f"{finding['status']}: {finding['reason']}", file=sys.stderr)
    if finding["seconds"] < SECONDS:
        sys.exit(f"no load was made: {finding['reason']}")


def figure(name: str, value: float, unit: str, note: str, **promise: float) -> None:
    print(json.dumps({"figure": name, "value": value, "unit": unit, "note": note, **promise}), flush=True)


if __name__ == "__main__":
    main()
