"""A real Prometheus that scrapes a real exporter, on loopback ports, for as long as a test session lasts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from agent import UTC, Locator, Window
from agent.targets import connect
from tests.test_mlserver import free_ports

EXPORTER = """
import sys
from prometheus_client import Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import REGISTRY

answered = Counter("answered", "requests answered", ["code"])
waited = Histogram("waited_seconds", "what users wait", ["version"], buckets=(0.1, 0.2, 0.4, 0.8))
waited.labels(version="2")
Gauge("orders", "orders a minute", ["shop"]).labels(shop="north").set(0.1 + 0.2)
Gauge("lost", "a number that is none").set(float("inf"))

class Busy:
    def collect(self):
        answered.labels(code="200").inc(8)
        answered.labels(code="500").inc(2)
        for seconds in (0.05, 0.15, 0.3):
            waited.labels(version="1").observe(seconds)
        return []

REGISTRY._collector_to_names = {Busy(): [], **REGISTRY._collector_to_names}
start_http_server(int(sys.argv[1]), addr="127.0.0.1")
sys.stdin.read()
"""

CONFIG = """
global: {{scrape_interval: 250ms, scrape_timeout: 250ms}}
scrape_configs:
  - {{job_name: fraud, static_configs: [{{targets: ["127.0.0.1:{exporter}"]}}]}}
  - {{job_name: gone, static_configs: [{{targets: ["127.0.0.1:{closed}"]}}]}}
  - {{job_name: prometheus, static_configs: [{{targets: ["127.0.0.1:{own}"]}}]}}
"""


@dataclass(frozen=True)
class Monitored:
    """Where the Prometheus is, and a window in which everything it scrapes has numbers."""

    address: str
    window: Window

    @property
    def url(self) -> str:
        return f"prometheus+{self.address}"

    def metrics(self, **options: Any) -> Any:
        return connect(Locator("fraud", "metrics", self.url, options, within=timedelta(seconds=10)))

    def asked(self, query: str) -> list[Any]:
        """What its API answers to anybody, at the end of the window."""
        form = urlencode({"query": query, "time": f"{self.window.end.timestamp():.3f}"})
        with urlopen(f"{self.address}/api/v1/query?{form}", timeout=10) as reply:
            return json.load(reply)["data"]["result"]


@contextmanager
def monitored(program: Path, folder: Path) -> Iterator[Monitored]:
    """Both processes, until every series is there: Prometheus says that it is ready before it has found any target."""
    own, exporter, closed = free_ports(3)
    (folder / "prometheus.yml").write_text(CONFIG.format(exporter=exporter, closed=closed, own=own))
    words = [program, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{own}"]
    with (folder / "log").open("w") as log:
        source = subprocess.Popen([sys.executable, "-c", EXPORTER, str(exporter)], stdin=subprocess.PIPE, stdout=log, stderr=log)
        server = subprocess.Popen([*map(str, words)], stdout=log, stderr=log)
    try:
        yield Monitored(f"http://127.0.0.1:{own}", _ready(f"http://127.0.0.1:{own}", (source, server), folder / "log"))
    finally:
        for process in (server, source):
            process.kill()
            process.wait(20)
        source.stdin.close()


def _ready(address: str, processes: tuple[Any, ...], log: Path) -> Window:
    until = time.monotonic() + 90
    needed = "count(rate(answered_total[5s]) > 0) + count(rate(waited_seconds_count[5s]) >= 0) + count(up)"
    while time.monotonic() < until and all(process.poll() is None for process in processes):
        try:
            now = datetime.now(UTC)
            with urlopen(f"{address}/api/v1/query?{urlencode({'query': needed, 'time': f'{now.timestamp():.3f}'})}", timeout=5) as reply:
                if [one["value"][1] for one in json.load(reply)["data"]["result"]] == ["7"]:
                    return Window(now - timedelta(seconds=5), now)
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"Prometheus has not scraped what it should: {log.read_text()[-2000:]}")
