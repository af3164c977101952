"""A comparison of two tables on a terminal: the columns that drifted first, each with a bar that shows how far, how surely, and its limit."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.text import Text

from agent.model import Json
from agent.show import plain, printed, rows

SHOWN = 20  # columns that fit on one screen
WIDTHS = {"column": 28, "how far it moved": 20, "by (95 % interval)": 18, "limit": 5, "p": 7, "PSI": 5, "nulls": 14, "test": 18}
LEAST = ("test", "PSI", "limit")  # what is left out first where the terminal is narrow: a number cut short would be another number
Line = Mapping[str, Json]


def drift(told: Mapping[str, Json]) -> str:
    """What `watchkeeper drift` says to people."""
    columns, notes = _by_column(told.get("comparisons") or ()), told.get("not_compared") or ()
    drifted = [name for name, lines in columns.items() if any(line["drifted"] for line in lines.values())]
    things: list[Any] = [_head(told, len(drifted), len(columns)), f"  {plain(told['current'])} against {plain(told['reference'])}"]
    things += [Text(f"  {_cut(note['name'], 40)}: {plain(note['why'])}", style="yellow") for note in notes if note["changed"]][:SHOWN]
    if columns:
        top = (
            max((max(lines["values"]["interval"][1], lines["values"]["limit"]) for lines in columns.values() if "values" in lines), default=1.0)
            or 1.0
        )
        widths = _fitting()
        shown = [_row(name, lines, top, widths) for name, lines in list(columns.items())[:SHOWN]]
        things += ["", rows(list(widths), [[row[head] for head in widths] for row in shown], 2)]
        things += [*_more(columns), "", *_legend(told, top)]
    things += _left_out([note for note in notes if not note["changed"]])
    if told.get("html"):
        things.append(f"  wrote {plain(told['html'])}")
    return printed(*things)


def _head(told: Mapping[str, Json], drifted: int, of: int) -> Text:
    if told["status"] == "fail":
        return Text.assemble((f"DRIFT: {_columns(drifted)} of {of} moved further than the limit", "bold red"))
    if told["status"] == "ok":
        return Text(f"no drift: {_columns(of)} compared, each within its limit", style="bold green")
    if told["status"] == "warn":
        return Text(f"no drift in the {_columns(of)} compared, but the table itself changed", style="bold yellow")
    return Text(f"{told['status']}: {plain(told['reason'])}", style="bold yellow")


def _columns(count: int) -> str:
    return f"{count} column{'' if count == 1 else 's'}"


def _by_column(lines: Sequence[Line]) -> dict[str, dict[str, Line]]:
    """Column -> its comparisons, of `values` and of `nulls`; in the order in which its first one comes."""
    found: dict[str, dict[str, Line]] = {}
    for line in lines:
        found.setdefault(line["column"], {})["values" if line["name"] == line["column"] else "nulls"] = line
    return found


# One row a column


def _fitting() -> dict[str, int]:
    """The columns that a terminal has room for, and their widths."""
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else 1000
    widths = dict(WIDTHS)
    for head in LEAST:
        if sum(widths.values()) + 2 * len(widths) + 2 > room:
            del widths[head]
    if sum(widths.values()) + 2 * len(widths) + 2 > room:
        widths |= {"column": 16, "how far it moved": 12}
    return widths


def _row(name: str, lines: Mapping[str, Line], top: float, widths: Mapping[str, int]) -> dict[str, Any]:
    values, nulls = lines.get("values"), lines.get("nulls")
    called = any(line["drifted"] for line in lines.values())
    row: dict[str, Any] = dict.fromkeys(WIDTHS, "")
    row |= {"column": Text(_cut(name, widths["column"]), style="bold red" if called else ""), "nulls": _nulls(nulls)}
    if values is None:
        return row | {"by (95 % interval)": "too few values"}
    low, high = values["interval"]
    return row | {
        "how far it moved": _bar(values, top, widths["how far it moved"]),
        "by (95 % interval)": f"{values['effect']:.2f} ({low:.2f}-{high:.2f})",
        "limit": f"{values['limit']:g}",
        "p": _p(values["p_adjusted"]),
        "PSI": f"{values['distances']['psi']:.2f}",
        "test": values["how"].split(",")[0],
    }


def _cut(name: str, width: int) -> str:
    return plain(name if len(name) <= width else f"{name[: width - 1]}…").replace("\n", "\N{REPLACEMENT CHARACTER}")


def _bar(line: Line, top: float, width: int) -> Text:
    """Solid as far as the column surely moved, dotted as far as it may have: the solid part passes the mark just when the effect passes its limit."""
    low, high = line["interval"]
    mark = min(width - 2, int(line["limit"] / top * width))
    sure = round(low / top * width)
    sure = max(sure, mark + 2) if low > line["limit"] else min(sure, mark)
    perhaps = max(sure, round(high / top * width))
    cells = ["━" if place < sure else "┄" if place < perhaps else " " for place in range(width)]
    cells[mark] = "│"
    return Text("".join(cells), style="red" if line["drifted"] else "")


def _p(value: float) -> str:
    return "< 1e-99" if value < 1e-99 else f"{value:.2g}"


def _nulls(line: Line | None) -> Text:
    if line is None:
        return Text("none")
    now, then = line["shares"]
    return Text(f"{_percent(then)} → {_percent(now)} %", style="bold red" if line["drifted"] else "")


def _percent(share: float) -> str:
    return "0" if not share else "< 0.1" if share < 0.001 else f"{share * 100:.2g}" if share < 0.1 else f"{share * 100:.0f}"


# Below the table


def _more(columns: Mapping[str, Mapping[str, Line]]) -> Iterator[str]:
    hidden = list(columns.values())[SHOWN:]
    if hidden:
        called = sum(any(line["drifted"] for line in lines.values()) for lines in hidden)
        said = f"{called} of them drifted" if called else "all within their limits"
        yield f"  and {len(hidden)} more, {said}: --json lists them, --html draws them"


def _legend(told: Mapping[str, Json], top: float) -> Iterator[Text]:
    yield Text(f"  ━ surely moved so far, ┄ perhaps so far, │ the limit; the bar ends at {top:.2g}. p is adjusted over all comparisons.", style="dim")
    yield Text(f"  At these sizes a shift below {told['smallest_distance']:.2g} cannot be called.", style="dim")


def _left_out(notes: Sequence[Line]) -> Iterator[Text]:
    if notes:
        words = "; ".join(f"{_cut(note['name'], 40)}: {plain(note['why'])}" for note in notes[:3])
        yield Text(f"  not compared: {words}" + (f"; and {len(notes) - 3} more" if len(notes) > 3 else ""), style="dim")
