"""The pages, at `/` and `/fleet`: HTML that carries its style and its few lines of script, and asks nobody else for anything."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from agent.model import Json, spell
from agent.preview import NEVER

WORDS = {"o": "ok", "w": "warn", "f": "fail", "e": "error", "n": "nodata", "s": "skip"}
STATES = {
    "ok": "ok",
    "bad": "bad",
    "blind": "cannot see",
    "stale": "stale: not looked at lately",
    "new": "not looked at yet",
    "unwatched": "not watched",
}
TONES = {"READY": "ok", "CONDITIONAL": "warn", "NOT-READY": "fail", "UNVERIFIED": "error", None: "new"}


def shown(state: Mapping[str, Json]) -> HTMLResponse:
    """The page for that state."""
    return _rendered("page.html", state)


def fleet(state: Mapping[str, Json]) -> HTMLResponse:
    """The page of the fleet."""
    return _rendered("fleet.html", {**state, "tones": TONES, "counted": Counter(one["verdict"] for one in state["services"])})


def _rendered(name: str, state: Mapping[str, Json]) -> HTMLResponse:
    """Its policy lets a browser run the script and use the style that stand in it, and nothing else."""
    return HTMLResponse(_template(name).render(state), headers={"Content-Security-Policy": _policy(name)})


@cache
def _template(name: str) -> Template:
    house = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    house.filters.update(ago=ago, clock=clock, long=long, number=number, seconds=seconds, word=STATES.__getitem__)
    house.globals.update(words=WORDS, never=NEVER)
    return house.get_template(name)


@cache
def _policy(name: str) -> str:
    text, styles = ((Path(__file__).parent / file).read_text(encoding="utf-8") for file in (name, "_style.html"))
    style, script = _digests(styles, "style"), _digests(text, "script") or "'none'"
    rest = "connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; style-src {style}; script-src {script}; {rest}"


def _digests(text: str, tag: str) -> str:
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'" for inside in found)


def clock(at: str | None) -> str:
    """A time of the JSON API as people read it."""
    return "" if at is None else f"{datetime.fromisoformat(at):%Y-%m-%d %H:%M:%S}Z"


def long(start: str, end: str | None) -> str:
    """From one time to another, in words."""
    length = datetime.fromisoformat(end) - datetime.fromisoformat(start) if end else timedelta()
    return spell(timedelta(seconds=round(length.total_seconds(), 1)))


def seconds(long: float) -> str:
    """A length in words."""
    return spell(timedelta(seconds=long))


def ago(seconds: float) -> str:
    """An age in words."""
    return f"{spell(timedelta(seconds=max(0, round(seconds))))} ago" if seconds >= 1 else "just now"


def number(value: float | None) -> str:
    """A reading, short."""
    return "" if value is None else f"{value:,.4g}" if abs(value) < 1e6 else f"{value:.3g}"
