"""Whether the daemon keeps its time while it makes load: its loop's lag with a load test of 200 requests a second beside it, and without."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

from benchmarks._running import agent, load, nginx, quantile, scratch

WATCHES, RATE, SECONDS = 50, 200, 60
MOST = 50  # ms
LAG = "watchkeeper_loop_lag_seconds"


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
            configured = folder / "watchkeeper.yaml"
            configured.write_text(configuration(address, folder))
            with agent(configured) as running:
                time.sleep(5)  # what is done once at the start is over
                measure(running, "without a load test", lambda: time.sleep(SECONDS))
                measure(running, "beside a load test", lambda: press(configured), at_most=MOST)


def measure(running, when: str, meanwhile, **promise: float) -> None:
    lags, over, before = [], threading.Event(), running.metrics()
    sampling = threading.Thread(target=lambda: [lags.append(running.metrics()[LAG]) for _ in iter(lambda: over.wait(0.1), True)])
    sampling.start()
    meanwhile()
    over.set()
    sampling.join()
    late = quantile(before, running.metrics(), 0.99)
    figure(f"loop lag {when}, p99", 1000 * sorted(lags)[int(0.99 * len(lags))], "ms", f"{len(lags)} samples; {load()}", **promise)
    figure(f"lateness of looks {when}, p99", 1000 * late, "ms", f"{WATCHES} watches at 1 s; {load()}")


def press(configured: Path) -> None:
    """The load test on demand, which the daemon runs as it runs one on schedule."""
    command = [sys.executable, "-m", "agent.cli", "-c", str(configured), "check", "pressed", "sla.latency", "--json"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS + 120)
    (finding,) = json.loads(told.stdout)
    if finding["seconds"] < SECONDS:
        sys.exit(f"no load was made: {finding['reason']}")
    print(f"{finding['status']}: {finding['reason']}", file=sys.stderr)


def figure(name: str, value: float, unit: str, note: str, **promise: float) -> None:
    print(json.dumps({"figure": name, "value": value, "unit": unit, "note": note, **promise}), flush=True)


if __name__ == "__main__":
    main()
