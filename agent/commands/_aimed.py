"""What a load test is aimed at: a service of the configuration, or a URL that somebody answers for."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from agent.door import Call

if TYPE_CHECKING:
    from agent.config import Config

LONG = timedelta(hours=2)  # that a search takes at most, where nothing else is said


def known(call: Call, name: str) -> dict[str, Any]:
    """A service of the configuration, and what that lets a load test do to it."""
    from agent import reach
    from agent.alone import lock_of
    from agent.errors import ConfigError

    config = call.config()
    service = config.services[reach.service_named(config, name)]
    if service.load is None:
        raise ConfigError(f"{config.path}: {name} has no `load:`, so no load test may run; write `load: {{rate: 100, longest: 10m}}` where it may")
    if "server" not in service.targets:
        raise ConfigError(f"{config.path}: {name} has no server among its targets, so there is nothing to load")
    at = service.targets["server"]
    return {"locators": dict(service.targets), "load": replace(service.load, lock=lock_of(at.url)), "trouble": lambda: trouble(config, name)}


def trouble(config: Config, service: str) -> str:
    """The incident that the service is in, in words, as whoever watches it recorded it; empty when there is none but what load tests found."""
    from agent import incidents, plugins, reach
    from agent.errors import StoreError
    from agent.judge import ALL

    try:
        with reach.reading(config) as ledger:
            opened = [*ledger.open_incidents(service), *ledger.open_incidents(ALL)]
    except StoreError:  # nothing was ever recorded, or it cannot be read now: then nobody can say
        return ""
    loads = [f"{one.name}/{watch.name}" for one, watch in config.watches() if plugins.find("check", watch.check).loads]
    return incidents.trouble(opened, service, loads)


def unknown(url: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A server that stands in no configuration: what is asked for is what it may be asked."""
    from agent.alone import lock_of
    from agent.model import Load, Locator

    method, ca = settings["method"], settings["ca"]
    look = credential(settings["header"])
    at = Locator("load", "server", url, {"method": method} if method else {}, look=look, ca=str(ca) if ca else None)
    return {"locators": {"server": at}, "load": Load(rate=float("inf"), longest=timedelta.max, lock=lock_of(url)), "trouble": str}


def credential(header: str | None) -> Any:
    """The header as a credential, which no log and no page shows; ${NAME} in it is taken from the environment."""
    from agent.model import Auth

    if header is None:
        return None
    name, colon, value = os.path.expandvars(header).partition(":")
    if not colon or not name.strip() or not value.strip():
        raise click.BadParameter("write 'NAME: VALUE'", param_hint="--header")
    if "${" in value:
        raise click.BadParameter("a variable in it is not set", param_hint="--header")
    return Auth("header", {"name": name.strip(), "value": value.strip()})


def rows(table: str | None) -> dict[str, Any]:
    from agent.commands.comparing import table as table_at
    from agent.model import Locator

    return {"live": Locator("load", "live", table_at(table))} if table else {}


def agreed(url: str, settings: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    """There is something to send, and whoever runs the server knows. On localhost too: a tunnel may end there."""
    from agent.credential import shown
    from agent.errors import WatchkeeperError
    from agent.model import spell

    if settings["request"] is None and settings["requests"] is None:
        raise click.UsageError(
            "there is nothing to send: add --data FILE, or --request JSON ({} where nothing is asked); with --from, {inputs} in it is a row's"
        )
    if settings["yes"]:
        return
    highest = parameters.get("ceiling", parameters["rate"])
    said = f"{highest:g} requests a second for {spell(parameters.get('duration', LONG))} will be sent to {shown(url)}"
    if not sys.stdin.isatty():
        raise click.UsageError(f"{said}, which stands in no configuration; add --yes if it may be loaded")
    if not click.confirm(f"{said}. May it be loaded?", err=True):
        raise WatchkeeperError("nothing was sent")
