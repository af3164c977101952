"""Commands that change the world, or keep it from being changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from agent.door import BY, Call, command, main, moment, plain


@main.group()
def runbook() -> None:
    """List, plan, start, approve and call off runbooks."""


@command("watchkeeper runbook list", "list", runbook)
def runbook_list(call: Call) -> None:
    """The runbooks there are, and what each of them cures."""
    from agent import listing, show

    call.say(listing.listed(("runbook",)), show.plugins)


@command("watchkeeper runbook run rollback fraud --dry-run", "run", runbook)
@click.argument("name")
@click.argument("service")
@click.option("--dry-run", is_flag=True, help="Print the plan and do nothing.")
@click.option("--param", "params", multiple=True, metavar="KEY=VALUE", help="A parameter of the runbook; may be given again.")
@BY
def runbook_run(call: Call, name: str, service: str, dry_run: bool, params: Sequence[str], by: str) -> None:
    """Plan a runbook and carry it out; asking for it is its approval."""
    from agent import reach, show
    from agent.hands import doing

    config = call.config()
    reach.service_named(config, service)
    given = _parameters(name, params)
    with doing(config) as them:
        if dry_run:
            call.say(them.plan(name, service, given, by), show.plan)
            return
        _follow(call, them, them.start(name, service, given, by))


def _parameters(runbook_name: str, given: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE: text where the runbook takes text, so that a version called 1 stays one; else JSON, such as 0.5 or true."""
    from agent import plugins

    kinds = {known.name: known.annotation for known in plugins.find("runbook", runbook_name).parameters}
    made: dict[str, Any] = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint="--param")
        made[key] = value if "str" in kinds.get(key, "str") else _json_or_text(value)
    return made


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _follow(call: Call, them: Any, number: int) -> None:
    """Tell each step as it happens, then how the run ended."""
    from agent import show

    call.also(f"run {number}")
    try:
        ended = them.follow(number, lambda row: call.also(show.step(row).rstrip()))
    except KeyboardInterrupt:
        call.also(f"run {number} is not over: a daemon carries it on; 'watchkeeper runbook show {number}' tells how far it came")
        raise
    call.say(ended, show.run)
    raise SystemExit({"succeeded": 0, **dict.fromkeys(("refused", "expired", "cancelled", "superseded"), 3)}.get(ended["state"], 1))


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
    """Call off a run that has not begun to change anything."""
    from agent.hands import doing

    with doing(call.config()) as them:
        call.say(them.cancel(run, by), f"run {run} is cancelled")


@command("watchkeeper runbook show 12", "show", runbook)
@click.argument("run", type=int)
def runbook_show(call: Call, run: int) -> None:
    """A run, its plan and how far each step came."""
    from agent import reach, show

    with reach.reading(call.config()) as ledger:
        call.say(plain(reach.run_numbered(ledger, run)), show.run)


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
    given = _parameters(name, params)
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
