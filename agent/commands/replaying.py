"""Commands that look at the past: what this configuration would have done, and whether it does what its tests say."""

from __future__ import annotations

import signal
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from agent.door import INTERRUPTED, PATH, Call, command, moment


def _ago(_: click.Context, parameter: click.Parameter, value: str | None) -> datetime | None:
    """A length of time before now, or a time with its zone."""
    from agent.config.words import moment as read
    from agent.model import UTC, duration

    if value is None:
        return None
    try:
        ago: datetime = moment() - duration(value)
        return ago
    except OverflowError as problem:
        raise click.BadParameter(f"{value} is longer ago than there is a calendar for") from problem
    except ValueError:
        pass
    try:
        at: datetime = read(f"{value}T00:00:00Z" if len(value) == 10 else value).astimezone(UTC)
    except (ValueError, OverflowError) as problem:
        raise click.BadParameter("say how long ago, such as 90d or 12h, or when, such as 2026-08-01 or 2026-08-01T06:00:00Z") from problem
    return at


def _between(since: datetime, until: datetime | None) -> tuple[datetime, datetime]:
    now = moment()
    end = now if until is None else until
    for name, at in (("--since", since), ("--until", end)):
        if at > now:
            raise click.UsageError(f"{name} lies in the future, {at:%Y-%m-%d %H:%M:%S}Z: there is nothing to look at yet")
    if since >= end:
        raise click.UsageError(f"--since {since:%Y-%m-%d %H:%M:%S}Z is not before --until {end:%Y-%m-%d %H:%M:%S}Z; swap them, or go back further")
    return since, end


@command("watchkeeper backtest fraud --since 90d")
@click.argument("service", required=False)
@click.option("--since", required=True, callback=_ago, metavar="WHEN", help="From when on: how long ago, such as 90d, or a date or time.")
@click.option("--until", callback=_ago, metavar="WHEN", help="Until when, said in the same way.  [default: now]")
@click.option("--watch", "names", multiple=True, help="Only this watch (its name, or that of its check); may be said again.")
@click.option("--keep", type=PATH, metavar="FILE", help="Keep the store the past was played into.")
def backtest(call: Call, service: str | None, since: datetime, until: datetime | None, names: tuple[str, ...], keep: Path | None) -> None:
    """What this configuration would have done in the past: incidents, pages, proposed runs, and how near each limit was.

    Your rows are looked at again, window by window, as they stood then. Nothing is sent, no server is asked, no run is begun, and the store is left
    alone: the past is played into one that is thrown away. Checks of what is only there now, such as a server, are left out and named. Exit code 0:
    no incident would have opened; 1: some would; 3: nothing could be judged.
    """
    from agent import backtest as made
    from agent import replayed, show

    span = _between(since, until)
    config = call.config()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: tell what was seen, and leave nothing behind
    with show.progress(not call.json) as tell:
        told = made.backtest(config, _keys(config, service, names), *span, tell, keep)
    call.say(told, replayed.backtest)
    if told["stopped_at"]:
        raise SystemExit(INTERRUPTED)
    raise SystemExit(1 if told["would_have"]["opened"] else 0 if told["judged"] else 3)


def _keys(config: Any, service: str | None, names: tuple[str, ...]) -> list[str]:
    """The watches asked for; an unknown name suggests the nearest."""
    from agent import reach
    from agent.errors import ConfigError
    from agent.plugins import suggest

    if service is not None:
        asked = [key for name in names or (None,) for key in reach.watches_named(config, service, name)]
        return list(dict.fromkeys(asked))
    watches = [w for _, w in config.watches()]
    if not watches:
        raise ConfigError(f"{config.path}: there are no watches, so there is nothing to replay; add some under services.<name>.watches")
    for name in names:
        if not any(name in (w.key, w.name, w.check) for w in watches):
            known = sorted({known for w in watches for known in (w.key, w.name, w.check)})
            raise ConfigError(f"{config.path}: no watch '{name}'{suggest(name, known)}")
    return [w.key for w in watches if not names or {w.key, w.name, w.check} & set(names)]


@command("watchkeeper test tests/fraud.yaml", "test")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path, dir_okay=False))
def try_out(call: Call, files: tuple[Path, ...]) -> None:
    """Test a configuration: which rows lead to which incidents.

    Each FILE names a configuration, gives the rows it is to judge and says what must come of them, as `promtool test rules` does for alerts.
    Nothing is sent, no server is asked, no run is begun. Exit code 0: all is as expected; 1: something is not; 2: a file is wrong.
    """
    from agent import replayed, show
    from agent.cases import read
    from agent.rehearse import rehearse
    from agent.workers import Pool

    cases = _all_read(read, files)
    found: list[Any] = []
    with Pool(max(one.config.workers for one in cases)) as pool, show.progress(not call.json) as tell:
        total = sum(len(one.tests) for one in cases)
        for one in cases:
            for result in rehearse(one, pool):
                found.append(result)
                if tell:
                    tell(len(found) / total, result["name"])
    call.say(found, replayed.tests)
    raise SystemExit(0 if all(result["ok"] for result in found) else 1)


def _all_read(read: Any, files: tuple[Path, ...]) -> list[Any]:
    """Every file, or every problem of all of them."""
    from agent.errors import ConfigError

    made: list[Any] = []
    problems: list[str] = []
    for file in files:
        try:
            made.append(read(file))
        except ConfigError as problem:
            problems += problem.problems
    if problems:
        raise ConfigError(problems)
    return made
