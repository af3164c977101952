"""A canary whose agent is killed: another one carries it on, and no effect is lost or repeated."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent import verbs
from agent.store import Store
from tests.rollout import splitting
from tests.test_canary_runbook import said

HALF = {"1": 0.5, "3": 0.5}


def driven(folder: Path, where: str, n: int) -> int:
    """One life of an agent, which may end at its n-th durable commit."""
    command = [sys.executable, "-m", "tests.crash", str(folder / "watchkeeper.yaml"), where, str(n)]
    return subprocess.run(command, timeout=90, capture_output=True).returncode


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("word", "where", "points"), [("good", "after", (4, 11)), ("bad", "before", (7,))])
def test_killed_anywhere_it_ends_as_it_would_have_and_no_effect_is_repeated(tmp_path, word, where, points):
    """The points lie all over its durable commits; each kill leaves another step half done."""
    with splitting(tmp_path) as desk:
        said(tmp_path, word)
        given = {"judge": "judged.compare", "steps": [0.5], "every": "50ms", "compare": {"file": str(tmp_path / "said.json")}}
        verbs.start(desk.world, "canary", "fraud", given, "ada")
        desk.world.store.close()
        store = desk.world.store.path
        kept = {path.name: path.read_bytes() for path in store.parent.glob(f"{store.name}*") if not path.name.endswith(".lock")}
        for n in points:
            for path in store.parent.glob(f"{store.name}*"):
                path.unlink()
            for name, body in kept.items():
                (store.parent / name).write_bytes(body)
            desk.server.served, desk.server.shares, desk.server.flips[:] = "1", None, []
            (tmp_path / "models" / "force").unlink(missing_ok=True)
            assert driven(tmp_path, where, n) == -9, f"a canary makes more than {n} durable commits"
            assert driven(tmp_path, "never", 0) == 0
            with Store.open(store).read() as ledger:
                run = ledger.runs()[0]
            expected = ("compensated", [HALF, "1"]) if word == "bad" else ("succeeded", [HALF, "3"])
            assert (run.state, desk.server.flips) == expected, f"killed {where} durable commit {n}: {run.said}"
            assert run.recoveries <= 1
        shutil.rmtree(tmp_path / "models")
