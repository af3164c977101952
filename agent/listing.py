"""Plugins as a command tells them: the list from sources alone, one of them with what importing it shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from agent import plugins
from agent.config import Config
from agent.errors import PluginError
from agent.model import Json
from agent.plugins import Kind, Plugin


def listed(kinds: Sequence[str], config: Config | None = None) -> list[dict[str, Json]]:
    """Every plugin of these kinds, and every runbook that the configuration writes out; nothing is imported."""
    return [_told(name, plugin) for name, plugin in _known(kinds, config)]


def _known(kinds: Sequence[str], config: Config | None) -> list[tuple[str, Plugin]]:
    return [pair for kind in kinds for pair in (config.runbooks() if config and kind == "runbook" else plugins.listing(cast(Kind, kind))).items()]


def detailed(kinds: Sequence[str], name: str, config: Config | None = None) -> dict[str, Json]:
    """One of them by its name, imported: PluginError says why that does not work, or suggests the nearest name."""
    known = dict(_known(kinds, config))
    short = [found for found in known if found.partition(":")[2] == name]  # an adapter by its scheme alone
    if name not in known and len(short) != 1:
        raise PluginError(f"no plugin '{name}'{plugins.suggest(name, known)}; 'watchkeeper plugins' lists them")
    found = name if name in known else short[0]
    plugin = known[found]
    made = plugin.load()
    return {**_told(found, plugin), "path": plugin.path, "line": plugin.line, "doc": plugin.doc, "can": sorted(getattr(made, "can", ()))}


def _told(name: str, plugin: Plugin) -> dict[str, Json]:
    needs = [{"name": n.name, "annotation": n.annotation, "optional": n.optional} for n in plugin.needs]
    parameters: list[Any] = [{"name": p.name, "annotation": p.annotation, "default": p.default} for p in plugin.parameters]
    return {
        "kind": plugin.kind,
        "name": name,
        "owner": plugin.owner,
        "asks": str(plugin.promises.get("asks") or (plugin.doc.splitlines() or [""])[0]),
        "promises": {key: value for key, value in plugin.promises.items() if key != "asks"},
        "needs": needs,
        "needs_text": ", ".join(n.name + ("?" if n.optional else "") for n in plugin.needs),
        "parameters": parameters,
        "broken": plugin.broken,
    }
