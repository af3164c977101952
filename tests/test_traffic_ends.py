"""How a run begins and ends around the edges: signals, dead parents, limits of the machine, TLS, a closed loop, thresholds, metrics."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme
from prometheus_client.parser import text_string_to_metric_families

from agent.errors import CancelledError, ConfigError, TrustError, WorkerError
from loadtests._drive import spoken
from loadtests._generator import unfit
from tests.conftest import need
from tests.processes import alive, start, until
from tests.servers import hostile
from tests.traffic import kinds, run, traffic
from tests.wires import tls

DRIVER = """
import resource, sys
from loadtests._drive import drive, heard
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_NOFILE, tuple(map(int, sys.argv[2:])))
trace = drive(heard(sys.argv[1]), lambda done, words: print(words, flush=True))
print("kept", len(trace.kind), (trace.kind == 6).sum(), trace.aborted, flush=True)
"""


@pytest.fixture
def patient() -> Iterator[hostile.Server]:
    """A server that takes every request and answers none."""
    with hostile.serving(hostile.mute) as server:
        yield server


@pytest.fixture
def swift() -> Iterator[hostile.Server]:
    """A server that answers everything well."""
    with hostile.serving(hostile.says(hostile.answer())) as server:
        yield server


def driving(folder: Path, url: str, *limits: int, **more: Any) -> Any:
    """A process that drives a run of ten minutes."""
    return start([sys.executable, "-c", DRIVER, spoken(traffic(folder, url, rate=20, seconds=600, **more)), *map(str, limits)])


# Signals


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_the_parent_leaves_no_process_behind(tmp_path: Path, swift: hostile.Server, workers: int) -> None:
    with driving(tmp_path, swift.url, workers=workers) as parent:
        until(lambda: "0 errors" in parent.text, "the run goes on", 60, lambda: parent.text)
        os.kill(parent.pid, signal.SIGKILL)
        parent.process.wait()
        until(lambda: not alive(parent.pid), "everything it started has ended")


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_drains_and_keeps_what_there_is(tmp_path: Path, swift: hostile.Server, workers: int) -> None:
    with driving(tmp_path, swift.url, workers=workers) as parent:
        until(lambda: "0 errors" in parent.text, "the run goes on", 60, lambda: parent.text)
        os.killpg(parent.pid, signal.SIGINT)
        assert parent.process.wait(20) == 0, parent.text
        kept, unfinished, why = parent.text.split("kept ")[1].split()
        assert int(kept) > 0 and int(unfinished) == 0 and why == "interrupted"
        until(lambda: not alive(parent.pid), "everything it started has ended")


def test_a_second_ctrl_c_waits_for_nothing(tmp_path: Path, patient: hostile.Server) -> None:
    with driving(tmp_path, patient.url) as parent:
        until(lambda: re.search(r"[1-9]\d* in flight", parent.text), "the run goes on", 60, lambda: parent.text)
        os.killpg(parent.pid, signal.SIGINT)
        until(lambda: "ending: stopped" in parent.text, "it has understood the first", 20, lambda: parent.text)
        os.killpg(parent.pid, signal.SIGINT)
        assert parent.process.wait(20) != 0 and "kept" not in parent.text
        until(lambda: not alive(parent.pid), "everything it started has ended")


def test_what_a_silent_server_never_answered_is_kept_as_unfinished(tmp_path: Path, patient: hostile.Server) -> None:
    def hear(said: Any) -> None:
        if said["flying"] >= 10:
            raise CancelledError

    trace = run(tmp_path, patient.url, rate=50, seconds=600, connections=4, hear=hear)
    assert trace.aborted == "cancelled" and set(kinds(trace)) == {"unfinished"} and len(trace.kind) >= 10
    assert np.isnan(trace.done).all() and not np.isnan(trace.dispatched).any() and np.isinf(trace.latency).all()
    assert (~np.isnan(trace.sent)).sum() == 4, "the others never got a connection"
    assert unfit(trace, limit=100.0) == ()


def test_cancelled_before_anything_was_sent_is_an_empty_run(tmp_path: Path, swift: hostile.Server) -> None:
    def tell(done: float, words: str) -> None:
        raise CancelledError

    trace = run(tmp_path, swift.url, rate=0.001, seconds=600_000, tell=tell)
    assert trace.aborted == "cancelled" and len(trace.kind) == len(trace.intended) <= 1


def test_a_program_that_is_killed_is_a_worker_error_with_its_words(tmp_path: Path, swift: hostile.Server) -> None:
    def hear(said: Any) -> None:
        children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
        (program,) = [int(pid) for pid in children if "loadtests._traffic" in Path(f"/proc/{pid}/cmdline").read_text()]
        os.kill(program, signal.SIGKILL)

    with pytest.raises(WorkerError, match="died with status -9"):
        run(tmp_path, swift.url, seconds=600, hear=hear)


# Limits of the machine


def test_without_locust_it_is_said_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gevent.py").write_text("raise ModuleNotFoundError(\"No module named 'gevent'\")")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    with pytest.raises(ConfigError, match=r"need locust, which is not installed: install watchkeeper\[load\]"):
        run(tmp_path, "http://127.0.0.1:1")


def test_too_few_file_descriptors_are_said_before_the_run_and_raised_where_allowed(tmp_path: Path, swift: hostile.Server) -> None:
    with driving(tmp_path, swift.url, 128, 200, connections=500) as refused:
        assert refused.process.wait(30) == 1
        assert "500 connections need 564 open files, and this process may have 200; lower `connections`, or raise ulimit -Hn" in refused.text
    with driving(tmp_path, swift.url, 64, 600, connections=500) as raised:
        until(lambda: "0 errors" in raised.text, "the run goes on", 60, lambda: raised.text)


def test_a_wall_clock_that_jumps_an_hour_changes_no_latency(tmp_path: Path, swift: hostile.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    library = next(need("faketime").resolve().parent.parent.glob("lib/**/libfaketimeMT.so.1"))
    setting = tmp_path / "faketime"
    setting.write_text("+7200")

    def hear(said: Any) -> None:
        if said["done"] > 10:
            setting.write_text("+10800" if said["done"] < 60 else "-3600")
        if said["done"] > 100:
            raise CancelledError

    fake = {"LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": setting, "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    for name, value in fake.items():
        monkeypatch.setenv(name, str(value))
    trace = run(tmp_path, swift.url, rate=100, seconds=600, hear=hear)
    assert set(kinds(trace)) == {"good"} and trace.latency.min() > 0 and trace.latency.max() < 60 and trace.wall < 60


# TLS


def test_tls_is_verified_unless_it_is_switched_off(tmp_path: Path) -> None:
    authority = trustme.CA()
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    with hostile.serving(hostile.says(hostile.answer(b"x" * 200_000)), tls(authority.issue_cert("127.0.0.1"))) as server:
        with pytest.raises(TrustError, match=r"TLS: .*nothing was sent"):
            run(tmp_path, server.url)
        assert kinds(run(tmp_path, server.url, ca=str(ca), bodies=["y" * 300_000])) == ["good"] * 30
        assert kinds(run(tmp_path, server.url, verify=False)) == ["good"] * 30
        with pytest.raises(ConfigError, match="certificates cannot be read"):
            run(tmp_path, server.url, ca=str(tmp_path / "nothing.pem"))


# A closed loop


def test_users_of_a_closed_loop_send_only_when_they_are_answered(tmp_path: Path) -> None:
    busy, most, lock = 0, 0, threading.Lock()

    def script(one: socket.socket) -> None:
        nonlocal busy, most
        while True:
            hostile.heard(one)
            with lock:
                busy += 1
                most = max(most, busy)
            with lock:
                busy -= 1
            one.sendall(hostile.answer())

    with hostile.serving(script) as server:
        trace = run(tmp_path, server.url, seconds=0.5, closed=3)
    assert trace.closed == 3 and set(kinds(trace)) == {"good"} and 0 < most <= 3
    flying = [(trace.sent <= at).sum() - (trace.done < at).sum() for at in trace.sent]
    assert max(flying) <= 3 and (trace.intended == np.sort(trace.intended)).all()
    assert (trace.dispatched - trace.intended).max() < 0.5


# Thresholds


def test_a_run_ends_early_when_too_many_are_not_answered_well(tmp_path: Path) -> None:
    with hostile.serving(hostile.says(hostile.answer(status="503 Service Unavailable"))) as server:
        trace = run(tmp_path, server.url, rate=100, seconds=600, abort_errors=0.5)
    assert "requests in a second were not answered well, and 0.5 of them is the most allowed" in trace.aborted
    assert len(trace.kind) < 10_000 and set(kinds(trace)) == {"status"}


def test_a_run_ends_early_when_the_target_stands_still(tmp_path: Path, patient: hostile.Server) -> None:
    trace = run(tmp_path, patient.url, rate=100, seconds=600, abort_latency=0.2, connections=8)
    assert "took longer than 0.2 s, and half of them is the most allowed" in trace.aborted and set(kinds(trace)) == {"unfinished"}


# Metrics


def test_prometheus_can_scrape_a_run_while_it_goes_on(tmp_path: Path, swift: hostile.Server) -> None:
    port, found = hostile.refused(), {}

    def hear(said: Any) -> None:
        if said["done"] >= 20:
            text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
            samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
            found.update({sample.name + str(sorted(sample.labels.items())): sample.value for sample in samples})
            raise CancelledError

    run(tmp_path, swift.url, seconds=600, hear=hear, metrics=f"127.0.0.1:{port}")
    good = found["watchkeeper_load_requests_total[('kind', 'good')]"]
    assert good >= 20 and found["watchkeeper_load_requests_total[('kind', 'timeout')]"] == 0 and found["watchkeeper_load_sent_total[]"] >= good
    assert found["watchkeeper_load_latency_seconds_count[]"] == found["watchkeeper_load_latency_seconds_bucket[('le', '+Inf')]"] == good
    assert found["watchkeeper_load_latency_seconds_sum[]"] > 0 and found["watchkeeper_load_in_flight[]"] >= 0


def test_a_port_that_is_taken_is_said(tmp_path: Path, swift: hostile.Server) -> None:
    with pytest.raises(ConfigError, match="metrics cannot be served at"):
        run(tmp_path, swift.url, metrics=f"127.0.0.1:{swift.port}")
