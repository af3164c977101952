"""How good answers were, each number with its interval: shares, ranks, losses, each with the interval theory has for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from agent.stats import wilson
from checks._sample import Sample, UndefinedError, probabilities

LEVEL = 0.95
Z = 1.959963984540054
REPEATS = 400  # bootstrap samples, always of the same seed: the same rows give the same interval
BY_CLASS = ("precision", "recall", "f1")
MACRO = ("balanced_accuracy", "macro_precision", "macro_recall", "macro_f1")
SCORED = ("log_loss", "brier", "roc_auc", "average_precision")
NUMBERS = ("mae", "rmse", "mape", "r2", "bias", "pinball")
METRICS = ("accuracy", *BY_CLASS, *MACRO, *SCORED, *NUMBERS)
LOWER_IS_BETTER = frozenset({"log_loss", "brier", "mae", "rmse", "mape", "pinball"})


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number measured on n rows, where it surely lies (95 %), and how that was found; `hits` of `of` where it is a share."""

    value: float
    low: float
    high: float
    n: int
    how: str
    hits: int = 0
    of: int = 0

    def p(self, limit: float, below: bool) -> float:
        """The p-value of "not below (or above) the limit": the score test of a share, else the normal one its interval implies."""
        gap = limit - self.value if below else self.value - limit
        if self.of and 0 < limit < 1:
            return _tail(gap / math.sqrt(limit * (1 - limit) / self.of))
        reach = self.high - self.value if below else self.value - self.low
        return _tail(Z * gap / reach if reach > 0 else math.copysign(math.inf, gap) if gap else 0.0)


def _tail(z: float) -> float:
    return math.erfc(z / math.sqrt(2)) / 2


def estimate(metric: str, sample: Sample, tau: float = 0.5) -> Estimate:
    """The metric of these rows with its 95 % interval; UndefinedError where they have none."""
    rows = _usable(metric, sample)
    if not rows.n:
        raise UndefinedError("no labelled row can be used" + (" (none has a score)" if sample.n else ""))
    if metric in NUMBERS or metric in ("log_loss", "brier"):
        return _mean_like(metric, rows, tau)
    if metric == "roc_auc":
        return _auc(rows)
    if metric == "average_precision":
        return _average_precision(rows)
    return _of_table(metric, table(rows), rows)


def point(metric: str, sample: Sample, tau: float = 0.5) -> float:
    """The metric alone; weights may be fractions of rows."""
    rows = _usable(metric, sample)
    if metric in ("roc_auc", "average_precision"):
        return roc_auc(rows) if metric == "roc_auc" else average_precision(rows)
    if metric == "r2":
        return _r2(rows)[0]
    if metric in NUMBERS or metric in ("log_loss", "brier"):
        mean = float(losses(metric, rows, tau) @ rows.weight) / float(rows.weight.sum())
        return math.sqrt(mean) if metric == "rmse" else mean
    return float(from_table(metric, table(rows), rows.positive))


def _usable(metric: str, sample: Sample) -> Sample:
    """The rows the metric can use: those with a score, those whose truth is not zero. UndefinedError where the task has no such metric."""
    import numpy as np

    if (metric in NUMBERS) != (sample.task == "regression"):
        what = "numbers" if sample.task == "regression" else "classes"
        raise UndefinedError(f"is no metric of {what}; set `metric`, or `task` if that is not what they are")
    if metric == "mape":
        keep = sample.truth != 0
        if 2 * keep.sum() < sample.n:
            raise UndefinedError(f"{int((~keep).sum())} of {sample.n} labels are 0, and a share of 0 is no measure; use mae")
        return sample.pick(keep)
    if metric in SCORED:
        scores = _scores(metric, sample)
        if scores is None:
            raise UndefinedError(_NO_SCORE)
        known = ~np.isnan(scores.reshape(len(scores), -1).sum(axis=1))
        return sample if known.all() else sample.pick(known)
    return sample


_NO_SCORE = "needs a score: declare `score` of live, and say by `positive` which class it is the probability of, or name a column a class by `scores`"


def _scores(metric: str, sample: Sample) -> Any:
    return sample.matrix if sample.task == "multiclass" and metric in ("log_loss", "brier") and sample.matrix is not None else sample.score


# From the table of truth against answer


def table(sample: Sample) -> Any:
    """Rows by true class (down) and predicted class (across)."""
    import numpy as np

    size = len(sample.classes)
    return np.bincount(sample.truth * size + sample.answer, sample.weight, size * size).reshape(size, size)


def from_table(metric: str, cells: Any, positive: int = -1) -> Any:
    """A metric of one table, or of many at once; macro means go over the classes that are true or predicted somewhere in the table.

    What divides by nothing is 0, as in scikit-learn; balanced accuracy goes over the classes that are true.
    """
    import numpy as np

    right = np.diagonal(cells, axis1=-2, axis2=-1)
    true, told = cells.sum(axis=-1), cells.sum(axis=-2)
    if metric == "accuracy":
        return _over(right.sum(axis=-1), true.sum(axis=-1))
    above, below, among = {
        "precision": (right, told, true + told > 0),
        "recall": (right, true, true + told > 0),
        "f1": (2 * right, true + told, true + told > 0),
        "balanced_accuracy": (right, true, true > 0),
    }[metric.removeprefix("macro_")]
    if metric in BY_CLASS:
        return _over(above[..., positive], below[..., positive])
    return _over(np.where(among, _over(above, below), 0).sum(axis=-1), among.sum(axis=-1))


def _over(above: Any, below: Any) -> Any:
    import numpy as np

    return np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=np.asarray(below) > 0)


def _of_table(metric: str, cells: Any, sample: Sample) -> Estimate:
    if metric == "accuracy":
        return _share(float(cells.trace()), float(cells.sum()), sample)
    if metric == "balanced_accuracy":
        return _mean_of_shares([by_class("recall", cells, place, sample) for place in range(len(cells)) if cells[place].sum() > 0], sample.n)
    if metric in BY_CLASS:
        if sample.positive < 0:
            raise UndefinedError(f"needs the class it is about: set `positive` (there is {', '.join(sample.classes[:5])}), or use macro_{metric}")
        return by_class(metric, cells, sample.positive, sample)
    return _of_many_tables(metric, cells, sample)


def by_class(metric: str, cells: Any, place: int, sample: Sample) -> Estimate:
    """Precision, recall or F1 of one class, by Wilson's interval; F1 is 2s/(1+s) of the share s of hits among all that are true or predicted."""
    hits, true, told = float(cells[place, place]), float(cells[place].sum()), float(cells[:, place].sum())
    below = {"precision": told, "recall": true, "f1": true + told - hits}[metric]
    if below <= 0:
        none = {"precision": "predicted", "recall": "true", "f1": "true or predicted"}[metric]
        raise UndefinedError(f"no row is {none} '{sample.classes[place]}'")
    found = _share(hits, below, sample)
    if metric != "f1":
        return found
    value, low, high = (2 * share / (1 + share) for share in (found.value, found.low, found.high))
    return Estimate(value, low, high, found.n, found.how)


def _share(hits: float, total: float, sample: Sample) -> Estimate:
    """Wilson's interval; weighted rows count as many as their effective number."""
    share = min(1.0, hits / total)
    of = max(1, round(total * sample.effective / float(sample.weight.sum())))
    low, high = wilson(round(share * of), of)
    return Estimate(share, min(low, share), max(high, share), of, "Wilson", round(share * of), of)


def _mean_of_shares(shares: list[Estimate], n: int) -> Estimate:
    """The mean of independent shares, its reach put together from theirs (Zou and Donner's way of variance estimates recovered)."""
    mean = sum(one.value for one in shares) / len(shares)
    down, up = (math.hypot(*(getattr(one, end) - one.value for one in shares)) / len(shares) for end in ("low", "high"))
    return Estimate(mean, max(0.0, mean - down), min(1.0, mean + up), n, "Wilson, combined")


def _of_many_tables(metric: str, cells: Any, sample: Sample) -> Estimate:
    """Bootstrap over the cells of the table: the same as over rows, at the cost of the table."""
    import numpy as np

    total, effective = float(cells.sum()), max(1, round(sample.effective))
    size = len(cells)
    repeats = max(50, min(REPEATS, 4_000_000 // cells.size))
    drawn = np.random.default_rng(0).multinomial(effective, cells.ravel() / total, repeats)
    return _from_draws(float(from_table(metric, cells)), from_table(metric, drawn.reshape(repeats, size, size)), sample.n, (0.0, 1.0))


def _from_draws(value: float, drawn: Any, n: int, within: tuple[float, float]) -> Estimate:
    """The spread of the draws about the value: normal-theory reach with the bootstrap's standard deviation."""
    reach = Z * float(drawn.std(ddof=1))
    return Estimate(value, max(within[0], value - reach), min(within[1], value + reach), n, "bootstrap")


# From ranks


def roc_auc(sample: Sample) -> float:
    """The chance that a positive row scores above a negative one, ties counting half."""
    positives, _ = _placements(sample)
    return float(positives[0] @ positives[1] / positives[1].sum())


def _placements(sample: Sample) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """For each positive the share of negatives it outranks, with its weight, and the other way about."""
    is_positive = sample.truth == _positive(sample)
    sides = [(sample.score[side], sample.weight[side]) for side in (is_positive, ~is_positive)]
    if not sides[0][1].sum() or not sides[1][1].sum():
        raise UndefinedError(
            f"all {sample.n} labelled rows are {'' if len(sides[0][0]) else 'not '}'{sample.classes[sample.positive]}': ranks need both"
        )
    return (_outranked(sides[0][0], *sides[1]), sides[0][1]), (1 - _outranked(sides[1][0], *sides[0]), sides[1][1])


def _outranked(scores: Any, others: Any, weights: Any) -> Any:
    import numpy as np

    order = np.argsort(others, kind="stable")
    up_to = np.concatenate([[0.0], np.cumsum(weights[order])])
    rising = others[order]
    return (up_to[np.searchsorted(rising, scores, "left")] + up_to[np.searchsorted(rising, scores, "right")]) / (2 * up_to[-1])


def _auc(sample: Sample) -> Estimate:
    """DeLong's variance, on the logit scale so that the interval stays inside [0, 1]."""
    positives, negatives = _placements(sample)
    area = float(positives[0] @ positives[1] / positives[1].sum())
    variance = sum(_variance(*side) / _effective(side[1]) for side in (positives, negatives))
    least = max(1, int(min(_effective(side[1]) for side in (positives, negatives))))
    if variance <= 0 or not 0 < area < 1:
        low, high = wilson(round(area * least), least)
        return Estimate(area, min(low, area), max(high, area), sample.n, "Wilson of the rarer class: the ranks do not overlap")
    reach = Z * math.sqrt(variance) / (area * (1 - area))
    logit = math.log(area / (1 - area))
    low, high = (1 / (1 + math.exp(-max(-700.0, min(700.0, logit + side)))) for side in (-reach, reach))
    return Estimate(area, low, high, sample.n, "DeLong")


def _variance(values: Any, weights: Any) -> float:
    """Weighted, with the correction for the mean being estimated."""
    n = _effective(weights)
    mean = float(values @ weights / weights.sum())
    return float(((values - mean) ** 2) @ weights / weights.sum()) * n / (n - 1) if n > 1 else 0.25


def _effective(weights: Any) -> float:
    return float(weights.sum() ** 2 / (weights**2).sum())


def average_precision(sample: Sample) -> float:
    """The precision at each score, weighted by the recall it adds; no interpolation."""
    return _precision_at(sample)(sample.weight)


def _precision_at(sample: Sample) -> Callable[[Any], float]:
    """Average precision as a function of the weights, with the sorting done once."""
    import numpy as np

    order = np.argsort(-sample.score, kind="stable")
    falling, hit = sample.score[order], (sample.truth == _positive(sample))[order]
    ends = np.flatnonzero(np.append(falling[1:] != falling[:-1], True)) if len(falling) else np.empty(0, int)

    def precision(weight: Any) -> float:
        counted = weight[order]
        hits, told = np.cumsum(counted * hit)[ends], np.cumsum(counted)[ends]
        if not len(hits) or hits[-1] <= 0:
            raise UndefinedError(f"no labelled row is '{sample.classes[sample.positive]}'")
        return float(np.diff(hits, prepend=0.0) @ _over(hits, told) / hits[-1])

    return precision


def _average_precision(sample: Sample) -> Estimate:
    """A Poisson bootstrap over rows, with fewer samples where there are so many rows that each says much the same."""
    import numpy as np

    precision, random = _precision_at(sample), np.random.default_rng(0)
    value = precision(sample.weight)
    drawn: list[float] = []
    repeats = max(50, min(REPEATS // 2, 20_000_000 // sample.n))
    for _ in range(repeats):
        weight = sample.weight * random.poisson(1.0, sample.n)
        drawn += [precision(weight)] if (weight[sample.truth == sample.positive] > 0).any() else []
    if 2 * len(drawn) < repeats:
        raise UndefinedError(f"too few rows are '{sample.classes[sample.positive]}' to say how sure it is")
    return _from_draws(value, np.array(drawn), sample.n, (0.0, 1.0))


def _positive(sample: Sample) -> int:
    if sample.positive < 0:
        raise UndefinedError(f"needs the class it is about: set `positive` (there is {', '.join(sample.classes[:5])})")
    return sample.positive


# From losses


def losses(metric: str, sample: Sample, tau: float = 0.5) -> Any:
    """What each row costs (rmse: the square); scores are clipped as far as log loss needs it to be finite."""
    import numpy as np

    if metric in ("log_loss", "brier"):
        return _score_losses(metric, sample)
    error = sample.answer - sample.truth
    if metric == "mape":
        return np.abs(error / sample.truth)
    if metric == "pinball":
        return np.maximum(-tau * error, (1 - tau) * error)
    return np.abs(error) if metric == "mae" else np.square(error) if metric == "rmse" else error


def _score_losses(metric: str, sample: Sample) -> Any:
    import numpy as np

    if sample.task == "multiclass":
        if sample.matrix is None:
            raise UndefinedError("needs the probability of every class; name a column a class by `scores`")
        told = probabilities(sample.matrix)
        if metric == "brier":
            return np.square(told - np.eye(len(sample.classes))[sample.truth]).sum(axis=1)
        of_truth = told[np.arange(sample.n), sample.truth] / told.sum(axis=1)
    else:
        told, truth = probabilities(sample.score), sample.truth == _positive(sample)
        if metric == "brier":
            return np.square(told - truth)
        of_truth = np.where(truth, told, 1 - told)
    tiny = np.finfo(np.float64).eps
    return -np.log(np.clip(of_truth, tiny, 1 - tiny))


def _mean_like(metric: str, sample: Sample, tau: float) -> Estimate:
    """The mean of losses with Student's interval; rmse is its root, R2 goes by its influence on each row."""
    if metric == "r2":
        value, influence = _r2(sample)
        reach = _student(sample.effective) * math.sqrt(_variance(influence, sample.weight) / sample.effective)
        return Estimate(value, value - reach, min(1.0, value + reach), sample.n, "normal, by influence")
    lost = losses(metric, sample, tau)
    mean = float(lost @ sample.weight / sample.weight.sum())
    reach = _student(sample.effective) * math.sqrt(_variance(lost, sample.weight) / sample.effective)
    low = mean - reach if metric == "bias" else max(0.0, mean - reach)
    found = Estimate(mean, low, mean + reach, sample.n, "Student")
    if metric == "rmse":
        return replace(found, value=math.sqrt(mean), low=math.sqrt(low), high=math.sqrt(mean + reach))
    return found


def _r2(sample: Sample) -> tuple[float, Any]:
    import numpy as np

    total = float(sample.weight.sum())
    around = np.square(sample.truth - float(sample.truth @ sample.weight) / total if total else sample.truth)
    spread = float(around @ sample.weight) / total if total else 0.0
    if spread <= 0:
        raise UndefinedError("all labels are the same number, so there is nothing to explain")
    squares = np.square(sample.answer - sample.truth)
    value = 1 - float(squares @ sample.weight) / total / spread
    return value, (squares - (1 - value) * around) / spread


def _student(n: float) -> float:
    from scipy.special import stdtrit

    if n <= 1:
        raise UndefinedError("one row has no interval")
    return float(stdtrit(n - 1, (1 + LEVEL) / 2))
