"""One file that holds what is known of an incident, and can be checked."""

from __future__ import annotations

import hashlib
import json
import stat
import zipfile
from datetime import UTC, datetime, timedelta

from agent import config, verbs
from tests.fraud import fraud, spoiled


def taken(desk, **given):
    run = verbs.start(desk.world, "snapshot", "fraud", given, "ada")
    desk.respond()
    with desk.world.store.read() as ledger:
        return ledger.run(run.id)


def opened(path):
    with zipfile.ZipFile(path) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def test_a_snapshot_holds_the_incident_its_evidence_and_the_digest_of_each_part(tmp_path):
    with fraud(tmp_path, mode="observe") as desk:
        desk.see()
        desk.look()
        spoiled(desk)
        desk.look()
        desk.respond()
        run = taken(desk)
        assert run.state == "succeeded", run.said
        path = tmp_path / "snapshots" / f"fraud-run-{run.id}.zip"
        assert run.steps[0].output == {"file": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        parts = opened(path)
        manifest = json.loads(parts.pop("manifest.json"))
        assert manifest["config"] == desk.world.config.digest and "people" in manifest["note"]
        assert manifest["parts"] == {name: {"sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body)} for name, body in parts.items()}
        incident = json.loads(parts["incident.json"])
        assert "serving.parity" in incident["title"] and any(event["kind"] == "incident.opened" for event in incident["events"])
        assert json.loads(parts["targets.json"])["router"]["served"] == {"2": 1.0}
        assert [one["version"] for one in json.loads(parts["targets.json"])["registry"]["versions"]] == ["1", "2"]
        assert any(one["status"] == "fail" for one in json.loads(parts["findings.json"])["findings"])
        assert any(one["runbook"] == "rollback" for one in json.loads(parts["runs.json"])) and b"<html" in parts["report.html"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 and [one.name for one in path.parent.iterdir()] == [path.name]


def test_no_secret_is_in_a_snapshot_and_what_does_not_answer_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2hunter2")
    with fraud(tmp_path) as desk:
        path = tmp_path / "watchkeeper.yaml"
        text = path.read_text().replace(
            f"router: pointer+{desk.server.address}", 'router: {url: "pointer+http://127.0.0.1:9", auth: {bearer: "${SECRET}"}}'
        )
        path.write_text(text)
        desk.world.use(config.load(path))
        run = taken(desk, to="kept/there")
        parts = opened(tmp_path / "kept" / "there" / f"fraud-run-{run.id}.zip")
        assert "not told" in json.loads(parts["targets.json"])["router"]["served"]
        assert not [name for name, body in parts.items() if b"hunter2" in body]


def test_rows_are_in_it_only_when_they_are_asked_for(tmp_path):
    with fraud(tmp_path) as desk:
        (tmp_path / "rows.jsonl").write_text(json.dumps({"at": datetime.now(UTC).isoformat(), "name": "somebody"}) + "\n")
        path = tmp_path / "watchkeeper.yaml"
        live = "live: {url: 'jsonl:rows.jsonl', time: {column: at, tz: UTC}}"
        path.write_text(path.read_text().replace("registry: folder:models", f"registry: folder:models\n      {live}"))
        desk.world.use(config.load(path))
        without = taken(desk)
        assert [step.name for step in without.steps] == ["write"]
        desk.later(1)
        run = taken(desk, rows=5)
        assert run.state == "succeeded", run.said
        parts = opened(tmp_path / "snapshots" / f"fraud-run-{run.id}.zip")
        assert [b"somebody" in body for name, body in parts.items() if name.endswith("rows.jsonl")] == [True]
        assert not any(b"somebody" in body for body in opened(tmp_path / "snapshots" / f"fraud-run-{without.id}.zip").values())


def test_a_folder_that_cannot_be_written_stops_it_with_the_reason(tmp_path):
    with fraud(tmp_path) as desk:
        (tmp_path / "snapshots").write_text("a file")
        run = taken(desk)
        assert run.state == "stopped" and desk.server.flips == []
        assert any("cannot be written" in said for said in desk.events("step.said"))


def test_an_agent_that_was_killed_after_it_wrote_does_not_write_again(tmp_path):
    with fraud(tmp_path) as desk:
        run = taken(desk)
        file = tmp_path / "snapshots" / f"fraud-run-{run.id}.zip"
        written = file.stat().st_mtime_ns
        from agent.actions import find
        from agent.respond import _try

        bundle = find(desk.world, desk.world.service("fraud"), "incident.bundle")
        t = _try(desk.world, run, run.steps[0], timedelta(minutes=1), [])
        assert bundle.look(run.steps[0].args, t).output["file"] == str(file) and file.stat().st_mtime_ns == written
