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
from datetime import UTC, datetime
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


def test_it_takes_all_the_connections_the_machine_allows(tmp_path, server):
    with agent(configured(tmp_path, server), "sh", "-c", 'ulimit -Sn 256; exec "$@"', "sh") as running:
        limits = Path(f"/proc/{running.running.pid}/limits").read_text()
        (soft, hard) = next(line.split()[3:5] for line in limits.splitlines() if line.startswith("Max open files"))
        assert soft == hard != "256"


def test_a_bad_version_is_rolled_back_while_nobody_watches(tmp_path):
    with receiving() as told, ready_to_act(tmp_path, told) as (desk, config), agent(config) as running:
        until(lambda: asked(desk.server) >= 3, "it looks")
        spoiled(desk)
        until(lambda: desk.server.flips == ["1"], "traffic is back on version 1", telling=lambda: running.running.text)
        until(lambda: (run := last(running.store)) is not None and run.state == "succeeded", "the rollback succeeded")
        until(lambda: events(running.store, "incident.resolved"), "the incident is over")
        until(lambda: any(body and body["state"] == "resolved" for _, body in told.got), "people were told so")
        assert desk.server.flips == ["1"] and running.running.terminate() == 0
    assert Store.open(running.store).verify() == []


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


def test_twenty_restarts_in_a_storm_act_once_and_bring_no_herd(tmp_path):
    """Fault row 8: killed as soon as it watches, with a rollback under way; the run that lives through too many starts is parked."""
    with ready_to_act(tmp_path) as (desk, config):
        config.write_text(config.read_text().replace("serving.ready, every: 1s", "serving.ready, every: 50s"))
        switch = Switch(desk, first=True)
        with agent(config) as running:
            spoiled(desk)
            until(switch.reached.is_set, "the switch is being thrown")
            running.running.kill()
        began, before = time.monotonic(), asked(desk.server)
        for _ in range(20):
            with agent(config) as running:
                running.running.kill()
        slots = (time.monotonic() - began) / 50 + 1
        assert asked(desk.server) - before <= slots + 1
        assert desk.server.flips == ["1"] and len(runs(running.store)) == 1
        run = last(running.store)
        assert run is not None and run.state in ("succeeded", "stuck"), run


# The configuration changes


def test_a_new_configuration_is_used_on_sighup_and_a_bad_one_is_refused_and_told(tmp_path, server):
    with receiving() as told:
        config = configured(tmp_path, server, told=told)
        good = config.read_text()
        with agent(config) as running:
            until(lambda: asked(server) >= 1, "it looks")
            config.write_text(good.replace("serving.ready", "serving.redy"))
            running.send(signal.SIGHUP)
            until(lambda: any("config.refused" in key or "refused" in body["text"] for key, body in _told(told)), "people were told")
            seen = asked(server)
            until(lambda: asked(server) > seen + 1, "the old configuration stays in use")
            config.write_text(
                good.replace("      - {check: serving.parity", "      - {check: serving.latency, every: 1s}\n      - {check: serving.parity")
            )
            running.send(signal.SIGHUP)
            until(lambda: "fraud/serving.latency" in signals(running.store), "the new watch looks")
            assert running.running.terminate() == 0
        (refused,) = events(running.store, "config.refused")
        assert "did you mean 'serving.ready'?" in refused and "the old one stays" in refused


def _told(receiver: Receiver) -> list[tuple[str, Any]]:
    return [(headers["idempotency-key"], body) for headers, body in receiver.got]


# Who may not start


def failed(config: Path, code: int) -> str:
    """What a daemon says that ends with this code before it watches."""
    with start(python("agent.cli", "-c", config, "run")) as running:
        assert running.process.wait(30) == code, running.text
        return running.text


def test_a_second_daemon_on_one_store_is_refused_and_names_the_first(tmp_path, server):
    config = configured(tmp_path, server)
    with agent(config) as running:
        assert f"is held by process {running.running.pid}" in failed(config, 3)
        assert running.get("/healthz")[0] == 200


def test_a_port_that_is_taken_is_a_clear_error(tmp_path, server):
    config = configured(tmp_path, server)
    port = server.address.rpartition(":")[2]
    config.write_text(config.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}"))
    said = failed(config, 2)
    assert f"error: listen: cannot listen on 127.0.0.1:{port}" in said and "choose another port" in said and "Traceback" not in said
    assert not Path(f"{store_of(config)}.daemon").exists()


def test_a_store_of_a_newer_version_is_left_alone(tmp_path, server):
    """Fault row 16."""
    config = configured(tmp_path, server)
    Store.open(store_of(config)).close()
    with sqlite3.connect(store_of(config)) as store:
        store.execute("UPDATE alembic_version SET version_num = '9999'")
    said = failed(config, 4)
    assert f"error: {store_of(config)} has schema 9999, made by a newer Watchkeeper" in said and "upgrade the program" in said


# A store that fails


def test_a_corrupt_store_is_set_aside_loudly_and_the_watch_goes_on(tmp_path, server):
    """Fault row 15."""
    with receiving() as told:
        config = configured(tmp_path, server, told=told)
        Store.open(store_of(config)).close()
        with store_of(config).open("r+b") as damaged:
            damaged.seek(4096)
            damaged.write(os.urandom(8192))
        with agent(config) as running:
            until(lambda: any("set aside" in body["text"] for _, body in _told(told)), "people were told")
            until(lambda: asked(server) >= 1, "it looks")
            assert "the store was damaged" in running.running.text and running.running.terminate() == 0
        assert list(tmp_path.glob("watchkeeper.db.corrupt-*")) and "restore a backup" in events(running.store, "store.corrupt")[0]


@contextmanager
def locked_by_another(running: Agent) -> Iterator[None]:
    """Fault row 14: another program holds the file."""
    with sqlite3.connect(running.store, isolation_level=None, timeout=30) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def full_disk(running: Agent) -> Iterator[None]:
    """Fault row 12: the kernel lets this process write nothing more, as on a file system without room."""
    before = resource.prlimit(running.running.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(running.running.pid, resource.RLIMIT_FSIZE, (1, before[1]))
    yield
    resource.prlimit(running.running.pid, resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("fault", [locked_by_another, full_disk])
def test_looks_go_on_without_the_store_it_says_so_and_nothing_is_lost(tmp_path, server, fault):
    """The heartbeat stops meanwhile, so that whoever waits for it notices: fault row 34."""
    with receiving() as told, receiving() as heart:
        config = configured(tmp_path, server, told=told, rest=f"heartbeat: {{url: '{heart.url}', every: 1s}}\n")
        with agent(config) as running:
            until(lambda: len(heart.got) >= 2 and running.reasons() == [], "the heart beats")
            with fault(running):
                until(running.reasons, "it says that it is not ready", 30)
                assert "store" in running.reasons()[0]
                seen, beats = asked(server), len(heart.got)
                until(lambda: asked(server) >= seen + 4, "looks go on")
                assert len(heart.got) <= beats + 1
                server.up = False
                until(lambda: told.got, "people are told all the same")
                server.up = True
                assert running.metric("watchkeeper_store_afloat") == 1 and running.metric("watchkeeper_loop_lag_seconds") < 1
            until(lambda: running.reasons() == [], "it is ready again", 30)
            until(lambda: events(running.store, "incident.resolved"), "the incident is over")
            beats = len(heart.got)
            until(lambda: len(heart.got) > beats, "the heart beats again")
            assert running.running.terminate() == 0
        store = Store.open(running.store)
        with store.read() as ledger:
            looks = sum(row["looks"] for row in ledger.rollups("fraud/serving.ready", datetime(2000, 1, 1, tzinfo=UTC)))
        assert looks == signals(running.store)["fraud/serving.ready"].seq >= seen and store.verify() == []


# Checks, clocks and channels that misbehave

HANGS = """
    from agent import Table, Verdict, check, ok

    @check(pillar="monitoring", asks="Does it ever end?")
    def hangs(live: Table) -> Verdict:
        while True:
            pass
"""


def test_a_check_that_never_ends_is_killed_at_its_deadline_and_the_others_are_on_time(tmp_path, server):
    """Fault row 24."""
    with plugin_box.install(tmp_path, {"spin": HANGS}) as package:
        more = "      - {check: spin.hangs, every: 2s, within: 1s}"
        config = configured(tmp_path, server, more)
        live = 'live: {url: "sqlite:log.db?table=predictions", time: {column: at, tz: UTC}, id: request_id}'
        config.write_text(config.read_text().replace("      registry:", f"      {live}\n      registry:"))
        with agent(config, env={"PYTHONPATH": str(tmp_path / f"site-{package}")}) as running:
            until(lambda: (one := signals(running.store).get("fraud/spin.hangs")) is not None and one.seq >= 3, "it was killed thrice", 40)
            assert "was not done after 1s; its worker was killed" in signals(running.store)["fraud/spin.hangs"].reason
            in_time, all_of_them = running.metric('watchkeeper_lateness_seconds_bucket{le="1"}'), running.metric("watchkeeper_lateness_seconds_count")
            assert in_time >= 0.99 * all_of_them > 10
            assert running.running.terminate() == 0


@pytest.mark.parametrize("answer", ["500", "nothing"])
def test_a_channel_that_fails_holds_up_neither_looks_nor_a_rollback(tmp_path, answer):
    """Fault row 30."""
    with receiving() as told, ready_to_act(tmp_path, told) as (desk, config):
        told.always = (500, {})
        if answer == "nothing":
            told.gate.clear()
        with agent(config) as running:
            until(lambda: asked(desk.server) >= 2, "it looks")
            spoiled(desk)
            until(lambda: desk.server.flips == ["1"], "traffic is back on version 1")
            until(lambda: told.got, "a letter is on its way")
            seen = asked(desk.server)
            until(lambda: asked(desk.server) >= seen + 2, "looks go on")
            assert running.reasons() == []
            told.always = (200, {})
            told.gate.set()
            until(lambda: running.metric("watchkeeper_letters_waiting") == 0, "all letters went out in the end", 40)
            assert running.running.terminate() == 0


@pytest.mark.parametrize("hours", [-1, 1], ids=["back", "on"])
def test_looks_go_on_when_the_clock_is_set(tmp_path, server, hours):
    """Fault rows 9 and 10: libfaketime moves the wall clock of the running process."""
    library = next(need("faketime").resolve().parent.parent.glob("lib/**/libfaketimeMT.so.1"))
    setting = tmp_path / "faketime"
    setting.write_text("+0")
    (tmp_path / "sitecustomize.py").write_text("import threading, time\ntime.sleep = lambda seconds: threading.Event().wait(seconds) and None\n")
    env = {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(setting), "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    env["PYTHONPATH"] = str(tmp_path)  # libfaketime 0.9.10 breaks time.sleep
    with agent(configured(tmp_path, server), env=env) as running:
        until(lambda: asked(server) >= 3, "it looks")
        setting.write_text(f"{hours:+d}h")
        until(lambda: running.metric("watchkeeper_clock_jumps_total") >= 1, "the jump is noticed")
        seen, began = asked(server), time.monotonic()
        until(lambda: asked(server) >= seen + 5, "looks go on", 12)
        assert (asked(server) - seen) / (time.monotonic() - began) < 3, "no burst of looks to catch up"
        until(lambda: running.reasons() == [], "it is ready")
        assert running.running.terminate() == 0
    assert len(events(running.store, "clock_jump")) >= 1


def test_the_halt_file_holds_a_running_daemon_within_a_second(tmp_path):
    with ready_to_act(tmp_path) as (desk, config), agent(config) as running:
        until(lambda: asked(desk.server) >= 2, "it looks")
        Path(f"{running.store}.halt").touch()
        until(lambda: running.metric("watchkeeper_halted") == 1, "it is halted", 1)
        spoiled(desk)
        until(lambda: (run := last(running.store)) is not None and "halted" in run.said, "a run waits")
        assert desk.server.flips == []
        Path(f"{running.store}.halt").unlink()
        until(lambda: desk.server.flips == ["1"], "it goes on")
