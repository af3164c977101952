"""A campaign against runs: each is disturbed in one way at one place, goes on in a new process, and what is left must be as the invariants want it.

A Case says how its world is set up, how its run comes to be wanted, and in which ways it may end. It is set up once; every run then starts from a
copy of that store and that target. The process that drives the run is a real one and is killed by a real SIGKILL (tests/crash.py).
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from agent import config, verbs
from agent._proof import broken
from agent.model import Json, Run
from agent.store import Ledger, Store
from tests import history
from tests.crash import FULL
from tests.fraud import Desk, drilled, fraud, spoiled
from tests.processes import HOUSE
from tests.rollout import splitting
from tests.servers._loopback import GONE
from tests.servers.runtime import Runtime

PATIENCE = {"fraud/serving.parity": 1, "fraud/serving.ready": 1}  # exact watches: one confirmed fail counts
OLD = 60.0  # seconds after which what a run rests on is made new
MOST = 100  # places at which one run can be disturbed in one way


@dataclass(frozen=True)
class Case:
    """`ends`: state -> what the target was moved to by then. `by`: who approves what waits for a person."""

    name: str
    world: Callable[[Path], AbstractContextManager[Desk]]
    want: Callable[[Desk], None]
    ends: Mapping[str, Sequence[Json]]
    by: str = ""


@dataclass(frozen=True)
class Way:
    """One way to disturb a run: `kind` at its n-th chance, or (killed at) after n seconds."""

    kind: str
    n: float

    def __str__(self) -> str:
        return f"{self.kind} {self.n:.3g}"


PEACE = Way("in peace", 0)
COMMITS = {"killed before commit": "before", "killed after commit": "after", "no room at commit": "full"}
ASKED: Mapping[str, tuple[str, Any]] = {  # when in an exchange with the target, and what the target answers then (None: the agent is killed)
    "killed at request": ("asked", None),
    "killed at answer": ("done", None),
    "500 at request": ("asked", (500, {"error": "not now"})),
    "cut at request": ("asked", GONE),
    "cut at answer": ("done", GONE),
}
KILLS = ("killed before commit", "killed after commit", "killed at request", "killed at answer")
FAULTS = ("no room at commit", "500 at request", "cut at request", "cut at answer")


@dataclass(frozen=True)
class Outcome:
    """How one run ended. `hit`: whether it was disturbed at all; `wrong`: what must not be."""

    case: str
    way: Way
    hit: bool
    state: str
    moves: tuple[Json, ...]
    wrong: tuple[str, ...]
    seconds: float


class Warm:
    """A process with all imports behind it, from which those that drive a run are forked."""

    def __init__(self) -> None:
        command, pipe = [sys.executable, "-m", "tests.crash", "--warm"], subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, cwd=HOUSE)

    def start(self, **job: Any) -> int:
        """Begins a job; the number of its process."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return int(self._line())

    def wait(self) -> int:
        """The exit status of what was started; -9 when it was killed."""
        return int(self._line())

    def _line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


@dataclass
class Stage:
    """One case set up in a folder, and the process that drives its runs."""

    case: Case
    desk: Desk
    warm: Warm
    stood: Any
    files: Mapping[str, bytes]
    there: set[Path]
    fresh: float = field(default_factory=time.monotonic)  # when the run was wanted, as far as its store knows
    pid: int = 0
    hits: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def store(self) -> Path:
        return self.desk.world.store.path

    def run(self, *ways: Way) -> Outcome:
        """The run once, from the beginning: disturbed in these ways, one process after the other, and then left in peace."""
        began = time.monotonic()
        self._put_back()
        self.hits, wrong, status = 0, [], -signal.SIGKILL
        for way in (*ways, PEACE):
            if status == -signal.SIGKILL:
                status = self._drive(way)
        if status:
            wrong.append(f"the process ended with {status}")
        with Store.open(self.store).read() as ledger:
            run = ledger.runs()[0]
            wrong += broken(ledger)
        wrong += self._violations() + self._end(run)
        moves = tuple(self.desk.server.flips)
        return Outcome(self.case.name, ways[0], self.hits > 0, run.state, moves, tuple(wrong), time.monotonic() - began)

    def _put_back(self) -> None:
        for path in files_in(self.desk.folder) - self.there | set(self.store.parent.glob(f"{self.store.name}*")):
            path.unlink()  # also what is written anew: who still reads the old file must not find another in its place
        for name, body in self.files.items():
            (self.store.parent / name).write_bytes(body)
        self.desk.server.put(self.stood)
        if time.monotonic() - self.fresh > OLD:
            self._freshen()

    def _freshen(self) -> None:
        """Runs grow old, and so does what they rest on: let it be now that this one was wanted."""
        store, now = Store.open(self.store).start(), datetime.now(UTC)

        def renew(ledger: Ledger) -> None:
            for run in ledger.runs(active_only=True):
                ledger.save_run(replace(run, wanted_at=now))
            for seen in ledger.all_signals():
                ledger.put_signal(replace(seen, looked_at=now))

        store.write(renew)
        store.close()
        self.files, self.fresh = kept(self.store), time.monotonic()

    def _drive(self, way: Way) -> int:
        job = {"config": str(self.desk.folder / "watchkeeper.yaml"), "where": COMMITS.get(way.kind, "never"), "n": way.n, "by": self.case.by}
        with self.lock:
            self.pid = self.warm.start(**job)
            self.desk.server.between = self._between(way) if way.kind in ASKED else _nothing
        timer = threading.Timer(way.n, partial(self._kill, self.pid)) if way.kind == "killed at" else None
        if timer:
            timer.start()
        status = self.warm.wait()
        self.desk.server.between = _nothing
        if timer:
            timer.cancel()
        self.hits += status in (-signal.SIGKILL, FULL)
        return status if status != FULL else 0

    def _between(self, way: Way) -> Callable[[str], Any]:
        """What the server does at the n-th request instead of answering, or before it."""
        seen, (point, answer) = 0, ASKED[way.kind]

        def between(when: str) -> Any:
            nonlocal seen
            with self.lock:
                seen += when == point
                if when != point or seen != way.n:
                    return None
                if answer is None:
                    self._kill(self.pid)
                else:
                    self.hits += 1
            return answer

        return between

    def _kill(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def _violations(self) -> list[str]:
        server = self.desk.server
        stands = server.shares or server.served
        return history.violations(history.read(Store.open(self.store), effects=tuple(server.moves), stands=stands, patience=PATIENCE))

    def _end(self, run: Run) -> list[str]:
        moves = list(self.desk.server.flips)
        if run.active:
            return [f"the run has no end: {run.state}: {run.said}"]
        return [] if moves == list(self.case.ends.get(run.state, (None,))) else [f"the run {run.state} after {moves}: {run.said}"]


def _nothing(when: str) -> None:
    return None


@contextmanager
def staged(case: Case, folder: Path) -> Iterator[Stage]:
    """The case set up, with its run wanted and nothing driving it."""
    with case.world(folder) as desk, closing(Warm()) as warm:
        case.want(desk)
        desk.server.compares = False  # a target that compares and sets would hide an effect that is sent twice
        desk.responder.stop()
        desk.world.store.close()
        yield Stage(case, desk, warm, desk.server.stand(), kept(desk.world.store.path), files_in(desk.folder))


def kept(store: Path) -> Mapping[str, bytes]:
    """The files of a store that nobody holds, by name."""
    return {path.name: path.read_bytes() for path in store.parent.glob(f"{store.name}*") if not path.name.endswith(".lock")}


def files_in(folder: Path) -> set[Path]:
    """All there are, however deep."""
    return {path for path in folder.rglob("*") if path.is_file()}


def each_chance(stage: Stage, kind: str, first: int = 1) -> Iterator[Outcome]:
    """The run disturbed at its first chance, at its second, and so on, until one passes without having been; that one is the last."""
    for n in range(first, MOST):
        outcome = stage.run(Way(kind, n))
        yield outcome
        if not outcome.hit:
            return
    raise AssertionError(f"{stage.case.name}: {MOST} chances of being {kind}, and there is no end to them")


def at_random(stage: Stage, runs: int, seed: int) -> Iterator[Outcome]:
    """So many runs, each killed at a moment of the time that it takes, every third of them once more when it has been taken up again."""
    moments, longest = random.Random(f"{seed} {stage.case.name}"), stage.run(PEACE).seconds
    for number in range(runs):
        ways = [Way("killed at", moments.uniform(0, longest)) for _ in range(1 + (number % 3 == 0))]
        yield stage.run(*ways)


# The cases

HALF = {"1": 0.5, "3": 0.5}


def wanted(desk: Desk) -> None:
    """A rollback was drilled; version 2 is deployed and fails its parity, which wants one."""
    drilled(desk)
    spoiled(desk)
    assert desk.look().status == "fail"


def helpless(desk: Desk) -> None:
    """As `wanted`, and version 1 breaks once it has the traffic."""
    wanted(desk)
    desk.server.mood = lambda method, path: (500, {"error": "not under load"}) if desk.server.served == "1" and path == "/v2/models/m/infer" else None


def by_hand(desk: Desk) -> None:
    """Somebody asks for a rollback of a version that is well."""
    drilled(desk)
    desk.server.served = "2"
    verbs.start(desk.world, "rollback", "fraud", {}, "ada")


def rolled_out(desk: Desk, word: str) -> None:
    """Somebody asks for a canary of version 3, of which its judge says that word at the first look."""
    (desk.folder / "said.json").write_text(json.dumps({"else": word}))
    verbs.good(desk.world, "fraud", "1", "ada")
    desk.see()
    given = {"judge": "judged.compare", "compare": {"file": str(desk.folder / "said.json")}, "steps": [0.5], "every": "50ms"}
    verbs.start(desk.world, "canary", "fraud", given, "ada")


@contextmanager
def balanced(folder: Path, **more: Any) -> Iterator[Desk]:
    """The service behind a balancer, at which something is still under way for a while after each move: the run has to wait for it."""
    with fraud(folder, **more) as desk, closing(Runtime(folder / "s", desk.server)):
        path = folder / "watchkeeper.yaml"
        router = {"url": f"haproxy+unix:{folder}/s", "backend": "fraud", "versions": {"1": "v1", "2": "v2"}}
        path.write_text(path.read_text().replace(f"router: pointer+{desk.server.address}", f"router: {json.dumps(router)}"))
        desk.world.use(config.load(path))
        yield desk


CASES = (
    Case("rollback", fraud, wanted, {"succeeded": ["1"]}),
    Case("compensation", partial(fraud, patience="2s"), helpless, {"compensated": ["1", "2"], "stopped": []}),  # stopped: too slow a machine
    Case("waiting for a person", partial(fraud, mode="approve"), wanted, {"succeeded": ["1"]}, by="ada"),
    Case("waiting for what is under way", balanced, wanted, {"succeeded": ["1"]}),
    Case("asked for by hand", fraud, by_hand, {"succeeded": ["1"]}),
    Case("canary", splitting, partial(rolled_out, word="good"), {"succeeded": [HALF, "3"]}),
    Case("canary of a worse version", splitting, partial(rolled_out, word="bad"), {"compensated": [HALF, "1"]}),
)
