"""What `watchkeeper --help` costs in CPU, as a multiple of `import click`: the door stays light."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROUNDS = 7
DOOR = [str(Path(sys.executable).parent / "watchkeeper"), "--help"]
CLICK = [sys.executable, "-c", "import click"]


def cpu(command: list[str]) -> float:
    """User and system CPU seconds of one run, as the kernel accounts them to the child."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, spent = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{' '.join(command)} ended with exit code {child.returncode}")
    return spent.ru_utime + spent.ru_stime


def main() -> None:
    cpu(DOOR), cpu(CLICK)  # the first run writes the byte code
    pairs = [(cpu(DOOR), cpu(CLICK)) for _ in range(ROUNDS)]  # in turn, so that a busy moment falls on both
    door, click = (statistics.median(side) for side in zip(*pairs, strict=True))
    note = f"{door * 1000:.0f} ms against {click * 1000:.0f} ms of CPU, medians of {ROUNDS}"
    print(json.dumps({"figure": "watchkeeper --help / import click", "value": door / click, "unit": "x", "at_most": 3, "note": note}))


if __name__ == "__main__":
    main()
