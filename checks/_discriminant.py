"""Rules that call a row live or reference: linear ones in the columns, and sparse ones in their products and in random waves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

PAIRED = 64  # columns whose products are looked at; of more, the leading components
WAVES = 128
LARGEST = 64  # features of a sparse rule
LEAST = 1e-3  # variance a feature is taken to have at least: what the reference never showed may still come
RIDGE = 0.05
SHARES = (0.5, 0.8, 0.95)  # of reference rows below a cut: for a change of all rows, of some, of few
STEP = 4_096
ROUNDING = 1e-4
LEVEL = 0.95
TOLD = 12


@dataclass(frozen=True, slots=True)
class Space:
    """What is looked at in a row of d columns: each column, each product of two of (at most) PAIRED, and WAVES cosines of random directions."""

    basis: Any  # d x k; None where the columns themselves are multiplied
    centre: Any
    waves: Any  # d x WAVES
    phases: Any

    def pairs(self, x: Any) -> Any:
        return x if self.basis is None else (x - self.centre) @ self.basis

    def cosines(self, x: Any, which: Any = slice(None)) -> Any:
        import numpy as np

        return np.cos(x @ self.waves[:, which] + self.phases[which])

    def some(self, x: Any, places: Any) -> Any:
        """Those features of the rows, numbered as in `moments`."""
        import numpy as np

        d = x.shape[1]
        left, right = np.triu_indices(d if self.basis is None else self.basis.shape[1])
        starts = 0, d, d + len(left), d + len(left) + WAVES
        linear, paired, waved = (places[(places >= low) & (places < high)] - low for low, high in pairwise(starts))
        z = self.pairs(x) if len(paired) else x
        return np.hstack([x[:, linear], z[:, left[paired]] * z[:, right[paired]], self.cosines(x, waved)])

    def factors(self, place: int, d: int) -> tuple[int, ...]:
        """The columns a feature is made of: one, or the two that are multiplied; none where it is made of all of them."""
        import numpy as np

        if place < d:
            return (place,)
        left, right = np.triu_indices(d)
        return (int(left[place - d]), int(right[place - d])) if self.basis is None and place - d < len(left) else ()


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and variance of every feature over n rows."""

    mean: Any
    variance: Any
    n: int


def prepared(x: Any, seed: int) -> tuple[Space, Any]:
    """A Space of reference rows, and the rows to take its moments of: others where it has components, which fit those they were made of too well."""
    return (space(x[::2], seed), x[1::2]) if x.shape[1] > PAIRED else (space(x, seed), x)


def space(x: Any, seed: int) -> Space:
    """The Space of reference rows: its waves as wide as their median distance, its components theirs."""
    import numpy as np

    rng = np.random.default_rng(seed)
    d = x.shape[1]
    width = median_distance(x, rng)
    waves = rng.normal(0, 1 / width, (d, WAVES)).astype(np.float32)
    phases = rng.uniform(0, 2 * math.pi, WAVES).astype(np.float32)
    if d <= PAIRED:
        return Space(None, None, waves, phases)
    centre = x.mean(axis=0)
    size, vectors = np.linalg.eigh(np.cov(x, rowvar=False))
    top = vectors[:, ::-1][:, :PAIRED] / np.sqrt(np.maximum(size[::-1][:PAIRED], LEAST))
    top = top * np.sign(top[np.abs(top).argmax(axis=0), np.arange(PAIRED)])  # a component has no sign of its own
    return Space(top.astype(np.float32), centre, waves, phases)


def median_distance(x: Any, rng: Any, rows: int = 500) -> float:
    """The median distance between two of (at most) 500 rows; 1 where most are equal."""
    import numpy as np

    some = x[rng.choice(len(x), min(rows, len(x)), replace=False)].astype(np.float64)
    return math.sqrt(float(np.median(squares(some, some)[np.triu_indices(len(some), 1)]))) or 1.0 if len(some) > 1 else 1.0


def squares(x: Any, y: Any) -> Any:
    """Squared distances between rows."""
    import numpy as np

    away = x @ y.T
    away *= -2
    away += (x * x).sum(axis=1)[:, None]
    away += (y * y).sum(axis=1)
    return np.maximum(away, 0, out=away)


def moments(where: Space, x: Any) -> Moments:
    """Of every feature, without ever holding them all for a row: those of products are two products of matrices."""
    import numpy as np

    totals = [np.asarray(0.0)] * 2
    for start in range(0, len(x), STEP):
        chunk = x[start : start + STEP]
        z, waves = where.pairs(chunk), where.cosines(chunk)
        upper = np.triu_indices(z.shape[1])
        for power in (1, 2):
            sums = [(chunk**power).sum(axis=0), ((z**power).T @ z**power)[upper], (waves**power).sum(axis=0)]
            totals[power - 1] = totals[power - 1] + np.concatenate(sums, dtype=np.float64)
    mean, second = (total / max(1, len(x)) for total in totals)
    return Moments(mean, np.maximum(second - mean**2, LEAST), len(x))


def scores(now: Any, weight: float, then: Moments) -> Any:
    """How many standard errors each feature's mean `now`, of `weight` rows, lies from the reference's."""
    import numpy as np

    return (now - then.mean) / np.sqrt(then.variance * (1 / weight + 1 / then.n))


@dataclass(frozen=True, slots=True)
class Rule:
    """Calls a row live where the weighted sum of some features is above a cut."""

    where: Space
    places: Any
    weights: Any
    cuts: Any

    def score(self, x: Any) -> Any:
        return self.where.some(x, self.places) @ self.weights

    def called(self, x: Any) -> tuple[int, ...]:
        """How many rows are called live, at each cut."""
        s = self.score(x)
        return tuple(int((s > cut).sum()) for cut in self.cuts)


def rules(where: Space, x: Any, then: Moments, now: Any, weight: float) -> Iterator[Rule]:
    """Fisher's discriminants between the reference rows x and the mean `now` of live ones: in all columns, and in the features that stand out.

    Features stand out beyond what the largest of so many would reach by chance, sqrt(2 log p) standard errors (the independence screening of
    Fan and Fan, Annals of Statistics 2008); each of those is shrunk by the part that chance explains. None stands out: the largest is taken.
    """
    import numpy as np

    z = scores(now, weight, then)
    limit = math.sqrt(2 * math.log(len(z)))
    places = np.argsort(-np.abs(z), kind="stable")[:LARGEST]
    places = np.sort(places[np.abs(z[places]) > limit] if abs(z[places[0]]) > limit else places[:1])
    yield _fisher(where, x, then, now, np.arange(x.shape[1]), np.ones(x.shape[1]))
    yield _fisher(where, x, then, now, places, np.maximum(0.1, 1 - (limit / np.maximum(np.abs(z[places]), 1e-9)) ** 2))


def _fisher(where: Space, x: Any, then: Moments, now: Any, places: Any, shrink: Any) -> Rule:
    """Weights for features in the reference's standard deviations, whose covariance is the reference's too."""
    import numpy as np

    scale = np.sqrt(then.variance[places])
    features = (where.some(x, places) - then.mean[places]) / scale
    covariance = features.T @ features / len(x)
    ridge = RIDGE + len(places) / len(x)
    weights = np.linalg.solve(covariance + ridge * np.eye(len(places)), shrink * (now - then.mean)[places] / scale) / scale
    reached = Rule(where, places, weights, None).score(x)
    off = ROUNDING * (float(reached.std()) or 1.0)  # equal rows may get scores that differ in their last digits: no cut may lie on one of them
    return Rule(where, places, weights, np.quantile(reached, SHARES) + off)


# How far apart two samples are, as a share of rows


@dataclass(frozen=True, slots=True)
class Apart:
    """The share of live rows a rule calls live, less that of reference rows: at most the total variation distance, the share of rows that would have
    to change. The interval holds for all rules tried together, and p is adjusted for them."""

    share: float
    interval: tuple[float, float]
    p: float
    n: int
    n_reference: int


def apart(tried: Sequence[Rule], live: Any, reference: Any) -> Apart:
    """Of the rules tried, at each of their cuts, the one surest to tell the two apart, on rows none of them was made of."""
    from agent.stats import difference
    from checks._gaps import shares

    n, m, calls = len(live), len(reference), len(tried) * len(SHARES)
    found = []
    for rule in tried:
        for hits, then in zip(rule.called(live), rule.called(reference), strict=True):
            interval = difference(hits, n, then, m, 1 - (1 - LEVEL) / calls)
            found.append(Apart(hits / n - then / m, interval, min(1.0, calls * shares(hits, n, then, m).p), n, m))
    return max(found, key=lambda one: (one.interval[0], one.share))


def standing_out(labels: Sequence[str], where: Space, then: Moments, now: Moments) -> dict[str, tuple[float, tuple[float, float]]]:
    """The named features that moved beyond chance, most certain first: by how many of the reference's standard deviations, with its 95 % interval.

    Columns before products; a product of a column that is named already says nothing new.
    """
    import numpy as np

    z = scores(now.mean, now.n, then)
    limit = math.sqrt(2 * math.log(len(z)))
    error = math.sqrt(1 / now.n + 1 / then.n)
    ranked = [place for place in np.argsort(-np.abs(z), kind="stable")[:LARGEST].tolist() if abs(z[place]) > limit]
    made = {place: where.factors(place, len(labels)) for place in ranked}
    alone = {place for place in ranked if len(made[place]) == 1}
    told = [*(place for place in ranked if place in alone), *(place for place in ranked if len(made[place]) == 2 and not alone & {*made[place]})]
    return {_named([labels[one] for one in made[p]]): (far := float(z[p]) * error, (far - 1.96 * error, far + 1.96 * error)) for p in told[:TOLD]}


def _named(columns: Sequence[str]) -> str:
    return columns[0] if len(columns) == 1 else f"{columns[0]} squared" if columns[0] == columns[1] else f"{columns[0]} x {columns[1]}"
