"""Is one share larger than another? E-values that may be looked at after every cell, for three claims: it is, it is not by a margin, not known.

A cell is a short stretch of time with n_b requests of the baseline and n_c of the candidate, of which x_b and x_c are hits (errors, slow answers,
answers of one class, wrong ones). Nothing is assumed of how the rates move from cell to cell, so that what befalls both arms alike, and weights
that change, mislead nobody. Harm is the difference p_c - p_b.

1.  For one null, p_c <= p_b + d (or p_c >= p_b + d), which is convex, and one guess (g_b, g_c) outside it, let (q, q + d) be the point of the null
    nearest to the guess in the Kullback-Leibler divergence of n_b and n_c Bernoulli trials. Then the likelihood ratio of the guess to that point
    has a mean of at most 1 wherever in the null the rates are (Turner and Grünwald, Statistics and Probability Letters 2023, arXiv 2203.09785;
    Turner, Ly and Grünwald, arXiv 2106.02693). It suffices that the rates lie in the null on average over the rows of each arm in the cell.
2.  The guess is made of earlier cells alone, so products over cells are supermartingales, and so are their averages over guesses (here over odds)
    and over streams. By Ville's inequality such an average reaches 1 / alpha at any look ever with probability at most alpha.
3.  Harm may begin in any cell. So the average is also over where it begins, most of its weight on the first cell: products that begin later are
    e-values as well, and a version that turns bad is found without first undoing the evidence that it was good.
4.  For d = 0 and rare hits the ratio is that of which arm a hit comes from, odds against the weight: base rates cancel.
5.  The bounds of harm that are not refuted are a confidence sequence. Roll back and promote are claims of their own: the first is one of several
    metrics (Holm, whatever their dependence, on p = 1 / the largest average so far), the second is about all of them, each at alpha.

What it rests on: the rows of a cell (or clients, where these are counted) fall to an arm regardless of what they will come to; they are hits
independently of each other given the past; a null that is refuted was "in every cell": for a harm that comes and goes, the claim is that it was
not always so large. Counts are all that is asked for: any source of them will do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent.stats import holm
from checks._sequential import packed, unpacked

ODDS = (1.5, 2.0, 3.0, 5.0, 10.0, 20.0)  # how much likelier than allowed the guesses say a hit of the candidate is
STEPS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # harms that are tested, in margins
EQUAL, MARGIN = STEPS.index(0.0), STEPS.index(1.0)
FIRST = 0.9  # the weight of harm from the first cell on; of the rest, cell s has 1 / (s (s - 1))
PATH = 120  # looks whose evidence is kept for the picture
LEAST, MOST = 1e-9, 1 - 1e-9  # rates that are guessed


def nearest(n_b: Any, n_c: Any, g_b: Any, g_c: Any, d: Any) -> Any:
    """q of the point (q, q + d) nearest to a guess: the divergence is convex in q, and its slope is 0 between g_b and g_c - d."""
    import numpy as np

    low, high = np.minimum(g_b, g_c - d), np.maximum(g_b, g_c - d)
    low, high = np.broadcast_arrays(np.maximum(low, LEAST / 2), np.minimum(high, 1 - d - LEAST / 2), n_b)[:2]
    for _ in range(32):
        q = (low + high) / 2
        rising = n_b * (q - g_b) * (q + d) * (1 - q - d) + n_c * (q + d - g_c) * q * (1 - q) > 0
        low, high = np.where(rising, low, q), np.where(rising, q, high)
    return (low + high) / 2


def log_ratio(counts: Any, g_b: Any, g_c: Any, d: Any) -> Any:
    """log of the e-value of one cell; the last axis of `counts` is n_b, x_b, n_c, x_c. A cell in which an arm is silent says nothing: 0."""
    import numpy as np

    n_b, x_b, n_c, x_c = np.moveaxis(np.asarray(counts, dtype=float), -1, 0)
    q = nearest(n_b, n_c, g_b, g_c, d)
    told = x_b * np.log(g_b / q) + (n_b - x_b) * np.log((1 - g_b) / (1 - q))
    told = told + x_c * np.log(g_c / (q + d)) + (n_c - x_c) * np.log((1 - g_c) / (1 - q - d))
    return np.where((n_b > 0) & (n_c > 0), told, 0.0)


def rates(counts: Any, before: Any) -> Any:
    """The share of hits in both arms together before each cell (first axis); NaN before the first row."""
    import numpy as np

    so_far = np.cumsum(np.concatenate([np.asarray(before, dtype=float)[None], counts[:-1]]), axis=0)
    n, x = so_far[..., 0] + so_far[..., 2], so_far[..., 1] + so_far[..., 3]
    return np.where(n > 0, np.clip((x + 0.5) / (n + 1), LEAST, MOST), np.nan)


def harm_ratios(counts: Any, rate: Any, harms: Any) -> Any:
    """log e-values against "the candidate is worse by at most that", the guess being as many hits as before, split by odds:
    (cells, streams, harms, odds)."""
    import numpy as np

    cells = np.asarray(counts, dtype=float)[..., None, None, :]
    weight = cells[..., 2] / np.maximum(cells[..., 0] + cells[..., 2], 1)
    d = np.asarray(harms, dtype=float)[:, None]
    g_b = np.maximum(rate[..., None, None] / (1 + weight * (np.array(ODDS) - 1)), LEAST)
    room = g_b + d < MOST  # false where nothing is known yet, too
    g_b, d = np.where(room, g_b, 0.25), np.where(room, d, 0.0)
    g_c = np.minimum(1 / (1 + (1 - g_b - d) / (g_b + d) / np.array(ODDS)), MOST)
    return np.where(room, log_ratio(cells, g_b, g_c, d), 0.0)


def summed(ratios: Any, before: Any, cells: int) -> Any:
    """log of the products over cells (first axis), averaged over the cell they begin with, after each of them; `cells` came `before`."""
    import numpy as np

    number = np.arange(cells + 1, cells + len(ratios) + 1, dtype=float)
    weight = np.where(number == 1, FIRST, (1 - FIRST) / np.maximum(number * (number - 1), 1))
    so_far = np.cumsum(ratios, axis=0)
    begins = np.log(weight).reshape(-1, *[1] * (ratios.ndim - 1)) - (so_far - ratios)
    return so_far + np.logaddexp.accumulate(np.concatenate([np.asarray(before)[None], begins]), axis=0)[1:]


def safe_ratios(counts: Any, rate: Any, harms: Any) -> Any:
    """log e-values against "the candidate is worse by at least that", the guess being that both are alike: (cells, streams, harms)."""
    import numpy as np

    known = ~np.isnan(rate)[..., None]
    guess = np.where(known, rate[..., None], 0.5)
    return np.where(known, log_ratio(np.asarray(counts)[..., None, :], guess, guess, np.asarray(harms, dtype=float)), 0.0)


# What is remembered of a metric


@dataclass(frozen=True, slots=True)
class Evidence:
    """One metric's evidence: of each of its streams the counts so far and the log sums (arrays as text), the most there was of harm, and its way."""

    streams: int
    cells: int = 0
    counts: str = ""
    harm: str = ""
    safe: str = ""
    best: float = 0.0  # log of the largest average so far: what was proved stays proved
    path: tuple[float, ...] = ()  # log10 of the average after each of the last looks

    def arrays(self, harms: int) -> tuple[Any, Any, Any]:
        """Counts (streams, 4), sums of harm (streams, harms, odds), sums of safety (streams, harms)."""
        import numpy as np

        shapes = (self.streams, 4), (self.streams, harms, len(ODDS)), (self.streams, harms)
        kept = (self.counts, 0.0), (self.harm, -math.inf), (self.safe, 0.0)
        counts, harm, safe = (
            unpacked(text).reshape(shape) if text else np.full(shape, empty) for (text, empty), shape in zip(kept, shapes, strict=True)
        )
        return counts, harm, safe


def tested(margin: float) -> tuple[float, ...]:
    """The harms that are tested for a margin."""
    return tuple(step * margin for step in STEPS if step * margin < 1)


def further(one: Evidence, counts: Any, margin: float) -> Evidence:
    """The evidence after more cells, in their order: counts of shape (cells, streams, 4), each n_b, x_b, n_c, x_c."""
    import numpy as np

    harms = tested(margin)
    before, harm, safe = one.arrays(len(harms))
    if not len(counts):
        return one
    rate = rates(counts, before)
    grown = summed(harm_ratios(counts, rate, harms), harm, one.cells)
    way = averaged(grown[:, :, EQUAL])
    return replace(
        one,
        cells=one.cells + len(counts),
        counts=packed(before + np.sum(counts, axis=0)),
        harm=packed(grown[-1]),
        safe=packed(safe + safe_ratios(counts, rate, harms).sum(axis=0)),
        best=max(one.best, float(way.max())),
        path=(*one.path, round(float(way[-1]) / math.log(10), 3))[-PATH:],
    )


def averaged(sums: Any) -> Any:
    """log of the average over streams and odds (the last two axes)."""
    import numpy as np

    flat = sums.reshape(*sums.shape[:-2], -1)
    return np.logaddexp.reduce(flat, axis=-1) - math.log(flat.shape[-1])


# What it says


@dataclass(frozen=True, slots=True)
class Standing:
    """How a metric stands: the stream that differs most, the bounds of harm at the level asked, both claims, and what is still needed."""

    stream: int
    shares: tuple[float, float]  # baseline, candidate
    rows: tuple[int, int]
    low: float  # harm is more than this (-1: nothing is proved) ...
    high: float  # ... and less than this (1: nothing is proved); below `low` where it was the one in some cells and the other in others
    p: float  # of "no harm", at any look
    safe: bool
    needed: float  # requests of the candidate until it is safe, if both arms are alike; nan where none has come yet

    @property
    def harm(self) -> float:
        return self.shares[1] - self.shares[0]


def standing(one: Evidence, margin: float, alpha: float, metrics: int = 1) -> Standing:
    """`low` holds for all of so many metrics at once, `high` for this one; a metric without a row has proved nothing."""
    import numpy as np

    harms = tested(margin)
    counts, harm, safe = one.arrays(len(harms))
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = counts[:, [1, 3]] / counts[:, [0, 2]]
    differs = np.nan_to_num(shares[:, 1] - shares[:, 0], nan=-1.0)
    worst, wanted = int(np.argmax(differs)), math.log(1 / alpha)
    worse = averaged(np.moveaxis(harm, 0, 1)) >= wanted + math.log(metrics)
    less = safe.min(axis=0) >= wanted
    low = max((one for one, proved in zip(harms, worse, strict=True) if proved), default=-1.0)
    high = min((one for one, proved in zip(harms, less, strict=True) if proved), default=1.0)
    low = max(low, 0.0) if one.best >= wanted + math.log(metrics) else low
    needed = max((_needed(*pair, margin, wanted) for pair in zip(counts, safe[:, MARGIN], strict=True)), key=lambda n: math.inf if n != n else n)
    rows = int(counts[0, 0]), int(counts[0, 2])
    told = float(shares[worst, 0]), float(shares[worst, 1])
    return Standing(worst, told, rows, low, high, math.exp(-max(one.best, 0.0)), bool(less[MARGIN]) and low < margin, needed)


def _needed(counts: Any, sum_: float, margin: float, wanted: float) -> float:
    import numpy as np

    n_b, _, n_c, _ = counts
    if not n_b or not n_c:
        return math.nan
    rate = float(rates(np.zeros((1, 4)), counts)[0])
    grows = float(log_ratio(np.array([n_b / n_c, n_b / n_c * rate, 1.0, rate]), rate, rate, margin))
    return max(0.0, wanted - float(sum_)) / max(grows, 1e-12)


def proved(standings: Sequence[Standing], alpha: float, absent: int = 0) -> list[bool]:
    """Which metrics are worse for sure: the chance that any is called so wrongly, at any look, is at most alpha (Holm).

    `absent` metrics have said nothing yet, and will be judged with these.
    """
    return [p <= alpha for p in holm([*(one.p for one in standings), *[1.0] * absent])][: len(standings)]
