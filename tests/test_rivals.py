"""Two that want the same thing: runbooks on one role, agents with stores of their own, and a store or a router that goes away in the middle."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from agent import config, verbs
from agent.model import Run
from agent.respond import Responder
from agent.store import Store
from agent.workers import Pool
from agent.world import World
from tests import plugin_box
from tests.fraud import Desk, drilled, fraud, spoiled, write_config
from tests.processes import until

TWO = """
    from datetime import timedelta

    from agent import Router, Step, runbook

    LONG = timedelta(minutes=5)


    @runbook(asks="Does it hold the router until what it waits for is served?")
    def holds(service: str, router: Router, *, to: str = "1") -> tuple[Step, ...]:
        flip = Step("flip", "router.point", {"to": to}, LONG)
        return (flip, Step("wait", "check.serves", {"version": "never", "watches": []}, LONG))


    @runbook(asks="Does it want the router too?")
    def wants(service: str, router: Router, *, to: str = "2") -> tuple[Step, ...]:
        return (Step("flip", "router.point", {"to": to}, LONG),)
"""


@pytest.fixture
def box(tmp_path: Path) -> Iterator[str]:
    with plugin_box.install(tmp_path, {"two": TWO}, "runbook"):
        yield "two"


def run_of(desk: Desk, number: int) -> Run:
    with desk.world.store.read() as ledger:
        run = ledger.run(number)
    assert run is not None
    return run


def begun(desk: Desk, runbook: str) -> int:
    made = verbs.start(desk.world, runbook, "fraud", {}, "ada")
    assert isinstance(made, Run)
    return made.id


def driven(desk: Desk, holds: Callable[[], object], moves: int = 200) -> None:
    """Drive every run until that holds, the clock set on to where each wants to be looked at again."""
    for _ in range(moves):
        for future in desk.responder.tick(desk.world.clock()):
            future.result(30)
        if holds():
            return
        desk.later(1.0)
    raise AssertionError("it did not come about")


# Row 27: two runbooks for one role


def test_a_second_runbook_waits_for_the_role_that_the_first_one_holds(tmp_path, box):
    """Fault row 27. It begins only when the first is over, and then on a world that is not the one it was planned on."""
    with fraud(tmp_path) as desk:
        desk.server.served = "2"
        desk.see()
        first = begun(desk, f"{box}.holds")
        driven(desk, lambda: desk.server.flips == ["1"])
        second = begun(desk, f"{box}.wants")
        driven(desk, lambda: "is held by run" in run_of(desk, second).said)
        assert run_of(desk, second).said == f"fraud/router is held by run {first}" and run_of(desk, first).state == "running"
        desk.later(400)
        driven(desk, lambda: not run_of(desk, first).active and not run_of(desk, second).active)
        assert run_of(desk, first).state == "compensated" and run_of(desk, second).state == "expired"
        assert desk.server.flips == ["1", "2"], "only what the first one did, and took back"


def test_a_rollback_takes_the_role_from_whatever_holds_it(tmp_path, box):
    with fraud(tmp_path) as desk:
        drilled(desk)
        desk.server.served = "1"
        first = begun(desk, f"{box}.wants")
        driven(desk, lambda: not run_of(desk, first).active)
        assert (run_of(desk, first).state, desk.server.served) == ("succeeded", "2")
        desk.server.factors["2"] = 3.0
        other = verbs.start(desk.world, f"{box}.holds", "fraud", {"to": "3"}, "ada")
        assert isinstance(other, Run)
        desk.server.loaded, desk.server.factors["3"] = ("1", "2", "3"), 2.0
        driven(desk, lambda: desk.server.served == "3")
        waits = begun(desk, f"{box}.wants")
        rollback = verbs.start(desk.world, "rollback", "fraud", {"to": "1"}, "ada")
        assert isinstance(rollback, Run)
        driven(desk, lambda: not run_of(desk, rollback.id).active)
        assert (run_of(desk, rollback.id).state, desk.server.flips[-1]) == ("succeeded", "1")
        superseded = run_of(desk, other.id)
        assert superseded.state == "superseded" and superseded.said == f"superseded by run {rollback.id} (rollback)"
        driven(desk, lambda: not run_of(desk, waits).active)
        assert run_of(desk, waits).state == "expired" and desk.server.served == "1"


def test_a_run_that_was_superseded_while_it_was_about_to_write_does_not(tmp_path, box):
    """Its last look is held while a rollback takes its role, and then answers as the world was before: only the lease stops it."""
    reached, released = threading.Event(), threading.Event()

    def mood(method: str, path: str) -> tuple[int, Any] | None:
        if (method, path) != ("GET", "/admin/pointer") or reached.is_set() or all(s.state != "intended" for s in run_of(desk, first.id).steps):
            return None
        reached.set()
        released.wait(30)
        return 200, {"model": "m", "version": "2", "loaded": ["1", "2", "3"]}

    def sent() -> int:
        return sum(request[:2] == ("POST", "/admin/pointer") for request in desk.server.requests)

    with fraud(tmp_path) as desk:
        drilled(desk)
        desk.server.served, desk.server.loaded, desk.server.factors["3"] = "2", ("1", "2", "3"), 2.0
        desk.see()
        first = verbs.start(desk.world, f"{box}.wants", "fraud", {"to": "3"}, "ada")
        desk.server.mood = mood
        moves = desk.responder.tick(desk.world.clock())
        assert reached.wait(30)
        before = sent()
        rollback = begun(desk, "rollback")
        until(lambda: desk.responder.tick(desk.world.clock()) is not None and not run_of(desk, rollback).active, "the rollback is over")
        released.set()
        for future in moves:
            future.result(30)
        assert run_of(desk, rollback).state == "succeeded" and run_of(desk, first.id).state == "superseded"
        assert desk.server.flips == ["1"] and sent() == before + 1, "it did not even ask"


# Row 28: two agents with a store each


@contextmanager
def another(desk: Desk, folder: Path) -> Iterator[Desk]:
    """A second agent for the same target, which knows nothing of the first."""
    folder.mkdir()
    made = config.load(write_config(folder, desk.server.address))
    store, pool = Store.open(made.store).start(), Pool(1)
    world = World(made, store, pool)
    responder = Responder(world)
    try:
        yield Desk(desk.server, folder, world, responder)
    finally:
        responder.stop()
        pool.close()
        world.connections.close()
        store.close()


def test_two_agents_with_stores_of_their_own_move_the_traffic_once(tmp_path):
    """Fault row 28: both send the switch at the same moment, and the target's compare-and-set lets one of them through."""
    barrier, together = threading.Barrier(2), []

    def mood(method: str, path: str) -> tuple[int, Any] | None:
        if (method, path) == ("POST", "/admin/pointer"):
            barrier.wait(30)
            together.append(path)
        return None

    with fraud(tmp_path) as one, another(one, tmp_path / "other") as two:
        for desk in (one, two):
            desk.server.served = "1"
            drilled(desk)
        spoiled(one)
        assert [desk.look().status for desk in (one, two)] == ["fail", "fail"]
        one.server.mood = mood
        with ThreadPoolExecutor(2) as pool:
            runs = list(pool.map(lambda desk: desk.respond(), (one, two)))
        assert [run.state for run in runs] == ["succeeded", "succeeded"] and one.server.flips == ["1"] and len(together) == 2
        said = [what for desk in (one, two) for what in desk.events("step.said")]
        assert len(said) == 1 and "no longer points at 2" in said[0], "one was refused, and saw that it is so already"


# Rows 13 and 14 for a run: the store cannot be written when it would write its intent


@contextmanager
def full(desk: Desk) -> Iterator[None]:
    """SQLite says "database or disk is full" at a page limit, as on a full file system; something that does not fit comes at once."""
    limit, store = [1], desk.world.store

    @event.listens_for(store._engine, "checkout")
    def _(conn: sqlite3.Connection, *_: object) -> None:
        conn.execute(f"PRAGMA max_page_count={limit[0]}")

    store.write(lambda ledger: ledger.record(desk.world.clock(), "note", "x" * 50_000))
    yield
    limit[0] = 1_000_000


@contextmanager
def locked(desk: Desk) -> Iterator[None]:
    """Another program holds the file."""
    with contextlib.closing(sqlite3.connect(desk.world.store.path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@pytest.mark.parametrize("fault", [full, locked])
def test_a_rollback_whose_intent_cannot_be_written_waits_and_is_made_once_it_can(tmp_path, fault):
    """Fault rows 13 and 14, end to end: the fault begins with the last look before the intent, and lasts until people were told nothing was done."""
    with fraud(tmp_path, patience="60s") as desk, contextlib.ExitStack() as fails:
        desk.world.store._patience = 0.3
        drilled(desk)
        spoiled(desk)
        assert desk.look().status == "fail"

        def mood(method: str, path: str) -> tuple[int, Any] | None:
            with desk.world.store.read() as ledger:
                run = ledger.runs()[0]
            if (method, path) == ("GET", "/admin/pointer") and run.state == "running" and not mood_over:
                mood_over.append(path)
                fails.enter_context(fault(desk))
            return None

        mood_over: list[str] = []
        desk.server.mood = mood
        until(lambda: desk.responder.tick(desk.world.clock()) is not None and desk.world.store.afloat, "the store is kept in memory")
        for _ in range(20):
            for future in desk.responder.tick(desk.world.clock()):
                future.result(30)
        assert desk.server.flips == [] and mood_over
        fails.close()
        until(lambda: not desk.world.store.afloat, "the store is on disk again")
        run = desk.respond()
        assert (run.state, desk.server.flips) == ("succeeded", ["1"]), run.said
        assert desk.world.store.verify() == []
