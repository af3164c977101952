"""Performs one look: finds the check, connects its roles, fills the platform's words, calls it, and makes sure that a Verdict came back."""

from __future__ import annotations

import functools
import json
import linecache
import tempfile
import traceback
import types
import typing
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any

from agent import model
from agent.alone import alone
from agent.errors import PluginError, WatchkeeperError
from agent.model import BEGINNING, Load, Locator, Verdict, Window
from agent.plugins import PLATFORM, Need, Plugin, find
from agent.rebuild import locator_from_json, plain, rebuild, verdict_from_json, verdict_to_json

MEMORY_LIMIT = 1_000_000  # bytes as JSON
Tell = Callable[[float, str], None]
Connect = Callable[[Locator], AbstractContextManager[Any]]


def perform(job: Mapping[str, Any], tell: Tell | None = None, connect: Connect | None = None) -> Verdict:
    """The Verdict of one check, made in this thread; its memory is JSON, ready to be kept.

    `job`: check, locators {role: Locator or its JSON}, at {role: the one loaded version to ask}, until {role: when its rows end, of which none later
    is to be seen}, parameters, memory, window [start, end], now, and where the check asks for them party, history, baseline, service ... as JSON or
    as the values themselves. The lock of a `load` is held meanwhile: BusyError when another load test has it. `connect` lends an adapter for a
    Locator (default: a fresh one, closed afterwards). A WatchkeeperError the check raises is passed on; anything else it raises, or a return that
    is no Verdict, is an `error` Verdict naming the plugin and its line.
    """
    known = _known(job["check"])
    with ExitStack() as open_until_end:
        words = [word for need in known.plugin.needs for word in known.word(need, job, tell or _quiet, connect or fresh, open_until_end)]
        parameters = {name: known.coerce(name, value) for name, value in (job.get("parameters") or {}).items()}
        try:
            verdict = known.function(**dict(words), **parameters)
        except WatchkeeperError:
            raise
        except (Exception, SystemExit) as problem:  # noqa: BLE001 - a plugin's fault must end as a finding, never as the daemon's
            return model.error(_blame(known.plugin, problem))
    return _sound(known.plugin, verdict)


def _sound(plugin: Plugin, verdict: object) -> Verdict:
    """The Verdict as it will be kept: plain numbers, memory as JSON, whichever thread or process it was made in."""
    if not isinstance(verdict, Verdict):
        return model.error(
            f"{_owned(plugin)} returned {type(verdict).__name__}, not a Verdict; end it with ok(...), fail(...), nodata(...) and so on"
        )
    try:
        value = verdict_to_json(verdict)
        text = json.dumps(value, default=plain)
        if len(text) > MEMORY_LIMIT and (size := len(json.dumps(value["memory"], default=plain))) > MEMORY_LIMIT:
            raise ValueError(f"its memory is {size:,} bytes as JSON and may be {MEMORY_LIMIT:,}")
        return verdict_from_json(json.loads(text))
    except (TypeError, ValueError, AttributeError, KeyError) as problem:
        return model.error(f"{_owned(plugin)} returned a Verdict that cannot be kept: {problem}")


def _quiet(done: float, what: str) -> None:
    return None


def _owned(plugin: Plugin) -> str:
    return f"check '{plugin.name}' of {plugin.owner}"


def _blame(plugin: Plugin, problem: BaseException) -> str:
    frames = traceback.extract_tb(problem.__traceback__)
    own = [frame for frame in frames if frame.filename == plugin.path] or frames
    linecache.checkcache(own[-1].filename)
    where = f"{Path(own[-1].filename).name}:{own[-1].lineno}: {own[-1].line}"
    return f"{_owned(plugin)} raised {type(problem).__name__}: {str(problem)[:500]} at {where}"


# A check, its functions and its annotations, read once


@dataclass(frozen=True)
class _Known:
    plugin: Plugin
    function: Callable[..., Any]

    def coerce(self, name: str, value: Any) -> Any:
        try:
            return rebuild(_hint(self.function, name), value)
        except (TypeError, ValueError, KeyError, AttributeError) as problem:
            asked = self.function.__annotations__.get(name)
            raise PluginError(
                f"{_owned(self.plugin)}: {name} should be {asked}, and cannot be made from {str(value)[:200]!r}: {problem}"
            ) from problem

    def leave(self, given: Any, until: ExitStack) -> Load:
        """What a load test may do, with the lock held until the end of the look; there is no load without leave."""
        if given is None:
            raise PluginError(f"{_owned(self.plugin)} makes load, which nothing here allows; add `load:` to the service")
        load: Load = rebuild(Load, given)
        if load.lock:
            until.enter_context(alone(load.lock))
        return load

    def word(self, need: Need, job: Mapping[str, Any], tell: Tell, connect: Connect, until: ExitStack) -> Iterator[tuple[str, Any]]:
        """The argument for one need, where there is one; an optional need without one is left to its default."""
        if need.name == "tell":
            yield "tell", tell
        elif need.name == "scratch":
            yield "scratch", Path(until.enter_context(tempfile.TemporaryDirectory(prefix="watchkeeper-")))
        elif need.name == "window" and job.get("window") is not None:
            yield "window", _window(job["window"])
        elif need.name == "load":
            yield "load", self.leave(job.get("load"), until)
        elif need.name in PLATFORM:
            if job.get(need.name) is not None or not need.optional:
                yield need.name, self.coerce(need.name, job.get(need.name))
        elif need.name in (job.get("locators") or {}):
            adapter = until.enter_context(connect(locator_from_json(job["locators"][need.name])))
            version, end = ((job.get(word) or {}).get(need.name) for word in ("at", "until"))
            adapter = adapter if end is None else adapter.between(BEGINNING, rebuild(datetime, end))
            yield need.name, adapter if version is None else adapter.at(version)
        elif not need.optional:
            raise PluginError(f"{_owned(self.plugin)} needs '{need.name}', which is not bound; add it to the targets of the service, or bind it")


@functools.lru_cache(maxsize=4096)
def _hint(function: Callable[..., Any], name: str) -> Any:
    """The type a parameter is annotated with; Any when it has none. One name that cannot be resolved spoils no other."""
    text = function.__annotations__.get(name, Any)
    try:
        holder = types.SimpleNamespace(__annotations__={name: text})
        return typing.get_type_hints(holder, globalns=getattr(function, "__globals__", {}))[name]
    except Exception:  # noqa: BLE001 - an annotation may name what is only imported for type checkers
        return Any


@functools.lru_cache(maxsize=1024)
def _known(name: str) -> _Known:
    plugin = find("check", name)
    return _Known(plugin, plugin.load())


def _window(value: Any) -> Window:
    return value if isinstance(value, Window) else Window(*(rebuild(datetime, instant) for instant in value))


# Lending adapters


@contextmanager
def fresh(at: Locator) -> Iterator[Any]:
    """An adapter for this one look, closed afterwards."""
    from agent.targets import connect

    adapter = connect(at)
    try:
        yield adapter
    finally:
        close(adapter)


def close(adapter: Any) -> None:
    getattr(adapter, "close", lambda: None)()


class Connections:
    """Adapters kept open between looks, at most `size` idle ones, the longest unused closed first. A borrowed one is nobody else's until it is
    given back, so an adapter need not be safe to share between threads; one whose look raised is closed."""

    def __init__(self, size: int = 32) -> None:
        self._size, self._lock = size, Lock()
        self._idle: OrderedDict[_Key, list[_Open]] = OrderedDict()
        self._kept = 0

    @contextmanager
    def __call__(self, at: Locator) -> Iterator[Any]:
        from agent.targets import connect

        adapter = self._take(at)
        adapter = connect(at) if adapter is None else adapter
        try:
            yield adapter
        except BaseException:
            close(adapter)
            raise
        self._give(at, adapter)

    def _take(self, at: Locator) -> Any:
        with self._lock:
            kept = self._idle.get(_key(at), ())
            place = next((n for n, (opened_at, _) in enumerate(kept) if opened_at == at), None)
            return None if place is None else self._out(_key(at), place)

    def _give(self, at: Locator, adapter: Any) -> None:
        key = _key(at)
        with self._lock:
            self._idle.setdefault(key, []).append((at, adapter))
            self._idle.move_to_end(key)
            self._kept += 1
            spare = self._out(next(iter(self._idle)), 0) if self._kept > self._size else None
        if spare is not None:
            close(spare)

    def _out(self, key: _Key, place: int) -> Any:
        self._kept -= 1
        _, adapter = self._idle[key].pop(place)
        if not self._idle[key]:
            del self._idle[key]
        return adapter

    def close(self) -> None:
        """Close every idle adapter."""
        with self._lock:
            kept = [adapter for opened in self._idle.values() for _, adapter in opened]
            self._idle.clear()
            self._kept = 0
        for adapter in kept:
            close(adapter)


_Key = tuple[str, str, str]
_Open = tuple[Locator, Any]


def _key(at: Locator) -> _Key:
    """Cheap to make and to hash; what else a Locator says is compared among those of one key."""
    return at.service, at.role, at.url
