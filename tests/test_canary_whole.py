"""The canary runbook with the check that judges it, over a log of what users were answered."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

from agent import config, verbs
from agent.model import Run
from tests.fraud import Desk
from tests.rollout import splitting


def logged(folder: Path, desk: Desk, seconds: float, errors: dict[str, float], chance: random.Random) -> None:
    """What users were answered until then: forty requests a second, by whom the router says, each version with its share of errors."""
    now, shares = desk.world.clock().timestamp(), desk.server.shares or {desk.server.served: 1.0}
    rows = []
    for n in range(int(seconds * 40)):
        version = chance.choices(list(shares), list(shares.values()))[0]
        status = 500 if chance.random() < errors[version] else 200
        rows.append((now + n / 40, version, status, chance.gammavariate(4, 0.01)))
    with closing(sqlite3.connect(folder / "log.db")) as con:
        con.executemany("INSERT INTO requests VALUES (?, ?, ?, ?)", rows)
        con.commit()


def carried(folder: Path, desk: Desk, errors: dict[str, float], **given) -> Run:
    with closing(sqlite3.connect(folder / "log.db")) as con:
        con.execute("CREATE TABLE requests (at REAL, version TEXT, status INTEGER, took REAL)")
        con.commit()
    path = folder / "watchkeeper.yaml"
    live = 'live: {url: "sqlite:log.db", time: {column: at, unit: s}, version: version}'
    path.write_text(path.read_text().replace("      registry:", f"      {live}\n      registry:"))
    desk.world.use(config.load(path))
    desk.see()
    chance = random.Random(5)
    logged(folder, desk, 30, errors, chance)
    desk.later(30)
    run = verbs.start(desk.world, "canary", "fraud", {"compare": {"status": "status", "latency": "took"}, **given}, "ada")
    assert isinstance(run, Run)
    for _ in range(400):
        for future in desk.responder.tick(desk.world.clock()):
            future.result(60)
        with desk.world.store.read() as ledger:
            now = ledger.run(run.id)
        assert now is not None
        if not now.active:
            return now
        logged(folder, desk, 10, errors, chance)
        desk.later(10)
    raise AssertionError(now.said)


def test_a_version_with_no_more_errors_is_promoted(tmp_path):
    with splitting(tmp_path) as desk:
        run = carried(tmp_path, desk, {"1": 0.002, "3": 0.002}, steps=[0.25, 0.5])
        assert run.state == "succeeded", run.said
        assert desk.server.flips == [{"1": 0.75, "3": 0.25}, {"1": 0.5, "3": 0.5}, "3"]
        held = [row.output["reason"] for row in run.steps if row.action == "check.hold"]
        assert all(reason.startswith("promote 3: by errors (") for reason in held)


def test_a_version_with_more_errors_is_taken_back_at_its_first_share(tmp_path):
    with splitting(tmp_path) as desk:
        run = carried(tmp_path, desk, {"1": 0.002, "3": 0.05}, steps=[0.25, 0.5])
        assert run.state == "compensated" and "roll back 3: errors" in run.said, run.said
        assert desk.server.flips == [{"1": 0.75, "3": 0.25}, "1"]
