"""Which version is good: served well for its soak, in every look, without a gap; or a person's word."""

from __future__ import annotations

import shutil

import pytest

from agent import verbs
from agent.errors import PlanError
from agent.targets.folder import record
from tests.fraud import GOLDEN, Desk, drilled, fraud, spoiled


def goods(desk: Desk) -> list[str]:
    with desk.world.store.read() as ledger:
        return [version for version, _, _ in ledger.goods("fraud")]


def slow(desk: Desk, soak: str = "1h", every: str = "10m") -> None:
    from agent import config

    path = desk.folder / "watchkeeper.yaml"
    path.write_text(path.read_text().replace("soak: 1s", f"soak: {soak}").replace("every: 10m", f"every: {every}"))
    desk.world.use(config.load(path))


def pass_time(desk: Desk, minutes: int, step: int = 10) -> None:
    for _ in range(0, minutes, step):
        desk.later(step * 60)
        desk.look("serving.ready")
        desk.look()
        desk.see()


def test_a_version_becomes_good_by_serving_well_for_its_soak_and_not_before(tmp_path):
    with fraud(tmp_path) as desk:
        slow(desk)
        desk.see()
        pass_time(desk, 50)
        assert goods(desk) == []
        pass_time(desk, 30)
        assert goods(desk) == ["1"]


def test_a_version_that_was_bad_until_now_soaks_from_now(tmp_path):
    with fraud(tmp_path) as desk:
        slow(desk)
        desk.server.factors["1"] = 9.0
        desk.see()
        pass_time(desk, 120)
        desk.server.factors["1"] = 2.0
        pass_time(desk, 40)
        assert goods(desk) == []
        pass_time(desk, 50)
        assert goods(desk) == ["1"]


def test_time_in_which_nobody_looked_is_no_soak(tmp_path):
    with fraud(tmp_path) as desk:
        slow(desk)
        desk.see()
        pass_time(desk, 10)
        desk.later(7200)  # the agent was away
        pass_time(desk, 20)
        assert goods(desk) == []
        pass_time(desk, 60)
        assert goods(desk) == ["1"]


def test_a_version_that_was_rolled_away_from_is_not_good_any_more_until_somebody_says_so(tmp_path):
    with fraud(tmp_path) as desk:
        drilled(desk)
        assert set(goods(desk)) == {"1", "2"}
        spoiled(desk)
        desk.look()
        assert desk.respond().state == "succeeded"
        assert goods(desk) == ["1"]
        verbs.good(desk.world, "fraud", "2", "ada")
        assert set(goods(desk)) == {"1", "2"}


def test_a_version_whose_files_changed_in_the_registry_is_not_good_any_more(tmp_path):
    with fraud(tmp_path) as desk:
        verbs.good(desk.world, "fraud", "1", "ada")
        desk.see()
        shutil.rmtree(tmp_path / "models" / "1")
        other = tmp_path / "weights.bin"
        other.write_bytes(b"other weights")
        record(tmp_path / "models", "1", {"weights.bin": other}, golden=GOLDEN)
        desk.see()
        assert goods(desk) == []


def test_a_version_that_is_not_registered_cannot_be_declared_good(tmp_path):
    with fraud(tmp_path) as desk, pytest.raises(PlanError, match="no version '11'"):
        verbs.good(desk.world, "fraud", "11", "ada")


def test_a_router_that_does_not_answer_is_no_change_of_version(tmp_path):
    with fraud(tmp_path) as desk:
        desk.see()
        desk.server.mood = lambda method, path: (500, {}) if path == "/admin/pointer" else None
        desk.server.served = "2"
        desk.see()
        assert desk.events("change.version") == [] and desk.world.served["fraud"] == "1"


# The way back is asked all the time


def way_back(desk: Desk):
    from agent import config

    path = desk.folder / "watchkeeper.yaml"
    path.write_text(
        path.read_text().replace("      - {check: serving.ready,", "      - {check: serving.way_back, every: 5m}\n      - {check: serving.ready,")
    )
    desk.world.use(config.load(path))
    desk.see()
    return lambda: desk.look("serving.way_back")


def test_the_way_back_is_looked_at_as_a_rollback_would_find_it(tmp_path):
    with fraud(tmp_path) as desk:
        look = way_back(desk)
        assert look().status == "warn"
        verbs.good(desk.world, "fraud", "1", "ada")
        assert look().status == "warn", "what serves is no way back from itself"
        verbs.good(desk.world, "fraud", "2", "ada")
        assert look().status == "ok"
        desk.server.loaded = ("1",)
        found = look()
        assert found.status == "fail" and "version 2, the way back, is not ready" in found.reason
        with desk.world.store.read() as ledger:
            (incident,) = ledger.open_incidents("fraud")
            assert incident.severity == "ticket" and ledger.runs() == [], "nothing is rolled back because the way back is closed"


def test_no_rollback_looks_its_version_over_by_asking_another(tmp_path):
    with fraud(tmp_path) as desk:
        way_back(desk)
        verbs.good(desk.world, "fraud", "2", "ada")
        plan = verbs.start(desk.world, "rollback", "fraud", {}, "ada", dry_run=True)
        assert plan.steps[0].args["watches"] == ["fraud/serving.ready", "fraud/serving.parity"]
