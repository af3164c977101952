"""Runs when the world, a person or the clock does something in between."""

from __future__ import annotations

from datetime import timedelta

import pytest

from agent import config, respond, verbs
from agent.errors import PlanError
from agent.model import Run, StepRow
from agent.respond import Responder
from tests.fraud import Desk, drilled, fraud, spoiled


def newest(desk: Desk) -> Run:
    with desk.world.store.read() as ledger:
        return ledger.runs()[0]


def tick(desk: Desk, times: int = 1, seconds: float = 0.0) -> Run:
    for _ in range(times):
        desk.later(seconds)
        for future in desk.responder.tick(desk.world.clock()):
            future.result(30)
    return newest(desk)


def leases(desk: Desk) -> list[int]:
    with desk.world.store.read() as ledger:
        return [row[0] for row in ledger.conn.exec_driver_sql("SELECT run FROM lease WHERE run IS NOT NULL")]


def bad(desk: Desk) -> None:
    drilled(desk)
    spoiled(desk)
    assert desk.look().status == "fail"


def test_a_run_called_off_at_the_last_moment_leaves_no_lease_behind(tmp_path):
    with fraud(tmp_path) as desk:
        bad(desk)
        while [step.state for step in newest(desk).steps[:2]] != ["done", "done"]:
            assert respond.advance(desk.world, newest(desk).id)
        run = newest(desk)
        assert run.state == "proposed" and run.plan is not None
        verbs.cancel(desk.world, run.id, "ada")
        respond._permit(desk.world, run, run.plan)  # what another thread was about to do
        assert newest(desk).state == "cancelled" and leases(desk) == [] and desk.server.flips == []


def test_a_router_that_blinks_before_the_first_effect_is_waited_for(tmp_path):
    with fraud(tmp_path, mode="approve") as desk:
        bad(desk)
        run = desk.respond()
        assert run.state == "awaiting"
        desk.server.mood = lambda method, path: (503, {}) if path == "/admin/pointer" else None
        verbs.approve(desk.world, run.id, "ada")
        assert tick(desk, 3, 1.0).active
        desk.server.mood = lambda method, path: None
        desk.later(2)
        assert desk.respond().state == "succeeded"


def test_a_router_that_blinks_while_planning_is_waited_for(tmp_path):
    with fraud(tmp_path) as desk:
        bad(desk)
        desk.server.mood = lambda method, path: (503, {}) if path == "/admin/pointer" else None
        assert tick(desk, 3, 1.0).active
        desk.server.mood = lambda method, path: None
        desk.later(2)
        assert desk.respond().state == "succeeded"


def test_a_router_that_blinks_between_the_permission_and_the_flip_is_waited_for(tmp_path):
    """What stands is read once more right before the first effect; that it cannot be read just then is no reason to give up."""
    with fraud(tmp_path) as desk:
        bad(desk)
        while newest(desk).state != "running":
            assert respond.advance(desk.world, newest(desk).id)
        desk.server.mood = lambda method, path: (503, {}) if path == "/admin/pointer" else None
        run = tick(desk, 3, 1.0)
        assert run.active and desk.server.flips == []
        desk.server.mood = lambda method, path: None
        desk.later(2)
        assert desk.respond().state == "succeeded" and desk.server.flips == ["1"]


def test_a_router_that_stays_away_at_the_flip_stops_the_run_when_its_step_has_no_time_left(tmp_path):
    with fraud(tmp_path) as desk:
        bad(desk)
        while newest(desk).state != "running":
            assert respond.advance(desk.world, newest(desk).id)
        desk.server.mood = lambda method, path: (503, {}) if path == "/admin/pointer" else None
        run = tick(desk, 12, 2.0)
        assert run.state == "stopped" and "could not see what stands now" in run.said and desk.server.flips == [] and leases(desk) == []


@pytest.mark.parametrize("step", ["counterfactual", "preflight"])
def test_one_answer_that_is_lost_in_a_look_at_the_good_version_does_not_decline_the_rollback(tmp_path, step):
    with fraud(tmp_path) as desk:
        bad(desk)
        lost = []

        def mood(method, path):
            here = next((one.name for one in newest(desk).steps if one.state != "done"), "")
            if here == step and "/versions/1/" in path and not lost:
                lost.append(path)
                return 500, {"error": "not now"}
            return None

        desk.server.mood = mood
        run = desk.respond()
        assert lost and (run.state, desk.server.flips) == ("succeeded", ["1"]), run.said


def test_a_router_that_stays_away_refuses_the_plan_in_the_end(tmp_path):
    with fraud(tmp_path) as desk:
        bad(desk)
        desk.server.mood = lambda method, path: (503, {}) if path == "/admin/pointer" else None
        run = tick(desk, 10, 30.0)
        assert run.state == "refused" and "503" in run.said


def test_a_router_that_blinks_while_a_flip_is_taken_back_is_waited_for(tmp_path):
    with fraud(tmp_path) as desk:
        bad(desk)
        blinks = iter([(503, {})] * 6)

        def moody(method, path):
            if desk.server.flips == ["1"]:
                if path == "/v2/models/m/infer":
                    return 500, {"error": "not under load"}
                if path == "/admin/pointer" and newest(desk).state == "compensating":
                    return next(blinks, None)
            return None

        desk.server.mood = moody
        run = desk.respond()
        assert (run.state, desk.server.flips) == ("compensated", ["1", "2"])


def test_a_halt_stops_a_run_before_its_effect_and_what_it_saw_is_looked_at_again(tmp_path):
    with fraud(tmp_path) as desk:
        bad(desk)
        while newest(desk).state != "running":
            assert respond.advance(desk.world, newest(desk).id)
        verbs.halt(desk.world, "ada", "wait")
        run = tick(desk, 2, 2.0)
        assert run.state == "proposed" and leases(desk) == [] and desk.server.flips == []
        desk.server.loaded = ("1", "2", "3")
        desk.server.factors["3"] = 2.0
        desk.server.served = "3"  # somebody else put it right meanwhile
        verbs.resume(desk.world, "ada")
        assert tick(desk, 3, 2.0).state == "expired" and desk.server.served == "3" and desk.server.flips == []


def test_a_halt_stops_the_taking_back_as_well(tmp_path):
    with fraud(tmp_path) as desk:
        bad(desk)
        desk.server.mood = lambda method, path: (500, {}) if desk.server.flips == ["1"] and path == "/v2/models/m/infer" else None
        for _ in range(300):
            if newest(desk).state == "compensating":
                break
            if not respond.advance(desk.world, newest(desk).id):
                desk.later(0.5)
        verbs.halt(desk.world, "ada", "hands off")
        assert tick(desk, 3, 2.0).state == "compensating" and desk.server.flips == ["1"]
        verbs.resume(desk.world, "ada")
        desk.later(2)
        assert desk.respond().state == "compensated" and desk.server.flips == ["1", "2"]


def test_a_deploy_between_the_permission_and_the_flip_is_left_alone(tmp_path):
    with fraud(tmp_path) as desk:
        bad(desk)
        while newest(desk).state != "running":
            assert respond.advance(desk.world, newest(desk).id)
        desk.server.loaded, desk.server.served = ("1", "2", "3"), "3"
        desk.server.factors["3"] = 2.0
        run = desk.respond()
        assert desk.server.served == "3" and desk.server.flips == [] and "changed" in run.said


def test_a_plan_whose_incident_is_resolved_is_not_carried_out_any_more(tmp_path):
    with fraud(tmp_path, mode="approve") as desk:
        bad(desk)
        run = desk.respond()
        desk.server.factors["2"] = 2.0
        desk.look()
        desk.look()
        verbs.approve(desk.world, run.id, "ada")
        assert desk.respond().state == "expired" and desk.server.flips == []


def test_asking_for_a_rollback_while_a_drill_is_under_way_is_refused(tmp_path):
    with fraud(tmp_path) as desk:
        drilled(desk)
        desk.server.served = "2"
        verbs.start(desk.world, "rollback", "fraud", {}, "ada", drill=True)
        with pytest.raises(PlanError, match="drill"):
            verbs.start(desk.world, "rollback", "fraud", {}, "eve")
        with pytest.raises(PlanError, match="other parameters"):
            verbs.start(desk.world, "rollback", "fraud", {"to": "1"}, "eve", drill=True)


def test_a_person_who_asks_for_what_waits_for_approval_approves_it(tmp_path):
    with fraud(tmp_path, mode="approve") as desk:
        bad(desk)
        run = desk.respond()
        assert run.state == "awaiting"
        assert verbs.start(desk.world, "rollback", "fraud", {}, "eve").id == run.id
        desk.later(2)
        run = desk.respond()
        assert run.state == "succeeded" and run.approved_by == ("eve",) and any("eve" in what for what in desk.events("run.approved"))


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_set_holds_up_no_run(tmp_path, hours):
    with fraud(tmp_path, mode="suggest") as desk:
        bad(desk)
        run = desk.respond()
        assert run.state == "proposed" and run.wake_at
        verbs.approve(desk.world, run.id, "ada")
        desk.server.mood = lambda method, path: (503, {}) if path == "/admin/pointer" else None
        tick(desk, 2, 1.0)
        assert newest(desk).wake_at is not None
        desk.server.mood = lambda method, path: None
        desk.later(hours * 3600)
        run = tick(desk, 60, 0.5)
        assert not run.active and run.state == ("succeeded" if hours < 0 else "expired")


def test_a_run_of_a_service_that_is_gone_ends_and_says_so(tmp_path):
    with fraud(tmp_path, mode="suggest") as desk:
        bad(desk)
        assert desk.respond().active
        path = tmp_path / "watchkeeper.yaml"
        text = path.read_text()
        path.write_text(text.replace("  fraud:", "  other:"))
        desk.world.use(config.load(path))
        run = tick(desk, 3, 2.0)
        assert run.state == "refused" and "no service 'fraud'" in run.said and "defect" not in run.said


def test_a_version_that_comes_back_after_the_rollback_is_rolled_back_again(tmp_path):
    with fraud(tmp_path) as desk:
        bad(desk)
        assert desk.respond().state == "succeeded" and desk.server.served == "1"
        spoiled(desk)  # the pipeline deploys it once more, before the incident is resolved
        desk.look()
        assert desk.events("incident.relapsed")
        assert desk.respond().state == "succeeded" and desk.server.flips == ["1", "1"]


def test_another_bad_version_in_an_open_incident_is_answered_too(tmp_path):
    with fraud(tmp_path) as desk:
        bad(desk)
        desk.server.factors["1"] = 5.0
        assert desk.respond().state == "stopped"  # the good one is no better
        desk.server.factors["1"] = 2.0
        desk.server.loaded, desk.server.served = ("1", "2", "3"), "3"
        desk.server.factors["3"] = 7.0
        from agent.targets.folder import record
        from tests.fraud import GOLDEN

        record(tmp_path / "models", "3", {"weights.bin": tmp_path / "weights.bin"}, golden=GOLDEN)
        desk.later(601)
        desk.look()
        assert desk.respond().state == "succeeded" and desk.server.served == "1"


def test_a_rollback_supersedes_only_who_holds_what_it_needs(tmp_path):
    with fraud(tmp_path) as desk:
        drilled(desk)
        now = desk.world.clock()
        wanted = {"service": "fraud", "mode": "auto", "by": "x", "reason": "", "wanted_at": now, "state": "running"}
        far = now + timedelta(days=1)

        def others(ledger):
            first, _ = ledger.want(runbook="retrain", wake_at=far, **wanted)
            second, _ = ledger.want(runbook="canary", wake_at=far, **wanted)
            ledger.hold(["fraud/trainer"], first.id)
            ledger.hold(["fraud/router"], second.id)
            return first.id, second.id

        retrain, canary = desk.world.store.write(others)
        desk.server.served = "2"
        verbs.start(desk.world, "rollback", "fraud", {}, "ada")
        assert desk.respond().state == "succeeded"
        with desk.world.store.read() as ledger:
            assert (ledger.run(retrain).state, ledger.run(canary).state) == ("running", "superseded")


def test_a_run_that_recovers_on_a_full_disk_is_taken_up_when_there_is_room(tmp_path):
    with fraud(tmp_path) as desk:
        bad(desk)
        while newest(desk).state != "running":
            assert respond.advance(desk.world, newest(desk).id)
        import contextlib
        import sqlite3

        again = Responder(desk.world)
        desk.world.store._patience = 0.2
        with contextlib.closing(sqlite3.connect(desk.world.store.path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            again.recover()
            other.execute("ROLLBACK")
        desk.responder.stop()
        desk.responder = again
        from tests.test_store import _until

        desk.world.store.submit(lambda ledger: None)
        _until(lambda: not desk.world.store.afloat)
        assert desk.respond().state == "succeeded" and newest(desk).recoveries == 1
        assert isinstance(newest(desk).steps[0], StepRow)


def test_a_clock_that_was_a_year_ahead_for_a_moment_blinds_no_watch_that_reads_by_time(tmp_path):
    """What was judged a year ahead was judged by a wrong clock: what is due now is judged."""
    from agent.model import ok
    from agent.observe import fold, found

    with fraud(tmp_path, more="      - {check: data.contract, every: 1m, bind: {live: 'parquet:none.parquet'}}") as desk:
        world, w = desk.world, desk.world.find("fraud/data.contract")
        assert "window" in w.words

        def look() -> object:
            now, verdict = world.clock(), ok("well")
            return world.store.write(lambda ledger: fold(world, ledger, w, found(w, w.window(now), now, verdict, None, 0.0), verdict))

        desk.later(365 * 86400)
        look()
        desk.later(-365 * 86400)
        look()
        assert world.store.signal(w.key).seq == 2


def test_a_page_waits_no_hour_when_the_clock_is_set_back(tmp_path):
    with fraud(tmp_path) as desk:
        desk.server.up = False
        desk.look("serving.ready")
        desk.later(-3600)
        desk.world.store.write(lambda ledger: ledger.hurry(desk.world.clock()))
        with desk.world.store.read() as ledger:
            assert len(ledger.letters_due(desk.world.clock())) == 1


def test_a_store_in_memory_does_not_grow_without_end(tmp_path):
    import contextlib
    import sqlite3

    from agent import store as stores

    with fraud(tmp_path) as desk:
        store = desk.world.store
        store._patience = 0.2
        with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            at = desk.world.clock()
            for n in range(300):
                store.submit(lambda ledger, n=n: ledger.record(at, "change", str(n)))
            store.write(lambda ledger: None)
            assert store._afloat is not None and store._afloat.jobs.maxlen == stores.ROOM
            store._afloat.forget(100)
            assert store.see(lambda ledger: len(ledger.events(limit=1000))) == 100
            other.execute("ROLLBACK")
