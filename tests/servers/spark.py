"""Spark, local, in a Python of its own that has it: reads a question a line (url, options, window, asks), answers a line (kinds, rows, tallies)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any


def answered(question: dict[str, Any]) -> dict[str, Any]:
    from agent import Ask, Locator, to_json
    from agent.errors import WatchkeeperError
    from agent.targets.spark import Spark
    from agent.wire import deadline

    try:
        table: Any = Spark(Locator("fraud", "live", question["url"], question["options"], folder=question["folder"]))
        with deadline(timedelta(seconds=question.get("within", 100))):
            if question["window"]:
                table = table.between(*map(datetime.fromisoformat, question["window"]))
            asks = [Ask(ask["column"], tuple(map(float, ask["cuts"])), tuple(ask["keys"]), ask["top"]) for ask in question["asks"]]
            tallies = {name: to_json(tally) | {"by_key": list(tally.by_key.items())} for name, tally in table.tally(asks).items()}
            return {"kinds": dict(table.kinds()), "rows": table.rows(), "tallies": tallies}
    except WatchkeeperError as problem:
        return {"error": type(problem).__name__, "words": str(problem)}


def main(lines: Iterator[str]) -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    for line in lines:
        sys.stdout.write(f"answer {json.dumps(answered(json.loads(line)))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(iter(sys.stdin))
