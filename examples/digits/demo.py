"""The demo: a model server, its users and the agent, each a process of its own; what happens to them is told as it happens.

    python -m examples.digits.demo [--once] [--port N] [--keep DIR] [--plain]

A step of the story counts only when it was read back from what the agent wrote down and from what the server serves.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

from examples.digits.narrator import Narrator
from examples.digits.served import Digits, folder_of
from examples.digits.split import Split, bad, moment, split
from examples.digits.stage import Agent, BrokenOffError, Lines, Stage, printed_url

T = TypeVar("T")
SERVICE, PARITY = "digits", "serving.parity"
EXTRAS = ("onnxruntime", "sklearn", "skl2onnx")
RATE = 20.0  # requests a second
TOLD = ("change.version", "change.first", "good", "incident", "run", "step")  # events of the agent that are told as they stand
LOOKS = ("serving.ready", PARITY, "serving.answers", "data.contract")  # what must be ok before anything is broken


class MissedError(Exception):
    """A step of the story was not seen; says which, and what was seen instead."""


class Story:
    """The steps, in order. `narrator` tells them."""

    def __init__(self, stage: Stage, narrator: Narrator, server: Any, port: int = 0) -> None:
        self.stage, self.narrator, self.server, self.port = stage, narrator, server, port
        self.answers, self.control = Lines(stage.folder / "answers.jsonl"), stage.folder / "mode"
        self.agent = Agent("", SERVICE)
        self.config = stage.folder / "watchkeeper.yaml"
        self.split: Split | None = None
        self._letters = receive_letters()

    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        return [
            ("start", self.begin),
            ("drill", self.drill),
            ("bad version", self.bad_version),
            ("broken images", self.broken_images),
            ("audit", self.audit),
        ]

    def play(self) -> None:
        """All steps; MissedError names the one that was missed."""
        for name, step in self.steps():
            self.narrator.also(f"\n-- {name}")
            try:
                step()
            except MissedError as problem:
                raise MissedError(f"{name}: {problem}") from None

    # The steps

    def begin(self) -> None:
        """Everything is started."""
        self._train()
        self.server.start()
        self.until("the model server answers", self.server.up, 60)
        self.narrator.tell("operator", f"serves version {self.server.served()} with {self.server.name} at {self.server.url}")
        self._start_users()
        self._start_agent()

    def drill(self) -> None:
        """A rollback is shown to work before it may happen by itself."""
        self.wk("good", SERVICE, "0")
        self.until("the first looks are all ok", self.well, 40)
        self.narrator.tell("agent", "; ".join(self.states()))
        self.wk("drill", "rollback", SERVICE)
        if self.server.served() != "1":
            raise MissedError(f"version 1 should serve again after the drill; version {self.server.served()} does")
        self.becomes_good("1")

    def bad_version(self) -> None:
        """Version 2 is deployed, answers wrongly, and is rolled back."""
        self.until("every watch is ok", self.well, 20)
        deployed, before = time.time(), self.incidents()
        self.narrator.tell("operator", f"{self.server.deploy('2')}; its server code has lost the normalisation step")
        self.until(f"an incident opens over {PARITY}", lambda: self.agent.incident(PARITY, after=before), 20)
        found = self.until("the rollback ends", lambda: self._ended(before, PARITY), 30)
        self._require(found, "succeeded", "version 2 serves instead of 1")
        if self.server.served() != "1":
            raise MissedError(f"version 1 should serve again; version {self.server.served()} does")
        self.until("the incident is resolved", lambda: self._resolved(found["id"]), 30)
        self.split = split(self.answers.all, deployed, self.agent.get(f"/api/incidents/{found['id']}"), f"{SERVICE}/{PARITY}")
        if self.split is None:
            raise MissedError("users should have had bad answers between the deployment and the flip; there were none")
        self.narrator.tell("users", self.split.words)

    def broken_images(self) -> None:
        """The upstream breaks; the agent declines to roll back, and says why."""
        self.narrator.tell("operator", f"{self.server.deploy('3')}, which is version 2 mended")
        self.becomes_good("3")
        self.until("every watch is ok", self.well, 20)
        before = self.incidents()
        self._send("broken", "sends 56 pixels from 0 to 255 in place of 64 from 0 to 16")
        found = self.until(
            "serving.answers and data.contract fail, and the rollback is decided on",
            lambda: self._ended(before, "serving.answers", "data.contract"),
            30,
        )
        self._require(found, "stopped", "", "declined at counterfactual")
        if self.server.served() != "3":
            raise MissedError(f"version 3 should still serve; version {self.server.served()} does")
        self._send("good", "sends good images again")
        self.until("the incident is resolved", lambda: self._resolved(found["id"]), 40)

    def audit(self) -> None:
        """The page that proves it is written."""
        page = self.stage.folder / "audit.html"
        self.wk("audit", "--out", page, by=False)
        if not page.exists():
            raise MissedError(f"{page} was not written")

    # Their parts

    def _train(self) -> None:
        models = self.stage.folder / "models"
        if not (models / "stream.jsonl").exists():
            self.narrator.tell("operator", "trains four versions of a digit classifier, and registers them with golden rows")
            training = self.stage.python("training", "examples.digits.train", "--to", models)
            self.until("the training ends", lambda: self.stage.done(training), 120)

    def _start_users(self) -> None:
        files = ("--stream", self.stage.folder / "models" / "stream.jsonl", "--answers", self.answers.path, "--control", self.control)
        self.stage.python("traffic", "examples.digits.traffic", "--url", self.server.url, "--rate", str(RATE), *files)
        self.narrator.tell("users", f"send {RATE:g} images a second")

    def _start_agent(self) -> None:
        hook = f"http://127.0.0.1:{self._letters.server_port}/hook"
        self.stage.env |= {**self.server.configure(), "WATCHKEEPER_PORT": str(self.port), "DEMO_WEBHOOK": hook}
        actor = self.stage.python("agent", "agent.cli", "--config", self.config, "run")
        self.agent.url = self.until("the agent is up", lambda: printed_url(actor, "watching .* services"), 60)
        self.narrator.tell("operator", f"starts the agent; its page is {self.agent.url}")

    def _send(self, mode: str, what: str) -> None:
        self.control.write_text(mode, encoding="utf-8")
        self.narrator.tell("upstream", what)

    def becomes_good(self, version: str) -> None:
        self.until(f"version {version} is known to be good", lambda: any(e["body"].get("version") == version for e in self.goods()), 40)

    def goods(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.agent.get(f"/api/events?kind=good&service={SERVICE}")
        return found

    def well(self) -> bool:
        """Whether every watch that the story needs is ok, and no incident is open."""
        state = self.agent.state()
        status = {one["check"]: one["status"] for one in state["watches"]}
        return not state["incidents"] and all(status[look] == "ok" for look in LOOKS)

    def states(self) -> list[str]:
        return [f"{one['check']} {one['status'] or 'not looked at yet'}" for one in self.agent.state()["watches"]]

    def incidents(self) -> int:
        """The highest number of an incident so far."""
        return max((one["id"] for one in self.agent.get("/api/incidents?limit=1")), default=0)

    def _ended(self, before: int, *watches: str) -> dict[str, Any] | None:
        found = self.agent.incident(*watches, after=before)
        return found if found and any(run["ended_at"] for run in found["runs"]) else None

    def _resolved(self, number: int) -> bool:
        return bool(self.agent.get(f"/api/incidents/{number}")["resolved_at"])

    def _require(self, incident: dict[str, Any], state: str, context: str, said: str = "") -> None:
        """MissedError unless the incident's run came to this end, and these words were said."""
        run = incident["runs"][-1]
        if run["state"] != state or said not in run["said"]:
            raise MissedError(f"the rollback should have {state}; instead it {run['state']}: {run['said']}")
        told = next((event["what"] for event in incident["events"] if event["kind"] == "incident.context"), "nothing")
        if context not in told:
            raise MissedError(f"the incident should open with '{context}'; it opened with: {told}")

    def wk(self, *words: str | Path, by: bool = True) -> None:
        """A command of watchkeeper, typed by the operator."""
        said = [str(word) for word in words] + (["--by", "ada"] if by else [])
        self.narrator.tell("operator", f"$ watchkeeper {' '.join(said)}")
        name = f"watchkeeper {words[0]}"
        actor = self.stage.python(name, "agent.cli", "--config", self.config, *said)
        self.until(f"'{name}' ends well", lambda: self.stage.done(actor), 40)

    # Following what happens

    def until(self, what: str, holds: Callable[[], T | None], seconds: float) -> T:
        """Follows what happens until this holds; MissedError when it takes too long. Gives what `holds` gave."""
        end = time.monotonic() + seconds
        while True:
            self.follow()
            found = holds()
            if found:
                return found
            if time.monotonic() > end:
                raise MissedError(f"waited {seconds:g} s in vain until {what}; seen instead: {self.instead()}")
            time.sleep(0.05)

    def follow(self) -> None:
        """Tells what the agent wrote down since it was last asked; BrokenOffError when an actor is gone."""
        for actor in self.stage.actors:
            if actor.process.poll():
                actor.check()
        self.answers.new()
        for event in self.agent.events() if self.agent.url else ():
            if event["kind"].startswith(TOLD) and event["what"] and not event["what"].endswith(": intended"):
                self.narrator.tell("agent", event["what"], moment(event["at"]))

    def instead(self) -> str:
        """How everything stands, for who wants to know why a step was missed."""
        users = f"{len(self.answers.all)} answers, {sum(map(bad, self.answers.all[-100:]))} of the last 100 bad"
        if not self.agent.url:
            return users
        return f"version {self.server.served()} serves; {users}; {'; '.join(self.states())}"


def receive_letters() -> ThreadingHTTPServer:
    """Takes the letters that the agent sends to ada and to vision-oncall, as a chat or a pager would."""

    class Letterbox(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Letterbox)
    threading.Thread(target=server.serve_forever, args=(0.2,), daemon=True).start()
    return server


# The program


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="watchkeeper demo", description="Watch a real model server go bad and be put right, on this machine.")
    parser.add_argument("--once", action="store_true", help="end after the story; status 0 only if every step of it was seen")
    parser.add_argument("--port", type=int, default=0, help="where the agent's page listens; else a free port is taken")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="play in this folder and leave everything there")
    parser.add_argument("--plain", action="store_true", help="no colours, whatever the terminal")
    parser.add_argument("--json", action="store_true", help="tell the story as one JSON object a line")
    return parser.parse_args(argv)


def missing(port: int) -> str:
    """What keeps the demo from starting, in plain words; empty when nothing does."""
    absent = [name for name in EXTRAS if importlib.util.find_spec(name) is None]
    if absent:
        return f"the demo needs {', '.join(absent)}: run `make demo`, or pip install 'watchkeeper[examples]'"
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except (OSError, OverflowError) as problem:
        return f"port {port} cannot be used ({problem}); choose another with --port, or leave it out"
    return ""


def main(argv: Sequence[str]) -> int:
    """Tells the story; 0 when all of it was seen, 1 when a step was missed, 2 when it could not begin."""
    given = arguments(argv)
    why = missing(given.port)
    try:
        folder = folder_of(given.keep) if given.keep and not why else None
        folder = (folder or Path(tempfile.mkdtemp(prefix="watchkeeper demo "))).resolve()
    except OSError as problem:
        why = f"the demo cannot write its files: {problem}; name another folder with --keep DIR"
    if why:
        print(f"error: {why}", file=sys.stderr)
        return 2
    for one in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, _as_ctrl_c)
    return perform(given, folder)


def _as_ctrl_c(*_: object) -> None:
    raise KeyboardInterrupt


def perform(given: argparse.Namespace, folder: Path) -> int:
    """The story in a folder; whatever happens, nothing that it started is left."""
    narrator, seen = Narrator(given.plain, given.json), 1
    try:
        with Stage(folder) as stage:
            seen = _told(Story(stage, narrator, Digits(stage), given.port), narrator, given.once)
    except KeyboardInterrupt:
        narrator.tell("story", "stopped; nothing is left running")
        seen = 0 if seen == 0 else 130
    if not given.keep:
        tidy(folder, everything=seen == 130)
    return seen


def _told(story: Story, narrator: Narrator, once: bool) -> int:
    try:
        story.play()
    except MissedError as problem:
        narrator.tell("story", f"MISSED {problem}")
        return 1
    except BrokenOffError as problem:
        narrator.tell("story", f"BROKEN OFF: {problem}")
        return 1
    narrator.tell("story", f"every step was seen, in {narrator.seconds:.1f} s; the audit page is {story.stage.folder / 'audit.html'}")
    if not once:
        linger(story, narrator)
    return 0


def linger(story: Story, narrator: Narrator) -> None:
    """Stays up until Ctrl-C, and goes on telling."""
    narrator.also(f"\nEverything stays up until Ctrl-C. The agent's page: {story.agent.url}\nBreak it yourself, in another terminal:\n")
    for line in (*story.server.by_hand("2"), f"echo broken > '{story.control}'   # and later: echo good > '{story.control}'"):
        narrator.also(f"  {line}")
    narrator.also("")
    while True:
        story.follow()
        time.sleep(0.2)


def tidy(folder: Path, everything: bool) -> None:
    """Leaves of a temporary folder only what people were told to read: the audit page, and the logs."""
    if everything:
        shutil.rmtree(folder, ignore_errors=True)
        return
    shutil.rmtree(folder / "models", ignore_errors=True)
    for path in folder.iterdir():
        if path.suffix not in (".html", ".log"):
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
