"""A complete answer from a target: a bounded body, decompressed within the same bound, and JSON read strictly."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite

from agent.errors import AnswerError
from agent.model import Json


@dataclass(frozen=True, slots=True)
class Reply:
    """One complete answer: header names in lower case, the body decompressed, the seconds from asking to the last byte, the URL fit to be shown."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    seconds: float
    url: str = ""

    def json(self, *, any_type: bool = False) -> Json:
        """The body as strict JSON; AnswerError for NaN, Infinity, text that is not UTF-8 and, unless `any_type`, a content type that is not JSON."""
        kind = self.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind and not any_type and kind != "application/json" and not kind.endswith("+json"):
            raise AnswerError(f"{self.url}: expected JSON, but the answer is {kind}, {len(self.body):,} bytes", self.status)
        try:
            return json.loads(self.body.decode(), parse_constant=_refuse, parse_float=_finite)
        except (ValueError, RecursionError) as error:
            raise AnswerError(f"{self.url}: the answer is not valid JSON: {_where(error, self.body)}", self.status) from error

    def excerpt(self) -> str:
        """The first 200 characters, for people to read."""
        return self.body[:800].decode("utf-8", "replace")[:200]


def bounded(parts: Iterable[bytes], limit: int) -> bytes:
    """The parts joined; AnswerError as soon as they exceed `limit` bytes."""
    kept, size = [], 0
    for part in parts:
        size += len(part)
        if size > limit:
            raise AnswerError(f"the answer is longer than {limit:,} bytes")
        kept.append(part)
    return b"".join(kept)


def inflated(body: bytes, encoding: str, limit: int) -> bytes:
    """The body decompressed, never making more than `limit` bytes of it: a small answer can hide gigabytes."""
    if not body or encoding.lower() in ("", "identity"):
        return body
    if encoding.lower() not in ("gzip", "x-gzip", "deflate"):
        raise AnswerError(f"the answer is encoded as {encoding!r}, which was not asked for")
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # either header, gzip's or zlib's
    try:
        plain = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise AnswerError(f"the answer is not valid {encoding} ({error})") from error
    if len(plain) > limit:
        raise AnswerError(f"the answer is longer than {limit:,} bytes once decompressed")
    if not unpacker.eof:
        raise AnswerError(f"the {encoding} answer ends too early")
    return plain


def _refuse(word: str) -> float:
    raise ValueError(word)


def _finite(word: str) -> float:
    value = float(word)
    return value if isfinite(value) else _refuse(word)


def _where(error: Exception, body: bytes) -> str:
    """What is wrong, and where it stands."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at offset {error.pos} of {len(body)}"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 at offset {error.start} of {len(body)}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    word = str(error)  # a number that was refused: its first place outside a string
    places = (found.start() for found in re.finditer(r'"(?:[^"\\]|\\.)*"|' + re.escape(word), body.decode()) if found[0] == word)
    return f"{word[:40]} is not a number JSON allows, at offset {next(places, 0)} of {len(body)}"
