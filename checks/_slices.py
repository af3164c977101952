"""Labelled rows that stand for something, answered by models: who was right about which row."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent import Columns, Model
from agent.errors import DataError
from checks._gate import Kind
from checks._labels import class_name

MOST_SLICES = 1000


@dataclass(slots=True)
class Rows:
    """The labelled rows of one slice: columns of features, the truth of each, and a digest by which the same rows are known again."""

    name: str
    kind: Kind
    features: Mapping[str, Any]
    truth: Any  # text of the class, or numbers
    digest: str
    marks: Any  # one whole number a row, by which it is known in another slice
    unlabelled: int = 0
    answers: dict[str, Any] = field(default_factory=dict)  # model -> one answer a row, spelled as the truth is
    hits: dict[str, Any] = field(default_factory=dict)  # model -> how probable it called its answer, where it says so
    classes: dict[str, frozenset[str]] = field(default_factory=dict)  # model -> what it can answer, where it says so

    @property
    def n(self) -> int:
        return len(self.truth)

    @property
    def single(self) -> bool:
        """Whether all rows are of one class."""
        return self.n > 0 and self.truth.dtype.kind == "O" and len(set(self.truth)) == 1

    def right(self, model: str) -> Any:
        return self.answers[model] == self.truth


def shared_columns(tables: Mapping[Kind, Columns], features: Sequence[str], apart: Sequence[str | None]) -> Sequence[str]:
    """The columns of features in one order for all tables: a column more, or another order, would give a model other values than were meant.

    DataError names a column that only one of them has, where `features` does not say which are meant.
    """
    found = {kind: [name for name in table.kinds() if name not in apart] for kind, table in tables.items()} if not features else {}
    first, names = next(iter(found.items()), ("", list(features)))
    for kind, others in found.items():
        if odd := sorted(set(others) ^ set(names)):
            has, lacks = (first, kind) if odd[0] in names else (kind, first)
            raise DataError(f"{has} has a column '{odd[0]}', and {lacks} has none; say by `features` which columns the models take")
    return names


def read(table: Columns, kind: Kind, label: str, by: str | None, features: Sequence[str], numbers: bool) -> list[Rows]:
    """The slices of one table: all its rows, or one slice for each value of the column `by`. DataError names a column that is missing."""
    import numpy as np

    known = table.kinds()
    asked = list(dict.fromkeys([*features, label, *([by] if by else [])]))
    for name in asked:
        if name not in known:
            raise DataError(f"{kind}: there is no column '{name}'; there is {', '.join(list(known)[:12])}")
    parts = [dict(chunk) for chunk in table.chunks(asked, spelled=() if numbers else (label,))]
    columns = {name: np.concatenate([part[name] for part in parts]) if parts else np.empty(0) for name in asked}
    truth = _truth(columns[label], numbers)
    places = _places(columns[by] if by else None, len(truth))
    if len(places) > MOST_SLICES:
        raise DataError(f"{kind}: column '{by}' has {len(places):,} values, which are more slices than {MOST_SLICES:,}; choose another")
    return [_rows(f"{kind}/{name}" if name else kind, kind, {n: columns[n] for n in features}, truth, place) for name, place in places.items()]


def _truth(values: Any, numbers: bool) -> Any:
    import numpy as np

    if numbers:
        if values.dtype.kind == "O":
            raise DataError("the labels are text, and numbers were promised; leave out `loss`")
        return values.astype(np.float64)
    return np.array([None if value is None or value != value else class_name(value) for value in values], dtype=object)


def _places(values: Any, n: int) -> dict[str, Any]:
    import numpy as np

    if values is None:
        return {"": np.ones(n, dtype=bool)}
    names = np.array(["null" if value is None or value != value else class_name(value) for value in values], dtype=object)
    return {str(name): names == name for name in sorted(set(names))}


def _rows(name: str, kind: Kind, features: Mapping[str, Any], truth: Any, place: Any) -> Rows:
    import numpy as np

    known = place & (np.array([value is not None for value in truth], dtype=bool) if truth.dtype.kind == "O" else np.isfinite(truth))
    kept = {column: values[known] for column, values in features.items()}
    marks = _marks(kept, int(known.sum()))
    spelled = repr(truth[known].tolist()).encode()
    digest = hashlib.sha256(marks.tobytes() + spelled).hexdigest()[:16]
    return Rows(name, kind, kept, truth[known], digest, marks, int(place.sum() - known.sum()))


def _marks(features: Mapping[str, Any], n: int) -> Any:
    """A 64-bit mark of each row's features: equal rows have equal marks, and others almost never."""
    import numpy as np

    marks = np.zeros(n, dtype=np.uint64)
    for values in features.values():
        if values.dtype.kind == "O":
            bits = np.array(
                [int.from_bytes(hashlib.blake2b(repr(value).encode(), digest_size=8).digest(), "little") for value in values], dtype=np.uint64
            )
        else:
            bits = (values.astype(np.float64) + 0.0).view(np.uint64)  # -0.0 is 0.0
        marks = (marks ^ bits) * np.uint64(0x9E3779B97F4A7C15)
        marks ^= marks >> np.uint64(29)
    return marks


def answered(slices: Sequence[Rows], models: Mapping[str, Model], numbers: bool) -> Iterator[tuple[str, str]]:
    """Ask each model about the rows of each slice; gives (model, slice) before each, so that progress can be told."""
    for word, model in models.items():
        for rows in slices:
            yield word, rows.name
            if rows.n:
                _answer(rows, word, model, numbers)


def _answer(rows: Rows, word: str, model: Model, numbers: bool) -> None:
    import numpy as np

    found = model.predict(rows.features)
    if len(found.answer) != rows.n:
        raise DataError(f"the {word} gave {len(found.answer)} answers to the {rows.n} rows of {rows.name}")
    if numbers:
        if found.answer.dtype.kind == "O":
            raise DataError(f"the {word} answers with classes, and numbers were promised; leave out `loss`")
        rows.answers[word] = found.answer.astype(np.float64)
        return
    rows.answers[word] = np.array([class_name(value) for value in found.answer], dtype=object)
    rows.classes[word] = frozenset(class_name(name) for name in found.classes)
    if found.scores is not None:
        rows.hits[word] = found.scores.max(axis=1)


def spelled_alike(slices: Sequence[Rows]) -> None:
    """DataError where a model speaks of other classes than labels and the other model do: all it says would count as wrong, and both as "equal".

    The champion need not know the classes of new slices. Models that say no classes are judged by their answers, all together.
    """
    labels = {str(value) for rows in slices for value in rows.truth}
    words = {word: {name for rows in slices for name in rows.classes.get(word, ())} for rows in slices for word in rows.classes}
    for word, names in words.items():
        others = {name for other, known in words.items() if other != word for name in known}
        if names and not names & (labels | others):
            raise DataError(f"the {word}'s classes are {_few(names)}, and the labels {_few(labels)}: name them with `classes`, in the model's order")
    given = {str(answer) for rows in slices for answers in rows.answers.values() for answer in answers}
    if given and not given & labels:
        raise DataError(
            f"what is answered is {_few(given)}, and the labels are {_few(labels)}: these are no answers to that; see `classes` and `loss`"
        )


def _few(names: Collection[str]) -> str:
    return ", ".join(f"'{name:.40}'" for name in sorted(names)[:3]) + (" and others" if len(names) > 3 else "")


def shared(slices: Sequence[Rows]) -> dict[tuple[str, str], int]:
    """How many rows two slices have in common, for those that have any: such rows count twice."""
    sets = {rows.name: set(rows.marks.tolist()) for rows in slices}
    names = list(sets)
    found = {(one, other): len(sets[one] & sets[other]) for n, one in enumerate(names) for other in names[n + 1 :]}
    return {pair: count for pair, count in found.items() if count}
