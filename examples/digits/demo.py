"""The demo: a model server, its users and the agent, each a process of its own; what happens to them is told as it happens.

python -m examples.digits.demo [--once] [--learn] [--port N] [--keep DIR] [--plain] [--json] [--mlserver PROGRAM]
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from examples.digits.learning import Learning, Pupil
from examples.digits.narrator import Narrator
from examples.digits.served import Digits, folder_of
from examples.digits.stage import BrokenOffError, Stage
from examples.digits.story import MissedError, Story
from examples.mlserver.served import MLServer

EXTRAS = ("onnxruntime", "sklearn", "skl2onnx")
TORCH = ("torch", "onnxscript", "safetensors")
INTERRUPTED = 130  # as a shell tells the end by Ctrl-C


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="watchkeeper demo", description="Watch a real model server go bad and be put right, on this machine.")
    parser.add_argument("--once", action="store_true", help="end after the story; status 0 only if every step of it was seen")
    parser.add_argument("--learn", action="store_true", help="tell of a model that is trained again instead; needs torch")
    parser.add_argument("--port", type=int, default=0, help="where the agent's page listens; else a free port is taken")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="play in this folder and leave everything there")
    parser.add_argument("--plain", action="store_true", help="no colours, whatever the terminal")
    parser.add_argument("--mlserver", type=Path, metavar="PROGRAM", help="play against MLServer: where its program `mlserver` is")
    parser.add_argument("--json", action="store_true", help="tell the story as one JSON object a line")
    return parser.parse_args(argv)


def missing(port: int, learn: bool = False) -> str:
    """What keeps the demo from starting, in plain words; empty when nothing does."""
    absent = [name for name in (*EXTRAS, *(TORCH if learn else ())) if importlib.util.find_spec(name) is None]
    if absent:
        how = ("make demo-learn", "examples,torch") if learn else ("make demo", "examples")
        return f"the demo needs {', '.join(absent)}: run `{how[0]}`, or pip install 'watchkeeper[{how[1]}]'"
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except (OSError, OverflowError) as problem:
        return f"port {port} cannot be used ({problem}); choose another with --port, or leave it out"
    return ""


def main(argv: Sequence[str]) -> int:
    """Tells the story; 0 when all of it was seen, 1 when a step was missed, 2 when it could not begin, 130 when it was interrupted."""
    given = arguments(argv)
    why = missing(given.port, given.learn)
    if given.learn and given.mlserver:
        why = "--learn is told against the example's own server; leave out --mlserver"
    if why:
        return refused(why)
    try:
        folder = folder_of(given.keep) if given.keep else Path(tempfile.mkdtemp(prefix="watchkeeper demo "))
    except OSError as problem:
        return refused(f"the demo cannot write its files: {problem}; name another folder with --keep DIR")
    for one in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, as_ctrl_c)
    return perform(given, folder.resolve())


def refused(why: str) -> int:
    print(f"error: {why}", file=sys.stderr)
    return 2


def as_ctrl_c(*_: object) -> None:
    raise KeyboardInterrupt


def perform(given: argparse.Namespace, folder: Path) -> int:
    """The story in a folder; whatever happens, nothing that it started is left."""
    narrator, stage, seen = Narrator(given.plain, given.json), Stage(folder), INTERRUPTED
    try:
        with stage, narrator:
            seen = _played(_story(given, stage, narrator), narrator, given.once)
    except KeyboardInterrupt:
        narrator.tell("story", "stopped")
    finally:
        if not given.keep:
            tidy(folder, seen)
    if stage.killed:
        narrator.tell("story", f"MISSED end: {', '.join(stage.killed)} did not end when asked to, and had to be killed")
        seen = seen or 1
    narrator.tell("story", "nothing is left running")
    return seen


def _story(given: argparse.Namespace, stage: Stage, narrator: Narrator) -> Story:
    if given.learn:
        return Learning(stage, narrator, Pupil(stage), given.port)
    return Story(stage, narrator, MLServer(stage, given.mlserver) if given.mlserver else Digits(stage), given.port)


def _played(story: Story, narrator: Narrator, once: bool) -> int:
    try:
        story.play()
    except MissedError as problem:
        narrator.tell("story", f"MISSED {problem}")
        return 1
    except BrokenOffError as problem:
        narrator.tell("story", f"BROKEN OFF: {problem}")
        return 1
    narrator.tell("story", f"every step was seen, in {narrator.seconds:.1f} s; the audit page is {story.page}")
    if not once:
        linger(story, narrator)
    return 0


def linger(story: Story, narrator: Narrator) -> None:
    """Stays up until Ctrl-C, and goes on telling."""
    narrator.also(f"\nEverything stays up until Ctrl-C. The agent's page: {story.agent.url}\nBreak it yourself, in another terminal:\n")
    for line in (*story.server.by_hand("2"), f"echo broken > '{story.control}'   # and later: echo good > '{story.control}'"):
        narrator.also(f"  {line}")
    narrator.also("")
    try:
        while True:
            story.follow()
            time.sleep(0.2)
    except KeyboardInterrupt:
        narrator.tell("operator", "stops the demo")
    except BrokenOffError as problem:
        narrator.tell("story", str(problem))


def tidy(folder: Path, seen: int) -> None:
    """Leaves of a temporary folder what people were told to read: the audit page; everything when a step was missed."""
    if seen == INTERRUPTED:
        shutil.rmtree(folder, ignore_errors=True)
    elif seen == 0:
        shutil.rmtree(folder / "models", ignore_errors=True)
        for path in folder.iterdir():
            if path.name != "audit.html" and path.is_file():
                path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
