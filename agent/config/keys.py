"""The JSON schema of watchkeeper.yaml: for editors, and to suggest the key that was meant."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter

from agent.config.file import File
from agent.model import spell


@functools.cache
def schema() -> dict[str, Any]:
    """The JSON schema of watchkeeper.yaml, for editors."""
    made = _for_people(File.model_json_schema(by_alias=True, mode="validation"))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": "watchkeeper.yaml"}


_FROM_ENVIRONMENT = {"type": "string", "pattern": r"^\$\{.*\}$"}
_RENAMED = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum"}


def _for_people(held: Any) -> Any:
    """Defaults as they are written, limits as JSON schema calls them, and `${NAME}` where a number or true may stand."""
    if isinstance(held, list):
        return [_for_people(item) for item in held]
    if not isinstance(held, dict):
        return held
    made = {_RENAMED.get(key, key): _for_people(item) for key, item in held.items()}
    if isinstance(made.get("default"), str) and made["default"].startswith("P"):
        made["default"] = spell(TypeAdapter(timedelta).validate_python(made["default"]))
    if made.get("type") in ("integer", "number", "boolean"):
        outside = {key: made.pop(key) for key in ("default", "title", "description") if key in made}
        return {"anyOf": [made, _FROM_ENVIRONMENT], **outside}
    return made


def keys_at(path: tuple[str | int, ...]) -> set[str]:
    """The keys the schema knows at a path."""
    known = [schema()]
    for step in path:
        known = [below for held in known for below in _below(held, step)] or known
    return {key for held in known for key in _flat(held).get("properties", {})}


def _below(held: Mapping[str, Any], step: str | int) -> list[dict[str, Any]]:
    flat = _flat(held)
    if isinstance(step, int):
        return _choices(flat.get("items", {}))
    more = flat.get("additionalProperties")
    found = flat.get("properties", {}).get(step) or (more if isinstance(more, dict) else {})
    return _choices(found)


def _choices(held: Mapping[str, Any]) -> list[dict[str, Any]]:
    if not held:
        return []
    options = held.get("anyOf")
    return [choice for option in options for choice in _choices(option)] if options else [dict(held)]


def _flat(held: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = held.get("$ref")
    return schema()["$defs"][reference.rsplit("/", 1)[1]] if reference else held
