"""The rules of incidents: pure functions over signals, members and silences."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from agent import incidents
from agent.incidents import LETTERS, Rules, follow
from agent.model import Event, Finding, Incident, Member, Signal, Silence, Status

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
STATUS = {letter: status for status, letter in LETTERS.items()}


def finding(status: Status, n: int = 0) -> Finding:
    at = T0 + timedelta(seconds=n)
    return Finding(0, "s/w", "s", "c", at, at, at, status, "because", None, {}, None, "rule", 0.1)


def after(letters: str, rules: Rules) -> Signal:
    """The signal after looks with these statuses, one letter each."""
    signal = None
    for n, letter in enumerate(letters):
        signal = follow(signal, finding(STATUS[letter], n), rules, seq=n + 1, kept=True)
    assert signal is not None
    return signal


def test_an_exact_fail_is_bad_at_once_and_two_good_looks_end_it():
    exact = Rules(exact=True)
    assert [after(letters, exact).state for letters in ("of", "off", "ofo", "ofoo")] == ["bad", "bad", "bad", "ok"]


def test_a_statistical_fail_waits_for_two_of_three():
    rules = Rules(bad=2, of=3)
    assert [after(letters, rules).state for letters in ("of", "ofo", "ofof", "off", "offoo")] == ["ok", "ok", "bad", "bad", "ok"]


def test_what_could_not_see_is_blind_after_three_looks_and_never_bad():
    assert [after("o" + "e" * n, Rules(exact=True)).state for n in (1, 2, 3)] == ["ok", "ok", "blind"]


def test_no_data_neither_opens_nor_ends_anything():
    assert after("nnnnn", Rules(exact=True)).state == "new"
    assert after("fnnnn", Rules(exact=True)).state == "bad"


def test_a_flapping_watch_stays_bad_until_it_is_steady():
    flapping = "ofoofoofoo"
    assert after(flapping, Rules(exact=True)).state == "bad"
    assert after(flapping + "ooo", Rules(exact=True)).state == "ok"


@given(st.text(alphabet="owfens", min_size=1, max_size=40), st.integers(1, 5), st.integers(1, 5), st.integers(1, 4), st.booleans())
def test_the_state_follows_its_definition_whatever_comes(letters, bad, more, clear, exact):
    rules = Rules(exact=exact, bad=bad, of=bad + more, clear=clear)
    signal = after(letters, rules)
    if signal.state == "bad":
        assert "f" in letters
    if letters[-1] == "f" and exact:
        assert signal.state == "bad"
    if set(letters) == {"o"}:
        assert signal.state == "ok"
    if "f" not in letters and "e" not in letters:
        assert signal.state in ("ok", "new")
    assert signal.statuses == letters[-incidents.KEPT :] and signal.seq == len(letters)


def test_a_fast_watch_keeps_a_row_only_when_it_says_something():
    fast, signal = timedelta(seconds=10), after("oo", Rules())
    assert incidents.keeps(None, Status.OK, fast, T0)
    assert not incidents.keeps(signal, Status.OK, fast, T0 + timedelta(minutes=5))
    assert incidents.keeps(signal, Status.NODATA, fast, T0 + timedelta(minutes=5))
    assert incidents.keeps(signal, Status.OK, fast, T0 + timedelta(hours=2))
    assert incidents.keeps(signal, Status.OK, timedelta(minutes=1), T0 + timedelta(minutes=5))


def test_what_needs_a_bad_watch_is_suppressed_by_it():
    bad = after("f", Rules(exact=True))
    assert incidents.suppressed_by(["s/w", "other"], {"s/w": bad}) == "s/w"
    assert incidents.suppressed_by(["s/w"], {"s/w": after("o", Rules())}) is None


def test_a_silence_matches_with_wildcards_and_only_in_its_time():
    silence = Silence(1, "fraud/*", T0, T0 + timedelta(hours=1), "ada", "upgrade")
    assert incidents.silenced("fraud/serving.ready", [silence], T0) is silence
    assert incidents.silenced("fraud/serving.ready", [silence], T0 + timedelta(hours=1)) is None
    assert incidents.silenced("other/serving.ready", [silence], T0) is None


def test_three_services_or_a_fifth_of_them_are_a_storm():
    now, near, far = T0, T0 - timedelta(seconds=5), T0 - timedelta(minutes=5)
    ten = timedelta(seconds=10)
    assert incidents.storm({"a": near, "b": near, "c": now}, 100, now, ten) == ["a", "b", "c"]
    assert incidents.storm({"a": near, "b": now}, 100, now, ten) == []
    assert incidents.storm({"a": near, "b": now}, 10, now, ten) == ["a", "b"]
    assert incidents.storm({"a": now}, 1, now, ten) == []
    assert incidents.storm({"a": far, "b": far, "c": now}, 3, now, ten) == []


def test_when_a_watch_last_looked_good_is_counted_back_from_its_statuses():
    ten = timedelta(seconds=10)
    assert incidents.last_good(None, ten) is None and incidents.last_good(after("ff", Rules()), ten) is None
    assert incidents.last_good(after("oo", Rules()), ten) == T0 + timedelta(seconds=1)
    assert incidents.last_good(after("offf", Rules()), ten) == T0 + timedelta(seconds=3) - 3 * ten


def change(kind: str, seconds: float, what: str = "version 2 serves") -> Event:
    return Event(1, T0 + timedelta(seconds=seconds), kind, what, "s")


def test_a_release_is_blamed_only_when_it_lies_between_the_last_good_look_and_the_onset():
    last_ok, onset = T0, T0 + timedelta(seconds=10)
    assert incidents.began_at_change(onset, last_ok, [change("change.version", 5)]) is not None
    assert incidents.began_at_change(onset, last_ok, [change("change.weights", 5)]) is not None, "a part of the traffic is a release for some"
    assert incidents.began_at_change(onset, last_ok, [change("change.version", -60)]) is None
    assert incidents.began_at_change(onset, last_ok, [change("change.config", 5)]) is None
    assert incidents.began_at_change(onset, None, [change("change.version", -600)]) is not None
    assert incidents.began_at_change(onset, None, [change("change.version", -6000)]) is None


def test_an_incident_opens_with_what_changed_nearest_first_or_with_what_was_watched():
    onset = T0 + timedelta(seconds=60)
    told = incidents.before_it(onset, [change("change.config", 10, "config changed"), change("change.version", 50)], ["router"])
    assert told == "changed before it: version 2 serves, 10s before; config changed, 50s before"
    assert incidents.before_it(onset, [], ["router", "config"]) == "no observed change before it (watched: config, router)"


def incident(**more: object) -> Incident:
    return replace(Incident(1, "s", "open", "page", "s: it broke", T0, T0), **more)


def test_the_line_is_told_one_after_the_other_until_somebody_acknowledges():
    quarter = timedelta(minutes=15)
    told = [incidents.due_to_tell(incident(), 3, quarter, T0 + minutes * timedelta(minutes=1)) for minutes in (0, 14, 15, 30, 300)]
    assert told == [1, 1, 2, 3, 3]
    acknowledged = incident(acknowledged_at=T0, told=1)
    assert incidents.due_to_tell(acknowledged, 3, quarter, T0 + timedelta(hours=3)) == 1
    assert incidents.due_to_tell(incident(state="resolved"), 3, quarter, T0) == 0


def test_the_likely_cause_is_the_data_when_its_contract_is_broken():
    members = (Member("s/answers", "serving.answers", T0, "refused", "answers"), Member("s/contract", "data.contract", T0, "nulls", "data"))
    assert "the data: contract" in incidents.likely_cause(incident(members=members), "rollback")
    assert "not this version" in incidents.likely_cause(incident(members=members[:1]), "rollback")
