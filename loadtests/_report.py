"""What a load test leaves: its numbers, its pictures, a page, and the files of other tools. Pure functions of the run and its verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from loadtests._drawing import by_percentile, filed, over_time
from loadtests._export import histogram_log, junit, percentile_text
from loadtests._page import page
from loadtests._spec import Trace

SUMMARY, PAGE, JUNIT, LOG, PERCENTILES = "load.json", "load.html", "load.xml", "load.hlog", "load.hgrm"


def files(told: Mapping[str, Any], trace: Trace, everything: bool = False) -> dict[str, bytes]:
    """The summary and its two pictures, which are kept with a finding; with `everything` also the page and what other tools read.

    `told` is what `summary` made of `trace`. None of them holds what was sent or answered, but for the words of the commonest errors.
    """
    drawn = {"latency.svg": filed(over_time(told)), "percentiles.svg": filed(by_percentile(told))}
    kept = {SUMMARY: json.dumps(told, indent=1, allow_nan=False).encode(), **{name: svg for name, svg in drawn.items() if svg}}
    more = {PAGE: page(told), JUNIT: junit(told), LOG: histogram_log(trace), PERCENTILES: percentile_text(trace)} if everything else {}
    return kept | more
