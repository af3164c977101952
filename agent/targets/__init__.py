"""Adapters, one file for each kind of target; `connect` builds the one that a locator's role and URL scheme name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from agent import plugins
from agent.errors import PluginError
from agent.model import Locator

TABLES = ("live", "labels", "reference", "offline")  # four roles, one kind of adapter


def connect(at: Locator) -> Any:
    """The adapter for a target, built but not yet spoken to: no request is made here.

    PluginError names the schemes there are when none of them is the URL's; ConfigError when the adapter's options are wrong.
    """
    role = "table" if at.role in TABLES else at.role
    found = _adapter(role, at.scheme)
    if found is None:
        schemes = [name.partition(":")[2] for name in plugins.listing("adapter") if name.startswith(f"{role}:")]
        raise PluginError(f"{at.service}.{at.role}: no adapter speaks '{at.scheme}' to a {role} ({at.url}){plugins.suggest(at.scheme, schemes)}")
    return found(at)


@functools.lru_cache(maxsize=256)
def _adapter(role: str, scheme: str) -> Callable[[Locator], Any] | None:
    """The class that speaks to it, found once: ten thousand targets are connected to in the first minute."""
    found = plugins.listing("adapter").get(f"{role}:{scheme}")
    return None if found is None else found.load()
