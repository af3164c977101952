"""What is bad everywhere at once, what stays bad afterwards, and what the configuration no longer names."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta

from agent import config, permit, verbs
from agent.judge import ALL, escalate, let_go
from agent.model import Member, Verdict, error, fail, ok
from agent.observe import fold, found, observe
from tests.fraud import Desk, fraud

NAMES = ["a", "b", "c", "d"]


def extra(address: str, names=NAMES, watches: str = "[{check: serving.ready, every: 10m}]") -> str:
    return "".join(f"  {name}: {{owner: ada, targets: {{server: 'oip+{address}/m'}}, watches: {watches}}}\n" for name in names)


def reload(desk: Desk, change) -> None:
    path = desk.folder / "watchkeeper.yaml"
    path.write_text(change(path.read_text()))
    desk.world.use(config.load(path))
    desk.world.store.write(lambda ledger: let_go(desk.world, ledger, desk.world.clock()))


@contextmanager
def many(folder, **more):
    with fraud(folder) as desk:
        reload(desk, lambda text: text.replace("notify:", extra(desk.server.address, **more) + "notify:"))
        yield desk


def look(desk: Desk, *names: str, watch: str = "serving.ready") -> None:
    for name in names:
        observe(desk.world, f"{name}/{watch}", desk.world.clock()).result(10)


def say(desk: Desk, key: str, verdict: Verdict) -> None:
    """What a look would have come to, a second later."""
    desk.later(1)
    w, now = desk.world.find(key), desk.world.clock()
    desk.world.store.write(lambda ledger: fold(desk.world, ledger, w, found(w, w.window(now), now, verdict, None, 0.1), verdict))


def opened(desk: Desk) -> list[str]:
    with desk.world.store.read() as ledger:
        return [f"{i.service} {i.severity}" for i in reversed(ledger.incidents(open_only=True))]


def told(desk: Desk) -> list[str]:
    """Letters not withdrawn, oldest first."""
    with desk.world.store.read() as ledger:
        return [f"{letter['key']} {letter['channel']}" for letter in reversed(ledger.letters()) if letter["state"] != "dropped"]


def every_minute(desk: Desk, minutes: int) -> None:
    for _ in range(minutes):
        desk.later(60)
        desk.world.store.write(lambda ledger: escalate(desk.world, ledger, desk.world.clock()))


def test_the_end_of_a_storm_does_not_undo_a_person_s_halt(tmp_path):
    with many(tmp_path) as desk:
        verbs.halt(desk.world, "ada", "a migration")
        desk.server.up = False
        look(desk, *NAMES)
        assert f"{ALL} page" in opened(desk)
        desk.server.up = True
        look(desk, *NAMES, *NAMES)
        assert opened(desk) == [] and "a migration" in permit.halted(desk.world)


def test_a_halt_said_during_a_storm_outlives_it(tmp_path):
    with many(tmp_path) as desk:
        desk.server.up = False
        look(desk, *NAMES)
        verbs.halt(desk.world, "ada", "let me look")
        desk.server.up = True
        look(desk, *NAMES, *NAMES)
        assert opened(desk) == [] and "let me look" in permit.halted(desk.world)


def test_what_is_still_bad_when_the_storm_is_over_is_told(tmp_path):
    with many(tmp_path) as desk:
        desk.server.up = False
        look(desk, "a", "b", "c")
        desk.server.up = True
        look(desk, "b", "c", "b", "c")
        assert opened(desk) == ["a page"] and told(desk)[-1].startswith("incident-2/resolved")
        every_minute(desk, 1)
        assert told(desk)[-1] == "incident-1/escalated/1 ada"


def test_tickets_are_no_storm(tmp_path):
    with fraud(tmp_path) as desk:
        owner = "    watches:\n      - {check: service.owner, every: 10m}\n"
        reload(desk, lambda text: text.replace("    owner: ada\n", "").replace("    watches:\n", owner))
        reload(desk, lambda text: text.replace("notify:", extra(desk.server.address, ["a"]) + "notify:"))
        desk.server.up = False
        look(desk, "a")
        desk.server.up = True
        look(desk, "fraud", watch="service.owner")
        assert opened(desk) == ["a page", "fraud ticket"] and permit.halted(desk.world) == ""


def test_a_watch_that_turns_from_blind_to_bad_in_a_storm_leaves_its_ticket(tmp_path):
    with many(tmp_path) as desk:
        for _ in range(3):
            say(desk, "d/serving.ready", error("timeout"))
        assert opened(desk) == ["d ticket"]
        for name in ("a", "b", "c", "d", "d"):
            say(desk, f"{name}/serving.ready", fail("down"))
        assert opened(desk) == [f"{ALL} page"]
        for name in ("a", "b", "c", "d") * 2:
            say(desk, f"{name}/serving.ready", ok("up"))
        assert opened(desk) == [] and permit.halted(desk.world) == ""


def test_a_storm_in_a_silence_is_quiet_until_the_silence_is_over(tmp_path):
    with many(tmp_path) as desk:
        verbs.silence(desk.world, "*", timedelta(hours=1), "ada", "the data centre moves")
        desk.server.up = False
        look(desk, *NAMES)
        every_minute(desk, 5)
        assert f"{ALL} page" in opened(desk) and told(desk) == []
        every_minute(desk, 60)
        assert [line.split("/")[0] for line in told(desk)] == ["incident-2", "incident-2"]


def test_more_open_incidents_than_a_page_shows_are_all_seen_to(tmp_path):
    with fraud(tmp_path) as desk:
        now = desk.world.clock()
        for n in range(150):
            member = Member(f"s{n}/w", "serving.ready", now, "bad", "errors")
            desk.world.store.submit(lambda ledger, n=n, m=member: ledger.put_member(ledger.add_incident(f"s{n}", "page", "bad", now).id, m))
            wanted = {"runbook": "rollback", "service": f"s{n}", "mode": "suggest", "by": "x", "reason": "", "wanted_at": now}
            desk.world.store.submit(lambda ledger, wanted=wanted: ledger.want(**wanted))
        every_minute(desk, 1)
        with desk.world.store.read() as ledger:
            assert all(i.told for i in ledger.incidents(limit=200)) and len(ledger.runs(active_only=True)) == 150


def test_a_watch_the_configuration_no_longer_names_leaves_its_incident(tmp_path):
    with fraud(tmp_path) as desk:
        desk.server.factors["1"] = 9.0
        desk.look()
        assert opened(desk) == ["fraud page"]
        reload(desk, lambda text: text.replace("      - {check: serving.parity, every: 10m, needs: [serving.ready]}\n", ""))
        assert opened(desk) == [] and desk.world.store.signal("fraud/serving.parity") is None
        assert any("not watched any more" in what for what in desk.events("incident.cleared"))


def test_a_storm_ends_when_the_last_watch_in_it_is_no_longer_configured(tmp_path):
    with many(tmp_path) as desk:
        desk.server.up = False
        look(desk, *NAMES)
        assert permit.halted(desk.world)
        reload(desk, lambda text: text.replace(extra(desk.server.address), ""))
        assert opened(desk) == [] and permit.halted(desk.world) == ""


def test_a_look_that_comes_back_after_its_watch_was_removed_opens_nothing(tmp_path):
    with fraud(tmp_path) as desk:
        w, now = desk.world.find("fraud/serving.parity"), desk.world.clock()
        reload(desk, lambda text: text.replace("      - {check: serving.parity, every: 10m, needs: [serving.ready]}\n", ""))
        verdict = fail("too late")
        late = found(w, w.window(now), now, verdict, None, 0.1)
        assert desk.world.store.write(lambda ledger: fold(desk.world, ledger, w, late, verdict)) is None
        assert opened(desk) == []


def test_a_fail_that_was_seen_is_not_hidden_behind_a_watch_that_is_only_blind(tmp_path):
    with fraud(tmp_path) as desk:
        for _ in range(3):
            say(desk, "fraud/serving.ready", error("dns"))
        desk.server.factors["1"] = 9.0
        assert desk.look().status == "fail"
        assert sorted(opened(desk)) == ["fraud page", "fraud ticket"]


def test_a_watch_that_was_blind_in_a_page_and_then_fails_still_finds_its_runbook(tmp_path):
    with fraud(tmp_path) as desk:
        reload(desk, lambda text: text.replace("    owner: ada", "    owner: ada\n    causes: {errors: null}"))
        say(desk, "fraud/serving.ready", fail("down"))
        reload(desk, lambda text: text.replace(", needs: [serving.ready]", ""))
        for _ in range(3):
            say(desk, "fraud/serving.parity", error("dns"))
        say(desk, "fraud/serving.parity", fail("wrong answers"))
        with desk.world.store.read() as ledger:
            (incident,) = ledger.incidents(open_only=True)
            assert {m.watch: m.cause for m in incident.members}["fraud/serving.parity"] == "answers"
            assert [run.trigger for run in ledger.runs()][:1] == ["fraud/serving.parity"]
