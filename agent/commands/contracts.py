"""Commands about what a table promises: to write a contract from what was seen, and to hold a table to one. Neither needs a configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from agent.door import Call, command, main, moment

CHECK, PROFILE = "data.contract", "data.profile"  # the plugins asked, through the same door as any other
FILE = "a contract", "columns"
_TIME = click.option("--time", "column", metavar="COLUMN", help="The column with the time of each row.")
_ZONE = click.option("--tz", metavar="ZONE", help="The zone of times that carry none, such as UTC or Europe/Berlin.")
_UNIT = click.option("--unit", type=click.Choice(["iso", "s", "ms", "us", "ns"]), default="iso", show_default=True, help="How times are written.")


@main.group()
def contract() -> None:
    """Write down what a table promises, and hold tables to it."""


@command("watchkeeper contract infer predictions.parquet --time at --tz UTC --out contract.yaml", "infer", contract)
@click.argument("table")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write it there, where no file is yet.  [default: print it]"
)
@_TIME
@_ZONE
@_UNIT
@click.option("--margin", type=click.FloatRange(0, 10), default=0.1, show_default=True, help="How much wider than seen, in widths of the range.")
def infer(call: Call, table: str, out: Path | None, column: str | None, tz: str | None, unit: str, margin: float) -> None:
    """Write a contract that TABLE keeps, to be read and edited: types, nulls, ranges, categories, keys, and with --time freshness and volume.

    TABLE is a file, a pattern or a URL. Categories are values of the table; nothing else of it is written.
    """
    call.hide(table)
    verdict = _perform(PROFILE, {"live": _table(table, column, tz, unit)}, {"margin": margin})
    if verdict.status != "ok":
        raise _blind(call, table, verdict)
    text = verdict.data["contract.yaml"].decode()
    if out is None:
        call.say({"table": table, "reason": verdict.reason, "contract": text}, lambda _: text)
        return
    _write(out, text)
    call.say({"table": table, "reason": verdict.reason, "written": str(out)}, f"{verdict.reason}: {out}")


@command("watchkeeper contract check predictions.parquet --contract contract.yaml", "check", contract)
@click.argument("table")
@click.option("--contract", "file", type=click.Path(path_type=Path), required=True, help="The file with its rules.")
@_TIME
@_ZONE
@_UNIT
@click.option("--id", "named", metavar="COLUMN", help="The column whose values name rows: broken rows are told by its hash.")
@click.option("--parents", metavar="TABLE", help="The table that `parent` rules look into.")
@click.option("--now", type=click.DateTime(["%Y-%m-%dT%H:%M:%S%z"]), help="Judge freshness as of this time.  [default: now]")
def check(
    call: Call,
    table: str,
    file: Path,
    column: str | None,
    tz: str | None,
    unit: str,
    named: str | None,
    parents: str | None,
    now: Any,
) -> None:
    """Whether all rows of TABLE keep a contract.

    Exit code 0 when they do, 1 when a rule is broken, 2 when the file is wrong, 3 when it cannot be told: no rows, or none that can be read.
    Which rows break a rule is told by hashes of their ids, never by their values.
    """
    from agent.config.apart import settings

    call.hide(table, parents or "")
    rules = settings(file, CHECK, FILE)
    tables = {"live": _table(table, column, tz, unit, named), **({"parents": _table(parents)} if parents else {})}
    verdict = _perform(CHECK, tables, rules, now)
    told = json.loads(verdict.data.get("contract.json", b"{}"))
    call.say({"table": table, "contract": str(file), "status": verdict.status.value, "reason": verdict.reason, **told}, _shown)
    raise SystemExit({"ok": 0, "fail": 1}.get(verdict.status.value, 3))


def _table(text: str, column: str | None = None, tz: str | None = None, unit: str = "iso", named: str | None = None) -> Any:
    from dataclasses import replace

    from agent.targets import at

    if column is None and tz is not None:
        raise click.UsageError("--tz says in which zone the times of a column are: name the column with --time")
    time = {"time": {"column": column, "unit": unit, **({"tz": tz} if tz else {})}} if column else {}
    return replace(at(text), options={**time, **({"id": named} if named else {})})


def _perform(check: str, tables: Mapping[str, Any], parameters: Mapping[str, Any], now: Any = None) -> Any:
    from agent.perform import perform

    job = {"check": check, "locators": tables, "parameters": parameters, "now": now or moment()}
    return perform(job)


def _write(path: Path, text: str) -> None:
    from agent.errors import ConfigError

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as problem:
        raise ConfigError(f"{path} exists already and was left as it is; name another file") from problem
    except OSError as problem:
        raise ConfigError(f"{path} cannot be written: {problem.strerror}") from problem


def _blind(call: Call, table: str, verdict: Any) -> SystemExit:
    call.say({"table": table, "status": verdict.status.value, "reason": verdict.reason}, f"{verdict.status}  {table}: {verdict.reason}")
    return SystemExit(3)


def _shown(told: Mapping[str, Any]) -> str:
    from rich.text import Text

    from agent.show import number, plain, printed, rows, word

    things: list[Any] = [Text.assemble(word(told["status"]), f"  {plain(told['table'])}: {plain(told['reason'])}")]
    body = [
        [one["rule"], number(one["observed"], one["unit"]), number(one["limit"], one["unit"]), one["rows"], one["why"]]
        for one in told.get("broken", ())
    ]
    if body:
        things.append(rows(("rule", "observed", "limit", "rows", "why"), body, 2))
    if any(one["ids"] for one in told.get("broken", ())):
        things += [f"  {plain(one['rule'])}: {', '.join(one['ids'])}" for one in told["broken"] if one["ids"]]
    return printed(*things)
