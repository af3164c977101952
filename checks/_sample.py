"""What metrics are made from: answers beside their truth, as classes with their probabilities or as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from agent import Columns
from agent.errors import DataError
from checks._labels import Coded, Joined, by_number, class_name

Task = Literal["binary", "multiclass", "regression"]
ScoreOf = Literal["positive", "prediction"]
CLASSES = 300  # more are names, not classes
WHOLE = 50  # whole numbers that take more different values than this are amounts
SLACK = 1e-6  # how far outside [0, 1] rounding may carry a probability
YES, NO = ("1", "true", "yes"), ("0", "false", "no")


class UndefinedError(ValueError):
    """A metric has no value for these rows; the message says why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a check was told about the task; None where it is to be found out."""

    task: Task | None = None
    positive: str | None = None
    score_of: ScoreOf | None = None
    scores: Mapping[str, str] | None = None  # class -> column with its probability
    needs_prediction: bool = True


@dataclass(frozen=True, slots=True)
class Sample:
    """n labelled answers. Classes are places in `classes`; of two, `positive` is the one that is looked for.

    `score` is the probability (or a rank) of the positive class, `hit` that of the predicted class, `matrix` one column a class.
    """

    task: Task
    truth: Any
    answer: Any
    weight: Any
    classes: tuple[str, ...] = ()
    positive: int = -1
    score: Any = None
    hit: Any = None
    matrix: Any = None
    at: Any = None  # which of the labelled rows these are
    left_out: int = 0  # labelled rows that have no answer, or a truth that is no number

    @property
    def n(self) -> int:
        return len(self.truth)

    @property
    def effective(self) -> float:
        """Kish's effective number of rows: n when all weigh the same."""
        total = float(self.weight.sum())
        return total * total / float((self.weight**2).sum()) if total else 0.0

    def pick(self, keep: Any, weight: Any = None) -> Sample:
        """Some of the rows, or all in other numbers."""
        lists = {name: value[keep] for name in ("score", "hit", "matrix", "at") if (value := getattr(self, name)) is not None}
        weights = self.weight[keep] if weight is None else weight
        return replace(self, truth=self.truth[keep], answer=self.answer[keep], weight=weights, **lists)


def sample(joined: Joined, declared: Mapping[str, Any], asked: Asked) -> Sample:
    """The labelled rows as a Sample; DataError where the columns do not fit the task."""
    answers = joined.column(declared["prediction"]) if declared.get("prediction") else None
    if answers is None and asked.needs_prediction:
        raise DataError("live declares no prediction, so there is nothing to compare with the labels; add `prediction: prediction` to targets.live")
    weight = _weights(joined, declared)
    task = asked.task or _task(joined.truth, answers, asked)
    if task == "regression":
        return _numbers(joined.truth, answers, weight)
    return _classes(joined, declared, answers, weight, task, asked)


def _weights(joined: Joined, declared: Mapping[str, Any]) -> Any:
    import numpy as np

    if not declared.get("weight"):
        return np.ones(joined.labelled)
    weight = joined.column(declared["weight"]).numbers()
    if (weight < 0).any():
        raise DataError(f"'{declared['weight']}' holds a negative weight")
    return np.nan_to_num(weight)


def _task(truth: Coded, answers: Coded | None, asked: Asked) -> Task:
    """Classes where either side is text or the numbers are few and whole; of two classes it is binary."""
    import numpy as np

    sides = [truth, *([answers] if answers is not None else [])]
    if asked.positive is None and not asked.scores and all(side.names is None or _all_numbers(side) for side in sides):
        values = np.unique(np.concatenate([side.numbers() for side in sides]))
        values = values[~np.isnan(values)]
        if (values % 1 != 0).any() or len(values) > WHOLE:
            return "regression"
    names = {name for side in sides for name in side.classes()[1]}
    return "binary" if len(_as_one(names)) <= 2 else "multiclass"


def _all_numbers(side: Coded) -> bool:
    """Text that says numbers: a column is stored as text as soon as one value in it is."""
    import numpy as np

    numbers = side.numbers()
    return len(numbers) > 0 and bool(np.isnan(numbers).mean() < 0.5) and not {*map(str.lower, side.names or ())} & {"true", "false"}


def _numbers(truth: Coded, answers: Coded | None, weight: Any) -> Sample:
    import numpy as np

    if answers is None:
        raise DataError("live declares no prediction, so there is nothing to compare with the labels; add `prediction: prediction` to targets.live")
    actual, told = truth.numbers(), answers.numbers()
    keep = ~(np.isnan(actual) | np.isnan(told)) & (weight > 0)
    if len(actual) and not keep.any():
        raise DataError("no labelled row has both a number as label and a number as prediction; set `task` if these are classes")
    return Sample("regression", actual[keep], told[keep], weight[keep], at=np.flatnonzero(keep), left_out=len(actual) - int(keep.sum()))


def _classes(joined: Joined, declared: Mapping[str, Any], answers: Coded | None, weight: Any, task: Task, asked: Asked) -> Sample:
    import numpy as np

    truth, truth_names = joined.truth.classes()
    answer, answer_names = answers.classes() if answers is not None else (np.full(len(truth), -1), ())
    classes = _classes_of(truth_names, answer_names, asked)
    truth, answer = (_placed(codes, names, classes) for codes, names in ((truth, truth_names), (answer, answer_names)))
    keep = (truth >= 0) & (weight > 0) & ((answer >= 0) | (answers is None))
    positive = _positive(classes, asked) if task == "binary" or asked.positive is not None else -1
    score_of = asked.score_of or ("positive" if task == "binary" else "prediction")
    score = joined.column(declared["score"]).numbers() if declared.get("score") else None
    matrix = _matrix(joined, classes, asked)
    hit: Any = None
    if matrix is not None:
        hit = np.where(answer >= 0, matrix[np.arange(len(answer)), answer], np.nan)
        score = matrix[:, positive] if positive >= 0 else None
    elif score_of == "positive":
        hit = None if score is None or positive < 0 else np.where(answer == positive, score, 1 - score)
    else:
        hit, score = score, (np.where(answer == positive, score, 1 - score) if score is not None and positive >= 0 else None)
    whole = Sample(task, truth, answer, weight, classes, positive, score, hit, matrix, np.arange(len(truth)))
    return replace(whole.pick(keep), left_out=len(truth) - int(keep.sum()))


def _as_one(names: set[str]) -> set[str]:
    """True and 1 are one class where both spellings meet."""
    words, digits = {"true", "false"}, {"0", "1"}
    return {_digit(name) for name in names} if names <= words | digits and names & words and names & digits else names


def _digit(name: str) -> str:
    return {"true": "1", "false": "0"}.get(name, name)


def _classes_of(truth: Sequence[str], answers: Sequence[str], asked: Asked) -> tuple[str, ...]:
    names = _as_one({*truth, *answers, *(class_name(name) for name in asked.scores or ())})
    names |= {_other(name) for name in names} if len(names) == 1 else set()
    if asked.positive is not None and class_name(asked.positive) not in names:
        names |= {_digit(class_name(asked.positive)) if names <= {"0", "1"} else class_name(asked.positive)}
    if len(names) > CLASSES:
        raise DataError(f"{len(names):,} different classes, more than {CLASSES:,}: if these are numbers, set `task: regression`")
    spelled = {_digit(name) for name in truth}, {_digit(name) for name in answers}
    if answers and truth and not spelled[0] & spelled[1] and len({_is_number(name) for name in (*truth, *answers)}) == 2:
        raise DataError(f"predictions say {_some(answers)} and labels {_some(truth)}: the same classes under other names; log one spelling")
    return tuple(sorted(names, key=by_number))


def _other(name: str) -> str:
    """What a single class is told apart from, where that is plain."""
    return {"0": "1", "1": "0", "false": "true", "true": "false"}.get(name, name)


def _is_number(name: str) -> bool:
    return by_number(name)[0] < float("inf")


def _some(names: Sequence[str]) -> str:
    return ", ".join(name[:40] for name in names[:3]) + (" ..." if len(names) > 3 else "")


def _placed(codes: Any, names: Sequence[str], classes: tuple[str, ...]) -> Any:
    import numpy as np

    place = {name: n for n, name in enumerate(classes)}
    return np.array([*(place.get(name, place.get(_digit(name), -1)) for name in names), -1], dtype=np.int64)[codes]


def _positive(classes: tuple[str, ...], asked: Asked) -> int:
    """The class that is looked for: the one named, else 1, true or yes where the other is 0, false or no; -1 where nobody can tell."""
    if asked.positive is not None:
        named = class_name(asked.positive)
        named = named if named in classes else _digit(named)
        return classes.index(named) if named in classes else -1
    lower = [name.lower() for name in classes]
    told = [place for place, name in enumerate(lower) if name in YES]
    return told[0] if len(told) == 1 and all(name in (*YES, *NO) for name in lower) else -1


def _matrix(joined: Joined, classes: tuple[str, ...], asked: Asked) -> Any:
    import numpy as np

    if not asked.scores:
        return None
    columns = {class_name(name): column for name, column in asked.scores.items()}
    lacking = [name for name in classes if name not in columns]
    if lacking:
        raise DataError(f"`scores` names no column for class {_some(lacking)}; give one for each class that is predicted or true")
    return np.column_stack([joined.column(columns[name]).numbers() for name in classes])


def probabilities(values: Any) -> Any:
    """Scores that are probabilities, rounding forgiven; UndefinedError where they are none."""
    import numpy as np

    if values is None:
        raise UndefinedError("needs the probability of the class: declare `score` of live, and `positive` or `scores`")
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if low < -SLACK or high > 1 + SLACK:
        raise UndefinedError(f"scores go from {low:.4g} to {high:.4g}, and a probability lies between 0 and 1")
    return np.clip(values, 0.0, 1.0)


def reference_columns(table: Columns, names: Mapping[str, Any]) -> None:
    """DataError where a reference lacks the prediction that it is to be judged by."""
    if names.get("prediction") and names["prediction"] not in table.kinds():
        raise DataError(f"the reference has no column '{names['prediction']}'; it needs the predictions of the model as well as the truth")
