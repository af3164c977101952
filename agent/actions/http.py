"""A request to any web server: one that may be repeated, and one that may not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import ClassVar
from urllib.parse import quote, urlsplit, urlunsplit

from agent.actions.own import Outcome, Own, kept
from agent.config.filled import Filling
from agent.config.shape import Shape
from agent.config.steps import HTTP, HttpStep, Verb
from agent.errors import AnswerError, ConfigError, NameLookupError, TrustError, UnconnectedError
from agent.model import Json, Locator
from agent.reply import Reply
from agent.targets._shapes import pick
from agent.wire import Wire, remaining

GONE = (404, 410)


class Http(Own):
    """`{method, url, path, query, headers, json, body, expect, keep, look, undo}`: one request under the time the step has."""

    __slots__ = ()
    verb: ClassVar[Verb] = HTTP
    shape: ClassVar[type[Shape]] = HttpStep

    def act(self, args: Mapping[str, Json], fill: Filling) -> Outcome:
        reply = self._sent(args, str(args["method"]), fill)
        if isinstance(reply, str):
            return Outcome(False, reply, {})
        expect = args.get("expect")
        said = f"{args['method']} {reply.url} answered {reply.status}"
        if reply.status in _statuses(expect) if expect is not None else 200 <= reply.status < 300:
            names = {} if args.get("look") else args.get("keep") or {}
            return Outcome(True, said, {"status": reply.status, **(kept(names, reply.json(), reply.url) if names else {})})
        said += f": {reply.excerpt()!r}" if reply.body else ""
        return Outcome(None, said, {}) if reply.status >= 500 or reply.status < 300 else Outcome(False, said, {})

    def see(self, args: Mapping[str, Json], fill: Filling) -> Outcome:
        look = args["look"]
        reply = self._sent(look, "GET", fill)
        if isinstance(reply, str):
            return Outcome(None, reply, {})
        said, expect = f"{reply.url} answered {reply.status}", look.get("expect")
        if isinstance(expect, Mapping):
            done = _agrees(reply, expect) if reply.status < 300 else False if reply.status in GONE else None
            said += f", and {'has' if done else 'has not'} {json.dumps(expect)}" if reply.status < 300 else ""
        else:
            wanted = reply.status in _statuses(expect) if expect is not None else 200 <= reply.status < 300
            done = True if wanted else False if 200 <= reply.status < 300 or reply.status in GONE else None
        names = (args.get("keep") or {}) if done and not args.get("gone") else {}
        return Outcome(done, said, {"status": reply.status, **(kept(names, reply.json(), reply.url) if names else {})})

    def back(self, args: Mapping[str, Json]) -> Mapping[str, Json]:
        back: Mapping[str, Json] = args["undo"]
        return back

    def _sent(self, args: Mapping[str, Json], method: str, fill: Filling) -> Reply | str:
        """The answer; a sentence where nobody took the request, so that it has certainly had no effect."""
        url, within = _url(fill(str(args["url"])), args.get("path") or ()), timedelta(seconds=remaining() or 0.0)
        wire = Wire(Locator(self.service.name, "step", url, within=within, folder=str(fill.folder)))
        headers = {name: fill(str(text)) for name, text in (args.get("headers") or {}).items()}
        query = [(name, str(value)) for name, value in (args.get("query") or {}).items()]
        body = args.get("body")
        try:
            return wire.request(
                method,
                params=query or None,
                headers=headers,
                json=args.get("json"),
                content=None if body is None else str(body).encode(),
                anyway=True,
            )
        except (UnconnectedError, NameLookupError, TrustError) as problem:
            return str(problem)
        finally:
            wire.close()


class Post(Http):
    """`http.post`: POST or PATCH, never sent twice."""

    __slots__ = ()


class Put(Http):
    """`http.put`: PUT or DELETE, which may be repeated (RFC 9110, section 9.2.2)."""

    __slots__ = ()
    repeatable: ClassVar[bool] = True


def _url(base: str, path: Json) -> str:
    """The URL with further segments, each of them one segment whatever it holds."""
    segments = [str(one) for one in path]
    if wrong := next((one for one in segments if one in ("", ".", "..")), None) if segments else None:
        raise ConfigError(f"'{wrong}' is no segment of a path")
    if not segments:
        return base
    parts = urlsplit(base)
    return urlunsplit(parts._replace(path="/".join([parts.path.rstrip("/"), *(quote(one, safe="") for one in segments)])))


def _statuses(expect: Json) -> list[int]:
    return expect if isinstance(expect, list) else [expect]


def _agrees(reply: Reply, expect: Mapping[str, Json]) -> bool:
    """Whether the answer has each field, with that value; a number and its text are the same."""
    body = reply.json()
    for field, wanted in expect.items():
        try:
            found = pick(body, field, reply.url)
        except AnswerError:
            return False
        scalar = isinstance(found, (str, int, float)) and not isinstance(found, bool)
        if found != wanted and not (scalar and isinstance(wanted, (str, int, float)) and str(found) == str(wanted)):
            return False
    return True
