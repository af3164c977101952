"""Commands about what a watch compares the present with."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from agent.door import BY, LENGTH, Call, command, length, main, moment, plain

if TYPE_CHECKING:
    from agent.config import Config


@main.group()
def baseline() -> None:
    """Pin a stretch of time as a watch's yardstick: "from now on, this is what is usual"."""


@command("watchkeeper baseline pin fraud drift.features --since 7d --why 'the new market is here to stay'", "pin", baseline)
@click.argument("service")
@click.argument("watch")
@click.option("--since", callback=length, metavar="LENGTH", help=f"How long ago the stretch begins: {LENGTH}.")
@click.option("--until", default="0s", callback=length, metavar="LENGTH", help="How long ago it ends; without it, now.")
@click.option("--finding", type=int, metavar="NUMBER", help="Instead of a stretch: what this finding of WATCH judged, and its files.")
@click.option("--why", required=True, help="Why, for the record.")
@BY
def baseline_pin(call: Call, service: str, watch: str, since: Any, until: Any, finding: int | None, why: str, by: str) -> None:
    """Make the live rows of a stretch the yardstick of WATCH, which begins to add up evidence anew.

    Rows of that stretch are not tested any more. The yardstick before it stays in the record. A load test is compared with the run that a finding
    is about: name it with --finding.
    """
    from agent import reach, show
    from agent.hands import doing

    if (since is None) == (finding is None):
        raise click.UsageError("say what to pin: a stretch with --since, or a finding with --finding")
    config, now = call.config(), moment()
    key = _one(reach.watches_named(config, service, watch), watch)
    start, end = (now - since, now - until) if finding is None else _judged(config, key, finding)
    with doing(config) as them:
        made = them.pin(key, start, end, by, why)
    call.say({"watch": key, **made}, lambda one: f"{key}: {show.when(one['start_at'])} to {show.when(one['end_at'])} is the yardstick\n")


@command("watchkeeper baseline list", "list", baseline)
def baseline_list(call: Call) -> None:
    """What is pinned now."""
    from agent import reach, show

    with reach.reading(call.config()) as ledger:
        call.say(plain([{"watch": watch, **plain(one)} for watch, (_, one) in ledger.baselines().items()]), show.baselines)


@command("watchkeeper baseline unpin fraud drift.features --by ada", "unpin", baseline)
@click.argument("service")
@click.argument("watch")
@BY
def baseline_unpin(call: Call, service: str, watch: str, by: str) -> None:
    """Take the pinned yardstick of WATCH away: it compares with its reference again."""
    from agent import reach
    from agent.hands import doing

    config = call.config()
    key = _one(reach.watches_named(config, service, watch), watch)
    with doing(config) as them:
        them.unpin(key, by)
    call.say({"watch": key, "unpinned_by": by}, f"nothing is pinned for {key} any more")


def _judged(config: Config, key: str, number: int) -> tuple[datetime, datetime]:
    """The window of a finding, which must be one of that watch."""
    from agent import reach

    with reach.reading(config) as ledger:
        found = ledger.finding(number)
    if found is None or found.watch != key:
        what = f"there is no finding {number}" if found is None else f"finding {number} is one of {found.watch}"
        raise click.UsageError(f"{what}; 'watchkeeper check {key.replace('/', ' ', 1)} --json' tells the number of a new one")
    return found.start_at, found.end_at


def _one(keys: list[str], asked: str) -> str:
    if len(keys) > 1:
        raise click.UsageError(f"'{asked}' is the check of {len(keys)} watches ({', '.join(keys)}); name one of them")
    return keys[0]
