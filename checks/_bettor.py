"""A classifier that bets: what it learnt from past windows is tested on the next one, and evidence is added up in a restarted sum.

The null: every window's distribution lies within `tolerance`, in total variation, of the one the reference was drawn from. A rule is fixed
before the window it bets on (the predictable two-sample test of Podkopaev and Ramdas, NeurIPS 2023; betting as in Shekhar and Ramdas, arXiv
2112.09162). Part A of the reference and the windows before teach it; part B, which it never saw, bounds how often it calls a row of the
reference live. So what a rule learnt about A by heart is worth nothing: it does not hold in B, and the bound is B's.

1.  The k-th rules depend on A and on live rows, and so are independent of B. Clopper and Pearson: their rates over the reference's distribution
    exceed the bound of level DOUBT / (k (k + 1)) / streams with at most that chance; summed over all rules and k that is DOUBT.
2.  If no bound fails, a rule calls a row of a null window live with at most p0 = bound + tolerance, on average over the window's rows. The
    likelihood ratio of n calls for p1 > p0 is a product of 1 + s (call - p0), s > 0, so its mean given the past is at most 1 (independent rows;
    the mean of a product of such factors is largest where all rates are their average). Where up to `cluster` rows move together the ratio
    enters with the power 1 / cluster, and Hoelder's inequality gives the same.
3.  M <- (M + 1) L therefore makes M - t a supermartingale, and so is the average over rules, cuts and stakes. Stopped at M >= A it says
    that the mean time to a false alarm is at least A windows, and the chance of one within t windows at most t / A.
4.  After an alarm is over, M starts from 0 and 3. holds anew. What M has beyond the alarm is taken off, all sums alike, so that those which
    won most also show soonest that rows are as before; taking from M breaks nothing.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from checks._discriminant import SHARES, Moments, Rule, Space, moments, prepared, rules

DOUBT = 0.01  # the chance, over the reference's draw, that the promise does not hold
MEMORIES = (0.5, 0.95)  # what a window leaves of the ones before: one memory for sudden change, one for slow
STREAMS = len(MEMORIES) * 2 * len(SHARES)
STAKES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)  # how far above p0 a bet puts the rate, as log odds
LEAST = -700.0  # the logarithm of nothing
SPARE = 5.0  # how far beyond the alarm the logarithm of M may stay


@dataclass(frozen=True, slots=True)
class Past:
    """The mean of every feature over past rows, newer windows weighing more; float32 as base64."""

    weight: float = 0.0
    square: float = 0.0  # what the weights of single rows, squared, add up to
    mean: str = ""

    @property
    def rows(self) -> float:
        """How many equally weighted rows would make as sure a mean."""
        return self.weight**2 / self.square if self.square else 0.0

    def array(self) -> Any:
        import numpy as np

        return np.frombuffer(base64.b64decode(self.mean), dtype=np.float32).astype(np.float64)

    def after(self, window: Moments, left: float) -> Past:
        import numpy as np

        weight = left * self.weight + window.n
        old = self.array() * (left * self.weight) if self.mean else 0.0
        mean = (old + window.mean * window.n) / weight
        return Past(weight, left**2 * self.square + window.n, base64.b64encode(mean.astype(np.float32).tobytes()).decode())


@dataclass(frozen=True, slots=True)
class Bets:
    """What is remembered from window to window; `seal` names the reference and the columns all of it is about."""

    seal: str
    end_at: datetime | None = None
    bets: int = 0
    alarmed: bool = False
    log_sums: tuple[float, ...] = (LEAST,) * (STREAMS * len(STAKES))
    pasts: tuple[Past, ...] = field(default=(Past(),) * len(MEMORIES))


@dataclass(frozen=True, slots=True)
class Stream:
    """One rule at one cut on one window: how many of its rows and of part B were called live, and the most the reference's rate can be."""

    hits: int
    n: int
    reference_hits: int
    n_reference: int
    bound: float


@dataclass(frozen=True, slots=True)
class Known:
    """The reference: part A, from which rules are made, and part B, by which they are bounded."""

    where: Space
    a: Any
    then: Moments
    b: Any


def known(a: Any, b: Any, seed: int = 0) -> Known:
    """The Known of two matrices of reference rows that were split at random."""
    where, rows = prepared(a, seed)
    return Known(where, rows, moments(where, rows), b)


def play(memory: Bets, reference: Known, window: Any, tolerance: float, run_length: float, cluster: int = 1) -> tuple[Bets, list[Stream]]:
    """The memory after one window, and the bets that were laid: none on the first, from which is only learnt."""
    streams = list(_streams(memory, reference, window, cluster)) if memory.bets or memory.pasts[0].mean else []
    if streams:
        memory = settled(memory, streams, tolerance, run_length, cluster)
    seen = moments(reference.where, window)
    return replace(memory, pasts=tuple(past.after(seen, left) for past, left in zip(memory.pasts, MEMORIES, strict=True))), streams


def _streams(memory: Bets, reference: Known, window: Any, cluster: int) -> Iterator[Stream]:
    k = memory.bets + 1
    doubt = DOUBT / (k * (k + 1)) / STREAMS
    for rule in learnt(memory, reference):
        for hits, then in zip(rule.called(window), rule.called(reference.b), strict=True):
            yield Stream(hits, len(window), then, len(reference.b), bound(then, len(reference.b), doubt, cluster))


def learnt(memory: Bets, reference: Known) -> Iterator[Rule]:
    """The rules that bet next: made of the reference's part A and of windows before, and of nothing else."""
    for past in memory.pasts:
        yield from rules(reference.where, reference.a, reference.then, past.array(), past.rows)


def bound(hits: int, n: int, doubt: float, cluster: int = 1) -> float:
    """The most a rate can be, but for that doubt (Clopper and Pearson); rows that move together count as one."""
    from scipy.special import betaincinv

    r, m = hits / cluster, n / cluster
    return float(betaincinv(r + 1, m - r, 1 - doubt)) if r < m else 1.0


def settled(memory: Bets, streams: Sequence[Stream], tolerance: float, run_length: float, cluster: int = 1) -> Bets:
    """The memory with the outcome of bets added up."""
    ratios = [ratio for stream in streams for ratio in log_ratios(stream, tolerance, cluster)]
    sums = [_grown(old, ratio) for old, ratio in zip(memory.log_sums, ratios, strict=True)]
    alarm = log_mean(sums) >= math.log(run_length)
    over = memory.alarmed and not alarm
    excess = max(0.0, log_mean(sums) - math.log(run_length) - SPARE)
    kept = tuple(LEAST if over else max(LEAST, one - excess) for one in sums)
    return replace(memory, bets=memory.bets + 1, alarmed=alarm, log_sums=kept)


def log_ratios(stream: Stream, tolerance: float, cluster: int = 1) -> Iterator[float]:
    """The logarithm of the likelihood ratio of a stream's calls, for each stake. A rate that may be 1 leaves nothing to bet on."""
    edge = stream.bound + tolerance
    for stake in STAKES:
        if edge >= 1:
            yield -math.inf
            continue
        odds = math.log(edge / (1 - edge)) + stake
        rate = 1 / (1 + math.exp(-odds))
        won, lost = math.log(rate / edge), math.log((1 - rate) / (1 - edge))
        yield (stream.hits * won + (stream.n - stream.hits) * lost) / cluster


def _grown(log_sum: float, log_ratio: float) -> float:
    """(M + 1) L."""
    return max(log_sum, 0.0) + math.log1p(math.exp(-abs(log_sum))) + log_ratio


def log_mean(log_sums: Sequence[float]) -> float:
    """log M: of the mean over all sums."""
    largest = max(log_sums)
    return largest + math.log(math.fsum(math.exp(one - largest) for one in log_sums) / len(log_sums)) if largest > -math.inf else -math.inf
