"""A real HAProxy before two versions of a model, with its runtime socket, its state file and a map."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.processes import Running, start, until
from tests.servers import plain

CONFIG = """
global
    maxconn 500
    stats socket {folder}/admin.sock mode 600 level admin
    stats socket {folder}/read.sock mode 600 level user
    server-state-file {folder}/state
    pidfile {folder}/pid
defaults
    mode http
    timeout connect 2s
    timeout client 30s
    timeout server 30s
    load-server-state-from-file global
frontend models
    bind 127.0.0.1:{port}
    use_backend fraud-1 if {{ path_beg /versions/1/ }}
    use_backend fraud-2 if {{ path_beg /versions/2/ }}
    default_backend fraud
frontend mapped
    bind 127.0.0.1:{mapped}
    use_backend %[str(fraud),map({folder}/versions.map)]
backend fraud
{servers}
backend fraud-1
    http-request replace-path /versions/[^/]+(/.*) \\1
    server one {first}
backend fraud-2
    http-request replace-path /versions/[^/]+(/.*) \\1
    server two {second}
"""


@dataclass
class Box:
    """What a test has of it: the folder with sockets and files, where traffic goes in, and the two servers behind."""

    folder: Path
    url: str
    mapped: str
    behind: Sequence[plain.Speaker]
    running: Running

    def reload(self) -> None:
        """As `systemctl reload haproxy`: new workers read configuration and state, old ones finish what they have."""
        before, asked_at = self._pids(), 0.0

        def reloaded() -> bool:
            nonlocal asked_at
            if time.monotonic() - asked_at > 2:  # a signal that comes while the master is still starting is lost
                asked_at = time.monotonic()
                os.kill(self.running.pid, signal.SIGUSR2)
            return self._pids() not in ("", before)

        until(reloaded, "the new worker has said that it is there", telling=lambda: self.running.text)

    def _pids(self) -> str:
        return say(self.folder / "admin.sock", "show info").partition("\nPid: ")[2].partition("\n")[0]


def say(at: Path, command: str) -> str:
    """One line to a runtime socket, as `socat` would send it; nothing when nobody listens yet."""
    heard = b""
    with socket.socket(socket.AF_UNIX) as line:
        try:
            line.connect(str(at))
            line.sendall(command.encode() + b"\n")
            while part := line.recv(65536):
                heard += part
        except OSError:
            return ""
    return heard.decode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def standing(program: Path, folder: Path, servers: Mapping[str, int] | None = None, places: Sequence[str] = ()) -> Iterator[Box]:
    """HAProxy in master-worker mode. `servers`: name -> which of the two versions it is (1 or 2). `places`: host:port of two that stand already."""
    behind = [] if places else [plain.Speaker("1"), plain.Speaker("2")]
    port, mapped = free_port(), free_port()
    places = places or [one.address.removeprefix("http://") for one in behind]
    lines = "\n".join(f"    server {name} {places[which - 1]} weight 100" for name, which in (servers or {"v1": 1, "v2": 2}).items())
    (folder / "versions.map").write_text("fraud fraud-1\n")
    config = folder / "haproxy.cfg"
    config.write_text(CONFIG.format(folder=folder, port=port, mapped=mapped, servers=lines, first=places[0], second=places[1]))
    try:
        with start([program, "-W", "-db", "-f", config], lambda _: "Pid:" in say(folder / "admin.sock", "show info")) as running:
            yield Box(folder, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{mapped}", behind, running)
    finally:
        for one in behind:
            one.stop()
