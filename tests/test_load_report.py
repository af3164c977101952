"""What a load test leaves for people and other programs: true to the run, small, well-formed, safe from what servers say, read by others' tools."""

import csv
import io
import json
import math
import re
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from xml.etree import ElementTree

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import error, fail, nodata, ok
from loadtests import _drawing, _export, _page, _percentiles, _summary
from loadtests._report import files
from loadtests._spec import KINDS, Arrivals, Trace, Traffic
from loadtests._summary import Limit, summary
from loadtests._verdict import judge

HOSTILE = "</svg></script><script>alert('x')</script>\"&]]>\x00\x1b[2J\ud800\N{RIGHT-TO-LEFT OVERRIDE}" + "x" * 300
SVG = "{http://www.w3.org/2000/svg}"
BEGAN = datetime(2026, 11, 27, 1, 2, 3, tzinfo=UTC)


def traced(intended, latency, kind=None, lag=0.0, queue=0.0, **more):
    """A run whose requests took so long; infinite where none came."""
    intended, latency = np.asarray(intended, float), np.asarray(latency, float)
    kind = np.where(np.isfinite(latency), 0, KINDS.index("timeout")) if kind is None else kind
    dispatched = intended + lag
    sent, done = dispatched + queue, np.where(np.isfinite(latency), intended + latency, np.nan)
    status = np.where(np.asarray(kind) == 0, 200, 0).astype(np.uint16)
    wall = float(np.nanmax(np.append(done, 0.0)))
    return Trace(intended, dispatched, sent, done, np.asarray(kind, np.uint8), status, BEGAN, wall, 1.0, **more)


def regular(seconds=60.0, rate=100.0, slow=0.01, errors=0, seed=1):
    """Constant arrivals with log-normal latencies around `slow`; the first `errors` of them fail."""
    intended = np.arange(round(seconds * rate)) / rate
    latency = np.random.default_rng(seed).lognormal(math.log(slow), 0.4, len(intended))
    latency[:errors] = np.inf
    return traced(intended, latency)


def traffic(seconds=60.0, rate=100.0, **more):
    return Traffic("http://127.0.0.1:8000/predict", "", Arrivals("constant", rate, seconds, seed=3), "", **more)


def told(trace, limits=(("p99", 0.99, 0.1),), make=ok, reason="PASS: it holds", warm=0.0, sent=None, unfit=()):
    sent = sent or traffic(float(trace.intended.max()) if len(trace.intended) else 1.0)
    judged = [Limit(name, q, most, judge(trace.intended, trace.latency, limit=most, quantile=q)) for name, q, most in limits]
    return summary(sent, trace, judged, make(reason), warm=warm, unfit=unfit)


def texts(svg):
    return [node.text for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


# The numbers


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.floats(1e-6, 1e3), st.just(math.inf)), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.95, 0.99, 0.999]))
def test_a_percentile_is_the_smallest_latency_that_enough_requests_do_not_exceed(latencies, q):
    point = next(p for p in told(traced(np.arange(len(latencies)) / 10.0, latencies))["percentiles"] if p["q"] == q)
    shown = math.inf if point["seconds"] is None else point["seconds"]
    at_most = sum(latency <= shown + 1e-9 for latency in latencies)
    below = sum(latency < shown - 1e-9 for latency in latencies)
    assert at_most >= q * len(latencies) - 1e-6
    assert below < q * len(latencies) + 1e-6


def test_an_interval_holds_the_true_percentile_as_often_as_it_says():
    truth, inside = -math.log(0.05), 0
    for seed in range(100):
        latency = np.random.default_rng(seed).exponential(1.0, 2000)
        found = _percentiles.points(latency, [0.95], _percentiles.Sure(1.0, 0.05, 1.0))
        inside += found[0]["interval"][0] <= truth <= found[0]["interval"][1]
    assert 81 <= inside <= 99, "two bounds, each wrong with 5 %: 90 of 100, within three standard deviations"


def test_a_percentile_that_the_run_cannot_support_is_said_to_be_so():
    by_name = {p["name"]: p for p in told(regular(seconds=60.0))["percentiles"]}
    assert by_name["p50"]["supported"]
    assert not by_name["p99.9"]["supported"]
    assert by_name["p99.9"]["interval"][1] is None


def test_the_parts_of_a_latency_are_its_clocks_and_the_slow_ones_are_told_apart():
    slow = np.r_[np.full(50, 0.2), np.full(950, 0.01)]
    stuck = told(traced(np.arange(1000) / 100.0, slow, lag=0.001, queue=np.where(slow > 0.1, 0.15, 0.0)))
    assert stuck["over"] == {"limit": 0.1, "n": 50, "unanswered": 0, "lag": 0, "queue": 50, "server": 0}
    assert stuck["clocks"]["lag"]["p50"] == pytest.approx(0.001)
    assert stuck["clocks"]["queue"]["max"] == pytest.approx(0.15)
    assert _page.diagnosis(stuck) == "All 50 requests over 100 ms spent most of their time waiting for a connection."
    late = told(traced(np.arange(1000) / 100.0, slow, lag=np.where(slow > 0.1, 0.19, 0.0)))
    assert late["over"]["lag"] == 50


@settings(max_examples=25, deadline=None)
@given(st.floats(0.5, 5000), st.integers(1, 2000))
def test_every_request_is_in_one_window_and_there_are_not_too_many(seconds, count):
    windows = told(traced(np.linspace(0, seconds, count), np.full(count, 0.01)))["windows"]
    assert sum(w["n"] for w in windows) == count
    assert len(windows) <= _summary.WINDOWS + 1


def test_the_warm_up_is_drawn_and_not_judged():
    intended = np.arange(1000) / 100.0
    warm = told(traced(intended, np.where(intended < 2.0, 5.0, 0.01)), warm=2.0)
    assert warm["requests"] == 800
    assert max(p["seconds"] for p in warm["percentiles"]) == pytest.approx(0.01)
    assert warm["windows"][0]["max"] == pytest.approx(5.0)
    assert "warm-up, sent and not judged" in _page.page(warm).decode()


def test_the_json_is_strict_and_says_none_for_what_did_not_come():
    body = files(told(regular(errors=200), make=fail, reason="FAIL"), regular(errors=200))["load.json"]
    value = json.loads(body, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert value["format"] == _summary.FORMAT
    assert (value["outcome"], value["answers"]) == ("fail", {"good": 5800, "timeout": 200})
    assert next(p for p in value["percentiles"] if p["name"] == "p99")["seconds"] is None


@pytest.mark.parametrize(
    ("make", "aborted", "outcome"),
    [(ok, "", "pass"), (fail, "errors", "fail"), (nodata, "", "inconclusive"), (error, "", "invalid"), (error, "x", "aborted")],
)
def test_an_outcome_follows_from_the_verdict(make, aborted, outcome):
    trace = traced([0.0, 0.1], [0.01, 0.01], aborted=aborted)
    assert told(trace, make=make)["outcome"] == outcome


def test_no_limit_of_a_closed_loop_is_a_pass():
    trace = regular(seconds=400.0, rate=20.0)
    assert told(trace)["limits"][0]["outcome"] == "pass"
    closed = told(replace(trace, closed=5), make=nodata)
    assert (closed["limits"][0]["outcome"], closed["outcome"]) == ("inconclusive", "inconclusive")


def test_tokens_have_their_own_times():
    trace = traced([0.0, 1.0], [1.0, 2.0], first=np.array([0.2, 0.4]), tokens=np.array([5, 9]), gaps=np.full(12, 0.2))
    tokens = told(trace)["tokens"]
    assert tokens["each"]["p50"] == pytest.approx(0.2)
    assert (tokens["first"]["max"], tokens["tokens"]) == (pytest.approx(0.4), 14)
    assert "until the first token" in _page.page(told(trace)).decode()


# What others' tools read


def read_back(body, tmp_path):
    path = tmp_path / "load.hlog"
    path.write_bytes(body)
    whole, intervals = HdrHistogram(_export.LOWEST, _export.HIGHEST, _export.DIGITS), 0
    reader = HistogramLogReader(str(path), whole)
    while (one := reader.get_next_interval_histogram()) is not None:
        whole.add(one)
        intervals += 1
    return reader, whole, intervals


def test_the_histogram_log_reads_back_to_three_digits(tmp_path):
    trace = regular(seconds=30.0, errors=30)
    reader, whole, intervals = read_back(files(told(trace), trace, everything=True)["load.hlog"], tmp_path)
    assert (whole.get_total_count(), intervals) == (3000, 30)
    assert reader.get_start_time_sec() == BEGAN.timestamp()
    rising = np.sort(trace.latency)
    for q in (0.5, 0.9, 0.95, 0.98):
        assert whole.get_value_at_percentile(100 * q) == pytest.approx(rising[math.ceil(q * 3000) - 1] * 1e9, rel=1.1e-3)
    assert whole.get_value_at_percentile(100) == pytest.approx(_export.HIGHEST, rel=1e-3), "what had no good answer is slower than all else"


@settings(max_examples=20, deadline=None)
@given(st.lists(st.one_of(st.floats(0, 7200), st.just(math.inf), st.just(math.nan)), min_size=1, max_size=50))
def test_no_latency_is_lost_in_a_histogram_however_strange(latencies):
    ours, theirs = _export._histogram(np.array(latencies)), HdrHistogram(_export.LOWEST, _export.HIGHEST, _export.DIGITS)
    for latency in latencies:
        theirs.record_value(round(min(latency if latency == latency else math.inf, 3600.0) * 1e9))
    assert ours.get_total_count() == len(latencies)
    for q in (0, 50, 90, 100):
        assert ours.get_value_at_percentile(q) == theirs.get_value_at_percentile(q), "counted one by one they are where they are"


def test_the_percentile_text_is_what_the_plotter_takes():
    trace = regular(seconds=10.0)
    lines = _export.percentile_text(trace).decode().splitlines()
    assert lines[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    rows = [line.split() for line in lines[2:] if line and not line.startswith("#")]
    assert float(rows[-1][0]) == pytest.approx(trace.latency.max() * 1e3, rel=1e-3), "milliseconds"
    assert int(rows[-1][2]) == 1000


def test_junit_has_a_case_for_each_limit_and_a_word_for_each_outcome():
    trace = regular(seconds=60.0, slow=0.05)
    limits = (("p50", 0.5, 0.02), ("p99", 0.99, 5.0), ("p99.9", 0.999, 5.0))
    (suite,) = ElementTree.fromstring(_export.junit(told(trace, limits, fail, "FAIL: p50 is 50 ms\nmore of it")))
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "3",
        "failures": "1",
        "errors": "0",
        "skipped": "2",
    }
    cases = {case.get("name"): [child.tag for child in case] for case in suite.iter("testcase")}
    assert cases == {"p50 at most 20 ms": ["failure"], "p99 at most 5 s": ["skipped"], "p99.9 at most 5 s": ["skipped"]}
    (bad,) = ElementTree.fromstring(_export.junit(told(trace, limits, error, "INVALID: the generator was the bottleneck")))
    assert (bad.get("errors"), bad.get("failures")) == ("3", "0")
    aborted = traced([0.0, 0.1], [0.01, 0.01], aborted="interrupted")
    (ended,) = ElementTree.fromstring(_export.junit(told(aborted, make=error, reason="aborted after 1s: interrupted")))
    assert (ended.get("errors"), ended.get("skipped")) == ("1", "0")
    (none,) = ElementTree.fromstring(_export.junit(told(trace, ())))
    assert (none.get("tests"), none.get("failures")) == ("1", "0")


def test_the_csv_has_a_line_for_each_window():
    trace = regular(seconds=20.0, errors=150)
    rows = list(csv.DictReader(io.StringIO(_export.windows_csv(told(trace)).decode())))
    assert (len(rows), sum(int(row["n"]) for row in rows), sum(int(row["errors"]) for row in rows)) == (20, 2000, 150)
    assert rows[0]["p50"] == "", "nothing was answered in the first second"
    assert float(rows[5]["p50"]) == pytest.approx(np.sort(trace.latency[500:600])[49], rel=1e-9)


# The page and its pictures


def drawn_numbers(svg):
    return [float(n) for node in ElementTree.fromstring(svg).iter() for n in re.findall(r"-?\d+\.?\d*", node.get("d", ""))]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.one_of(st.floats(1e-9, 1e5), st.just(math.inf)), min_size=1, max_size=60),
    st.floats(1e-6, 1e4),
    st.integers(0, 100_000).map(lambda ms: ms / 1000),
)
def test_a_picture_is_well_formed_and_stays_inside_itself(latencies, limit, seconds):
    value = told(traced(np.linspace(0, seconds, len(latencies)), latencies), (("p90", 0.9, limit),))
    for svg in (_drawing.over_time(value), _drawing.by_percentile(value)):
        if svg:
            assert all(-_drawing.WIDE <= number <= _drawing.WIDE for number in drawn_numbers(svg))
    assert value["windows"]


def test_errors_and_limits_are_marked_in_the_pictures():
    value = told(regular(errors=300), (("p99", 0.99, 0.1),), fail, "FAIL")
    assert {"no answer", "p99 limit 100 ms", "0 s", "1 min"} <= set(texts(_drawing.over_time(value)))
    assert {"no good answer", "p99 limit 100 ms", "p50", "p99", "grey: beyond what this run can say"} <= set(texts(_drawing.by_percentile(value)))


def test_words_of_servers_are_text_wherever_they_stand():
    trace = traced(np.arange(100) / 10.0, np.r_[np.full(50, np.inf), np.full(50, 0.01)], said={HOSTILE: 50})
    sent = Traffic(f"http://h/{HOSTILE}", "", Arrivals(seconds=10.0), "", method=HOSTILE)
    made = files(told(trace, make=fail, reason=f"{HOSTILE}\n{HOSTILE}", sent=sent, unfit=(HOSTILE,)), trace, everything=True)
    for name in ("load.html", "load.xml", "latency.svg", "percentiles.svg"):
        body = made[name].decode()
        assert "<script" not in body, name
        assert all(character.isprintable() or character == "\n" for character in body), name
    ElementTree.fromstring(made["load.xml"])
    page = made["load.html"].decode()
    assert "alert(&#x27;x&#x27;)" in page
    json.loads(made["load.json"])


def test_no_file_holds_what_a_url_hides():
    sent = Traffic("http://ada:s3cret@h:80/predict?api_key=s3cret", "", Arrivals(seconds=60.0), "", headers={"Authorization": "Bearer s3cret"})
    made = files(told(regular(), sent=sent), regular(), everything=True)
    assert not [name for name, body in made.items() if b"s3cret" in body]
    assert "http://h:80/predict" in made["load.html"].decode()


def test_the_page_needs_no_network_and_no_script_and_says_what_it_rests_on():
    trace = regular(seconds=400.0, rate=20.0)
    value = told(trace, make=ok, reason="PASS: p99 is 25ms, limit 100ms; valid for bursts up to 1s")
    page = _page.page(value).decode()
    assert not re.search(r"<script|<link|src=|@import|url\(|\son\w+=", page)
    assert not set(re.findall(r"https?://[^\s\"'<]+", page)) - {"http://www.w3.org/2000/svg", "http://127.0.0.1:8000/predict"}
    for said in ("PASS", "valid for bursts up to 1s", "constant arrivals at 100 a second", "design effect", "Generator lag", "The generator kept up"):
        assert said in page, said
    assert page.count('role="img"') == 2
    assert page.count("<title") >= 3
    assert re.search(r'<html lang="en">', page)


def test_a_page_says_when_nothing_follows_from_its_run():
    trace = traced([0.0, 0.1, 0.2], [0.01, 0.01, 0.01], aborted="half of the requests failed", closed=5, lost=1)
    page = _page.page(told(trace, make=error, reason="INVALID: x", unfit=("lag p99 is 40 ms, and may be 10 ms",))).decode()
    for said in (
        "half of the requests failed",
        "A closed loop",
        "may be far too low",
        "The generator was the bottleneck",
        "lag p99 is 40 ms",
        "1 lost",
    ):
        assert said in page, said


def test_ten_minutes_at_a_thousand_a_second_are_a_page_below_300_kB():
    rng = np.random.default_rng(5)
    intended = np.cumsum(rng.exponential(0.001, 600_000))
    latency = np.where(rng.random(600_000) < 0.001, np.inf, rng.lognormal(-5, 1, 600_000))
    trace = traced(intended, latency, said={f"{k} {HOSTILE}": 1 for k in range(100)})
    value = told(trace)
    assert len(_page.page(value)) < 300_000
    made = files(value, trace)
    assert set(made) == {"load.json", "latency.svg", "percentiles.svg"}
    assert sum(map(len, made.values())) < 300_000


@pytest.mark.parametrize(
    "trace", [traced([], []), traced([0.0], [0.01]), traced([0.0], [math.inf]), traced([0.0, 0.0], [0.0, 0.0])], ids=["none", "one", "lost", "still"]
)
def test_a_run_of_hardly_anything_still_has_every_file(trace):
    made = files(told(trace, make=nodata, reason="INCONCLUSIVE: hardly anything was sent"), trace, everything=True)
    assert {"load.html", "load.xml", "load.csv", "load.hlog", "load.hgrm", "load.json"} <= set(made)
    ElementTree.fromstring(made["load.xml"])


def test_a_browser_shows_the_page_without_a_word_of_complaint(chromium, tmp_path):
    page = tmp_path / "load.html"
    page.write_bytes(_page.page(told(regular(errors=30), make=fail, reason="FAIL: too slow")))
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}")
    done = subprocess.run([chromium, *flags, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.stdout.count("<svg") == 2
    assert "CONSOLE" not in done.stderr
