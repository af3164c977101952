"""The scheduler against the real APScheduler: slots, lanes, caps and a clock that is set while it runs."""

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.scheduler import Job, Scheduler
from agent.slots import EPOCH, Lateness, Slots, moment
from tests.conftest import need

SECOND = timedelta(seconds=1)


def until(condition, within=20.0):
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.005)


class Diary:
    """What was fired and refused, and a gate that holds runs back."""

    def __init__(self):
        self.fired, self.refused, self.gate = [], [], threading.Event()
        self.gate.set()

    def fire(self, key, due_at):
        self.fired.append((key, due_at))
        self.gate.wait(30)

    def no_room(self, key, due_at):
        self.refused.append((key, due_at))

    def count(self, key=None):
        return len([k for k, _ in self.fired if key in (None, k)])


@pytest.fixture
def diary():
    return Diary()


@pytest.fixture
def make(diary):
    made = []

    def scheduler(jobs=None, **more):
        made.append(Scheduler(diary.fire, diary.no_room, **more))
        made[-1].plan(jobs or {})
        made[-1].start()
        return made[-1]

    yield scheduler
    diary.gate.set()
    for one in made:
        one.stop(SECOND)


class Clock:
    """A wall clock that can be set, and a monotonic one that cannot; both go on by themselves."""

    def __init__(self):
        self.ahead = 0.0

    def __call__(self):
        return time.time() + self.ahead


# Slots


@given(st.integers(1, 10**13), st.integers(0, 10**13), st.integers(0, 4 * 10**15))
def test_the_next_slot_is_on_the_grid_and_at_most_one_interval_away(every, phase, instant):
    slots = Slots(timedelta(microseconds=max(every, 1000)), timedelta(microseconds=phase))
    due = slots.after(instant)
    assert instant < due <= instant + slots.every
    assert (due - slots.phase) % slots.every == 0


def test_slots_are_the_same_after_a_restart_and_spread_out():
    program = "from datetime import timedelta; from agent.slots import Job, Slots; print(Slots.of('fraud/ready', Job(timedelta(seconds=60))).phase)"
    runs = {subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout for _ in range(2)}
    assert runs == {f"{Slots.of('fraud/ready', Job(timedelta(seconds=60))).phase}\n"}
    cells = Counter(Slots.of(f"watch-{n}", Job(10 * SECOND)).phase // 1_000_000 for n in range(2000))
    assert len(cells) == 10 and max(cells.values()) < 300


def test_a_watch_without_splay_looks_at_the_full_hour():
    due = Slots.of("nightly", Job(timedelta(hours=1), splay=False)).after(
        (datetime(2026, 3, 1, 12, 30, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
    )
    assert moment(due) == datetime(2026, 3, 1, 13, tzinfo=UTC)


def test_missed_slots_are_never_built():
    slots, start = Slots(SECOND), datetime(2026, 3, 1, tzinfo=UTC)
    assert slots.get_next_fire_time(start, start + timedelta(hours=24)) == start + timedelta(hours=24, seconds=1)


def test_daylight_saving_moves_no_slot():
    program = """
from datetime import UTC, datetime, timedelta
from agent.slots import Slots
slots, at, gaps = Slots(timedelta(hours=1)), datetime(2026, 3, 28, 20, tzinfo=UTC), set()
for _ in range(24):
    after = slots.get_next_fire_time(at, at.astimezone())
    gaps.add((after - at).total_seconds()); at = after
print(gaps)
"""
    env = {**os.environ, "TZ": "Europe/Berlin"}
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True, env=env).stdout == "{3600.0}\n"


def test_an_interval_of_nothing_is_refused():
    with pytest.raises(ValueError, match="shortest interval is 1ms"):
        Job(timedelta(0))


# Firing


def test_a_watch_fires_at_each_of_its_slots_once(make, diary):
    make({"w": Job(0.1 * SECOND)})
    until(lambda: diary.count() >= 5)
    due = [due_at for _, due_at in diary.fired[:5]]
    assert due == [due[0] + n * 0.1 * SECOND for n in range(5)]


def test_a_slot_is_not_late_and_never_early(make, diary):
    scheduler = make({"w": Job(0.1 * SECOND)})
    until(lambda: diary.count() >= 5)
    assert all(datetime.now(UTC) >= due_at for _, due_at in diary.fired)
    assert scheduler.counts.late.n >= 5
    assert scheduler.lag() < 1


def test_planning_adds_keeps_changes_and_removes(make, diary):
    scheduler = make({"kept": Job(0.1 * SECOND), "gone": Job(0.1 * SECOND), "changed": Job(timedelta(hours=1))})
    until(lambda: diary.count("kept") and diary.count("gone"))
    scheduler.plan({"kept": Job(0.1 * SECOND), "changed": Job(0.1 * SECOND), "new": Job(0.1 * SECOND)})
    until(lambda: diary.count("changed") and diary.count("new"))
    gone, kept = diary.count("gone"), diary.count("kept")
    until(lambda: diary.count("kept") > kept + 3)
    assert diary.count("gone") <= gone + 1
    times = [due_at for key, due_at in diary.fired if key == "kept"]
    assert len(times) == len(set(times)), "re-planning repeats no slot"


def test_a_watch_planned_away_while_it_waits_is_not_fired(make, diary):
    diary.gate.clear()
    scheduler = make({"first": Job(timedelta(hours=1)), "second": Job(timedelta(hours=1))}, quick=1)
    for key in ("first", "second"):
        scheduler.now(key)
    until(lambda: diary.count("first") == 1 and scheduler._quick.waiting == 1)
    scheduler.plan({"first": Job(timedelta(hours=1))})
    diary.gate.set()
    until(lambda: scheduler._quick.waiting == 0)
    scheduler.now("first")
    until(lambda: diary.count("first") == 2)
    assert diary.count("second") == 0


def test_a_watch_planned_away_and_back_in_flight_is_not_run_twice_at_once(make, diary):
    diary.gate.clear()
    scheduler = make({"w": Job(0.05 * SECOND, "old target")})
    until(lambda: diary.count() == 1)
    scheduler.plan({})
    scheduler.plan({"w": Job(0.05 * SECOND, "new target")})
    until(lambda: scheduler.counts.in_flight >= 3)
    assert diary.count() == 1
    diary.gate.set()
    until(lambda: diary.count() > 1)


def test_an_extra_look_comes_at_its_time_beside_the_slots(make, diary):
    scheduler = make({"w": Job(timedelta(hours=1))})
    at = datetime.now(UTC) + 0.2 * SECOND
    scheduler.again("w", at)
    until(lambda: diary.count())
    assert diary.fired == [("w", at)] and datetime.now(UTC) >= at
    scheduler.now("w")
    until(lambda: scheduler.counts.looks == 2)
    assert scheduler.counts.due == 0
    with pytest.raises(KeyError):
        scheduler.now("unknown")


def test_an_extra_look_waits_for_the_run_in_flight(make, diary):
    scheduler = make({"w": Job(timedelta(hours=1))})
    diary.gate.clear()
    scheduler.now("w")
    until(lambda: diary.count() == 1)
    scheduler.now("w")
    diary.gate.set()
    until(lambda: diary.count() == 2)


def test_a_slot_with_a_run_in_flight_is_no_slot(make, diary):
    diary.gate.clear()
    scheduler = make({"w": Job(0.05 * SECOND)})
    until(lambda: scheduler.counts.in_flight >= 3)
    assert diary.count() == 1
    diary.gate.set()
    until(lambda: diary.count() >= 3)
    assert diary.fired[1][1] - diary.fired[0][1] > 3 * 0.05 * SECOND


def test_what_a_run_raises_is_counted_and_stops_nothing(make):
    def burst(key, due_at):
        raise RuntimeError("burst")

    scheduler = Scheduler(burst, burst)
    scheduler.plan({"w": Job(0.02 * SECOND)})
    scheduler.start()
    until(lambda: scheduler.counts.raised >= 3)
    assert scheduler.stop(SECOND)


def test_all_due_at_once_after_a_pause_are_all_fired_once(make, diary):
    """Ten thousand watches whose process was stopped for ten minutes: monotonic and wall time both went on."""
    pause = [0.0]
    more = {"clock": lambda: time.time() + pause[0], "monotonic": lambda: time.monotonic() + pause[0]}
    scheduler = make({f"w{n}": Job(timedelta(minutes=5)) for n in range(10_000)}, **more)
    pause[0] = 600.0
    until(lambda: scheduler.counts.run >= 10_000)
    assert len({key for key, _ in diary.fired}) == 10_000
    assert not diary.refused
    assert scheduler.counts.run < 10_100, "the second of two missed slots is not made up"


# Lanes and caps


def test_a_slow_watch_leaves_the_quick_lane_to_the_others(diary):
    lanes = Counter()

    def fire(key, due_at):
        lanes[key, threading.current_thread().name.split("-")[0]] += 1
        if key == "slow":
            time.sleep(1.05)

    scheduler = Scheduler(fire, diary.no_room, quick=1, slow=1)
    scheduler.plan({"slow": Job(0.05 * SECOND), "quick": Job(0.05 * SECOND), "heavy": Job(timedelta(hours=1), slow=True)})
    scheduler.start()
    until(lambda: lanes["slow", "slow"] >= 1 and lanes["quick", "quick"] >= 5)
    assert lanes["slow", "quick"] == 1
    scheduler.now("heavy")
    until(lambda: lanes["heavy", "slow"] == 1)
    scheduler.stop(5 * SECOND)


def test_a_full_lane_says_no_room_and_keeps_no_endless_queue(make, diary):
    diary.gate.clear()
    scheduler = make({f"w{n}": Job(0.1 * SECOND) for n in range(10)}, quick=1, quick_room=6)
    until(lambda: scheduler.counts.no_room >= 20)
    assert diary.count() == 1
    assert {key for key, _ in diary.refused} <= {f"w{n}" for n in range(10)} - {diary.fired[0][0]}
    assert scheduler._quick.waiting == 6
    diary.gate.set()
    until(lambda: len({key for key, _ in diary.fired}) == 10)


def test_at_most_the_cap_runs_of_one_target_go_at_once(diary):
    going, most, lock = Counter(), Counter(), threading.Lock()

    def fire(key, due_at):
        target = key[0]
        with lock:
            going[target] += 1
            most[target] = max(most[target], going[target])
        time.sleep(0.01)
        with lock:
            going[target] -= 1

    scheduler = Scheduler(fire, diary.no_room, quick=8, cap=2)
    scheduler.plan({f"{target}{n}": Job(0.05 * SECOND, cap_key=target) for target in "ab" for n in range(6)})
    scheduler.start()
    until(lambda: scheduler.counts.run > 60)
    assert scheduler.stop(5 * SECOND)
    assert most == {"a": 2, "b": 2}


def test_a_parked_run_holds_no_thread(make, diary):
    diary.gate.clear()
    scheduler = make({"a1": Job(timedelta(hours=1), "a"), "a2": Job(timedelta(hours=1), "a"), "b": Job(timedelta(hours=1), "b")}, quick=2, cap=1)
    for key in ("a1", "a2", "b"):
        scheduler.now(key)
    until(lambda: diary.count("b") == 1)
    assert diary.count("a1") + diary.count("a2") == 1
    diary.gate.set()
    until(lambda: diary.count() == 3)


def test_the_slots_add_up(make, diary):
    scheduler = make({f"w{n}": Job(0.02 * SECOND, cap_key=str(n % 3)) for n in range(30)}, quick=2, quick_room=10, cap=1)
    until(lambda: scheduler.counts.run > 300)
    diary.gate.clear()
    until(lambda: scheduler.counts.in_flight > 10 and scheduler.counts.no_room > 10)
    with scheduler._lock:
        counts, waiting = scheduler.counts, scheduler._quick.waiting
        assert counts.due == counts.run + counts.in_flight + counts.no_room + waiting


def test_a_run_that_never_comes_back_is_given_up_and_its_lane_goes_on(diary):
    hung, given_up, fired = threading.Event(), [], Counter()

    def fire(key, due_at):
        fired[key] += 1
        if key == "hung":
            hung.wait(30)

    scheduler = Scheduler(fire, diary.no_room, quick=1, cap=1, lost=lambda key, due_at: given_up.append(key))
    scheduler.plan({"hung": Job(0.05 * SECOND, "one", lost_after=0.2 * SECOND), "well": Job(0.05 * SECOND, "one")})
    scheduler.start()
    until(lambda: given_up and fired["well"] > 5)
    assert fired["hung"] == 1 and scheduler.counts.in_flight > 3, "it is still in flight: no second thread is lost to it"
    assert "hung" not in scheduler.in_flight()
    hung.set()
    until(lambda: fired["hung"] > 1)
    assert scheduler.stop(SECOND)


# The clock


@pytest.mark.parametrize("jump", [-3600.0, 3600.0, 8 * 3600.0])
def test_watches_keep_their_cadence_when_the_clock_is_set(make, diary, jump):
    clock, jumps = Clock(), []
    make({f"w{n}": Job(0.2 * SECOND) for n in range(20)}, clock=clock, clock_jumped=jumps.append)
    until(lambda: diary.count() >= 40)
    clock.ahead = jump
    until(lambda: jumps)
    assert abs(jumps[0] - jump) < 1
    before = diary.count()
    began = time.monotonic()
    until(lambda: diary.count() >= before + 100)
    assert time.monotonic() - began > 0.5, "no burst of missed slots"
    until(lambda: all(diary.count(f"w{n}") >= 5 for n in range(20)))
    assert abs((diary.fired[-1][1] - datetime.now(UTC)).total_seconds() - jump) < 5


SET_CLOCK = """
import sys, threading, time
from datetime import timedelta
from pathlib import Path
from agent.scheduler import Job, Scheduler

fired, tidied, jumps, set_clock = [], [], [], Path(sys.argv[1])
scheduler = Scheduler(lambda key, due_at: fired.append(key), print, clock_jumped=jumps.append)
scheduler.plan({f"w{n}": Job(timedelta(seconds=0.5)) for n in range(20)})
scheduler.also("tidy", timedelta(seconds=0.2), lambda: tidied.append(1))
scheduler.start()
for jump in ("-1h", "+1h", "+8h"):
    set_clock.with_suffix(".new").write_text(jump)
    set_clock.with_suffix(".new").replace(set_clock)
    seen, runs, tidy, end = len(jumps), len(fired), len(tidied), time.monotonic() + 20
    while time.monotonic() < end and not (len(jumps) > seen and len(fired) > runs + 50 and len(tidied) > tidy + 4):
        threading.Event().wait(0.01)  # libfaketime 0.9.10 breaks time.sleep
    print(jump, len(jumps) > seen, len(fired) > runs + 50, len(fired) < runs + 150, len(tidied) > tidy + 4)
scheduler.stop()
"""


def test_the_real_clock_of_the_whole_process_may_be_set_back_and_forth(tmp_path):
    """libfaketime under Python and APScheduler alike: nothing of ours is told."""
    program = need("faketime")
    library = next(program.resolve().parent.parent.glob("lib/**/libfaketimeMT.so.1"))
    (tmp_path / "clock").write_text("+0s")
    fake = {"FAKETIME_TIMESTAMP_FILE": str(tmp_path / "clock"), "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    env = {**os.environ, **fake, "DONT_FAKE_MONOTONIC": "1", "LD_PRELOAD": str(library)}
    command = [sys.executable, "-c", SET_CLOCK, str(tmp_path / "clock")]
    told = subprocess.run(command, capture_output=True, check=True, text=True, env=env, timeout=90).stdout
    assert told == "-1h True True True True\n+1h True True True True\n+8h True True True True\n"


def test_a_suspend_leaves_no_herd(make, diary):
    """Asleep for eight hours the monotonic clock stands still: the watches go on at their next slots, spread out, none twice."""
    clock, jumps = Clock(), []
    scheduler = make({f"w{n}": Job(timedelta(hours=1)) for n in range(1000)}, clock=clock, clock_jumped=jumps.append)
    clock.ahead = 8 * 3600.0
    until(lambda: jumps)
    assert scheduler.counts.due < 20
    assert scheduler.counts.jumps == 1


def test_a_tick_that_sleeps_because_the_clock_was_set_back_is_woken(make, diary):
    """APScheduler keeps its next tick in wall time: an hour back, and it would sleep an hour."""
    scheduler = make({"w": Job(0.1 * SECOND)})
    until(lambda: diary.count() >= 1)
    scheduler._timer.modify_job("tick", next_run_time=datetime.now(UTC) + timedelta(hours=1))
    before = diary.count()
    until(lambda: diary.count() > before + 3)


def test_lag_grows_while_the_tick_stands_still(diary):
    behind = [0.0]
    scheduler = Scheduler(diary.fire, diary.no_room, monotonic=lambda: time.monotonic() + behind[0])
    behind[0] = 5.0
    assert scheduler.lag() >= 5


# Housekeeping and the end


def test_housekeeping_goes_on_in_its_own_threads_never_twice_at_once(make):
    going, most, ran = [0], [0], [0]

    def tidy():
        going[0] += 1
        most[0], ran[0] = max(most[0], going[0]), ran[0] + 1
        time.sleep(0.05)
        going[0] -= 1

    make().also("tidy", 0.02 * SECOND, tidy)
    until(lambda: ran[0] >= 5)
    assert most[0] == 1


def test_stopping_lets_the_runs_in_flight_end_and_begins_no_more(make, diary):
    diary.gate.clear()
    scheduler = make({f"w{n}": Job(0.05 * SECOND) for n in range(5)}, quick=1)
    until(lambda: diary.count() == 1)
    ended = []
    stop = threading.Thread(target=lambda: ended.append(scheduler.stop(20 * SECOND)))
    stop.start()
    until(scheduler._stopping.is_set)
    diary.gate.set()
    stop.join()
    assert ended == [True] and diary.count() == 1


def test_stopping_waits_for_housekeeping_too(make):
    begun, ended = threading.Event(), []

    def tidy():
        begun.set()
        time.sleep(0.2)
        ended.append(1)

    scheduler = make()
    scheduler.also("tidy", 0.05 * SECOND, tidy)
    begun.wait(20)
    assert scheduler.stop(20 * SECOND) and ended


def test_stopping_before_starting_is_harmless(diary):
    assert Scheduler(diary.fire, diary.no_room).stop(SECOND)


def test_stopping_waits_no_longer_than_its_grace(make, diary):
    diary.gate.clear()
    scheduler = make({"w": Job(0.05 * SECOND)})
    until(lambda: diary.count() == 1)
    assert not scheduler.stop(0.1 * SECOND)


# Lateness


def test_lateness_is_kept_in_bounded_memory_within_two_percent():
    late = Lateness()
    for n in range(1, 10_001):
        late.add(n / 1000)
    assert late.quantile(0.5) == pytest.approx(5.0, rel=0.021)
    assert late.quantile(0.99) == pytest.approx(9.9, rel=0.021)
    assert (late.quantile(1.0), late.n) == (10.0, 10_000)
    late.add(1e9)
    assert len(late.cells) < 700 and Lateness().quantile(0.5) == 0.0
