"""The command that compares two tables here and now, without a configuration or a store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from agent.door import Call, command

CHECK = "drift.compare"  # by its name, as a configuration would say it: whoever owns it
SHARE = click.FloatRange(0, 1)


def table(value: str) -> str:
    """A table's URL as it is, or of a bare path by its suffix; files that are not there are bad arguments."""
    from agent.errors import ConfigError
    from agent.targets import at

    try:
        url = at(value).url
    except ConfigError as problem:
        raise click.BadParameter(str(problem)) from problem
    path = value.partition("?")[0]
    if url != value and not Path(path).exists() and not _matches(path):
        raise click.BadParameter(f"there is no file {path}")
    return url


def _matches(pattern: str) -> bool:
    import glob

    return next(glob.iglob(pattern, recursive=True), None) is not None  # noqa: PTH207 - as the table adapters read a pattern


def instant(_: click.Context, __: click.Parameter, value: str | None) -> Any:
    """A time in ISO 8601; UTC where it says no zone."""
    from datetime import UTC, datetime

    try:
        at = datetime.fromisoformat(value) if value else None
    except ValueError as problem:
        raise click.BadParameter(f"{value!r} is no time; write 2026-03-29 or 2026-03-29T14:00:00Z") from problem
    return at if at is None or at.tzinfo else at.replace(tzinfo=UTC)


@command("watchkeeper drift train.parquet live.csv --html drift.html")
@click.argument("reference")
@click.argument("current")
@click.option("--columns", multiple=True, metavar="NAME", help="Only this column, or those that match a pattern such as 'p*'; may be given again.")
@click.option("--nominal", multiple=True, metavar="NAME", help="Whole numbers that are names, to be compared as categories; may be given again.")
@click.option("--false-discovery", type=SHARE, default=0.05, show_default=True, help="The share of false calls among all calls that is accepted.")
@click.option("--floor-number", type=SHARE, default=0.1, show_default=True, help="The Kolmogorov-Smirnov distance a drift of numbers must exceed.")
@click.option("--floor-category", type=SHARE, default=0.1, show_default=True, help="The share of rows that must have moved between categories.")
@click.option("--floor-nulls", type=SHARE, default=0.02, show_default=True, help="By how much the share of nulls must have changed.")
@click.option("--time", "time", metavar="COLUMN", help="The column of CURRENT that says when, for --since and --until.")
@click.option("--since", callback=instant, metavar="TIME", help="Only rows of CURRENT from then on, such as 2026-03-29T14:00:00Z.")
@click.option("--until", callback=instant, metavar="TIME", help="Only rows of CURRENT before then.")
@click.option("--brief", is_flag=True, help="Leave out the distances that walk over all values (Wasserstein and others), which take longest.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Also write a page with a picture of every column.")
def drift(
    call: Call, reference: str, current: str, time: str | None, since: Any, until: Any, brief: bool, html: Path | None, **settings: Any
) -> None:
    """Whether CURRENT still follows the distribution of REFERENCE, column by column.

    Each is a file (.parquet, .csv, .jsonl, .sqlite, .duckdb), a quoted pattern of files, or a table's URL such as sqlite:log.db?table=live.
    No configuration is needed and nothing is remembered. Exit code 1: a column drifted, is missing or changed its type; 3: nothing
    could be compared.
    """
    from agent import show
    from agent.commands import _ranked
    from agent.commands.looking import worst
    from agent.perform import perform

    if (since or until) and not time:
        raise click.UsageError("--since and --until need --time: which column says when")
    call.hide(reference, current)
    reference, current = table(reference), table(current)
    job = {
        "check": CHECK,
        "locators": _locators(reference, current, time),
        "window": _window(since, until),
        "parameters": {**_given(settings), "describe": not brief, "draw_all": html is not None},
    }
    with show.progress(not call.json) as tell:
        verdict = perform(job, tell)
    told = {
        "status": verdict.status.value,
        "reason": verdict.reason,
        "reference": reference,
        "current": current,
        "html": _written(html, verdict.data),
        **json.loads(verdict.data.get("compare.json", b"{}")),
    }
    call.say(told, _ranked.drift)
    raise SystemExit(worst([verdict.status.value]))


def _locators(reference: str, current: str, time: str | None) -> Mapping[str, Any]:
    from agent.model import Locator

    when = {"time": {"column": time, "tz": "UTC"}} if time else {}
    return {"reference": Locator("drift", "reference", reference), "live": Locator("drift", "live", current, when)}


def _window(since: Any, until: Any) -> Sequence[Any] | None:
    from datetime import UTC, datetime

    if not since and not until:
        return None
    return [since or datetime(1, 1, 1, tzinfo=UTC), until or datetime(9999, 12, 31, tzinfo=UTC)]


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Lists as a check takes them; what was not given is left to the check."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items() if value != ()}


def _written(html: Path | None, data: Mapping[str, bytes]) -> str | None:
    if html is None or "compare.html" not in data:
        return None
    from agent.errors import ConfigError

    try:
        html.write_bytes(data["compare.html"])
    except OSError as problem:
        raise ConfigError(f"--html {html} cannot be written: {problem.strerror}; name another file") from problem
    return str(html)
