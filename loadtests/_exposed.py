"""What Prometheus can scrape while a load test runs: kept up twice a second from what is counted anyway, so that no request pays for it."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any

from agent.errors import ConfigError
from loadtests._spec import KINDS
from loadtests._watching import Line

EDGES = tuple(part * 10.0**power for power in range(-4, 2) for part in (1, 2.5, 5))  # seconds: 0.1 ms to 50 s


class Exposed:
    """Serves the last line of a run and the histogram of its good answers at host:port, until the process ends."""

    def __init__(self, at: str) -> None:
        self._line: Line = {}
        self._cells, self._sum = [0] * (len(EDGES) + 1), 0.0
        if at:
            self._serve(at)

    def _serve(self, at: str) -> None:
        from prometheus_client import CollectorRegistry, start_http_server

        host, port = place(at, "metrics")
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        try:
            start_http_server(port, host, registry)
        except OSError as problem:
            raise ConfigError(f"metrics cannot be served at {at}: {problem.strerror}; choose another port") from problem

    def take(self, line: Line, recent: Sequence[float]) -> None:
        """The newest line, and the latencies since the one before."""
        self._line = line
        for latency in recent:
            if math.isfinite(latency):
                self._cells[bisect_left(EDGES, latency)] += 1
                self._sum += latency

    def collect(self) -> Iterable[Any]:
        """What prometheus_client asks for at each scrape."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        line = self._line
        ended = CounterMetricFamily("watchkeeper_load_requests", "Requests of the load test that ended, by how", labels=["kind"])
        for name, count in zip(KINDS, line.get("kinds", [0] * len(KINDS)), strict=True):
            ended.add_metric([name], count)
        yield ended
        yield CounterMetricFamily("watchkeeper_load_sent", "Requests that the load test took up", value=line.get("sent", 0))
        yield GaugeMetricFamily("watchkeeper_load_in_flight", "Requests taken up and not ended", value=line.get("flying", 0))
        yield GaugeMetricFamily("watchkeeper_load_lag_seconds", "How late the generator took up its last request", value=line.get("lag", 0.0))
        yield HistogramMetricFamily(
            "watchkeeper_load_latency_seconds", "From the intended time to the whole good answer", buckets=self._buckets(), sum_value=self._sum
        )

    def _buckets(self) -> list[tuple[str, float]]:
        found, so_far = [], 0
        for edge, count in zip((*map(str, EDGES), "+Inf"), self._cells, strict=True):
            so_far += count
            found.append((edge, float(so_far)))
        return found


def place(at: str, what: str) -> tuple[str, int]:
    """A host and a port out of host:port; ConfigError where it is none."""
    host, _, port = at.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise ConfigError(f"{what}: {at!r} is not host:port, such as 127.0.0.1:9464")
    return host.strip("[]"), int(port)
