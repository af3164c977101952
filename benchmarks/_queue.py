"""A service simulated: Poisson arrivals, `servers` of them side by side, each answer taking the same time, first come first served (M/D/c)."""

from __future__ import annotations

from typing import Any

import numpy as np

SERVICE = 0.01  # seconds an answer takes


def arrivals(random: Any, rate: float, seconds: float) -> Any:
    return np.sort(random.uniform(0.0, seconds, random.poisson(rate * seconds)))


def latency(arrived: Any, servers: int) -> Any:
    """Seconds from arrival to answer. Answers come in the order of arrival, so each server takes every `servers`-th request (Lindley's recursion)."""
    waited = np.empty_like(arrived)
    for server in range(servers):
        mine = arrived[server::servers]
        busy = SERVICE * np.arange(len(mine))
        waited[server::servers] = np.maximum.accumulate(mine - busy) + busy - mine
    return waited + SERVICE


def share(random: Any, load: float, servers: int, limit: float, requests: int) -> float:
    """The share over the limit of a long run at that part of the rate at which all servers are always busy."""
    rate = load * servers / SERVICE
    return float((latency(arrivals(random, rate, requests / rate), servers) > limit * (1 + 1e-9)).mean())


def capacity(servers: int, limit: float, allowed: float = 0.01, requests: int = 4_000_000, steps: int = 12) -> float:
    """The load, a part of the most there is, at which the share over the limit is just what is allowed. The same random numbers at each load."""
    near, far = 0.4, 1.0
    for _ in range(steps):
        middle = (near + far) / 2
        over = share(np.random.default_rng(0), middle, servers, limit, requests)
        near, far = (near, middle) if over > allowed else (middle, far)
    return (near + far) / 2
