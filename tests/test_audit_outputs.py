"""The audit's one result and what is made of it: held to schemas, to itself, and to promises over whatever answers there are."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
from collections import Counter
from contextlib import closing
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import audit
from agent.audit import canonical, exchange, pages
from agent.audit.catalogue import SECTIONS, catalogue
from agent.audit.comparing import ORDER
from agent.audit.doing import todo
from agent.audit.gates import gate
from agent.audit.hurt import Hurt
from agent.audit.markdown import markdown
from agent.audit.readiness import Beside, rescored, result
from agent.audit.schema import SCHEMA
from agent.audit.scoring import Answer, Evidence
from agent.errors import ConfigError
from tests.conftest import HOUSE, library
from tests.test_cli import Desk, program

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
ITEMS = catalogue().items
SAID = ("pass", "partial", "fail")
REST = Evidence("finding", "server", "independent", NOW - DAY, "serving.ready@1", "{}", "finding 7", "ab" * 32, 7)
answers = st.dictionaries(
    st.sampled_from(sorted(ITEMS)),
    st.builds(
        Answer,
        st.sampled_from(SAID),
        st.integers(0, 500).map(lambda days: NOW - timedelta(days=days)),
        st.booleans(),
        st.sampled_from([None, "6", "7"]),
        st.sampled_from(["seen", "0.25 of \u00fcber", "a\nb"]),
        st.booleans(),
        st.sampled_from([(), (REST,)]),
    ),
)


def told(given: dict[str, Answer], as_of: datetime = NOW, **more: Any) -> dict[str, Any]:
    """A service's result, as it is read again from its file."""
    made = result(given, Beside("fraud", as_of, **{"served": "7", "attached": frozenset({"server", "tables"}), **more}))
    return json.loads(canonical.canonical(made))


def report(*services: dict[str, Any], as_of: datetime = NOW) -> dict[str, Any]:
    """A whole audit around results, with nothing in the record."""
    nothing: dict[str, Any] = {key: [] for key in ("incidents", "runs", "findings", "changes", "drills")}
    about = {"state": "ok", "owner": "ada", "team": "", "escalation": [], "mode": "observe", "modes": {}, "served": None, "last_known_good": None}
    return {
        "format": canonical.FORMAT,
        "as_of": as_of.isoformat(),
        "since_at": (as_of - 30 * DAY).isoformat(),
        "config": {"path": "watchkeeper.yaml", "digest": "c" * 64},
        "store": "watchkeeper.db",
        "evidence": {"verified": True, "problems": [], "links": 7, "last_link": "d" * 64},
        "looking": {"events": []},
        "everywhere": [],
        "services": [
            {"service": f"s{n}", **nothing, **about, "targets": {}, "pillars": {}, "watched_for_changes": [], "readiness": one}
            for n, one in enumerate(services)
        ],
    }


def word(kind: str, item: str, **more: Any) -> dict[str, Any]:
    """What a person stands for, until a month from now."""
    until = (NOW + 30 * DAY).isoformat()
    return {"kind": kind, "item": item, "by": "grace", "until_at": until, "note": "looked at it", "reason": "accepted-risk", "void": "", **more}


def every(said: str = "pass", **more: Any) -> dict[str, Answer]:
    return {name: Answer(said, NOW, **more) for name in ITEMS}  # type: ignore[arg-type]


def audited(desk: Desk) -> dict[str, Any]:
    return json.loads((desk.folder / "a.json").read_bytes())


# The one result


def problems(schema: dict[str, Any], value: Any) -> list[str]:
    validators = library("jsonschema").validators
    kind = validators.validator_for(schema)
    return [f"{list(one.absolute_path)}: {one.message[:200]}" for one in kind(schema).iter_errors(value)]


def test_what_is_written_is_what_the_schema_says(desk: Desk) -> None:
    found = audited(desk)
    assert problems({"$ref": SCHEMA["$schema"]}, SCHEMA) == [], "it is a schema itself"
    assert problems(SCHEMA, found) == []
    assert problems(SCHEMA, audit.compared(found, found)) == []
    for change in (lambda r: r.pop("as_of"), lambda r: r["services"][0]["readiness"]["items"][0].update(state="good")):
        broken = deepcopy(found)
        change(broken)
        assert problems(SCHEMA, broken)


@settings(max_examples=3, deadline=None)
@given(answers)
def test_whatever_is_known_fits_the_schema_and_survives_its_file(given: dict[str, Answer]) -> None:
    made = report(told(given, questions=({"question": "q?", "answer": None, "why": "w"},), hurt=Hurt({"drift": 2}, {"entanglement": 0.5}, 0.25)))
    assert problems(SCHEMA, made) == []
    assert canonical.canonical(json.loads(canonical.canonical(made))) == canonical.canonical(made)


def test_numbers_are_the_same_wherever_they_were_added_up() -> None:
    assert canonical.canonical({"b": 0.1 + 0.2, "a": -0.0, "c": float("nan"), "d": [1, True, "x"]}) == (
        b'{\n "a": 0.0,\n "b": 0.3,\n "c": null,\n "d": [\n  1,\n  true,\n  "x"\n ]\n}\n'
    )


def test_the_same_evidence_gives_the_same_bytes_twice_and_in_two_time_zones(desk: Desk) -> None:
    made: list[dict[str, bytes]] = []
    for zone in ("UTC", "Pacific/Auckland"):
        folder = desk.folder / zone.replace("/", "-")
        folder.mkdir()
        files = [word for form in ("json", "html", "md", "sarif", "svg", "csv", "xml") for word in ("--out", folder / f"a.{form}")]
        run = program("-c", desk.path, "audit", "replay", desk.folder / "a.json", "--as-of", audited(desk)["as_of"], *files, TZ=zone)
        done = subprocess.run(**{**run, "env": {**run["env"], "PYTHONHASHSEED": str(len(zone))}}, capture_output=True)
        assert done.returncode == 0, done.stderr
        made.append({path.name: path.read_bytes() for path in sorted(folder.iterdir())})
    assert made[0] == made[1] and len(made[0]) == 7
    again = json.loads(made[0]["a.json"])
    for service in again["services"]:
        service["readiness"]["changes"] = None
        for one in service["readiness"]["items"]:
            assert one.pop("delta")["state"] == "unchanged"
    assert canonical.canonical(again) == (desk.folder / "a.json").read_bytes(), "scored again as of the same moment it is the same audit"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "is no audit of this format"),
        ('{"format": "watchkeeper-audit/9"}', "'watchkeeper-audit/9'"),
        ('{"format": "watchkeeper-audit/1", "services": [{}]}', "is not whole"),
        ('{"format": "watchkeeper-audit/1", "services": [{"readiness": {"items": [{"item": "A", "state": 1, "points": "x"}]}}]}', "is not whole"),
    ],
)
def test_a_file_that_is_no_audit_is_refused_with_the_next_move(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(said)):
        canonical.read(tmp_path / "a.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        canonical.read(tmp_path / "none.json")


# What is made of it


def test_sarif_fits_its_schema_and_holds_what_fails_and_nothing_that_passes(desk: Desk) -> None:
    log, items = json.loads((desk.folder / "a.sarif").read_bytes()), audited(desk)["services"][0]["readiness"]["items"]
    assert problems(json.loads((HOUSE / "tests" / "data" / "sarif.schema.json").read_bytes()), log) == []
    (run,) = log["runs"]
    short = {one["item"] for one in items if one["state"] in ("fail", "partial")}
    assert {one["ruleId"] for one in run["results"]} == short and short
    assert {one["id"] for one in run["tool"]["driver"]["rules"]} == set(ITEMS)
    assert all(one["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "watchkeeper.yaml" for one in run["results"])


def test_a_waiver_is_a_suppression_and_a_change_a_baseline_state() -> None:
    waiver = word("waived", "DEPL-05")
    before, now = report(told(every())), report(told({**every(), "DEPL-05": Answer("fail", NOW)}, waivers={"DEPL-05": waiver}))
    (found,) = json.loads(exchange.sarif(audit.compared(now, before)))["runs"][0]["results"]
    assert (found["ruleId"], found["level"], found["baselineState"]) == ("DEPL-05", "error", "updated")
    assert found["suppressions"] == [{"kind": "external", "status": "accepted", "justification": "grace: accepted-risk, looked at it"}]
    assert found["properties"]["waiver"] == waiver
    again = json.loads(exchange.sarif(report(told({**every(), "DEPL-05": Answer("partial", NOW)}))))["runs"][0]["results"][0]
    assert again["partialFingerprints"] == found["partialFingerprints"], "the same finding, whatever it says today"


def test_junit_counts_what_is_not_known_as_an_error_and_never_as_a_pass(desk: Desk) -> None:
    root = ElementTree.fromstring((desk.folder / "a.xml").read_bytes())
    items = audited(desk)["services"][0]["readiness"]["items"]
    ends = Counter({"pass": "passed", "partial": "failure", "fail": "failure"}.get(one["state"], "error") for one in items)
    assert [suite.get("name") for suite in root] == [f"fraud.{section}" for section in SECTIONS]
    assert (int(root.get("tests")), int(root.get("failures")), int(root.get("errors"))) == (50, ends["failure"], ends["error"])  # type: ignore[arg-type]
    for suite in root:
        cases = suite.findall("testcase")
        assert int(suite.get("tests", 0)) == len(cases) == 10
        for end, key in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            assert int(suite.get(key, 0)) == sum(case.find(end) is not None for case in cases)
        assert set(suite.keys()) <= {"name", "tests", "failures", "errors", "skipped", "time", "timestamp"}
    drill = next(case for case in root.iter("testcase") if case.get("name", "").startswith("DEPL-04"))
    assert "Do: let a new version" in (drill.findtext("failure") or "")


def test_text_that_xml_cannot_hold_or_a_spreadsheet_would_run_does_no_harm() -> None:
    hostile = told({"DEPL-05": Answer("fail", NOW, observed="\x00\x1b]]>&<b>\ufffe")})
    for one in hostile["items"]:
        one["why"] = "=1+1" if one["item"] == "DATA-01" else one["why"]
    root = ElementTree.fromstring(exchange.junit(report(hostile)))
    assert any("\ufffd" in (one.text or "") for one in root.iter("failure"))
    rows = list(csv.reader(io.StringIO(exchange.table(report(hostile)).decode())))
    assert rows[1][6] == "'=1+1" and len(rows) == 51 and {len(row) for row in rows} == {10}


def test_markdown_mentions_nobody_and_makes_no_markup_of_what_others_wrote() -> None:
    made = report(told({"DEPL-05": Answer("fail", NOW, observed="<img src=x> @grace [a](http://b) | `c`\n## big")}))
    text = markdown(made)
    assert "\\<img" in text and "\\@grace" in text and "\\[a\\](http" in text and "\\#\\# big" in text
    assert len(text) < 10_000 and "Do first" in text


def test_the_badge_tells_the_worst_service() -> None:
    good, bad = told(every()), told({})
    assert "READY R5 10/10" in exchange.badge(report(good)).decode()
    both = exchange.badge(report(good, bad)).decode()
    assert "UNVERIFIED R0 0/10" in both
    ElementTree.fromstring(both)
    assert "no service" in exchange.badge(report()).decode()


# The page


def test_the_page_of_a_service_with_all_there_is_stays_small() -> None:
    long = {name: Answer("partial", NOW, observed="seen " * 40, evidence=(REST,) * 3) for name in ITEMS}
    now = audit.compared(report(told(long)), report(told(every())))
    lines = [{"at": NOW.isoformat(), "kind": "incident.looked", "what": "it is bad " * 12, "service": "s0", "run": 1}] * 100
    incident = {**dict.fromkeys(("acknowledged_by", "acknowledged_at", "resolved_at", "lasted")), "id": 7, "state": "open", "severity": "page"}
    incident |= {"title": "bad", "opened_at": NOW.isoformat(), "timeline": lines}
    now["services"][0].update(changes=lines, incidents=[incident] * 30)
    now["looking"] = {"events": lines}
    made = pages.page(now)
    assert len(made.encode()) <= 300_000
    assert "The newest 20 of 30; the JSON has all" in made
    for said in ("finding 7, server, independent", "regressed", "supports it, and never proves", "by serving.ready@1"):
        assert said in made


def test_the_page_says_what_people_stand_for_and_what_a_budget_has_left() -> None:
    said = (word("attested", "TEAM-09"), word("waived", "MON-01"))
    budget = {"objective": "availability", "used": 0.41, "spent": False, "said": "41 % used; gone in 3 h 20 min at this rate"}
    ready = told({"TEAM-09": Answer("pass", NOW, attested=True)}, attestations={"TEAM-09": said[0]}, waivers={"MON-01": said[1]}, budgets=(budget,))
    made = pages.page(report(ready))
    assert "41 % used; gone in 3 h 20 min at this rate" in made and "budget 59% left" in made
    assert made.count("grace") == 2 and "accepted-risk" in made and "waived" in made
    assert [name for name, _ in pages.clumps(ready, "TEAM")] == ["unknown or stale", "attested"]
    assert problems(SCHEMA, report(ready)) == []


def test_the_calendar_begins_with_what_runs_out_first() -> None:
    ready = told(every())
    until = [one["until_at"] for one in pages.calendar(ready, NOW.isoformat())]
    assert until == sorted(until) and until[0] == (NOW + DAY).isoformat() and len(until) == pages.SOON


def test_every_clause_names_its_questions_in_the_order_of_its_number() -> None:
    found = dict(pages.crosswalk(told(every())))
    assert [one["item"] for one in found["EU AI Act, Article 12"]] == ["DATA-05", "MODEL-01", "MON-02", "MON-10"]
    names = list(found)
    assert names.index("NIST AI RMF, MEASURE 2.6") < names.index("NIST AI RMF, MEASURE 2.10")


def luminance(colour: str) -> float:
    """Of a colour #rgb or #rrggbb, by WCAG 2.2."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * one for one in colour[1:])
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in (int(digits[n : n + 2], 16) / 255 for n in (0, 2, 4))
    ]
    return sum(part * value for part, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_every_colour_of_text_stands_out_from_what_is_behind_it_in_light_and_in_dark() -> None:
    text = (HOUSE / "agent" / "audit" / "page.html").read_text(encoding="utf-8")
    themes = [dict(re.findall(r"--(\w+): (#\w+)", line)) for line in text.splitlines() if ":root {" in line]
    assert len(themes) == 2
    for theme in themes:
        for ink in ("ink", "soft", "good", "bad", "warn", "blind"):
            for back in ("back", "card"):
                high, low = sorted((luminance(theme[ink]), luminance(theme[back])), reverse=True)
                assert (high + 0.05) / (low + 0.05) >= 4.5, f"{ink} on {back}"


def test_every_table_has_headers_that_say_what_they_head_and_every_picture_a_name(desk: Desk) -> None:
    made = (desk.folder / "a.html").read_text(encoding="utf-8")
    assert made.count("<main>") == made.count("<h1>") == made.count("<header>") == made.count("<footer>") == 1
    for table in re.findall(r"<table.*?</table>", made, re.DOTALL):
        heads = re.findall(r"<th\b([^>]*)>", table)
        assert heads and all("scope=" in one for one in heads), table[:200]
    assert all("role=" in one and "aria-label=" in one for one in re.findall(r"<svg[^>]*>", made))
    ids = re.findall(r'\bid="([^"]+)"', made)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', made)) <= set(ids)
    levels = [int(one) for one in re.findall(r"<h([1-6])", made)]
    assert all(after - before <= 1 for before, after in pairwise(levels)), "no level of headings is left out"
    assert "<script" not in made


def test_a_browser_shows_the_page_without_a_word_of_complaint(desk: Desk, chromium: Path, tmp_path: Path) -> None:
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}")
    done = subprocess.run([chromium, *flags, "--dump-dom", (desk.folder / "a.html").as_uri()], capture_output=True, text=True, timeout=120)
    assert "What to do first" in done.stdout
    assert "CONSOLE" not in done.stderr


# What changed


def test_what_changed_is_told_question_by_question_the_worst_first() -> None:
    old = {"DATA-01": Answer("pass", NOW), "DATA-03": Answer("pass", NOW), "MON-01": Answer("fail", NOW), "MON-02": Answer("pass", NOW)}
    new = {"DATA-01": Answer("partial", NOW), "MON-01": Answer("pass", NOW), "MON-02": Answer("pass", NOW), "MON-05": Answer("fail", NOW)}
    before, now = report(told(old)), report(told(new))
    before["services"][0]["readiness"]["items"] = [
        {**one, "criteria": "0" * 16} if one["item"] == "MON-02" else one
        for one in before["services"][0]["readiness"]["items"]
        if one["item"] != "TEAM-10"
    ] + [{**before["services"][0]["readiness"]["items"][0], "item": "ORG-01"}]
    changes = audit.compared(now, before)["services"][0]["readiness"]["changes"]
    states = {one["item"]: one["state"] for one in changes["items"] if one["state"] != "unchanged"}
    assert states == {
        "DATA-01": "regressed", "DATA-03": "went-stale", "ORG-01": "absent", "MON-02": "criteria-changed",
        "MON-05": "new", "TEAM-10": "new", "MON-01": "improved",
    }  # fmt: skip
    ranks = [ORDER.index(one["state"]) for one in changes["items"]]
    assert ranks == sorted(ranks) and changes["counts"]["regressed"] == 1


def test_what_stays_as_it_was_keeps_the_day_since_when() -> None:
    first = report(told({"DATA-01": Answer("fail", NOW)}))
    second = audit.compared(report(told({"DATA-01": Answer("fail", NOW + DAY)}, NOW + DAY), as_of=NOW + DAY), first)
    third = audit.compared(report(told({"DATA-01": Answer("fail", NOW + 2 * DAY)}, NOW + 2 * DAY), as_of=NOW + 2 * DAY), second)
    (delta,) = (one["delta"] for one in third["services"][0]["readiness"]["items"] if one["item"] == "DATA-01")
    assert (delta["state"], delta["since"]) == ("unchanged", NOW.isoformat())


def test_a_service_that_the_earlier_audit_did_not_have_has_nothing_to_compare() -> None:
    made = audit.compared(report(told({}), told({})), report(told({})))
    assert made["services"][1]["readiness"]["changes"] is None
    assert "not in the earlier audit" in audit.difference(made)
    assert gate("regression", [one["readiness"] for one in made["services"]]) == 3


@settings(max_examples=10, deadline=None)
@given(answers, st.integers(0, 900))
def test_a_stored_audit_scores_the_same_as_the_answers_it_was_made_of(given: dict[str, Answer], days: int) -> None:
    later = NOW + timedelta(days=days)
    assert canonical.canonical(rescored(told(given), "fraud", later)) == canonical.canonical(told(given, later))


def test_later_on_every_answer_is_stale_exactly_when_its_days_are_over(desk: Desk) -> None:
    ready = told(every())
    for item in ITEMS.values():
        for second, state in ((0, "pass"), (1, "stale")):
            then = rescored(ready, "fraud", NOW + timedelta(days=item.fresh, seconds=second))
            assert next(one["state"] for one in then["items"] if one["item"] == item.id) == state
    years = desk.json("audit", "replay", desk.folder / "a.json", "--as-of", "2036-01-01")
    assert years["services"][0]["readiness"]["fresh"] == 0
    assert "no time" in desk("audit", "replay", desk.folder / "a.json", "--as-of", "soon", code=2)


# What to do


def test_the_plan_tells_what_each_fix_earns_and_how_many_lift_the_score() -> None:
    ready = told({}, attached=frozenset({"server", "registry", "tables", "metrics", "code"}))
    final = 0.0
    for one in ready["plan"]:
        assert one["final"] >= final and one["gain"] > 0
        final = one["final"]
    assert final == ready["ceiling"], "all of it done comes to the best that can be had"
    for step in ready["steps"]:
        assert ready["plan"][step["do"] - 1]["final"] == step["final"]
    points = {one["item"]: one["points"] for one in ready["items"]} | {one["item"]: one["gain"] for one in ready["plan"][:6]}
    sums = [sum(value for name, value in points.items() if name.startswith(section)) for section in SECTIONS]
    assert ready["plan"][5]["final"] == min(sums), "added up by hand"


def test_the_plan_says_what_the_agent_can_do_itself_and_with_which_command(desk: Desk) -> None:
    (live,) = desk.json("audit", "plan", "fraud", "--live")
    assert {one["kind"] for one in live["plan"]} == {"live"} and all(command.startswith("watchkeeper ") for command in live["commands"])
    (safe,) = desk.json("audit", "plan", "--safe")
    assert {one["kind"] for one in safe["plan"]} <= {"safe"}
    text = desk("audit", "plan", "fraud")
    assert "fraud: 0/10 now; the first" in text and "score then" in text
    ready = told({"DEPL-05": Answer("fail", NOW)})
    (drill,) = [one for one in todo(ready, "fraud", ("live",))["plan"] if one["item"] == "DEPL-05"]
    assert drill["commands"] == ["watchkeeper drill rollback fraud"]


def test_what_has_cost_most_is_paid_down_first() -> None:
    ready = told({}, hurt=Hurt({"drift": 3}, {"entanglement": 2.0, "culture": 0.5}, 0.1))
    order = sorted(ready["debt"], key=lambda kind: ready["debt"][kind]["rank"])
    assert order[:2] == ["entanglement", "culture"] and ready["debt"]["entanglement"]["hours_a_week"] == 2.0


def test_the_hours_of_an_incident_go_to_the_debts_of_the_questions_its_watches_answer(desk: Desk) -> None:
    from agent import config, reach
    from agent.audit.hurt import hurt
    from agent.audit.known import Known

    made = config.load(desk.path)
    with reach.reading(made) as ledger:
        (incident,) = ledger.incidents(service="fraud")
        known = Known(made, ledger, made.services["fraud"], incident.opened_at + timedelta(hours=13))
        given = replace(incident, resolved_at=incident.opened_at + timedelta(hours=13))
        object.__setattr__(known, "__dict__", {**known.__dict__, "incidents": [given], "runs": []})
        cost = hurt(known)
        assert sum(cost.interest.values()) + cost.elsewhere == pytest.approx(1.0), "13 hours in 13 weeks, none lost"


# Gates


@pytest.mark.parametrize(
    ("wish", "given", "code"),
    [
        ("verdict", every(), 0),
        ("verdict", every("fail"), 1),
        ("verdict", {}, 3),
        ("blockers", every(), 0),
        ("blockers", {**every(), "DEPL-05": Answer("partial", NOW)}, 1),
        ("blockers", {name: one for name, one in every().items() if name != "DEPL-05"}, 3),
        ("level=R4", every(), 0),
        ("level=R4", every("fail"), 1),
        ("level=R4", {}, 3),
        ("section:MON>=6", {name: one for name, one in every().items() if name.startswith("MON")}, 0),
        ("section:MON>=6", {**every(), **{f"MON-0{n}": Answer("fail", NOW) for n in range(1, 7)}}, 1),
        ("section:MON>=6.5", {name: one for name, one in every().items() if name[-2:] in ("01", "02")}, 3),
    ],
)
def test_a_gate_tells_bad_from_not_known(wish: str, given: dict[str, Answer], code: int) -> None:
    assert gate(wish, [told(given)]) == code
    assert gate(wish, []) == 3


def test_the_ratchet_holds_up_only_what_got_worse() -> None:
    old = {"DATA-01": Answer("pass", NOW), "DATA-03": Answer("partial", NOW)}

    def code(new: dict[str, Answer], wish: str = "verdict", ratchet: bool = True) -> int:
        made = audit.compared(report(told(new)), report(told(old)))
        return gate(wish, [one["readiness"] for one in made["services"]], ratchet)

    assert code(old, ratchet=False) == 3 and code(old) == 0
    assert code({**old, "MON-01": Answer("pass", NOW)}) == 0
    assert code({**old, "DATA-01": Answer("partial", NOW)}) == 1
    assert code({"DATA-03": old["DATA-03"]}) == 3, "what is not seen any more is neither better nor worse"
    assert code({**old, "DATA-01": Answer("fail", NOW)}, "level=R0") == 0, "a gate that is met stays met"
    assert code({**old, "DATA-01": Answer("fail", NOW)}, "regression", ratchet=False) == 1


def test_the_command_compares_with_a_file_and_ends_by_the_one_table(desk: Desk, tmp_path: Path) -> None:
    base = desk.folder / "a.json"
    same = desk("audit", "run", "fraud", "--baseline", base, "--gate", "regression", "--format", "md")
    assert "Worse since" not in same
    assert "nothing to compare" not in desk("audit", "diff", base, base)
    better = json.loads(base.read_bytes())
    for one in better["services"][0]["readiness"]["items"]:
        if one["item"] == "TEAM-09":
            one.update(state="pass", points=1.0)
    (tmp_path / "b.json").write_bytes(canonical.canonical(better))
    assert "TEAM-09" in desk("audit", "diff", tmp_path / "b.json", base, code=1)
    desk("audit", "run", "fraud", "--json", "--baseline", tmp_path / "b.json", "--gate", "blockers", "--ratchet", code=1)
    desk("audit", "run", "fraud", "--json", "--baseline", base, "--gate", "blockers", "--ratchet", code=0)
    assert "give --baseline" in desk("audit", "run", "--gate", "regression", code=2)
    assert "names no format" in desk("audit", "run", "--out", tmp_path / "audit.doc", code=2)
    assert "cannot be written" in desk("audit", "run", "--out", tmp_path / "no" / "a.html", code=2)
    assert desk.json("audit", "run", "fraud", "--baseline", "last")["services"][0]["readiness"]["changes"] is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("name `owner:` & `<b>`", "name <code>owner:</code> &amp; <code>&lt;b&gt;</code>"),
        ("`x`", "<code>x</code>"),
        ("<i> ` alone", "&lt;i&gt; ` alone"),
    ],
)
def test_words_between_backticks_are_code_in_the_page_and_nothing_is_markup(text: str, shown: str) -> None:
    assert str(pages._code(text)) == shown


def test_an_audit_that_the_command_keeps_is_the_last_one_for_the_next(desk: Desk) -> None:
    desk("audit", "run", "fraud", "--json", "--keep")
    changes = desk.json("audit", "run", "fraud", "--baseline", "last")["services"][0]["readiness"]["changes"]
    assert changes is not None and {one["state"] for one in changes["items"]} <= {"unchanged", "improved"}


def test_the_last_audit_that_was_kept_is_what_the_next_is_compared_with(tmp_path: Path) -> None:
    from agent.store import Store

    with closing(Store.open(tmp_path / "a.db").start()) as store:
        for day in range(2):
            kept = report(told({"MON-01": Answer("pass" if not day else "partial", NOW + day * DAY)}, NOW + day * DAY), as_of=NOW + day * DAY)
            store.write(lambda ledger, kept=kept: audit.keep(ledger, kept))
        now = report(told({"MON-01": Answer("fail", NOW + 2 * DAY)}, NOW + 2 * DAY), as_of=NOW + 2 * DAY)
        with store.read() as ledger:
            before = audit.last(ledger, ["s0", "other"])
            earlier = audit.last(ledger, ["s0"], NOW)
            assert not list(audit.evidence(ledger)["problems"])
    assert [one["service"] for one in before["services"]] == ["s0"]
    found = audit.compared(now, before)["services"][0]["readiness"]["changes"]
    assert (found["since"], found["items"][0]["item"], found["items"][0]["state"]) == ((NOW + DAY).isoformat(), "MON-01", "regressed")
    assert earlier["as_of"] == NOW.isoformat()
