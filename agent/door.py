"""What every command shares: the options before it, JSON or text, an example, and one table of how it can end."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
PATH = click.Path(path_type=Path)
BROKEN_PIPE, INTERRUPTED = 141, 130  # as a shell tells these ends of any program


@dataclass
class Call:
    """What the options before the command say."""

    path: Path
    debug: bool = False
    json: bool = False
    secrets: set[str] = field(default_factory=set)  # that stand in what was typed, and are printed nowhere

    def hide(self, *urls: str) -> None:
        """Print no secret that is in these, whoever says it: a target may echo what it was shown."""
        from agent.credential import within

        self.secrets = self.secrets.union(*map(within, urls))

    def discreet(self, text: str) -> str:
        """The text without them, as they are and as JSON has them."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            for spelled in {secret, json.dumps(secret, ensure_ascii=False)[1:-1]}:
                text = text.replace(spelled, "***")
        return text

    def config(self) -> Any:
        from agent.config import load

        return load(self.path)

    def config_if_any(self) -> Any:
        """The configuration, where there is one without an error; None without, for what can also do without it."""
        from agent.errors import ConfigError

        try:
            return self.config() if self.path.exists() else None
        except ConfigError as problem:
            self.also(f"{self.path} is passed over: it has {len(problem.problems)} errors; 'watchkeeper validate' tells them")
            return None

    def say(self, value: Any, text: str | Callable[[Any], str] = "") -> None:
        """The value as JSON with --json, else as text for people."""
        if self.json:
            click.echo(self.discreet(json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)))
        else:
            click.echo(self.discreet(text if isinstance(text, str) else text(value)), nl=isinstance(text, str))

    def also(self, text: str) -> None:
        """A line on the way there: on stderr, and only for people."""
        if not self.json:
            click.echo(self.discreet(text), err=True)


def plain(value: Any) -> Any:
    """JSON knows no NaN and no infinity: they are shown as missing."""
    from agent.model import to_json

    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return to_json(value) if not hasattr(value, "__dataclass_fields__") else plain(to_json(value))


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


class Short(click.Group):
    """A group whose `default` command need not be named: `watchkeeper load URL` is `watchkeeper load run URL`.

    With `alone`, it is meant even where nothing follows the group.
    """

    def __init__(self, *args: Any, default: str, alone: bool = False, **more: Any) -> None:
        super().__init__(*args, **more)
        self.default, self.alone = default, alone
        self.no_args_is_help = not alone

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        if args[0] not in {*self.commands, *context.help_option_names} if args else self.alone:
            args = [self.default, *args]
        return super().parse_args(context, args)


def _failed(call: Call, problem: Exception) -> int:
    if call.debug:
        import traceback

        click.echo(call.discreet("".join(traceback.format_exception(problem))), nl=False, err=True)
    ours = isinstance(problem, WatchkeeperError)
    said = str(problem) if ours else f"{type(problem).__name__}: {problem}; this is a defect of Watchkeeper: 'watchkeeper --debug ...' shows where"
    if call.json:
        lines = getattr(problem, "problems", None)
        call.say({"error": said, **({"problems": list(lines)} if lines else {})})
    else:
        click.echo(call.discreet("\n".join(f"error: {line}" for line in said.splitlines())), err=True)
    return problem.exit_code if isinstance(problem, WatchkeeperError) else WatchkeeperError.exit_code


def _exits() -> str:
    return "\b\nExit codes:\n" + "\n".join(f"  {code}  {what}" for code, what in EXITS)


@click.group(cls=Door, epilog=_exits(), context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "-c",
    "--config",
    "path",
    type=PATH,
    default="watchkeeper.yaml",
    envvar="WATCHKEEPER_CONFIG",
    show_default=True,
    help="The configuration: a file, or a folder of files; understood after the command too. $WATCHKEEPER_CONFIG says it once for all.",
)
@click.option("--debug", is_flag=True, help="Show where an error came from.")
@click.version_option(package_name="watchkeeper")
@click.pass_context
def main(context: click.Context, path: Path, debug: bool) -> None:
    """Stands watch over machine-learning services: looks, remembers, acts, and can prove what it did."""
    context.obj = Call(path, debug)


def command(example: str, name: str | None = None, group: click.Group = main) -> Callable[[Callable[..., None]], click.Command]:
    """A command with --json and an example in its help."""

    def mark(function: Callable[..., None]) -> click.Command:
        made = group.command(name, epilog=f"\b\nExample:\n  {example}")(click.pass_obj(function))
        made.short_help = " ".join((function.__doc__ or "").split("\n\n")[0].split())
        made.params.append(click.Option(["-c", "--config"], type=PATH, expose_value=False, hidden=True, callback=_other_path))
        made.params.append(click.Option(["--json"], is_flag=True, expose_value=False, callback=_as_json, help="Print JSON."))
        return made

    return mark


def _other_path(context: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value and isinstance(context.obj, Call):
        context.obj.path = value


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


def length(_: click.Context, __: click.Parameter, value: str | None) -> Any:
    from agent.model import duration

    try:
        return None if value is None else duration(value)
    except (ValueError, OverflowError) as problem:
        raise click.BadParameter(str(problem)) from problem


def ago(length: Any) -> Any:
    """The time so long ago, and not before there were any rows."""
    from agent.model import BEGINNING

    now = moment()
    return now - min(length, now - BEGINNING)


def moment() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)
