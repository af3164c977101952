"""The page and the API, over a real port, on a real store: what they show, who may change what, and what hostile requests get."""

from __future__ import annotations

import http.client
import json
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent import config, verbs, web
from agent.errors import ConfigError
from agent.metrics import Watching, exporter
from agent.model import Finding, Member, Plan, Reading, Signal, Status, Step, StepRow
from agent.store import Ledger, Store
from agent.web.doing import LOOKS
from agent.web.guard import LIMIT, named
from agent.web.state import FRESH
from agent.workers import Pool
from agent.world import World
from tests.conftest import HOUSE
from tests.servers.hostile import mute, refused, serving

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
TOKEN = "a-long-enough-token"
EVIL = "<script>document.title='pwned'</script><img src=x onerror=alert(1)> & \"quoted\" {{ 7 * 7 }}"
CONFIG = """
team: Decision Systems
services:
  fraud-score:
    owner: vera
    mode: {{default: observe, rollback: auto}}
    targets: {{server: "oip+http://127.0.0.1:{port}/fraud", registry: "folder:models"}}
    watches:
      - {{check: serving.ready, every: 10s}}
      - {{check: serving.parity, every: 10s, needs: [serving.ready]}}
      - {{check: serving.latency, every: 10s}}
  credit-limit:
    owner: sam
    targets: {{server: "oip+http://127.0.0.1:{port}/credit"}}
    watches: [{{check: serving.ready, every: 10s}}]
  churn:
    targets: {{server: "oip+http://127.0.0.1:{port}/churn"}}
    watches: [{{check: serving.ready, every: 10s}}]
notify:
  channels: {{vera: "http://127.0.0.1:9/x", sam: "http://127.0.0.1:9/y"}}
"""


@dataclass
class Site:
    """A served world, and a client that speaks to it as plainly as can be."""

    world: World
    server: web.Server
    reasons: list[str]

    @property
    def port(self) -> int:
        return int(self.server.url.rsplit(":", 1)[1])

    def ask(self, method: str, path: str, body: Any = None, token: str | None = TOKEN, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        status, _, text = self.raw(method, path, None if body is None else json.dumps(body).encode(), token, headers)
        return status, json.loads(text)

    def raw(
        self, method: str, path: str, body: bytes | None = None, token: str | None = TOKEN, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            said = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {}), **(headers or {})}
            line.request(method, path, body, said)
            reply = line.getresponse()
            return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()
        finally:
            line.close()

    def get(self, path: str) -> Any:
        status, body = self.ask("GET", path, token=None)
        assert status == 200, body
        return body


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    world = world_at(tmp_path)
    reasons: list[str] = []
    scrape = exporter(Watching(world.store, world.clock))
    server = web.serve(web.app(world, verbs, TOKEN, lambda: reasons, scrape), "127.0.0.1", 0)
    yield Site(world, server, reasons)
    server.stop()
    world.pool.close()
    world.store.close()


def world_at(folder: Path) -> World:
    (folder / "models").mkdir()
    written = folder / "watchkeeper.yaml"
    written.write_text(CONFIG.format(port=refused()))
    return World(config.load(written), Store.open(folder / "watch.db").start(), Pool(1), clock=lambda: NOW)


# A store in the middle of a story


def signal(key: str, statuses: str, status: Status, reason: str, state: str = "ok", ago: float = 4.0) -> Signal:
    at, service = NOW - timedelta(seconds=ago), key.split("/")[0]
    return Signal(key, service, key.split("/")[1], status, statuses, state, at, at, at, at, reason, "r", 7)  # type: ignore[arg-type]


def keep(ledger: Ledger, one: Signal, reading: Reading, version: str = "2") -> None:
    ledger.put_signal(one)
    found = Finding(
        0, one.watch, one.service, one.check, one.end_at, one.end_at, one.looked_at, one.status, one.reason, reading, {}, version, "r", 0.01
    )
    values = {name: getattr(found, name) for name in found.__dataclass_fields__ if name != "id"}
    ledger.keep(
        {}, **{**values, "status": found.status.value, "reading": {"observed": reading.observed, "limit": reading.limit, "unit": reading.unit}}, seq=1
    )


def seed(world: World, reason: str = "12 of 12 golden rows answer otherwise than recorded (largest difference 0.93, allowed 0.001)") -> int:
    """Version 2 of fraud-score has broken parity; a rollback was tried as a drill, and one waits; credit-limit cannot be seen."""

    def do(ledger: Ledger) -> int:
        ago = lambda seconds: NOW - timedelta(seconds=seconds)  # noqa: E731
        ledger.serve("fraud-score", "1", ago(86400))
        ledger.declare_good("fraud-score", "1", "soak", ago(80000))
        ledger.serve("fraud-score", "2", ago(26))
        ledger.serve("churn", "7", ago(9000))
        keep(ledger, signal("fraud-score/serving.ready", "o" * 20, Status.OK, "ready in 3 ms"), Reading(0.003, 1.0, unit="s"))
        keep(ledger, signal("fraud-score/serving.parity", "o" * 17 + "fff", Status.FAIL, reason, "bad"), Reading(12, 0, unit="rows"))
        keep(
            ledger,
            signal("fraud-score/serving.latency", "oooowooowoooooowoowo", Status.WARN, "p99 of 20 probes 187 ms"),
            Reading(0.187, 0.25, unit="s"),
        )
        keep(ledger, signal("credit-limit/serving.ready", "ooooooooooeeeneeeeee", Status.ERROR, "connection refused", "blind"), Reading(None))
        one = ledger.add_incident("fraud-score", "page", f"fraud-score: serving.parity: {reason}", ago(22))
        ledger.put_member(one.id, Member("fraud-score/serving.parity", "serving.parity", ago(22), reason, "answers"))
        ledger.record(ago(26), "change.version", "version 1 -> 2", service="fraud-score")
        for seconds, kind, what in (
            (22, "incident.opened", f"fraud-score/serving.parity: {reason}"),
            (22, "incident.context", "changed before it: version 1 -> 2 4s before"),
            (21, "run.wanted", "rollback wanted: it began at a version change (version 1 -> 2)"),
            (20, "run.counterfactual", "the same rows through version 1: 12 of 12 right"),
        ):
            ledger.record(ago(seconds), kind, what, service="fraud-score", incident=one.id)
        drill, _ = ledger.want(
            runbook="rollback", service="fraud-score", mode="approve", by="sam", reason="drill asked for by sam", wanted_at=ago(500), drill=True
        )
        ledger.save_run(replace(drill, state="succeeded", said="2 -> 1 and back, 0.4 s each", ended_at=ago(490)))
        plan = Plan(
            "rollback",
            "fraud-score",
            reason,
            (),
            {"router.point": "2"},
            (Step("flip", "router.point", {"to": "1"}, timedelta(seconds=5)),),
            ago(21),
            ago(-600),
            {"flip": {"to": "2"}},
        )
        run, _ = ledger.want(
            runbook="rollback",
            service="fraud-score",
            mode="auto",
            by="watchkeeper",
            reason="it began at a version change",
            wanted_at=ago(21),
            incident=one.id,
            plan=None,
        )
        ledger.save_run(replace(run, state="awaiting", plan=plan, said="waits for approval: no drill in 90 days"))
        ledger.save_step(run.id, StepRow(0, "counterfactual", "platform.check", "done", said="version 1 answers 12 of 12 rows rightly"))
        ledger.save_step(run.id, StepRow(1, "flip", "router.point", "planned", args={"to": "1"}))
        ledger.post("incident-1/opened", "vera", "[page] fraud-score", {"service": "fraud-score"}, ago(22))
        old = ledger.add_incident("churn", "ticket", "churn: serving.ready: not ready", ago(7000))
        ledger.record(ago(7000), "incident.opened", "churn/serving.ready: not ready", service="churn", incident=old.id)
        ledger.save_incident(replace(old, state="resolved", resolved_at=ago(6100)))
        return one.id

    return world.store.write(do)


# Seeing


def test_the_status_says_of_every_service_how_it_stands(site: Site) -> None:
    number = seed(site.world)
    told = site.get("/api/status")
    services = {one["service"]: one for one in told["services"]}
    assert [(name, one["state"]) for name, one in services.items()] == [("fraud-score", "bad"), ("credit-limit", "blind"), ("churn", "new")]
    fraud = services["fraud-score"]
    assert (fraud["served"]["version"], fraud["last_known_good"]["version"], fraud["owner"]) == ("2", "1", "vera")
    assert services["churn"]["last_known_good"] is None
    parity = fraud["watches"][1]
    assert (parity["statuses"][-3:], parity["reading"]["observed"], parity["reading"]["limit"]) == ("fff", 12, 0)
    assert (told["halted"], told["afloat"], told["unready"]) == ("", "", [])
    assert site.get(f"/api/incidents/{number}")["events"][1]["what"] == "changed before it: version 1 -> 2 4s before"


def test_every_list_can_be_read(site: Site) -> None:
    number = seed(site.world)
    assert site.get("/api/services/fraud-score")["state"] == "bad"
    assert [one["watch"] for one in site.get("/api/findings?service=fraud-score&limit=1")] == ["fraud-score/serving.latency"]
    assert [one["status"] for one in site.get("/api/findings?watch=fraud-score/serving.parity")] == ["fail"]
    assert [one["id"] for one in site.get("/api/incidents?open=true")] == [number]
    assert len(site.get("/api/incidents")) == 2
    assert [one["state"] for one in site.get("/api/runs")] == ["awaiting", "succeeded"]
    run = site.get(f"/api/runs/{site.get('/api/runs?active=true')[0]['id']}")
    assert len(run["plan"]["digest"]) == 64
    assert [step["state"] for step in run["steps"]] == ["done", "planned"]
    assert site.get(f"/api/incidents/{number}")["runs"][0]["id"] == run["id"]
    assert [one["kind"] for one in site.get("/api/events?kind=incident&incident=1")] == ["incident.context", "incident.opened"]
    assert site.get("/api/letters")[0]["state"] == "waiting"
    assert site.get("/api/silences") == []


def test_the_files_of_a_finding_can_be_seen_and_run_nothing(site: Site) -> None:
    svg, values = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", {"watch": "churn/serving.ready", "service": "churn"}
    at = {"start_at": NOW, "end_at": NOW, "looked_at": NOW}
    rest = {
        "check": "serving.ready",
        "status": "fail",
        "reason": "no",
        "reading": None,
        "parts": {},
        "version": None,
        "rule": "r",
        "seq": 1,
        "seconds": 0.1,
    }
    number = site.world.store.write(lambda ledger: ledger.keep({"drift.svg": svg, "a b.json": b"{}"}, **values, **at, **rest))
    assert site.get(f"/api/findings/{number}")["files"] == ["a b.json", "drift.svg"]
    status, headers, body = site.raw("GET", f"/api/findings/{number}/files/drift.svg")
    assert (status, headers["content-type"], body) == (200, "image/svg+xml", svg)
    assert headers["content-security-policy"].startswith("sandbox; default-src 'none'") and headers["x-content-type-options"] == "nosniff"
    assert site.raw("GET", f"/api/findings/{number}/files/a%20b.json")[0] == 200
    assert f'href="/api/findings/{number}/files/a%20b.json"' in site.raw("GET", "/")[2].decode()
    assert site.ask("GET", f"/api/findings/{number}/files/other")[1]["error"] == f"there is no file 'other' of finding {number}"
    assert site.ask("GET", "/api/findings/99999")[0] == 404


def test_roll_ups_are_read_from_a_time_or_from_so_long_ago(site: Site) -> None:
    site.world.store.write(lambda ledger: ledger.roll_up("fraud-score/serving.ready", NOW - timedelta(minutes=5), True, 0.25))
    for since in ("1h", "2026-11-23T11:00:00Z", "2026-11-23T11:00:00%2B00:00", "2026-11-23T11:00:00+00:00"):
        assert site.get(f"/api/rollups?watch=fraud-score/serving.ready&since={since}")[0]["high"] == 0.25
    assert site.get("/api/rollups?watch=fraud-score/serving.ready&since=1m") == []
    assert site.ask("GET", "/api/rollups?watch=fraud-score/serving.ready&since=soon")[0] == 422


def test_health_readiness_and_metrics(site: Site) -> None:
    assert site.raw("GET", "/healthz")[0::2] == (200, b"ok\n")
    assert site.get("/readyz") == {"ready": True, "reasons": []}
    site.reasons.append("the loop is 7.0 s late")
    assert site.ask("GET", "/readyz") == (503, {"ready": False, "reasons": ["the loop is 7.0 s late"]})
    assert site.raw("GET", "/healthz")[0] == 200, "the process lives"
    status, headers, text = site.raw("GET", "/metrics", token=None)
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b"\nwatchkeeper_store_afloat 0.0\n" in text
    assert site.raw("HEAD", "/healthz")[0::2] == (200, b"")


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/api/services/fraud-scor", 404, "no service 'fraud-scor'; did you mean 'fraud-score'?"),
        ("/api/rollups?watch=fraud-score/serving.redy", 404, "no watch 'fraud-score/serving.redy'; did you mean 'fraud-score/serving.ready'?"),
        ("/api/incidents/99", 404, "there is no incident 99"),
        ("/api/runs/99", 404, "there is no run 99"),
        ("/api/nothing", 404, "there is nothing here; /api/openapi.json lists what there is"),
        ("/api/findings?limit=100000", 422, "query.limit: Input should be less than or equal to 1000"),
        ("/api/incidents/99999999999999999999999", 422, "path.number: Input should be less than or equal to 9223372036854775807"),
    ],
)
def test_what_is_not_there_is_said_in_a_sentence(site: Site, path: str, status: int, said: str) -> None:
    assert site.ask("GET", path) == (status, {"error": said})


# Doing


def test_people_can_do_everything_over_the_api(site: Site) -> None:
    number = seed(site.world)
    assert site.ask("POST", f"/api/incidents/{number}/ack", {"by": "vera"})[1]["acknowledged_by"] == "vera"
    assert site.ask("POST", "/api/halt", {"by": "vera", "why": "deploying"}) == (200, {"halted": "deploying (vera)"})
    assert site.get("/api/status")["halted"] == "deploying (vera)"
    assert site.ask("POST", "/api/resume", {"by": "vera"}) == (200, {"halted": ""})
    status, silence = site.ask("POST", "/api/silences", {"match": "fraud-score/*", "for": "2h", "by": "vera", "why": "known"})
    assert (status, silence["until_at"]) == (201, "2026-11-23T14:00:00+00:00")
    assert "silenced" in site.raw("GET", "/")[2].decode()
    assert site.ask("DELETE", f"/api/silences/{silence['id']}?by=vera")[0] == 200
    assert site.get("/api/silences?active=true") == []
    assert site.ask("POST", "/api/services/churn/good", {"version": "6", "by": "sam"})[0] == 200
    assert site.get("/api/services/churn")["last_known_good"]["version"] == "6"
    run = site.get("/api/runs?active=true")[0]["id"]
    assert site.ask("POST", f"/api/runs/{run}/approve", {"by": "vera"})[1]["approved_by"] == "vera"
    assert site.ask("POST", f"/api/runs/{run}/cancel", {"by": "vera"})[1]["state"] == "cancelled"
    status, made = site.ask("POST", "/api/services/churn/runbooks/rollback", {"by": "vera", "drill": True, "live": True})
    assert (status, made["state"], made["drill"]) == (200, "proposed", True)


def test_a_look_can_be_asked_for(site: Site) -> None:
    status, found = site.ask("POST", "/api/services/churn/watches/serving.ready/check")
    assert (status, found["watch"], found["status"]) == (200, "churn/serving.ready", "error"), "nobody listens there, and no control look succeeded"


def test_looks_that_hang_leave_room_for_everybody_else(tmp_path: Path) -> None:
    with serving(mute) as hangs:
        (tmp_path / "watchkeeper.yaml").write_text(
            f"services:\n  slow:\n    owner: vera\n    targets: {{server: 'oip+{hangs.url}/m'}}\n    watches:\n"
            + "".join(f"      - {{name: w{n}, check: serving.ready, every: 10s, within: 3s}}\n" for n in range(LOOKS + 1))
            + "notify: {channels: {vera: 'http://127.0.0.1:9/x'}}\n"
        )
        world = World(config.load(tmp_path / "watchkeeper.yaml"), Store.open(tmp_path / "watch.db").start(), Pool(1))
        site = Site(world, web.serve(web.app(world, verbs, TOKEN), "127.0.0.1", 0), [])
        with ThreadPoolExecutor(LOOKS) as people:
            looks = [people.submit(site.ask, "POST", f"/api/services/slow/watches/w{n}/check") for n in range(LOOKS)]
            end = time.monotonic() + 10
            while hangs.connections < LOOKS and time.monotonic() < end:
                time.sleep(0.01)
            status, body = site.ask("POST", f"/api/services/slow/watches/w{LOOKS}/check")
            assert (status, body["error"]) == (503, "8 looks that people asked for are going on; try again when one has ended")
            assert site.ask("GET", "/readyz")[0] == 200
            assert {look.result(60)[0] for look in looks} == {200}
        site.server.stop()
        world.pool.close()
        world.store.close()


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("POST", "/api/incidents/99/ack", {"by": "vera"}, 404, "there is no incident 99"),
        ("POST", "/api/incidents/2/ack", {"by": "vera"}, 409, "incident 2 is already resolved"),
        ("POST", "/api/runs/99/approve", {"by": "vera"}, 404, "there is no run 99"),
        ("POST", "/api/runs/1/cancel", {"by": "vera"}, 409, "run 1 is over: succeeded"),
        ("DELETE", "/api/silences/9?by=vera", None, 404, "there is no silence 9"),
        ("POST", "/api/services/fraud-score/watches/nope/check", None, 404, "no watch 'fraud-score/nope'"),
        ("POST", "/api/services/nope/good", {"version": "1", "by": "vera"}, 404, "no service 'nope'"),
        ("POST", "/api/services/churn/runbooks/rolback", {"by": "vera"}, 404, "no runbook 'rolback'; did you mean 'rollback'?"),
        ("POST", "/api/silences", {"match": "*", "for": "soon", "by": "v", "why": "w"}, 422, "for: write a duration such as 30m, 2h or 1d"),
        ("POST", "/api/silences", {"match": "x/y", "for": "1h", "by": "v", "why": "w"}, 409, "'x/y' matches no watch"),
        ("PUT", "/api/services/churn/watches/serving.ready/baseline", {"by": "v", "why": "w"}, 422, "start_at: "),
        ("DELETE", "/api/services/churn/watches/serving.ready/baseline?by=v", None, 409, "nothing is pinned for churn/serving.ready"),
        ("PUT", "/api/halt", {}, 405, "this can be read or changed, but not in this way"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(site: Site, method: str, path: str, body: Any, status: int, said: str) -> None:
    seed(site.world)
    found, answer = site.ask(method, path, body)
    assert (found, answer["error"][: len(said)]) == (status, said)


# Who may


WRITES = [
    ("POST", "/api/incidents/1/ack"),
    ("POST", "/api/incidents/1/review"),
    ("POST", "/api/silences"),
    ("DELETE", "/api/silences/1?by=x"),
    ("POST", "/api/halt"),
    ("POST", "/api/resume"),
    ("POST", "/api/services/churn/watches/serving.ready/check"),
    ("POST", "/api/services/churn/runbooks/rollback"),
    ("POST", "/api/runs/1/approve"),
    ("POST", "/api/runs/1/cancel"),
    ("POST", "/api/services/churn/good"),
    ("POST", "/api/audits"),
    ("POST", "/api/services/churn/attestations"),
    ("DELETE", "/api/services/churn/attestations/TEAM-10?by=x"),
    ("PUT", "/api/services/churn/watches/serving.ready/baseline"),
    ("DELETE", "/api/services/churn/watches/serving.ready/baseline?by=x"),
]


def test_every_route_that_changes_anything_is_in_the_list_below(site: Site) -> None:
    told = site.get("/api/openapi.json")["paths"]
    known = {(method.upper(), path) for path, methods in told.items() for method in methods if method != "get"}
    assert len(known) == len(WRITES)


@pytest.mark.parametrize(("method", "path"), [*WRITES, ("POST", "/no/such/place"), ("PATCH", "/")])
def test_nothing_is_changed_or_told_without_the_token(site: Site, method: str, path: str) -> None:
    seed(site.world)
    said = {"error": "changing anything needs a token; send it as 'Authorization: Bearer TOKEN'"}
    assert site.ask(method, path, {"by": "eve", "why": "x"}, token=None) == (401, said)
    assert site.ask(method, path, token=None, headers={"Authorization": "Basic YTpi"}) == (401, said)
    for wrong in ("wrong", TOKEN[:-1], TOKEN + "x", "\u00e9".encode().decode("latin-1")):
        assert site.ask(method, path, {"by": "eve"}, token=wrong) == (401, {"error": "this token is not the one that is configured"})
    with site.world.store.read() as ledger:
        assert not any(event.what.endswith("eve") for event in ledger.events())


def test_without_a_configured_token_nothing_can_be_changed(tmp_path: Path) -> None:
    world = world_at(tmp_path)
    server = web.serve(web.app(world, verbs, None), "127.0.0.1", 0)
    status, body = Site(world, server, []).ask("POST", "/api/halt", {"by": "eve", "why": "x"}, token="")
    assert (status, body["error"]) == (401, "changing anything over HTTP needs a token, and none is configured; set `token:`")
    server.stop()
    world.pool.close()
    world.store.close()


def test_each_of_several_tokens_opens(tmp_path: Path) -> None:
    world = world_at(tmp_path)
    server = web.serve(web.app(world, verbs, ["made-at-the-start", TOKEN]), "127.0.0.1", 0)
    site = Site(world, server, [])
    for token, status in (("made-at-the-start", 200), (TOKEN, 200), ("neither", 401)):
        assert site.ask("POST", "/api/resume", {"by": "vera"}, token=token)[0] == status
    server.stop()
    world.pool.close()
    world.store.close()


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8420", "127.0.0.1.evil.example", "", "[::2]", "localhost.evil"])
def test_who_asks_for_another_host_gets_nothing(site: Site, host: str) -> None:
    status, body = site.ask("GET", "/api/status", headers={"Host": host})
    assert (status, list(body)) == (421, ["error"])


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8420", "localhost."])
def test_who_asks_for_this_machine_is_answered(site: Site, host: str) -> None:
    assert site.ask("GET", "/readyz", headers={"Host": host})[0] == 200


def test_a_page_of_another_site_changes_nothing_even_with_the_token(site: Site) -> None:
    for origin in ("https://evil.example", "null"):
        assert site.ask("POST", "/api/halt", {"by": "eve", "why": "x"}, headers={"Origin": origin})[0] == 403
    own = f"http://127.0.0.1:{site.port}"
    assert site.ask("POST", "/api/halt", {"by": "vera", "why": "x"}, headers={"Origin": own})[0] == 200


def test_the_name_in_a_host_header() -> None:
    assert [named(host) for host in ("a.b:1", "[::1]:8420", "[::1]", "", "A.", "a:b:c")] == ["a.b", "::1", "::1", "", "a", ""]


# Hostile bodies


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"by"',
        b"\xff\xfe",
        b'{"by": 7, "why": "x"}',
        b'{"by": "", "why": "x"}',
        b'{"by": "a\\u0000b", "why": "x"}',
        b'{"by": "a\\nb", "why": "x"}',
        b'{"by": "\\ud800", "why": "x"}',
        b'{"by": "vera", "why": "x", "more": 1}',
        b'{"by": "%s", "why": "x"}' % (b"a" * 5000),
        b"[" * 200_000,
        b'{"by": ' + b"[" * 100_000,
    ],
    ids=lambda body: repr(body[:24]),
)
def test_a_bad_body_gets_a_sentence_and_changes_nothing(site: Site, body: bytes) -> None:
    status, _, text = site.raw("POST", "/api/halt", body)
    assert status in (400, 422)
    assert json.loads(text)["error"]
    assert site.get("/api/status")["halted"] == ""


@pytest.mark.parametrize("value", [b"NaN", b"Infinity", b"1e999", b'"\\ud800"', b"99999999999999999999999999"])
def test_parameters_that_json_cannot_say_again_are_refused_or_kept_whole(site: Site, value: bytes) -> None:
    status, _, text = site.raw("POST", "/api/services/churn/runbooks/rollback", b'{"by": "vera", "parameters": {"x": %s}}' % value)
    assert status == (200 if value.isdigit() else 422), text
    assert site.ask("GET", "/api/runs")[0] == 200


def test_a_body_that_is_too_long_is_not_read(site: Site) -> None:
    status, _, text = site.raw("POST", "/api/halt", b" " * (LIMIT + 1))
    assert (status, json.loads(text)["error"]) == (413, "the body is longer than 1,048,576 bytes")


def test_an_endless_body_of_chunks_ends_at_the_limit(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.port), timeout=20) as line:
        line.sendall(f"POST /api/halt HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        sent = 0
        try:
            while sent < 64 * LIMIT:
                line.sendall(chunk)
                sent += 65536
        except OSError:
            pass
        assert sent < 64 * LIMIT


def test_a_half_sent_request_holds_up_nobody(site: Site) -> None:
    lines = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(20)]
    for line in lines:
        line.sendall(b"POST /api/halt HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    assert site.ask("GET", "/readyz")[0] == 200
    for line in lines:
        line.close()


# The page


def test_the_page_shows_what_the_api_says(site: Site) -> None:
    seed(site.world)
    text = site.raw("GET", "/", token=None)[2].decode()
    for said in (
        "fraud-score",
        "Decision Systems",
        "12 of 12 golden rows",
        "changed before it: version 1 -&gt; 2",
        "cannot see",
        "a rollback would be refused",
        "awaiting",
    ):
        assert said in text
    assert "Halted." not in text
    verbs.halt(site.world, "vera", "deploying")
    assert "Halted." in site.raw("GET", "/")[2].decode()


def test_a_run_that_waits_shows_what_it_would_look_at_change_and_take_back(site: Site) -> None:
    seed(site.world)
    text = site.raw("GET", "/", token=None)[2].decode()
    for words in ("router.point from 2 to 1", "router.point to 2", "what flip changed is taken back", "At most 5s in all, and 5s to take it back"):
        assert words in text, words
    digest = site.get("/api/runs/2")["plan"]["digest"][:12]
    assert f"watchkeeper runbook approve 2 --digest {digest} --by NAME" in text
    assert text.count('<table class="plan">') == 1, "what is over has no plan any more"


def test_an_incident_is_told_and_its_review_drafted_and_marked_over_the_api(site: Site) -> None:
    number = seed(site.world)
    told = site.get(f"/api/incidents/{number}/account")
    assert told["summary"][0] == "Changed before it: version 1 -> 2 4s before."
    assert [one["after"] for one in told["story"]] == sorted(one["after"] for one in told["story"])
    status, headers, text = site.raw("GET", f"/api/incidents/{number}/review", token=None)
    assert (status, headers["content-type"].split(";")[0]) == (200, "text/markdown")
    assert text.decode().startswith(f"# Incident {number}: ")
    assert site.get("/api/ladder?service=fraud-score")[0]["runbook"] == "rollback"
    assert site.ask("POST", f"/api/incidents/{number}/review", {"by": "vera"})[0] == 409
    over = site.get("/api/incidents?service=churn")[0]["id"]
    assert site.ask("POST", f"/api/incidents/{over}/review", {"by": "vera"})[1]["state"] == "reviewed"
    for route in ("account", "review"):
        assert site.ask("GET", f"/api/incidents/99/{route}")[0] == 404


def test_with_many_watches_the_page_shows_what_is_not_ok_and_names_the_rest(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    written = tmp_path / "watchkeeper.yaml"
    one = "  s{n}:\n    owner: vera\n    targets: {{server: 'oip+http://127.0.0.1:9/m'}}\n    watches: [{{check: serving.ready, every: 10s}}]\n"
    written.write_text("services:\n" + "".join(one.format(n=n) for n in range(201)) + "notify: {channels: {vera: 'http://127.0.0.1:9/x'}}\n")
    world = World(config.load(written), Store.open(tmp_path / "watch.db").start(), Pool(1), clock=lambda: NOW)

    def do(ledger: Ledger) -> None:
        for n in range(201):
            ledger.put_signal(signal(f"s{n}/serving.ready", "o", Status.OK, "ready"))
        ledger.put_signal(signal("s7/serving.ready", "f", Status.FAIL, "not ready", "bad"))

    world.store.write(do)
    server = web.serve(web.app(world, verbs, TOKEN), "127.0.0.1", 0)
    text = Site(world, server, []).raw("GET", "/")[2].decode()
    assert text.count('class="watches"') == 1
    assert "1 bad" in text and "200 ok" in text
    assert 'href="/api/services/s200"' in text
    server.stop()
    world.pool.close()
    world.store.close()


def test_a_store_that_cannot_be_written_is_said_and_what_is_seen_goes_on_being_shown(site: Site) -> None:
    seed(site.world)
    site.world.store._patience = 0.1
    holder = sqlite3.connect(site.world.store.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    site.world.store.write(lambda ledger: ledger.put_signal(signal("churn/serving.ready", "f", Status.FAIL, "seen from memory", "bad")))
    site.world.store.write(lambda ledger: ledger.add_incident("churn", "page", "opened in memory", NOW))
    end, text = time.monotonic() + FRESH + 5, ""
    while "The store is kept in memory." not in text:
        assert time.monotonic() < end
        text = site.raw("GET", "/")[2].decode()
    assert "seen from memory" in text
    assert "opened in memory" in text
    status, body = site.ask("POST", "/api/halt", {"by": "vera", "why": "x"})
    assert (status, "locked" in body["error"]) == (503, True)
    holder.execute("ROLLBACK")
    holder.close()


def test_no_reason_becomes_markup(site: Site) -> None:
    seed(site.world, reason=EVIL)
    text = site.raw("GET", "/")[2].decode()
    assert "<script>document" not in text
    assert "<img" not in text
    assert "&lt;script&gt;document.title=&#39;pwned&#39;" in text
    assert "{{ 7 * 7 }}" in text


def test_a_browser_runs_nothing_that_came_with_a_reason_and_asks_nobody_else(site: Site, chromium: Path, tmp_path: Path) -> None:
    seed(site.world, reason=EVIL)
    done = subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'browser'}", "--virtual-time-budget=8000",
            "--enable-logging=stderr", "--dump-dom", f"{site.server.url}/",
        ],
        capture_output=True, text=True, timeout=90,
    )  # fmt: skip
    assert "<title>(1) Watchkeeper" in done.stdout, "neither renamed by a reason, nor out of reach"
    assert "Content Security Policy" not in done.stderr, "its own style and script are allowed"
    assert "http" not in (HOUSE / "agent" / "web" / "page.html").read_text(encoding="utf-8").replace("http-equiv", "")


def test_every_answer_forbids_what_a_browser_need_not_do(site: Site) -> None:
    for path in ("/", "/api/status", "/metrics", "/nothing"):
        headers = site.raw("GET", path)[1]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers
    assert "unsafe" not in site.raw("GET", "/")[1]["content-security-policy"]


# Serving


def test_a_port_that_is_taken_is_said_at_once(site: Site) -> None:
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{site.port}"):
        web.serve(web.app(site.world, verbs, TOKEN), "127.0.0.1", site.port)


def test_it_ends_when_told_to_even_with_a_client_that_hangs(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.port)) as line:
        line.sendall(b"GET /api/status HTTP/1.1\r\n")
        begun = time.monotonic()
        site.server.stop()
        assert time.monotonic() - begun < 10
    with pytest.raises(OSError):
        site.get("/healthz")


def test_reading_goes_on_while_the_store_is_being_written(site: Site) -> None:
    seed(site.world)
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            site.world.store.write(lambda ledger: ledger.record(NOW, "note", "x"))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert all(site.ask("GET", "/api/status")[0] == 200 for _ in range(20))
    finally:
        over.set()
        thread.join()


def test_every_route_is_on_its_page_and_the_page_names_no_other(site: Site) -> None:
    text = (HOUSE / "docs" / "api.md").read_text(encoding="utf-8")
    told = {tuple(line.split("`")[1].split(" ", 1)) for line in text.splitlines() if line.startswith("| `")}
    paths = site.get("/api/openapi.json")["paths"]
    assert told == {(method.upper(), path) for path, methods in paths.items() for method in methods} | {
        ("GET", "/"),
        ("GET", "/fleet"),
        ("GET", "/api/openapi.json"),
    }
