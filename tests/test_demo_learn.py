"""The demo that learns, as people start it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import library
from tests.test_demo import DEMO, Place, place  # noqa: F401 - a fixture

STORY = (  # in this order, each found in a line of its own
    r"operator +teaches a small torch net the upright digits",
    r"operator +serves version 10 with",
    r"upstream +sends its images turned by a quarter",
    r"agent +digits/drift.compare: \d+ of 64 comparisons drifted",
    r"users +\d+ wrong answers of 60: version 10 has never seen one of these",
    r"agent +train: done: trained on \d+ rows",
    r"agent +retrain: declined at gate: fail: BLOCK .* instead of 10/.*: old: -[\d.]+ points",
    r"operator +version 10 serves",
    r"agent +gate: done: PROMOTE ",
    r"agent +register: done: version 11 is registered",
    r"operator +allows version 11",
    r"agent +switch: done: 11 is pointed at",
    r"agent +retrain: done",
    r"operator +version 11 serves",
    r"users +\d+ wrong answers of 60: turned images",
    r"users +\d+ wrong answers of 60: upright images, which it has not forgotten",
    r"story +every step was seen, in [\d.]+ s; the audit page is .*\.html",
    r"story +nothing is left running",
)


@pytest.mark.timeout(300)
def test_what_drifted_is_learned_and_what_was_known_is_not_forgotten(place: Place) -> None:  # noqa: F811
    library("torch")
    (place.folder / "bait" / "torch.py").unlink()  # here it is needed
    code, said = place.play("--learn", "--once", "--plain", command=DEMO)
    assert code == 0, said
    at = 0
    for line in STORY:
        found = re.compile(line).search(said, at)
        assert found, f"no {line!r} after {said[:at].splitlines()[-1:]} in:\n{said}"
        at = found.end()
    page = re.search(r"the audit page is (.*\.html)", said)
    assert page and Path(page[1]).exists() and not place.left()


def test_it_is_not_told_against_another_server(place: Place) -> None:  # noqa: F811
    library("torch")
    (place.folder / "bait" / "torch.py").unlink()
    code, said = place.play("--learn", "--once", "--mlserver", "/bin/true")
    assert code == 2 and "leave out --mlserver" in said
