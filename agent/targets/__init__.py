"""Adapters, one file for each kind of target; `connect` builds the one that a locator's role and URL scheme name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from agent import plugins
from agent.errors import ConfigError, PluginError
from agent.model import Locator
from agent.plugins import MODELS, TABLES, TRAINERS, Plugin

KINDS = {**dict.fromkeys(TABLES, "table"), **dict.fromkeys(MODELS, "model"), **dict.fromkeys(TRAINERS, "trainer")}  # many roles, one kind of adapter
SUFFIXES = {
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    ".csv": "csv",
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    **dict.fromkeys((".db", ".sqlite", ".sqlite3"), "sqlite"),
    **dict.fromkeys((".duckdb", ".ddb"), "duckdb"),
}
PACKED = (".gz", ".zst")
FILES = {".onnx": "onnx", ".safetensors": "safetensors", **dict.fromkeys((".pt", ".pth", ".bin", ".pt2"), "torch")}  # of models


def at(text: str) -> Locator:
    """A table as people name it: a URL, or the plain path of a file, a folder or a pattern, whose suffix says what it holds.

    Relative paths start where the command does. ConfigError where neither a scheme nor a suffix tells.
    """
    scheme = text.partition(":")[0].partition("+")[0].lower()
    if "://" in text or f"table:{scheme}" in plugins.listing("adapter"):
        return Locator("", "live", text)
    for name in _carriers(text):
        suffixes = (suffix.lower() for suffix in reversed(Path(name).suffixes))
        if (found := SUFFIXES.get(next((suffix for suffix in suffixes if suffix not in PACKED), ""))) is not None:
            return Locator("", "live", f"{found}:{text}")
    raise ConfigError(f"{text}: no scheme and no suffix says what this table is; write a URL such as parquet:{text}, or name {', '.join(SUFFIXES)}")


def _carriers(text: str) -> Iterator[str]:
    """What may carry the suffix: the path, with its `?table=` or without, or the files in the folder."""
    yield text.partition("?")[0]
    if Path(text).is_dir():
        yield from sorted(str(path) for path in Path(text).iterdir())


def connect(at: Locator) -> Any:
    """The adapter for a target, built but not yet spoken to: no request is made here.

    PluginError names the schemes there are when none of them is the URL's; ConfigError when the adapter's options are wrong.
    """
    role = KINDS.get(at.role, at.role)
    found = _adapter(role, at.scheme)
    if found is None:
        known = schemes(role, plugins.listing("adapter"))
        raise PluginError(f"{at.service}.{at.role}: no adapter speaks '{at.scheme}' to a {role} ({at.url}){plugins.suggest(at.scheme, known)}")
    return found(at)


def schemes(role: str, adapters: Iterable[str]) -> list[str]:
    """What the URL of a target in a role may begin with. A model may be had from a file, or from whatever serves it."""
    kinds = (role, "server") if role == "model" else (role,)
    return [name.partition(":")[2] for kind in kinds for name in adapters if name.startswith(f"{kind}:")]


def speaker(role: str, scheme: str, adapters: Mapping[str, Plugin]) -> Callable[[Locator], Any] | None:
    """What makes an adapter of a Locator; None where there is none. A server in the place of a model is asked about rows."""
    if (found := adapters.get(f"{role}:{scheme}")) is not None:
        return found.load()
    if role == "model" and (found := adapters.get(f"server:{scheme}")) is not None:
        from agent.targets._served import Served  # with the wire, which a table or a file does not need

        return functools.partial(Served, server=found.load())
    return None


@functools.lru_cache(maxsize=256)
def _adapter(role: str, scheme: str) -> Callable[[Locator], Any] | None:
    """Found once: ten thousand targets are connected to in the first minute."""
    return speaker(role, scheme, plugins.listing("adapter"))
