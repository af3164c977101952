"""The torch trainer (`python -m runbooks._continual`): a program that does one job, in the folder that WATCHKEEPER_JOB names.

It is a trainer like anyone's: `spec.json` lies in the folder when it begins, `manifest.json` beside the files it names when it is done. Progress goes
to stdout, a JSON object a line, or as a bar where somebody looks. Exit code 0: done; else why not is on stderr. Started again after it was killed,
it goes on from the last epoch that ended, and comes to the same bits.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agent.errors import ConfigError, WatchkeeperError

JOB = "WATCHKEEPER_JOB"
Tell = Callable[[float, str], None]


def main() -> int:
    try:
        folder = _folder()
        try:
            from runbooks._continual_work import work
        except ImportError as problem:
            raise ConfigError(f"the trainer needs {problem.name}, which is not installed: install watchkeeper[torch]") from problem
        with progress() as tell:
            work(folder, tell)
    except WatchkeeperError as problem:
        print(*(f"error: {line}" for line in str(problem).splitlines()), sep="\n", file=sys.stderr)  # noqa: T201 - a program's own last words
        return problem.exit_code
    return 0


def _folder() -> Path:
    if not (name := os.environ.get(JOB)) or not Path(name).is_dir():
        raise ConfigError(f"{JOB} must name the folder of a job; it names {name or 'none'}")
    return Path(name)


@contextmanager
def progress() -> Iterator[Tell]:
    """`tell(done, what)`: a bar on a terminal, else a line of JSON; nobody need listen."""
    if sys.stdout.isatty():
        from rich.progress import Progress

        with Progress(transient=True) as bar:
            task = bar.add_task("learning", total=1.0)
            yield lambda done, what: bar.update(task, completed=done, description=what)
    else:
        yield lambda done, what: line({"done": round(done, 4), "what": what})


def line(said: Mapping[str, Any]) -> None:
    """One line to whoever started us, all of it."""
    with suppress(OSError):
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
