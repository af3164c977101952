"""Tells the story: one line for what was done or said by whom, and when; in colours on a terminal, as plain text or JSON elsewhere."""

from __future__ import annotations

import json
import os
import sys
import textwrap
import time
from collections.abc import Callable
from typing import Any

COLOURS = {"operator": "cyan", "users": "magenta", "upstream": "yellow", "agent": "green", "ada": "blue", "story": "bold"}
MARGIN = 20  # columns of time and name


class Narrator:
    """`plain` or NO_COLOR turn colours off; `as_json` prints one JSON object a line. Times are seconds since the story began."""

    def __init__(self, plain: bool = False, as_json: bool = False) -> None:
        self.began_at, self.json = time.time(), as_json
        self._console: Any = None
        self._status: Any = None
        if not as_json and not plain and sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
            from rich.console import Console

            self._console = Console(highlight=False)

    def __enter__(self) -> Narrator:
        if self._console:
            self._status = self._console.status("")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    @property
    def seconds(self) -> float:
        return time.time() - self.began_at

    def tell(self, who: str, what: str, at: float | None = None) -> None:
        """One line; `at` is the time (seconds since 1970) of what happened earlier."""
        seconds = self.seconds if at is None else at - self.began_at
        if self.json:
            print(json.dumps({"at": round(seconds, 3), "who": who, "what": what}), flush=True)
        elif self._console:
            self._coloured(f"{seconds:6.1f} s", who, what)
        else:
            print(f"{seconds:6.1f} s  {who:<9} {what}", flush=True)

    def now(self, text: Callable[[], str]) -> None:
        """What the last line of a terminal shows, until it is next said; not asked for where there is no terminal."""
        if self._status:
            self._status.update(text())

    def also(self, text: str) -> None:
        """Lines that belong to no moment: headings, figures, what to try."""
        if self.json:
            return
        self._console.print(text, style="bold", markup=False, soft_wrap=True) if self._console else print(text, flush=True)

    def _coloured(self, when: str, who: str, what: str) -> None:
        from rich.text import Text

        wrapped = textwrap.wrap(what, max(40, self._console.width - MARGIN)) or [""]
        said = ("\n" + " " * MARGIN).join(wrapped)
        self._console.print(Text.assemble((when, "dim"), "  ", (f"{who:<9}", COLOURS.get(who, "")), " ", said), soft_wrap=True)
