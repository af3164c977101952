"""What a metrics store adds to a look: a real Prometheus as the control look, and as a thing that is watched and may itself be gone."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from agent import config
from agent.knock import knock
from agent.observe import observe
from tests.fraud import Desk, fraud
from tests.servers import business
from tests.servers.hostile import refused
from tests.servers.prometheus import Speaker

SHARE = 'sum(rate(answered_total{code="500"}[$window])) / sum(rate(answered_total[$window]))'


def asking(query: str, within: str = "5s") -> str:
    """A watch of an error share."""
    given = json.dumps({"query": query, "at_most": 0.1})
    return f"      - {{check: metrics.errors, every: 10m, within: {within}, window: 5s, confirm: {{bad: 1, of: 1}}, with: {given}}}"


def bound(desk: Desk, watch: str = "", **targets: object) -> None:
    """The configuration again, with one more watch, and these targets instead of those of the same name."""
    path = desk.folder / "watchkeeper.yaml"
    kept = [line for line in path.read_text().splitlines() if not any(line.startswith(f"      {role}:") for role in targets)]
    place = kept.index("    targets:") + 1
    kept[place:place] = [f"      {role}: {json.dumps(target)}" for role, target in targets.items() if target]
    place = kept.index("    watches:") + 1
    kept[place:place] = [watch] if watch else []
    path.write_text("\n".join(kept) + "\n")
    desk.world.use(config.load(path))


def down() -> str:
    return f"oip+http://127.0.0.1:{refused()}/m"


@pytest.mark.parametrize(
    ("up", "said"), [('up{job="gone"}', 'Prometheus cannot scrape up{job="gone"} either'), ('up{job="fraud"}', "Prometheus sees 1 other target")]
)
def test_a_refused_connection_is_a_fail_when_prometheus_sees_the_world(tmp_path, prometheus, up, said):
    with fraud(tmp_path) as desk:
        bound(desk, server=down(), router=None, metrics={"url": prometheus.url, "up": up})
        finding = desk.look("serving.ready")
        assert finding.status == "fail" and f"; meanwhile {said}" in finding.reason


@pytest.mark.parametrize("more", [{}, {"up": 'up{job=~"fraud|prometheus"}'}, {"up": 'up{job="fraud"}', "interval": "1ms"}, {"up": "up{"}])
def test_it_is_an_error_when_prometheus_was_not_told_how_or_sees_nothing_fresh_but_the_service(tmp_path, prometheus, more):
    with fraud(tmp_path) as desk:
        bound(desk, server=down(), router=None, metrics={"url": prometheus.url, **more})
        finding = desk.look("serving.ready")
        assert finding.status == "error" and "our own sight" in finding.reason


def test_it_is_an_error_when_prometheus_is_gone_too(tmp_path):
    with fraud(tmp_path) as desk:
        bound(desk, server=down(), router=None, metrics={"url": f"prometheus+http://127.0.0.1:{refused()}", "up": "up"})
        assert desk.look("serving.ready").status == "error"


def test_a_prometheus_that_hangs_leaves_room_for_no_lie_and_ends_in_time(tmp_path):
    silent = Speaker()
    silent.fault = "hang"
    with fraud(tmp_path) as desk:
        bound(desk, server=down(), router=None, metrics={"url": silent.url, "up": "up", "within": "300ms"})
        assert desk.look("serving.ready").status == "error"
    silent.stop()


def test_an_error_share_over_its_limit_is_a_fail_that_points_at_errors(tmp_path, prometheus):
    with fraud(tmp_path) as desk:
        bound(desk, asking(SHARE), metrics=prometheus.url)
        finding = observe(desk.world, "fraud/metrics.errors", prometheus.window.end).result(30)
        assert finding.status == "fail" and finding.reading.observed == pytest.approx(0.2)
        with desk.world.store.read() as ledger:
            (incident,) = ledger.incidents()
        assert [member.cause for member in incident.members] == ["errors"]


def test_a_prometheus_that_is_gone_is_an_error_and_never_a_fail(tmp_path):
    with fraud(tmp_path) as desk:
        bound(desk, asking("up"), metrics=f"prometheus+http://127.0.0.1:{refused()}")
        finding = desk.look("metrics.errors")
        assert finding.status == "error" and finding.reason.startswith("connect")


def test_a_query_of_a_local_database_runs_in_a_worker_and_one_of_prometheus_does_not(tmp_path):
    made = business.Speaker(tmp_path / "data", "duckdb")
    with fraud(tmp_path) as desk:
        bound(desk, asking("SELECT 0.5"), metrics=made.url)
        assert desk.world.find("fraud/metrics.errors").heavy
        finding = desk.look("metrics.errors")
        assert finding.status == "fail", finding.reason
        bound(desk, metrics="prometheus+http://127.0.0.1:9")
        assert not desk.world.find("fraud/metrics.errors").heavy


def test_a_query_without_end_is_killed_with_its_worker(tmp_path):
    made = business.Speaker(tmp_path / "data", "sqlite")
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1e12) SELECT max(i) FROM n"
    with fraud(tmp_path) as desk:
        bound(desk, asking(endless, "1s"), metrics=made.url)
        finding = desk.look("metrics.errors")
        assert finding.status == "error" and finding.seconds < timedelta(seconds=20).total_seconds()


def test_validate_live_asks_the_store_its_smallest_question(tmp_path, prometheus):
    with fraud(tmp_path) as desk:
        bound(desk, metrics={"url": prometheus.url, "up": "up"})
        said = {line["role"]: (line["look"], line["said"]) for line in knock(desk.world.config)}
        assert said["metrics"] == ("allowed", "answers queries; can control")
        bound(desk, metrics=f"prometheus+http://127.0.0.1:{refused()}")
        assert {line["role"]: line["look"] for line in knock(desk.world.config)}["metrics"] == "unreachable"
