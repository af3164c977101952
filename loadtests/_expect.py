"""Whether an answer under load is a good one, beside its time: the one place that says so, and the bodies that are kept to be looked at."""

from __future__ import annotations

import json
from typing import Any

from agent import Sent
from loadtests._spec import Expect
from loadtests._tokens import Tokens

MOST_HELD = 256 * 2**20  # bytes of all bodies in flight together


def expected(sent: Sent) -> Expect:
    """What a good answer to this request is, as far as its protocol says: of the Open Inference Protocol, one with an output."""
    return Expect(json=bool(sent.fields), fields=sent.fields)


class Bodies:
    """The bodies of answers in flight, as far as anyone wants to see them."""

    def __init__(self, expect: Expect, stream: str) -> None:
        self.wanted = bool(stream or expect.json or expect.fields or expect.text)
        self._expect, self._stream, self._held = expect, stream, 0
        self._parts: dict[int, list[bytes]] = {}
        self._tokens: dict[int, Tokens] = {}
        self._cut: set[int] = set()

    def take(self, request: int, data: bytes, now: float) -> None:
        """A piece of the body of one request."""
        if self._stream:
            self._tokens.setdefault(request, Tokens()).take(data, now)
        elif self._held + len(data) > MOST_HELD:
            self._cut.add(request)
        else:
            self._held += len(data)
            self._parts.setdefault(request, []).append(data)

    def wrong(self, request: int) -> str:
        """What is wrong with the whole of it; empty when nothing is."""
        if self._stream:
            return self._tokens.get(request, Tokens()).wrong()
        if request in self._cut:
            return f"the bodies in flight were more than the {MOST_HELD >> 20} MiB that are held to be looked at"
        return wrong(self._expect, b"".join(self._parts.get(request, ())))

    def drop(self, request: int) -> Tokens | None:
        """Forgets it, and gives what there was of its tokens."""
        self._held -= sum(map(len, self._parts.pop(request, ())))
        self._cut.discard(request)
        return self._tokens.pop(request, None)


def status_good(expect: Expect, status: int) -> bool:
    """Whether the status is one that was expected."""
    return status in expect.status if expect.status else 200 <= status < 300


def wrong(expect: Expect, body: bytes) -> str:
    """What is wrong with a body, in a few words that are the same for the same fault; empty when nothing is.

    Where JSON is expected, a text or an object under `error` is one: servers say it with status 200 too. (A number may be the model's own.)
    """
    if expect.text and expect.text.encode() not in body:
        return f"the body does not hold {expect.text[:40]!r}"
    if not expect.json and not expect.fields:
        return ""
    try:
        said = json.loads(body.decode(), parse_constant=_refused)
    except (ValueError, RecursionError):
        return "the body is not JSON"
    if isinstance(said, dict) and isinstance(said.get("error"), (str, dict)):
        return "the body is an error"
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


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
