"""Whether an answer under load is a good one: the one place that says so, for the traffic program to ask of each answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agent import Sent
from loadtests._spec import Expect


def expected(sent: Sent) -> Expect:
    """What a good answer to this request is, as far as its protocol says: of the Open Inference Protocol, one with outputs."""
    return Expect(json=bool(sent.fields), fields=sent.fields)


def taken(expect: Expect, status: int) -> bool:
    """Whether the status is a good one."""
    return status in expect.status if expect.status else 200 <= status < 300


def amiss(expect: Expect, status: int, body: bytes) -> str:
    """Why an answer is not good, in words that answers with the same fault share; empty when it is.

    Where JSON is expected, a text or an object under `error` is one, whatever the status: servers say it with 200 too. (A number may be the model's
    own.) A field that is null is not there. A body that nothing is expected of is not looked at.
    """
    if not taken(expect, status):
        return f"status {status}"
    if expect.text and expect.text.encode() not in body:
        return f"no {expect.text!r} in the answer"
    return _unlike(expect.fields, body) if expect.json or expect.fields else ""


def _unlike(fields: tuple[str, ...], body: bytes) -> str:
    try:
        found = json.loads(body.decode(), parse_constant=_refused)
    except (ValueError, RecursionError):
        return "the answer is no JSON"
    if isinstance(found, Mapping) and isinstance(found.get("error"), (str, Mapping)):
        return "the answer is an error"
    missing = [field for field in fields if _at(found, field) is None]
    return f"no {', '.join(missing)} in the answer" if missing else ""


def _at(body: Any, field: str) -> Any:
    for name in field.split("."):
        if isinstance(body, Mapping):
            body = body.get(name)
        elif isinstance(body, list) and name.isdecimal() and int(name) < len(body):
            body = body[int(name)]
        else:
            return None
    return body


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
