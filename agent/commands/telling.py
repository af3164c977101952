"""Commands about who is told."""

from __future__ import annotations

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
