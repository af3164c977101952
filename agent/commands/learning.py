"""The command that runs strategies of learning head to head, without a configuration or a store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from agent.door import Call, command

PROGRAM = "runbooks._head_to_head"  # by its name, as a configuration would name a trainer
ALWAYS = ("naive", "replay", "der++", "ewc", "ewc+replay", "lwf")
TOLD = ("packnet", "progressive")  # which must be told the task of a row
TABLE = "A file, a table's URL, or @SERVICE.ROLE of the configuration."


@command("watchkeeper strategies --factory nets:mlp --train new.parquet --old old.parquet --label y", "strategies")
@click.option("--factory", required=True, metavar="MODULE:FUNCTION", help="What gives an untrained torch.nn.Module; looked for from here.")
@click.option("--train", required=True, metavar="TABLE", help=f"The rows to be learned. {TABLE}")
@click.option("--old", multiple=True, required=True, metavar="TABLE", help="Rows that were learned before; may be given again.")
@click.option("--label", required=True, metavar="COLUMN", help="The column with the truth.")
@click.option("--feature", "features", multiple=True, metavar="COLUMN", help="A column the net takes, in their order; may be given again.")
@click.option("--task", metavar="COLUMN", help="A column of whole numbers that tells distinct tasks apart.")
@click.option("--strategy", "names", multiple=True, type=click.Choice([*ALWAYS, *TOLD]), help="Only this one; may be given again.")
@click.option("--set", "given", multiple=True, metavar="STRATEGY.NAME=VALUE", help="A setting, such as replay.buffer=200; may be given again.")
@click.option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True, help="How often each is repeated.")
@click.option("--margin", type=click.FloatRange(0, 1), default=0.01, show_default=True, help="The loss that a cheaper strategy may be shown to have.")
@click.option("--epochs", type=click.IntRange(1), default=10, show_default=True, help="How often the rows of a table are gone through.")
@click.option("--batch", type=click.IntRange(1), default=32, show_default=True, help="Rows of a step.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), default=0.05, show_default=True, help="The rate of learning.")
@click.option("--held-out", type=click.FloatRange(0, 0.9, min_open=True), default=0.3, show_default=True, help="The share of rows to measure on.")
def strategies(
    call: Call,
    train: str,
    old: Sequence[str],
    names: Sequence[str],
    given: Sequence[str],
    seeds: int,
    margin: float,
    **parameters: Any,
) -> None:
    """Which strategy learns the new rows without forgetting the old ones, tried on your own.

    Each learns the old rows and then the new ones, as often as there are seeds, and is measured on rows that were held out. Recommended is the best
    on average over the tables, or a cheaper one that is shown to lose less than the margin. Exit code 0: one is recommended; 2: it cannot be tried
    as told; 3: learning failed.
    """
    from agent import show

    tried = list(names) or [*ALWAYS, *(TOLD if parameters["task"] else ())]
    asked = {"strategies": tried, "seeds": seeds, "margin": margin, "with": _set(given, tried)}
    asked["parameters"] = {name: list(value) if isinstance(value, tuple) else value for name, value in parameters.items() if value is not None}
    tables = {"train": train, **{f"old{place or ''}": table for place, table in enumerate(old)}}
    with _pinned(call, tables) as data, show.progress(not call.json) as tell:
        result = _run({**asked, "data": data}, tell)
    call.say(result, _said)


def _set(given: Sequence[str], tried: Sequence[str]) -> dict[str, dict[str, Any]]:
    """replay.buffer=200 as {"replay": {"buffer": 200}}."""
    found: dict[str, dict[str, Any]] = {}
    for text in given:
        place, equals, value = text.partition("=")
        strategy, _, name = place.rpartition(".")
        if not equals or strategy not in tried:
            raise click.BadParameter(f"{text!r}: write STRATEGY.NAME=VALUE with one of {', '.join(tried)}", param_hint="--set")
        try:
            found.setdefault(strategy, {})[name] = json.loads(value)
        except ValueError:
            found.setdefault(strategy, {})[name] = value
    return found


# The rows


@contextmanager
def _pinned(call: Call, tables: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Each table as one Parquet file with its sha256, written into a folder of its own where it is none yet."""
    import hashlib
    import tempfile

    with tempfile.TemporaryDirectory(prefix="watchkeeper-") as folder:
        found = {}
        for role, text in tables.items():
            path = Path(text) if text.endswith(".parquet") and Path(text).is_file() else _written(call, role, text, Path(folder))
            with path.open("rb") as stream:
                found[role] = {"path": str(path.resolve()), "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
        yield found


def _written(call: Call, role: str, text: str, folder: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from agent.perform import fresh

    path = folder / f"{role}.parquet"
    with fresh(_locator(call, role, text)) as rows:
        names = list(rows.kinds())
        parts = [pa.table({name: pa.array(chunk[name]) for name in names}) for chunk in rows.chunks(names)]
    if not parts:
        raise click.BadParameter(f"{text} has no row", param_hint=f"--{role.rstrip('0123456789')}")
    pq.write_table(pa.concat_tables(parts, promote_options="permissive"), path)
    return path


def _locator(call: Call, role: str, text: str) -> Any:
    from agent import reach
    from agent.commands.comparing import table
    from agent.model import Locator

    if not text.startswith("@"):
        return Locator("strategies", role, table(text))
    service, _, name = text[1:].partition(".")
    config = call.config()
    bound = config.services[reach.service_named(config, service)].targets
    if name not in bound:
        raise click.BadParameter(f"{service} has no target '{name}'; there is {', '.join(f'@{service}.{one}' for one in bound)}")
    return bound[name]


# The program


def _run(asked: Mapping[str, Any], tell: Any) -> dict[str, Any]:
    """Its result. Its problem is raised as what it is; it ends when we do."""
    import tempfile

    from agent import errors

    pipe = subprocess.PIPE
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen([sys.executable, "-P", "-m", PROGRAM], stdin=pipe, stdout=pipe, stderr=words, start_new_session=True)  # noqa: S603 - ours
        assert process.stdin and process.stdout
        try:
            with suppress(BrokenPipeError):  # it died at once; its last words say why
                process.stdin.write(json.dumps(asked).encode() + b"\n")
                process.stdin.flush()
            for text in process.stdout:
                said = json.loads(text)
                if "result" in said:
                    return dict(said["result"])
                if "problem" in said:
                    raise getattr(errors, said["problem"]["kind"])(said["problem"]["message"])
                if tell is not None:
                    tell(said["done"], said["what"])
            words.seek(0)
            last = words.read().decode("utf-8", "replace").strip().rpartition("\n")[2][-300:]
            raise errors.WorkerError(f"the program that tries strategies died with status {process.wait()}; its last words: {last}")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _said(told: Mapping[str, Any]) -> str:
    """A line for each strategy, and the one that is recommended."""
    from rich.text import Text

    from agent.show import plain, printed, rows

    body = [_line(one, one["strategy"] == told["recommended"]) for one in told["strategies"]]
    table = rows(["strategy", "score", "on new", "on old", "forgotten", "CPU s", ""], body, 2)
    return printed(table, "", Text.assemble(("recommended  ", "bold green"), plain(told["why"])))


def _line(one: Mapping[str, Any], recommended: bool) -> list[str]:
    shares = [_interval(one[word]) for word in ("score", "new", "old", "forgotten")]
    note = ["is told the task"] if one["strategy"] in TOLD else []
    return [one["strategy"], *shares, f"{one['seconds']['mean']:.1f}", ", ".join([*(["recommended"] if recommended else []), *note])]


def _interval(found: Mapping[str, float | None]) -> str:
    ends = "" if found["low"] is None or found["high"] is None else f" ({100 * found['low']:.1f} to {100 * found['high']:.1f})"
    return f"{100 * (found['mean'] or 0.0):.1f} %{ends}"
