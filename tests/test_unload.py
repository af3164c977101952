"""The unload runbook: it drops what nobody needs, and neither what serves nor the way back."""

from __future__ import annotations

import pytest

from agent import verbs
from agent.errors import PlanError
from tests.rollout import splitting


def test_a_version_that_nobody_needs_is_unloaded(tmp_path):
    with splitting(tmp_path) as desk:
        desk.see()
        verbs.good(desk.world, "fraud", "2", "ada")
        verbs.start(desk.world, "unload", "fraud", {"version": "3"}, "ada")
        run = desk.respond()
        assert run.state == "succeeded" and desk.server.loaded == ("1", "2"), run.said


@pytest.mark.parametrize(
    ("version", "shares", "said"),
    [
        ("1", None, r"version 1 of fraud has traffic \(100%\)"),
        ("3", {"1": 0.95, "3": 0.05}, r"version 3 of fraud has traffic \(5%\)"),
        ("2", None, "version 2 of fraud is what a rollback would go to"),
    ],
)
def test_what_is_needed_stays_loaded(tmp_path, version, shares, said):
    with splitting(tmp_path) as desk:
        desk.see()
        verbs.good(desk.world, "fraud", "2", "ada")
        desk.server.shares = shares
        with pytest.raises(PlanError, match=said):
            verbs.start(desk.world, "unload", "fraud", {"version": version}, "ada", dry_run=True)


def test_without_a_way_back_nothing_is_unloaded(tmp_path):
    with splitting(tmp_path) as desk:
        desk.see()
        verbs.good(desk.world, "fraud", "1", "ada")
        with pytest.raises(PlanError, match="may be needed as the way back"):
            verbs.start(desk.world, "unload", "fraud", {"version": "2"}, "ada", dry_run=True)


def test_traffic_that_came_after_the_plan_keeps_the_version_loaded(tmp_path):
    with splitting(tmp_path, mode="observe") as desk:
        desk.see()
        verbs.good(desk.world, "fraud", "2", "ada")
        run = verbs.start(desk.world, "unload", "fraud", {"version": "3"}, "ada")
        from agent.respond import advance

        assert advance(desk.world, run.id), "it is planned"
        desk.server.served = "3"
        assert desk.respond().state == "expired" and desk.server.loaded == ("1", "2", "3")


def test_an_unload_cannot_be_drilled(tmp_path):
    with splitting(tmp_path) as desk, pytest.raises(PlanError, match="cannot be drilled"):
        verbs.start(desk.world, "unload", "fraud", {"version": "3"}, "ada", drill=True, dry_run=True)


def test_a_server_that_does_not_unload_is_told_to_again_and_left_as_it_was(tmp_path):
    with splitting(tmp_path) as desk:
        desk.see()
        verbs.good(desk.world, "fraud", "2", "ada")
        desk.server.mood = lambda method, path: (409, {}) if path == "/admin/unload" else None
        verbs.start(desk.world, "unload", "fraud", {"version": "3"}, "ada")
        run = desk.respond()
        assert run.state == "compensated" and "tried 3 times" in run.said and desk.server.loaded == ("1", "2", "3")
