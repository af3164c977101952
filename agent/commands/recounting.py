"""Commands that tell what happened: incidents, what became of runs, and what of it can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from agent.commands.acting import runbook
from agent.door import LENGTH, Call, Short, ago, command, length, main, moment, plain


@main.group(cls=Short, default="list", alone=True)
def incidents() -> None:
    """Tell what went wrong: a list, one in full, or the draft of its review.

    `watchkeeper incidents` is short for `watchkeeper incidents list`, and `watchkeeper incidents 7` for `watchkeeper incidents show 7`.
    """


@command("watchkeeper incidents list --open", "list", incidents)
@click.argument("number", type=int, required=False)
@click.option("--open", "open_only", is_flag=True, help="Only those that are not over.")
@click.option("--service", help="Only those of one service.")
def incidents_list(call: Call, number: int | None, open_only: bool, service: str | None) -> None:
    """List incidents, newest first; with NUMBER, tell that one."""
    from agent import reach
    from agent.commands import _told

    if number is not None:
        _show(call, number)
        return
    with reach.reading(call.config()) as ledger:
        call.say(plain(ledger.incidents(open_only, service)), _told.incidents)


@command("watchkeeper incidents show 7", "show", incidents)
@click.argument("number", type=int)
def incidents_show(call: Call, number: int) -> None:
    """Tell one incident: what changed before it, when it was seen, who was told, what was done, how it ended; times from its start."""
    _show(call, number)


def _show(call: Call, number: int) -> None:
    from agent import reach
    from agent.account import account
    from agent.commands import _told

    with reach.reading(call.config()) as ledger:
        call.say(plain(account(ledger, number, moment())), _told.incident)


@command("watchkeeper incidents review 7 --out review.md", "review", incidents)
@click.argument("number", type=int)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write it there, with its pictures beside it.")
@click.option("--by", metavar="NAME", help="Mark the incident reviewed by you; it must be resolved.")
def incidents_review(call: Call, number: int, out: Path | None, by: str | None) -> None:
    """Draft the review of an incident from the record, as Markdown: impact, times, timeline, what went well and badly, action items.

    Only facts are filled in; what only people know stays blank. Without --out it is printed, and no picture is made.
    """
    from agent import reach
    from agent.hands import doing
    from agent.review import draft

    config = call.config()
    if by is not None:
        with doing(config) as them:
            them.review(number, by)
    with reach.reading(config) as ledger:
        made = draft(config, ledger, number, moment(), f"{out.stem}-" if out else "")
        state = next((one.state for one in [ledger.incident(number)] if one), None)
    written = _written(out, made.text, made.pictures) if out else []
    told = {"incident": number, "state": state, "draft": made.text, "written": written}
    call.say(told, "\n".join(f"written to {name}" for name in written) if out else made.text.rstrip())


def _written(out: Path, text: str, pictures: Mapping[str, bytes]) -> list[str]:
    from agent.errors import ConfigError

    try:
        out.write_text(text, encoding="utf-8")
        for name, body in pictures.items():
            out.with_name(name).write_bytes(body)
    except OSError as problem:
        raise ConfigError(f"--out {out} cannot be written: {problem.strerror}; name another file") from problem
    return [str(out), *(str(out.with_name(name)) for name in pictures)]


@command("watchkeeper runbook history fraud --since 7d", "history", runbook)
@click.argument("service", required=False)
@click.option("--since", callback=length, metavar="LENGTH", help=f"Only those wanted in the last while: {LENGTH}.")
@click.option("--state", "states", multiple=True, metavar="STATE", help="Only those in this state, such as succeeded; may be given again.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most that many.")
def runbook_history(call: Call, service: str | None, since: Any, states: Sequence[str], limit: int) -> None:
    """The runs there were, newest first: by whom and why, what came of each, how long it took, and how long from decision to effect."""
    from typing import get_args

    from agent import reach, runs
    from agent.commands import _told
    from agent.model import RunState
    from agent.plugins import suggest

    config, known = call.config(), get_args(RunState)
    for state in states:
        if state not in known:
            raise click.BadParameter(f"no state '{state}'{suggest(state, known)}", param_hint="--state")
    if service is not None:
        reach.service_named(config, service)
    with reach.reading(config) as ledger:
        call.say(plain(runs.history(ledger, service, ago(since) if since else None, states, limit)), _told.history)


@command("watchkeeper ladder fraud")
@click.argument("service", required=False)
@click.option("--last", "length", default="365d", show_default=True, callback=length, metavar="LENGTH", help=f"The runs of that long: {LENGTH}.")
def ladder(call: Call, service: str | None, length: Any) -> None:
    """How far each runbook can be trusted: its mode, its last drill, what it would have done and whether that was right, what more it needs.

    A run that would have acted was right when its watch came right only once another version was served, or a person ran the same runbook in that
    incident and it succeeded; wrong when the watch came right with the version unchanged; else it is undecided.
    """
    from agent import reach
    from agent.commands import _told
    from agent.ladder import report

    config = call.config()
    names = [reach.service_named(config, service)] if service else list(config.services)
    with reach.reading(config) as ledger:
        call.say(plain(report(config, ledger, names, ago(length), moment())), _told.ladder)
