"""Which answers under load are good ones."""

from __future__ import annotations

import json

import pytest

from agent import Sent
from loadtests._expect import Bodies, expected, status_good, wrong
from loadtests._spec import Expect

PLAIN = expected(Sent("POST", "http://host", {}, b""))
OIP = expected(Sent("POST", "http://host", {}, b"", ("outputs.0",)))
ANSWER = {"model_name": "m", "outputs": [{"name": "y", "shape": [1], "data": [0.5]}]}


def said(expect, body):
    return wrong(expect, body if isinstance(body, bytes) else json.dumps(body).encode())


@pytest.mark.parametrize(
    ("status", "good"), [(200, True), (204, True), (299, True), (199, False), (302, False), (404, False), (500, False), (0, False)]
)
def test_a_status_from_200_to_299_is_a_good_one_unless_others_are_expected(status, good):
    assert status_good(Expect(), status) is good
    assert status_good(Expect(status=(status,)), status)
    assert not status_good(Expect(status=(418,)), status)


def test_a_body_that_nothing_is_expected_of_is_not_looked_at():
    assert (PLAIN, Bodies(PLAIN, "").wanted, said(PLAIN, b"\xff\x00 <h1>")) == (Expect(), False, "")
    for expect in (OIP, Expect(json=True), Expect(text="yes"), Expect(fields=("y",))):
        assert Bodies(expect, "").wanted


@pytest.mark.parametrize("body", [b"", b"<h1>", b'{"outputs": [', b"\xff\xfe{}", b'{"outputs": [NaN]}', b'{"outputs": [Infinity]}', b"[" * 100_000])
def test_what_is_no_json_is_no_answer(body):
    assert said(OIP, body) == said(Expect(json=True), body) == "the body is not JSON"


def test_an_open_inference_answer_has_outputs_and_no_error():
    assert said(OIP, ANSWER) == said(OIP, {**ANSWER, "error": None}) == ""
    for body in ({"model_name": "m"}, {"outputs": None}, {"outputs": []}, [1], b"1", b"null"):
        assert said(OIP, body) == "the body has no 'outputs.0'"
    assert said(OIP, {**ANSWER, "error": "out of memory"}) == said(OIP, {"error": {"message": "no"}}) == "the body is an error"


def test_an_error_that_is_a_number_is_the_models_own():
    assert said(Expect(json=True), {"error": 0.03, "y": 1}) == ""


def test_places_are_dotted_and_pick_from_lists():
    assert said(Expect(fields=("outputs.0.data.0", "model_name")), ANSWER) == ""
    for place in ("outputs.1", "id", "outputs.name", "outputs.-1", "model_name.m"):
        assert said(Expect(fields=("outputs", place)), ANSWER) == f"the body has no {place!r}"
    for value in (0, False, [], "", None):
        assert said(Expect(fields=("y",)), {"y": value}) == ""


def test_a_text_must_stand_in_the_body():
    assert said(Expect(text="gültig"), "ist gültig".encode()) == ""
    assert said(Expect(text="yes"), b"no") == "the body does not hold 'yes'"


def test_answers_with_the_same_fault_are_told_in_the_same_words():
    assert said(OIP, {"error": "request 1 of host a"}) == said(OIP, {"error": "request 2 of host b"})
