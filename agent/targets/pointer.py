"""A router that is one version pointer inside the server, moved by compare-and-set: what the example server has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from agent import Json, Locator, Swap, adapter
from agent.errors import AnswerError
from agent.targets import _shapes
from agent.wire import Wire


@adapter(role="router", schemes=("pointer",))
class Pointer:
    """`pointer+http://host:port`, or with the path of the pointer where it is not /admin/pointer."""

    can: frozenset[str] = frozenset({"switch", "load", "unload"})

    def __init__(self, at: Locator) -> None:
        _shapes.options(at, ())
        self._wire = Wire(at)
        self._path = urlsplit(at.address).path.rstrip("/") or "/admin/pointer"

    def served(self) -> Mapping[str, float]:
        """All traffic goes where the pointer points."""
        return {self._version(): 1.0}

    @property
    def point(self) -> Swap:
        """Moves the pointer to `{"to": version}` if it still is where the plan saw it; the server compares and sets in one."""
        return Swap(self._version, self._move)

    def loaded(self) -> Sequence[str]:
        """The versions that could be pointed at now, without loading anything."""
        return tuple(str(version) for version in self._state().get("loaded") or ())

    def load(self, version: str) -> None:
        """Has the server load a version beside the one it serves."""
        self._wire.post(self._beside("load"), json={"version": version}, acting=True)

    @property
    def unload(self) -> _shapes.Unload:
        """The action that has the server drop the loaded `{"version": version}`."""
        return _shapes.Unload(self.served, self.loaded, self._drop)

    def close(self) -> None:
        """Closes the connections."""
        self._wire.close()

    def _drop(self, version: str) -> None:
        self._wire.post(self._beside("unload"), json={"version": version}, acting=True)

    def _beside(self, verb: str) -> str:
        return f"{self._path.rpartition('/')[0]}/{verb}"

    def _state(self) -> Mapping[str, Json]:
        state = self._wire.get(self._path).json()
        if not isinstance(state, Mapping):
            raise AnswerError(f"{self._path}: the answer is no JSON object")
        return state

    def _version(self) -> str:
        version = _shapes.version(self._state().get("version"), self._path)
        if version is None:
            raise AnswerError(f"{self._path}: the pointer names no version; load one and point at it")
        return version

    def _move(self, to: Json, expected: Json) -> None:
        try:
            self._wire.post(self._path, json={"to": to, "expected": expected}, acting=True)
        except AnswerError as problem:
            if problem.status != 409:
                raise
            raise AnswerError(
                f"{self._path} no longer points at {expected}: somebody else moved it, and it was left there ({problem})", 409
            ) from problem
