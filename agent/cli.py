"""The `watchkeeper` command. Nothing heavy is imported before a command is chosen, so that help and completion answer at once."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from agent.errors import WatchkeeperError

EXITS = (
    (0, "good: everything asked about is ok, or the thing was done"),
    (1, "bad: something fails, or a run did not succeed"),
    (2, "usage or configuration: nothing was done"),
    (3, "could not tell: blind, no data, no answer, or refused before anything was done"),
    (4, "integrity or schema: the store or its evidence is damaged, or made by another version"),
)
BROKEN_PIPE, INTERRUPTED = 141, 130  # as a shell tells these ends of any program


@dataclass
class Call:
    """What the options before the command say."""

    path: Path
    debug: bool = False
    json: bool = False

    def config(self) -> Any:
        from agent.config import load

        return load(self.path)

    def say(self, value: Any, text: str | Callable[[Any], str] = "") -> None:
        """The value as JSON with --json, else as text for people."""
        if self.json:
            click.echo(json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False))
        else:
            click.echo(text if isinstance(text, str) else text(value), nl=isinstance(text, str))

    def also(self, text: str) -> None:
        """A line on the way there: on stderr, and only for people."""
        if not self.json:
            click.echo(text, err=True)


def _plain(value: Any) -> Any:
    """JSON knows no NaN and no infinity: they are shown as missing."""
    from agent.model import to_json

    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return to_json(value) if not hasattr(value, "__dataclass_fields__") else _plain(to_json(value))


class Door(click.Group):
    """Every way a command can end, in one place."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            context.exit(INTERRUPTED)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            context.exit(BROKEN_PIPE)
        except Exception as problem:  # noqa: BLE001 - the one place where a command's failure becomes words and an exit code
            context.exit(_failed(context.obj, problem))


def _failed(call: Call, problem: Exception) -> int:
    if call.debug:
        import traceback

        traceback.print_exception(problem)
    ours = isinstance(problem, WatchkeeperError)
    said = str(problem) if ours else f"{type(problem).__name__}: {problem}; this is a defect of Watchkeeper: 'watchkeeper --debug ...' shows where"
    if call.json:
        lines = getattr(problem, "problems", None)
        click.echo(json.dumps({"error": said, **({"problems": list(lines)} if lines else {})}, indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(f"error: {line}" for line in said.splitlines()), err=True)
    return problem.exit_code if isinstance(problem, WatchkeeperError) else WatchkeeperError.exit_code


def _exits() -> str:
    return "\b\nExit codes:\n" + "\n".join(f"  {code}  {what}" for code, what in EXITS)


@click.group(cls=Door, epilog=_exits(), context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default="watchkeeper.yaml",
    envvar="WATCHKEEPER_CONFIG",
    show_default=True,
    help="The configuration: a file, or a folder of files. $WATCHKEEPER_CONFIG says it once for all.",
)
@click.option("--debug", is_flag=True, help="Show where an error came from.")
@click.version_option(package_name="watchkeeper")
@click.pass_context
def main(context: click.Context, path: Path, debug: bool) -> None:
    """Stands watch over machine-learning services: looks, remembers, acts, and can prove what it did."""
    context.obj = Call(path, debug)


def _command(example: str, name: str | None = None, group: click.Group = main) -> Callable[[Callable[..., None]], click.Command]:
    """A command with --json and an example in its help."""

    def mark(function: Callable[..., None]) -> click.Command:
        made = group.command(name, epilog=f"\b\nExample:\n  {example}")(click.pass_obj(function))
        made.short_help = " ".join((function.__doc__ or "").split("\n\n")[0].split())
        made.params.append(click.Option(["--json"], is_flag=True, expose_value=False, callback=_as_json, help="Print JSON."))
        return made

    return mark


def _as_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value and isinstance(context.obj, Call):
        context.obj.json = True


def _login() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError) as problem:
        raise click.UsageError("nobody is logged in here: say who you are with --by or $WATCHKEEPER_BY") from problem


BY = click.option("--by", envvar="WATCHKEEPER_BY", default=_login, show_default="$WATCHKEEPER_BY, else your login name", help="Who does this.")
LENGTH = "30m, 2h, 7d"


def _length(_: click.Context, __: click.Parameter, value: str) -> Any:
    from agent.model import duration

    try:
        return duration(value)
    except ValueError as problem:
        raise click.BadParameter(str(problem)) from problem


def _moment() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)


# Looking


@_command("watchkeeper run -c /etc/watchkeeper")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True)
def run(call: Call, log_level: str) -> None:
    """Run the agent until it is stopped.

    SIGTERM and Ctrl-C let what is under way finish; SIGHUP reads the configuration again. Logs go to stderr.
    """
    import logging

    from agent import daemon

    line = '{"at": "%(asctime)s", "level": "%(levelname)s", "from": "%(name)s", "said": %(message)r}'
    logging.basicConfig(level=log_level.upper(), stream=sys.stderr, format=line if call.json else "%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    for noisy in ("httpx", "httpcore", "apscheduler", "alembic"):
        logging.getLogger(noisy).setLevel("WARNING")
    raise SystemExit(daemon.run(call.path, say=lambda said: logging.getLogger("watchkeeper").info("%s", said)))


@_command("watchkeeper check fraud serving.ready")
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

    config = call.config()
    keys = [w.key for _, w in config.watches()] if service is None else reach.watches_named(config, service, watch)
    with reach.hands(config) as hands, show.progress(not call.json) as tell:
        found = [one for key in keys if (one := hands.check(key, tell)) is not None]
    call.say(found, show.findings)
    raise SystemExit(_worst([one["status"] for one in found]))


def _worst(statuses: Sequence[str | None]) -> int:
    """Only ok is good; what could not be seen is not bad, and not good either."""
    if any(status in ("fail", "warn", "bad") for status in statuses):
        return 1
    return 0 if statuses and all(status == "ok" for status in statuses) else 3


@_command("watchkeeper status fraud")
@click.argument("service", required=False)
def status(call: Call, service: str | None) -> None:
    """How every service stands: what it serves, what it could go back to, what each watch saw and how long ago."""
    from agent import reach, show
    from agent.standing import standing

    config, now = call.config(), _moment()
    names = [reach.service_named(config, service)] if service else list(config.services)
    with reach.reading(config) as ledger:
        daemon = reach.running(config)
        told = {
            "at": now,
            "agent": {"url": daemon.url, "pid": daemon.pid} if daemon else None,
            "halted": reach.halted(config, ledger),
            "store": config.store,
            "services": [standing(config, ledger, config.services[name], now) for name in names],
        }
    call.say(_plain(told), show.status)
    raise SystemExit(_worst([one["state"] for one in told["services"]]))


@_command("watchkeeper incidents 7")
@click.argument("number", type=int, required=False)
@click.option("--open", "open_only", is_flag=True, help="Only those that are not over.")
@click.option("--service", help="Only those of one service.")
def incidents(call: Call, number: int | None, open_only: bool, service: str | None) -> None:
    """List incidents, newest first; with NUMBER, one of them: what changed before it, what was seen and done, in order."""
    from agent import reach, show

    config = call.config()
    with reach.reading(config) as ledger:
        if number is None:
            call.say(_plain(ledger.incidents(open_only, service)), show.incidents)
        else:
            call.say(_plain(reach.incident(ledger, number)), show.incident)


@_command("watchkeeper ack 7 --by ada")
@click.argument("incident", type=int)
@BY
def ack(call: Call, incident: int, by: str) -> None:
    """Take an incident on: nobody further is told about it."""
    from agent import reach

    with reach.hands(call.config()) as hands:
        call.say(hands.ack(incident, by), f"incident {incident} is {by}'s")


# Acting


@main.group()
def runbook() -> None:
    """List, plan, start, approve and call off runbooks."""


@_command("watchkeeper runbook list", "list", runbook)
def runbook_list(call: Call) -> None:
    """The runbooks there are, and what each of them cures."""
    from agent import listing, show

    call.say(listing.listed(("runbook",)), show.plugins)


@_command("watchkeeper runbook run rollback fraud --dry-run", "run", runbook)
@click.argument("name")
@click.argument("service")
@click.option("--dry-run", is_flag=True, help="Print the plan and do nothing.")
@click.option("--param", "params", multiple=True, metavar="KEY=VALUE", help="A parameter of the runbook; may be given again.")
@BY
def runbook_run(call: Call, name: str, service: str, dry_run: bool, params: Sequence[str], by: str) -> None:
    """Plan a runbook and carry it out; asking for it is its approval."""
    from agent import reach, show

    config = call.config()
    reach.service_named(config, service)
    given = _parameters(params)
    with reach.hands(config) as hands:
        if dry_run:
            call.say(hands.plan(name, service, given, by), show.plan)
            return
        _follow(call, hands, hands.start(name, service, given, by))


def _parameters(given: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE; a value that is JSON is taken as that, anything else as text."""
    made: dict[str, Any] = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint="--param")
        made[key] = value if value.isdigit() else _json_or_text(value)
    return made


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _follow(call: Call, hands: Any, number: int, render: Callable[[Any], str] | None = None) -> None:
    """Tell each step as it happens, then how the run ended."""
    from agent import show

    call.also(f"run {number}")
    try:
        ended = hands.follow(number, lambda row: call.also(show.step(row).rstrip()))
    except KeyboardInterrupt:
        call.also(f"run {number} is not over: a daemon carries it on; 'watchkeeper runbook show {number}' tells how far it came")
        raise
    call.say(ended, render or show.run)
    raise SystemExit({"succeeded": 0, **dict.fromkeys(("refused", "expired", "cancelled", "superseded"), 3)}.get(ended["state"], 1))


@_command("watchkeeper runbook approve 12 --by ada", "approve", runbook)
@click.argument("run", type=int)
@BY
def runbook_approve(call: Call, run: int, by: str) -> None:
    """Say yes to a run's plan as it stands, and follow it to its end."""
    from agent import reach

    with reach.hands(call.config()) as hands:
        hands.approve(run, by)
        _follow(call, hands, run)


@_command("watchkeeper runbook cancel 12 --by ada", "cancel", runbook)
@click.argument("run", type=int)
@BY
def runbook_cancel(call: Call, run: int, by: str) -> None:
    """Call off a run that has not begun to change anything."""
    from agent import reach

    with reach.hands(call.config()) as hands:
        call.say(hands.cancel(run, by), f"run {run} is cancelled")


@_command("watchkeeper runbook show 12", "show", runbook)
@click.argument("run", type=int)
def runbook_show(call: Call, run: int) -> None:
    """A run, its plan and how far each step came."""
    from agent import reach, show

    with reach.reading(call.config()) as ledger:
        call.say(_plain(reach.run_numbered(ledger, run)), show.run)


@_command("watchkeeper drill rollback fraud --by ada")
@click.argument("name", metavar="RUNBOOK")
@click.argument("service")
@click.option("--dry-run", is_flag=True, help="Print the plan and do nothing.")
@BY
def drill(call: Call, name: str, service: str, dry_run: bool, by: str) -> None:
    """Carry a runbook out and take it back at once, to know that it works and how long each step takes.

    This is real: users are served by the other version meanwhile. A drill that succeeds allows mode auto for 90 days.
    """
    from agent import reach, show

    config = call.config()
    reach.service_named(config, service)
    with reach.hands(config) as hands:
        if dry_run:
            call.say(hands.plan(name, service, {}, by, drill=True), show.plan)
            return
        _follow(call, hands, hands.start(name, service, {}, by, drill=True))


@_command("watchkeeper good fraud 41 --by ada")
@click.argument("service")
@click.argument("version")
@BY
def good(call: Call, service: str, version: str, by: str) -> None:
    """Give your word that a version is good, so that it can be rolled back to."""
    from agent import reach

    config = call.config()
    reach.service_named(config, service)
    with reach.hands(config) as hands:
        hands.good(service, version, by)
    call.say({"service": service, "version": version, "by": by}, f"version {version} of {service} is good ({by})")


@_command("watchkeeper halt --why 'the numbers look odd'")
@click.option("--why", default="no reason given", help="Why, for the record.")
@BY
def halt(call: Call, why: str, by: str) -> None:
    """Stop every automatic action within a second, until `resume`; looking and telling go on.

    When neither the daemon nor the store can be reached, the file STORE.halt is written, which halts as long as it is there.
    """
    from agent import reach

    config = call.config()
    how = reach.halt(config, by, why)
    call.say({"halted": True, "by": by, "why": why, "how": how}, f"automatic action is halted ({how})")


@_command("watchkeeper resume --by ada")
@BY
def resume(call: Call, by: str) -> None:
    """Let automatic action go on."""
    from agent import reach

    with reach.hands(call.config()) as hands:
        hands.resume(by)
    call.say({"halted": False, "by": by}, "automatic action goes on")


# Telling


@main.group()
def silence() -> None:
    """Keep people from being told about some watches for a while; findings and incidents are recorded all the same."""


@_command("watchkeeper silence add 'fraud/*' --for 2h --why 'planned load test'", "add", silence)
@click.argument("match")
@click.option("--for", "length", required=True, callback=_length, metavar="LENGTH", help=f"How long: {LENGTH}.")
@click.option("--why", required=True, help="Why, for the record.")
@BY
def silence_add(call: Call, match: str, length: Any, why: str, by: str) -> None:
    """Silence watches: MATCH is SERVICE/WATCH, with * as a wildcard."""
    from agent import reach, show

    with reach.hands(call.config()) as hands:
        call.say(hands.silence(match, length, by, why), lambda made: f"silence {made['id']}: {match} until {show.when(made['until_at'])}\n")


@_command("watchkeeper silence list", "list", silence)
def silence_list(call: Call) -> None:
    """The silences in force."""
    from agent import reach, show

    with reach.reading(call.config()) as ledger:
        call.say(_plain(ledger.silences(_moment())), show.silences)


@_command("watchkeeper silence expire 3 --by ada", "expire", silence)
@click.argument("number", type=int)
@BY
def silence_expire(call: Call, number: int, by: str) -> None:
    """End a silence now."""
    from agent import reach

    with reach.hands(call.config()) as hands:
        hands.expire(number, by)
    call.say({"silence": number, "expired_by": by}, f"silence {number} is over")


@main.group()
def notify() -> None:
    """Try the ways people are told."""


@_command("watchkeeper notify test slack", "test", notify)
@click.argument("channel", required=False)
def notify_test(call: Call, channel: str | None) -> None:
    """Send a test letter at once, to one channel or to each."""
    from agent import reach

    told = reach.tried_channels(call.config(), channel)
    call.say(told, "\n".join(f"{one['channel']}: {one['said']}" for one in told))
    raise SystemExit(0 if all(one["taken"] for one in told) else 1)


# Proving


@_command("watchkeeper audit fraud --out fraud.html")
@click.argument("service", required=False)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Where to write the page. [default: audit-DATE.html]")
@click.option("--last", "length", default="30d", show_default=True, callback=_length, metavar="LENGTH", help=f"The period up to now: {LENGTH}.")
def audit(call: Call, service: str | None, out: Path | None, length: Any) -> None:
    """Write what can be proved about the period: one page for people, or JSON.

    The page needs nothing else to be read or printed. What was not seen is said. Exit code 4 when the evidence does not hold.
    """
    from agent import audit, reach

    config, now = call.config(), _moment()
    names = [reach.service_named(config, service)] if service else list(config.services)
    with reach.reading(config) as ledger:
        report = audit.collect(config, ledger, names, now - length, now)
    if out is not None or not call.json:
        out = out or Path(f"audit-{now:%Y-%m-%d}.html")
        out.write_text(audit.page(report), encoding="utf-8")
    call.say(report, lambda told: f"{audit.summary(told)}\nwritten to {out}\n")
    raise SystemExit(0 if report["evidence"]["verified"] else 4)


# Setting up


@_command("watchkeeper plugins drift.compare")
@click.argument("name", required=False)
@click.option("--kind", type=click.Choice(["check", "runbook", "adapter"]), help="Only one kind.")
def plugins(call: Call, name: str | None, kind: str | None) -> None:
    """The checks, runbooks and adapters there are; with NAME, what one of them needs and can be told.

    The list is read from sources, without importing any; a broken plugin says why.
    """
    from agent import listing, show

    kinds = (kind,) if kind else ("check", "runbook", "adapter")
    if name is None:
        call.say(listing.listed(kinds), show.plugins)
    else:
        call.say(listing.detailed(kinds, name), show.plugin)


@_command("watchkeeper validate --live")
@click.argument("path", type=click.Path(path_type=Path), required=False)
@click.option("--live", is_flag=True, help="Also connect to every target, and say what each credential can and cannot do.")
def validate(call: Call, path: Path | None, live: bool) -> None:
    """Every error of the configuration at once, each with its place and a suggestion."""
    from agent import show
    from agent.knock import knock

    call.path = path or call.path
    config = call.config()
    watches = sum(1 for _ in config.watches())
    told = {"path": str(config.path), "services": len(config.services), "watches": watches, "digest": config.digest}
    if not live:
        call.say(told, f"{config.path}: {len(config.services)} services, {watches} watches, no error")
        return
    found = list(knock(config))
    call.say({**told, "targets": found}, lambda told: show.knocked(told["targets"]))
    raise SystemExit(0 if all(one["look"] == "allowed" for one in found) else 1)


@_command("watchkeeper schema > watchkeeper.schema.json")
def schema(call: Call) -> None:
    """The JSON schema of the configuration, for editors."""
    from agent import config

    call.json = True
    call.say(config.schema())


@_command("watchkeeper init")
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path, file_okay=False), default=".")
def init(call: Call, folder: Path) -> None:
    """Write a commented watchkeeper.yaml to start from; a file that is there is left alone."""
    from agent.starter import write

    made = write(folder)
    call.say({"written": str(made)}, f"wrote {made}; change it to your service, then: watchkeeper -c {made} validate --live")


@main.group()
def db() -> None:
    """Look after the store."""


@_command("watchkeeper db backup watchkeeper-monday.db", "backup", db)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def db_backup(call: Call, file: Path) -> None:
    """Copy the store while it is in use; the copy is consistent."""
    from agent import reach

    reach.backup(call.config(), file)
    call.say({"written": str(file), "bytes": file.stat().st_size}, f"wrote {file}")


@_command("watchkeeper db verify", "verify", db)
def db_verify(call: Call) -> None:
    """Whether the file is sound and every finding and event is as it was sealed; exit code 4 when not."""
    from agent import reach

    problems = reach.verified(call.config())
    call.say({"sound": not problems, "problems": problems}, "\n".join(problems) or "the file is sound and its chain of evidence holds")
    raise SystemExit(4 if problems else 0)


@_command("watchkeeper db upgrade", "upgrade", db)
def db_upgrade(call: Call) -> None:
    """Take the store of an older version up to this one; a backup is kept beside it."""
    from agent import reach

    call.say(reach.upgrade(call.config()), lambda told: f"{told['store']} has schema {told['schema']}; as it was before: {told['backup']}\n")


@_command("watchkeeper db path", "path", db)
def db_path(call: Call) -> None:
    """Where the store is."""
    where = call.config().store
    call.say({"path": where, "exists": Path(where).exists()}, where)


@_command("watchkeeper demo --once")
@click.option("--once", is_flag=True, help="Tell the story once and end; exit code 0 only if every step of it was seen.")
def demo(call: Call, once: bool) -> None:
    """Watch a real model server go bad and be put right, on this machine."""
    from agent.starter import demonstrate

    demonstrate([*(["--once"] if once else []), *(["--json"] if call.json else [])])


@_command('eval "$(watchkeeper completion bash)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(call: Call, shell: str) -> None:
    """Print what makes the shell complete commands, options and their values."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(main, {}, "watchkeeper", "_WATCHKEEPER_COMPLETE").source()
    call.say({"shell": shell, "script": script}, script)


if __name__ == "__main__":
    main(prog_name="watchkeeper")
