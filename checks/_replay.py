"""Which version is served, what to ask it, and how logged inputs become a request again."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agent import Columns, GoldenRow, Json, Registry, Server

PLACE = "{inputs}"


def served(server: Server, registry: Registry | None) -> str | None:
    """What the server says it serves; a server that only says so in its answers is asked one golden request."""
    said = server.version()
    if said is not None or registry is None:
        return said
    rows = newest(registry)
    return server.infer(rows[0].request).version if rows else None


def rows(server: Server, registry: Registry | None) -> Sequence[GoldenRow]:
    """Golden rows of the served version, or else those registered last: good as requests, whatever the answers should be."""
    if registry is None:
        return ()
    version = served(server, registry)
    golden = registry.golden(version) if version is not None else None
    return golden.rows if golden is not None else newest(registry)


def newest(registry: Registry) -> Sequence[GoldenRow]:
    """The golden rows of the version registered last among those that have any."""
    for registered in reversed(registry.versions()):
        golden = registry.golden(registered.version)
        if golden is not None and golden.rows:
            return golden.rows
    return ()


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

    A place is "{inputs}", the first tensor of an Open Inference Protocol request, a list, or keys named like the features.
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
    if isinstance(template, Mapping):
        return {key: _placed(value, inputs) for key, value in template.items()}
    return [_placed(value, inputs) for value in template] if isinstance(template, list) else template


def _shape(recorded: Any, inputs: Json) -> list[int]:
    """The recorded shape where it holds as many values as were logged; else one row as long as they are."""
    length = len(inputs) if isinstance(inputs, list) else 1
    whole = isinstance(recorded, list) and all(isinstance(size, int) for size in recorded)
    return list(recorded) if whole and math.prod(recorded) == length else [1, length]
