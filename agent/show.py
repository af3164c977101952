"""Puts what a command found on a terminal: the same JSON values that `--json` prints, as text for people."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from io import StringIO
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from agent import preview
from agent.model import Json, StepRow, spell
from agent.preview import NEVER

READABLE = 24  # columns that a sentence gets, however narrow the terminal is
WIDE = 110  # columns that four sentences beside each other need
PIPED = 10_000  # columns when nobody looks: one row stays one line
COLOURS = {
    **dict.fromkeys(("ok", "succeeded", "done", "resolved", "reviewed", "allowed", "verified", "right", "drilled"), "green"),
    "overdue": "yellow",
    **dict.fromkeys(
        (
            "warn",
            "awaiting",
            "acknowledged",
            "mitigating",
            "mitigated",
            "proposed",
            "stale",
            "compensated",
            "undone",
            "intended",
            "undoing",
            "waits",
            "overdue",
        ),
        "yellow",
    ),
    **dict.fromkeys(("fail", "bad", "open", "stuck", "failed", "stopped", "denied", "left", "page", "wrong", "used up", "burning"), "bold red"),
    **dict.fromkeys(("error", "blind", "unseen", "unreachable", "refused", "expired"), "magenta"),
    **dict.fromkeys(("nodata", "skip", "new", "unwatched", "planned", "cancelled", "superseded", "undecided", "-"), "dim"),
}


def printed(*things: Any) -> str:
    """Rich things as text: coloured on a terminal that wants colour, plain and unwrapped in a pipe."""
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else PIPED
    plain_only = not terminal or os.environ.get("TERM") == "dumb"
    console = Console(
        file=StringIO(), force_terminal=not plain_only, width=width, markup=False, emoji=False, highlight=False, no_color=plain_only or None
    )
    for thing in things:
        console.print(thing, soft_wrap=isinstance(thing, (str, Text)) and not terminal)
    assert isinstance(console.file, StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


def plain(text: object) -> str:
    """Text from elsewhere without control characters: a server's answer must not move the cursor."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in str(text))


def word(name: object) -> Text:
    """A status or state in its colour."""
    text = "-" if name is None else plain(name)
    return Text(text, style=COLOURS.get(text, ""))


def rows(columns: Sequence[str], body: Sequence[Sequence[Any]], indent: int = 0, wraps: int = 1) -> Table:
    """A table without lines; the last `wraps` columns wrap where the terminal is narrow, the others do not."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False, header_style="dim")
    for n, name in enumerate(columns):
        wrap = n >= len(columns) - wraps
        table.add_column(" " * indent + name if n == 0 else name, overflow="fold", no_wrap=not wrap, min_width=READABLE // wraps if wrap else None)
    for row in body:
        cells = [cell if isinstance(cell, Text) else Text(plain("-" if cell is None else cell)) for cell in row]
        cells[0] = Text(" " * indent) + cells[0]
        table.add_row(*cells)
    return table


def when(at: str | None, now: datetime | None = None) -> str:
    """A time as people read it, always UTC."""
    if at is None:
        return "-"
    moment = datetime.fromisoformat(at)
    return f"{moment:%H:%M:%S}Z" if now and moment.date() == now.date() else f"{moment:%Y-%m-%d %H:%M:%S}Z"


def old(seconds: float | None) -> str:
    return "-" if seconds is None else f"{spell(timedelta(seconds=round(seconds)))} ago"


# status


def status(told: Mapping[str, Json]) -> str:
    now = datetime.fromisoformat(told["at"])
    agent = told["agent"]
    head = f"watched by process {agent['pid']} at {agent['url']}" if agent else "no agent is running: nothing is being looked at"
    things: list[Any] = [Text(head, style="" if agent else "bold yellow")]
    if told["halted"]:
        things.append(Text(f"no automatic action: {plain(told['halted'])}", style="bold yellow"))
    for service in told["services"]:
        things += ["", *_service(service, now)]
    return printed(*things)


def _service(told: Mapping[str, Json], now: datetime) -> Iterator[Any]:
    owner = f"owner {told['owner']}" if told["owner"] else "no owner"
    team = f", team {told['team']}" if told["team"] else ""
    modes = "".join(f", {book} {mode}" for book, mode in told["modes"].items())
    yield Text.assemble((plain(told["service"]), "bold"), "  ", word(told["state"]), f"  {plain(owner)}{team}; mode {told['mode']}{modes}")
    served, good = told["served"], told["last_known_good"]
    yield f"  serves           {plain(served['version'])}, since {when(served['since_at'], now)}" if served else "  serves           not seen yet"
    if good:
        yield f"  last known good  {plain(good['version'])} ({plain(good['by'])}, {when(good['at'], now)})"
    else:
        yield Text.assemble("  last known good  ", ("none: a rollback would be refused", "bold red"))
    for incident in told["incidents"]:
        yield Text.assemble("  incident         ", (f"{incident['id']} {incident['state']}", "bold red"), f"  {plain(incident['title'])}")
    for run in told["runs"]:
        yield Text.assemble("  run              ", f"{run['id']} {run['runbook']} ", word(run["state"]), f"  {plain(run['said'])}")
    for one in told["objectives"]:
        yield Text.assemble("  ", (f"{one['objective']:15}", "bold red" if one["spent"] else ""), f"  {plain(one['said'])}")
    if not told["watches"]:
        yield Text("  no watches: nothing about this service is looked at", style="bold yellow")
        return
    body = [[w["watch"].split("/", 1)[1], word(_shown(w)), old(w["age"]), _reason(w)] for w in told["watches"]]
    yield rows(("watch", "status", "looked", "why"), body, 2)


def _shown(watch: Mapping[str, Json]) -> str:
    return "stale" if watch.get("stale") else watch["status"] or "new"


def _reason(watch: Mapping[str, Json]) -> str:
    said = f"{watch['reason']} (flapping)" if watch.get("flapping") else str(watch["reason"])
    return f"was {watch['status']}, but is looked at every {watch['every']}: {said}" if watch.get("stale") else said


# check


def findings(found: Sequence[Mapping[str, Json]]) -> str:
    things: list[Any] = []
    for one in found:
        things.append(Text.assemble(word(one["status"]), f"  {plain(one['watch'])}: {plain(one['reason'])}".replace("\n", "\n    ")))
        parts = [[name, number(p["observed"], p["unit"]), number(p["limit"], p["unit"]), p["n"]] for name, p in (one.get("parts") or {}).items()]
        if parts:
            things.append(rows(("part", "observed", "limit", "n"), parts[:20], 4))
            if len(parts) > 20:
                things.append(f"    and {len(parts) - 20} more: --json shows all")
    return printed(*things)


def finding(one: Mapping[str, Json]) -> str:
    told = [f"finding {one['id']}, looked at {when(one['looked_at'])}, window {when(one['start_at'])} to {when(one['end_at'])}\n"]
    left = one["written"] or [f"{name} (--out FOLDER writes it)" for name in one["files"]]
    return "".join([*told, findings([one]), *(f"  left {name}\n" for name in left)])


def number(value: float | None, unit: str = "") -> str:
    return "-" if value is None else f"{value:.4g}{' ' + unit if unit else ''}"


@contextmanager
def progress(wanted: bool) -> Iterator[Any]:
    """`tell(done, what)` for a check, drawn on stderr when that is a terminal; None otherwise."""
    if not wanted or not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("looking", total=1.0)
        yield lambda done, what: bar.update(task, completed=done, description=plain(what)[:40])


# runs and plans


def plan(told: Mapping[str, Json]) -> str:
    head = Text.assemble((f"{told['runbook']} of {told['service']}", "bold"), f": {plain(told['reason'])}; nothing was changed")
    return printed(head, *planned(told))


def planned(told: Mapping[str, Json]) -> list[Any]:
    """What each step of a plan would look at, change and take back; for how long at most, and why."""
    body = [_planned(row) for row in told["table"]]
    return [
        *([line for row in body for line in _block(row)] if narrow() else [rows(COLUMNS, body, 2, wraps=4)]),
        *(f"  {row['n']} {plain(row['step'])}: {plain(row['why'])}" for row in told["table"] if row["why"]),
        *(f"  {plain(action)} stands at {plain(preview.value(stands))}" for action, stands in told["seen"].items() if stands is not None),
        f"  at most {seconds(told['at_most'])} in all" + (f", and {seconds(told['back_at_most'])} to take it back" if told["back_at_most"] else ""),
        f"  good until {when(told['good_until'])}; digest {told['digest']}",
    ]


COLUMNS = ("", "step", "at most", "looks at", "changes", "taken back", "if it fails")


def _planned(row: Mapping[str, Json]) -> list[Any]:
    back = Text(plain(row["back"] or "-"), style="bold red" if row["back"] == NEVER else "")
    return [str(row["n"]), row["step"], row["within"], row["looks"], row["changes"] or "nothing", back, row["failing"]]


def _block(row: Sequence[Any]) -> Iterator[Any]:
    """A row of the table as lines below each other."""
    number, step, within, *rest = row
    yield Text.assemble(f"  {number} ", (plain(step), "bold"), f", at most {within}")
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, cell in zip(COLUMNS[3:], rest, strict=True):
        table.add_row(Text(f"    {name}", style="dim"), cell if isinstance(cell, Text) else Text(plain(cell)))
    yield table


def narrow() -> bool:
    """Whether a table of sentences would not fit beside each other."""
    return sys.stdout.isatty() and shutil.get_terminal_size().columns < WIDE


def seconds(length: float) -> str:
    """A length in seconds as people write it."""
    return spell(timedelta(seconds=length))


def run(told: Mapping[str, Json]) -> str:
    return printed(*_run(told))


def _run(told: Mapping[str, Json]) -> Iterator[Any]:
    kind = "drill of " if told["drill"] else ""
    yield Text.assemble((f"run {told['id']}", "bold"), "  ", word(told["state"]), f"  {kind}{plain(told['runbook'])} on {plain(told['service'])}")
    yield f"  asked for by {plain(told['by'])} {when(told['wanted_at'])}: {plain(told['reason'])}"
    if told["approved_by"]:
        yield f"  approved by {plain(told['approved_by'])}" + (f", plan {told['plan']['digest'][:12]}" if told["plan"] else "")
    if told["said"]:
        yield f"  {plain(told['said'])}"
    if told["steps"]:
        yield rows(("step", "state", "took", "said"), [_step(s) for s in told["steps"]], 2)


def _step(row: Mapping[str, Json]) -> list[Any]:
    return [row["name"], word(row["state"]), took(row["intended_at"], row["ended_at"]), row["said"]]


def took(began: str | None, ended: str | None) -> str:
    """How long a step took."""
    return spell(datetime.fromisoformat(ended) - datetime.fromisoformat(began)) if began and ended else "-"


def step(row: StepRow | str) -> str:
    """A step as it happens, or what the run waits for: one line."""
    if isinstance(row, str):
        return printed(Text.assemble("  ", word("waits"), f"  {plain(row)}"))
    return printed(Text.assemble("  ", word(row.state), f"  {plain(row.name)}" + (f": {plain(row.said)}" if row.said else "")))


def drills(found: Sequence[Mapping[str, Json]]) -> str:
    if not found:
        return "no runbook has the targets it needs\n"
    body = [
        [one["service"], one["runbook"], one["mode"], word(one["state"]), when(one["drilled_at"]), when(one["due_at"]), _drilled(one)]
        for one in found
    ]
    return printed(rows(("service", "runbook", "mode", "drill", "last", "due", "how it went"), body))


def _drilled(one: Mapping[str, Json]) -> str:
    last = one["last"]
    if last is not None and last["run"] != one["run"]:
        return f"the last one, run {last['run']}, {last['state']}: {last['said']}"
    return ", ".join(f"{step['name']} {spell(timedelta(seconds=step['seconds']))}" for step in one["steps"] if step["seconds"] is not None)


# plugins, validate, silences


def plugins(found: Sequence[Mapping[str, Json]]) -> str:
    body = [[p["kind"], p["name"], p["needs_text"], p["asks"] if not p["broken"] else f"cannot be used: {p['broken']}"] for p in found]
    return printed(rows(("kind", "name", "needs", "what it is for"), body, wraps=2))


def plugin(told: Mapping[str, Json]) -> str:
    things: list[Any] = [Text.assemble((plain(told["name"]), "bold"), f"  {told['kind']} of {plain(told['owner'])}"), f"  {plain(told['asks'])}", ""]
    things += [f"  {line}" for line in plain(told["doc"]).splitlines()]
    things += ["", f"  in {told['path']}:{told['line']}"]
    if told["promises"]:
        things.append("  promises " + ", ".join(f"{name}: {plain(value)}" for name, value in told["promises"].items() if value not in ("", [])))
    if told["needs"]:
        body = [[n["name"], n["annotation"], "if there is one" if n["optional"] else "needed"] for n in told["needs"]]
        things += ["", rows(("needs", "type", ""), body, 2)]
    if told["parameters"]:
        body = [[p["name"], p["annotation"], "required" if p["default"] is None else p["default"]] for p in told["parameters"]]
        things += ["", rows(("parameter", "type", "default"), body, 2)]
    return printed(*things)


def knocked(found: Sequence[Mapping[str, Json]]) -> str:
    things: list[Any] = []
    for one in found:
        things.append(Text.assemble((f"{one['service']}.{one['role']}", "bold"), "  ", word(one["look"]), f"  {plain(one['url'])}"))
        things += [f"  look: {plain(one['said'])}", f"  act:  {plain(one['act'])}"]
    return printed(*things)


def baselines(found: Sequence[Mapping[str, Json]]) -> str:
    if not found:
        return "nothing is pinned\n"
    lines = [[one["watch"], when(one["start_at"]), when(one["end_at"]), one["by"], one["why"]] for one in found]
    return printed(rows(("watch", "from", "to", "by", "why"), lines))


def silences(found: Sequence[Mapping[str, Json]]) -> str:
    if not found:
        return "no silence is in force\n"
    return printed(rows(("silence", "match", "until", "by", "why"), [[s["id"], s["match"], when(s["until_at"]), s["by"], s["why"]] for s in found]))
