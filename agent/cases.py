"""Reads a test file: a configuration, the rows it is to judge, and what must have come of it at which time; every mistake with its place."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from agent import config as configuration
from agent import series
from agent.config import Config
from agent.config.file import File
from agent.config.problems import Path as Place
from agent.config.problems import near, spell_path
from agent.config.shape import Shape
from agent.config.source import Source
from agent.config.source import read as read_source
from agent.config.text import Node
from agent.config.words import Length, Moment, SomeLength, is_url, text_as
from agent.errors import ConfigError
from agent.model import Json, Locator, spell
from agent.plugins import TABLES

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
LONGEST = timedelta(days=400)
Seen = Literal["ok", "warn", "fail", "error", "nodata", "skip", "none"]


class Given(Shape):
    """The rows of one table: generated (`series`), written out (`rows`), or in a file (`url`)."""

    series: dict[str, Json] | None = None
    rows: Annotated[list[dict[str, Json]], Field(min_length=1, max_length=100_000)] | None = None
    url: str | None = None
    every: SomeLength = timedelta(minutes=1)

    @model_validator(mode="after")
    def _one(self) -> Given:
        if len(self.model_fields_set & {"series", "rows", "url"}) != 1 or self.series == {}:
            raise ValueError("needs exactly one of series, rows and url")
        return self


class Open(Shape):
    """An open incident; what is left out is not compared."""

    service: str
    severity: Literal["page", "ticket"] | None = None
    watches: list[str] | None = None


class Expected(Shape):
    """What must hold at a time after the beginning; what is left out is not compared."""

    at: Length
    watches: dict[str, Seen] = Field({})
    incidents: list[Open] | None = None
    told: dict[str, list[str]] = Field({})
    runs: dict[str, list[str]] = Field({})


class Case(Shape):
    """One test."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    begin: Moment = BEGIN
    watches: list[str] | None = None
    tables: dict[str, Annotated[Given, text_as("url")]] = Field({})
    expect: Annotated[list[Expected], Field(min_length=1)]


class Tests(Shape):
    """A test file, without the configuration that may stand in it."""

    configuration: str | None = None
    tests: Annotated[list[Case], Field(min_length=1)]


KEYS: Mapping[str, type[Shape]] = {"": Tests, "tests": Case, "tables": Given, "expect": Expected, "incidents": Open}


@dataclass(frozen=True, slots=True)
class Cases:
    """A test file that can be run: paths in it start at `folder`."""

    path: Path
    folder: Path
    config: Config
    tests: tuple[Case, ...]


def read(path: Path) -> Cases:
    """The tests of a file; ConfigError holds every problem, each with file, line and column."""
    source = read_source(path)
    made = _shaped(source)
    config, problems = _configured(source)
    if made is not None and config is not None:
        for place, case in enumerate(made.tests):
            _judge(source, ("tests", place), case, config)
    lines = [str(problem) for problem in sorted(set(source.problems))] + problems
    if lines:
        raise ConfigError(lines)
    assert made is not None
    assert config is not None
    return Cases(path, source.folder, config, tuple(made.tests))


def _shaped(source: Source) -> Tests | None:
    own = {key: value for key, value in source.value.items() if key not in File.model_fields}
    try:
        return Tests.model_validate(own)
    except ValidationError as problem:
        for error in problem.errors(include_url=False)[:2000]:
            configuration.complain(source, error, _keys_at)
        return None


def _keys_at(path: Place) -> Collection[str]:
    """The keys that may stand at a path."""
    words = [step for step in path if isinstance(step, str)]
    shape = Given if words[-2:-1] == ["tables"] else KEYS.get(words[-1] if words else "")
    return {*(shape.model_fields if shape else ()), *(File.model_fields if not words else ())}


def _configured(source: Source) -> tuple[Config | None, list[str]]:
    """The configuration that is named or stands here, and what is wrong with it."""
    inside = {key: value for key, value in source.value.items() if key in File.model_fields}
    named = source.value.get("configuration")
    if (named is None) == (not inside):
        source.complain(("configuration",), "needs either `configuration:`, which names one, or `services:` here")
        return None, []
    if named is not None and not isinstance(named, str):
        return None, []
    try:
        return configuration.load(source.folder / named) if named else configuration.made(_part(source, inside)), []
    except ConfigError as problem:
        return None, list(problem.problems)


def _part(source: Source, inside: dict[str, Json]) -> Source:
    """The keys of the configuration as a source of their own; places in it stay those of the file."""
    root = Node("mapping", source.root.file, source.root.line, source.root.column)
    root.pairs = [(key, item) for key, item in source.root.pairs if key.text in inside]
    return Source(source.path, source.folder, source.digest, root, inside, filled=source.filled, lost=source.lost)


# Names and values, against the configuration


def _judge(source: Source, path: Place, case: Case, config: Config) -> None:
    watches = {w.key for _, w in config.watches()}
    tables = targets(config)
    for place, key in enumerate(case.watches or ()):
        _known(source, (*path, "watches", place), key, watches, "watch")
    for name, given in case.tables.items():
        if _known(source, (*path, "tables", name), name, tables, "table", at_key=True):
            _rows(source, (*path, "tables", name), given, tables[name], case)
    for place, one in enumerate(case.expect):
        _expected(source, (*path, "expect", place), one, config, watches)


def targets(config: Config) -> dict[str, Locator]:
    """Every table of a configuration by "service.role"."""
    return {f"{name}.{role}": at for name, one in config.services.items() for role, at in one.targets.items() if at.role in TABLES}


def _known(source: Source, path: Place, word: str, known: Collection[str], what: str, at_key: bool = False) -> bool:
    if word not in known:
        source.complain(path, f"no {what} '{word[:60]}'{near(word, known)}", at_key=at_key)
    return word in known


def _rows(source: Source, path: Place, given: Given, at: Locator, case: Case) -> None:
    try:
        if given.series is not None:
            for name, written in given.series.items():
                _values(source, (*path, "series", name), name, written)
            series.columns(given.series)
        elif given.url is not None and not is_url(given.url):
            source.complain((*path, "url"), "is not a table's URL; write parquet:rows.parquet or the like, or give series or rows")
    except ValueError as problem:
        if not any(one.key.startswith(spell_path(path)) for one in source.problems):  # else a column was complained of already
            source.complain((*path, "series"), str(problem))


def _values(source: Source, path: Place, name: str, written: Json) -> None:
    try:
        series.values(name, written)
    except ValueError as problem:
        source.complain(path, str(problem))


def _expected(source: Source, path: Place, one: Expected, config: Config, watches: Collection[str]) -> None:
    if one.at > LONGEST:
        source.complain((*path, "at"), f"is more than {spell(LONGEST)} after the beginning")
    for key in one.watches:
        _known(source, (*path, "watches", key), key, watches, "watch", at_key=True)
    for channel in one.told:
        _known(source, (*path, "told", channel), channel, list(config.notify.channels), "channel", at_key=True)
    for service in one.runs:
        _known(source, (*path, "runs", service), service, list(config.services), "service", at_key=True)
    for place, incident in enumerate(one.incidents or ()):
        where = (*path, "incidents", place)
        if incident.service != "*" and _known(source, (*where, "service"), incident.service, list(config.services), "service"):
            own = {w.name for w in config.services[incident.service].watches}
            for number, name in enumerate(incident.watches or ()):
                _known(source, (*where, "watches", number), name.removeprefix(f"{incident.service}/"), own, f"watch of {incident.service}")


def stops(case: Case) -> Iterator[tuple[datetime, Expected]]:
    """When each expectation is looked at."""
    for one in sorted(case.expect, key=lambda one: one.at):
        yield case.begin + one.at, one
