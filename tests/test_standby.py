"""Two agents as real processes on one store and one target: one acts, and the other goes on when it is killed or paused."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent import config as configuration
from agent.lock import locked
from agent.model import Lead
from agent.reach import running
from agent.store import Store
from tests.fraud import spoiled, write_config
from tests.haproxy import free_port
from tests.processes import Running, python, start, until
from tests.servers.receiver import receiving
from tests.test_daemon import Switch, agent, asked, events, last, ready_to_act


@contextmanager
def standing_by(config: Path) -> Iterator[Running]:
    """`watchkeeper run --standby`, until it stands by."""
    with start(python("agent.cli", "-c", config, "run", "--standby", "5s"), lambda one: "standing by" in one.text) as one:
        one.grace = 40.0
        yield one


def leads(one: Running, store: Path) -> None:
    until(lambda: published(store) == one.pid and f"process {one.pid} leads" in one.text, "it leads", 40, lambda: one.text)


def lead(store: Path) -> Lead:
    with Store.open(store).read() as ledger:
        found = ledger.lead()
    assert found is not None
    return found


def published(store: Path) -> int:
    return int(json.loads(Path(f"{store}.daemon").read_text())["pid"])


def succeeded(store: Path) -> bool:
    run = last(store)
    return run is not None and run.state == "succeeded"


def test_who_stands_by_carries_on_when_the_leader_is_killed_and_stands_by_again_when_it_was_paused_itself(tmp_path):
    """Fault row 28, on one store: at any time one acts."""
    with ready_to_act(tmp_path) as (desk, config), agent(config) as first, standing_by(config) as second:
        until(lambda: asked(desk.server) >= 2, "the first one looks")
        switch, store, number = Switch(desk, False), first.store, lead(first.store).number
        spoiled(desk)
        until(switch.reached.is_set, "the switch is being thrown")
        first.running.kill()
        leads(second, store)
        switch.released.set()
        until(lambda: succeeded(store), "the run came to its end", telling=lambda: second.text)
        run = last(store)
        assert desk.server.flips == ["1"] and run is not None and run.recoveries == 1 and lead(store).number == number + 1
        with standing_by(config) as third:
            os.kill(second.pid, signal.SIGSTOP)
            leads(third, store)
            os.kill(second.pid, signal.SIGCONT)
            until(lambda: second.text.count("standing by") == 2, "the second one stands by again", telling=lambda: second.text)
            third.kill()
        until(lambda: published(store) == second.pid, "it leads again", telling=lambda: second.text)
        os.kill(second.pid, signal.SIGTERM)
        assert second.process.wait(30) == 0, second.text
        assert lead(store).number == number + 3 and "Traceback" not in second.text
    assert len(events(store, "lead.taken")) == 3 and desk.server.flips == ["1"] and Store.open(store).verify() == []


def test_a_paused_leader_is_replaced_and_does_nothing_more_when_it_wakes(tmp_path):
    """Fault row 29: stopped with the call under way that would have the effect, which is then refused by the target's compare-and-set.

    What it does not send when it is stopped a moment earlier is shown, commit by commit, in tests/test_lead.py.
    """
    with receiving() as told, ready_to_act(tmp_path, told) as (desk, config):
        config.write_text(config.read_text().replace("127.0.0.1:0", f"127.0.0.1:{free_port()}"))
        with agent(config) as first, standing_by(config) as second:
            until(lambda: asked(desk.server) >= 2, "the first one looks")
            held, store = Switch(desk, False), first.store
            spoiled(desk)
            until(held.reached.is_set, "the first one is about to throw the switch")
            first.send(signal.SIGSTOP)
            leads(second, store)
            assert second.url != first.url and "another port is listened on" in second.text, "the paused one still has the port"
            until(lambda: succeeded(store), "the second one brought the run to its end", telling=lambda: second.text)
            assert desk.server.flips == ["1"]
            seen = len(desk.server.requests)
            first.send(signal.SIGCONT)
            held.released.set()
            assert first.running.process.wait(30) == 3 and f"process {second.pid} leads it under number" in first.running.text, first.running.text
            assert desk.server.flips == ["1"] and not any(
                method == "POST" and "admin" in where for method, where, _, _ in desk.server.requests[seen:]
            )
            assert running(configuration.load(config)).pid == published(store) == second.pid, "commands find the one that leads"
            until(lambda: any("has not renewed its lead" in body["text"] for _, body in told.got), "people were told")
            assert second.terminate() == 0
    assert Store.open(store).verify() == []


def test_who_stands_by_ends_at_once_and_cleanly(tmp_path):
    """Nobody here is an agent: a process that holds the lock and renews nothing is starting, or upgrades the store, and is left alone."""
    config = write_config(tmp_path, "http://127.0.0.1:9")
    with locked(tmp_path / "watchkeeper.db"), standing_by(config) as waits:
        os.kill(waits.pid, signal.SIGHUP)
        assert waits.terminate() == 0 and "Traceback" not in waits.text
    assert not (tmp_path / "watchkeeper.db").exists()
