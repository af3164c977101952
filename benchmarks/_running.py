"""The daemon as its users run it, watching one local nginx: started, measured from outside, ended."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

NGINX = """
worker_processes 1;
worker_rlimit_nofile {files};
daemon off;
error_log stderr crit;
pid {folder}/nginx.pid;
events {{ worker_connections {files}; }}
http {{
  access_log off;
  keepalive_timeout 120s;
  keepalive_requests 1000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  default_type application/json;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location ~ ^/v2/models/[^/]+/ready$ {{ return 200 '{{"ready": true}}'; }}
    location ~ ^/v2/models/[^/]+/infer$ {{ return 200 '{{"outputs": []}}'; }}
  }}
}}
"""


@contextlib.contextmanager
def nginx(folder: Path, files: int):
    """A local nginx that calls every model ready; gives its address."""
    program = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    if program is None:
        sys.exit("needs nginx: apt install nginx-light")
    port = free_port()
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, files=files))
    process = subprocess.Popen([program, "-p", str(folder), "-c", str(folder / "nginx.conf")], stdout=sys.stderr)
    try:
        address = f"http://127.0.0.1:{port}"
        until(lambda: fetch(f"{address}/v2/models/m/ready"), 10)
        yield address
    finally:
        process.terminate()
        process.wait(10)


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def fetch(url: str) -> str:
    """The body; empty when there is none to be had."""
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return reply.read().decode()
    except OSError:
        return ""


def until(holds, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            sys.exit("waited in vain")
        time.sleep(0.05)


@dataclass
class Agent:
    """A running daemon; `process` as psutil has it."""

    url: str
    process: object
    ready_at: datetime

    def cpu(self) -> float:
        """CPU seconds of the daemon and of the workers it has now."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(sum(one.cpu_times()[:2]) for one in family)

    def resident(self) -> float:
        """MiB of the daemon and of its workers."""
        return sum(one.memory_info().rss for one in [self.process, *self.process.children(recursive=True)]) / 2**20

    def metrics(self) -> dict[str, float]:
        lines = [line.rpartition(" ") for line in fetch(f"{self.url}/metrics").splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}


@contextlib.contextmanager
def agent(configured: Path):
    """`watchkeeper run` on a configuration."""
    import psutil

    log = configured.parent / "agent.log"
    with log.open("wb") as out:
        command = [sys.executable, "-m", "agent.cli", "-c", str(configured), "run", "--log-level", "info"]
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    try:
        until(lambda: process.poll() is not None or re.search(rb"watching \d+ watches", log.read_bytes()), 300)
        said = re.search(r"watching \d+ watches .*(http://\S+)", log.read_text())
        if said is None:
            sys.exit(log.read_text())
        yield Agent(said[1], psutil.Process(process.pid), datetime.now(UTC))
        process.send_signal(signal.SIGTERM)
        if process.wait(60):
            sys.exit(log.read_text())
        problems = [line for line in log.read_text().splitlines() if " ERROR " in line or "Traceback" in line]
        print("\n".join(problems[:20]), file=sys.stderr)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def quantile(before: dict[str, float], after: dict[str, float], share: float) -> float:
    """Seconds of lateness that this share of the runs between two scrapes did not exceed, as Prometheus's histogram_quantile has it."""
    found = re.compile(r'watchkeeper_lateness_seconds_bucket\{le="(.+)"\}')
    cells = [(float(match[1]), after[name] - before.get(name, 0)) for name in after if (match := found.fullmatch(name))]
    wanted, below, low = share * cells[-1][1], 0.0, 0.0
    for limit, seen in cells:
        if seen >= wanted:
            return low + (limit - low) * (wanted - below) / (seen - below) if limit != float("inf") else limit
        below, low = seen, limit
    return float("inf")


def scratch():
    return tempfile.TemporaryDirectory(prefix="watchkeeper-bench-", ignore_cleanup_errors=True)


def load() -> str:
    return f"load {os.getloadavg()[0]:.1f}"
