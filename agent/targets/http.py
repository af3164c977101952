"""A model behind plain HTTP and JSON, as FastAPI, BentoML or Flask applications are: paths and shapes are options."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from agent import Answer, Json, Locator, Sent, Signature, adapter
from agent.errors import AnswerError, CannotError, ConfigError
from agent.targets import _shapes
from agent.wire import Reply, Wire

OPTIONS = ("ready", "predict", "method", "version", "signature", "at", "wrap")


@adapter(role="server", schemes=("http", "https"))
class Http:
    """`http://host:port/predict`, with these options, all of which may be left out:

    `ready`: path that answers 200 when ready and 503 when not. `predict`: path to post to (default: the URL itself).
    `method`: GET for a server that takes a request as its query, one parameter a key.
    `version`: {path, field} of a page that tells it, or {field} or {header} of each answer.
    `signature`: {path, field} of a page with inputs and outputs. `at`: path of one version, with {version} in it.
    `wrap`: the key under which a request is sent. Paths begin at the root; fields are dotted.
    """

    can: frozenset[str]

    def __init__(self, at: Locator) -> None:
        self._at, self._set = at, _shapes.options(at, OPTIONS)
        self._predict = str(self._set.get("predict", ""))
        self._version, self._signature = self._map("version", ("path", "field", "header")), self._map("signature", ("path", "field"))
        if "{version}" not in str(self._set.get("at", "{version}")):
            raise ConfigError(f"{at.service}.{at.role}.at: {self._set['at']!r} has no {{version}} in it")
        if self._set.get("method", "POST") not in ("GET", "POST"):
            raise ConfigError(f"{at.service}.{at.role}.method: write GET or POST, not {self._set['method']!r}")
        self.can = frozenset({"load", *(name for name in ("version", "signature", "at") if self._set.get(name))})
        self._wire, self._named = Wire(at), ""
        self._asked: Json = None

    def ready(self) -> bool:
        """Whether the `ready` path answers 2xx; 503 says no. CannotError without the option."""
        if not self._set.get("ready"):
            raise CannotError(f"{self._at.service}.{self._at.role}: no path tells whether it is ready; add `ready: /readyz` to the target")
        try:
            self._wire.get(str(self._set["ready"]))
        except AnswerError as problem:
            if problem.status == 503:
                return False
            raise
        return True

    def version(self) -> str | None:
        """The version served, always asked anew: from its page, or by sending the last request again when only answers tell it."""
        if self._named:
            return self._named
        if path := self._version.get("path"):
            return self._told(self._wire.get(path), path)
        return _shapes.asked_again(self.infer, self._asked) if self._asked is not None and self._version else None

    def signature(self) -> Signature | None:
        """From the page the option names, where it holds `inputs` and `outputs` as the Open Inference Protocol writes them; else None."""
        if not self._signature:
            return None
        path = self._signature.get("path", "")
        return _shapes.signature(_shapes.pick(self._wire.get(path).json(), self._signature.get("field", ""), path), path)

    def infer(self, request: Json) -> Answer:
        """Sends the request, wrapped as configured; the answer's body is the JSON that came back."""
        asking = self._asking(request)
        reply = self._wire.request(**asking)
        answer = Answer(reply.json(), None if "path" in self._version else self._told(reply, asking["path"]), reply.seconds)
        self._asked = request
        return answer

    def request(self, request: Json) -> Sent:
        """As `infer` sends it; CannotError for one that no query can hold, with `method: GET`."""
        return self._wire.sent(**self._asking(request))

    def at(self, version: str) -> Http:
        """The same server through the `at` path; CannotError without that option."""
        if not self._set.get("at"):
            raise CannotError(
                f"{self._at.service}.{self._at.role}: no path addresses one version; add `at: '/predict?version={{version}}'` if there is one"
            )
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, _named=version, _asked=None)
        return other

    def close(self) -> None:
        """Closes the connections, those of every `at` too."""
        self._wire.close()

    def _asking(self, request: Json) -> Mapping[str, Any]:
        path = str(self._set["at"]).replace("{version}", quote(self._named, safe="")) if self._named else self._predict
        wrap = self._set.get("wrap")
        wrapped = {str(wrap): request} if wrap else request
        if self._set.get("method") == "GET":
            return {"method": "GET", "path": path, "params": _query(wrapped)}
        return _shapes.posting(path, wrapped)

    def _told(self, reply: Reply, where: str) -> str | None:
        if header := self._version.get("header"):
            return _shapes.version(reply.headers.get(header.lower()), where)
        if not self._version:
            return None
        return _shapes.version(_shapes.pick(reply.json(), self._version.get("field", ""), where), where)

    def _map(self, option: str, known: tuple[str, ...]) -> Mapping[str, str]:
        given = self._set.get(option) or {}
        if not isinstance(given, Mapping) or not set(given) <= set(known):
            raise ConfigError(f"{self._at.service}.{self._at.role}.{option}: write {{{', '.join(known)}}}, not {given!r}")
        return {str(key): str(value) for key, value in given.items()}


def _query(request: Json) -> list[tuple[str, str]]:
    """A request as a query: a list becomes its name again and again, null is left out."""
    if not isinstance(request, Mapping):
        raise CannotError(f"with `method: GET` a request is an object of names and values, not {request!r:.80}; `wrap` gives it a name")
    pairs = [(str(name), one) for name, value in request.items() for one in (value if isinstance(value, list) else [value]) if one is not None]
    for name, value in pairs:
        if isinstance(value, (Mapping, list)):
            raise CannotError(f"with `method: GET` the value of '{name}' is text, a number or a list of them: a query holds no {value!r:.80}")
    return [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in pairs]
