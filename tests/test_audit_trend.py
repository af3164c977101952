"""How ready a service has been: budgets, repairs and comparisons, held to tables reckoned by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.audit.catalogue import SECTIONS, catalogue
from agent.audit.trend import evidence_budget, lines, readiness_budget, repairs, spans, trend, used

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
POINTS = {"pass": 1.0, "partial": 0.5, "fail": 0.0, "stale": 0.5, "unknown": 0.0, "n/a": 0.0}


def kept(days_ago: float, verdict: str = "READY", served: str | None = "7", final: float = 7.0, sections: Any = (), **states: str) -> dict[str, Any]:
    """A kept audit; states as `MON_01="fail"`, and whatever is not named passes."""
    named = {name.replace("_", "-"): state for name, state in states.items()}
    items = [{"item": name, "state": named.get(name, "pass"), "criteria": "a", "why": "seen"} for name in catalogue().items]
    return {
        "as_of": (NOW - days_ago * DAY).isoformat(),
        "verdict": verdict,
        "served": served,
        "final": final,
        "level": "R4" if final > 4.5 else "R3",
        "sections": dict.fromkeys(SECTIONS, 9.0) | dict(sections),
        "items": [{**one, "points": POINTS[one["state"]]} for one in items],
    }


def of(budgets: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(one for one in budgets if one["of"] == name)


@pytest.mark.parametrize(
    ("ago", "days"),
    [
        ([], []),
        ([3.0], [2.0]),  # an audit speaks for two days at most
        ([0.5], [0.5]),
        ([2.0, 1.0], [1.0, 1.0]),
        ([10.0, 1.0], [2.0, 1.0]),  # and what lies between is missing
        ([91.0, 89.5], [0.5, 2.0]),  # of one before the quarter only what reaches into it
        ([92.0], [0.0]),
    ],
)
def test_an_audit_speaks_until_the_next_and_for_two_days_at_most(ago: list[float], days: list[float]) -> None:
    assert [length for _, length in spans([kept(one) for one in ago], NOW)] == pytest.approx(days)


def test_a_section_spends_a_day_for_each_day_below_the_level() -> None:
    """Daily for 20 days; DATA at 4.5 (R3) on 15 of them, MON at 4.6 (R4) always: 15 of 14 days are spent, and none."""
    told = [kept(day, sections={"DATA": 4.5 if day <= 15 else 4.6, "MON": 4.6}) for day in range(20, 0, -1)]
    found = readiness_budget(spans(told, NOW))
    assert (of(found, "DATA")["days"], of(found, "DATA")["spent"], of(found, "DATA")["used"]) == (pytest.approx(15), True, pytest.approx(15 / 14))
    assert (of(found, "MON")["days"], of(found, "MON")["spent"]) == (0, False)
    assert found[0]["of"] == "DATA", "the most used first"


@pytest.mark.parametrize(
    ("states", "days", "spent"),
    [
        (["pass", "pass", "pass"], 0, False),
        (["partial", "pass", "pass"], 1, False),
        (["fail", "partial", "pass"], 2, False),  # what is allowed may be used
        (["fail", "partial", "unknown"], 3, True),
        (["n/a", "fail", "pass"], 1, False),
    ],
)
def test_a_blocker_spends_a_day_for_each_day_it_is_not_wholly_met(states: list[str], days: float, spent: bool) -> None:
    told = [kept(3 - place, MON_01=state) for place, state in enumerate(states)]
    one = of(readiness_budget(spans(told, NOW)), "MON-01")
    assert (one["days"], one["spent"], one["allowed_days"]) == (pytest.approx(days), spent, 2.0)


def test_only_blockers_have_a_budget_of_their_own() -> None:
    names = {one["of"] for one in readiness_budget([])}
    assert names == {*SECTIONS, *(name for name, item in catalogue().items.items() if item.criticality == "blocker")}


def test_evidence_is_counted_in_days_of_questions() -> None:
    """Ten days, of which on four 5 of 50 are stale or unknown and one of these does not apply on two: 4*4 + 2*1 = 18 of 498 item-days; the
    quarter allows 5 % of 50 * 90 = 225."""
    lost = {"DATA_01": "stale", "DATA_02": "unknown", "DATA_03": "stale", "DATA_04": "unknown"}
    told = [kept(day, **lost, DATA_05="unknown" if day > 8 else "n/a") for day in (10, 9, 8, 7)] + [kept(day) for day in range(6, 0, -1)]
    one = evidence_budget(spans(told, NOW), kept(0))
    assert (one["item_days"], one["share"], one["used"]) == (pytest.approx(18), pytest.approx(18 / 498), pytest.approx(18 / 225))
    assert not one["spent"]


def test_half_of_all_unseen_for_ten_days_has_spent_the_evidence_of_a_quarter() -> None:
    half = {name.replace("-", "_"): "unknown" for name in list(catalogue().items)[:25]}
    one = evidence_budget(spans([kept(day, **half) for day in range(10, 0, -1)], NOW), kept(0))
    assert (one["item_days"], one["share"], one["spent"]) == (pytest.approx(250), pytest.approx(0.5), True)


@pytest.mark.parametrize(
    ("states", "times", "mean", "since"),
    [
        (["fail", "pass"], 1, 1.0, None),
        (["fail", "fail", "partial"], 1, 2.0, None),
        (["fail", "unknown", "pass"], 1, 2.0, None),  # what is not seen is not mended
        (["fail", "stale", "unknown"], 1, None, 3),
        (["fail", "pass", "fail", "fail", "pass"], 2, 1.5, None),
        (["fail", "pass", "fail"], 2, 1.0, 1),
        (["fail", "n/a"], 1, 1.0, None),
    ],
)
def test_a_question_fails_from_the_audit_that_saw_it_to_one_that_sees_it_well(states: list[str], times: int, mean: Any, since: Any) -> None:
    told = [kept(len(states) - place, MON_01=state) for place, state in enumerate(states)]
    (one,) = repairs(told)
    assert (one["item"], one["times"], one["mean_days"]) == ("MON-01", times, mean if mean is None else pytest.approx(mean))
    assert one["since"] == (None if since is None else (NOW - since * DAY).isoformat())


def test_who_fails_again_and_again_comes_first() -> None:
    told = [kept(4, DATA_01="fail", MON_01="fail"), kept(3, DATA_01="fail"), kept(2, DATA_01="fail", MON_01="fail"), kept(1)]
    assert [(one["item"], one["times"]) for one in repairs(told)] == [("MON-01", 2), ("DATA-01", 1)]
    text = "\n".join(lines(trend("s", told, kept(0))))
    assert "repeat offender: MON-01 failed twice, mended in 1d on average" in text
    assert "\nDATA-01 failed once, mended in 3d on average" in text


def test_it_is_compared_with_the_last_the_last_ready_and_the_last_of_its_version() -> None:
    told = [
        kept(4, "READY", "6"),
        kept(3, "NOT-READY", "7", final=4.0, MON_01="fail"),
        kept(2, "NOT-READY", "8", final=3.0, MON_01="fail", DATA_01="fail"),
    ]
    found = trend("s", told, kept(0, "NOT-READY", "7", final=5.0, MON_01="partial"))["comparisons"]
    assert {key: (one["as_of"][:10], one["arrow"]) for key, one in found.items()} == {
        "last": ("2026-02-27", "up"),
        "last_ready": ("2026-02-25", "down"),
        "same_version": ("2026-02-26", "up"),
    }
    assert (found["last"]["better"], found["last"]["worse"], found["last_ready"]["worse"]) == (["DATA-01", "MON-01"], [], ["MON-01"])


def test_there_is_nothing_to_compare_where_the_quarter_has_none() -> None:
    found = trend("s", [kept(1, "NOT-READY", None)], kept(0, served=None))["comparisons"]
    assert (found["last_ready"], found["same_version"]) == (None, None)
    assert found["last"] is not None
    assert trend("s", [kept(93)], kept(0))["comparisons"]["last"] is None, "older than a quarter"


def test_what_is_held_to_something_else_now_moves_no_arrow() -> None:
    now = kept(0, MON_01="fail")
    next(one for one in now["items"] if one["item"] == "MON-01")["criteria"] = "b"
    last = trend("s", [kept(1)], now)["comparisons"]["last"]
    assert (last["arrow"], last["worse"]) == ("level", [])


def test_a_short_history_is_told_as_short() -> None:
    found = trend("s", [kept(3 / 1440)], kept(0))
    assert found["seen_days"] == pytest.approx(3 / 1440) and found["of_days"] == 90
    assert lines(found)[0] == "known: 1 kept audit, for 3m of 90 d"
    assert lines(trend("s", [], kept(0))) == [
        "nothing is known of the 90 days before: no audit of them was kept; `audit:` in the configuration keeps one daily"
    ]
    assert lines(None) == []


def test_a_spent_budget_is_said_so() -> None:
    told = [kept(day, sections={"DATA": 1.0}) for day in range(20, 0, -1)]
    found = trend("s", told, kept(0))
    assert used(found) == pytest.approx(20 / 14)
    assert "readiness budget: DATA SPENT, 20d of 14 d" in lines(found)


histories = st.lists(
    st.tuples(st.floats(0.01, 120, allow_nan=False), st.sampled_from(sorted(POINTS)), st.floats(0, 10)), max_size=25, unique_by=lambda one: one[0]
)


@settings(max_examples=40, deadline=None)
@given(histories)
def test_no_time_is_counted_twice_or_made_up(told: list[tuple[float, str, float]]) -> None:
    audits = [kept(ago, MON_01=state, sections={"MON": points}) for ago, state, points in sorted(told, reverse=True)]
    found = trend("s", audits, kept(0))
    assert 0 <= found["seen_days"] <= min(90.0, 2.0 * found["audits"]) + 1e-9
    assert all(0 <= one["days"] <= found["seen_days"] + 1e-9 for one in found["readiness"])
    assert found["evidence"]["item_days"] <= 50 * found["seen_days"] + 1e-9
    assert sum(one["times"] for one in found["repairs"]) <= len(audits)
    assert lines(found)


@settings(max_examples=40, deadline=None)
@given(histories)
def test_what_is_worse_never_spends_less(told: list[tuple[float, str, float]]) -> None:
    audits = [(ago, state) for ago, state, _ in sorted(told, reverse=True)]
    was, bad = (spans([kept(ago, MON_01=state) for ago, state in some], NOW) for some in (audits, [(ago, "fail") for ago, _ in audits]))
    assert of(readiness_budget(bad), "MON-01")["days"] >= of(readiness_budget(was), "MON-01")["days"]
    assert evidence_budget(was, kept(0))["item_days"] >= evidence_budget(bad, kept(0))["item_days"] == 0
