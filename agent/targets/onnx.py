"""A model that is an ONNX file, run here on the rows of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from agent import Locator, Predicted, adapter, admit, bounded
from agent.errors import CannotError, DataError
from agent.targets import _models, _shapes

OPTIONS = (*_models.OPTIONS, "sha256", "memory", "domains")
MEMORY = 4 * 2**30  # bytes that loading and running it may take
TYPES = {"float": "float32", "double": "float64", "string": "object"}  # the rest are called alike by ONNX and numpy


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
        self._shape, self._sha256 = _models.Shape.of(at), given.get("sha256")
        self._memory, self._domains = int(given.get("memory") or MEMORY), tuple(given.get("domains") or ())

    @property
    def name(self) -> str:
        """The folder it lies in, as registries name their versions, and the first digits of its sha256."""
        return _models.called(self._path, self._admitted.sha256)

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
        single = any(one.shape[:1] == [1] for one in self._session.get_inputs())  # exported for one row at a time
        return _models.predicted(rows, self._part, 1 if single else _models.ROWS)

    def _part(self, rows: Mapping[str, Any], length: int) -> Predicted:
        session = self._session
        fed = self._fed(session.get_inputs(), rows, length)
        try:
            with bounded(self._memory):
                found = session.run(None, fed)
        except Exception as problem:
            raise DataError(f"{self._where}: the graph fails on these rows: {str(problem)[:300]}") from problem
        return self._shape.read({one.name: value for one, value in zip(session.get_outputs(), found, strict=True)}, length)

    def _fed(self, wanted: Sequence[Any], rows: Mapping[str, Any], length: int) -> dict[str, Any]:
        import numpy as np

        columns = self._shape.columns(rows)
        if len(wanted) == 1:
            return {
                wanted[0].name: _placed(self._shape, wanted[0], np.stack([_cast(self._shape, wanted[0], one) for one in columns], axis=1), length)
            }
        if lacking := [one.name for one in wanted if one.name not in rows]:
            raise DataError(f"{self._where}: the graph takes '{lacking[0]}', and the rows have no such column; there is {', '.join(rows)}")
        return {one.name: _placed(self._shape, one, _cast(self._shape, one, rows[one.name]), length) for one in wanted}


def _cast(shape: _models.Shape, wanted: Any, column: Any) -> Any:
    word = wanted.type.removeprefix("tensor(").removesuffix(")")
    return shape.cast(column, TYPES.get(word, word), wanted.name)


def _placed(shape: _models.Shape, wanted: Any, values: Any, length: int) -> Any:
    if len(wanted.shape) > 1:
        return shape.shaped(values, length, wanted.shape[1:], wanted.name)
    return shape.shaped(values, length, [1], wanted.name).reshape(length)
