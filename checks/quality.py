"""How good the answers are: measured against labels when they are due, or estimated without them while nothing else has changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Literal

from agent import Baseline, Columns, Reading, Verdict, Window, check, nodata, to_json
from agent.errors import DataError
from checks import _calibration, _foreseen, _labels, _measured, _metrics
from checks._calibration import Binning, Reliability, Scale
from checks._foreseen import Foresight
from checks._labels import Joined
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
Slices = list[str | dict[str, list[float]]]


@check(
    pillar="monitoring",
    asks="Are the answers as good as they should be, by the labels that are due?",
    cause="answers",
    answers=(
        "MON-05",
        "MON-06",
        "MODEL-07",
    ),
)
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
    slices: Slices | None = None,
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


@check(pillar="monitoring", asks="Do the probabilities that the answers come with come true?", cause="answers", answers=("MON-04",))
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
    slices: Slices | None = None,
    rows_at_least: int = 300,
    coverage_at_least: float = 0.5,
) -> Verdict:
    """Fails when the expected calibration error is surely above `limit`: the lower end of its 95 % interval. Warns when only the number is.

    The error is the mean distance between what was said and what came true, over `bins` of equal mass (or equal `width`), less what chance
    adds to it. Of two classes it is about the probability of the positive one, else about that of the predicted class. Every slice is judged
    as well, by Holm over all of them.
    """
    due = _due(live, labels, window, now, rows_at_least)
    if isinstance(due, Verdict):
        return due
    if not 1 <= bins <= 1000:
        raise DataError(f"bins is {bins}; 1 to 1000 can be made")
    rows = sample(due, live.declared, _asked(task, positive, score_of, scores, None))
    if rows.task == "regression":
        return nodata("labels and predictions are numbers, and only probabilities of classes can be calibrated; set `task` if they are classes")
    scale = Scale(limit, bins, binning, rows_at_least)
    try:
        scored = _calibration.scored(rows)
        unscored = rows.n - scored.n
        if scored.n < rows_at_least:
            return _few(due, replace(scored, left_out=rows.left_out + unscored), rows_at_least)
        found = scale.measure(scored)
    except UndefinedError as problem:
        return nodata(f"calibration {problem}", parts={"coverage": due.coverage})
    sliced, small = _measured.sliced_by(scale, due, scored, None, slices or ())
    notes = [*due.notes(), *([f"{unscored} labelled rows have no score"] if unscored else []), *_measured.small_words(small)]
    return _calibrated(found, scale.against("ece", found), sliced, small, due, notes, coverage_at_least)


def _calibrated(
    found: Reliability, overall: Judged, sliced: list[Judged], small: list[str], joined: Joined, notes: list[str], coverage_at_least: float
) -> Verdict:
    ece, mce, limit = found.ece, found.mce, overall.reading.limit
    thin = (joined.coverage.observed or 0) < coverage_at_least
    if thin:
        notes.insert(0, _measured.thin_words(joined))
    worst = max(found.bins, key=lambda cell: abs(cell.gap))
    said = (
        f"probabilities are off by {ece.value:.3g} on average ({ece.low:.3g} to {ece.high:.3g}, limit {limit:g}, {ece.n} rows), "
        f"most where {worst.said:.2f} was said and {worst.came:.2f} came true"
    )
    mces = Reading(mce.value, None, (mce.low, mce.high), mce.n)
    parts = {"ece": overall.reading, "mce": mces, "coverage": joined.coverage, **_measured.parts_of(sliced)}
    file = {**to_json(found), "gaps": [cell.gap for cell in found.bins], **_measured.slices_told(sliced, small)}
    data = {"reliability.json": json.dumps(file, indent=1).encode()}
    return _measured.verdict(said, overall, sliced, notes, parts, data, thin, bool(joined.conflicts and not joined.latest))


# Without labels


@check(pillar="monitoring", asks="How good are the answers likely to be, before any label has come?", cause="drift", answers=("MON-05",))
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
    slices: Slices | None = None,
    label: str | None = None,
    rows_at_least: int = 100,
) -> Verdict:
    """Fails when the metric to be expected of the window is surely beyond a limit, while the truth follows the inputs as in the reference.

    Classes: scores are calibrated on the labelled reference (isotonic regression), and the metric is what they then promise. Numbers: the loss
    is learned from the reference by inputs and prediction. `worse_by` compares with the reference's own metric. The interval is where the
    realised metric will lie (95 %). Every slice is judged as well, by what the same slice of the reference teaches, and by Holm over all of them.
    Concept drift is invisible to this: drift.concept and quality.accuracy see it, once labels come.
    """
    asked = _asked(task, positive, score_of, scores, metric)
    names = _labels.names_of(reference, live)
    reference_columns(reference, names)
    known = _labels.truth_of(reference, labels, label)
    yard = sample(known, names, asked)
    judged = metric or ("mae" if yard.task == "regression" else "accuracy")
    _foreseen.of_slices(slices or (), known.rows)
    joined, now = _foreseen.unlabelled(live.between(window.start, window.end), live.declared, yard, asked)
    if min(now.n, yard.n) < rows_at_least:
        return _foreseen.few(now, yard, rows_at_least)
    ruler, inputs = _measured.Ruler(judged, at_least, at_most, worse_by, tau, rows_at_least), None
    try:
        if yard.task == "regression":
            inputs, notes = _foreseen.by_loss(judged, known, joined, live)
        else:
            yard, now, notes = _foreseen.by_score(yard, now)
            if min(now.n, yard.n) < rows_at_least:
                return _foreseen.few(now, yard, rows_at_least, " with scores")
        foresight = Foresight(ruler, inputs)
        overall = foresight.judge(judged, now, yard)
    except UndefinedError as problem:
        return nodata(f"estimated {judged} {problem}")
    sliced, small = _measured.sliced_by(foresight, joined, now, (known, yard), slices or ())
    return _foreseen.told(overall, sliced, small, notes, yard)
