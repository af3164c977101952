"""Taking a version out of the traffic of a real HAProxy, without losing a request."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from agent import config, verbs
from agent.errors import PlanError
from tests import haproxy
from tests.conftest import need
from tests.fraud import fraud
from tests.test_haproxy import asked


@contextmanager
def split(tmp_path, weights=(100, 100)):
    with haproxy.standing(need("haproxy"), tmp_path) as box, fraud(tmp_path) as desk:
        path = tmp_path / "watchkeeper.yaml"
        place = f"{{url: 'haproxy+unix:{box.folder}/admin.sock', backend: fraud, versions: {{'1': v1, '2': v2}}}}"
        path.write_text(path.read_text().replace(f"router: pointer+{desk.server.address}", f"router: {place}"))
        for name, weight in zip(("v1", "v2"), weights, strict=True):
            haproxy.say(box.folder / "admin.sock", f"set server fraud/{name} weight {weight}")
        desk.world.use(config.load(path))
        desk.see()
        yield desk, box


def test_a_version_is_taken_out_and_no_request_is_lost(tmp_path):
    with split(tmp_path) as (desk, box):
        assert set(asked(box.url)) == {"1", "2"}
        verbs.start(desk.world, "drain", "fraud", {"version": "1"}, "ada")
        done = desk.respond()
        assert done.state == "succeeded", done.said
        assert [step.name for step in done.steps] == ["preflight 2", "take out", "drain"] and set(asked(box.url)) == {"2"}


def test_a_drill_of_it_gives_the_traffic_back(tmp_path):
    with split(tmp_path) as (desk, box):
        verbs.start(desk.world, "drain", "fraud", {"version": "1"}, "ada", drill=True)
        done = desk.respond()
        assert done.state == "succeeded" and set(asked(box.url)) == {"1", "2"}, done.said


def test_what_takes_over_must_be_well(tmp_path):
    with split(tmp_path) as (desk, box):
        desk.server.factors["2"] = 9.0
        verbs.start(desk.world, "drain", "fraud", {"version": "1"}, "ada")
        done = desk.respond()
        assert done.state == "stopped" and "preflight 2" in done.said and set(asked(box.url)) == {"1", "2"}


@pytest.mark.parametrize(
    ("weights", "version", "said"), [((100, 0), "1", "has all the traffic"), ((100, 0), "2", "has no traffic"), ((9, 9), "7", "no traffic")]
)
def test_what_cannot_be_drained_is_refused_while_planning(tmp_path, weights, version, said):
    with split(tmp_path, weights) as (desk, _), pytest.raises(PlanError, match=said):
        verbs.start(desk.world, "drain", "fraud", {"version": version}, "ada", dry_run=True)


def test_a_router_that_splits_nothing_is_refused(tmp_path):
    with fraud(tmp_path) as desk, pytest.raises(PlanError, match="has all the traffic"):
        verbs.start(desk.world, "drain", "fraud", {"version": "1"}, "ada", dry_run=True)
