"""Commands that change the world, or keep it from being changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from agent.door import BY, Call, command, main, moment, plain
from agent.plugins import Plugin


@main.group()
def runbook() -> None:
    """List, plan, start, approve and call off runbooks."""


@command("watchkeeper runbook list", "list", runbook)
def runbook_list(call: Call) -> None:
    """The runbooks there are, and what each of them cures."""
    from agent import listing, show

    call.say(listing.listed(("runbook",), call.config_if_any()), show.plugins)


@command("watchkeeper runbook run rollback fraud --dry-run", "run", runbook)
@click.argument("name")
@click.argument("service")
@click.option("--dry-run", is_flag=True, help="Print the plan and do nothing.")
@click.option("--param", "params", multiple=True, metavar="KEY=VALUE", help="A parameter of the runbook; may be given again.")
@click.option("--fix", default="", metavar="WHY", help="It mends something, and may bring in what is new though an error budget is used up.")
@BY
def runbook_run(call: Call, name: str, service: str, dry_run: bool, params: Sequence[str], fix: str, by: str) -> None:
    """Plan a runbook and carry it out; asking for it is its approval."""
    from agent import reach, show
    from agent.hands import doing

    config = call.config()
    reach.service_named(config, service)
    given = _parameters(config.runbook(name), params)
    with doing(config) as them:
        if dry_run:
            call.say(them.plan(name, service, given, by), show.plan)
            return
        _follow(call, them, them.start(name, service, given, by, fix=fix))


def _parameters(book: Plugin, given: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE: text where the runbook takes text, so that a version called 1 stays one; else JSON, such as 0.5, true or {"epochs": 5}."""
    kinds = {known.name: known.annotation for known in book.parameters}
    made: dict[str, Any] = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint="--param")
        made[key] = value if "str" in map(str.strip, kinds.get(key, "str").split("|")) else _json_or_text(value)
    return made


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _follow(call: Call, them: Any, number: int) -> None:
    """Tell each step as it happens, then how the run ended."""
    from agent import show
    from agent.commands import _steps

    call.also(f"run {number}")
    try:
        with _steps.shown(call) as step:
            ended = them.follow(number, step)
    except KeyboardInterrupt:
        call.also(f"run {number} is not over: a daemon carries it on; 'watchkeeper runbook show {number}' tells how far it came")
        raise
    call.say(ended, show.run)
    raise SystemExit({"succeeded": 0, **dict.fromkeys(("refused", "expired", "cancelled", "superseded"), 3)}.get(ended["state"], 1))


@command("watchkeeper runbook new reload --yaml", "new", runbook)
@click.argument("name")
@click.option("--yaml", "kind", flag_value="yaml", default="yaml", help="A plan in a file of the configuration.  [default]")
@click.option("--python", "kind", flag_value="python", help="A module, with a small package around it where --out is none.")
@click.option("--out", type=click.Path(path_type=Path), help="The file to write, or with --python the folder.")
def runbook_new(call: Call, name: str, kind: str, out: Path | None) -> None:
    """Write a commented runbook to start from, valid as it stands; what is there is left alone."""
    from agent import scaffold

    config = call.config_if_any()
    if config is not None and (there := config.runbooks().get(name)):
        raise click.UsageError(f"there is a runbook '{name}' already, in {there.path}; give yours another name")
    if kind == "python":
        out = out or Path(f"{name}-runbooks")
        made = scaffold.package(name, out)
        then = f"pip install -e {out}" if len(made) > 1 else f"watchkeeper plugins {name}"
    else:
        out = out or (call.path if call.path.is_dir() else call.path.parent) / f"{name}.yaml"
        made = scaffold.plan(name, out, f"-c {out.parent} ")
        then = f"watchkeeper -c {out.parent} runbook run {name} SERVICE --dry-run (every *.yaml of that folder is one configuration)"
    call.say({"written": [str(path) for path in made]}, f"wrote {', '.join(map(str, made))}; then: {then}")


@command("watchkeeper runbook approve 12 --by ada", "approve", runbook)
@click.argument("run", type=int)
@click.option("--digest", default="", help="Approve only the plan whose digest begins so.")
@BY
def runbook_approve(call: Call, run: int, digest: str, by: str) -> None:
    """Say yes to a run's plan as it stands, and follow it to its end.

    The plan is printed; --digest makes sure that it is the one you have read.
    """
    from agent import show
    from agent.hands import doing

    with doing(call.config()) as them:
        plan = them.planned(run, digest)
        call.also(show.plan(plan).rstrip())
        them.approve(run, by)
        _follow(call, them, run)


@command("watchkeeper runbook cancel 12 --by ada", "cancel", runbook)
@click.argument("run", type=int)
@BY
def runbook_cancel(call: Call, run: int, by: str) -> None:
    """Call off a run that has changed nothing that is in use; a training it has under way ends."""
    from agent.hands import doing

    with doing(call.config()) as them:
        call.say(them.cancel(run, by), f"run {run} is cancelled")


@command("watchkeeper runbook show 12", "show", runbook)
@click.argument("run", type=int)
def runbook_show(call: Call, run: int) -> None:
    """A run in full: each step's times, tries, what stood before and after it and why; who approved it, and on which findings it rests."""
    from agent import reach, runs
    from agent.commands import _told

    with reach.reading(call.config()) as ledger:
        call.say(plain(runs.account(ledger, reach.run_numbered(ledger, run))), _told.run)


@command("watchkeeper drill rollback fraud --live --by ada")
@click.argument("name", metavar="RUNBOOK")
@click.argument("service")
@click.option("--live", is_flag=True, help="The service's users may be part of it, this once.")
@click.option("--dry-run", is_flag=True, help="Print the plan and do nothing.")
@click.option("--param", "params", multiple=True, metavar="KEY=VALUE", help="A parameter of the runbook; may be given again.")
@BY
def drill(call: Call, name: str, service: str, live: bool, dry_run: bool, params: Sequence[str], by: str) -> None:
    """Carry a runbook out and take it back at once, to know that it works and how long each step takes.

    This is real: users are served by the other version meanwhile, so it takes --live, or `drills: {live: true}` in the service's configuration,
    which also says how much of the traffic may move and what ends it. A drill that succeeds allows mode auto for 90 days.
    """
    from agent import reach, show
    from agent.hands import doing

    config = call.config()
    reach.service_named(config, service)
    given = _parameters(config.runbook(name), params)
    with doing(config) as them:
        if dry_run:
            call.say(them.plan(name, service, given, by, drill=True), show.plan)
            return
        _follow(call, them, them.start(name, service, given, by, drill=True, live=live))


@command("watchkeeper drills fraud")
@click.argument("service", required=False)
def drills(call: Call, service: str | None) -> None:
    """When each runbook was last drilled on each service, how long its steps took, and when it is due again.

    Exit code 1 when a runbook in mode auto was never drilled, or not within 90 days: it asks a person until it is.
    """
    from agent import drills, reach, show

    config = call.config()
    names = [reach.service_named(config, service)] if service else list(config.services)
    with reach.reading(config) as ledger:
        found = drills.told(config, ledger, names, moment())
    call.say(found, show.drills)
    raise SystemExit(1 if any(one["mode"] == "auto" and one["state"] != "drilled" for one in found) else 0)


@command("watchkeeper good fraud 41 --by ada")
@click.argument("service")
@click.argument("version")
@BY
def good(call: Call, service: str, version: str, by: str) -> None:
    """Give your word that a version is good, so that it can be rolled back to."""
    from agent import reach
    from agent.hands import doing

    config = call.config()
    reach.service_named(config, service)
    with doing(config) as them:
        them.good(service, version, by)
    call.say({"service": service, "version": version, "by": by}, f"version {version} of {service} is good ({by})")


@command("watchkeeper halt --why 'the numbers look odd'")
@click.option("--why", default="no reason given", help="Why, for the record.")
@BY
def halt(call: Call, why: str, by: str) -> None:
    """Stop every automatic action within a second, until `resume`; looking and telling go on.

    When neither the daemon nor the store can be reached, the file STORE.halt is written, which halts as long as it is there.
    """
    from agent import hands

    config = call.config()
    how = hands.halt(config, by, why)
    call.say({"halted": True, "by": by, "why": why, "how": how}, f"automatic action is halted ({how})")


@command("watchkeeper resume --by ada")
@BY
def resume(call: Call, by: str) -> None:
    """Let automatic action go on."""
    from agent.hands import doing

    with doing(call.config()) as them:
        them.resume(by)
    call.say({"halted": False, "by": by}, "automatic action goes on")
