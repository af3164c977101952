"""The tools that ours is measured beside, each in an environment of its own that is made when a benchmark first asks for it."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

VENV = Path(__file__).resolve().parent.parent / ".ci" / "venv.py"
NEEDED = {
    "estimated": ("nannyml",),
    "learn": ("avalanche",),
    "mmd": ("alibi",),
    "peers": ("river", "evidently", "nannyml"),
    "trainers": ("prefect", "kfp"),
}  # benchmark -> its peers
MISSING = "could not be installed: pip says why on stderr"


def python(name: str) -> str | None:
    """The Python that can import this peer, from `environments/NAME.txt` or one of `make peers`; None where pip cannot install it, and says why."""
    done = subprocess.run([sys.executable, VENV, "peer", name], stdout=sys.stderr)
    return None if done.returncode else str(folder(name) / "bin" / "python")


def folder(name: str) -> Path:
    """Where the environment of a peer lies, be it made or not."""
    place: Path = runpy.run_path(str(VENV))["peers_folder"]()
    return place / name
