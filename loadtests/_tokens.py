"""Server-sent events of an OpenAI-compatible server, read as their bytes come: when each token was there."""

from __future__ import annotations

import json
from typing import Any

LONGEST = 2**20  # bytes of one line


class Tokens:
    """One streamed answer. Bytes may be cut anywhere; `times` holds when each event with something in it was there.

    An event with several tokens counts as one, because no client can know when each of them was made; `usage` is how many the server counted. A
    stream has ended with [DONE], or when each of its choices said why it is finished: transformers serve never says [DONE]. `wrong` says what was
    not as it should be.
    """

    def __init__(self) -> None:
        self.times: list[float] = []
        self.done, self.usage = False, 0
        self.running: dict[Any, bool] = {}  # choice -> whether more of it is to come
        self.error = ""
        self._rest = b""
        self._data: list[bytes] = []

    def take(self, data: bytes, now: float) -> None:
        """What came now. Lines end in CRLF, LF or CR (WHATWG, server-sent events); a CR at the very end waits for what follows it."""
        lines = (self._rest + data).replace(b"\r\n", b"\n")
        if lines.endswith(b"\r"):
            lines, held = lines[:-1], b"\r"
        else:
            held = b""
        *whole, rest = lines.replace(b"\r", b"\n").split(b"\n")
        self._rest = rest + held
        for line in whole:
            self._line(line, now)
        if len(self._rest) > LONGEST:
            self._rest, self.error = b"", "a line of the stream is longer than 1 MiB"

    def wrong(self) -> str:
        """What is wrong with the answer, now that all of it was there."""
        ended = self.done or (self.running and not any(self.running.values()))
        return self.error or ("" if ended else "the stream ended without [DONE]") or ("" if self.times else "the stream held no token")

    def _line(self, line: bytes, now: float) -> None:
        if not line:
            self._event(b"\n".join(self._data), now)
            self._data = []
        elif line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))

    def _event(self, data: bytes, now: float) -> None:
        if data == b"[DONE]":
            self.done = True
        elif data:
            try:
                said = json.loads(data)
            except (ValueError, RecursionError):
                self.error = self.error or "an event of the stream is not JSON"
                return
            if isinstance(said, dict) and said.get("error"):
                self.error = self.error or "the stream held an error"
                return
            self._ends(said)
            if _holds(said):
                self.times.append(now)

    def _ends(self, said: Any) -> None:
        for choice in _choices(said):
            place = str(choice.get("index"))
            self.running[place] = self.running.get(place, True) and not choice.get("finish_reason")
        usage = said.get("usage") if isinstance(said, dict) else None
        count = usage.get("completion_tokens") if isinstance(usage, dict) else None
        if isinstance(count, int) and 0 < count < 2**32:
            self.usage = count


def _holds(said: Any) -> bool:
    """Whether an event brings something of the answer: text, a refusal, reasoning or a tool call of any choice."""
    for choice in _choices(said):
        delta = choice.get("delta")
        if choice.get("text") or (isinstance(delta, dict) and any(value for name, value in delta.items() if name != "role")):
            return True
    return False


def _choices(said: Any) -> list[dict[str, Any]]:
    choices = said.get("choices") if isinstance(said, dict) else None
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
