"""A model that is asked where it is served: rows become requests of its server, and answers what the rows are answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from agent import Json, Locator, Predicted, Server, Signature, Tensor, fill
from agent.errors import AnswerError, CannotError, ConfigError, DataError
from agent.targets import _models, _shapes
from agent.wire import shown

OPTIONS = (*_models.OPTIONS, "request", "batch")
TOGETHER = 64  # rows of one request, where the server says that it takes any number
WORDS = {"BOOL": "?", "BYTES": "object", "FP16": "float16", "FP32": "float32", "FP64": "float64"} | {
    f"{sign}{size}": f"{sign.lower()}{size}" for sign in ("INT", "UINT") for size in (8, 16, 32, 64)
}


class Served:
    """Any server that can infer, as a model of rows; its own options beside these.

    `features`, `classes` as of `onnx`; `output`: the tensor that answers, or the dotted field of a JSON answer; `request`: what is sent, with the
    text "{inputs}" where a row's features go as a list, or with keys that are called like the features (without it they are the tensors that the
    server says it takes); `batch`: how many rows go into one request, as a list of rows where it is more than 1.
    """

    can: frozenset[str] = frozenset({"scores"})

    def __init__(self, at: Locator, server: Callable[[Locator], Server]) -> None:
        own = {name: value for name, value in at.options.items() if name in OPTIONS}
        self._where, self._url = f"{at.service}.{at.role}", shown(at.address)
        self._shape, self._request, self._batch = _models.Shape.of(at), own.get("request"), own.get("batch")
        if self._batch is not None and (not isinstance(self._batch, int) or isinstance(self._batch, bool) or self._batch < 1):
            raise ConfigError(f"{self._where}.batch: write how many rows a request takes, not {self._batch!r:.80}")
        self._server = server(replace(at, options={name: value for name, value in at.options.items() if name not in OPTIONS}))
        self._version: str | None = None
        self._inputs: Sequence[Tensor] | None = None

    @property
    def name(self) -> str:
        """The version that answered, or where it is asked when no answer says one."""
        return self._version or self._url

    def predict(self, rows: Mapping[str, Any]) -> Predicted:
        """One answer a row. DataError where rows do not fit, or another version answers in the middle; AnswerError where the server refuses."""
        if self._request is None and self._inputs is None:
            self._inputs = self._stated()
        self._same(self._said())
        found = _models.predicted(rows, self._part, self._batch or self._together())
        self._same(self._said())
        return found

    def close(self) -> None:
        """Closes the connections."""
        getattr(self._server, "close", lambda: None)()

    def _part(self, rows: Mapping[str, Any], length: int) -> Predicted:
        answer = self._server.infer(self._asking(rows, length))
        self._same(answer.version)
        return self._shape.read(self._answers(answer.body, length), length)

    def _said(self) -> str | None:
        return self._server.version() if "version" in self._server.can else None

    def _same(self, version: str | None) -> None:
        """Half of the answers from one version and half from another would be those of neither."""
        if version is not None and self._version not in (None, version):
            raise DataError(
                f"{self._where}: version {self._version} answered, and then {version}: it was switched meanwhile, or both serve; ask one of them"
            )
        self._version = version or self._version

    # In

    def _stated(self) -> Sequence[Tensor]:
        said: Signature | None = self._server.signature() if "signature" in self._server.can else None
        if said is None:
            raise CannotError(f'{self._where}: {self._url} does not say what it takes; write `request:` with "{{inputs}}" where a row goes')
        return said.inputs

    def _together(self) -> int:
        return TOGETHER if self._inputs and all(one.shape[:1] == (-1,) for one in self._inputs) else 1

    def _asking(self, rows: Mapping[str, Any], length: int) -> Json:
        if self._request is not None:
            return self._filled(rows)
        assert self._inputs is not None, "asked for before"
        if len(self._inputs) == 1:
            return {"inputs": [self._tensor(self._inputs[0], self._shape.columns(rows), length)]}
        if lacking := [one.name for one in self._inputs if one.name not in rows]:
            raise DataError(f"{self._where}: the server takes '{lacking[0]}', and the rows have no such column; there is {', '.join(rows)}")
        return {"inputs": [self._tensor(one, [rows[one.name]], length) for one in self._inputs]}

    def _filled(self, rows: Mapping[str, Any]) -> Json:
        names = self._shape.features or tuple(rows)
        listed: list[Json] = [_plain(row) for row in zip(*self._shape.columns(rows), strict=True)]
        if isinstance(self._request, Mapping) and set(names) & set(self._request):
            listed = [dict(zip(names, row, strict=True)) for row in listed]
        made = fill(self._request, listed if (self._batch or 1) > 1 else listed[0])
        if made is None:
            raise CannotError(
                f'{self._where}.request: it has no place for a row; write "{{inputs}}" where the features go, or a key for each of them'
            )
        return made

    def _tensor(self, wanted: Tensor, columns: Sequence[Any], length: int) -> Json:
        import numpy as np

        kind = WORDS.get(wanted.datatype)
        if kind is None:
            raise DataError(f"{self._where}: '{wanted.name}' takes {wanted.datatype}, which no column is")
        side = np.stack([self._shape.cast(column, kind, wanted.name) for column in columns], axis=1)
        if len(wanted.shape) > 1:
            side = self._shape.shaped(side, length, wanted.shape[1:], wanted.name)
        return {"name": wanted.name, "datatype": wanted.datatype, "shape": list(side.shape), "data": side.ravel().tolist()}

    # Out

    def _answers(self, body: Json, length: int) -> Mapping[str, Any]:
        if isinstance(body, Mapping) and isinstance(body.get("outputs"), list) and all(_is_tensor(one) for one in body["outputs"]):
            return {str(one["name"]): self._array(one["data"], one.get("shape")) for one in body["outputs"]}
        name = self._shape.output or "answer"
        found = _shapes.pick(body, self._shape.output or "", self._where)
        if length == 1 and not (isinstance(found, list) and len(found) == 1):
            found = [found]
        if isinstance(found, list) and found and all(isinstance(one, Mapping) for one in found):
            return {name: found}
        return {name: self._array(found, None)}

    def _array(self, given: Json, shape: Any) -> Any:
        """The values, in the shape that is said; AnswerError for what is neither numbers nor text."""
        import numpy as np

        try:
            found = np.asarray(given)
            found = found.astype(object) if found.dtype.kind == "U" else found
            if found.dtype.kind not in "fiubO" or (found.dtype.kind == "O" and not all(isinstance(one, str) for one in found.ravel())):
                raise ValueError("neither numbers nor text")
            return found if shape is None else found.reshape([int(size) for size in shape])
        except (ValueError, TypeError, OverflowError) as problem:
            raise AnswerError(
                f"{self._where}: {self._url} answers with what are no answers to rows ({problem}): {json.dumps(given)[:120]}"
            ) from problem


def _plain(row: Sequence[Any]) -> list[Json]:
    """A row as JSON: what is no number here was null in the table."""
    return [None if value is None or value != value else value.item() if hasattr(value, "item") else value for value in row]


def _is_tensor(one: Json) -> bool:
    return isinstance(one, Mapping) and "name" in one and isinstance(one.get("data"), list)
