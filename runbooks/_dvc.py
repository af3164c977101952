"""A trainer that is a pipeline of DVC's: `python -m runbooks._dvc`, run in the repository by the trainer `command`.

The pinned rows are put where the pipeline reads them, `dvc repro` runs what that changes, and what it makes is handed in. Whatever DVC keeps (its
cache, dvc.lock) stays in the repository, as if a person had run it there.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agent import Json, asked, hand_in
from agent.errors import TrainingError, WatchkeeperError

REPRO = ("repro", "--quiet")


def main(words: Sequence[str]) -> int:
    """0 when it has handed in what the pipeline made; 1, and why on the last line, when there is nothing to hand in."""
    given = _read(words)
    try:
        with _alone(Path("dvc.yaml")):
            _trained(Path(os.environ["WATCHKEEPER_JOB"]), given)
    except (WatchkeeperError, OSError) as problem:
        print(problem, file=sys.stderr)  # noqa: T201 - the log of the job is where its end is read
        return 1
    return 0


def _read(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m runbooks._dvc", description=__doc__)
    parser.add_argument("--in", dest="inputs", action="append", default=[], metavar="NAME=PATH", help="where the pipeline reads this table")
    parser.add_argument("--out", dest="outputs", action="append", required=True, metavar="PATH", help="what it makes, and is handed in")
    parser.add_argument("--metrics", metavar="PATH", help="a JSON file of numbers that it writes")
    parser.add_argument("--parameters", metavar="PATH", help="a JSON file it reads: seed and parameters of the job")
    parser.add_argument("--stage", action="append", default=[], metavar="STAGE", help="which stages; all, if none is named")
    return parser.parse_args(words)


@contextmanager
def _alone(pipeline: Path) -> Iterator[None]:
    """One job at a time in a repository: the next one would put its rows in the place of these. TrainingError where there is none."""
    try:
        stream = pipeline.open("rb")
    except OSError as problem:
        raise TrainingError(f"{pipeline.resolve()} cannot be read ({problem.strerror}); run this in the repository whose pipeline it is") from problem
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _trained(home: Path, given: argparse.Namespace) -> None:
    spec = asked(home)
    data: Mapping[str, Any] = spec.get("data") or {}
    for text in given.inputs:
        name, _, path = text.partition("=")
        if name not in data or not path:
            raise TrainingError(f"--in {text}: there is no table '{name}' in what was asked; there is {', '.join(data) or 'none'}")
        _placed(Path(data[name]["path"]), data[name]["sha256"], Path(path))
    if given.parameters:
        Path(given.parameters).write_text(json.dumps({"seed": spec.get("seed", 0), **(spec.get("parameters") or {})}, indent=1))
    _reproduced(given.stage)
    names = [_taken(Path(path), home) for path in given.outputs]
    numbers = dict(_numbers(json.loads(Path(given.metrics).read_text()))) if given.metrics else {}
    lock = {"dvc.lock": hashlib.sha256(Path("dvc.lock").read_bytes()).hexdigest()}
    rows = sum(one["rows"] for one in data.values())
    hand_in(home, spec, names, rows=rows, metrics=numbers, parameters={**(spec.get("parameters") or {}), **lock}, code=_commit())


def _placed(pin: Path, sha256: str, path: Path) -> None:
    """The pinned rows, all at once, where the pipeline reads them; TrainingError where they are not what was pinned."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        shutil.copyfile(pin, draft)
        with draft.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
                raise TrainingError(f"{pin} is not what was pinned; pin the rows again")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _reproduced(stages: Sequence[str]) -> None:
    dvc = shutil.which("dvc")
    if dvc is None:
        raise TrainingError("dvc is not on the PATH of this command; name its folder by `env: {PATH: ...}`")
    done = subprocess.run([dvc, *REPRO, *stages], env={**os.environ, "DVC_NO_ANALYTICS": "1"}, check=False)  # noqa: S603 - what the configuration names
    if done.returncode:
        raise TrainingError(f"dvc repro ended with exit status {done.returncode}; the log of the job says why")


def _taken(made: Path, home: Path) -> str:
    """A file of its own in the folder of the job: in the repository it may be a link into DVC's cache."""
    try:
        shutil.copyfile(made, home / made.name)
    except OSError as problem:
        raise TrainingError(f"the pipeline made no {made} ({problem.strerror}); name what it makes by --out") from problem
    return made.name


def _numbers(found: Json, above: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a metrics file, by dotted names."""
    if isinstance(found, Mapping):
        for name, value in found.items():
            yield from _numbers(value, f"{above}{name}.")
    elif isinstance(found, int | float) and not isinstance(found, bool):
        yield above.rstrip("."), found


def _commit() -> str | None:
    """The commit of the repository; None where it is none of git's."""
    with suppress(OSError):
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)  # noqa: S607 - whichever git there is
        return done.stdout.strip() or None
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
