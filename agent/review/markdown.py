"""Markdown made of what anybody may have said: text from elsewhere stays text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime


def clock(at: str | None) -> str:
    """A time as people read it."""
    return f"{datetime.fromisoformat(at):%Y-%m-%d %H:%M:%S}Z" if at else "-"


def inline(text: object) -> str:
    """Text from elsewhere as a stretch of Markdown: one line, with what would be read as markup taken literally."""
    one = " ".join("".join(c if c.isprintable() or c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in str(text)).split())
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", one)


def bullets(lines: Iterable[str], none: str = "nothing in the record") -> Iterator[str]:
    """A list; `none` where there is nothing to put into it."""
    found = list(lines)
    yield "\n".join(f"- {line}" for line in found or [none]) + "\n"


def table(columns: Sequence[str], body: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table whose cells are plain text."""
    head = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    yield "\n".join([*head, *(f"| {' | '.join(inline(cell) for cell in row)} |" for row in body)]) + "\n"
