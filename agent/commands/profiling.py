"""The command that shows where a model's time goes here and now, without a configuration or a store."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from agent.door import Call, command

CHECK = "serving.profile"  # by its name, as a configuration would say it: whoever owns it
WORDS = {"ok": ("NOTHING SURELY FASTER", "bold green"), "warn": ("COULD BE FASTER", "bold yellow")}
FILE = click.Path(path_type=Path, dir_okay=False)
SHOWN = 8  # kinds of operators


@command("watchkeeper profile models/7/model.onnx --rows rows.parquet --html profile.html", "profile")
@click.argument("model", type=FILE)
@click.option("--rows", "table", metavar="TABLE", help="Rows such as the model is asked: a file, or a table's URL.  [default: made up]")
@click.option("--feature", "features", multiple=True, metavar="COLUMN", help="A column the model takes, in their order; may be given again.")
@click.option("--factory", metavar="MODULE:FUNCTION", help="MODEL holds the weights (safetensors, .pt) of the torch module that this makes.")
@click.option("--batch", "batches", type=click.IntRange(1), multiple=True, metavar="ROWS", help="A size that is timed.  [default: 1, 8 and 32]")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="In how many the server computes now.")
@click.option("--seconds", type=click.FloatRange(1), default=10, show_default=True, help="How long to time.")
@click.option("--worth", type=click.FloatRange(0, 1), default=0.2, show_default=True, help="The part of the time that is worth a change.")
@click.option("--html", type=FILE, metavar="FILE", help="Also write a page with pictures and every number.")
def profile(call: Call, model: Path, table: str | None, html: Path | None, **given: Any) -> None:
    """Where the time of MODEL's answers goes, and what would surely make it faster.

    MODEL is an ONNX file, or weights with --factory. It is run on this machine: operators by their share of the time, a curve over batch sizes,
    memory, and other settings of the runtime beside the one in use, in turn. Exit code 0: nothing tried would surely save --worth of the time; 1:
    something would; 3: it could not tell.
    """
    from agent import show
    from agent.commands.comparing import table as table_url
    from agent.commands.looking import worst
    from agent.errors import WatchkeeperError
    from agent.model import Locator
    from agent.perform import perform

    if not model.is_file():
        raise click.BadParameter(f"there is no file {model}")
    if html is not None and not os.access(html.parent, os.W_OK):
        raise click.BadParameter(f"{html} cannot be written: there is no such folder, or it is read-only; name another file", param_hint="--html")
    locators = {"live": Locator("profile", "live", table_url(table))} if table else {}
    parameters = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items() if value not in (None, ())}
    parameters |= {"path": str(model), "seconds": f"{parameters['seconds']:g}s"}
    try:
        with show.progress(not call.json) as tell:
            verdict = perform({"check": CHECK, "locators": locators, "parameters": parameters}, tell)
    except WatchkeeperError as problem:
        raise type(problem)(f"could not tell: {problem}") from problem
    if html is not None and "profile.html" in verdict.data:
        _written(html, verdict.data["profile.html"])
    told = {"status": verdict.status.value, "reason": verdict.reason, **json.loads(verdict.data.get("profile.json", b"{}"))}
    call.say({**told, "html": str(html) if html else None}, _said)
    raise SystemExit(worst([verdict.status.value]))


def _written(html: Path, page: bytes) -> None:
    from agent.errors import ConfigError

    try:
        html.write_bytes(page)
    except OSError as problem:
        raise ConfigError(f"--html {html} cannot be written: {problem.strerror}; name another file") from problem


def _said(told: Mapping[str, Any]) -> str:
    """The outcome, and a table each of operators, batch sizes and settings."""
    from rich.text import Text

    from agent.show import plain, printed, rows

    word, style = WORDS.get(told["status"], ("COULD NOT TELL", "bold yellow"))
    word = "LITTLE TO GAIN" if told["status"] == "ok" and told["recommended"] else word
    head, *rest = str(told["reason"]).splitlines()
    lines: list[Any] = [Text(word, style=style), *(f"  {plain(line)}" for line in (head, *rest)), ""]
    if "batches" in told:
        sizes = [str(one["size"]) for one in told["batches"]]
        kinds = [[one["name"], f"{one['share']:.1%}", "█" * round(40 * one["share"])] for one in told["operators"]["kinds"][:SHOWN]]
        lines += [rows([f"operator, batch {told['operators']['batch']}", "share", ""], kinds, 2), ""]
        lines += [rows(["batch", "p50", "p99", "rows a second", "memory"], [*_batches(told)], 2), ""]
        lines += [rows(["other setting", *(f"faster, batch {size}" for size in sizes), ""], [*_settings(told, sizes)], 2)]
    lines += ["", f"  {plain(told['html'])} tells all of it"] if told["html"] else []
    return printed(*lines)


def _batches(told: Mapping[str, Any]) -> Iterator[list[str]]:
    for one in told["batches"]:
        memory = "" if one["memory"] is None else f"{one['memory'] / 2**20:,.1f} MiB"
        yield [str(one["size"]), f"{1000 * one['p50']:.3g} ms", f"{1000 * one['p99']:.3g} ms", f"{one['rate']:,.0f}", memory]


def _settings(told: Mapping[str, Any], sizes: Sequence[str]) -> Iterator[list[str]]:
    for one in told["settings"]:
        spans = ["{:.2f}x ({:.2f} to {:.2f})".format(*one["ratios"][size]) if "ratios" in one else "" for size in sizes]
        yield [one["setting"], *spans, one["outcome"]]
