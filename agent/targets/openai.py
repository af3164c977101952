"""A language model behind an API like OpenAI's: vLLM, SGLang, llama.cpp, TGI, Ollama, transformers serve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agent import Answer, Json, Locator, Sent, Signature, adapter
from agent.errors import AnswerError, CannotError, ConfigError
from agent.targets import _shapes
from agent.wire import Wire

STREAMING = ("stream", "stream_options")


@adapter(role="server", schemes=("openai",))
class OpenAi:
    """`openai+http://host:8000/v1`: chat where a request has `messages`, plain completions where it has a `prompt`.

    `model`: the id to ask for where a request names none, needed where the server lists none or several. A version is a model's id.
    """

    can: frozenset[str] = frozenset({"version", "at", "load"})

    def __init__(self, at: Locator) -> None:
        model = _shapes.options(at, ("model",)).get("model", "")
        if not isinstance(model, str):
            raise ConfigError(f"{at.service}.{at.role}.model: write the id of a model, not {model!r:.80}")
        self._wire, self._whose = Wire(at), f"{at.service}.{at.role}"
        self._model, self._listed, self._named = model, "", ""

    def ready(self) -> bool:
        """Whether the server lists its models and, where `model` or `at` names one, that one. 503 is a no."""
        try:
            listed = self._models()
        except AnswerError as problem:
            if problem.status == 503:
                return False
            raise
        named = self._named or self._model
        return not named or not listed or named in listed

    def version(self) -> str | None:
        """The id of the model asked for, always looked up anew: None where it is not listed, or where several are and `model` names none."""
        if self._named:
            return self._named
        listed = self._models()
        if self._model:
            return self._model if self._model in listed else None
        return listed[0] if len(listed) == 1 else None

    def signature(self) -> Signature | None:
        """None: text in, text out."""
        return None

    def infer(self, request: Json) -> Answer:
        """The whole answer at once, whatever the request says about streaming."""
        asking = self._asking(request)
        try:
            reply = self._wire.request(**asking)
        except AnswerError as problem:
            if problem.status == 404:
                self._listed = ""  # the one served before is gone
            raise
        body = reply.json()
        if not isinstance(body, Mapping) or not isinstance(body.get("choices"), list):
            raise AnswerError(f"{asking['path']}: the answer has no list of choices: {reply.excerpt()}", reply.status)
        return Answer(body, _shapes.version(body.get("model"), asking["path"]), reply.seconds)

    def request(self, request: Json) -> Sent:
        """As `infer` sends it, but that the answer is streamed and ends with its usage, unless the request says `"stream": false`."""
        if not isinstance(request, Mapping) or request.get("stream", True) is not False:
            return self._wire.sent(**self._asking(request, streams=True))
        return replace(self._wire.sent(**self._asking(request)), fields=("choices.0",))

    def at(self, version: str) -> OpenAi:
        """The same server, asking the model of that id; it answers 404 when it has no such model."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, _named=version)
        return other

    def close(self) -> None:
        """Closes the connections, those of every `at` too."""
        self._wire.close()

    def _asking(self, request: Json, streams: bool = False) -> Mapping[str, Any]:
        if not isinstance(request, Mapping) or not {"messages", "prompt"} & set(request):
            raise CannotError(f"{self._whose}: a request has `messages` or a `prompt`, and this one is {request!r:.120}")
        path = "chat/completions" if "messages" in request else "completions"
        named = {"model": self._named} if self._named else {} if "model" in request else {"model": self._model or self._only()}
        how = {"stream": True, "stream_options": request.get("stream_options", {"include_usage": True})} if streams else {}
        return _shapes.posting(path, {name: value for name, value in request.items() if name not in STREAMING} | named | how)

    def _only(self) -> str:
        """The id of the only model there is; looked up once, and again when the server knew it no longer."""
        if not self._listed:
            listed = self._models()
            if len(listed) != 1:
                raise CannotError(f"{self._whose}: {len(listed)} models are listed, and the request names none; give the target `model: ID`")
            self._listed = listed[0]
        return self._listed

    def _models(self) -> list[str]:
        said = self._wire.get("models").json()
        rows = said.get("data") if isinstance(said, Mapping) else None
        if not isinstance(rows, list):
            raise AnswerError("models: the answer has no list under `data`")
        found = [_shapes.version(_shapes.pick(row, "id", "models"), "models") for row in rows]
        return [one for one in found if one]
