"""Whatever happens, in whatever order: what must always hold of incidents, runs and what is served."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent import verbs
from agent.errors import PlanError
from agent.judge import ALL, escalate
from agent.model import Run, Verdict, error, fail, nodata, ok
from agent.observe import fold, found
from agent.respond import Responder
from agent.store import Store
from tests import history
from tests.fraud import Desk, drilled, fraud

OVER = ("resolved", "reviewed")
WATCHES = ("fraud/serving.ready", "fraud/serving.parity")
VERDICTS = {"ok": ok("well"), "fail": fail("wrong"), "error": error("dns"), "nodata": nodata("nothing")}


class Watch(RuleBasedStateMachine):
    """A real store, server, pointer and responder; people, deploys, restarts and time come in any order."""

    @initialize(mode=st.sampled_from(["auto", "approve", "suggest", "observe"]))
    def begin(self, mode: str) -> None:
        self.folder, self.until = Path(tempfile.mkdtemp(prefix="invariants-")), ExitStack()
        self.desk: Desk = self.until.enter_context(fraud(self.folder, mode=mode))
        drilled(self.desk)
        self.flips: list[str] = []  # what the agent did, over all

    def teardown(self) -> None:
        if hasattr(self, "until"):
            recorded = history.read(self.desk.world.store, effects=tuple(self.desk.server.moves), patience=dict.fromkeys(WATCHES, 1))
            self.until.close()
            shutil.rmtree(self.folder)
            assert history.violations(recorded) == []

    @rule(watch=st.sampled_from(WATCHES), kind=st.sampled_from(sorted(VERDICTS)), seconds=st.sampled_from([1, 30, 700]))
    def look(self, watch: str, kind: str, seconds: int) -> None:
        """A look comes to this."""
        self.desk.later(seconds)
        self._fold(watch, VERDICTS[kind])

    def _fold(self, watch: str, verdict: Verdict) -> None:
        world = self.desk.world
        w, now = world.find(watch), world.clock()
        finding = found(w, w.window(now), now, verdict, self.desk.server.served, 0.0)
        world.store.write(lambda ledger: fold(world, ledger, w, finding, verdict))

    @rule(version=st.sampled_from(["1", "2"]), factor=st.sampled_from([2.0, 3.0]))
    def deploy(self, version: str, factor: float) -> None:
        """Somebody sends the traffic to a version, which answers well or wrongly, and the agent looks."""
        self.desk.server.served = version
        self.desk.server.factors[version] = factor
        self.desk.later(1)
        self.desk.see()
        self._fold(WATCHES[1], ok("well") if factor == 2.0 else fail("wrong"))

    @rule(times=st.integers(1, 4))
    def respond(self, times: int) -> None:
        for _ in range(times):
            self.desk.later(1.1)
            halted, before = bool(self._halt()), list(self.desk.server.flips)
            for future in self.desk.responder.tick(self.desk.world.clock()):
                future.result(30)
            flipped = self.desk.server.flips[len(before) :]
            self.flips += flipped
            run = self._runs()[0]
            if run.state == "succeeded" and flipped and not run.drill:  # I7
                assert run.plan is not None and [self.desk.server.served] == [
                    step.args["to"] for step in run.plan.steps if step.action == "router.point"
                ]
            if halted and flipped:
                assert self._runs()[0].approved_by, "it acted by itself although it was halted"

    @rule()
    def halt(self) -> None:
        verbs.halt(self.desk.world, "ada", "a moment")

    @rule()
    def resume(self) -> None:
        verbs.resume(self.desk.world, "ada")

    @rule(yes=st.booleans())
    def decide(self, yes: bool) -> None:
        """A person approves or calls off what is active."""
        for run in self._runs():
            if run.active and run.plan is not None:
                try:
                    (verbs.approve if yes else verbs.cancel)(self.desk.world, run.id, "ada")
                except PlanError:
                    assert run.state in ("running", "compensating")

    @rule()
    def restart(self) -> None:
        """The store is closed and opened again, as after a kill between two commits."""
        world = self.desk.world
        self.desk.responder.stop()
        world.store.close()
        world.store = Store.open(world.store.path).start()
        self.until.callback(world.store.close)
        self.desk.responder = Responder(world)
        self.desk.responder.recover()

    @rule(hours=st.sampled_from([-1, 1, 9]))
    def clock(self, hours: int) -> None:
        self.desk.later(hours * 3600)

    @rule()
    def silence(self) -> None:
        verbs.silence(self.desk.world, "fraud/*", timedelta(minutes=10), "ada", "quiet")

    @rule()
    def tell(self) -> None:
        self.desk.world.store.write(lambda ledger: escalate(self.desk.world, ledger, self.desk.world.clock()))

    # What must hold

    def _runs(self) -> list[Run]:
        with self.desk.world.store.read() as ledger:
            return ledger.runs(limit=1000)

    def _halt(self) -> bool:
        with self.desk.world.store.read() as ledger:
            return bool((ledger.setting("halt") or {}).get("on"))

    @precondition(lambda self: hasattr(self, "desk"))
    @invariant()
    def at_most_one_run_is_active_and_only_active_runs_hold_leases(self) -> None:
        """I1."""
        active = [run.id for run in self._runs() if run.active]
        assert len(active) <= 1
        with self.desk.world.store.read() as ledger:
            held = {row[0] for row in ledger.conn.exec_driver_sql("SELECT run FROM lease WHERE run IS NOT NULL")}
        assert held <= set(active)

    @precondition(lambda self: hasattr(self, "desk"))
    @invariant()
    def every_run_ends_once_and_keeps_its_end(self) -> None:
        """I3."""
        for run in self._runs():
            with self.desk.world.store.read() as ledger:
                ends = [e.kind for e in ledger.events(run=run.id, limit=1000) if e.kind == f"run.{run.state}" and not run.active]
            assert run.active or (len(ends) == 1 and run.ended_at is not None and run.wake_at is None), (run, ends)

    @precondition(lambda self: hasattr(self, "desk"))
    @invariant()
    def a_bad_watch_is_in_an_open_incident_or_it_is_written_why_not(self) -> None:
        """I4, I5, I8."""
        with self.desk.world.store.read() as ledger:
            found = ledger.incidents(open_only=True)
            suppressed = [event.what for event in ledger.events("suppressed", limit=1000)]
        assert len({(i.service, i.severity) for i in found}) == len(found)
        assert all(any(m.cleared_at is None for m in i.members) for i in found), "an open incident that nothing can end"
        members = {m.watch for i in found for m in i.members if m.cleared_at is None}
        for signal in self.desk.world.store.signals.values():
            if signal.state == "bad" and signal.status == "fail":
                assert signal.watch in members or any(what.startswith(signal.watch) for what in suppressed)
        for watch in members:
            assert self.desk.world.store.signal(watch).state in ("bad", "blind")

    @precondition(lambda self: hasattr(self, "desk"))
    @invariant()
    def nothing_was_changed_without_a_permission_before_it(self) -> None:
        """I6: every try of a step that writes comes after the run began, and it began by approval or in mode auto."""
        with self.desk.world.store.read() as ledger:
            for run in ledger.runs(limit=1000):
                events = list(reversed(ledger.events(run=run.id, limit=1000)))
                tries = [e.id for e in events if e.kind == "step" and e.what.startswith("flip: trying")]
                began = [e for e in events if e.kind == "run.began"]
                assert not tries or (began and began[0].id < tries[0])
                for event in began:
                    assert "mode auto" in event.what or run.approved_by
                    assert run.mode == "auto" or any(e.kind == "run.approved" for e in events) or run.by != "watchkeeper"

    @precondition(lambda self: hasattr(self, "desk"))
    @invariant()
    def the_record_holds(self) -> None:
        assert self.desk.world.store.verify() == []
        with self.desk.world.store.read() as ledger:
            assert all(i.service != ALL for i in ledger.incidents())


TestWatch = Watch.TestCase
TestWatch.settings = settings(max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
