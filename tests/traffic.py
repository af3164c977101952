"""What tests of load share: a file of requests, and one run of the real program against a server of the test's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadtests._drive import drive, quiet
from loadtests._spec import KINDS, Arrivals, Trace, Traffic


def traffic(folder: Path, url: str, bodies: Sequence[str] = ("{}",), rate: float = 100, seconds: float = 0.3, **more: Any) -> Traffic:
    """A constant rate: ceil(rate * seconds) requests, with `bodies` in turn."""
    requests = folder / "requests.jsonl"
    requests.write_text("".join(json.dumps({"body": body}) + "\n" for body in bodies))
    return Traffic(url, str(requests), more.pop("arrivals", Arrivals("constant", rate, seconds)), str(folder), **more)


def run(folder: Path, url: str, tell: Any = quiet, hear: Any = None, **more: Any) -> Trace:
    """One run to its end."""
    return drive(traffic(folder, url, **more), tell, hear)


def kinds(trace: Trace) -> list[str]:
    """How each request ended."""
    return [KINDS[kind] for kind in trace.kind]
