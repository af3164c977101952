"""The demo's figures: how soon a bad version is confirmed, how long it still answers once the agent has decided, how long the story takes.

    python -m benchmarks.demo [--runs 50]

One stack is started, and version 2 is deployed again and again; each time the agent rolls it back. Then the story is told once, whole.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from examples.digits.narrator import Narrator
from examples.digits.served import Digits
from examples.digits.split import Split
from examples.digits.stage import Stage
from examples.digits.story import Story

INTERVAL = 2.0  # of serving.parity in the demo's configuration
HOUSE = Path(__file__).resolve().parent.parent


class Unlimited(Digits):
    """The demo's server and configuration, without the budget that allows four automatic actions an hour."""

    def configure(self) -> dict[str, str]:
        variables = super().configure()
        config = self.stage.folder / "watchkeeper.yaml"
        config.write_text(config.read_text(encoding="utf-8").replace("actions: 4,", "actions: 1000,"), encoding="utf-8")
        return variables


class Quiet(Narrator):
    """Tells it on stderr."""

    def tell(self, who: str, what: str, at: float | None = None) -> None:
        print(f"{self.seconds:7.1f} s  {who:<9} {what[:160]}", file=sys.stderr, flush=True)

    def also(self, text: str) -> None: ...


def rollbacks(runs: int) -> list[Split]:
    """Deploys version 2 so many times; what each of them cost the users."""
    found = []
    with tempfile.TemporaryDirectory(prefix="demo bench ") as folder, Stage(Path(folder)) as stage:
        story = Story(stage, Quiet(plain=True), Unlimited(stage), patience=10)  # it measures; being late is no reason to stop
        story.begin()
        story.drill()
        moments = random.Random(0)  # where in the agent's interval a deployment falls, so that runs do not march in step with it
        for _ in range(runs):
            time.sleep(moments.uniform(0, INTERVAL))
            story.bad_version()
            assert story.split
            found.append(story.split)
    return found


def whole_story() -> float:
    """Seconds from the start to the last step of the story, the training included."""
    words = [sys.executable, "-m", "examples.digits.demo", "--once", "--json"]
    told = subprocess.run(words, cwd=HOUSE, check=True, stdout=subprocess.PIPE, text=True).stdout
    lines = [json.loads(line) for line in told.splitlines()]
    return float(next(line["at"] for line in lines if "every step was seen" in line["what"]))


def figure(name: str, value: float, note: str, **promised: Any) -> None:
    print(json.dumps({"figure": name, "value": round(value, 3), "unit": "s", "note": note, **promised}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=10)
    runs = parser.parse_args().runs
    found = rollbacks(runs)
    confirmed = [one.found - one.deployed for one in found]
    after = [max(0.0, one.last_bad - one.decided) for one in found]
    whole = [max(0.0, one.last_bad - one.found) for one in found]
    told = f"largest of {runs} deployments; median {{:.2f}} s"
    figure("bad version: deployed to confirmed", max(confirmed), told.format(statistics.median(confirmed)), at_most=INTERVAL + 5)
    figure("bad version: decision to last bad answer", max(after), told.format(statistics.median(after)), at_most=1)
    figure("bad version: confirmed to last bad answer", max(whole), told.format(statistics.median(whole)))
    bad = [one.bad for one in found]
    print(
        json.dumps({"figure": "bad version: bad answers", "value": max(bad), "note": f"20 a second; median {statistics.median(bad):g}"}), flush=True
    )
    figure("demo: the whole story", whole_story(), "from the start, training included", at_most=60)


if __name__ == "__main__":
    main()
