"""Builds a virtual environment from this repository's pins: ours (`.venv`), a peer server's, or the pins themselves; standard library only."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

HOUSE = Path(__file__).resolve().parent.parent
PINS = HOUSE / "constraints.txt"
PEERS = HOUSE / ".ci" / "peers", HOUSE / "benchmarks" / "environments"  # what tests speak to; what is only measured, and too large for them
BY_HAND = "# By hand"
USAGE = "usage: venv.py ours EXTRA[,EXTRA...] | peer NAME | pins"


def ours(extras: str) -> None:
    """`.venv` with this repository installed for editing and the extras asked for. `dev` contains `examples`."""
    folder, wanted = HOUSE / ".venv", set(extras.split(","))
    with _alone(folder):
        digest = _digest([HOUSE / "pyproject.toml", PINS], str(HOUSE))
        if any(_covers(stamp, wanted, digest) for stamp in folder.glob(".installed-*")):
            return
        python = _environment(folder)
        if "torch" in wanted:  # first and alone: it is gigabytes, and everything after it must fit around it, not move it
            _pip(python, "torch", [_pin("torch")])
        _pip(python, f"Watchkeeper and its [{extras}]", ["-c", str(PINS), "-e", f"{HOUSE}[{','.join(sorted(wanted))}]"])
        (folder / f".installed-{'+'.join(sorted(wanted))}").write_text(digest)


def peer(name: str) -> None:
    """What nobody here wrote, in an environment of its own under `peers_folder()`, from the NAME.txt in one of PEERS."""
    wants = next((found for place in PEERS if (found := place / f"{name}.txt").exists()), None)
    if wants is None:
        sys.exit(f"set-up: no peer {name}; there is {', '.join(sorted(path.stem for place in PEERS for path in place.glob('*.txt')))}")
    folder = peers_folder() / name
    with _alone(folder):
        digest = _digest([wants], str(folder))
        stamp = folder / ".installed"
        if _current(stamp, digest):
            return
        python = _environment(folder)
        stamp.unlink(missing_ok=True)
        _pip(python, name, ["-r", str(wants)])
        stamp.write_text(digest)


def peers_folder() -> Path:
    """Where peers' environments are kept between runs; WATCHKEEPER_PEERS names another place."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("WATCHKEEPER_PEERS") or cache / "watchkeeper" / "peers")


def pins() -> None:
    """Write constraints.txt anew from a fresh environment with the newest of everything; lines from '# By hand' on are kept."""
    header = [line for line in PINS.read_text().splitlines() if line.startswith("#")]
    top = header[: next(i for i, line in enumerate(header) if line.startswith(BY_HAND))]
    kept = PINS.read_text()[PINS.read_text().index(BY_HAND) :]
    with tempfile.TemporaryDirectory() as place:
        python = _environment(Path(place) / "fresh")
        _pip(python, "the newest of everything", [f"{HOUSE}[dev,load]"])
        frozen = subprocess.run([python, "-m", "pip", "freeze", "--exclude", "watchkeeper"], check=True, capture_output=True, text=True)
    PINS.write_text("\n".join(top) + "\n" + frozen.stdout + kept)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One set-up at a time for a folder; a second waits for the first and then finds its work done."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(folder.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _covers(stamp: Path, wanted: set[str], digest: str) -> bool:
    has = set(stamp.name.removeprefix(".installed-").split("+"))
    has |= {"examples"} if "dev" in has else set()
    return wanted <= has and _current(stamp, digest)


def _current(stamp: Path, digest: str) -> bool:
    """Whether the environment was built from this, and its Python is still there: an upgrade of the system can take it away."""
    return stamp.exists() and stamp.read_text() == digest and (stamp.parent / "bin" / "python").exists()


def _digest(files: Sequence[Path], *more: str) -> str:
    """What an environment was built from; the place counts too, because its scripts name it."""
    text = b"\0".join([*(path.read_bytes() for path in files), *(word.encode() for word in more)])
    return hashlib.sha256(text).hexdigest()


def _pin(package: str) -> str:
    return next(line for line in PINS.read_text().splitlines() if line.startswith(f"{package}=="))


def _environment(folder: Path) -> str:
    """The Python of a working virtual environment in `folder`; one that is half made or was moved is made again."""
    python = folder / "bin" / "python"
    whole = python.exists() and subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0
    if not whole or f"{folder}\n" not in (folder / "bin" / "activate").read_text().replace('"', "\n").replace("'", "\n"):
        if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
            sys.exit(f"set-up: {sys.executable} cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv")
        print(f"set-up: making {folder}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        if subprocess.run([sys.executable, "-m", "venv", folder]).returncode:
            sys.exit(f"set-up: could not make {folder}; the lines above say why (a full disk? no right to write here?)")
    return str(python)


def _pip(python: str, what: str, wants: Sequence[str]) -> None:
    print(f"set-up: installing {what} (a minute or two the first time)", flush=True)
    done = subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wants])
    if done.returncode:
        sys.exit(
            f"set-up: pip could not install {what}; its own words are above.\n"
            "        No network, or a proxy in between? pip must reach a package index: try again with a network, set HTTPS_PROXY,\n"
            "        or point pip at a mirror with `pip config set`. Nothing else was changed; run the same command again."
        )


def main(words: Sequence[str]) -> None:
    match words:
        case ["ours", extras]:
            ours(extras)
        case ["peer", name]:
            peer(name)
        case ["pins"]:
            pins()
        case _:
            sys.exit(USAGE)


if __name__ == "__main__":
    main(sys.argv[1:])
