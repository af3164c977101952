"""drift.concept: the loss of labelled answers added up until it cannot be the baseline's any more.

The sum restarts at every window (Shiryaev and Roberts; as e-detector: Shin, Ramdas and Rinaldo 2022). Each factor is that of Fan, Grama and
Liu (2015): for x >= -1 with mean at most 0 and 0 <= l < 1, exp(l x - (-log(1 - l) - l) x^2) has mean at most 1. With x = (loss - m) / m, where
m is the most the mean loss may be, that holds whatever the losses are distributed as. So sum - windows is a supermartingale, the mean time to a
false alarm is at least the threshold A, and the chance of one within t windows at most t / A.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from agent import Baseline, Columns, Reading, Verdict, Window, fail, nodata, ok, spell, warn
from agent.errors import DataError
from agent.stats import clopper_pearson, wilson
from checks import _labels
from checks._labels import Joined
from checks._sample import Asked, Sample, UndefinedError, probabilities, sample
from checks._windows import unjudged

Loss = Literal["error", "brier", "absolute"]
BETS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
DOUBT = 0.01  # the chance that the baseline's mean loss is above its upper bound
CLIP = 0.999  # the quantile of the baseline's absolute errors that counts as a loss of 1


@dataclass(frozen=True, slots=True)
class Sums:
    """The evidence so far, what it is measured against, and the last window that was counted."""

    logs: tuple[float, ...] = ()  # of the restarted sum of each bet; none before the first window
    end_at: datetime | None = None
    start_at: datetime | None = None
    predictions: int = 0  # of that window, when it was counted
    labelled: int = 0
    base_n: int = 0
    base_total: float = 0.0
    base_squares: float = 0.0
    scale: float | None = None
    learned: bool = False
    windows: int = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """What the check was told."""

    loss: Loss | None
    tolerance: float
    asked: Asked
    label: str | None
    learn: int
    coverage_at_least: float


def look(
    live: Columns,
    labels: Columns,
    window: Window,
    run_length: float,
    reference: Columns | None,
    baseline: Baseline | None,
    memory: Sums | None,
    now: datetime | None,
    told: Settings,
) -> Verdict:
    """One window of predictions whose labels are due, counted once."""
    span, delay = _labels.judged(window, labels), _labels.delay_of(labels)
    sums = memory or Sums()
    if early := _labels.not_due(span, labels, now):
        return nodata(early, memory=memory)
    span = unjudged(span, sums.end_at)
    if baseline is not None and span.start < (pinned := _labels.pinned(baseline, labels)).end:
        return nodata(f"{_labels.spelled_span(span)} is part of the pinned baseline, which ends at {pinned.end:%Y-%m-%d %H:%M:%S}", memory=memory)
    late = _late(live, labels, sums)
    joined = _labels.join(live, labels, span)
    moved = replace(sums, end_at=span.end, start_at=span.start, predictions=joined.predictions, labelled=joined.labelled)
    if not joined.labelled:
        waits = f"; labels are due {spell(delay)} after their predictions" if delay else ""
        said = f"{joined.predictions} predictions in {_labels.spelled_span(span)} and no label for them{waits}{late}"
        return nodata(said, parts={"coverage": joined.coverage}, memory=moved)
    rows = sample(joined, live.declared, told.asked)
    base = moved if moved.learned else _from_tables(live, labels, reference, baseline, moved, told)
    lost, scale = losses(rows, told.loss, base.scale)
    base = replace(base, scale=scale)
    if not base.learned:
        return _learning(base, lost, told, joined)
    return _verdict(_folded(base, lost, told.tolerance), lost, run_length, told, joined, late)


# What one answer costs, in [0, 1]


def losses(rows: Sample, loss: Loss | None, scale: float | None) -> tuple[Any, float | None]:
    """The loss of each row, and what an absolute error was divided by: the given scale, else the 99.9 % quantile of these."""
    import numpy as np

    kind = loss or ("absolute" if rows.task == "regression" else "error")
    if (kind == "absolute") != (rows.task == "regression"):
        raise DataError(f"loss '{kind}' is none of {rows.task}; use {'absolute' if rows.task == 'regression' else 'error or brier'}")
    if kind == "error":
        return (rows.answer != rows.truth).astype(np.float64), scale
    if kind == "brier":
        return _brier(rows), scale
    errors = np.abs(rows.answer - rows.truth)
    scale = scale if scale is not None or not len(errors) else float(np.quantile(errors, CLIP)) or 1.0
    return np.clip(errors / (scale or 1.0), 0.0, 1.0), scale


def _brier(rows: Sample) -> Any:
    """The squared distance of the probability from what happened: of the positive class, of all (halved), or of the predicted class being right."""
    import numpy as np

    try:
        if rows.matrix is not None:
            told = probabilities(rows.matrix)
            lost = np.square(told - np.eye(len(rows.classes))[rows.truth]).sum(axis=1) / 2
        elif rows.score is not None:
            lost = np.square(probabilities(rows.score) - (rows.truth == rows.positive))
        else:
            lost = np.square(probabilities(rows.hit) - (rows.truth == rows.answer))
    except UndefinedError as problem:
        raise DataError(f"loss 'brier' {problem}") from None
    return np.clip(lost[~np.isnan(lost)], 0.0, 1.0)


# What the mean loss may be


def _from_tables(live: Columns, labels: Columns, reference: Columns | None, baseline: Baseline | None, sums: Sums, told: Settings) -> Sums:
    """The baseline's losses: of the pinned stretch, else of the reference; without either they are learned from the first windows."""
    if baseline is not None:
        joined, names = _labels.join(live, labels, _labels.pinned(baseline, labels)), live.declared
    elif reference is not None:
        joined, names = _labels.truth_of(reference, labels, told.label), _labels.names_of(reference, live)
    else:
        return sums
    lost, scale = losses(sample(joined, names, told.asked), told.loss, None)
    if len(lost) < 2:
        raise DataError(f"the {'baseline' if baseline else 'reference'} has {len(lost)} labelled rows, which say nothing about a mean loss")
    return replace(_added(sums, lost), scale=scale, learned=True)


def _added(sums: Sums, lost: Any) -> Sums:
    return replace(
        sums,
        base_n=sums.base_n + len(lost),
        base_total=sums.base_total + float(lost.sum()),
        base_squares=sums.base_squares + float((lost**2).sum()),
    )


def edge(sums: Sums) -> float:
    """The upper 99 % bound of the baseline's mean loss: Clopper and Pearson's for errors, else Maurer and Pontil's empirical Bernstein."""
    n, total = sums.base_n, sums.base_total
    if sums.base_squares == total and total == round(total):
        return clopper_pearson(round(total), n, 1 - 2 * DOUBT)[1]
    variance = max(0.0, (sums.base_squares - total * total / n) / (n - 1))
    ln = math.log(2 / DOUBT)
    return min(1.0, total / n + math.sqrt(2 * variance * ln / n) + 7 * ln / (3 * (n - 1)))


def _learning(sums: Sums, lost: Any, told: Settings, joined: Joined) -> Verdict:
    """The first labelled rows are what later ones are compared with; they are never tested themselves."""
    more = _added(sums, lost)
    more = replace(more, learned=more.base_n >= told.learn)
    done = "; it is complete" if more.learned else ""
    said = f"no reference and no pinned baseline: {more.base_n} of the first {told.learn} labelled rows are taken as the baseline{done}"
    return nodata(said, Reading(more.base_n, told.learn), parts={"coverage": joined.coverage}, memory=more)


# The evidence


def gain(lost: Any, most: float) -> tuple[float, ...]:
    """The logarithm of each bet's factor for the losses of one window, when their mean may be at most `most`."""
    x = (lost - most) / most
    total, squares = float(x.sum()), float((x**2).sum())
    return tuple(bet * total - (-math.log1p(-bet) - bet) * squares for bet in BETS)


def restarted(logs: tuple[float, ...], gains: tuple[float, ...]) -> tuple[float, ...]:
    """One step of each sum: everything so far and a fresh start, times the factor of this window."""
    from numpy import logaddexp

    return tuple(float(logaddexp(log, 0.0)) + more for log, more in zip(logs or (-math.inf,) * len(gains), gains, strict=True))


def evidence(logs: tuple[float, ...]) -> float:
    """The mean of the sums: an alarm when it reaches A."""
    from numpy import logaddexp

    return math.exp(min(700.0, float(logaddexp.reduce(logs)) - math.log(len(logs)))) if logs else 0.0


def _folded(sums: Sums, lost: Any, tolerance: float) -> Sums:
    most = edge(sums) + tolerance
    if most >= 1 or not len(lost):
        return sums
    return replace(sums, logs=restarted(sums.logs, gain(lost, most)), windows=sums.windows + 1)


def _late(live: Columns, labels: Columns, sums: Sums) -> str:
    """What came for the last window after it was counted: told, never added."""
    if sums.start_at is None or sums.end_at is None:
        return ""
    again = _labels.join(live, labels, Window(sums.start_at, sums.end_at))
    rows, told = again.predictions - sums.predictions, again.labelled - sums.labelled
    words = [f"{count} {what}" for count, what in ((rows, "predictions"), (told, "labels")) if count > 0]
    return f"; {' and '.join(words)} of the last window came late and are not counted" if words else ""


# In words


def _verdict(sums: Sums, lost: Any, run_length: float, told: Settings, joined: Joined, late: str) -> Verdict:
    most, n = edge(sums) + told.tolerance, len(lost)
    parts = {"coverage": joined.coverage, "baseline": Reading(sums.base_total / sums.base_n, None, (0.0, edge(sums)), sums.base_n)}
    if most >= 1 or not n:
        why = f"{sums.base_n} baseline rows cannot bound the mean loss below 1" if n else "no labelled row can be used"
        return nodata(f"nothing can be told: {why}{late}", parts=parts, memory=sums)
    found = evidence(sums.logs)
    risk = float(lost.mean())
    parts["evidence"] = Reading(found, run_length, n=sums.windows, unit="windows")
    reading = Reading(risk, most, _around(lost), n)
    thin = (joined.coverage.observed or 0.0) < told.coverage_at_least
    aside = f"; only {joined.coverage.observed:.0%} of the predictions have a label, and those may be biased" if thin else ""
    aside += "".join(f"; {note}" for note in joined.notes()) + late
    said = f"mean loss {risk:.4g} of {n} labelled rows, at most {most:.4g} is as the baseline ({sums.base_total / sums.base_n:.4g})"
    proof = f"evidence {found:.3g} of {run_length:.4g} in {sums.windows} windows"
    more: dict[str, Any] = {"parts": parts, "memory": sums, "data": {"concept.json": _file(sums, most, run_length, found)}}
    if found >= run_length:
        return (warn if thin else fail)(f"the truth has moved away from the answers: {said}; {proof}{aside}", reading, **more)
    return (warn if thin else ok)(f"{said}; {proof}{aside}", reading, **more)


def _around(lost: Any) -> tuple[float, float]:
    """Wilson's interval of errors; else the normal one, inside [0, 1]."""
    n, mean = len(lost), float(lost.mean())
    if ((lost == 0) | (lost == 1)).all():
        return wilson(int(lost.sum()), n)
    reach = 1.96 * float(lost.std()) / math.sqrt(n)
    return max(0.0, mean - reach), min(1.0, mean + reach)


def _file(sums: Sums, most: float, run_length: float, found: float) -> bytes:
    told = {"limit": most, "threshold": run_length, "evidence": found, "log_sums": dict(zip(map(str, BETS), sums.logs, strict=True))}
    told |= {"baseline": {"n": sums.base_n, "mean": sums.base_total / sums.base_n, "upper": edge(sums)}, "scale": sums.scale}
    return json.dumps(told, indent=1).encode()
