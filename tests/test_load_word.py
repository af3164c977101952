"""The word `load`: what a service lets a load test do, that there is one at a time, and what a load test does to everybody else's findings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent import alone as locks
from agent import look as looking
from agent import plugins
from agent.alone import alone, last, lock_of
from agent.config import Config, load, schema
from agent.daemon import Daemon
from agent.daemon import _jobs as planned
from agent.errors import BusyError, ConfigError, PluginError
from agent.model import Load, error, fail
from agent.observe import fold, found
from agent.perform import perform
from agent.scheduler import Job, Scheduler
from agent.store import Store
from tests import plugin_box
from tests.conftest import HOUSE
from tests.fraud import Desk, Fraud, drilled, fraud, spoiled, write_config
from tests.processes import python, start, until

PRESS = """
    import time
    from datetime import timedelta
    from pathlib import Path
    from typing import Any
    from agent import Load, Server, Verdict, check, nodata, ok
    from agent.errors import CancelledError

    @check(pillar="deployment", asks="Does it bear the load?", cause="latency")
    def bears(server: Server, load: Load, tell: Any, *, rate: float = 100.0, duration: timedelta = timedelta(minutes=1), end: str = "") -> Verdict:
        try:
            while end and not Path(end).exists():
                tell(0.5, "pressing")
                time.sleep(0.01)
        except CancelledError as problem:
            return nodata(f"aborted, {problem}")
        return ok(f"{rate:g} of {load.rate:g} a second, {load.longest} at most, to {load.errors} or {load.latency}")

    @check(pillar="deployment", asks="Does it bear it once more?", exact=True)
    def again(server: Server, load: Load | None = None, *, seconds: int = 3) -> Verdict:
        return ok("it does")
"""
ALLOWED = "    load: {rate: 200, longest: 10m, latency: 5s}\n"
STOPPED = "aborted, the agent is stopping\nit was asked to end early: the agent is stopping"
WATCH = "      - {check: press.bears, every: 1h, with: {end: END}}"


@pytest.fixture(scope="module", autouse=True)
def press(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A load test that presses on until a file appears, or until it is asked to stop; found by workers too."""
    folder = tmp_path_factory.mktemp("press")
    with plugin_box.install(folder, {"press": textwrap.dedent(PRESS)}), pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([sys.path[-1], str(HOUSE)]))
        yield


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where locks lie, for this test alone."""
    folder = tmp_path / "locks"
    folder.mkdir()
    monkeypatch.setattr(locks.tempfile, "tempdir", str(folder))
    return folder


# The configuration


def configured(folder: Path, watches: str, allowed: str = ALLOWED) -> Config:
    path = folder / "watchkeeper.yaml"
    other = "  other:\n    targets: {server: 'oip+http://127.0.0.1:9/m'}\n"
    listed = f"    watches:\n{watches}\n" if watches else ""
    text = f"services:\n  fraud:\n{allowed}    targets: {{server: 'oip+http://127.0.0.1:9/m'}}\n{listed}{other}"
    path.write_text(text)
    return load(path)


def refused(folder: Path, watches: str, allowed: str = ALLOWED) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        configured(folder, watches, allowed)
    return [line.removeprefix(f"{folder}/watchkeeper.yaml:") for line in caught.value.problems]


def test_what_a_service_bears_is_read_with_its_defaults(tmp_path):
    made = configured(tmp_path, "      - {check: press.bears, every: 1h}", "    load: {rate: 200, longest: 10m}\n").services["fraud"]
    assert made.load == Load(200.0, timedelta(minutes=10), 0.5, None)
    assert configured(tmp_path, "", ALLOWED).services["fraud"].load == Load(200.0, timedelta(minutes=10), 0.5, timedelta(seconds=5))
    assert configured(tmp_path, "", "").services["fraud"].load is None


def test_what_a_service_bears_may_come_from_the_environment_and_stands_in_the_schema(tmp_path, monkeypatch):
    monkeypatch.setenv("RATE", "12.5")
    made = configured(tmp_path, "", "    load: {rate: '${RATE}', longest: 1m}\n")
    assert made.services["fraud"].load == Load(12.5, timedelta(minutes=1))
    bears = schema()["$defs"]["LoadFile"]
    assert set(bears["properties"]) == {"rate", "longest", "errors", "latency"} and bears["required"] == ["rate", "longest"]
    assert bears["properties"]["rate"]["anyOf"] == [
        {"exclusiveMinimum": 0, "maximum": 1_000_000, "type": "number"},
        {"type": "string", "pattern": r"^\$\{.*\}$"},
    ]


def test_a_load_test_has_the_whole_interval_and_is_not_repeated_at_once(tmp_path):
    first, second = configured(tmp_path, "      - {check: press.bears, every: 1h}\n      - {check: press.again, every: 2h}").services["fraud"].watches
    assert (first.within, second.within) == (timedelta(hours=1), timedelta(hours=2))
    assert (first.confirm.looks, first.confirm.bad, second.confirm.looks, second.confirm.bad) == (1, 2, 1, 2)


BAD = [
    (
        "no_leave",
        ("      - {check: press.bears, every: 1h}", ""),
        "5:17 services.fraud.watches[0].check: press.bears makes load, which fraud does not allow; add `load: {rate: 100, longest: 1m}` "
        "under services.fraud, with what it can bear",
    ),
    (
        "no_leave_where_the_word_may_be_left_out",
        ("      - {check: press.again, every: 1h}", ""),
        "5:17 services.fraud.watches[0].check: press.again makes load, which fraud does not allow; add `load: {rate: 200, longest: 10m}` "
        "under services.fraud, with what it can bear",
    ),
    (
        "too_fast",
        ("      - {check: press.bears, every: 1h, with: {rate: 250.5}}",),
        "6:54 services.fraud.watches[0].with.rate: 250.5 a second is more than services.fraud.load.rate allows (200); ask for less",
    ),
    (
        "too_fast_by_default",
        ("      - {check: press.bears, every: 1h}", "    load: {rate: 50, longest: 10m}\n"),
        "6:9 services.fraud.watches[0]: 100 a second is more than services.fraud.load.rate allows (50); ask for less",
    ),
    (
        "too_fast_from_outside",
        ("      - {check: press.bears, every: 1h, with: {rate: '${RATE}'}}",),
        "6:54 services.fraud.watches[0].with.rate: ${RATE} a second is more than services.fraud.load.rate allows (200); ask for less",
    ),
    (
        "too_long",
        ("      - {check: press.bears, every: 1h, with: {duration: 11m}}",),
        "6:58 services.fraud.watches[0].with.duration: 11m is longer than services.fraud.load.longest allows (10m); ask for less",
    ),
    (
        "too_often",
        ("      - {check: press.bears, every: 5m, with: {duration: 5m}}",),
        "6:37 services.fraud.watches[0].every: must be at least 6m: press.bears runs for 5m, and needs a while to begin and to end",
    ),
    (
        "no_time",
        ("      - {check: press.bears, every: 1h, within: 10s}",),
        "6:49 services.fraud.watches[0].within: must be at least 2m: press.bears runs for 1m, and needs a while to begin and to end",
    ),
    (
        "the_usual_interval",
        ("      - {check: press.bears}",),
        "6:9 services.fraud.watches[0]: must be at least 2m: press.bears runs for 1m, and needs a while to begin and to end",
    ),
    (
        "somebody_else_s_server",
        ("      - {check: press.bears, every: 1h, bind: {server: '@other.server'}}",),
        "6:56 services.fraud.watches[0].bind.server: load goes to a watch's own service; write this watch under services.other",
    ),
    ("a_mistyped_key", ("", "    load: {rates: 2, rate: 2, longest: 1m}\n"), "3:12 services.fraud.load.rates: unknown key; did you mean 'rate'?"),
    ("no_ceiling", ("", "    load: {rate: 2}\n"), "3:11 services.fraud.load: needs `longest`"),
    ("nothing_at_all", ("", "    load: {rate: 0, longest: 1m}\n"), "3:18 services.fraud.load.rate: must be more than 0, not the number 0"),
    ("no_number", ("", "    load: {rate: high, longest: 1m}\n"), "3:18 services.fraud.load.rate: must be a number, not the text 'high'"),
    ("beyond_any", ("", "    load: {rate: 1e300, longest: 1m}\n"), "3:18 services.fraud.load.rate: must be at most 1000000, not the number 1e+300"),
    ("no_share", ("", "    load: {rate: 1, longest: 1m, errors: 50}\n"), "3:42 services.fraud.load.errors: must be at most 1, not the number 50"),
    ("a_bare_rate", ("", "    load: 200\n"), "3:11 services.fraud.load: must be a mapping, not the number 200"),
]


@pytest.mark.parametrize(("written", "line"), [bad[1:] for bad in BAD], ids=[bad[0] for bad in BAD])
def test_load_that_was_not_allowed_stops_the_start_with_the_place_and_the_next_move(written, line, tmp_path, monkeypatch):
    monkeypatch.setenv("RATE", "300")
    assert refused(tmp_path, *written) == [line]


TEXTS = ["10m", "-1s", "0s", "${RATE}", "@other.server", "@", "", "9" * 60, "\u2028"]
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(TEXTS),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["rate", "longest", "errors", "x"]), inner, max_size=4),
    max_leaves=6,
)
RATES, LENGTHS = st.floats(0.1, 500) | st.integers(1, 500), st.integers(1, 900).map("{}s".format)
BORNE = st.fixed_dictionaries({"rate": RATES, "longest": LENGTHS})


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(allowed=BORNE | ANY, rate=RATES | ANY, duration=LENGTHS | ANY, every=LENGTHS | ANY, within=st.none() | LENGTHS | ANY, bind=st.just({}) | ANY)
def test_any_values_around_a_load_test_are_a_configuration_or_a_configuration_error(allowed, rate, duration, every, within, bind, tmp_path):
    watch = {
        "check": "press.bears",
        "every": every,
        "within": within,
        "with": {"rate": rate, "duration": duration},
        "bind": {"server": bind} if bind else {},
    }
    fraud = {"load": allowed, "targets": {"server": "oip+http://127.0.0.1:9/m"}, "watches": [watch]}
    path = tmp_path / "watchkeeper.yaml"
    path.write_text(json.dumps({"services": {"fraud": fraud, "other": {"targets": {"server": "oip+http://127.0.0.1:9/m"}}}}))
    try:
        made = load(path).services["fraud"]
    except ConfigError:
        return
    assert made.load is not None and rate <= made.load.rate
    assert (
        spell_back(duration) <= made.load.longest and spell_back(duration) + timedelta(minutes=1) <= made.watches[0].within <= made.watches[0].every
    )


def spell_back(text: str) -> timedelta:
    return timedelta(seconds=int(text.removesuffix("s")))


def test_a_check_is_a_load_test_by_the_word_it_asks_for():
    found = plugins.listing("check")
    assert found["press.bears"].loads and found["press.again"].loads and found["press.bears"].heavy
    assert not found["serving.ready"].loads


# The lock


def test_a_lock_is_that_of_a_host_and_port_whatever_is_asked_there():
    one = lock_of("oip+http://127.0.0.1:8000/fraud")
    assert one == lock_of("http://127.0.0.1:8000/predict?x=1") == lock_of("oip+http://localhost:8000/churn") == lock_of("http://LOCALHOST:8000")
    assert len({one, *map(lock_of, ("http://127.0.0.1:8001", "http://h:8000", "http://h", "https://h", "sqlite:x.db"))}) == 6
    assert lock_of("http://h") == lock_of("http://h:80/x") and lock_of("https://h") == lock_of("https://h:443")


URLS = [
    "",
    ":",
    "http://[",
    "http://h:99999999",
    "http://../../etc/passwd:80",
    "x" * 5000,
    "http://\ud800:1",
    "\ud800",
    "http://\u2028\u0000/",
    "oip+",
]


@pytest.mark.parametrize("url", URLS)
def test_a_lock_of_any_text_is_a_plain_file_in_its_folder(url, place):
    with alone(lock_of(url)):
        assert Path(lock_of(url)).is_file() and Path(lock_of(url)).resolve().parent.parent == place


def test_a_second_load_test_is_refused_and_told_of_the_first():
    lock = lock_of("http://h")
    with (
        alone(lock),
        pytest.raises(BusyError, match=rf"a load test is running against this server, by process {os.getpid()} since \d\d:\d\d:\d\dZ"),
        alone(lock),
    ):
        pass
    with alone(lock), alone(lock_of("http://other")):
        pass


def test_a_lock_tells_when_the_last_load_test_ran(monkeypatch):
    lock, before = lock_of("http://h"), datetime.now(UTC)
    assert last(lock) is None
    with alone(lock):
        running = last(lock)
        assert running is not None and running.until_at is None and before <= running.since_at <= datetime.now(UTC)
        assert running.within(datetime.now(UTC), datetime.now(UTC)) and not running.within(before, before)
    ran = last(lock)
    assert ran is not None and ran.until_at is not None and ran.pid == os.getpid() and ran.since_at == running.since_at
    assert ran.within(before, ran.since_at) and ran.within(ran.until_at, datetime.now(UTC))
    assert not ran.within(datetime.now(UTC), datetime.now(UTC))


def test_a_lock_is_open_again_when_whoever_held_it_was_killed():
    lock = lock_of("http://h")
    program = f"import sys, time; from agent.alone import alone\nwith alone({lock!r}): print('held', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match=f"by process {child.pid} since"), alone(lock):
            pass
        child.kill()
        child.wait()
    ran = last(lock)
    assert ran is not None and ran.pid == child.pid and ran.until_at == ran.since_at, "when it ended nobody knows"
    with alone(lock):
        pass


def test_asking_who_runs_never_keeps_a_load_test_from_beginning():
    lock, over = lock_of("http://h"), threading.Event()
    with alone(lock):
        pass
    Path(lock).write_text(json.dumps({"pid": 1, "since_at": datetime.now(UTC).isoformat()}))  # as a kill leaves it: askers must try the lock itself
    asking = [threading.Thread(target=lambda: [last(lock) for _ in iter(over.is_set, True)]) for _ in range(2)]
    for thread in asking:
        thread.start()
    try:
        for _ in range(50):
            with alone(lock):
                Path(lock).write_text(json.dumps({"pid": 1, "since_at": datetime.now(UTC).isoformat()}))
    finally:
        over.set()
        for thread in asking:
            thread.join()


def test_a_folder_that_others_could_have_made_is_not_trusted(place, tmp_path):
    lock = Path(lock_of("http://h"))
    lock.parent.symlink_to(tmp_path)
    with pytest.raises(BusyError, match="is not a folder of this user alone"), alone(str(lock)):
        pass
    lock.parent.unlink()
    lock.parent.mkdir(mode=0o700)
    lock.parent.chmod(0o777)
    with pytest.raises(BusyError, match="remove it, or set TMPDIR"), alone(str(lock)):
        pass
    lock.parent.rmdir()
    lock.parent.write_text("a file")
    with pytest.raises(BusyError, match="cannot be locked"), alone(str(lock)):
        pass


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    lock, precious = Path(lock_of("http://h")), tmp_path / "precious"
    lock.parent.mkdir(mode=0o700)
    precious.write_text("{}")
    lock.symlink_to(precious)
    with pytest.raises(BusyError, match="cannot be locked"), alone(str(lock)):
        pass
    assert precious.read_text() == "{}" and last(str(lock)) is None


def test_where_nothing_can_be_written_all_goes_on_but_load_tests(monkeypatch):
    def nowhere() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(locks.tempfile, "gettempdir", nowhere)
    monkeypatch.setattr(locks.os, "sep", "/dev/null")
    assert last(lock_of("http://h")) is None
    with pytest.raises(BusyError, match="cannot be locked"), alone(lock_of("http://h")):
        pass


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"[]", b"7", b'{"pid": 1}', b'{"pid": "x", "since_at": "2026-01-01"}', b"{" * 300])
def test_a_lock_with_nonsense_in_it_tells_of_no_load_test_and_can_be_taken(text):
    lock = Path(lock_of("http://h"))
    with alone(str(lock)):
        pass
    lock.write_bytes(text)
    assert last(str(lock)) is None
    with alone(str(lock)):
        assert last(str(lock)) is not None


# What a load test is given, and when it may not begin


@contextmanager
def loaded(folder: Path, *more: str, mode: str = "auto") -> Iterator[Desk]:
    """The fraud service, which bears load, and a load test that presses on until the file `end` is there."""
    watches = "\n".join([WATCH.replace("END", str(folder / "end")), *more]) + f"\n{ALLOWED}"
    with fraud(folder, mode, watches) as desk:
        try:
            yield desk
        finally:
            desk.world.loads.close()


@contextmanager
def pressing(desk: Desk) -> Iterator[list[Any]]:
    """A load test under way; what it found, once it is over."""
    findings: list[Any] = []
    thread = threading.Thread(target=lambda: findings.append(desk.look("press.bears")))
    thread.start()
    until(lambda: (ran := last(desk.world.find("fraud/press.bears").lock)) is not None and ran.until_at is None, "the load test runs")
    try:
        yield findings
    finally:
        (desk.folder / "end").touch()
        thread.join(60)
        assert not thread.is_alive()


def incidents_of(desk: Desk) -> list[Any]:
    with desk.world.store.read() as ledger:
        return ledger.incidents()


def runs_of(desk: Desk) -> list[Any]:
    with desk.world.store.read() as ledger:
        return ledger.runs()


def test_a_load_test_is_told_what_it_may_do_and_holds_the_lock_meanwhile(tmp_path):
    with loaded(tmp_path) as desk:
        with pressing(desk) as findings:
            assert last(lock_of(desk.server.address)).until_at is None
            busy = desk.look("press.bears")
            assert busy.status == "error" and busy.reason.startswith("busy: a load test is running against this server, by process ")
        assert findings[0].reason == "100 of 200 a second, 0:10:00 at most, to 0.5 or 0:00:05" and findings[0].status == "ok"
        ran = last(lock_of(desk.server.address))
        assert findings[0].start_at <= ran.since_at <= ran.until_at <= findings[0].end_at, "it is about the time in which load was made"


def test_there_is_no_load_without_leave():
    with pytest.raises(PluginError, match=r"press.again' of .* makes load, which nothing here allows; add `load:` to the service"):
        perform({"check": "press.again", "locators": {"server": {"service": "s", "role": "server", "url": "oip+http://127.0.0.1:9/m"}}})


def test_no_load_is_made_on_a_service_in_trouble(tmp_path):
    with loaded(tmp_path) as desk:
        spoiled(desk)
        desk.look()
        finding = desk.look("press.bears")
        assert finding.status == "skip" and finding.reason.startswith("no load test while incident 1 is open (fraud: serving.parity: ")
        assert last(desk.world.find("fraud/press.bears").lock) is None, "it was never begun"


def test_what_load_tests_found_themselves_keeps_none_from_running(tmp_path):
    (tmp_path / "end").touch()
    with loaded(tmp_path) as desk:
        say(desk, "press.bears", fail("too slow"))
        say(desk, "press.bears", fail("too slow"))
        assert [i.state for i in incidents_of(desk)] == ["open"]
        assert desk.look("press.bears").status == "ok"


def test_an_incident_that_opens_meanwhile_ends_the_load_test_with_what_it_has(tmp_path, monkeypatch):
    monkeypatch.setattr(looking, "EACH", 0.0)
    with loaded(tmp_path) as desk:
        with pressing(desk) as findings:
            spoiled(desk)
            desk.look()
            until(lambda: findings, "it ends before it is done")
        assert findings[0].status == "nodata" and findings[0].reason.startswith("aborted, incident 1 is open (fraud: serving.parity")


def test_an_agent_that_stops_ends_the_load_test_with_what_it_has(tmp_path):
    with loaded(tmp_path) as desk, pressing(desk) as findings:
        desk.world.stopping = lambda: True
        until(lambda: findings, "it ends before it is done")
        assert (findings[0].status, findings[0].reason) == ("nodata", STOPPED)


def test_load_is_never_sent_to_one_version_apart(tmp_path):
    from agent import actions
    from agent.model import Failed, Try

    with loaded(tmp_path) as desk:
        w = desk.world.find("fraud/press.bears")
        assert looking.look(desk.world, w, w.window(desk.world.clock()), version="1").status == "skip"
        better = actions.find(desk.world, w.service, "check.better")
        now = desk.world.clock()
        seen = better.look({"watch": w.key, "version": "1"}, Try("k", 1, now + timedelta(seconds=5), None, 1, now))
        assert isinstance(seen, Failed) and "makes load" in seen.said


# What a load test does to others' findings


def say(desk: Desk, watch: str, verdict: Any, *, loaded: bool = False) -> None:
    """One finding of a watch, as if it had been looked at."""
    w, now = desk.world.find(f"fraud/{watch}"), desk.world.clock()
    finding = found(w, w.window(now), now, verdict, "1", 0.0)
    desk.world.store.write(lambda ledger: fold(desk.world, ledger, w, finding, verdict, loaded))


def test_findings_are_marked_while_a_load_test_runs_and_not_after(tmp_path):
    with loaded(tmp_path) as desk:
        assert "load test" not in desk.look("serving.ready").reason
        with pressing(desk) as findings:
            assert desk.look("serving.ready").reason.endswith(" (a load test ran meanwhile)")
        assert "load test" not in desk.look("serving.ready").reason
        assert "load test" not in findings[0].reason, "a load test does not mark itself"


def test_the_mark_stands_where_it_is_told(tmp_path):
    from agent.observe import _marked

    assert _marked("slow\nby far") == "slow (a load test ran meanwhile)\nby far"
    assert _marked("x" * 5000).endswith(" (a load test ran meanwhile)") and len(_marked("x" * 5000)) < 2000


def test_what_reads_rows_is_marked_when_load_was_made_in_their_time(tmp_path):
    from agent.observe import _loaded

    with loaded(tmp_path) as desk:
        w, at = desk.world.find("fraud/serving.ready"), datetime(2026, 3, 1, 12, tzinfo=UTC)
        reads = replace(w, words=w.words | {"window"})
        lock, minute = Path(w.lock), timedelta(minutes=1)
        with alone(w.lock):
            pass
        lock.write_text(json.dumps({"pid": 1, "since_at": at.isoformat(), "until_at": (at + 5 * minute).isoformat()}))
        after = at + 8 * minute
        assert _loaded(reads, replace(w.window(after), start=at + 4 * minute), after, 1.0)
        assert not _loaded(reads, replace(w.window(after), start=at + 6 * minute), after, 1.0)
        assert not _loaded(w, replace(w.window(after), start=at + 4 * minute), after, 1.0), "what it asked is how things are now"
        assert _loaded(w, w.window(after), after, 200.0)


def test_a_fail_under_load_is_told_and_wants_nothing_and_the_next_without_does(tmp_path):
    with loaded(tmp_path) as desk:
        drilled(desk)
        before = len(runs_of(desk))
        say(desk, "serving.parity", fail("wrong answers"), loaded=True)
        (incident,) = incidents_of(desk)
        assert incident.state == "open" and incident.members[0].cause == "load" and len(runs_of(desk)) == before
        assert any("a load test ran meanwhile" in what for what in desk.events("incident.suggestion"))
        say(desk, "serving.parity", fail("wrong answers"), loaded=True)
        assert len(runs_of(desk)) == before
        say(desk, "serving.parity", fail("wrong answers"))
        (incident,) = incidents_of(desk)
        assert incident.members[0].cause == "answers" and len(runs_of(desk)) == before + 1
        say(desk, "serving.parity", fail("wrong answers"))
        assert len(runs_of(desk)) == before + 1, "once"


def test_a_fail_under_load_does_not_undo_what_was_mitigated(tmp_path):
    with loaded(tmp_path) as desk:
        drilled(desk)
        say(desk, "serving.parity", fail("wrong answers"))
        (incident,) = incidents_of(desk)
        desk.world.store.write(lambda ledger: ledger.save_incident(replace(incident, state="mitigated", changed_at=desk.world.clock())))
        desk.later(60)
        say(desk, "serving.parity", fail("wrong answers"), loaded=True)
        assert [i.state for i in incidents_of(desk)] == ["mitigated"]
        say(desk, "serving.parity", fail("wrong answers"))
        assert [i.state for i in incidents_of(desk)] == ["open"]


def test_what_could_not_be_seen_under_load_is_blind_as_ever(tmp_path):
    with loaded(tmp_path) as desk:
        for _ in range(3):
            say(desk, "serving.parity", error("timeout"), loaded=True)
        assert [m.cause for i in incidents_of(desk) for m in i.members] == ["blind"]


def test_nothing_acts_by_itself_while_load_is_made(tmp_path):
    with loaded(tmp_path) as desk:
        drilled(desk)
        spoiled(desk)
        desk.see()
        desk.look()
        with alone(lock_of(desk.server.address)):
            for _ in range(20):
                for future in desk.responder.tick(desk.world.clock()):
                    future.result(30)
                desk.later(0.5)
            (run, *_) = runs_of(desk)
            assert run.active and "a load test is running" in run.said and desk.server.flips == []
        desk.look()
        assert desk.respond().state == "succeeded" and desk.server.flips == ["1"]


def test_a_load_watch_does_not_keep_a_version_from_being_good(tmp_path):
    from agent.changes import see_changes

    with loaded(tmp_path) as desk:
        desk.see()
        for _ in range(4):
            desk.look("serving.ready")
            desk.look()
            desk.later(400)
        see_changes(desk.world, desk.world.service("fraud"))
        with desk.world.store.read() as ledger:
            assert [version for version, _, _ in ledger.goods("fraud")] == ["1"]


# The schedule


def test_load_tests_wait_for_each_other_and_hold_up_nothing_else():
    began: list[str] = []
    running, most, go, lock = 0, 0, threading.Event(), threading.Lock()

    def fire(key: str, due_at: datetime) -> None:
        nonlocal running, most
        began.append(key)
        if key.startswith("load"):
            with lock:
                running += 1
                most = max(most, running)
            go.wait(20)
            with lock:
                running -= 1

    jobs = {f"load{n}": Job(timedelta(seconds=1), "load tests", slow=True, cap=1) for n in range(6)}
    scheduler = Scheduler(fire, fire, slow=2)
    scheduler.plan({**jobs, "heavy": Job(timedelta(seconds=1), slow=True)})
    scheduler.start()
    until(lambda: began.count("heavy") >= 2, "a heavy look that makes no load has room")
    assert sum(key.startswith("load") for key in began) == 1
    go.set()
    until(lambda: len({key for key in began if key.startswith("load")}) == 6, "all of them have their turn")
    scheduler.stop()
    assert most == 1


def test_load_is_made_on_schedule_and_never_out_of_turn(tmp_path):
    with loaded(tmp_path, "      - {check: press.again, every: 2h}") as desk:
        daemon = Daemon(desk.world.config, desk.world.store, desk.folder / "watchkeeper.yaml")
        jobs = planned(daemon.world)
        assert {(jobs[f"fraud/{name}"].cap_key, jobs[f"fraud/{name}"].cap) for name in ("press.bears", "press.again")} == {("load tests", 1)}
        assert jobs["fraud/serving.ready"].cap is None
        daemon.scheduler.plan(jobs)
        before = len(daemon.scheduler._heap)
        daemon._again("fraud/press.bears")  # as at the start, or when what needs it fails
        assert len(daemon.scheduler._heap) == before
        daemon._again("fraud/serving.ready")
        assert len(daemon.scheduler._heap) == before + 1
        daemon.world.close()


def test_a_daemon_that_is_told_to_stop_keeps_what_the_load_test_has_seen(tmp_path, place):
    with closing(Fraud()) as server:
        path = write_config(tmp_path, server.address, "observe", f"{WATCH.replace('END', str(tmp_path / 'end'))}\n{ALLOWED}")
        path.write_text(f"listen: 127.0.0.1:0\n{path.read_text()}")
        lock = lock_of(server.address)
        with start(python("agent.cli", "-c", path, "run"), lambda running: "watching" in running.text, {"TMPDIR": str(place)}) as daemon:
            asking = subprocess.Popen(python("agent.cli", "-c", path, "check", "fraud", "press.bears"), stdout=subprocess.DEVNULL)
            until(lambda: (ran := last(lock)) is not None and ran.until_at is None, "the load test runs")
            daemon.grace = 40.0
            assert daemon.terminate() == 0
            asking.wait(30)
        ran = last(lock)
        assert ran is not None and ran.until_at is not None and ran.until_at != ran.since_at
        with closing(Store.open(path.parent / "watchkeeper.db")) as store, store.read() as ledger:
            (finding,) = ledger.findings(check="press.bears")
        assert (finding.status, finding.reason) == ("nodata", STOPPED)
