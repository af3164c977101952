"""Speaks an OpenAI-compatible API: model `1` answers a list of numbers doubled, model `2` trebled, whole or as a stream of one token a word."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

from tests.servers._loopback import CUT, Loopback
from tests.servers.oip import FACTORS

SPEAKS = ("server:openai",)
REQUEST = {"messages": [{"role": "user", "content": "[1.0, 2.0]"}]}


class Speaker(Loopback):
    """`first` and `gap` are the seconds before the first token and between two; its usage says `counted` tokens for each that came. Of each `every`
    streams the first breaks off before token `cut`. All may be changed meanwhile."""

    def __init__(self, served: str = "1") -> None:
        self.served, self.listed, self.up = served, None, True
        self.first, self.gap, self.counted, self.cut, self.every = 0.0, 0.0, 1, -1, 1
        self._count = itertools.count()
        super().__init__(self._answer)
        self.url, self.options = f"openai+{self.address}/v1", {}

    def _answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if path == "/v1/models":
            listed = (self.served,) if self.listed is None else self.listed
            return (200, {"object": "list", "data": [{"id": one, "object": "model"} for one in listed]}) if self.up else (503, {"error": "loading"})
        if path not in ("/v1/chat/completions", "/v1/completions"):
            return 404, {"error": {"message": f"no {path}"}}
        if body["model"] not in FACTORS:
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        asked = json.loads(body["messages"][-1]["content"] if path.startswith("/v1/chat") else body["prompt"])
        if len(asked) != 2:
            return 400, {"error": {"message": "say two numbers"}}
        said = json.dumps([FACTORS[body["model"]] * x for x in asked])
        if body.get("stream"):
            return 200, self._events(body, said, "delta" if "messages" in body else "text")
        choice = {"message": {"role": "assistant", "content": said}} if "messages" in body else {"text": said}
        return 200, {"model": body["model"], "choices": [{"index": 0, **choice}], "usage": {"completion_tokens": len(said.split())}}

    def _events(self, body: Any, said: str, kind: str) -> Iterator[str]:
        if kind == "delta":
            yield json.dumps({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        cut = -1 if next(self._count) % self.every else self.cut
        for place, word in enumerate(said.split()):
            time.sleep(self.gap if place else self.first)
            if place == cut:
                yield CUT
            yield json.dumps({"model": body["model"], "choices": [{"index": 0, kind: {"content": word} if kind == "delta" else word}]})
        if (body.get("stream_options") or {}).get("include_usage"):
            yield json.dumps({"choices": [], "usage": {"completion_tokens": len(said.split()) * self.counted}})
        yield "[DONE]"
