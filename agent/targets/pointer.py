"""A router that is one version pointer inside the server, moved by compare-and-set: what the example server has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from agent import Absent, Done, Json, Locator, Look, Swap, Try, adapter
from agent.errors import AnswerError, CannotError
from agent.targets import _shapes
from agent.wire import Wire


@dataclass(frozen=True, slots=True)
class Unload:
    """Drops one loaded version, never one that has traffic. It cannot be taken back: to load a version is another thing, and takes its time."""

    served: Callable[[], Mapping[str, float]]
    loaded: Callable[[], Sequence[str]]
    drop: Callable[[str], None]
    writes: bool = True
    repeatable: bool = True
    takes: frozenset[str] = frozenset({"version"})
    gives: frozenset[str] = frozenset({"loaded"})

    def before(self, args: Mapping[str, Json]) -> Json:
        return {"served": dict(self.served()), "loaded": sorted(self.loaded())}

    def look(self, args: Mapping[str, Json], t: Try) -> Look:
        left = sorted(self.loaded())
        if args["version"] in left:
            return Absent(f"version {args['version']} is still loaded")
        return Done({"loaded": left}, f"version {args['version']} is not loaded any more; {', '.join(left)} still is")

    def do(self, args: Mapping[str, Json], t: Try) -> None:
        if args["version"] in self.served():
            raise CannotError(f"version {args['version']} has traffic, and is not unloaded")
        self.drop(str(args["version"]))

    def undo(self, args: Mapping[str, Json], before: Json, output: Json) -> Mapping[str, Json] | None:
        return None


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
    def unload(self) -> Unload:
        """The action that has the server drop the loaded `{"version": version}`."""
        return Unload(self.served, self.loaded, self._drop)

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
