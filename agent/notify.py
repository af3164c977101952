"""Empties the outbox: each letter reaches its channel at least once, under one key, or another channel is told instead."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Literal

from agent.errors import AnswerError, ConfigError, StoreError, TargetError, WatchkeeperError
from agent.model import UTC, Json, Letter, Locator, spell
from agent.plugins import suggest
from agent.reply import Reply
from agent.store import Ledger, Store
from agent.wire import Wire, shown

log = logging.getLogger(__name__)

FIRST, LONGEST = timedelta(seconds=2), timedelta(minutes=5)  # pauses between tries, each twice the one before
PATIENCE = timedelta(hours=1)  # the longest Retry-After that is believed
ALTERNATE_AFTER = timedelta(minutes=5)
GIVE_UP_AFTER = timedelta(hours=24)
BUSY = timedelta(seconds=1)  # when to look again at a channel that is sending now
LATER = (408, 425, 429)  # the 4xx that mean "not now"
SLACK_TEXT = 3000  # characters Slack takes in one block
OVER = ("succeeded", "stopped", "compensated", "superseded", "cancelled", "expired", "refused")  # a run that waits for nobody


# What a channel is sent


def story(letter: Letter) -> str:
    """What a receiver groups letters by: the incident (or the run) they are about, the same from opened to resolved."""
    return "/".join(str(part) for part in (letter.body.get("service"), letter.key.split("/", 1)[0]) if part)


def status(letter: Letter) -> Literal["open", "resolved"]:
    """Whether somebody still has to look."""
    said = letter.body.get("what") == "resolved" or ("incident" not in letter.body and letter.body.get("state") in OVER)
    return "resolved" if said else "open"


def webhook(letter: Letter) -> Json:
    """The body for a generic receiver: the letter's own, with what a receiver needs to group and close."""
    return {**letter.body, "subject": letter.subject, "status": status(letter), "dedup_key": story(letter), "key": letter.key}


def slack(letter: Letter) -> Json:
    """The body for a Slack incoming webhook: a line, what happened, and in small print what changed before it."""
    body, over = letter.body, status(letter) == "resolved"
    head = f"{':large_green_circle: *Resolved*' if over else ':red_circle: *Open*'}  {_escaped(letter.subject.replace(chr(10), ' '), 300)}"
    small = [str(body[name]) for name in ("context", "note") if body.get(name)]
    small += [", ".join(map(str, body["watches"]))] if body.get("watches") else []
    blocks = [_section(head)]
    if body.get("text"):
        blocks.append(_section(_escaped(str(body["text"]))))
    blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": _escaped("\n".join([*small, letter.key]))}]})
    return {"text": _escaped(letter.subject), "blocks": blocks}


def _section(text: str) -> Json:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def _escaped(text: str, most: int = SLACK_TEXT) -> str:
    """Slack's three special characters escaped (an unescaped < can call a whole channel), at most `most` characters, no entity cut in two."""
    out = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return out if len(out) <= most else re.sub(r"&[a-z]*$", "", out[: most - 1]) + "…"


# One try


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of one try: `refused` means that the same letter would be refused again."""

    state: Literal["sent", "later", "refused"]
    why: str = ""
    wait: timedelta = timedelta()


def deliver(wire: Wire, letter: Letter, now: datetime) -> Tried:
    """Send one letter once; nothing is raised but what is a mistake of ours."""
    body = slack(letter) if wire.at.scheme == "slack" else webhook(letter)
    try:
        reply = wire.post(json=body, headers={"Idempotency-Key": _ascii(letter.key)}, anyway=True)
    except (TargetError, ConfigError) as problem:
        return Tried("later", _unnamed(str(problem), wire.at))
    except ValueError as problem:
        return Tried("refused", f"the letter cannot be written as JSON ({problem})")
    return _judged(reply, now)


def _judged(reply: Reply, now: datetime) -> Tried:
    if 200 <= reply.status < 300:
        return Tried("sent")
    why = f"{reply.status} {reply.excerpt()!r}"
    if reply.status in LATER or reply.status >= 500:
        return Tried("later", why, retry_after(reply.headers.get("retry-after", ""), now))
    return Tried("refused", why)


def retry_after(said: str, now: datetime) -> timedelta:
    """How long a Retry-After header asks to wait, as seconds or as an HTTP date; 0 when it says nothing sensible, never more than an hour."""
    wait = timedelta()
    if re.fullmatch(r"\d{1,9}", said.strip(), re.ASCII):
        wait = timedelta(seconds=int(said))
    elif said:
        with contextlib.suppress(ValueError):
            at = parsedate_to_datetime(said)
            wait = (at if at.tzinfo else at.replace(tzinfo=UTC)) - now
    return min(max(wait, timedelta()), PATIENCE)


def backoff(key: str, tries: int) -> timedelta:
    """The pause after that many failed tries: doubling from 2 s to 5 min, less up to half by a hash of the key, lest letters march in step."""
    share = int.from_bytes(hashlib.sha256(f"{key}#{tries}".encode()).digest()[:4]) / 2**32
    return min(FIRST * 2.0 ** min(tries - 1, 20), LONGEST) * (0.5 + share / 2)


def _unnamed(text: str, at: Locator) -> str:
    """An error without the path of the channel's URL: with Slack and its like, the path is the credential."""
    origin = re.match(r"[a-z]+://[^/?#]+", shown(at.address), re.IGNORECASE)
    return text.replace(shown(at.address), origin[0] if origin else "the channel").replace(at.address, "the channel")[:300]


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()


# The outbox


class Postman:
    """Sends what waits in the outbox, each channel in a thread of its own and in order, so that a slow one holds up nobody else.

    `tick` never waits for a channel. A letter is marked only after its channel took it: a crash between the two sends it again, under the same key.
    """

    def __init__(
        self,
        store: Store,
        channels: Mapping[str, Locator],
        clock: Callable[[], datetime],
        *,
        alternate_after: timedelta = ALTERNATE_AFTER,
        give_up_after: timedelta = GIVE_UP_AFTER,
        done: Callable[[], None] = lambda: None,
    ) -> None:
        self.failures = 0  # tries that failed
        self._store, self._clock, self._done = store, clock, done
        self._alternate_after, self._give_up_after = alternate_after, give_up_after
        self._wires: dict[str, Wire | str] = {}  # a channel that cannot be used: why
        self._unwell: dict[str, int] = {}  # channel -> failures in a row
        self._busy: dict[str, threading.Thread] = {}
        self._ticking = threading.Lock()
        self.use(channels)

    def use(self, channels: Mapping[str, Locator]) -> None:
        """Send to these channels from now on; their order is the order in which one stands in for another."""
        old = self._wires
        self._wires = {name: _wire(at, old.get(name)) for name, at in channels.items()}

    def tick(self, now: datetime) -> datetime | None:
        """Begin sending what is due; returns when to come again, None when nothing waits. StoreError when the outbox cannot be read."""
        waiting: dict[str, list[Letter]] = {}
        with self._ticking:
            busy = set(self._busy)  # before the outbox is read: who is busy now may have sent what is read as waiting
            for letter in self._waiting(now):
                waiting.setdefault(letter.channel, []).append(letter)
            return min((self._begin(c, letters, now) if c not in busy else now + BUSY for c, letters in waiting.items()), default=None)

    def _waiting(self, now: datetime) -> Sequence[Letter]:
        """Everything that waits, due or not: a letter must not overtake an earlier one of its story."""
        return self._store.see(lambda ledger: ledger.letters_due(now + PATIENCE + LONGEST, limit=5000))

    def _begin(self, channel: str, letters: Sequence[Letter], now: datetime) -> datetime:
        """Hand a channel's due letters to its thread; when to look at this channel again."""
        due = in_turn(letters, now)
        if not due:
            return min(letter.next_at for letter in letters if letter.next_at > now)
        self._busy[channel] = thread = threading.Thread(target=self._empty, args=(channel, due), name=f"notify-{channel}", daemon=True)
        thread.start()
        return now + BUSY

    def _empty(self, channel: str, letters: Sequence[Letter]) -> None:
        """In the channel's thread: one letter after another, until the channel turns out to be unwell."""
        try:
            for n, letter in enumerate(letters):
                if not self._settled(letter, letters[n + 1 :]):
                    break
        except StoreError as problem:
            log.warning("the outbox cannot be marked, its letters may go out twice: %s", problem)
        except Exception:
            log.exception("sending to %s broke off", channel)
        finally:
            del self._busy[channel]
            self._done()

    def _settled(self, letter: Letter, others: Sequence[Letter]) -> bool:
        """Send one letter and write down what became of it; False when the channel should be left alone for now, `others` with it."""
        tried = self._try(letter, self._clock())
        if tried.state == "sent":
            self._unwell.pop(letter.channel, None)
            self._store.write(lambda ledger: ledger.letter_sent(letter.key, letter.channel))
            return True
        self.failures += 1
        failed = self._unwell[letter.channel] = self._unwell.get(letter.channel, 0) + 1
        self._store.write(lambda ledger: self._failed(ledger, letter, others, tried, failed))
        return tried.state == "refused"

    def _try(self, letter: Letter, now: datetime) -> Tried:
        wire = self._wires.get(letter.channel, "it is no longer configured")
        return deliver(wire, letter, now) if isinstance(wire, Wire) else Tried("refused", wire)

    def _failed(self, ledger: Ledger, letter: Letter, others: Sequence[Letter], tried: Tried, failed: int) -> None:
        now, instead = self._clock(), self._instead_of(letter)
        said = f"{letter.subject}: {letter.channel} did not take it: {tried.why}"
        ledger.record(now, "told.failed", said[:500], service=letter.body.get("service"), body={"key": letter.key, "channel": letter.channel})
        if now - letter.made_at >= self._give_up_after:
            ledger.letter_dropped(letter.key, letter.channel, f"given up after {spell(self._give_up_after)}: {tried.why}")
            ledger.record(now, "told.given_up", said[:500], service=letter.body.get("service"))
        elif tried.state == "refused" and instead:
            self._tell_instead(ledger, letter, tried.why, now)
            ledger.letter_dropped(letter.key, letter.channel, f"{tried.why}; told {instead} instead")
        else:
            wait = max(backoff(letter.key, max(letter.tries + 1, failed)), tried.wait)
            ledger.letter_deferred(letter.key, letter.channel, letter.tries + 1, now + wait, tried.why)
            for one in (letter, *others) if tried.state == "later" else (letter,):
                self._hold(ledger, one, letter, now + wait, tried.why, now)

    def _hold(self, ledger: Ledger, one: Letter, tried: Letter, until: datetime, why: str, now: datetime) -> None:
        """A letter that waits because its channel is unwell; one that has waited too long goes elsewhere as well."""
        if one is not tried:
            ledger.letter_deferred(one.key, one.channel, one.tries, until, f"waits: {why}")
        if now - one.made_at >= self._alternate_after:
            self._tell_instead(ledger, one, why, now)

    def _tell_instead(self, ledger: Ledger, letter: Letter, why: str, now: datetime) -> None:
        """Post the letter to the next channel; its key makes that happen once."""
        if instead := self._instead_of(letter):
            note = f"sent here because {letter.channel} could not be told: {why}"
            ledger.post(f"{letter.key}/instead-of-{letter.channel}", instead, letter.subject, {**letter.body, "note": note}, now)

    def _instead_of(self, letter: Letter) -> str | None:
        """The next channel in the configuration that this letter has not been through."""
        names = list(self._wires)
        start = names.index(letter.channel) + 1 if letter.channel in names else 0
        been = {letter.channel, *re.findall(r"/instead-of-([^/]+)", letter.key)}
        return next((name for name in names[start:] + names[:start] if name not in been), None)

    def test(self, channel: str) -> str:
        """Send a letter at once and say how it went; raises when the channel did not take it."""
        wire = self._wires.get(channel, f"no channel '{channel}'{suggest(channel, self._wires)}")
        if isinstance(wire, str):
            raise ConfigError(f"notify.channels.{channel}: {wire}")
        now = self._clock()
        said = f"This is a test of the channel {channel}; nothing is wrong."
        letter = Letter(0, f"test/{now:%Y%m%dT%H%M%S.%fZ}", channel, "[test] Watchkeeper", {"what": "resolved", "text": said}, now, now)
        tried = deliver(wire, letter, now)
        if tried.state != "sent":
            raise AnswerError(f"{channel} did not take a test letter: {tried.why}; check its url and auth under notify.channels")
        return f"{channel} took a test letter"

    def close(self, within: timedelta = timedelta(seconds=10)) -> bool:
        """Wait for what is being sent now, at most that long; whether all of it ended. What still waits is sent after the next start."""
        end = time.monotonic() + within.total_seconds()
        for thread in list(self._busy.values()):
            thread.join(max(0.0, end - time.monotonic()))
        return not self._busy


def in_turn(letters: Sequence[Letter], now: datetime) -> list[Letter]:
    """The letters of one channel to try now: of each story those due with none waiting before them, stories least often tried first."""
    stories: dict[str, list[Letter]] = {}
    for letter in sorted(letters, key=lambda letter: letter.id):
        stories.setdefault(story(letter), []).append(letter)
    ready: list[list[Letter]] = []
    for told in stories.values():
        held = next((n for n, letter in enumerate(told) if letter.next_at > now), len(told))
        ready += [told[:held]] if held else []
    return [letter for told in sorted(ready, key=lambda told: (told[0].tries, told[0].id)) for letter in told]


def _wire(at: Locator, old: Wire | str | None) -> Wire | str:
    if isinstance(old, Wire) and old.at == at:
        return old
    try:
        return Wire(at)
    except WatchkeeperError as problem:
        return _unnamed(str(problem), at)


class Heartbeat:
    """A dead man's switch: `beat`, called at an interval, asks for a URL as long as `healthy()`; who watches that URL notices when we do not."""

    def __init__(self, at: Locator, healthy: Callable[[], bool], clock: Callable[[], datetime]) -> None:
        self.failures = 0
        self.error = ""  # why the last beat was not heard
        self.beaten_at: datetime | None = None
        self._wire, self._healthy, self._clock = Wire(replace(at, act=None)), healthy, clock

    def beat(self) -> bool:
        """One beat, if all is well; whether it was heard."""
        if not self._healthy():
            return False
        try:
            self._wire.get()
        except TargetError as problem:
            self.failures += 1
            self.error = _unnamed(str(problem), self._wire.at)
            return False
        self.beaten_at, self.error = self._clock(), ""
        return True
