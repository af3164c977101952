"""The running daemon: a child process on real servers and a real store, killed, paused, misconfigured and starved."""

from __future__ import annotations

import json
import os
import resource
import signal
import sqlite3
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.model import Run, Signal
from agent.store import Store
from tests import plugin_box
from tests.conftest import need
from tests.fraud import Desk, Fraud, drilled, fraud, spoiled, write_config
from tests.processes import Running, python, start, until
from tests.servers.receiver import Receiver, receiving


@dataclass
class Agent:
    """A daemon at work, as seen from outside."""

    running: Running
    store: Path
    url: str = ""

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()

    def metric(self, name: str) -> float:
        found = [line.rpartition(" ")[2] for line in self.get("/metrics")[1].splitlines() if line.startswith(name)]
        return float(found[0]) if found else 0.0

    def reasons(self) -> list[str]:
        """Why it is not ready; empty when it is."""
        return list(json.loads(self.get("/readyz")[1])["reasons"])

    def send(self, number: signal.Signals) -> None:
        os.kill(self.running.pid, number)


@contextmanager
def agent(config: Path, *before: str | Path, env: Mapping[str, str] | None = None) -> Iterator[Agent]:
    """`watchkeeper run`, until it watches."""
    command = [*before, *python("agent.cli", "-c", config, "run")]
    with start(command, lambda running: "watching" in running.text, env) as running:
        running.grace = 40.0
        yield Agent(running, store_of(config), running.url)


def store_of(config: Path) -> Path:
    return config.parent / "watchkeeper.db"


def configured(folder: Path, server: Fraud, more: str = "", *, mode: str = "auto", told: Receiver | None = None, rest: str = "") -> Path:
    """The fraud service, looked at every second."""
    path = write_config(folder, server.address, mode, more)
    return hurried(path, told, rest)


def hurried(path: Path, told: Receiver | None = None, rest: str = "") -> Path:
    text = path.read_text().replace("every: 10m", "every: 1s")
    if told is not None:
        text = text.replace("http://127.0.0.1:9/ada", told.url)
    path.write_text(f"listen: 127.0.0.1:0\n{rest}{text}")
    return path


@contextmanager
def ready_to_act(folder: Path, told: Receiver | None = None) -> Iterator[tuple[Desk, Path]]:
    """A service whose rollback was drilled, so that `auto` may act; nobody holds its store."""
    with fraud(folder) as desk:
        drilled(desk)
        desk.world.store.close()
        yield desk, hurried(folder / "watchkeeper.yaml", told)


def runs(store: Path) -> list[Run]:
    with Store.open(store).read() as ledger:
        return [run for run in ledger.runs() if not run.drill]


def last(store: Path) -> Run | None:
    return next(iter(runs(store)), None)


def signals(store: Path) -> Mapping[str, Signal]:
    with Store.open(store).read() as ledger:
        return {one.watch: one for one in ledger.all_signals()}


def events(store: Path, kind: str) -> list[str]:
    with Store.open(store).read() as ledger:
        return [event.what for event in ledger.events(kind)]


def asked(server: Fraud, path: str = "/v2/models/m/ready") -> int:
    """How often the server was asked so."""
    return sum(1 for _, where, _, _ in server.requests if where == path)


@pytest.fixture
def server() -> Iterator[Fraud]:
    made = Fraud()
    yield made
    made.close()


# Start, work, end


def test_it_starts_tells_how_it_is_and_ends_cleanly(tmp_path, server):
    with agent(configured(tmp_path, server)) as running:
        assert running.get("/healthz") == (200, "ok\n")
        until(lambda: running.reasons() == [], "it is ready")
        until(lambda: running.metric('watchkeeper_slots_total{outcome="run"}') >= 4, "watches were looked at")
        told = Path(f"{running.store}.daemon")
        assert told.stat().st_mode & 0o777 == 0o600 and json.loads(told.read_text())["pid"] == running.running.pid
        assert running.running.terminate() == 0 and "Traceback" not in running.running.text
    assert not told.exists()
    assert signals(running.store)["fraud/serving.parity"].status == "ok"
    assert events(running.store, "agent.stop") == ["the agent stopped"]


def test_what_only_workers_need_is_never_imported_by_the_daemon(tmp_path, server):
    with agent(configured(tmp_path, server)) as running:
        until(lambda: asked(server) >= 2, "it looks")
        mapped = Path(f"/proc/{running.running.pid}/maps").read_text()
        assert [name for name in ("numpy", "scipy", "pyarrow", "duckdb", "pandas", "onnxruntime") if f"/{name}/" in mapped] == []


def test_a_bad_version_is_rolled_back_while_nobody_watches(tmp_path):
    with receiving() as told, ready_to_act(tmp_path, told) as (desk, config), agent(config) as running:
        until(lambda: asked(desk.server) >= 3, "it looks")
        spoiled(desk)
        until(lambda: desk.server.flips == ["1"], "traffic is back on version 1", telling=lambda: running.running.text)
        until(lambda: (run := last(running.store)) is not None and run.state == "succeeded", "the rollback succeeded")
        until(lambda: events(running.store, "incident.resolved"), "the incident is over")
        until(lambda: any(body and body["state"] == "resolved" for _, body in told.got), "people were told so")
        assert desk.server.flips == ["1"] and running.running.terminate() == 0
    with Store.open(running.store).read() as ledger:
        assert list(ledger.broken_links()) == []


# Ended and killed in the middle


@dataclass
class Switch:
    """Holds the call that throws the switch: before or after it took effect."""

    desk: Desk
    first: bool  # whether the effect is had before the call is held

    def __post_init__(self) -> None:
        self.reached, self.released = threading.Event(), threading.Event()
        self.desk.server.mood = self._mood

    def _mood(self, method: str, path: str) -> tuple[int, Any] | None:
        if (method, path) != ("POST", "/admin/pointer") or self.reached.is_set():
            return None
        if self.first:
            self.desk.server.served = "1"
            self.desk.server.flips.append("1")
        self.reached.set()
        self.released.wait(60)
        return (200, {"version": "1"}) if self.first else None


@pytest.mark.parametrize("first", [False, True], ids=["before the effect", "after the effect"])
def test_sigterm_in_the_middle_of_a_step_lets_it_end_and_a_restart_goes_on(tmp_path, first):
    """Fault row 7."""
    with ready_to_act(tmp_path) as (desk, config):
        switch = Switch(desk, first)
        with agent(config) as running:
            until(lambda: asked(desk.server) >= 2, "it looks")
            spoiled(desk)
            until(switch.reached.is_set, "the switch is being thrown")
            running.send(signal.SIGTERM)
            until(lambda: "stopping" in running.running.text, "it is stopping")
            assert running.running.process.poll() is None
            switch.released.set()
            assert running.running.process.wait(30) == 0
        run = last(running.store)
        assert run is not None and run.state in ("running", "succeeded")
        with agent(config):
            until(lambda: (run := last(running.store)) is not None and run.state == "succeeded", "the run came to its end")
        assert desk.server.flips == ["1"]


@pytest.mark.parametrize("first", [False, True], ids=["before the effect", "after the effect"])
def test_a_kill_in_the_middle_of_a_rollback_has_exactly_one_effect(tmp_path, first):
    with ready_to_act(tmp_path) as (desk, config):
        switch = Switch(desk, first)
        with agent(config) as running:
            until(lambda: asked(desk.server) >= 2, "it looks")
            spoiled(desk)
            until(switch.reached.is_set, "the switch is being thrown")
            running.running.kill()
        switch.released.set()
        with agent(config):
            until(lambda: (run := last(running.store)) is not None and run.state == "succeeded", "the run came to its end")
        run = last(running.store)
        assert desk.server.flips == ["1"] and run is not None and run.recoveries == 1
        assert Path(f"{running.store}.daemon").exists()  # killed again: it could not clean up, and the next start is not misled
        with agent(config) as again:
            assert again.running.terminate() == 0
