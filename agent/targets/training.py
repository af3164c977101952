"""A trainer that is a team's own command: begun once in a folder of its own, watched by a small supervisor, and found again after any restart."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from agent import Job, Json, Locator, Manifest, Train, adapter, asked, duration, handed, untouched
from agent.errors import ConfigError, TrainingError, UnreachableError
from agent.targets import _programs, _shapes, _supervise

OPTIONS = ("train", "folder", "env", "inherit", "longest")
LONGEST = timedelta(hours=6)
BEGINS = 30.0  # seconds that the supervisor may take to begin
TOLD = 300  # characters of what it printed last
SPEC, JOB = "spec.json", "WATCHKEEPER_JOB"
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@adapter(role="trainer", schemes=("command",))
class Command:
    """`command:FOLDER`, where the command runs: `.` is the folder of the configuration.

    `train`: the command, a list of words; no shell is asked. `folder`: where each job gets a folder of its own (jobs). `longest`: after that long it
    is ended, and has failed (6h). `env` and `inherit` as for a router's command. The job goes on while the agent is restarted; it ends with its
    supervisor, for nobody would see how it ends else.
    """

    can: frozenset[str] = frozenset({"cancel", "progress"})

    def __init__(self, at: Locator) -> None:
        self._where, given = f"{at.service}.{at.role}", _shapes.options(at, OPTIONS)
        if at.look is not None or at.act is not None:
            raise ConfigError(f"{self._where}: a command takes no credential; give it what it needs by `env:` or `inherit:`")
        self._at = Path(at.folder, at.address or ".").resolve()
        self._words = _programs.words(given.get("train"), f"{self._where}.train")
        self._jobs = Path(at.folder, str(given.get("folder", "jobs"))).resolve()
        self._env = _programs.environment(given.get("inherit", []), given.get("env", {}), self._where)
        self._longest = _length(given.get("longest", LONGEST), f"{self._where}.longest")

    @property
    def train(self) -> Train:
        """`trainer.train`."""
        return Train(self)

    def start(self, spec: Mapping[str, Json], key: str) -> None:
        """Lays the job out and begins it; who comes second finds it begun. UnreachableError where there is no room or no such folder."""
        home = self._home(key)
        try:
            if not home.is_dir():
                self._lay_out(home, spec)
            if not (home / _supervise.BEGAN).exists():
                self._begin(home)
        except OSError as problem:
            raise UnreachableError(f"{self._where}: {home} could not be begun ({problem.strerror or problem})") from problem

    def status(self, key: str) -> Job:
        """How it stands, from what its supervisor wrote and whether that lives."""
        home = self._home(key)
        if not home.is_dir():
            return Job("absent", "training has not begun")
        alive = _supervise.held(home / _supervise.LOCK)  # before how it ended is read, which it writes before it goes
        if (ended := _read(home / _supervise.ENDED)) is not None:
            return self._ended(home, ended)
        began = _read(home / _supervise.BEGAN)
        if alive:
            return Job("running", _told(home))
        if began is None:
            return Job("absent", "training was laid out, and has not begun")
        if str(began.get("host")).split(" ")[0] != _supervise.host().split(" ")[0]:
            return Job("lost", f"training began on {str(began.get('host')).split(' ')[0]}, and is not to be seen from here; see {home}")
        return Job("failed", f"training was cut short, with its supervisor or the whole machine; nobody saw how it ended{_last(home)}")

    def cancel(self, key: str) -> None:
        """Ends it: it is asked to, and killed with all of its group ten seconds later."""
        home = self._home(key)
        if home.is_dir() and not (home / _supervise.ENDED).exists():
            (home / _supervise.STOP).touch()

    def result(self, key: str) -> Manifest:
        """What it made, once what it was given is found to be what it was."""
        home = self._home(key)
        spec = asked(home)
        untouched(spec)
        return handed(home, spec)

    def close(self) -> None:
        """Nothing is held open; the work goes on."""

    def _home(self, key: str) -> Path:
        name = key.replace("/", "-")
        if not _KEY.fullmatch(name):
            raise TrainingError(f"{self._where}: {key!r:.80} names no piece of work")
        return self._jobs / name

    def _lay_out(self, home: Path, spec: Mapping[str, Json]) -> None:
        """The folder with what is asked, all at once: whoever is second leaves what the first has laid out."""
        draft = self._jobs / f".{home.name}.{secrets.token_hex(4)}"
        draft.mkdir(parents=True)
        try:
            _supervise.written(draft / SPEC, spec)
            with suppress(OSError):
                draft.rename(home)
            if not home.is_dir():
                raise FileNotFoundError(2, "no folder could be made", str(home))
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _begin(self, home: Path) -> None:
        program = [sys.executable, "-I", "-S", _supervise.__file__, str(home), str(self._at), f"{self._longest.total_seconds()}", *self._words]
        nothing = subprocess.DEVNULL
        done = subprocess.run(  # noqa: S603 - ours, and what the configuration names
            program,
            env={**self._env, JOB: str(home)},
            stdin=nothing,
            stdout=nothing,
            stderr=nothing,
            timeout=BEGINS,
            check=False,
            start_new_session=True,
        )
        if done.returncode:
            raise UnreachableError(f"{self._where}: the supervisor of {home} ended with exit status {done.returncode}; is there room on the disk?")

    def _ended(self, home: Path, ended: Mapping[str, Json]) -> Job:
        if ended.get("code") == 0 and not (home / _supervise.STOP).exists():
            return Job("succeeded", "training is done")
        return Job("failed", f"training failed: {ended.get('said')}{_last(home)}")


def _length(given: Json, where: str) -> timedelta:
    try:
        found = given if isinstance(given, timedelta) else duration(given) if isinstance(given, str) else timedelta(seconds=float(given))
    except (TypeError, ValueError, OverflowError) as problem:
        raise ConfigError(f"{where}: {given!r:.40} is no length of time; write 30m or 6h") from problem
    if found <= timedelta():
        raise ConfigError(f"{where}: {given!r:.40} is no length of time: it is not above 0")
    return found


def _read(path: Path) -> Mapping[str, Json] | None:
    """What the supervisor wrote; None while it has not."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as problem:
        raise UnreachableError(f"{path} cannot be read ({problem})") from problem
    return found if isinstance(found, Mapping) else {}


def _told(home: Path) -> str:
    """The progress it told last, in words."""
    with suppress(UnreachableError):
        if (told := _read(home / _supervise.TOLD)) is not None:
            return f"training, {float(told['done']):.0%}: {str(told.get('what', ''))[:TOLD]}"
    return "training"


def _last(home: Path) -> str:
    """The last it printed."""
    try:
        with (home / _supervise.LOG).open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - 4 * TOLD))
            said = log.read().decode("utf-8", "replace").strip()
    except OSError:
        return ""
    return f"; it last printed: {said[-TOLD:]}" if said else ""
