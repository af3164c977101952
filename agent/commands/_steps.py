"""A run as it goes: on a terminal a live table with a spinner for the step under way, elsewhere a line a step; on stderr, and not with --json."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from agent.account import length
from agent.door import Call
from agent.model import StepRow
from agent.show import plain, step, word

Follow = Callable[[StepRow | str], None]  # a step as it changes, or what the run waits for
UNDER_WAY = ("intended", "undoing")
SAID = {"planned": "to come", "intended": "under way", "undoing": "taken back"}  # states as one says them while they last
EVERY = 8  # drawings a second


@contextmanager
def shown(call: Call) -> Iterator[Follow]:
    """What the steps of a run are told to."""
    if call.json or not sys.stderr.isatty() or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        yield lambda row: _line(call, row)
        return
    from rich.console import Console
    from rich.live import Live

    table = Steps(call)
    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    with Live(get_renderable=table.drawn, console=console, refresh_per_second=EVERY, transient=True):
        yield table.tell


def _line(call: Call, row: StepRow | str) -> None:
    if isinstance(row, str) or row.state != "planned":
        call.also(step(row).rstrip())


class Steps:
    """The steps so far, those still to come too, and what the run waits for."""

    def __init__(self, call: Call) -> None:
        from rich.spinner import Spinner

        self.call, self.rows, self.waits = call, dict[tuple[bool, int], StepRow](), ""
        self._spinner = Spinner("line", style="yellow")

    def tell(self, row: StepRow | str) -> None:
        if isinstance(row, str):
            self.waits = row
        else:
            self.rows[row.undo, row.n] = row
            self.waits = "" if row.state in UNDER_WAY else self.waits

    def drawn(self) -> Any:
        """The table as it stands this moment."""
        from rich.table import Table

        made = Table.grid(padding=(0, 2, 0, 0))
        for column in ({"width": 1}, {"no_wrap": True}, {"no_wrap": True}, {"no_wrap": True, "justify": "right", "min_width": 6}, {}):
            made.add_column(**column)
        for row in list(self.rows.values()):
            going = row.state in UNDER_WAY
            made.add_row(self._spinner if going else "", plain(row.name), self._state(row), elapsed(row), self._said(row.said))
        if self.waits or not self.rows:
            made.add_row(self._spinner, "", word("waits"), "", self._said(self.waits or "it is being planned"))
        return made

    def _state(self, row: StepRow) -> Any:
        from rich.text import Text

        return Text(SAID.get(row.state, row.state), style=word(row.state).style)

    def _said(self, text: str) -> str:
        return self.call.discreet(plain(text))


def elapsed(row: StepRow, now: datetime | None = None) -> str:
    """How long a step has taken so far, or took; nothing before it began."""
    if row.intended_at is None or row.state == "planned":
        return ""
    until = row.ended_at or (now or datetime.now(UTC) if row.state in UNDER_WAY else row.intended_at)
    return length(max(until - row.intended_at, timedelta()))
