"""A model server that speaks the Open Inference Protocol v2 over HTTP: MLServer, Triton, KServe, OpenVINO, Seldon, the example server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from agent import Answer, Json, Locator, Sent, Signature, adapter
from agent.errors import AnswerError
from agent.targets import _shapes
from agent.wire import Wire, probe_id


@adapter(role="server", schemes=("oip",))
class Oip:
    """`oip+http://host:port/MODEL`; a prefix before the model's name stays before `/v2`."""

    can: frozenset[str] = frozenset({"version", "at", "signature", "load"})

    def __init__(self, at: Locator) -> None:
        _shapes.options(at, ())
        prefix, self.model = _shapes.model(at, "v2", "models")
        self._root = f"{prefix}/v2"
        self._wire, self._named = Wire(at), ""
        self._asked: Json = None

    @property
    def _path(self) -> str:
        return f"{self._root}/models/{self.model}" + (f"/versions/{quote(self._named, safe='')}" if self._named else "")

    def ready(self) -> bool:
        """Whether the server calls the model ready. It says no with `ready: false`, 503, or the 400 and 404 of servers that hold no such model."""
        try:
            reply = self._wire.get(f"{self._path}/ready")
        except AnswerError as problem:
            if problem.status in (400, 404, 503):
                return False
            raise
        said = reply.json() if reply.body.strip() else {}
        return bool(said.get("ready", True)) if isinstance(said, Mapping) else True

    def version(self) -> str | None:
        """The version served, always asked anew.

        In this order: the only one that the model's metadata names; the `model_version` with which the last request that said one is
        answered when it is sent again; the only one in the repository's index that says itself that it is ready (MLServer states none).
        None when several are loaded and no answer tells which of them it is.
        """
        stated = self._metadata().get("versions") or ()
        if self._named:
            return self._named
        if isinstance(stated, list) and len(stated) == 1:
            return _shapes.version(stated[0], self._path)
        if self._asked is not None:
            return _shapes.asked_again(self.infer, self._asked)
        return None if stated else self._indexed()

    def signature(self) -> Signature | None:
        """As the metadata states it; None if it names no input."""
        return _shapes.signature(self._metadata(), self._path)

    def infer(self, request: Json) -> Answer:
        """POST to `infer`; a request without an id gets one that says it is ours."""
        reply = self._wire.request(**self._asking(request))
        body = reply.json()
        if not isinstance(body, Mapping) or not isinstance(body.get("outputs"), list):
            raise AnswerError(f"{self._path}/infer: the answer has no list of outputs: {reply.body[:200].decode('utf-8', 'replace')}", reply.status)
        version = _shapes.version(body.get("model_version"), self._path)
        if version is not None:
            self._asked = request
        return Answer(body, version, reply.seconds)

    def request(self, request: Json) -> Sent:
        """As `infer` sends it; a good answer has an output."""
        return replace(self._wire.sent(**self._asking(request)), fields=("outputs.0",))

    def at(self, version: str) -> Oip:
        """The same model through `/versions/{version}`; the server answers 4xx when it has not loaded it."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, _named=version, _asked=None)
        return other

    def close(self) -> None:
        """Closes the connections, those of every `at` too."""
        self._wire.close()

    def _asking(self, request: Json) -> Mapping[str, Any]:
        return _shapes.posting(f"{self._path}/infer", {"id": probe_id(), **request} if isinstance(request, Mapping) else request)

    def _metadata(self) -> Mapping[str, Json]:
        body = self._wire.get(self._path).json()
        if not isinstance(body, Mapping):
            raise AnswerError(f"{self._path}: the metadata is no JSON object")
        return body

    def _indexed(self) -> str | None:
        try:
            listed = self._wire.post(f"{self._root}/repository/index", json={"ready": True}).json()
        except AnswerError as problem:
            if problem.status in (404, 405, 501):  # the repository is an extension of the protocol
                return None
            raise
        rows = [row for row in listed if isinstance(row, Mapping)] if isinstance(listed, list) else []
        named = {_shapes.version(row.get("version"), self._path) for row in rows if row.get("name") == self.model and row.get("state") == "READY"}
        found = [one for one in named if one and self.at(one).ready()]  # MLServer indexes the files that it would load, and not what it has loaded
        return found[0] if len(found) == 1 else None
