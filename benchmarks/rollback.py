"""Automatic rollbacks under load: a bad version is deployed, found, and taken back; what each of them cost those who asked meanwhile.

    python -m benchmarks.rollback [haproxy nginx pointer mlserver torchserve] [--rollbacks 50] [--rate 400] [--requests 10000]

Real servers, a real router, `watchkeeper run` in mode auto after a drill, and keep-alive users who ask on a timetable and repeat nothing. The
decision is when the run was wanted, which is the finding's own transaction; all that the agent does after it counts. The last bad answer is told
twice: when the last request that version 2 answered left its user, and when that answer came.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from agent.store import Store
from benchmarks._fronts import KINDS, Missing
from benchmarks._running import load
from benchmarks._users import Answer, answers, count
from examples.digits.stage import Actor, Agent, Stage, printed_url
from tests import history

SERVICE, BAD = "digits", "2"
CONFIG = """
store: watchkeeper.db
listen: 127.0.0.1:0
notify: {{channels: {{ada: "http://127.0.0.1:9/"}}}}
services:
  digits:
    owner: ada
    mode: {{default: observe, rollback: auto}}
    soak: 1h
    budget: {{actions: 1000, per: 1h}}
    targets:
      server: {server}
      registry: folder:models/digits
      router: {router}
    watches:
      - {{check: serving.ready, every: 1s}}
      - {{check: serving.parity, every: 2s}}
"""


@dataclass(frozen=True)
class Rollback:
    """One of them. Times are seconds since 1970; `answers` are those to requests that left from its deployment to the next."""

    deployed: float
    wanted: float
    began: float
    flipped: float
    answers: Sequence[Answer]

    @property
    def failed(self) -> int:
        return sum(one.failed for one in self.answers)

    @property
    def bad(self) -> list[Answer]:
        return [one for one in self.answers if one.version == int(BAD)]

    @property
    def last_asked(self) -> float:
        """Seconds from the decision until the last request left that the bad version answered."""
        return max((one.began for one in self.bad), default=self.deployed) - self.wanted

    @property
    def last_answered(self) -> float:
        return max((one.ended for one in self.bad), default=self.deployed) - self.wanted


class Play:
    """One kind of router, from its first process to its last rollback."""

    def __init__(self, stage: Stage, kind: str, rate: float) -> None:
        self.stage, self.front = stage, KINDS[kind](stage)
        self.rate = min(rate, getattr(self.front, "most", rate))
        self.file, self.deployments = stage.folder / "answers", list[float]()

    def begin(self) -> None:
        training = self.stage.python("training", "examples.digits.train", "--to", self.stage.folder / "models")
        self.until("the training ends", lambda: self.stage.done(training), 300)
        self.front.start()
        self.until("the servers answer", self.front.up, 180)
        text = CONFIG.format(server=self.front.server, router=self.front.router())
        (self.stage.folder / "watchkeeper.yaml").write_text(text)
        agent = self.stage.python("agent", "agent.cli", "run")
        self.agent = Agent(self.until("the agent is up", lambda: printed_url(agent, "watching .* services"), 60), SERVICE)
        for version in ("0", "1"):
            self.wk("good", SERVICE, version)
        self.until("both watches are ok", self.well, 60)
        self.wk("drill", "rollback", SERVICE, "--live")
        self._users()

    def _users(self) -> None:
        image = json.loads((self.stage.folder / "models" / "stream.jsonl").read_text().splitlines()[0])["image"]
        body = self.stage.folder / "request.json"
        body.write_text(json.dumps({"inputs": [{"name": "image", "shape": [1, 64], "datatype": "FP32", "data": image}]}))
        self.stage.python("users", "benchmarks._users", self.front.asked, str(self.rate), "64", body, self.file)
        self.until("users are answered", lambda: count(self.file) > self.rate, 60)

    def roll(self, requests: int) -> None:
        """Deploys the bad version, and waits until it is taken back, all is well, and so many requests were made."""
        self.until("all is well", self.well, 120)
        ended, asked = self.ended(), count(self.file)
        self.deployments.append(time.time())
        self.front.deploy(BAD)
        self.until("the rollback ends", lambda: self.ended() > ended, 120)
        if (last := self.runs()[0])["state"] != "succeeded":
            sys.exit(f"{self.front.name}: the rollback {last['state']}: {last['said']}; {load()}")
        self.until("enough was asked", lambda: count(self.file) - asked >= requests, 600)

    def ended(self) -> int:
        return sum(run["ended_at"] is not None for run in self.runs())

    def runs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.agent.get(f"/api/runs?service={SERVICE}&limit=1000")
        return found

    def well(self) -> bool:
        state = self.agent.state()
        return not state["incidents"] and all(one["status"] == "ok" for one in state["watches"])

    def wk(self, *words: str) -> None:
        actor: Actor = self.stage.python(f"watchkeeper {words[0]}", "agent.cli", *words, "--by", "ada")
        self.until(f"watchkeeper {' '.join(words)} ends", lambda: self.stage.done(actor), 120)

    def until(self, what: str, holds: Callable[[], Any], seconds: float) -> Any:
        end = time.monotonic() + seconds
        while not (found := holds()):
            for actor in self.stage.actors:
                actor.check()
            if time.monotonic() > end:
                state = json.dumps(self.agent.state())[:2000] if hasattr(self, "agent") else ""
                sys.exit(f"{self.front.name}: waited {seconds:g} s in vain until {what}; {state}")
            time.sleep(0.2)
        return found

    # What was recorded

    def rollbacks(self) -> list[Rollback]:
        """From what users wrote down and what the agent did."""
        asked = sorted(answers(self.file), key=lambda one: one.began)
        starts, edges = [one.began for one in asked], [*self.deployments, float("inf")]
        kept = history.read(Store.open(self.stage.folder / "watchkeeper.db"))
        runs = [run for run in kept.runs if run.by == "watchkeeper" and run.state == "succeeded"]
        found = []
        for run, (deployed, over) in zip(runs, pairwise(edges), strict=True):
            began = next(event.at.timestamp() for event in kept.of(run, "run.began"))
            flip = next(row for row in run.steps if row.name == "flip" and row.ended_at)
            mine = asked[bisect_left(starts, deployed) : bisect_left(starts, over)]
            found.append(Rollback(deployed, run.wanted_at.timestamp(), began, flip.ended_at.timestamp(), mine))  # type: ignore[union-attr]  # it has ended
        return found

    def violations(self) -> list[str]:
        return history.violations(history.read(Store.open(self.stage.folder / "watchkeeper.db"), stands=self.served, patience={}))


def played(kind: str, given: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="wk-", ignore_cleanup_errors=True) as folder, Stage(Path(folder)) as stage:
        try:
            play = Play(stage, kind, given.rate)
        except Missing as problem:
            figure(f"rollback, {KINDS[kind].name}", None, "", str(problem))
            return
        play.begin()
        for number in range(given.rollbacks):
            play.roll(round(given.requests * play.rate / given.rate + 2 * play.rate))  # more than enough: the last of them are under way
            print(f"... {play.front.name}: {number + 1} of {given.rollbacks}; {load()}", file=sys.stderr, flush=True)
        play.served = play.front.served()
        stage.end()  # the agent as well: what it has not written down by then does not count
        tell(play, play.rollbacks())


def tell(play: Play, found: list[Rollback]) -> None:
    name, promised = f"rollback, {play.front.name}", isinstance(play.front, KINDS["haproxy"])
    limit = {"at_most": 1} if promised else {}
    none = {"at_most": 0} if promised else {}
    fewest, failed = min(len(one.answers) for one in found), [one.failed for one in found]
    figure(f"{name}: fewest requests in one of {len(found)}", fewest, "", f"{play.rate:g} a second, 64 keep-alive connections; {load()}")
    figure(f"{name}: failed requests in all", sum(failed), "", f"of {sum(len(one.answers) for one in found):,}; most in one {max(failed)}", **none)
    spread(f"{name}: decision to last bad answer", [one.last_answered for one in found], **limit)
    spread(f"{name}: decision to last request answered badly", [one.last_asked for one in found], **limit)
    spread(f"{name}: decision to permission", [one.began - one.wanted for one in found])
    spread(f"{name}: decision to flip seen done", [one.flipped - one.wanted for one in found])
    spread(f"{name}: deployed to decision", [one.wanted - one.deployed for one in found])
    late = sorted(one.ended - one.due for rollback in found for one in rollback.answers)
    figure(f"{name}: p99 of answers, from their timetable", late[int(0.99 * len(late))], "s", "what users waited")
    wrong = play.violations()
    figure(f"{name}: invariants violated", len(wrong), "", "; ".join(wrong)[:300] or "I1 to I8 over the whole record", at_most=0)


def spread(name: str, values: list[float], **promised: float) -> None:
    figure(name, max(values), "s", f"largest of {len(values)}; median {statistics.median(values):.3f}", **promised)


def figure(name: str, value: float | None, unit: str, note: str, **promised: float) -> None:
    print(json.dumps({"figure": name, "value": value, "unit": unit, "note": note, **promised}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="*", default=list(KINDS), metavar="kind", help=", ".join(KINDS))
    parser.add_argument("--rollbacks", type=int, default=10)
    parser.add_argument("--rate", type=float, default=400, help="requests a second")
    parser.add_argument("--requests", type=int, default=10_000, help="at least so many from each deployment to the next")
    given = parser.parse_args()
    for kind in given.kinds:
        played(kind, given)


if __name__ == "__main__":
    main()
