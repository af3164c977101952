"""The program a worker runs (`python -m agent._worker`): jobs in from stdin, one a line; progress, then one verdict or error, out."""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from agent import errors
from agent.errors import CancelledError, WatchkeeperError, WorkerError
from agent.model import Window
from agent.perform import Connections, Tell, perform
from agent.rebuild import locator_from_json, rebuild, verdict_to_json

REPLY_LIMIT = 8 * 2**20 - 1024  # bytes; a little under what the pool lets through


def main() -> None:
    """Give way as far as the first argument says, import what the others name, then take jobs from stdin until it closes.

    What a check prints goes to stderr; its own stdin is empty.
    """
    jobs, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    threading.Thread(target=_end_with_parent, args=(jobs.fileno(),), daemon=True).start()
    _give_way(int(sys.argv[1]))
    for module in sys.argv[2:]:
        with suppress(ImportError):
            importlib.import_module(module)
    connections = Connections()
    tell = _teller(jobs, replies)
    for line in jobs:
        job = json.loads(line)
        if "stop" not in job:  # else it came when the check was done already
            _say(replies, {**_reply(job, tell, connections), "resident": _resident()})


def _teller(jobs: Any, replies: Any) -> Tell:
    """What passes progress on. All that can have come in since the last time is the wish to stop, which is raised in the check."""
    heard, one = select.poll(), threading.Lock()
    heard.register(jobs.fileno(), select.POLLIN)

    def tell(done: float, what: str) -> None:
        with one:
            if any(event & select.POLLIN for _, event in heard.poll(0)):
                raise CancelledError(json.loads(jobs.readline())["stop"])
            _say(replies, {"tell": [float(done), str(what)]})

    return tell


def _reply(job: Mapping[str, Any], tell: Tell, connections: Connections) -> Mapping[str, Any]:
    from agent.wire import deadline

    try:
        with deadline(timedelta(seconds=job["within"])):
            if "pin" in job:
                return {"pinned": _pinned(job, connections)}
            reply = {"verdict": verdict_to_json(perform(job, tell, connections))}
        size = len(json.dumps(reply)) if reply["verdict"]["data"] else 0
        if size < REPLY_LIMIT:
            return reply
        return _told(
            WorkerError(f"the verdict of check '{job['check']}' is {size:,} bytes; the most a worker sends is {REPLY_LIMIT:,}; keep less in `data`")
        )
    except WatchkeeperError as problem:
        return _told(problem)


def _pinned(job: Mapping[str, Any], connections: Connections) -> Mapping[str, Any]:
    """The rows of a table written down, as `agent.pinning` says."""
    from agent.pinning import pin

    given = job["pin"]
    with ExitStack() as until:
        tables = {word: until.enter_context(connections(locator_from_json(at))) for word, at in job["locators"].items()}
        window = rebuild(Window, dict(zip(("start", "end"), job["window"], strict=True))) if job.get("window") else None
        told = pin(
            tables["table"], Path(given["to"]), given["key"], labels=tables.get("labels"), window=window, most=given["most"], held=given["held"]
        )
    return dict(told)


def _told(problem: WatchkeeperError) -> Mapping[str, Any]:
    kind = next(kind.__name__ for kind in type(problem).__mro__ if kind.__module__ == errors.__name__)
    return {"error": {"kind": kind, "message": str(problem), "status": getattr(problem, "status", None)}}


def _say(replies: Any, reply: Mapping[str, Any]) -> None:
    unsent = memoryview(json.dumps(reply).encode() + b"\n")
    while unsent:
        unsent = unsent[replies.write(unsent) :]


def _end_with_parent(jobs: int) -> None:
    """Wait for the other end of stdin to close, even in the middle of a look, and take down with us what the look started."""
    watch = select.poll()
    watch.register(jobs, 0)
    watch.poll()
    os.killpg(0, signal.SIGKILL)


def _give_way(nice: int) -> None:
    """The daemon's clock comes first on a busy machine, and the kernel's choice when memory runs out should be us."""
    os.nice(nice)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def _resident() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
