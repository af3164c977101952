"""A model behind TorchServe's inference API, and its management API: what is served by default, and how that is moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from agent import Answer, Json, Locator, Sent, Signature, Swap, adapter
from agent.errors import AnswerError
from agent.targets import _shapes
from agent.wire import Wire


@adapter(role="server", schemes=("torchserve",))
class TorchServe:
    """`torchserve+http://host:8080/MODEL`; `management: http://host:8081` lets it say which version is served and whether its workers are up.

    Answers name no version and no API states inputs and outputs, so without `management` it cannot say what is served, and a signature never.
    """

    can: frozenset[str]

    def __init__(self, at: Locator) -> None:
        managed = _shapes.options(at, ("management",)).get("management")
        self._root, self.model = _shapes.model(at, "predictions")
        self._wire, self._named = Wire(at), ""
        self._managed = Wire(replace(at, url=str(managed))) if managed else None
        self.can = frozenset({"at", "load", *(("version",) if managed else ())})

    def ready(self) -> bool:
        """Whether `/ping` calls the server healthy and, with `management`, a worker of the model is READY. Their 500, 503 and 404 are a no."""
        return self._healthy() and (self._managed is None or self._worked())

    def version(self) -> str | None:
        """The version that unversioned requests get, always asked anew; None without `management`."""
        if self._named or self._managed is None:
            return self._named or None
        return _shapes.version(self._described().get("modelVersion"), f"models/{self.model}")

    def signature(self) -> Signature | None:
        """None: TorchServe states neither inputs nor outputs."""
        return None

    def infer(self, request: Json) -> Answer:
        """Posts the request as JSON; the answer's body is the JSON that the handler made."""
        reply = self._wire.request(**self._asking(request))
        return Answer(reply.json(any_type=True), self._named or None, reply.seconds)  # a handler's list goes out as text/plain

    def request(self, request: Json) -> Sent:
        """As `infer` sends it."""
        return self._wire.sent(**self._asking(request))

    def at(self, version: str) -> TorchServe:
        """The same model through `/predictions/MODEL/{version}`; the server answers 404 when it has not loaded it."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, _named=version)
        return other

    def close(self) -> None:
        """Closes the connections, those of every `at` too."""
        self._wire.close()
        if self._managed is not None:
            self._managed.close()

    def _asking(self, request: Json) -> Mapping[str, Any]:
        return _shapes.posting(f"{self._root}/predictions/{self.model}{self._version}", request)

    @property
    def _version(self) -> str:
        return f"/{quote(self._named, safe='')}" if self._named else ""

    def _healthy(self) -> bool:
        try:
            self._wire.get(f"{self._root}/ping")
        except AnswerError as problem:
            if problem.status in (500, 503):
                return False
            raise
        return True

    def _worked(self) -> bool:
        try:
            workers = self._described().get("workers")
        except AnswerError as problem:
            if problem.status == 404:
                return False
            raise
        return isinstance(workers, list) and any(isinstance(one, Mapping) and one.get("status") == "READY" for one in workers)

    def _described(self) -> Mapping[str, Json]:
        assert self._managed, "asked of the management API only"
        path = f"models/{self.model}{self._version}"
        return _first(self._managed, path)


@adapter(role="router", schemes=("torchserve",))
class DefaultVersion:
    """`torchserve+http://host:8081/MODEL`, the management API: the version that requests get which name none is the model's default.

    Only loaded versions can be made the default. TorchServe compares nothing before it sets: the default is read again right before.
    """

    can: frozenset[str] = frozenset({"switch", "unload"})

    def __init__(self, at: Locator) -> None:
        _shapes.options(at, ())
        prefix, model = _shapes.model(at, "models")
        self._path = f"{prefix}/models/{model}"
        self._wire = Wire(at)

    def served(self) -> Mapping[str, float]:
        """All requests that name no version go to the default."""
        return {self._default(): 1.0}

    @property
    def point(self) -> Swap:
        """Makes `{"to": version}` the default, refused when the default is no longer the one the plan saw."""
        return Swap(self._default, self._set)

    def loaded(self) -> Sequence[str]:
        """The versions that are registered, any of which can be made the default."""
        found = [_shapes.version(one.get("modelVersion"), self._path) for one in _described(self._wire, f"{self._path}/all")]
        return [version for version in found if version]

    @property
    def unload(self) -> _shapes.Unload:
        """Unregisters `{"version": version}`; TorchServe itself keeps its default."""
        return _shapes.Unload(self.served, self.loaded, self._drop)

    def close(self) -> None:
        """Closes the connections."""
        self._wire.close()

    def _default(self) -> str:
        version = _shapes.version(_first(self._wire, self._path).get("modelVersion"), self._path)
        if version is None:
            raise AnswerError(f"{self._path}: the description names no version")
        return version

    def _set(self, to: Json, expected: Json) -> None:
        if (found := self._default()) != expected:
            raise _shapes.moved(self._path, expected, f"it is {found}")
        self._wire.request("PUT", f"{self._path}/{quote(str(to), safe='')}/set-default", acting=True)

    def _drop(self, version: str) -> None:
        self._wire.request("DELETE", f"{self._path}/{quote(version, safe='')}", acting=True)


def _first(wire: Wire, path: str) -> Mapping[str, Json]:
    """The description of a model: of the version that was named, or of the default."""
    return _described(wire, path)[0]


def _described(wire: Wire, path: str) -> Sequence[Mapping[str, Json]]:
    said = wire.get(path).json()
    if not isinstance(said, list) or not said or not all(isinstance(one, Mapping) for one in said):
        raise AnswerError(f"{path}: the description is no list of versions")
    return said
