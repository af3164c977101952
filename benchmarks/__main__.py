"""`make bench`: runs every benchmark as a program of its own and prints one table; exit 1 when a figure is beyond its limit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import _peers

HERE = Path(__file__).resolve().parent
MOST = 900.0  # seconds one benchmark may take


@dataclass(frozen=True)
class Figure:
    """One measured number beside what was promised. No limit: it is printed, not judged; without a value it is a peer that is not here."""

    figure: str
    value: float | None
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None
    note: str = ""
    broken: bool = False

    @property
    def word(self) -> str:
        if self.value is None:
            return "not measured" if self.broken or self.promise else "not here"
        if self.at_most is None and self.at_least is None:
            return ""
        low = self.at_least is None or self.value >= self.at_least
        return "ok" if low and (self.at_most is None or self.value <= self.at_most) else "MISSED"

    @property
    def promise(self) -> str:
        pairs = (("at most", self.at_most), ("at least", self.at_least))
        return ", ".join(f"{word} {limit:g}" for word, limit in pairs if limit is not None)


def main(chosen: list[str]) -> int:
    names = sorted(path.stem for path in HERE.glob("*.py") if not path.name.startswith("_"))
    if unknown := set(chosen) - set(names):
        print(f"no benchmark {', '.join(sorted(unknown))}; there is {', '.join(names)}", file=sys.stderr)
        return 2
    figures = [figure for name in chosen or names for figure in run(name)]
    print(table(figures))
    words = {figure.word for figure in figures}
    return 1 if "MISSED" in words else 3 if "not measured" in words else 0


def run(name: str) -> Iterator[Figure]:
    """The figures one benchmark prints, one JSON object a line; its other output passes through to stderr."""
    print(f"... {name}", file=sys.stderr, flush=True)
    for peer in _peers.NEEDED.get(name, ()):  # before its time begins to run: an environment can take minutes
        _peers.python(peer)
    try:
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], stdout=subprocess.PIPE, text=True, cwd=HERE.parent, timeout=MOST)
    except subprocess.TimeoutExpired:
        yield Figure(name, None, broken=True, note=f"ran past {MOST:g} s")
        return
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    yield from (Figure(**json.loads(line)) for line in lines)
    if done.returncode:
        yield Figure(name, None, broken=True, note=f"ended with exit code {done.returncode}")
    elif not lines:
        yield Figure(name, None, broken=True, note="printed no figure")


def table(figures: list[Figure]) -> str:
    rows = [("figure", "measured", "promised", "", "note")]
    for one in figures:
        measured = "-" if one.value is None else f"{one.value:,.4g} {one.unit}".strip()
        rows.append((one.figure, measured, one.promise, one.word, one.note))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
