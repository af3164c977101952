"""A canary through a real HAProxy, judged by the log of what users were answered."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent import config, verbs
from agent.model import Run
from agent.respond import Responder
from agent.store import Store
from agent.targets.folder import record
from agent.workers import Pool
from agent.world import World
from tests import haproxy
from tests.conftest import need
from tests.rollout import plugged
from tests.servers import plain
from tests.test_haproxy import asked

CONFIG = """
services:
  fraud:
    owner: ada
    targets:
      server: {{url: "{server}", ready: /readyz, at: "/predict?version={{version}}", version: {{path: /metadata, field: model.version}}, wrap: x}}
      router: {{url: "haproxy+unix:{socket}", backend: fraud, versions: {{"1": v1, "2": v2}}}}
      registry: folder:models
      live: {{url: "sqlite:log.db", time: {{column: at, unit: s}}, version: version}}
    watches:
      - {{check: serving.parity, every: 10m}}
notify:
  channels: {{ada: "http://127.0.0.1:9/ada"}}
"""
JUDGE = """
    from dataclasses import dataclass
    from agent import Ask, Table, Verdict, Window, check, fail, nodata, ok

    @dataclass(frozen=True)
    class Seen:
        rows: int

    @check(pillar="deployment", asks="Is the new version answered as well as the old one?")
    def errors(
        live: Table, window: Window, memory: Seen | None, *, baseline: str, candidate: str, alpha: float, margins: dict[str, float]
    ) -> Verdict:
        \"\"\"Counts the rows of either version, and those of the new one that were wrong.\"\"\"
        told = live.between(window.start, window.end).tally([Ask("version", keys=(baseline, candidate)), Ask("wrong", keys=(candidate,))])
        rows = (memory.rows if memory else 0) + told["version"].by_key[candidate]
        wrong = told["wrong"].by_key[candidate]
        seen = Seen(rows)
        if wrong:
            return fail(f"{wrong} answers of {candidate} were wrong", memory=seen)
        return ok(f"{rows} answers of {candidate}", memory=seen) if rows >= 3 else nodata(f"{rows} answers of {candidate}", memory=seen)
"""


class Users:
    """Who asks through the proxy and keeps the log: each answer a row, the version that gave it, and it again where the answer was wrong."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url, self.seen = folder, url, Counter[str]()
        with closing(sqlite3.connect(folder / "log.db")) as con:
            con.execute("CREATE TABLE requests (at REAL, version TEXT, wrong TEXT)")
            con.commit()

    def ask(self, times: int, wrong: str = "") -> Counter[str]:
        seen = asked(self.url, times)
        now = datetime.now(UTC).timestamp()
        rows = [(now, version, version if version == wrong else "") for version, count in seen.items() for _ in range(count)]
        with closing(sqlite3.connect(self.folder / "log.db")) as con:
            con.executemany("INSERT INTO requests VALUES (?, ?, ?)", rows)
            con.commit()
        return seen


@contextmanager
def standing(folder: Path) -> Iterator[tuple[World, Responder, Users, haproxy.Box]]:
    """Version 1 has all the traffic; both are loaded, registered, and answer their golden rows."""
    server = plain.Speaker("1")
    with ExitStack() as until:
        until.callback(server.stop)
        box = until.enter_context(haproxy.standing(need("haproxy"), folder))
        until.enter_context(plugged(folder, {"judged": JUDGE}))
        haproxy.say(box.folder / "admin.sock", "set server fraud/v2 weight 0")
        (folder / "weights.bin").write_bytes(b"weights")
        for version, factor in (("1", 2.0), ("2", 3.0)):
            golden = [(plain.REQUEST, {"y": [factor * x for x in plain.REQUEST]})]
            record(folder / "models", version, {"weights.bin": folder / "weights.bin"}, golden=golden)
        path = folder / "watchkeeper.yaml"
        path.write_text(CONFIG.format(server=server.url, socket=box.folder / "admin.sock"))
        made = config.load(path)
        with closing(Store.open(made.store).start()) as store:
            world = World(made, store, Pool(1))
            responder = Responder(world)
            try:
                yield world, responder, Users(folder, box.url), box
            finally:
                responder.stop()
                world.close()


def carried(world: World, responder: Responder, users: Users, box: haproxy.Box, wrong: str = "") -> tuple[Run, list[Counter[str]]]:
    """Drive the canary to its end while users ask; what a hundred of them met at each share that it gave."""
    given = {"judge": "judged.errors", "steps": [0.25, 0.5], "every": "50ms"}
    run = verbs.start(world, "canary", "fraud", given, "ada")
    met, stood = [], ""
    for _ in range(200):
        for future in responder.tick(world.clock()):
            future.result(30)
        with world.store.read() as ledger:
            run = ledger.run(run.id)
        assert run is not None
        if not run.active:
            return run, met
        weights = haproxy.say(box.folder / "admin.sock", "show servers state fraud")
        if weights != stood:
            met.append(users.ask(100, wrong))
        else:
            users.ask(4, wrong)
        stood = weights
    raise AssertionError(f"the canary does not come to an end: {run.said}")


def test_a_good_version_is_promoted_and_users_meet_it_as_often_as_it_was_given(tmp_path):
    with standing(tmp_path) as (world, responder, users, box):
        run, met = carried(world, responder, users, box)
        assert run.state == "succeeded", run.said
        assert [one["2"] for one in met if one["2"]] == pytest.approx([25, 50], abs=3), "by weight, but for where the round stood when it was changed"
        assert users.ask(40) == {"2": 40}
        assert {row.name for row in run.steps} >= {"promote", "look", "drain"} and {row.state for row in run.steps} == {"done"}


def test_a_bad_version_loses_the_traffic_at_its_first_share(tmp_path):
    with standing(tmp_path) as (world, responder, users, box):
        run, met = carried(world, responder, users, box, wrong="2")
        assert run.state == "compensated" and "answers of 2 were wrong" in run.said, run.said
        assert max(one["2"] for one in met) == pytest.approx(25, abs=3), met
        assert users.ask(40) == {"1": 40}
