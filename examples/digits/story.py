"""The story of the demo, step by step. A step counts only when it was read back from what the agent wrote down and what the server serves."""

from __future__ import annotations

import json
import queue
import textwrap
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

from examples.digits.narrator import Narrator
from examples.digits.split import Split, bad, moment, pulse, split
from examples.digits.stage import Agent, BrokenOffError, Lines, Stage, printed_url

T = TypeVar("T")
SERVICE, PARITY = "digits", "serving.parity"
RATE = 20.0  # requests a second
TOLD = ("change.version", "change.first", "good", "incident", "run", "step")  # events of the agent that are told as they stand
LOOKS = ("serving.ready", PARITY, "serving.answers", "data.contract")  # what must be ok before anything is broken


def told(event: dict[str, Any]) -> bool:
    """Whether an event of the agent belongs to the story; what a run's own end repeats does not."""
    kind, what = event["kind"], event["what"]
    return kind.startswith(TOLD) and bool(what) and not (kind == "step" and (what.endswith(": intended") or ": failed: " in what))


class MissedError(Exception):
    """A step of the story was not seen; says which, and what was seen instead."""


class Story:
    """The steps, in order. `narrator` tells them; `patience` multiplies how long each is waited for."""

    def __init__(self, stage: Stage, narrator: Narrator, server: Any, port: int = 0, patience: float = 1) -> None:
        self.stage, self.narrator, self.server, self.port, self.patience = stage, narrator, server, port, patience
        self.answers, self.control = Lines(stage.folder / "answers.jsonl"), stage.folder / "mode"
        self.agent = Agent("", SERVICE)
        self.config, self.page = stage.folder / "watchkeeper.yaml", stage.folder / "audit.html"
        self.split: Split | None = None
        self.letters = Letterbox()

    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        return [
            ("start", self.begin),
            ("drill", self.drill),
            ("bad version", self.bad_version),
            ("broken images", self.broken_images),
            ("audit", self.audit),
        ]

    def play(self) -> None:
        """All steps; MissedError and BrokenOffError name the one at which it went wrong."""
        for name, step in self.steps():
            self.narrator.also(f"\n-- {name}")
            try:
                step()
            except (MissedError, BrokenOffError) as problem:
                raise type(problem)(f"{name}: {problem}") from None

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
        self.until("the agent has seen that version 1 serves again", lambda: self.agent.state()["served"]["version"] == "1", 20)
        self.becomes_good("1")

    def bad_version(self) -> None:
        """Version 2 is deployed, answers wrongly, and is rolled back."""
        self.until("every watch is ok", self.well, 20)
        deployed, before = time.time(), self.incidents()
        self.narrator.tell("operator", f"{self.server.deploy('2')}; its server code has lost the normalisation step")
        self.until(f"an incident opens over {PARITY}", lambda: self.agent.incident(PARITY, after=before), 20)
        found = self.until("the rollback ends", lambda: self.ended(before, PARITY), 30)
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
        self.send("broken", "sends 56 pixels from 0 to 255 in place of 64 from 0 to 16")
        found = self.until(
            "serving.answers and data.contract fail, and the rollback is decided on",
            lambda: self.ended(before, "serving.answers", "data.contract"),
            30,
        )
        self._require(found, "stopped", "", "declined at counterfactual")
        if self.server.served() != "3":
            raise MissedError(f"version 3 should still serve; version {self.server.served()} does")
        self.send("good", "sends good images again")
        self.until("the incident is resolved", lambda: self._resolved(found["id"]), 40)

    def audit(self) -> None:
        """The page that proves it is written."""
        self.wk("audit", "run", "--out", self.page, by=False)
        if not self.page.exists():
            raise MissedError(f"{self.page} was not written")

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
        self.stage.env |= {**self.server.configure(), "WATCHKEEPER_PORT": str(self.port), "DEMO_WEBHOOK": self.letters.url}
        self.watcher = self.stage.python("agent", "agent.cli", "--config", self.config, "run")
        self.agent.url = self.until("the agent is up", lambda: printed_url(self.watcher, "watching .* services"), 60)
        self.narrator.tell("operator", f"starts the agent; its page is {self.agent.url}")

    def send(self, mode: str, what: str) -> None:
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

    def ended(self, before: int, *watches: str) -> dict[str, Any] | None:
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
        end = time.monotonic() + seconds * self.patience
        while True:
            self.follow()
            found = holds()
            if found:
                self.follow()  # what made it so is told before what comes of it
                return found
            if time.monotonic() > end:
                raise MissedError(f"waited {seconds * self.patience:g} s in vain until {what}; seen instead: {self.instead()}")
            time.sleep(0.1)

    def follow(self) -> None:
        """Tells what the agent wrote down since it was last asked; BrokenOffError when an actor is gone."""
        for actor in self.stage.actors:
            if actor.failed:
                actor.check()
        self.answers.new()
        for event in self.agent.events() if self.agent.url else ():
            if told(event):
                self.narrator.tell("agent", event["what"], moment(event["at"]))
        for letter in self.letters.new():
            self.narrator.tell("ada", f"gets a letter: {textwrap.shorten(letter, 140, placeholder=' ...')}")
        self.narrator.now(lambda: pulse(self.answers.all, time.time()))

    def instead(self) -> str:
        """How everything stands, for who wants to know why a step was missed."""
        users = f"{len(self.answers.all)} answers, {sum(map(bad, self.answers.all[-100:]))} of the last 100 bad"
        if not self.agent.url:
            return users
        return f"version {self.server.served()} serves; {users}; {'; '.join(self.states())}"


class Letterbox:
    """Takes the letters that the agent sends, as a chat or a pager would."""

    def __init__(self) -> None:
        self.letters: queue.SimpleQueue[str] = queue.SimpleQueue()
        letters = self.letters

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)))
                letters.put(f"{body['what']}: {body['text']}")
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        threading.Thread(target=self._server.serve_forever, args=(0.2,), daemon=True).start()

    def new(self) -> list[str]:
        """What those say that came since it was last asked."""
        return [self.letters.get() for _ in range(self.letters.qsize())]
