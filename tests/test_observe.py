"""From one look to what is remembered, judged and told: real servers that misbehave, a real store."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from agent import verbs
from agent.errors import PlanError
from agent.judge import ALL, escalate
from agent.model import Auth, Status, error
from agent.observe import found, observe
from agent.world import World
from tests.fraud import Desk, fraud, spoiled
from tests.servers import oip


def closed_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def statuses(desk: Desk, watch: str = "serving.ready") -> str:
    signal = desk.world.store.signal(f"fraud/{watch}")
    return signal.statuses if signal else ""


def incidents_of(desk: Desk):
    with desk.world.store.read() as ledger:
        return ledger.incidents()


def test_a_good_look_is_remembered_and_nothing_else_happens(tmp_path):
    with fraud(tmp_path) as desk:
        finding = desk.look()
        assert finding.status == "ok" and finding.id == 1 and incidents_of(desk) == []


def test_a_window_judged_already_gives_back_its_finding_and_changes_nothing(tmp_path):
    with fraud(tmp_path) as desk:
        at = desk.world.clock()
        first = observe(desk.world, "fraud/serving.parity", at).result(10)
        desk.server.factors["1"] = 9.0
        again = observe(desk.world, "fraud/serving.parity", at).result(10)
        assert again.id == first.id and again.status == "ok" and statuses(desk, "serving.parity") == "o" and incidents_of(desk) == []


def test_a_fail_is_looked_at_again_before_it_counts_and_a_flicker_is_only_a_warning(tmp_path):
    with fraud(tmp_path) as desk:
        desk.look()
        asked = iter([9.0, 2.0])
        desk.server.mood = lambda method, path: desk.server.factors.update({"1": next(asked, 2.0)}) if path.endswith("infer") else None
        finding = desk.look()
        assert finding.status in ("warn", "ok") and incidents_of(desk) == []


def test_a_second_bad_finding_joins_the_open_incident(tmp_path):
    with fraud(tmp_path, more="      - {check: serving.latency, every: 10m, with: {limit: 1ms, probes: 50}, confirm: {bad: 1, of: 1}}") as desk:
        spoiled(desk)
        desk.look()
        desk.server.mood = lambda method, path: threading.Event().wait(0.005) and None
        assert desk.look("serving.latency").status == "fail"
        (incident,) = incidents_of(desk)
        assert [member.check for member in incident.members] == ["serving.parity", "serving.latency"]
        assert any(what.startswith("fraud/serving.latency") for what in desk.events("incident.joined"))


def test_an_incident_opens_with_what_changed_before_it(tmp_path):
    with fraud(tmp_path) as desk:
        desk.see()
        desk.look()
        spoiled(desk)
        desk.look()
        (context,) = desk.events("incident.context")
        assert context.startswith("changed before it: version 2 serves instead of 1")


def test_without_an_observed_change_the_sources_watched_are_named(tmp_path):
    with fraud(tmp_path) as desk:
        desk.server.factors["1"] = 9.0
        desk.world.served["fraud"] = "1"
        desk.look()
        (context,) = desk.events("incident.context")
        assert context == "no observed change before it (watched: config, registry, router, server)"


# What could not be seen is not what is bad


@pytest.mark.parametrize(
    ("fault", "word"),
    [("broken", "5xx"), ("html", "answer"), ("nan", "answer"), ("cut", "answer"), ("redirect", "answer"), ("hang", "timeout")],
)
def test_a_server_that_misbehaves_is_an_error_and_never_acted_on_without_a_control_look(tmp_path, fault, word):
    with fraud(tmp_path, more="      - {check: serving.parity, name: quick, every: 10m, within: 300ms}") as desk:
        desk.look("quick")
        desk.server.fault = fault
        finding = desk.look("quick")
        desk.server.released.set()
        assert finding.status == "error" and finding.reason.startswith(word)
        assert incidents_of(desk) == []


def test_a_refused_connection_is_a_fail_when_the_control_url_answers(tmp_path):
    with fraud(tmp_path) as desk:
        elsewhere = oip.Speaker()
        _replace(desk, control=f"{elsewhere.address}/v2/health/live", server=f"oip+http://127.0.0.1:{closed_port()}/m")
        finding = desk.look("serving.ready")
        assert finding.status == "fail" and finding.reason.startswith("connect") and "the control URL" in finding.reason
        elsewhere.stop()


def test_a_refused_connection_is_an_error_when_nothing_else_answers_either(tmp_path):
    with fraud(tmp_path) as desk:
        desk.server.stop()
        finding = desk.look("serving.ready")
        assert finding.status == "error" and "our own sight" in finding.reason


def test_a_name_that_does_not_resolve_is_an_error_whatever_control_says(tmp_path):
    with fraud(tmp_path) as desk:
        _replace(desk, control=desk.server.address, server="oip+http://no-such-host.invalid/m")
        finding = desk.look("serving.ready")
        assert finding.status == "error" and finding.reason.startswith("dns")


def test_three_looks_that_could_not_see_open_a_ticket_not_a_page(tmp_path):
    with fraud(tmp_path) as desk:
        desk.server.stop()
        for _ in range(3):
            desk.look("serving.ready")
        (incident,) = incidents_of(desk)
        assert incident.severity == "ticket" and incident.members[0].cause == "blind"
        with desk.world.store.read() as ledger:
            assert ledger.runs() == []


def test_a_check_that_raises_costs_its_own_look_only(tmp_path):
    with fraud(tmp_path, more="      - {check: serving.latency, every: 10m, with: {probes: 0}}") as desk:
        finding = desk.look("serving.latency")
        assert finding.status == "error" and desk.look().status == "ok"


# Dependencies, storms, flapping


def test_what_needs_a_bad_watch_is_recorded_but_opens_nothing(tmp_path):
    with fraud(tmp_path) as desk:
        desk.server.up = False
        assert desk.look("serving.ready").status == "fail"
        spoiled(desk)
        assert desk.look("serving.parity").status == "fail"
        (incident,) = incidents_of(desk)
        assert [member.check for member in incident.members] == ["serving.ready"]
        assert "suppressed: it needs fraud/serving.ready" in desk.events("suppressed")[0]


def test_a_flapping_watch_is_one_incident_and_one_message(tmp_path):
    with fraud(tmp_path) as desk:
        for n in range(24):
            desk.server.up = n % 2 == 0
            desk.look("serving.ready")
            desk.later(10)
        (incident,) = incidents_of(desk)
        assert incident.state == "open"
        with desk.world.store.read() as ledger:
            assert [letter["key"] for letter in ledger.letters()] == ["incident-1/opened"]


def test_when_everything_fails_at_once_one_incident_is_told_and_nothing_acts(tmp_path):
    names = ["a", "b", "c", "d"]
    services = "".join(
        f"  {name}: {{owner: ada, targets: {{server: 'oip+ADDRESS/m'}}, watches: [{{check: serving.ready, every: 10m}}]}}\n" for name in names
    )
    with fraud(tmp_path) as desk:
        path = tmp_path / "watchkeeper.yaml"
        text = path.read_text().replace("notify:", services.replace("ADDRESS", desk.server.address) + "notify:")
        path.write_text(text)
        _reload(desk)
        desk.server.up = False
        for name in names:
            observe(desk.world, f"{name}/serving.ready", desk.world.clock()).result(10)
        with desk.world.store.read() as ledger:
            storm = next(i for i in ledger.incidents(open_only=True) if i.service == ALL)
            assert ledger.setting("halt")["on"] is True
            waiting = ledger.letters_due(desk.world.clock() + timedelta(seconds=10))
            assert {letter.key for letter in waiting} == {f"incident-{storm.id}/opened"}
            assert len(ledger.findings()) == len(names)  # every look is recorded all the same
        desk.server.up = True
        for name in names * 2:
            observe(desk.world, f"{name}/serving.ready", desk.world.clock()).result(10)
        with desk.world.store.read() as ledger:
            assert ledger.incidents(open_only=True) == [] and ledger.setting("halt")["on"] is False


# Telling


def test_nobody_acknowledging_brings_in_the_next_in_line(tmp_path):
    with fraud(tmp_path) as desk:
        text = (tmp_path / "watchkeeper.yaml").read_text()
        (tmp_path / "watchkeeper.yaml").write_text(text.replace("owner: ada", "owner: ada\n    escalation: [eve]"))
        _reload(desk)
        desk.server.up = False
        desk.look("serving.ready")
        for minutes in (5, 10, 10):
            desk.later(minutes * 60)
            desk.world.store.write(lambda ledger: escalate(desk.world, ledger, desk.world.clock()))
        with desk.world.store.read() as ledger:
            told = [(letter["channel"], letter["key"]) for letter in reversed(ledger.letters())]
        assert told == [("ada", "incident-1/opened"), ("eve", "incident-1/escalated/2")]


def test_an_open_incident_nobody_acknowledged_is_told_again_every_repeat_and_once_each(tmp_path):
    with fraud(tmp_path) as desk:
        desk.server.up = False
        desk.look("serving.ready")
        for _ in range(5):
            desk.later(2 * 3600 + 1)
            desk.world.store.write(lambda ledger: escalate(desk.world, ledger, desk.world.clock()))
        with desk.world.store.read() as ledger:
            told = [letter["key"] for letter in reversed(ledger.letters())]
        assert told == ["incident-1/opened", "incident-1/reminder/1", "incident-1/reminder/2"]


def test_an_acknowledged_incident_is_told_to_nobody_further(tmp_path):
    with fraud(tmp_path) as desk:
        desk.server.up = False
        desk.look("serving.ready")
        assert verbs.ack(desk.world, 1, "ada").state == "acknowledged"
        desk.later(7200)
        desk.world.store.write(lambda ledger: escalate(desk.world, ledger, desk.world.clock()))
        with desk.world.store.read() as ledger:
            assert len(ledger.letters()) == 1


def test_a_silence_keeps_people_quiet_and_the_record_whole_and_ends_by_telling(tmp_path):
    with fraud(tmp_path) as desk:
        verbs.silence(desk.world, "fraud/*", timedelta(hours=1), "ada", "upgrade")
        desk.server.up = False
        desk.look("serving.ready")
        with desk.world.store.read() as ledger:
            assert ledger.letters() == [] and len(ledger.incidents(open_only=True)) == 1
        desk.later(3700)
        desk.world.store.write(lambda ledger: escalate(desk.world, ledger, desk.world.clock()))
        with desk.world.store.read() as ledger:
            assert "what kept it quiet is over" in ledger.letters()[0]["body"]["text"]


def test_a_silence_that_matches_nothing_is_refused(tmp_path):
    with fraud(tmp_path) as desk, pytest.raises(PlanError, match="matches no watch"):
        verbs.silence(desk.world, "fraud/serving.redy", timedelta(hours=1), "ada", "typo")


def test_a_service_without_an_owner_is_a_ticket_of_its_own_and_never_hides_a_page(tmp_path):
    with fraud(tmp_path, more="      - {check: service.owner, every: 10m}") as desk:
        text = (tmp_path / "watchkeeper.yaml").read_text()
        (tmp_path / "watchkeeper.yaml").write_text(text.replace("    owner: ada\n", ""))
        _reload(desk)
        assert desk.look("service.owner").status == "fail"
        desk.server.up = False
        desk.look("serving.ready")
        assert [(i.severity, i.members[0].check) for i in incidents_of(desk)] == [("page", "serving.ready"), ("ticket", "service.owner")]
        with desk.world.store.read() as ledger:
            assert {letter["channel"] for letter in ledger.letters()} == {"ada", "eve"}  # everybody: nobody owns it


def _reload(desk: Desk) -> None:
    from agent import config

    desk.world.use(config.load(desk.folder / "watchkeeper.yaml"))


def _replace(desk: Desk, server: str, control: str) -> None:
    text = (desk.folder / "watchkeeper.yaml").read_text()
    text = text.replace(f"server: oip+{desk.server.address}/m", f"server: {server}").replace("owner: ada", f"owner: ada\n    control: {control}")
    (desk.folder / "watchkeeper.yaml").write_text(text)
    _reload(desk)


def test_signals_survive_a_restart(tmp_path):
    with fraud(tmp_path) as desk:
        desk.server.up = False
        desk.look("serving.ready")
        before = desk.world.store.signal("fraud/serving.ready")
        path = Path(desk.world.store.path)
        desk.world.store.close()
        from agent.store import Store

        store = Store.open(path).start()
        assert store.signal("fraud/serving.ready") == before
        world: World = replace(desk.world, store=store)
        desk.server.up = True
        assert observe(world, "fraud/serving.ready", world.clock()).result(10).status is Status.OK
        store.close()


def test_a_secret_that_a_target_echoes_is_in_no_finding(tmp_path):
    with fraud(tmp_path) as desk:
        w, now = desk.world.find("fraud/serving.ready"), desk.world.clock()
        told = {
            "server": replace(
                w.locators["server"], look=Auth("bearer", {"token": "s3cret-token"}), act=Auth("basic", {"user": "u", "password": "pa55"})
            )
        }
        finding = found(replace(w, locators=told), w.window(now), now, error("401 for 's3cret-token', and 'pa55' is no better"), None, 0.1)
        assert finding.reason == "401 for '***', and '***' is no better"
