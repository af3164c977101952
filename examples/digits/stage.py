"""What the demo's story is played on: a folder, the actors as processes of their own, and what can be read of them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOUSE = Path(__file__).resolve().parent.parent.parent
LEASH = [sys.executable, "-I", "-S", str(HOUSE / "examples" / "leash.py")]
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever proxy the environment asks for, this machine is not behind it
GRACE = 20.0  # seconds that an actor has to end by itself


class BrokenOffError(Exception):
    """The story cannot go on: an actor is missing, or ended before it should. Says which, and what it said last."""


@dataclass(frozen=True, slots=True)
class Actor:
    """One process, the leader of a group of its own; everything it says is in `log`. `fine`: the codes with which it may end."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    fine: Sequence[int] = (0,)

    @property
    def failed(self) -> bool:
        """Whether it has ended otherwise than it may."""
        return self.process.poll() not in (None, *self.fine)

    @property
    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def check(self) -> None:
        """BrokenOffError if it has ended."""
        if self.process.poll() is not None:
            last = "\n".join(f"    {line}" for line in self.text.splitlines()[-12:])
            raise BrokenOffError(f"the {self.name} ended with status {self.process.returncode}; its last lines:\n{last or '    (it said nothing)'}")

    @property
    def left(self) -> bool:
        """Whether anything of its group still runs."""
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Stage:
    """Starts actors in a folder and ends all of them, in the order in which they came, when the `with` block ends in any way."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.actors: list[Actor] = []
        self.killed: list[str] = []  # those that did not end when asked to
        self.env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(HOUSE), os.environ.get("PYTHONPATH")))), "PYTHONUNBUFFERED": "1"}

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self, name: str, command: Sequence[str | Path], env: Mapping[str, str] | None = None, fine: Sequence[int] = (0,)) -> Actor:
        """Starts one; it gets no signal from our terminal, and does not outlive us."""
        log = self.folder / f"{name.replace(' ', '-')}.log"
        words = [*LEASH, str(os.getpid()), *(str(word) for word in command)]
        with log.open("ab") as out:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=self.folder, env={**self.env, **(env or {})}, start_new_session=True
            )
        self.actors.append(Actor(name, process, log, fine))
        return self.actors[-1]

    def python(self, name: str, module: str, *words: str | Path, fine: Sequence[int] = (0,)) -> Actor:
        """`python -m module words` by the Python that runs us."""
        return self.start(name, [sys.executable, "-m", module, *words], fine=fine)

    def done(self, actor: Actor) -> bool:
        """Whether one that is meant to end has ended well; then it is forgotten. BrokenOffError when it ended otherwise."""
        if actor.process.poll() is None:
            return False
        if actor.failed:
            actor.check()
        self.actors.remove(actor)
        return True

    def end(self) -> None:
        """Ends everything: asked first, killed after the grace or at a second Ctrl-C."""
        try:
            for actor in self.actors:
                with contextlib.suppress(ProcessLookupError):
                    actor.process.terminate()
            until = time.monotonic() + GRACE
            for actor in self.actors:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    actor.process.wait(max(0.0, until - time.monotonic()))
        finally:
            late = [actor for actor in self.actors if actor.left]
            for actor in late:
                actor.kill()
            self.killed += [actor.name for actor in late]
            self.actors.clear()


def fetch(url: str, body: Any = None, method: str | None = None) -> Any:
    """The decoded answer to a GET, to a POST of `body`, or to `method`; BrokenOffError says what went wrong."""
    content = None if body is None else json.dumps(body).encode()
    kind = {} if content is None else {"content-type": "application/json"}
    request = urllib.request.Request(url, content, kind, method=method)  # noqa: S310 - http to this machine
    try:
        with DIRECT.open(request, timeout=20) as reply:
            return json.loads(reply.read())
    except urllib.error.HTTPError as refused:
        raise BrokenOffError(f"{url} answered {refused.code}: {refused.read()[:300].decode('utf-8', 'replace')}") from refused
    except (OSError, ValueError) as problem:
        raise BrokenOffError(f"{url} does not answer: {problem}") from problem


def answers(url: str) -> bool:
    """Whether a GET of it is answered with 200."""
    try:
        with DIRECT.open(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def printed_url(actor: Actor, after: str) -> str | None:
    """The address that an actor printed behind some words; None as long as it has not."""
    actor.check()
    found = re.search(rf"{after}.*?(http://[\w.:\[\]-]+)", actor.text)
    return found[1] if found else None


class Lines:
    """A file of JSON lines that somebody else is still writing: `new()` gives what came since it was last asked."""

    def __init__(self, path: Path) -> None:
        self.path, self._read, self.all = path, 0, list[dict[str, Any]]()

    def new(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._read)
            whole = file.read().rpartition(b"\n")[0]
        self._read += len(whole) + bool(whole)
        came = [json.loads(line) for line in whole.splitlines()]
        self.all += came
        return came


class Agent:
    """What the agent tells over its API."""

    def __init__(self, url: str, service: str) -> None:
        self.url, self.service, self._last = url, service, 0

    def events(self) -> Iterator[dict[str, Any]]:
        """What it has written down since it was last asked, oldest first."""
        for event in sorted(self.get(f"/api/events?limit=200&service={self.service}"), key=lambda one: int(one["id"])):
            if event["id"] > self._last:
                self._last = event["id"]
                yield event

    def get(self, path: str) -> Any:
        return fetch(self.url + path)

    def state(self) -> dict[str, Any]:
        """The service as it stands."""
        found: dict[str, Any] = self.get(f"/api/services/{self.service}")
        return found

    def incident(self, *watches: str, after: int = 0) -> dict[str, Any] | None:
        """The newest incident with a number above `after` in which each of these watches has been bad."""
        for one in self.get(f"/api/incidents?service={self.service}&limit=20"):
            if one["id"] > after and {f"{self.service}/{watch}" for watch in watches} <= {member["watch"] for member in one["members"]}:
                found: dict[str, Any] = self.get(f"/api/incidents/{one['id']}")
                return found
        return None
