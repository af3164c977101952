"""Answers judged before any label has come: what the labelled reference lets one expect of them, all together and slice by slice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent import Columns, Json, Reading, Verdict, nodata, to_json
from agent.errors import DataError
from checks import _estimate, _labels, _measured
from checks._labels import Coded, Joined
from checks._limits import Judged
from checks._measured import Ruler
from checks._metrics import Estimate
from checks._sample import Asked, Sample, UndefinedError, sample

HOLDS = "this holds only while P(y|x) is as in the reference: concept drift is invisible to it"


@dataclass(frozen=True, slots=True)
class Foresight:
    """Judges answers without labels as a Ruler judges labelled ones. A slice is expected to do what the same slice of the reference teaches: scores
    that are right on the whole may be wrong in each of its parts."""

    ruler: Ruler
    inputs: tuple[Any, Any] | None = None  # where the answers are numbers: of every row of the window, and of every labelled row of the reference

    @property
    def rows_at_least(self) -> int:
        return self.ruler.rows_at_least

    @property
    def needs(self) -> str:
        return "the reference"

    def judge(self, name: str, rows: Sample, yard: Sample | None) -> Judged:
        assert yard is not None
        return self.ruler.against(name, self.expected(rows, yard), yard)

    def expected(self, rows: Sample, yard: Sample) -> Estimate:
        import numpy as np

        if self.inputs is None:
            return _estimate.expected(self.ruler.metric, rows, yard)
        if yard.n > _estimate.ROWS:
            yard = yard.pick(np.sort(np.random.default_rng(0).choice(yard.n, _estimate.ROWS, replace=False)))
        now, then = self.inputs
        return _estimate.predicted(self.ruler.metric, self.ruler.tau, yard, then[yard.at], now[rows.at], rows.answer)


def unlabelled(rows: Columns, declared: Mapping[str, Json], yard: Sample, asked: Asked) -> tuple[Joined, Sample]:
    """The window's answers as a Sample whose truth is only a placeholder: each answer itself, or some class."""
    import numpy as np

    if declared.get("prediction"):
        truth = _labels.coded(rows, declared["prediction"])
    else:
        truth = Coded(np.zeros(rows.rows()), (yard.classes[0] if yard.classes else "0",))
    joined = Joined(rows, np.arange(len(truth.values)), truth, len(truth.values))
    named = yard.classes[yard.positive] if yard.positive >= 0 else None
    return joined, sample(joined, declared, replace(asked, task=yard.task, positive=named))


def by_score(yard: Sample, now: Sample) -> tuple[Sample, Sample, list[str]]:
    """The rows of the reference and of the window that have scores, and what is odd about them."""
    yard, now = _estimate.known_scores(yard), _estimate.known_scores(now)
    if not yard.n or not now.n:
        raise UndefinedError("needs scores, and no row of " + ("the reference" if not yard.n else "the window") + " has one")
    if yard.matrix is not None and yard.classes != now.classes:
        raise UndefinedError("cannot be told: the reference and the window have other classes; name every class in `scores`")
    told, then = (one.score if one.positive >= 0 and one.score is not None else one.hit for one in (now, yard))
    beyond = float(((told < then.min()) | (told > then.max())).mean())
    return yard, now, [f"{beyond:.1%} of the scores lie beyond all of the reference's"] if beyond > 0.001 else []


def by_loss(metric: str, known: Joined, window: Joined, live: Columns) -> tuple[tuple[Any, Any], list[str]]:
    """The inputs of the window and of the reference, from which losses are learned, and what is odd about them."""
    if metric in ("mape", "r2"):
        raise UndefinedError("is made from labels that are not there; use mae, rmse, bias or pinball")
    names = _estimate.feature_names(live)
    _estimate.of_features(names, known.rows, live)
    words: dict[str, tuple[str, ...]] = {}
    then = _estimate.matrix(known.rows, names, words)[known.places]
    notes = [] if names else ["no features are declared, so the prediction alone tells the loss"]
    return (_estimate.matrix(window.rows, names, words), then), notes


def of_slices(wanted: Sequence[str | Mapping[str, Sequence[float]]], reference: Columns) -> None:
    """DataError where a slice cannot be learned because the reference lacks its column."""
    names = [name for one in wanted for name in ([one] if isinstance(one, str) else one)]
    if lacking := [name for name in names if name not in reference.kinds()]:
        raise DataError(f"slices: the reference has no column '{lacking[0]}'; what to expect of a slice is learned from the same slice of it")


def few(now: Sample, yard: Sample, rows_at_least: int, which: str = "") -> Verdict:
    said = f"{now.n} answers{which} in the window and {yard.n} labelled rows{which} in the reference; {rows_at_least} of each are needed"
    return nodata(said, Reading(min(now.n, yard.n), rows_at_least))


def told(overall: Judged, sliced: Sequence[Judged], small: Sequence[str], notes: Sequence[str], yard: Sample) -> Verdict:
    said = f"estimated {_measured.words(overall)} without labels, from {yard.n} labelled rows of the reference"
    file = {"judged": to_json(overall), "reference": yard.n, **_measured.slices_told(sliced, small)}
    parts = {overall.name: overall.reading, **_measured.parts_of(sliced)}
    data = {"estimated.json": json.dumps(file, indent=1).encode()}
    return _measured.verdict(said, overall, sliced, [*notes, *_measured.small_words(small), HOLDS], parts, data)
