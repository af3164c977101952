"""`python -m docs.picture`: plays the demo once and writes docs/demo.svg, its two middle parts as they were told; long lines are cut."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from examples.digits.narrator import COLOURS

PICTURE = Path(__file__).resolve().parent / "demo.svg"
WIDTH = 124
FIRST, LAST = "loads version 2", "$ watchkeeper audit run"
FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # from elsewhere; a picture asks nobody for anything


def told() -> Iterator[Mapping[str, Any]]:
    """The lines of one run from the bad deployment to the end of the broken images; nothing when a step was missed."""
    run = subprocess.run([sys.executable, "-m", "agent.cli", "demo", "--once", "--json"], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    first, last = (next(n for n, line in enumerate(lines) if line["what"].startswith(word)) for word in (FIRST, LAST))
    yield from lines[first:last]


def draw(lines: Iterator[Mapping[str, Any]]) -> str:
    console = Console(record=True, width=WIDTH, file=io.StringIO(), highlight=False)
    for line in lines:
        who = line["who"]
        row = Text.assemble((f"{line['at']:6.1f} s", "dim"), "  ", (f"{who:<9}", COLOURS.get(who, "")), " ", line["what"])
        row.truncate(WIDTH, overflow="ellipsis")
        console.print(row, no_wrap=True)
    return FONTS.sub("", console.export_svg(title="make demo", unique_id="demo"))


if __name__ == "__main__":
    PICTURE.write_text("\n".join(row.rstrip() for row in draw(told()).splitlines()) + "\n", encoding="utf-8")
