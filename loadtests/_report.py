"""What a load test leaves: its numbers, its pictures, a page, and the files of other tools. Pure functions of the run and its verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from loadtests._drawing import by_percentile, filed, over_time
from loadtests._export import histogram_log, junit, percentile_text, windows_csv
from loadtests._page import page
from loadtests._spec import Trace
from loadtests._windows import since

SUMMARY = "load.json"


def files(told: Mapping[str, Any], trace: Trace, everything: bool = False) -> dict[str, bytes]:
    """The summary and its two pictures, which are kept with a finding; with `everything` also the page and what other tools read.

    `told` is what `summary` made of `trace`. None of them holds what was sent or answered, but for the words of the commonest errors.
    """
    drawn = {"latency.svg": filed(over_time(told)), "percentiles.svg": filed(by_percentile(told))}
    kept = {SUMMARY: json.dumps(told, indent=1, allow_nan=False).encode(), **{name: svg for name, svg in drawn.items() if svg}}
    return kept | (_everything(told, since(trace, told["warm"])) if everything else {})


def _everything(told: Mapping[str, Any], judged: Trace) -> dict[str, bytes]:
    return {
        "load.html": page(told),
        "load.xml": junit(told),
        "load.csv": windows_csv(told),
        "load.hlog": histogram_log(judged),
        "load.hgrm": percentile_text(judged),
    }
