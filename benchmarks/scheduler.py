"""What scheduling alone costs: ten thousand watches with nothing to do, beside a bare heap loop and beside one APScheduler job a watch.

Each engine runs in a process of its own, one after the other. Lateness is from the slot to the start of its run.
"""

import heapq
import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

WATCHES, SECONDS = 10_000, 12
INTERVALS = (10, 15, 20, 30, 60)


def jobs(n):
    from agent.scheduler import Job

    return {f"service-{i}/ready": Job(timedelta(seconds=INTERVALS[i % len(INTERVALS)]), cap_key=f"service-{i}") for i in range(n)}


def ours(n, seconds):
    """The Scheduler as the daemon uses it: tick, lanes, caps, counters. Every slot of the grid is looked for among what was fired."""
    from agent.scheduler import Scheduler
    from agent.slots import EPOCH, Slots, moment

    fired = set()
    scheduler = Scheduler(lambda key, due_at: fired.add((key, due_at)), lambda key, due_at: None)
    planned = jobs(n)
    scheduler.plan(planned)
    scheduler.start()
    time.sleep(1)  # threads have started
    start, cpu = datetime.now(UTC), time.process_time()
    time.sleep(seconds)
    end, cpu = datetime.now(UTC), time.process_time() - cpu
    time.sleep(1)  # what was due by then has run
    expected = set()
    for key, job in planned.items():
        slots, due = Slots.of(key, job), (start - EPOCH) // timedelta(microseconds=1)
        while (due := slots.after(due)) <= (end - EPOCH) // timedelta(microseconds=1):
            expected.add((key, moment(due)))
    late = {"p50": scheduler.counts.late.quantile(0.5), "p99": scheduler.counts.late.quantile(0.99), "max": scheduler.counts.late.most}
    scheduler._offset -= 3600  # as if the clock had been set
    began = time.process_time()
    scheduler._parted()
    replanned = time.process_time() - began
    scheduler.stop(timedelta(seconds=1))
    return {"expected": len(expected), "run": len(expected & fired), "cpu": cpu, "late": late, "replan_cpu": replanned}


def herd(n, seconds):
    """Every watch due at the same instant, as after a process was stopped for longer than the longest interval."""
    from agent.scheduler import Scheduler

    pause = [0.0]
    fired = []
    scheduler = Scheduler(
        lambda key, due_at: fired.append(key),
        lambda key, due_at: None,
        clock=lambda: time.time() + pause[0],
        monotonic=lambda: time.monotonic() + pause[0],
    )
    scheduler.plan(jobs(n))
    scheduler.start()
    fired.clear()
    pause[0] = 61.0
    began, cpu, end = time.monotonic(), time.process_time(), time.monotonic() + seconds
    while len(set(fired)) < n and time.monotonic() < end:
        time.sleep(0.01)
    took, cpu = time.monotonic() - began, time.process_time() - cpu
    scheduler.stop(timedelta(seconds=1))
    return {"watches": n, "lost": n - len(set(fired)), "refused": scheduler.counts.no_room, "seconds": took, "cpu": cpu}


def bare(n, seconds):
    """The least there is: a heap, a sleep, a call."""
    from agent.slots import Slots

    now = time.monotonic()
    heap = [(now + Slots.of(key, job).phase / 1e6, key, job.every.total_seconds()) for key, job in jobs(n).items()]
    heapq.heapify(heap)
    late, cpu, end = [], time.process_time(), time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        at, key, every = heap[0]
        if at <= now:
            heapq.heapreplace(heap, (at + every, key, every))
            late.append(now - at)
        else:
            time.sleep(min(at - now, 0.5))
    return {"runs": len(late), "cpu": time.process_time() - cpu, "late": quantiles(late)}


def apscheduler(n, seconds):
    """One job of APScheduler for each watch, with our slots as its trigger and its own pool of threads."""
    from apscheduler.executors.pool import ThreadPoolExecutor
    from apscheduler.schedulers.background import BackgroundScheduler

    from agent.slots import EPOCH, MICROSECOND, Slots

    late = []

    def fire(slots):
        now = (datetime.now(UTC) - EPOCH) // MICROSECOND
        late.append((now - slots.phase) % slots.every / 1e6)

    scheduler = BackgroundScheduler(
        timezone=UTC,
        executors={"default": ThreadPoolExecutor(16)},
        job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
    )
    scheduler.start()
    for key, job in jobs(n).items():
        slots = Slots.of(key, job)
        scheduler.add_job(fire, slots, args=[slots], id=key)
    time.sleep(1)
    late.clear()
    cpu = time.process_time()
    time.sleep(seconds)
    cpu = time.process_time() - cpu
    runs, figures = len(late), quantiles(late)
    began = time.process_time()
    for job in scheduler.get_jobs():
        scheduler.reschedule_job(job.id, trigger=job.trigger)
    replanned = time.process_time() - began
    scheduler.shutdown(wait=False)
    return {"runs": runs, "cpu": cpu, "late": figures, "replan_cpu": replanned}


def quantiles(late):
    late = sorted(late) or [0.0]
    return {"p50": late[len(late) // 2], "p99": late[int(len(late) * 0.99)], "max": late[-1]}


ENGINES = {engine.__name__: engine for engine in (bare, ours, apscheduler, herd)}


def apart(engine):
    """Run one engine in a fresh process."""
    done = subprocess.run([sys.executable, "-m", "benchmarks.scheduler", engine], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    told = sys.argv[1:]
    if told:  # this program again, as one engine
        print(json.dumps(ENGINES[told[0]](WATCHES, SECONDS)))
        return
    found = {engine: apart(engine) for engine in ENGINES}
    ours, bare, aps, herd = found["ours"], found["bare"], found["apscheduler"], found["herd"]
    what = f"{WATCHES:,} watches at 10-60 s"
    late = ", ".join(f"{name} {seconds * 1000:.0f} ms" for name, seconds in ours["late"].items())
    figure(f"slots run, {what}", 100 * ours["run"] / ours["expected"], "%", f"{ours['expected']:,} slots in {SECONDS} s", at_least=100)
    figure(f"lateness p99, {what}", ours["late"]["p99"] * 1000, "ms", late, at_most=250)
    figure(
        f"CPU of scheduling alone, {what}", 100 * ours["cpu"] / SECONDS, "% of a core", f"{1e6 * ours['cpu'] / ours['run']:.0f} us a run", at_most=20
    )
    figure("scheduling / a bare heap loop", ours["cpu"] / bare["cpu"], "x", "CPU; the loop only calls, in one thread", at_most=3)
    figure("one APScheduler job a watch / scheduling", aps["cpu"] / ours["cpu"], "x", "CPU; why there is a heap")
    figure(
        "the same, planning anew when the clock is set",
        aps["replan_cpu"] / ours["replan_cpu"],
        "x",
        f"{ours['replan_cpu'] * 1000:.0f} ms of CPU ours",
    )
    figure(f"{WATCHES:,} due at once: lost", herd["lost"] + herd["refused"], "watches", f"all begun after {herd['seconds']:.2f} s", at_most=0)


def figure(name, value, unit, note, **promise):
    print(json.dumps({"figure": name, "value": value, "unit": unit, "note": note, **promise}))


if __name__ == "__main__":
    main()
