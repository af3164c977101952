"""The command that holds a candidate beside its champion here and now, without a configuration or a store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from agent.door import Call, command

CHECK = "forgetting.eval"  # by its name, as a configuration would say it: whoever owns it
SHARE = click.FloatRange(0, 1)
WORDS = {"ok": ("PROMOTE", "bold green"), "fail": ("BLOCK", "bold red"), "nodata": ("INCONCLUSIVE", "bold yellow")}
TABLE = "Labelled rows of what {}: a file, or a table's URL."


@command("watchkeeper eval models/6/model.onnx models/7/model.onnx --old old.parquet --new new.parquet --label y", "eval")
@click.argument("champion")
@click.argument("candidate")
@click.option("--old", metavar="TABLE", help=TABLE.format("was learned before"))
@click.option("--new", metavar="TABLE", help=TABLE.format("is to be learned"))
@click.option("--guard", metavar="TABLE", help=TABLE.format("must never be lost"))
@click.option("--label", required=True, metavar="COLUMN", help="The column with the truth.")
@click.option("--by", metavar="COLUMN", help="A column whose values make a slice each.")
@click.option("--feature", "features", multiple=True, metavar="COLUMN", help="A column the models take, in their order; may be given again.")
@click.option("--classes", metavar="A,B,...", help="What the models' scores are of, in their order.")
@click.option("--factory", metavar="MODULE:FUNCTION", help="What makes the model that weights belong to (safetensors, .pt).")
@click.option("--request", metavar="JSON", help='What a served model is sent, with "{inputs}" where a row goes.')
@click.option("--field", metavar="NAME", help="Where in a served model's answer its answer is, such as result.label.")
@click.option("--margin", type=click.FloatRange(0), default=0.02, show_default=True, help="The loss on a slice that is put up with.")
@click.option("--floor", type=SHARE, help="The accuracy below which nothing is promoted.")
@click.option("--alpha", type=click.FloatRange(0, 0.5, min_open=True), default=0.05, show_default=True, help="How often each claim may be wrong.")
@click.option("--loss", type=click.Choice(["absolute", "squared"]), help="The labels are numbers, judged by this loss.")
def evaluate(call: Call, champion: str, candidate: str, **given: Any) -> None:
    """Whether CANDIDATE may replace CHAMPION: PROMOTE (exit code 0), BLOCK (1) or INCONCLUSIVE (3).

    Both answer the same labelled rows, slice by slice. BLOCK says that a slice is surely worse; PROMOTE that every slice surely loses less than the
    margin; INCONCLUSIVE says how many more rows would tell. CHAMPION and CANDIDATE are files (ONNX, safetensors or .pt with --factory), URLs of
    models, or URLs of servers, which are asked one row after the other. Nothing is remembered.
    """
    from agent import show
    from agent.commands.comparing import table
    from agent.commands.looking import worst
    from agent.model import Locator
    from agent.perform import perform

    tables = {role: url for role in ("old", "new", "guard") if (url := given.pop(role)) is not None}
    if not tables:
        raise click.UsageError("name rows to judge by: --old, --new or --guard")
    locators = {role: Locator("eval", role, table(url)) for role, url in tables.items()}
    options = {name: given.pop(name) for name in ("classes", "factory", "request", "field")}
    for role, text in (("champion", champion), ("candidate", candidate)):
        locators[role] = _model(role, text, given["features"], options)
    parameters = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items() if value not in (None, ())}
    with show.progress(not call.json) as tell:
        verdict = perform({"check": CHECK, "locators": locators, "parameters": parameters}, tell)
    told = {"status": verdict.status.value, "reason": verdict.reason, **json.loads(verdict.data.get("gate.json", b"{}"))}
    call.say(told, _said)
    raise SystemExit(worst([verdict.status.value]))


def _model(role: str, text: str, features: Sequence[str], given: Mapping[str, str | None]) -> Any:
    """A model by its URL as it is, or by the plain path of a file, with those of the options that are for its kind."""
    from agent.model import Locator
    from agent.targets import FILES

    at = Locator("eval", role, _url(text))
    options: dict[str, Any] = {"features": list(features), "classes": given["classes"].split(",") if given["classes"] else None}
    if at.scheme in ("safetensors", "torch"):
        options["factory"] = given["factory"]
    elif at.scheme not in FILES.values():
        options |= {"request": _json(given["request"]) if given["request"] else None, "output": given["field"]}
    return replace(at, options={name: value for name, value in options.items() if value})


def _url(text: str) -> str:
    from agent import plugins
    from agent.targets import FILES, schemes

    if text.partition(":")[0].partition("+")[0].lower() in schemes("model", plugins.listing("adapter")):
        return text
    if not Path(text).is_file():
        raise click.BadParameter(f"there is no file {text}")
    return f"{FILES.get(Path(text).suffix.lower(), 'onnx')}:{text}"


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as problem:
        raise click.BadParameter(f"--request is no JSON ({problem})") from problem


def _said(told: Mapping[str, Any]) -> str:
    """The verdict, a line for each slice, and what it rests on."""
    from rich.text import Text

    from agent.show import plain, printed, rows

    word, style = WORDS.get(told["status"], (told["status"], "bold yellow"))
    head, *rest = str(told["reason"]).splitlines()
    table = rows(
        ["slice", "against", "before", "after", "change (90 %)", "margin", "n", "lost / won", ""], [_line(case) for case in told.get("cases", ())], 2
    )
    lines: Sequence[Any] = [
        Text(word, style=style),
        f"  {plain(head.removeprefix(word).strip())}",
        "",
        table,
        "",
        *(f"  {plain(line)}" for line in rest),
    ]
    return printed(*lines)


def _line(case: Mapping[str, Any]) -> list[str]:
    counted = "before" in case
    change = case.get("change")
    low, high = case.get("interval", (None, None))
    scale, unit = (100, " pt") if counted else (1, "")
    moved = "" if change is None else f"{scale * change:+.3g}{unit}" + ("" if low is None else f" ({scale * low:+.3g} to {scale * high:+.3g})")
    before, after = (f"{case[name]:.2%}" for name in ("before", "after")) if counted else ("", "")
    flips = f"{case['lost']:g} / {case['won']:g}" if counted else ""
    return [case["slice"], case["against"], before, after, moved, f"{scale * case['margin']:g}{unit}", f"{case['n']:g}", flips, case["outcome"]]
