"""The words and values a configuration may hold, each judged where it stands and told in a sentence."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from agent.config.problems import Given, kind, near, shown
from agent.config.source import plain
from agent.model import Json, duration
from agent.plugins import Plugin

CAUSES = ("answers", "errors", "latency", "data", "drift", "stale", "business", "owner")
CHANNELS = ("http", "https", "slack+http", "slack+https")


@dataclass(frozen=True, slots=True)
class Known:
    """The words a configuration may refer to."""

    checks: Mapping[str, Plugin]
    packaged: Mapping[str, Plugin]  # runbooks of packages, and
    plans: Mapping[str, Plugin]  # those that the configuration itself writes out
    adapters: Mapping[str, Plugin]
    channels: frozenset[str]

    @property
    def runbooks(self) -> Mapping[str, Plugin]:
        return {**self.plans, **self.packaged}


class Shorthand:
    """A mapping that may also be written in a shorter way; the schema shows both."""

    def __init__(self, expand: Callable[[Json], Json], short: Mapping[str, Json]) -> None:
        self.expand = expand
        self.short = short

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.expand, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Any) -> Mapping[str, Json]:
        return {"anyOf": [dict(self.short), handler(schema)]}


def text_as(key: str) -> Shorthand:
    return Shorthand(lambda value: {key: value} if isinstance(value, str) else value, {"type": "string"})


def read_length(value: Json) -> timedelta:
    """A duration; the bound on the text keeps hostile digits cheap."""
    if isinstance(value, str) and len(value) <= 40:
        return _length(str(value))
    raise ValueError(f"must be a duration such as 250ms, 10s, 5m, 1h30m or 90d, not {kind(value)}")


@functools.lru_cache(maxsize=1024)
def _length(text: str) -> timedelta:
    try:
        length = duration(text)
    except OverflowError:
        length = timedelta.max
    if length > timedelta(days=36525):
        raise ValueError(f"{shown(text)} is more than a hundred years")
    return length


def some_length(value: timedelta) -> timedelta:
    if not value:
        raise ValueError("must be more than 0s")
    return value


def plainly(value: Json) -> Json:
    """${WORKERS} is text, and may stand for a number or true."""
    return plain(value) if isinstance(value, Given) else value


def named(pattern: str, says: str) -> AfterValidator:
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if len(value) > 100 or not compiled.fullmatch(value):
            raise ValueError(f"{shown(value)} cannot be a name; use {says}")
        return value

    return AfterValidator(check)


def time_of_day(value: str) -> str:
    if not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", value):
        raise ValueError(f"{shown(value)} is no time of day; write it as 06:00, in UTC")
    return value


def of(words: Callable[[Known], Any], what: str, hint: str = "") -> AfterValidator:
    """A word that must be among the known ones."""

    def check(value: str, info: ValidationInfo) -> str:
        known = words(info.context) if isinstance(info.context, Known) else (value,)
        if value not in known:
            raise ValueError(f"no {what} {shown(value)}{near(value, known) or (hint and f'; {hint}')}")
        return value

    return AfterValidator(check)


def zone(value: str) -> str:
    try:
        if len(value) <= 64:
            ZoneInfo(value)
            return value
    except (ValueError, KeyError, OSError):
        pass
    from zoneinfo import available_timezones

    raise ValueError(f"no time zone {shown(value)}{near(value, available_timezones()) or '; write UTC or a name such as Europe/Berlin'}")


def moment(value: Json) -> datetime:
    try:
        if not isinstance(value, str):
            raise ValueError
        at = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"must be a time such as 2026-12-24T18:00:00+00:00, not {kind(value)}") from None
    if at.utcoffset() is None:
        raise ValueError(
            f"{shown(value)} has no time zone; write {shown(value + 'Z')} for UTC" if len(value) > 10 else f"{shown(value)} needs a time and a zone"
        )
    return at


def until(value: Json) -> datetime:
    """A day, to its end in UTC, or a time with its zone."""
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
        try:
            return datetime.fromisoformat(f"{value}T23:59:59+00:00")
        except ValueError:
            raise ValueError(f"{shown(value)} is no day there is") from None
    at = moment(value)
    if not 1 < at.year < 9999:  # in another zone it might be a time that cannot be written
        raise ValueError(f"{shown(str(value))} is no time that anybody waits for")
    return at


def address(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not colon or not host or not re.fullmatch(r"\d{1,5}", port, re.ASCII) or int(port) > 65535:
        raise ValueError(f"must be host:port, such as 127.0.0.1:8420, not {shown(value)}")
    return value


def no_password(value: str) -> str:
    """A password in a URL would be shown wherever the URL is."""
    try:
        if urlsplit(value).password:
            raise ValueError("a password does not belong in a URL, which is shown and logged; write it under `auth`")
    except ValueError as problem:
        if "password" in str(problem):
            raise
        raise ValueError(f"{shown(value)} is not a URL; write scheme://host/path") from None
    if not re.match(r"[A-Za-z@]", value):
        raise ValueError(f"{shown(value)} is not a URL; begin with a scheme, such as https://host/path")
    return value


def is_url(value: str) -> bool:
    """Whether a text can be a target's URL."""
    try:
        return bool(no_password(value))
    except ValueError:
        return False


def web(*schemes: str) -> AfterValidator:
    def check(value: str) -> str:
        scheme = value.partition(":")[0].lower()
        try:
            host = urlsplit(value.partition("+")[2] if "+" in scheme else value).hostname
        except ValueError:
            host = None
        if scheme not in schemes or not host:
            raise ValueError(f"must be a URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}, not {shown(value)}")
        return value

    return AfterValidator(check)


def split(service: str, reference: str) -> tuple[str, str]:
    """'fresh' -> (this service, fresh); '@other.data.fresh' -> (other, data.fresh)."""
    if reference.startswith("@"):
        other, _, name = reference[1:].partition(".")
        return other, name
    return service, reference


_DURATION = {"type": "string", "pattern": r"^((\d+(\.\d+)?(ms|s|m|h|d|w) ?)+|.*\$\{.*)$", "examples": ["10s", "5m", "1h30m", "90d"]}
Whole = Annotated[int, BeforeValidator(plainly)]
Real = Annotated[float, BeforeValidator(plainly), Field(allow_inf_nan=False)]
Flag = Annotated[bool, BeforeValidator(plainly)]
Length = Annotated[timedelta, BeforeValidator(read_length, json_schema_input_type=str), Field(json_schema_extra=_DURATION, strict=False)]
SomeLength = Annotated[Length, AfterValidator(some_length)]
Until = Annotated[datetime, BeforeValidator(until, json_schema_input_type=str), Field(strict=False)]
Moment = Annotated[datetime, BeforeValidator(moment, json_schema_input_type=str), Field(strict=False)]
Url = Annotated[str, AfterValidator(no_password)]
WebUrl = Annotated[Url, web("http", "https")]
ChannelUrl = Annotated[Url, web(*CHANNELS)]
Address = Annotated[str, AfterValidator(address)]
Zone = Annotated[str, AfterValidator(zone)]
HeaderName = Annotated[str, named(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", "letters, digits and -")]
ItemName = Annotated[str, named(r"(DATA|MODEL|DEPL|MON|TEAM)-(0[1-9]|10)", "a question of the audit, DATA-01 to TEAM-10")]
ServiceName = Annotated[str, named(r"[A-Za-z0-9][A-Za-z0-9_-]*", "letters, digits, - and _")]
Clock = Annotated[str, AfterValidator(time_of_day)]
WatchName = Annotated[str, named(r"[A-Za-z0-9][A-Za-z0-9_.-]*", "letters, digits, ., - and _")]
CheckName = Annotated[str, of(lambda known: known.checks, "check", "`watchkeeper plugins` lists them")]
RunbookName = Annotated[str, of(lambda known: known.runbooks, "runbook", "`watchkeeper plugins` lists them")]
ModeKey = Annotated[str, of(lambda known: {"default", *known.runbooks}, "runbook")]
ChannelName = Annotated[str, of(lambda known: known.channels, "channel", "add it to notify.channels")]
CauseName = Annotated[str, of(lambda _: CAUSES, "cause")]
