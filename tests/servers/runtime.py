"""Speaks as much of HAProxy's runtime API as its adapter asks, and moves the traffic of a Fraud; tests/haproxy.py has a real one."""

from __future__ import annotations

import re
import socketserver
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from tests.servers._loopback import GONE

if TYPE_CHECKING:
    from tests.fraud import Fraud

STATE = "1\n# be_name srv_name srv_op_state srv_admin_state srv_uweight\n"
STAT = "# pxname,svname,scur\n"
DRAINS = 3  # how often it says, after a move, that something is still under way at the version that had the traffic


class Runtime:
    """Backend `fraud` with a server v1, v2 ... for each version; one of them has all the weight."""

    def __init__(self, at: Path, server: Fraud) -> None:
        self.server, self.left = server, 0
        runtime = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                line = self.rfile.readline().decode().strip()
                said = GONE if server.between("asked") else runtime.say(line)
                if not server.between("done") and isinstance(said, str):
                    self.wfile.write(said.encode() + b"\n")

        self._listening = socketserver.ThreadingUnixStreamServer(str(at), Handler)
        self._listening.daemon_threads = True
        self._listening.handle_error = lambda *_: None  # type: ignore[method-assign]  # who asked was killed meanwhile
        threading.Thread(target=self._listening.serve_forever, args=(0.02,), daemon=True).start()

    def say(self, line: str) -> str:
        """What HAProxy answers to one line of commands."""
        if line.startswith("show servers state"):
            return STATE + "".join(f"fraud v{v} 2 0 {100 if v == self.server.served else 0}\n" for v in self.server.loaded)
        if line.startswith("show stat"):
            under_way, self.left = self.left, max(0, self.left - 1)
            return STAT + "".join(f"fraud,v{v},{0 if v == self.server.served else under_way}\n" for v in self.server.loaded)
        heavy = [version for version, weight in re.findall(r"set server fraud/v(\S+) weight (\d+)", line) if int(weight)]
        if len(heavy) != 1:
            return "Unknown command."
        self.left = DRAINS
        self.server.move(heavy[0])
        return ""

    def close(self) -> None:
        self._listening.shutdown()
        self._listening.server_close()
