"""The net as an ONNX graph that answers as the net does, which is looked at before it is handed in."""

from __future__ import annotations

import io
import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

import torch

from agent import Json
from agent.errors import TrainingError
from runbooks._continual_rows import Rows
from runbooks._learning import Learner
from runbooks._strategies_apart import Switch

CLOSE = 1e-5  # how far its probabilities may lie from torch's
TRIED = 256  # rows on which that is looked at
IN, OUT = "x", "probabilities"


class Answers(torch.nn.Module):  # type: ignore[misc,unused-ignore]  # nothing of torch is known to the type checker where torch is missing
    """What is served: the probability of each class, without outputs of the net that are no class yet."""

    def __init__(self, net: Any, classes: int) -> None:
        super().__init__()
        self.net, self.classes = net, classes

    def forward(self, x: Any) -> Any:
        return self.net(x)[:, : self.classes].softmax(1)


def graph(learner: Learner, tried: Rows, takes: Sequence[str], classes: Sequence[str]) -> bytes:
    """ONNX: float32 features side by side in, probabilities of the classes out. A strategy that must be told the task takes it as the last column.

    TrainingError where it cannot be made, or answers otherwise than the net on rows that were held out.
    """
    with _served(learner, tried, classes) as (answers, x):
        return _signed(_alike(answers, x), takes, classes)


def golden(learner: Learner, tried: Rows, classes: Sequence[str], many: int) -> bytes:
    """Requests of the Open Inference Protocol, a row each, with what torch answers: the graph is to be held to them, and whoever serves it.

    Rows that have no answer (of a task that was never learned) are left out.
    """
    with _served(learner, tried, classes) as (answers, x), torch.no_grad():
        rows, found = x[:many].numpy(), answers(x[:many]).numpy()
    pairs = [
        {"request": {"inputs": [_tensor(IN, row)]}, "expected": {"outputs": [_tensor(OUT, one)]}}
        for row, one in zip(rows.tolist(), found.tolist(), strict=True)
        if all(math.isfinite(value) for value in (*row, *one))
    ]
    return json.dumps({"rows": pairs, "rtol": 1e-3, "atol": CLOSE}, allow_nan=False).encode()


def _tensor(name: str, values: Sequence[float]) -> dict[str, Json]:
    return {"name": name, "shape": [1, len(values)], "datatype": "FP32", "data": list(values)}


@contextmanager
def _served(learner: Learner, tried: Rows, classes: Sequence[str]) -> Iterator[tuple[Any, Any]]:
    """What is served, on the CPU, and rows as it takes them; afterwards the net is where it was."""
    net, x = learner.net, tried.x[:TRIED]
    if learner.told:
        net = Switch({task: learner.view(task) for task in learner.tasks})
        x = torch.cat((x, tried.task[:TRIED, None].float()), 1)
    yield Answers(net, len(classes)).cpu().eval(), x.cpu()
    learner.net.to(learner.device)


def _alike(answers: Any, x: Any) -> bytes:
    """A trace of two rows, made in no time; where that is not what the net does, its whole program, which takes seconds."""
    problem: Exception | None = None
    for exported in (_traced, _captured):
        try:
            body = _quietly(exported, answers, x[:2])
            _same(body, answers, x)
            return body
        except Exception as trouble:  # noqa: BLE001 - the other way may do; the last problem is told
            problem = trouble
    said = (str(problem).strip().splitlines() or [""])[0][:200]
    raise TrainingError(f"the net cannot be exported to ONNX ({said}); see what torch.onnx.export can") from problem


def _quietly(exported: Callable[[Any, Any], bytes], answers: Any, x: Any) -> bytes:
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), torch.no_grad():  # it tells each step
        warnings.simplefilter("ignore")
        return exported(answers, x)


def _traced(answers: Any, x: Any) -> bytes:
    stream: Any = io.BytesIO()  # which its annotation does not know
    torch.onnx.export(answers, (x,), stream, input_names=[IN], output_names=[OUT], dynamic_axes={IN: {0: "rows"}, OUT: {0: "rows"}}, dynamo=False)
    body: bytes = stream.getvalue()
    return body


def _captured(answers: Any, x: Any) -> bytes:
    rows = torch.export.Dim("rows")
    made: Any = torch.onnx.export(answers, (x,), input_names=[IN], output_names=[OUT], dynamic_shapes=({0: rows},), dynamo=True, verbose=False)
    body: bytes = made.model_proto.SerializeToString()
    return body


def _same(body: bytes, answers: Any, x: Any) -> None:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised
    (found,) = onnxruntime.InferenceSession(body, options, providers=["CPUExecutionProvider"]).run(None, {IN: x.numpy()})
    with torch.no_grad():
        meant = answers(x).numpy()
    if found.shape != meant.shape or not (gap := float(np.abs(found - meant).max())) <= CLOSE:
        raise TrainingError(
            f"it answers {found.shape} beside {meant.shape}" if found.shape != meant.shape else f"it answers {gap:.2g} beside the net"
        )


def _signed(body: bytes, takes: Sequence[str], classes: Sequence[str]) -> bytes:
    """With the order of its features and classes written into it, for people and tools; nobody here trusts it."""
    import onnx

    model = onnx.load_from_string(body)
    onnx.helper.set_model_props(model, {"features": json.dumps(list(takes)), "classes": json.dumps(list(classes))})
    signed: bytes = model.SerializeToString()
    return signed
