"""The configuration, read and judged as a whole: services, targets, watches, who is told and what may be done."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agent.config.file import File
from agent.config.keys import keys_at, schema
from agent.config.links import Links, mapping
from agent.config.make import Maker
from agent.config.plan_links import Plans
from agent.config.plans import plans
from agent.config.problems import Path as Place
from agent.config.problems import near, phrase
from agent.config.source import Source
from agent.config.source import read as read_source
from agent.config.values import (
    Asking,
    Budget,
    Channel,
    Config,
    Confirm,
    Freeze,
    Heartbeat,
    Notify,
    Objective,
    Retention,
    Said,
    ServiceConfig,
    WatchConfig,
)
from agent.config.words import Known
from agent.errors import ConfigError, PluginError
from agent.plugins import listing

__all__ = [
    "Asking",
    "Budget",
    "Channel",
    "Config",
    "Confirm",
    "Freeze",
    "Heartbeat",
    "Notify",
    "Objective",
    "Retention",
    "Said",
    "ServiceConfig",
    "WatchConfig",
    "complain",
    "load",
    "made",
    "schema",
]


def load(path: Path) -> Config:
    """The configuration at `path`, a file or a folder whose files are merged. ConfigError holds every problem, in the order of the text."""
    return made(read_source(Path(path)))


def made(source: Source) -> Config:
    """The configuration a source holds; ConfigError as for `load`."""
    try:
        known = _known(source)
    except PluginError as problem:
        raise ConfigError(f"{source.path}: {problem}") from problem
    shaped = _shaped(source, known)
    Links(source, known).check()
    Plans(source, known).check()
    _guarded(source)
    source.raise_problems()
    assert shaped is not None
    return Maker(source, known).config(shaped)


def _known(source: Source) -> Known:
    channels = mapping(mapping(source.value, "notify"), "channels")
    return Known(listing("check"), listing("runbook"), plans(source), listing("adapter"), frozenset(channels))


def _shaped(source: Source, known: Known) -> File | None:
    try:
        return File.model_validate(source.value, context=known)
    except ValidationError as problem:
        for error in problem.errors(include_url=False)[:2000]:
            complain(source, error)
        return None


def complain(source: Source, error: Mapping[str, Any], keys: Callable[[Place], Collection[str]] = keys_at) -> None:
    """Note what pydantic says of a value at its place; `keys` are those that may stand at a path."""
    path = tuple(step for step in error["loc"] if not (isinstance(step, str) and step.startswith("<")))
    if error["type"] == "extra_forbidden":
        word = str(error["loc"][-1])  # which may itself begin with "<"
        path = path if path[-1:] == (word,) else (*path, word)
        source.complain(path, f"unknown key{near(word, keys(path[:-1]))}", at_key=True)
    elif error["type"] == "missing":
        source.complain(path, f"needs `{path[-1]}`")
    elif path[-1:] == ("[key]",):
        source.complain(path[:-1], phrase(error, error["input"]), at_key=True)
    else:
        source.complain(path, phrase(error, error["input"]))


def _guarded(source: Source) -> None:
    """Who can reach the port can do harm: beyond this machine a token is needed."""
    listen = source.value.get("listen")
    if not isinstance(listen, str) or source.value.get("token"):
        return
    host = listen.rpartition(":")[0].strip("[]")
    if not host:
        return
    try:
        here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost"
    if not here:
        source.complain(
            ("listen",), "can be reached from other machines, which takes a token; add `token: ${WATCHKEEPER_TOKEN}` or listen on 127.0.0.1"
        )
