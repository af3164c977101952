"""The shadow check and its runbook: a version that no user meets, asked what users asked."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import betaln

from agent import UTC, Status, Window, config, verbs
from agent.errors import ConfigError, DeadlineError, PlanError
from checks import shadow
from checks._shadow import Shadowed, refuted
from tests.rollout import splitting
from tests.servers import oip
from tests.test_serving import log, to, told

WINDOW = Window(datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
REQUEST = {"request": oip.REQUEST}


@pytest.fixture
def speaker():
    speaker = oip.Speaker()
    speaker.factors["2"] = 2.0
    yield speaker
    speaker.stop()


def compared(speaker, live, memory=None, **given):
    return shadow.compare(to(speaker), live, WINDOW, memory, **{"baseline": "1", "candidate": "2", **REQUEST, **given})


# What counts prove


def log_ratio(hits, n, share):
    """The same by scipy: the integral of the likelihood over all shares, beside that under one."""
    return betaln(hits + 1, n - hits + 1) - hits * np.log(share) - (n - hits) * np.log1p(-share)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 3000), st.integers(0, 3000), st.floats(0.001, 0.999), st.floats(0.001, 0.5))
def test_a_share_is_refuted_where_scipys_integral_says_so(hits, miss, share, alpha):
    found = log_ratio(hits, hits + miss, share) + np.log(alpha)
    assert refuted(hits, hits + miss, share, alpha) == (found >= 0) or abs(found) < 1e-6


def test_however_often_one_looks_the_truth_is_refuted_no_oftener_than_alpha():
    """4,000 sequences of 2,000 requests, looked at after each: the 99 % lower bound of how often the true share is refuted is below alpha."""
    rng, share, alpha = np.random.default_rng(7), 0.01, 0.05
    hits = np.cumsum(rng.random((4000, 2000)) < share, axis=1)
    n = np.arange(1, 2001)
    ever = (log_ratio(hits, n, share) >= -np.log(alpha)).any(axis=1).mean()
    assert ever - 2.33 * np.sqrt(ever * (1 - ever) / 4000) <= alpha, ever
    assert ever > 0, "a test that never refutes anything would show nothing"


def test_certain_shares_are_refuted_by_one_case_and_nothing_is_refuted_by_none():
    assert refuted(1, 1, 0.0, 0.01) and refuted(0, 1, 1.0, 0.01)
    assert not refuted(0, 0, 0.5, 0.01) and not refuted(0, 5, 0.0, 0.01)


# One look


def test_a_version_that_answers_the_same_is_as_good_once_there_is_enough(speaker, tmp_path):
    live = log(tmp_path / "log.db", *["[1, 2]"] * 30)
    first = compared(speaker, live, lost=0.2)
    told(
        first, Status.NODATA, "hold: version 2 fails to answer 0 of 30 requests, not sure yet", "0 of 30 answers differ", "no user got these answers"
    )
    second = compared(speaker, live, first.memory, lost=0.2)
    told(second, Status.OK, "version 2 fails to answer 0 of 60 requests, surely less than 0.2")
    assert (second.reading.observed, second.reading.limit, second.reading.n) == (0.0, 0.2, 60)


def test_a_version_that_refuses_what_users_send_fails(speaker, tmp_path):
    live = log(tmp_path / "log.db", *["[1, 2]"] * 10)
    speaker.factors["2"] = float("nan")
    verdict = compared(speaker, live)
    told(verdict, Status.FAIL, "version 2 fails to answer 10 of 10 requests, surely more than 0.01", "the first that it did not answer:")


def test_what_the_old_version_does_not_answer_either_is_not_held_against_the_new_one(speaker, tmp_path):
    live = log(tmp_path / "log.db", *["[1]"] * 10, "[1, 2]")
    verdict = compared(speaker, live)
    assert (verdict.memory.judged, verdict.memory.lost) == (1, 0)


def test_what_only_the_new_version_answers_is_told(speaker, tmp_path):
    speaker.factors["1"] = float("nan")
    told(compared(speaker, log(tmp_path / "log.db", "[1, 2]")), Status.NODATA, "0 of 0 requests", "1 requests that 1 fails to answer 2 answers")


def test_other_answers_are_told_and_judged_only_where_a_limit_is_given(speaker, tmp_path):
    live = log(tmp_path / "log.db", *["[1, 2]"] * 60)
    speaker.factors["2"] = 2.1
    told(compared(speaker, live, lost=0.2), Status.OK, "60 of 60 answers differ", "the first that differs: 'y' is")
    told(compared(speaker, live, lost=0.2, apart=0.1), Status.FAIL, "version 2 answers otherwise 60 of 60 requests, surely more than 0.1")
    told(compared(speaker, live, lost=0.2, apart=0.2, rtol=0.1), Status.OK, "version 2 answers otherwise 0 of 60 requests, surely less than 0.2")


def test_a_version_that_hangs_is_an_error_and_no_verdict(speaker, tmp_path):
    live = log(tmp_path / "log.db", "[1, 2]")
    server = to(speaker, within=timedelta(milliseconds=200))
    speaker.fault = "hang"
    with pytest.raises(DeadlineError):
        shadow.compare(server, live, WINDOW, None, baseline="1", candidate="2", **REQUEST)


@pytest.mark.parametrize("given", [{"candidate": "1"}, {"lost": 0.0}, {"apart": 1.0}, {"alpha": 0.0}])
def test_what_cannot_be_meant_is_refused(speaker, tmp_path, given):
    with pytest.raises(ConfigError, match="name two versions"):
        compared(speaker, log(tmp_path / "log.db", "[1, 2]"), **given)


def test_nothing_logged_is_nothing_to_compare(speaker, tmp_path):
    told(compared(speaker, log(tmp_path / "log.db", None), Shadowed(5, 1)), Status.NODATA, "no live inputs")


# The runbook


def shadowed(folder: Path, desk, **given):
    """The runbook, carried to its end while users' requests are logged."""
    path = folder / "watchkeeper.yaml"
    live = 'live: {url: "sqlite:log.db", time: {column: at, unit: s}, features: {json: inputs, size: 2}}'
    path.write_text(path.read_text().replace("      registry:", f"      {live}\n      registry:"))
    with closing(sqlite3.connect(folder / "log.db")) as con:
        con.execute("CREATE TABLE requests (at REAL, inputs TEXT)")
        con.executemany("INSERT INTO requests VALUES (?, ?)", [(desk.world.clock().timestamp() + n / 10, json.dumps([n, 2.0])) for n in range(1200)])
        con.commit()
    desk.world.use(config.load(path))
    verbs.start(desk.world, "shadow", "fraud", {"every": "10s", "compare": {"lost": 0.05}, **given}, "ada")
    return desk.respond()


def test_a_version_is_asked_what_users_asked_and_nothing_is_changed(tmp_path):
    with splitting(tmp_path, mode="observe") as desk:
        run = shadowed(tmp_path, desk)
        assert run.state == "succeeded" and "version 3 fails to answer 0 of" in run.said and "surely less than 0.05" in run.said, run.said
        assert desk.server.flips == [] and run.plan.seen == {}
        asked = {path for _, path, _, _ in desk.server.requests if path.endswith("infer")}
        assert {"/v2/models/m/versions/1/infer", "/v2/models/m/versions/3/infer"} <= asked


def test_a_version_that_would_have_refused_them_is_stopped_before_any_user_meets_it(tmp_path):
    with splitting(tmp_path) as desk:
        infer, golden = "/v2/models/m/versions/3/infer", []
        desk.server.mood = lambda method, path: (422, {"error": "too new"}) if path == infer and (golden.append(path) or len(golden) > 1) else None
        run = shadowed(tmp_path, desk)
        assert run.state == "stopped" and "surely more than 0.05" in run.said and desk.server.flips == [], run.said


def test_what_is_not_known_in_time_stops_it(tmp_path):
    with splitting(tmp_path) as desk:
        run = shadowed(tmp_path, desk, compare={"lost": 0.0001}, longest="30s")
        assert run.state == "stopped" and "could not be told within 30 s: nodata: hold:" in run.said


def test_a_shadow_of_what_serves_is_refused(tmp_path):
    with splitting(tmp_path) as desk, pytest.raises(PlanError, match="already has the traffic"):
        verbs.start(desk.world, "shadow", "fraud", {"to": "1"}, "ada", dry_run=True)
