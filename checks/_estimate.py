"""Performance without labels: what a calibrated model expects of itself (CBPE), and what losses a reference predicts (DLE).

Confidence-based performance estimation and direct loss estimation as NannyML describes them; the error here covers the finite reference as well as
the window's own chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent import Columns
from agent.errors import DataError
from checks import _metrics
from checks._labels import coded
from checks._metrics import Estimate, Z
from checks._sample import Sample, UndefinedError, probabilities

CELLS = 500  # different scores beyond which the calibrator looks at quantiles
DRAWS = 200
ROWS = 20_000  # of a reference that a loss is learned from
WIDE = 256  # random features
CATEGORIES = 20  # of a text feature


# Isotonic calibration


@dataclass(frozen=True, slots=True)
class Steps:
    """How often each score came true in the reference: pooled cells of rising score."""

    scores: Any
    hits: Any
    weights: Any

    def at(self, score: Any, hits: Any = None) -> Any:
        """The isotonic fit, linear between the cells and level beyond them."""
        import numpy as np

        return np.interp(score, self.scores, pool(self.hits if hits is None else hits, self.weights))

    def fitted(self) -> Any:
        """The fit at each cell, none of it certain: what another reference would be drawn from."""
        return pool(self.hits, self.weights, 0.5)

    def likely(self, score: Any) -> Any:
        """As `at`, of what is fitted: the plain fit is too sure of itself where it has pooled few rows, and the metric would be flattered."""
        import numpy as np

        return np.interp(score, self.scores, self.fitted())


def steps(score: Any, came: Any) -> Steps:
    """The cells of a reference: every different score, or quantiles of them."""
    import numpy as np

    values, place = np.unique(score, return_inverse=True)
    if len(values) > CELLS:
        edges = np.unique(np.quantile(score, np.arange(1, CELLS) / CELLS))
        place = np.searchsorted(edges, score, side="left")
        _, place = np.unique(place, return_inverse=True)
    counts = np.bincount(place.ravel()).astype(np.float64)
    means = np.bincount(place.ravel(), score) / counts
    return Steps(means, np.bincount(place.ravel(), came), counts)


def pool(hits: Any, weights: Any, prior: float = 0.0) -> Any:
    """The rising shares nearest to hits / weights by least squares: adjacent violators are pooled (Ayer and others 1955).

    `prior` hits and misses are given to each pooled block afterwards, so that none is certain."""
    import numpy as np

    blocks: list[tuple[float, float, int]] = []
    for hit, weight in zip(hits.tolist(), weights.tolist(), strict=True):
        size = 1
        while blocks and blocks[-1][0] * weight >= hit * blocks[-1][1]:
            more_hit, more_weight, more = blocks.pop()
            hit, weight, size = hit + more_hit, weight + more_weight, size + more
        blocks.append((hit, weight, size))
    return np.repeat([(hit + prior) / (weight + 2 * prior) for hit, weight, _ in blocks], [size for *_, size in blocks])


# Classes: what a calibrated model expects


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A calibrator for each class (one of two classes has one; of the predicted class alone there is one for all)."""

    steps: tuple[Steps, ...]
    kind: str  # "positive", "each" or "hit"

    def chances(self, sample: Sample, redrawn: Sequence[Any] | None = None) -> Any:
        """The chance of each class for each row (of being right, where only that can be told)."""
        import numpy as np

        if self.kind != "each":
            return self._of(0, sample.score if self.kind == "positive" else sample.hit, redrawn)
        each = np.column_stack([self._of(place, sample.matrix[:, place], redrawn) for place in range(len(self.steps))])
        return (each + 1e-12) / (each + 1e-12).sum(axis=1, keepdims=True)

    def _of(self, place: int, score: Any, redrawn: Sequence[Any] | None) -> Any:
        return self.steps[place].likely(score) if redrawn is None else self.steps[place].at(score, redrawn[place])


def calibrated(reference: Sample) -> Calibrated:
    """Fitted on a labelled reference; UndefinedError where it has no probabilities."""
    if reference.task == "binary" and reference.positive >= 0 and reference.score is not None:
        return Calibrated((steps(probabilities(reference.score), reference.truth == reference.positive),), "positive")
    if reference.matrix is not None:
        told = probabilities(reference.matrix)
        return Calibrated(tuple(steps(told[:, place], reference.truth == place) for place in range(len(reference.classes))), "each")
    return Calibrated((steps(probabilities(reference.hit), reference.truth == reference.answer),), "hit")


def known_scores(sample: Sample) -> Sample:
    """The rows that have every score the calibrator needs."""
    import numpy as np

    binary = sample.task == "binary" and sample.positive >= 0 and sample.score is not None
    told = sample.score if binary else sample.matrix if sample.matrix is not None else sample.hit
    if told is None:
        raise UndefinedError("needs a score: declare `score` of live, and say by `positive` which class it is the probability of, or set `score_of`")
    probabilities(told[~np.isnan(told)])
    return sample.pick(~np.isnan(told.reshape(len(told), -1).sum(axis=1)))


def expected(metric: str, window: Sample, reference: Sample) -> Estimate:
    """The metric that is to be expected of the window, and where its realised value will lie (95 %) while P(y | score) is the reference's.

    The value weighs every outcome of every row by its chance. The error is the spread of the metric over draws of outcomes, each with a calibrator
    from another reference of the same size: the window's own chance and the reference's together.
    """
    import numpy as np

    model, random = calibrated(reference), np.random.default_rng(0)
    if model.kind == "hit" and metric != "accuracy":
        raise UndefinedError(
            "needs the probability of every class, name a column a class by `scores`; with the predicted class's alone there is accuracy"
        )
    value = _weighed(metric, window, model.chances(window), model.kind)
    drawn, fits = [], [one.fitted() for one in model.steps]
    for _ in range(DRAWS):
        redrawn = [random.binomial(one.weights.astype(np.int64), fit) for one, fit in zip(model.steps, fits, strict=True)]
        chances = model.chances(window, redrawn)
        try:
            drawn.append(_drawn(metric, window, chances, model.kind, random))
        except UndefinedError:
            continue
    if 2 * len(drawn) < DRAWS:
        raise UndefinedError(f"cannot be told: too few rows of the {window.n} are expected to be of one class")
    reach = Z * float(np.std(drawn, ddof=1))
    low, high = (0.0, math.inf if metric in ("log_loss", "brier") else 1.0)
    return Estimate(value, max(low, value - reach), min(high, value + reach), window.n, "calibrated on the reference")


def _weighed(metric: str, window: Sample, chances: Any, kind: str) -> float:
    """The metric over all outcomes of all rows, each weighing as much as it is likely."""
    import numpy as np

    if kind == "hit":
        return float(chances @ window.weight / window.weight.sum())
    columns = chances if kind == "each" else np.column_stack([chances if place == window.positive else 1 - chances for place in _two(window)])
    places = range(len(window.classes)) if kind == "each" else _two(window)
    every = [replace(window, truth=np.full(window.n, place), weight=window.weight * columns[:, n]) for n, place in enumerate(places)]
    return _metrics.point(metric, _stacked(every))


def _two(window: Sample) -> tuple[int, int]:
    """The positive class and the other."""
    return window.positive, next(place for place in range(len(window.classes)) if place != window.positive)


def _stacked(samples: Sequence[Sample]) -> Sample:
    import numpy as np

    def whole(name: str) -> Any:
        parts = [getattr(one, name) for one in samples]
        return None if parts[0] is None else np.concatenate(parts)

    lists = {name: whole(name) for name in ("truth", "answer", "weight", "score", "hit", "matrix")}
    return replace(samples[0], **lists)


def _drawn(metric: str, window: Sample, chances: Any, kind: str, random: Any) -> float:
    import numpy as np

    if kind == "hit":
        return float((random.random(window.n) < chances) @ window.weight / window.weight.sum())
    if kind == "each":
        truth = np.minimum((np.cumsum(chances, axis=1) < random.random((window.n, 1))).sum(axis=1), len(window.classes) - 1)
    else:
        yes, no = _two(window)
        truth = np.where(random.random(window.n) < chances, yes, no)
    return _metrics.point(metric, replace(window, truth=truth))


# Numbers: what losses the reference predicts


def predicted(metric: str, tau: float, reference: Sample, known: Any, live: Any, answers: Any) -> Estimate:
    """The mean loss to be expected of the window: ridge regression of the reference's losses on random features of inputs and prediction.

    The error adds the spread of single losses (their variance is predicted in the same way) and that of the fit (its sandwich variance at the
    window's mean features). mae, rmse, bias and pinball.
    """
    import numpy as np

    spread = Spread.of(np.column_stack([known, reference.answer]))
    inputs = spread.wide(np.column_stack([known, reference.answer]))
    outputs = spread.wide(np.column_stack([live, answers]))
    lost = _metrics.losses(metric, reference, tau)
    fit = _ridge(inputs, lost)
    left = lost - inputs @ fit.weights
    freedom = len(lost) / max(1.0, len(lost) - fit.used)
    variances = np.maximum(0.0, outputs @ _ridge(inputs, left**2).weights) * freedom
    middle = outputs.mean(axis=0)
    lean = inputs @ (fit.inverse @ middle)
    error = math.sqrt(float(variances.mean()) / len(outputs) + float((lean**2) @ (left**2)) * freedom)
    mean = float(middle @ fit.weights)
    low = -math.inf if metric == "bias" else 0.0
    ends = [max(low, mean + side * Z * error) for side in (-1, 0, 1)]
    value, down, up = (math.sqrt(end) for end in (ends[1], ends[0], ends[2])) if metric == "rmse" else (ends[1], ends[0], ends[2])
    return Estimate(value, down, up, len(outputs), "losses learned from the reference")


@dataclass(frozen=True, slots=True)
class Ridge:
    """Weights, the inverse they came from, and how many parameters it really uses."""

    weights: Any
    inverse: Any
    used: float


def _ridge(inputs: Any, target: Any) -> Ridge:
    """The penalty that generalised cross-validation likes best, of a few; the constant is not shrunk."""
    import numpy as np

    gram, moments = inputs.T @ inputs, inputs.T @ target
    best: tuple[float, Ridge] | None = None
    for penalty in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        shrink = np.eye(len(gram)) * penalty * len(target)
        shrink[0, 0] = 1e-9
        inverse = np.linalg.inv(gram + shrink)
        weights, used = inverse @ moments, float(np.trace(inverse @ gram))
        wrong = float(np.mean((target - inputs @ weights) ** 2)) / max(1e-9, 1 - used / len(target)) ** 2
        if best is None or wrong < best[0]:
            best = wrong, Ridge(weights, inverse, used)
    assert best is not None
    return best[1]


@dataclass(frozen=True, slots=True)
class Spread:
    """Inputs put on one scale (as ranks among the reference's), and hinge functions of random directions of them: what a ridge can bend with."""

    grids: Any
    turns: Any
    shifts: Any

    @classmethod
    def of(cls, table: Any) -> Spread:
        import numpy as np

        random = np.random.default_rng(0)
        table = np.where(np.isnan(table).all(axis=0), 0.0, table)  # what a slice has nowhere tells it nothing
        grids = np.nanquantile(table, np.linspace(0, 1, 101), axis=0) if len(table) else np.zeros((101, table.shape[1]))
        turns = random.normal(size=(table.shape[1], WIDE)) * (random.random((table.shape[1], WIDE)) < max(0.2, 2 / table.shape[1]))
        return cls(grids, turns / np.maximum(1e-9, np.sqrt((turns**2).sum(axis=0))), random.uniform(-1, 1, WIDE))

    def wide(self, table: Any) -> Any:
        import numpy as np

        ranks = np.column_stack([_ranked(table[:, place], self.grids[:, place]) for place in range(table.shape[1])])
        return np.column_stack([np.ones(len(table)), ranks, np.maximum(0.0, ranks @ self.turns - self.shifts)])


def _ranked(values: Any, grid: Any) -> Any:
    """From -1 to 1 by rank in the reference; beyond it at the end, missing in the middle."""
    import numpy as np

    distinct, first = np.unique(grid, return_index=True)
    if len(distinct) < 2 or np.isnan(grid).any():
        return np.zeros(len(values))
    last = len(grid) - 1 - np.unique(grid[::-1], return_index=True)[1]
    return np.nan_to_num(np.interp(values, distinct, (first + last) / (len(grid) - 1) - 1))


def features(rows: Columns, names: Sequence[str], vocabularies: dict[str, tuple[str, ...]]) -> Iterator[Any]:
    """Each feature as columns of numbers: itself and whether it is missing; of text one for each of its commonest values, which are noted."""
    import numpy as np

    for name in names:
        column = coded(rows, name)
        if column.names is None:
            yield np.where(np.isfinite(column.values), column.values, np.nan)
            yield np.isnan(column.values).astype(np.float64)
            continue
        codes, told = np.where(np.isnan(column.values), -1, column.values).astype(np.int64), column.names
        if name not in vocabularies:
            counts = np.bincount(codes[codes >= 0], minlength=len(told))
            common = sorted(range(len(counts)), key=lambda place: (-counts[place], told[place]))[:CATEGORIES]
            vocabularies[name] = tuple(told[place] for place in common)
        for value in vocabularies[name]:
            yield (codes == (told.index(value) if value in told else -2)).astype(np.float64)


def feature_names(live: Columns) -> list[str]:
    """The declared features."""
    declared = live.declared.get("features") or ()
    if isinstance(declared, Mapping):
        return list(declared.get("names") or [f"{declared.get('prefix', 'p')}{place}" for place in range(int(declared["size"]))])
    return [str(name) for name in declared]


def matrix(rows: Columns, names: Sequence[str], vocabularies: dict[str, tuple[str, ...]]) -> Any:
    """The features of all rows, a row each."""
    import numpy as np

    columns = list(features(rows, names, vocabularies))
    return np.column_stack(columns) if columns else np.empty((rows.rows(), 0))


def of_features(names: Sequence[str], reference: Columns, live: Columns) -> None:
    """DataError where a feature is missing on a side."""
    for table, what in ((reference, "the reference"), (live, "live")):
        lacking = [name for name in names if name not in table.kinds()]
        if lacking:
            raise DataError(f"{what} has no column '{lacking[0]}', which is declared as a feature; the loss cannot be learned without it")
