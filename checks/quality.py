"""How good the answers are: measured against labels when they are due, or estimated without them while nothing else has changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

from agent import Baseline, Columns, Json, Reading, Verdict, Window, check, fail, nodata, ok, skip, to_json, warn
from agent.errors import DataError
from checks import _calibration, _estimate, _labels, _limits, _measured, _metrics
from checks._calibration import Binning, Reliability
from checks._labels import Coded, Joined
from checks._limits import Judged
from checks._sample import Asked, Sample, ScoreOf, Task, UndefinedError, reference_columns, sample

Metric = Literal[
    "accuracy",
    "precision",
    "recall",
    "f1",
    "balanced_accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "log_loss",
    "brier",
    "roc_auc",
    "average_precision",
    "mae",
    "rmse",
    "mape",
    "r2",
    "bias",
    "pinball",
]
HOLDS = "this holds only while P(y|x) is as in the reference: concept drift is invisible to it"


@check(pillar="monitoring", asks="Are the answers as good as they should be, by the labels that are due?", cause="answers")
def accuracy(
    live: Columns,
    labels: Columns,
    window: Window,
    reference: Columns | None = None,
    baseline: Baseline | None = None,
    now: datetime | None = None,
    *,
    metric: Metric | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    worse_by: float | None = None,
    task: Task | None = None,
    positive: str | int | bool | None = None,
    score_of: ScoreOf | None = None,
    scores: dict[str, str] | None = None,
    tau: float = 0.5,
    slices: list[str | dict[str, list[float]]] | None = None,
    label: str | None = None,
    rows_at_least: int = 100,
    coverage_at_least: float = 0.5,
) -> Verdict:
    """Fails when `metric` is surely beyond a limit: the far end of its 95 % interval too. Warns when only the number itself is.

    The predictions judged are those of the window before the last `labels.delay`, joined to labels by id. Limits are `at_least`, `at_most`,
    or `worse_by`: how much worse than the baseline that is pinned, else than the reference. `metric` is accuracy for classes and mae
    for numbers unless given. Every slice is judged as well, by Holm over all of them. A window of which fewer than `coverage_at_least` of
    the rows have a label warns instead of failing: labels that come first are rarely like the others. Without any limit it is skipped.
    """
    due = _due(live, labels, window, now, rows_at_least)
    if isinstance(due, Verdict):
        return due
    asked = _asked(task, positive, score_of, scores, metric)
    rows = sample(due, live.declared, asked)
    judged = metric or ("mae" if rows.task == "regression" else "accuracy")
    if rows.n < rows_at_least:
        return _few(due, rows, rows_at_least)
    ruler = _measured.Ruler(judged, at_least, at_most, worse_by, tau, rows_at_least)
    yard = _yardstick(live, labels, reference, baseline, label, asked) if worse_by is not None else None
    try:
        overall = ruler.judge(judged, rows, yard[1] if yard else None)
    except UndefinedError as problem:
        return nodata(f"{judged} of {rows.n} rows {problem}", parts={"coverage": due.coverage})
    sliced, small = _measured.sliced_by(ruler, due, rows, yard, slices or ())
    return _measured.told(overall, sliced, small, due, rows, coverage_at_least, _measured.others_of(rows, tau, judged))


# What is due, and what it is compared with


def _due(live: Columns, labels: Columns, window: Window, now: datetime | None, rows_at_least: int) -> Joined | Verdict:
    """The labelled predictions whose labels are due; nodata where there are none, with when there may be."""
    span, delay = _labels.judged(window, labels), _labels.delay_of(labels)
    if early := _labels.not_due(span, labels, now):
        return nodata(early)
    joined = _labels.join(live, labels, span)
    if not joined.predictions:
        later = live.between(span.end, window.end).rows() if delay else 0
        waits = f"; {later} later ones wait for their labels, the last until {window.end + delay:%Y-%m-%d %H:%M:%S}" if later else ""
        return nodata(f"no predictions in {_labels.spelled_span(span)}{waits}", Reading(0, rows_at_least))
    if not joined.labelled:
        read = (
            f"{joined.read} labels were read, and none has the id of one: do `live.id` and `labels.key` hold the same?"
            if joined.read
            else "no label has come"
        )
        return nodata(
            f"{joined.predictions} predictions in {_labels.spelled_span(span)} and no label for them; {read}", parts={"coverage": joined.coverage}
        )
    return joined


def _few(joined: Joined, rows: Sample, rows_at_least: int) -> Verdict:
    left = f" ({rows.left_out} labelled ones cannot be used)" if rows.left_out else ""
    said = f"{rows.n} labelled rows of {joined.predictions} predictions{left}; {rows_at_least} are needed"
    return nodata(said, Reading(rows.n, rows_at_least), parts={"coverage": joined.coverage})


def _asked(
    task: Task | None, positive: str | int | bool | None, score_of: ScoreOf | None, scores: Mapping[str, str] | None, metric: str | None
) -> Asked:
    named = None if positive is None else _labels.class_name(positive)
    return Asked(task, named, score_of, scores, metric not in _metrics.SCORED)


def _yardstick(
    live: Columns, labels: Columns, reference: Columns | None, baseline: Baseline | None, label: str | None, asked: Asked
) -> tuple[Joined, Sample] | None:
    """The pinned stretch of live (the rows that its finding judged, where there is one), else the labelled reference."""
    if baseline is not None:
        joined = _labels.join(live, labels, _labels.pinned(baseline, labels))
        return joined, sample(joined, live.declared, asked)
    if reference is None:
        return None
    joined = _labels.truth_of(reference, labels, label)
    return joined, sample(joined, _labels.names_of(reference, live), asked)


# Calibration


@check(pillar="monitoring", asks="Do the probabilities that the answers come with come true?", cause="answers")
def calibration(
    live: Columns,
    labels: Columns,
    window: Window,
    now: datetime | None = None,
    *,
    limit: float = 0.05,
    bins: int = 15,
    binning: Binning = "mass",
    task: Task | None = None,
    positive: str | int | bool | None = None,
    score_of: ScoreOf | None = None,
    scores: dict[str, str] | None = None,
    rows_at_least: int = 300,
    coverage_at_least: float = 0.5,
) -> Verdict:
    """Fails when the expected calibration error is surely above `limit`: the lower end of its 95 % interval. Warns when only the number is.

    The error is the mean distance between what was said and what came true, over `bins` of equal mass (or equal `width`), less what chance
    adds to it. Of two classes it is about the probability of the positive one, else about that of the predicted class.
    """
    due = _due(live, labels, window, now, rows_at_least)
    if isinstance(due, Verdict):
        return due
    if not 1 <= bins <= 1000:
        raise DataError(f"bins is {bins}; 1 to 1000 can be made")
    rows = sample(due, live.declared, _asked(task, positive, score_of, scores, None))
    if rows.task == "regression":
        return nodata("labels and predictions are numbers, and only probabilities of classes can be calibrated; set `task` if they are classes")
    try:
        said, came, weight, unscored = _calibration.pairs(rows)
    except UndefinedError as problem:
        return nodata(f"calibration {problem}", parts={"coverage": due.coverage})
    if len(said) < rows_at_least:
        return _few(due, replace(rows, truth=rows.truth[: len(said)], left_out=rows.left_out + unscored), rows_at_least)
    found = _calibration.measure(said, came, weight, bins, binning)
    notes = [*due.notes(), *([f"{unscored} labelled rows have no score"] if unscored else [])]
    return _calibrated(found, limit, due, notes, coverage_at_least)


def _calibrated(found: Reliability, limit: float, joined: Joined, notes: list[str], coverage_at_least: float) -> Verdict:
    ece, mce = found.ece, found.mce
    reading = Reading(ece.value, limit, (ece.low, ece.high), ece.n)
    thin = (joined.coverage.observed or 0) < coverage_at_least
    if thin:
        notes.insert(0, _measured.thin_words(joined))
    worst = max(found.bins, key=lambda cell: abs(cell.gap))
    said = (
        f"probabilities are off by {ece.value:.3g} on average ({ece.low:.3g} to {ece.high:.3g}, limit {limit:g}, {ece.n} rows), "
        f"most where {worst.said:.2f} was said and {worst.came:.2f} came true"
    )
    more: dict[str, Any] = {
        "parts": {"ece": reading, "mce": Reading(mce.value, None, (mce.low, mce.high), mce.n), "coverage": joined.coverage},
        "data": {"reliability.json": json.dumps({**to_json(found), "gaps": [cell.gap for cell in found.bins]}, indent=1).encode()},
    }
    status = fail if ece.low > limit and not thin else warn if ece.value > limit or thin or (joined.conflicts and not joined.latest) else ok
    return status(said + "".join(f"; {note}" for note in notes), reading, **more)


# Without labels


@check(pillar="monitoring", asks="How good are the answers likely to be, before any label has come?", cause="drift")
def estimated(
    live: Columns,
    reference: Columns,
    window: Window,
    labels: Columns | None = None,
    *,
    metric: Metric | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    worse_by: float | None = None,
    task: Task | None = None,
    positive: str | int | bool | None = None,
    score_of: ScoreOf | None = None,
    scores: dict[str, str] | None = None,
    tau: float = 0.5,
    label: str | None = None,
    rows_at_least: int = 100,
) -> Verdict:
    """Fails when the metric to be expected of the window is surely beyond a limit, while the truth follows the inputs as in the reference.

    Classes: scores are calibrated on the labelled reference (isotonic regression), and the metric is what they then promise. Numbers: the loss
    is learned from the reference by inputs and prediction. `worse_by` compares with the reference's own metric. The interval is where the
    realised metric will lie (95 %). Concept drift is invisible to this: drift.concept and quality.accuracy see it, once labels come.
    """
    asked = _asked(task, positive, score_of, scores, metric)
    names = _labels.names_of(reference, live)
    reference_columns(reference, names)
    known = _labels.truth_of(reference, labels, label)
    yard = sample(known, names, asked)
    judged = metric or ("mae" if yard.task == "regression" else "accuracy")
    now = _unlabelled(live.between(window.start, window.end), live.declared, yard, asked)
    if min(now.n, yard.n) < rows_at_least:
        said = f"{now.n} answers in the window and {yard.n} labelled rows in the reference; {rows_at_least} of each are needed"
        return nodata(said, Reading(min(now.n, yard.n), rows_at_least))
    try:
        if yard.task == "regression":
            found, notes = _by_loss(judged, tau, yard, known, now, live, window)
        else:
            found, notes = _by_score(judged, _estimate.known_scores(yard), _estimate.known_scores(now))
        than = _metrics.estimate(judged, yard, tau) if worse_by is not None else None
    except UndefinedError as problem:
        return nodata(f"estimated {judged} {problem}")
    return _guess(_limits.judge(judged, found, _limits.limits(judged, at_least, at_most, worse_by, than)), notes, yard)


def _unlabelled(rows: Columns, declared: Mapping[str, Json], yard: Sample, asked: Asked) -> Sample:
    """The window's answers as a Sample whose truth is only a placeholder: each answer itself, or some class."""
    import numpy as np

    if declared.get("prediction"):
        truth = _labels.coded(rows, declared["prediction"])
    else:
        truth = Coded(np.zeros(rows.rows()), (yard.classes[0] if yard.classes else "0",))
    joined = Joined(rows, np.arange(len(truth.values)), truth, len(truth.values))
    named = yard.classes[yard.positive] if yard.positive >= 0 else None
    return sample(joined, declared, replace(asked, task=yard.task, positive=named))


def _by_score(metric: str, yard: Sample, now: Sample) -> tuple[_metrics.Estimate, list[str]]:
    if not yard.n or not now.n:
        raise UndefinedError("needs scores, and no row of " + ("the reference" if not yard.n else "the window") + " has one")
    if yard.matrix is not None and yard.classes != now.classes:
        raise UndefinedError("cannot be told: the reference and the window have other classes; name every class in `scores`")
    told, then = (one.score if one.positive >= 0 and one.score is not None else one.hit for one in (now, yard))
    beyond = float(((told < then.min()) | (told > then.max())).mean())
    return _estimate.expected(metric, now, yard), [f"{beyond:.1%} of the scores lie beyond all of the reference's"] if beyond > 0.001 else []


def _by_loss(metric: str, tau: float, yard: Sample, known: Joined, now: Sample, live: Columns, window: Window) -> tuple[_metrics.Estimate, list[str]]:
    import numpy as np

    if metric in ("mape", "r2"):
        raise UndefinedError("is made from labels that are not there; use mae, rmse, bias or pinball")
    names = _estimate.feature_names(live)
    _estimate.of_features(names, known.rows, live)
    words: dict[str, tuple[str, ...]] = {}
    then = _estimate.matrix(known.rows, names, words)[known.places][yard.at]
    inputs = _estimate.matrix(live.between(window.start, window.end), names, words)[now.at]
    if len(then) > _estimate.ROWS:
        some = np.sort(np.random.default_rng(0).choice(len(then), _estimate.ROWS, replace=False))
        yard, then = yard.pick(some), then[some]
    notes = [] if names else ["no features are declared, so the prediction alone tells the loss"]
    return _estimate.predicted(metric, tau, yard, then, inputs, now.answer), notes


def _guess(overall: Judged, notes: list[str], yard: Sample) -> Verdict:
    aside = "".join(f"; {note}" for note in notes)
    said = f"estimated {_measured.words(overall)} without labels, from {yard.n} labelled rows of the reference{aside}; {HOLDS}"
    data = {"estimated.json": json.dumps({"judged": to_json(overall), "reference": yard.n}, indent=1).encode()}
    if not overall.limited:
        return skip(f"{said}; no limit is set: give at_least, at_most or worse_by", overall.reading, data=data)
    return (fail if overall.sure else warn if overall.beyond else ok)(said, overall.reading, data=data)
