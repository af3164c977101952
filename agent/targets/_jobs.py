"""Folders of jobs: what trainers that are told of a job by its folder share, wherever the work itself is done."""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent import Json, Locator, Manifest, asked, handed, untouched
from agent.errors import TrainingError, UnreachableError
from agent.targets import _supervise

SPEC = "spec.json"
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class Jobs:
    """A folder with one for each job in it, by the job's key; `where` says in errors whose it is, `seen` where those who work see it."""

    folder: Path
    where: str
    seen: str = ""

    @classmethod
    def of(cls, at: Locator) -> Jobs:
        """By the options `folder` (jobs), which starts where the configuration lies, and `seen` (the same)."""
        folder = Path(at.folder, str(at.options.get("folder", "jobs"))).resolve()
        return cls(folder, f"{at.service}.{at.role}", str(at.options.get("seen") or folder).rstrip("/"))

    def home(self, key: str) -> Path:
        """The folder of a job; TrainingError for what is no key."""
        name = key.replace("/", "-")
        if not _KEY.fullmatch(name):
            raise TrainingError(f"{self.where}: {key!r:.80} names no piece of work")
        return self.folder / name

    def there(self, key: str) -> str:
        """The folder of a job, as those who work see it."""
        return f"{self.seen}/{self.home(key).name}"

    def mark(self, key: str) -> str:
        """A name that only this job has, among those of all agents: which folder of jobs is meant, and the key."""
        return f"watchkeeper-{hashlib.sha256(str(self.folder).encode()).hexdigest()[:12]}-{self.home(key).name}"

    def laid_out(self, spec: Mapping[str, Json], key: str) -> Path:
        """The folder with what is asked, all at once: whoever is second leaves what the first has laid out. UnreachableError where it cannot be."""
        home = self.home(key)
        draft = self.folder / f".{home.name}.{secrets.token_hex(4)}"
        try:
            if not home.is_dir():
                draft.mkdir(parents=True)
                _supervise.written(draft / SPEC, spec)
                with suppress(OSError):
                    draft.rename(home)
            if not home.is_dir():
                raise FileNotFoundError(2, "no folder could be made", str(home))
        except OSError as problem:
            raise UnreachableError(f"{self.where}: {home} could not be laid out ({problem.strerror or problem})") from problem
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return home

    def result(self, key: str) -> Manifest:
        """What was made, once what was given is found to be what it was."""
        home = self.home(key)
        spec = asked(home)
        untouched(spec)
        return handed(home, spec)
