"""Which version is served, what to ask it, and how logged inputs become a request again."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agent.errors import AnswerError
from agent.model import Columns, Golden, GoldenRow, Json, Registry, Router, Server

PLACE = "{inputs}"
NOT_NOW = (408, 425, 429)  # asked too slowly, too early, too often: about us, not about the request


def served(server: Server, registry: Registry | None = None, router: Router | None = None) -> str | None:
    """What the server says it serves, or the only version its router sends traffic to, or what answers a golden request; else None."""
    said = server.version()
    if said is None and router is not None:
        shares = [version for version, share in router.served().items() if share > 0]
        said = shares[0] if len(shares) == 1 else None
    return said if said is not None or registry is None else _answering(server, registry)


def _answering(server: Server, registry: Registry) -> str | None:
    """Versions may take different requests, so a refused one says nothing about who refused it: the next older one is tried."""
    for golden in _newest_first(registry):
        try:
            return server.infer(golden.rows[0].request).version
        except AnswerError as problem:
            if not refused(problem):
                raise
    return None


def refused(problem: AnswerError) -> bool:
    """Whether it is the model's word on a request: 4xx, but for those that only say "not now"."""
    return problem.status is not None and 400 <= problem.status < 500 and problem.status not in NOT_NOW


def golden_rows(server: Server, registry: Registry | None) -> Sequence[GoldenRow]:
    """Golden rows of the served version, or else those registered last: good as requests, whatever the answers should be."""
    if registry is None:
        return ()
    version = served(server, registry)
    golden = registry.golden(version) if version is not None else None
    found = golden if golden and golden.rows else next(_newest_first(registry), None)
    return found.rows if found else ()


def _newest_first(registry: Registry) -> Iterator[Golden]:
    for registered in reversed(registry.versions()):
        golden = registry.golden(registered.version)
        if golden is not None and golden.rows:
            yield golden


def logged(live: Columns, limit: int) -> Iterator[Json]:
    """The newest logged inputs as they were sent: the JSON of one column, or an object of the declared feature columns."""
    features = live.declared.get("features")
    if isinstance(features, Mapping):
        column = str(features["json"])
        for row in live.head([column], limit):
            yield _parsed(row[column])
    elif features:
        yield from live.head([str(name) for name in features], limit)


def _parsed(text: Json) -> Json:
    """Inputs that were no JSON when they were logged are replayed as the text they were."""
    if not isinstance(text, (str, bytes)):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text if isinstance(text, str) else None


def fill(template: Json, inputs: Json) -> Json:
    """The template with logged inputs in it, as logged: wrong lengths and types stay wrong. None when it has no place for them.

    A place is "{inputs}", by itself or within a text; the first tensor of an Open Inference Protocol request; a list; keys named like the features.
    """
    if PLACE in json.dumps(template):
        return _placed(template, inputs)
    if isinstance(template, Mapping) and isinstance(template.get("inputs"), list) and template["inputs"]:
        first, *others = template["inputs"]
        return {**template, "inputs": [{**first, "shape": _shape(first.get("shape"), inputs), "data": inputs}, *others]}
    if isinstance(template, list) and isinstance(inputs, list):
        return inputs
    if isinstance(template, Mapping) and isinstance(inputs, Mapping) and set(inputs) & set(template):
        return {**template, **inputs}
    return None


def _placed(template: Json, inputs: Json) -> Json:
    if template == PLACE:
        return inputs
    if isinstance(template, str):
        return template.replace(PLACE, inputs if isinstance(inputs, str) else json.dumps(inputs))
    if isinstance(template, Mapping):
        return {key: _placed(value, inputs) for key, value in template.items()}
    return [_placed(value, inputs) for value in template] if isinstance(template, list) else template


def _shape(recorded: Any, inputs: Json) -> list[int]:
    """The recorded shape where it holds as many values as were logged; else one row as long as they are."""
    length = len(inputs) if isinstance(inputs, list) else 1
    whole = isinstance(recorded, list) and all(isinstance(size, int) for size in recorded)
    return list(recorded) if whole and math.prod(recorded) == length else [1, length]
