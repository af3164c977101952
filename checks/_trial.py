"""One look at a canary: what is judged, what is usual, and the evidence of every metric moved on by the cells that are whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, cast

from agent import UTC, Columns, Window
from agent.errors import ConfigError, DataError
from checks import _labels
from checks._arms import Arms, Rows, arranged, cells, counted, read, shared, swapped
from checks._canary import Evidence, further
from checks._hits import Hits, Scale, failed, numbers, scale, slow
from checks._labels import Coded, class_name

MARGINS = {"errors": 0.005, "latency": 0.02, "predictions": 0.05, "quality": 0.02}  # how much larger a share may be
USUAL, PLENTY = 100, 2_000  # rows it takes to say what is usual, and after which no more are read
SLOW = 0.95  # the quantile of the baseline's latency beyond which an answer is slow
AMOUNTS = 50  # whole numbers that take more different values are amounts, and no classes


@dataclass(frozen=True, slots=True)
class Asked:
    """What is compared and how: the columns, which metrics, and how much worse each may be."""

    arms: Arms
    metrics: tuple[str, ...]
    margins: Mapping[str, float]
    stretch: timedelta
    before: timedelta
    status: str | None = None
    error_from: float = 500.0
    latency: str | None = None
    slow_above: float | None = None
    predicted: str | None = None
    wrong_above: float | None = None

    @property
    def columns(self) -> list[str]:
        """The columns of live that its metrics read."""
        needed = {"errors": (self.status,), "latency": (self.latency, self.status), "predictions": (self.predicted,)}
        return list(dict.fromkeys(name for metric in self.metrics for name in needed.get(metric, ()) if name))


@dataclass(frozen=True, slots=True)
class Kept:
    """One metric: its streams by name (two-sided ones count twice), its evidence, the clients it is done with, and rows (all, known) of each arm."""

    streams: tuple[str, ...]
    evidence: Evidence
    left: str = ""
    rows: tuple[int, int, int, int] = (0, 0, 0, 0)  # baseline's rows, and known ones; candidate's rows, and known ones


@dataclass(frozen=True, slots=True)
class Trial:
    """What is remembered of a canary: until where its rows, and its labels, were judged; what is usual; its metrics; when each arm last spoke."""

    until_at: datetime
    labelled_at: datetime
    scale: Scale | None = None
    slow_above: float | None = None
    metrics: Mapping[str, Kept] = field(default_factory=dict)
    seen: tuple[datetime | None, datetime | None] = (None, None)
    others: int = 0  # rows of other versions in the last look
    looks: int = 0
    shared: tuple[int, int] = (0, 0)  # clients of the candidate that were in both arms of a cell, and all of them


# What is usual


def begun(live: Columns, window: Window, asked: Asked) -> Trial | str:
    """A Trial with its yardstick, taken from the baseline's rows before the window; else from the window itself, whose rows are then not judged.

    Text says why there is none yet.
    """
    start = window.start
    if not {"latency", "predictions"} & set(asked.metrics) or ("predictions" not in asked.metrics and asked.slow_above is not None):
        return Trial(start, start, slow_above=asked.slow_above)
    usual, judged = _past(live, start, asked), start
    if len(usual) < USUAL:
        usual, judged = read(live.between(start, window.end), asked.arms, asked.columns), window.end
    if len(usual) < USUAL:
        return f"{len(usual)} rows before it and in it, and {USUAL} are needed to know what is usual"
    return _yardstick(usual, judged, start, asked)


def _past(live: Columns, start: datetime, asked: Asked) -> Rows:
    """The baseline's rows just before a time: PLENTY of them, or all of `before`."""
    length = min(asked.stretch, asked.before)
    while True:
        rows = read(live.between(start - length, start), asked.arms, asked.columns)
        rows = rows.pick(~rows.candidate)
        if len(rows) >= PLENTY or length >= asked.before:
            return rows
        length = min(length * 4, asked.before)


def _yardstick(usual: Rows, judged: datetime, start: datetime, asked: Asked) -> Trial | str:
    import numpy as np

    told, above = None, asked.slow_above
    if "predictions" in asked.metrics and asked.predicted:
        told = scale(usual.columns[asked.predicted])
        if told is None:
            return f"no value of {asked.predicted} in {len(usual):,} rows, so its usual values are not known"
    if "latency" in asked.metrics and asked.latency and above is None:
        took = numbers(usual.columns[asked.latency])
        if np.isnan(took).all():
            return f"no number in {asked.latency} in {len(usual):,} rows, so the usual latency is not known"
        above = float(np.nanquantile(took, SLOW, method="inverted_cdf"))
    return Trial(judged, start, told, above)


# One look


def looked(live: Columns, labels: Columns | None, window: Window, trial: Trial, asked: Asked) -> Trial:
    """The Trial after one look: all rows since the last cell, whichever window they lie in, so that no look that failed leaves a gap."""
    trial = replace(trial, looks=trial.looks + 1)
    if window.end > trial.until_at:
        trial = _live(live, Window(trial.until_at, window.end), trial, asked)
    if labels is not None and "quality" in asked.metrics:
        trial = _quality(live, labels, window, trial, asked)
    return trial


def _live(live: Columns, span: Window, trial: Trial, asked: Asked) -> Trial:
    rows = read(live.between(span.start, span.end), asked.arms, asked.columns)
    seen = tuple(_newest(rows, side) or trial.seen[side] for side in (0, 1))
    trial = replace(trial, seen=cast(tuple[datetime | None, datetime | None], seen), others=rows.others)
    bounds = cells(rows, span, asked.stretch)
    if not bounds:
        return trial
    metrics = {**trial.metrics, **{name: _folded(trial, name, rows, hits, bounds, asked) for name, hits in _hits(rows, trial, asked).items()}}
    both, all_ = shared(rows, bounds)
    counted_ = trial.shared[0] + both, trial.shared[1] + all_
    return replace(trial, metrics=metrics, until_at=bounds[-1][2], shared=counted_)


def _newest(rows: Rows, side: int) -> datetime | None:
    at = rows.at[rows.candidate == bool(side)]
    return datetime.fromtimestamp(float(at[-1]), UTC) if len(at) else None


def _hits(rows: Rows, trial: Trial, asked: Asked) -> dict[str, Hits]:
    if not len(rows):
        return {}
    found: dict[str, Hits] = {}
    errors = failed(rows.columns[asked.status], asked.error_from) if asked.status and asked.status in rows.columns else None
    if "errors" in asked.metrics and errors is not None:
        found["errors"] = errors
    if "latency" in asked.metrics and asked.latency and trial.slow_above is not None:
        found["latency"] = slow(rows.columns[asked.latency], trial.slow_above, errors)
    if "predictions" in asked.metrics and asked.predicted and trial.scale is not None:
        found["predictions"] = trial.scale.told(rows.columns[asked.predicted])
    return found


def _folded(trial: Trial, name: str, rows: Rows, hits: Hits, bounds: Sequence[tuple[int, int, datetime]], asked: Asked) -> Kept:
    """A metric after those cells. What may be larger or smaller is looked at from both sides."""
    import numpy as np

    kept = trial.metrics.get(name) or Kept(hits.streams, Evidence(len(hits.streams) * (2 if hits.once else 1)))
    counts, left = counted(rows, hits, bounds, kept.left)
    if hits.once:
        counts = np.concatenate([counts, swapped(counts)], axis=1)
    return Kept(kept.streams, further(kept.evidence, counts, asked.margins[name]), left, _known(kept.rows, rows, hits, bounds[-1][1]))


def _known(before: tuple[int, int, int, int], rows: Rows, hits: Hits, until: int) -> tuple[int, int, int, int]:
    arm, known = rows.candidate[:until], hits.known[:until]
    new = (~arm).sum(), (known & ~arm).sum(), arm.sum(), (known & arm).sum()
    one, two, three, four = (int(old + more) for old, more in zip(before, new, strict=True))
    return one, two, three, four


# The truth, when it comes


def _quality(live: Columns, labels: Columns, window: Window, trial: Trial, asked: Asked) -> Trial:
    """The labels that are due: those of predictions made since the canary began, `labels.delay` ago."""
    due = _labels.judged(window, labels).end
    if due <= trial.labelled_at:
        return trial
    span = Window(trial.labelled_at, due)
    rows = _truth(_labels.join(live, labels, span), live, asked)
    bounds = cells(rows, span, asked.stretch)
    if not bounds:
        return trial
    trial = replace(trial, labelled_at=bounds[-1][2])
    if not bounds[-1][1]:
        return trial
    hits = _wrong(rows)
    return replace(trial, metrics={**trial.metrics, "quality": _folded(trial, "quality", rows, hits, bounds, asked)})


def _wrong(rows: Rows) -> Hits:
    import numpy as np

    said = rows.columns["wrong"]
    return Hits(("wrong",), ~np.isnan(said), (said > 0)[None])


def _truth(joined: _labels.Joined, live: Columns, asked: Asked) -> Rows:
    """The labelled rows of either version, each with whether its answer was wrong (NaN where that cannot be said)."""
    import numpy as np

    at = joined.column(live.declared["time"]["column"]).values
    versions = _texts(joined.column(asked.arms.version))
    known = {class_name(asked.arms.baseline): 0, class_name(asked.arms.candidate): 1}
    which = np.array([known.get(one or "", -1) for one in versions], dtype=np.int64)
    wrong = _mistakes(joined.column(live.declared["prediction"]), joined.truth, asked.wrong_above)
    clients = np.array(_texts(joined.column(asked.arms.client)), dtype=object)[which >= 0] if asked.arms.client else None
    return arranged({"wrong": wrong[which >= 0]}, at[which >= 0], which[which >= 0], clients)


def _texts(one: Coded) -> list[str | None]:
    told = one.values.tolist()
    return [None if value != value else class_name(value if one.names is None else one.names[int(value)]) for value in told]


def _mistakes(answer: Coded, truth: Coded, above: float | None) -> Any:
    import numpy as np

    if above is not None:
        return np.where(np.isnan(off := np.abs(answer.numbers() - truth.numbers())), np.nan, off > above)
    for side in (answer, truth):
        values = side.values[~np.isnan(side.values)]
        if side.names is None and ((values % 1 != 0).any() or len(np.unique(values)) > AMOUNTS):
            raise ConfigError("predictions or labels are amounts; say with wrong_above how far off an answer may be, or leave quality out of metrics")
    told, right = (np.array([one or "" for one in _texts(side)], dtype=object) for side in (answer, truth))
    return np.where((told == "") | (right == ""), np.nan, told != right)


def columns_of(live: Columns, needed: Sequence[str | None]) -> None:
    """DataError when a column that was named is not there, or holds what cannot be compared."""
    there = live.kinds()
    for name in needed:
        if name and name not in there:
            raise DataError(f"live has no column '{name}'; there is {', '.join(list(there)[:12])}")
        if name and there[name] in ("bytes", "list", "time"):
            raise DataError(f"column '{name}' holds {there[name]}, which cannot be compared; name one of numbers, text or booleans")
