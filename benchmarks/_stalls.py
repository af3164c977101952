"""Runs whose true share over the limit is known: single requests, and stalls that are periodic or come at random, in any mixture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from loadtests._bursts import Run

RATE = 200.0  # requests a second, evenly spaced


@dataclass(frozen=True)
class Part:
    """One cause of late requests: how it strikes, the seconds that it lasts (0: one request), and the share of requests it makes late."""

    how: Literal["single", "poisson", "periodic"]
    lasts: float
    share: float


def drawn(random: Any, runs: int, seconds: float, parts: tuple[Part, ...], burst: float = 1.0, rate: float = RATE) -> Iterator[Run]:
    """Runs of `seconds`, judged for bursts up to `burst`; the causes strike independently of each other."""
    n = round(seconds * rate)
    late = np.concatenate([_single(random, runs * n, part) if part.how == "single" else _stalled(random, runs, n, rate, part) for part in parts])
    late = np.unique(late)
    edges = np.searchsorted(late, np.arange(runs + 1) * n)
    for run in range(runs):
        yield Run(n, late[edges[run] : edges[run + 1]] - run * n, max(burst * rate, 1.0))


def _single(random: Any, n: int, part: Part) -> Any:
    gaps = random.geometric(part.share, int(n * part.share * 1.1) + 1000)
    places = np.cumsum(gaps) - 1
    return places[places < n]


def _stalled(random: Any, runs: int, n: int, rate: float, part: Part) -> Any:
    """The requests due while it lasts; a stall may have begun before the run."""
    lasts = part.lasts * rate  # in requests
    begins, run = _random(random, runs, n, lasts, part) if part.how == "poisson" else _periodic(random, runs, n, lasts, part)
    first = np.maximum(np.ceil(begins), 0).astype(np.int64)
    count = np.maximum(np.minimum(np.ceil(begins + lasts).astype(np.int64), n) - first, 0)
    offsets = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(first + run * n, count) + offsets


def _random(random: Any, runs: int, n: int, lasts: float, part: Part) -> tuple[Any, Any]:
    each = random.poisson(-np.log1p(-part.share) / lasts * (n + lasts), runs)
    return random.uniform(-lasts, n, each.sum()), np.repeat(np.arange(runs), each)


def _periodic(random: Any, runs: int, n: int, lasts: float, part: Part) -> tuple[Any, Any]:
    every = lasts / part.share
    begins = random.uniform(0, every, (runs, 1)) - every + every * np.arange(int(n / every) + 2)
    return begins.ravel(), np.repeat(np.arange(runs), begins.shape[1])
