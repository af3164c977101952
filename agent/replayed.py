"""Puts what was replayed on a terminal: the same JSON that `--json` prints, as text for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from rich.text import Text

from agent.model import Json, Status, spell
from agent.show import number, plain, printed, rows, when, word

SHOWN = 20  # incidents told at length


def backtest(told: Mapping[str, Json]) -> str:
    """What a backtest found."""
    things: list[Any] = [f"{when(told['since'])} to {when(told['until'])}: {told['windows']:,} windows of {_several(len(told['watches']), 'watch')}"]
    if told["stopped_at"]:
        things.append(Text(f"interrupted: this is what was seen up to {when(told['stopped_at'])}", style="bold yellow"))
    things += [Text(would_have(told), style="bold"), ""]
    for one in told["incidents"][:SHOWN]:
        things += [*_incident(one), ""]
    if len(told["incidents"]) > SHOWN:
        things += [f"and {len(told['incidents']) - SHOWN} more incidents: --json tells all", ""]
    if told["watches"]:
        things += [*_watches(told["watches"]), ""]
    things += [f"cannot be replayed: {plain(one['watch'])}: {plain(one['why'])}" for one in told["left_out"]]
    things += [f"note: {plain(note)}" for note in told["notes"]]
    if told["windows"]:
        things.append(f"{told['cpu_seconds']:.3g} CPU seconds, {1000 * told['cpu_seconds'] / told['windows']:.3g} ms a window")
    return printed(*things)


def would_have(told: Mapping[str, Json]) -> str:
    """The whole of it in one line."""
    if not told["judged"]:
        return "nothing could be judged"
    done = told["would_have"]
    if not done["opened"]:
        return "would have opened no incident"
    runs = "".join(f", proposed {_several(count, name)}" for name, count in done["proposed"].items()) or ", proposed nothing"
    return f"would have opened {_several(done['opened'], 'incident')}, paged {_times(done['paged'])}{runs}"


def _several(count: int, what: str) -> str:
    plural = f"{what}es" if what.endswith(("ch", "s")) else f"{what}s"
    return f"one {what}" if count == 1 else f"{count:,} {plural}"


def _times(count: int) -> str:
    return ("nobody", "once", "twice")[count] if count < 3 else f"{count} times"


def _incident(one: Mapping[str, Json]) -> Iterator[Any]:
    lasted = f"lasted {spell(timedelta(seconds=one['lasted']))}" if one["lasted"] is not None else "not over in the end"
    yield Text.assemble((f"incident {one['id']}", "bold"), "  ", word(one["severity"]), f"  {plain(one['title'])}")
    yield f"  opened {when(one['opened_at'])}, {lasted}"
    for member in one["members"]:
        end = f" to {when(member['cleared_at'])}" if member["cleared_at"] else ""
        yield f"  {plain(member['watch'])}: bad from {when(member['since_at'])}{end}"
        for finding in member["evidence"]:
            yield Text.assemble(
                f"    {when(finding['at'])}  ",
                word(finding["status"]),
                f"  {plain(finding['reason'].partition(chr(10))[0])}{_reading(finding['reading'])}",
            )
    yield f"  told: {', '.join(_letters(one['told'])) or 'nobody'}"
    if one["proposed"]:
        yield "  proposed: " + ", ".join(f"{run['runbook']} {when(run['at'])}" for run in one["proposed"])


def _reading(reading: Mapping[str, Json] | None) -> str:
    if not reading or reading["observed"] is None:
        return ""
    limit = f", limit {number(reading['limit'], reading['unit'])}" if reading["limit"] is not None else ""
    return f" (observed {number(reading['observed'], reading['unit'])}{limit})"


def _letters(told: list[Mapping[str, Json]]) -> Iterator[str]:
    """Who heard what; reminders are counted."""
    heard: dict[tuple[str, str], int] = {}
    for letter in told:
        key = (letter["channel"], letter["what"].split("/")[0])
        heard[key] = heard.get(key, 0) + 1
    for (channel, what), count in heard.items():
        yield f"{plain(channel)} {what}{f' x{count}' if count > 1 else ''}"


def _watches(told: list[Mapping[str, Json]]) -> Iterator[Any]:
    body = [[w["watch"], f"{w['windows']:,}", *(f"{w['counts'][status]:,}" for status in Status)] for w in told]
    yield rows(("watch", "windows", *Status), body, wraps=0)
    near = [[w["watch"], limit["part"] or "", *_near(limit)] for w in told for limit in w["limits"]]
    if near:
        yield ""
        yield "windows that would have failed, had the limit been"
        yield rows(("watch", "worst part", "x0.5", "x0.8", "as it is", "x1.25", "x2", ""), near, wraps=0)
    for w in told:
        if w["too_slow"]:
            yield f"{plain(w['watch'])}: {w['too_slow']:,} looks took longer here than the watch allows, and would have been errors"


def _near(limit: Mapping[str, Json]) -> list[str]:
    return [*(f"{count:,}" for count in limit["would_fail_at_limit_times"].values()), "by the readings alone" if limit["approximate"] else ""]


def tests(found: Sequence[Mapping[str, Json]]) -> str:
    """What came of test files: a line for each test, and what was missed."""
    things: list[Any] = []
    for one in found:
        mark = ("ok    ", "green") if one["ok"] else ("FAILED", "bold red")
        things.append(Text.assemble(mark, f"  {plain(one['file'])}: {plain(one['name'])}"))
        for missed in one["missed"]:
            things.append(f"    at {missed['at']}  {plain(missed['what'])}")
            things += [f"      expected  {_short(missed['expected'])}", f"      got       {_short(missed['got'])}"]
    bad = sum(not one["ok"] for one in found)
    things.append(f"{_several(len(found), 'test')}, {bad if bad else 'none'} failed")
    return printed(*things)


def _short(value: Json) -> str:
    return plain(value) if isinstance(value, str) else plain(json.dumps(value, ensure_ascii=False))
