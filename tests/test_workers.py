"""Workers: real child processes, real plugins found through a real entry point, and every way a plugin can misbehave."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from agent import plugins, workers
from agent.errors import CancelledError, DataError, DeadlineError, PluginError, ServerError, WorkerError
from agent.model import Auth, Locator, Party, Reading, Status, Verdict
from agent.perform import Connections, perform
from agent.rebuild import locator_from_json, locator_to_json, rebuild, verdict_from_json, verdict_to_json
from agent.workers import Pool
from tests.conftest import HOUSE

CHECKS = """
from __future__ import annotations
import ctypes, os, subprocess, sys, time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from agent import Party, Reading, Verdict, Window, check, fail, ok
from agent.errors import CancelledError, DataError, ServerError
if TYPE_CHECKING:
    from somewhere import Table

@dataclass(frozen=True)
class Inner:
    at: datetime

@dataclass(frozen=True)
class Sums:
    total: float = 0.0
    seen: tuple[Inner, ...] = ()
    by: Mapping[str, int] = field(default_factory=dict)

@check(pillar="monitoring", asks="Adds up?")
def fold(memory: Sums | None, now: datetime, *, step: float = 1.0) -> Verdict:
    memory = memory or Sums()
    assert isinstance(memory, Sums) and all(isinstance(inner.at, datetime) for inner in memory.seen)
    return ok("folded", Reading(memory.total), memory=Sums(memory.total + step, (*memory.seen, Inner(now)), {"a": len(memory.seen)}))

@check(pillar="monitoring", asks="Everything?")
def words(
    server: Any, window: Window, now: datetime, scratch: Path, tell: Any, party: Party, history: Any = (), *, wait: timedelta = timedelta(1)
) -> Verdict:
    (scratch / "file").write_text("x")
    tell(0.5, "half way")
    return ok(f"{server.name} {window.length} {now:%H:%M} {party.owner} {wait} {history}", data={"scratch": str(scratch).encode()})

@check(pillar="monitoring", asks="Annotated with what cannot be resolved?")
def unresolved(live: Table | None = None, *, wait: timedelta = timedelta(1)) -> Verdict:
    return ok(str(wait))

@check(pillar="monitoring", asks="Who am I?")
def pid() -> Verdict:
    return ok(str(os.getpid()))

@check(pillar="monitoring", asks="What is imported?")
def imported() -> Verdict:
    return ok(" ".join(name for name in ("numpy", "wave") if name in sys.modules))

@check(pillar="monitoring", asks="Numpy?")
def numbers() -> Verdict:
    import numpy as np
    return ok("np", Reading(np.float32(0.5), n=np.int64(3)), parts={"a": Reading(np.float64(1.0))}, memory={"array": np.arange(3)})

@check(pillar="monitoring", asks="Prints?")
def prints(*, text: str = "hello") -> Verdict:
    print(text); sys.stdout.flush(); os.write(1, b"{\\"verdict\\": 1}\\n"); subprocess.run(["echo", "from a child"])
    assert sys.stdin.read() == ""
    return ok("printed")

@check(pillar="monitoring", asks="Raises?")
def raises(*, kind: str = "KeyError") -> Verdict:
    if kind == "ServerError":
        raise ServerError("HTTP 503", 503)
    if kind == "own":
        class OwnError(DataError):
            pass
        raise OwnError("mine")
    if kind == "exit":
        sys.exit(3)
    return {}["missing"]

@check(pillar="monitoring", asks="Returns what?")
def returns(*, what: str = "dict") -> Verdict:
    return {
        "dict": {},
        "memory": ok("m", memory="x" * 1_100_000),
        "file": ok("f", data={"big": bytes(9_000_000)}),
        "object": ok("o", memory=object()),
        "status": Verdict("fine", "s"),
    }[what]

@check(pillar="monitoring", asks="Ends how?")
def ends(*, how: str, note: str = "") -> Verdict:
    print("about to end", file=sys.stderr)
    if how == "segfault":
        ctypes.string_at(0)
    if how == "exit":
        os._exit(7)
    if how == "kill":
        os.kill(os.getpid(), 9)
    if how == "closed":
        os.closerange(3, 64)
    if how == "nonsense":
        for fd in range(3, 16):
            try: os.write(fd, b"nonsense\\n")
            except OSError: pass
    if how == "spin":
        import re; re.match(r"(a+)+$", "a" * 64 + "b")
    if how == "family":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]); Path(note).write_text(str(child.pid)); time.sleep(600)
    if how == "orphan":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]); Path(note).write_text(str(child.pid)); os._exit(7)
    if how == "loud":
        for _ in range(2000): print("x" * 1000, file=sys.stderr)
    if how == "wait":
        deadline = time.monotonic() + 60
        while not Path(note).exists() and time.monotonic() < deadline: time.sleep(0.01)
    return ok("ended")

@check(pillar="monitoring", asks="Does it stop when it is asked to?")
def long(tell: Any, *, stops: str, note: str = "", pause: float = 0.01) -> Verdict:
    if note:
        Path(note).write_text(str(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid))
    try:
        while True:
            tell(0.1, "going on")
            time.sleep(pause)
    except CancelledError as problem:
        if stops == "at once":
            raise
        for n in range(6000 if stops == "never" else 3):
            tell(0.9, "to the end")
            time.sleep(0.01)
        return ok(f"{stops}: {problem}")

@check(pillar="monitoring", asks="How much time does the wire give?")
def left() -> Verdict:
    from agent.wire import remaining
    return ok("left", Reading(remaining()))
"""
ADAPTER = """
from agent import adapter
@adapter(role="server", schemes=("fake",))
class Fake:
    can = frozenset()
    opened = []
    def __init__(self, at):
        self.name, self.closed = at.address, False
        Fake.opened.append(self)
    def at(self, version):
        other = Fake.__new__(Fake)
        other.name = f"{self.name} version {version}"
        return other
    def close(self):
        self.closed = True
"""


@pytest.fixture(scope="module", autouse=True)
def odd(tmp_path_factory):
    """A package of odd checks and one adapter, installed the way anyone's is: a folder on the path with an entry point."""
    root = tmp_path_factory.mktemp("installed")
    for package, module, source in (("oddchecks", "odd", CHECKS), ("oddtargets", "fake", ADAPTER)):
        (root / package).mkdir()
        (root / package / "__init__.py").write_text("")
        (root / package / f"{module}.py").write_text(textwrap.dedent(source))
    (root / "odd-1.0.dist-info").mkdir()
    (root / "odd-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    entries = "[watchkeeper.checks]\noddchecks = oddchecks\n[watchkeeper.adapters]\noddtargets = oddtargets\n"
    (root / "odd-1.0.dist-info" / "entry_points.txt").write_text(entries)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(root), str(HOUSE)]))
        plugins._packages.cache_clear()
        yield root
    plugins._packages.cache_clear()


@pytest.fixture(scope="module")
def pool():
    with Pool(1) as pool:
        yield pool


NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def job(check, **more):
    parameters = more.pop("parameters", {})
    return {"check": f"odd.{check}", "now": NOW.isoformat(), "parameters": parameters, **more}


def at(name="a", **more):
    return Locator("fraud", "server", f"fake:{name}", **more)


# Performing


def test_memory_comes_back_as_the_dataclass_its_annotation_names():
    first = perform(job("fold"))
    second = perform(job("fold", memory=first.memory, parameters={"step": 2}))
    third = perform(job("fold", memory=second.memory))
    assert third.reading.observed == 3.0
    assert second.memory == {"total": 3.0, "seen": [{"at": NOW.isoformat()}] * 2, "by": {"a": 1}}


def test_memory_of_another_shape_is_an_error_that_says_what_does_not_fit():
    with pytest.raises(PluginError, match=r"odd.fold.*memory should be Sums \| None.*no field 'sum'"):
        perform(job("fold", memory={"sum": 1}))


def test_the_platform_fills_its_words_and_clears_up_after_the_check():
    told = []
    words = job("words", locators={"server": at()}, window=[NOW.isoformat(), (NOW + MINUTE).isoformat()], parameters={"wait": "1h30m"})
    verdict = perform({**words, "party": {"service": "fraud", "owner": "ann"}}, lambda *line: told.append(line))
    assert verdict.reason == "a 0:01:00 12:30 ann 1:30:00 ()"
    assert told == [(0.5, "half way")]
    assert not Path(verdict.data["scratch"].decode()).exists()


def test_words_may_be_given_as_the_values_themselves():
    words = {"party": Party("fraud", owner="bob"), "now": NOW, "locators": {"server": locator_to_json(at("b"))}}
    verdict = perform({**job("words", window=[NOW, NOW + MINUTE], parameters={"wait": 90}, history=[1]), **words})
    assert verdict.reason == "b 0:01:00 12:30 bob 0:01:30 [1]"


def test_one_loaded_version_is_asked_where_the_job_says_so():
    words = {"locators": {"server": at("b")}, "at": {"server": "2"}, "party": Party("fraud")}
    assert perform({**job("words", window=[NOW, NOW + MINUTE]), **words}).reason.startswith("b version 2 ")


def test_a_need_nobody_bound_is_named():
    with pytest.raises(PluginError, match=r"odd.words.* needs 'server', which is not bound"):
        perform(job("words"))


def test_a_parameter_that_does_not_fit_is_named():
    with pytest.raises(PluginError, match=r"wait should be timedelta.*soon.*no duration"):
        perform(job("unresolved", parameters={"wait": "soon"}))


def test_an_annotation_only_type_checkers_can_resolve_spoils_no_other():
    assert perform(job("unresolved", parameters={"wait": "2s"})).reason == "0:00:02"


def test_an_exception_names_the_plugin_its_owner_and_its_line():
    verdict = perform(job("raises"))
    assert verdict.status is Status.ERROR
    assert "check 'odd.raises' of odd raised KeyError: 'missing' at odd.py:" in verdict.reason
    assert verdict.reason.endswith('return {}["missing"]')


def test_errors_raised_on_purpose_pass_as_they_are():
    with pytest.raises(ServerError, match="HTTP 503"):
        perform(job("raises", parameters={"kind": "ServerError"}))


@pytest.mark.parametrize(
    ("what", "says"),
    [("dict", "returned dict, not a Verdict"), ("memory", "its memory is 1,100,002 bytes"), ("object", "object is not JSON"), ("status", "'fine'")],
)
def test_what_is_no_sound_verdict_becomes_an_error_naming_the_plugin(what, says):
    verdict = perform(job("returns", parameters={"what": what}))
    assert verdict.status is Status.ERROR
    assert says in verdict.reason and "odd.returns" in verdict.reason


def test_a_fresh_adapter_is_closed_after_the_look():
    from oddtargets.fake import Fake

    perform(job("words", locators={"server": at("fresh")}, window=[NOW, NOW + MINUTE], party=Party("fraud")))
    assert Fake.opened[-1].closed


def test_connections_lend_one_adapter_again_and_never_to_two_at_once():
    connections = Connections(size=2)
    with connections(at("x")) as first, connections(at("x")) as second:
        assert first is not second
    with connections(at("x")) as third:
        assert third in (first, second)
    with connections(at("x", look=Auth("bearer", {"token": "new"}))) as other:
        assert other not in (first, second)
    assert sum(adapter.closed for adapter in (first, second, other)) == 1, "only two idle ones are kept"
    connections.close()
    assert first.closed and second.closed and other.closed


def test_an_adapter_whose_look_raised_is_not_lent_again():
    connections = Connections()
    with pytest.raises(DataError), connections(at("broken")) as adapter:
        raise DataError("broken")
    assert adapter.closed
    with connections(at("broken")) as another:
        assert another is not adapter


# Values as JSON and back


def test_a_verdict_survives_the_line():
    verdict = Verdict(Status.FAIL, "why", Reading(0.5, 1.0, (0.1, 0.9), 7, "s"), {"f": Reading(None)}, {"page": b"\x00\xff"}, {"a": [1]})
    assert verdict_from_json(verdict_to_json(verdict)) == verdict


def test_a_locator_survives_the_line_with_its_secrets():
    locator = at(options={"time": {"column": "at"}}, look=Auth("bearer", {"token": "s3cret"}), within=timedelta(seconds=3), verify=False)
    assert locator_from_json(locator_to_json(locator)) == locator
    assert "s3cret" not in repr(locator)


def test_rebuild_takes_what_json_makes_of_a_value():
    assert rebuild(tuple[int, str] | None, [1, "a"]) == (1, "a")
    assert rebuild(dict[str, timedelta], {"a": 2}) == {"a": timedelta(seconds=2)}
    assert rebuild(frozenset[str], ["a"]) == frozenset({"a"})
    assert rebuild(Status, "ok") is Status.OK
    with pytest.raises(ValueError):
        rebuild(tuple[int, str], [1])


# The pool


def test_a_worker_answers_as_perform_does(pool):
    assert verdict_from_json(pool.call(job("fold"), MINUTE)["verdict"]) == perform(job("fold"))


def test_a_worker_stays_warm_and_takes_the_next_job(pool):
    assert pool.call(job("pid"), MINUTE)["verdict"]["reason"] == pool.call(job("pid"), MINUTE)["verdict"]["reason"]


def test_numpy_numbers_come_back_as_plain_ones(pool):
    verdict = verdict_from_json(pool.call(job("numbers"), MINUTE)["verdict"])
    assert (verdict.reading, verdict.memory) == (Reading(0.5, n=3), {"array": [0, 1, 2]})


def test_progress_is_told_before_the_verdict(pool):
    told = []
    words = job("words", locators={"server": at("pipe")}, window=[NOW, NOW + MINUTE], party=Party("fraud", owner="eve"))
    assert pool.call(words, MINUTE, lambda *line: told.append(line))["verdict"]["reason"].startswith("pipe 0:01:00 12:30 eve")
    assert told == [(0.5, "half way")]


def test_what_a_plugin_prints_never_reaches_the_protocol(pool):
    assert pool.call(job("prints"), MINUTE)["verdict"]["reason"] == "printed"
    assert pool.call(job("prints", parameters={"text": "y" * 300_000}), MINUTE)["verdict"]["reason"] == "printed"


def test_a_plugin_that_floods_stderr_is_not_blocked_by_it(pool):
    assert pool.call(job("ends", parameters={"how": "loud"}), MINUTE)["verdict"]["reason"] == "ended"


def test_errors_keep_their_kind_across_the_line(pool):
    with pytest.raises(ServerError) as caught:
        pool.call(job("raises", parameters={"kind": "ServerError"}), MINUTE)
    assert (str(caught.value), caught.value.status) == ("HTTP 503", 503)
    with pytest.raises(DataError, match="mine"):
        pool.call(job("raises", parameters={"kind": "own"}), MINUTE)
    with pytest.raises(PluginError, match=r"no check 'odd.fould'; did you mean"):
        pool.call(job("fould"), MINUTE)


@pytest.mark.parametrize("kind", ["KeyError", "exit"])
def test_an_exception_in_a_worker_is_a_verdict_and_the_worker_lives_on(pool, kind):
    before = pool.call(job("pid"), MINUTE)
    assert pool.call(job("raises", parameters={"kind": kind}), MINUTE)["verdict"]["status"] == "error"
    assert pool.call(job("pid"), MINUTE)["verdict"] == before["verdict"]


def test_a_verdict_too_big_for_the_line_is_refused_by_name(pool):
    with pytest.raises(WorkerError, match=r"odd.returns' is 12,\d+,\d+ bytes"):
        pool.call(job("returns", parameters={"what": "file"}), MINUTE)


@pytest.mark.parametrize(
    ("how", "says"),
    [("segfault", "SIGSEGV"), ("exit", "exit code 7"), ("kill", "killed from outside"), ("nonsense", "spoke nonsense")],
)
def test_a_worker_that_dies_or_raves_is_told_with_its_last_words_and_replaced(pool, how, says):
    with pytest.raises(WorkerError, match=says) as caught:
        pool.call(job("ends", parameters={"how": how}), MINUTE)
    assert how == "nonsense" or "about to end" in str(caught.value)
    assert pool.call(job("pid"), MINUTE)["verdict"]["status"] == "ok"


def test_a_check_that_hogs_the_interpreter_is_killed_at_the_deadline(pool):
    began = time.monotonic()
    with pytest.raises(DeadlineError, match=r"odd.ends' was not done after 2s"):
        pool.call(job("ends", parameters={"how": "spin"}), timedelta(seconds=2))
    assert time.monotonic() - began < 10
    assert pool.call(job("pid"), MINUTE)["verdict"]["status"] == "ok"


def until(condition, within=20.0):
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_the_deadline_takes_down_what_the_check_started(pool, tmp_path):
    note = tmp_path / "pid"
    with pytest.raises(DeadlineError):
        pool.call(job("ends", parameters={"how": "family", "note": str(note)}), timedelta(seconds=5))
    until(lambda: gone(int(note.read_text())))


def test_a_check_that_never_stops_telling_is_killed_at_the_deadline_all_the_same(pool):
    with pytest.raises(DeadlineError, match=r"odd.long' was not done after 1s"):
        pool.call(job("long", parameters={"stops": "never", "pause": 0}), timedelta(seconds=1), lambda *line: None)


def test_a_worker_that_dies_leaves_nothing_running_that_it_started(pool, tmp_path):
    note = tmp_path / "pid"
    with pytest.raises(WorkerError, match="exit code 7"):
        pool.call(job("ends", parameters={"how": "orphan", "note": str(note)}), MINUTE)
    until(lambda: gone(int(note.read_text())))


def test_a_spinning_check_makes_no_other_watch_late(pool):
    from agent.scheduler import Job, Scheduler

    killed = []

    def fire(key, due_at):
        if key == "spin":
            with pytest.raises(DeadlineError):
                pool.call(job("ends", parameters={"how": "spin"}), timedelta(seconds=2))
            killed.append(key)

    scheduler = Scheduler(fire, fire)
    scheduler.plan({"spin": Job(timedelta(seconds=0.5)), **{f"w{n}": Job(timedelta(seconds=0.5)) for n in range(100)}})
    scheduler.start()
    until(lambda: killed)
    scheduler.stop()
    assert scheduler.counts.run > 200 and scheduler.counts.late.quantile(0.99) < 1


def test_the_wire_of_a_worker_gets_the_time_that_is_left(pool):
    left = pool.call(job("left"), timedelta(seconds=20))["verdict"]["reading"]["observed"]
    assert 0 < left < 20


def enough(done, what):
    raise CancelledError("enough")


def test_a_check_that_is_asked_to_stop_may_answer_with_what_it_has(pool):
    before = pool.call(job("pid"), MINUTE)["verdict"]
    assert pool.call(job("long", parameters={"stops": "partly"}), MINUTE, enough)["verdict"]["reason"] == "partly: enough"
    assert pool.call(job("pid"), MINUTE)["verdict"] == before, "its worker lives on"


def test_a_check_that_does_not_mind_being_stopped_ends_where_it_tells(pool):
    before = pool.call(job("pid"), MINUTE)["verdict"]
    with pytest.raises(CancelledError, match=r"^enough$"):
        pool.call(job("long", parameters={"stops": "at once"}), MINUTE, enough)
    assert pool.call(job("pid"), MINUTE)["verdict"] == before


def test_a_wish_to_stop_that_comes_too_late_spoils_no_later_look(pool):
    words = job("words", locators={"server": at()}, window=[NOW, NOW + MINUTE], party=Party("fraud", owner="eve"))
    for _ in range(3):
        assert pool.call(words, MINUTE, enough)["verdict"]["status"] == "ok", "it was done when it was asked"
    told = []
    assert pool.call(words, MINUTE, lambda *line: told.append(line))["verdict"]["status"] == "ok" and told == [(0.5, "half way")]


def test_a_check_that_will_not_stop_is_killed_with_what_it_started(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "STOPPING", timedelta(seconds=1))
    note = tmp_path / "pid"
    with pytest.raises(CancelledError, match=r"^enough; check 'odd.long' did not end within 1s, and its worker was killed"):
        pool.call(job("long", parameters={"stops": "never", "note": str(note)}), MINUTE, enough)
    until(lambda: gone(int(note.read_text())))
    assert pool.call(job("pid"), MINUTE)["verdict"]["status"] == "ok"


def test_a_full_pool_says_no_room_after_the_time_given(tmp_path):
    import threading

    go = tmp_path / "go"
    with Pool(1) as pool:
        busy = threading.Thread(target=pool.call, args=(job("ends", parameters={"how": "wait", "note": str(go)}), MINUTE))
        busy.start()
        until(lambda: pool._all and not pool._free)
        with pytest.raises(WorkerError, match="no room: all 1 workers were busy for 100ms"):
            pool.call(job("pid"), timedelta(milliseconds=100))
        go.touch()
        busy.join()
        assert pool.call(job("pid"), MINUTE)["verdict"]["status"] == "ok"


@pytest.mark.parametrize("limit", [{"jobs": 2}, {"resident": 1}])
def test_a_worn_worker_is_replaced(limit):
    with Pool(1, **limit) as pool:
        pids = [pool.call(job("pid"), MINUTE)["verdict"]["reason"] for _ in range(3)]
    assert len(set(pids)) == (2 if "jobs" in limit else 3)
    until(lambda: all(gone(int(pid)) for pid in pids))


def test_a_worker_started_ahead_of_need_has_its_imports_behind_it():
    with Pool(1, ahead=("wave", "no_such_module")) as pool:
        assert pool.call(job("imported"), MINUTE)["verdict"]["reason"] == "", "one that is waited for imports nothing it may not need"
        with pytest.raises(WorkerError):
            pool.call(job("ends", parameters={"how": "exit"}), MINUTE)
        assert pool.call(job("imported"), MINUTE)["verdict"]["reason"] == "wave"


def test_a_closed_pool_leaves_nothing_running():
    pool = Pool(2)
    pool.warm()
    pids = [worker._process.pid for worker in pool._all]
    pool.close()
    assert len(pids) == 2 and all(gone(pid) for pid in pids)
    with pytest.raises(WorkerError, match="being closed"):
        pool.call(job("pid"), MINUTE)


def test_closing_ends_a_look_under_way_with_a_word(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as threads, Pool(1) as pool:
        busy = threads.submit(pool.call, job("ends", parameters={"how": "wait", "note": str(tmp_path / "never")}), MINUTE)
        until(lambda: pool._all and not pool._free)
        pool.close()
        with pytest.raises(WorkerError, match="closed before this look was done"):
            busy.result(20)


def test_a_file_in_the_working_folder_is_not_taken_for_a_module(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('not the real one')")
    monkeypatch.chdir(tmp_path)
    with Pool(1) as pool:
        assert pool.call(job("pid"), MINUTE)["verdict"]["status"] == "ok"


def test_a_worker_in_the_middle_of_a_look_ends_when_its_parent_is_killed(tmp_path):
    note = tmp_path / "pid"
    program = f"""
from datetime import timedelta
from agent.workers import Pool
Pool(1).call({{"check": "odd.ends", "now": "{NOW.isoformat()}", "parameters": {{"how": "family", "note": {str(note)!r}}}}}, timedelta(seconds=60))
"""
    parent = subprocess.Popen([sys.executable, "-c", program])
    until(lambda: note.exists() and note.read_text())
    grandchild = int(note.read_text())
    child = psutil.Process(grandchild).ppid()
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    until(lambda: gone(child) and gone(grandchild))
