"""Judges what a watch gives to its check: the keyword-only part of a plugin as one strict shape, made from its own annotations."""

from __future__ import annotations

import functools
import json
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from inspect import Parameter, signature
from typing import Annotated, Any, NotRequired, Required

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from agent.config.problems import Given, Path, near, phrase
from agent.config.source import plain
from agent.config.words import read_length
from agent.errors import PluginError
from agent.model import Json
from agent.plugins import Plugin


def problems(plugin: Plugin, given: Mapping[str, Json]) -> Iterator[tuple[Path, str]]:
    """(where in `given`, what is wrong); a plugin that cannot be imported is a PluginError."""
    shape = _shape(plugin.load(), plugin.name)
    for error in _errors(shape, given):
        where: Path = error["loc"]
        if error["type"] == "extra_forbidden" and len(where) == 1:
            known = [parameter.name for parameter in plugin.parameters]
            has = near(str(where[0]), known) or ("" if known else "; it has none")
            yield where, f"{plugin.name} has no parameter '{where[0]}'{has}"
        elif error["type"] == "missing" and len(where) == 1:
            yield (), f"{plugin.name} needs with.{where[0]}"
        else:
            yield where, phrase(error, error.get("input"))


def of_type(kind: type, value: Json) -> Iterator[str]:
    """What is wrong with a value as one of that type, durations as text."""
    for error in _attempt(TypeAdapter(_as_written(kind), config=ConfigDict(strict=True)), value):
        yield phrase(error, error.get("input"))


def plainly(plugin: Plugin, given: Mapping[str, Json]) -> dict[str, Json]:
    """The parameters as JSON values: text from the environment becomes a number where one is wanted."""
    wrong = {error["loc"] for error in _attempt(_shape(plugin.load(), plugin.name), given)} if _filled_in(given) else set()
    return {name: _retried(value, wrong, (name,)) for name, value in given.items()}


def default(plugin: Plugin, name: str) -> Any:
    """What a parameter is where nothing else is given; None without such a default. A plugin that cannot be imported is a PluginError."""
    word = signature(plugin.load()).parameters.get(name)
    return None if word is None or word.kind is not Parameter.KEYWORD_ONLY or word.default is Parameter.empty else word.default


def _filled_in(value: Json) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, Given) or any(_filled_in(item) for item in inner)


def _errors(shape: TypeAdapter[Any], given: Mapping[str, Json]) -> list[Any]:
    first = _attempt(shape, given)
    return _attempt(shape, _retried(given, {error["loc"] for error in first}, ())) if first else []


def _attempt(shape: TypeAdapter[Any], given: Json) -> list[Any]:
    try:
        shape.validate_json(json.dumps(given))
    except ValidationError as problem:
        return problem.errors(include_url=False)
    return []


def _retried(value: Json, wrong: set[Path], path: Path) -> Json:
    if isinstance(value, dict):
        return {key: _retried(item, wrong, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_retried(item, wrong, (*path, place)) for place, item in enumerate(value)]
    if isinstance(value, Given):
        return plain(value) if any(place[: len(path)] == path for place in wrong) else str(value)
    return value


@functools.cache
def _shape(function: Callable[..., Any], name: str) -> TypeAdapter[Any]:
    fields: dict[str, Any] = {}
    for word in signature(function).parameters.values():
        if word.kind is Parameter.KEYWORD_ONLY:
            hint = _as_written(_hint(function, word, name))
            fields[word.name] = Required[hint] if word.default is Parameter.empty else NotRequired[hint]
    shape = TypedDict("Parameters", fields)  # type: ignore[misc]
    shape.__pydantic_config__ = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=False)  # type: ignore[attr-defined]
    try:
        return TypeAdapter(shape)
    except Exception as problem:
        raise PluginError(f"'{name}' has a parameter that no configuration can give ({problem})") from problem


def _hint(function: Callable[..., Any], word: Parameter, name: str) -> Any:
    if word.annotation is Parameter.empty:
        return Any
    holder = types.SimpleNamespace(__annotations__={word.name: word.annotation})
    try:
        return typing.get_type_hints(holder, globalns=getattr(function, "__globals__", {}), include_extras=True)[word.name]
    except Exception as problem:
        raise PluginError(f"'{name}' annotates {word.name} with {word.annotation}, which cannot be found ({problem})") from problem


def _as_written(hint: Any) -> Any:
    """The same annotation with durations as text with units, wherever they stand in it."""
    if hint is timedelta:
        return Annotated[timedelta, BeforeValidator(read_length)]
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is None or origin is typing.Literal:
        return hint
    written = tuple(_as_written(part) if origin is not Annotated or place == 0 else part for place, part in enumerate(inner))
    if origin is types.UnionType:
        return functools.reduce(lambda one, other: one | other, written) if written == inner else typing.Union[written]  # noqa: UP007
    return hint if written == inner else hint.copy_with(written) if hasattr(hint, "copy_with") else origin[written]
