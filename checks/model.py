"""Whether what trains the model makes the same one again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from agent import Columns, Model, Reading, Verdict, check, fail, nodata, ok, warn
from agent.stats import clopper_pearson
from checks import _slices
from checks._gate import Kind

PARTIAL = 0.95  # of the rows: below, these are two models


@check(
    pillar="training",
    asks="Does training from the same rows, with the same seed and parameters, make the same model again?",
    severity="ticket",
    answers=("MODEL-03",),
)
def reproducible(
    candidate: Model,
    again: Model,
    old: Columns | None = None,
    new: Columns | None = None,
    guard: Columns | None = None,
    *,
    label: str,
    features: Sequence[str] = (),
    loss: Literal["absolute", "squared"] | None = None,
    files: Mapping[str, str] = {},
    files_again: Mapping[str, str] = {},
    at_least: float = 0.99,
    errors: float = 2.0,
    rtol: float = 1e-3,
) -> Verdict:
    """Compares two models that were made from the same pins: `files` and `files_again` are the sha256 of what each training handed in, by name.

    Equal bit by bit is ok. Else both answer the rows of `old`, `new` and `guard`: ok where at least the share `at_least` is answered alike and the
    metric differs by no more than so many standard `errors`; fail where less than 95 % is; warn between. The metric is accuracy, or the mean `loss`
    where the labels are numbers, which are alike within `rtol`. Its error is that of the difference over the same rows, which the bootstrap (Efron
    1979) comes to for a mean when it is resampled without end: the standard deviation of the rows' differences by the root of their number.
    """
    if files and files == files_again:
        return ok(f"training made the same again, bit by bit: {', '.join(sorted(files))}", Reading(1.0, at_least, unit="share"))
    bound: dict[Kind, Columns | None] = {"old": old, "new": new, "guard": guard}
    tables = {kind: table for kind, table in bound.items() if table is not None}
    names = _slices.shared_columns(tables, features, (label, None))
    slices = [rows for kind, table in tables.items() for rows in _slices.read(table, kind, label, None, names, loss is not None) if rows.n]
    if not slices:
        return nodata("what was made twice differs, and there is no labelled row to tell by how much; bind `old`, `new` or `guard`")
    for _ in _slices.answered(slices, {"candidate": candidate, "again": again}, loss is not None):
        pass
    if loss is None:
        _slices.spelled_alike(slices)
    differ = sorted(name for name in {*files, *files_again} if files.get(name) != files_again.get(name))
    return _told(slices, loss, differ, at_least, errors, rtol)


def _told(slices: Sequence[_slices.Rows], loss: str | None, differ: Sequence[str], at_least: float, errors: float, rtol: float) -> Verdict:
    import numpy as np

    answers = [(rows.truth, rows.answers["candidate"], rows.answers["again"]) for rows in slices]
    truth, first, second = (np.concatenate(parts) for parts in zip(*answers, strict=True))
    alike = np.isclose(first, second, rtol=rtol, atol=0.0) if loss else first == second
    same, n = int(alike.sum()), len(truth)
    before, after = (_worth(truth, answers, loss) for answers in (first, second))
    delta, error = _difference(before, after)
    parts = {"metric": Reading(abs(delta), errors * error, n=n)}
    reading = Reading(same / n, at_least, clopper_pearson(same, n), n, "share")
    told = f"trained again from the same pins, {same} of {n} rows are answered alike; {loss or 'accuracy'} {before.mean():.4g} and {after.mean():.4g}"
    rests = [f"a difference of {abs(delta):.4g} with a standard error of {error:.4g}", f"other bytes in {', '.join(differ)}" if differ else ""]
    how = ok if same / n >= at_least and abs(delta) <= errors * error + 1e-12 else warn if same / n >= PARTIAL else fail
    return how("\n".join([told, *filter(None, rests)]), reading, parts=parts)


def _worth(truth: Any, answers: Any, loss: str | None) -> Any:
    """What each row adds to the metric."""
    if loss is None:
        return (answers == truth).astype(float)
    return abs(answers - truth) if loss == "absolute" else (answers - truth) ** 2


def _difference(before: Any, after: Any) -> tuple[float, float]:
    """The mean difference over the rows, and its standard error."""
    gap = after - before
    return float(gap.mean()), float(gap.std()) / math.sqrt(len(gap))
