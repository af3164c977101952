"""The steps of a plan as they are written: one shape a verb, for the plans of a configuration and, before they act, for those made in Python."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import CoreSchema, core_schema

from agent.config.problems import kind, phrase, shown, spell_path
from agent.config.shape import Shape
from agent.config.words import ChannelName, CheckName, Flag, HeaderName, RunbookName, Shorthand, SomeLength, Whole, text_as
from agent.model import Json, to_json
from agent.targets._statements import MAY, names

REFERRING = ("from", "parameter")  # {from: step.field}, {parameter: name}: the one key of a mapping that stands for a value


def referring(value: Json) -> str:
    """The word by which a value stands for another one; empty when it is itself."""
    found = next(iter(value)) if isinstance(value, Mapping) and len(value) == 1 else ""
    return found if found in REFERRING and isinstance(value[found], str) else ""


class Lending:
    """A value that may also be a reference to an earlier step's output, or to a parameter."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(lambda value, inner: value if referring(value) else inner(value), handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Mapping[str, Json]:
        lent = [{"type": "object", "properties": {word: {"type": "string"}}, "required": [word], "additionalProperties": False} for word in REFERRING]
        return {"anyOf": [handler(schema["schema"]), *lent]}


def _one_of(*kinds: type, says: str) -> BeforeValidator:
    """One sentence where each kind of a union would have one of its own."""

    def check(value: Json) -> Json:
        inner = value if isinstance(value, list) else ()
        if not isinstance(value, kinds) or any(isinstance(one, bool) for one in (value, *inner)) or not all(isinstance(one, int) for one in inner):
            raise ValueError(f"must be {says}, not {kind(value)}")
        return value

    return BeforeValidator(check)


WORD = "text or a whole number (true, null, 0.5 and the like need quotes)"
STATUS = "a status such as 200, or a list of them"
Plain = Annotated[str | int | float, _one_of(str, int, float, says="text or a number (true, null and the like need quotes)"), Lending()]
Text = Annotated[str, Lending()]
Words = Annotated[list[Annotated[str | int, _one_of(str, int, says=WORD), Lending()]], Field(min_length=1)]


# http


VERBS = ("post", "put", "patch", "delete")


def aim(value: Json) -> Json:
    """{post: URL} for {method: POST, url: URL}, {get: URL} for {url: URL}; anything else as it is."""
    words = [word for word in (*VERBS, "get") if isinstance(value, dict) and word in value]
    if len(words) != 1 or "url" in value:
        return value
    rest = {key: item for key, item in value.items() if key != words[0]}
    return {**({} if words[0] == "get" else {"method": words[0].upper()}), "url": value[words[0]], **rest}


def _short(shape: type[Shape], long: Sequence[str], words: Sequence[str]) -> Mapping[str, Json]:
    """The schema of a short form: one of the words instead of the long keys, and beside it what the shape knows."""
    known = [held.alias or name for name, held in shape.model_fields.items() if name not in long]
    return {
        "type": "object",
        "properties": {**dict.fromkeys(words, True), **dict.fromkeys(known, True)},
        "additionalProperties": False,
        "oneOf": [{"required": [word]} for word in words],
        "title": " or ".join(words),
    }


def _aimed(shape: type[Shape], *verbs: str) -> Shorthand:
    def expand(value: Json) -> Json:
        if isinstance(value, dict) and not value.keys() & {*verbs, "url"}:
            raise ValueError(f"needs a URL under {' or '.join(verbs)}")
        return aim(value)

    return Shorthand(expand, _short(shape, ("method", "url"), verbs))


def _web(value: str) -> str:
    if not value.startswith(("http://", "https://", "${")):
        raise ValueError(f"must be a URL that begins with http:// or https://, not {shown(value)}")
    return value


class Request(Shape):
    """Where, and what is said. `path` are further segments of the URL, quoted; the URL and the headers may hold `${...}`, filled in when sent."""

    url: Annotated[str, AfterValidator(_web)]
    path: list[Plain] = Field([])
    query: dict[str, Plain] = Field({})
    headers: dict[HeaderName, str] = Field({})


class Asked(Request):
    """A question whose answer says whether the step is done: `expect` is a status, several, or fields of the JSON and their values."""

    expect: Annotated[int | list[int] | dict[str, Json], _one_of(int, list, dict, says=f"{STATUS}, or fields and their values")] | None = None


class Sending(Request):
    """A request that changes something; `expect` are the statuses that say it was taken, any 2xx where it is left out."""

    method: Literal["POST", "PUT", "PATCH", "DELETE"]
    json_: Json = Field(None, alias="json")
    body: Text | None = None
    expect: Annotated[int | list[int], _one_of(int, list, says=STATUS)] | None = None

    @model_validator(mode="after")
    def _one_body(self) -> Sending:
        if {"json_", "body"} <= self.model_fields_set:
            raise ValueError("has a `json` and a `body`; a request has one of them")
        return self


class HttpStep(Sending):
    """`keep`: name -> dotted field of the JSON that comes back (of `look`'s answer where there is one)."""

    keep: dict[str, str] = Field({})
    look: Annotated[Asked, _aimed(Asked, "get")] | None = None
    undo: Annotated[Sending, _aimed(Sending, *VERBS)] | None = None
    gone: bool = False


# command


class CommandStep(Shape):
    """Lists of words. `look` exits with 0 when it is done and 1 when it certainly is not; `env` may hold `${...}`."""

    argv: Words
    env: dict[str, str] = Field({})
    inherit: list[str] = Field([])
    keep: dict[str, str] = Field({})
    look: Words | None = None
    undo: Words | None = None
    gone: bool = False


def words_as_run(value: Json) -> Json:
    """A list of words, {run: words} or {ensure: words} for {argv: words}."""
    if isinstance(value, list):
        return {"argv": value}
    if isinstance(value, dict) and "argv" not in value and len(words := value.keys() & {"run", "ensure"}) == 1:
        (word,) = words
        return {"argv": value[word], **{key: item for key, item in value.items() if key != word}}
    return value


def _words(value: Json) -> Json:
    if isinstance(value, str):
        raise ValueError("write the command as a list of words, such as [./reload.sh, now]; no shell is asked")
    return words_as_run(value)


_RUN: Mapping[str, Json] = {
    "anyOf": [{"type": "array", "items": {"type": ["string", "integer", "object"]}}, _short(CommandStep, ("argv",), ("run", "ensure"))]
}


# sql


class SqlStep(Shape):
    """One statement on the database of a target, in a transaction of its own; values are written :name and given under `with`.

    `rows`: how many it must change, or else nothing is. `look`: a query whose first value says whether it is done.
    """

    target: str
    do: str
    values: dict[str, Annotated[Json, Lending()]] = Field({}, alias="with")
    rows: Annotated[Whole, Field(ge=0)] | None = None
    keep: dict[str, str] = Field({})
    look: str | None = None
    undo: str | None = None
    gone: bool = False

    @model_validator(mode="after")
    def _sound(self) -> SqlStep:
        for key, text in (("do", self.do), ("look", self.look), ("undo", self.undo)):
            first = (re.match(r"\s*\(*\s*([A-Za-z]*)", text or "SELECT") or [""])[0].strip("( \n\t").upper()
            if first not in (("SELECT", "WITH") if key == "look" else MAY):
                raise ValueError(f"`{key}` cannot begin with {first or 'what it does'}; it is one statement, in a transaction of its own")
            for name in names(text or ""):
                if name not in self.values:
                    raise ValueError(f"`{key}` asks for :{name}, which `with` does not give")
        return self


# What the platform does besides


class Looked(Shape):
    watch: Text
    version: Text | None = None


class HoldStep(Shape):
    check: CheckName
    given: dict[str, Json] = Field({}, alias="with")
    every: Annotated[SomeLength, Lending()] | None = None


class NotifyStep(Shape):
    text: Text
    channel: ChannelName | None = None


class ApproveStep(Shape):
    ask: Text
    by: list[str] | None = None
    two: Flag | None = None


class RunStep(Shape):
    runbook: RunbookName
    parameters: dict[str, Json] = Field({}, alias="with")


Http = Annotated[HttpStep, _aimed(HttpStep, *VERBS)]
Command = Annotated[CommandStep, Shorthand(_words, _RUN)]
Wait = Annotated[SomeLength, Lending()]
Look = Annotated[Looked, text_as("watch")]
Notify = Annotated[NotifyStep, text_as("text")]
Approve = Annotated[ApproveStep, text_as("ask")]
Child = Annotated[RunStep, text_as("runbook")]


@dataclass(frozen=True, slots=True)
class Verb:
    """An action as a plan may name it: the args it knows and the fields of its output, and how long it has where nothing is said."""

    takes: frozenset[str] | None
    gives: frozenset[str] | None
    within: timedelta = timedelta(seconds=10)


def _verb(takes: str, gives: str = "", within: timedelta = timedelta(seconds=30)) -> Verb:
    return Verb(frozenset(takes.split()), frozenset(gives.split()), within)


HTTP = _verb("method url path query headers json body expect keep look undo gone", "status")
COMMAND = _verb("argv env inherit keep look undo gone", "printed")
SQL = _verb("target do with rows keep look undo gone", "rows")
PLATFORM: Mapping[str, Verb] = {  # what has a short form in a step; tests/test_own.py holds that the actions say the same of themselves
    "http.post": HTTP,
    "http.put": HTTP,
    "command.run": COMMAND,
    "command.ensure": COMMAND,
    "sql.run": SQL,
    "clock.wait": _verb("length"),
    "check.ok": _verb("watch version", "reason observed"),
    "check.hold": _verb("check with every", "finding reason", timedelta(hours=1)),
    "notify.send": _verb("text channel", "channels"),
    "person.approve": _verb("ask by two", "by", timedelta(hours=1)),
    "run.child": _verb("runbook parameters", "run said", timedelta(hours=1)),
}


def wrong(shape: type[Shape], args: Mapping[str, Json]) -> str:
    """What is wrong with the args of a step; empty when nothing is. References may still stand in it."""
    try:
        shape.model_validate(to_json(args))
    except ValidationError as problem:
        error = problem.errors(include_url=False)[0]
        at = spell_path(tuple(step for step in error["loc"] if not isinstance(step, str) or step.isidentifier()))
        return f"{at}: {phrase(error, error.get('input'))}" if at else phrase(error, error.get("input"))
    return ""
