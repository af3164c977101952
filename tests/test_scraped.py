"""scraped.*: a speaker of Prometheus' protocol, and a real Prometheus where there is one."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent import Locator, Status
from agent.targets import connect
from checks import scraped
from tests.servers.prometheus import Speaker

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
UP = 'up{job="fraud"}'
SPAN = round(timedelta(days=28).total_seconds())
QUERIES = {name: f"count({name})" for name in scraped.FAMILIES}


@pytest.fixture
def speaker():
    made = Speaker()
    made.vectors |= {f"avg_over_time({UP}[{SPAN}000ms])": [({}, "1")], UP: [({}, "1")], f"{UP} offset {SPAN * 95 // 100}s": [({}, "1")]}
    made.vectors |= {query: [({}, "12")] for query in QUERIES.values()}
    yield made
    made.stop()


def looked(speaker: Speaker, queries: Any = QUERIES) -> Any:
    with closing(connect(Locator("fraud", "metrics", speaker.url, speaker.options))) as metrics:
        return scraped.families(metrics, NOW, up=UP, queries=queries)


def test_a_service_is_scraped_with_all_its_families(speaker):
    said = looked(speaker)
    assert said.status is Status.OK and said.reason == f"{UP} was up for 100.00% of what is held of 28 d; 6 of 6 families are there"


@pytest.mark.parametrize(
    ("altered", "status", "words"),
    [
        ({f"avg_over_time({UP}[{SPAN}000ms])": [({}, "0.985")]}, Status.FAIL, "98.50%"),
        ({UP: [({"i": "1"}, "1"), ({"i": "2"}, "0")]}, Status.FAIL, "it is down now"),
        ({UP: []}, Status.FAIL, "names no scrape"),
        ({f"{UP} offset {SPAN * 95 // 100}s": []}, Status.WARN, "holds less than 28 d"),
        ({"count(nulls)": [], "count(version)": []}, Status.WARN, "not nulls, version"),
        ({"count(nulls)": [], "count(version)": [], "count(errors)": [({}, "NaN")]}, Status.FAIL, "3 of 6 families"),
    ],
)
def test_a_scrape_that_is_short_down_or_poor_is_told(speaker, altered, status, words):
    speaker.vectors |= altered
    said = looked(speaker)
    assert said.status is status and words in said.reason


def test_a_family_without_a_query_is_not_there(speaker):
    assert looked(speaker, {name: QUERIES[name] for name in scraped.FAMILIES[:4]}).status is Status.WARN
    assert looked(speaker, {}).status is Status.FAIL


CALLERS = "sum by (client) (increase(requests_total[$window]))"


@pytest.mark.parametrize(
    ("calls", "status", "words"),
    [
        ({"shop": 990.0, "app": 10.0}, Status.OK, "2 callers in 28 d, all of them declared"),
        ({"shop": 995.0, "other": 5.0}, Status.WARN, "0.50% of the requests"),
        ({"shop": 900.0, "other": 100.0}, Status.FAIL, "callers that nobody declared: other"),
        ({"shop": 900.0, "": 1.0}, Status.FAIL, "have no caller's name in 'client'"),
        ({}, Status.WARN, "no request in 28 d"),
        ({"shop": float("nan"), "app": 3.0}, Status.OK, "1 callers"),
    ],
)
def test_callers_are_known_or_not(speaker, calls, status, words):
    asked = CALLERS.replace("$window", f"{SPAN}000ms")
    speaker.vectors[asked] = [({"client": name} if name else {}, str(n)) for name, n in calls.items()]
    with closing(connect(Locator("fraud", "metrics", speaker.url, speaker.options))) as metrics:
        said = scraped.consumers(metrics, NOW, query=CALLERS, declared=["shop", "app"])
    assert said.status is status and words in said.reason
