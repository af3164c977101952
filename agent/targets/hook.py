"""A router behind any HTTP interface that reads a version in one request and sets it in another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import quote

from agent import Json, Locator, Swap, adapter
from agent.errors import AnswerError, ConfigError
from agent.targets import _shapes
from agent.wire import Wire


@adapter(role="router", schemes=("hook",))
class Hook:
    """`hook+http://host:port`, with `read: {path, field}` and `write: {method, path, body}`.

    {to} and {expected} in the write's path and body become the new version and the one it replaces. Without {expected} the hook cannot
    compare: the version is read again right before the write, which narrows the gap for somebody else's change and does not close it.
    """

    can: frozenset[str] = frozenset({"switch"})

    def __init__(self, at: Locator) -> None:
        given = _shapes.options(at, ("read", "write"))
        self._read, self._write = self._part(at, given, "read", ("path", "field")), self._part(at, given, "write", ("method", "path", "body"))
        self._compares = "{expected}" in json.dumps(self._write)
        self._wire = Wire(at)

    def served(self) -> Mapping[str, float]:
        """All traffic goes to the version that is read."""
        return {self._version(): 1.0}

    @property
    def point(self) -> Swap:
        """Writes `{"to": version}`, refused when the version read is no longer the one the plan saw."""
        return Swap(self._version, self._set)

    def close(self) -> None:
        """Closes the connections."""
        self._wire.close()

    def _version(self) -> str:
        path = str(self._read.get("path", ""))
        version = _shapes.version(_shapes.pick(self._wire.get(path).json(), str(self._read.get("field", "version")), path), path)
        if version is None:
            raise AnswerError(f"{path}: the field names no version")
        return version

    def _set(self, to: Json, expected: Json) -> None:
        if not self._compares and (found := self._version()) != expected:
            raise _shapes.moved(str(self._read.get("path", "")), expected, f"it points at {found}")
        values = {"{to}": str(to), "{expected}": str(expected)}
        path = _filled(str(self._write.get("path", "")), {key: quote(value, safe="") for key, value in values.items()})
        body = _filled(self._write.get("body"), values)
        try:
            self._wire.request(str(self._write.get("method", "POST")).upper(), path, json=body, acting=True)
        except AnswerError as problem:
            if problem.status not in (409, 412):
                raise
            raise _shapes.moved(path, expected, problem) from problem

    @staticmethod
    def _part(at: Locator, given: Mapping[str, Json], option: str, known: tuple[str, ...]) -> Mapping[str, Json]:
        part = given.get(option)
        if not isinstance(part, Mapping) or not set(part) <= set(known):
            raise ConfigError(f"{at.service}.{at.role}.{option}: write {{{', '.join(known)}}}, not {part!r}")
        if option == "write" and "{to}" not in json.dumps(part):
            raise ConfigError(f"{at.service}.{at.role}.write: neither path nor body says {{to}}, so nothing would tell the hook where to")
        return part


def _filled(template: Json, values: Mapping[str, str]) -> Json:
    if isinstance(template, Mapping):
        return {key: _filled(value, values) for key, value in template.items()}
    if isinstance(template, list):
        return [_filled(value, values) for value in template]
    if isinstance(template, str):
        for name, value in values.items():
            template = template.replace(name, value)
    return template
