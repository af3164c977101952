"""Commands that look, and tell what was seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from agent.door import BY, Call, command, length, moment, plain


@command("watchkeeper run --standby")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True)
@click.option(
    "--standby",
    is_flag=False,
    flag_value="10s",
    metavar="[TIME]",
    callback=length,
    help="Wait where another agent leads the store: until it ends, or has not renewed its lead for TIME (10s; at least 3s).",
)
def run(call: Call, log_level: str, standby: Any) -> None:
    """Run the agent until it is stopped.

    SIGTERM and Ctrl-C let what is under way finish; SIGHUP reads the configuration again. Logs go to stderr.
    """
    import logging

    from agent import daemon, logs
    from agent.lead import LEAST

    if standby is not None and standby < LEAST:
        raise click.UsageError("--standby is too short: a lead is renewed every second, and may be renewed late; say 3s or more")
    logs.to_stderr(log_level, call.json)
    raise SystemExit(daemon.run(call.path, standby=standby, say=logging.getLogger("watchkeeper").info))


@command("watchkeeper check fraud serving.ready")
@click.argument("service", required=False)
@click.argument("watch", required=False)
@click.option("--all", "everything", is_flag=True, help="Every watch of every service.")
def check(call: Call, service: str | None, watch: str | None, everything: bool) -> None:
    """Look now, and remember it as any other look.

    WATCH is the name of a watch or of a check; without it, all watches of SERVICE.
    """
    if everything == (service is not None):
        raise click.UsageError("name a service, or say --all")
    from agent import reach, show
    from agent.hands import doing

    config = call.config()
    keys = [w.key for _, w in config.watches()] if service is None else reach.watches_named(config, service, watch)
    with doing(config) as them, show.progress(not call.json) as tell:
        found = [one for n, key in enumerate(keys) if (one := them.check(key, _part(tell, key, n, len(keys)))) is not None]
    call.say(found, show.findings)
    raise SystemExit(worst([one["status"] for one in found]))


def _part(tell: Any, key: str, n: int, of: int) -> Any:
    """What tells how far one of several looks is; None when nobody is told."""
    if tell is None:
        return None
    tell(n / of, key)
    return lambda done, what: tell((n + min(max(done, 0.0), 1.0)) / of, f"{key}: {what}")


def worst(statuses: Sequence[str | None]) -> int:
    """Only ok is good; what could not be seen is not bad, and not good either."""
    if any(status in ("fail", "warn", "bad") for status in statuses):
        return 1
    return 0 if statuses and all(status == "ok" for status in statuses) else 3


@command("watchkeeper status fraud")
@click.argument("service", required=False)
def status(call: Call, service: str | None) -> None:
    """How every service stands: what it serves, what it could go back to, what each watch saw and how long ago."""
    from agent import reach, show
    from agent.standing import standing

    config, now = call.config(), moment()
    names = [reach.service_named(config, service)] if service else list(config.services)
    with reach.reading(config) as ledger:
        daemon, signals = reach.running(config), {signal.watch: signal for signal in ledger.all_signals()}
        told = {
            "at": now,
            "agent": {"url": daemon.url, "pid": daemon.pid} if daemon else None,
            "halted": reach.halted(config, ledger),
            "store": config.store,
            "services": [standing(config, ledger, config.services[name], now, signals) for name in names],
        }
    call.say(plain(told), show.status)
    raise SystemExit(worst([one["state"] for one in told["services"]]))


@command("watchkeeper budget fraud")
@click.argument("service", required=False)
def budget(call: Call, service: str | None) -> None:
    """How much of each error budget is used, and when it is gone at this rate.

    Exit code 1 when one is used up, or used up too fast by the rates of the SRE workbook; 3 when there is none, or one is not seen now.
    """
    from agent import objectives, reach
    from agent.commands import _told

    config, now = call.config(), moment()
    names = [reach.service_named(config, service)] if service else list(config.services)
    with reach.reading(config) as ledger:
        found = {name: objectives.told(ledger, config.services[name], now) for name in names}
    call.say(plain([{"service": name, "objectives": told} for name, told in found.items()]), _told.budgets)
    every = [one for told in found.values() for one in told]
    raise SystemExit(1 if any(one["spent"] or one["burning"] for one in every) else 0 if every and all(one["seen"] for one in every) else 3)


@command("watchkeeper finding 12 --out evidence")
@click.argument("number", type=int)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER", help="Write the files it left as evidence there.")
def finding(call: Call, number: int, out: Path | None) -> None:
    """Tell one finding in full: what was seen, what that rests on, and which files it left."""
    from agent import reach, show

    with reach.reading(call.config()) as ledger:
        found, files = ledger.finding(number), ledger.files(number)
    if found is None:
        raise click.UsageError(f"there is no finding {number}; 'watchkeeper incidents NUMBER' names those of an incident")
    call.say({**plain(found), "written": _written(out, files) if out else []}, show.finding)


def _written(folder: Path, files: Mapping[str, bytes]) -> list[str]:
    from agent.errors import ConfigError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, body in files.items():
            (folder / Path(name).name).write_bytes(body)
    except OSError as problem:
        raise ConfigError(f"--out {folder} cannot be written: {problem.strerror}; name another folder") from problem
    return [str(folder / Path(name).name) for name in files]


@command("watchkeeper ack 7 --by ada")
@click.argument("incident", type=int)
@BY
def ack(call: Call, incident: int, by: str) -> None:
    """Take an incident on: nobody further is told about it."""
    from agent.hands import doing

    with doing(call.config()) as them:
        call.say(them.ack(incident, by), f"incident {incident} is {by}'s")
