"""Whether the body of an answer is what was asked for, beside its status and its time."""

from __future__ import annotations

import json
from typing import Any

from loadtests._spec import Expect


def reads(expect: Expect) -> bool:
    """Whether the bodies must be kept at all."""
    return bool(expect.json or expect.fields or expect.text)


def status_good(expect: Expect, status: int) -> bool:
    """Whether the status is one that was expected."""
    return status in expect.status if expect.status else 200 <= status < 300


def wrong(expect: Expect, body: bytes) -> str:
    """What is wrong with a body, in a few words that are the same for the same fault; empty when nothing is."""
    if expect.text and expect.text.encode() not in body:
        return f"the body does not hold {expect.text[:40]!r}"
    if not expect.json and not expect.fields:
        return ""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return "the body is not JSON"
    absent = next((place for place in expect.fields if not _there(said, place)), None)
    return "" if absent is None else f"the body has no {absent[:40]!r}"


def _there(said: Any, place: str) -> bool:
    """Whether a dotted place is there: a name in an object, a number in a list."""
    for name in place.split("."):
        if isinstance(said, dict) and name in said:
            said = said[name]
        elif isinstance(said, list) and name.isdecimal() and int(name) < len(said):
            said = said[int(name)]
        else:
            return False
    return True
