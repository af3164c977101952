"""A model that is an ONNX file, run here on the rows of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from agent import Locator, Predicted, adapter, admit, bounded
from agent.errors import CannotError, DataError
from agent.targets import _shapes

OPTIONS = ("features", "classes", "output", "sha256", "memory", "domains")
ROWS = 1024  # of one run
MEMORY = 4 * 2**30  # bytes that loading and running it may take
TYPES = {"float": "float32", "double": "float64", "string": "object"}  # the rest are called alike by ONNX and numpy
SAME = 1e-3  # how far from 1 the scores of a row may add up, to be probabilities


@adapter(role="model", schemes=("onnx",), heavy=True)
class Onnx:
    """`onnx:models/fraud/7/model.onnx`. A graph with one input takes the features side by side, in the order of `features`; one with several takes
    a column for each, by name. Answers are its labels, the class of the largest of its scores, or its numbers.

    `features`: columns in their order (all that are given, if it is left out); `classes`: what the scores are of; `output`: which output answers,
    when there are several; `sha256`: of the file that was registered; `memory`: bytes it may take; `domains`: of operators it may use besides.
    """

    can: frozenset[str] = frozenset({"scores"})

    def __init__(self, at: Locator) -> None:
        given, self._where = _shapes.options(at, OPTIONS), f"{at.service}.{at.role}"
        self._path = Path(at.folder, at.address)
        self._features: Sequence[str] = [str(name) for name in given.get("features") or ()]
        self._classes = tuple(str(name) for name in given.get("classes") or ())
        self._output, self._sha256 = given.get("output"), given.get("sha256")
        self._memory, self._domains = int(given.get("memory") or MEMORY), tuple(given.get("domains") or ())

    @property
    def name(self) -> str:
        """The folder it lies in, as registries name their versions, and the first digits of its sha256."""
        return f"{self._path.resolve().parent.name}/{self._admitted.sha256[:8]}"

    @cached_property
    def _admitted(self) -> Any:
        return admit(self._path, sha256=self._sha256, domains=self._domains, largest=self._memory)

    @cached_property
    def _session(self) -> Any:
        try:
            import onnxruntime
        except ImportError as problem:
            raise CannotError(f"{self._where}: onnxruntime is not installed; install watchkeeper[onnx]") from problem
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is raised
        path = self._admitted.path
        try:
            with bounded(self._memory):
                return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as problem:
            raise DataError(f"{self._where}: {path} is no graph that this runtime can run ({str(problem)[:300]})") from problem

    def predict(self, rows: Mapping[str, Any]) -> Predicted:
        """One answer a row. DataError where a column is missing, or does not fit the graph; where the graph fails; where an answer is no number."""
        import numpy as np

        length = len(next(iter(rows.values())))
        parts = [self._part({name: column[at : at + ROWS] for name, column in rows.items()}) for at in range(0, length, ROWS)]
        scores = [part.scores for part in parts if part.scores is not None]
        return Predicted(np.concatenate([part.answer for part in parts]), np.concatenate(scores) if scores else None, parts[0].classes)

    def _part(self, rows: Mapping[str, Any]) -> Predicted:
        session, length = self._session, len(next(iter(rows.values())))
        fed = self._fed(session.get_inputs(), rows, length)
        try:
            with bounded(self._memory):
                found = session.run(None, fed)
        except Exception as problem:
            raise DataError(f"{self._where}: the graph fails on these rows: {str(problem)[:300]}") from problem
        named = {one.name: value for one, value in zip(session.get_outputs(), found, strict=True)}
        return self._read(named, length)

    # In

    def _fed(self, wanted: Sequence[Any], rows: Mapping[str, Any], length: int) -> dict[str, Any]:
        names = self._features or list(rows)
        if missing := [name for name in names if name not in rows]:
            raise DataError(f"{self._where}: the rows have no column '{missing[0]}'; there is {', '.join(rows)}")
        if len(wanted) == 1:
            return {wanted[0].name: self._side_by_side(wanted[0], [rows[name] for name in names], length)}
        if lacking := [one.name for one in wanted if one.name not in rows]:
            raise DataError(f"{self._where}: the graph takes '{lacking[0]}', and the rows have no such column; there is {', '.join(rows)}")
        return {one.name: self._shaped(one, self._cast(one, rows[one.name]), length) for one in wanted}

    def _side_by_side(self, wanted: Any, columns: Sequence[Any], length: int) -> Any:
        import numpy as np

        return self._shaped(wanted, np.stack([self._cast(wanted, column) for column in columns], axis=1), length)

    def _cast(self, wanted: Any, column: Any) -> Any:
        import numpy as np

        word = wanted.type.removeprefix("tensor(").removesuffix(")")
        kind = np.dtype(TYPES.get(word, word))
        if (column.dtype.kind == "O") != (kind.kind == "O"):
            raise DataError(f"{self._where}: '{wanted.name}' takes {word}, and the rows hold {'text' if column.dtype.kind == 'O' else 'numbers'}")
        if kind.kind in "iu" and not np.isfinite(column).all():
            raise DataError(f"{self._where}: '{wanted.name}' takes whole numbers, and some rows have none")
        return column.astype(kind)

    def _shaped(self, wanted: Any, values: Any, length: int) -> Any:
        sizes = [size if isinstance(size, int) and size > 0 else None for size in wanted.shape[1:]]
        width = values.size // max(length, 1)
        if not sizes:
            sizes = [width] if len(wanted.shape) else []
        if sizes.count(None) == 1:
            sizes[sizes.index(None)] = width // max(prod(size for size in sizes if size), 1)
        if None in sizes or prod(size or 0 for size in sizes) != width:
            raise DataError(f"{self._where}: the graph takes {wanted.shape} for '{wanted.name}', and a row has {width} values; set `features`")
        return values.reshape(length, *(size or 0 for size in sizes)) if len(wanted.shape) > 1 else values.reshape(length)

    # Out

    def _read(self, found: Mapping[str, Any], length: int) -> Predicted:
        import numpy as np

        if self._output is not None and self._output not in found:
            raise DataError(f"{self._where}: the graph gives no '{self._output}'; there is {', '.join(found)}")
        tables = [value for value in found.values() if _is_table(value)]
        scores, classes = next((self._scores(value, length) for value in tables), (None, ()))
        chosen = [found[self._output]] if self._output else [value for value in found.values() if not _is_table(value)]
        if chosen and not _is_table(chosen[0]):
            return Predicted(self._finite(np.asarray(chosen[0]).reshape(length)), scores, classes)
        if scores is None:
            raise DataError(f"{self._where}: none of {', '.join(found)} is an answer a row")
        if scores.shape[1] == 1:
            return Predicted(scores[:, 0])
        return Predicted(np.asarray(classes, dtype=object)[scores.argmax(axis=1)], _probable(scores), classes)

    def _scores(self, value: Any, length: int) -> tuple[Any, tuple[str, ...]]:
        """Scores of each class; a list of {class: score} is how scikit-learn's converters write them."""
        import numpy as np

        if isinstance(value, list):
            classes = tuple(str(name) for name in value[0]) if value else ()
            return self._finite(np.array([list(row.values()) for row in value], dtype=np.float64)), self._classes or classes
        scores = self._finite(value.reshape(length, -1).astype(np.float64))
        classes = self._classes or tuple(str(place) for place in range(scores.shape[1]))
        if scores.shape[1] not in (1, len(classes)):
            raise DataError(f"{self._where}: the graph gives {scores.shape[1]} scores a row, and `classes` names {len(classes)}")
        return scores, classes

    def _finite(self, values: Any) -> Any:
        import numpy as np

        if values.dtype.kind == "f" and (bad := int((~np.isfinite(values)).any(axis=-1).sum() if values.ndim > 1 else (~np.isfinite(values)).sum())):
            raise DataError(f"{self._where}: the graph answers {bad} rows with something that is no number")
        return values


def _is_table(value: Any) -> bool:
    return isinstance(value, list) or (value.ndim > 1 and value.dtype.kind == "f")


def _probable(scores: Any) -> Any:
    """The scores where they are probabilities: none below 0, and each row adding up to 1; None else, for logits say nothing of how sure they are."""
    import numpy as np

    return scores if (scores >= -SAME).all() and np.abs(scores.sum(axis=1) - 1).max(initial=0.0) < SAME else None
