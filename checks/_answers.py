"""How far answers and signatures are from the recorded ones: names, datatypes, shapes, tolerances; NaN equals nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from agent import Json, Reading, Signature, Tensor, to_json


@dataclass(frozen=True, slots=True)
class Gap:
    """One output that differs: what about it, and by how much where that is a number (with the tolerance it had)."""

    output: str
    what: str
    difference: float | None = None
    tolerance: float | None = None


def gaps(expected: Json, answer: Json, rtol: float, atol: float) -> Iterator[Gap]:
    """Every output of `expected` that `answer` does not give back within atol + rtol * |expected|. What it gives besides is not judged."""
    given = outputs(answer)
    for name, wanted in outputs(expected).items():
        if name not in given:
            yield Gap(name, "is missing from the answer")
            continue
        gap = _tensor(name, wanted, given[name], rtol, atol) if is_tensor(wanted) else _plain(name, wanted, given[name], rtol, atol)
        if gap is not None:
            yield gap


def outputs(body: Json) -> Mapping[str, Json]:
    """The answer's outputs by name: an Open Inference Protocol list, the keys of an object, or the whole answer as one."""
    if isinstance(body, Mapping):
        listed = body.get("outputs")
        if isinstance(listed, list) and listed and all(isinstance(one, Mapping) and "name" in one for one in listed):
            return {str(one["name"]): one for one in listed}
        return body
    return {"answer": body}


def size(gap: Gap) -> float:
    """What is not a number at all is worse than any difference."""
    return math.inf if gap.difference is None or math.isnan(gap.difference) else gap.difference


def listed(wrong: Mapping[int, list[Gap]]) -> bytes:
    """Evidence: what differs, row by row, the first hundred of them."""
    found = [{"row": place, **to_json(gap)} for place, some in wrong.items() for gap in some]
    return json.dumps(found[:100], indent=1).encode()


def parts(wrong: Mapping[int, list[Gap]]) -> Mapping[str, Reading]:
    """The worst gap of each output, and in how many rows it differs."""
    by_output: dict[str, list[Gap]] = {}
    for gap in (gap for one in wrong.values() for gap in one):
        by_output.setdefault(gap.output, []).append(gap)
    return {name: _part(some) for name, some in by_output.items()}


def _part(some: list[Gap]) -> Reading:
    worst = max(some, key=size)
    return Reading(worst.difference, worst.tolerance, n=len(some), unit="rows")


def finite(body: Json) -> bool:
    """Whether every number the answer gives is one: a null in a list counts as none, since many servers write NaN as null."""
    return all(_finite(one["data"] if is_tensor(one) else one) for one in outputs(body).values() if not _is_text(one))


def _finite(value: Json) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, str):
        return value.strip().lower().lstrip("+-") not in ("nan", "inf", "infinity")
    if isinstance(value, list):
        return all(one is not None and _finite(one) for one in value)
    return all(map(_finite, value.values())) if isinstance(value, Mapping) else True


def is_tensor(output: Json) -> bool:
    return isinstance(output, Mapping) and "data" in output and "datatype" in output


def _is_text(output: Json) -> bool:
    return is_tensor(output) and output["datatype"] == "BYTES"


def _tensor(name: str, wanted: Json, given: Json, rtol: float, atol: float) -> Gap | None:
    if not is_tensor(given):
        return Gap(name, "is no tensor in the answer")
    for key in ("datatype", "shape"):
        if key in wanted and wanted[key] != given.get(key):
            return Gap(name, f"has {key} {given.get(key)}, recorded was {wanted[key]}")
    exact = not str(wanted["datatype"]).upper().startswith(("FP", "BF"))
    left, right = list(flat(wanted["data"])), list(flat(given["data"]))
    if wanted["datatype"] == "BOOL":  # written as true and false, or as 1 and 0
        left, right = [one == 1 for one in left], [one == 1 if one in (0, 1) else one for one in right]
    return _values(name, left, right, *((0.0, 0.0) if exact else (rtol, atol)))


def _plain(name: str, wanted: Json, given: Json, rtol: float, atol: float) -> Gap | None:
    if isinstance(wanted, Mapping):
        if not isinstance(given, Mapping):
            return Gap(name, f"is {_show(given)}, recorded was an object")
        inner = list(gaps(wanted, given, rtol, atol))
        worst = max(inner, key=size, default=None)
        return worst and Gap(f"{name}.{worst.output}", worst.what, worst.difference, worst.tolerance)
    if isinstance(wanted, list):
        return _list(name, wanted, given, rtol, atol)
    return _values(name, [wanted], [given], rtol, atol)


def _list(name: str, wanted: list[Json], given: Json, rtol: float, atol: float) -> Gap | None:
    if not isinstance(given, list) or len(given) != len(wanted):
        return Gap(name, f"is {_show(given)}, recorded was a list of {len(wanted)}")
    if any(isinstance(one, (list, Mapping)) for one in wanted):
        found = [gap for place, (left, right) in enumerate(zip(wanted, given, strict=True)) if (gap := _plain(f"{place}", left, right, rtol, atol))]
        worst = max(found, key=size, default=None)
        return worst and Gap(name, f"at {worst.output} {worst.what}", worst.difference, worst.tolerance)
    return _values(name, wanted, given, rtol, atol)


def _values(name: str, wanted: list[Json], given: list[Json], rtol: float, atol: float) -> Gap | None:
    if len(wanted) != len(given):
        return Gap(name, f"has {len(given)} values, recorded were {len(wanted)}")
    found = [gap for left, right in zip(wanted, given, strict=True) if (gap := _value(name, left, right, rtol, atol))]
    return max(found, key=size, default=None)


def _value(name: str, wanted: Json, given: Json, rtol: float, atol: float) -> Gap | None:
    """Whole numbers are labels and counts: they are compared exactly unless one side is a fraction."""
    said = f"is {_show(given)}, recorded was {_show(wanted)}"
    if not (_number(wanted) and _number(given)):
        return None if type(wanted) is type(given) and wanted == given else Gap(name, said)
    if isinstance(wanted, int) and isinstance(given, int):
        rtol = atol = 0.0
    try:
        difference, tolerance = abs(given - wanted), atol + rtol * abs(wanted)
        near = given == wanted or (math.isfinite(tolerance) and difference <= tolerance)
        return None if near else Gap(name, said, float(difference), float(tolerance))
    except OverflowError:  # a whole number beyond any float
        return Gap(name, said)


def flat(data: Json) -> Iterator[Json]:
    """The protocol allows a tensor's data flat or nested: both are the same values in the same order."""
    for one in data if isinstance(data, list) else (data,):
        yield from flat(one) if isinstance(one, list) else (one,)


def _number(value: Json) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _show(value: Json) -> str:
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "an object" if isinstance(value, Mapping) else f"{value:.6g}" if isinstance(value, float) else f"{value!r:.40}"


def differences(recorded: Json, stated: Signature) -> list[str]:
    """What a stated signature has otherwise than the recorded one, a sentence for each tensor; order does not matter, and -1 fits any size."""
    return [*_tensors("input", recorded.get("inputs", ()), stated.inputs), *_tensors("output", recorded.get("outputs", ()), stated.outputs)]


def well_formed(recorded: Json) -> bool:
    if not isinstance(recorded, Mapping):
        return False
    tensors = [one for kind in ("inputs", "outputs") for one in recorded.get(kind, ())]
    return all(isinstance(one, Mapping) and {"name", "datatype"} <= set(one) and isinstance(one.get("shape"), list) for one in tensors)


def _tensors(kind: str, recorded: Json, stated: tuple[Tensor, ...]) -> list[str]:
    found, wrong = {tensor.name: tensor for tensor in stated}, []
    for tensor in recorded:
        name, served = tensor["name"], found.pop(tensor["name"], None)
        if served is None:
            wrong.append(f"{kind} '{name}' is not there")
        elif served.datatype != tensor["datatype"]:
            wrong.append(f"{kind} '{name}' is {served.datatype}, registered {tensor['datatype']}")
        elif not _fits(served.shape, tuple(tensor["shape"])):
            wrong.append(f"{kind} '{name}' has shape {list(served.shape)}, registered {list(tensor['shape'])}")
    return wrong + [f"{kind} '{name}' was not registered" for name in found]


def _fits(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return len(one) == len(other) and all(a == b or -1 in (a, b) for a, b in zip(one, other, strict=True))
