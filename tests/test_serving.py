"""The serving checks against real loopback servers, a real folder registry and a real SQLite log."""

from __future__ import annotations

import json
import math
import sqlite3
import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from agent import UTC, Answer, Locator, Status, Window
from agent.errors import AnswerError, DeadlineError, DeniedError, ServerError, UnreachableError
from agent.perform import perform
from agent.plugins import listing
from agent.targets import connect
from agent.targets.folder import record
from checks import serving
from checks._answers import finite, gaps
from tests.servers import folder, oip, plain, pointer


@pytest.fixture
def speaker():
    speaker = oip.Speaker(loaded=("1",))
    yield speaker
    speaker.stop()


@pytest.fixture
def server(speaker):
    return to(speaker)


@pytest.fixture
def registry(tmp_path):
    return to(folder.Speaker(tmp_path / "registry"), "registry")


def to(speaker, role="server", **more):
    return connect(Locator("fraud", role, speaker.url, speaker.options, **{"within": timedelta(seconds=5), **more}))


def patient(speaker, fault):
    """Only what hangs for ever may be given up soon: anything else is waited for, however busy the machine."""
    return to(speaker, within=timedelta(milliseconds=200) if fault == "hang" else timedelta(seconds=20))


def told(verdict, status, *words):
    assert verdict.status is status, verdict.reason
    for word in words:
        assert word in verdict.reason, verdict.reason


def test_every_serving_check_says_what_it_asks_and_what_its_fail_points_at():
    ours = {name: plugin for name, plugin in listing("check").items() if name.startswith("serving.")}
    promised = {name: (plugin.promises["cause"], plugin.promises.get("exact", False)) for name, plugin in ours.items()}
    assert promised == {
        "serving.way_back": ("", True),
        "serving.profile": ("", False),
        "serving.ready": ("errors", True),
        "serving.signature": ("answers", True),
        "serving.latency": ("latency", False),
        "serving.parity": ("answers", True),
        "serving.answers": ("answers", True),
        "serving.replay": ("answers", False),
    }
    assert [name for name, plugin in ours.items() if plugin.heavy] == ["serving.answers", "serving.profile", "serving.replay"]


# ready


def test_a_model_that_is_ready_is_ok_and_one_that_is_not_fails(speaker, server):
    told(serving.ready(server), Status.OK)
    speaker.up = False
    told(serving.ready(server), Status.FAIL, "not ready")


def test_a_server_that_cannot_be_seen_is_no_verdict(speaker, server):
    speaker.stop()
    for check in (serving.ready, serving.signature):
        with pytest.raises(UnreachableError):
            check(server)


# signature


def test_a_signature_as_registered_is_ok(server, registry):
    told(serving.signature(server, registry), Status.OK, "version 1")


@pytest.mark.parametrize(
    ("tensor", "told_as"),
    [
        ({"name": "x", "datatype": "FP64", "shape": [-1, 2]}, "input 'x' is FP32, registered FP64"),
        ({"name": "x", "datatype": "FP32", "shape": [-1, 3]}, "input 'x' has shape [-1, 2], registered [-1, 3]"),
        ({"name": "x", "datatype": "FP32", "shape": [2]}, "input 'x' has shape [-1, 2], registered [2]"),
        ({"name": "z", "datatype": "FP32", "shape": [-1, 2]}, "input 'z' is not there; input 'x' was not registered"),
    ],
)
def test_a_tensor_that_differs_is_named(server, tmp_path, tensor, told_as):
    lineage = {"signature": {"inputs": [tensor], "outputs": [{"name": "y", "datatype": "FP32", "shape": [5, 2]}]}}
    registry = to(folder.Speaker(tmp_path, lineage), "registry")
    told(serving.signature(server, registry), Status.FAIL, told_as)


def test_a_signature_that_nobody_states_is_no_data(server, tmp_path):
    silent = oip.Speaker(silent=("metadata",))
    told(serving.signature(to(silent), to(folder.Speaker(tmp_path / "a"), "registry")), Status.NODATA, "states no inputs")
    told(serving.signature(server, to(folder.Speaker(tmp_path / "b", {}), "registry")), Status.NODATA, "lineage={'signature'")
    told(serving.signature(server), Status.NODATA, "no registry is bound")
    silent.stop()


@pytest.mark.parametrize("recorded", ["FP32", {"inputs": ["x"]}, {"inputs": [{"name": "x"}]}])
def test_a_recorded_signature_that_cannot_be_read_is_an_error(server, tmp_path, recorded):
    told(serving.signature(server, to(folder.Speaker(tmp_path, {"signature": recorded}), "registry")), Status.ERROR, "cannot be read")


# latency


def test_latency_names_its_probes_its_quantile_and_its_interval(server, registry):
    verdict = serving.latency(server, registry, probes=25, limit=timedelta(seconds=4))
    told(verdict, Status.OK, "the 0.5 quantile of 25 of our own probes", "95 % interval")
    low, high = verdict.reading.interval
    assert 0 < low <= verdict.reading.observed <= high < 4
    assert (verdict.reading.n, verdict.reading.limit, verdict.reading.unit) == (25, 4, "s")


def test_latency_fails_only_when_the_whole_interval_is_above_the_limit(server, registry):
    told(serving.latency(server, registry, limit=timedelta(microseconds=1)), Status.FAIL, "above the limit")
    told(serving.latency(server, registry, limit=timedelta(microseconds=1), probes=4), Status.WARN, "not surely", "more probes")


def test_latency_takes_a_request_of_its_own_and_asks_for_one_without_golden_rows(server):
    told(serving.latency(server, request=oip.REQUEST), Status.OK)
    told(serving.latency(server), Status.NODATA, "with: {request", "from agent.targets.folder import record")
    told(serving.latency(server, request=oip.REQUEST, probes=0), Status.ERROR, "set `probes`")
    told(serving.latency(server, request=oip.REQUEST, quantile=1.0), Status.ERROR, "`quantile`")


@pytest.mark.parametrize(("fault", "error"), [("hang", DeadlineError), ("broken", ServerError)])
def test_latency_has_no_word_on_probes_that_failed(speaker, fault, error):
    speaker.fault = fault
    with pytest.raises(error):
        serving.latency(patient(speaker, fault), request=oip.REQUEST)


def test_latency_claims_no_interval_where_the_probes_are_too_few_for_one(server):
    verdict = serving.latency(server, request=oip.REQUEST, quantile=0.99)
    told(verdict, Status.OK, "too few for a 95 % interval")
    assert verdict.reading.interval is None


class Timed:
    """A server in the same process that took exactly so long: real ones are never punctual enough to test a limit on."""

    can: frozenset[str] = frozenset()

    def __init__(self, *seconds: float) -> None:
        self.seconds = iter(seconds)

    def infer(self, request):
        return Answer({}, None, next(self.seconds))


@pytest.mark.parametrize(("quick", "status"), [(5, Status.FAIL), (6, Status.WARN), (9, Status.WARN), (10, Status.OK)])
def test_latency_is_judged_by_the_binomial_interval_of_what_was_measured(quick, status):
    """20 probes bracket the median between the 6th and the 15th of them."""
    ranks = np.arange(1, 21)
    assert ranks[binom.cdf(ranks - 1, 20, 0.5) <= 0.025].max() == 6
    assert ranks[binom.sf(ranks - 1, 20, 0.5) <= 0.025].min() == 15
    server = Timed(0.001, *[0.02 + place / 1000 for place in range(quick)], *[0.06 + place / 1000 for place in range(quick, 20)])
    verdict = serving.latency(server, request={}, limit=timedelta(milliseconds=50))
    told(verdict, status)
    measured = sorted([0.02 + place / 1000 for place in range(quick)] + [0.06 + place / 1000 for place in range(quick, 20)])
    assert verdict.reading.interval == (measured[5], measured[14])
    assert verdict.reading.observed == measured[9]


# parity


def test_answers_as_recorded_are_ok(server, registry):
    told(serving.parity(server, registry), Status.OK, "version 1 answers all 5 golden rows as recorded")


def test_wrong_answers_fail_with_how_many_how_far_and_where(speaker, server, registry):
    speaker.factors["1"] = 2.5
    verdict = serving.parity(server, registry)
    told(
        verdict,
        Status.FAIL,
        "version 1 answers 4 of 5 golden rows otherwise",
        "worst in row 4: 'y' is 10, recorded was 8 (off by 2, allowed 0.00801)",
    )
    assert (verdict.reading.observed, verdict.reading.limit, verdict.reading.n) == (0.8, 0, 5)
    part = verdict.parts["y"]
    assert (part.observed, part.n, part.unit) == (2.0, 4, "rows")
    assert part.limit == pytest.approx(1e-5 + 1e-3 * 8)
    listed = json.loads(verdict.data["differences.json"])
    assert [(one["row"], one["output"], one["difference"]) for one in listed] == [(row, "y", row / 2) for row in range(1, 5)]


def test_a_wrong_label_is_told_as_it_is_and_not_as_a_distance(server, tmp_path):
    expected = {"outputs": [{"name": "y", "datatype": "INT64", "shape": [1], "data": [7]}]}
    speaker = plain.Speaker()
    verdict = serving.parity(to(speaker), registry_of(tmp_path, "1", [([1.0, 2.0], {"meta": {"version": 7}, "y": [2, 9]})]))
    told(verdict, Status.FAIL, "'meta.version' is '1', recorded was 7")
    told(serving.parity(to(speaker), registry_of(tmp_path / "b", "1", [([1, 2], {"y": [2, 9]})])), Status.FAIL, "off by 5, allowed 0.009")
    told(
        serving.parity(server, registry_of(tmp_path / "c", "1", [(oip.REQUEST, expected)])), Status.FAIL, "'y' has datatype FP32, recorded was INT64"
    )
    speaker.stop()


def test_tolerances_and_rows_can_be_given(speaker, server, registry):
    speaker.factors["1"] = 2.001
    told(serving.parity(server, registry), Status.OK)
    told(serving.parity(server, registry, rtol=1e-4), Status.FAIL, "4 of 5")
    told(serving.parity(server, registry, rtol=1e-4, rows=2), Status.FAIL, "1 of 2")
    told(serving.parity(server, registry, rtol=0.0, atol=1.0), Status.OK)


def test_the_golden_rows_of_the_served_version_are_the_ones_asked(registry):
    speaker = oip.Speaker("2")
    router = pointer.Speaker("2")
    told(serving.parity(to(speaker), registry), Status.OK, "version 2")  # two are loaded: the answer to a golden request tells
    told(serving.parity(to(oip.Speaker("2", silent=("version",))), registry), Status.NODATA, "nobody says which version is served")
    told(serving.parity(to(oip.Speaker("2", silent=("version",))), registry, to(router, "router")), Status.OK, "version 2")
    told(serving.parity(to(speaker).at("1"), registry), Status.OK, "version 1")
    told(serving.parity(to(speaker), registry, version="1"), Status.OK, "version 1")
    speaker.stop()
    router.stop()


def test_rows_that_another_version_answered_are_not_judged(registry):
    speaker = oip.Speaker("2", silent=("metadata",))
    router = pointer.Speaker("1")  # says 1, while 2 answers: the traffic is on its way
    server = to(speaker)
    told(serving.parity(server.at("1"), registry, version="1"), Status.OK)
    speaker.loaded = ("2",)
    assert server.version() == "2"
    plain_server = to(plain.Speaker("2", {"wrap": "x", "version": {"field": "meta.version"}}))
    told(
        serving.parity(plain_server, registry_of(registry.root.parent / "plain", "1"), version="1"),
        Status.NODATA,
        "2 answered",
        "split or just moved",
    )
    speaker.stop()
    router.stop()


def registry_of(root: Path, version: str, golden=(([1.0, 2.0], {"y": [2.0, 4.0]}),)):
    record(root, version, {}, golden=golden)
    return connect(Locator("fraud", "registry", f"folder:{root}"))


def test_plain_http_answers_are_compared_by_their_own_names(tmp_path):
    speaker = plain.Speaker()
    told(serving.parity(to(speaker), registry_of(tmp_path / "a", "1")), Status.OK, "all 1 golden rows")
    wrong = serving.parity(to(speaker), registry_of(tmp_path / "b", "1", [([1.0, 2.0], {"y": [2.0, 5.0], "z": 1, "meta": {"version": "0"}})]))
    told(wrong, Status.FAIL, "1 of 1")
    assert set(wrong.parts) == {"y", "z", "meta.version"}
    assert (wrong.parts["y"].observed, wrong.parts["z"].observed) == (1.0, None)
    speaker.stop()


def test_a_served_version_that_was_never_registered_is_said_to_be_so(registry):
    speaker = oip.Speaker("7", ("7",))
    told(serving.parity(to(speaker), registry), Status.NODATA, "version 7 is served and was never registered", "record(")
    speaker.stop()


def test_no_golden_rows_is_no_data_with_the_lines_that_record_them(server, tmp_path):
    record(tmp_path, "1", {})
    verdict = serving.parity(server, connect(Locator("fraud", "registry", f"folder:{tmp_path}")))
    told(verdict, Status.NODATA, "version 1 has no golden rows", "from agent.targets.folder import record; record(")


def test_the_lines_that_record_golden_rows_run_as_they_are_written(tmp_path, monkeypatch):
    lines = serving.RECORD.split("`")[1].replace(", ...]", "]")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").write_text("weights")
    exec(lines, {"path": "m", "request": {"x": 1}, "expected": {"y": 2}})
    assert connect(Locator("fraud", "registry", "folder:models/NAME", folder=str(tmp_path))).golden("VERSION").rows[0].expected == {"y": 2}


def test_golden_rows_that_were_changed_are_an_error_and_never_a_fail(server, registry):
    path = registry.root / "1" / "golden.json"
    path.write_text(path.read_text().replace("8.0", "8.5"))
    told(serving.parity(server, registry), Status.ERROR, "cannot be trusted", "golden.json")


def test_a_golden_request_that_is_refused_is_a_wrong_answer(server, tmp_path):
    request = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}
    verdict = serving.parity(server, registry_of(tmp_path, "1", [(request, {}), (oip.REQUEST, {})]))
    told(verdict, Status.FAIL, "1 of 2", "row 0: 'answer' cannot be compared", "400")


@pytest.mark.parametrize("fault", ["nan", "cut", "html"])
def test_an_answer_that_is_no_json_is_a_wrong_answer(speaker, server, registry, fault):
    server.infer(oip.REQUEST)
    speaker.fault = fault
    told(serving.parity(server, registry, version="1"), Status.FAIL, "5 of 5", "cannot be compared")


@pytest.mark.parametrize(("fault", "error"), [("broken", ServerError), ("redirect", AnswerError), ("hang", DeadlineError)])
def test_what_is_no_word_of_the_model_is_no_verdict(speaker, registry, fault, error):
    speaker.fault = fault
    with pytest.raises(error):
        serving.parity(patient(speaker, fault), registry, version="1")


@pytest.mark.parametrize(
    ("status", "expected"), [(401, DeniedError), (429, AnswerError), (503, ServerError)], ids=["no credential", "too many probes", "overloaded"]
)
def test_a_refusal_that_is_about_us_is_no_verdict(registry, status, expected):
    from tests.servers._loopback import Loopback

    loop = Loopback(lambda *_: (status, {"error": "no"}))
    loop.url, loop.options = f"oip+{loop.address}/m", {}
    with pytest.raises(expected):
        serving.parity(to(loop), registry, version="1")
    loop.stop()


# comparing


numbers = st.floats(allow_nan=True, allow_infinity=True, width=32) | st.sampled_from([0.0, -0.0, 1.0, 1.001, 1.00101])


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8), st.sampled_from([0.0, 1e-3, 0.5]), st.sampled_from([0.0, 1e-5, 1.0]))
def test_fractions_differ_exactly_when_numpy_says_that_they_are_not_close(pairs, rtol, atol):
    wanted, given = [left for left, _ in pairs], [right for _, right in pairs]
    with np.errstate(all="ignore"):
        close = bool(np.allclose(given, wanted, rtol=rtol, atol=atol))
    assert (not list(gaps({"y": wanted}, {"y": given}, rtol, atol))) == close
    tensor = {"name": "y", "datatype": "FP32", "shape": [len(pairs)]}
    assert (not list(gaps({"outputs": [{**tensor, "data": wanted}]}, {"outputs": [{**tensor, "data": given}]}, rtol, atol))) == close


def out(**more):
    return {"outputs": [{"name": "y", "datatype": "INT64", "shape": [1], "data": [7], **more}]}


@pytest.mark.parametrize(
    ("expected", "answer", "differs"),
    [
        (out(), out(), ""),
        (out(), {**out(), "id": "wk-probe-1", "model_version": "3"}, ""),
        (out(), out(data=[8]), "y is 8, recorded was 7"),
        (out(data=[10**6]), out(data=[10**6 + 1]), "y is 1000001"),
        (out(), out(datatype="FP32"), "y has datatype FP32, recorded was INT64"),
        (out(), out(shape=[1, 1]), "y has shape [1, 1], recorded was [1]"),
        (out(), out(name="z"), "y is missing from the answer"),
        (out(), {"outputs": []}, "y is missing"),
        (out(), [], "y is missing"),
        (out(), out(data=[]), "y has 0 values, recorded were 1"),
        (out(shape=[2, 2], data=[1, 2, 3, 4]), out(shape=[2, 2], data=[[1, 2], [3, 4]]), ""),
        (out(datatype="FP32", data=[0.5]), out(datatype="FP32", data=["NaN"]), "y is 'NaN', recorded was 0.5"),
        (out(datatype="FP32", data=[0.5]), out(datatype="FP32", data=[None]), "y is None"),
        (out(datatype="FP32", data=[float("nan")]), out(datatype="FP32", data=[float("nan")]), "y is nan"),
        (out(datatype="BYTES", data=["cat"]), out(datatype="BYTES", data=["dog"]), "y is 'dog', recorded was 'cat'"),
        (out(datatype="BOOL", data=[True]), out(datatype="BOOL", data=[1]), ""),
        (out(datatype="BOOL", data=[True]), out(datatype="BOOL", data=[0]), "y is False"),
        ({"a": {"b": [1.0, {"c": 2.0}]}}, {"a": {"b": [1.0, {"c": 2.5}]}, "took": 3}, "a.b at 1.c is 2.5"),
        ({"label": 3}, {"label": 3.0000001}, ""),
        ({"label": 3}, {"label": True}, "label is True"),
        ({"customer": 1000001}, {"customer": 1000002}, "customer is 1000002, recorded was 1000001"),
        ({"label": None}, {"label": 0}, "label is 0, recorded was None"),
        ({"n": 10**400}, {"n": 1.5}, "n is 1.5"),
        ([1.0, 2.0], [1.0, 2.1], "answer is 2.1"),
        ([[1.0], [2.0]], [[1.0]], "answer is a list of 1, recorded was a list of 2"),
        (0.5, "0.5", "answer is '0.5'"),
    ],
)
def test_an_answer_differs_in_what_it_says_and_not_in_how_it_is_written(expected, answer, differs):
    found = "; ".join(f"{gap.output} {gap.what}" for gap in gaps(expected, answer, 1e-3, 1e-5))
    assert found.startswith(differs) if differs else not found


@pytest.mark.parametrize(
    ("body", "is_finite"),
    [
        (out(), True),
        (out(data=[1, None]), False),
        (out(data=[[1.0, float("inf")]]), False),
        (out(datatype="FP32", data=["NaN"]), False),
        (out(datatype="BYTES", data=["nan"]), True),
        ({"y": [1.0, None]}, False),
        ({"y": [1.0], "error": None}, True),
        ({"y": {"score": float("nan")}}, False),
        ([1, 2], True),
    ],
)
def test_null_and_nan_in_a_list_are_no_numbers(body, is_finite):
    assert finite(body) is is_finite


# answers


NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def log(path: Path, *inputs: str | None, features=None):
    """A prediction log with one row a second, the last one a second before NOW."""
    with sqlite3.connect(path) as con:
        con.execute("CREATE TABLE IF NOT EXISTS predictions (at TEXT, inputs TEXT, a REAL, b REAL, probe INTEGER)")
        for place, text in enumerate(inputs):
            at = (NOW - timedelta(seconds=len(inputs) - place)).isoformat()
            con.execute("INSERT INTO predictions VALUES (?, ?, 1.0, 2.0, 0)", (at, text))
    con.close()
    options = {"time": {"column": "at", "unit": "iso", "tz": "UTC"}, "features": features or {"json": "inputs", "size": 2}}
    return connect(Locator("fraud", "live", f"sqlite:{path}?table=predictions", options))


def sent(speaker):
    return [json.loads(body)["inputs"][0] for method, path, _, body in speaker.requests if path.endswith("infer")]


def test_live_inputs_that_are_answered_with_numbers_are_ok(server, registry, tmp_path):
    told(serving.answers(server, log(tmp_path / "log.db", "[1, 2]", "[3, 4]"), registry), Status.OK, "the 2 newest live inputs")


def test_live_inputs_are_sent_as_they_were_logged_with_their_wrong_length(speaker, server, registry, tmp_path):
    live = log(tmp_path / "log.db", "[1, 2]", "[1, 2, 3]", '["a", null]', '"junk"')
    verdict = serving.answers(server, live, registry, limit=0.2)
    told(verdict, Status.FAIL, "of the 4 newest live inputs", "more than 0.2", "400")
    asked = [(tensor["shape"], tensor["data"]) for tensor in sent(speaker)]
    assert asked[-4:] == [([1, 1], "junk"), ([1, 2], ["a", None]), ([1, 3], [1, 2, 3]), ([1, 2], [1, 2])]


def test_a_few_bad_inputs_stay_within_the_limit(server, registry, tmp_path):
    live = log(tmp_path / "log.db", *["[1, 2]"] * 19, "[1]")
    verdict = serving.answers(server, live, registry)
    told(verdict, Status.OK, "1 of the 20 newest", "within 0.05")
    assert (verdict.reading.observed, verdict.reading.limit, verdict.reading.n) == (0.05, 0.05, 20)
    told(serving.answers(server, live, registry, rows=10), Status.FAIL, "1 of the 10 newest")


def test_broken_inputs_fail_through_every_version_and_a_broken_version_only_through_itself(registry, tmp_path):
    """What the counterfactual of a rollback rests on."""
    speaker = oip.Speaker("2")
    server, good, broken = to(speaker), log(tmp_path / "good.db", "[1, 2]"), log(tmp_path / "broken.db", "[1, 2, 3]")
    told(serving.answers(server, broken, registry), Status.FAIL)
    told(serving.answers(server.at("1"), broken, registry), Status.FAIL)
    speaker.factors["2"] = float("nan")
    told(serving.answers(server, good, registry, request=oip.REQUEST), Status.FAIL, "NaN")
    told(serving.answers(server.at("1"), good, registry, request=oip.REQUEST), Status.OK)
    speaker.stop()


def test_only_the_inputs_of_the_window_are_replayed(speaker, server, registry, tmp_path):
    live = log(tmp_path / "log.db", "[1, 1]", "[2, 2]", "[3, 3]")
    told(serving.answers(server, live, registry, Window(NOW - timedelta(seconds=2), NOW)), Status.OK, "the 2 newest")
    told(serving.answers(server, live, registry, Window(NOW, NOW + timedelta(hours=1))), Status.NODATA, "no live inputs")


def test_inputs_that_were_never_logged_are_nothing_to_replay(server, registry, tmp_path):
    told(serving.answers(server, log(tmp_path / "log.db", None), registry), Status.NODATA, "no live inputs")


def test_feature_columns_are_put_where_the_request_names_them(tmp_path):
    speaker = plain.Speaker(options={})
    live = log(tmp_path / "log.db", "[]", features=["a", "b"])
    verdict = serving.answers(to(speaker), live, request={"x": [0, 0], "row": "{inputs}"})
    told(verdict, Status.OK)
    assert json.loads(speaker.requests[-1][3]) == {"x": [0, 0], "row": {"a": 1.0, "b": 2.0}}
    told(serving.answers(to(speaker), live, request={"a": 0, "x": [1, 2]}), Status.OK)
    assert json.loads(speaker.requests[-1][3]) == {"a": 1.0, "b": 2.0, "x": [1, 2]}
    told(serving.answers(to(speaker), live, request={"x": [1, 2]}), Status.NODATA, "{inputs}")
    told(serving.answers(to(speaker), live), Status.NODATA, "with: {request")
    speaker.stop()


def test_a_nan_that_a_client_sent_is_sent_again(speaker, server, registry, tmp_path):
    serving.answers(server, log(tmp_path / "log.db", "[NaN, 1.0]"), registry)
    assert math.isnan(sent(speaker)[-1]["data"][0])


def test_a_server_that_drops_the_connection_with_each_500_is_asked_every_input(server, registry, tmp_path):
    live = log(tmp_path / "log.db", *['["a", null]'] * 20)
    told(serving.answers(server, live, registry), Status.FAIL, "20 of the 20 newest", "500")


def test_a_server_that_breaks_on_the_inputs_fails_and_one_that_is_gone_is_no_verdict(speaker, server, registry, tmp_path):
    live = log(tmp_path / "log.db", "[1, 2]")
    speaker.fault = "broken"
    told(serving.answers(server, live, request=oip.REQUEST), Status.FAIL, "500")
    speaker.stop()
    with pytest.raises(UnreachableError):
        serving.answers(server, live, request=oip.REQUEST)


# replay


def doubling(kind: str = "FLOAT", input: str = "x", output: str = "y", by: float = 2.0) -> bytes:
    """A real ONNX graph of one node: output = by * input, for any number of rows of two."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, of = onnx.helper, getattr(onnx.TensorProto, kind)
    two = helper.make_tensor("two", of, [], [by])
    ends = [helper.make_tensor_value_info(name, of, [None, 2]) for name in (input, output)]
    graph = helper.make_graph([helper.make_node("Mul", [input, "two"], [output])], "doubling", ends[:1], ends[1:], [two])
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)]).SerializeToString()


def graphs(root: Path, graph: bytes, name: str = "model.onnx"):
    record(root, "1", {name: graph}, golden=[(oip.REQUEST, {})])
    return to_folder(root)


def to_folder(root: Path):
    return connect(Locator("fraud", "registry", f"folder:{root}"))


def test_a_server_that_answers_as_its_graph_does_is_ok(server, tmp_path):
    registry, live = graphs(tmp_path / "r", doubling()), log(tmp_path / "log.db", "[1, 2]", "[0.5, 4]")
    verdict = serving.replay(server, registry, live)
    told(verdict, Status.OK, "version 1 answers all 2 live inputs as its model.onnx does")
    assert (verdict.reading.observed, verdict.reading.limit, verdict.reading.n) == (0, 0, 2)
    told(serving.replay(server, registry, live, rows=1), Status.OK, "all 1 live inputs")


def test_a_server_that_answers_otherwise_than_its_graph_fails_with_the_worst_row(speaker, server, tmp_path):
    registry, live = graphs(tmp_path / "r", doubling(), "net/doubling.onnx"), log(tmp_path / "log.db", "[0, 8]", "[0, 0]", "[1, 2]")
    speaker.factors["1"] = 3.0
    verdict = serving.replay(server, registry, live, file="net/doubling.onnx")
    told(
        verdict,
        Status.FAIL,
        "2 of 3 live inputs otherwise than its net/doubling.onnx does",
        "worst in row 2: 'y' is 24, the graph's was 16 (off by 8",
    )
    assert (verdict.parts["y"].observed, verdict.parts["y"].n) == (8.0, 2)
    assert [one["row"] for one in json.loads(verdict.data["differences.json"])] == [0, 2]
    told(serving.replay(server, registry, live, file="net/doubling.onnx", rtol=0.6), Status.OK)
    told(serving.replay(server, registry, live, file="net/doubling.onnx", rtol=0.0, atol=8.0), Status.OK)


def test_inputs_that_the_graph_does_not_take_are_not_judged(server, tmp_path):
    registry = graphs(tmp_path / "r", doubling())
    live = log(tmp_path / "log.db", "[1, 2]", "[1]", '["a", "b"]', "[null, 1]", "[NaN, 1]", '"junk"', "[[1], 2]")
    told(serving.replay(server, registry, live), Status.OK, "all 1 live inputs (6 more the graph does not take)")
    told(serving.replay(server, registry, log(tmp_path / "junk.db", "[1]")), Status.NODATA, "takes none of the 1 newest", "raw inputs")


def test_a_graph_of_whole_numbers_takes_no_fractions_and_is_compared_by_datatype(server, tmp_path):
    registry = graphs(tmp_path / "r", doubling("INT64", by=2))
    told(serving.replay(server, registry, log(tmp_path / "a.db", "[1, 2.0]")), Status.FAIL, "'y' has datatype FP32, the graph's was INT64")
    told(serving.replay(server, registry, log(tmp_path / "b.db", "[1, 2.5]")), Status.NODATA, "takes none")


def test_plain_http_answers_are_compared_with_the_graph_by_their_values(tmp_path):
    speaker = plain.Speaker()
    registry = to_folder(tmp_path / "r")
    record(tmp_path / "r", "1", {"model.onnx": doubling(input="anything")}, golden=[([1.0, 2.0], {})])
    live = log(tmp_path / "log.db", "[1, 2]")
    told(serving.replay(to(speaker), registry, live), Status.OK, "all 1 live inputs")
    record(tmp_path / "t", "1", {"model.onnx": doubling(by=3.0)}, golden=[([1.0, 2.0], {})])
    told(serving.replay(to(speaker), to_folder(tmp_path / "t"), live), Status.FAIL, "'y' is 4, the graph's was 6")
    speaker.stop()


def test_names_that_the_graph_and_the_server_do_not_share_are_told(server, tmp_path):
    live = log(tmp_path / "log.db", "[1, 2]")
    told(serving.replay(server, graphs(tmp_path / "a", doubling(output="z")), live), Status.NODATA, "gives 'z'", "answers with 'y'")
    told(serving.replay(server, graphs(tmp_path / "b", doubling(input="z")), live), Status.OK)  # the only one for the only one
    two = {"inputs": [*oip.REQUEST["inputs"], {**oip.REQUEST["inputs"][0], "name": "w"}]}
    told(serving.replay(server, to_folder(tmp_path / "b"), live, request=two), Status.NODATA, "takes 'z'", "has 'x', 'w'")


def test_without_a_file_a_version_or_live_inputs_there_is_nothing_to_replay(registry, server, tmp_path):
    live, ours = log(tmp_path / "log.db", "[1, 2]"), graphs(tmp_path / "r", doubling())
    told(serving.replay(server, registry, live), Status.NODATA, "no file 'model.onnx' of version 1", "serving.parity")
    told(serving.replay(server, ours, log(tmp_path / "empty.db", None)), Status.NODATA, "no live inputs")
    untold = oip.Speaker(silent=("metadata", "version", "index"))
    told(serving.replay(to(untold), ours, live), Status.NODATA, "nobody says which version")
    unregistered, router = oip.Speaker("7", ("7",)), pointer.Speaker("1")
    told(serving.replay(to(untold), ours, live, to(router, "router")), Status.OK, "version 1")
    told(serving.replay(to(unregistered), ours, live), Status.NODATA, "no file 'model.onnx' of version 7")
    for speaker in (untold, unregistered, router):
        speaker.stop()


def test_without_onnxruntime_it_is_told_what_to_install(server, tmp_path, monkeypatch):
    registry, live = graphs(tmp_path / "r", doubling()), log(tmp_path / "log.db", "[1, 2]")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    told(serving.replay(server, registry, live), Status.NODATA, "install watchkeeper[onnx]")


def test_an_artefact_that_was_tampered_with_is_an_error_and_is_not_run(server, tmp_path):
    registry, live = graphs(tmp_path / "r", doubling()), log(tmp_path / "log.db", "[1, 2]")
    path = tmp_path / "r" / "1" / "model.onnx"
    path.write_bytes(doubling(by=3.0))
    told(serving.replay(server, registry, live), Status.ERROR, str(path), "was changed after it was recorded")


def test_a_damaged_artefact_is_an_error_that_names_it(server, tmp_path):
    live = log(tmp_path / "log.db", "[1, 2]")
    for place, damaged in enumerate((b"", b"no graph", doubling()[:40])):
        registry = graphs(tmp_path / f"{place}", damaged)
        told(serving.replay(server, registry, live), Status.ERROR, "'model.onnx' of version 1", str(tmp_path / f"{place}" / "1" / "model.onnx"))


def test_a_server_that_refuses_what_its_graph_takes_fails_and_one_that_breaks_is_no_verdict(speaker, server, tmp_path):
    registry, live = graphs(tmp_path / "r", doubling()), log(tmp_path / "log.db", "[1, 2, 3, 4]")
    request = {"inputs": [{**oip.REQUEST["inputs"][0], "shape": [2, 2]}]}
    told(serving.replay(server, registry, live, request=request), Status.FAIL, "1 of 1", "400")
    speaker.fault = "broken"
    with pytest.raises(ServerError):
        serving.replay(server, registry, live, request=request)


def test_a_replay_is_performed_as_it_is_configured(speaker, tmp_path):
    live = log(tmp_path / "log.db", "[1, 2]")
    graphs(tmp_path / "r", doubling())
    at = Locator("fraud", "live", f"sqlite:{tmp_path / 'log.db'}?table=predictions", dict(live.declared))
    locators = {"server": Locator("fraud", "server", speaker.url), "registry": Locator("fraud", "registry", f"folder:{tmp_path / 'r'}"), "live": at}
    told(perform({"check": "serving.replay", "locators": locators, "parameters": {"rows": 5}}), Status.OK, "all 1 live inputs")


# The way back


@pytest.mark.parametrize(
    ("good", "status", "said"),
    [
        ([], Status.WARN, "a rollback would be refused"),
        (["1"], Status.OK, "the way back: version 1 answers all"),
        (["2", "1"], Status.FAIL, "version 2, the way back, is not ready"),
    ],
)
def test_the_way_back_is_the_version_that_a_rollback_would_ask_first(server, registry, good, status, said):
    told(serving.way_back(server, registry, good), status, said)


def test_a_way_back_that_answers_wrongly_is_none(speaker, server, registry):
    speaker.factors["1"] = 9.0
    told(serving.way_back(server, registry, ["1"]), Status.FAIL, "the way back: version 1 answers")


def test_a_way_back_without_golden_rows_is_not_known(speaker, server, registry):
    speaker.loaded = ("1", "7")
    told(serving.way_back(server, registry, ["7"]), Status.NODATA, "the way back: version 7")
