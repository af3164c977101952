"""Reads the parts that several adapters find in JSON: dotted fields, tensors, versions; the options an adapter was given; and how a move is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from agent import Absent, Answer, Done, Json, Locator, Look, Pending, Signature, Swap, Tensor, Try
from agent.errors import AnswerError, CannotError, ConfigError


def options(at: Locator, known: Sequence[str]) -> Mapping[str, Json]:
    """The locator's options; ConfigError for each one that neither the adapter nor its wire knows."""
    known = (*known, "proxy")
    wrong = [f"{at.service}.{at.role}: no option '{name}'; there is {', '.join(known)}" for name in at.options if name not in known]
    if wrong:
        raise ConfigError(wrong)
    return at.options


def model(at: Locator, *below: str) -> tuple[str, str]:
    """What stands before a model's name in the URL's path, without `below`, which some people write out, and the name; ConfigError without one."""
    *prefix, name = urlsplit(at.address).path.strip("/").split("/")
    if not name:
        raise ConfigError(f"{at.service}.{at.role}: {at.url} names no model; write {at.scheme}+http://host:port/MODEL")
    return "/".join(["", *(prefix[: -len(below)] if tuple(prefix[-len(below) :]) == below else prefix)]), name


def pick(body: Json, field: str, where: str) -> Json:
    """What stands at a dotted field ("model.version", "models.0.name"); AnswerError says how far the answer followed it."""
    seen: list[str] = []
    for name in field.split(".") if field else ():
        if isinstance(body, Mapping) and name in body:
            body = body[name]
        elif isinstance(body, list) and name.isdecimal() and int(name) < len(body):
            body = body[int(name)]
        else:
            raise AnswerError(f"{where}: the answer has no '{name}' in {'.'.join(seen) or 'its top level'}; mend `field: {field}`")
        seen.append(name)
    return body


def version(value: Json, where: str) -> str | None:
    """A version as text; None for null and ""; AnswerError for what cannot be one."""
    if value is None or value == "":
        return None
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    raise AnswerError(f"{where}: the version is {value!r:.80}, which is neither text nor a whole number")


def asked_again(infer: Callable[[Json], Answer], request: Json) -> str | None:
    """The version that answers a request it answered before; None if whatever is served now refuses it (4xx), and so tells nothing."""
    try:
        return infer(request).version
    except AnswerError as problem:
        if problem.status is None or not 400 <= problem.status < 500:
            raise
        return None


def signature(body: Json, where: str) -> Signature | None:
    """The `inputs` and `outputs` of Open Inference Protocol metadata; None when no input is stated."""
    if not isinstance(body, Mapping):
        raise AnswerError(f"{where}: the metadata is no JSON object")
    inputs = _tensors(body.get("inputs"), where)
    return Signature(inputs, _tensors(body.get("outputs"), where)) if inputs else None


def _tensors(stated: Json, where: str) -> tuple[Tensor, ...]:
    try:
        return tuple(Tensor(str(one["name"]), str(one["datatype"]), tuple(int(size) for size in one["shape"])) for one in stated or ())
    except (KeyError, TypeError, ValueError) as problem:
        raise AnswerError(f"{where}: a tensor needs name, datatype and shape, and one is {stated!r:.120}") from problem


def posting(path: str, request: Json) -> Mapping[str, Any]:
    """What a Wire is asked with (`request`, `sent`) to post a request as it was logged: NaN too, which only the server may refuse."""
    content = json.dumps(request, separators=(",", ":")).encode()
    return {"method": "POST", "path": path, "content": content, "headers": {"Content-Type": "application/json"}}


@dataclass(frozen=True, slots=True)
class Reloaded(Swap):
    """A Swap that is done only when those who act on it have read it too."""

    current: Callable[[], str] = str  # why they may not have yet; empty when they have

    def look(self, args: Mapping[str, Json], t: Try) -> Look:
        seen = super(Reloaded, self).look(args, t)
        waits = self.current() if isinstance(seen, Done) else ""
        return Pending(timedelta(milliseconds=20), waits) if waits else seen


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


def moved(where: str, expected: Json, problem: object) -> AnswerError:
    """What a refused compare-and-set is raised as."""
    return AnswerError(f"{where} no longer points at {expected}: somebody else moved it, and it was left there ({problem})", 409)
