"""Retraining: rows are pinned, a real trainer learns from them, the gate judges, the registry keeps, and a canary decides who serves."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow.parquet
import pytest

from agent import Locator, config, verbs
from agent.errors import PlanError, WatchkeeperError
from agent.respond import advance
from agent.targets.folder import Folder, record
from tests.fraud import GOLDEN
from tests.learning import COPIES, FEATURES, FITS, carried, ended, learning
from tests.rollout import plugged

ENDS = ("pin", "sound", "train", "gate", "register", "canary")


def started(desk, **given):
    return verbs.start(desk.world, "retrain", "fraud", given, "ada").id


def registry(desk):
    return Folder(Locator("fraud", "registry", "folder:models", folder=str(desk.folder)))


def untouched(desk, run, at):
    """The run stopped at that step, nothing is served but the champion, nobody was paged, and no half of a version is anywhere."""
    reached = [row.name for row in run.steps if row.state != "planned"]
    assert (run.state, reached[-1]) == ("stopped", at), run.said
    assert desk.server.served == "1" and not desk.server.flips
    assert not list((desk.folder / "models").glob(".*"))
    assert at == "canary" or [one.version for one in registry(desk).versions()] == ["1"]
    return run.said


def test_a_candidate_that_is_no_worse_is_registered_with_all_it_was_made_from_and_serves_in_the_end(tmp_path):
    with learning(tmp_path, trainer=FITS) as desk:
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


def test_a_candidate_that_forgot_is_blocked_and_the_champion_stays(tmp_path):
    with learning(tmp_path) as desk:
        said = untouched(desk, carried(desk, started(desk, parameters={"model": "forgot.onnx"})), "gate")
        assert "BLOCK" in said and "old" in said


def test_too_few_rows_to_tell_stop_it_and_say_how_many_to_label(tmp_path):
    with learning(tmp_path) as desk:
        run = started(desk, gate={"label": "label", "features": FEATURES, "margin": 0.001})
        said = untouched(desk, carried(desk, run), "gate")
        assert "INCONCLUSIVE" in said and "label about" in said and "more rows" in said


def test_the_gate_holds_a_candidate_to_the_best_that_ever_served(tmp_path):
    """What a gate remembers is kept from run to run: how often a slice was used, and which rows the best version had right."""
    with learning(tmp_path) as desk:
        for _ in range(2):
            carried(desk, started(desk, parameters={"model": "forgot.onnx"}, held=0.0))
        with desk.world.store.read() as ledger:
            _, _, memory = ledger.memory("fraud/gate@run")
        assert memory["used"]["old"] == 2 and memory["best"]["old"]["version"].startswith("1/")


def test_golden_rows_that_the_trainer_hands_in_are_asked_of_the_server_before_it_has_traffic(tmp_path):
    rows = [{"request": request, "expected": expected} for request, expected in GOLDEN]
    with learning(tmp_path) as desk:
        run = carried(desk, started(desk, parameters={"golden": rows}))
        assert run.state == "succeeded" and registry(desk).golden("2").rows[0].request == GOLDEN[0][0], run.said
    (tmp_path / "wrong").mkdir()
    with learning(tmp_path / "wrong") as desk:
        desk.server.factors["2"] = 3.0
        run = carried(desk, started(desk, parameters={"golden": rows}))
        assert "serving.parity" in untouched(desk, run, "canary")


def test_what_harms_in_the_canary_is_taken_back_and_stays_registered(tmp_path):
    with learning(tmp_path) as desk:
        (tmp_path / "said.json").write_text(json.dumps({"else": "bad"}))
        run = carried(desk, started(desk))
        assert run.state == "stopped" and "canary" in run.said and desk.server.served == "1" and desk.server.shares is None
        assert [one.version for one in registry(desk).versions()] == ["1", "2"]


CONTRACT = """
      - {check: data.contract, every: 10m, within: 30s, confirm: {bad: 1, of: 1}, window: 2h, with: {columns: {x0: {low: -9, high: 9}}}}
"""


def test_broken_data_are_not_learned(tmp_path):
    with learning(tmp_path, more=CONTRACT) as desk:
        with closing(sqlite3.connect(tmp_path / "log.db")) as con, con:
            con.execute("UPDATE log SET x0 = 99 WHERE rowid % 2 = 0")
        said = untouched(desk, carried(desk, started(desk)), "sound")
        assert "data.contract" in said and "99" in said and not (tmp_path / "jobs").exists()


def test_an_open_incident_about_the_data_stops_it_even_where_they_look_well_now(tmp_path):
    with learning(tmp_path, more=CONTRACT) as desk:
        with closing(sqlite3.connect(tmp_path / "log.db")) as con, con:
            con.execute("UPDATE log SET x0 = 99 WHERE rowid = 9")
        assert desk.look("data.contract").status == "fail"
        with closing(sqlite3.connect(tmp_path / "log.db")) as con, con:
            con.execute("UPDATE log SET x0 = 1 WHERE rowid = 9")
        run = carried(desk, started(desk))
        assert "incident 1 is open" in untouched(desk, run, "sound")


def test_watches_that_are_named_are_the_only_ones_that_are_asked(tmp_path):
    with learning(tmp_path, more=CONTRACT) as desk:
        with closing(sqlite3.connect(tmp_path / "log.db")) as con, con:
            con.execute("UPDATE log SET x0 = 99 WHERE rowid = 9")
        plan = verbs.start(desk.world, "retrain", "fraud", {"sound": ["serving.ready"]}, "ada", dry_run=True)
        assert plan.steps[1].args["watches"] == ["fraud/serving.ready"]
        assert verbs.start(desk.world, "retrain", "fraud", {}, "ada", dry_run=True).steps[1].args["watches"] == ["fraud/data.contract"]


BAD_TRAINERS = {
    "raise SystemExit(3)": "exit status 3",
    "pass": "manifest.json cannot be read",
    COPIES.format() + "(home / 'model.onnx').write_bytes(b'others')": "is not what the manifest says",
    "import time; time.sleep(60)": "not done within 1 s",
    COPIES.format() + "Path(spec['champion']['files']['model.onnx']).write_bytes(b'mine')": "is not what it was",
}


def test_a_trainer_that_dies_lies_hangs_or_writes_over_the_champion_stops_it(tmp_path):
    with learning(tmp_path) as desk:
        for program, told in BAD_TRAINERS.items():
            (tmp_path / "train.py").write_text(program)
            changed(desk, *("longest: 2m", "longest: 1s") if "sleep" in program else ("fraud", "fraud"))
            run = carried(desk, started(desk))
            changed(desk, *("longest: 1s", "longest: 2m") if "sleep" in program else ("fraud", "fraud"))
            assert told in run.said and run.state == "stopped" and run.steps[2].state == "failed", run.said
        assert desk.server.served == "1" and not desk.server.flips


def test_a_model_that_answers_nonsense_is_judged_three_times_and_refused(tmp_path):
    with learning(tmp_path) as desk:
        said = untouched(desk, carried(desk, started(desk, parameters={"model": "odd.onnx"})), "gate")
        assert "no number" in said
        with desk.world.store.read() as ledger:
            assert len(ledger.findings(watch="fraud/gate@run-1")) == 3


def test_a_file_that_is_exchanged_after_training_is_not_judged(tmp_path):
    with learning(tmp_path) as desk:
        number = started(desk)

        def exchanged(ledger):
            row = next(row for row in ledger.run(number).steps if row.name == "train")
            if row.state == "done":
                Path(row.output["folder"], "model.onnx").write_bytes(b"other")

        for _ in range(400):
            with desk.world.store.read() as ledger:
                if ledger.run(number).plan:
                    exchanged(ledger)
                if not ledger.run(number).active:
                    break
            _one(desk, number)
        with desk.world.store.read() as ledger:
            run = ledger.run(number)
        assert "is not what it was when it was made" in untouched(desk, run, "gate")


def _one(desk, number):
    """One move of the run."""
    advance(desk.world, number)
    for lock in (desk.folder / "jobs").glob("run-*/lock"):
        ended(lock)
    with desk.world.store.read() as ledger:
        wake = ledger.run(number).wake_at
    desk.later(max((wake - desk.world.clock()).total_seconds(), 0.0) if wake else 0.0)


def stopped_before(desk, number, step, ends=ENDS):
    """Drive the run until that step is next."""
    while True:
        _one(desk, number)
        with desk.world.store.read() as ledger:
            steps = {row.name: row.state for row in ledger.run(number).steps}
        if steps and step not in [name for name, state in steps.items() if state != "planned"] and steps[ends[ends.index(step) - 1]] == "done":
            return


def test_what_cannot_be_written_into_the_registry_has_no_half_of_a_version(tmp_path):
    with learning(tmp_path) as desk:
        number = started(desk)
        stopped_before(desk, number, "register")
        (tmp_path / "models" / "2").write_text("something else has the name")
        untouched(desk, carried(desk, number), "register")
        (tmp_path / "models" / "2").unlink()
        number = started(desk)
        stopped_before(desk, number, "register")
        (tmp_path / "jobs" / f"run-{number}-2" / "model.onnx").unlink()
        untouched(desk, carried(desk, number), "register")
        assert "could not be written" in " ".join(desk.events("step.said"))


def test_a_name_that_somebody_took_meanwhile_is_not_written_over(tmp_path):
    with learning(tmp_path) as desk:
        number = started(desk)
        stopped_before(desk, number, "register")
        record(tmp_path / "models", "2", {"model.onnx": b"another"})
        run = carried(desk, number)
        assert run.state == "stopped" and "is another model; nothing was written over" in run.said
        assert registry(desk).file("2", "model.onnx").read_bytes() == b"another"


def test_a_person_can_call_a_training_off_and_it_ends(tmp_path):
    with learning(tmp_path, trainer="import time; time.sleep(60)") as desk:
        number = started(desk)
        while not (lock := tmp_path / "jobs" / f"run-{number}-2" / "lock").exists():
            advance(desk.world, number)
        assert verbs.cancel(desk.world, number, "ada").state == "cancelled"
        ended(lock)
        assert "cancelled" in json.loads((lock.parent / "ended.json").read_text())["said"]
        assert desk.server.served == "1" and not advance(desk.world, number)


def test_a_drill_trains_and_judges_and_registers_nothing(tmp_path):
    with learning(tmp_path) as desk:
        run = verbs.start(desk.world, "retrain", "fraud", {}, "ada", drill=True)
        over = carried(desk, run.id)
        assert over.state == "succeeded" and [row.name for row in over.steps] == [*ENDS[:3], "again", "repeated", "gate"], over.said
        assert "nothing had to be taken back" in over.said and [one.version for one in registry(desk).versions()] == ["1"]


def test_without_a_person_or_a_permission_nothing_is_trained(tmp_path):
    with learning(tmp_path) as desk:
        with desk.world.store.read() as ledger:
            assert not ledger.runs()

        def want(ledger):
            given = {"runbook": "retrain", "service": "fraud", "mode": "approve", "by": "watchkeeper", "reason": "drift", "parameters": {}}
            return ledger.want(**given, wanted_at=desk.world.clock())[0].id

        number = desk.world.store.write(want, durable=True)
        run = carried(desk, number)
        assert run.state == "awaiting" and [row.state for row in run.steps] == ["done", "done", "planned", "planned", "planned", "planned"]
        assert not (tmp_path / "jobs").exists()
        verbs.approve(desk.world, number, "ada")
        assert carried(desk, number).state == "succeeded"


def test_the_plan_says_what_stays_and_that_nothing_in_use_is_changed(tmp_path):
    from agent.model import to_json
    from agent.preview import table

    with learning(tmp_path) as desk:
        plan = verbs.start(desk.world, "retrain", "fraud", {"newest": "2h"}, "ada", dry_run=True)
        rows = {row["step"]: row for row in table(to_json(plan))}
        assert list(rows) == list(ENDS)
        assert rows["train"]["back"] == rows["register"]["back"] == "stays: nobody uses it yet"
        assert rows["gate"]["failing"] == "the run stops; nothing that is in use was changed"
        assert plan.steps[0].args["held"] == 0.2 and plan.steps[4].args["version"] == "2"


def changed(desk, old, new):
    path = desk.folder / "watchkeeper.yaml"
    assert old in path.read_text()
    text = path.read_text().replace(old, new)
    path.write_text(text.replace("key: id, label: label, ", "") if "labels" in old else text)
    desk.world.use(config.load(path))


REFUSED = [
    ({"version": "1"}, "", "", "version 1 is registered already"),
    ({"file": "other.onnx"}, "", "", "has no file 'other.onnx'"),
    ({"judge": "forgetting.evil"}, "", "", "did you mean 'forgetting.eval'"),
    ({"gate": {"margin": 0.1}}, "", "", "label"),
    ({"held": 1.0}, "", "", "no share below 1"),
    ({"sound": ["data.contrct"]}, "", "", "no watch"),
    ({}, "      labels: {", "      offline: {", "nothing to learn from"),
    ({}, "folder:models", "folder:none", "served and not registered"),
    ({}, "sqlite:log.db?table=truth", "spark:truth", "hands no rows over to be pinned"),
    ({"held": 0.0}, "      old: csv:old.csv\n", "", "no rows that a candidate could be judged by"),
]


def test_what_cannot_work_is_refused_while_planning(tmp_path):
    with learning(tmp_path) as desk:
        path = tmp_path / "watchkeeper.yaml"
        whole = path.read_text()
        for given, old, new, told in REFUSED:
            path.write_text(whole)
            changed(desk, old or "fraud", new or ("" if old else "fraud"))
            with pytest.raises(WatchkeeperError, match=told):
                verbs.start(desk.world, "retrain", "fraud", given, "ada", dry_run=True)


def test_a_service_without_a_registered_champion_has_nothing_to_be_better_than(tmp_path):
    with learning(tmp_path) as desk:
        desk.server.served = "2"
        with pytest.raises(PlanError, match="served and not registered"):
            verbs.start(desk.world, "retrain", "fraud", {}, "ada", dry_run=True)


KEEPS_NOTHING = """
    from agent import adapter
    from agent.targets.folder import Folder

    @adapter(role="registry", schemes=("far",))
    class Far(Folder):
        \"\"\"A registry whose files cannot be read here.\"\"\"

        can = Folder.can - {"files"}
"""


def test_where_the_registry_keeps_no_files_the_champion_is_the_service_s_own(tmp_path):
    with plugged(tmp_path, {"far": KEEPS_NOTHING}, "adapter"), learning(tmp_path) as desk:
        changed(desk, "folder:models", "far:models")
        with pytest.raises(PlanError, match="bind `champion`"):
            verbs.start(desk.world, "retrain", "fraud", {}, "ada", dry_run=True)
        changed(desk, "      old: csv:old.csv", "      old: csv:old.csv\n      champion: {url: 'onnx:models/1/model.onnx', features: [x0, x1, x2]}")
        plan = verbs.start(desk.world, "retrain", "fraud", {}, "ada", dry_run=True)
        assert set(plan.steps[3].args["bind"]) == {"candidate", "new"} and plan.steps[2].args["champion"]["files"] == {}
        run = carried(desk, started(desk, rollout=""))
        assert run.state == "succeeded" and "the champion, 1/" in run.steps[3].said, run.said


def test_names_go_on_as_they_began(tmp_path):
    from datetime import UTC, datetime

    from runbooks._candidate import following

    at = Folder(Locator("fraud", "registry", "folder:kept", folder=str(tmp_path)))
    now = datetime(2026, 11, 27, 8, 30, tzinfo=UTC)
    for version, after in (("9", "10"), ("10", "11"), ("spring", "20261127T083000")):
        record(tmp_path / "kept", version, {"model.onnx": b"x"})
        assert following(at, None, now) == after
    assert following(at, "summer", now) == "summer"
