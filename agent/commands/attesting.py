"""The command by which people say what evidence cannot."""

from __future__ import annotations

from typing import Any

import click

from agent.door import BY, Call, command, moment


def _until(_: click.Context, __: click.Parameter, value: str | None) -> Any:
    from agent.config.words import until

    try:
        return None if value is None else until(value)
    except ValueError as problem:
        raise click.BadParameter(str(problem)) from problem


@command("watchkeeper attest TEAM-10 fraud --by eve --until 2027-03-01 --note 'on-call may switch it off; fallback is the manual queue'")
@click.argument("item", required=False)
@click.argument("service", required=False)
@click.option(
    "--until", callback=_until, metavar="DATE", help="To the end of which day it holds, such as 2027-03-01: at most 180 days, or 90 to --waive."
)
@click.option("--note", metavar="TEXT", help="What is said, in a sentence that can be held against the facts.")
@click.option("--version", metavar="VERSION", help="The version it is about; without it the one that is served, where that matters.")
@click.option("--waive", metavar="REASON", help="Accept the gap instead: accepted-risk, remediated-elsewhere or not-detected. It earns no points.")
@click.option("--not-applicable", "apart", metavar="REASON", help="Say that it does not apply: no-such-thing or not-supported. Never a blocker.")
@click.option("--withdraw", is_flag=True, help="Take back what was said of it.")
@BY
def attest(call: Call, item: str | None, service: str | None, withdraw: bool, by: str, **said: Any) -> None:
    """Give your word on a question of the audit, sealed with the time at which you give it; without ITEM, list what was said.

    A word alone earns half; beside evidence it is the part that only people can give. Nobody attests a review of their own work. What was said and
    does not count is listed with why, and then the exit code is 1.
    """
    from agent import reach
    from agent.hands import doing

    config = call.config()
    if item is None:
        _listed(call, config)
        return
    if service is None:
        raise click.UsageError("name the service too: watchkeeper attest ITEM SERVICE")
    reach.service_named(config, service)
    meant = None if withdraw else _meant(item.upper(), by, **said)
    with doing(config) as them:
        if meant is None:
            count = them.withdraw(service, item, by)
            call.say({"service": service, "item": item, "withdrawn": count, "by": by}, f"{item} of {service}: {count} withdrawn")
        else:
            made = them.attest(service, meant)
            call.say({"service": service, **made}, f"{item} of {service} is {meant.kind} by {by} until {meant.until_at:%Y-%m-%d}")


def _meant(item: str, by: str, until: Any, note: str | None, version: str | None, waive: str | None, apart: str | None) -> Any:
    from typing import get_args

    from agent.config import Said
    from agent.config.shape import Apart, Waived

    if until is None or not (note or "").strip():
        raise click.UsageError("--until and --note are needed: a word holds for a while, and says something")
    if waive and apart:
        raise click.UsageError("a gap is accepted (--waive), or there is none (--not-applicable); not both")
    for option, given, known in (("--waive", waive, get_args(Waived)), ("--not-applicable", apart, get_args(Apart))):
        if given and given not in known:
            raise click.BadParameter(f"{given!r} is none of: {', '.join(known)}", param_hint=option)
    return Said("waived" if waive else "not applicable" if apart else "attested", item, by, until, str(note), waive or apart or "", version)


def _listed(call: Call, config: Any) -> None:
    from agent import reach
    from agent.audit import attested
    from agent.commands import _told

    with reach.reading(config) as ledger:
        found = [{"service": name, **one} for name, each in config.services.items() for one in attested.told(attested.words(each, ledger, moment()))]
    call.say(found, _told.said)
    raise SystemExit(1 if any(one["void"] for one in found) else 0)
