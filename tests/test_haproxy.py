"""The HAProxy router against a real HAProxy with two servers behind it."""

from __future__ import annotations

import json
import socket
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import Absent, Auth, Done, Failed, Locator, Pending, Router, Try
from agent.errors import AnswerError, CannotError, ConfigError, DeadlineError, DeniedError, UnreachableError
from agent.targets import connect
from agent.targets._shares import NEAR, same, weights
from tests import haproxy
from tests.conftest import need
from tests.processes import until
from tests.servers import plain

SPLIT = {"backend": "fraud", "versions": {"1": "v1", "2": "v2"}}
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def program() -> Path:
    return need("haproxy")


@pytest.fixture
def box(program: Path, tmp_path: Path) -> Iterator[haproxy.Box]:
    with haproxy.standing(program, tmp_path) as found:
        yield found


def router(box: haproxy.Box, socket_name: str = "admin.sock", within: float = 5, **options: Any) -> Any:
    at = f"haproxy+unix:{box.folder / socket_name}"
    return connect(Locator("fraud", "router", at, options or SPLIT, within=timedelta(seconds=within)))


def asked(url: str, times: int = 40) -> Counter[str]:
    """Which versions answered, each request on a connection of its own."""
    seen: Counter[str] = Counter()
    for _ in range(times):
        request = urllib.request.Request(f"{url}/predict", json.dumps({"x": plain.REQUEST}).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as reply:
            seen[json.load(reply)["meta"]["version"]] += 1
    return seen


def tried(before: Any) -> Try:
    return Try("run-1/2", 1, NOW + timedelta(seconds=10), before, 1, NOW)


def moved(one: Any, to: Any) -> Any:
    """Through the action, as a run would: what stood, the effect, what is seen then."""
    before = one.point.before({"to": to})
    one.point.do({"to": to}, tried(before))
    return one.point.look({"to": to}, tried(before))


def test_it_is_a_router_that_says_who_has_the_traffic(box):
    one = router(box)
    assert isinstance(one, Router)
    assert one.served() == {"1": 0.5, "2": 0.5}
    assert one.can == {"switch", "weights", "drain"}


def test_all_traffic_goes_where_it_is_pointed(box):
    one = router(box)
    assert moved(one, "1") == Done({"from": {"1": 0.5, "2": 0.5}, "to": "1"}, "1 is pointed at")
    assert one.served() == {"1": 1.0}
    assert asked(box.url) == {"1": 40}
    assert isinstance(moved(one, "2"), Done)
    assert asked(box.url) == {"2": 40}


def test_what_was_taken_back_is_the_split_that_stood_before(box):
    one = router(box)
    moved(one, {"1": 0.9, "2": 0.1})
    before = one.point.before({"to": "1"})
    moved(one, "1")
    back = one.point.undo({"to": "1"}, before, {})
    assert isinstance(moved(one, back["to"]), Done)
    assert one.served() == pytest.approx({"1": 0.9, "2": 0.1}, abs=NEAR)


def test_a_canary_gets_the_share_it_was_given(box):
    one = router(box)
    moved(one, {"1": 0.75, "2": 0.25})
    assert asked(box.url, 100) == {"1": 75, "2": 25}  # round robin by weight is exact


def test_the_look_says_absent_before_and_failed_when_somebody_else_moved_it(box):
    one = router(box)
    before = one.point.before({"to": "1"})
    assert isinstance(one.point.look({"to": "1"}, tried(before)), Absent)
    haproxy.say(box.folder / "admin.sock", "set server fraud/v1 weight 0")
    seen = one.point.look({"to": "1"}, tried(before))
    assert isinstance(seen, Failed) and "somebody else moved it" in seen.said
    with pytest.raises(AnswerError, match="no longer points at"):
        one.point.do({"to": "1"}, tried(before))
    assert one.served() == {"2": 1.0}  # it was left alone


def test_a_server_in_maintenance_is_made_ready_when_it_is_pointed_at(box):
    one = router(box)
    haproxy.say(box.folder / "admin.sock", "set server fraud/v1 state maint")
    assert one.served() == {"2": 1.0}
    moved(one, "1")
    assert asked(box.url, 10) == {"1": 10}


def test_replicas_of_a_version_share_what_it_gets(program, tmp_path):
    with haproxy.standing(program, tmp_path, {"a1": 1, "a2": 1, "b": 2}) as box:
        one = router(box, backend="fraud", versions={"1": ["a1", "a2"], "2": "b"})
        assert moved(one, {"1": 0.5, "2": 0.5}).output["to"] == {"1": 0.5, "2": 0.5}
        assert asked(box.url, 40) == {"1": 20, "2": 20}


def test_without_versions_each_server_is_one_of_its_own_name(box):
    one = router(box, backend="fraud")
    assert one.served() == {"v1": 0.5, "v2": 0.5}
    assert isinstance(moved(one, "v2"), Done)


def test_a_reload_keeps_the_weights_that_the_state_file_holds(box):
    one = router(box, **SPLIT, state_file=str(box.folder / "state"))
    moved(one, "1")
    box.reload()
    until(lambda: one.served() == {"1": 1.0}, "the new worker has read the state")
    assert asked(box.url, 10) == {"1": 10}


def test_without_a_state_file_a_reload_forgets_as_the_documentation_says(box):
    one = router(box)
    moved(one, "1")
    box.reload()
    until(lambda: one.served() == {"1": 0.5, "2": 0.5}, "the new worker has read its configuration")


def test_draining_moves_all_and_splits_nothing(box):
    one = router(box, **SPLIT, lever="drain")
    assert one.can == {"switch", "drain"}
    assert isinstance(moved(one, "2"), Done)
    assert "srv_admin_state" in haproxy.say(box.folder / "admin.sock", "show servers state fraud")
    assert asked(box.url, 10) == {"2": 10}
    assert isinstance(moved(one, "1"), Done)
    assert asked(box.url, 10) == {"1": 10}
    with pytest.raises(CannotError, match="cannot split"):
        one.point.do({"to": {"1": 0.5, "2": 0.5}}, tried("1"))


def test_a_map_entry_chooses_the_backend_and_its_file_keeps_it(box):
    one = router(box, map=str(box.folder / "versions.map"), key="fraud", versions={"1": "fraud-1", "2": "fraud-2"})
    assert one.served() == {"1": 1.0} and one.can == {"switch", "drain"}
    assert isinstance(moved(one, "2"), Done)
    assert asked(box.mapped, 10) == {"2": 10}
    assert (box.folder / "versions.map").read_text() == "fraud fraud-2\n"
    box.reload()
    assert asked(box.mapped, 10) == {"2": 10}


def test_it_is_drained_when_the_last_request_is_answered(box):
    one = router(box)
    moved(one, "2")
    box.behind[1].fault = "hang"
    thread = threading.Thread(target=lambda: asked(box.url, 1))
    thread.start()
    until(lambda: one.under_way("2") == 1, "the request is under way")
    moved(one, "1")
    seen = one.drained.look({"versions": ["2"]}, tried(None))
    assert isinstance(seen, Pending) and "1 requests are still under way" in seen.said
    box.behind[1].released.set()
    thread.join()
    until(lambda: isinstance(one.drained.look({"versions": ["2"]}, tried(None)), Done), "it is drained")
    assert not one.drained.writes


def test_keep_alive_clients_lose_no_request_while_traffic_is_moved(box):
    """A hundred moves under eight clients that keep their connections."""
    one, ended, lost, seen = router(box), threading.Event(), [], Counter()

    def client() -> None:
        import http.client

        with closing(http.client.HTTPConnection(box.url.removeprefix("http://"), timeout=10)) as connection:
            while not ended.is_set():
                try:
                    connection.request("POST", "/predict", json.dumps({"x": plain.REQUEST}), {"content-type": "application/json"})
                    reply = connection.getresponse()
                    seen[json.loads(reply.read())["meta"]["version"] if reply.status == 200 else lost.append(reply.status)] += 1
                except Exception as problem:
                    lost.append(problem)
                    return

    clients = [threading.Thread(target=client) for _ in range(8)]
    for thread in clients:
        thread.start()
    for n in range(100):
        assert isinstance(moved(one, str(1 + n % 2)), Done)
    until(lambda: sum(seen.values()) > 200, "enough was asked")
    ended.set()
    for thread in clients:
        thread.join()
    assert lost == []
    assert set(seen) == {"1", "2"}


def test_no_server_that_is_up_is_an_error_and_no_version(box):
    for name in ("v1", "v2"):
        haproxy.say(box.folder / "admin.sock", f"set server fraud/{name} state maint")
    with pytest.raises(AnswerError, match="HAProxy answers 503"):
        router(box).served()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backend": "nothing"}, "nothing: .*find backend"),
        ({"backend": "fraud", "versions": {"1": "gone"}}, "no server 'gone'; there is v1, v2"),
        ({"map": "/no/such.map", "key": "fraud", "versions": {"1": "fraud-1"}}, "Unknown map"),
    ],
)
def test_what_haproxy_does_not_have_is_said_by_its_name(box, options, said):
    with pytest.raises(AnswerError, match=said):
        router(box, **options).served()


def test_a_version_that_no_server_is_cannot_be_pointed_at(box):
    with pytest.raises(CannotError, match="no server here is version 3; there is 1, 2"):
        router(box).point.do({"to": "3"}, tried({"1": 0.5, "2": 0.5}))


def test_a_socket_that_may_only_be_read_says_what_it_lacks(box):
    one = router(box, "read.sock")
    assert one.served() == {"1": 0.5, "2": 0.5}
    with pytest.raises(DeniedError, match="level admin"):
        moved(one, "1")
    assert one.served() == {"1": 0.5, "2": 0.5}


def test_no_socket_and_no_answer_are_told_apart(tmp_path, program):
    at = f"haproxy+unix:{tmp_path}/none.sock"
    with pytest.raises(UnreachableError, match=r"none\.sock cannot be used \(No such file"):
        connect(Locator("fraud", "router", at, SPLIT)).served()
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        at = f"haproxy+tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(DeadlineError, match="did not answer in time"):
            connect(Locator("fraud", "router", at, SPLIT, within=timedelta(milliseconds=50))).served()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "needs `backend`"),
        ({"backend": "fraud; shutdown frontend x"}, "cannot be a name"),
        ({"backend": "fraud", "versions": {"1": "v1\nset server"}}, "cannot be a name"),
        ({"backend": "fraud", "versions": ["v1"]}, "write {version: server}"),
        ({"backend": "fraud", "lever": "weigth"}, "no lever 'weigth'"),
        ({"map": "/a.map"}, "needs `key` and `versions`"),
        ({"backend": "fraud", "balance": "x"}, "no option 'balance'"),
    ],
)
def test_options_that_cannot_be_meant_are_refused_at_once(options, said):
    with pytest.raises(ConfigError, match=said):
        connect(Locator("fraud", "router", "haproxy+unix:/x.sock", options))


@pytest.mark.parametrize("auth", [{"look": Auth("bearer", {"token": "x"})}, {"act": Auth("basic", {"user": "a", "password": "b"})}])
def test_a_credential_is_refused_because_the_socket_knows_none(auth):
    with pytest.raises(ConfigError, match="knows no credentials"):
        connect(Locator("fraud", "router", "haproxy+unix:/x.sock", SPLIT, **auth))


@given(st.dictionaries(st.sampled_from("abcd"), st.floats(0, 1), min_size=1), st.dictionaries(st.sampled_from("abcd"), st.integers(1, 4), min_size=4))
def test_weights_are_whole_and_as_near_as_they_can_be(shares, servers):
    if not sum(shares.values()) > 0.01:
        return
    made = weights(shares, servers)
    assert all(0 <= weight <= 256 for weight in made.values())
    assert all(made[version] >= 1 for version, share in shares.items() if share > 1e-300)  # smaller ones vanish when they are shared out
    assert all(made[version] == 0 for version in servers if not shares.get(version))


@pytest.mark.parametrize(("share", "meant"), [(0.01, (1, 99)), (0.5, (100, 100)), (0.1, (100 // 9, 100)), (0.001, (1, 256))])
def test_the_small_side_of_a_split_is_met_exactly_where_whole_weights_allow(share, meant):
    made = weights({"b": share, "a": 1 - share}, {"a": 1, "b": 1})
    assert abs(made["b"] / (made["a"] + made["b"]) - share) <= abs(meant[0] / sum(meant) - share) + 1e-12


def test_aims_are_the_same_up_to_what_weights_can_say():
    assert same("1", {"1": 1.0}) and same({"1": 0.9, "2": 0.1}, {"1": 0.901, "2": 0.099})
    assert not same("1", "2") and not same("1", {"1": 0.98, "2": 0.02})
