"""How good the answers are: measured against labels when they are due, or estimated without them while nothing else has changed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from agent import Baseline, Columns, Reading, Verdict, Window, check, fail, nodata, ok, skip, to_json, warn
from checks import _labels, _limits, _metrics
from checks._labels import Joined
from checks._limits import Judged
from checks._metrics import Estimate
from checks._sample import Asked, Sample, ScoreOf, Task, UndefinedError, sample

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
SHOWN = 20  # classes that are parts of their own


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
    ruler = _Ruler(judged, at_least, at_most, worse_by, tau, rows_at_least)
    yard = _yardstick(live, labels, reference, baseline, label, asked) if worse_by is not None else None
    try:
        overall = ruler.judge(judged, rows, yard[1] if yard else None)
    except UndefinedError as problem:
        return nodata(f"{judged} of {rows.n} rows {problem}", parts={"coverage": due.coverage})
    sliced, small = _sliced(ruler, due, rows, yard, slices or ())
    return _told(overall, sliced, small, due, rows, coverage_at_least, _others(rows, tau, judged))


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


@dataclass(frozen=True, slots=True)
class _Ruler:
    """What is measured, and what it may be."""

    metric: str
    at_least: float | None
    at_most: float | None
    worse_by: float | None
    tau: float
    rows_at_least: int

    def judge(self, name: str, rows: Sample, yard: Sample | None) -> Judged:
        found = _metrics.estimate(self.metric, rows, self.tau)
        than = _metrics.estimate(self.metric, yard, self.tau) if yard is not None and yard.n >= self.rows_at_least else None
        return _limits.judge(name, found, _limits.limits(self.metric, self.at_least, self.at_most, self.worse_by, than))


def _sliced(
    ruler: _Ruler, joined: Joined, rows: Sample, yard: tuple[Joined, Sample] | None, wanted: Sequence[str | Mapping[str, Sequence[float]]]
) -> tuple[list[Judged], list[str]]:
    """Each slice judged (against the same slice of the yardstick, where there is one), and those that cannot be, with why."""
    than = dict(_limits.slices(yard[0], wanted)) if yard and wanted else {}
    found, small = [], []
    for name, keep in _limits.slices(joined, wanted):
        part = rows.pick(keep[rows.at])
        if part.n < ruler.rows_at_least:
            small += [f"{name} ({part.n})"] if part.n else []
            continue
        beside = yard[1].pick(than[name][yard[1].at]) if yard and name in than else None
        if ruler.worse_by is not None and (beside is None or beside.n < ruler.rows_at_least):
            small.append(f"{name} ({beside.n if beside else 0} of the yardstick)")
            continue
        try:
            found.append(ruler.judge(name, part, beside))
        except UndefinedError as problem:
            small.append(f"{name} ({problem})")
    return found, small


def _others(rows: Sample, tau: float, judged: str) -> dict[str, Estimate]:
    """Every other metric that these rows have, and each class's own."""
    found = {}
    for name in _metrics.METRICS:
        try:
            found[name] = _metrics.estimate(name, rows, tau)
        except UndefinedError:
            continue
    found.pop(judged, None)
    return found | (_by_class(rows) if rows.task != "regression" else {})


def _by_class(rows: Sample) -> dict[str, Estimate]:
    found: dict[str, Estimate] = {}
    if (rows.answer < 0).any():
        return found
    cells = _metrics.table(rows)
    for place in sorted(range(len(cells)), key=lambda place: -cells[place].sum())[:SHOWN]:
        for metric in _metrics.BY_CLASS:
            try:
                found[f"{metric}.{rows.classes[place][:80]}"] = _metrics.by_class(metric, cells, place, rows)
            except UndefinedError:
                continue
    return found


# In words


def _told(
    overall: Judged, sliced: list[Judged], small: list[str], joined: Joined, rows: Sample, coverage_at_least: float, others: Mapping[str, Estimate]
) -> Verdict:
    bad = _limits.surely(sliced)
    notes = _notes(joined, rows, small)
    thin = (joined.coverage.observed or 0) < coverage_at_least
    if thin:
        notes.insert(0, f"only {joined.coverage.observed:.0%} of {joined.predictions} predictions have a label, which may not be like the others")
    more: dict[str, Any] = {
        "parts": {
            overall.name: overall.reading,
            "coverage": joined.coverage,
            **{f"slice.{one.name}": one.reading for one in sorted(sliced, key=lambda one: (one not in bad, not one.beyond, one.p))},
            **{name: Reading(one.value, None, (one.low, one.high), one.n) for name, one in others.items()},
        },
        "data": {"quality.json": _file(overall, sliced, bad, small, joined, rows, others)},
    }
    aside = "".join(f"; {note}" for note in notes)
    said = _words(overall)
    if not overall.limited:
        return skip(f"{said}, and no limit is set: give at_least, at_most or worse_by{aside}", overall.reading, **more)
    if overall.sure or bad:
        named = ", ".join(_words(one) for one in bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
        told = "; in ".join(part for part in (said, named) if part)
        return (warn if thin else fail)(f"{told}{aside}", overall.reading, **more)
    beyond = [one for one in sliced if one.beyond]
    if overall.beyond or beyond:
        unsure = "" if overall.beyond else f"; in {_words(beyond[0])}"
        return warn(f"{said}{unsure}: beyond the limit, and chance may be why{aside}", overall.reading, **more)
    wary = thin or (joined.conflicts and not joined.latest)
    return (warn if wary else ok)(f"{said}{aside}", overall.reading, **more)


def _words(one: Judged) -> str:
    low, high = one.reading.interval or (0.0, 0.0)
    limit = "" if one.reading.limit is None else f", limit {one.reading.limit:.4g}"
    return f"{one.name} {one.found.value:.4g} ({low:.4g} to {high:.4g}{limit}, {one.found.n} rows)"


def _notes(joined: Joined, rows: Sample, small: Sequence[str]) -> list[str]:
    notes = joined.notes()
    if rows.left_out:
        notes.append(f"{rows.left_out} labelled rows have no answer or no usable label")
    if small:
        notes.append(f"too small to judge: {', '.join(small[:3])}" + (f" and {len(small) - 3} more" if len(small) > 3 else ""))
    return notes


def _file(
    overall: Judged, sliced: list[Judged], bad: list[Judged], small: list[str], joined: Joined, rows: Sample, others: Mapping[str, Estimate]
) -> bytes:
    counts = {name: getattr(joined, name) for name in ("predictions", "labelled", "repeated", "again", "conflicts", "early", "read")}
    told = {
        "task": rows.task,
        "classes": rows.classes,
        "counts": counts | {"used": rows.n, "left_out": rows.left_out},
        "judged": to_json(overall),
        "slices": [{**to_json(one), "failed": one in bad} for one in sliced],
        "not_judged": small,
        "metrics": to_json(others),
    }
    if rows.task != "regression" and not (rows.answer < 0).any():
        told["table"] = _metrics.table(rows).tolist()
    return json.dumps(told, indent=1).encode()
