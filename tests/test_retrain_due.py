"""When a model should learn again: the decision on records that are given, and its whole way from a look to a candidate at its gate."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import Past, Ran, Status, Verdict, Watching, Window, config, fail, ok, verbs
from agent.cli import main
from agent.model import RunState
from agent.observe import fold, found, observe
from agent.respond import advance
from agent.store import Ledger, Store
from agent.world import World
from checks._due import Limits, Signs, calls, holds, persists, rests
from checks.retrain import due
from tests.fraud import Fraud
from tests.learning import carried, laid_out, learning
from tests.processes import until
from tests.rollout import JUDGE, SPLIT, plugged
from tests.test_daemon import agent

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
F, K, E, N, W = Status.FAIL, Status.OK, Status.ERROR, Status.NODATA, Status.WARN


class Rows:
    """A table of labelled rows, as far as counting them goes."""

    def __init__(self, n: int) -> None:
        self.n = n

    def between(self, start: datetime, end: datetime) -> Rows:
        return Rows(self.n if start < end else 0)

    def rows(self) -> int:
        return self.n


def past(runs: Sequence[Ran] = (), troubled: bool = False, **statuses: Sequence[Status]) -> Past:
    causes = {"drift": "drift", "proxy": "answers", "floor": "answers", "data": "data"}
    seen = {"data": [K], **statuses}
    return Past({name: Watching(causes[name], troubled and name == "data", seen.get(name, [K] * 5)) for name in causes}, runs)


def ran(state: RunState, ago: timedelta, runbook: str = "retrain") -> Ran:
    return Ran(7, runbook, state, NOW - ago - HOUR, None if state in ("running", "awaiting") else NOW - ago)


SIGNS: dict[str, Any] = {"drift": ["drift"], "evidence": ["proxy"], "floor": ["floor"]}
LIMITS: dict[str, Any] = {"least": 100, "cooldown": DAY}


def asked(record: Past, rows: int = 500, **given: Any) -> Verdict:
    return due(record, NOW, Rows(rows), **{**LIMITS, **SIGNS, **given})  # type: ignore[arg-type]  # it counts, and that is all that is asked of it


@pytest.mark.parametrize(
    ("record", "given", "status", "said"),
    [
        (past(), {}, K, "nothing calls for it; 500 rows are new"),
        (past(drift=[F, F, K, F, K], proxy=[F, F, F]), {}, F, "drift drifted, and proxy shows that it matters (3 of 5 looks)"),
        (past(drift=[F, F, F]), {}, W, "drift drifted in 3 of 5 looks, but proxy does not show that it matters: proposed, not done"),
        (past(drift=[F, F, F]), {"evidence": []}, W, "nothing is watched that would show that it matters"),
        (past(proxy=[F, F, F]), {}, K, "nothing calls for it"),
        (past(drift=[F, F, K, K, K], proxy=[F] * 5), {}, K, "nothing calls for it"),
        (past(drift=[K, F, F, F, F], proxy=[F] * 5), {}, K, "nothing calls for it"),  # it has stopped
        (past(floor=[F, E, F, N, F]), {}, F, "floor is below its floor"),
        (past(), {"volume": 500}, F, "500 rows are new, of 500 that call for it"),
        (past(), {"volume": 501}, K, "nothing calls for it"),
        (past(), {"every": 30 * DAY}, F, "every 30d, and was never done here"),
        (past([ran("succeeded", 31 * DAY)]), {"every": 30 * DAY}, F, "was last done 31d ago"),
        (past([ran("succeeded", 29 * DAY)]), {"every": 30 * DAY}, K, "nothing calls for it"),
        (past([ran("stopped", 2 * HOUR)], floor=[F] * 5), {}, K, "the last run ended 2h ago, and 1d are to pass, until 2026-03-02 10:00"),
        (past([ran("stopped", 25 * HOUR)], floor=[F] * 5), {}, F, "nothing speaks against it"),
        (past([ran("expired", 2 * HOUR)], floor=[F] * 5), {}, F, "nothing speaks against it"),  # it never began
        (past([ran("succeeded", HOUR, "canary")], floor=[F] * 5), {}, F, "nothing speaks against it"),
        (past([ran("stopped", 2 * HOUR)], floor=[F] * 5), {"cooldown": HOUR}, K, "1 run in 24 hours, as many as may be"),
        (past([ran("stopped", 2 * HOUR)], floor=[F] * 5), {"cooldown": HOUR, "a_day": 2}, F, "nothing speaks against it"),
        (past([ran("running", HOUR)], floor=[F] * 5), {}, Status.SKIP, "run 7 of retrain is running since 2026-03-01 10:00"),
        (past([ran("awaiting", HOUR)], floor=[F] * 5), {}, F, "nothing speaks against it"),  # another want attaches to it
        (past(floor=[F] * 5), {"least": 501}, W, "held back, for 500 rows are new, and 501 are needed"),
        (past(floor=[F] * 5, data=[F]), {}, W, "held back, for data says fail"),
        (past(floor=[F] * 5, data=[E]), {}, W, "held back, for data says error"),
        (past(floor=[F] * 5, data=[]), {}, W, "held back, for data has not looked yet"),
        (past(floor=[F] * 5, troubled=True), {}, W, "held back, for data is in an open incident"),
        (past(floor=[F] * 5, data=[F]), {"sound": []}, F, "nothing speaks against it"),
        (past(), {"bad": 4, "of": 3}, E, "write 1 <= bad <= of <= 20"),
        (past(), {"of": 21}, E, "write 1 <= bad <= of <= 20"),
        (past(), {"drift": ["drit"]}, E, "no watch 'drit'; there is drift, proxy, floor, data"),
    ],
)
def test_what_calls_for_it_and_what_speaks_against_it(record: Past, given: Mapping[str, Any], status: Status, said: str) -> None:
    verdict = asked(record, **given)
    assert (verdict.status, said in verdict.reason) == (status, True), verdict.reason


def test_without_labelled_rows_nothing_can_be_learned() -> None:
    assert due(past(), NOW, **LIMITS).status is N


STATUSES = st.lists(st.sampled_from([F, K, E, N, W]), max_size=8)


@settings(max_examples=200)
@given(STATUSES, st.integers(1, 5), st.integers(1, 5))
def test_one_more_fail_never_ends_what_persists(statuses: list[Status], bad: int, of: int) -> None:
    before = persists(Watching("", False, statuses), bad, of)
    after = persists(Watching("", False, [F, *statuses]), bad, of)
    assert after or not before


@settings(max_examples=200)
@given(STATUSES, STATUSES, STATUSES, st.integers(0, 1000), st.integers(0, 1000), STATUSES, st.booleans(), st.integers(0, 48))
def test_more_that_calls_for_it_never_silences_it_and_whatever_speaks_against_it_stops_it(
    drift: list[Status], proxy: list[Status], floor: list[Status], new: int, least: int, data: list[Status], troubled: bool, ago: int
) -> None:
    record = past([ran("stopped", ago * HOUR)], troubled=troubled, drift=drift, proxy=proxy, floor=floor, data=data)
    signs, limits = Signs(("drift",), ("proxy",), ("floor",)), Limits(least, DAY, 1, ("data",))
    called = calls(signs, record, "retrain", new, NOW)
    more = replace(record, watches={**record.watches, "floor": Watching("answers", False, [F] * 5)})
    assert calls(signs, more, "retrain", new, NOW) and (not called or len(calls(signs, more, "retrain", new, NOW)) >= len(called))
    verdict = asked(record, new, least=least)
    against = holds(limits, record, new) or rests(limits, record, "retrain", NOW)
    assert (verdict.status is F) == (bool(called) and not against)


# From a look to a run

WATCHES = """
      - {check: drift.past, every: 10m}
      - {check: serving.latency, every: 10m}
      - {check: data.probe_leak, every: 10m}
      - check: retrain.due
        every: 10m
        with: {drift: [drift.past], evidence: [serving.latency], floor: [serving.parity], least: 100, cooldown: 1d, bad: 2, of: 3}
"""


def saw(desk: Any, watch: str, *verdicts: Verdict) -> None:
    """As many looks of that watch as there are verdicts, in a row."""
    w = desk.world.find(f"fraud/{watch}")

    def keep(ledger: Ledger) -> None:
        for verdict in verdicts:
            desk.later(600)
            at = desk.world.clock()
            fold(desk.world, ledger, w, found(w, Window(at - w.watch.window, at), at, verdict, "1", 0.01), verdict)

    desk.world.store.write(keep)


def last(desk: Any) -> Any:
    with desk.world.store.read() as ledger:
        return next((run for run in ledger.runs() if run.runbook == "retrain"), None)


def test_drift_alone_proposes_and_drift_that_matters_has_a_candidate_trained_judged_and_served(tmp_path):
    with learning(tmp_path, WATCHES) as desk:
        saw(desk, "data.probe_leak", ok("clean"))
        saw(desk, "drift.past", fail("x0 moved"), fail("x0 moved"))
        proposed = desk.look("retrain.due")
        assert proposed.status is W and "proposed, not done" in proposed.reason and last(desk) is None
        saw(desk, "serving.latency", fail("slow"), fail("slow"))
        desk.later(600)
        wanted = desk.look("retrain.due")
        assert wanted.status is F and "nothing speaks against it" in wanted.reason, wanted.reason
        run = last(desk)
        assert (run.mode, run.trigger, run.by) == ("approve", "fraud/retrain.due", "watchkeeper") and "version change" not in run.reason
        desk.later(600)
        assert desk.look("retrain.due").status is F and last(desk).id == run.id, "the same run, however often it is wanted"
        for future in desk.responder.tick(desk.world.clock()):
            future.result(60)
        verbs.approve(desk.world, run.id, "ada")
        over = carried(desk, run.id)
        assert over.state == "succeeded" and desk.server.served == "2", over.said
        desk.later(600)
        rested = desk.look("retrain.due")
        assert rested.status is K and "1d are to pass" in rested.reason, rested.reason


def test_while_the_data_are_in_trouble_it_is_held_back(tmp_path):
    with learning(tmp_path, WATCHES) as desk:
        saw(desk, "data.probe_leak", fail("probes"), fail("probes"))
        saw(desk, "serving.parity", fail("wrong"), fail("wrong"))
        held = desk.look("retrain.due")
        assert held.status is W and "data.probe_leak is in an open incident" in held.reason and last(desk) is None
        saw(desk, "data.probe_leak", *[ok("clean")] * 5)
        assert desk.look("retrain.due").status is F and last(desk) is not None


def test_an_agent_that_comes_after_goes_on_with_the_run_that_was_wanted_and_wants_no_other(tmp_path):
    with learning(tmp_path, WATCHES) as desk:
        saw(desk, "data.probe_leak", ok("clean"))
        saw(desk, "serving.parity", fail("wrong"), fail("wrong"))
        desk.look("retrain.due")
        wanted = last(desk)
        after = World(desk.world.config, desk.world.store, desk.world.pool)  # what a new agent has: the store, and nothing else
        after.clock = desk.world.clock
        advance(after, wanted.id)
        desk.later(600)
        observe(after, "fraud/retrain.due", after.clock()).result(30)
        with desk.world.store.read() as ledger:
            assert [(run.id, run.state) for run in ledger.runs() if run.runbook == "retrain"] in (
                [(wanted.id, "proposed")],
                [(wanted.id, "awaiting")],
            )
        after.connections.close()


def test_auto_that_was_drilled_begins_without_asking(tmp_path):
    with learning(tmp_path, WATCHES) as desk:
        path = desk.folder / "watchkeeper.yaml"
        path.write_text(path.read_text().replace("retrain: approve", "retrain: auto"))
        desk.world.use(config.load(path))
        drill = verbs.start(desk.world, "retrain", "fraud", {}, "ada", drill=True)
        assert carried(desk, drill.id).state == "succeeded"
        saw(desk, "data.probe_leak", ok("clean"))
        saw(desk, "serving.parity", fail("wrong"), fail("wrong"))
        assert desk.look("retrain.due").status is F, "a drill is no run that it has to rest from"
        run = last(desk)
        assert run.mode == "auto"
        over = carried(desk, run.id)
        assert over.state == "succeeded" and not over.approvals, over.said


def test_a_run_of_long_ago_is_remembered_so_that_old_rows_are_not_new_again(tmp_path):
    from agent.look import past as recorded

    with learning(tmp_path, WATCHES) as desk:
        ago = desk.world.clock() - 400 * DAY

        def keep(ledger: Ledger) -> None:
            run, _ = ledger.want(runbook="retrain", service="fraud", mode="auto", by="ada", reason="", wanted_at=ago)
            ledger.save_run(replace(run, state="succeeded", ended_at=ago + HOUR))

        desk.world.store.write(keep)
        with desk.world.store.read() as ledger:
            found = recorded(desk.world, ledger, desk.world.find("fraud/retrain.due"))
        assert [(run.runbook, run.state, run.wanted_at) for run in found.runs] == [("retrain", "succeeded", ago)]


# As a daemon does it

HURRIED = """
      - {check: data.probe_leak, every: 1s, window: 2h}
      - check: retrain.due
        every: 1s
        with: {floor: [serving.parity], least: 100, cooldown: 1d, bad: 2, of: 3}
"""


def test_a_daemon_that_is_killed_after_the_sign_goes_on_with_the_one_run_that_it_wanted(tmp_path):
    with plugged(tmp_path, {"split": SPLIT}, "adapter"), plugged(tmp_path, {"judged": JUDGE}), closing(Fraud()) as server:
        path = laid_out(tmp_path, server.address, HURRIED)
        path.write_text("listen: 127.0.0.1:0\n" + re.sub("rollout_with: .*", "rollout: ''", path.read_text()).replace("every: 10m", "every: 1s"))
        server.factors["1"] = 3.0  # it answers otherwise than it did
        with agent(path) as first:
            until(lambda: retrains(first.store), "the run is wanted", 40, lambda: first.running.text)
            first.running.kill()
        (wanted,) = retrains(first.store)
        with agent(path) as second:
            until(lambda: retrains(second.store)[0].state == "awaiting", "it waits for a person", 40, lambda: second.running.text)
            assert [run.id for run in retrains(second.store)] == [wanted.id]
            done = CliRunner().invoke(main, ["-c", str(path), "runbook", "approve", str(wanted.id), "--by", "ada"])
            assert done.exit_code == 0, done.output
            until(lambda: not retrains(second.store)[0].active, "it is trained, judged and registered", 60, lambda: second.running.text)
        (run,) = retrains(first.store)
        assert run.state == "succeeded" and (tmp_path / "models" / "2" / "model.onnx").exists(), run.said
        assert server.served == "1", "nobody gave it traffic"


def retrains(store: Path) -> list[Any]:
    with Store.open(store).read() as ledger:
        return [run for run in ledger.runs() if run.runbook == "retrain"]
