"""The outbox against real receivers: at least once, in order, backing off, and never silent when one channel is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import AnswerError, ConfigError
from agent.model import Letter, Locator
from agent.notify import LONGEST, PATIENCE, SLACK_TEXT, Heartbeat, Postman, backoff, in_turn, retry_after, slack, status, story, webhook
from agent.store import Store
from tests.servers.hostile import deaf, mute, refused, serving
from tests.servers.receiver import Receiver, receiving

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
BODY = {"incident": 7, "service": "fraud", "severity": "page", "state": "open", "what": "opened", "text": "parity: 12 of 12 rows differ"}


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


class Office:
    """A store, its outbox and a postman, with a clock that is moved by hand."""

    def __init__(self, store: Store, **channels: str) -> None:
        self.store, self.clock = store, Clock()
        self.postman = Postman(store, {name: at(name, url) for name, url in channels.items()}, self.clock)

    def post(self, key: str = "incident-7/opened", channel: str = "owner", after: timedelta = timedelta(), **body: Any) -> None:
        self.store.write(lambda ledger: ledger.post(key, channel, "[page] fraud: parity", {**BODY, **body}, self.clock.now, after))

    def tick(self, later: timedelta = timedelta()) -> datetime | None:
        """Moves the clock, sends what is due and waits until that is done."""
        self.clock.now += later
        due = self.postman.tick(self.clock.now)
        assert self.postman.close(timedelta(seconds=20))
        return due

    def letters(self) -> dict[tuple[str, str], Any]:
        with self.store.read() as ledger:
            return {(letter["key"], letter["channel"]): letter for letter in ledger.letters()}

    def states(self) -> dict[str, str]:
        return {f"{key} to {channel}": letter["state"] for (key, channel), letter in self.letters().items()}


def at(name: str, url: str, within: float = 5.0) -> Locator:
    return Locator("notify", name, url, within=timedelta(seconds=within))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "watch.db").start()
    yield store
    store.close()


@pytest.fixture
def owner() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def second() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


# Sending


def test_a_letter_goes_out_once_with_its_key(store: Store, owner: Receiver) -> None:
    office = Office(store, owner=f"webhook+{owner.url}")
    office.post()
    office.tick()
    assert office.tick() is None
    headers, body = owner.got[0]
    assert len(owner.got) == 1
    assert headers["idempotency-key"] == "incident-7/opened"
    assert (body["dedup_key"], body["status"], body["subject"]) == ("fraud/incident-7", "open", "[page] fraud: parity")
    assert office.states() == {"incident-7/opened to owner": "sent"}


def test_a_letter_waits_until_it_is_due(store: Store, owner: Receiver) -> None:
    office = Office(store, owner=owner.url)
    office.post(after=timedelta(seconds=2))
    assert office.tick() == NOW + timedelta(seconds=2)
    assert owner.got == []
    office.tick(timedelta(seconds=2))
    assert len(owner.got) == 1


def test_opened_and_resolved_share_a_dedup_key_and_keep_their_order(store: Store, owner: Receiver) -> None:
    owner.answers = [(503, {})]
    office = Office(store, owner=owner.url)
    office.post()
    office.tick()
    office.post("incident-7/resolved", what="resolved", state="resolved")
    office.tick()
    assert owner.keys == ["incident-7/opened"], "what is resolved does not overtake what is opened"
    office.tick(LONGEST)
    assert owner.keys == ["incident-7/opened", "incident-7/opened", "incident-7/resolved"]
    assert {body["dedup_key"] for _, body in owner.got} == {"fraud/incident-7"}
    assert [body["status"] for _, body in owner.got] == ["open", "open", "resolved"]


def test_a_letter_of_another_story_does_not_wait_for_one_that_is_refused_for_now(store: Store, owner: Receiver) -> None:
    owner.answers = [(500, {})]
    office = Office(store, owner=owner.url)
    office.post("incident-7/opened")
    office.post("incident-8/opened", incident=8)
    office.tick()
    office.tick(timedelta(seconds=3))
    assert owner.keys == ["incident-7/opened", "incident-8/opened", "incident-7/opened"], "the least often tried goes first"


# Failing


@pytest.mark.parametrize("fault", [(500, {}), (503, {}), (429, {}), (408, {}), (425, {})])
def test_what_may_pass_is_tried_again_and_recorded(store: Store, owner: Receiver, fault: tuple[int, dict[str, str]]) -> None:
    owner.answers = [fault]
    office = Office(store, owner=owner.url)
    office.post()
    office.tick()
    letter = office.letters()["incident-7/opened", "owner"]
    assert (letter["state"], letter["tries"]) == ("waiting", 1)
    assert str(fault[0]) in letter["error"]
    assert NOW + timedelta(seconds=1) <= letter["next_at"] <= NOW + timedelta(seconds=2)
    with store.read() as ledger:
        assert [event.service for event in ledger.events("told.failed")] == ["fraud"]
    office.tick(timedelta(seconds=2))
    assert office.states() == {"incident-7/opened to owner": "sent"}


@pytest.mark.parametrize("broken", [mute, deaf])
def test_a_channel_that_hangs_costs_its_deadline_and_is_tried_again(store: Store, broken: Any) -> None:
    with serving(broken) as server:
        office = Office(store)
        office.postman.use({"owner": at("owner", server.url, within=0.2)})
        office.post()
        office.tick()
    assert office.states() == {"incident-7/opened to owner": "waiting"}


def test_a_refused_connection_is_tried_again(store: Store) -> None:
    office = Office(store, owner=f"http://127.0.0.1:{refused()}/x")
    office.post()
    office.tick()
    assert office.states() == {"incident-7/opened to owner": "waiting"}


def test_retry_after_is_obeyed(store: Store, owner: Receiver) -> None:
    owner.answers = [(429, {"Retry-After": "120"})]
    office = Office(store, owner=owner.url)
    office.post()
    office.tick()
    assert office.tick() == NOW + timedelta(seconds=120)
    office.tick(timedelta(seconds=119))
    assert len(owner.got) == 1
    office.tick(timedelta(seconds=1))
    assert len(owner.got) == 2


def test_what_is_refused_goes_to_the_next_channel_and_is_dropped(store: Store, owner: Receiver, second: Receiver) -> None:
    owner.always = (404, {})
    office = Office(store, owner=owner.url, second=second.url)
    office.post()
    office.tick()
    office.tick()
    assert office.states() == {"incident-7/opened to owner": "dropped", "incident-7/opened/instead-of-owner to second": "sent"}
    assert second.got[0][1]["note"] == "sent here because owner could not be told: 404 'ok'"
    assert second.got[0][1]["dedup_key"] == "fraud/incident-7"


def test_what_is_refused_with_nobody_else_to_tell_is_kept(store: Store, owner: Receiver) -> None:
    owner.always = (403, {})
    office = Office(store, owner=owner.url)
    office.post()
    office.tick()
    assert office.states() == {"incident-7/opened to owner": "waiting"}
    owner.always = (200, {})
    office.tick(LONGEST)
    assert office.states() == {"incident-7/opened to owner": "sent"}


def test_after_five_minutes_another_channel_is_told_as_well(store: Store, owner: Receiver, second: Receiver) -> None:
    owner.always = (503, {})
    office = Office(store, owner=owner.url, second=f"slack+{second.url}")
    office.post()
    office.post("incident-8/opened", incident=8)
    for _ in range(4):
        office.tick(timedelta(minutes=1))
    assert second.got == []
    for _ in range(6):
        office.tick(timedelta(minutes=1))
    assert sorted(second.keys) == ["incident-7/opened/instead-of-owner", "incident-8/opened/instead-of-owner"], "each once"
    owner.always = (200, {})
    office.tick(LONGEST)
    assert set(office.states().values()) == {"sent"}


def test_a_letter_that_no_channel_takes_visits_each_once(store: Store, owner: Receiver, second: Receiver) -> None:
    owner.always = second.always = (503, {})
    office = Office(store, owner=owner.url, second=second.url)
    office.post()
    for _ in range(30):
        office.tick(timedelta(minutes=3))
    assert set(office.letters()) == {("incident-7/opened", "owner"), ("incident-7/opened/instead-of-owner", "second")}


def test_a_day_of_failures_is_enough(store: Store, owner: Receiver) -> None:
    owner.always = (503, {})
    office = Office(store, owner=owner.url)
    office.post()
    office.tick()
    office.tick(timedelta(hours=24))
    assert office.states() == {"incident-7/opened to owner": "dropped"}
    assert "given up after 1d" in office.letters()["incident-7/opened", "owner"]["error"]
    with store.read() as ledger:
        assert len(ledger.events("told.given_up")) == 1


def test_a_slow_channel_holds_up_nobody_else(store: Store, owner: Receiver, second: Receiver) -> None:
    owner.gate.clear()
    office = Office(store, owner=owner.url, second=second.url)
    office.post()
    office.post(channel="second")
    begun = time.monotonic()
    office.postman.tick(NOW)
    assert time.monotonic() - begun < 2
    until(lambda: second.got and owner.got)
    for _ in range(3):
        office.postman.tick(NOW)
    owner.gate.set()
    assert office.postman.close()
    assert len(owner.got) == 1, "one in flight per channel"


def test_channels_can_be_changed_while_letters_wait(store: Store, owner: Receiver) -> None:
    office = Office(store, owner=f"http://127.0.0.1:{refused()}/x")
    office.post()
    office.tick()
    office.postman.use({"owner": at("owner", owner.url)})
    office.tick(LONGEST)
    assert office.states() == {"incident-7/opened to owner": "sent"}


def test_a_hundred_letters_behind_a_dead_channel_cost_one_try_each_time(store: Store, owner: Receiver, second: Receiver) -> None:
    owner.always = (503, {})
    office = Office(store, owner=owner.url, second=second.url)
    for n in range(100):
        office.post(f"incident-{n}/opened", incident=n)
    office.tick()
    assert len(owner.got) == 1
    office.tick(timedelta(minutes=6))
    office.tick()
    assert len(owner.got) == 2
    assert len(set(second.keys)) == 100, "and yet every one of them is told elsewhere in time"


def test_a_letter_to_a_channel_that_is_gone_goes_elsewhere(store: Store, second: Receiver) -> None:
    office = Office(store, second=second.url)
    office.post(channel="left-the-company")
    office.tick()
    office.tick()
    assert second.keys == ["incident-7/opened/instead-of-left-the-company"]


def test_no_error_shows_the_path_of_a_channel(store: Store) -> None:
    office = Office(store, owner=f"slack+http://127.0.0.1:{refused()}/services/T0/secret-path")
    office.post()
    office.tick()
    assert "secret-path" not in repr(office.letters())
    with store.read() as ledger:
        assert "secret-path" not in repr(ledger.events())
    with pytest.raises(AnswerError) as problem:
        office.postman.test("owner")
    assert "secret-path" not in str(problem.value)


def until(holds: Any, within: float = 10.0) -> None:
    end = time.monotonic() + within
    while not holds():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.005)


# Crashing


CHILD = """
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from agent.model import Locator
from agent.notify import Postman
from agent.store import Store
now = datetime.now(UTC)
store = Store.open(Path(sys.argv[1])).start()
body = {"incident": 7, "service": "fraud", "what": "opened"}
store.write(lambda ledger: ledger.post("incident-7/opened", "owner", "fraud", body, now), durable=True)
postman = Postman(store, {"owner": Locator("notify", "owner", sys.argv[2])}, lambda: datetime.now(UTC))
postman.tick(now + timedelta(seconds=1))
postman.close(timedelta(seconds=30))
store.close()
"""


def child(store: Path, url: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", CHILD, str(store), url])


def test_killed_between_sending_and_marking_it_sends_again_under_the_same_key(tmp_path: Path, owner: Receiver) -> None:
    owner.gate.clear()  # the letter has arrived, the answer has not: nothing can have been marked
    first = child(tmp_path / "watch.db", owner.url)
    until(lambda: owner.got, within=60)
    os.kill(first.pid, signal.SIGKILL)
    assert first.wait(10) == -signal.SIGKILL
    owner.gate.set()
    assert child(tmp_path / "watch.db", owner.url).wait(60) == 0
    assert owner.keys == ["incident-7/opened", "incident-7/opened"]
    assert len({body["dedup_key"] for _, body in owner.got}) == 1, "the receiver sees one incident"
    assert child(tmp_path / "watch.db", owner.url).wait(60) == 0
    assert len(owner.got) == 2, "marked, it is not sent a third time"


def test_letters_go_out_while_the_disk_cannot_be_written(tmp_path: Path, owner: Receiver) -> None:
    store = Store.open(tmp_path / "watch.db", patience=0.1).start()
    import sqlite3

    holder = sqlite3.connect(store.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    office = Office(store, owner=owner.url)
    office.post()
    assert store.afloat
    office.tick()
    office.tick()
    assert owner.keys == ["incident-7/opened"]
    holder.execute("ROLLBACK")
    until(lambda: not store.afloat)
    office.tick()
    assert owner.keys == ["incident-7/opened"], "what was sent meanwhile is known to be sent"
    assert office.states() == {"incident-7/opened to owner": "sent"}
    assert not store.backlog
    holder.close()
    store.close()


# Small rules


def letter(n: int = 1, key: str = "incident-7/opened", subject: str = "[page] fraud", tries: int = 0, wait: int = 0, **body: Any) -> Letter:
    return Letter(n, key, "owner", subject, {**BODY, **body}, NOW, NOW + timedelta(seconds=wait), tries)


def test_the_answers_of_a_run_without_an_incident_close_what_they_opened() -> None:
    run = {"service": "fraud", "run": 5, "what": "run-5/awaiting", "state": "awaiting"}
    asks = Letter(1, "run-5/awaiting", "owner", "approve?", run, NOW, NOW)
    ends = Letter(2, "run-5/succeeded", "owner", "done", {**run, "state": "succeeded"}, NOW, NOW)
    assert (status(asks), status(ends)) == ("open", "resolved")
    assert story(asks) == story(ends) == "fraud/run-5"


def test_a_later_letter_of_a_story_waits_for_the_earlier_one() -> None:
    waiting = [letter(1, wait=5), letter(2, "incident-7/resolved"), letter(3, "incident-9/opened", tries=2), letter(4, "incident-8/opened")]
    assert [one.id for one in in_turn(waiting, NOW)] == [4, 3]


@given(st.text(max_size=40), st.integers(1, 10_000))
def test_pauses_grow_and_are_bounded_and_differ_from_key_to_key(key: str, tries: int) -> None:
    assert timedelta(seconds=1) <= backoff(key, tries) <= LONGEST
    assert backoff(key, tries) == backoff(key, tries)


@given(st.text(max_size=60))
def test_no_retry_after_can_harm(said: str) -> None:
    assert timedelta() <= retry_after(said, NOW) <= PATIENCE


def test_retry_after_is_read_as_seconds_or_as_a_date() -> None:
    assert retry_after("30", NOW) == timedelta(seconds=30)
    assert retry_after(format_datetime(NOW + timedelta(seconds=90), usegmt=True), NOW) == timedelta(seconds=90)
    assert retry_after(format_datetime(NOW - timedelta(days=1), usegmt=True), NOW) == timedelta()
    assert retry_after("999999999", NOW) == PATIENCE
    assert retry_after("soon", NOW) == timedelta()


def test_slack_is_told_in_its_own_form_and_nobody_is_called_by_a_reason() -> None:
    sent = slack(letter(text="<!channel> & <script>", context="changed before it: version 1 -> 2", watches=["fraud/parity"]))
    text = json.dumps(sent)
    assert "<!channel>" not in text
    assert "&lt;!channel&gt; &amp; &lt;script&gt;" in text
    assert "*Open*" in sent["blocks"][0]["text"]["text"]
    assert "changed before it" in sent["blocks"][-1]["elements"][0]["text"]
    assert "*Resolved*" in slack(letter(what="resolved"))["blocks"][0]["text"]["text"]


@given(st.text("&<>ab", min_size=0, max_size=9000))
def test_slack_never_gets_more_than_it_takes_nor_half_an_entity(text: str) -> None:
    for block in slack(letter(subject=text, text=text, context=text))["blocks"]:
        said = (block.get("text") or block["elements"][0])["text"]
        assert len(said) <= SLACK_TEXT
        assert "&" not in said.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")


def test_a_webhook_body_is_the_letter_and_what_groups_it() -> None:
    assert webhook(letter()) == {
        **BODY,
        "subject": "[page] fraud",
        "status": "open",
        "dedup_key": "fraud/incident-7",
        "key": "incident-7/opened",
    }


def test_a_test_letter_is_sent_at_once_or_says_why_not(store: Store, owner: Receiver) -> None:
    office = Office(store, owner=owner.url)
    assert office.postman.test("owner") == "owner took a test letter"
    owner.always = (403, {})
    with pytest.raises(AnswerError, match="owner did not take a test letter: 403"):
        office.postman.test("owner")
    with pytest.raises(ConfigError, match="did you mean 'owner'"):
        office.postman.test("ownr")


# The dead man's switch


def test_the_heart_beats_only_while_all_is_well(owner: Receiver) -> None:
    well = [True]
    heart = Heartbeat(at("heartbeat", owner.url), lambda: well[0], lambda: NOW)
    assert heart.beat()
    assert heart.beaten_at == NOW
    well[0] = False
    assert not heart.beat()
    assert len(owner.got) == 1
    well[0], owner.always = True, (500, {})
    assert not heart.beat()
    assert heart.failures == 1
    assert "secret-path" not in heart.error
