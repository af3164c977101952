"""What models of rows share, wherever they run: columns made into what a model takes, and what it gives read as answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from agent import Json, Locator, Predicted
from agent.errors import ConfigError, DataError

OPTIONS = ("features", "classes", "output")
ROWS = 1024  # of one run
SAME = 1e-3  # how far from 1 the scores of a row may add up, to be probabilities


@dataclass(frozen=True, slots=True)
class Shape:
    """What the configuration says of a model: its features in their order, the classes its scores are of, which of its outputs answers."""

    where: str
    features: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    output: str | None = None

    @classmethod
    def of(cls, at: Locator) -> Shape:
        """ConfigError for what is no list of names."""
        where = f"{at.service}.{at.role}"
        features, classes = (_names(at.options.get(option), f"{where}.{option}") for option in ("features", "classes"))
        output = at.options.get("output")
        return cls(where, features, classes, None if output is None else str(output))

    def columns(self, rows: Mapping[str, Any]) -> list[Any]:
        """The features in their order, all that are given where none are named; DataError names one that is missing."""
        names = self.features or tuple(rows)
        if missing := [name for name in names if name not in rows]:
            raise DataError(f"{self.where}: the rows have no column '{missing[0]}'; there is {', '.join(rows)}")
        return [rows[name] for name in names]

    def cast(self, column: Any, kind: Any, name: str) -> Any:
        """A column in the type of the input `name`; DataError where text would have to become numbers, or null a whole number."""
        import numpy as np

        kind = np.dtype(kind)
        if (column.dtype.kind == "O") != (kind.kind == "O"):
            held = "text" if column.dtype.kind == "O" else "numbers"
            raise DataError(f"{self.where}: '{name}' takes {'text' if kind.kind == 'O' else kind.name}, and the rows hold {held}")
        if kind.kind in "iu" and not np.isfinite(column).all():
            raise DataError(f"{self.where}: '{name}' takes whole numbers, and some rows have none")
        return column.astype(kind)

    def shaped(self, values: Any, length: int, wanted: Sequence[Any], name: str) -> Any:
        """Rows of values as the input `name` takes them: its dimensions after the first, one of which may have any size."""
        sizes = [size if isinstance(size, int) and size > 0 else None for size in wanted]
        width = values.size // max(length, 1)
        if sizes.count(None) == 1:
            sizes[sizes.index(None)] = width // max(prod(size for size in sizes if size), 1)
        if None in sizes or prod(size or 0 for size in sizes) != width:
            raise DataError(f"{self.where}: '{name}' takes {list(wanted)} a row, and a row has {width} values; set `features`")
        return values.reshape(length, *(size or 0 for size in sizes))

    def read(self, found: Mapping[str, Any], length: int) -> Predicted:
        """What a model gave to so many rows: its labels, the class of the largest of its scores, or its numbers. DataError for what is none."""
        import numpy as np

        if self.output is not None and self.output not in found:
            raise DataError(f"{self.where}: the model gives no '{self.output}'; there is {', '.join(found)}")
        named = [found[self.output]] if self.output is not None else list(found.values())
        labels = [value for value in named if not _is_table(value)]
        tables = [value for value in (named if not labels else found.values()) if _is_table(value)]
        scores, classes = self._scores(tables[0], length) if tables else (None, ())
        if labels:
            return Predicted(self._finite(self._each(np.asarray(labels[0]), length, 1).reshape(length)), scores, classes)
        if scores is None:
            raise DataError(f"{self.where}: none of {', '.join(found) or 'nothing'} is an answer a row")
        if scores.shape[1] == 1:
            return Predicted(scores[:, 0])
        return Predicted(np.asarray(classes, dtype=object)[scores.argmax(axis=1)], _probable(scores), classes)

    def _scores(self, value: Any, length: int) -> tuple[Any, tuple[str, ...]]:
        """Scores of each class; a list of {class: score} is how scikit-learn's converters, and servers, write them."""
        import numpy as np

        if isinstance(value, list):
            found, classes = self._listed(value, length)
        else:
            found = self._finite(self._each(value, length).reshape(length, -1).astype(np.float64))
            classes = self.classes or tuple(str(place) for place in range(found.shape[1]))
        if found.shape[1] not in (1, len(classes)):
            raise DataError(f"{self.where}: the model gives {found.shape[1]} scores a row, and `classes` names {len(classes)}")
        return found, classes

    def _listed(self, value: Sequence[Mapping[str, Any]], length: int) -> tuple[Any, tuple[str, ...]]:
        import numpy as np

        names = list(value[0]) if value else []
        if len(value) != length or any(set(row) != set(names) for row in value):
            raise DataError(
                f"{self.where}: the model gives scores of {len(value)} rows, or not of the same classes in each; {length} were asked about"
            )
        try:
            found = np.array([[float(row[name]) for name in names] for row in value]).reshape(length, len(names))
        except (TypeError, ValueError) as problem:
            raise DataError(f"{self.where}: the model gives {', '.join(map(str, names))}, which are no scores of classes ({problem})") from problem
        return self._finite(found), self.classes or tuple(str(name) for name in names)

    def _each(self, value: Any, length: int, width: int | None = None) -> Any:
        """Values of so many rows; DataError where they are of another number of rows, or more to a row than wanted."""
        rows = value.shape[0] if value.ndim > 1 else value.size
        if rows != length or (width is not None and value.size != length * width):
            raise DataError(f"{self.where}: the model answers {length} rows with {list(value.shape)} values")
        return value

    def _finite(self, values: Any) -> Any:
        import numpy as np

        if values.dtype.kind == "f" and (bad := int((~np.isfinite(values)).any(axis=-1).sum() if values.ndim > 1 else (~np.isfinite(values)).sum())):
            raise DataError(f"{self.where}: the model answers {bad} rows with something that is no number")
        return values


def predicted(rows: Mapping[str, Any], ask: Callable[[Mapping[str, Any], int], Predicted], size: int = ROWS) -> Predicted:
    """The answers to all rows, asked for in runs of `size`."""
    import numpy as np

    length = len(next(iter(rows.values())))
    places = [(at, min(size, length - at)) for at in range(0, length, size)]
    parts = [ask({name: column[at : at + count] for name, column in rows.items()}, count) for at, count in places]
    scores = [part.scores for part in parts if part.scores is not None]
    whole = np.concatenate(scores) if len(scores) == len(parts) else None
    return Predicted(np.concatenate([part.answer for part in parts]), whole, parts[0].classes)


def called(path: Any, sha256: str) -> str:
    """What to call a model file: the folder it lies in, as registries name their versions, and the first digits of its sha256."""
    return f"{path.resolve().parent.name}/{sha256[:8]}"


def _names(given: Json, where: str) -> tuple[str, ...]:
    if given is not None and not isinstance(given, (list, tuple)):
        raise ConfigError(f"{where}: write a list of names, not {given!r:.80}")
    return tuple(str(name) for name in given or ())


def _is_table(value: Any) -> bool:
    """Whether it has scores: more than a number a row, or a number in a column of its own; labels are whole numbers or text."""
    return isinstance(value, list) or (value.ndim > 1 and (value.dtype.kind == "f" or (value.dtype.kind in "iu" and value.shape[-1] > 1)))


def _probable(scores: Any) -> Any:
    """The scores where they are probabilities: none below 0, and each row adding up to 1; None else, for logits say nothing of how sure they are."""
    import numpy as np

    return scores if (scores >= -SAME).all() and np.abs(scores.sum(axis=1) - 1).max(initial=0.0) < SAME else None
