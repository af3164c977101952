"""A file that holds the parameters of one check, apart from any configuration: read, judged and told in the same way."""

from __future__ import annotations

from pathlib import Path

from agent.config import parameters
from agent.config.source import read
from agent.errors import ConfigError
from agent.model import Json
from agent.plugins import find


def settings(path: Path, check: str, holds: tuple[str, str]) -> dict[str, Json]:
    """What a YAML file gives to a check; ConfigError holds every problem with file, line and column.

    `holds` is what such a file is called and the key it usually has, for the sentence about one that is empty.
    """
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; name one file of {holds[0]}")
    plugin, source = find("check", check), read(path, holds)
    source.raise_problems()
    for where, text in parameters.problems(plugin, source.value):
        source.complain(where, text, at_key=text.startswith(f"{check} has no parameter"))
    source.raise_problems()
    return parameters.plainly(plugin, source.value)
