"""Fills `${...}` in from the environment and from files; for the configuration as it is read, and for a step as it acts."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote

from agent.config.problems import shown
from agent.errors import ConfigError

SECRET_LIMIT = 1 << 16  # bytes in one ${file:...}
HIDES = 2  # what is no longer than this hides nothing, and stands by chance in other words
REFERENCE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<inside>[^{}]*)(?P<end>\}?))")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def meant(match: re.Match[str], folder: Path) -> str:
    """What one reference stands for: `${NAME}`, `${NAME:-default}` or `${file:path}` from the folder; `$$` is a dollar. Else a ValueError."""
    if match["dollar"]:
        return "$"
    if not match["end"]:
        raise ValueError("`${` has no `}`; write `$$` for a dollar sign")
    inside = match["inside"]
    return _secret(inside.removeprefix("file:"), folder) if inside.startswith("file:") else _variable(inside)


def _variable(inside: str) -> str:
    name, has_default, default = inside.partition(":-")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{shown('${' + inside + '}')} is not ${{NAME}}, ${{NAME:-default}} or ${{file:path}}; write `$$` for a dollar sign")
    found = os.environ.get(name)
    if found is None and not has_default:
        raise ValueError(f"the environment has no {shown(name)[1:-1]}; set it, or write ${{{shown(name)[1:-1]}:-default}}")
    return default if not found and has_default else found or ""


def _secret(name: str, folder: Path) -> str:
    path = folder / name
    try:
        if not path.is_file():
            raise ValueError(f"there is no file {shown(name)} in {folder}; write the secret into it")
        with path.open("rb") as file:
            data = file.read(SECRET_LIMIT + 1)
        if len(data) > SECRET_LIMIT:
            raise ValueError(f"the file {shown(name)} has more than {SECRET_LIMIT:,} bytes, too many for a secret")
        return data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as problem:
        raise ValueError(f"the file {shown(name)} is not UTF-8 (offset {problem.start}); save it as UTF-8") from problem
    except OSError as problem:
        raise ValueError(f"the file {shown(name)} cannot be read ({problem.strerror})") from problem


class Filling:
    """Fills text in for one call, and hides again what it filled in, in whatever is said of that call."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secrets: dict[str, str] = {}  # what was filled in -> as it is written

    def __call__(self, text: str) -> str:
        """The text filled in; ConfigError says what cannot be."""
        try:
            return REFERENCE.sub(self._meant, text)
        except ValueError as problem:
            raise ConfigError(str(problem)) from problem

    def _meant(self, match: re.Match[str]) -> str:
        found = meant(match, self.folder)
        if len(found) > HIDES:
            self.secrets |= dict.fromkeys((found, quote(found, safe=""), quote(found)), match[0])
        return found

    def hidden(self, text: str) -> str:
        """The text with everything that was filled in as it is written, the longest first."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, self.secrets[secret])
        return text
