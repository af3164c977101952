"""Serves the application from a thread of its own."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time

import uvicorn
from fastapi import FastAPI

from agent.errors import ConfigError

STARTING = 10.0  # seconds that starting may take


class Server:
    """A server that listens, at `url`, until `stop`."""

    def __init__(self, app: FastAPI, bound: socket.socket, host: str) -> None:
        port = bound.getsockname()[1]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._bound = bound
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=15,
                limit_concurrency=200,
                timeout_graceful_shutdown=2,
            )
        )
        self._thread = threading.Thread(target=self._uvicorn.run, kwargs={"sockets": [bound]}, name="web", daemon=True)

    def start(self) -> Server:
        self._thread.start()
        end = time.monotonic() + STARTING
        while not self._uvicorn.started and self._thread.is_alive() and time.monotonic() < end:
            time.sleep(0.005)
        if not self._uvicorn.started:
            raise ConfigError(f"listen: nothing could be served at {self.url}; the log says why")
        return self

    def stop(self, within: float = 5.0) -> None:
        """Take no more requests, let those under way end, at most that long."""
        self._uvicorn.should_exit = True
        self._thread.join(within)
        self._bound.close()


def serve(app: FastAPI, host: str, port: int) -> Server:
    """Listen and serve; port 0 takes a free one. ConfigError when it cannot listen there.

    Bound to this machine only, it answers nobody who asked for another host: a page of a site that lets its name point here could ask otherwise.
    """
    try:
        bound = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=256)
    except (OSError, OverflowError) as problem:
        raise ConfigError(
            f"listen: cannot listen on {host}:{port} ({problem}); is another program, or another Watchkeeper, there? choose another port"
        ) from problem
    app.state.hosts = {"localhost", "127.0.0.1", "::1", host.lower()} if _here(bound) else None
    return Server(app, bound, host).start()


def _here(bound: socket.socket) -> bool:
    return ipaddress.ip_address(bound.getsockname()[0].partition("%")[0]).is_loopback
