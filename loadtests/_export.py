"""A load test for other programs: JUnit XML for CI, CSV of its windows, and HdrHistogram's two text formats for those who merge or plot latencies."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from loadtests._drawing import safe
from loadtests._page import WORDS
from loadtests._spec import Trace
from loadtests._summary import length_in_words, sent_in_words, window_length

UNIT = 1e-9  # seconds: histograms are in nanoseconds, which other tools take latencies to be in
LOWEST, HIGHEST = 1_000, 3_600_000_000_000  # an hour; what had no good answer is counted there, so that percentiles agree with the report's
DIGITS = 3
COLUMNS = ("start", "seconds", "n", "sent", "errors", "over", "p50", "p95", "p99", "max", "lag", "in_flight")
BITS = 11  # that tell values of three digits apart


def junit(told: Mapping[str, Any]) -> bytes:
    """One test case a limit: a failure where it does not hold, skipped where the run could not tell, an error where the run itself was no good."""
    cases = [_case(told, limit) for limit in told["limits"]] or [_case(told, None)]
    counts = {word: sum(f"<{tag} " in case for case in cases) for word, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped"))}
    heads = {"name": "watchkeeper load", "tests": len(cases), **counts, "time": f"{told['wall']:.3f}", "timestamp": told["began_at"]}
    suite = "".join(f' {name}="{safe(value)}"' for name, value in heads.items())
    known = "".join(f'<property name="{safe(name)}" value="{safe(value)}"/>' for name, value in _properties(told))
    inside = f"<properties>{known}</properties>{''.join(cases)}<system-out>{_lines(told['reason'])}</system-out>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites><testsuite{suite}>{inside}</testsuite></testsuites>\n'.encode()


def _case(told: Mapping[str, Any], limit: Mapping[str, Any] | None) -> str:
    name = f"{limit['name']} at most {length_in_words(limit['seconds'])}" if limit else "a run that can be judged"
    judged = limit is not None and told["outcome"] not in ("invalid", "aborted")
    outcome, why = (limit["outcome"], limit["why"]) if limit and judged else (told["outcome"], told["reason"])
    tag = {"pass": "", "fail": "failure", "inconclusive": "skipped"}.get(outcome, "error")
    said = f'<{tag} message="{safe(WORDS.get(outcome, outcome))}: {safe(why.partition(chr(10))[0])}">{_lines(told["reason"])}</{tag}>' if tag else ""
    return f'<testcase classname="load {safe(told["url"])}" name="{safe(name)}" time="{told["wall"]:.3f}">{said}</testcase>'


def _lines(text: str) -> str:
    return "\n".join(map(safe, text.splitlines()))


def _properties(told: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "url", told["url"]
    yield "sent", sent_in_words(told)
    yield "outcome", told["outcome"]
    yield from ((name, told["schedule"][name]) for name in ("pattern", "rate", "seconds", "seed"))
    for limit in told["limits"]:
        yield f"{limit['name']} observed", length_in_words(limit["observed"])
        yield f"{limit['name']} valid for bursts up to", f"{limit['burst']:g} s"


def windows_csv(told: Mapping[str, Any]) -> bytes:
    """A line a window, those of the warm-up too, in seconds and requests; empty where there is no such number."""
    made = io.StringIO()
    lines = csv.writer(made, lineterminator="\n")
    lines.writerow(COLUMNS)
    lines.writerows([["" if window[name] is None else f"{window[name]:.10g}" for name in COLUMNS] for window in told["windows"]])
    return made.getvalue().encode()


# HdrHistogram


def histogram_log(trace: Trace) -> bytes:
    """The latencies as a log of histograms (format 1.3, V2 compressed), one a window, in nanoseconds with three digits.

    A request without a good answer is counted at HIGHEST. Latencies are between the same bounds for every run, so logs can be added up.
    """
    import numpy as np

    if not len(trace.intended):
        return _log_head(trace).encode()
    length = window_length(float(np.max(trace.intended)))
    place = np.floor(trace.intended / length).astype(np.int64)
    lines = [_log_line(trace.latency[place == k], k * length, length) for k in np.unique(place).tolist()]
    return (_log_head(trace) + "".join(lines)).encode()


def _log_head(trace: Trace) -> str:
    began = trace.began_at.timestamp()
    return (
        f"#[latencies in nanoseconds, Interval_Max in milliseconds; {HIGHEST} is a request without a good answer]\n"
        "#[Histogram log format version 1.3]\n"
        f"#[StartTime: {began:.3f} (seconds since epoch), {trace.began_at.isoformat()}]\n#[BaseTime: {began:.3f} (seconds since epoch)]\n"
        '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"\n'
    )


def _log_line(latency: Any, at: float, length: float) -> str:
    made = _histogram(latency)
    return f"{at:.3f},{length:.3f},{made.get_max_value() * UNIT * 1e3:.3f},{made.encode().decode()}\n"


def percentile_text(trace: Trace) -> bytes:
    """The percentile distribution in milliseconds, as HdrHistogram's plotter reads it (.hgrm)."""
    made = io.BytesIO()
    _histogram(trace.latency).output_percentile_distribution(made, 1e-3 / UNIT)
    return made.getvalue()


def _histogram(latency: Any) -> Any:
    """A histogram of many values at once: those it cannot tell apart are counted first, since each call from Python takes microseconds."""
    import numpy as np
    from hdrh.histogram import HdrHistogram

    made = HdrHistogram(LOWEST, HIGHEST, DIGITS)
    whole = np.rint(np.clip(np.nan_to_num(latency, nan=np.inf, posinf=np.inf) / UNIT, 0, HIGHEST)).astype(np.int64)
    spare = np.maximum(np.frexp(whole.astype(float))[1] - BITS, 0)
    values, counts = np.unique((whole >> spare) << spare, return_counts=True)
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        made.record_value(value, count)
    return made
