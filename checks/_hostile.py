"""Requests with something wrong in them, made from good ones; and a batch beside its rows."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from agent import Json
from checks._answers import flat, gaps, is_tensor, outputs

Path = tuple[str | int, ...]
EDGES = (math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, 2**63, -(2**63) - 1, 0, -0.0)
STRANGE: tuple[Json, ...] = (
    None,
    True,
    "",
    "NaN",
    "0x1F",
    "\u0000",
    "٣",
    "a" * 10_000,
    [],
    {},
    [[1]],
    {"a": 1},
    "'; DROP TABLE x; --",
    "{{7*7}}",
    "\ud83d",
)


@dataclass(frozen=True, slots=True)
class Spoilt:
    """One request: what is wrong with it, and whether it lacks what no model can do without."""

    name: str
    request: Json
    must_refuse: bool = False


def spoilt(good: Sequence[Json], cases: int, largest: int) -> Iterator[Spoilt]:
    """So many hostile requests, kind by kind in turn, the same ones each time."""
    chance = random.Random(20260301)  # noqa: S311 - the same requests each time, not a secret
    makers = [_edge, _strange, _missing, _extra, _longer, _shorter, _nested, _empty]
    for place, make in enumerate(islice(cycle(makers), max(cases, 0))):
        base = copy.deepcopy(good[(place // len(makers)) % len(good)])
        made = make(base, chance, largest)
        if made is not None:
            yield made


def _leaves(value: Json, at: Path = ()) -> Iterator[Path]:
    """Where the numbers and texts of a request stand."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*at, key))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _leaves(inner, (*at, place))
    else:
        yield at


def _values(request: Json) -> list[Path]:
    """The leaves that are the model's inputs: what lies in `data` of a tensor, where there are tensors; else every leaf."""
    found = list(_leaves(request))
    return [path for path in found if "data" in path] or found


def _put(request: Json, path: Path, value: Json) -> Json:
    if not path:
        return value
    inside = request
    for step in path[:-1]:
        inside = inside[step]
    inside[path[-1]] = value
    return request


def _at(request: Json, path: Path) -> Json:
    for step in path:
        request = request[step]
    return request


def _one(request: Json, chance: random.Random) -> Path:
    return chance.choice(_values(request) or [()])


def _edge(request: Json, chance: random.Random, largest: int) -> Spoilt:
    value = chance.choice(EDGES)
    return Spoilt(f"the value {value:g}", _put(request, _one(request, chance), value))


def _strange(request: Json, chance: random.Random, largest: int) -> Spoilt:
    value = chance.choice(STRANGE)
    return Spoilt(f"{type(value).__name__} for a value", _put(request, _one(request, chance), value))


def _lists(request: Json) -> list[Path]:
    """The innermost lists of the model's inputs."""
    return list(dict.fromkeys(path[:-1] for path in _values(request) if path and isinstance(path[-1], int)))


def _missing(request: Json, chance: random.Random, largest: int) -> Spoilt | None:
    """Without one of the keys it has; the ones that a tensor is made of are needed by every model."""
    if not isinstance(request, dict) or not request:
        return None
    tensors = request.get("inputs")
    inner = chance.choice(tensors) if isinstance(tensors, list) and tensors and isinstance(tensors[0], dict) else request
    key = chance.choice(sorted(set(inner) - {"id", "parameters"}) or sorted(inner))
    inner.pop(key)
    return Spoilt(f"no {key}", request, must_refuse=key in ("data", "inputs"))


def _extra(request: Json, chance: random.Random, largest: int) -> Spoilt | None:
    if not isinstance(request, dict):
        return None
    return Spoilt("a key that nobody asked for", {**request, "surplus": {"deep": [[[[1]]]]}, "__proto__": {"polluted": True}})


def _longer(request: Json, chance: random.Random, largest: int) -> Spoilt | None:
    places = _lists(request)
    if not places:
        return None
    path, times = chance.choice(places), chance.choice((2, 3, 17))
    here = _at(request, path)
    return Spoilt("a list that is too long", _put(request, path, (here * max(times, 1))[: max(largest, 1)] or here))


def _shorter(request: Json, chance: random.Random, largest: int) -> Spoilt | None:
    places = [path for path in _lists(request) if len(_at(request, path)) > 1]
    if not places:
        return None
    path = chance.choice(places)
    return Spoilt("a list that is too short", _put(request, path, _at(request, path)[:-1]))


def _nested(request: Json, chance: random.Random, largest: int) -> Spoilt:
    deep: Json = 1
    for _ in range(chance.choice((3, 50, 200))):
        deep = [deep]
    return Spoilt("a list in lists", _put(request, _one(request, chance), deep))


def _empty(request: Json, chance: random.Random, largest: int) -> Spoilt:
    return Spoilt("next to nothing", chance.choice(({}, [], {"inputs": []}, "", 0, {"inputs": None}, None)), must_refuse=False)


# Batches


def together(rows: Sequence[Json]) -> Json:
    """One request of all these rows, where their protocol has such a thing: Open Inference Protocol with a row in each; None else."""
    if len(rows) < 2 or not all(isinstance(one, dict) and isinstance(one.get("inputs"), list) for one in rows):
        return None
    columns = list(zip(*(one["inputs"] for one in rows), strict=False))
    if not all(is_tensor(one) and (one.get("shape") or [0])[0] == 1 for column in columns for one in column):
        return None
    made = [
        {**column[0], "shape": [len(rows), *column[0]["shape"][1:]], "data": [x for one in column for x in flat(one["data"])]} for column in columns
    ]
    return {**{key: value for key, value in rows[0].items() if key != "id"}, "inputs": made}


def unlike(single: Sequence[Json], whole: Json, rtol: float, atol: float) -> list[str]:
    """What a batch's outputs have otherwise than those of its rows, in words."""
    wrong = []
    for name, output in outputs(whole).items():
        parts = [outputs(one).get(name) for one in single]
        if is_tensor(output) and all(is_tensor(one) for one in parts):
            rows = [x for one in parts for x in flat(one["data"])]  # type: ignore[index]  # is_tensor: a mapping with data
            wrong += [f"'{name}' {gap.what}" for gap in gaps({"x": rows}, {"x": list(flat(output["data"]))}, rtol, atol)]
    return wrong


Make = Callable[[Json, random.Random, int], Spoilt | None]
