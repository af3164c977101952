"""Commands about who is told, and what can be proved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agent.door import BY, LENGTH, Call, command, length, main, moment, plain


@main.group()
def silence() -> None:
    """Keep people from being told about some watches for a while; findings and incidents are recorded all the same."""


@command("watchkeeper silence add 'fraud/*' --for 2h --why 'planned load test'", "add", silence)
@click.argument("match")
@click.option("--for", "length", required=True, callback=length, metavar="LENGTH", help=f"How long: {LENGTH}.")
@click.option("--why", required=True, help="Why, for the record.")
@BY
def silence_add(call: Call, match: str, length: Any, why: str, by: str) -> None:
    """Silence watches: MATCH is SERVICE/WATCH, with * as a wildcard."""
    from agent import show
    from agent.hands import doing

    with doing(call.config()) as them:
        call.say(them.silence(match, length, by, why), lambda made: f"silence {made['id']}: {match} until {show.when(made['until_at'])}\n")


@command("watchkeeper silence list", "list", silence)
def silence_list(call: Call) -> None:
    """The silences in force."""
    from agent import reach, show

    with reach.reading(call.config()) as ledger:
        call.say(plain(ledger.silences(moment())), show.silences)


@command("watchkeeper silence expire 3 --by ada", "expire", silence)
@click.argument("number", type=int)
@BY
def silence_expire(call: Call, number: int, by: str) -> None:
    """End a silence now."""
    from agent.hands import doing

    with doing(call.config()) as them:
        them.expire(number, by)
    call.say({"silence": number, "expired_by": by}, f"silence {number} is over")


@main.group()
def notify() -> None:
    """Try the ways people are told."""


@command("watchkeeper notify test slack", "test", notify)
@click.argument("channel", required=False)
def notify_test(call: Call, channel: str | None) -> None:
    """Send a test letter at once, to one channel or to each."""
    from agent import hands

    told = hands.tried_channels(call.config(), channel)
    call.say(told, "\n".join(f"{one['channel']}: {one['said']}" for one in told))
    raise SystemExit(0 if all(one["taken"] for one in told) else 1)


@main.group()
def audit() -> None:
    """What can be proved about a period, and how ready a service is by fifty questions."""


def _wish(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    from agent.audit import GATE

    if value is not None and not GATE.fullmatch(value):
        raise click.BadParameter(f"{value!r} is none of: verdict, blockers, level=R0 to level=R5")
    return value


@command("watchkeeper audit run fraud --out fraud.html", "run", audit)
@click.argument("service", required=False)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Where to write the page. [default: audit-DATE.html]")
@click.option("--last", "length", default="30d", show_default=True, callback=length, metavar="LENGTH", help=f"The period up to now: {LENGTH}.")
@click.option("--gate", callback=_wish, metavar="WHAT", help="End with 1 or 3 unless it is met: verdict (READY), blockers (none open), level=R3.")
@click.option("--collect", is_flag=True, help="Look first at what the questions go by and has not been looked at within its interval.")
def audit_run(call: Call, service: str | None, out: Path | None, length: Any, gate: str | None, collect: bool) -> None:
    """Write what can be proved about the period: one page for people, or JSON.

    The page needs nothing else to be read or printed. What was not seen is said. Exit code 4 when the evidence does not hold. With --gate
    0 when every service meets it, 1 when one does not, 3 when too little is known to tell. --collect looks as `check` does, and so may open
    incidents.
    """
    from agent import audit, reach

    config = call.config()
    names = [reach.service_named(config, service)] if service else list(config.services)
    if collect:
        _collected(call, config, names)
    now = moment()
    with reach.reading(config) as ledger:
        report = audit.collect(config, ledger, names, now - length, now)
    if out is not None or not call.json:
        out = out or Path(f"audit-{now:%Y-%m-%d}.html")
        out.write_text(audit.page(report), encoding="utf-8")
    call.say(report, lambda told: f"{audit.summary(told)}\nwritten to {out}\n")
    code = audit.gate(gate, [one["readiness"] for one in report["services"]]) if gate else 0
    raise SystemExit(code if report["evidence"]["verified"] else 4)


def _collected(call: Call, config: Any, names: list[str]) -> None:
    """Look now, through the daemon where there is one; what cannot look says so in its finding."""
    from agent import audit, reach
    from agent.hands import doing

    with doing(config) as them:
        with reach.reading(config) as ledger:
            due = audit.due(config, ledger, names, moment())
        for key in due:
            them.check(key)


@command("watchkeeper audit explain DEPL-05 fraud", "explain", audit)
@click.argument("item")
@click.argument("service", required=False)
def audit_explain(call: Call, item: str, service: str | None) -> None:
    """One of the fifty questions: what answers it, what counts, what is known of it now, and how to earn it."""
    from agent import audit, reach

    config = call.config()
    names = [reach.service_named(config, service)] if service else list(config.services)
    with reach.reading(config) as ledger:
        call.say(audit.explain(config, ledger, item, names, moment()), audit.explanation)
