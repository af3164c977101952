"""Commands to begin with and to look after the store."""

from __future__ import annotations

from pathlib import Path

import click

from agent.door import Call, command, main


@command("watchkeeper plugins drift.compare")
@click.argument("name", required=False)
@click.option("--kind", type=click.Choice(["check", "runbook", "adapter"]), help="Only one kind.")
def plugins(call: Call, name: str | None, kind: str | None) -> None:
    """The checks, runbooks and adapters there are; with NAME, what one of them needs and can be told.

    The list is read from sources, without importing any; a broken plugin says why. Runbooks that the configuration writes out are in it too.
    """
    from agent import listing, show

    kinds, config = (kind,) if kind else ("check", "runbook", "adapter"), call.config_if_any()
    if name is None:
        call.say(listing.listed(kinds, config), show.plugins)
    else:
        call.say(listing.detailed(kinds, name, config), show.plugin)


@command("watchkeeper validate --live")
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


@command("watchkeeper schema > watchkeeper.schema.json")
def schema(call: Call) -> None:
    """The JSON schema of the configuration, for editors."""
    from agent import config

    call.json = True
    call.say(config.schema())


@command("watchkeeper init")
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path, file_okay=False), default=".")
def init(call: Call, folder: Path) -> None:
    """Write a commented watchkeeper.yaml to start from; a file that is there is left alone."""
    from agent.starter import write

    made = write(folder)
    call.say({"written": str(made)}, f"wrote {made}; change it to your service, then: watchkeeper -c {made} validate --live")


@main.group()
def db() -> None:
    """Look after the store."""


@command("watchkeeper db backup watchkeeper-monday.db", "backup", db)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def db_backup(call: Call, file: Path) -> None:
    """Copy the store while it is in use; the copy is consistent."""
    from agent import reach

    reach.backup(call.config(), file)
    call.say({"written": str(file), "bytes": file.stat().st_size}, f"wrote {file}")


@command("watchkeeper db verify", "verify", db)
def db_verify(call: Call) -> None:
    """Whether the file is sound and every finding and event is as it was sealed; exit code 4 when not."""
    from agent import reach

    problems = reach.verified(call.config())
    call.say({"sound": not problems, "problems": problems}, "\n".join(problems) or "the file is sound and its chain of evidence holds")
    raise SystemExit(4 if problems else 0)


@command("watchkeeper db upgrade", "upgrade", db)
def db_upgrade(call: Call) -> None:
    """Take the store of an older version up to this one; a backup is kept beside it."""
    from agent import reach

    call.say(reach.upgrade(call.config()), lambda told: f"{told['store']} has schema {told['schema']}; as it was before: {told['backup']}\n")


@command("watchkeeper db path", "path", db)
def db_path(call: Call) -> None:
    """Where the store is."""
    where = call.config().store
    call.say({"path": where, "exists": Path(where).exists()}, where)


@command("watchkeeper demo --once")
@click.option("--once", is_flag=True, help="Tell the story once and end; exit code 0 only if every step of it was seen.")
@click.option("--learn", is_flag=True, help="Tell of a model that is trained again instead; needs torch.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Where the agent's page listens.  [default: a free port]")
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Play in this folder, and leave everything there.")
@click.option("--plain", is_flag=True, help="No colours, whatever the terminal.")
@click.option("--mlserver", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="PROGRAM", help="Play against MLServer instead.")
def demo(call: Call, once: bool, learn: bool, port: int, keep: Path | None, plain: bool, mlserver: Path | None) -> None:
    """Watch a real model server go bad and be put right, on this machine.

    A model server, its users and the agent are started, each a process of its own; a bad version is deployed, and then the data breaks.
    With --learn the data drifts, a retrained model that forgot is blocked, and one that did not is served.
    """
    from agent.starter import DEMO, played

    flags = [word for word, on in (("--once", once), ("--learn", learn), ("--plain", plain), ("--json", call.json)) if on]
    played(DEMO, [*flags, f"--port={port}", *([f"--keep={keep}"] if keep else []), *([f"--mlserver={mlserver}"] if mlserver else [])])


@command("watchkeeper gameday --only 'null burst' --out gameday.md")
@click.option("--only", multiple=True, metavar="NAME", help="Only this failure; may be given again.  [default: all of them]")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the report as Markdown, too.")
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Play in this folder, and leave everything there.")
@click.option("--plain", is_flag=True, help="No colours, whatever the terminal.")
def gameday(call: Call, only: tuple[str, ...], out: Path | None, keep: Path | None, plain: bool) -> None:
    """Break the example stack in every way we know, one at a time, and see what is noticed and put right.

    A model server, its users and the agent are started, each a process of its own. For each failure: which check found it and when, what put it
    right, how many requests were lost. Exit code 1 when one was missed.
    """
    from agent.starter import GAMEDAY, played

    flags = [word for word, on in (("--json", call.json), ("--plain", plain)) if on]
    files = [f"--{name}={path}" for name, path in (("out", out), ("keep", keep)) if path]
    played(GAMEDAY, [*flags, *files, *(f"--only={name}" for name in only)])


@command('eval "$(watchkeeper completion bash)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(call: Call, shell: str) -> None:
    """Print what makes the shell complete commands, options and their values."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(main, {}, "watchkeeper", "_WATCHKEEPER_COMPLETE").source()
    call.say({"shell": shell, "script": script}, script)
