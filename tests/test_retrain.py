"""Retraining: rows are pinned, a real trainer learns from them, the gate judges, the registry keeps, and a canary decides who serves."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow.parquet

from agent import verbs
from agent.targets.folder import Folder
from agent import Locator
from tests.learning import carried, learning


def started(desk, **given):
    return verbs.start(desk.world, "retrain", "fraud", given, "ada").id


def registry(desk):
    return Folder(Locator("fraud", "registry", "folder:models", folder=str(desk.folder)))


def test_a_candidate_that_is_no_worse_is_registered_with_all_it_was_made_from_and_serves_in_the_end(tmp_path):
    with learning(tmp_path) as desk:
        run = carried(desk, started(desk, newest="2h"))
        assert run.state == "succeeded", run.said
        assert [row.name for row in run.steps] == ["pin", "sound", "train", "gate", "register", "canary"]
        assert desk.server.served == "2" and [one.version for one in registry(desk).versions()] == ["1", "2"]
        made = registry(desk).version("2")
        pin = made.lineage["data"]["train"]
        assert hashlib.sha256(Path(pin["path"]).read_bytes()).hexdigest() == pin["sha256"]
        table = pyarrow.parquet.read_table(pin["path"])
        assert table.num_rows == pin["rows"] and not any(table["probe"].to_pylist()), "our own probes are never learned"
        assert (made.lineage["parent"], made.lineage["code"], made.lineage["environment"], made.lineage["seed"]) == ("1", "4f1c9d2", "e" * 64, 0)
        assert made.lineage["gate"].startswith("PROMOTE") and made.lineage["metrics"] == {"accuracy": 0.9}
