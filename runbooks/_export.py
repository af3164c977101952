"""A torch module as an ONNX graph that is shown to answer the same, before anything is made of it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import ArtefactError, DataError
from runbooks._feeds import Rows, feeds
from runbooks._runtime import asked, opened

EQUAL = 1e-5  # absolute and relative: what 32-bit sums in another order come to
SHOWN = 64  # rows on which torch and the graph are compared
TRACED = 2  # rows of the example it is exported with: one would be taken for a fixed batch


@dataclass(frozen=True, slots=True)
class _Input:
    """What a module takes, in the words that a graph's inputs have."""

    name: str
    type: str
    shape: Sequence[int | None]


def export(made: Any, rows: Rows, to: Path, memory: int) -> float:
    """Writes the module as a graph in one file, and gives the largest difference of their answers. ArtefactError where it is beyond EQUAL.

    One argument takes the features side by side, several take a column each, by name; every axis along which rows differ is left open.
    """
    import torch

    inputs = list(_inputs(made, rows))
    fed = list(feeds(inputs, rows, range(min(SHOWN, rows.n))))
    example = [_tensor(value[:1].repeat(TRACED, axis=0)) for value in fed[0].values.values()]
    first = torch.export.Dim("rows", min=1)
    open_axes = tuple({0: first, **dict.fromkeys(_open(fed, name), torch.export.Dim.AUTO)} for name in fed[0].values)
    try:
        torch.onnx.export(
            made,
            tuple(example),
            str(to),
            input_names=[one.name for one in inputs],
            dynamic_shapes=open_axes,
            external_data=False,
            dynamo=True,
            verbose=False,
        )
    except Exception as problem:
        raise ArtefactError(f"torch cannot export the module ({type(problem).__name__}: {str(problem)[:300]})") from problem
    session, apart = opened(to, 1, memory), 0.0
    for one in fed:
        with torch.no_grad():
            ours = _flat(made(*(_tensor(value) for value in one.values.values())))
        apart = max(apart, _apart(ours, asked(session, one, memory)))
    return apart


def _inputs(made: Any, rows: Rows) -> list[_Input]:
    names = [one.name for one in inspect.signature(made.forward).parameters.values() if one.default is one.empty and one.kind in (0, 1)]
    if len(names) == 1 and names[0] not in rows.columns:
        return [_Input(names[0], "tensor(float)", (None, len(rows.names)))]
    if lacking := [name for name in names if name not in rows.columns]:
        raise DataError(f"{rows.where}: the module takes '{lacking[0]}', and the rows have no such column; there is {', '.join(rows.columns)}")
    return [_Input(name, f"tensor({_word(rows.columns[name][0])})", (None,) * (1 + getattr(rows.columns[name][0], "ndim", 0))) for name in names]


def _word(value: Any) -> str:
    import numpy as np

    return "float" if np.asarray(value).dtype.kind == "f" else "int64"


def _open(fed: Sequence[Any], name: str) -> list[int]:
    """The axes besides the first along which rows differ."""
    shapes = [one.values[name].shape for one in fed]
    return [axis for axis in range(1, len(shapes[0])) if len({shape[axis] for shape in shapes}) > 1]


def _tensor(value: Any) -> Any:
    import torch

    return torch.from_numpy(value)


def _flat(answer: Any) -> list[Any]:
    return [one.numpy() for one in (answer if isinstance(answer, tuple | list) else (answer,))]


def _apart(ours: Sequence[Any], theirs: Sequence[Any]) -> float:
    import numpy as np

    if len(ours) != len(theirs) or any(one.shape != other.shape for one, other in zip(ours, theirs, strict=True)):
        raise ArtefactError("the exported graph gives other outputs than the module")
    apart = max(float(np.nan_to_num(np.abs(one - other)).max()) for one, other in zip(ours, theirs, strict=True))
    if not all(np.allclose(one, other, rtol=EQUAL, atol=EQUAL, equal_nan=True) for one, other in zip(ours, theirs, strict=True)):
        raise ArtefactError(f"the exported graph answers otherwise than the module, by up to {apart:.3g}; {EQUAL:g} is put up with")
    return apart
