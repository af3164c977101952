"""The ways an audit is written: each a pure function of the one result, by name and by the ending of its file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from agent.audit.canonical import canonical
from agent.audit.exchange import badge, junit, sarif, table
from agent.audit.markdown import markdown
from agent.audit.pages import page
from agent.errors import ConfigError
from agent.model import Json

FORMATS: Mapping[str, Callable[[Mapping[str, Json]], bytes]] = {
    "json": canonical,
    "html": lambda report: page(report).encode("utf-8", "replace"),
    "md": lambda report: markdown(report).encode("utf-8", "replace"),
    "sarif": sarif,
    "junit": junit,
    "badge": badge,
    "csv": table,
}
ENDINGS = {".json": "json", ".html": "html", ".htm": "html", ".md": "md", ".sarif": "sarif", ".xml": "junit", ".svg": "badge", ".csv": "csv"}


def form_of(file: Path) -> str:
    """The format that the ending of a file asks for; ConfigError where it asks for none."""
    found = ENDINGS.get(file.suffix.lower())
    if found is None:
        raise ConfigError(f"{file}: its ending names no format; end it in {', '.join(ENDINGS)}, or say --format")
    return found


def written(report: Mapping[str, Json], form: str) -> bytes:
    """The audit in one of the formats."""
    return FORMATS[form](report)
