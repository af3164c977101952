"""Retraining whose agent is killed: another one carries it on, the training is one and the same, and the champion is never touched."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent import verbs
from agent.store import Store
from tests.campaign import Warm, kept
from tests.crash import FULL
from tests.learning import COPIES, learning
from tests.rollout import plugged
from tests.test_retrain import registry, stopped_before

POINTS = (2, 4, 5, 7, 9)  # of about ten durable commits
BEGUN = "with open('begun', 'a') as begun: begun.write('begun\\n')\n"
GATE = """
    from agent import Verdict, check, ok

    @check(pillar="learning", asks="Is it there?")
    def there(candidate, champion) -> Verdict:
        \"\"\"Always, so that no worker is needed.\"\"\"
        return ok("it is there")
"""


class Stage:
    """A retraining that waits to be driven by processes that are killed; what stands is put back before each."""

    def __init__(self, desk, number) -> None:
        self.desk, self.number, self.folder = desk, number, desk.folder
        desk.responder.stop()
        desk.world.store.close()
        self.store = desk.world.store.path
        self.files = kept(self.store)
        self.warm = Warm()

    def put_back(self, *folders: str) -> None:
        for path in self.store.parent.glob(f"{self.store.name}*"):
            path.unlink()
        for name, body in self.files.items():
            (self.store.parent / name).write_bytes(body)
        for name in ("models/2", *folders):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / "begun").unlink(missing_ok=True)
        self.desk.server.served, self.desk.server.shares, self.desk.server.flips[:] = "1", None, []

    def drive(self, where: str, n: int = 0) -> int:
        self.warm.start(config=str(self.folder / "watchkeeper.yaml"), where=where, n=n, by="ada")
        return self.warm.wait()

    def run(self):
        with Store.open(self.store).read() as ledger:
            return ledger.run(self.number)

    def whole(self, where: str) -> None:
        """It ended as it would have, once, with the champion as it was."""
        run = self.run()
        assert run.state == "succeeded", f"{where}: {run.said}"
        assert [one.version for one in registry(self.desk).versions()] == ["1", "2"] and not list((self.folder / "models").glob(".2*")), where
        made = (self.folder / "jobs" / f"run-{self.number}-2" / "model.onnx").read_bytes()
        assert registry(self.desk).version("2").files["model.onnx"] == hashlib.sha256(made).hexdigest(), where
        assert registry(self.desk).file("1", "model.onnx"), "the champion's file is what was recorded"


@contextmanager
def staged(folder, step=None, **given):
    with plugged(folder, {"gated": GATE}), learning(folder, trainer=BEGUN + COPIES) as desk:
        number = verbs.start(desk.world, "retrain", "fraud", {"judge": "gated.there", "gate": {}, **given}, "ada").id
        if step:
            stopped_before(desk, number, step)
        stage = Stage(desk, number)
        try:
            yield stage
        finally:
            stage.warm.close()


def test_killed_while_rows_are_pinned_what_was_pinned_is_what_is_learned(tmp_path):
    with staged(tmp_path, rollout="") as stage:
        assert stage.drive("before", 3) == -9
        assert stage.drive("never") == 0
        stage.whole("before durable commit 3")
        pin = registry(stage.desk).version("2").lineage["data"]["train"]
        spec = json.loads((tmp_path / "jobs" / f"run-{stage.number}-2" / "spec.json").read_text())
        assert spec["data"]["train"] == pin and hashlib.sha256(Path(pin["path"]).read_bytes()).hexdigest() == pin["sha256"]


def test_killed_while_the_canary_is_under_way_it_serves_in_the_end_and_no_effect_is_repeated(tmp_path):
    with staged(tmp_path, "register") as stage:
        assert stage.drive("before", 9) == -9
        assert stage.drive("never") == 0
        stage.whole("before durable commit 9")
        assert stage.desk.server.flips == [{"1": 0.5, "2": 0.5}, "2"] and stage.desk.server.served == "2"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that is about to train, for the tests after those above: two of its plugins have the names of theirs. What its training makes is there
    already, so that nobody waits for it again.
    """
    with staged(tmp_path_factory.mktemp("trained"), "train", rollout="") as stage:
        assert stage.drive("never") == 0
        stage.whole("not killed")
        assert (stage.folder / "begun").read_text() == "begun\n"
        yield stage


@pytest.mark.parametrize("n", POINTS)
def test_killed_before_a_durable_commit_it_ends_as_it_would_have_and_trains_no_second_time(trained, n):
    """The points lie all over its durable commits; each kill leaves another step half done."""
    trained.put_back()
    assert trained.drive("before", n) == -9, f"it makes more than {n} durable commits"
    assert trained.drive("never") == 0
    trained.whole(f"before durable commit {n}")
    assert not (trained.folder / "begun").exists(), "the training of that step is done: it is found, and not begun anew"


@pytest.mark.parametrize("n", POINTS[::2])
def test_a_full_disk_at_a_durable_commit_ends_nothing_and_repeats_nothing(trained, n):
    trained.put_back()
    assert trained.drive("full", n) == FULL
    trained.whole(f"full at durable commit {n}")
    assert not (trained.folder / "begun").exists()


def test_killed_around_the_beginning_of_training_it_is_begun_once(trained):
    trained.put_back("jobs")
    trained.drive("before", 4)
    assert trained.drive("never") == 0
    trained.whole("before durable commit 4")
    assert (trained.folder / "begun").read_text() == "begun\n"
