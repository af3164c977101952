"""A small real service for tests: version 1 doubles, version 2 should double and trebles; a server, its pointer, a registry, a configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from agent import config
from agent.respond import Responder
from agent.store import Store
from agent.targets.folder import record
from agent.workers import Pool
from agent.world import World
from tests.servers import oip

GOLDEN = [(oip.REQUEST, {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [2.0, 4.0]}]})]


class Fraud(oip.Speaker):
    """The model server with its version pointer, which may be the shares of several; `flips` are the switches that took effect, `moves` those that
    nobody cleared away."""

    def __init__(self, served: str = "1") -> None:
        self.flips: list[Any] = []
        self.moves: list[Any] = []
        self.shares: dict[str, float] | None = None  # while traffic is split; `served` is what answers the agent meanwhile
        self.compares = True  # False: it moves its pointer for whoever asks, however often
        self.mood: Callable[[str, str], tuple[int, Any] | None] = lambda method, path: None  # what it does instead, now and then
        self.between: Callable[[str], tuple[int, Any] | None] = lambda when: None  # what it answers instead once it was "asked", or has "done" it
        super().__init__(served)
        self.factors = {"1": 2.0, "2": 2.0}

    def close(self) -> None:
        self.stop()

    def stand(self) -> Any:
        """How it stands, to be put back."""
        return self.served, self.shares, list(self.flips), list(self.moves)

    def put(self, stood: Any) -> None:
        self.served, self.shares, self.flips[:], self.moves[:] = stood

    def _answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        found = self.between("asked") or self._dealt_with(method, path, body)
        return self.between("done") or found

    def _dealt_with(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        moody = self.mood(method, path)
        if moody is None and path == "/admin/unload":
            self.loaded = tuple(version for version in self.loaded if version != body["version"])
            return 200, {"loaded": self.loaded}
        if moody is not None or path != "/admin/pointer":
            return moody or super()._answer(method, path, body)
        if method == "GET":
            return 200, {"model": "m", "version": self.shares or self.served, "loaded": list(self.loaded)}
        if self.compares and body["expected"] != (self.shares or self.served):
            return 409, {"version": self.shares or self.served}
        self.move(body["to"])
        return 200, {"version": body["to"]}

    def move(self, to: Any) -> None:
        """Send the traffic there, and remember it."""
        self.shares = to if isinstance(to, dict) else None
        self.served = self.served if self.shares else to
        self.flips.append(to)
        self.moves.append(to)


CONFIG = """
services:
  fraud:
    owner: ada
    soak: 1s
    drills: {{live: true}}
    mode: {{default: observe, rollback: {mode}}}
    runbooks: {{rollback: {{with: {{patience: {patience}}}}}}}
    targets:
      server: oip+{address}/m
      router: pointer+{address}
      registry: folder:models
    watches:
      - {{check: serving.ready, every: 10m}}
      - {{check: serving.parity, every: 10m, needs: [serving.ready]}}
{more}
notify:
  channels: {{ada: "http://127.0.0.1:9/ada", eve: "http://127.0.0.1:9/eve"}}
"""


@dataclass
class Desk:
    """A world at work on the fraud service, without a schedule: tests look and respond when they mean to."""

    server: Fraud
    folder: Path
    world: World
    responder: Responder
    ahead: float = 0.0  # seconds by which the clock of this world is ahead

    def __post_init__(self) -> None:
        self.world.clock = lambda: datetime.now(UTC) + timedelta(seconds=self.ahead)

    def look(self, watch: str = "serving.parity") -> Any:
        from agent.observe import observe

        return observe(self.world, f"fraud/{watch}", self.world.clock()).result(30)

    def see(self) -> None:
        """Look at what changed, as the daemon does every few seconds."""
        from agent.changes import see_changes

        see_changes(self.world, self.world.service("fraud"))

    def respond(self, moves: int = 200) -> Any:
        """Drive the runs until none is active or a person is waited for, moving the clock on to where each wants to be looked at again."""
        for _ in range(moves):
            for future in self.responder.tick(self.world.clock()):
                future.result(30)
            with self.world.store.read() as ledger:
                run = next(iter(ledger.runs()), None)
            if run is None or not run.active or run.state == "awaiting" or run.said.startswith(("suggested", "automatic action is halted")):
                return run
            self.later(max((run.wake_at - self.world.clock()).total_seconds(), 0.0) if run.wake_at else 0.0)
        raise AssertionError(f"run {run} does not come to an end")

    def later(self, seconds: float) -> None:
        """Let that much time have passed."""
        self.ahead += seconds

    def events(self, kind: str | None = None) -> list[str]:
        with self.world.store.read() as ledger:
            return [event.what for event in reversed(ledger.events(kind))]


def write_config(folder: Path, address: str, mode: str = "auto", more: str = "", patience: str = "10s") -> Path:
    """The configuration of the service, and its registry with golden rows."""
    weights = folder / "weights.bin"
    weights.write_bytes(b"weights")
    for version in ("1", "2"):
        record(folder / "models", version, {"weights.bin": weights}, golden=GOLDEN)
    path = folder / "watchkeeper.yaml"
    path.write_text(CONFIG.format(address=address, mode=mode, more=more, patience=patience))
    return path


@contextmanager
def fraud(folder: Path, mode: str = "auto", more: str = "", patience: str = "10s", **store: Any) -> Iterator[Desk]:
    """The service with version 1 serving and known to be good."""
    with closing(Fraud()) as server, at_work(write_config(folder, server.address, mode, more, patience), server, **store) as desk:
        yield desk


@contextmanager
def at_work(path: Path, server: Any = None, workers: Pool | None = None, **store: Any) -> Iterator[Desk]:
    """A world at work on a service that a configuration describes, whoever serves it; `workers` that others use, too, stay open."""
    made = config.load(path)
    kept = Store.open(made.store, **store).start()
    pool = workers or Pool(1)
    world = World(made, kept, pool)
    responder = Responder(world)
    try:
        yield Desk(server, path.parent, world, responder)
    finally:
        responder.stop()
        if workers is None:
            pool.close()
        world.connections.close()
        kept.close()


def drilled(desk: Desk) -> None:
    """Both versions are good and a rollback was drilled, so that `auto` may act; version 2 serves."""
    from agent import verbs

    for version in ("1", "2"):
        verbs.good(desk.world, "fraud", version, "ada")
    desk.see()
    desk.look("serving.ready")
    desk.look()
    verbs.start(desk.world, "rollback", "fraud", {}, "ada", drill=True)
    run = desk.respond()
    assert run.state == "succeeded", run.said
    desk.server.flips.clear()


def spoiled(desk: Desk) -> None:
    """Version 2 is deployed and answers wrongly."""
    desk.server.served = "2"
    desk.server.factors["2"] = 3.0
