"""Runbooks that are written out in a configuration: read as the plugins they are, and made into steps when they are asked for."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from agent.config import steps
from agent.config.file import STEP_KEYS, StepFile
from agent.config.links import items, mapping, simple
from agent.config.problems import Given
from agent.config.source import Source
from agent.config.words import read_length
from agent.model import Json, Ref, Step, spell
from agent.plugins import ROLES, Need, Parameter, Plugin

SHORT = tuple(name for name in StepFile.model_fields if name not in STEP_KEYS)
TYPES = {"text": str, "number": float, "integer": int, "boolean": bool, "duration": timedelta}
FILLED = ("url", *steps.VERBS, "get"), ("headers", "env")  # keys whose text, or whose texts, are kept as written and filled in by the step
SOON = timedelta(minutes=1)  # that a wait has beyond its length


def plans(source: Source) -> dict[str, Plugin]:
    """The runbooks that a source writes out, by name; what is wrong with them is told elsewhere."""
    found = mapping(source.value, "runbooks")
    return {name: _plugin(source, name, book) for name, book in found.items() if isinstance(book, dict)}


def _plugin(source: Source, name: str, book: Mapping[str, Json]) -> Plugin:
    given = {word: typed(value) for word, value in mapping(book, "parameters").items()}
    words = tuple(
        Parameter(word, kind.__name__, None if default is None else spell(default) if isinstance(default, timedelta) else repr(default))
        for word, (kind, default) in given.items()
    )
    roles = {action.partition(".")[0] for one in items(book, "steps") for action in (actions(one) or [""])} & set(ROLES)
    needs = (Need("service", "str", False), *(Need(role, role.capitalize(), False) for role in sorted(roles)))
    file, _, line = source.place(("runbooks", name)).rpartition(":")
    promises = {
        "asks": str(book.get("asks", "")),
        "cures": tuple(map(str, items(book, "cures"))),
        "promotes": str(book.get("promotes")).lower() == "true",
    }
    doc = f"{promises['asks']}\n\nWritten out in {file}: {len(items(book, 'steps'))} steps."
    return Plugin("runbook", name, file, name, file, file, int(line), promises, needs, words, doc, made=_maker(name, book, given))


def typed(value: Json) -> tuple[type, Any]:
    """The type and the default of a parameter as written; None is no default."""
    if isinstance(value, dict):
        kind, default = TYPES.get(str(value.get("type")), str), value.get("default")
    else:
        kind, default = next((made for made in (bool, int, float) if isinstance(value, made)), str), value
    try:
        return kind, read_length(default) if kind is timedelta and default is not None else default
    except ValueError:  # told elsewhere
        return kind, None


def _maker(name: str, book: Mapping[str, Json], given: Mapping[str, tuple[type, Any]]) -> Callable[..., tuple[Step, ...]]:
    """The function that this runbook would be, had it been written in Python."""

    def function(service: str = "", **values: Any) -> tuple[Step, ...]:
        return made(book, {**{word: default for word, (_, default) in given.items()}, **values})

    words = [inspect.Parameter("service", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=str)]
    empty = inspect.Parameter.empty
    words += [
        inspect.Parameter(word, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=empty if default is None else default)
        for word, (kind, default) in given.items()
        if word.isidentifier()
    ]
    function.__name__ = made.__qualname__ = name
    function.__signature__ = inspect.Signature(words)  # type: ignore[attr-defined]  # what `inspect.signature` goes by
    function.__annotations__ = {"service": str, **{word: kind for word, (kind, _) in given.items()}, "return": tuple[Step, ...]}
    return function


# Steps


def actions(step: Json) -> list[str]:
    """The keys of a step that name an action."""
    return [key for key in step if key in SHORT or "." in key] if isinstance(step, dict) else []


def made(book: Mapping[str, Json], values: Mapping[str, Any]) -> tuple[Step, ...]:
    """The steps of a runbook with these parameters; one that names no action, or two, is left out."""
    written = [step for step in items(book, "steps") if len(actions(step)) == 1]
    calls = [actions(step)[0].rpartition(".")[2] for step in written]
    often, seen = Counter(calls), Counter[str]()
    found = []
    for step, call in zip(written, calls, strict=True):
        seen[call] += 1
        found.append(_step(step, call if often[call] == 1 else f"{call}-{seen[call]}", values))
    return tuple(found)


def _step(step: Mapping[str, Json], called: str, values: Mapping[str, Any]) -> Step:
    """The step, its references made and its parameters put in; `called` is its name where it gives itself none."""
    (word,) = actions(step)
    action, args = _spelled(word, step[word])
    args = {key: _put(item, values) for key, item in args.items()}
    within = _length(_put(step.get("within"), values)) or _within(action, args)
    return Step(str(step.get("name") or called), action, args, within, step.get("otherwise", "undo"), str(step.get("why", "")), step.get("unseen"))


def _within(action: str, args: Mapping[str, Json]) -> timedelta:
    if action == "clock.wait":
        return (_length(args.get("length")) or timedelta()) + SOON
    return steps.PLATFORM[action].within if action in steps.PLATFORM else timedelta(seconds=10)


def _length(value: Json) -> timedelta | None:
    try:
        return timedelta(seconds=value) if isinstance(value, (int, float)) and not isinstance(value, bool) else read_length(value)
    except (ValueError, OverflowError):  # told elsewhere
        return None


def _spelled(word: str, raw: Json) -> tuple[str, Mapping[str, Json]]:
    """The action and the args that a step means, whatever short form they are in."""
    match word:
        case "http":
            args = {**_request(raw), **{key: _request(raw[key]) for key in ("look", "undo") if mapping(raw, key)}}
            return "http.put" if args.get("method") in ("PUT", "DELETE") else "http.post", args
        case "command":
            args = steps.words_as_run(_kept(raw))
            return "command.ensure" if isinstance(raw, dict) and "ensure" in raw else "command.run", args if isinstance(args, dict) else {}
        case "sql":
            return "sql.run", _plainly(raw)
        case "wait":
            return "clock.wait", {"length": _simple(raw)}
        case "check":
            return "check.ok", _under(raw, "watch")
        case "hold":
            return "check.hold", _plainly(raw)
        case "notify":
            return "notify.send", _under(raw, "text")
        case "approve":
            return "person.approve", _under(raw, "ask")
        case "run":
            args = _under(raw, "runbook")
            return "run.child", {"parameters" if key == "with" else key: item for key, item in args.items()}
    return word, _plainly(raw)


def _plainly(raw: Json) -> dict[str, Json]:
    return {key: _simple(item) for key, item in raw.items()} if isinstance(raw, dict) else {}


def _under(raw: Json, key: str) -> dict[str, Json]:
    return _plainly(raw) if isinstance(raw, dict) and not steps.referring(raw) else {key: _simple(raw)}


def _request(raw: Json) -> dict[str, Json]:
    expanded = steps.aim(_kept(raw))
    return expanded if isinstance(expanded, dict) else {}


def _kept(raw: Json) -> Json:
    """What an http or a command step says, with the text that it fills in itself as that is written."""
    if not isinstance(raw, dict):
        return _simple(raw)
    one, many = FILLED
    return {
        key: _as_written(item)
        if key in one
        else {name: _as_written(text) for name, text in item.items()}
        if key in many and isinstance(item, dict)
        else _simple(item)
        for key, item in raw.items()
    }


def _as_written(text: Json) -> Json:
    """A dollar that was no reference must not become one."""
    return text.source if isinstance(text, Given) else text.replace("$", "$$") if isinstance(text, str) else text


def _simple(value: Json) -> Json:
    """A value with its references to earlier steps made."""
    if steps.referring(value) == "from" and "." in value["from"]:
        step, _, name = value["from"].partition(".")
        return Ref(step, name)
    if isinstance(value, dict):
        return {key: _simple(item) for key, item in value.items()}
    return [_simple(item) for item in value] if isinstance(value, list) else simple(value)


def _put(value: Json, values: Mapping[str, Any]) -> Json:
    """A value with the parameters in their places; a duration travels as seconds."""
    if steps.referring(value) == "parameter":
        found = values.get(value["parameter"], value)
        return found.total_seconds() if isinstance(found, timedelta) else found
    if isinstance(value, Mapping):
        return {key: _put(item, values) for key, item in value.items()}
    return [_put(item, values) for item in value] if isinstance(value, list) else value
