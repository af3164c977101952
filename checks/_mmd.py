"""Maximum mean discrepancy of two samples with a Gaussian kernel (Gretton et al., JMLR 2012), judged by permutation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from checks._discriminant import median_distance, squares

EXACT = 1_000  # rows a side up to which every pair of rows is looked at
MANY = 10_000  # rows a side beyond which every second, third ... is taken
FREQUENCIES = 256
BLOCK = 250  # permutations at a time where rows are many
SLACK = 1e-7  # float32 rounds; equal is counted as at least


@dataclass(frozen=True, slots=True)
class Test:
    """The unbiased squared discrepancy, how large chance alone makes it in 95 % of permutations, and the share of permutations at least as large."""

    squared: float
    by_chance: float
    p: float
    bandwidth: float
    how: str


def test(live: Any, reference: Any, permutations: int, seed: int) -> Test:
    """Two float32 matrices of at least two rows each. The p-value is exact if rows are exchangeable between the sides under no difference.

    The bandwidth is the median distance within (at most) 500 rows of both sides together, drawn without regard to the side. Up to EXACT rows a side
    all pairs are compared; beyond, a cosine and a sine of FREQUENCIES random directions stand for the kernel (Rahimi and Recht, NeurIPS 2007).
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    live, reference = (side[:: -(-len(side) // MANY)] for side in (live, reference))
    both = np.concatenate([live, reference])
    bandwidth = median_distance(both, rng)
    marks = labels(len(live), len(both), permutations, rng)
    if max(len(live), len(reference)) <= EXACT:
        found, how = exact(kernel(both, bandwidth), marks), "all pairs"
    else:
        found, how = by_features(features(both, bandwidth, rng), marks), f"{FREQUENCIES} random frequencies"
    by_chance = float(np.quantile(found[1:], 0.95)) if permutations else 0.0
    return Test(float(found[0]), by_chance, (1 + int((found[1:] >= found[0] - SLACK).sum())) / (1 + permutations), bandwidth, how)


def labels(n: int, total: int, permutations: int, rng: Any) -> Any:
    """(1 + permutations) x rows: which n rows are called live, first as they are."""
    import numpy as np

    marks = np.zeros((1 + permutations, total), dtype=np.float32)
    marks[0, :n] = 1
    for start in range(1, 1 + permutations, BLOCK):
        some = marks[start : start + BLOCK]
        drawn = rng.random(some.shape, dtype=np.float32)
        np.put_along_axis(some, np.argpartition(drawn, n, axis=1)[:, :n], 1, axis=1)  # the n least: a random choice, at half a shuffle's price
    return marks


def kernel(x: Any, bandwidth: float, kind: str = "float32") -> Any:
    """The Gaussian kernel between all rows, without its diagonal and with the mean of the rest taken off.

    A constant taken from every pair changes no unbiased discrepancy, and leaves numbers so small that float32 sums them as float64 would.
    """
    import numpy as np

    away = squares(x.astype(kind), x.astype(kind))
    away *= -0.5 / bandwidth**2
    k = np.exp(away, out=away)
    np.fill_diagonal(k, 0)
    k -= np.asarray(k.sum(dtype=np.float64) / (len(k) * (len(k) - 1)), dtype=kind)
    np.fill_diagonal(k, 0)
    return k


def exact(k: Any, marks: Any) -> Any:
    """The unbiased squared discrepancy of each row of marks: one product of matrices, whatever the number of permutations."""
    import numpy as np

    n, m = float(marks[0].sum()), float((1 - marks[0]).sum())
    within = np.einsum("ij,ij->i", marks, marks @ k, dtype=np.float64)
    margin = marks @ k.sum(axis=1, dtype=np.float64)
    rest = k.sum(dtype=np.float64) - 2 * margin + within
    return within / (n * (n - 1)) + rest / (m * (m - 1)) - 2 * (margin - within) / (n * m)


def features(x: Any, bandwidth: float, rng: Any) -> Any:
    """rows x 2 FREQUENCIES, whose inner products are the kernel on average; centred."""
    import numpy as np

    angles = x @ rng.normal(0, 1 / bandwidth, (x.shape[1], FREQUENCIES)).astype(np.float32)
    f = np.hstack([np.cos(angles), np.sin(angles)]) / np.float32(math.sqrt(FREQUENCIES))
    return f - f.mean(axis=0)


def by_features(f: Any, marks: Any) -> Any:
    """The same for a kernel of features: the squared distance of their means, less what each row adds to itself."""
    import numpy as np

    n, m = float(marks[0].sum()), float((1 - marks[0]).sum())
    own, out = np.einsum("ij,ij->i", f, f, dtype=np.float64), []
    for start in range(0, len(marks), BLOCK):
        some = marks[start : start + BLOCK]
        live = (some @ f).astype(np.float64)
        rest = -live  # the features are centred, so both sums are opposite
        alike = some @ own
        within = ((live**2).sum(axis=1) - alike) / (n * (n - 1)) + ((rest**2).sum(axis=1) - (own.sum() - alike)) / (m * (m - 1))
        out.append(within - 2 * (live * rest).sum(axis=1) / (n * m))
    return np.concatenate(out)
