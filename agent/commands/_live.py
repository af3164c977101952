"""A run as it goes on: a bar and its numbers on a terminal, a plain line every few seconds elsewhere; always on stderr."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any

import click

from agent.show import plain

Tell = Callable[[float, str], None]
EVERY = 5.0  # seconds between two lines where nobody sees a bar


@contextmanager
def watching() -> Iterator[Tell]:
    """What a check tells its progress to."""
    with _drawn() if sys.stderr.isatty() else _written() as tell:
        yield tell


@contextmanager
def _written() -> Iterator[Tell]:
    last = -EVERY

    def tell(done: float, what: str) -> None:
        nonlocal last
        if monotonic() - last >= EVERY:
            last = monotonic()
            click.echo(f"{done * 100:3.0f} %  {plain(what)}", err=True)

    yield tell


@contextmanager
def _drawn() -> Iterator[Tell]:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    bar = Progress(*columns, auto_refresh=False)
    task = bar.add_task("getting ready", total=1.0)
    with Live(bar, console=Console(stderr=True), transient=True, refresh_per_second=4) as live:

        def tell(done: float, what: str) -> None:
            where, numbers = said(what)
            bar.update(task, completed=done, description=plain(where)[:40])
            live.update(Group(bar, _table(numbers)) if numbers else bar)

        yield tell


def said(what: str) -> tuple[str, Sequence[tuple[str, str]]]:
    """'12 s of 60: 200 a second, p50 3 ms' as '12 s of 60' and (name, number) pairs; other words have no numbers."""
    where, _, rest = plain(what).rpartition(": ")
    if not where or ", " not in rest:
        return plain(what), ()
    pairs = []
    for part in rest.split(", "):
        number = re.fullmatch(r"(-?[\d.,]+)\s+(.*)", part)
        name, _, value = part.partition(" ")
        pairs.append((number[2], number[1]) if number else (name, value))
    return where, pairs


def _table(numbers: Sequence[tuple[str, str]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for name, _ in numbers:
        table.add_column(Text(name), justify="right", min_width=7)
    table.add_row(*(Text(value, style="bold red" if name == "errors" and value != "0" else "bold") for name, value in numbers))
    return table
