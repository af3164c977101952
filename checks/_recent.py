"""Recent inputs, asked again: the requests that they were, and what is wrong with an answer in itself."""

from __future__ import annotations

from agent import NOT_NOW, Answer, Columns, Json, Registry, Server, Verdict, fill, golden_rows, logged, nodata
from agent.errors import AnswerError
from checks._answers import finite

RECORD = (
    "record them where the model is trained, before any serving code: "
    "`from agent.targets.folder import record; record('models/NAME', 'VERSION', {'model.onnx': path}, golden=[(request, expected), ...])`"
)


def recent(server: Server, live: Columns, registry: Registry | None, rows: int, request: Json) -> list[Json] | Verdict:
    """The newest logged inputs as requests; where there are none, nodata and why."""
    template = request if request is not None else next((row.request for row in golden_rows(server, registry)), None)
    if template is None:
        return nodata(f"no request to put the inputs in: set `with: {{request: ...}}` with {{inputs}} where they go, or {RECORD}")
    filled = [fill(template, inputs) for inputs in logged(live, rows) if inputs is not None]
    asked = [one for one in filled if one is not None]
    if asked:
        return asked
    why = "the request has no place for them: write {inputs} in `with: {request: ...}`" if filled else "no live inputs were logged"
    return nodata(f"nothing to replay: {why}")


def answered(server: Server, request: Json) -> Answer | str:
    """The answer to one request, or what is wrong with it in words: refused, unreadable, or a number in it is none."""
    try:
        answer = server.infer(request)
    except AnswerError as problem:
        if problem.status in NOT_NOW:
            raise
        return str(problem)
    return answer if finite(answer.body) else "a number in the answer is NaN, infinite or null"
