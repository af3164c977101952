"""Values as JSON and back: what goes over the pipe to a worker and returns, and what a check's annotations ask its memory and parameters to be."""

from __future__ import annotations

import base64
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, cast

from agent import model
from agent.model import Auth, Baseline, Json, Locator, Reading, Status, Verdict, to_json


def rebuild(kind: Any, value: Any) -> Any:
    """A value of an annotated type from its JSON: dataclasses, times, durations (seconds or text), enums, unions, tuples, lists, mappings.

    What is already of that type, or annotated with anything else, is returned as it is. ValueError, TypeError or KeyError when it does not fit.
    """
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _either(parts, value)
    if origin is not None:
        return _container(origin, parts, value)
    if kind is Any or not isinstance(kind, type) or isinstance(value, kind):
        return value
    if kind in _SCALARS:
        return _SCALARS[kind](value)
    if issubclass(kind, Enum):
        return kind(value)
    return _record(kind, value) if is_dataclass(kind) else value


def _either(kinds: Sequence[Any], value: Any) -> Any:
    if value is None and type(None) in kinds:
        return None
    problems = []
    for kind in kinds:
        try:
            if kind is not type(None):
                return rebuild(kind, value)
        except (TypeError, ValueError, KeyError) as problem:
            problems.append(str(problem))
    raise ValueError("; ".join(problems))


def _container(origin: Any, parts: tuple[Any, ...], value: Any) -> Any:
    if not isinstance(origin, type):  # Literal, Annotated: judged when the configuration was read
        return value
    if issubclass(origin, Mapping):
        key, item = parts if len(parts) == 2 else (Any, Any)
        return {rebuild(key, k): rebuild(item, v) for k, v in value.items()}
    if origin is tuple and parts[-1:] != (Ellipsis,):
        return tuple(rebuild(part, item) for part, item in zip(parts, value, strict=True))
    if issubclass(origin, (tuple, set, frozenset)):
        return origin(rebuild(parts[0], item) for item in value)
    return [rebuild(parts[0], item) for item in value] if issubclass(origin, Sequence) else value


def _record(kind: type, value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise TypeError(f"{kind.__name__} is made from named fields, not from {type(value).__name__}")
    if kind is Verdict:
        return verdict_from_json(value)
    known, hints = _declared(kind)
    if unknown := sorted(value.keys() - known.keys()):
        raise ValueError(f"{kind.__name__} has no field {', '.join(map(repr, unknown))}")
    missing = [n for n, f in known.items() if n not in value and f.default is MISSING and f.default_factory is MISSING]
    if missing:
        raise ValueError(f"{kind.__name__} lacks {', '.join(map(repr, missing))}")
    return kind(**{name: rebuild(hints[name], item) for name, item in value.items()})


@cache
def _declared(kind: type) -> tuple[Mapping[str, Field[Any]], Mapping[str, Any]]:
    """The fields of a dataclass by name, and their types: working them out costs more than all the rest."""
    return {field.name: field for field in fields(cast(Any, kind))}, typing.get_type_hints(kind)


def _time(value: Any) -> datetime:
    at = datetime.fromisoformat(value)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _length(value: Any) -> timedelta:
    return model.duration(value) if isinstance(value, str) else timedelta(seconds=value)


def _number(value: Any) -> float:
    if isinstance(value, str):
        raise TypeError("text is not a number")
    return float(value)


_SCALARS: Mapping[type, Callable[[Any], Any]] = {datetime: _time, timedelta: _length, float: _number, bytes: base64.b64decode, Path: Path}


def verdict_to_json(verdict: Verdict) -> Json:
    """A Verdict as JSON values; files in `data` as base64. TypeError or ValueError when something in it is not of its declared type."""
    return {
        "status": Status(verdict.status).value,
        "reason": str(verdict.reason),
        "reading": to_json(verdict.reading),
        "parts": to_json(verdict.parts),
        "data": {str(name): base64.b64encode(body).decode() for name, body in verdict.data.items()},
        "memory": to_json(verdict.memory),
    }


def verdict_from_json(value: Mapping[str, Any]) -> Verdict:
    """The Verdict again; its memory stays JSON until `perform` gives it to a check that says what it is."""
    parts = {name: rebuild(Reading, reading) for name, reading in (value.get("parts") or {}).items()}
    data = {name: base64.b64decode(body) for name, body in (value.get("data") or {}).items()}
    return Verdict(Status(value["status"]), value["reason"], rebuild(Reading | None, value.get("reading")), parts, data, value.get("memory"))


def baseline_to_json(pinned: Baseline | None) -> Json:
    """A Baseline as JSON values; the files of its finding as base64, which is how `rebuild` reads bytes."""
    if pinned is None:
        return None
    return {**to_json(pinned), "data": {name: base64.b64encode(body).decode() for name, body in pinned.data.items()}}


def locator_to_json(at: Locator) -> Json:
    """A Locator as JSON values, its secrets included: for the pipe to a worker, never for a file or a log."""
    return {**to_json(replace(at, look=None, act=None)), "look": _auth_to_json(at.look), "act": _auth_to_json(at.act)}


def _auth_to_json(auth: Auth | None) -> Json:
    return None if auth is None else {"kind": auth.kind, "values": dict(auth.values)}


def locator_from_json(value: Mapping[str, Any] | Locator) -> Locator:
    """The Locator again."""
    return cast(Locator, rebuild(Locator, value))


def plain(value: Any) -> Json:
    """numpy scalars and arrays as plain numbers and lists, for json.dumps(default=plain); TypeError for anything else."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
